"""The items that a query finds, in order, and how many each filter would find."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palate.view.catalogue import Catalogue, Facet
from palate.view.opinions import CORRECT, OUTCOMES, WRONG, Opinions
from palate.view.query import CONFIDENT, JUDGE, SPREAD, Query
from palate.view.texts import Texts

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

    def __init__(self, catalogue: Catalogue) -> None:
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


def _facet_of(catalogue: Catalogue, name: str) -> Facet:
    if name.startswith(JUDGE):
        return Facet(OUTCOMES, catalogue.opinions[name.removeprefix(JUDGE)].outcomes)
    return catalogue.facets[name]


def _all(masks: Iterable[Flags], size: int) -> Flags:
    kept = np.ones(size, dtype=np.bool_)
    for mask in masks:
        kept &= mask
    return kept


def _in_order(items: Items, query: Query, catalogue: Catalogue) -> Items:
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


def readers(catalogue: Catalogue) -> list[Opinions]:
    """The judges that read the responses."""
    return [opinions for opinions in catalogue.opinions.values() if not opinions.trivial]


def disagreement(catalogue: Catalogue) -> Flags:
    """Items on which one reading judge is right and another wrong, [N]."""
    right = np.zeros(catalogue.size, dtype=np.bool_)
    wrong = right.copy()
    for opinions in readers(catalogue):
        right |= opinions.outcomes == CORRECT
        wrong |= opinions.outcomes == WRONG
    return right & wrong


def spread(catalogue: Catalogue) -> NDArray[np.float64]:
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
