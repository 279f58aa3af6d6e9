"""The list of a query, made ready for its template; nothing that a blind page hides is in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from palate.view.explorer import OpenRun, Viewer
from palate.view.marks import Mark
from palate.view.opinions import OUTCOMES, UNSCORED, Opinions
from palate.view.query import CONFIDENT, JUDGE, MARKED, SPREAD, UNSURE, Query
from palate.view.select import Selection, readers
from palate.view.text import line

ROWS_PER_PAGE = 50
JUDGE_COLUMNS = 4  # More do not fit beside the prompt; an item shows all.
MARKED_LABELS = dict(zip(MARKED, ("marked", "not marked", "I agree", "I disagree"), strict=True))
LEGENDS = {"part": "Set", "source": "Source", "rating": "Rating", "bin": "Safety"}


@dataclass(frozen=True, slots=True)
class Option:
    """One value of a filter, and how many items it would find."""

    value: str
    label: str
    count: int
    chosen: bool


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter beside the list."""

    name: str
    legend: str
    options: tuple[Option, ...]


@dataclass(frozen=True, slots=True)
class Chip:
    """A filter that is on, and the address of the list without it."""

    label: str
    url: str


@dataclass(frozen=True, slots=True)
class Cell:
    """One judge's outcome and margin in a row of the list."""

    outcome: str
    margin: float


@dataclass(frozen=True, slots=True)
class Row:
    """One item in the list."""

    item: int
    excerpt: str
    part: str
    source: str
    rating: str
    bin: str
    cells: tuple[Cell, ...]
    mark: Mark | None


@dataclass(frozen=True, slots=True)
class ListPage:
    """The list of a query: filters with counts, rows, and where the page stands."""

    query: Query
    filters: tuple[Filter, ...]
    judge_filters: tuple[Filter, ...]
    chips: tuple[Chip, ...]
    sorts: tuple[Option, ...]
    judges: tuple[str, ...]
    rows: tuple[Row, ...]
    total: int
    first: int
    pages: int


def list_page(run: OpenRun, query: Query, viewer: Viewer) -> ListPage:
    """The page of a list."""
    query = query.blind() if viewer.blind else query
    found = run.select(query, viewer)
    total = len(found.items)
    pages = max(1, -(-total // ROWS_PER_PAGE))
    query = replace(query, page=min(query.page, pages))
    first = (query.page - 1) * ROWS_PER_PAGE
    items = found.items[first : first + ROWS_PER_PAGE].tolist()
    columns = () if viewer.blind else tuple(readers(run.catalogue)[:JUDGE_COLUMNS])
    return ListPage(
        query=query,
        filters=_filters(query, found, viewer),
        judge_filters=() if viewer.blind else _judge_filters(run, query, found),
        chips=_chips(query),
        sorts=() if viewer.blind else _sorts(run, query),
        judges=tuple(opinions.judge for opinions in columns),
        rows=_rows(run, items, columns, viewer),
        total=total,
        first=first,
        pages=pages,
    )


def _filters(query: Query, found: Selection, viewer: Viewer) -> tuple[Filter, ...]:
    names = ("part", "source") if viewer.blind else tuple(LEGENDS)
    made = []
    for name in names:
        wanted, counts = query.wanted(name), found.counts[name]
        options = [Option(v, v, n, v in wanted) for v, n in counts.items()]
        made.append(Filter(name, LEGENDS[name], tuple(options)))
    return tuple(filter(lambda f: f.options, made))


def _judge_filters(run: OpenRun, query: Query, found: Selection) -> tuple[Filter, ...]:
    made = []
    for judge in run.catalogue.opinions:
        name = f"{JUDGE}{judge}"
        counts, wanted = found.counts[name], query.wanted(name)
        options = [
            Option(value, value, counts[value], value in wanted)
            for value in OUTCOMES[1:]
            if counts[value] or value in wanted or OUTCOMES.index(value) < UNSCORED - 1
        ]
        made.append(Filter(name, judge, tuple(options)))
    return tuple(made)


def _chips(query: Query) -> tuple[Chip, ...]:
    """A chip for each filter; the part alone says what it is, a judge's outcome needs its judge."""
    chips = [
        Chip(_said(name, value), query.without(name, value).url()) for name, value in query.filters
    ]
    if query.disagree:
        chips.append(Chip("judges disagree", query.without("disagree", "yes").url()))
    if query.marked:
        url = query.without("marked", query.marked).url()
        chips.append(Chip(MARKED_LABELS[query.marked], url))
    if query.search:
        chips.append(Chip(f"“{line(query.search, 60)}”", query.without("q", query.search).url()))
    return tuple(chips)


def _said(name: str, value: str) -> str:
    return f"{name.removeprefix(JUDGE)} {value}" if name.startswith(JUDGE) else value


def _sorts(run: OpenRun, query: Query) -> tuple[Option, ...]:
    judges = [o.judge for o in run.catalogue.opinions.values() if o.scored and not o.trivial]
    found = [("", "order of the files")]
    if len(judges) > 1:
        found.append((SPREAD, "judges furthest apart"))
    for judge in judges:
        found.append((f"{CONFIDENT}:{judge}", f"{judge}: surest first"))
        found.append((f"{UNSURE}:{judge}", f"{judge}: least sure first"))
    return tuple(Option(value, label, 0, value == query.sort) for value, label in found)


def _rows(
    run: OpenRun, items: Sequence[int], columns: Sequence[Opinions], viewer: Viewer
) -> tuple[Row, ...]:
    catalogue, excerpts = run.catalogue, run.selector.texts.excerpts(items)
    marks = run.marks_of(items, viewer.annotator)
    facets = {
        name: [("", *facet.names)[facet.codes[item] + 1] for item in items]
        for name, facet in catalogue.facets.items()
    }
    hidden = [""] * len(items) if viewer.blind else None
    return tuple(
        Row(
            item=item,
            excerpt=line(excerpt),
            part=facets["part"][at],
            source=facets["source"][at],
            rating=(hidden or facets["rating"])[at],
            bin=(hidden or facets["bin"])[at],
            cells=tuple(Cell(OUTCOMES[o.outcomes[item]], float(o.margins[item])) for o in columns),
            mark=marks.get(item),
        )
        for at, (item, excerpt) in enumerate(zip(items, excerpts, strict=True))
    )
