"""A reward model that refuses 20 tokens, opened where a worker's process can import it."""

from pathlib import Path
from typing import Any

from palate.model.loading import load_reward_model
from palate.model.reward_model import RewardModel
from palate.types import PalateError


def refusing(folder: Path) -> RewardModel:
    """The model in `folder`, which raises in its forward pass."""
    model = load_reward_model(folder)
    model.register_forward_pre_hook(_refuse)
    return model


def _refuse(_: Any, inputs: Any) -> None:
    if any(item.tokens == 20 for item in inputs[0]):
        raise PalateError("20 tokens are too many")
