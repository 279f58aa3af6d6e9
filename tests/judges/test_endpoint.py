import itertools
import json
import math
import socket
import threading

import pytest

from made import pool
from palate.evaluate.benchmark import Benchmark
from palate.evaluate.run import evaluate
from palate.judges import ScorerJudge, open_judge
from palate.judges.endpoint import RewardEndpoint
from palate.judges.options import RewardEndpointSpec, SequenceClassifierSpec
from palate.judges.sequence_classifier import SequenceClassifier
from palate.records import read_verdicts
from palate.types import Candidates, Message, PalateError
from serving import Fault, serving
from tiny import BOS, CHATML, pairs_of_words, tiny_tokenizer

SHAPES = ("vllm-classify", "vllm-pooling", "sglang-classify", "tei-predict", "openrlhf")


def candidates(count, seed=0):
    return [Candidates(p.prompt, (p.first, p.second)) for p in pairs_of_words(count, seed)]


def endpoint(url, shape="openrlhf", kind="plain", **options):
    quick = {"backoff_seconds": 0.0, "batch_size": 4, "timeout_seconds": 20.0}
    return RewardEndpoint(RewardEndpointSpec(url=url, shape=shape, input=kind, **quick | options))


def values(scorer, asked):
    return [score.value for row in scorer.score(asked) for score in row]


def local(folder, asked, kind="plain", **options):
    spec = SequenceClassifierSpec(model=str(folder), format=kind, device="cpu", **options)
    return values(SequenceClassifier(spec), asked)


def refused(scorer, message, asked=None):
    with pytest.raises(PalateError, match=message) as caught:
        list(scorer.score(asked or candidates(2)))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("shape", SHAPES)
