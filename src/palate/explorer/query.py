"""The items that a query finds, in order, and how many each filter would find."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any
from urllib.parse import urlencode

import numpy as np
from numpy.typing import NDArray

from palate.explorer.index import (
    CORRECT,
    OUTCOMES,
    WRONG,
    Facet,
    Index,
    Opinions,
    Texts,
)

# What a list is asked for: read from a URL and written into one.

JUDGE = "judge."
MARKED = ("yes", "no", "agree", "disagree")
SPREAD, CONFIDENT, UNSURE = "spread", "confident", "unsure"
MAX_SEARCH_CHARACTERS = 400
# What a person who marks blind may still choose by; all else tells of labels or scores.
SEEN_BLIND = ("part", "source")


@dataclass(frozen=True, slots=True)
class Query:
    """Filters, order and page of a list; two equal ones find the same.

    `filters` are (name, value) pairs: name is part, source, rating, bin or judge.NAME. Values of
    one name are alternatives. `sort` is "", `spread`, or (`confident` | `unsure`):JUDGE.
    """

    filters: tuple[tuple[str, str], ...] = ()
    disagree: bool = False
    marked: str = ""
    search: str = ""
    sort: str = ""
    page: int = 1

    def wanted(self, name: str) -> tuple[str, ...]:
        """The values that a filter asks for."""
        return tuple(value for at, value in self.filters if at == name)

    def pairs(self) -> list[tuple[str, str]]:
        """Names and values of a URL, the first page left out."""
        rest = {"disagree": "yes" if self.disagree else "", "marked": self.marked}
        rest |= {"q": self.search, "sort": self.sort}
        rest |= {"page": str(self.page) if self.page > 1 else ""}
        return [*self.filters, *((name, value) for name, value in rest.items() if value)]

    def url(self, page: int = 1) -> str:
        """`?...` of this query at a page; "" where nothing is asked."""
        pairs = replace(self, page=page).pairs()
        return f"?{urlencode(pairs)}" if pairs else ""

    def without(self, name: str, value: str) -> Query:
        """This query without one of its filters, on the first page."""
        return _read(pair for pair in self.pairs() if pair not in ((name, value), ("page", value)))

    def stripped(self) -> Query:
        """The same for all pages and marks: what decides which items there are, and their order."""
        return replace(self, page=1, marked="")

    def blind(self) -> Query:
        """What is left of the query where labels and scores are hidden."""
        return Query(
            filters=tuple(pair for pair in self.filters if pair[0] in SEEN_BLIND),
            marked=self.marked if self.marked in ("yes", "no") else "",
            search=self.search,
            page=self.page,
        )


def read_query(pairs: Iterable[tuple[str, str]], catalogue: Index) -> Query:
    """The query of a URL; what names nothing in this run is left out."""
    return _read(pair for pair in pairs if _known(*pair, catalogue))


def _known(name: str, value: str, catalogue: Index) -> bool:
    if name in catalogue.facets:
        return value in catalogue.facets[name].names
    if name.startswith(JUDGE):
        return name.removeprefix(JUDGE) in catalogue.opinions and value in OUTCOMES[1:]
    if name == "sort":
        kind, _, judge = value.partition(":")
        return value == SPREAD or (kind in (CONFIDENT, UNSURE) and judge in catalogue.opinions)
    return name != "marked" or value in MARKED


def _read(pairs: Iterable[tuple[str, str]]) -> Query:
    filters, rest = list[tuple[str, str]](), dict[str, str]()
    for name, value in pairs:
        if name in ("disagree", "marked", "q", "sort", "page"):
            rest[name] = value
        elif name in ("part", "source", "rating", "bin") or name.startswith(JUDGE):
            filters.append((name, value))
    page = rest.get("page", "")
    return Query(
        filters=tuple(dict.fromkeys(filters)),
        disagree=rest.get("disagree") == "yes",
        marked=rest.get("marked", ""),
        search=_searchable(rest.get("q", "")),
        sort=rest.get("sort", ""),
        page=max(1, int(page)) if page.isascii() and page.isdigit() and len(page) < 9 else 1,
    )


def _searchable(text: str) -> str:
    """One line of text that UTF-8 can hold."""
    line = " ".join(text[:MAX_SEARCH_CHARACTERS].split())
    return line.encode("utf-8", "replace").decode()


Flags = NDArray[np.bool_]
Items = NDArray[np.int32]
REMEMBERED = 64  # Selections kept, 0.5 MB each at 100,000 items.


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """What was found: `items` [M] in order; `counts` by filter and value, of that filter alone."""

    items: Items
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict[str, Any])


class Selector:
    """Answers queries on one catalogue, and remembers the last answers."""

    def __init__(self, catalogue: Index) -> None:
        self.catalogue, self.texts = catalogue, Texts(catalogue)
        self._selected = lru_cache(REMEMBERED)(self._select)

    def select(self, query: Query, marked: Flags | None = None) -> Selection:
        """All items of a query; `marked` [N] says which the marks filter lets through."""
        found = self._selected(query.stripped())
        if marked is None:
            return found
        return Selection(found.items[marked[found.items]], found.counts)

    def _select(self, query: Query) -> Selection:
        masks = self._masks(query)
        items = np.flatnonzero(_all(masks.values(), self.catalogue.size)).astype(np.int32)
        return Selection(_in_order(items, query, self.catalogue), self._counts(masks))

    def _masks(self, query: Query) -> dict[str, Flags]:
        """Which items each filter lets through, by the filter's name."""
        catalogue, masks = self.catalogue, dict[str, Flags]()
        for name in dict.fromkeys(name for name, _ in query.filters):
            masks[name] = _facet_of(catalogue, name).is_any(query.wanted(name))
        if query.disagree:
            masks["disagree"] = disagreement(catalogue)
        if query.search:
            masks["q"] = self.texts.find(query.search)
        return masks

    def _counts(self, masks: Mapping[str, Flags]) -> dict[str, dict[str, int]]:
        """For each filter, how many items each of its values has among those of the others."""
        catalogue, counts = self.catalogue, dict[str, dict[str, int]]()
        everything = _all(masks.values(), catalogue.size)
        for name in (*catalogue.facets, *(f"{JUDGE}{judge}" for judge in catalogue.opinions)):
            facet, kept = _facet_of(catalogue, name), everything
            if name in masks:
                kept = _all((m for n, m in masks.items() if n != name), catalogue.size)
            numbers = np.bincount(facet.codes[kept] + 1, minlength=len(facet.names) + 1)[1:]
            counts[name] = dict(zip(facet.names, numbers.tolist(), strict=True))
        return counts


