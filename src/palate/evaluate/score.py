"""Responses in, rewards out: `palate score` over JSONL or Parquet, streaming and resumable."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from palate.evaluate.journal import Journal, journal
from palate.evaluate.share import ALONE, Share, gathered, journals
from palate.records import atomic, file_digest, read_header, read_rows, write_json, write_table
from palate.types import ROLES, Candidates, Message, PalateError, Score, Scorer, digest

Progress = Callable[[int, int, str], None]
"""Called with (rows scored so far, rows in all, what there is to say or "")."""

ONE = {
    "reward": pa.float64(),
    "reward_reason": pa.string(),
    "reward_truncated": pa.bool_(),
    "reward_tokens": pa.int64(),
}
MANY = {name.replace("reward", "rewards"): pa.list_(kind) for name, kind in ONE.items()}
NOT_JSON = ("binary", "date", "time", "duration", "decimal")  # Names of Arrow types.


@dataclass(frozen=True, slots=True)
class Request:
    """One input row: where it stands, what to score, and the row itself."""

    index: int
    candidates: Candidates
    single: bool
    row: Mapping[str, Any]


def score_file(
    scorer: Scorer,
    in_path: Path,
    out_path: Path,
    *,
    progress: Progress | None = None,
    share: Share = ALONE,
) -> Path:
    """Score every row of `in_path` and write the rows with their rewards to `out_path`.

    A row has `prompt` (text, or a list of {role, content}) and `response` (text) or `responses`
    (list of texts); other columns pass through. Added are `reward`, `reward_reason`,
    `reward_truncated`, `reward_tokens`, or for lists `rewards`, `rewards_reason`, ... A response
    without a score has reward null and a reason. JSONL gives JSONL; Parquet gives Parquet or
    JSONL. The whole input is checked before the first row is scored; killed runs continue where
    they stopped. With `share`, several processes score a part each and end in the same file.

    Raises:
        PalateError: a bad row (with file and row), an unknown format, an output that is not a
            score file of ours.
    """
    tell = _silent if progress is None else progress
    _check_paths(in_path, out_path)
    if _is_parquet(out_path):
        _schema(in_path)
    total = sum(1 for _ in requests(in_path))
    if not total:
        raise PalateError(f"{in_path}: holds no rows to score")
    protocol = {"scorer": {"name": scorer.name, **scorer.protocol}, "input": file_digest(in_path)}
    fingerprint = digest(protocol)
    kept_path = out_path.with_name(f"{out_path.name}.{fingerprint[:12]}.journal.jsonl")
    if out_path.exists() and not journals(kept_path):
        if _standing(out_path) == fingerprint:
            tell(total, total, "already scored")
            return out_path
        tell(0, total, "scored again: the scorer or the input changed")
    known = gathered(kept_path, fingerprint)
    if known:
        tell(len(known), total, f"continued: {len(known)} rows were kept")
    rows = share.part(requests(in_path), total)
    missing = (request for request in rows if str(request.index) not in known)
    with journal(share.journal(kept_path), fingerprint) as kept:
        _ask(scorer, missing, kept, lambda done: tell(len(known) + done, total, ""))
    share.wait()
    details = {"scorer": scorer.name, "protocol": protocol, "protocol_fingerprint": fingerprint}
    if share.leads:
        _write(in_path, out_path, gathered(kept_path, fingerprint), details)
        for used in journals(kept_path):
            used.unlink()
    share.wait()
    return out_path


def _silent(_done: int, _total: int, _note: str) -> None:
    """The progress of a run that nobody watches."""


def requests(path: Path) -> Iterator[Request]:
    """The rows of a JSONL or Parquet file, validated, in bounded memory."""
    rows = enumerate(read_rows(path), 1) if _is_parquet(path) else _json_lines(path)
    for index, (number, row) in enumerate(rows):
        yield _request(index, row, f"{path}:{number}")


def _request(index: int, row: Mapping[str, Any], where: str) -> Request:
    prompt = row.get("prompt")
    if isinstance(prompt, str):
        messages: tuple[Message, ...] = (Message("user", prompt),)
    elif isinstance(prompt, list):
        messages = tuple(_message(turn, where) for turn in prompt)
    else:
        raise PalateError(
            f"{where}: expected `prompt` as text or a list of messages, got {_kind(prompt)}"
        )
    response, responses = row.get("response"), row.get("responses")
    if isinstance(response, str) and responses is None:
        return Request(index, Candidates(messages, (response,)), True, row)
    if isinstance(responses, list) and response is None and _all_text(responses):
        return Request(index, Candidates(messages, tuple(responses)), False, row)
    raise PalateError(
        f"{where}: expected either `response` (text) or `responses` (a list of texts), "
        f"got {_kind(response)} and {_kind(responses)}"
    )


def _message(turn: object, where: str) -> Message:
    if isinstance(turn, Mapping):
        role, content = turn.get("role"), turn.get("content")
        if role in ROLES and isinstance(content, str):
            return Message(role, content)
    raise PalateError(
        f"{where}: expected messages {{role, content}} with role one of {', '.join(ROLES)}"
    )


def _all_text(values: list[Any]) -> bool:
    return bool(values) and all(isinstance(value, str) for value in values)


def _kind(value: object) -> str:
    return "nothing" if value is None else type(value).__name__


def _json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, _json_object(line, f"{path}:{number}")
    except OSError as error:
        raise PalateError(f"{path}: cannot be read ({error.strerror or error})") from None


def _json_object(line: bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise PalateError(f"{where}: not JSON ({error}); expected one object a line") from None
    if not isinstance(value, dict):
        raise PalateError(f"{where}: expected an object with prompt and response")
    return value


def _check_paths(in_path: Path, out_path: Path) -> None:
    for path in (in_path, out_path):
        if path.suffix not in (".jsonl", ".parquet"):
            raise PalateError(f"{path}: expected a name that ends in .jsonl or .parquet")
    if not in_path.is_file():
        raise PalateError(f"{in_path}: no such file")
    if in_path.resolve() == out_path.resolve():
        raise PalateError(f"{out_path}: the rewards would replace their input; name another file")
    if _is_parquet(out_path) and not _is_parquet(in_path):
        raise PalateError(
            f"{out_path}: JSONL rows have no fixed columns; name the output .jsonl, "
            "or give the input as Parquet"
        )


def _ask(
    scorer: Scorer, missing: Iterator[Request], kept: Journal, tell: Callable[[int], None]
) -> None:
    asked: deque[Request] = deque()  # What the scorer has taken and not yet answered.

    def candidates() -> Iterator[Candidates]:
        for request in missing:
            asked.append(request)
            yield request.candidates

    for done, scores in enumerate(scorer.score(candidates()), 1):
        request = asked.popleft()
        if len(scores) != len(request.candidates.responses):
            raise PalateError(
                f"scorer {scorer.name}: gave {len(scores)} scores to "
                f"{len(request.candidates.responses)} responses of row {request.index + 1}"
            )
        kept.add(str(request.index), [_plain(score) for score in scores])
        tell(done)
    if asked:
        raise PalateError(f"scorer {scorer.name}: left {len(asked)} rows without an answer")


def _plain(score: Score) -> list[Any]:
    """(reward, reason, truncated, tokens) as JSON values."""
    if score.value is None:
        return [None, score.reason or "no reason given", score.truncated, score.tokens]
    if not math.isfinite(score.value):
        return [None, "non-finite", score.truncated, score.tokens]
    return [float(score.value), "", score.truncated, score.tokens]


def _write(
    in_path: Path, out_path: Path, answers: Mapping[str, Any], details: Mapping[str, Any]
) -> None:
    rows = (_rewarded(request, answers[str(request.index)]) for request in requests(in_path))
    if _is_parquet(out_path):
        inputs = {"input": details["protocol"]["input"]}
        schema = _schema(in_path)
        write_table(out_path, rows, schema, kind="scores", inputs=inputs, details=details)
        return
    with atomic(out_path) as partial, partial.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
    write_json(_header_path(out_path), {"kind": "scores", **details})


def _rewarded(request: Request, scores: list[list[Any]]) -> dict[str, Any]:
    if request.single:
        return {**request.row, **dict(zip(ONE, scores[0], strict=True))}
    columns = zip(*scores, strict=True)
    return {**request.row, **{name: list(c) for name, c in zip(MANY, columns, strict=True)}}


def _schema(in_path: Path) -> pa.Schema:
    schema = _arrow_schema(in_path)
    for field in schema:
        if any(word in str(field.type) for word in NOT_JSON):
            raise PalateError(
                f"{in_path}: column {field.name} holds {field.type}, which has no place in a "
                "score file; drop it or make it text"
            )
    added = ONE if "response" in schema.names else MANY
    kept = [field for field in schema if field.name not in added]
    return pa.schema([*kept, *(pa.field(name, kind) for name, kind in added.items())])


def _arrow_schema(path: Path) -> pa.Schema:
    try:
        return pq.read_schema(path).remove_metadata()
    except (pa.ArrowInvalid, OSError) as error:
        reason = str(error).splitlines()[0]
        raise PalateError(f"{path}: not a whole Parquet file ({reason}); remake it") from None


def _standing(out_path: Path) -> str:
    """The protocol fingerprint of the score file at `out_path`; a foreign file is an error."""
    try:
        if _is_parquet(out_path):
            return str(read_header(out_path, "scores").details["protocol_fingerprint"])
        header = json.loads(_header_path(out_path).read_text(encoding="utf-8"))
        return str(header["protocol_fingerprint"])
    except (PalateError, OSError, ValueError, KeyError):
        raise PalateError(
            f"{out_path}: exists and is not a score file of ours; name another or remove it"
        ) from None


def _header_path(out_path: Path) -> Path:
    return out_path.with_name(f"{out_path.name}.header.json")


def _is_parquet(path: Path) -> bool:
    return path.suffix == ".parquet"
