"""Comparisons in memory: of a frame, a `datasets.Dataset`, a file or a source; and back."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from palate.data.messages import as_chat, shown, without_filled
from palate.data.sources import (
    SOURCES,
    BadRow,
    Request,
    base,
    not_read,
    open_source,
    own,
    read,
    source_named,
    without_ties,
    worst,
)
from palate.data.sources.base import InvalidRecord, Record, Records, Row, each
from palate.data.sources.files import DATA_VARIABLE, ending, has_filled_arguments, locate
from palate.data.sources.layouts import PLAIN
from palate.data.sources.mapping import Reading, check
from palate.data.sources.mapping import words as worded
from palate.progress import warn
from palate.records import (
    COMPARISON_SCHEMA,
    LATER_COLUMNS,
    attributes_of,
    comparison_to_row,
    write_comparisons,
)
from palate.types import (
    PREFERRED,
    Comparison,
    Judgement,
    Message,
    PalateError,
    Ranks,
    is_text,
    parts_of,
)

if TYPE_CHECKING:
    import datasets
    import pandas

    from palate.data.annotators import Rule

PALATE_COLUMNS = frozenset(COMPARISON_SCHEMA.names) - LATER_COLUMNS
IN_MEMORY = "rows"  # The name of rows of no file, in `meta`.


def load_comparisons(
    source: str | Path | Iterable[Mapping[str, Any]] | pandas.DataFrame,
    *,
    split: str | None = None,
    subset: str | None = None,
    options: Mapping[str, Any] | None = None,
    ties: Literal["skip", "keep"] = "skip",
    annotators: Rule = "separate",
    columns: Mapping[str, str] | None = None,
    values: Mapping[Any, Any] | None = None,
    attributes: Mapping[str, tuple[float, float]] | None = None,
    data: str | Path | None = None,
    max_bad_share: float = 0.01,
    on_bad: Callable[[BadRow], object] | None = None,
) -> list[Comparison]:
    """Human comparisons from wherever they are, in order.

    ```python
    load_comparisons(frame)                         # a pandas.DataFrame
    load_comparisons(dataset)                       # a datasets.Dataset, or any iterable of dicts
    load_comparisons("week-1.jsonl")                # JSONL, JSON, CSV, TSV, Parquet, .gz; a folder
    load_comparisons("anthropic-hh", subset="helpful-base", split="test")   # a source's name
    load_comparisons("me/my-preferences")           # a data set of the hub
    load_comparisons(                               # columns of other names, and who won as a word
        "votes.csv",
        columns={
            "prompt": "question",
            "response_a": "left answer",
            "response_b": "right answer",
            "winner": "better",
        },
        values={"neither": "both_bad", "unsure": "skip"},
        ties="keep",
    )
    ```

    Rows of your own have `prompt` (text or messages), `chosen`, `rejected` and, if you have them,
    `rating`, `batch`, `chosen_safe`, `rejected_safe`, `prompt_id`, `annotator`; TRL's forms too.
    Nothing is repaired or dropped in silence: see `lint` for what a readable row may still lack.
    A file is better given by its path than by way of pandas, whose `read_json` and `read_csv` make
    numbers of a column of answers such as "7": those rows are refused.

    Args:
        source: what is read; one split of a `DatasetDict`.
        split: of a folder, a source or a data set of the hub.
        subset: of a source, or a configuration of a data set of the hub.
        options: what the source itself takes (`palate data show NAME`).
        ties: skip and count them, or keep them as comparisons whose `judgement` is a tie.
        annotators: what becomes of several votes on one pair: each a comparison of its own, or one
            comparison by a rule of `palate.data.annotators.aggregate`.
        columns: for rows of your own, role to column: `prompt`, `response_a`, `response_b`,
            `winner` and the others of `palate.data.sources.mapping.ROLES`.
        values: what the words of `winner` mean (a, b, tie, both_bad, skip), or those of a
            strength (-3 to 3, skip), where they are none of the known ones.
        attributes: what was rated of single responses and is to be read, each with the lowest and
            the highest rating: {"helpfulness": (0, 4)}. They become `chosen_attributes` and
            `rejected_attributes`, from which the heads of `train.attributes` learn.
        data: the data root in which a source's folder is looked for; default: PALATE_DATA.
        max_bad_share: the largest share of unreadable rows, in [0, 1], that is put up with.
        on_bad: is given each row that gave no comparison. Default: the first five and the number
            of all are warnings of the log, which Python shows on stderr.

    Raises:
        PalateError: no such source, file, option or column; too many unreadable rows, naming the
            first; no comparison at all.
    """
    bad: list[BadRow] = []
    request = Request(
        None,
        split,
        subset,
        options or {},
        ties,
        columns or {},
        worded(values or {}),
        annotators,
        {name: (float(low), float(high)) for name, (low, high) in (attributes or {}).items()},
    )
    _check_scales(request.attributes)
    rows = read(
        lambda request: _rows(source, request, data),
        request,
        max_bad_share,
        bad.append if on_bad is None else on_bad,
    )
    comparisons = list(rows)
    for row in worst(bad):
        warn(str(row))
    if bad:
        warn(f"{len(comparisons):,} comparisons, {not_read(bad)}")
    return comparisons


def _check_scales(scales: Mapping[str, tuple[float, float]]) -> None:
    try:
        check({}, {}, scales)
    except ValueError as error:
        raise PalateError(str(error)) from None


def save_comparisons(comparisons: Iterable[Comparison], path: str | Path) -> Path:
    """Write comparisons to Palate's Parquet form, which recipes and `Benchmark` read.

    Raises:
        PalateError: the name does not end in .parquet.
    """
    target = Path(path)
    if ending(target) != ".parquet":
        raise PalateError(f"{target}: expected a name that ends in .parquet")
    write_comparisons(target, comparisons)
    return target


def to_pandas(comparisons: Iterable[Comparison]) -> pandas.DataFrame:
    """A frame of one row a comparison; `load_comparisons` of it gives the same comparisons.

    Columns are those of Palate's Parquet form: `prompt` a list of messages, `rating` a label such
    as "better", `meta` JSON text.
    """
    import pandas

    return pandas.DataFrame(map(comparison_to_row, comparisons), columns=COMPARISON_SCHEMA.names)


def to_dataset(comparisons: Iterable[Comparison]) -> datasets.Dataset:
    """A `datasets.Dataset` with the columns of `to_pandas`, to train with TRL or to push."""
    import datasets
    import pyarrow as pa

    rows = pa.Table.from_pylist([*map(comparison_to_row, comparisons)], schema=COMPARISON_SCHEMA)
    return datasets.Dataset(rows)


def _rows(source: Any, request: Request, data: str | Path | None) -> Iterator[Row]:
    if isinstance(source, str | Path):
        return _named(source, request, data)
    if request.split or request.subset or data:
        raise PalateError("split, subset and data are of a file or a source; filter the rows first")
    if unknown := set(request.options) - {"source"}:
        raise PalateError(f"rows in memory: no option {min(unknown)!r}; they have: source")
    kind = type(source).__name__
    if isinstance(source, Mapping):
        names = ", ".join(map(str, source)) or "nothing"
        raise PalateError(f"{kind}: expected rows, got a mapping of {names}; give one split of it")
    if hasattr(source, "notna"):  # pandas has its own way to say that a cell is empty.
        source = source.astype(object).where(source.notna(), None).to_dict("records")
    if not isinstance(source, Iterable):
        raise PalateError(
            f"{kind}: expected a pandas frame, a datasets.Dataset, dicts, a path, or a source's "
            f"name ({', '.join(SOURCES)})"
        )
    records = _records(source, kind)
    first = next(records, None)
    records = chain([] if first is None else [first], records)
    if isinstance(first, Record) and first.data.keys() - LATER_COLUMNS == PALATE_COLUMNS:
        rows = each(records, lambda record: (_stored(record),))
    else:
        rows = own.comparisons(kind, records, request)
    return rows if request.ties == "keep" else without_ties(rows, {IN_MEMORY: kind})


def _named(source: str | Path, request: Request, data: str | Path | None) -> Iterator[Row]:
    """The rows of a source of ours, by its name or hub id, of a file, or of another hub id."""
    by_id = {one.hub_id: name for name, one in SOURCES.items() if one.hub_id}
    name = source if source in SOURCES else by_id.get(str(source))
    if isinstance(name, str):
        root = str(data or os.environ.get(DATA_VARIABLE) or "") or None
        return open_source(
            name, replace(request, location=locate(None, SOURCES[name].folder, root))
        )
    location = Path(source).expanduser()
    if not location.exists() and not ending(location) and "/" not in str(source):
        source_named(str(source))  # Raises: a mistyped name, with the nearest real one.
    return open_source("own", replace(request, location=location if location.exists() else source))


def _records(rows: Iterable[Any], kind: str) -> Records:
    is_filled = has_filled_arguments(rows)
    for number, row in enumerate(rows, start=1):
        if isinstance(row, Mapping):
            data = {str(name): _plain(value) for name, value in row.items()}
            yield Record(kind, number, IN_MEMORY, without_filled(data) if is_filled else data)
        else:
            yield BadRow(kind, number, f"expected a row by column, got a {type(row).__name__}")


def _stored(record: Record) -> Comparison:
    """The comparison of a row of `to_pandas`, which keeps its id, cluster, batch and meta."""
    data = _as_chat(record.data)
    comparison = own.comparison(record, Reading(data), None, own.Columns(PLAIN))
    try:
        meta = json.loads(data["meta"]) if data["meta"] else {}
    except (TypeError, ValueError):
        raise InvalidRecord(f"meta: expected JSON, got {shown(data['meta'])}") from None
    try:
        judgement = Judgement(**data["judgement"]) if data.get("judgement") else PREFERRED
        ranks = Ranks(**data["ranks"]) if data.get("ranks") else None
    except (TypeError, PalateError) as error:
        raise InvalidRecord(f"judgement or ranks: {error}") from None
    try:
        sides = [attributes_of(data.get(f"{side}_attributes")) for side in ("chosen", "rejected")]
    except (TypeError, KeyError):
        raise InvalidRecord("attributes: expected a list of name and value") from None
    return replace(
        comparison,
        id=base.text(data, "id"),
        prompt_id=base.text(data, "prompt_id"),
        batch=base.text(data, "batch"),
        meta=meta,
        judgement=judgement,
        ranks=ranks,
        chosen_attributes=sides[0],
        rejected_attributes=sides[1],
    )


def _as_chat(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """The row with its calls, tools and reasoning as files of messages have them."""
    try:
        turns = [Message(turn["role"], turn["content"]) for turn in data["prompt"]]
        prompt = as_chat(turns)
        sides = {
            name: as_chat([Message("assistant", data[name])])["messages"]
            for name in ("chosen", "rejected")
            if parts_of(data[name])[1]
        }
    except (TypeError, KeyError, ValueError, AttributeError):
        return data  # It is no such row, and its reading says why.
    if not sides and is_text(turns):
        return data
    tools = {"tools": prompt["tools"]} if "tools" in prompt else {}
    return {**data, "prompt": prompt["messages"], **tools, **sides}


def _plain(value: Any) -> Any:
    """A cell without NumPy: frames hold lists as arrays and numbers as its scalars."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