def test_pitfall_30_the_served_reward_is_the_local_one_in_every_shape(save_classifier, shape):
    """Template and tokenizer both write a BOS; the server adds the tokenizer's (pitfall 4)."""
    tokenizer = tiny_tokenizer(bos=True, template=BOS + CHATML)
    folder, asked = save_classifier(tokenizer=tokenizer), candidates(9)
    with serving(folder) as served:
        scorer = endpoint(served.url, shape, "chat", tokenizer=str(folder))
        assert values(scorer, asked) == pytest.approx(local(folder, asked, "chat"), abs=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_plain_text_needs_no_tokenizer(save_classifier, shape):
    folder, asked = save_classifier(), candidates(5)
    with serving(folder) as served:
        scorer = endpoint(served.url, shape)
        assert values(scorer, asked) == pytest.approx(local(folder, asked), abs=1e-5)


@pytest.mark.parametrize("shape", ["vllm-classify", "vllm-pooling"])
def test_messages_are_rendered_by_the_server(save_classifier, shape):
    folder, asked = save_classifier(), candidates(3)
    with serving(folder) as served:
        scorer = endpoint(served.url, shape, "messages", model="org/model")
        assert values(scorer, asked) == pytest.approx(local(folder, asked, "chat"), abs=1e-5)
    assert len(served.bodies) == 6
    assert {body["model"] for body in served.bodies} == {"org/model"}
    roles = [turn["role"] for turn in served.bodies[0]["messages"]]
    assert roles == ["user", "assistant"]


@pytest.mark.parametrize("tokenised", [False, True])
def test_pitfall_27_a_pair_is_sent_as_two_texts(save_classifier, tokenised):
    folder, asked = save_classifier("deberta"), candidates(4)
    with serving(folder) as served:
        known = {"tokenizer": str(folder)} if tokenised else {}
        scorer = endpoint(served.url, "tei-predict", "pair", concurrency=1, **known)
        assert values(scorer, asked) == pytest.approx(local(folder, asked, "pair"), abs=1e-5)
    assert served.bodies[0]["inputs"][0] == [asked[0].prompt[0].content, asked[0].responses[0]]


def test_requests_say_what_protocols_expect(save_classifier):
    folder, asked = save_classifier(), candidates(1)
    text = f"\n\nHuman: {asked[0].prompt[0].content}\n\nAssistant: {asked[0].responses[0]}"
    with serving(folder) as served:
        for shape in SHAPES:
            values(endpoint(served.url, shape), asked)
    classify, pooling, sglang, tei, openrlhf = served.bodies
    assert classify == pooling
    assert classify["input"][0] == text
    assert classify["use_activation"] is False
    assert sglang["text"][0] == text
    assert tei["inputs"][0] == [text]
    assert (tei["raw_scores"], tei["truncate"]) == (True, False)
    assert openrlhf["query"][0] == text
    assert openrlhf["prompts"] == [asked[0].prompt[0].content] * 2
    assert len(openrlhf["labels"]) == 2


def test_over_the_limit_is_unscored_or_cut_before_it_is_sent(save_classifier):
    folder = save_classifier()
    asked = [Candidates((Message("user", "Hi " * 60),), ("Yes",))]
    with serving(folder) as served:
        known = {"shape": "vllm-classify", "kind": "chat", "tokenizer": str(folder)}
        ((long,),) = endpoint(served.url, max_tokens=40, **known).score(asked)
        assert (long.value, long.reason) == (None, "too long")
        assert not served.bodies
        cut = endpoint(served.url, max_tokens=40, over_limit="cut-oldest", **known)
        ((score,),) = cut.score(asked)
        assert score.truncated
        options = {"max_tokens": 40, "over_limit": "cut-oldest"}
        assert [score.value] == pytest.approx(local(folder, asked, "chat", **options), abs=1e-5)


def test_texts_in_batches_are_asked_once_and_answered_in_order(save_classifier):
    folder, asked = save_classifier(), candidates(7)
    same = Candidates(asked[0].prompt, (asked[0].responses[0],) * 2)
    with serving(folder) as served:
        scorer = endpoint(served.url, batch_size=6)
        ((first, second),) = scorer.score([same])
        assert first == second
        found = values(scorer, asked)
    assert found == pytest.approx(local(folder, asked), abs=1e-5)
    assert [len(body["query"]) for body in served.bodies][:1] == [1]
    assert sorted(len(body["query"]) for body in served.bodies[1:]) == [2, 6, 6]


def test_requests_go_out_together(save_classifier):
    """The first two requests wait for one another; one alone would be answered 500."""
    meeting = threading.Barrier(2, timeout=10)

    def together(number, _body):
        if number < 2:
            try:
                meeting.wait()
            except threading.BrokenBarrierError:
                return Fault(500)
        return None

    folder, asked = save_classifier(), candidates(4)
    with serving(folder, together) as served:
        assert len(values(endpoint(served.url, concurrency=2, attempts=1), asked)) == 8


def test_reading_ahead_is_bounded_and_scores_come_as_they_are_there(save_classifier):
    taken = []
    with serving(save_classifier()) as served:
        scorer = endpoint(served.url, concurrency=1, batch_size=2)
        answers = scorer.score(taken.append(c) or c for c in candidates(12))
        next(answers)
        assert len(taken) <= 4
        assert len(list(answers)) == 11


@pytest.mark.parametrize(
    "fault",
    [
        Fault(429, headers={"retry-after": "0"}),
        Fault(500),
        Fault(503, b"<html>busy</html>"),
        Fault(522, b""),
        Fault(200, b'{"rewards": [1.0, 2'),
        Fault(200, {"rewards": [1.0, 2.0, 3.0, 4.0]}, cut=True),
        Fault(200, {}, wait_seconds=3.0),
    ],
    ids=["429", "500", "503", "522", "not json", "cut", "late"],
)
def test_a_bad_moment_is_outlasted(save_classifier, fault):
    folder, asked = save_classifier(), candidates(4)
    with serving(folder, lambda number, _: fault if number % 2 == 0 else None) as served:
        scorer = endpoint(served.url, concurrency=1, timeout_seconds=1.5)
        assert values(scorer, asked) == pytest.approx(local(folder, asked), abs=1e-5)
    assert len(served.bodies) >= 4


def test_many_faults_lose_nothing(save_classifier):
    """Every fifth request fails, in turn in five ways."""
    ways = itertools.cycle([Fault(429), Fault(500), Fault(502), Fault(200, b"{"), Fault(cut=True)])
    folder, asked = save_classifier(), candidates(60)
    with serving(folder, lambda n, _: next(ways) if n % 5 == 0 else None) as served:
        scorer = endpoint(served.url, concurrency=4, batch_size=2)
        found = values(scorer, asked)
    assert found == pytest.approx(local(folder, asked), abs=1e-5)
    failed = math.ceil(len(served.bodies) / 5)
    assert len(served.bodies) - failed == 60


def test_retry_after_is_waited_for(save_classifier):
    busy = Fault(429, headers={"retry-after": "0.3"})
    with serving(save_classifier(), lambda n, _: None if n else busy) as served:
        values(endpoint(served.url), candidates(1))
    first, second = served.at_seconds
    assert second - first >= 0.3


def test_retry_after_is_bounded(save_classifier):
    """Without the bound this test would take a day."""
    busy = Fault(429, headers={"retry-after": "86400"})
    with serving(save_classifier(), lambda n, _: None if n else busy) as served:
        assert len(values(endpoint(served.url, longest_wait_seconds=0.01), candidates(1))) == 2


def test_an_endpoint_that_is_down_is_one_line():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        said = refused(endpoint(url, attempts=2), "cannot be reached .*, 2 times; start or relieve")
    assert url in said
    assert "answers so far are kept" in said


def test_an_endpoint_that_stays_bad_is_one_line(save_classifier):
    with serving(save_classifier(), lambda *_: Fault(503, {"error": "loading"})) as served:
        refused(endpoint(served.url, attempts=3), r"answers 503 \(loading\), 3 times")
        assert len(served.bodies) == 3 * 1  # Two candidates are one request.
    with serving(save_classifier(), lambda *_: Fault(wait_seconds=0.4)) as served:
        refused(endpoint(served.url, attempts=1, timeout_seconds=0.1), "gives no answer in time")


def test_answers_before_a_fall_are_kept_and_not_asked_again(save_classifier, tmp_path):
    folder = save_classifier()
    benchmark = Benchmark("made", pool(tmp_path / "pool.parquet", 12, "made", prompts=12))
    options = {"shape": "openrlhf", "input": "plain", "model": "m", "batch_size": 2}
    options |= {"concurrency": 1, "attempts": 1, "backoff_seconds": 0.0}

    def judged(url):
        judge = open_judge({"reward-endpoint": options | {"url": url}})
        return evaluate(judge, benchmark, tmp_path / "verdicts")

    with (
        serving(folder, lambda n, _: Fault(500) if n >= 5 else None) as served,
        pytest.raises(PalateError, match="answers so far are kept"),
    ):
        judged(served.url)
    with serving(folder) as again:  # Another port: the model is named, so its scores hold.
        path = judged(again.url)
    assert len(again.bodies) == 12 - 5
    assert len(list(read_verdicts(path))) == 12


@pytest.mark.parametrize(
    ("rewards", "reason"),
    [
        (b'{"rewards": [1.0, NaN]}', "non-finite"),
        (b'{"rewards": [1.0, Infinity]}', "non-finite"),
        (b'{"rewards": [1.0, 1' + b"0" * 400 + b"]}", "non-finite"),
        (b'{"rewards": [1.0, null]}', "the endpoint gave no score"),
        (b'{"rewards": [1.0, "high"]}', "the endpoint gave no score"),
        (b'{"rewards": [1.0, true]}', "the endpoint gave no score"),
    ],
)
def test_pitfall_25_a_score_that_is_none_is_unscored_with_the_reason(
    save_classifier, rewards, reason
):
    with serving(save_classifier(), lambda *_: Fault(200, rewards)) as served:
        ((first, second),) = endpoint(served.url).score(candidates(1))
    assert first.value == 1.0
    assert (second.value, second.reason) == (None, reason)


def test_pitfall_25_a_list_of_another_length_scores_nobody(save_classifier):
    with serving(save_classifier(), lambda *_: Fault(200, {"rewards": [1.0]})) as served:
        ((first, second),) = endpoint(served.url).score(candidates(1))
    assert (first.value, second.value) == (None, None)
    assert first.reason == "the endpoint gave no score"


def test_a_missing_row_of_vllms_leaves_only_its_text_unscored(save_classifier):
    answer = {"data": [{"index": 1, "probs": [2.5]}]}
    with serving(save_classifier(), lambda *_: Fault(200, answer)) as served:
        ((first, second),) = endpoint(served.url, "vllm-classify").score(candidates(1))
    assert (first.value, second.value) == (None, 2.5)


def test_a_refused_text_is_unscored_and_its_neighbours_are_not(save_classifier):
    folder, asked = save_classifier(), candidates(6)
    bad = asked[3].responses[1]

    def picky(_number, body):
        said = any(text.endswith("Assistant: " + bad) for text in body["query"])
        return Fault(413, {"error": "Input of 1300 tokens, at most 512"}) if said else None

    with serving(folder, picky) as served:
        scores = [s for row in endpoint(served.url, batch_size=12).score(asked) for s in row]
    expected = local(folder, asked)
    assert scores[7].value is None
    assert scores[7].reason == ("refused by the endpoint (413): Input of N tokens, at most N")
    rest = [s.value for i, s in enumerate(scores) if i != 7]
    assert rest == pytest.approx(expected[:7] + expected[8:], abs=1e-5)


def test_an_endpoint_that_refuses_everything_stops_the_run(save_classifier):
    with serving(save_classifier(), lambda *_: Fault(422, {"detail": "no query"})) as served:
        refused(endpoint(served.url), "no query; it took none of .* check `shape`", candidates(20))
        assert len(served.bodies) < 40


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault(200, {"data": []}), "another shape than openrlhf .*check `shape`"),
        (Fault(200, {"rewards": [[0.1, 0.9], [0.2, 0.8]]}), "2 values for one text, expected 1"),
        (Fault(200, [1, 2]), "another shape than openrlhf"),
        (Fault(404, {"detail": "Not Found"}), r"answers 404 \(Not Found\); check `url`"),
        (Fault(302, b"", {"location": "/login"}), "answers 302 .*expected 200"),
    ],
)
def test_a_wrong_setting_is_one_line(save_classifier, fault, message):
    with serving(save_classifier(), lambda *_: fault) as served:
        refused(endpoint(served.url), message)


