"""Reward models of other programs: each is read where its trainer read it, or refused by name."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)
from typer.testing import CliRunner

from palate.cli import app
from palate.judges import ScorerJudge, open_judge
from palate.judges.pretrained import RewardModel
from palate.model.backbone import quiet
from palate.model.export import Card, export
from palate.model.loading import (
    load_adapter,
    load_chat,
    load_reward_model,
    open_adapter,
    reopen,
    start_model,
)
from palate.model.options import BaseOptions
from palate.types import Candidates, Message, PalateError
from tiny import CHATML, END, PAD, TEXT_END, save_tiny, tiny_config, tiny_model, tiny_tokenizer

PROMPT, RESPONSES = (Message("user", "How do I bake bread?"),), ("Mix flour.", "No.", "The sea.")
Families = Callable[[str], Path]


def save_classifier(folder: Path, family: str = "qwen3", **tokenizer: Any) -> Path:
    """What TRL's and ms-swift's trainers save: transformers' classifier, pad in the config."""
    own = tiny_tokenizer(**tokenizer)
    config = tiny_config(family, len(own), initializer_range=0.1)
    config.num_labels, config.pad_token_id = 1, own.pad_token_id
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_config(config)
        torch.nn.init.normal_(model.score.weight)
    model.save_pretrained(folder)
    own.save_pretrained(folder)
    return folder


PLAIN = "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"


def save_openrlhf(
    folder: Path, *, moments: tuple[float, float] | None = (0.5, 2.0), **tokenizer: Any
) -> Path:
    """OpenRLHF 0.11.2: class RewardModel, two labels by default, mean and std in the config."""
    save_classifier(folder, "llama", **tokenizer)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config |= {"architectures": ["RewardModel"], "normalize_reward": moments is not None}
    config.pop("id2label", None), config.pop("label2id", None)
    if moments is not None:
        config |= {"mean": moments[0], "std": moments[1]}
    path.write_text(json.dumps(config))
    return folder


