"""Saving a reward model as one stock Hugging Face sequence-classification checkpoint.

Anyone can load it with `AutoModelForSequenceClassification` and get the same rewards: one label,
the head inside, a pad token that differs from the terminal token, a chat template that ends in
the terminal token, a tokenizer that adds nothing of its own, declares no BOS and truncates on the
left (`pitfalls.md` 3, 4, 29, 35, 36, 38).
"""

from __future__ import annotations

import copy
import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from shutil import copyfile
from typing import Any

import httpx2
import torch
import yaml
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError
from huggingface_hub.utils._validators import validate_repo_id
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

from palate.model.backbone import drop_dropout, first_line, quiet
from palate.model.quantization import dequantized
from palate.model.reward_model import RewardModel
from palate.model.templates import write_bos
from palate.model.tokenizer import FAST, ChatTokens, save_tokenizer
from palate.records import atomic_folder, write_json, write_text
from palate.types import PalateError, digest

# The model card of an exported reward model: where it comes from and how it did.
#
# What comes from data or recipes is untrusted: it is escaped, so that it cannot write Markdown,
# HTML or front matter of its own.

# The hub accepts only identifiers of its own list under `license:`; these are in it.
HUB_LICENCES = {
    "apache-2.0", "mit", "bsd-3-clause", "cc0-1.0", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0",
    "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0", "llama2", "llama3",
    "gemma", "odc-by", "openrail",
}  # fmt: skip
# Least to most restrictive; the first pattern that a licence matches ranks it.
_RANKS = (
    (r"non-?commercial|[-_ ]nc\b|research", 4),
    (r"llama|gemma|openrail|proprietary", 3),
    (r"-sa\b|share-?alike|gpl", 2),
    (r"apache|mit|bsd|cc0|cc-by|odc|public", 1),
)
UNKNOWN_RANK = 5


@dataclass(frozen=True, slots=True)
class DataShare:
    """What one source gave to training: rows, and its shares of rows and tokens in 0..1."""

    source: str
    licence: str
    rows: int
    row_share: float
    token_share: float | None = None
    url: str = ""


@dataclass(frozen=True, slots=True)
class Card:
    """What a checkpoint says of itself.

    `base_layers` is the number of decoder layers kept where the base has more; `tables` maps a
    heading to a Markdown table; `recipe` is the resolved recipe as YAML. `training_data` is the
    fingerprint of the file that it was trained on, by which an audit knows that a model has seen
    what it is asked. `text` is the card of an earlier export, kept word for word.
    """

    name: str
    base: str
    base_revision: str
    base_licence: str | None = None
    base_layers: int | None = None
    summary: str = ""
    recipe: str = ""
    recipe_fingerprint: str = ""
    data: tuple[DataShare, ...] = ()
    tables: Mapping[str, str] = field(default_factory=dict[str, str])
    facts: Mapping[str, str] = field(default_factory=dict[str, str])
    text: str = ""
    training_data: str = ""


def most_restrictive(licences: Iterable[str | None]) -> str | None:
    """The licence that binds most, by kind: unknown, non-commercial, custom, share-alike, free.

    A rule of thumb to put on the card, not legal advice; None where none is given.
    """

    def rank(licence: str) -> int:
        text = licence.lower()
        return next((rank for pattern, rank in _RANKS if re.search(pattern, text)), UNKNOWN_RANK)

    return max((licence or "unknown" for licence in licences), key=rank, default=None)


def _binding(card: Card) -> str | None:
    """On one line: a line break in a licence's name would end the front matter."""
    licence = most_restrictive([card.base_licence, *(share.licence for share in card.data)])
    return licence and " ".join(licence.split())


def render_card(card: Card, *, terminal: str, max_tokens: int, ending: str = "terminal") -> str:
    """The README.md of a checkpoint: front matter for the hub, then Markdown.

    `ending` says where the reward is read: at `terminal`, or at the end of the `template`'s text.
    """
    place = (
        "The reward is read at the last token of the\n"
        "  chat template's whole text (that is not the pad token), a newline after the end of the\n"
        "  turn included: add nothing to it and cut nothing off."
    )
    if ending == "terminal":
        place = (
            f"The text must end in {escape(repr(terminal))}, where the reward\n"
            "  is read; the chat template sees to it."
        )
    if card.text and (ending == "terminal" or place in card.text):
        return card.text
    if card.text:  # Another program's card does not say what its own reading code knows.
        return f"{card.text.rstrip()}\n\n## Where the reward is read\n\n{place}\n"
    fence = "`" * max([3, *(1 + len(run) for run in re.findall(r"`+", card.recipe))])
    parts = [
        _front_matter(card),
        f"# {escape(card.name)}\n\n{escape(card.summary) or _SUMMARY}",
        _usage(place, max_tokens),
        _origin(card),
        _data(card),
        # A table is Markdown that was passed in: kept, but without HTML.
        *(
            f"## {escape(name)}\n\n{rows.replace('<', '&lt;')}"
            for name, rows in card.tables.items()
        ),
        f"## Recipe\n\n{fence}yaml\n{card.recipe.rstrip()}\n{fence}" if card.recipe else "",
        f"## Licence\n\n{_licence_note(card)}",
    ]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


