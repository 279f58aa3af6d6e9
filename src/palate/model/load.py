"""Opening a reward model again: Palate's own export, or any one-label decoder classifier."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from transformers.utils import cached_file

from palate.model.backbone import (
    Backbone,
    Source,
    load_backbone,
    load_config,
    load_tokenizer,
)
from palate.model.export import FORMAT, HEAD_KEY, SAFETY_FILE
from palate.model.options import BaseOptions
from palate.model.quiet import quiet
from palate.model.reward_model import RewardModel
from palate.model.templates import without_bos
from palate.model.tokens import ChatTokens
from palate.types import PalateError

FOREIGN_MAX_TOKENS = 4_096  # Where a checkpoint allows more: what fits beside other work.

FACTS = {"chat_template", "terminal_token", "terminal_token_id", "max_tokens"}


def load_reward_model(
    folder: Path | str,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    *,
    weights: torch.dtype = torch.float32,
    revision: str | None = None,
    max_tokens: int | None = None,
    template_variables: Mapping[str, str] | None = None,
) -> RewardModel:
    """The reward model in `folder` (or at a hub id), in evaluation mode.

    Reads what `export` wrote, and any other `*ForSequenceClassification` decoder with one label
    and a linear head; for those the terminal token is taken from the chat template. `dtype` is
    that of the matrix products and `weights` that of the stored backbone; the head is read and
    kept in float32.

    Raises:
        PalateError: no such checkpoint, another kind of model, or a damaged one.
    """
    opened = load_backbone(str(folder), dtype=weights, revision=revision)
    ours = facts_of(opened.model.config, opened.location)
    head = _head(opened, revision)
    chat = chat_tokens(
        str(folder), opened.tokenizer, opened.model.config, ours, max_tokens, template_variables
    )
    safety = ours.get("safety_head")
    model = RewardModel(opened.model, chat, dtype=dtype, safety_head=safety is not None)
    with torch.no_grad():
        model.head.weight.copy_(head)
        if model.safety_head is not None:
            model.safety_head.weight.copy_(_safety_head(opened, revision))
    return model.to(device).eval()


def load_chat(folder: Path) -> ChatTokens:
    """The way to tokens of the export in `folder`, without its weights.

    Raises:
        PalateError: config or tokenizer files are missing, or are of no reward model.
    """
    location = str(folder)
    config = load_config(location)
    tokenizer = load_tokenizer(Source(location), location)
    return chat_tokens(location, tokenizer, config, facts_of(config, location))


def chat_tokens(
    location: str,
    tokenizer: Any,
    config: Any,
    ours: Mapping[str, Any],
    max_tokens: int | None = None,
    template_variables: Mapping[str, str] | None = None,
) -> ChatTokens:
    """The way to tokens by `ours`, the `palate` part of the config, else by the tokenizer's own."""
    if ours:
        # The template before it was closed, so that the protocol's fingerprint is the trained one.
        tokenizer.chat_template = ours["chat_template"]
        if (bos := ours.get("bos_token")) is not None:  # An export declares none to its clients.
            tokenizer.bos_token = bos
            tokenizer.chat_template = without_bos(ours["chat_template"], bos)
    chat = ChatTokens(
        tokenizer,
        BaseOptions(
            model=location,
            max_tokens=max_tokens or ours.get("max_tokens") or _longest(config, tokenizer),
            template_variables=dict(template_variables or {}),
        ),
    )
    if ours and chat.terminal_id != ours["terminal_token_id"]:
        raise PalateError(
            f"{location}: scored at {ours['terminal_token']!r}, but its template now ends turns in "
            f"{chat.terminal!r}; restore the tokenizer files it was exported with"
        )
    return chat


def facts_of(config: Any, location: str) -> dict[str, Any]:
    """The `palate` part of config.json, or {} for a foreign checkpoint of the right kind."""
    kinds = list(getattr(config, "architectures", None) or ["unknown"])
    if not kinds[0].endswith("ForSequenceClassification") or config.num_labels != 1:
        raise PalateError(
            f"{location}: {kinds[0]} with {config.num_labels} labels; expected a reward model, "
            "*ForSequenceClassification with one label"
        )
    ours = dict(getattr(config, "palate", None) or {})
    missing = FACTS - ours.keys()
    if ours and missing and ours.get("format") == FORMAT:
        raise PalateError(
            f"{location}: the palate part of config.json lacks {min(missing)}; export it again"
        )
    if ours and ours.get("format") != FORMAT:
        raise PalateError(
            f"{location}: exported in format {ours.get('format')}, this Palate reads {FORMAT}; "
            "export it again with this version"
        )
    return ours


def _longest(config: Any, tokenizer: Any) -> int:
    positions = getattr(config, "max_position_embeddings", None) or FOREIGN_MAX_TOKENS
    return min(FOREIGN_MAX_TOKENS, int(positions), int(tokenizer.model_max_length))


def _file(opened: Backbone, name: str, revision: str | None) -> Path | None:
    folder = Path(opened.location).expanduser()
    if folder.is_dir():
        return folder / name if (folder / name).is_file() else None
    with quiet():
        found = cached_file(
            opened.location, name, revision=revision, _raise_exceptions_for_missing_entries=False
        )
    return Path(found) if found else None


def _head(opened: Backbone, revision: str | None) -> Tensor:
    """The head as stored, [1, D]: opened with the backbone it would be cast to its dtype."""
    index = _file(opened, "model.safetensors.index.json", revision)
    shard = "model.safetensors"
    if index is not None:
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        shard = names.get(HEAD_KEY, shard)
    path = _file(opened, shard, revision)
    if path is not None:
        with safe_open(path, framework="pt") as tensors:
            keys = set(tensors.keys())
            if HEAD_KEY in keys and "score.bias" not in keys:
                return tensors.get_tensor(HEAD_KEY).float()
    raise PalateError(
        f"{opened.location}: no {HEAD_KEY} without a bias; expected a linear scalar head. Judge it "
        "as a foreign sequence classifier instead"
    )


def _safety_head(opened: Backbone, revision: str | None) -> Tensor:
    path = _file(opened, SAFETY_FILE, revision)
    if path is None:
        raise PalateError(f"{opened.location}: {SAFETY_FILE} is missing; export it again")
    return load_file(path)["weight"]
