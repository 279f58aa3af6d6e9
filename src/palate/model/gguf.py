"""A reward model as one GGUF file that llama.cpp's server ranks with, head included.

llama.cpp (build 11434) gives a decoder a head in one place that a plain Llama can take: for the
sake of Qwen3's rerankers, its architecture `qwen3` multiplies the last token's final state with
`cls.output.weight` where pooling is `rank`, and takes a softmax. Its architectures `llama` and
`qwen2` refuse such a tensor. So every model is written as a `qwen3`:

- **The head** has two rows, the reward's and one of zeros. The softmax gives p = sigmoid(reward),
  which is what `/rerank` answers, and 1 - p; reward = ln(p / (1 - p)).
- **The norms of queries and keys**, which Qwen3 has and Llama and Qwen2 have not, are made to do
  nothing. RMSNorm gives w q / sqrt(mean(q^2) + eps). With projections scaled by s = 2^-30 and
  w = sqrt(eps) / s that is q (1 - s^2 mean(q^2) / (2 eps) + ...): for mean(q^2) of 10,000 and eps
  of 1e-6 wrong by 4e-9 of q, less than float32 keeps. A power of two takes no digit from a
  weight, so that Palate reads back what it wrote. Their scales would not fit the blocks of Q8_0, so
  these two matrices are bfloat16 there.

`palate score` and all else that takes a reward model reads the folder, dequantised.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoTokenizer

from palate.model.backbone import first_line, gguf_pre_tokenizer, load_config, quiet
from palate.model.export import HEAD_KEY, MEMBERS_FILE, gguf_card
from palate.process import temporary_folder
from palate.records import atomic_folder, write_json, write_text
from palate.types import PalateError

FILE = "model.gguf"
GgufType = Literal["F32", "BF16", "Q8_0"]
HOST = "qwen3"  # The architecture of llama.cpp that every model is written as.
NORMED = "qwen3"  # The only one of ours that norms queries and keys itself.
FAMILIES = ("llama", "mistral", "qwen2", NORMED)
SCALE = 2.0**-30
LABELS = ["reward", "zero"]
PRE_TOKENIZERS = ("llama-bpe", "qwen2", "smollm", "gpt-2")  # Names of llama.cpp.

# Names below a layer of ours, and llama.cpp's; what has no place in a Qwen3 is not in it.
LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
SCALED = ("attn_q", "attn_k")


def is_gguf(folder: Path | str) -> bool:
    """Whether the folder holds a GGUF export."""
    return (Path(folder) / FILE).is_file()


def check_family(config: Any, max_tokens: int, location: str) -> None:
    """Raise `PalateError` for a model that cannot be written as llama.cpp's Qwen3."""
    rope = config.rope_parameters or {}
    kinds, window = getattr(config, "layer_types", None), getattr(config, "sliding_window", None)
    slides = "sliding_attention" in kinds if kinds else window is not None
    reasons = {
        f"a {config.model_type}": config.model_type not in FAMILIES,
        f"positions scaled by {rope.get('rope_type')}": rope.get("rope_type") != "default",
        "partly rotated heads": rope.get("partial_rotary_factor", 1.0) != 1.0,
        f"the activation {config.hidden_act}": config.hidden_act != "silu",
        "sliding attention": slides and (window or 0) < max_tokens,
        "biases in its MLPs": getattr(config, "mlp_bias", False),
        "biases around its attention": getattr(config, "attention_bias", False),
    }
    if reason := next((reason for reason, found in reasons.items() if found), None):
        raise PalateError(
            f"{location}: has {reason}; --format gguf takes {', '.join(FAMILIES)} with plain "
            "rotary positions, for llama.cpp has no head for others: serve the checkpoint by "
            "vLLM, SGLang or palate serve"
        )


def export_gguf(checkpoint: Path, folder: Path, kind: GgufType) -> None:
    """Write the exported `checkpoint` to `folder` as one GGUF file with its matrices in `kind`.

    Norms, biases and the head are float32 in each. Configuration, tokenizer and card lie beside.

    Raises:
        PalateError: an architecture, a tokenizer or positions that llama.cpp's Qwen3 has not.
    """
    import gguf

    config = load_config(str(checkpoint))
    check_family(config, config.palate["max_tokens"], str(checkpoint))
    with quiet():
        tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    tensors = {name: path for path in _weights(checkpoint) for name in _names(path)}
    with atomic_folder(folder) as partial:
        writer = gguf.GGUFWriter(partial / FILE, HOST)
        _write_architecture(writer, config, folder.name, kind)
        _write_vocabulary(writer, config, tokenizer, checkpoint)
        order = [*_ordered(tensors, config)]
        for name, source in order:
            shape, raw = _layout(tensors, name, source, config, kind)
            size = gguf.quant_shape_to_byte_shape(shape, raw)
            writer.add_tensor_info(name, shape, np.dtype(np.float32), math.prod(size), raw)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name, source in order:
            _, raw = _layout(tensors, name, source, config, kind)
            values = _values(tensors, name, source, config)
            writer.write_tensor_data(gguf.quants.quantize(values, raw))
        writer.close()
        _copy_rest(checkpoint, partial, kind)