_SUMMARY = (
    "A reward model: it reads a conversation that ends in a response and gives one number, higher "
    "for a response that people would prefer. Only differences between responses to the same "
    "prompt have a meaning."
)


def _front_matter(card: Card) -> str:
    binding = _binding(card)
    values: dict[str, object] = {
        "library_name": "transformers",
        "pipeline_tag": "text-classification",
        "tags": ["reward-model", "palate"],
    }
    if re.fullmatch(r"[\w.-]+/[\w.-]+", card.base):  # The hub refuses anything but an id.
        values["base_model"] = card.base
    if binding in HUB_LICENCES:
        values["license"] = binding
    elif binding:
        values |= {"license": "other", "license_name": binding}
    return f"---\n{yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=10_000)}---"


def _usage(place: str, max_tokens: int) -> str:
    return f"""## Use

```python
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

folder = "."  # Where this file is; or the model's name on a hub.
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
turns = [{{"role": "user", "content": "Hello"}}, {{"role": "assistant", "content": "Hello, you!"}}]
text = tokenizer.apply_chat_template(turns, tokenize=False)
inputs = tokenizer(text, truncation=True, return_tensors="pt")
with torch.no_grad():
    reward = model(**inputs).logits[0, 0].item()
```

## How it must be read

- **Rendered by its own chat template, and nothing added.** {place}
  The template writes a BOS where one is due.
- **At most {max_tokens} tokens**, as in training; the tokenizer truncates from the left, which
  keeps the response.
- **The raw logit**: no softmax, no sigmoid. Only differences between responses to one prompt count.
- **In float32**: in bfloat16 the head is rounded, and close rewards tie.

## Engines

- **vLLM**: `--dtype float32`. Ask `/classify` with `messages`, or with the rendered text as
  `input`. `/score` joins texts without the template, unless it is given: `--chat-template
  chat_template.jinja`. Longer text is refused, or cut where the request has
  `"truncate_prompt_tokens": {max_tokens}, "truncation_side": "left"`.
- **sentence-transformers** (6 or newer): `CrossEncoder(folder).predict([messages, ...])`, or pairs
  of a prompt and its response.
- **SGLang**: `--is-embedding --dtype float32`. Ask `/classify` with the rendered text. It gives the
  head of Qwen2 and Qwen3 a random bias, except from an export in one file, which brings a zero.
- **Text Embeddings Inference**: from an ONNX export, `/predict` with the rendered text and
  `"raw_scores": true`."""


def onnx_card(text: str) -> str:
    """A checkpoint's card for its ONNX export: use and engines are others, the rest stays."""
    return _used_otherwise(text, _ONNX_USAGE)


def gguf_card(text: str, max_tokens: int) -> str:
    """A checkpoint's card for its GGUF export: use and engines are others, the rest stays."""
    return _used_otherwise(text, _GGUF_USAGE.replace("MAX_TOKENS", str(max_tokens)))


def adapter_card(text: str, card: Card) -> str:
    """A checkpoint's card for its adapter alone: use and engines are others, the rest stays."""
    layers = "" if card.base_layers is None else f", num_hidden_layers={card.base_layers}"
    usage = _ADAPTER_USAGE.replace("BASE", json.dumps(card.base)).replace("LAYERS", layers)
    text = text.replace("library_name: transformers", "library_name: peft", 1)
    return _used_otherwise(text, usage)


def _used_otherwise(text: str, usage: str) -> str:
    parts = re.split(r"(?m)^(?=## )", text)
    if not any(part.startswith("## Use\n") for part in parts):
        return f"{text.rstrip()}\n\n{usage}\n"
    parts = [part for part in parts if not part.startswith("## Engines\n")]
    return "".join(f"{usage}\n\n" if p.startswith("## Use\n") else p for p in parts)


