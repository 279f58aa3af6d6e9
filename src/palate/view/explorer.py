"""The runs that are open, and who looks at them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from palate.view.catalogue import Catalogue, open_catalogue
from palate.view.live import Rewards
from palate.view.marks import Mark, Marks
from palate.view.query import Query
from palate.view.select import Selection, Selector


@dataclass(frozen=True, slots=True)
class Viewer:
    """A person at a browser: under which name they mark, and whether labels and scores are hidden.

    `forced` says that the server hides them whatever a person asks for.
    """

    annotator: str
    blind: bool
    forced: bool = False


class OpenRun:
    """A run's columns, texts, marks and models; opened when first looked at."""

    def __init__(self, folder: Path, marks: Path | None = None) -> None:
        self.folder, self.name = folder, folder.name or str(folder)
        self.marks = Marks(marks or folder / "marks.sqlite")
        self.rewards = Rewards(folder)
        self._opening = threading.Lock()

    @property
    def catalogue(self) -> Catalogue:
        """The columns of the run."""
        return self.selector.catalogue

    @property
    def selector(self) -> Selector:
        """What answers queries; two first visitors open the run once."""
        with self._opening:
            return self._selector

    def open(self) -> None:
        """Open the run now, so that the first visitor need not wait."""
        self.selector.texts.load()

    @cached_property
    def _selector(self) -> Selector:
        return Selector(open_catalogue(self.folder))

    @cached_property
    def reach(self) -> dict[str, float]:
        """By judge, the margin that fills a bar."""
        return {name: opinions.reach() for name, opinions in self.catalogue.opinions.items()}

    def select(self, query: Query, viewer: Viewer, keep: int | None = None) -> Selection:
        """What a viewer's query finds; `keep` stays whether its mark fits the filter or not."""
        mask = self._marked(query.marked, viewer.annotator) if query.marked else None
        if mask is not None and keep is not None:
            mask[keep] = True
        return self.selector.select(query, mask)

    def _marked(self, wanted: str, annotator: str) -> NDArray[np.bool_]:
        choices = {"agree": "chosen", "disagree": "rejected"}
        found = [
            mark.comparison_id
            for mark in self.marks.of(annotator)
            if wanted not in choices or mark.choice == choices[wanted]
        ]
        mask = self.catalogue.all_items_of(found)
        return ~mask if wanted == "no" else mask

    def marks_of(self, items: Sequence[int], annotator: str) -> dict[int, Mark]:
        """A person's marks of some items."""
        own = {mark.comparison_id: mark for mark in self.marks.of(annotator)}
        if not own:
            return {}
        ids = self.catalogue.ids_of(items)
        return {item: own[id] for item, id in zip(items, ids, strict=True) if id in own}


@dataclass(frozen=True, slots=True)
class Explorer:
    """What one server shows: runs in the order given, a default name, blind for all or not."""

    runs: tuple[OpenRun, ...]
    annotator: str
    blind: bool = False
    asked: dict[str, int] = field(default_factory=dict[str, int])

    def close(self) -> None:
        """Stop the threads of the models."""
        for run in self.runs:
            run.rewards.close()