def test_the_key_is_sent_and_shown_nowhere(save_classifier, monkeypatch, caplog):
    """Even where the server repeats it in its error."""
    caplog.set_level("DEBUG")
    key = "sk-0123456789"
    monkeypatch.setenv("PALATE_TEST_KEY", key)

    def wrong(number, _body):
        return Fault(401, {"error": {"message": f"{key} is not known"}}) if number else None

    with serving(save_classifier(), wrong) as served:
        scorer = endpoint(served.url, key_env="PALATE_TEST_KEY")
        values(scorer, candidates(1))
        said = refused(scorer, r"answers 401 \(\*\*\* is not known\); name the environment var")
    assert served.keys == [f"Bearer {key}"] * 2
    shown = said + json.dumps(dict(scorer.protocol)) + caplog.text + repr(scorer.__dict__)
    assert key not in shown


def test_a_missing_key_is_one_line_before_anything_is_asked(monkeypatch):
    monkeypatch.delenv("PALATE_TEST_KEY", raising=False)
    with pytest.raises(PalateError, match="variable PALATE_TEST_KEY is not set; export the key"):
        endpoint("http://127.0.0.1:1", key_env="PALATE_TEST_KEY")


@pytest.mark.parametrize("key", ["sk-one\nsk-two", "sk-one two", "sk-caf\u00e9"])
def test_a_key_no_header_can_hold_is_refused_and_not_quoted(monkeypatch, key):
    monkeypatch.setenv("PALATE_TEST_KEY", key)
    with pytest.raises(PalateError, match="PALATE_TEST_KEY holds a space") as caught:
        endpoint("http://127.0.0.1:1", key_env="PALATE_TEST_KEY")
    assert "sk-" not in str(caught.value)


