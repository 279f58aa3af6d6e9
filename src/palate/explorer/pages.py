"""The pages of the explorer, made ready for their templates; nothing a blind page hides is in them.

A blind page has no label, rating, score or safety mark in what its template gets, and shows the
responses in an order that depends on the viewer and the comparison alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from palate.escape import html, line
from palate.explorer.annotations import Annotation, Choice, chosen_is_first
from palate.explorer.index import OUTCOMES, UNSCORED, Item, JudgeColumns, read_item
from palate.explorer.query import (
    BLIND_FILTERS,
    CONFIDENT,
    JUDGE,
    MARKED,
    SPREAD,
    UNSURE,
    Place,
    Query,
    Selection,
    neighbours,
    place_in,
    reading_judges,
)
from palate.explorer.run import OpenRun, Viewer
from palate.item_view import (
    ChoiceView,
    ItemVerdict,
    ItemView,
    choice_view,
    decimal,
    item_view,
    marked_html,
)
from palate.types import BenchmarkItem, Comparison, Message, Rating, digest

if TYPE_CHECKING:
    from palate.stats import Estimate

# The list of a query.

ROWS_PER_PAGE = 50
JUDGE_COLUMNS = 4  # More do not fit beside the prompt; an item shows all.
MARKED_LABELS = dict(zip(MARKED, ("marked", "not marked", "I agree", "I disagree"), strict=True))
LEGENDS = {"part": "Set", "source": "Source", "rating": "Rating", "bin": "Safety"}


class Option(NamedTuple):
    """One value of a filter, and how many items it would select."""

    value: str
    label: str
    matches: int
    chosen: bool


class Filter(NamedTuple):
    """A filter beside the list."""

    name: str
    legend: str
    options: list[Option]


class Chip(NamedTuple):
    """A filter that is on, and the address of the list without it."""

    label: str
    url: str


@dataclass(frozen=True, slots=True)
class Row:
    """One item in the list; `cells` are (outcome, margin) of each judge that has a column.

    `tied` says of an annotated one that its label is a tie; `place` where it stands in the queue
    that is shown.
    """

    item: int
    excerpt: str
    part: str
    source: str
    rating: str
    bin: str
    cells: tuple[tuple[str, float], ...]
    annotation: Annotation | None
    tied: bool
    place: Place | None


def list_page(run: OpenRun, query: Query, viewer: Viewer) -> dict[str, Any]:
    """The list of a query, for its template: filters with counts, and the rows of one page."""
    query = query.blind() if viewer.blind else query
    selection = run.select(query, viewer)
    total = len(selection.items)
    pages = max(1, -(-total // ROWS_PER_PAGE))
    query = replace(query, page=min(query.page, pages))
    first = (query.page - 1) * ROWS_PER_PAGE
    items = selection.items[first : first + ROWS_PER_PAGE].tolist()
    columns = [] if viewer.blind else reading_judges(run.index)[:JUDGE_COLUMNS]
    return {
        "query": query,
        "filters": _filters(query, selection, viewer),
        "judge_filters": [] if viewer.blind else _judge_filters(run, query, selection),
        "chips": _chips(query),
        "sorts": [] if viewer.blind else _sorts(run, query),
        "queues": [
            Option(name, name, len(queue.items), name == query.queue)
            for name, queue in run.index.queues.items()
        ],
        "judges": [judge.judge for judge in columns],
        "rows": _rows(run, items, columns, viewer, query.queue),
        "total": total,
        "first": first,
        "pages": pages,
    }


def _filters(query: Query, selection: Selection, viewer: Viewer) -> list[Filter]:
    filters = []
    for name in BLIND_FILTERS if viewer.blind else LEGENDS:
        chosen = query.values(name)
        options = [Option(v, v, n, v in chosen) for v, n in selection.counts[name].items()]
        if options:
            filters.append(Filter(name, LEGENDS[name], options))
    return filters


def _judge_filters(run: OpenRun, query: Query, selection: Selection) -> list[Filter]:
    filters = []
    for judge in run.index.judges:
        name = f"{JUDGE}{judge}"
        counts, chosen = selection.counts[name], query.values(name)
        options = [
            Option(value, value, counts[value], value in chosen)
            for value in OUTCOMES[1:]
            if counts[value] or value in chosen or OUTCOMES.index(value) < UNSCORED - 1
        ]
        filters.append(Filter(name, judge, options))
    return filters


def _chips(query: Query) -> list[Chip]:
    # The part alone says what it is; a judge's outcome needs its judge.
    on = [
        (f"{name.removeprefix(JUDGE)} {value}" if name.startswith(JUDGE) else value, name, value)
        for name, value in query.filters
    ]
    if query.disagree:
        on.append(("judges disagree", "disagree", "yes"))
    if query.queue:
        on.append((f"queue {query.queue}", "queue", query.queue))
    if query.marked:
        on.append((MARKED_LABELS[query.marked], "marked", query.marked))
    if query.search:
        on.append((f"“{line(query.search, 60)}”", "q", query.search))
    return [Chip(label, query.without(name, value).url()) for label, name, value in on]


def _sorts(run: OpenRun, query: Query) -> list[Option]:
    judges = [judge.judge for judge in reading_judges(run.index) if judge.scored]
    sorts = [("", "order of the queue" if query.queue else "order of the files")]
    if len(judges) > 1:
        sorts.append((SPREAD, "judges furthest apart"))
    for judge in judges:
        sorts.append((f"{CONFIDENT}:{judge}", f"{judge}: surest first"))
        sorts.append((f"{UNSURE}:{judge}", f"{judge}: least sure first"))
    return [Option(value, label, 0, value == query.sort) for value, label in sorts]


def _rows(
    run: OpenRun, items: Sequence[int], columns: Sequence[JudgeColumns], viewer: Viewer, queue: str
) -> list[Row]:
    annotations = run.annotations_of(items, viewer.annotator)
    ties = run.index.ties_among(annotations)
    values = {
        name: ["" if viewer.blind and name not in BLIND_FILTERS else ("", *facet.names)[code + 1]
               for code in facet.codes[items]]
        for name, facet in run.index.facets.items()
    }  # fmt: skip
    excerpts = run.selector.texts.excerpts(items)
    return [
        Row(
            item=item,
            excerpt=line(excerpts[at]),
            cells=tuple((OUTCOMES[c.outcomes[item]], float(c.margins[item])) for c in columns),
            annotation=annotations.get(item),
            tied=item in ties,
            place=None if viewer.blind else place_in(run.index, queue, item),
            **{name: values[name][at] for name in LEGENDS},
        )
        for at, item in enumerate(items)
    ]


# One comparison.

MAX_SHOWN_CHARACTERS = 20_000
OPEN_TURNS = 3  # So many of a conversation's last turns are open.


class VerdictRow(NamedTuple):
    """One judge's verdict; `share` of its bar that the margin fills, from -1 to 1.

    `outcome` is the judge's answer where people tied. `order` says which side it was shown first,
    where it was asked in both orders.
    """

    verdict: ItemVerdict
    outcome: str
    share: float
    order: str


ANSWERS = {"chosen": "prefers the first", "rejected": "prefers the second", "tie": "says tie"}


def item_page(
    run: OpenRun, number: int, query: Query, viewer: Viewer, full: bool
) -> dict[str, Any]:
    """One item, for its template: its place in the list, its verdicts and annotation.

    Its texts are cut unless it is `full`. `pressed` is the value of the button that gave the
    annotation its choice.
    """
    query = query.blind() if viewer.blind else query
    item = read_item(run.index, number)
    items = run.select(query, viewer, keep=number).items
    before, after, place = neighbours(items, number)
    most = None if full else MAX_SHOWN_CHARACTERS
    row = item.row
    view: ItemView | None = None
    many: ChoiceView | None = None
    if isinstance(row, Comparison):
        view = item_view(row, last_turns=OPEN_TURNS, turn_characters=most, response_characters=most)
        view = _blind(view, row.id, viewer) if viewer.blind else view
    else:
        order = partial(digest, "blind", viewer.annotator, row.id)
        many = choice_view(
            row,
            item.scores,
            last_turns=OPEN_TURNS,
            turn_characters=most,
            response_characters=most,
            blind=sorted(range(len(row.responses)), key=order) if viewer.blind else None,
        )
    annotation = run.annotations.get(viewer.annotator, row.id)
    choice = annotation.choice if annotation else ""
    buttons = _buttons(row.id, viewer)
    in_queues = [place_in(run.index, name, number) for name in run.index.queues]
    return {
        "queues": [] if viewer.blind else [place for place in in_queues if place],
        "item": number,
        "query": query,
        "comparison": row,
        "part": item.part.name,
        "view": view or many,
        "responses": many.responses if many else (),
        "score_judges": many.judges if many else (),
        "verdicts": [] if viewer.blind else _verdict_rows(run, item),
        "annotation": annotation,
        "pressed": next((name for name, means in buttons.items() if means == choice), ""),
        "before": before,
        "after": after,
        "place": place,
        "total": len(items),
        "full": full,
    }


def _blind(view: ItemView, comparison_id: str, viewer: Viewer) -> ItemView:
    """The view without labels, its sides in this viewer's own order."""
    first, second = (replace(side, label="", safe=None) for side in view.sides)
    if not chosen_is_first(viewer.annotator, comparison_id):
        first, second = second, first
    sides = (replace(first, title="Response A"), replace(second, title="Response B"))
    return replace(view, sides=sides)


