"""The model card of an exported reward model: where it comes from and how it did.

What comes from data or recipes is untrusted: it is escaped, so that it cannot write Markdown,
HTML or front matter of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import yaml

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
    heading to a Markdown table; `recipe` is the resolved recipe as YAML. `text` is the card of an
    earlier export, kept word for word.
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


def most_restrictive(licences: Iterable[str | None]) -> str | None:
    """The licence that binds most, by kind: unknown, non-commercial, custom, share-alike, free.

    A rule of thumb to put on the card, not legal advice; None where none is given.
    """
    named = [licence or "unknown" for licence in licences]
    return max(named, key=_rank) if named else None


def _binding(card: Card) -> str | None:
    """On one line: a line break in a licence's name would end the front matter."""
    found = most_restrictive([card.base_licence, *(share.licence for share in card.data)])
    return found and " ".join(found.split())


def _rank(licence: str) -> int:
    text = licence.lower()
    return next((rank for pattern, rank in _RANKS if re.search(pattern, text)), UNKNOWN_RANK)


def render_card(card: Card, *, terminal: str, max_tokens: int, ending: str = "terminal") -> str:
    """The README.md of a checkpoint: front matter for the hub, then Markdown.

    `ending` says where the reward is read: at `terminal`, or at the end of the `template`'s text.
    """
    place = _place(terminal, ending)
    if card.text:  # Another program's card does not say what its own reading code knows.
        told = ending == "terminal" or place in card.text
        return (
            card.text
            if told
            else f"{card.text.rstrip()}\n\n## Where the reward is read\n\n{place}\n"
        )
    parts = [
        _front_matter(card),
        f"# {escape(card.name)}\n\n{escape(card.summary) or _SUMMARY}",
        _usage(place, max_tokens),
        _origin(card),
        _data(card),
        *(f"## {escape(title)}\n\n{_tame(table)}" for title, table in card.tables.items()),
        f"## Recipe\n\n{_fenced(card.recipe, 'yaml')}" if card.recipe else "",
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


def _place(terminal: str, ending: str) -> str:
    if ending == "terminal":
        return (
            f"The text must end in {escape(repr(terminal))}, where the reward\n"
            "  is read; the chat template sees to it."
        )
    return (
        "The reward is read at the last token of the\n"
        "  chat template's whole text (that is not the pad token), a newline after the end of the\n"
        "  turn included: add nothing to it and cut nothing off."
    )


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

- **vLLM**: `--runner pooling --dtype float32 --max-model-len {max_tokens}`. Ask `/classify` with
  `messages`, or with the rendered text as `input`, and `"use_activation": false`; `/score` joins
  texts without the template. Longer text is refused, or cut where the request has
  `"truncate_prompt_tokens": {max_tokens}, "truncation_side": "left"`.
- **SGLang**: `--is-embedding --dtype float32`. Ask `/classify` with the rendered text. It gives the
  head of Qwen2 and Qwen3 a random bias, except from an export in one file, which brings a zero.
- **Text Embeddings Inference**: from an ONNX export, `/predict` with the rendered text and
  `"raw_scores": true`."""


def onnx_card(text: str) -> str:
    """A checkpoint's card for its ONNX export: use and engines are others, the rest stays."""
    parts = re.split(r"(?m)^(?=## )", text)
    if not any(part.startswith("## Use\n") for part in parts):
        return f"{text.rstrip()}\n\n{_ONNX_USAGE}\n"
    kept = [part for part in parts if not part.startswith("## Engines\n")]
    return "".join(f"{_ONNX_USAGE}\n\n" if p.startswith("## Use\n") else p for p in kept)


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
    head = "| source | licence | rows | of rows | of tokens |\n|---|---|---:|---:|---:|\n"
    lines = (
        f"| {_linked(s)} | {escape(s.licence)} | {s.rows:,} | {s.row_share:.1%} | "
        f"{'' if s.token_share is None else f'{s.token_share:.1%}'} |"
        for s in card.data
    )
    return "## Training data\n\n" + head + "\n".join(lines)


def _linked(share: DataShare) -> str:
    safe = re.fullmatch(r"https?://[\w./~%#?=&:+-]+", share.url)
    return f"[{escape(share.source)}]({share.url})" if safe else escape(share.source)


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


def _tame(table: str) -> str:
    """A Markdown table passed in: kept, but without HTML."""
    return table.replace("<", "&lt;")


def _fenced(text: str, language: str) -> str:
    """A code block whose fence is longer than any run of backticks inside."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"