def _facet_of(catalogue: Index, name: str) -> Facet:
    if name.startswith(JUDGE):
        return Facet(OUTCOMES, catalogue.opinions[name.removeprefix(JUDGE)].outcomes)
    return catalogue.facets[name]


def _all(masks: Iterable[Flags], size: int) -> Flags:
    kept = np.ones(size, dtype=np.bool_)
    for mask in masks:
        kept &= mask
    return kept


def _in_order(items: Items, query: Query, catalogue: Index) -> Items:
    """Items by the query's sort, those without a score last; the order of the files otherwise."""
    if not query.sort:
        return items
    kind, _, judge = query.sort.partition(":")
    if kind == SPREAD:
        keys = -spread(catalogue)[items]
    else:
        sure = np.abs(catalogue.opinions[judge].margins[items])
        keys = -sure if kind == CONFIDENT else sure
    return items[np.argsort(keys, kind="stable")]  # NaN is last.


def readers(catalogue: Index) -> list[Opinions]:
    """The judges that read the responses."""
    return [opinions for opinions in catalogue.opinions.values() if not opinions.trivial]


def disagreement(catalogue: Index) -> Flags:
    """Items on which one reading judge is right and another wrong, [N]."""
    right = np.zeros(catalogue.size, dtype=np.bool_)
    wrong = right.copy()
    for opinions in readers(catalogue):
        right |= opinions.outcomes == CORRECT
        wrong |= opinions.outcomes == WRONG
    return right & wrong


def spread(catalogue: Index) -> NDArray[np.float64]:
    """How far reading judges lie apart, [N]: the range of margins in units of each one's own
    root mean square, since rewards of two models have no common scale."""
    scaled = [_scaled(opinions) for opinions in readers(catalogue) if opinions.scored]
    if len(scaled) < 2:
        return np.full(catalogue.size, np.nan)
    stacked = np.stack(scaled)
    known = ~np.isnan(stacked)
    high = np.where(known, stacked, -np.inf).max(axis=0)
    low = np.where(known, stacked, np.inf).min(axis=0)
    return np.where(known.sum(axis=0) > 1, high - low, np.nan)


def _scaled(opinions: Opinions) -> NDArray[np.float64]:
    margins = opinions.margins.astype(np.float64)
    size = float(np.sqrt(np.nanmean(margins**2)))
    return margins / size if size > 0 else margins


def neighbours(items: Items, item: int) -> tuple[int | None, int | None, int]:
    """(item before, item after, place from 0) of an item in a selection; place -1 if not in it."""
    places = np.flatnonzero(items == item)
    if not places.size:
        return None, None, -1
    at = int(places[0])
    before = int(items[at - 1]) if at > 0 else None
    after = int(items[at + 1]) if at + 1 < len(items) else None
    return before, after, at