_ADAPTER_USAGE = """## Use

An adapter (LoRA) with the scalar head, without the model that it adapts. Palate merges them:
`palate export FOLDER --to merged`. With peft:

```python
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

folder = "."  # Where this file is, or the adapter's name on a hub.
base = BASE  # Where the model is that it was trained on.
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained(
    base, num_labels=1, pad_token_id=tokenizer.pad_token_id, dtype=torch.float32LAYERS
)
model = PeftModel.from_pretrained(model, folder).eval()
turns = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello, you!"}]
text = tokenizer.apply_chat_template(turns, tokenize=False)
inputs = tokenizer(text, truncation=True, return_tensors="pt")
with torch.no_grad():
    reward = model(**inputs).logits[0, 0].item()
```"""


_ONNX_USAGE = """## Use

```python
import onnxruntime
from transformers import AutoTokenizer

folder = "."  # Where this file is.
tokenizer = AutoTokenizer.from_pretrained(folder)
session = onnxruntime.InferenceSession(f"{folder}/model.onnx")
turns = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello, you!"}]
text = tokenizer.apply_chat_template(turns, tokenize=False)
inputs = tokenizer([text], padding=True, truncation=True, return_tensors="np")
(rewards,) = session.run(["logits"], dict(inputs))
```

The graph takes `input_ids` and `attention_mask`, int64, padded on the right, and computes in
float32. The reward is the raw logit: no softmax, no sigmoid. Text Embeddings Inference, built with
ONNX Runtime, reads the folder: ask `/predict` with the rendered text and `"raw_scores": true`."""


_GGUF_USAGE = """## Use

```sh
llama-server -m model.gguf --rerank -np 1 -ctk f32 -ctv f32 -fa off
curl -s localhost:8080/v1/rerank -H 'content-type: application/json' -d '{
  "query": "Hello", "documents": ["Hello, you!", "Go away."]}'
```

`relevance_score` is p = sigmoid(reward), for a prompt of one turn (`query`) and its responses
(`documents`); reward = ln(p / (1 - p)). A conversation of several turns, rendered by the chat
template, goes to `/embedding` as `{"content": TEXT, "embd_normalize": -1}`; what comes is
[[p, 1 - p]]. llama.cpp cuts nothing: at most MAX_TOKENS tokens, as in training. Special tokens
that stand in a user's text are read as such; Palate breaks them. The file calls itself a `qwen3`
because that is the decoder to which llama.cpp gives a head; Palate opens the folder as the model
that it is."""


def _origin(card: Card) -> str:
    layers = "" if card.base_layers is None else f"first {card.base_layers} layers only"
    rows = {
        "base model": card.base,
        "base revision": card.base_revision,
        "base licence": card.base_licence or "not stated",
        "decoder layers": layers,
        "recipe fingerprint": card.recipe_fingerprint,
        **card.facts,
    }
    lines = [f"| {escape(name)} | {escape(value)} |" for name, value in rows.items() if value]
    return "## Origin\n\n| | |\n|---|---|\n" + "\n".join(lines)


def _data(card: Card) -> str:
    if not card.data:
        return ""

    def source(share: DataShare) -> str:
        safe = re.fullmatch(r"https?://[\w./~%#?=&:+-]+", share.url)
        return f"[{escape(share.source)}]({share.url})" if safe else escape(share.source)

    head = "| source | licence | rows | of rows | of tokens |\n|---|---|---:|---:|---:|\n"
    lines = (
        f"| {source(s)} | {escape(s.licence)} | {s.rows:,} | {s.row_share:.1%} | "
        f"{'' if s.token_share is None else f'{s.token_share:.1%}'} |"
        for s in card.data
    )
    return "## Training data\n\n" + head + "\n".join(lines)


def _licence_note(card: Card) -> str:
    binding = _binding(card)
    if binding is None:
        return "No licence is stated."
    return (
        f"The most restrictive licence among the base model and the data is {escape(binding)}. "
        "Whether a data set's licence binds a model trained on it depends on where you are; "
        "check it before use."
    )