def live_texts(row: Comparison | BenchmarkItem) -> tuple[tuple[Message, ...], str, str]:
    """A prompt and two responses to try: of an item of K a best one and another."""
    if isinstance(row, Comparison):
        return row.prompt, row.chosen, row.rejected
    best = row.places.index(0)
    other = next((n for n, place in enumerate(row.places) if place), 1 - best)
    return row.conversations()[best], row.responses[best], row.responses[other]


def _verdict_rows(run: OpenRun, item: Item) -> list[VerdictRow]:
    rows = []
    tied = item.row.judgement.decides == "tie"
    orders = ("the other order", "this order") if tied else ("rejected first", "chosen first")
    for judge, verdicts in item.verdicts.items():
        reach = run.reach.get(judge, 0.0)
        for verdict in verdicts:
            margin = verdict.margin
            share = 0.0 if margin is None or not reach else max(-1.0, min(1.0, margin / reach))
            order = orders[verdict.chosen_first] if len(verdicts) > 1 else ""
            outcome = ANSWERS.get(verdict.preferred or "", verdict.outcome)
            value = item.values.get(judge)
            if value is not None and verdict.outcome == "tie":
                outcome = f"{decimal(100 * value, 0)} % right"
            rows.append(VerdictRow(verdict, outcome, share, order))
    return rows


