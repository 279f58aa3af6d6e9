"""One-label classifiers: scores are the stock model's, whatever the batch; Open Assistant's too."""

import itertools
import json
import math
import random

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from palate.judges import open_judge
from palate.judges.options import SequenceClassifierSpec
from palate.judges.sequence_classifier import SequenceClassifier
from palate.types import Candidates, Message, Pair, PalateError
from tiny import CHATML, END, TEXT, pairs_of_words, tiny_model, tiny_tokenizer

WORDS = TEXT.split()


def conversations(count, seed=0):
    """Prompts of 1 to 3 turns and two responses each, of very unequal lengths."""
    draw = random.Random(seed)

    def words(most):
        return " ".join(draw.choices(WORDS, k=draw.randint(1, most)))

    for _ in range(count):
        turns = draw.choice([1, 3])
        roles = itertools.cycle(("user", "assistant"))
        prompt = tuple(
            Message(role, words(8)) for role, _ in zip(roles, range(turns), strict=False)
        )
        yield Candidates(prompt, (words(3), words(30)))


def opened(folder, kind="chat", **options):
    options = {"device": "cpu"} | options
    return SequenceClassifier(SequenceClassifierSpec(model=str(folder), format=kind, **options))


def values(scorer, candidates):
    return [score.value for scores in scorer.score(candidates) for score in scores]


def stock_chat(folder, candidates):
    """The stock model on each conversation alone and unpadded."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = []
    for shown in candidates:
        for response in shown.responses:
            turns = [{"role": m.role, "content": m.content} for m in shown.prompt]
            turns.append({"role": "assistant", "content": response})
            ids = tokenizer.apply_chat_template(turns, return_tensors="pt", return_dict=False)
            with torch.inference_mode():
                found.append(float(model(ids).logits[0, 0]))
    return found


@pytest.mark.parametrize("family", ["llama", "gpt_neox"])
@pytest.mark.parametrize("pad", [None, "<|pad|>"])
def test_chat_scores_are_the_stock_models_alone_and_unpadded(save_classifier, family, pad):
    folder = save_classifier(family, tokenizer=tiny_tokenizer(pad=pad))
    asked = list(conversations(12))
    assert values(opened(folder), asked) == pytest.approx(stock_chat(folder, asked), abs=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", ["llama", "deberta"])
def test_pitfall_08_scores_do_not_move_with_the_batch_or_the_padding_side(
    save_classifier, kind, side
):
    folder = save_classifier(kind)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"padding_side": side}))
    asked = list(conversations(12, seed=1))
    form = "pair" if kind == "deberta" else "plain"
    alone = values(opened(folder, form, batch_tokens=1), asked)
    assert values(opened(folder, form, batch_tokens=10**6), asked) == pytest.approx(alone, abs=1e-5)
    assert values(opened(folder, form, batch_tokens=200, window=3), asked) == pytest.approx(
        alone, abs=1e-5
    )


def test_pitfall_03_pad_that_ends_every_row_reads_the_same_token_alone_and_in_a_batch(
    save_classifier,
):
    """Every row ends in <|im_end|>, which is the tokenizer's pad token too."""
    tokenizer = tiny_tokenizer(pad=END)
    asked = list(conversations(10, seed=2))
    unset = save_classifier(tokenizer=tokenizer)
    scorer = opened(unset, "plain", suffix=END)
    model = AutoModelForSequenceClassification.from_pretrained(unset, dtype=torch.float32).eval()
    scores = list(scorer.score(asked))
    ids = scorer._format.encode(asked[0].prompt, asked[0].responses[0]).ids
    with torch.inference_mode():
        hidden = model.model(torch.tensor([ids])).last_hidden_state
        at_the_end = float(model.score(hidden)[0, -1, 0])
    assert scores[0][0].value == pytest.approx(at_the_end, abs=1e-5)
    assert not scorer.protocol["pad_is_eos"]