def escape(text: str) -> str:
    """Plain text on one line: nothing in it is Markdown or HTML any more."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|#~!])", r"\\\1", text)


# vLLM and sentence-transformers squash the one label of /score, /rerank unless told not to.
IDENTITY = "torch.nn.modules.linear.Identity"


def write_older_keys(folder: Path) -> None:
    """Add to a checkpoint's JSON files the keys that older readers look for.

    transformers 5 moved `rope_theta` into `rope_parameters`, renamed `torch_dtype`, writes the chat
    template to a file of its own, names a tokenizer class that transformers 4 does not know and
    leaves `model_input_names` to a default that changed. vLLM and SGLang on transformers 4, TEI and
    transformers 4.5x read the old keys; today's transformers reads both and gives the same model.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {
        "torch_dtype": config.get("dtype"), "sbert_ce_default_activation_function": IDENTITY,
    }  # fmt: skip
    rope = config.get("rope_parameters") or {}
    if "rope_theta" in rope:  # Else there is none, or one a kind of layer, which had no old name.
        scaling = {name: value for name, value in rope.items() if name != "rope_theta"}
        config["rope_theta"] = rope["rope_theta"]
        config["rope_scaling"] = None if scaling.get("rope_type") == "default" else scaling
        if "partial_rotary_factor" in rope:
            config["partial_rotary_factor"] = rope["partial_rotary_factor"]
        if config.get("model_type") == "gpt_neox":
            config["rotary_emb_base"] = rope["rope_theta"]
            config["rotary_pct"] = rope.get("partial_rotary_factor", 1.0)
    write_json(folder / "config.json", config)

    path, template = folder / "tokenizer_config.json", folder / "chat_template.jinja"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    tokenizer |= {
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
        # llama.cpp adds the BOS of Llama 3's tokenizer unless it is told not to.
        "add_bos_token": False,
        "add_eos_token": False,
    }
    if tokenizer.get("tokenizer_class") == "TokenizersBackend":
        tokenizer["tokenizer_class"] = FAST
    if template.is_file():
        tokenizer["chat_template"] = template.read_text(encoding="utf-8")
    if isinstance(tokenizer.get("extra_special_tokens"), list):  # transformers 4: a mapping.
        tokenizer["additional_special_tokens"] = tokenizer.pop("extra_special_tokens")
    write_json(path, tokenizer)


# Format 2 is of models that are read where their template's whole text ends, and not after the
# terminal token: what reads format 1 alone must not open them.
FORMATS = (1, 2)
# Inside the weights they would be unexpected keys.
SAFETY_FILE = "safety_head.safetensors"
ATTRIBUTES_FILE = "attribute_heads.safetensors"
ENSEMBLE_FILE = "ensemble_heads.safetensors"
MEMBERS_FILE = "ensemble_members.safetensors"  # Of members that are more than heads.
BESIDE = (SAFETY_FILE, ATTRIBUTES_FILE, ENSEMBLE_FILE, MEMBERS_FILE)
HEAD_KEY = "score.weight"
INDEX_FILE = "model.safetensors.index.json"
# SGLang (0.5.23) gives the heads of these a bias, and leaves it random where no file has one. Stock
# loaders open model.safetensors alone, to which a bias would be an unexpected key.
BIASED = ("qwen2", "qwen3")
BIAS_FILE = "score_bias.safetensors"

# vLLM's and TEI's word for the longest text, before `max_position_embeddings`, which stays as it
# is: positions are computed from it, and a model that is trained further may use them all. Without
# a `modules.json` sentence-transformers itself does not read it, and takes `model_max_length`.
LENGTH_FILE = "sentence_bert_config.json"

MADE: set[str] = set()  # Classes that transformers lacks and this process has registered.

log = logging.getLogger(__name__)


