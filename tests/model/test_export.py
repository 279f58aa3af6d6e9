"""An exported checkpoint, opened by stock transformers, gives our rewards."""

import copy
import json
import re
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import minijinja
import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import constants
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, pipeline
from typer.testing import CliRunner

from hub import COMMIT, TOKEN, Hub, hub
from packed import tiny_reward_model
from palate.cli import app
from palate.judges.reward_model import RewardScorer
from palate.model.backbone import load_backbone, quiet
from palate.model.export import (
    Card,
    DataShare,
    closed_template,
    export,
    files_of,
    folder_named,
    most_restrictive,
    onnx_card,
    portable_tokenizer,
    push,
    render_card,
)
from palate.model.loading import load_reward_model, reopen
from palate.model.options import BaseOptions
from palate.model.reward_model import RewardModel
from palate.model.tokenizer import ChatTokens
from palate.types import Candidates, Message, PalateError
from tiny import BOS, CHATML, END, EXPORTED, PAD, START, save_tiny, tiny_tokenizer

CARD = Card(name="tiny", base="tiny/base", base_revision="r1", recipe_fingerprint="f1")
PROMPT = (
    Message("user", "How do I bake bread?"),
    Message("assistant", "Mix flour\n\nand water."),
    Message("user", "Then?  "),
)
RESPONSES = ("Wait for the dough to rise, 25 minutes — voilà.", "No.", "", "The sea is blue. " * 9)
Folders = Callable[[str], Path]


def reward_model(
    folder: Path, *, safety_head: bool = False, attributes: Sequence[str] = (), **options: Any
) -> RewardModel:
    opened = load_backbone(str(folder))
    chat = ChatTokens(opened.tokenizer, BaseOptions(model=str(folder), **options))
    model = RewardModel(opened.model, chat, safety_head=safety_head, attributes=attributes)
    with torch.no_grad():  # Rewards of order 1, so that a tolerance of 1e-4 means something.
        model.head.weight.mul_(300)
    return model.eval()


@torch.no_grad()
def ours(model: RewardModel) -> torch.Tensor:
    encoded = [model.chat.encode(PROMPT, response) for response in RESPONSES]
    return model.forward_padded([e.ids for e in encoded if e is not None]).reward


def texts(tokenizer: Any) -> list[str]:
    prompt = [{"role": m.role, "content": m.content} for m in PROMPT]
    turns = [[*prompt, {"role": "assistant", "content": r}] for r in RESPONSES]
    return [tokenizer.apply_chat_template(t, tokenize=False) for t in turns]


