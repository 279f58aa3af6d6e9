"""A file's rows with their scores, and what is made of them: streaming, resumable, shared out.

Scores are kept in a journal as they arrive; when all are there the rows are read once more, and
what a `Product` makes of each row and its scores is written.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from palate.data.sources.files import stem
from palate.evaluate.journal import Journal, Located, journal
from palate.evaluate.request import Request, Shape, is_parquet, requests
from palate.evaluate.share import ALONE, Share, journals
from palate.records import atomic, file_digest, read_header, write_json, write_table
from palate.types import Candidates, PalateError, Score, Scorer, digest

Progress = Callable[[int, int, str], None]
"""Called with (rows scored so far, rows in all, what there is to say or "")."""
Answer = list[list[Any]]
"""Of each response: reward or None, reason, truncated, tokens."""
Scored = Callable[[], Iterator[tuple[Request, Answer]]]
"""Goes through the rows and their scores, as often as it is called."""

ONE = {
    "reward": pa.float64(),
    "reward_reason": pa.string(),
    "reward_truncated": pa.bool_(),
    "reward_tokens": pa.int64(),
}
MANY = {name.replace("reward", "rewards"): pa.list_(kind) for name, kind in ONE.items()}
NOT_JSON = ("binary", "date", "time", "duration", "decimal")  # Names of Arrow types.


@dataclass(frozen=True, slots=True)
class Product:
    """What is made of rows and their scores.

    `rows` gives what is written, and may put facts (counts, a threshold) into the dict for the
    header. `added` names the columns that it adds to a Parquet file of the given columns.
    `settings` is all that may change what is written, besides the scorer and the input.
    """

    kind: str
    takes: tuple[Shape, ...]
    rows: Callable[[Scored, dict[str, Any]], Iterator[Mapping[str, Any]]]
    added: Callable[[pa.Schema], Mapping[str, pa.DataType]]
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])


def scored_file(
    scorer: Scorer | None,
    in_path: Path,
    out_path: Path,
    product: Product,
    *,
    progress: Progress | None = None,
    share: Share = ALONE,
) -> Path:
    """Score the rows of `in_path` and write what `product` makes of them to `out_path`.

    Without a scorer the rewards are those that the rows hold already.

    Raises:
        PalateError: a bad row, an unknown format, an output that is not ours to replace.
    """
    tell = _silent if progress is None else progress
    _check_paths(in_path, out_path)
    if is_parquet(out_path):
        _schema(in_path, product)
    total = sum(1 for _ in requests(in_path, product.takes))
    details = _details(scorer, in_path, product)
    fingerprint = details["protocol_fingerprint"]
    kept_path = out_path.with_name(f"{out_path.name}.{fingerprint[:12]}.journal.jsonl")
    if out_path.exists() and not journals(kept_path):
        if _standing(out_path, product.kind) == fingerprint:
            tell(total, total, "already scored")
            return out_path
        tell(0, total, "scored again: the scorer, the input or an option changed")
    rows = requests(in_path, product.takes)
    if scorer is not None:
        _score(scorer, share.part(rows, total), share, kept_path, fingerprint, total, tell)
    share.wait()
    if share.leads:
        with closing(Located(journals(kept_path), fingerprint, total)) as kept:
            answer = _of_row if scorer is None else lambda request: kept[request.index]
            _write(in_path, out_path, product, answer, details)
        for used in journals(kept_path):
            used.unlink()
    share.wait()
    return out_path


def beside(in_path: Path, made: str) -> Path:
    """The name in this folder of what is made of a file: NAME.MADE.jsonl, or .parquet of one."""
    return Path(f"{stem(in_path)}.{made}{'.parquet' if is_parquet(in_path) else '.jsonl'}")


def facts_of(path: Path, kind: str | None = None) -> dict[str, Any]:
    """What the header of a file that `scored_file` wrote says of it."""
    if is_parquet(path):
        return dict(read_header(path, kind).details)
    return dict(json.loads(_header_path(path).read_text(encoding="utf-8")))


def _silent(_done: int, _total: int, _note: str) -> None:
    """The progress of a run that nobody watches."""


def _details(scorer: Scorer | None, in_path: Path, product: Product) -> dict[str, Any]:
    name = "rewards of the input" if scorer is None else scorer.name
    identity = {} if scorer is None else scorer.protocol
    protocol = {"scorer": {"name": name, **identity}, "input": file_digest(in_path)}
    if product.settings:
        protocol["made"] = {"kind": product.kind, **product.settings}
    return {"scorer": name, "protocol": protocol, "protocol_fingerprint": digest(protocol)}


def _check_paths(in_path: Path, out_path: Path) -> None:
    if out_path.suffix not in (".jsonl", ".parquet"):
        raise PalateError(f"{out_path}: expected a name that ends in .jsonl or .parquet")
    if not in_path.is_file():
        raise PalateError(f"{in_path}: no such file")
    if in_path.resolve() == out_path.resolve():
        raise PalateError(f"{out_path}: the rewards would replace their input; name another file")
    if is_parquet(out_path) and not is_parquet(in_path):
        raise PalateError(
            f"{out_path}: only the rows of a Parquet file have fixed columns; name the output "
            ".jsonl, or give the input as Parquet"
        )


def _score(
    scorer: Scorer,
    rows: Iterator[Request],
    share: Share,
    kept_path: Path,
    fingerprint: str,
    total: int,
    tell: Progress,
) -> None:
    """Ask for what no journal holds yet and keep it in this process's own."""
    with closing(Located(journals(kept_path), fingerprint, total)) as known:
        before = len(known)
        if before:
            tell(before, total, f"continued: {before} rows were kept")
        missing = (request for request in rows if request.index not in known)
        with journal(share.journal(kept_path), fingerprint) as kept:
            _ask(scorer, missing, kept, lambda done: tell(before + done, total, ""))


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


