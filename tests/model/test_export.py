"""An exported checkpoint, opened by stock transformers, gives our rewards."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from palate.model.backbone import load_backbone, quiet
from palate.model.export import Card, closed_template, export
from palate.model.loading import load_reward_model
from palate.model.options import BaseOptions
from palate.model.reward_model import RewardModel
from palate.model.tokenizer import ChatTokens
from palate.types import Message, PalateError
from tiny import BOS, CHATML, END, EXPORTED, PAD, START, save_tiny, tiny_tokenizer

CARD = Card(name="tiny", base="tiny/base", base_revision="r1", recipe_fingerprint="f1")
PROMPT = (
    Message("user", "How do I bake bread?"),
    Message("assistant", "Mix flour\n\nand water."),
    Message("user", "Then?  "),
)
RESPONSES = ("Wait for the dough to rise, 25 minutes — voilà.", "No.", "", "The sea is blue. " * 9)
Folders = Callable[[str], Path]


def reward_model(folder: Path, *, safety_head: bool = False, **options: Any) -> RewardModel:
    opened = load_backbone(str(folder))
    chat = ChatTokens(opened.tokenizer, BaseOptions(model=str(folder), **options))
    model = RewardModel(opened.model, chat, safety_head=safety_head)
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