def test_half_a_surrogate_pair_can_be_asked(save_classifier):
    with serving(save_classifier(), lambda *_: Fault(200, {"rewards": [1.5]})) as served:
        ((score,),) = endpoint(served.url).score([Candidates((), ("\ud83d oh",))])
    assert score.value == 1.5
    assert "\ud83d oh" in served.bodies[0]["query"][0]


def test_a_tokenizer_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(PalateError, match="cannot be opened as a tokenizer") as caught:
        endpoint("http://127.0.0.1:1", kind="chat", tokenizer=str(tmp_path / "none"))
    assert "\n" not in str(caught.value)


def test_text_that_would_be_read_otherwise_is_refused(save_classifier):
    """The tokenizer adds a BOS that the template does not want; text cannot say so, ids can."""
    folder = save_classifier(tokenizer=tiny_tokenizer(bos=True))
    with serving(folder) as served:
        known = {"kind": "chat", "tokenizer": str(folder)}
        refused(endpoint(served.url, "tei-predict", **known), "would read other tokens")
        asked = candidates(2)
        found = values(endpoint(served.url, "sglang-classify", **known), asked)
    assert found == pytest.approx(local(folder, asked, "chat"), abs=1e-5)


def test_pitfall_28_the_protocol_names_model_or_address_and_how_it_is_asked(save_classifier):
    folder = str(save_classifier())
    plain = endpoint("http://127.0.0.1:1").protocol
    assert json.loads(json.dumps(dict(plain))) == plain
    assert plain["url"] == "http://127.0.0.1:1/get_reward"
    assert "url" not in endpoint("http://127.0.0.1:1", model="org/m").protocol
    chat = {"shape": "vllm-classify", "kind": "chat", "tokenizer": folder}
    made = [
        plain,
        endpoint("http://127.0.0.1:1", model="org/m").protocol,
        endpoint("http://127.0.0.1:1", model="org/m", revision="2").protocol,
        endpoint("http://127.0.0.1:1", shape="sglang-classify").protocol,
        endpoint("http://127.0.0.1:1", suffix="</s>").protocol,
        endpoint("http://127.0.0.1:1", **chat).protocol,
        endpoint("http://127.0.0.1:1", **chat, max_tokens=99).protocol,
    ]
    assert len({json.dumps(dict(p), sort_keys=True) for p in made}) == len(made)
    faster = endpoint("http://127.0.0.1:1", batch_size=9, concurrency=2, attempts=3)
    assert faster.protocol == plain


def test_it_is_a_scorer_and_so_a_judge(save_classifier):
    with serving(save_classifier()) as served:
        judge = ScorerJudge(endpoint(served.url))
        answers = list(judge.judge(pairs_of_words(3)))
    assert [a.pair_id for a in answers] == ["0", "1", "2"]
    assert {a.choice for a in answers} <= {"first", "second"}