@torch.no_grad()
def stock(folder: Path, *, batch: bool = True) -> torch.Tensor:
    """Rewards as a stranger would compute them, with nothing but the folder."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    batches = [texts(tokenizer)] if batch else [[text] for text in texts(tokenizer)]
    inputs = (tokenizer(b, return_tensors="pt", padding=True) for b in batches)
    return torch.cat([model(**i).logits[:, 0] for i in inputs])


@pytest.mark.parametrize("family", EXPORTED)
def test_pitfall_29_stock_scores_equal_ours(
    family: str, tiny_folder: Folders, tmp_path: Path
) -> None:
    model = reward_model(tiny_folder(family))
    folder = export(model, tmp_path / "exported", card=CARD)
    expected = ours(model)
    assert expected.std() > 0.05
    torch.testing.assert_close(stock(folder), expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(stock(folder, batch=False), expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(ours(load_reward_model(folder)), expected, atol=1e-6, rtol=0)


def test_pitfall_29_one_file_one_label_and_the_head_inside(
    tiny_folder: Folders, tmp_path: Path
) -> None:
    model = reward_model(tiny_folder("llama"))
    folder = export(model, tmp_path / "exported", card=CARD)
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["LlamaForSequenceClassification"]
    assert config["problem_type"] == "regression"
    assert len(config["id2label"]) == 1
    assert "_attn_implementation" not in config
    assert config["palate"]["terminal_token"] == END
    assert config["palate"]["base"] == "tiny/base"
    found = {path.name for path in folder.iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "README.md"} <= found
    assert not list(tmp_path.glob(".*"))
    _, info = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]


def test_pitfall_29_adapters_are_merged_and_the_live_model_stays(
    tiny_folder: Folders, tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model

    model = reward_model(tiny_folder("qwen2"))
    plain = ours(model)
    torch.manual_seed(0)
    lora = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights=False)
    with quiet():  # peft reads an attribute that transformers deprecates.
        model.backbone = get_peft_model(model.backbone, lora).eval()
    before = copy.deepcopy(model.state_dict())
    expected = ours(model)
    assert (expected - plain).abs().max() > 0.01
    folder = export(model, tmp_path / "exported", card=CARD)
    torch.testing.assert_close(stock(folder), expected, atol=1e-4, rtol=0)
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("pad", [END, None, PAD])
def test_pitfall_03_pad_differs_from_the_terminal_token(tmp_path: Path, pad: str | None) -> None:
    source = save_tiny(tmp_path / "base", "llama", tokenizer=tiny_tokenizer(pad=pad))
    model = reward_model(source)
    folder = export(model, tmp_path / "exported", card=CARD)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    assert config["pad_token_id"] == tokenizer.pad_token_id
    assert tokenizer.pad_token != END
    assert tokenizer.padding_side == "right"
    torch.testing.assert_close(stock(folder), ours(model), atol=1e-4, rtol=0)


def test_pitfall_03_the_template_ends_in_the_terminal_token(
    tiny_folder: Folders, tmp_path: Path
) -> None:
    folder = export(reward_model(tiny_folder("llama")), tmp_path / "exported", card=CARD)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert all(text.endswith(END) for text in texts(tokenizer))
    turns = [{"role": "user", "content": "Hi"}]
    asked = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert asked == f"{START}user\nHi{END}\n{START}assistant\n"


def test_pitfall_04_a_tokenizer_with_bos_adds_none_of_its_own(tmp_path: Path) -> None:
    template = "{{ bos_token }}" + CHATML
    tokenizer = tiny_tokenizer(bos=True, template=template)
    model = reward_model(save_tiny(tmp_path / "base", "llama", tokenizer=tokenizer))
    folder = export(model, tmp_path / "exported", card=CARD)
    exported = AutoTokenizer.from_pretrained(folder)
    bos = exported.convert_tokens_to_ids(BOS)
    assert exported(texts(exported)[0])["input_ids"].count(bos) == 1
    torch.testing.assert_close(stock(folder), ours(model), atol=1e-4, rtol=0)


# Of a template that asks the tokenizer for its BOS, one that writes it out, one whose turns begin
# with it (SmolLM2), and one without any.
BEGINNINGS = [
    (BOS, "{{ bos_token }}" + CHATML), (BOS, "\n{{- bos_token }}\n" + CHATML),
    (BOS, BOS + CHATML), (START, CHATML), (BOS, CHATML),
]  # fmt: skip


@pytest.mark.parametrize(("bos", "template"), BEGINNINGS)
def test_pitfall_38_a_client_that_cuts_the_declared_bos_cuts_nothing(
    bos: str, template: str, tmp_path: Path
) -> None:
    """verl cuts what the text begins with, if it is the BOS that the tokenizer declares."""
    tokenizer = tiny_tokenizer(bos=True, template=template)
    tokenizer.bos_token = bos
    model = reward_model(save_tiny(tmp_path / "base", "llama", tokenizer=tokenizer))
    folder = export(model, tmp_path / "exported", card=CARD)
    again = load_reward_model(folder)
    twice = export(again, tmp_path / "twice", card=CARD)
    for made in (folder, twice):
        stranger = AutoTokenizer.from_pretrained(made)
        for text, response in zip(texts(stranger), RESPONSES, strict=True):
            declared = stranger.bos_token
            sent = text.removeprefix(declared) if declared else text
            encoded = model.chat.encode(PROMPT, response)
            assert encoded is not None
            assert stranger(sent)["input_ids"] == encoded.ids.tolist()
            # Our server puts back what a client of an older export cut.
            assert again.chat.encode_text(text.removeprefix(bos)).ids.tolist() == (
                encoded.ids.tolist() if text.startswith(bos) else stranger(text)["input_ids"]
            )
    assert again.chat.fingerprint == model.chat.fingerprint
    assert again.chat.template == model.chat.template
    assert again.chat.tokenizer.bos_token == bos


def test_pitfall_35_the_tokenizer_says_how_long_text_is_cut(
    tiny_folder: Folders, tmp_path: Path
) -> None:
    """As a stranger would: the pipeline, which cuts on the right unless it is told."""
    model = reward_model(tiny_folder("llama"), max_tokens=40)
    folder = export(model, tmp_path / "exported", card=CARD)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert (tokenizer.truncation_side, tokenizer.padding_side) == ("left", "right")
    assert tokenizer.model_max_length == 40
    scored = pipeline("text-classification", model=str(folder), device="cpu")
    long = "How do I bake bread? " * 20
    turns = [
        [{"role": "user", "content": long}, {"role": "assistant", "content": response}]
        for response in RESPONSES[:3]
    ]
    whole = [tokenizer.apply_chat_template(t, tokenize=False) for t in turns]
    found = [scored(text, truncation=True)[0]["score"] for text in whole]
    ids = [model.chat.encode_text(text).ids for text in whole]
    assert {len(i) for i in ids} == {40}
    with torch.no_grad():
        expected = model.forward_padded(ids).reward
    torch.testing.assert_close(torch.tensor(found), expected, atol=1e-4, rtol=0)
    assert expected.std() > 0.05


def tensors_of_engines(folder: Path) -> dict[str, torch.Tensor]:
    """What vLLM and SGLang load: every safetensors file, or those that the index names."""
    files = set(folder.glob("*.safetensors"))
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        named = json.loads(index.read_text())["weight_map"]
        files = {folder / name for name in named.values()}
    read = [load_file(file) for file in sorted(files)]
    assert sum(map(len, read)) == len({name for tensors in read for name in tensors})
    return {name: tensor for tensors in read for name, tensor in tensors.items()}


def test_attribute_heads_lie_beside_the_classifier_and_come_back(
    tiny_folder: Folders, tmp_path: Path
) -> None:
    model = reward_model(tiny_folder("qwen2"), attributes=("verbosity", "helpfulness"))
    assert model.attributes == ("helpfulness", "verbosity")
    model.attribute_heads.scale([2.5, 1.0], [1.25, 0.5])
    folder = export(model, tmp_path / "exported", card=CARD)
    loaded, info = AutoModelForSequenceClassification.from_pretrained(
        folder, output_loading_info=True
    )
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert tensors_of_engines(folder).keys() - loaded.state_dict().keys() == {"score.bias"}
    torch.testing.assert_close(stock(folder), ours(model), atol=1e-4, rtol=0)
    again, ids = load_reward_model(folder), [model.chat.encode(PROMPT, RESPONSES[0]).ids]
    said = model.forward_padded(ids).attributes
    torch.testing.assert_close(again.forward_padded(ids).attributes, said, rtol=0, atol=1e-5)
    assert again.attributes == ("helpfulness", "verbosity")
    card = (folder / "README.md").read_text()
    assert r"helpfulness, verbosity: linear heads beside the reward in attribute\_heads" in card
    scorer = RewardScorer(folder)
    ((score,),) = scorer.score([Candidates(PROMPT, RESPONSES[:1])])
    assert [score.attributes[name] for name in scorer.attributes] == pytest.approx(said[0].tolist())
    opened, kept = reopen(str(folder))
    twice = export(opened, tmp_path / "twice", card=kept)
    assert load_reward_model(twice).attributes == again.attributes
    (folder / "attribute_heads.safetensors").unlink()
    with pytest.raises(PalateError, match=r"attribute_heads\.safetensors is missing"):
        load_reward_model(folder)


def test_a_model_without_attribute_heads_is_what_it_was(tiny_folder: Folders) -> None:
    """Heads of attributes are drawn last, and change neither the reward's nor an export's bytes."""
    plain, rated = (
        reward_model(tiny_folder("llama"), safety_head=True, attributes=names)
        for names in ((), ("helpfulness",))
    )
    assert torch.equal(plain.head.weight, rated.head.weight)
    assert torch.equal(plain.safety_head.weight, rated.safety_head.weight)
    assert plain.state_dict().keys() < rated.state_dict().keys()
    assert plain.forward_padded([np.arange(3)]).attributes is None
    assert torch.isnan(rated.forward_padded([np.arange(3)]).attributes).all(), "not learnt yet"


@pytest.mark.parametrize("safety_head", [False, True])
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_pitfall_39_engines_read_the_head_and_what_they_add_to_it_is_zero(
    family: str, safety_head: bool, tiny_folder: Folders, tmp_path: Path
) -> None:
    """vLLM refuses tensors it does not know; SGLang leaves a bias that no file has random."""
    model = reward_model(tiny_folder(family), safety_head=safety_head)
    folder = export(model, tmp_path / "exported", card=CARD)
    loaded, info = AutoModelForSequenceClassification.from_pretrained(
        folder, output_loading_info=True
    )
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    found = tensors_of_engines(folder)
    bias = found.pop("score.bias", None)
    assert (bias is not None) == family.startswith("qwen")
    assert bias is None or bias.tolist() == [0.0]
    assert found.keys() == loaded.state_dict().keys()
    torch.testing.assert_close(stock(folder), ours(model), atol=1e-4, rtol=0)
    assert (load_reward_model(folder).safety_head is not None) == safety_head


def test_pitfall_37_whoever_may_read_the_folder_may_read_the_weights(
    tiny_folder: Folders, tmp_path: Path
) -> None:
    model = reward_model(tiny_folder("llama"), safety_head=True)
    folder = export(model, tmp_path / "exported", card=CARD, max_shard_size="100KB")
    expected = folder.stat().st_mode & 0o666
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {expected}


def test_pitfall_07_a_pinned_date_travels_with_the_template(tmp_path: Path) -> None:
    dated = "{{ '<|im_start|>system\nToday ' + strftime_now('%d %b %Y') + '<|im_end|>\n' }}"
    tokenizer = tiny_tokenizer(template=dated + CHATML)
    source = save_tiny(tmp_path / "base", "llama", tokenizer=tokenizer)
    model = reward_model(source, template_variables={"date_string": "01 Jan 2026"})
    folder = export(model, tmp_path / "exported", card=CARD)
    assert "Today 01 Jan 2026" in texts(AutoTokenizer.from_pretrained(folder))[0]
    torch.testing.assert_close(stock(folder), ours(model), atol=1e-4, rtol=0)
    torch.testing.assert_close(ours(load_reward_model(folder)), ours(model))


def test_pitfall_30_the_stock_pipeline_gives_the_raw_reward(
    tiny_folder: Folders, tmp_path: Path
) -> None:
    model = reward_model(tiny_folder("llama"))
    folder = export(model, tmp_path / "exported", card=CARD)
    scored = pipeline("text-classification", model=str(folder), device="cpu")
    found = [scored(text)[0] for text in texts(scored.tokenizer)]
    assert {f["label"] for f in found} == {"reward"}
    values = torch.tensor([f["score"] for f in found])
    torch.testing.assert_close(values, ours(model), atol=1e-4, rtol=0)


def test_reload_keeps_the_safety_head_the_limit_and_the_fingerprint(
    tiny_folder: Folders, tmp_path: Path
) -> None:
    model = reward_model(tiny_folder("qwen3"), safety_head=True, max_tokens=77)
    folder = export(model, tmp_path / "exported", card=CARD)
    again = load_reward_model(folder)
    assert again.safety_head is not None
    assert model.safety_head is not None
    assert torch.equal(again.safety_head.weight, model.safety_head.weight)
    assert again.chat.max_tokens == 77
    assert again.chat.fingerprint == model.chat.fingerprint
    twice = export(again, tmp_path / "twice", card=CARD)
    torch.testing.assert_close(stock(twice), stock(folder))


def test_shards_and_a_replaced_folder(tiny_folder: Folders, tmp_path: Path) -> None:
    model = reward_model(tiny_folder("llama"))
    folder = export(model, tmp_path / "exported", card=CARD)
    (folder / "stale.txt").write_text("old")
    export(model, folder, card=CARD, max_shard_size="100KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    assert not (folder / "stale.txt").exists()
    torch.testing.assert_close(ours(load_reward_model(folder)), ours(model))


def test_fewer_layers_are_exported_as_they_are(tiny_folder: Folders, tmp_path: Path) -> None:
    opened = load_backbone(str(tiny_folder("qwen2")), layers=2)
    chat = ChatTokens(opened.tokenizer, BaseOptions())
    folder = export(RewardModel(opened.model, chat), tmp_path / "exported", card=CARD)
    assert AutoModelForSequenceClassification.from_pretrained(folder).config.num_hidden_layers == 2


def test_bfloat16_weights_keep_a_float32_head(tiny_folder: Folders, tmp_path: Path) -> None:
    opened = load_backbone(str(tiny_folder("llama")), dtype=torch.bfloat16)
    model = RewardModel(opened.model, ChatTokens(opened.tokenizer, BaseOptions()))
    folder = export(model, tmp_path / "exported", card=CARD)
    again = load_reward_model(folder, weights=torch.bfloat16)
    assert torch.equal(again.head.weight, model.head.weight)
    assert again.backbone.dtype == torch.bfloat16


def test_a_foreign_classifier_opens_as_a_reward_model(tiny_folder: Folders, tmp_path: Path) -> None:
    base = tiny_folder("gemma")
    torch.manual_seed(0)
    foreign = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, pad_token_id=3)
    foreign.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path)
    model = load_reward_model(tmp_path)
    assert model.chat.terminal == END
    assert torch.equal(model.head.weight, foreign.score.weight)


def test_what_is_no_reward_model_is_refused_in_one_line(
    tiny_folder: Folders, tmp_path: Path
) -> None:
    with pytest.raises(PalateError, match="expected a reward model"):
        load_reward_model(tiny_folder("llama"))
    model = reward_model(tiny_folder("llama"), safety_head=True)
    folder = export(model, tmp_path / "exported", card=CARD)
    (folder / "safety_head.safetensors").unlink()
    with pytest.raises(PalateError, match="is missing; export it again"):
        load_reward_model(folder)


def _edit(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["palate"] = {**config["palate"], **changes}
    kept = {name: value for name, value in config["palate"].items() if value != "gone"}
    (folder / "config.json").write_text(json.dumps(config | {"palate": kept}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 99}, "exported in format 99"),
        ({"terminal_token_id": 7}, "restore the tokenizer files"),
        ({"max_tokens": "gone"}, "lacks max_tokens; export it again"),
    ],
)
def test_pitfall_03_the_stored_terminal_token_is_asserted(
    changes: dict[str, Any], message: str, tiny_folder: Folders, tmp_path: Path
) -> None:
    folder = export(reward_model(tiny_folder("llama")), tmp_path / "exported", card=CARD)
    _edit(folder, **changes)
    with pytest.raises(PalateError, match=message):
        load_reward_model(folder)


def test_pitfall_15_the_head_is_seeded_and_starts_at_ln_2(tiny_folder: Folders) -> None:
    opened = load_backbone(str(tiny_folder("llama")))
    chat = ChatTokens(opened.tokenizer, BaseOptions())
    first, again, other = (RewardModel(opened.model, chat, seed=s) for s in (1, 1, 2))
    assert torch.equal(first.head.weight, again.head.weight)
    assert not torch.equal(first.head.weight, other.head.weight)
    rewards = ours(first.eval())
    losses = -torch.nn.functional.logsigmoid(rewards[:, None] - rewards[None])
    assert (losses - torch.tensor(2.0).log()).abs().max() < 0.02


def test_a_failed_export_leaves_the_old_one(
    tiny_folder: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = reward_model(tiny_folder("llama"))
    folder = export(model, tmp_path / "exported", card=CARD)
    before = stock(folder)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("palate.model.export.save_file", full)
    safe = reward_model(tiny_folder("llama"), safety_head=True)
    with pytest.raises(PalateError, match="No space left"):
        export(safe, folder, card=CARD)
    assert torch.equal(stock(folder), before)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{% for m in messages %}{{ m.content }}[E]\n{% endfor %}", "a[E]\nb[E]"),
        ("\n{% for m in messages %}\n  {{ m.content }}\n{% endfor %}\n", "\n  a\n  b\n[E]"),
        ("{% set n = namespace(x=1) %}{{ messages[0].content }}{{ n.x }}[E] \n\n", "a1[E]"),
        ("{% macro w(t) %}<{{ t }}>{% endmacro %}{{ w('it\\'s') }}", "<it's>[E]"),
    ],
)
def test_closed_template_cuts_after_the_last_terminal(template: str, expected: str) -> None:
    tokenizer = tiny_tokenizer(template=closed_template(template, "[E]"))
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert tokenizer.apply_chat_template(turns, tokenize=False) == expected
    plain = tiny_tokenizer(template=template)
    asked = {"tokenize": False, "add_generation_prompt": True}
    assert tokenizer.apply_chat_template(turns, **asked) == plain.apply_chat_template(
        turns, **asked
    )


@pytest.mark.parametrize("before", [[], [{"role": "system", "content": "s"}]])
def test_pitfall_29_a_pair_of_a_reranker_is_a_prompt_and_its_response(
    before: list[dict[str, str]],
) -> None:
    """As sentence-transformers' CrossEncoder and vLLM's /score render two texts."""
    own = "{% for m in messages %}<{{ m.role }}>{{ m.content }}[E]{% endfor %}"
    chat = ChatTokens(tiny_tokenizer(template=own), BaseOptions())
    template = portable_tokenizer(chat).chat_template
    turns = [*before, {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    pair = [*before, {"role": "query", "content": "a"}, {"role": "document", "content": "b"}]
    tokenizer = tiny_tokenizer(template=template)
    rendered = tokenizer.apply_chat_template(turns, tokenize=False)
    assert "<user>a[E]<assistant>b[E]" in rendered
    assert tokenizer.apply_chat_template(pair, tokenize=False) == rendered
    rust = minijinja.Environment(templates={"chat": template})
    assert rust.render_template("chat", messages=pair) == rendered
    # Alone they are roles like any other.
    assert "<document>" in tokenizer.apply_chat_template([pair[-1]], tokenize=False)


def test_engines_are_told_the_models_own_length(tiny_folder: Folders, tmp_path: Path) -> None:
    """vLLM takes it before max_position_embeddings, by which positions are computed."""
    model = reward_model(tiny_folder("llama"))
    folder = export(model, tmp_path / "exported", card=CARD)
    said = json.loads((folder / "sentence_bert_config.json").read_text())
    assert said["max_seq_length"] == model.chat.max_tokens
    assert not (folder / "modules.json").exists()
    assert "sentence_bert_config.json" in {path.name for path in files_of(folder)}


# Keys for older readers stand beside today's, and today's transformers reads the same model.

LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 5e5, "factor": 4.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
}  # fmt: skip
NEOX = {"rope_type": "default", "rope_theta": 777.0, "partial_rotary_factor": 0.5}


def exported(folder: Path, family: str, rope: dict[str, Any]) -> tuple[RewardModel, Path]:
    base = save_tiny(folder / "base", family, rope_parameters=rope)
    opened = load_backbone(str(base))
    model = RewardModel(opened.model, ChatTokens(opened.tokenizer, BaseOptions(model=str(base))))
    return model.eval(), export(model, folder / "out", card=Card("tiny", "tiny/base", "0"))


@pytest.mark.parametrize(
    ("family", "rope", "older"),
    [
        ("llama", {"rope_type": "default", "rope_theta": 777.0}, {"rope_scaling": None}),
        ("qwen2", LLAMA3, {"rope_scaling": {k: v for k, v in LLAMA3.items() if k != "rope_theta"}}),
        ("gpt_neox", NEOX, {"rotary_emb_base": 777.0, "rotary_pct": 0.5, "rope_scaling": None}),
    ],
)
def test_pitfall_29_old_and_new_keys_name_the_same_positions(
    family: str, rope: dict[str, Any], older: dict[str, Any], tmp_path: Path
) -> None:
    model, folder = exported(tmp_path, family, rope)
    config = json.loads((folder / "config.json").read_text())
    assert config["rope_theta"] == rope["rope_theta"]
    assert config["torch_dtype"] == config["dtype"] == "float32"
    assert {name: config[name] for name in older} == older
    assert AutoConfig.from_pretrained(folder).rope_parameters == rope
    ids = [torch.arange(5, 300).numpy().astype("int32")]  # Long enough for a scaling to matter.
    with torch.no_grad():
        expected = model.forward_padded(ids).reward
        assert load_reward_model(folder).forward_padded(ids).reward.equal(expected)


def test_pitfall_29_the_tokenizer_is_named_as_both_generations_know_it(tmp_path: Path) -> None:
    _, folder = exported(tmp_path, "llama", {"rope_type": "default", "rope_theta": 1e4})
    written = json.loads((folder / "tokenizer_config.json").read_text())
    assert written["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert written["model_input_names"] == ["input_ids", "attention_mask"]
    assert written["chat_template"] == (folder / "chat_template.jinja").read_text()
    assert "extra_special_tokens" not in written
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert START in tokenizer.all_special_tokens
    assert set(tokenizer("x")) == {"input_ids", "attention_mask"}


def test_pitfall_30_servers_are_told_to_leave_the_reward_raw(tmp_path: Path) -> None:
    _, folder = exported(tmp_path, "llama", {"rope_type": "default", "rope_theta": 1e4})
    config = json.loads((folder / "config.json").read_text())
    assert config["problem_type"] == "regression"  # vLLM's /classify.
    assert config["sbert_ce_default_activation_function"].endswith("Identity")  # Its /score.


# The model card: valid front matter, escaped strangers, the licence that binds.

FULL_CARD = Card(
    name="Helpfulness RM",
    base="HuggingFaceTB/SmolLM2-135M-Instruct",
    base_revision="abc",
    base_licence="apache-2.0",
    base_layers=12,
    recipe="name: demo\nseed: 1",
    recipe_fingerprint="f00d",
    data=(
        DataShare("hh", "mit", 1200, 0.75, 0.7, "https://huggingface.co/datasets/Anthropic/hh"),
        DataShare("pku", "cc-by-nc-4.0", 400, 0.25),
    ),
    tables={"Table 7": "| a | b |\n|---|---|\n| 1 | 2 |"},
    facts={"seed": "1"},
)


def front(text: str) -> dict[str, object]:
    found = yaml.safe_load(text.split("---\n")[1])
    assert isinstance(found, dict)
    return found


def test_front_matter_is_what_the_hub_reads() -> None:
    found = front(render_card(FULL_CARD, terminal="<|im_end|>", max_tokens=512))
    assert found["library_name"] == "transformers"
    assert found["pipeline_tag"] == "text-classification"
    assert found["base_model"] == FULL_CARD.base
    assert found["license"] == "cc-by-nc-4.0"


def test_says_where_it_comes_from() -> None:
    text = render_card(FULL_CARD, terminal="<|im_end|>", max_tokens=512)
    for expected in ("first 12 layers only", "| 1,200 | 75.0% | 70.0% |", "seed: 1", "512 tokens"):
        assert expected in text
    assert FULL_CARD.tables["Table 7"] in text


def test_untrusted_text_stays_text() -> None:
    evil = "x | y\n---\nlicense: mit\n<script>a</script> [l](javascript:b) ```"
    data = (DataShare(evil, evil, 1, 1.0, url="javascript:alert(1)"),)
    card = Card(evil, evil, evil, evil, summary=evil, recipe="a: |\n  ```\n  # b", data=data)
    text = render_card(card, terminal="<|x|>", max_tokens=8)
    found = front(text)
    assert found["license"] == "other"
    assert "base_model" not in found
    body = text.split("---\n", 2)[2]
    assert "<script" not in body
    assert not re.search(r"(?<!\\)\]\(javascript", body)
    assert "\nlicense: mit" not in body
    assert "````yaml\n" in body


@pytest.mark.parametrize(
    ("licences", "binding"),
    [
        (["mit", "apache-2.0"], "mit"),
        (["mit", "cc-by-sa-4.0"], "cc-by-sa-4.0"),
        (["cc-by-nc-4.0", "llama2", "mit"], "cc-by-nc-4.0"),
        (["cc-by-nc-4.0", None], "unknown"),
        ([], None),
    ],
)
def test_the_most_restrictive_licence_binds(
    licences: list[str | None], binding: str | None
) -> None:
    assert most_restrictive(licences) == binding


def test_says_how_it_must_be_read_and_what_each_engine_must_be_told() -> None:
    text = render_card(FULL_CARD, terminal="<|im_end|>", max_tokens=512)
    for expected in (
        "At most 512 tokens", "--dtype float32", "--chat-template", "CrossEncoder",
        '"truncation_side": "left"', "raw logit", "raw_scores", "random bias",
    ):  # fmt: skip
        assert expected in text


def test_the_card_of_an_onnx_export_speaks_of_its_own_use_alone() -> None:
    text = onnx_card(render_card(FULL_CARD, terminal="<|im_end|>", max_tokens=512))
    assert re.findall(r"(?m)^## (.*)", text) == [
        "Use", "How it must be read", "Origin", "Training data", "Table 7", "Recipe", "Licence",
    ]  # fmt: skip
    assert "vLLM" not in text
    assert onnx_card("# A stranger's\n").startswith("# A stranger's\n\n## Use\n")


# Pushing to a hub: a real HTTP server on loopback, the real huggingface_hub.

NAME = "somebody/tiny-rm"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("push") / "model"
    export(
        tiny_reward_model("llama"),
        made,
        card=Card("tiny", "tiny/base", "0"),
        max_shard_size="100KB",
    )
    (made / "optimizer.bin").write_bytes(b"a pickle")
    (made / "notes.jsonl").write_text("mine")
    return made


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> Generator[Hub]:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # Its storage is no plain HTTP.
    with hub() as kept:
        yield kept


def test_a_push_is_whole_private_and_opens_again(folder: Path, there: Hub, tmp_path: Path) -> None:
    done = push(folder, NAME, files_of(folder), endpoint=there.url, message="The first")
    assert (done.url, done.commit) == (f"{there.url}/{NAME}", COMMIT)
    assert there.private == {NAME: True}
    assert there.messages == ["The first"]
    assert sum(name.endswith(".safetensors") for name in there.files[NAME]) > 1
    assert not {"optimizer.bin", "notes.jsonl"} & set(there.files[NAME])
    for name, content in there.files[NAME].items():
        assert content == (folder / name).read_bytes()
        (tmp_path / name).write_bytes(content)
    again = load_reward_model(tmp_path)
    assert again.head.weight.equal(load_reward_model(folder).head.weight)
    push(folder, NAME, files_of(folder), endpoint=there.url)  # Into one that is there.
    assert len(there.messages) == 2


def test_a_public_repository_needs_the_word(folder: Path, there: Hub) -> None:
    files = files_of(folder)
    push(folder, NAME, files, public=True, endpoint=there.url, revision="next")
    assert there.private == {NAME: False}
    assert there.branches == ["next"]
    with pytest.raises(PalateError, match="exists and is public; say --public"):
        push(folder, NAME, files, endpoint=there.url)
    assert len(there.messages) == 1


def test_who_is_not_let_in_is_told_how(
    folder: Path, there: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = files_of(folder)
    there.writable = False
    with pytest.raises(PalateError, match=r"no right to write there \(403"):
        push(folder, NAME, files, endpoint=there.url)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(PalateError, match="set HF_TOKEN") as caught:
        push(folder, NAME, files, endpoint=there.url)
    assert "hf_wrong" not in str(caught.value)
    with pytest.raises(PalateError, match="cannot be reached"):
        push(folder, NAME, files, endpoint="http://127.0.0.1:1")
    with pytest.raises(PalateError, match="expected OWNER/NAME"):
        push(folder, "no-owner", files, endpoint=there.url)
    assert there.files == {}


def test_a_folder_without_a_model_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(PalateError, match=r"no config.json with weights"):
        files_of(tmp_path)
    for name in ("config.json", "model.onnx"):
        (tmp_path / name).write_text('{"_name_or_path": "/home/me/base"}')
    with pytest.raises(PalateError, match=r"no README.md, the model card"):
        files_of(tmp_path)
    assert folder_named(tmp_path) == "/home/me/base"
    assert folder_named(folder) is None


def test_a_dry_run_lists_the_files_and_asks_nobody(folder: Path) -> None:
    words = ["push", str(folder), NAME, "--dry-run", "--format", "csv"]
    found = CliRunner().invoke(app, words)
    assert found.exit_code == 0, found.output
    listed = [line.split(",")[0] for line in found.stdout.splitlines()[1:]]
    assert listed == [path.name for path in files_of(folder)]
    assert {"README.md", "config.json", "tokenizer.json"} <= set(listed)
