"""Opening a reward model: Palate's own export, a one-label decoder classifier, a peer's folder.

`maker_of` finds out what trained it, `chat_tokens` how text becomes tokens and where the reward is
read, `load_head` its scalar head; `load_reward_model` puts them on the backbone. A PEFT adapter is
merged into its base model first (`load_adapter`).
"""

from __future__ import annotations

import json
import logging
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForSequenceClassification
from transformers.utils import cached_file

from palate.model.backbone import (
    Backbone,
    Source,
    check_complete,
    drop_dropout,
    find_checkpoint,
    first_line,
    folder_digest,
    keep_layers,
    load_backbone,
    load_config,
    load_tokenizer,
    quiet,
    silence_dropout,
    text_decoder,
    unreadable,
)
from palate.model.ensemble import MemberWeights
from palate.model.export import (
    ADAPTER_CONFIG,
    ADAPTER_FACTS,
    ADAPTER_WEIGHTS,
    ATTRIBUTES_FILE,
    ENSEMBLE_FILE,
    FORMATS,
    HEAD_KEY,
    INDEX_FILE,
    MEMBERS_FILE,
    SAFETY_FILE,
    Card,
    check_exportable,
    closed_template,
    with_ensemble_fact,
)
from palate.model.gguf import is_gguf, unpacked
from palate.model.options import BaseOptions
from palate.model.quantization import round_to_nf4
from palate.model.reward_model import RewardModel, state_width
from palate.model.templates import choose_template, without_bos
from palate.model.tokenizer import ChatTokens, Ending
from palate.types import PalateError

FOREIGN_MAX_TOKENS = 4_096  # Where a checkpoint allows more: what fits beside other work.

# What trained a reward model, and so how it is read; "stock" is TRL, ms-swift and whoever else
# saves transformers' classifier.
Maker = Literal["palate", "stock", "openrlhf", "llama-factory"]
MAKERS: Mapping[Maker, str] = {
    "stock": "stock transformers reads it (TRL and ms-swift train so)",
    "openrlhf": "OpenRLHF reads it",
    "llama-factory": "LLaMA-Factory reads it",
}
VALUE_HEAD = "value_head.safetensors"  # LLaMA-Factory's file beside a causal model.
MOMENTS = (("mean", 0.0), ("std", 1.0))  # OpenRLHF's, in the config.

