"""The list of a query, made ready for its template; nothing that a blind page hides is in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from palate.escape import html, line
from palate.explorer.annotations import Annotation, Choice, chosen_stands_first
from palate.explorer.index import OUTCOMES, UNSCORED, Item, Opinions, read_item
from palate.explorer.query import (
    CONFIDENT,
    JUDGE,
    MARKED,
    SPREAD,
    UNSURE,
    Query,
    Selection,
    neighbours,
    readers,
)
from palate.explorer.run import OpenRun, Viewer
from palate.item_view import ItemVerdict, ItemView, decimal, item_view, marked_html
from palate.types import Comparison, Rating

if TYPE_CHECKING:
    from palate.stats import Estimate


def number(value: float | None, digits: int = 2, sign: str = "") -> str:
    """A number, whole ones without decimals; "" where there is none."""
    whole = value is not None and abs(value) >= 10 and value.is_integer()
    return decimal(value, 0 if whole else digits, sign)


def signed(value: float | None, digits: int = 2) -> str:
    """A difference: a number with its sign."""
    return number(value, digits, "+")


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
    mark: Annotation | None


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


# One comparison, made ready for its template; nothing that a blind page hides is in it.

MAX_SHOWN_CHARACTERS = 20_000
OPEN_TURNS = 3  # So many of a conversation's last turns are open.


@dataclass(frozen=True, slots=True)
class VerdictRow:
    """One judge's verdict as it stands on a page; `share` of its bar that the margin fills.

    `order` says which side it was shown first, where it was asked in both orders.
    """

    verdict: ItemVerdict
    share: float
    order: str


@dataclass(frozen=True, slots=True)
class ItemPage:
    """One comparison, its place in the list it was reached from, its verdicts and its mark."""

    item: int
    query: Query
    comparison: Comparison
    part: str
    view: ItemView
    verdicts: tuple[VerdictRow, ...]
    mark: Annotation | None
    pressed: str
    before: int | None
    after: int | None
    place: int
    total: int
    full: bool


def item_page(run: OpenRun, number: int, query: Query, viewer: Viewer, full: bool) -> ItemPage:
    """The page of one item; where labels are hidden, sides stand in this viewer's own order."""
    query = query.blind() if viewer.blind else query
    item = read_item(run.catalogue, number)
    items = run.select(query, viewer, keep=number).items
    before, after, place = neighbours(items, number)
    most = None if full else MAX_SHOWN_CHARACTERS
    view = item_view(
        item.comparison, last_turns=OPEN_TURNS, turn_characters=most, response_characters=most
    )
    mark = run.marks.get(viewer.annotator, item.comparison.id)
    return ItemPage(
        item=number,
        query=query,
        comparison=item.comparison,
        part=item.part.name,
        view=_blind(view, item.comparison.id, viewer) if viewer.blind else view,
        verdicts=() if viewer.blind else _verdict_rows(run, item),
        mark=mark,
        pressed=_pressed(mark, viewer),
        before=before,
        after=after,
        place=place,
        total=len(items),
        full=full,
    )


def _blind(view: ItemView, comparison_id: str, viewer: Viewer) -> ItemView:
    """The view without labels, its sides in this viewer's own order."""
    chosen, rejected = (replace(side, label="", safe=None) for side in view.sides)
    if not chosen_stands_first(viewer.annotator, comparison_id):
        chosen, rejected = rejected, chosen
    sides = (replace(chosen, title="Response A"), replace(rejected, title="Response B"))
    return replace(view, sides=sides)


def _verdict_rows(run: OpenRun, item: Item) -> tuple[VerdictRow, ...]:
    rows = []
    for judge, verdicts in item.verdicts.items():
        reach = run.reach.get(judge, 0.0)
        for verdict in verdicts:
            margin = verdict.margin
            share = 0.0 if margin is None or not reach else max(-1.0, min(1.0, margin / reach))
            first = "chosen" if verdict.chosen_first else "rejected"
            rows.append(VerdictRow(verdict, share, f"{first} first" if len(verdicts) > 1 else ""))
    return tuple(rows)


def marked(old: Annotation, given: dict[str, str], viewer: Viewer) -> Annotation:
    """The mark after a form: only what the form holds changes."""
    changed = old
    if (choice := _choice(given.get("choice", ""), old.comparison_id, viewer)) is not None:
        # Once a person chose with the label in sight, what they choose is no longer blind.
        blind = viewer.blind and (old.blind or not old.choice)
        changed = replace(changed, choice=choice, blind=blind)
    if given.get("rating") in {"1", "2", "3", "4"}:
        changed = replace(changed, rating=Rating(int(given["rating"])))
    if "note" in given:
        changed = replace(changed, note=given["note"].replace("\r\n", "\n").strip())
    return changed


def _pressed(mark: Annotation | None, viewer: Viewer) -> str:
    """The value of the button that gave a mark its choice."""
    if mark is None or not mark.choice:
        return ""
    if not viewer.blind:
        return "agree" if mark.choice == "chosen" else "disagree"
    chosen_first = chosen_stands_first(viewer.annotator, mark.comparison_id)
    return "first" if (mark.choice == "chosen") == chosen_first else "second"


def _choice(given: str, comparison_id: str, viewer: Viewer) -> Choice | None:
    if viewer.blind and given in ("first", "second"):
        chosen_first = chosen_stands_first(viewer.annotator, comparison_id)
        return "chosen" if (given == "first") == chosen_first else "rejected"
    if not viewer.blind and given in ("agree", "disagree"):
        return "chosen" if given == "agree" else "rejected"
    return None


# Templates of the pages: escaped by default, and a name that is missing is an error.

GLYPHS = dict(zip(OUTCOMES, ("", "✓", "✗", "=", "?"), strict=True))


def _percent(share: float) -> str:
    return "–" if share != share else f"{100 * share:.1f}"


def interval(estimate: Estimate | None, scale: float = 100.0) -> str:
    """`64.0 [62.1, 65.9]`, in percent or, with `scale` 1, as it is."""
    if estimate is None or estimate.value != estimate.value:
        return "–"
    digits = 1 if scale == 100 else 2
    ends = (scale * end for end in (estimate.value, estimate.low, estimate.high))
    value, low, high = (f"{end:.{digits}f}".replace("-", "\u2212") for end in ends)
    return f"{value} [{low}, {high}]"


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "html": html,
        "line": line,
        "marked": partial(marked_html, text=html),
        "number": number,
        "signed": signed,
        "percent": _percent,
        "interval": interval,
    }
    environment.globals |= {
        "glyphs": GLYPHS,
        "ratings": [(int(r), r.label, r.words) for r in Rating],
        "marked_labels": MARKED_LABELS,
    }
    return environment


_TEMPLATES = _environment()


def render(name: str, **values: Any) -> str:
    """The page of a template under `templates/`."""
    return _TEMPLATES.get_template(f"{name}.html").render(**values)