def _of_row(request: Request) -> Answer:
    """The scores that a row brings with it."""
    columns = ONE if request.shape == "response" else MANY
    found = [request.row.get(name) for name in columns]
    if request.shape == "response":
        found = [[value] for value in found]
    count = len(request.candidates.responses)
    if not all(isinstance(values, list) and len(values) == count for values in found):
        raise PalateError(
            f"{request.where}: expected {', '.join(columns)}, as `palate score` writes them, one "
            "for each response; score the file first, or name a model before it"
        )
    return [[_reward(value, request), *rest] for value, *rest in zip(*found, strict=True)]


def _reward(value: object, request: Request) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise PalateError(f"{request.where}: reward {value!r}, expected a finite number or null")
    return float(value)


def _write(
    in_path: Path,
    out_path: Path,
    product: Product,
    answer: Callable[[Request], Answer],
    details: dict[str, Any],
) -> None:
    def scored() -> Iterator[tuple[Request, Answer]]:
        return ((request, answer(request)) for request in requests(in_path, product.takes))

    facts: dict[str, Any] = {}
    rows = product.rows(scored, facts)
    if is_parquet(out_path):
        inputs = {"input": details["protocol"]["input"]}
        schema = _schema(in_path, product)
        write_table(
            out_path, rows, schema, kind=product.kind, inputs=inputs,
            details=lambda: details | facts,
        )  # fmt: skip
        return
    with atomic(out_path) as partial, partial.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
    write_json(_header_path(out_path), {"kind": product.kind, **details, **facts})


def _schema(in_path: Path, product: Product) -> pa.Schema:
    schema = _arrow_schema(in_path)
    for column in schema:
        if any(word in str(column.type) for word in NOT_JSON):
            raise PalateError(
                f"{in_path}: column {column.name} holds {column.type}, which has no place in a "
                "score file; drop it or make it text"
            )
    added = product.added(schema)
    kept = [column for column in schema if column.name not in added]
    return pa.schema([*kept, *(pa.field(name, kind) for name, kind in added.items())])


def _arrow_schema(path: Path) -> pa.Schema:
    try:
        return pq.read_schema(path).remove_metadata()
    except (pa.ArrowInvalid, OSError) as error:
        reason = str(error).splitlines()[0]
        raise PalateError(f"{path}: not a whole Parquet file ({reason}); remake it") from None


def _standing(out_path: Path, kind: str) -> str:
    """The protocol fingerprint of the file at `out_path`; a foreign one is an error."""
    try:
        return str(facts_of(out_path, kind)["protocol_fingerprint"])
    except (PalateError, OSError, ValueError, KeyError):
        raise PalateError(
            f"{out_path}: exists and holds no {kind} of ours; name another or remove it"
        ) from None


def _header_path(out_path: Path) -> Path:
    return out_path.with_name(f"{out_path.name}.header.json")