def export(model: RewardModel, folder: Path, *, card: Card, max_shard_size: str = "5GB") -> Path:
    """Write `model` to `folder` as a sequence-classification checkpoint and return the folder.

    The folder appears whole or not at all; one that is there is replaced. Adapters are merged
    into the written weights, and lie beside as they are in a folder of their own (`ADAPTER`);
    `model` itself is not changed.

    Raises:
        PalateError: transformers has no sequence classification with a `score` head for this
            architecture, or the folder cannot be written.
    """
    merged, facts = merged_weights(model.backbone), dict(card.facts)
    if model.own is not None:
        merged = model.own.averaged(merged)

    def record(name: str, fact: str, message: str) -> None:
        log.warning(message, folder, fact)
        facts[name] = fact

    if model.bias:  # The export leaves a peer's constant out.
        side = "lower" if model.bias > 0 else "higher"
        fact = f"rewards are {abs(model.bias):.6g} {side} than there"
        record("constant left out", fact, "%s: a stock head has no constant, so its %s")
    if model.steady < model.chat.max_tokens:  # Stock code reads a long row otherwise beside others.
        fact = (
            f"follow the longest row of a batch over {int(model.steady)} tokens (LongRoPE, dynamic "
            "NTK), in transformers and ONNX Runtime; read one row at a time there, as Palate reads "
            "each"
        )
        record("angles of positions", fact, "%s: the angles of its positions %s")
    if model.attributes:
        facts.setdefault("attributes", attributes_fact(model.attributes))
    if model.members > 1:
        kind = "heads" if model.own is None else model.own.kind
        facts.setdefault("ensemble", ensemble_fact(model.members, kind))
    config = _config(model, card)
    if made := check_exportable(config):
        facts["stock class"] = made
    card = replace(card, facts=facts)
    with quiet():
        classifier = _classifier(config, merged, mean_head(model))
        tokenizer = portable_tokenizer(model.chat)
        with atomic_folder(folder) as partial:
            classifier.save_pretrained(partial, max_shard_size=max_shard_size)
            save_tokenizer(tokenizer, partial)
            write_older_keys(partial)
            write_json(partial / LENGTH_FILE, length_facts(model.chat.max_tokens))
            if model.safety_head is not None:
                weight = model.safety_head.weight.detach().cpu().contiguous()
                save_file({"weight": weight}, partial / SAFETY_FILE)
            if (heads := model.attribute_heads) is not None:
                rated = {
                    "weight": heads.linear.weight, "centre": heads.centre, "spread": heads.spread,
                }  # fmt: skip
                tensors = {name: t.detach().cpu().contiguous() for name, t in rated.items()}
                save_file(tensors, partial / ATTRIBUTES_FILE)
            if model.members > 1:
                members, path = {"weight": model.head.weight}, partial / ENSEMBLE_FILE
                if model.own is not None:
                    path = partial / MEMBERS_FILE
                    members = {"head": model.head.weight, **model.own.tensors}
                members["offsets"] = model.offsets
                save_file({n: t.detach().cpu().contiguous() for n, t in members.items()}, path)
            _write_for_engines(partial, config.model_type)
            chat = model.chat
            text = render_card(
                card, terminal=chat.terminal, max_tokens=chat.max_tokens, ending=chat.ending
            )
            write_text(partial / "README.md", text)
            if hasattr(model.backbone, "peft_config"):
                _write_adapter(model, partial, card, classifier)
    return folder


# Adapters kept as adapters: a PEFT folder beside its base, of a hundredth of the base's size.

ADAPTER = "adapter"  # Within an export.
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ADAPTER_FACTS = "palate.json"  # What `config.json` says of a whole export.


