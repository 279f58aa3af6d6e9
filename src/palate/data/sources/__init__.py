"""Every data set Palate reads, by name.

A source turns raw rows into comparisons and says what it could not turn: it drops no row in
silence and repairs none. Identical, empty and mismatched pairs pass; lint finds them.

To add a source, write one file beside this one and name it in `SOURCES` below; `openai_webgpt.py`
is a good one to copy. It holds

- `load(request)`, which yields a `Comparison` or a `BadRow` for every row. Mostly it is
  `each(records(request, HUB_ID), _comparison)`: `files.records` reads the local files or the hub,
  `each` makes a `BadRow` of every `InvalidRecord` that is raised;
- `_comparison(record)`, which reads columns with `base.text`, `base.number`, ... (they raise
  `InvalidRecord` with what was expected and what came) and yields `record.comparison(...)`;
- `SOURCE`, which states hub id, licence, options, the cut points of its ratings, what is left out.

The tests that are parametrised over `SOURCES` pick it up; add hand-made rows of its schema to
`tests/data/sources/rows.py`.

>>> sorted(SOURCES)[:3]
['anthropic-hh', 'beavertails', 'diasafety']
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from palate.data.sources import (
    anthropic_hh,
    argilla,
    beavertails,
    diasafety,
    gptj_synthetic,
    helpsteer,
    label_studio,
    mtbench,
    oasst,
    openai_summarize,
    openai_webgpt,
    own,
    pandalm,
    pku_saferlhf,
    potato,
    qa_feedback,
    shp,
    simulated,
    skywork,
    stackexchange,
)
from palate.data.sources.answers import refuse_unanswered
from palate.data.sources.base import BadRow, Cuts, LabelledResponse, Request, Row, Source
from palate.data.sources.files import paths_by_part, place_of
from palate.types import Comparison, PalateError
from palate.validation import did_you_mean

__all__ = [
    "SOURCES",
    "BadRow",
    "Cuts",
    "LabelledResponse",
    "Request",
    "Row",
    "Source",
    "at_root",
    "describe",
    "not_read",
    "open_source",
    "placed",
    "read",
    "readable",
    "safety_rows",
    "source_named",
    "without_ties",
    "worst",
]

SOURCES: dict[str, Source] = {
    module.SOURCE.name: module.SOURCE
    for module in (
        anthropic_hh,
        openai_summarize,
        openai_webgpt,
        stackexchange,
        shp,
        gptj_synthetic,
        pku_saferlhf,
        oasst,
        diasafety,
        beavertails,
        skywork,
        qa_feedback,
        helpsteer,
        mtbench,
        pandalm,
        label_studio,
        potato,
        argilla,
        own,
        simulated,
    )
}
SHOWN_ROWS = 5  # Rows that gave no comparison, of which a line of the log each says why.
ROWS_BEFORE_GIVING_UP = 1_000  # So many bad rows and no good one: the file is something else.


def source_named(name: str) -> Source:
    """The source of that name; an unknown one is an error that names the nearest."""
    if name in SOURCES:
        return SOURCES[name]
    raise PalateError(f"no source {name!r}; {did_you_mean(name, SOURCES)}")


def open_source(name: str, request: Request | None = None) -> Iterator[Row]:
    """Yield a source's comparisons and bad rows, in the order of its files.

    Raises `PalateError` at once for a name or option that does not exist, and while reading for
    a file that cannot be read as a whole (missing, empty, cut).
    """
    source, request = source_named(name), request or Request()
    if "*" not in source.options:
        for option in set(request.options) - set(source.options):
            known = ", ".join(source.options) or "none"
            raise PalateError(f"{name}: no option {option!r}; it has {known}")
    if request.attributes:
        _refuse_unrated(source, request)
    if (request.columns or request.values) and name != own.NAME:
        raise PalateError(f"{name}: its columns are known; map those of a file with source own")
    if source.recognise is not None or name == own.NAME:  # Where answers of people come from.
        refuse_unanswered(request.location)
    rows = source.load(request)
    if request.ties == "skip":
        rows = without_ties(rows, paths_by_part(request.location))
    return _with_name(name, rows)


def read(
    open_rows: Callable[[Request], Iterable[Row]],
    request: Request,
    max_bad_share: float = 0.01,
    on_bad: Callable[[BadRow], object] | None = None,
) -> Iterator[Comparison]:
    """The readable comparisons of `open_rows(request)`, votes aggregated by the request's rule.

    Where they are aggregated, a tie among votes is a vote, and `request.ties` says what becomes of
    pairs that are a tie by the rule. Raises as `readable` and `aggregate` do.
    """
    if request.attributes:
        open_rows = partial(_with_every_attribute, open_rows)
    if request.annotators == "separate":
        return readable(open_rows(request), max_bad_share, on_bad)
    # Imported here: statistics bring scipy with them, most of a second at every start.
    from palate.data.annotators import aggregate

    votes = readable(open_rows(replace(request, ties="keep")), max_bad_share, on_bad)
    paths = paths_by_part(request.location)
    pairs = aggregate(votes, request.annotators, paths)
    if request.ties == "keep":
        return pairs
    return readable(without_ties(pairs, paths), on_bad=on_bad)


def _refuse_unrated(source: Source, request: Request) -> None:
    """Raise for an attribute that the source has not."""
    if not source.attributes:
        having = ", ".join(name for name, other in SOURCES.items() if other.attributes)
        raise PalateError(
            f"{source.name}: attributes: nothing was rated of single responses; sources that have "
            f"such ratings: {having}"
        )
    for name in request.attributes if "*" not in source.attributes else ():
        if name not in source.attributes:
            raise PalateError(
                f"{source.name}: no attribute {name!r}; {did_you_mean(name, source.attributes)}"
            )


def _with_every_attribute(
    open_rows: Callable[[Request], Iterable[Row]], request: Request
) -> Iterator[Row]:
    """The rows; raises at their end where an attribute that was asked for is in none of them."""
    missing, seen = set(request.attributes), set[str]()
    comparisons = 0
    for row in open_rows(request):
        if isinstance(row, Comparison):
            comparisons += 1
            seen |= row.chosen_attributes.keys() | row.rejected_attributes.keys()
        yield row
    if comparisons and missing - seen:
        has = f"they have {', '.join(sorted(seen))}" if seen else "they have none"
        raise PalateError(
            f"attributes: none of {comparisons:,} comparisons has {min(missing - seen)!r}; {has}. "
            "Name its column in `columns`, such as response.NAME or chosen.NAME and rejected.NAME"
        )


def without_ties(rows: Iterable[Row], paths: Mapping[str, str]) -> Iterator[Row]:
    """The rows, with a `BadRow` of kind "tie" in the place of a comparison that is one.

    `paths` are the files by the names that `meta` gives them, as of `files.paths_by_part`.
    """
    for row in rows:
        if isinstance(row, Comparison) and row.judgement.decides == "tie":
            file, number = str(row.meta.get("file", "")), int(row.meta.get("row", 0))
            reason = "neither response was preferred; `ties: keep` takes it as a tie"
            yield BadRow(paths.get(file, file), number, reason, "tie")
        else:
            yield row


def _with_name(name: str, rows: Iterator[Row]) -> Iterator[Row]:
    try:
        yield from rows
    except PalateError as error:
        message = str(error)
        if name == own.NAME or message.startswith(name):  # What is one's own is named by its file.
            raise
        raise PalateError(f"{name}: {message}") from error


def readable(
    rows: Iterable[Row],
    max_bad_share: float = 0.01,
    on_bad: Callable[[BadRow], object] | None = None,
) -> Iterator[Comparison]:
    """Yield the comparisons and hand every other row to `on_bad`.

    Raises `PalateError` after the last row if more than `max_bad_share` of the rows (ties and
    rows left out by a stated rule count as good) were bad, or if there was no comparison; and
    earlier if the first `ROWS_BEFORE_GIVING_UP` rows were all bad.
    """
    comparisons = good = bad = 0
    first: BadRow | None = None
    without: BadRow | None = None  # The first that is not bad and has no comparison.
    for row in rows:
        if isinstance(row, Comparison):
            comparisons, good = comparisons + 1, good + 1
            yield row
            continue
        if on_bad is not None:
            on_bad(row)
        if row.kind != "bad":
            good, without = good + 1, without or row
            continue
        bad, first = bad + 1, first or row
        if good == 0 and bad >= ROWS_BEFORE_GIVING_UP:
            break
    if first is not None and bad > max_bad_share * (good + bad):
        more = "; `palate data import --max-bad-share` (in a recipe data.max_bad_share) allows more"
        raise PalateError(
            f"{bad} of {good + bad} rows are bad, more than {max_bad_share:.1%}; the first: {first}"
            + (more if good else "")
        )
    if not comparisons:
        rows_are = f"; {good:,} rows have none, the first: {without}" if without else ""
        raise PalateError(f"expected comparisons, found none{rows_are}")


def placed(
    rows: Iterable[Comparison], location: Path | str | None
) -> Iterator[tuple[str, Comparison]]:
    """Every row that `read` gave of a location with its place, FILE:ROW, as the user knows it."""
    paths = paths_by_part(location)
    ours = own.is_ours(Path(location)) if location is not None else False
    for number, row in enumerate(rows, start=1):  # In our own form `meta` tells of the origin.
        yield f"{location}:{number}" if ours else place_of(row, paths), row


def worst(bad: Sequence[BadRow]) -> list[BadRow]:
    """The first few of the rows that gave no comparison, those that break their format before."""
    return sorted(bad, key=lambda row: row.kind != "bad")[:SHOWN_ROWS]


def not_read(bad: Sequence[BadRow]) -> str:
    """How many rows gave no comparison, by kind.

    >>> not_read([BadRow("a.csv", 2, "?"), BadRow("a.csv", 3, "?", "tie")])
    '2 rows not read (1 ties, 1 bad)'
    """
    kinds = Counter("ties" if row.kind == "tie" else row.kind for row in bad)
    parts = [f"{kinds[kind]:,} {kind}" for kind in ("ties", "left out", "bad") if kinds[kind]]
    return f"{len(bad):,} rows not read" + (f" ({', '.join(parts)})" if parts else "")


def at_root(name: str, root: Path) -> Path | None:
    """The folder of a source under a local data root, or None if it is not there."""
    folder = source_named(name).folder
    return root / folder if folder is not None and (root / folder).is_dir() else None


def describe(name: str) -> list[tuple[str, str]]:
    """A source as rows of a table: what it is, its licence, how it grades, what to know."""
    source = source_named(name)
    return [
        ("name", source.name),
        ("title", source.title),
        ("hub id", source.hub_id or "-"),
        ("url", source.url or "-"),
        ("licence", source.licence),
        ("kind", source.kind),
        ("subsets", ", ".join(source.subsets) or "-"),
        *(("ratings", str(cut)) for cut in source.cuts or ("none given",)),
        *([("attributes", ", ".join(source.attributes))] if source.attributes else []),
        *((f"option {key}", meaning) for key, meaning in source.options.items()),
        ("tried on", source.tried_on),
        ("notes", source.notes or "-"),
    ]


def safety_rows(name: str, request: Request) -> Iterator[LabelledResponse | BadRow]:
    """Single responses with a safety label, where a source has them beyond its pairs."""
    readers = {module.NAME: module.labelled for module in (diasafety, beavertails)}
    if name not in readers:
        raise PalateError(f"{source_named(name).name}: has no single labelled responses")
    return readers[name](request)
