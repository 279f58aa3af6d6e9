"""Our reward model as a scorer: a checkpoint folder in, raw rewards out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from palate.judges.huggingface import batches
from palate.judges.prompting import Refused
from palate.judges.scalar import NON_FINITE
from palate.model.backbone import folder_digest
from palate.model.device import default_device, keep_memory
from palate.model.loading import load_chat, load_reward_model
from palate.model.onnx import GRAPH, open_session, run
from palate.model.options import Dtype
from palate.model.packing import Group, Tokens, group, microbatches
from palate.model.precision import compute_dtype
from palate.model.reward_model import RewardModel
from palate.model.templates import RefusedTurnsError
from palate.model.tokenizer import TOO_LONG, ChatTokens, Encoded
from palate.records import file_digest
from palate.types import Candidates, Message, Score

WINDOW = 256  # Prompts read ahead: enough to fill micro-batches, few enough to show progress.


class RewardScorer:
    """Scores responses with a Palate checkpoint through the shared-prefix engine.

    Each prompt is run once for all its responses, and prompts that occur again in a window are
    merged, so a response asked about twice is encoded once.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        name: str | None = None,
        tokens_per_microbatch: int = 4096,
        dtype: Dtype = "float32",
    ) -> None:
        """Load the checkpoint; raises `PalateError` where it cannot be read."""
        keep_memory()
        folder, device = Path(folder), default_device()
        compute = compute_dtype(dtype, device)
        self.name = name or folder.name
        self._budget = tokens_per_microbatch
        self.model = load_reward_model(folder, compute, device)
        self.protocol: Mapping[str, Any] = {
            "judge": "reward-model",
            "revision": folder_digest(folder),
            "format": self.model.chat.fingerprint,
            "max_tokens": self.model.chat.max_tokens,
            "truncation": "oldest turns of the prompt; never the response",
            "dtype": str(compute).removeprefix("torch."),
            "attention": self.model.path,
            "device": device.type,
            "reward": "raw",
            **read_elsewhere(self.model.chat),
        }

    def score(self, candidates: Iterable[Candidates]) -> Iterator[tuple[Score, ...]]:
        """Scores in the order asked; reads ahead one window of `candidates`."""
        return scores(self.model, candidates, self._budget)


def scores(
    model: RewardModel, candidates: Iterable[Candidates], tokens_per_microbatch: int
) -> Iterator[tuple[Score, ...]]:
    """Scores of an open model in the order asked; reads ahead one window of `candidates`."""
    stream = iter(candidates)
    while window := list(islice(stream, WINDOW)):
        yield from _score_window(model, window, tokens_per_microbatch)


def _score_window(
    model: RewardModel, window: Sequence[Candidates], tokens_per_microbatch: int
) -> list[tuple[Score, ...]]:
    encoded: dict[Candidates, tuple[Encoded | Refused, ...]] = {}
    prompts: dict[object, dict[bytes, Encoded]] = {}
    for item in window:
        rows = tuple(encode(model.chat, item.prompt, r) for r in item.responses)
        encoded[item] = rows
        distinct = prompts.setdefault(item.prompt, {})
        distinct.update((row.ids.tobytes(), row) for row in rows if isinstance(row, Encoded))
    distinct_rows = [list(rows.values()) for rows in prompts.values() if rows]
    rewards = _rewards(model, distinct_rows, tokens_per_microbatch)
    return [tuple(score_of(row, rewards) for row in encoded[item]) for item in window]


@torch.inference_mode()
def _rewards(
    model: RewardModel, prompts: Sequence[Sequence[Encoded]], tokens_per_microbatch: int
) -> dict[bytes, float]:
    """Reward of each distinct conversation, by its tokens."""
    groups: list[Group] = [group([row.ids for row in rows]) for rows in prompts]
    rewards: dict[bytes, float] = {}
    for indices, chosen in microbatches(groups, tokens_per_microbatch):
        values = model(chosen).reward.tolist()
        keys = [row.ids.tobytes() for i in indices for row in prompts[i]]
        rewards.update(zip(keys, values, strict=True))
    return rewards


def read_elsewhere(chat: ChatTokens) -> dict[str, str]:
    """For a protocol: where the reward is read, unless at the terminal token, as ours all are."""
    return {} if chat.ending == "terminal" else {"reward_read_at": chat.read_at}


def encode(chat: ChatTokens, prompt: Sequence[Message], response: str) -> Encoded | Refused:
    """The tokens of a conversation, or the reason why it has none."""
    try:
        return chat.encode(prompt, response) or Refused(TOO_LONG)
    except RefusedTurnsError as refusal:
        return Refused(str(refusal))


def score_of(row: Encoded | Refused, rewards: Mapping[bytes, float]) -> Score:
    """The score of a conversation by its tokens."""
    if isinstance(row, Refused):
        return Score(None, row.reason)
    value = rewards[row.ids.tobytes()]
    if not math.isfinite(value):
        return Score(None, NON_FINITE, row.truncated, len(row.ids))
    return Score(value, "", row.truncated, len(row.ids))


# A reward model exported to ONNX, as a scorer: ONNX Runtime on the CPU, padded batches.


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
