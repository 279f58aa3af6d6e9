"""Save and resume exactly: trainable weights, optimizer moments, the step.

Nothing else is state: the order of examples is a function of (seed, epoch), the learning rate of
the step, and there is no dropout. A checkpoint is a folder that appears whole by a rename.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim import AdamW

from palate.model.reward_model import RewardModel
from palate.types import PalateError

KEEP = 2


def save_checkpoint(
    folder: Path, model: RewardModel, optimizer: AdamW, state: dict[str, Any]
) -> Path:
    """Write `folder/step-N` whole or not at all, and remove all but the last `KEEP`.

    Args:
        state: JSON values; must hold "step" and "fingerprint" (what may resume from it).
    """
    target = folder / f"step-{state['step']:08d}"
    partial = folder / f".{target.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        save_file(_weights(model), partial / "weights.safetensors")
        save_file(_moments(model, optimizer), partial / "optimizer.safetensors")
        (partial / "state.json").write_text(json.dumps(state))
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise PalateError(f"{target}: checkpoint not written ({error.strerror or error})") from None
    for old in sorted(folder.glob("step-*"))[:-KEEP]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def load_checkpoint(
    folder: Path, model: RewardModel, optimizer: AdamW, fingerprint: str
) -> dict[str, Any] | None:
    """Restore the newest checkpoint under `folder` and return its state; None where there is none.

    Raises:
        PalateError: it belongs to another experiment, or cannot be read.
    """
    found = sorted(folder.glob("step-*"))
    if not found:
        return None
    newest = found[-1]
    try:
        state: dict[str, Any] = json.loads((newest / "state.json").read_text())
        weights = load_file(newest / "weights.safetensors")
        moments = load_file(newest / "optimizer.safetensors")
    except Exception as error:  # safetensors raises its own type for a cut file.
        raise PalateError(f"{newest}: unreadable checkpoint ({error}); delete it") from None
    if state["fingerprint"] != fingerprint:
        raise PalateError(
            f"{newest}: made by other data or options; train with --no-resume or a new folder"
        )
    _restore(model, optimizer, weights, moments)
    return state


def _weights(model: RewardModel) -> dict[str, Tensor]:
    named = model.named_parameters()
    return {n: p.detach().cpu().contiguous() for n, p in named if p.requires_grad}


def _moments(model: RewardModel, optimizer: AdamW) -> dict[str, Tensor]:
    names = {id(p): n for n, p in model.named_parameters()}
    return {
        f"{names[id(parameter)]}|{key}": value.detach().cpu().contiguous()
        for parameter, moments in optimizer.state.items()
        for key, value in moments.items()
    }


def _restore(
    model: RewardModel, optimizer: AdamW, weights: dict[str, Tensor], moments: dict[str, Tensor]
) -> None:
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in weights.items():
            parameters[name].copy_(value)
    for key, value in moments.items():
        name, _, moment = key.rpartition("|")
        optimizer.state[parameters[name]][moment] = value.to(parameters[name].device)
