"""A file's rows with their scores, and what is made of them: streaming, resumable, shared out.

Scores are kept in a journal as they arrive; when all are there the rows are read once more, and
what a `Product` makes of each row and its scores is written.
"""

from __future__ import annotations

import json
import math
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from palate.data.messages import unread_beside
from palate.data.sources import base, own
from palate.data.sources.base import BadRow, Unfit
from palate.data.sources.files import read_file, stem
from palate.evaluate.journal import ALONE, Journal, Located, Shard, journal, journals
from palate.records import atomic, file_digest, read_header, write_json, write_table
from palate.types import Candidates, PalateError, Score, Scorer, digest

__all__ = [
    "Progress",
    "Request",
    "requests",
    "score_file",
]


# Rows of a file that ask for rewards: a prompt, and what was answered to it.

Shape = Literal["response", "responses", "pair"]
SHAPES: Mapping[Shape, str] = {
    "response": "`response` (text)",
    "responses": "`responses` (a list of texts)",
    "pair": "`chosen` and `rejected` (texts)",
}


@dataclass(frozen=True, slots=True)
class Request:
    """One input row: where it stands, what to score, the row, and its responses as it has them."""

    index: int
    where: str
    candidates: Candidates
    shape: Shape
    row: Mapping[str, Any]
    responses: tuple[str, ...]


def requests(path: Path, takes: tuple[Shape, ...] = ("response", "responses")) -> Iterator[Request]:
    """The rows of a file in any format that `palate data import` takes, validated.

    Memory is bounded, but for a JSON array, which is read whole. A row has `prompt` (text, also
    with its turns marked inside, or a list of {role, content}) and one of the shapes in `takes`.

    Raises:
        PalateError: a row that has not, with file and row.
    """
    for index, record in enumerate(read_file(path)):
        if isinstance(record, BadRow):
            raise PalateError(str(record))
        where = f"{record.file}:{record.row}"
        try:
            yield _request(index, record.data, where, takes)
        except Unfit as unfit:
            raise PalateError(f"{where}: {unfit.reason}") from None


def is_parquet(path: Path) -> bool:
    """Whether the name says Parquet; all else is JSON lines."""
    return path.suffix == ".parquet"


def _request(index: int, row: Mapping[str, Any], where: str, takes: tuple[Shape, ...]) -> Request:
    if row.get("prompt") is None and "pair" not in takes:
        raise Unfit("expected `prompt` as text or a list of messages, got nothing")
    found = [shape for shape in takes if _holds(row, shape)]
    if len(found) != 1:
        expected = " or ".join(SHAPES[shape] for shape in takes)
        got = ", ".join(f"{name} {_kind(row.get(name))}" for name in _columns(takes))
        either = "either " if len(takes) > 1 else ""
        raise Unfit(f"expected {either}{expected}, got {got}")
    (shape,) = found
    if shape == "pair":
        prompt, *sides = own.sides(row)[:3]
        return Request(index, where, Candidates(prompt, tuple(sides)), shape, row, tuple(sides))
    if reason := unread_beside(row):
        raise Unfit(reason)
    asked = base.prompt(row)
    given = tuple(_listed(row["responses"]) or ()) if shape == "responses" else (row["response"],)
    answers = tuple(asked.reply(base.as_text(text, shape)) for text in given)
    return Request(index, where, Candidates(asked.turns, answers), shape, row, given)


def _holds(row: Mapping[str, Any], shape: Shape) -> bool:
    """Whether the row has that shape."""
    if shape == "response":
        return isinstance(row.get("response"), str)
    if shape == "pair":
        return row.get("chosen") is not None and row.get("rejected") is not None
    many = _listed(row.get("responses"))
    return bool(many) and all(isinstance(text, str) for text in many or ())


