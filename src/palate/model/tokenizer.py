"""Saving a tokenizer so that it is read back as the same tokenizer.

transformers saves the arguments that a tokenizer was made with, and not all of them: sides that
were set afterwards are lost, so is `legacy` of Llama 2's, and its class then builds another
pre-tokenizer than the one in tokenizer.json. What is read back is compared, not assumed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from palate.records import write_json
from palate.types import PalateError

CONFIG = "tokenizer_config.json"
# Its readers take everything from tokenizer.json; both generations of transformers know it.
FAST = "PreTrainedTokenizerFast"
# Blank edges and runs, which pre-tokenizers split differently, and letters of several bytes.
SAMPLES = (
    "x",
    " The  21 quick\n\nfoxes — naïve?\n",
    "\tdef f(x):\n    return '東京' + x  \r\n",
    "...🎨e\u0301",
)


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Write `tokenizer` to `folder`; what `AutoTokenizer` makes of it gives the same tokens.

    It pads and truncates on the same sides, to the same length, and declares the same BOS.

    Raises:
        PalateError: its class gives other tokens whatever is written.
    """
    tokenizer.save_pretrained(folder)
    said = {
        "model_max_length": tokenizer.model_max_length,
        "padding_side": tokenizer.padding_side,
        "truncation_side": tokenizer.truncation_side,
        # Where the key is missing, a class with a BOS of its own declares that again.
        "bos_token": tokenizer.bos_token,
    }
    _change(folder, said)
    if not _same(tokenizer, AutoTokenizer.from_pretrained(folder)):
        _change(folder, {"tokenizer_class": FAST})
        if not _same(tokenizer, AutoTokenizer.from_pretrained(folder)):
            raise PalateError(
                f"{type(tokenizer).__name__}: other tools would read it back with other tokens or "
                "settings, and score something else; use a base model with a plain tokenizer.json"
            )


def _change(folder: Path, values: dict[str, Any]) -> None:
    path = folder / CONFIG
    write_json(path, json.loads(path.read_text(encoding="utf-8")) | values)


def _same(one: Any, other: Any) -> bool:
    """Whether two tokenizers split text alike, add the same to it, and cut it on the same side."""
    return _reading(one) == _reading(other)


def _reading(tokenizer: Any) -> tuple[Any, ...]:
    marked = [f"{mark}{text}{mark}" for mark in tokenizer.all_special_tokens for text in SAMPLES]
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return (
        [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (*SAMPLES, *marked)],
        tokenizer(SAMPLES[0])["input_ids"],
        tokenizer.padding_side,
        tokenizer.truncation_side,
        tokenizer.model_max_length,
        tokenizer.bos_token,
        # Samples cannot show everything: what comes before the vocabulary is the same.
        backend and (repr(backend.normalizer), repr(backend.pre_tokenizer)),
    )
