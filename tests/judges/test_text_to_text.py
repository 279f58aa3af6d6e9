import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from made import pool
from palate.evaluate.benchmark import Benchmark, order_for
from palate.evaluate.run import evaluate
from palate.judges import open_judge
from palate.judges.options import TextToTextSpec
from palate.judges.prompting import PROMPT
from palate.judges.text_to_text import TextToText
from palate.records import read_verdicts
from palate.types import Candidates, Message, Pair, PalateError
from rounding import rounding
from tiny import pairs_of_words

# float32, longest sum 180 keys; 2 layers of 7 products before 2 of 11, and the head's; logits of
# up to 10, of which a probability moves by a quarter at most.
NOISE = rounding(torch.float32, terms=180, products=2 * 7 + 2 * 11 + 1, scale=10 / 4)


def opened(folder, **options):
    return TextToText(TextToTextSpec(model=str(folder), device="cpu", **options))


def scorer(folder, **options):
    return opened(folder, reading="absolute", **options)


def asked(pair):
    return PROMPT.format(context=pair.prompt[0].content, first=pair.first, second=pair.second)


def generated(folder, questions):
    """What the card's own code gives: one generated token, and the scores of its step."""
    model = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for question in questions:
        out = model.generate(
            tokenizer([question], return_tensors="pt").input_ids,
            max_new_tokens=1,
            return_dict_in_generate=True,
            output_scores=True,
        )
        (text,) = tokenizer.batch_decode(out.sequences, skip_special_tokens=True)
        yield text, out.scores[0][0].double()


def test_the_letters_are_t5s_own_ids(save_t5):
    assert opened(save_t5()).protocol["letters"] == {"A": 71, "B": 272}


def test_flan_t5s_own_output_head_is_read_not_its_embedding(save_t5):
    folder = save_t5()
    saved = load_file(folder / "model.safetensors")
    model = opened(folder)._model
    assert torch.equal(model.lm_head.weight, saved["lm_head.weight"])
    assert torch.equal(model.encoder.embed_tokens.weight, saved["shared.weight"])
    assert not torch.equal(saved["lm_head.weight"], saved["shared.weight"])


def test_the_answer_is_what_greedy_generation_says(save_t5):
    folder, pairs = save_t5(), pairs_of_words(16)
    answers = list(opened(folder).judge(pairs))
    stock = list(generated(folder, map(asked, pairs)))
    assert [a.answer for a in answers] == [text for text, _ in stock]
    assert {a.answer for a in answers} == {"A", "B"}  # Else this test says little.
    assert [a.choice for a in answers] == [{"A": "first", "B": "second"}[t] for t, _ in stock]
    of_two = [float(scores[[71, 272]].softmax(-1)[0]) for _, scores in stock]
    assert [a.first_score for a in answers] == pytest.approx(of_two, abs=NOISE)
    assert [a.second_score for a in answers] == pytest.approx([1 - p for p in of_two], abs=NOISE)


def test_pitfall_25_another_token_is_unparsed_and_keeps_its_probabilities(save_t5):
    folder, pairs = save_t5(sure=False), pairs_of_words(8)
    answers = list(opened(folder).judge(pairs))
    stock = list(generated(folder, map(asked, pairs)))
    assert not {text for text, _ in stock} & {"A", "B"}
    assert {(a.choice, a.reason) for a in answers} == {(None, "unparsed")}
    assert all(0 < a.first_score < 1 for a in answers)
    assert all(a.first_score + a.second_score == pytest.approx(1) for a in answers)


def test_it_sees_both_sides_and_the_other_order_is_another_question(save_t5):
    judge = opened(save_t5())
    assert judge.sees_both
    (pair,) = pairs_of_words(1)
    turned = Pair(pair.id, pair.prompt, pair.second, pair.first)
    (first,), (second,) = judge.judge([pair]), judge.judge([turned])
    assert first.first_score != second.second_score


def test_pitfall_26_evaluation_shows_it_both_orders_and_keeps_its_words(save_t5, tmp_path):
    benchmark = Benchmark("made", pool(tmp_path / "pool.parquet", 6, "made", prompts=6))
    judge = opened(save_t5())
    order = order_for(judge, "auto")
    path = evaluate(judge, benchmark, tmp_path / "verdicts", order=order)
    verdicts = list(read_verdicts(path))
    assert len(verdicts) == 12
    assert sum(verdict.chosen_first for verdict in verdicts) == 6
    assert {verdict.answer for verdict in verdicts} <= {"A", "B"}


def test_pitfall_24_batches_and_windows_change_nothing_but_the_last_bits(save_t5):
    folder, pairs = save_t5(), pairs_of_words(24)
    alone = list(opened(folder, batch_tokens=1).judge(pairs))
    assert [a.pair_id for a in alone] == [pair.id for pair in pairs]
    for options in ({"batch_tokens": 10**6}, {"batch_tokens": 400, "window": 5}):
        answers = list(opened(folder, **options).judge(pairs))
        assert [a.pair_id for a in answers] == [pair.id for pair in pairs]
        assert [a.choice for a in answers] == [a.choice for a in alone]
        assert [a.first_score for a in answers] == pytest.approx(
            [a.first_score for a in alone], abs=NOISE
        )


