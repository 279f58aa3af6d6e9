"""A reward model exported to ONNX, as a scorer: ONNX Runtime on the CPU, padded batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from palate.judges.padding import batches
from palate.judges.reward_model import encode, read_elsewhere, score_of
from palate.model.loading import load_chat
from palate.model.onnx import GRAPH, open_session, run
from palate.model.packing import Tokens
from palate.model.tokenizer import Encoded
from palate.records import file_digest
from palate.types import Candidates, Score

WINDOW = 256  # Prompts whose conversations are sorted by length together.


class OnnxScorer:
    """Scores responses with the graph that `palate export --format onnx` wrote, in float32."""

    def __init__(
        self, folder: str | Path, *, name: str | None = None, batch_tokens: int = 4096
    ) -> None:
        """Open the graph; raises `PalateError` where it cannot be read."""
        folder = Path(folder)
        self.name = name or folder.name
        self._chat = load_chat(folder)
        self._session = open_session(folder)
        self._budget = batch_tokens
        self.protocol: Mapping[str, Any] = {
            "judge": "onnx",
            "revision": file_digest(folder / GRAPH),
            "format": self._chat.fingerprint,
            "max_tokens": self._chat.max_tokens,
            "truncation": "oldest turns of the prompt; never the response",
            "dtype": "float32",
            "reward": "raw",
            **read_elsewhere(self._chat),
        }

    def score(self, candidates: Iterable[Candidates]) -> Iterator[tuple[Score, ...]]:
        """Scores in the order asked; reads ahead one window of `candidates`."""
        stream = iter(candidates)
        while window := list(islice(stream, WINDOW)):
            rows = [[encode(self._chat, c.prompt, r) for r in c.responses] for c in window]
            distinct = {
                e.ids.tobytes(): e.ids for row in rows for e in row if isinstance(e, Encoded)
            }
            rewards: dict[bytes, float] = {}
            for batch in batches(list(distinct.values()), len, self._budget):
                values = self._rewards(batch)
                rewards.update(zip((ids.tobytes() for ids in batch), values, strict=True))
            yield from (tuple(score_of(encoded, rewards) for encoded in row) for row in rows)

    def _rewards(self, batch: Sequence[Tokens]) -> list[float]:
        longest = max(map(len, batch))
        ids = np.full((len(batch), longest), self._chat.pad_id, np.int64)
        mask = np.zeros_like(ids)
        for row, tokens in enumerate(batch):
            ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, 1
        return [float(value) for value in run(self._session, ids, mask)]