log = logging.getLogger(__name__)

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

    Reads what `export` wrote, any other `*ForSequenceClassification` decoder with one label and a
    linear head, and the folders of OpenRLHF and LLaMA-Factory; `chat_tokens` says where each
    is read. `dtype` is that of the matrix products and `weights` that of the stored backbone; the
    head is read and kept in float32.

    Raises:
        PalateError: no such checkpoint, another kind of model, or a damaged one.
    """
    if is_gguf(folder):
        with unpacked(Path(folder)) as checkpoint:
            return load_reward_model(
                checkpoint, dtype, device, weights=weights, max_tokens=max_tokens,
                template_variables=template_variables,
            )  # fmt: skip
    opened = load_backbone(str(folder), dtype=weights, revision=revision)
    maker = _known_maker(opened.config, opened.location)
    head = load_head(opened, maker, revision)
    chat = chat_tokens(
        opened.location, opened.tokenizer, opened.config, maker, max_tokens, template_variables
    )
    opened.log_unused(head.name)
    _log_reading(opened.location, maker, chat)
    model = RewardModel(
        opened.model,
        chat,
        dtype=dtype,
        safety_head=head.safety is not None,
        attributes=head.attributes,
        members=1 if head.own else head.members,
    )
    return _with_head(model, head, str(folder)).to(device).eval()


def _with_head(model: RewardModel, head: Head, location: str) -> RewardModel:
    head.copy_to(model)
    model.bias = head.bias
    model.check_sharing()
    if head.own is not None and head.each is not None and head.offsets is not None:
        own = head.own.to(next(model.backbone.parameters()).dtype)
        own.check(model.backbone, head.members, f"{location}/{MEMBERS_FILE}")
        own.take_out(model.backbone)
        model.give_members(own, head.each, head.offsets)
    return model


def start_model(
    base: BaseOptions, *, dtype: torch.dtype = torch.float32, safety_head: bool = False,
    attributes: Iterable[str] = (), members: int = 1, seed: int = 0,
) -> tuple[RewardModel, Backbone]:  # fmt: skip
    """The reward model that training starts from, and what was opened for it.

    A pretrained decoder gets a new head. A reward model goes on with its own head, read where it
    was read, with its template and length where `base` leaves those at their defaults. Heads of
    attributes go on where they are of the same ones; others are new. `members` above 1 is how many
    heads of an ensemble it has: those of an ensemble of as many go on, another head is where all
    begin.

    Raises:
        PalateError: what `load_backbone` raises.
    """
    opened = load_backbone(base.model, revision=base.revision, layers=base.layers)
    check_exportable(opened.model.config)  # Before training, not after hours of it.
    maker = maker_of(opened.config, opened.location)
    if maker is None or opened.layers is not None:
        if maker is not None:
            log.warning(
                "%s: a reward model, but backbone.layers cuts it to %d layers, of which its head "
                "knows nothing: training starts with a new head", base.model, opened.layers,
            )  # fmt: skip
        opened.log_unused()
        opened = _with_pad(opened, base.pad_token)
        chat = ChatTokens(opened.tokenizer, base)
        model = RewardModel(
            opened.model,
            chat,
            dtype=dtype,
            safety_head=safety_head,
            attributes=attributes,
            members=members,
            seed=seed,
        )
        model.check_sharing()
        return model, _with_unwritten(opened, chat)
    head = load_head(opened, maker, base.revision)
    own_length = base.max_tokens == BaseOptions.model_fields["max_tokens"].default
    chat = chat_tokens(
        base.model,
        opened.tokenizer,
        opened.config,
        maker,
        None if own_length else base.max_tokens,
        base.template_variables,
        template=base.template,
    )
    opened.log_unused(head.name)
    if head.own is not None:
        log.warning(
            "%s: an ensemble of %s: training goes on with the average of its %d members' weights",
            base.model, head.own.kind, head.members,
        )  # fmt: skip
        head = replace(head, own=None, each=None, offsets=None)
    model = RewardModel(
        opened.model,
        chat,
        dtype=dtype,
        safety_head=safety_head,
        attributes=attributes,
        members=members,
        seed=seed,
    )
    head.copy_to(model)
    model.check_sharing()
    fact = f"{head.name}, read at {chat.read_at}, conversations of at most {chat.max_tokens} tokens"
    log.warning("%s: a reward model: training goes on with its head %s", base.model, fact)
    if head.bias:
        log.warning("%s: the head's constant %+.4g is left out", base.model, head.bias)
    if head.safety is not None and not safety_head:
        log.warning(
            "%s: its safety head is left out; train.safety_loss.on: head would train it too",
            base.model,
        )
    if head.attributes and head.attributes != model.attributes:
        log.warning(
            "%s: its heads of %s are left out; with train.attributes of the same they would go on",
            base.model, ", ".join(head.attributes),
        )  # fmt: skip
    if members > 1 and head.members != members:
        log.warning(
            "%s: all %d members begin with its head, and differ by the comparisons alone that each "
            "learns from", base.model, members,
        )  # fmt: skip
    elif head.members > 1 and members == 1:
        log.warning(
            "%s: of its %d members the mean goes on; with train.ensemble of as many each would",
            base.model, head.members,
        )  # fmt: skip
    opened = replace(opened, facts={**opened.facts, "head": f"taken over: {fact}"})
    return model, _with_unwritten(opened, chat)


def _with_unwritten(opened: Backbone, chat: ChatTokens) -> Backbone:
    """`opened` with what the template does not write among the facts for the model card."""
    if not chat.unwritten:
        return opened
    lost = ", ".join(chat.unwritten)
    return replace(opened, facts={**opened.facts, "not written by the chat template": lost})


NEW_PAD = "<|pad|>"


def _with_pad(opened: Backbone, name: str | None) -> Backbone:
    """`opened` with a token to pad with, where its tokenizer needs one; nothing reads its row.

    GPT-2's has one special token, which ends a response and so cannot pad (pitfall 3). A row of
    the embedding that no token has yet is taken by itself; only `name` adds a row.

    Raises:
        PalateError: `name` is a word like any other, and would no longer be read as one.
    """
    tokenizer, embedding = opened.tokenizer, opened.model.get_input_embeddings()
    rows, size = embedding.weight.shape[0], len(tokenizer)
    named = {*map(str, tokenizer.get_added_vocab()), *tokenizer.all_special_tokens}
    if name is None and (named - {tokenizer.eos_token} or size >= rows):
        return opened
    name = name or NEW_PAD
    if name not in named and not re.fullmatch(r"<[^<>\s]+>|\[[^\[\]\s]+\]", name):
        raise PalateError(
            f"backbone.pad_token: {name!r} may stand in text, and would no longer be read there; "
            f"expected a special token of the tokenizer, or a new one such as {NEW_PAD}"
        )
    tokenizer.add_special_tokens({"pad_token": name})
    if name in named:
        return opened
    how = "a row of the embedding that no token had"
    if size >= rows:
        how = f"a row added to the embedding, which had {rows}"
        opened.model.resize_token_embeddings(size + 1, mean_resizing=False)
        opened.model.get_input_embeddings().weight.data[size:] = 0
    log.warning("%s: pads with %r, a new token with %s", opened.location, name, how)
    return replace(opened, facts={**opened.facts, "pad token": f"{name}, {how}"})


def load_chat(folder: Path) -> ChatTokens:
    """How the export in `folder` makes tokens, without its weights.

    Raises:
        PalateError: config or tokenizer files are missing, or are of no reward model.
    """
    location = str(folder)
    config = load_config(location)
    tokenizer = load_tokenizer(Source(location), location)
    return chat_tokens(location, tokenizer, config, _known_maker(config, location))


def chat_tokens(
    location: str,
    tokenizer: Any,
    config: Any,
    maker: Maker,
    max_tokens: int | None = None,
    template_variables: Mapping[str, str] | None = None,
    *,
    template: str = "model",
) -> ChatTokens:
    """How a reward model makes tokens, and the one place that decides where it is read.

    Palate's says so in the `palate` part of its config. TRL and ms-swift train at the end of all
    that the template writes, a newline after the end of the turn included, and save a stock
    classifier, which reads the last token that is not its padding. LLaMA-Factory reads the same
    end by the mask, so whatever token it is. OpenRLHF takes newlines off the end and reads an EOS
    token, which it adds behind a blank where the template's text does not end in it.
    """
    ours = facts_of(config, location)
    ending: Ending = "template"
    skipped = config.get_text_config().pad_token_id if maker in ("palate", "stock") else None
    if ours:
        # The template before it was closed, so that the protocol's fingerprint is the trained one.
        tokenizer.chat_template = ours["chat_template"]
        if (bos := ours.get("bos_token")) is not None:  # An export declares none to its clients.
            tokenizer.bos_token = bos
            tokenizer.chat_template = without_bos(ours["chat_template"], bos)
        ending = ours.get("ending", "terminal")
    elif maker == "openrlhf":
        ending = "terminal"
    positions = getattr(config, "max_position_embeddings", None) or FOREIGN_MAX_TOKENS
    longest = min(FOREIGN_MAX_TOKENS, int(positions), int(tokenizer.model_max_length))
    options = BaseOptions(
        model=location,
        max_tokens=max_tokens or ours.get("max_tokens") or longest,
        template=template,
        template_variables=dict(template_variables or {}),
    )
    if maker == "openrlhf":
        tokenizer.chat_template = _ending_in_eos(
            choose_template(tokenizer.chat_template, options), tokenizer, location
        )
        options = options.model_copy(update={"template": "model", "template_variables": {}})
    terminal = tokenizer.eos_token if maker == "openrlhf" else ours.get("terminal_token")
    chat = ChatTokens(tokenizer, options, ending=ending, terminal=terminal, skipped=skipped)
    if ours and template == "model" and chat.terminal_id != ours["terminal_token_id"]:
        raise PalateError(
            f"{location}: scored at {ours['terminal_token']!r}, but its template now ends turns in "
            f"{chat.terminal!r}; restore the tokenizer files it was exported with"
        )
    return chat


def _log_reading(location: str, maker: Maker, chat: ChatTokens) -> None:
    """Log where a checkpoint is read that does not say it itself."""
    if maker != "palate":
        log.warning(
            "%s: does not say where its reward is read; read as %s, at %s",
            location, MAKERS[maker], chat.read_at,
        )  # fmt: skip


def maker_of(config: Any, location: str) -> Maker | None:
    """What trained the reward model in `location`, by which it is known how it is read.

    None where it is no reward model: a pretrained decoder, a classifier with several labels.
    """
    if facts_of(config, location):
        return "palate"
    if value_head_of(location) is not None:
        return "llama-factory"
    if _architecture(config) == "RewardModel" and hasattr(config, "normalize_reward"):
        return "openrlhf"
    stock = _architecture(config).endswith("ForSequenceClassification") and config.num_labels == 1
    return "stock" if stock else None


def _known_maker(config: Any, location: str) -> Maker:
    maker = maker_of(config, location)
    if maker is None:
        raise PalateError(
            f"{location}: {_architecture(config)} with {config.num_labels} labels; expected a "
            "reward model, *ForSequenceClassification with one label"
        )
    return maker


def value_head_of(folder: Path | str) -> Path | None:
    """LLaMA-Factory's head in `folder`, if there is one; raises `PalateError` for a pickle."""
    path = Path(folder).expanduser() / VALUE_HEAD
    if path.is_file():
        return path
    if path.with_suffix(".bin").is_file():
        raise PalateError(
            f"{folder}: its head is a pickle ({VALUE_HEAD.removesuffix('.safetensors')}.bin), "
            "which can run code when opened; train with save_safetensors, or convert it where you "
            "trust it"
        )
    return None