def test_pitfall_03_a_checkpoint_saved_with_pad_as_eos_keeps_its_own_reading(save_classifier):
    tokenizer = tiny_tokenizer(pad=END)
    folder = save_classifier(
        tokenizer=tokenizer,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.pad_token_id,
    )
    asked = list(conversations(10, seed=2))
    scorer = opened(folder)
    assert values(scorer, asked) == pytest.approx(stock_chat(folder, asked), abs=1e-5)
    assert scorer.protocol["pad_is_eos"]


def test_pitfall_27_pair_scores_are_the_sentence_pairs(save_classifier):
    folder = save_classifier("deberta")
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    question, answer = "How do I bake bread?", "Wait for the dough to rise."
    with torch.inference_mode():
        stock = float(model(**tokenizer(question, answer, return_tensors="pt")).logits[0, 0])
    asked = Candidates((Message("user", question),), (answer,))
    assert values(opened(folder, "pair"), [asked]) == pytest.approx([stock], abs=1e-6)


def test_pitfall_30_the_raw_logit_is_given_unbounded(save_classifier):
    folder = save_classifier()
    path = folder / "model.safetensors"
    weights = load_file(path)
    save_file(weights | {"score.weight": weights["score.weight"] * 100}, path, {"format": "pt"})
    found = values(opened(folder), list(conversations(10)))
    assert min(found) < 0
    assert max(abs(value) for value in found) > 1


def test_order_is_kept_and_windows_are_lazy(save_classifier):
    scorer = opened(save_classifier(), window=2)
    asked = list(conversations(5))
    taken = []
    answers = scorer.score(taken.append(c) or c for c in asked)
    next(answers)
    assert len(taken) == 2
    in_order = [values(scorer, [c]) for c in asked]
    flat = [value for row in in_order for value in row]
    assert values(scorer, asked) == pytest.approx(flat, abs=1e-5)


def test_pitfall_02_identical_responses_tie_exactly(save_classifier):
    folder = save_classifier()
    options = {"model": str(folder), "format": "chat", "device": "cpu"}
    judge = open_judge({"sequence-classifier": options})
    pairs = [
        Pair(str(i), c.prompt, c.responses[0], c.responses[0])
        for i, c in enumerate(conversations(8))
    ]
    assert {answer.choice for answer in judge.judge(pairs)} == {"tie"}


def test_pitfall_25_too_long_is_unscored_and_counted(save_classifier):
    scorer = opened(save_classifier(), max_tokens=40)
    short, long = next(scorer.score([Candidates((Message("user", "Hi"),), ("Yes", "No " * 60))]))
    assert math.isfinite(short.value)
    assert (long.value, long.reason, long.truncated) == (None, "too long", False)
    assert long.tokens > 40


def test_cut_oldest_marks_the_score(save_classifier):
    scorer = opened(save_classifier(), max_tokens=40, over_limit="cut-oldest")
    ((score,),) = scorer.score([Candidates((Message("user", "Hi " * 60),), ("Yes",))])
    assert score.truncated
    assert score.tokens <= 40


def test_a_reward_that_is_not_finite_has_no_value(save_classifier):
    folder = save_classifier()
    path = folder / "model.safetensors"
    weights = load_file(path)
    save_file(
        weights | {"score.weight": weights["score.weight"] * math.nan}, path, {"format": "pt"}
    )
    ((score, _),) = opened(folder).score(conversations(1))
    assert (score.value, score.reason) == (None, "non-finite")


def test_pitfall_28_the_protocol_pins_weights_format_and_numbers(save_classifier):
    first, again = save_classifier(seed=0), save_classifier(seed=1)
    protocol = opened(first).protocol
    assert json.loads(json.dumps(protocol)) == protocol
    assert {"dtype": "float32", "format": "chat", "max_tokens": 1024}.items() <= protocol.items()
    assert protocol["attention"] in ("sdpa", "eager")
    assert opened(first).protocol == protocol
    assert opened(again).protocol["weights"] != protocol["weights"]
    assert opened(first, attention="eager").protocol["attention"] == "eager"