def _weights(checkpoint: Path) -> list[Path]:
    return sorted(checkpoint.glob("model*.safetensors"))  # Not the heads beside the reward.


def _names(path: Path) -> list[str]:
    with safe_open(path, framework="pt") as tensors:
        return [*tensors.keys()]


def _ordered(tensors: dict[str, Path], config: Any) -> Iterator[tuple[str, str | None]]:
    """Every tensor of the file with the one of ours that it is made of; None for a made-up norm.

    Raises:
        PalateError: a tensor of ours that has no place there, which would be lost.
    """
    pairs: list[tuple[str, str | None]] = [("token_embd.weight", "model.embed_tokens.weight")]
    for layer in range(config.num_hidden_layers):
        for ours, theirs in LAYER.items():
            source: str | None = f"model.layers.{layer}.{ours}"
            if theirs.endswith(("q_norm", "k_norm")) and config.model_type != NORMED:
                pairs.append((f"blk.{layer}.{theirs}.weight", None))
                continue
            pairs.append((f"blk.{layer}.{theirs}.weight", f"{source}.weight"))
            if f"{source}.bias" in tensors:
                pairs.append((f"blk.{layer}.{theirs}.bias", f"{source}.bias"))
    pairs += [("output_norm.weight", "model.norm.weight"), ("cls.output.weight", HEAD_KEY)]
    taken = {source for _, source in pairs if source}
    if odd := (tensors.keys() - taken) | (taken - tensors.keys()):
        raise PalateError(
            f"{min(odd)}: a weight that llama.cpp's {HOST} has no place for, or one that is "
            f"missing; expected a plain {config.model_type}"
        )
    yield from pairs


def _head_size(config: Any) -> int:
    own = getattr(config, "head_dim", None)
    return int(own or config.hidden_size // config.num_attention_heads)


def _scaled(name: str, config: Any) -> bool:
    return config.model_type != NORMED and name.split(".")[-2] in SCALED


def _layout(
    tensors: dict[str, Path], name: str, source: str | None, config: Any, kind: GgufType
) -> tuple[tuple[int, ...], Any]:
    """Shape and number format of a tensor of the file."""
    from gguf import GGMLQuantizationType as Kinds

    if source is None:
        return (_head_size(config),), Kinds.F32
    with safe_open(tensors[source], framework="pt") as opened:
        shape = tuple(opened.get_slice(source).get_shape())
    if source == HEAD_KEY:
        return (len(LABELS), shape[1]), Kinds.F32
    if len(shape) == 1 or kind == "F32":
        return shape, Kinds.F32
    if kind == "BF16" or _scaled(name, config) or shape[1] % 32:
        return shape, Kinds.BF16
    return shape, Kinds.Q8_0


def _values(
    tensors: dict[str, Path], name: str, source: str | None, config: Any
) -> NDArray[np.float32]:
    """A tensor of the file in float32."""
    if source is None:
        weight = math.sqrt(config.rms_norm_eps) / SCALE
        return np.full(_head_size(config), weight, dtype=np.float32)
    with safe_open(tensors[source], framework="pt") as opened:
        values: Tensor = opened.get_tensor(source).float()
    if source == HEAD_KEY:
        values = torch.cat((values, torch.zeros_like(values)))
    if _scaled(name, config):
        values = values * SCALE
    found: NDArray[np.float32] = values.contiguous().numpy()
    return found


def _write_architecture(writer: Any, config: Any, name: str, kind: GgufType) -> None:
    import gguf

    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name)
    writer.add_file_type(gguf.LlamaFileType[f"{'ALL' if kind == 'F32' else 'MOSTLY'}_{kind}"])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    # One more than is ever asked: the server refuses a text that fills its context.
    writer.add_context_length(config.palate["max_tokens"] + 1)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(_head_size(config))
    writer.add_value_length(_head_size(config))
    writer.add_rope_dimension_count(_head_size(config))
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_pooling_type(gguf.PoolingType.RANK)
    writer.add_classifier_output_labels(LABELS)
    # /embedding copies as many numbers as a state has, where rank pooling has two; so say two.
    writer.add_uint32(f"{HOST}.embedding_length_out", len(LABELS))