def _architecture(config: Any) -> str:
    return str([*(getattr(config, "architectures", None) or ()), "unknown"][0])


def facts_of(config: Any, location: str) -> dict[str, Any]:
    """The `palate` part of config.json, or {} where another program wrote it."""
    ours = dict(getattr(config, "palate", None) or {})
    missing = FACTS - ours.keys()
    if ours and ours.get("format") not in FORMATS:
        raise PalateError(
            f"{location}: exported in format {ours.get('format')}, this Palate reads "
            f"{', '.join(map(str, FORMATS))}; export it again with this version"
        )
    if ours and missing:
        raise PalateError(
            f"{location}: the palate part of config.json lacks {min(missing)}; export it again"
        )
    return ours


@dataclass(frozen=True, slots=True)
class Head:
    """A trained scalar head: reward = weight . h + bias, h the hidden state that is read.

    `weight` and `safety`, the head of a safety label where there is one: [1, D] float32.
    `attributes` are the names of attribute heads, and `rated` the tensors that these have. Of an
    ensemble `weight` is the mean of `each` [M, D], and `offsets` are its members' [M]; `own` is
    what they have of their own in the backbone, if anything.
    """

    name: str
    weight: Tensor
    bias: float = 0.0
    safety: Tensor | None = None
    attributes: tuple[str, ...] = ()
    rated: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    each: Tensor | None = None
    offsets: Tensor | None = None
    own: MemberWeights | None = None

    @property
    def members(self) -> int:
        """How many heads there are: 1, or those of an ensemble."""
        return 1 if self.each is None else len(self.each)

    @torch.no_grad()
    def copy_to(self, model: RewardModel) -> None:
        """Copy the weights into `model`'s heads."""
        model.head.weight.copy_(self.weight)
        if self.each is not None and self.offsets is not None and model.members == self.members:
            model.head.weight.copy_(self.each)
            model.offsets.copy_(self.offsets)
        if model.safety_head is not None and self.safety is not None:
            model.safety_head.weight.copy_(self.safety)
        heads = model.attribute_heads
        if heads is not None and heads.names == self.attributes:
            heads.linear.weight.copy_(self.rated["weight"])
            heads.centre.copy_(self.rated["centre"])
            heads.spread.copy_(self.rated["spread"])