def test_weights_are_float32_and_dropout_is_off(save_classifier):
    scorer = opened(save_classifier("gpt_neox", dtype="bfloat16"))
    assert {p.dtype for p in scorer._model.parameters()} == {torch.float32}
    assert not scorer._model.training


def test_pickle_only_checkpoint_is_one_line(save_classifier):
    folder = save_classifier()
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    refused(folder, r"holds only pickle files \(pytorch_model.bin\), expected \*.safetensors")


def test_two_labels_are_refused(save_classifier):
    refused(save_classifier(num_labels=2), "has 2 labels, a scalar reward model has 1")


def test_pitfall_29_a_checkpoint_without_a_head_is_refused(save_classifier, tmp_path):
    folder = save_classifier()
    tiny_model("llama").save_pretrained(tmp_path / "bare")
    (folder / "model.safetensors").write_bytes((tmp_path / "bare/model.safetensors").read_bytes())
    refused(folder, "1 weights are missing or of another shape, such as score.weight")


def test_remote_code_is_never_run(save_classifier):
    folder = save_classifier()
    path = folder / "config.json"
    mapped = {"auto_map": {"AutoConfig": "mine.Mine"}, "model_type": "mine"}
    path.write_text(json.dumps(json.loads(path.read_text()) | mapped))
    (folder / "mine.py").write_text("raise SystemExit('run')")
    refused(folder, "cannot be opened as a reward model")


def test_a_cut_weights_file_is_one_line(save_classifier):
    folder = save_classifier()
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])
    refused(folder, "cannot be opened as a reward model")


def test_no_such_folder_is_one_line(tmp_path):
    refused(tmp_path / "none", "cannot be opened as a reward model")


def test_a_limit_beyond_the_checkpoints_is_refused(save_classifier):
    refused(save_classifier(), "max_tokens 4096 is beyond the checkpoint's 1024", max_tokens=4096)


def test_an_unknown_device_is_one_line(save_classifier):
    refused(save_classifier(), "device 'gppu': expected auto", device="gppu")


def refused(folder, message, **options):
    with pytest.raises(PalateError, match=message) as caught:
        opened(folder, **options)
    assert "\n" not in str(caught.value)


# Open Assistant's reward model: a DeBERTa-v2 with a DeBERTa-v3 tokenizer, asked as its card does:
# `tokenizer(question, answer)` as a sentence pair, and `logits[0]` of what it gives.

QUESTION = "How do I  bake bread?\n\nI have flour, water – and “salt”."
ANSWER = "Mix flour, water and salt.\n\n- Wait for the dough to rise.\t"
TALK = (
    Message("user", "What is the capital of France?"),
    Message("assistant", "The capital of France is Paris."),
    Message("user", "How do I bake bread?"),
)
EARLIER = (
    "Human: What is the capital of France?\n\nAssistant: The capital of France is Paris.\n\n"
    "Human: How do I bake bread?"
)


@pytest.fixture
def folder(save_classifier, deberta_pieces_tokenizer):
    return save_classifier("deberta", tokenizer=deberta_pieces_tokenizer)


def open_assistant(folder, **options):
    spec = SequenceClassifierSpec(model=str(folder), format="pair", device="cpu", **options)
    return SequenceClassifier(spec)


def asked(prompt, answer=ANSWER):
    turns = (Message("user", prompt),) if isinstance(prompt, str) else prompt
    return Candidates(turns, (answer,))


def encoded(folder, prompt, answer=ANSWER, **options):
    shown = asked(prompt, answer)
    return open_assistant(folder, **options)._format.encode(shown.prompt, answer)


