"""A file's rows with their scores: `palate score`, `palate rank` and `palate filter`.

Scores are kept in a journal as they arrive; when all are there the rows are read once more, and
what a `Product` makes of each row and its scores is written. Memory is 8 bytes a row.
"""

from __future__ import annotations

import json
import math
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from palate.data.messages import as_chat, unread_beside
from palate.data.sources import base, own
from palate.data.sources.base import BadRow, InvalidRecord
from palate.data.sources.files import read_file, stem
from palate.evaluate.journal import (
    ALONE,
    Progress,
    Shard,
    ask_missing,
    journal_path,
    journals,
    no_progress,
)
from palate.judges.scorer import NON_FINITE
from palate.records import atomic, file_digest, read_header, write_json, write_table
from palate.types import Candidates, Message, PalateError, Scorer, digest, is_text

# Rows of a file that ask for rewards: a prompt, and what was answered to it.

Shape = Literal["response", "responses", "pair"]
SHAPES: Mapping[Shape, str] = {
    "response": "`response` (text or a message)",
    "responses": "`responses` (a list of texts or messages)",
    "pair": "`chosen` and `rejected` (texts)",
}


@dataclass(frozen=True, slots=True)
class Request:
    """One input row: its place, what to score, the row, and its responses as it has them."""

    index: int
    where: str
    candidates: Candidates
    shape: Shape
    row: Mapping[str, Any]
    responses: tuple[Any, ...]


def requests(path: Path, takes: tuple[Shape, ...] = ("response", "responses")) -> Iterator[Request]:
    """The rows of a file in any format that `palate data import` takes, validated.

    Memory is bounded. A row has `prompt` (text, also with its turns marked inside, or a list of
    {role, content}) and one of the shapes in `takes`.

    Raises:
        PalateError: a row that has not, with file and row.
    """
    for index, record in enumerate(read_file(path)):
        if isinstance(record, BadRow):
            raise PalateError(str(record))
        where = f"{record.file}:{record.row}"
        try:
            yield _request(index, record.data, where, takes)
        except InvalidRecord as invalid:
            raise PalateError(f"{where}: {invalid.reason}") from None


def row_of(candidates: Candidates) -> dict[str, Any]:
    """The row of a file from which `requests` reads this prompt and these responses."""
    prompt = as_chat(candidates.prompt)
    return {
        "prompt": prompt.pop("messages"),
        **prompt,
        "responses": [
            text if is_text((), text) else as_chat([Message("assistant", text)])["messages"][0]
            for text in candidates.responses
        ],
    }


def _request(index: int, row: Mapping[str, Any], where: str, takes: tuple[Shape, ...]) -> Request:
    if row.get("prompt") is None and "pair" not in takes:
        raise InvalidRecord("expected `prompt` as text or a list of messages, got nothing")
    many = _as_list(row.get("responses")) or []
    has: Mapping[Shape, bool] = {
        "response": isinstance(row.get("response"), str | Mapping),
        "responses": bool(many) and all(isinstance(one, str | Mapping) for one in many),
        "pair": row.get("chosen") is not None and row.get("rejected") is not None,
    }
    shapes = [shape for shape in takes if has[shape]]
    if len(shapes) != 1:
        expected = " or ".join(SHAPES[shape] for shape in takes)
        columns = [c for s in takes for c in (["chosen", "rejected"] if s == "pair" else [s])]
        kinds = {name: type(row[name]).__name__ for name in columns if row.get(name) is not None}
        got = ", ".join(f"{name} {kinds.get(name, 'nothing')}" for name in columns)
        either = "either " if len(takes) > 1 else ""
        raise InvalidRecord(f"expected {either}{expected}, got {got}")
    (shape,) = shapes
    if shape == "pair":
        prompt, *sides = own.sides(row)[:3]
        return Request(index, where, Candidates(prompt, tuple(sides)), shape, row, tuple(sides))
    if reason := unread_beside(row):
        raise InvalidRecord(reason)
    prompt_read = base.prompt(row)
    given = tuple(many) if shape == "responses" else (row["response"],)
    answers = tuple(base.answer(one, shape, prompt_read) for one in given)
    turns = (*base.tools(row), *prompt_read.turns)
    return Request(index, where, Candidates(turns, answers), shape, row, given)


