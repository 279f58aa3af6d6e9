"""Open Assistant's reward model: a DeBERTa-v2 with a DeBERTa-v3 tokenizer, asked as its card does.

`tokenizer(question, answer)` as a sentence pair, and `logits[0]` of what it gives.
"""

import json

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from palate.judges import open_judge
from palate.judges.options import SequenceClassifierSpec
from palate.judges.sequence_classifier import SequenceClassifier
from palate.types import Candidates, Message, Pair
from tiny import CHATML, pairs_of_words

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


def opened(folder, **options):
    spec = SequenceClassifierSpec(model=str(folder), format="pair", device="cpu", **options)
    return SequenceClassifier(spec)


def asked(prompt, answer=ANSWER):
    turns = (Message("user", prompt),) if isinstance(prompt, str) else prompt
    return Candidates(turns, (answer,))


def encoded(folder, prompt, answer=ANSWER, **options):
    shown = asked(prompt, answer)
    return opened(folder, **options)._format.encode(shown.prompt, answer)


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
    rows = opened(folder).score(Candidates(p.prompt, (p.first, p.second)) for p in pairs)
    assert [s.value for row in rows for s in row] == pytest.approx(stock, abs=1e-5)


def test_pitfall_25_over_the_checkpoints_limit_is_unscored(folder):
    scorer = opened(folder)
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