def test_absolute_is_the_cards_probability_of_a_beside_a_full_stop(save_t5):
    folder, pairs = save_t5(), pairs_of_words(6)
    candidates = [Candidates(pair.prompt, (pair.first, pair.second)) for pair in pairs]
    scores = [score.value for row in scorer(folder).score(candidates) for score in row]
    questions = [
        PROMPT.format(context=shown.prompt[0].content, first=response, second=".")
        for shown in candidates
        for response in shown.responses
    ]
    stock = [float(s.softmax(-1)[71]) for _, s in generated(folder, questions)]
    assert scores == pytest.approx(stock, abs=NOISE)


def test_reading_chooses_between_judge_and_scorer(save_t5):
    folder, pairs = str(save_t5()), pairs_of_words(4)
    pair = open_judge({"text-to-text": {"model": folder, "device": "cpu"}})
    absolute = open_judge(
        {"text-to-text": {"model": folder, "device": "cpu", "reading": "absolute"}}
    )
    assert pair.protocol["reading"] == "pair"
    assert absolute.protocol["reading"] == "absolute"
    assert not getattr(absolute, "sees_both", False)
    for answer in absolute.judge(pairs):
        better = "first" if answer.first_score > answer.second_score else "second"
        assert answer.choice == better


def test_pitfall_02_identical_responses_tie_exactly_in_absolute_reading(save_t5):
    (shown,) = scorer(save_t5()).score([Candidates((Message("user", "Hi"),), ("Yes", "Yes"))])
    assert shown[0] == shown[1]


def test_pitfall_25_truncated_and_too_long_are_marked(save_t5):
    judge = opened(save_t5(), max_tokens=70)
    context = (Message("user", "How do I bake bread? " * 20),)
    cut, long = judge.judge([Pair("a", context, "Yes", "No"), Pair("b", context, "No " * 99, "N")])
    assert cut.truncated
    assert cut.choice in ("first", "second")
    assert (long.choice, long.reason, long.truncated) == (None, "too long", False)
    ((score,),) = scorer(save_t5(), max_tokens=70).score([Candidates(context, ("No " * 99,))])
    assert (score.value, score.reason) == (None, "too long")
    assert score.tokens > 70


def test_windows_are_lazy(save_t5):
    taken = []
    stream = (taken.append(c) or c for c in [Candidates((Message("user", "a"),), ("b",))] * 5)
    next(scorer(save_t5(), window=2).score(stream))
    assert len(taken) == 2


def test_numbers_that_are_not_finite_are_unscored(save_t5):
    folder = save_t5()
    path = folder / "model.safetensors"
    weights = load_file(path)
    weights["lm_head.weight"] = weights["lm_head.weight"] * math.nan
    save_file(weights, path, {"format": "pt"})
    (answer,) = opened(folder).judge(pairs_of_words(1))
    assert (answer.choice, answer.first_score, answer.reason) == (None, None, "non-finite")


def test_pitfall_28_the_protocol_is_json_and_pins_the_weights(save_t5):
    folder = save_t5()
    protocol = dict(opened(folder).protocol)
    assert json.loads(json.dumps(protocol)) == protocol
    assert {"dtype": "float32", "max_tokens": 512, "device": "cpu"}.items() <= protocol.items()
    assert opened(save_t5(seed=1)).protocol["weights"] != protocol["weights"]
    assert opened(folder, max_tokens=500).protocol != protocol


def refused(folder, message, **options):
    with pytest.raises(PalateError, match=message) as caught:
        opened(folder, **options)
    assert "\n" not in str(caught.value)


def test_a_pickle_only_folder_is_one_line_with_the_cure(save_t5):
    folder = save_t5()
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    refused(folder, "only pickle files .*convert it with save_pretrained where you trust it")


def test_a_pickle_only_hub_id_is_one_line_with_the_cure(save_t5, tmp_path, monkeypatch):
    """A cache as the hub's client lays it out, offline: the real way through transformers."""
    folder = save_t5()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    commit = "0" * 40
    cached = tmp_path / "hub" / "models--someone--steam"
    (cached / "snapshots").mkdir(parents=True)
    folder.rename(cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    no_safetensors = cached / ".no_exist" / commit
    no_safetensors.mkdir(parents=True)
    for name in ("model.safetensors", "model.safetensors.index.json"):
        (no_safetensors / name).touch()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    refused("someone/steam", "no safetensors on the hub.*set `revision` to a safetensors")


def test_a_decoder_is_refused(save_classifier):
    refused(save_classifier("llama"), "is a llama, expected an encoder-decoder")


def test_a_tokenizer_without_the_letters_is_refused(save_t5):
    folder = save_t5()
    path = folder / "spiece.model"
    path.write_bytes(path.read_bytes().replace("▁B".encode(), "▁~".encode()))
    refused(folder, "writes 'B' as .*expected one known token")


def test_no_such_model_is_one_line(tmp_path):
    refused(tmp_path / "none", "cannot be opened as a text-to-text judge")
