"""The texts of a run's comparisons: searched in any case, and the beginnings that a list shows."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from functools import lru_cache
from itertools import groupby
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from palate.types import PalateError
from palate.view.catalogue import Catalogue

Flags = NDArray[np.bool_]
SEARCHES_KEPT = 64  # 0.1 MB each at 100,000 items.
_EXCERPT = "prompt[-1].content[:240]"
# Lower case once, not at every search: of 100,000 comparisons 1 s, in a thread of its own.
_LOAD = f"""
INSERT INTO texts SELECT (? + file_row_number)::INTEGER, {_EXCERPT}, lower(concat_ws(chr(10),
  array_to_string(list_transform(prompt, lambda turn: turn.content), chr(10)), chosen, rejected
)) FROM read_parquet(?, file_row_number = true)
"""
_WORDS = re.compile(r'"([^"]+)"|(\S+)')


class Texts:
    """The texts of a catalogue in DuckDB's memory, which goes to disk where it is too little.

    They are read when `load` is first called, beside whatever else is done; a search waits for
    them, a list does not.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._loader = threading.Thread(target=self._load, daemon=True, name="texts")
        self._starting = threading.Lock()
        self._ready, self._failed = False, ""
        self.find = lru_cache(SEARCHES_KEPT)(self._find)

    def load(self) -> None:
        """Begin to read the texts, once."""
        with self._starting:
            if self._loader.ident is None:
                self._loader.start()

    def _load(self) -> None:
        cursor = self._catalogue.database.cursor()
        try:
            cursor.execute("CREATE TABLE texts (item INTEGER, excerpt VARCHAR, text VARCHAR)")
            for part in self._catalogue.parts:
                cursor.execute(_LOAD, [part.start, str(part.path)])
            self._ready = True
        except duckdb.Error as error:
            self._failed = str(error).splitlines()[0]

    def _find(self, search: str) -> Flags:
        """Items that hold every word or "quoted phrase", in any case, [N]."""
        self.load()
        self._loader.join()
        if self._failed:
            raise PalateError(f"search: the texts cannot be read ({self._failed})")
        words = [phrase or word for phrase, word in _WORDS.findall(search.lower())]
        where = " AND ".join(["contains(text, ?)"] * len(words)) or "true"
        cursor = self._catalogue.database.cursor()
        found = cursor.execute(f"SELECT item FROM texts WHERE {where}", words).fetchnumpy()
        mask = np.zeros(self._catalogue.size, dtype=np.bool_)
        mask[found["item"]] = True
        return mask

    def excerpts(self, items: Sequence[int]) -> list[str]:
        """The beginning of each item's last turn before the responses."""
        if self._ready:
            query = "SELECT item, excerpt FROM texts WHERE item IN (SELECT unnest(?::INTEGER[]))"
            found = dict(self._rows(query, [list(items)]))
        else:
            found = self._excerpts_on_disk(items)
        return [found.get(item) or "" for item in items]

    def _excerpts_on_disk(self, items: Sequence[int]) -> dict[int, str]:
        found: dict[int, str] = {}
        query = f"""SELECT ? + file_row_number, {_EXCERPT}
            FROM read_parquet(?, file_row_number = true)
            WHERE file_row_number IN (SELECT unnest(?::BIGINT[]))"""
        for part, own in groupby(sorted(items), key=self._catalogue.part_of):
            rows = [item - part.start for item in own]
            found |= dict(self._rows(query, [part.start, str(part.path), rows]))
        return found

    def _rows(self, query: str, values: list[Any]) -> list[Any]:
        return self._catalogue.database.cursor().execute(query, values).fetchall()