def _as_list(value: Any) -> list[Any] | None:
    """A list, also as the JSON that a format without lists, such as CSV, holds of it."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, list) else None


# What is made of the rows of a file and their scores.

Scores = list[list[Any]]
"""Of each response: reward or None, reason, truncated, tokens; its attributes, by name, where the
scorer has heads of some or members; and what each member of an ensemble says."""
ScoredRows = Callable[[], Iterator[tuple[Request, Scores]]]
"""Goes through the rows and their scores, as often as it is called."""

ONE = {
    "reward": pa.float64(),
    "reward_reason": pa.string(),
    "reward_truncated": pa.bool_(),
    "reward_tokens": pa.int64(),
}
PAIR = {"chosen_reward": pa.float64(), "rejected_reward": pa.float64()}
ATTRIBUTES, MEMBERS = "reward_attributes", "reward_members"
OF_ENSEMBLE = {
    "reward_std": pa.float64(),
    "reward_low": pa.float64(),
    "reward_high": pa.float64(),
    MEMBERS: pa.list_(pa.float64()),
}
ORDER = {"rewards_order": pa.list_(pa.int64())}
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
    rows: Callable[[ScoredRows, dict[str, Any]], Iterator[Mapping[str, Any]]]
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
    progress = no_progress if progress is None else progress
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
    schema = _schema(in_path, product) if is_parquet(out_path) else None
    total = sum(1 for _ in requests(in_path, product.takes))

    name = "rewards of the input" if scorer is None else scorer.name
    identity = {} if scorer is None else scorer.protocol
    protocol: dict[str, Any] = {
        "scorer": {"name": name, **identity},
        "input": file_digest(in_path),
    }
    if product.settings:
        protocol["made"] = {"kind": product.kind, **product.settings}
    fingerprint = digest(protocol)
    details = {"scorer": name, "protocol": protocol, "protocol_fingerprint": fingerprint}

    journal = journal_path(out_path, fingerprint)
    # Where there are journals, the last run was killed before or while it wrote `out_path`.
    if out_path.exists() and not journals(journal):
        try:
            current = facts_of(out_path, product.kind)["protocol_fingerprint"] == fingerprint
        except (PalateError, OSError, ValueError, KeyError):
            raise PalateError(
                f"{out_path}: exists and holds no {product.kind} of ours; name another or remove it"
            ) from None
        if current:
            progress(total, total, "already scored")
            return out_path
        progress(0, total, "scored again: the scorer, the input or an option changed")

    def write(scores_of: Callable[[Request], Scores]) -> None:
        def scored() -> Iterator[tuple[Request, Scores]]:
            return ((row, scores_of(row)) for row in requests(in_path, product.takes))

        facts: dict[str, Any] = {}
        rows = product.rows(scored, facts)
        if schema is not None:
            write_table(
                out_path, rows, schema, kind=product.kind, inputs={"input": protocol["input"]},
                details=lambda: details | facts,
            )  # fmt: skip
            return
        with atomic(out_path) as partial, partial.open("w", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
        write_json(_header_path(out_path), {"kind": product.kind, **details, **facts})

    if scorer is None:
        share.together(lambda: write(_scores_in_row) if share.leads else None)
        return out_path
    ask_missing(
        journal,
        fingerprint,
        requests(in_path, product.takes),
        lambda request: str(request.index),
        lambda missing: _ask(scorer, missing),
        lambda answers: write(lambda request: answers[str(request.index)]),
        total=total,
        rows=total,
        progress=progress,
        shard=share,
    )
    return out_path


def _ask(scorer: Scorer, missing: Iterator[Request]) -> Iterator[tuple[str, Scores]]:
    waiting: deque[Request] = deque()  # What the scorer has taken and not yet answered.

    def candidates() -> Iterator[Candidates]:
        for request in missing:
            waiting.append(request)
            yield request.candidates

    for scores in scorer.score(candidates()):
        request = waiting.popleft()
        if len(scores) != len(request.candidates.responses):
            raise PalateError(
                f"scorer {scorer.name}: gave {len(scores)} scores to "
                f"{len(request.candidates.responses)} responses of row {request.index + 1}"
            )
        answer: Scores = []
        for score in scores:
            value, reason = score.value, ""
            if value is None:
                reason = score.reason or "no reason given"
            elif not math.isfinite(value):
                value, reason = None, NON_FINITE
            plain = None if value is None else float(value)  # Numbers of numpy are no JSON.
            said: list[Any] = []
            if plain is not None and (score.attributes or score.members):
                said = [dict(score.attributes), *([list(score.members)] if score.members else [])]
            answer.append([plain, reason, score.truncated, score.tokens, *said])
        yield str(request.index), answer
    if waiting:
        raise PalateError(f"scorer {scorer.name}: left {len(waiting)} rows without an answer")


def _scores_in_row(request: Request) -> Scores:
    """The scores that a row brings with it."""
    many = request.shape == "responses"
    columns = PLAIN.kinds(many=many)
    values = [request.row.get(name) for name in columns]
    if not many:
        values = [[value] for value in values]
    count = len(request.candidates.responses)
    if not all(isinstance(column, list) and len(column) == count for column in values):
        raise PalateError(
            f"{request.where}: expected {', '.join(columns)}, as `palate score` writes them, one "
            "for each response; score the file first, or name a model before it"
        )
    scores = [list(score) for score in zip(*values, strict=True)]
    for score in scores:
        reward = score[0]
        if reward is None:
            continue
        number = isinstance(reward, int | float) and not isinstance(reward, bool)
        if not number or not math.isfinite(reward):
            raise PalateError(
                f"{request.where}: reward {reward!r}, expected a finite number or null"
            )
        score[0] = float(reward)
    return scores


def is_parquet(path: Path) -> bool:
    """Whether the name says Parquet; all else is JSON lines."""
    return path.suffix == ".parquet"


def beside(in_path: Path, made: str) -> Path:
    """The name in this folder of what is made of a file: NAME.MADE.jsonl, or .parquet of one."""
    return Path(f"{stem(in_path)}.{made}{'.parquet' if is_parquet(in_path) else '.jsonl'}")


def facts_of(path: Path, kind: str | None = None) -> dict[str, Any]:
    """What the header of a file that `scored_file` wrote holds."""
    if is_parquet(path):
        return dict(read_header(path, kind).details)
    return dict(json.loads(_header_path(path).read_text(encoding="utf-8")))


def _header_path(out_path: Path) -> Path:
    return out_path.with_name(f"{out_path.name}.header.json")


def _schema(in_path: Path, product: Product) -> pa.Schema:
    """The columns of a Parquet output; a column that JSON cannot hold is an error."""
    try:
        schema = pq.read_schema(in_path).remove_metadata()
    except (pa.ArrowInvalid, OSError) as error:
        reason = str(error).splitlines()[0]
        raise PalateError(f"{in_path}: not a whole Parquet file ({reason}); remake it") from None
    for column in schema:
        if any(word in str(column.type) for word in NOT_JSON):
            raise PalateError(
                f"{in_path}: column {column.name} holds {column.type}, which has no place in a "
                "score file; drop it or make it text"
            )
    added = product.added(schema)
    kept = [column for column in schema if column.name not in added]
    return pa.schema([*kept, *(pa.field(name, kind) for name, kind in added.items())])


@dataclass(frozen=True, slots=True)
class ScoreColumns:
    """What each response gets: its reward, and what the scorer says beside it: attributes that it
    has heads of, an ensemble's spread. Of a row with several, `rewards_...` holds lists."""

    attributes: tuple[str, ...] = ()
    ensemble: bool = False

    @classmethod
    def of(cls, scorer: Scorer | None) -> ScoreColumns:
        """As the scorer has it."""
        return cls(tuple(getattr(scorer, "attributes", ())), getattr(scorer, "members", 1) > 1)

    def kinds(self, *, many: bool) -> dict[str, pa.DataType]:
        """The columns with their kinds, of one response or of several."""
        columns = dict(ONE)
        if self.attributes:
            columns[ATTRIBUTES] = pa.struct([(name, pa.float64()) for name in self.attributes])
        if self.ensemble:
            columns |= OF_ENSEMBLE
        if not many:
            return columns
        return {_of_many(name): pa.list_(kind) for name, kind in columns.items()}

    def values(self, score: Sequence[Any]) -> list[Any]:
        """A response's values, in the order of the columns."""
        values = list(score[: len(ONE)])
        attributes, members = [*score[len(ONE) :], None, None][:2]
        if self.attributes:
            values.append(attributes)
        if self.ensemble:
            values += _spread(values[0], members) if members else [None] * len(OF_ENSEMBLE)
        return values


