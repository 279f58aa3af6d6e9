"""Our reward model as a scorer: a checkpoint folder in, raw rewards out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from palate.judges.batching import Scored, batched_scores, by_batches, padded
from palate.judges.prompting import Refused
from palate.model.backbone import folder_digest
from palate.model.device import default_device, keep_memory
from palate.model.loading import load_chat, load_reward_model
from palate.model.onnx import GRAPH, open_session, run
from palate.model.options import Dtype
from palate.model.packing import group, microbatches
from palate.model.precision import compute_dtype
from palate.model.reward_model import RewardModel
from palate.model.templates import RefusedTurnsError
from palate.model.tokenizer import TOO_LONG, ChatTokens, Encoded
from palate.model.trunk import shared_trunk
from palate.records import file_digest
from palate.types import Candidates, Message, Score

WINDOW = 256  # Prompts read ahead at most, see `batching`.


class RewardScorer:
    """Scores responses with a Palate checkpoint through the shared-prefix engine.

    Each prompt is run once for all its responses, and prompts that occur again in a window are
    merged, so equal conversations are run once.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        name: str | None = None,
        tokens_per_microbatch: int = 4096,
        dtype: Dtype = "float32",
        max_tokens: int | None = None,
        share_trunk: bool = False,
    ) -> None:
        """Load the checkpoint; raises `PalateError` where it cannot be read.

        `max_tokens` cuts conversations shorter than the checkpoint does, never longer. With
        `share_trunk`, conversations that another scorer of the same layers was asked are not run
        through them again (`model.trunk`).
        """
        keep_memory()
        folder, device = Path(folder), default_device()
        compute = compute_dtype(dtype, device)
        self.name = name or folder.name
        self._max_tokens = tokens_per_microbatch
        self.model = load_reward_model(folder, compute, device)
        if max_tokens is not None:
            self.model.chat.max_tokens = min(max_tokens, self.model.chat.max_tokens)
        revision = folder_digest(folder)
        self.model.kept = shared_trunk(self.model, revision) if share_trunk else None
        self.protocol: Mapping[str, Any] = {
            "judge": "reward-model",
            "revision": revision,
            "format": self.model.chat.fingerprint,
            "max_tokens": self.model.chat.max_tokens,
            "truncation": "oldest turns of the prompt; never the response",
            "dtype": str(compute).removeprefix("torch."),
            "attention": self.model.path,
            "device": device.type,
            "reward": "raw",
            **read_elsewhere(self.model.chat),
        }

    @property
    def attributes(self) -> tuple[str, ...]:
        """What the model's heads say of a response beside its reward."""
        return self.model.attributes

    @property
    def members(self) -> int:
        """How many models say each reward: 1, or the members of an ensemble."""
        return self.model.members

    def score(self, candidates: Iterable[Candidates]) -> Iterator[tuple[Score, ...]]:
        """Scores in the order asked; reads ahead one window of `candidates`."""
        return scores(self.model, candidates, self._max_tokens)


def scores(
    model: RewardModel, candidates: Iterable[Candidates], tokens_per_microbatch: int
) -> Iterator[tuple[Score, ...]]:
    """Scores of an open model in the order asked; reads ahead one window of `candidates`."""

    @torch.inference_mode()
    def rewards(rows: list[tuple[Candidates, Encoded]]) -> list[tuple[Encoded, Scored]]:
        prompts: dict[object, list[Encoded]] = {}
        for shown, row in rows:
            prompts.setdefault(shown.prompt, []).append(row)
        by_prompt = list(prompts.values())
        groups = [group([row.ids for row in rows]) for rows in by_prompt]
        values: list[tuple[Encoded, Scored]] = []
        for indices, chosen in microbatches(groups, tokens_per_microbatch):
            batch = [row for index in indices for row in by_prompt[index]]
            read = model(chosen)
            heads = [[]] * len(batch) if read.attributes is None else read.attributes.tolist()
            attributes = [dict(zip(model.attributes, head, strict=True)) for head in heads]
            members = [[]] * len(batch) if read.members is None else read.members.tolist()
            scored = zip(read.reward.tolist(), attributes, map(tuple, members), strict=True)
            values += zip(batch, scored, strict=True)
        return values

    encode_here = partial(encode, model.chat)
    return batched_scores(candidates, encode_here, rewards, WINDOW, tokens_per_microbatch)


def read_elsewhere(chat: ChatTokens) -> dict[str, str]:
    """For a protocol: where the reward is read, unless at the terminal token, as ours all are."""
    return {} if chat.ending == "terminal" else {"reward_read_at": chat.read_at}


def encode(chat: ChatTokens, prompt: Sequence[Message], response: str) -> Encoded | Refused:
    """The tokens of a conversation, or the reason why it has none."""
    try:
        return chat.encode(prompt, response) or Refused(TOO_LONG)
    except RefusedTurnsError as refusal:
        return Refused(str(refusal))


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
        self._max_tokens = batch_tokens
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

        def rewards(batch: list[Encoded]) -> list[float]:
            ids, mask = padded([row.ids for row in batch], self._chat.pad_id)
            return [float(value) for value in run(self._session, ids.numpy(), mask.numpy())]

        run_all = by_batches(rewards, self._max_tokens)
        encode_here = partial(encode, self._chat)
        return batched_scores(candidates, encode_here, run_all, WINDOW, self._max_tokens)