def _buttons(comparison_id: str, viewer: Viewer) -> dict[str, Choice]:
    """The choice that each button means to this viewer."""
    if not viewer.blind:
        return {"agree": "chosen", "disagree": "rejected"}
    if chosen_is_first(viewer.annotator, comparison_id):
        return {"first": "chosen", "second": "rejected"}
    return {"first": "rejected", "second": "chosen"}


def annotate(old: Annotation, form: dict[str, str], viewer: Viewer) -> Annotation:
    """The annotation after a form: only what the form holds changes."""
    new = old
    choice = _buttons(old.comparison_id, viewer).get(form.get("choice", ""))
    if choice is not None:
        # Once a person chose with the label in sight, what they choose is no longer blind.
        new = replace(new, choice=choice, blind=viewer.blind and (old.blind or not old.choice))
    if form.get("rating") in {"1", "2", "3", "4"}:
        new = replace(new, rating=Rating(int(form["rating"])))
    if "note" in form:
        new = replace(new, note=form["note"].replace("\r\n", "\n").strip())
    return new


# Templates: escaped by default, and a name that is missing is an error.


def number(value: float | None, digits: int = 2, sign: str = "") -> str:
    """A number, whole ones without decimals; "" where there is none."""
    whole = value is not None and abs(value) >= 10 and value.is_integer()
    return decimal(value, 0 if whole else digits, sign)


def signed(value: float | None, digits: int = 2) -> str:
    """A difference: a number with its sign."""
    return number(value, digits, "+")


def interval(estimate: Estimate | None, scale: float = 100.0) -> str:
    """`64.0 [62.1, 65.9]`, in percent or, with `scale` 1, as it is."""
    if estimate is None or estimate.value != estimate.value:
        return "–"
    digits = 1 if scale == 100 else 2
    ends = (scale * end for end in (estimate.value, estimate.low, estimate.high))
    value, low, high = (f"{end:.{digits}f}".replace("-", "\u2212") for end in ends)
    return f"{value} [{low}, {high}]"


_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters |= {
    "decimal": decimal,
    "html": html,
    "line": line,
    "marked": partial(marked_html, text=html),
    "number": number,
    "signed": signed,
    "interval": interval,
}
_TEMPLATES.globals |= {
    "glyphs": dict(zip(OUTCOMES, ("", "✓", "✗", "=", "?", "≈"), strict=True)),
    "ratings": [(int(r), r.label, r.words) for r in Rating],
    "marked_labels": MARKED_LABELS,
}


def render(name: str, **values: Any) -> str:
    """The page of a template under `templates/`."""
    return _TEMPLATES.get_template(f"{name}.html").render(**values)