def _listed(value: Any) -> list[Any] | None:
    """A list, also as the JSON that a format without lists, such as CSV, holds of it."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, list) else None


def _columns(takes: tuple[Shape, ...]) -> list[str]:
    return [
        name for shape in takes for name in (["chosen", "rejected"] if shape == "pair" else [shape])
    ]


def _kind(value: object) -> str:
    return "nothing" if value is None else type(value).__name__


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
    share: Shard = ALONE,
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
    share: Shard,
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


# Responses in, rewards out: `palate score` over JSONL or Parquet, streaming and resumable.


def score_file(
    scorer: Scorer,
    in_path: Path,
    out_path: Path,
    *,
    progress: Progress | None = None,
    share: Shard = ALONE,
) -> Path:
    """Score every row of `in_path` and write the rows with their rewards to `out_path`.

    A row has `prompt` (text, or a list of {role, content}) and `response` (text) or `responses`
    (list of texts); other columns pass through. Added are `reward`, `reward_reason`,
    `reward_truncated`, `reward_tokens`, or for lists `rewards`, `rewards_reason`, ... A response
    without a score has reward null and a reason. JSONL gives JSONL; Parquet gives Parquet or
    JSONL. The whole input is checked before the first row is scored; killed runs continue where
    they stopped. With `share`, several processes score a part each and end in the same file.
    Memory is 8 bytes a row, whatever the rows hold.

    Raises:
        PalateError: a bad row (with file and row), an unknown format, an output that is not a
            score file of ours.
    """
    return scored_file(scorer, in_path, out_path, SCORES, progress=progress, share=share)


def _rows(scored: Scored, _facts: dict[str, Any]) -> Iterator[Mapping[str, Any]]:
    for request, scores in scored():
        if request.shape == "response":
            yield {**request.row, **dict(zip(ONE, scores[0], strict=True))}
            continue
        columns = zip(*scores, strict=True)
        yield {**request.row, **{name: list(c) for name, c in zip(MANY, columns, strict=True)}}


def _score_columns(schema: pa.Schema) -> Mapping[str, pa.DataType]:
    return ONE if "response" in schema.names else MANY


SCORES = Product("scores", ("response", "responses"), _rows, _score_columns)


# The best responses of each prompt, and rows good enough to keep: `palate rank`, `palate filter`.
#
# Both score a file as `palate score` does, or take the rewards that it holds already.

On = Literal["chosen", "margin"]
RANKING, SELECTION, COMPARISONS = "ranking", "selection", "comparisons"
MANY_ORDERED = {**MANY, "rewards_order": pa.list_(pa.int64())}
PAIR = {"chosen_reward": pa.float64(), "rejected_reward": pa.float64()}


@dataclass(frozen=True, slots=True)
class Bar:
    """What a row must reach: `min_reward`, or to be among the `top_percent` of all that is scored.

    Of comparisons it is put to the reward of the chosen response, or to the margin by which it
    is above the rejected one's.
    """

    min_reward: float | None = None
    top_percent: float | None = None
    on: On = "chosen"

    def __post_init__(self) -> None:
        if (self.min_reward is None) == (self.top_percent is None):
            raise PalateError("expected either a least reward or a top percent, one of the two")
        if self.min_reward is not None and not math.isfinite(self.min_reward):
            raise PalateError(f"least reward {self.min_reward}: expected a finite number")
        if self.top_percent is not None and not 0 < self.top_percent <= 100:
            raise PalateError(f"top percent {self.top_percent}: expected more than 0, at most 100")


def rank_file(
    scorer: Scorer | None,
    in_path: Path,
    out_path: Path,
    *,
    top: int | None = None,
    progress: Progress | None = None,
    share: Shard = ALONE,
) -> Path:
    """Order the responses of each row of `in_path` by reward, best first, into `out_path`.

    A row has `prompt` and `responses`; added are `rewards`, `rewards_reason`,
    `rewards_truncated`, `rewards_tokens` in the new order, and `rewards_order`: where each
    response stood before, from 0. Equal rewards keep their order; responses without a score come
    last. `top` keeps the best that many scored ones and drops rows that have none. Without a
    scorer the rows must hold rewards. Streams, resumes and shares out as `score_file`.

    Raises:
        PalateError: `top` below 1, and what `score_file` raises.
    """
    if top is not None and top < 1:
        raise PalateError(f"top {top}: expected at least 1 response a prompt")

    def rows(scored: Scored, facts: dict[str, Any]) -> Iterator[Mapping[str, Any]]:
        facts |= {"rows": 0, "kept": 0}
        for request, answer in scored():
            facts["rows"] += 1
            order = sorted(range(len(answer)), key=lambda i: _worst_first(answer[i]), reverse=True)
            if top is not None:
                order = [i for i in order if answer[i][0] is not None][:top]
            if order:
                facts["kept"] += 1
                yield _ordered(request, answer, order)

    product = Product(RANKING, ("responses",), rows, lambda _: MANY_ORDERED, {"top": top})
    return scored_file(scorer, in_path, out_path, product, progress=progress, share=share)


def filter_file(
    scorer: Scorer | None,
    in_path: Path,
    out_path: Path,
    bar: Bar,
    *,
    progress: Progress | None = None,
    share: Shard = ALONE,
) -> Path:
    """Write the rows of `in_path` that reach the `bar`, with their rewards, to `out_path`.

    A row has `prompt` and `response`, or `responses`, of which those that reach the bar are kept,
    or `chosen` and `rejected`; a Parquet file of comparisons gives one. With `top_percent` the
    threshold is the k-th best of the N scored ones, k = ceil(N top_percent / 100), and what
    equals it is kept too. What has no score is dropped and counted. Without a scorer the rows
    must hold rewards.

    Raises:
        PalateError: nothing has a score, and what `score_file` raises.
    """

    def rows(scored: Scored, facts: dict[str, Any]) -> Iterator[Mapping[str, Any]]:
        threshold = _threshold(scored, bar)
        facts |= {"threshold": threshold, "rows": 0, "kept": 0, "unscored": 0}
        for request, answer in scored():
            figures = _figures(request, answer, bar.on)
            good = [i for i, f in enumerate(figures) if f is not None and f >= threshold]
            facts["rows"] += 1
            facts["unscored"] += figures.count(None)
            if good:
                facts["kept"] += 1
                yield _kept(request, answer, good)

    takes: tuple[Shape, ...] = ("response", "responses", "pair")
    kind = COMPARISONS if _holds_comparisons(in_path) and is_parquet(out_path) else SELECTION
    settings = {name: value for name, value in asdict(bar).items() if value is not None}
    product = Product(kind, takes[:2] if scorer is None else takes, rows, _ranked_columns, settings)
    return scored_file(scorer, in_path, out_path, product, progress=progress, share=share)


def _holds_comparisons(path: Path) -> bool:
    try:
        return is_parquet(path) and read_header(path).kind == COMPARISONS
    except PalateError:
        return False  # A table of the user's own.


def _threshold(scored: Scored, bar: Bar) -> float:
    """The least figure that reaches the bar; to find a top percent's takes 8 bytes a response."""
    if bar.min_reward is not None:
        return bar.min_reward
    assert bar.top_percent is not None
    figures = array("d")
    for request, answer in scored():
        figures.extend(f for f in _figures(request, answer, bar.on) if f is not None)
    if not figures:
        raise PalateError("no response has a score, so there is no top of them")
    values = np.frombuffer(figures)
    below = len(values) - math.ceil(len(values) * bar.top_percent / 100)
    return float(np.partition(values, below)[below])