def _spread(reward: float, members: Sequence[float]) -> list[Any]:
    """The columns of an ensemble: standard deviation, 90 % interval, what each member says."""
    from palate.stats import member_interval  # SciPy; of an ensemble alone.

    std = float(np.std(members, ddof=1))
    return [std, *member_interval(reward, std, len(members)), list(members)]


def _of_many(name: str) -> str:
    """The column of a row with several responses that holds what `name` holds of one."""
    return name.replace("reward", "rewards")


PLAIN = ScoreColumns()
BESIDE_MANY = tuple(_of_many(name) for name in (ATTRIBUTES, *OF_ENSEMBLE))


def _with_rewards(
    request: Request,
    scores: Scores,
    places: Sequence[int] | None = None,
    columns: ScoreColumns = PLAIN,
) -> dict[str, Any]:
    """The row with its rewards; with `places`, of the responses at those, in that order."""
    if request.shape == "pair":
        return {**request.row, **dict(zip(PAIR, (score[0] for score in scores), strict=True))}
    many = request.shape == "responses"
    names, values = columns.kinds(many=many), [columns.values(score) for score in scores]
    if not many:
        return {**request.row, **dict(zip(names, values[0], strict=True))}
    row = dict(request.row)
    if places is not None:
        values = [values[place] for place in places]
        row["responses"] = [request.responses[place] for place in places]
        row["rewards_order"] = list(places)
        for name in BESIDE_MANY:  # Of rewards that the row brings with it.
            held = row.get(name)
            if isinstance(held, list) and len(held) == len(scores):
                row[name] = [held[place] for place in places]
    return {**row, **dict(zip(names, map(list, zip(*values, strict=True)), strict=True))}


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
    `reward_truncated`, `reward_tokens`, or for lists `rewards`, `rewards_reason`, ...; of a scorer
    with heads of attributes `reward_attributes` too, an object with a number for each; of an
    ensemble `reward_std`, the ends `reward_low` and `reward_high` of a 90 % interval
    (`stats.member_interval`), and `reward_members`, what each member says. A response without a
    score has reward null and a reason. JSONL gives JSONL; Parquet gives Parquet or JSONL. The whole
    input is checked before the first row is scored; killed runs continue where
    they stopped. With `share`, several processes score a part each and end in the same file.
    Memory is 8 bytes a row, whatever the rows hold.

    Raises:
        PalateError: a bad row (with file and row), an unknown format, an output that is not a
            score file of ours.
    """
    columns = ScoreColumns.of(scorer)
    product = Product(
        "scores",
        ("response", "responses"),
        lambda scored, _: (
            _with_rewards(request, scores, columns=columns) for request, scores in scored()
        ),
        lambda schema: columns.kinds(many="response" not in schema.names),
    )
    return scored_file(scorer, in_path, out_path, product, progress=progress, share=share)


# The best responses of each prompt, and rows good enough to keep. Both score a file as
# `score_file` does, or take the rewards that it holds already.

On = Literal["chosen", "margin"]


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
            got = "none" if self.min_reward is None else "both"
            raise PalateError(f"expected one of --min-reward and --top-percent, got {got}")
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
    deviations: float = 0.0,
    progress: Progress | None = None,
    share: Shard = ALONE,
) -> Path:
    """Order the responses of each row of `in_path` by reward, best first, into `out_path`.

    With `deviations` above 0 by the reward less so many standard deviations of an ensemble's
    members (`stats.lower_bounds`), so that what they disagree on comes later.

    A row has `prompt` and `responses`; added are `rewards`, `rewards_reason`,
    `rewards_truncated`, `rewards_tokens` in the new order, and `rewards_order`: where each
    response stood before, from 0. Equal rewards keep their order; responses without a score come
    last. `top` keeps the best that many scored ones and drops rows that have none. Without a
    scorer the rows must hold rewards. Streams, resumes and shares out as `score_file`.

    Raises:
        PalateError: `top` below 1; `deviations` that are no number from 0 on, or asked of what is
            no ensemble; and what `score_file` raises.
    """
    if top is not None and top < 1:
        raise PalateError(f"top {top}: expected at least 1 response a prompt")
    if not 0 <= deviations < math.inf:
        raise PalateError(f"lower bound {deviations}: expected a number of standard deviations")
    columns = ScoreColumns(ensemble=ScoreColumns.of(scorer).ensemble)
    if deviations and scorer is not None and not columns.ensemble:
        raise PalateError(
            f"{scorer.name}: a single model, which does not say how sure it is; --lower-bound "
            "needs an ensemble, as train.ensemble makes one"
        )

    def rows(scored: ScoredRows, facts: dict[str, Any]) -> Iterator[Mapping[str, Any]]:
        facts |= {"rows": 0, "kept": 0}
        for request, scores in scored():
            facts["rows"] += 1
            figures = (
                _lowered(request, scores, deviations) if deviations else [s[0] for s in scores]
            )
            rewards = [-math.inf if figure is None else figure for figure in figures]
            # Stable, also in reverse: equal rewards keep their order.
            places = sorted(range(len(scores)), key=rewards.__getitem__, reverse=True)
            if top is not None:
                places = [place for place in places if scores[place][0] is not None][:top]
            if places:
                facts["kept"] += 1
                yield _with_rewards(request, scores, places, columns)

    product = Product(
        "ranking",
        ("responses",),
        rows,
        lambda _: {**columns.kinds(many=True), **ORDER},
        {"top": top} | ({"deviations": deviations} if deviations else {}),
    )
    return scored_file(scorer, in_path, out_path, product, progress=progress, share=share)


def _lowered(request: Request, scores: Scores, deviations: float) -> list[float | None]:
    """The lower bound of each response's reward, by what the ensemble's members say of all."""
    from palate.stats import lower_bounds

    held = request.row.get(_of_many(MEMBERS))
    held = held if isinstance(held, list) and len(held) == len(scores) else [None] * len(scores)
    both = zip(scores, held, strict=True)
    said = [score[-1] if len(score) > len(ONE) + 1 else own for score, own in both]
    scored = [place for place, score in enumerate(scores) if score[0] is not None]
    members = [said[place] for place in scored]
    sizes = {len(values) if isinstance(values, list) else 0 for values in members}
    if members and (len(sizes) > 1 or min(sizes) < 2):
        raise PalateError(
            f"{request.where}: --lower-bound needs `rewards_members` of each response, as `palate "
            "score` writes them of an ensemble; score the file with one, or name one before it"
        )
    figures: list[float | None] = [None] * len(scores)
    if members:
        for place, figure in zip(scored, lower_bounds(members, deviations).tolist(), strict=True):
            figures[place] = figure
    return figures


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

    def rows(scored: ScoredRows, facts: dict[str, Any]) -> Iterator[Mapping[str, Any]]:
        threshold = _threshold(scored, bar)
        facts |= {"threshold": threshold, "rows": 0, "kept": 0, "unscored": 0}
        for request, scores in scored():
            figures = _figures(request, scores, bar.on)
            places = [i for i, f in enumerate(figures) if f is not None and f >= threshold]
            facts["rows"] += 1
            facts["unscored"] += figures.count(None)
            if places:
                facts["kept"] += 1
                yield _with_rewards(request, scores, places)

    def added(schema: pa.Schema) -> Mapping[str, pa.DataType]:
        if "response" in schema.names:
            return ONE
        return {**PLAIN.kinds(many=True), **ORDER} if "responses" in schema.names else PAIR

    kind = "selection"
    if is_parquet(in_path) and is_parquet(out_path):
        with suppress(PalateError):  # A table of the user's own.
            if read_header(in_path).kind == "comparisons":
                kind = "comparisons"
    takes: tuple[Shape, ...] = ("response", "responses", "pair")
    settings = {name: value for name, value in asdict(bar).items() if value is not None}
    product = Product(kind, takes[:2] if scorer is None else takes, rows, added, settings)
    return scored_file(scorer, in_path, out_path, product, progress=progress, share=share)


def _threshold(scored: ScoredRows, bar: Bar) -> float:
    """The least figure that reaches the bar; to find a top percent's takes 8 bytes a response."""
    if bar.min_reward is not None:
        return bar.min_reward
    assert bar.top_percent is not None
    figures = array("d")
    for request, scores in scored():
        figures.extend(f for f in _figures(request, scores, bar.on) if f is not None)
    if not figures:
        raise PalateError("no response has a score, so there is no top of them")
    values = np.frombuffer(figures)
    below = len(values) - math.ceil(len(values) * bar.top_percent / 100)
    return float(np.partition(values, below)[below])


def _figures(request: Request, scores: Scores, on: On) -> list[float | None]:
    """What is put to the bar: a figure of each response, or the one of a comparison."""
    rewards = [score[0] for score in scores]
    if request.shape != "pair":
        return rewards
    chosen, rejected = rewards
    if on == "chosen" or chosen is None:
        return [chosen]
    return [None if rejected is None else chosen - rejected]
