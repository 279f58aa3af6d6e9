"""Saving a reward model as one stock Hugging Face sequence-classification checkpoint.

Anyone can load it with `AutoModelForSequenceClassification` and get the same rewards: one label,
the head inside, a pad token that differs from the terminal token, a chat template that ends in
the terminal token, a tokenizer that adds nothing of its own, declares no BOS and truncates on the
left (`pitfalls.md` 3, 4, 29, 35, 36, 38).
"""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import processors
from torch import Tensor
from transformers import AutoModelForSequenceClassification
from transformers.modeling_layers import GenericForSequenceClassification
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    MODEL_MAPPING,
)

from palate.model.backbone import drop_dropout
from palate.model.card import Card, render_card
from palate.model.older import write_older_keys
from palate.model.quiet import quiet
from palate.model.reward_model import RewardModel
from palate.model.templates import write_bos
from palate.model.tokenizer import save_tokenizer
from palate.model.tokens import ChatTokens
from palate.records import atomic_folder, write_json, write_text
from palate.types import PalateError, digest

# Format 2 is of models that are read where their template's whole text ends, and not after the
# terminal token: what reads format 1 alone must not open them.
FORMATS = (1, 2)
SAFETY_FILE = "safety_head.safetensors"  # Inside the weights it would be an unexpected key.
HEAD_KEY = "score.weight"
INDEX_FILE = "model.safetensors.index.json"
# SGLang (0.5.23) gives the heads of these a bias, and leaves it random where no file has one. Stock
# loaders open model.safetensors alone, to which a bias would be an unexpected key.
BIASED = ("qwen2", "qwen3")
BIAS_FILE = "score_bias.safetensors"

MADE: set[str] = set()  # Classes that transformers lacks and this process has registered.

log = logging.getLogger(__name__)


def export(model: RewardModel, folder: Path, *, card: Card, max_shard_size: str = "5GB") -> Path:
    """Write `model` to `folder` as a sequence-classification checkpoint and return the folder.

    The folder appears whole or not at all; one that is there is replaced. Adapters are merged
    into the written weights; `model` itself is not changed.

    Raises:
        PalateError: transformers has no sequence classification with a `score` head for this
            architecture, or the folder cannot be written.
    """
    merged = merged_weights(model.backbone)
    if model.bias:
        card = _without_constant(card, model.bias, folder)
    config = _config(model, card)
    if made := check_exportable(config):
        card = replace(card, facts={**card.facts, "stock class": made})
    with quiet():
        classifier = _classifier(config, merged, model.head.weight.detach())
        tokenizer = portable_tokenizer(model.chat)
        with atomic_folder(folder) as partial:
            classifier.save_pretrained(partial, max_shard_size=max_shard_size)
            save_tokenizer(tokenizer, partial)
            write_older_keys(partial)
            if model.safety_head is not None:
                weight = model.safety_head.weight.detach().cpu().contiguous()
                save_file({"weight": weight}, partial / SAFETY_FILE)
            _write_for_engines(partial, config.model_type)
            chat = model.chat
            text = render_card(
                card, terminal=chat.terminal, max_tokens=chat.max_tokens, ending=chat.ending
            )
            write_text(partial / "README.md", text)
    return folder


def _write_for_engines(folder: Path, kind: str) -> None:
    """Let vLLM and SGLang read what is theirs: they open every safetensors file that lies there.

    An index keeps them from the safety head, which is no part of the classifier and which vLLM
    refuses. Shards have an index, by which all readers go; there a bias cannot be hidden from
    stock loaders, and is left out.
    """
    index = folder / INDEX_FILE
    if index.is_file():
        return
    if kind in BIASED:
        save_file({"score.bias": torch.zeros(1)}, folder / BIAS_FILE)
    if not (folder / SAFETY_FILE).is_file():
        return
    names: dict[str, str] = {}
    size = 0
    for path in sorted(folder.glob("*.safetensors")):
        if path.name == SAFETY_FILE:
            continue
        with safe_open(path, framework="pt") as tensors:
            names |= dict.fromkeys(tensors.keys(), path.name)
        size += path.stat().st_size
    write_json(index, {"metadata": {"total_size": size}, "weight_map": names})


