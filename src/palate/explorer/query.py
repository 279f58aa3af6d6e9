"""The query of a list: read from a URL and written into one, the items it selects, in order.

Filters are masks over columns of numpy, so that 100,000 items are selected and counted in
milliseconds; only a search for words asks DuckDB.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any
from urllib.parse import urlencode

import numpy as np
from numpy.typing import NDArray

from palate.explorer.index import CORRECT, OUTCOMES, WRONG, Facet, Index, JudgeColumns, Mask, Texts

JUDGE = "judge."
MARKED = ("yes", "no", "agree", "disagree")
SPREAD, CONFIDENT, UNSURE = "spread", "confident", "unsure"
MAX_SEARCH_CHARACTERS = 400
# A person who annotates blind may choose by these; all else depends on labels or scores.
BLIND_FILTERS = ("part", "source")


@dataclass(frozen=True, slots=True)
class Query:
    """Filters, order and page of a list; equal queries select the same.

    `filters` are (name, value) pairs: name is part, source, rating, bin or judge.NAME. Values of
    one name are alternatives. `sort` is "", `spread`, or (`confident` | `unsure`):JUDGE. A `queue`
    selects what stands in it, in its order unless `sort` names another.
    """

    filters: tuple[tuple[str, str], ...] = ()
    disagree: bool = False
    marked: str = ""
    search: str = ""
    sort: str = ""
    page: int = 1
    queue: str = ""

    def values(self, name: str) -> tuple[str, ...]:
        """The values that a filter lets through."""
        return tuple(value for key, value in self.filters if key == name)

    def pairs(self) -> list[tuple[str, str]]:
        """Names and values of a URL, the first page left out."""
        rest = {
            "disagree": "yes" if self.disagree else "",
            "queue": self.queue,
            "marked": self.marked,
            "q": self.search,
            "sort": self.sort,
            "page": str(self.page) if self.page > 1 else "",
        }
        return [*self.filters, *((name, value) for name, value in rest.items() if value)]

    def url(self, page: int = 1) -> str:
        """`?...` of this query at a page; "" where it has no part."""
        pairs = replace(self, page=page).pairs()
        return f"?{urlencode(pairs)}" if pairs else ""

    def without(self, name: str, value: str) -> Query:
        """This query without one of its filters, on the first page."""
        return _parse(pair for pair in replace(self, page=1).pairs() if pair != (name, value))

    def blind(self) -> Query:
        """What is left of the query where labels and scores are hidden."""
        return Query(
            filters=tuple(pair for pair in self.filters if pair[0] in BLIND_FILTERS),
            marked=self.marked if self.marked in ("yes", "no") else "",
            search=self.search,
            page=self.page,
            queue=self.queue,
        )


def read_query(pairs: Iterable[tuple[str, str]], index: Index) -> Query:
    """The query of a URL; what names nothing in this run is left out."""

    def known(name: str, value: str) -> bool:
        if name in index.facets:
            return value in index.facets[name].names
        if name.startswith(JUDGE):
            return name.removeprefix(JUDGE) in index.judges and value in OUTCOMES[1:]
        if name == "sort":
            kind, _, judge = value.partition(":")
            return value == SPREAD or (kind in (CONFIDENT, UNSURE) and judge in index.judges)
        if name == "queue":
            return value in index.queues
        return name != "marked" or value in MARKED

    return _parse(pair for pair in pairs if known(*pair))


def _parse(pairs: Iterable[tuple[str, str]]) -> Query:
    filters, rest = list[tuple[str, str]](), dict[str, str]()
    for name, value in pairs:
        if name in ("disagree", "marked", "q", "sort", "page", "queue"):
            rest[name] = value
        elif name in ("part", "source", "rating", "bin") or name.startswith(JUDGE):
            filters.append((name, value))
    search, page = rest.get("q", ""), rest.get("page", "")
    # One line of text that UTF-8 can hold.
    search = " ".join(search[:MAX_SEARCH_CHARACTERS].split()).encode("utf-8", "replace").decode()
    return Query(
        filters=tuple(dict.fromkeys(filters)),
        disagree=rest.get("disagree") == "yes",
        marked=rest.get("marked", ""),
        search=search,
        sort=rest.get("sort", ""),
        page=max(1, int(page)) if page.isascii() and page.isdigit() and len(page) < 9 else 1,
        queue=rest.get("queue", ""),
    )


Items = NDArray[np.int32]
CACHED_SELECTIONS = 64  # 0.5 MB each at 100,000 items.


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """`items` [M] in order; `counts` by filter and value among what the other filters select."""

    items: Items
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict[str, Any])


class Selector:
    """Answers queries on one run, and caches the last answers."""

    def __init__(self, index: Index) -> None:
        self.index, self.texts = index, Texts(index)
        self._cached = lru_cache(CACHED_SELECTIONS)(self._select)

    def select(self, query: Query, marked: Mask | None = None) -> Selection:
        """All items of a query; `marked` [N] is what the filter by annotations lets through."""
        selection = self._cached(replace(query, page=1, marked=""))
        if marked is None:
            return selection
        return Selection(selection.items[marked[selection.items]], selection.counts)

    def _select(self, query: Query) -> Selection:
        masks = dict[str, Mask]()  # [N] by the filter's name
        for name in dict.fromkeys(name for name, _ in query.filters):
            masks[name] = self._facet(name).is_any(query.values(name))
        if query.disagree:
            masks["disagree"] = disagreement(self.index)
        if query.search:
            masks["q"] = self.texts.find(query.search)
        if query.queue:
            masks["queue"] = np.zeros(self.index.size, dtype=np.bool_)
            masks["queue"][self.index.queues[query.queue].items] = True

        counts = dict[str, dict[str, int]]()
        for name in (*self.index.facets, *(f"{JUDGE}{judge}" for judge in self.index.judges)):
            facet = self._facet(name)
            codes = facet.codes[self._all(mask for key, mask in masks.items() if key != name)]
            numbers = np.bincount(codes + 1, minlength=len(facet.names) + 1)[1:]
            counts[name] = dict(zip(facet.names, numbers.tolist(), strict=True))

        selected = self._all(masks.values())
        items = np.flatnonzero(selected).astype(np.int32)
        if query.queue:
            ordered = self.index.queues[query.queue].items
            items = ordered[selected[ordered]]
        if query.sort:
            keys = self._sort_keys(query.sort)[items]
            items = items[np.argsort(keys, kind="stable")]  # NaN, without a score, is last.
        return Selection(items, counts)

    def _facet(self, name: str) -> Facet:
        if name.startswith(JUDGE):
            return Facet(OUTCOMES, self.index.judges[name.removeprefix(JUDGE)].outcomes)
        return self.index.facets[name]

    def _all(self, masks: Iterable[Mask]) -> Mask:
        everything = np.ones(self.index.size, dtype=np.bool_)
        for mask in masks:
            everything &= mask
        return everything

    def _sort_keys(self, sort: str) -> NDArray[np.floating[Any]]:
        """What items are sorted by, the smallest first, [N]."""
        kind, _, judge = sort.partition(":")
        if kind == SPREAD:
            return -spread(self.index)
        confidence = np.abs(self.index.judges[judge].margins)
        return -confidence if kind == CONFIDENT else confidence


def reading_judges(index: Index) -> list[JudgeColumns]:
    """The judges that read the responses: all but the trivial ones."""
    return [columns for columns in index.judges.values() if not columns.trivial]


def disagreement(index: Index) -> Mask:
    """Items on which one reading judge is right and another wrong, [N]."""
    right = np.zeros(index.size, dtype=np.bool_)
    wrong = right.copy()
    for columns in reading_judges(index):
        right |= columns.outcomes == CORRECT
        wrong |= columns.outcomes == WRONG
    return right & wrong


def spread(index: Index) -> NDArray[np.float64]:
    """How far reading judges lie apart, [N]: the range of margins in units of each one's own
    root mean square, since rewards of two models have no common scale."""
    scaled = []
    for columns in reading_judges(index):
        if columns.scored:
            margins = columns.margins.astype(np.float64)
            size = float(np.sqrt(np.nanmean(margins**2)))
            scaled.append(margins / size if size > 0 else margins)
    if len(scaled) < 2:
        return np.full(index.size, np.nan)
    stacked = np.stack(scaled)  # [judges, N]
    known = ~np.isnan(stacked)
    high = np.where(known, stacked, -np.inf).max(axis=0)
    low = np.where(known, stacked, np.inf).min(axis=0)
    return np.where(known.sum(axis=0) > 1, high - low, np.nan)


@dataclass(frozen=True, slots=True)
class Place:
    """Where an item stands in a queue: its number from 1, of how many, the reason, the score."""

    queue: str
    number: int
    total: int
    reason: str
    score: float | None
    scored_by: str


def place_in(index: Index, queue: str, item: int) -> Place | None:
    """The place of an item in a queue of the run; None where it has none."""
    waiting = index.queues.get(queue)
    if waiting is None:
        return None
    places = np.flatnonzero(waiting.items == item).tolist()
    if not places:
        return None
    at = places[0]
    score = float(waiting.scores[at])
    return Place(
        queue, at + 1, len(waiting.items), waiting.reasons[at],
        None if np.isnan(score) else score, waiting.scored_by,
    )  # fmt: skip


def neighbours(items: Items, item: int) -> tuple[int | None, int | None, int]:
    """(item before, item after, place from 0) of an item in a selection; place -1 if not in it."""
    places = np.flatnonzero(items == item)
    if not places.size:
        return None, None, -1
    place = int(places[0])
    before = int(items[place - 1]) if place > 0 else None
    after = int(items[place + 1]) if place + 1 < len(items) else None
    return before, after, place