def save_llama_factory(folder: Path, **tokenizer: Any) -> Path:
    """LLaMA-Factory 0.9.5: a causal model, trl's value head beside it."""
    own = tiny_tokenizer(**tokenizer)
    config = tiny_config("llama", len(own), initializer_range=0.1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        head = {
            "v_head.summary.weight": torch.randn(1, 48),
            "v_head.summary.bias": torch.tensor([0.25]),
        }
    save_file(head, folder / "value_head.safetensors", metadata={"format": "pt"})
    own.save_pretrained(folder)
    return folder


def texts(folder: Path) -> list[str]:
    """The conversations as the checkpoint's own tokenizer writes them."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    turns = [{"role": m.role, "content": m.content} for m in PROMPT]
    return [
        tokenizer.apply_chat_template([*turns, {"role": "assistant", "content": r}], tokenize=False)
        for r in RESPONSES
    ]


def ids(folder: Path, text: str) -> torch.Tensor:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found: torch.Tensor = tokenizer(text, add_special_tokens=False, return_tensors="pt")
    return found["input_ids"]


@torch.no_grad()
def stock(folder: Path) -> list[float]:
    """The checkpoint's own answer: stock transformers on its template's whole text."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    return [float(model(ids(folder, text)).logits[0, 0]) for text in texts(folder)]


def judged(folder: Path) -> list[float | None]:
    """By `palate score` and `evaluate`: the shared-prefix engine."""
    judge = open_judge({"reward-model": str(folder)})
    assert isinstance(judge, ScorerJudge)
    return [s.value for s in next(iter(judge.scorer.score([Candidates(PROMPT, RESPONSES)])))]


CLOSED = CHATML.replace(
    "message['content'] + '<|im_end|>' + '\n'", "message['content'] + '<|im_end|>'"
)


@pytest.mark.parametrize("template", [CHATML, CLOSED], ids=["newline", "closed"])
@pytest.mark.parametrize("pad", [PAD, END, None], ids=["pad", "pad is end", "no pad"])
def test_pitfall_32_a_stock_checkpoint_is_read_where_stock_code_reads_it(
    tmp_path: Path, pad: str | None, template: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = save_classifier(tmp_path / "rm", pad=pad, template=template)
    expected = stock(folder)
    assert judged(folder) == pytest.approx(expected, abs=1e-5)
    assert "does not say where its reward is read" in caplog.text
    model, card = reopen(str(folder))
    again = export(model, tmp_path / "again", card=card)
    assert stock(again) == pytest.approx(expected, abs=1e-5), "the export keeps the place"
    assert judged(again) == pytest.approx(expected, abs=1e-5)
    caplog.clear()
    assert load_chat(again).fingerprint == model.chat.fingerprint
    assert "does not say" not in caplog.text
    assert "whole text" in (again / "README.md").read_text()


def test_pitfall_32_our_own_model_keeps_its_terminal_token(
    tmp_path: Path, tiny_folder: Families
) -> None:
    model, _ = start_model(BaseOptions(model=str(tiny_folder("llama"))))
    folder = export(model, tmp_path / "rm", card=Card("tiny", "tiny", "0"))
    ours = json.loads((folder / "config.json").read_text())["palate"]
    assert ours["format"] == 1
    assert "ending" not in ours
    opened = load_reward_model(folder)
    assert (opened.chat.ending, opened.chat.read_at) == ("terminal", f"the terminal token {END!r}")


def test_pitfall_32_a_judge_of_a_foreign_checkpoint_says_where_it_is_read(tmp_path: Path) -> None:
    judge = open_judge({"reward-model": str(save_classifier(tmp_path / "rm"))})
    assert isinstance(judge, ScorerJudge)
    assert "'\\n'" in judge.scorer.protocol["reward_read_at"]


@pytest.mark.parametrize("moments", [(0.5, 2.0), None], ids=["normalized", "plain"])
@pytest.mark.parametrize(
    ("eos", "template"),
    [(END, CHATML), (TEXT_END, CHATML), (END, PLAIN)],
    ids=["eos ends turns", "another eos", "nothing ends turns"],
)
def test_openrlhf_is_read_at_its_eos_and_normalized(
    tmp_path: Path, moments: tuple[float, float] | None, eos: str, template: str
) -> None:
    """As its `RewardDataset` and `RewardModel` do: newlines go, EOS is there, (r - mean) / std."""
    folder = save_openrlhf(tmp_path / "rm", moments=moments, template=template)
    if eos != END:
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token": eos}))
    weights = load_file(folder / "model.safetensors")
    backbone = AutoModel.from_pretrained(folder).eval()
    mean, std = moments or (0.0, 1.0)
    expected = []
    for text in texts(folder):
        ended = text.rstrip("\n")
        ended += "" if ended.endswith(eos) else f" {eos}"
        with torch.no_grad():
            hidden = backbone(ids(folder, ended)).last_hidden_state[0, -1]
        expected.append((float(hidden @ weights["score.weight"][0]) - mean) / std)
    assert judged(folder) == pytest.approx(expected, abs=1e-5)
    model, card = reopen(str(folder))
    exported = export(model, tmp_path / "exported", card=card)
    left_out = [value + mean / std for value in expected]
    assert judged(exported) == pytest.approx(left_out, abs=1e-5)
    assert stock(exported) == pytest.approx(left_out, abs=1e-5)


def test_openrlhf_as_a_stock_classifier_is_refused_with_the_cure(tmp_path: Path) -> None:
    folder = save_openrlhf(tmp_path / "rm")
    with pytest.raises(PalateError, match=r"OpenRLHF reads it.*judge it as \{reward-model"):
        open_judge({"sequence-classifier": {"model": str(folder), "format": "chat"}})


def test_llama_factory_is_read_at_the_end_with_its_constant(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = save_llama_factory(tmp_path / "rm", pad=END)
    head = load_file(folder / "value_head.safetensors")
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    expected = []
    for text in texts(folder):
        with torch.no_grad():
            hidden = model(ids(folder, text), output_hidden_states=True).hidden_states[-1][0, -1]
        expected.append(float(hidden @ head["v_head.summary.weight"][0]) + 0.25)
    assert judged(folder) == pytest.approx(expected, abs=1e-5)
    opened, card = reopen(str(folder))
    exported = export(opened, tmp_path / "exported", card=card)
    assert "constant" in caplog.text
    assert "0.25 lower" in (exported / "README.md").read_text()
    assert stock(exported) == pytest.approx([value - 0.25 for value in expected], abs=1e-5)
    assert judged(exported) == pytest.approx([value - 0.25 for value in expected], abs=1e-5)


def test_llama_factorys_adapter_is_merged_under_its_head(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    base = save_tiny(tmp_path / "base", "llama")
    causal = AutoModelForCausalLM.from_config(tiny_config("llama", 400, initializer_range=0.1))
    causal.save_pretrained(base)
    lora = LoraConfig(
        task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False
    )
    with quiet():
        adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(base), lora).eval()
    folder = tmp_path / "lora"
    adapted.save_pretrained(folder)
    head = torch.randn(1, 48)
    held = {"v_head.summary.weight": head, "v_head.summary.bias": torch.zeros(1)}
    save_file(held, folder / "value_head.safetensors")
    tiny_tokenizer().save_pretrained(folder)
    row = ids(folder, texts(folder)[0])
    with torch.no_grad():
        hidden = adapted(row, output_hidden_states=True).hidden_states[-1][0, -1]
    model, _ = reopen(str(folder))
    with torch.no_grad():
        found = model.forward_padded([model.chat.encode(PROMPT, RESPONSES[0]).ids]).reward
    assert float(found) == pytest.approx(float(hidden @ head[0]), abs=1e-5)


def test_a_pickled_value_head_is_refused_with_the_cure(tmp_path: Path) -> None:
    folder = save_llama_factory(tmp_path / "rm")
    (folder / "value_head.safetensors").rename(folder / "value_head.bin")
    with pytest.raises(PalateError, match=r"its head is a pickle.*save_safetensors"):
        load_reward_model(folder)


def test_pitfall_41_a_reward_model_as_the_base_goes_on_with_its_head(
    tmp_path: Path, tiny_folder: Families, caplog: pytest.LogCaptureFixture
) -> None:
    options = BaseOptions(model=str(tiny_folder("llama")), max_tokens=200, template="chatml")
    first, _ = start_model(options, safety_head=True, seed=3)
    folder = export(first, tmp_path / "rm", card=Card("tiny", "tiny", "0"))
    model, opened = start_model(BaseOptions(model=str(folder)), safety_head=True, seed=4)
    assert torch.equal(model.head.weight, first.head.weight)
    assert torch.equal(model.safety_head.weight, first.safety_head.weight)
    assert model.chat.fingerprint == first.chat.fingerprint, "its template and its length"
    assert "training goes on with its head" in caplog.text
    assert "taken over" in opened.facts["head"]
    asked, _ = start_model(BaseOptions(model=str(folder), max_tokens=300, template="model"))
    assert asked.chat.max_tokens == 300, "what the recipe asks for goes before"
    assert "its safety head is left out" in caplog.text


def test_a_base_with_heads_of_the_same_attributes_goes_on_with_them(
    tmp_path: Path, tiny_folder: Families, caplog: pytest.LogCaptureFixture
) -> None:
    options = BaseOptions(model=str(tiny_folder("llama")), max_tokens=200, template="chatml")
    first, _ = start_model(options, attributes=("a", "b"), seed=3)
    first.attribute_heads.scale([1.0, 2.0], [0.5, 3.0])
    folder = export(first, tmp_path / "rm", card=Card("tiny", "tiny", "0"))
    base = BaseOptions(model=str(folder))
    same, _ = start_model(base, attributes=("b", "a"), seed=4)
    for name, tensor in first.attribute_heads.state_dict().items():
        assert torch.equal(same.attribute_heads.state_dict()[name], tensor), name
    assert "left out" not in caplog.text
    other, _ = start_model(base, attributes=("a",), seed=4)
    assert not other.attribute_heads.is_scaled
    assert "its heads of a, b are left out" in caplog.text


@pytest.mark.parametrize("save", [save_classifier, save_openrlhf, save_llama_factory])
def test_pitfall_41_a_peers_reward_model_as_the_base_goes_on_where_it_is_read(
    save: Callable[[Path], Path], tmp_path: Path
) -> None:
    folder = save(tmp_path / "rm")
    model, _ = start_model(BaseOptions(model=str(folder)))
    expected = load_reward_model(folder)
    assert torch.equal(model.head.weight, expected.head.weight)
    assert model.chat.fingerprint == expected.chat.fingerprint
    assert model.bias == 0, "a constant that a ranking loss cannot see"


def test_pitfall_41_layers_cut_leave_a_head_that_knows_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = save_classifier(tmp_path / "rm")
    model, _ = start_model(BaseOptions(model=str(folder), layers=2))
    assert model.head.weight.abs().max() < 0.01
    assert "training starts with a new head" in caplog.text
    assert "score.weight" in caplog.text


def test_pitfall_41_weights_without_a_place_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    folder = save_classifier(tmp_path / "rm")
    weights = load_file(folder / "model.safetensors") | {"v_head.weight": torch.zeros(1, 48)}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    for opened in (
        lambda: load_reward_model(folder),
        lambda: start_model(BaseOptions(model=str(folder))),
        lambda: open_judge({"sequence-classifier": {"model": str(folder), "format": "chat"}}),
    ):
        caplog.clear()
        opened()
        (line,) = [r.getMessage() for r in caplog.records if "does not use" in r.getMessage()]
        assert line.endswith("does not use: v_head.weight")


def test_pitfall_41_a_classifier_with_several_labels_is_no_head(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = save_classifier(tmp_path / "rm")
    config = json.loads((folder / "config.json").read_text())
    labels = {str(i): f"l{i}" for i in range(3)}
    config |= {"id2label": labels, "label2id": {name: int(i) for i, name in labels.items()}}
    (folder / "config.json").write_text(json.dumps(config))
    weights = load_file(folder / "model.safetensors") | {"score.weight": torch.ones(3, 48)}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    model, _ = start_model(BaseOptions(model=str(folder)))
    assert model.head.weight.abs().max() < 0.01
    assert "does not use: score.weight" in caplog.text


def alone_with_its_end() -> Any:
    """As GPT-2's: one special token, which ends a text and can pad nothing."""
    letters = {c: i for i, c in enumerate(["<|endoftext|>", *pre_tokenizers.ByteLevel.alphabet()])}
    raw = Tokenizer(models.BPE(letters, []))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|endoftext|>")


def test_pitfall_03_a_tokenizer_without_a_pad_token_is_given_one_by_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """GPT-2's: refused with the cure; then a row is added, said, and in the export."""
    folder = save_tiny(tmp_path / "gpt2", "gpt_neox", tokenizer=alone_with_its_end())
    plain = BaseOptions(model=str(folder), template="chatml")
    with pytest.raises(
        PalateError, match=r"set backbone\.pad_token to a new one, such as <\|pad\|>"
    ):
        start_model(plain)
    for word in ("a", "the", "<p ad>"):
        with pytest.raises(PalateError, match=f"backbone.pad_token: '{word}' may stand in text"):
            start_model(plain.model_copy(update={"pad_token": word}))
    model, opened = start_model(plain.model_copy(update={"pad_token": "<|pad|>"}))
    assert model.chat.pad_id == 257 != model.chat.terminal_id
    assert model.backbone.get_input_embeddings().weight.shape[0] == 258
    assert "pads with '<|pad|>', a new token with a row added to the embedding" in caplog.text
    assert opened.facts["pad token"].startswith("<|pad|>, a row added")
    rewards = list(open_scores(export(model, tmp_path / "rm", card=Card("a", "b", ""))))
    again, _ = start_model(plain.model_copy(update={"pad_token": "<|pad|>"}))
    assert torch.equal(
        model.backbone.get_input_embeddings().weight, again.backbone.get_input_embeddings().weight
    )
    assert len(set(rewards)) == len(rewards)


def open_scores(folder: Path) -> list[float]:
    """Rewards in our engine, which are the stock classifier's in a padded batch."""
    asked = Candidates(PROMPT, RESPONSES)
    ours, theirs = (
        [score.value for score in next(iter(opened.scorer.score([asked])))]
        for opened in (
            open_judge({"reward-model": str(folder)}),
            open_judge({"sequence-classifier": {"model": str(folder), "format": "chat"}}),
        )
    )
    assert ours == pytest.approx(theirs, abs=1e-4)
    return ours


def test_a_spare_row_of_the_embedding_pads_by_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Many checkpoints round their vocabulary up to a multiple of 64."""
    tokenizer = alone_with_its_end()
    tiny_model("gpt_neox", len(tokenizer) + 7).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model, _ = start_model(BaseOptions(model=str(tmp_path), template="chatml"))
    assert model.chat.pad_id == 257
    assert model.backbone.get_input_embeddings().weight.shape[0] == 264
    assert "a row of the embedding that no token had" in caplog.text


def test_a_pad_token_that_is_not_asked_for_changes_no_fingerprint() -> None:
    assert "pad_token" not in BaseOptions().model_dump(mode="json")
    assert BaseOptions(pad_token="<|pad|>").model_dump(mode="json")["pad_token"] == "<|pad|>"


@pytest.mark.parametrize("what", ["base", "reward model", "judge"])
def test_a_tokenizer_longer_than_the_embedding_is_one_line_at_opening(
    tmp_path: Path, what: str
) -> None:
    """A token was added and the model not resized; torch would say `IndexError`."""
    if what == "base":
        save_tiny(tmp_path, "llama")
    else:
        save_classifier(tmp_path, "llama")
    longer = tiny_tokenizer(template=CHATML.replace(END, "[NEW]"))
    longer.add_special_tokens({"eos_token": "[NEW]"})
    longer.save_pretrained(tmp_path)
    line = r"401 tokens and the embedding 400 rows, none for '\[NEW\]' \(token 400\)"
    folder = str(tmp_path)
    judge = {"sequence-classifier": {"model": folder, "format": "chat"}}
    opening = {
        "base": lambda: start_model(BaseOptions(model=folder)),
        "reward model": lambda: load_reward_model(folder),
        "judge": lambda: open_judge(judge),
    }
    with pytest.raises(PalateError, match=line):
        opening[what]()


def test_a_special_token_without_a_row_that_no_text_comes_to_is_no_fault(tmp_path: Path) -> None:
    """Gemma 3 1B: its image token is one beyond the embedding."""
    save_tiny(tmp_path, "llama")
    longer = tiny_tokenizer()
    longer.add_special_tokens({"additional_special_tokens": ["<image_soft_token>"]})
    longer.save_pretrained(tmp_path)
    model, _ = start_model(BaseOptions(model=str(tmp_path)))
    found = model.chat.encode(PROMPT, "a <image_soft_token> of it")
    assert found is not None
    assert max(found.ids) < 400


# A PEFT adapter and its base become one checkpoint that scores as the two did.

IDS = torch.tensor([[7, 300, 12, 45, 99, 250]])
Folders = Callable[[str], Path]


def save_adapter(
    folder: Path, base: Path, *, task: str = "SEQ_CLS", **options: bool
) -> torch.Tensor:
    """An adapter with random weights, its head too, saved as TRL does; its reward of `IDS`."""
    torch.manual_seed(0)
    classifier = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    lora = LoraConfig(
        r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"], task_type=task,
        init_lora_weights=False, **options,
    )  # fmt: skip
    with quiet():
        model = get_peft_model(classifier, lora).eval()
    if task == "SEQ_CLS":
        torch.nn.init.normal_(model.base_model.model.score.modules_to_save["default"].weight)
    model.save_pretrained(folder)
    with torch.no_grad():
        return model(input_ids=IDS).logits[:, 0]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    # Its pad token ends turns: what must not leak into the merged export.
    return save_tiny(tmp_path / "base", "llama", tokenizer=tiny_tokenizer(pad=END))


@pytest.mark.parametrize("dora", [False, True])
def test_pitfall_29_the_merged_adapter_scores_as_the_two_did(
    base: Path, tmp_path: Path, dora: bool
) -> None:
    expected = save_adapter(tmp_path / "lora", base, use_dora=dora)
    model, card = reopen(str(tmp_path / "lora"))
    folder = export(model, tmp_path / "merged", card=card)
    stock, info = AutoModelForSequenceClassification.from_pretrained(
        folder, output_loading_info=True
    )
    assert not info["missing_keys"]
    with torch.no_grad():
        torch.testing.assert_close(stock(IDS).logits[:, 0], expected, atol=1e-5, rtol=0)
    assert AutoTokenizer.from_pretrained(folder).pad_token != END
    assert json.loads((folder / "config.json").read_text())["palate"]["base"] == str(base)
    assert "LORA, merged" in (folder / "README.md").read_text()


def test_a_user_opens_scores_and_saves_an_adapter(base: Path, tmp_path: Path) -> None:
    expected = save_adapter(tmp_path / "lora", base)
    moved = base.rename(tmp_path / "moved")
    model = RewardModel.from_pretrained(tmp_path / "lora", base=str(moved))
    with torch.no_grad():
        reward = model.module.forward_padded([IDS[0].numpy()]).reward.cpu()
    torch.testing.assert_close(reward, expected, atol=1e-5, rtol=0)
    asked = [("Sea?", "Blue."), ("Sea?", "Wide and deep.")]
    saved = model.save_pretrained(tmp_path / "saved")
    again = RewardModel.from_pretrained(saved)
    assert again.score(asked) == pytest.approx(model.score(asked), abs=1e-5)


def test_a_base_that_moved_is_named(base: Path, tmp_path: Path) -> None:
    expected = save_adapter(tmp_path / "lora", base)
    moved = base.rename(tmp_path / "moved")
    with pytest.raises(PalateError, match="no such folder"):
        open_adapter(tmp_path / "lora")
    model, adapter = load_adapter(tmp_path / "lora", base=str(moved))
    with torch.no_grad():
        reward = model.forward_padded([IDS[0].numpy()]).reward
    torch.testing.assert_close(reward, expected, atol=1e-5, rtol=0)
    assert adapter.base == str(moved)


def test_pitfall_29_an_adapter_without_a_head_is_refused(base: Path, tmp_path: Path) -> None:
    save_adapter(tmp_path / "lora", base, task="FEATURE_EXTRACTION")
    with pytest.raises(PalateError, match=r"neither it nor the adapter has a trained score.weight"):
        open_adapter(tmp_path / "lora")


def test_an_adapter_of_another_base_is_refused(base: Path, tmp_path: Path) -> None:
    save_adapter(tmp_path / "lora", base)
    other = save_tiny(tmp_path / "other", "llama", hidden_size=32)
    with pytest.raises(PalateError, match="name its own base model with --base"):
        open_adapter(tmp_path / "lora", base=str(other))


def test_what_is_no_safe_adapter_is_one_line(base: Path, tmp_path: Path) -> None:
    save_adapter(tmp_path / "lora", base)
    (tmp_path / "lora/adapter_model.safetensors").rename(tmp_path / "lora/adapter_model.bin")
    with pytest.raises(PalateError, match=r"only adapter_model.bin, and a pickle can run code"):
        open_adapter(tmp_path / "lora")
    with pytest.raises(PalateError, match="a whole model, not an adapter"):
        reopen(str(base), base=str(base))


def test_parity_compares_the_adapter_merged_and_not(base: Path, tmp_path: Path) -> None:
    save_adapter(tmp_path / "lora", base)
    words = ["parity", str(tmp_path / "lora"), "--n", "4", "--format", "json"]
    found = CliRunner().invoke(app, words)
    assert found.exit_code == 0, found.output
    verdicts = {row["way"]: row["verdict"] for row in json.loads(found.stdout)}
    assert verdicts["peft: the adapter, not merged"] == "same"
    assert verdicts["transformers: text-classification pipeline"] == "same"