def _write_adapter(model: RewardModel, export: Path, card: Card, classifier: Any) -> None:
    """Write the adapter of the exported `classifier` to a folder within `export`.

    peft puts it on the base's own classifier, so names have that class's prefix, and the head is
    one of its modules to save. Left out where the base as it lies there has no such classifier.
    """
    from peft import get_peft_model_state_dict

    lost = next((fact for fact in ("text only", "pad token") if fact in card.facts), None)
    if lost and (lost == "text only" or "added" in card.facts[lost]):
        log.warning(
            "%s: the adapter is not kept as one, for its base was changed (%s: %s)",
            export.name, lost, card.facts[lost],
        )  # fmt: skip
        return
    folder = export / ADAPTER
    folder.mkdir()
    with quiet():
        states = get_peft_model_state_dict(model.backbone)
    root, prefix = "base_model.model.", classifier.base_model_prefix
    weights = {
        f"{root}{prefix}.{name.removeprefix(root)}": tensor.detach().cpu().float().contiguous()
        for name, tensor in states.items()
    }
    weights[root + HEAD_KEY] = mean_head(model).cpu().contiguous()
    save_file(weights, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    lora = copy.copy(model.backbone.peft_config["default"])
    lora.task_type, lora.modules_to_save = "SEQ_CLS", [HEAD_KEY.partition(".")[0]]
    lora.base_model_name_or_path, lora.inference_mode, lora.revision = card.base, True, None
    lora.save_pretrained(folder)
    quantised = any(dequantized(module) is not None for module in model.backbone.modules())
    facts = classifier.config.palate | ({"quantization": "nf4"} if quantised else {})
    write_json(folder / ADAPTER_FACTS, facts)
    for path in export.iterdir():
        if path.name in BESIDE or re.match("tokenizer|chat_template", path.name):
            copyfile(path, folder / path.name)
    text = adapter_card((export / "README.md").read_text(encoding="utf-8"), card)
    write_text(folder / "README.md", text)


def export_adapter(source: Path, folder: Path, *, base: str | None = None) -> Path:
    """Write the adapter within the export `source` to `folder`, on the base model `base`.

    The folder appears whole or not at all; one that is there is replaced.

    Raises:
        PalateError: no folder, or an export without an adapter.
    """
    if not source.is_dir():
        raise PalateError(f"{source}: no such folder; an adapter is kept from a local one")
    within = source / ADAPTER if (source / ADAPTER).is_dir() else source
    if not (within / ADAPTER_CONFIG).is_file():
        raise PalateError(
            f"{source}: no adapter in it; expected a folder that training with "
            "train.trainable.lora wrote (its adapter/ is kept since this version), or a PEFT "
            "adapter; leave --format out for the whole model"
        )
    with atomic_folder(folder) as partial:
        for path in within.iterdir():
            if path.is_file():
                copyfile(path, partial / path.name)
        if base is not None:
            config = json.loads((partial / ADAPTER_CONFIG).read_text(encoding="utf-8"))
            write_json(partial / ADAPTER_CONFIG, config | {"base_model_name_or_path": base})
    return folder


def length_facts(max_tokens: int) -> dict[str, Any]:
    """What `LENGTH_FILE` holds."""
    return {"max_seq_length": max_tokens, "do_lower_case": False}


def _write_for_engines(folder: Path, kind: str) -> None:
    """Let vLLM and SGLang read what is theirs: they open every safetensors file that lies there.

    An index keeps them from other heads, which are no part of the classifier and which vLLM
    refuses. Shards have an index, by which all readers go; there a bias cannot be hidden from
    stock loaders, and is left out.
    """
    index = folder / INDEX_FILE
    if index.is_file():
        return
    if kind in BIASED:
        save_file({"score.bias": torch.zeros(1)}, folder / BIAS_FILE)
    if not any((folder / name).is_file() for name in BESIDE):
        return
    names: dict[str, str] = {}
    size = 0
    for path in sorted(folder.glob("*.safetensors")):
        if path.name in BESIDE:
            continue
        with safe_open(path, framework="pt") as tensors:
            names |= dict.fromkeys(tensors.keys(), path.name)
        size += path.stat().st_size
    write_json(index, {"metadata": {"total_size": size}, "weight_map": names})


def merged_weights(backbone: Any) -> dict[str, Tensor]:
    """The backbone's weights under the names of a plain model, LoRA deltas added.

    W' = W + (alpha / rank) B A for each adapted matrix, W being what is multiplied where it is kept
    in four bits; those of a layer's experts among them,
    which are one tensor, too. Tensors without an adapter are the live ones, not copies.
    """

    def plain_name(name: str) -> str:
        return re.sub(r"(\.base_layer)+(?=\.|$)", "", name)

    if not hasattr(backbone, "peft_config"):
        return {name: tensor.detach() for name, tensor in backbone.state_dict().items()}
    plain = backbone.get_base_model()
    weights = {
        plain_name(name): tensor.detach()
        for name, tensor in plain.state_dict().items()
        if ".lora_" not in name
    }
    for name, module in plain.named_modules():
        whole = dequantized(module)
        if whole is not None:
            key = f"{plain_name(name)}.weight"
            for scale in [other for other in weights if other.startswith(f"{key}.")]:
                del weights[scale]
            weights[key] = whole.float()
            bias = f"{plain_name(name)}.bias"
            if bias in weights:  # bitsandbytes leaves it in the format of its products.
                weights[bias] = weights[bias].float()
    for name, module in plain.named_modules():
        if not hasattr(module, "get_delta_weight"):
            continue
        for adapter in module.active_adapters:
            key = f"{plain_name(name)}.{getattr(module, 'parameter_name', 'weight')}"
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
    if card.training_data:
        config.palate["training_data"] = card.training_data
    if model.attributes:
        config.palate["attributes"] = list(model.attributes)
    if model.own is not None:  # Who does not know them opens the average, a model like any other.
        config.palate["members"] = {
            "count": model.members, "of": model.own.kind, "scale": model.own.scale,
        }  # fmt: skip
    elif model.members > 1:
        config.palate["ensemble"] = model.members
    return config


def mean_head(model: RewardModel) -> Tensor:
    """The head that gives the reward alone, [1, D]: of an ensemble the mean of its members'.

    Heads are linear, so the mean of the weights gives the mean of the rewards, where the members
    share their backbone.
    """
    return model.head.weight.detach().mean(0, keepdim=True)


def ensemble_fact(members: int, kind: str) -> str:
    """What a card says of an ensemble of a kind."""
    if kind != "heads":
        trained = {
            "seeds": "trainings with seeds of their own",
            "checkpoints": "checkpoints of one training",
            "lora": "low-rank adapters, each with a head",
        }
        return (
            f"{members} {trained[kind]}, in {MEMBERS_FILE}, whose mean Palate gives as the reward "
            "and whose disagreement as its standard deviation; every other reader gives the reward "
            "of the one model whose weights are their average, which is another"
        )
    return (
        f"{members} scalar heads in {ENSEMBLE_FILE}, whose disagreement is the standard deviation "
        "of a reward; the classifier's head is their mean, which every reader gives as the reward"
    )


def with_ensemble_fact(card: Card, fact: str) -> Card:
    """The card of an ensemble's export as that of one model made of it."""
    row = f"| ensemble | {escape(fact)} |"
    text = re.sub(r"(?m)^\| ensemble \|.*$", lambda _: row, card.text)
    return replace(card, text=text, facts={**card.facts, "ensemble": fact})


def attributes_fact(names: Iterable[str]) -> str:
    """What a card says of heads of rated attributes."""
    return (
        f"{', '.join(sorted(names))}: linear heads beside the reward in {ATTRIBUTES_FILE}, in the "
        "units of their ratings; Palate reads them, a stock classifier and an ONNX graph give the "
        "reward alone"
    )


def check_exportable(config: Any) -> str:
    """See that the decoder of `config` can be saved with a linear head.

    Where transformers has no classifier of the architecture (Gemma 4), its generic one is made of
    it and registered in this process; what is returned tells other readers how, for the card.

    Raises:
        PalateError: an architecture that its generic classifier does not fit either.
    """
    kind = type(config)
    made = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING.get(kind, None)
    if made is not None and made.__name__ not in MADE:
        return ""
    backbone = MODEL_MAPPING.get(kind, None)
    parents = [] if backbone is None else backbone.__mro__[1:]
    base = next((c for c in parents if c.__name__.endswith("PreTrainedModel")), None)
    if backbone is None or base is None:
        raise _unexportable(config)
    name = f"{backbone.__name__.removesuffix('Model')}ForSequenceClassification"
    # Under another prefix (Mamba's is "backbone") the backbone would not find its weights again.
    prefix = backbone.base_model_prefix
    attributes = {
        "__module__": base.__module__, "config_class": kind, "base_model_prefix": prefix,
    }  # fmt: skip
    made = type(name, (GenericForSequenceClassification, base), attributes)
    # Without `exist_ok` transformers 5.24 does nothing, in silence, for a configuration of its own.
    AutoModelForSequenceClassification.register(kind, made, exist_ok=True)
    MADE.add(name)
    return (
        f"transformers has none for {config.model_type}; Palate opens it, others after class "
        f"{name}(GenericForSequenceClassification, {base.__name__}): config_class = "
        f"{kind.__name__}, base_model_prefix = {prefix!r}, "
        "registered with AutoModelForSequenceClassification, exist_ok=True"
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
    template = write_bos(chat.template, tokenizer.bos_token)
    for tag, plain in GENERATION:
        template = tag.sub(plain, template)
    tokenizer.chat_template = template
    if chat.ending == "terminal":
        tokenizer.chat_template = closed_template(template, chat.terminal, closes=chat.closes)
    tokenizer.chat_template = PAIR_ROLES + tokenizer.chat_template
    # It adds no BOS or EOS by itself: the template writes what is due.
    for name in ("add_bos_token", "add_eos_token"):
        if getattr(tokenizer, name, False):
            setattr(tokenizer, name, False)
    if tokenizer("x")["input_ids"] != tokenizer("x", add_special_tokens=False)["input_ids"]:
        tokenizer.backend_tokenizer.post_processor = processors.Sequence([])
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


# A pair as rerankers are asked it: sentence-transformers' CrossEncoder (6.0) and vLLM's /score with
# `--chat-template` render two texts as these roles, which a chat template either refuses or writes
# out as they stand, in words that the model never read. What is one turn and its response is read
# as that; other conversations pass untouched.
PAIR_ROLES = (
    "{% if messages | length > 1 and messages[-1]['role'] == 'document' "
    "and messages[-2]['role'] == 'query' %}"
    "{% set messages = messages[:-2] + ["
    "{'role': 'user', 'content': messages[-2]['content']}, "
    "{'role': 'assistant', 'content': messages[-1]['content']}] %}"
    "{% endif %}"
)


def closed_template(template: str, terminal: str, *, closes: bool = True) -> str:
    """`template` with its output cut after the last `terminal`.

    It is put behind the output of a template that `closes` no last turn of the assistant's.

    Where a generation prompt is asked for, the output is left as it is. The empty expressions
    keep Jinja's block trimming away from the template's own first and last line. What is added
    here runs in every Jinja that is met in servers: Python's, minijinja, llama.cpp's, JavaScript's.
    """
    body = template.removesuffix("\n")  # As Jinja itself does at the end of a template.
    end = repr(terminal)  # A Jinja literal reads Python's escapes.
    cut = (
        f"{{% elif {end} in palate_text %}}"
        f"{{{{ palate_text.split({end})[:-1] | join({end}) }}}}{{{{ {end} }}}}"
    )
    return (
        f"{{% set palate_text %}}{{{{ '' }}}}{body}{{{{ '' }}}}{{% endset %}}"
        "{% if add_generation_prompt %}{{ palate_text }}"
        + (cut if closes else "")
        + f"{{% else %}}{{{{ palate_text + {end} }}}}{{% endif %}}"
    )


# Uploading an exported folder to a hub, through huggingface_hub.

WEIGHTS = ("*.safetensors", "*.onnx", "*.gguf")
# What a checkpoint is made of; journals, logs and whatever else lies beside stay here.
PATTERNS = (
    *WEIGHTS, "*.onnx_data", "config.json", ADAPTER_CONFIG, ADAPTER_FACTS,
    "*.safetensors.index.json", "tokenizer*", "vocab*", "merges.txt",
    "special_tokens_map.json", "added_tokens.json", "chat_template.jinja", LENGTH_FILE,
    "README.md",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pushed:
    """Where a folder went: its page, and the commit."""

    url: str
    commit: str


def files_of(folder: Path) -> list[Path]:
    """The files of an exported model that are pushed, by name.

    Raises:
        PalateError: the folder holds no exported model, or no card.
    """
    files = sorted(
        {path for pattern in PATTERNS for path in folder.glob(pattern) if path.is_file()}
    )
    names = {path.name for path in files}
    described = names & {"config.json", ADAPTER_CONFIG}
    if not described or not any(path.match(p) for p in WEIGHTS for path in files):
        raise PalateError(
            f"{folder}: no config.json with weights; expected what `palate export` wrote"
        )
    if "README.md" not in names:
        raise PalateError(f"{folder}: no README.md, the model card; export it with `palate export`")
    return files


def push(
    folder: Path,
    repo: str,
    files: Sequence[Path],
    *,
    public: bool = False,
    revision: str | None = None,
    message: str = "Upload a reward model exported by Palate",
    endpoint: str | None = None,
) -> Pushed:
    """Upload `files` of `folder` to the model repository `repo`, made private where it is missing.

    The token is huggingface_hub's own affair: HF_TOKEN, or what `hf auth login` stored.

    Raises:
        PalateError: not logged in, no right to write, a repository that is public
            without `public`, a hub that cannot be reached.
    """
    check_name(repo)
    api = HfApi(endpoint=endpoint)
    try:
        with quiet():
            api.create_repo(repo, private=not public, exist_ok=True)
            if not public and not api.repo_info(repo).private:
                raise PalateError(
                    f"{repo}: exists and is public; say --public (in Python private=False) to push "
                    "to it"
                )
            if revision is not None:
                api.create_branch(repo, branch=revision, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repo, folder_path=folder, commit_message=message, revision=revision,
                allow_patterns=[path.name for path in files],
            )  # fmt: skip
    except LocalTokenNotFoundError:
        raise PalateError(f"{repo}: not logged in; set HF_TOKEN, or run `hf auth login`") from None
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        said = (error.server_message or str(error)).strip().splitlines()[0][:200]
        reason = {
            401: "the hub does not know you (401); set HF_TOKEN, or run `hf auth login`",
            403: f"no right to write there (403: {said}); use a token with write access",
        }.get(status, f"the hub answered {status}: {said}")
        raise PalateError(f"{repo}: {reason}") from None
    except (OSError, httpx2.HTTPError) as error:
        raise PalateError(f"{repo}: the hub cannot be reached ({first_line(error)})") from None
    except (RuntimeError, ValueError) as error:  # An upload that broke off, or an odd answer.
        raise PalateError(
            f"{repo}: the upload failed ({first_line(error)}); push again, what is there is not "
            "sent twice"
        ) from None
    return Pushed(f"{api.endpoint}/{repo}", commit.oid)


def check_name(repo: str) -> None:
    """Raise `PalateError` for a name that is no OWNER/NAME."""
    try:
        validate_repo_id(repo)
        if "/" not in repo:
            raise HFValidationError("no owner")
    except HFValidationError:
        raise PalateError(f"{repo!r}: expected OWNER/NAME of a repository on the hub") from None


def folder_named(folder: Path) -> str | None:
    """A folder of this machine that the configuration would tell the hub of, if any."""
    path = folder / ADAPTER_CONFIG
    if not path.is_file():
        path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    names = [config.get("_name_or_path"), (config.get("palate") or {}).get("base")]
    names.append(config.get("base_model_name_or_path"))
    return next((n for n in names if isinstance(n, str) and Path(n).is_absolute()), None)
