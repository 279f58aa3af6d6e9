"""A reward model that is there already, opened to be exported once more, with its card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from palate.model.adapter import Adapter, is_adapter, load_adapter
from palate.model.backbone import folder_digest, load_config
from palate.model.card import Card
from palate.model.load import load_reward_model
from palate.model.reward_model import RewardModel
from palate.types import PalateError


def reopen(
    location: str, *, base: str | None = None, weights: torch.dtype | None = None
) -> tuple[RewardModel, Card]:
    """The checkpoint or PEFT adapter at `location` and its card, weights in `weights`.

    `weights` None keeps the stored format; an adapter is merged in float32 and then cast. A card
    that lies beside the weights is kept as it is.

    Raises:
        PalateError: what `load_reward_model` and `load_adapter` raise; `base` for no adapter;
            weights that `weights` cannot hold.
    """
    if is_adapter(location):
        model, adapter = load_adapter(Path(location), base=base)
        if weights is not None:
            model.backbone.to(weights)
        _check_finite(model, location)
        return model, _adapter_card(adapter)
    if base is not None:
        raise PalateError(f"{location}: a whole model, not an adapter; leave --base out")
    stored = getattr(load_config(location), "dtype", None) or torch.float32
    model = load_reward_model(location, weights=stored if weights is None else weights)
    _check_finite(model, location)
    return model, _card(location, model.backbone.config)


def _check_finite(model: RewardModel, location: str) -> None:
    """float16 ends at 65,504: a larger weight would be written as infinite."""
    for name, weight in model.backbone.named_parameters():
        if not torch.isfinite(weight).all():
            raise PalateError(
                f"{location}: {name} is not finite in {weight.dtype}; export in bfloat16 or float32"
            )


def _card(location: str, config: Any) -> Card:
    folder = Path(location).expanduser()
    readme = folder / "README.md"
    text = readme.read_text(encoding="utf-8", errors="replace") if readme.is_file() else ""
    ours = dict(getattr(config, "palate", None) or {})
    revision = getattr(config, "_commit_hash", None)
    if not revision and folder.is_dir():
        revision = folder_digest(folder)
    return Card(
        name=folder.name,
        base=ours.get("base") or location,
        base_revision=ours.get("base_revision") or revision or "",
        base_layers=ours.get("layers"),
        recipe_fingerprint=ours.get("recipe") or "",
        text=text,
    )


def _adapter_card(adapter: Adapter) -> Card:
    return Card(
        name=adapter.folder.name,
        base=adapter.base,
        base_revision=adapter.base_revision,
        base_licence=adapter.base_licence,
        facts={"adapter": f"{adapter.model.active_peft_config.peft_type.value}, merged"},
    )