def merged_weights(backbone: Any) -> dict[str, Tensor]:
    """The backbone's weights under the names of a plain model, LoRA deltas added.

    W' = W + (alpha / rank) B A for each adapted matrix. Tensors without an adapter are the live
    ones, not copies.
    """
    if not hasattr(backbone, "peft_config"):
        return {name: tensor.detach() for name, tensor in backbone.state_dict().items()}
    plain = backbone.get_base_model()
    weights = {
        name.replace(".base_layer.", "."): tensor.detach()
        for name, tensor in plain.state_dict().items()
        if ".lora_" not in name
    }
    for name, module in plain.named_modules():
        if not hasattr(module, "get_delta_weight"):
            continue
        for adapter in module.active_adapters:
            key = f"{name}.weight"
            delta = module.get_delta_weight(adapter).detach()
            weights[key] = (weights[key].float() + delta.float()).to(weights[key].dtype)
    return weights


def _config(model: RewardModel, card: Card) -> Any:
    """The backbone's configuration made a one-label classifier's, with Palate's own facts."""
    chat = model.chat
    config = copy.deepcopy(model.backbone.config)
    drop_dropout(config)
    config.num_labels = 1
    config.id2label, config.label2id = {0: "reward"}, {"reward": 0}
    config.problem_type = "regression"
    config.pad_token_id = chat.pad_id
    config.get_text_config().pad_token_id = chat.pad_id
    config.use_cache = False
    config.palate = {
        "format": 1 if chat.ending == "terminal" else 2,
        "terminal_token": chat.terminal,
        "terminal_token_id": chat.terminal_id,
        "max_tokens": chat.max_tokens,
        "chat_template": write_bos(chat.template, chat.tokenizer.bos_token),
        "bos_token": chat.tokenizer.bos_token,
        "chat_template_fingerprint": digest(chat.template),
        "base": card.base,
        "base_revision": card.base_revision,
        "layers": card.base_layers,
        "recipe": card.recipe_fingerprint,
        "safety_head": SAFETY_FILE if model.safety_head is not None else None,
    }
    if chat.ending == "template":
        config.palate["ending"] = chat.ending
    return config


def _without_constant(card: Card, constant: float, folder: Path) -> Card:
    """A stock head has no bias: the export leaves a peer's constant out, and says so."""
    said = f"rewards are {abs(constant):.6g} {'lower' if constant > 0 else 'higher'} than there"
    log.warning("%s: a stock head has no constant, so its %s", folder, said)
    return replace(card, facts={**card.facts, "constant left out": said})


def check_exportable(config: Any) -> str:
    """See that the decoder of `config` can be saved with a linear head.

    Where transformers has no classifier of the architecture (Gemma 4), its generic one is made of
    it and registered in this process; what is returned tells other readers how, for the card.

    Raises:
        PalateError: an architecture that its generic classifier does not fit either.
    """
    kind = type(config)
    known = kind in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
    made = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[kind] if known else None
    if made is not None and made.__name__ not in MADE:
        return ""
    backbone = MODEL_MAPPING.get(kind, None)
    parents = [] if backbone is None else backbone.__mro__[1:]
    base = next((c for c in parents if c.__name__.endswith("PreTrainedModel")), None)
    if backbone is None or base is None:
        raise _unexportable(config)
    name = f"{backbone.__name__.removesuffix('Model')}ForSequenceClassification"
    attributes = {"__module__": base.__module__, "config_class": kind}
    made = type(name, (GenericForSequenceClassification, base), attributes)
    # Without `exist_ok` transformers 5.24 does nothing, in silence, for a configuration of its own.
    AutoModelForSequenceClassification.register(kind, made, exist_ok=True)
    MADE.add(name)
    return (
        f"transformers has none for {config.model_type}; Palate opens it, others after class "
        f"{name}(GenericForSequenceClassification, {base.__name__}): config_class = "
        f"{kind.__name__}, registered with AutoModelForSequenceClassification, exist_ok=True"
    )