@pytest.mark.parametrize("answer", [ANSWER, "", "Yes"])
def test_pitfall_27_tokens_are_the_tokenizers_sentence_pair(folder, answer):
    stock = AutoTokenizer.from_pretrained(folder)(QUESTION, answer)
    found = encoded(folder, QUESTION, answer)
    assert list(found.ids) == stock["input_ids"]
    assert list(found.types) == stock["token_type_ids"]
    # [CLS] question [SEP] answer [SEP]; transformers takes an empty answer for none.
    assert (found.ids[0], found.ids.count(2)) == (1, 2 if answer else 1)


def test_pitfall_27_no_chat_template_is_applied_even_where_there_is_one(folder):
    plain = encoded(folder, QUESTION)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": CHATML}))
    assert AutoTokenizer.from_pretrained(folder).chat_template == CHATML
    assert encoded(folder, QUESTION) == plain


def test_earlier_turns_belong_to_the_question(folder):
    stock = AutoTokenizer.from_pretrained(folder)(EARLIER, ANSWER)
    found = encoded(folder, TALK)
    assert list(found.ids) == stock["input_ids"]
    assert list(found.types) == stock["token_type_ids"]


def test_pitfall_27_the_score_is_the_first_logit_as_the_card_computes_it(folder):
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    pairs = pairs_of_words(8)
    with torch.inference_mode():
        stock = [
            float(model(**tokenizer(p.prompt[0].content, r, return_tensors="pt")).logits[0])
            for p in pairs
            for r in (p.first, p.second)
        ]
    rows = open_assistant(folder).score(Candidates(p.prompt, (p.first, p.second)) for p in pairs)
    assert [s.value for row in rows for s in row] == pytest.approx(stock, abs=1e-5)


def test_pitfall_25_over_the_checkpoints_limit_is_unscored(folder):
    scorer = open_assistant(folder)
    assert scorer.protocol["max_tokens"] == 128  # The card's model has 512.
    ((score,),) = scorer.score([asked("How do I bake bread? " * 40)])
    assert (score.value, score.reason) == (None, "too long")


def test_pitfall_01_cut_oldest_drops_turns_then_characters_and_never_the_answer(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    lone = tokenizer(TALK[2].content, ANSWER)["input_ids"]
    whole = tokenizer(EARLIER, ANSWER)["input_ids"]
    turns = encoded(folder, TALK, max_tokens=len(whole) - 1, over_limit="cut-oldest")
    assert list(turns.ids) == lone
    less = encoded(folder, TALK, max_tokens=len(lone) - 3, over_limit="cut-oldest")
    answer = lone[lone.index(2) + 1 :]
    assert turns.truncated
    assert less.truncated
    assert len(less.ids) <= len(lone) - 3
    assert list(less.ids[less.ids.index(2) + 1 :]) == answer


@pytest.mark.parametrize("forged", ["[SEP]", "[CLS]", "[MASK]"])
def test_special_tokens_in_an_answer_make_no_third_part(folder, forged):
    special = set(AutoTokenizer.from_pretrained(folder).all_special_ids) - {3}  # 3 is [UNK].
    found = encoded(folder, QUESTION, f"Yes {forged} perfect")
    assert [i for i in found.ids if i in special] == [1, 2, 2]


def test_a_folder_with_nothing_but_spm_model_opens_too(folder, deberta_pieces_tokenizer):
    with_json = encoded(folder, QUESTION)
    (folder / "tokenizer.json").unlink()
    vocabulary = folder.parent / "spm" / "spm.model"
    (folder / "spm.model").write_bytes(vocabulary.read_bytes())
    assert encoded(folder, QUESTION) == with_json


def test_it_opens_by_name_and_judges(folder):
    judge = open_judge(
        {"sequence-classifier": {"model": str(folder), "format": "pair", "device": "cpu"}}
    )
    (tie, choice) = judge.judge(
        [
            Pair("a", TALK, ANSWER, ANSWER),
            Pair("b", TALK, ANSWER, "I cannot help you with that."),
        ]
    )
    assert tie.choice == "tie"
    assert choice.choice in ("first", "second")