def load_head(opened: Backbone, maker: Maker, revision: str | None = None) -> Head:
    """The head as stored: opened with the backbone it would be cast to its dtype.

    Raises:
        PalateError: none is there, or none that is one row of weights.
    """
    width = state_width(opened.model.config)
    if maker == "llama-factory":
        return read_value_head(Path(opened.location).expanduser() / VALUE_HEAD, width)
    names = [HEAD_KEY]
    if maker == "openrlhf":
        prefix = getattr(opened.config, "value_head_prefix", None)
        names = [f"{prefix}.weight"] if prefix else [HEAD_KEY, "value_head.weight"]
    for name in names:
        weight = _tensor(opened, name, revision)
        bias = _tensor(opened, name.replace("weight", "bias"), revision)
        if weight is not None and weight.shape == (1, width) and (bias is None or not bias.any()):
            head = Head(name, weight.float())
            break
    else:
        raise PalateError(
            f"{opened.location}: no {names[0]} without a bias; expected a linear scalar head. "
            "Judge it as a foreign sequence classifier instead"
        )
    if maker == "openrlhf" and opened.config.normalize_reward:
        mean, std = (float(getattr(opened.config, key, None) or one) for key, one in MOMENTS)
        head = replace(head, weight=head.weight / std, bias=-mean / std)
    if facts_of(opened.config, opened.location).get("safety_head") is not None:
        path = _file(opened, SAFETY_FILE, revision)
        if path is None:
            raise PalateError(f"{opened.location}: {SAFETY_FILE} is missing; export it again")
        head = _with_safety(head, path)
    if attributes := facts_of(opened.config, opened.location).get("attributes"):
        path = _file(opened, ATTRIBUTES_FILE, revision)
        if path is None:
            raise PalateError(f"{opened.location}: {ATTRIBUTES_FILE} is missing; export it again")
        head = _with_attributes(head, attributes, path, width)
    if members := facts_of(opened.config, opened.location).get("ensemble"):
        path = _file(opened, ENSEMBLE_FILE, revision)
        if path is None:
            raise PalateError(f"{opened.location}: {ENSEMBLE_FILE} is missing; export it again")
        head = _with_members(head, members, path)
    if own := facts_of(opened.config, opened.location).get("members"):
        path = _file(opened, MEMBERS_FILE, revision)
        if path is None:
            raise PalateError(f"{opened.location}: {MEMBERS_FILE} is missing; export it again")
        head = _with_own(head, own, path)
    return head