def _unexportable(config: Any) -> PalateError:
    return PalateError(
        f"transformers has no sequence classification with a linear {HEAD_KEY} for "
        f"{config.model_type}; use a decoder of another architecture"
    )


def _classifier(config: Any, backbone: Mapping[str, Tensor], head: Tensor) -> Any:
    """The stock classifier around the given tensors, without copying or initialising any."""
    with torch.device("meta"):
        classifier = AutoModelForSequenceClassification.from_config(config)
    if HEAD_KEY not in classifier.state_dict():
        raise _unexportable(config)
    prefix = classifier.base_model_prefix
    weights = {f"{prefix}.{name}": tensor for name, tensor in backbone.items()}
    classifier.load_state_dict(weights | {HEAD_KEY: head}, strict=True, assign=True)
    # Tells readers which dtype to open it in; the head's own would say float32 for any backbone.
    classifier.config.dtype = next(iter(backbone.values())).dtype
    return classifier


def portable_tokenizer(chat: ChatTokens) -> Any:
    """A copy of the tokenizer with which stock code makes our tokens.

    It pads on the right with a token that is not the terminal one, truncates on the left, to the
    model's own length, adds no special tokens (the template writes them), declares no BOS, and
    its template ends in the terminal token.
    """
    tokenizer = copy.deepcopy(chat.tokenizer)
    tokenizer.padding_side, tokenizer.truncation_side = "right", "left"
    tokenizer.model_max_length = chat.max_tokens
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(chat.pad_id)
    tokenizer.chat_template = without_marks(write_bos(chat.template, tokenizer.bos_token))
    if chat.ending == "terminal":
        tokenizer.chat_template = closed_template(tokenizer.chat_template, chat.terminal)
    _add_nothing(tokenizer)
    # Clients that expect a tokenizer to add its BOS cut it from the text that the template wrote
    # (verl 0.9.1), and nothing here puts it back. What is not declared is not cut.
    tokenizer.bos_token = None
    return tokenizer


# Whether a token is of the assistant, for training: nothing is rendered, only Python's Jinja with
# an extension of transformers knows the tag, and `if true` treats the white space alike.
GENERATION = (
    (re.compile(r"\{%([-+]?)\s*generation\s*([-+]?)%\}"), r"{%\1 if true \2%}"),
    (re.compile(r"\{%([-+]?)\s*endgeneration\s*([-+]?)%\}"), r"{%\1 endif \2%}"),
)


def without_marks(template: str) -> str:
    """`template` without the tags that mark what the assistant wrote."""
    for tag, plain in GENERATION:
        template = tag.sub(plain, template)
    return template


def closed_template(template: str, terminal: str) -> str:
    """`template` with its output cut after the last `terminal`.

    Where a generation prompt is asked for, the output is left as it is. The empty expressions
    keep Jinja's block trimming away from the template's own first and last line. What is added
    here runs in every Jinja that is met in servers: Python's, minijinja, llama.cpp's, JavaScript's.
    """
    body = template.removesuffix("\n")  # As Jinja itself does at the end of a template.
    end = repr(terminal)  # A Jinja literal reads Python's escapes.
    return (
        f"{{% set palate_text %}}{{{{ '' }}}}{body}{{{{ '' }}}}{{% endset %}}"
        "{% if add_generation_prompt %}{{ palate_text }}"
        f"{{% elif {end} in palate_text %}}"
        f"{{{{ palate_text.split({end})[:-1] | join({end}) }}}}{{{{ {end} }}}}"
        f"{{% else %}}{{{{ palate_text + {end} }}}}{{% endif %}}"
    )


def _add_nothing(tokenizer: Any) -> None:
    """Stop the tokenizer from adding BOS or EOS by itself: the template writes what is due."""
    for name in ("add_bos_token", "add_eos_token"):
        if getattr(tokenizer, name, False):
            setattr(tokenizer, name, False)
    if tokenizer("x")["input_ids"] != tokenizer("x", add_special_tokens=False)["input_ids"]:
        tokenizer.backend_tokenizer.post_processor = processors.Sequence([])
