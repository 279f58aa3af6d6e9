"""What a list is asked for: read from a URL and written into one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from urllib.parse import urlencode

from palate.view.catalogue import Catalogue
from palate.view.opinions import OUTCOMES

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


def read_query(pairs: Iterable[tuple[str, str]], catalogue: Catalogue) -> Query:
    """The query of a URL; what names nothing in this run is left out."""
    return _read(pair for pair in pairs if _known(*pair, catalogue))


def _known(name: str, value: str, catalogue: Catalogue) -> bool:
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
