"""Keys that older readers of a checkpoint look for, written beside the ones of today.

transformers 5 moved `rope_theta` into `rope_parameters`, renamed `torch_dtype`, writes the chat
template to a file of its own, names a tokenizer class that transformers 4 does not know and leaves
`model_input_names` to a default that changed. vLLM and SGLang on transformers 4, TEI and
transformers 4.5x read the old keys; today's transformers reads both and gives the same model.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from palate.model.tokenizer import FAST
from palate.records import write_json

# vLLM and sentence-transformers squash the one label of /score, /rerank unless told not to.
IDENTITY = "torch.nn.modules.linear.Identity"


def write_older_keys(folder: Path) -> None:
    """Add the older keys to config.json and tokenizer_config.json of a checkpoint folder."""
    _edit(folder / "config.json", _config)
    template = folder / "chat_template.jinja"
    text = template.read_text(encoding="utf-8") if template.is_file() else None
    _edit(folder / "tokenizer_config.json", lambda values: _tokenizer(values, text))


def _edit(path: Path, older: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    values = json.loads(path.read_text(encoding="utf-8"))
    values |= older(values)
    if isinstance(values.get("extra_special_tokens"), list):  # transformers 4 expects a mapping.
        values["additional_special_tokens"] = values.pop("extra_special_tokens")
    write_json(path, values)


def _config(values: dict[str, Any]) -> dict[str, Any]:
    older: dict[str, Any] = {
        "torch_dtype": values.get("dtype"),
        "sbert_ce_default_activation_function": IDENTITY,
    }
    rope = values.get("rope_parameters") or {}
    if "rope_theta" not in rope:  # None, or one for each kind of layer, which had no old name.
        return older
    older["rope_theta"] = rope["rope_theta"]
    scaling = {name: value for name, value in rope.items() if name != "rope_theta"}
    older["rope_scaling"] = None if scaling.get("rope_type") == "default" else scaling
    if "partial_rotary_factor" in rope:
        older["partial_rotary_factor"] = rope["partial_rotary_factor"]
    if values.get("model_type") == "gpt_neox":
        older["rotary_emb_base"] = rope["rope_theta"]
        older["rotary_pct"] = rope.get("partial_rotary_factor", 1.0)
    return older


def _tokenizer(values: dict[str, Any], template: str | None) -> dict[str, Any]:
    older: dict[str, Any] = {
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
        # llama.cpp adds the BOS of Llama 3's tokenizer unless it is told not to.
        "add_bos_token": False,
        "add_eos_token": False,
    }
    if values.get("tokenizer_class") == "TokenizersBackend":
        older["tokenizer_class"] = FAST
    return older if template is None else older | {"chat_template": template}