def _tensors(path: str | Path) -> dict[str, Tensor]:
    """All tensors of a small file beside the weights.

    Raises:
        PalateError: it cannot be read, as one that was cut cannot.
    """
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:  # Its own type, which names no file.
        raise PalateError(
            f"{path}: cannot be read ({first_line(error)}); restore it, or export the model again"
        ) from error


def _with_safety(head: Head, path: str | Path) -> Head:
    """The head with the one of safety that the file holds.

    Raises:
        PalateError: it holds another.
    """
    weight = _tensors(path).get("weight")
    if weight is None or weight.shape != head.weight.shape:
        raise PalateError(f"{path}: expected a head of safety; export it again")
    return replace(head, safety=weight)


def _with_members(head: Head, members: int, path: str | Path) -> Head:
    """The head with those of an ensemble's members that the file holds.

    Raises:
        PalateError: it holds others, or those of another head than their mean.
    """
    return _with_each(head, _tensors(path), members, path)


def _with_own(head: Head, facts: Mapping[str, Any], path: str | Path) -> Head:
    """The head with those of members that have weights of their own, and these.

    Raises:
        PalateError: the file holds others, or those of another head than their mean.
    """
    tensors = _tensors(path)
    heads = {
        name: tensors.pop(stored)
        for name, stored in (("weight", "head"), ("offsets", "offsets"))
        if stored in tensors
    }
    head = _with_each(head, heads, facts.get("count"), path)
    return replace(head, own=MemberWeights(facts["of"], tensors, facts.get("scale") or 0.0))


def _with_each(
    head: Head, heads: Mapping[str, Tensor], members: int | None, path: str | Path
) -> Head:
    """The head with `weight` [M, D] and `offsets` [M] of M members, as `heads` gives them."""
    shapes = {"weight": (members, head.weight.shape[1]), "offsets": (members,)}
    if {name: tuple(tensor.shape) for name, tensor in heads.items()} != shapes:
        raise PalateError(f"{path}: expected heads of {members} members; export it again")
    if not torch.allclose(heads["weight"].mean(0, keepdim=True), head.weight, atol=1e-6):
        raise PalateError(
            f"{path}: its heads are not those whose mean the model's is; restore the file that it "
            "was exported with"
        )
    return replace(head, each=heads["weight"], offsets=heads["offsets"])


