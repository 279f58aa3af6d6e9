"""A PEFT adapter beside its base model, opened as one reward model: the weights are merged.

What TRL's reward trainer and others save: `adapter_config.json`, `adapter_model.safetensors`, the
scalar head among them, and the name of the base model. LLaMA-Factory's adapts a causal model, and
its head lies beside it.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForSequenceClassification

from palate.model.backbone import (
    Source,
    check_whole,
    drop_dropout,
    find_checkpoint,
    load_backbone,
    load_tokenizer,
    silence_dropout,
    text_decoder,
    unreadable,
)
from palate.model.export import HEAD_KEY
from palate.model.load import (
    Head,
    Maker,
    chat_tokens,
    facts_of,
    read_value_head,
    tell_reading,
    value_head_of,
)
from palate.model.quiet import quiet
from palate.model.reward_model import RewardModel
from palate.types import PalateError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@dataclass(frozen=True)
class Adapter:
    """PEFT's model with the adapter active and not merged, and where its base came from."""

    model: Any = field(repr=False)
    tokenizer: Any = field(repr=False)
    config: Any = field(repr=False)
    maker: Maker
    folder: Path
    base: str
    base_revision: str
    base_licence: str | None


def is_adapter(folder: Path | str) -> bool:
    """Whether the folder holds a PEFT adapter and no whole model."""
    return (Path(folder) / CONFIG).is_file()


def open_adapter(folder: Path, *, base: str | None = None) -> Adapter:
    """Open the adapter in `folder` on its base model, in float32.

    That is a one-label classifier, or LLaMA-Factory's causal model, which `maker` tells apart.

    `base` says where the base model is now; default: what the adapter says. The tokenizer is the
    adapter's where it brings one.

    Raises:
        PalateError: pickled weights, a base that is missing or of another shape, no trained head.
    """
    _check_weights(folder)
    location = base or _named_base(folder)
    source = find_checkpoint(location)
    valued = value_head_of(folder) is not None
    if valued:
        classifier = load_backbone(location, speaks=True).model
    else:
        classifier = _classifier(source, location, may_lack_head=_has_head(folder))
    config = classifier.config
    try:
        from peft import PeftModel

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # peft only warns of weights that stay random.
            warnings.filterwarnings("error", message="Found missing adapter keys")
            model = PeftModel.from_pretrained(classifier, str(folder), torch_device="cpu")
    except Exception as error:  # Each kind of adapter raises its own.
        said = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise PalateError(
            f"{folder}: does not fit {location} ({said}); name its own base model with --base"
        ) from error
    own = Source(str(folder)) if (folder / "tokenizer.json").is_file() else source
    tokenizer = load_tokenizer(own, own.path)
    maker: Maker = "llama-factory" if valued else "stock"
    if facts_of(config, location):
        maker = "palate"
    elif not valued and own is not source:
        # The trainer's padding, which it read past; the base's config is from before.
        config.get_text_config().pad_token_id = tokenizer.pad_token_id
    return Adapter(
        model=model.eval(),
        tokenizer=tokenizer,
        config=config,
        maker=maker,
        folder=folder,
        base=location,
        base_revision=source.revision or getattr(classifier.config, "_commit_hash", None) or "",
        base_licence=source.licence,
    )


def load_adapter(folder: Path, *, base: str | None = None) -> tuple[RewardModel, Adapter]:
    """The adapter merged into its base, as a reward model in evaluation mode; where it came from.

    Raises:
        PalateError: what `open_adapter` raises; a kind of adapter that cannot be merged.
    """
    opened = open_adapter(folder, base=base)
    try:
        with quiet():
            merged = opened.model.merge_and_unload(safe_merge=True)
    except (AttributeError, ValueError, NotImplementedError) as error:
        kind = opened.model.active_peft_config.peft_type
        raise PalateError(
            f"{folder}: an adapter of kind {kind} cannot be merged ({error})"
        ) from None
    chat = chat_tokens(str(folder), opened.tokenizer, opened.config, opened.maker)
    backbone = getattr(merged, merged.base_model_prefix)
    if opened.config.get_text_config() is not opened.config:
        backbone, _ = text_decoder(backbone, opened.tokenizer, opened.base)
    path = value_head_of(folder)
    head = (
        Head(HEAD_KEY, merged.score.weight)
        if path is None
        else read_value_head(path, backbone.config.hidden_size)
    )
    if opened.maker != "palate":
        tell_reading(str(folder), opened.maker, chat)
    model = RewardModel(backbone, chat)
    head.put(model)
    model.bias = head.bias
    return model.eval(), opened


def _check_weights(folder: Path) -> None:
    if not (folder / WEIGHTS).is_file():
        pickles = sorted(path.name for path in folder.glob("adapter_model.bin"))
        held = (
            f"only {pickles[0]}, and a pickle can run code when opened" if pickles else "no weights"
        )
        raise PalateError(
            f"{folder}: {held}; expected {WEIGHTS}, as peft's save_pretrained writes it"
        )


def _named_base(folder: Path) -> str:
    try:
        named = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError):
        named = None
    if not isinstance(named, str) or not named:
        raise PalateError(f"{folder}/{CONFIG}: names no base model; name it with --base")
    return named


def _has_head(folder: Path) -> bool:
    with safe_open(folder / WEIGHTS, framework="pt") as tensors:
        return any(name.endswith(HEAD_KEY) for name in tensors.keys())  # noqa: SIM118


def _classifier(source: Source, location: str, *, may_lack_head: bool) -> Any:
    """The base model as a classifier; its head may be missing where the adapter brings one."""
    try:
        with quiet():
            config = AutoConfig.from_pretrained(source.path, num_labels=1, trust_remote_code=False)
            drop_dropout(config)
            config.use_cache = False
            classifier, info = AutoModelForSequenceClassification.from_pretrained(
                source.path, config=config, dtype=torch.float32, use_safetensors=True,
                trust_remote_code=False, output_loading_info=True,
            )  # fmt: skip
    except Exception as error:  # As in load_backbone: transformers raises many kinds.
        raise unreadable(location, error) from error
    missing = set(info["missing_keys"])
    if HEAD_KEY in missing and not may_lack_head:
        raise PalateError(
            f"{location}: neither it nor the adapter has a trained {HEAD_KEY}; the trainer drew "
            "one and did not save it: train with modules_to_save=['score'] (peft's SEQ_CLS saves "
            "it too)"
        )
    check_whole({**info, "missing_keys": missing - {HEAD_KEY}}, location)
    if getattr(getattr(classifier, "score", None), "weight", None) is None:
        kind = type(classifier).__name__
        raise PalateError(f"{location}: {kind} has no linear {HEAD_KEY}; expected a plain decoder")
    silence_dropout(classifier)
    return classifier.eval()