def _write_vocabulary(writer: Any, config: Any, tokenizer: Any, checkpoint: Path) -> None:
    """A byte-level BPE vocabulary, its special tokens and the two templates."""
    from gguf import TokenType

    made = json.loads(tokenizer.backend_tokenizer.to_str())
    model, added = made["model"], {token["id"]: token for token in made["added_tokens"]}
    splitting = _comparable(made["pre_tokenizer"])
    name = next((n for n in PRE_TOKENIZERS if _comparable(gguf_pre_tokenizer(n)) == splitting), "")
    if model["type"] != "BPE" or model.get("byte_fallback") or not name:
        raise PalateError(
            f"{checkpoint}: its tokenizer splits text in a way that --format gguf has no name "
            f"for; expected byte-level BPE as of {', '.join(PRE_TOKENIZERS)}"
        )
    texts = {i: text for text, i in model["vocab"].items()} | {
        i: token["content"] for i, token in added.items()
    }
    kinds = [TokenType.NORMAL if i in texts else TokenType.UNUSED for i in range(config.vocab_size)]
    for i, token in added.items():
        kinds[i] = TokenType.CONTROL if token["special"] else TokenType.USER_DEFINED
    pairs = (m if isinstance(m, str) else " ".join(m) for m in model["merges"])
    facts = config.palate
    terminal = facts["terminal_token_id"]
    bos = facts.get("bos_token")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(name)
    writer.add_token_list([texts.get(i, f"[PAD{i}]") for i in range(config.vocab_size)])
    writer.add_token_types(kinds)
    writer.add_token_merges([*pairs])
    # Rank pooling wants a BOS; the template writes it where one is due, so none is added.
    writer.add_bos_token_id(terminal if bos is None else tokenizer.convert_tokens_to_ids(bos))
    writer.add_eos_token_id(terminal)
    writer.add_pad_token_id(config.pad_token_id)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    asked = [{"role": "user", "content": "{query}"}, {"role": "assistant", "content": "{document}"}]
    rerank = tokenizer.apply_chat_template(asked, tokenize=False)
    templates = [{"name": "default", "template": tokenizer.chat_template}]
    if "{query}" in rerank and "{document}" in rerank:
        templates.append({"name": "rerank", "template": rerank})
    writer.add_chat_template(templates)


def _comparable(pre_tokenizer: Any) -> Any:
    """What decides how text is split, of a pre-tokenizer or its JSON."""
    if not isinstance(pre_tokenizer, dict | type(None)):
        pre_tokenizer = json.loads(pre_tokenizer.__getstate__())
    parts = (pre_tokenizer or {}).get("pretokenizers", [pre_tokenizer])
    return [
        {name: value for name, value in part.items() if name != "trim_offsets"}
        | ({"pattern": part["pattern"]["Regex"].replace("{1,1}", "")} if "pattern" in part else {})
        for part in parts
        if part
    ]


def _copy_rest(checkpoint: Path, folder: Path, kind: GgufType) -> None:
    """Configuration, tokenizer, heads beside the reward, and the card."""
    for path in checkpoint.iterdir():
        weights = path.name.startswith(("model", "score_bias", MEMBERS_FILE))
        if path.is_file() and not weights:
            shutil.copy2(path, folder / path.name)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["palate"]["gguf"] = kind
    if own := config["palate"].pop("members", None):
        logging.getLogger(__name__).warning(
            "%s: the file is of the average of %d members' weights; their mean reward and its "
            "standard deviation stay with the checkpoint", folder, own["count"],
        )  # fmt: skip
    write_json(folder / "config.json", config)
    card = folder / "README.md"
    if card.is_file():
        text = card.read_text(encoding="utf-8", errors="replace")
        write_text(card, gguf_card(text, config["palate"]["max_tokens"]))


@contextmanager
def unpacked(folder: Path) -> Generator[Path]:
    """The GGUF export in `folder` as a checkpoint in float32, for as long as the context lasts.

    Raises:
        PalateError: a file that is damaged, or not one of `export_gguf`'s.
    """
    from gguf import GGUFReader
    from gguf.quants import dequantize

    config = load_config(str(folder))
    back = {theirs: ours for ours, theirs in LAYER.items()}
    weights: dict[str, Tensor] = {}
    try:
        for tensor in GGUFReader(folder / FILE).tensors:
            values = torch.from_numpy(np.array(dequantize(tensor.data, tensor.tensor_type)))
            parts = tensor.name.split(".")
            if tensor.name == "cls.output.weight":
                weights[HEAD_KEY] = values[:1].contiguous()
            elif tensor.name in ("token_embd.weight", "output_norm.weight"):
                place = "embed_tokens" if parts[0] == "token_embd" else "norm"
                weights[f"model.{place}.weight"] = values
            elif not parts[2].endswith(("q_norm", "k_norm")) or config.model_type == NORMED:
                if _scaled(tensor.name, config):
                    values = values / SCALE
                weights[f"model.layers.{parts[1]}.{back[parts[2]]}.{parts[3]}"] = values
    except Exception as error:  # numpy's and gguf's own kinds: a file that is cut, or another's.
        raise PalateError(
            f"{folder}/{FILE}: not a GGUF file that palate export wrote ({first_line(error)}); "
            "export it again"
        ) from error
    with temporary_folder("palate-gguf-") as made:
        for path in folder.iterdir():
            if path.is_file() and path.name != FILE:
                shutil.copy2(path, Path(made) / path.name)
        save_file(weights, Path(made) / "model.safetensors", metadata={"format": "pt"})
        yield Path(made)
