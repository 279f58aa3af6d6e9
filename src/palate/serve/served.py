"""The models that are served, by name."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Protocol

from palate.serve.ask import Ask
from palate.serve.faults import Fault
from palate.serve.reading import Reader


class Rewarding(Protocol):
    """What answers asks: an engine, or several combined."""

    name: str

    async def rewards(self, ask: Ask) -> tuple[float, ...]: ...


@dataclass(frozen=True, slots=True)
class Served:
    """One model as clients know it; `facts` is what /v1/models and /info say of it.

    `location` is the folder or hub id it was opened from, which trainers send as its name that
    start the engine themselves elsewhere (verl). `raw` is whether its own configuration asks for
    its value as it is, which engines go by where a request does not say.
    """

    name: str
    source: Rewarding
    reader: Reader
    fingerprint: str
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])
    location: str = ""
    raw: bool = True
    created: int = field(default_factory=lambda: int(time.time()))


class Models:
    """The served models; the first is the one that requests mean which name none."""

    def __init__(self, served: Mapping[str, Served]) -> None:
        self._served = dict(served)
        # Of several names for one place the first is meant.
        given = reversed(self._served.values())
        self._located = {one.location: one for one in given if one.location}

    def __iter__(self) -> Iterator[Served]:
        return iter(self._served.values())

    def get(self, name: str | None) -> Served:
        """The model of that name, or opened from there; raises `Fault` (404) for neither."""
        if name is None:
            return next(iter(self._served.values()))
        found = self._served.get(name) or self._located.get(name)
        if found is None:
            # The name is a client's text, but not a prompt; still no more than its beginning.
            known = ", ".join(self._served)
            raise Fault(
                HTTPStatus.NOT_FOUND, "not_found", f"no model {name[:80]!r}; known: {known}"
            )
        return found