def _figures(request: Request, answer: Answer, on: On) -> list[float | None]:
    """What is put to the bar: a figure of each response, or the one of a comparison."""
    rewards = [score[0] for score in answer]
    if request.shape != "pair":
        return rewards
    chosen, rejected = rewards
    if on == "chosen" or chosen is None:
        return [chosen]
    return [None if rejected is None else chosen - rejected]


def _kept(request: Request, answer: Answer, good: Sequence[int]) -> dict[str, Any]:
    if request.shape == "responses":
        return _ordered(request, answer, good)
    if request.shape == "response":
        return {**request.row, **dict(zip(ONE, answer[0], strict=True))}
    rewards = (score[0] for score in answer)
    return {**request.row, **dict(zip(PAIR, rewards, strict=True))}


def _ordered(request: Request, answer: Answer, order: Sequence[int]) -> dict[str, Any]:
    """The row with the responses at those places, in that order."""
    columns = zip(*(answer[i] for i in order), strict=True)
    return {
        **request.row,
        "responses": [request.responses[i] for i in order],
        **{name: list(values) for name, values in zip(MANY, columns, strict=True)},
        "rewards_order": list(order),
    }


def _worst_first(score: Sequence[Any]) -> float:
    return -math.inf if score[0] is None else float(score[0])


def _ranked_columns(schema: pa.Schema) -> Mapping[str, pa.DataType]:
    if "response" in schema.names:
        return ONE
    return MANY_ORDERED if "responses" in schema.names else PAIR
