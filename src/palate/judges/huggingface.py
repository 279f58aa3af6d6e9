"""A foreign checkpoint from hub or folder: safetensors only, no remote code, float32."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer

from palate.model.backbone import VOCABULARY_HEADS, quiet
from palate.model.device import default_device
from palate.records import file_digest
from palate.types import PalateError, digest

log = logging.getLogger(__name__)

PICKLE = "pickle can run code when opened"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What was opened, and what pins it."""

    config: Any
    tokenizer: Any
    model: Any
    identity: Mapping[str, str]


def open_checkpoint(
    kind: Any,
    name: str,
    what: str,
    *,
    check: Callable[[Any], None],
    revision: str | None = None,
    attention: str = "auto",
) -> Checkpoint:
    """Load hub id or folder `name` with the auto class `kind`, in float32, to evaluate.

    `check` sees the configuration before the weights are fetched. `what` names in errors what the
    checkpoint should have been, such as "a reward model".

    Raises:
        PalateError: no such checkpoint, no safetensors, needs remote code, weights missing.
    """
    options: dict[str, Any] = {"trust_remote_code": False}
    if revision is not None:
        options["revision"] = revision
    try:
        with quiet():
            config = AutoConfig.from_pretrained(name, **options)
            check(config)
            _check_safetensors(name)
            tokenizer = AutoTokenizer.from_pretrained(name, **options)
            if attention != "auto":
                options["attn_implementation"] = attention
            model, info = kind.from_pretrained(
                name,
                config=config,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
                **options,
            )
    except PalateError:
        raise
    except Exception as error:  # Each architecture and file format raises its own.
        raise PalateError(f"{name}: {_reason(error, what)}") from None
    # Weights that the file lacks would be drawn at random (pitfalls 15 and 29).
    if absent := sorted({*info["missing_keys"], *map(str, info["mismatched_keys"])}):
        raise PalateError(
            f"{name}: {len(absent)} weights are missing or of another shape, such as "
            f"{absent[0]}; {what} is saved whole, head included"
        )
    # Weights of the file that the model has no place for: a head, a bias, a tower.
    unused = sorted(map(str, info["unexpected_keys"]))
    if unused := [key for key in unused if not key.startswith(VOCABULARY_HEADS)]:
        more = f" and {len(unused) - 8} more" if len(unused) > 8 else ""
        log.warning(
            "%s: weights that it has and this model does not use: %s%s",
            name, ", ".join(unused[:8]), more,
        )  # fmt: skip
    return Checkpoint(config, tokenizer, model.eval(), _identity(name, config))


def open_device(name: str) -> torch.device:
    """The device of that name; `auto` is the best one of this machine."""
    if name == "auto":
        return default_device()
    try:
        return torch.device(name)
    except RuntimeError:
        raise PalateError(f"device {name!r}: expected auto, cpu, cuda or cuda:N") from None


def _reason(error: Exception, what: str) -> str:
    message = str(error).strip()
    # A hub id; transformers' cure is to trust it.
    if "cannot be loaded with `safetensors`" in message:
        return (
            f"has no safetensors on the hub, and {PICKLE}; set `revision` to a safetensors "
            "conversion (such as refs/pr/2, see its Community tab), or convert it with "
            "save_pretrained where you trust it and name that folder"
        )
    lines = message.splitlines() or [type(error).__name__]
    return (
        f"cannot be opened as {what} ({lines[0][:200]}); expected a hub id or a folder with "
        "config, tokenizer and safetensors, without remote code"
    )


def _check_safetensors(name: str) -> None:
    folder = Path(name)
    if not folder.is_dir() or any(folder.glob("*.safetensors")):
        return
    pickles = sorted(path.name for path in [*folder.glob("*.bin"), *folder.glob("*.pt")])
    content = f"only pickle files ({', '.join(pickles)})" if pickles else "no weights"
    raise PalateError(
        f"{name}: holds {content}, expected *.safetensors; {PICKLE}, "
        "so convert it with save_pretrained where you trust it"
    )


def _identity(name: str, config: Any) -> dict[str, str]:
    """What pins the weights: a hub commit, or the digest of a folder's weights and config."""
    settings = {k: v for k, v in config.to_dict().items() if k != "transformers_version"}
    identity = {"config": digest(settings)}
    folder = Path(name)
    if commit := getattr(config, "_commit_hash", None):
        identity["revision"] = str(commit)
    elif folder.is_dir():
        weights = [(path.name, file_digest(path)) for path in sorted(folder.glob("*.safetensors"))]
        identity["weights"] = digest(weights)
    return identity
