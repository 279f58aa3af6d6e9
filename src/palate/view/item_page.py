"""One comparison, made ready for its template; nothing that a blind page hides is in it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from palate.data.difference import Piece, Pieces, differences
from palate.types import Comparison, Rating
from palate.view.explorer import OpenRun, Viewer
from palate.view.item import Item, Said, read_item
from palate.view.marks import Choice, Mark, chosen_stands_first
from palate.view.query import Query
from palate.view.select import neighbours
from palate.view.text import MAX_SHOWN_CHARACTERS

OPEN_TURNS = 3  # So many of a conversation's last turns are open.


@dataclass(frozen=True, slots=True)
class Side:
    """One response as it stands on a page; `label` is empty where it is hidden."""

    title: str
    label: str
    pieces: Pieces
    characters: int
    cut: bool
    safe: bool | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """One judge's answer as it stands on a page; `share` of its bar that the margin fills.

    `order` says which side it was shown first, where it was asked in both orders.
    """

    said: Said
    share: float
    order: str


@dataclass(frozen=True, slots=True)
class ItemPage:
    """One comparison, its place in the list it was reached from, and what is said of it."""

    item: int
    query: Query
    comparison: Comparison
    part: str
    kind: str
    earlier: int
    sides: tuple[Side, Side]
    compared: bool
    verdicts: tuple[Verdict, ...]
    mark: Mark | None
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
    found = run.select(query, viewer, keep=number).items
    before, after, place = neighbours(found, number)
    sides, compared = _sides(item.comparison, viewer, full)
    mark = run.marks.get(viewer.annotator, item.comparison.id)
    return ItemPage(
        item=number,
        query=query,
        comparison=item.comparison,
        part=item.part.name,
        kind=item.part.kind,
        earlier=max(0, len(item.comparison.prompt) - OPEN_TURNS),
        sides=sides,
        compared=compared,
        verdicts=() if viewer.blind else _verdicts(run, item),
        mark=mark,
        pressed=_pressed(mark, viewer),
        before=before,
        after=after,
        place=place,
        total=len(found),
        full=full,
    )


def _sides(c: Comparison, viewer: Viewer, full: bool) -> tuple[tuple[Side, Side], bool]:
    """Both sides as they stand, and whether their differences are marked."""
    pieces = differences(c.chosen, c.rejected)
    texts = pieces or tuple((Piece(text, False),) for text in (c.chosen, c.rejected))
    chosen, rejected = (
        _side(label, text, safe, viewer, full)
        for label, text, safe in zip(
            ("chosen", "rejected"), texts, (c.chosen_safe, c.rejected_safe), strict=True
        )
    )
    if not viewer.blind:
        return (chosen, rejected), pieces is not None
    first, second = (
        (chosen, rejected) if chosen_stands_first(viewer.annotator, c.id) else (rejected, chosen)
    )
    return (
        replace(first, title="Response A"),
        replace(second, title="Response B"),
    ), pieces is not None


def _side(label: str, pieces: Pieces, safe: bool | None, viewer: Viewer, full: bool) -> Side:
    characters = sum(len(piece.text) for piece in pieces)
    cut = characters > MAX_SHOWN_CHARACTERS and not full
    if cut:
        pieces = (Piece("".join(p.text for p in pieces)[:MAX_SHOWN_CHARACTERS], False),)
    if viewer.blind:
        return Side("", "", pieces, characters, cut, None)
    return Side(label.capitalize(), label, pieces, characters, cut, safe)


def _verdicts(run: OpenRun, item: Item) -> tuple[Verdict, ...]:
    made = []
    for judge, answers in item.said.items():
        reach = run.reach.get(judge, 0.0)
        for said in answers:
            margin = said.margin
            share = 0.0 if margin is None or not reach else max(-1.0, min(1.0, margin / reach))
            first = "chosen" if said.chosen_first else "rejected"
            made.append(Verdict(said, share, f"{first} first" if len(answers) > 1 else ""))
    return tuple(made)


def marked(old: Mark, given: dict[str, str], viewer: Viewer) -> Mark:
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


def _pressed(mark: Mark | None, viewer: Viewer) -> str:
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