def ensemble_of(folder: Path | str) -> str:
    """Of which kind the members of the model in `folder` are where they are more than heads.

    Empty for any other model. Nothing but the configuration is read.
    """
    path = Path(folder) / "config.json"
    try:
        ours = json.loads(path.read_text(encoding="utf-8"))["palate"]
        return str(ours["members"]["of"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _with_attributes(head: Head, names: Sequence[str], path: str | Path, width: int) -> Head:
    """The head with those of attributes that the file holds.

    Raises:
        PalateError: it holds others.
    """
    rated, count = _tensors(path), len(names)
    shapes = {"weight": (count, width), "centre": (count,), "spread": (count,)}
    if {name: tuple(tensor.shape) for name, tensor in rated.items()} != shapes:
        raise PalateError(f"{path}: expected heads of {count} attributes; export it again")
    return replace(head, attributes=tuple(names), rated=rated)


def _file(opened: Backbone, name: str, revision: str | None) -> str | None:
    location = str(Path(opened.location).expanduser())
    with quiet():
        path: str | None = cached_file(
            location if Path(location).is_dir() else opened.location,
            name,
            revision=revision,
            _raise_exceptions_for_missing_entries=False,
        )
    return path


def _tensor(opened: Backbone, name: str, revision: str | None) -> Tensor | None:
    """One tensor of the checkpoint's weights, by its name."""
    shard = "model.safetensors"
    if index := _file(opened, INDEX_FILE, revision):
        names = json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"]
        shard = names.get(name, shard)
    path = _file(opened, shard, revision)
    if path is None:
        return None
    with safe_open(path, framework="pt") as tensors:
        return tensors.get_tensor(name) if name in set(tensors.keys()) else None


def read_value_head(path: Path, width: int) -> Head:
    """LLaMA-Factory's head, which is trl's value head: a linear layer with a bias.

    Raises:
        PalateError: another head than one row of `width` weights.
    """
    tensors = _tensors(path)
    weight, bias = tensors.get("v_head.summary.weight"), tensors.get("v_head.summary.bias")
    if weight is None or weight.shape != (1, width):
        raise PalateError(f"{path}: no v_head.summary.weight of 1 by {width}; save the model again")
    return Head(path.name, weight.float(), 0.0 if bias is None else float(bias))


def _ending_in_eos(template: str, tokenizer: Any, location: str) -> str:
    """`template` with OpenRLHF's end: its EOS token, behind a blank where it ends otherwise."""
    eos = tokenizer.eos_token
    if eos is None:
        raise PalateError(f"{location}: OpenRLHF reads the EOS token, and its tokenizer has none")
    options = BaseOptions(model=location, template="model")
    tokenizer.chat_template = template
    chat = ChatTokens(tokenizer, options)
    if chat.closes and chat.terminal == eos:
        return template
    added = f"{{% if not add_generation_prompt %}}{{{{ {' ' + eos!r} }}}}{{% endif %}}"
    if chat.closes:
        return closed_template(template, chat.terminal) + added
    # Where no token ends the turn, the response's own line breaks go too, as in OpenRLHF.
    return (
        f"{{% set text %}}{{{{ '' }}}}{template}{{{{ '' }}}}{{% endset %}}"
        "{% if add_generation_prompt %}{{ text }}{% else %}{{ text.rstrip('\\n') }}{% endif %}"
    ) + added


# A PEFT adapter beside its base model, opened as one reward model: the weights are merged.
#
# What TRL's reward trainer and others save: `adapter_config.json`, `adapter_model.safetensors`, the
# scalar head among them, and the name of the base model. LLaMA-Factory's adapts a causal model, and
# its head lies beside it. Palate's own brings `palate.json`, which says how it is read.


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
    return (Path(folder) / ADAPTER_CONFIG).is_file()


def open_adapter(folder: Path, *, base: str | None = None) -> Adapter:
    """Open the adapter in `folder` on its base model, in float32.

    That is a one-label classifier, or LLaMA-Factory's causal model, which `maker` tells apart.

    `base` says where the base model is now; default: what the adapter says. The tokenizer is the
    adapter's where it brings one.

    Raises:
        PalateError: pickled weights, a base that is missing or of another shape, no trained head.
    """
    if not (folder / ADAPTER_WEIGHTS).is_file():
        pickles = sorted(path.name for path in folder.glob("adapter_model.bin"))
        present = (
            f"only {pickles[0]}, and a pickle can run code when opened" if pickles else "no weights"
        )
        raise PalateError(
            f"{folder}: {present}; expected {ADAPTER_WEIGHTS}, as peft's save_pretrained writes it"
        )
    location = base
    if not location:
        with suppress(OSError, ValueError, KeyError, TypeError):
            config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
            location = config["base_model_name_or_path"]
    if not isinstance(location, str) or not location:
        raise PalateError(f"{folder}/{ADAPTER_CONFIG}: names no base model; name it with --base")
    source = find_checkpoint(location)
    ours = _facts_of_adapter(folder)
    if ours and source.revision and source.revision != ours["base_revision"]:
        log.warning(
            "%s: trained on %s as it was at %s, which is now another (%s); its rewards may be too",
            folder, location, ours["base_revision"][:12], source.revision[:12],
        )  # fmt: skip
    valued = value_head_of(folder) is not None
    if valued:
        classifier = load_backbone(location, keep_head=True).model
    else:
        with safe_open(folder / ADAPTER_WEIGHTS, framework="pt") as tensors:
            has_head = any(name.endswith(HEAD_KEY) for name in set(tensors.keys()))
        classifier = _classifier(
            source, location, may_lack_head=has_head, layers=ours.get("layers")
        )
    config = classifier.config
    if ours:
        config.palate = {name: value for name, value in ours.items() if name != "quantization"}
    if ours.get("quantization"):  # It learnt on the base as four bits keep it.
        round_to_nf4(getattr(classifier, classifier.base_model_prefix))
    try:
        from peft import PeftModel

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # peft only warns of weights that stay random.
            warnings.filterwarnings("error", message="Found missing adapter keys")
            model = PeftModel.from_pretrained(classifier, str(folder), torch_device="cpu")
    except Exception as error:  # Each kind of adapter raises its own.
        raise PalateError(
            f"{folder}: does not fit {location} ({first_line(error)}); name its own base model "
            "with --base"
        ) from error
    own = Source(str(folder)) if (folder / "tokenizer.json").is_file() else source
    tokenizer = load_tokenizer(own, own.path)
    maker: Maker = "llama-factory" if valued else "stock"
    if facts_of(config, location):
        maker = "palate"
    if ours or (maker == "stock" and own is not source):
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
        else read_value_head(path, state_width(backbone.config))
    )
    facts = _facts_of_adapter(folder)
    beside = {"safety_head": SAFETY_FILE, "attributes": ATTRIBUTES_FILE, "ensemble": ENSEMBLE_FILE}
    for fact, name in beside.items():
        if facts.get(fact) and not (folder / name).is_file():
            raise PalateError(f"{folder}: {name} is missing; export it again")
    if (folder / SAFETY_FILE).is_file():
        head = _with_safety(head, folder / SAFETY_FILE)
    if names := facts.get("attributes"):
        head = _with_attributes(head, names, folder / ATTRIBUTES_FILE, state_width(backbone.config))
    if count := facts.get("ensemble"):
        head = _with_members(head, count, folder / ENSEMBLE_FILE)
    _log_reading(str(folder), opened.maker, chat)
    model = RewardModel(
        backbone,
        chat,
        safety_head=head.safety is not None,
        attributes=head.attributes,
        members=head.members,
    )
    return _with_head(model, head, str(folder)).eval(), opened


def _facts_of_adapter(folder: Path) -> dict[str, Any]:
    """What Palate wrote beside an adapter of its own; {} beside another's."""
    path = folder / ADAPTER_FACTS
    if not path.is_file():
        return {}
    try:
        facts = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise PalateError(
            f"{path}: no JSON object ({first_line(error)}); export the adapter again"
        ) from None
    return facts_of(SimpleNamespace(palate=facts), str(folder))


def _classifier(
    source: Source, location: str, *, may_lack_head: bool, layers: int | None = None
) -> Any:
    """The base model as a classifier; its head may be missing where the adapter brings one."""
    try:
        with quiet():
            config = AutoConfig.from_pretrained(source.path, num_labels=1, trust_remote_code=False)
            keep_layers(config, layers, location)
            check_exportable(config)
            drop_dropout(config)
            config.use_cache = False
            classifier, info = AutoModelForSequenceClassification.from_pretrained(
                source.path, config=config, dtype=torch.float32, use_safetensors=True,
                trust_remote_code=False, output_loading_info=True,
            )  # fmt: skip
    except PalateError:
        raise
    except Exception as error:  # As in load_backbone: transformers raises many kinds.
        raise unreadable(location, error) from error
    missing = set(info["missing_keys"])
    if HEAD_KEY in missing and not may_lack_head:
        raise PalateError(
            f"{location}: neither it nor the adapter has a trained {HEAD_KEY}; the trainer drew "
            "one and did not save it: train with modules_to_save=['score'] (peft's SEQ_CLS saves "
            "it too)"
        )
    check_complete({**info, "missing_keys": missing - {HEAD_KEY}}, location)
    if getattr(getattr(classifier, "score", None), "weight", None) is None:
        kind = type(classifier).__name__
        raise PalateError(f"{location}: {kind} has no linear {HEAD_KEY}; expected a plain decoder")
    silence_dropout(classifier)
    return classifier.eval()


# A reward model that is there already, opened to be exported once more, with its card.


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
    folder = Path(location).expanduser()
    if is_adapter(location):
        model, adapter = load_adapter(Path(location), base=base)
        if weights is not None:
            model.backbone.to(weights)
        kind = adapter.model.active_peft_config.peft_type.value
        ours = _facts_of_adapter(adapter.folder)
        card = Card(
            name=adapter.folder.name,
            base=adapter.base,
            base_revision=adapter.base_revision,
            base_licence=adapter.base_licence,
            base_layers=ours.get("layers"),
            recipe_fingerprint=ours.get("recipe") or "",
            training_data=ours.get("training_data") or "",
            facts={"adapter": f"{kind}, merged"},
        )
    elif base is not None:
        raise PalateError(f"{location}: a whole model, not an adapter; leave --base out")
    else:
        stored = getattr(load_config(location), "dtype", None) or torch.float32
        model = load_reward_model(location, weights=stored if weights is None else weights)
        config, readme = model.backbone.config, folder / "README.md"
        text = readme.read_text(encoding="utf-8", errors="replace") if readme.is_file() else ""
        ours = dict(getattr(config, "palate", None) or {})
        revision = getattr(config, "_commit_hash", None)
        if not revision and folder.is_dir():
            revision = folder_digest(folder)
        card = Card(
            name=folder.name,
            base=ours.get("base") or location,
            base_revision=ours.get("base_revision") or revision or "",
            base_layers=ours.get("layers"),
            recipe_fingerprint=ours.get("recipe") or "",
            training_data=ours.get("training_data") or "",
            text=text,
        )
    for name, weight in model.backbone.named_parameters():
        if not torch.isfinite(weight).all():  # float16 ends at 65,504: larger ones are infinite.
            raise PalateError(
                f"{location}: {name} is not finite in {weight.dtype}; export in bfloat16 or float32"
            )
    return model, card


def one_of(model: RewardModel, card: Card, location: str, member: int | None) -> Card:
    """Make an ensemble the one model of its `member`, from 1, or of its average; the card of that.

    Raises:
        PalateError: a single model, or fewer members.
    """
    count = model.members
    if count == 1:
        raise PalateError(f"{location}: a single model; leave --member and --average out")
    if member is not None and member > count:
        raise PalateError(f"{location}: --member {member} of {count}; expected 1 to {count}")
    kind = "heads" if model.own is None else model.own.kind
    if member is None:
        model.keep_average()
        return with_ensemble_fact(card, f"the average of the weights of {count} members ({kind})")
    model.keep_member(member - 1)
    return with_ensemble_fact(card, f"member {member} of {count} ({kind}) alone")
