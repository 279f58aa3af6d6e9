"""Every shape gives the reward of `palate score`, as its own protocol says it is given."""

import base64
import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification
from typer.testing import CliRunner

from palate.cli import app
from palate.judges.endpoint import RewardEndpoint
from palate.judges.options import RewardEndpointSpec
from palate.judges.reward_model import RewardScorer
from palate.types import Candidates, Message
from server import OTHER, PROMPT, RESPONSE, TURNS, Live, exported, live, near, server_of, sigmoid
from tiny import END, pairs_of_words

RAW = {"use_activation": False}
PAIR = {"text_1": PROMPT, "text_2": RESPONSE}
RANK = {"query": PROMPT, "documents": [RESPONSE]}
TEXT, IDS = "the templated text", [0]  # Stand for those of the model.
# Path, what is posted, and where in the answer the reward is.
Shape = tuple[str, Any, str]
RAW_SHAPES: dict[str, Shape] = {
    "vLLM classify without options": ("/classify", {"input": TEXT}, "data.0.probs.0"),
    "vLLM score without options": ("/score", PAIR, "data.0.score"),
    "palate": ("/v1/reward", {"prompt": PROMPT, "responses": [RESPONSE]}, "data.0.reward"),
    "palate messages": ("/v1/reward", {"items": [{"messages": TURNS}]}, "data.0.reward"),
    "OpenRLHF": ("/get_reward", {"query": TEXT}, "rewards.0"),
    "OpenRLHF scores": (
        "/get_reward", {"query": [TEXT], "prompts": [PROMPT], "labels": [""]}, "scores.0",
    ),
    "vLLM classify": ("/classify", {"model": "tiny", "input": [TEXT], **RAW}, "data.0.probs.0"),
    "vLLM classify ids": ("/classify", {"input": [IDS], **RAW}, "data.0.probs.0"),
    "vLLM classify messages": ("/classify", {"messages": TURNS, **RAW}, "data.0.probs.0"),
    "verl on vLLM": (
        "/classify", {"model": "tiny", "input": TEXT, "activation": False}, "data.-1.probs.-1",
    ),
    "vLLM pooling": ("/pooling", {"input": IDS}, "data.0.data.0"),
    "reward_hub": ("/pooling", {"model": "tiny", "messages": TURNS}, "data.0.data.0"),
    "vLLM score": ("/score", PAIR | RAW, "data.0.score"),
    "vLLM score v1": ("/v1/score", PAIR | RAW, "data.0.score"),
    "vLLM /rerank": ("/rerank", RANK | RAW, "results.0.relevance_score"),
    "vLLM /v1/rerank": ("/v1/rerank", RANK | RAW, "results.0.relevance_score"),
    "vLLM /v2/rerank": ("/v2/rerank", RANK | RAW, "results.0.relevance_score"),
    "SGLang": ("/classify", {"text": TEXT}, "embedding.0"),
    "SGLang ids": ("/classify", {"input_ids": [IDS]}, "0.embedding.0"),
    "verl on SGLang": ("/v1/embeddings", {"model": "tiny", "input": TEXT}, "data.-1.embedding.-1"),
    "TEI predict": ("/predict", {"inputs": TEXT, "raw_scores": True}, "0.score"),
    "TEI predict pair": (
        "/predict", {"inputs": [[PROMPT, RESPONSE]], "raw_scores": True}, "0.0.score",
    ),
    "TEI rerank": (
        "/rerank", {"query": PROMPT, "texts": [RESPONSE], "raw_scores": True}, "0.score",
    ),
    "LLaMA-Factory": ("/v1/score/evaluation", {"model": "model", "messages": [TEXT]}, "scores.0"),
    "slime": ("/slime", {"prompt": "", "response": TEXT, "label": None}, ""),
    "slime messages": (
        "/slime", {"prompt": TURNS[:1], "response": RESPONSE + END, "label": "x"}, "",
    ),
}  # fmt: skip
ACTIVATED_SHAPES: dict[str, Shape] = {
    "vLLM classify, asked for it": (
        "/classify", {"input": TEXT, "use_activation": True}, "data.0.probs.0",
    ),
    "vLLM score, asked for it": ("/score", PAIR | {"use_activation": True}, "data.0.score"),
    "Cohere": (
        "/v2/rerank",
        {"model": "tiny", "query": PROMPT, "documents": [{"text": RESPONSE}]},
        "results.0.relevance_score",
    ),
    "TEI predict": ("/predict", {"inputs": TEXT}, "0.score"),
    "TEI rerank": ("/rerank", {"query": PROMPT, "texts": [RESPONSE]}, "0.score"),
    "vLLM pooling, asked for it": (
        "/pooling", {"input": TEXT, "use_activation": True}, "data.0.data.0",
    ),
}  # fmt: skip


def reward_of(running: Live, shape: Shape, text: str, ids: list[int]) -> float:
    """The number that a shape is answered with, asked about the model's own text or ids."""
    path, body, place = shape
    body = json.loads(
        json.dumps(body).replace(json.dumps(TEXT), json.dumps(text)).replace("[0]", str(ids))
    )
    if path == "/slime" and isinstance(body["prompt"], str):  # It cuts anywhere.
        body = body | {"prompt": text[:30], "response": text[30:]}
    answer = running.ok(path, body)
    for key in filter(None, place.split(".")):
        answer = answer[int(key) if isinstance(answer, list) else key]
    return answer


@pytest.mark.parametrize("shape", RAW_SHAPES)
def test_pitfall_30_the_served_reward_is_the_one_in_python(
    shape: str, running: Live, rewards: tuple[float, float], text: str, ids: list[int]
) -> None:
    found = reward_of(running, RAW_SHAPES[shape], text, ids)
    assert found == near(rewards[0])


@pytest.mark.parametrize("shape", ACTIVATED_SHAPES)
def test_pitfall_30_a_sigmoid_only_where_the_protocol_documents_one(
    shape: str, running: Live, rewards: tuple[float, float], text: str, ids: list[int]
) -> None:
    found = reward_of(running, ACTIVATED_SHAPES[shape], text, ids)
    assert found == near(sigmoid(rewards[0]))


def test_what_is_best_does_not_drown_in_the_sigmoid(tmp_path_factory: pytest.TempPathFactory):
    """Beyond 37 a sigmoid is exactly 1: the first of such documents came out as the best."""
    folder = exported(tmp_path_factory.mktemp("large") / "large")
    weights = load_file(folder / "model.safetensors")
    weights["score.weight"] = weights["score.weight"] * -3000
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    texts = ["No.", "Mix flour.", "The sea is wide.", "I cannot help you.", "Paris.", "Bread?"]
    with live(server_of({"large": str(folder)})) as found:
        rows = found.ok("/v1/reward", {"prompt": PROMPT, "responses": texts})["data"]
        raw = [row["reward"] for row in rows]
        assert sum(value > 40 for value in raw) > 1, "or there is nothing to tell apart"
        best = sorted(range(len(texts)), key=lambda i: -raw[i])
        for shape, key in (({"documents": texts}, "results"), ({"texts": texts}, None)):
            ranked = found.ok("/rerank", {"query": PROMPT, **shape})
            assert [row["index"] for row in (ranked[key] if key else ranked)] == best


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/classify", {"input": "a", "text": "b"}),
        ("/classify", {"messages": TURNS, "input_ids": [1]}),
        ("/rerank", {"query": "a", "documents": ["b"], "texts": ["c"]}),
    ],
)
def test_texts_of_two_shapes_are_not_dropped_in_silence(path: str, body: Any, running: Live):
    answer = running.post(path, body)
    assert answer.status_code == 422
    assert "two shapes" in answer.text


def test_openrlhf_asks_for_nothing_of_one_of_several_servers(running: Live) -> None:
    answer = running.ok("/get_reward", {"query": [], "prompts": [], "labels": []})
    assert answer == {"rewards": [], "scores": [], "extra_logs": {}}


def test_lists_come_back_as_lists_and_in_order(
    running: Live, rewards: tuple[float, float], scorer: RewardScorer
) -> None:
    prompt = (Message("user", PROMPT),)
    texts = [scorer.model.chat.render(prompt, said) for said in (OTHER, RESPONSE, OTHER)]
    expected = near([rewards[1], rewards[0], rewards[1]])
    assert running.ok("/get_reward", {"query": texts})["rewards"] == expected
    rows = running.ok("/classify", {"text": texts})
    assert [row["embedding"][0] for row in rows] == expected
    assert rows[0]["meta_info"]["prompt_tokens"] > 0
    listed = running.ok("/classify", {"input": texts, **RAW})
    assert [row["index"] for row in listed["data"]] == [0, 1, 2]
    assert listed["usage"]["prompt_tokens"] == sum(r["meta_info"]["prompt_tokens"] for r in rows)
    assert {row["label"] for row in listed["data"]} == {"reward"}
    predicted = running.ok("/predict", {"inputs": [[t] for t in texts], "raw_scores": True})
    assert [row[0]["score"] for row in predicted] == expected


def test_rankers_give_the_best_first(running: Live, rewards: tuple[float, float]) -> None:
    best = int(rewards[1] > rewards[0])
    documents = {"query": PROMPT, "documents": [RESPONSE, OTHER], **RAW}
    for path in ("/rerank", "/v1/rerank", "/v2/rerank"):
        found = running.ok(path, documents)["results"]
        assert [row["index"] for row in found] == [best, 1 - best]
        assert found[0]["document"]["text"] == (RESPONSE, OTHER)[best]
    (only,) = running.ok("/v2/rerank", documents | {"top_n": 1, "return_documents": False})[
        "results"
    ]
    assert (only["index"], only.get("document")) == (best, None)
    ranked = running.ok("/rerank", {"query": PROMPT, "texts": [RESPONSE, OTHER]})
    assert [row["index"] for row in ranked] == [best, 1 - best]
    assert ranked[0].get("text") is None
    best = running.ok("/rerank", {"query": PROMPT, "texts": [RESPONSE, OTHER], "top_n": 1})
    assert best == ranked[:1]
    shown = running.ok("/rerank", {"query": PROMPT, "texts": [OTHER], "return_text": True})
    assert shown[0]["text"] == OTHER


def test_scores_take_one_prompt_for_all_or_one_each(
    running: Live, rewards: tuple[float, float]
) -> None:
    both = {"text_2": [RESPONSE, OTHER], **RAW}
    for first in (PROMPT, [PROMPT, PROMPT]):
        found = running.ok("/score", {"text_1": first, **both})["data"]
        assert [row["score"] for row in found] == near(list(rewards))
    assert running.post("/score", {"text_1": [PROMPT] * 3, **both}).status_code == 422


def test_embeddings_in_base64_are_openais_default(
    running: Live, rewards: tuple[float, float], text: str
) -> None:
    body = {"input": text, "model": "tiny", "encoding_format": "base64"}
    packed = running.ok("/v1/embeddings", body)["data"][0]["embedding"]
    assert struct.unpack("<f", base64.b64decode(packed)) == near((rewards[0],))


def test_rewards_come_with_what_is_known_of_them(
    running: Live, rewards: tuple[float, float]
) -> None:
    first, second = rewards
    item = {"prompt": PROMPT, "responses": [RESPONSE, OTHER]}
    answer = running.ok(
        "/v1/reward",
        {
            "model": "again",
            "items": [item | {"reference": OTHER}, {"messages": TURNS, "reference": 0.5}, item],
        },
    )
    rows = answer["data"]
    assert [(row["item"], row["response"]) for row in rows] == [
        (0, 0),
        (0, 1),
        (1, 0),
        (2, 0),
        (2, 1),
    ]
    assert rows[0]["probability"] == near(sigmoid(first - second))
    assert rows[1]["probability"] == pytest.approx(0.5)
    assert rows[2]["probability"] == near(sigmoid(first - 0.5))
    assert rows[3]["probability"] is None, "a reward by itself has no zero"
    assert all(row["tokens"] > 10 and not row["truncated"] for row in rows)
    assert all(row["std"] is None for row in rows), "a single model does not know"
    models = running.http.get("/v1/models").json()["data"]
    assert [model["id"] for model in models] == ["tiny", "again"]
    assert answer["model"] == "again"
    assert answer["fingerprint"] == models[1]["fingerprint"] == models[0]["fingerprint"]


def test_compare_says_which_and_how_probable(running: Live, rewards: tuple[float, float]) -> None:
    first, second = rewards
    pair = {"prompt": PROMPT, "first": RESPONSE, "second": OTHER}
    same = pair | {"second": RESPONSE}
    better, tie = running.ok("/v1/compare", {"pairs": [pair, same]})["data"]
    assert better["choice"] == ("first" if first > second else "second")
    assert better["probability"] == near(sigmoid(first - second))
    assert (tie["choice"], tie["probability"]) == ("tie", 0.5)


def test_a_response_too_long_for_the_model_is_said_and_costs_no_other(running: Live) -> None:
    long = "word " * 2000
    item = {"prompt": PROMPT, "responses": [RESPONSE, long]}
    kept, lost = running.ok("/v1/reward", item)["data"]
    assert kept["reward"] is not None
    assert (lost["reward"], lost["reason"]) == (None, "the response alone exceeds max_tokens")
    (row,) = running.ok("/v1/compare", {"pairs": [{"prompt": "x", "first": "y", "second": long}]})[
        "data"
    ]
    assert (row["choice"], row["probability"]) == (None, None)
    answer = running.post("/score", {"text_1": PROMPT, "text_2": long})
    assert answer.status_code == 413
    assert "the response alone exceeds" in answer.json()["error"]["message"]


def test_pitfall_01_a_long_prompt_is_cut_as_in_python_and_said(
    running: Live, scorer: RewardScorer
) -> None:
    prompt = "How do I bake bread? " * 400
    ((score,),) = scorer.score([Candidates((Message("user", prompt),), (RESPONSE,))])
    answer = running.post("/score", {"text_1": prompt, "text_2": RESPONSE, **RAW})
    assert answer.json()["data"][0]["score"] == near(score.value)
    assert answer.headers["x-palate-truncated"] == "1"
    (row,) = running.ok("/v1/reward", {"prompt": prompt, "responses": [RESPONSE]})["data"]
    assert row["truncated"]


def test_a_text_too_long_is_cut_or_refused_as_its_protocol_says(
    running: Live, scorer: RewardScorer
) -> None:
    chat = scorer.model.chat
    long = chat.tokenizer.apply_chat_template(
        [{"role": "user", "content": "How do I bake? " * 600}, TURNS[1]], tokenize=False
    )
    kept = near(running.ok("/get_reward", {"query": long})["rewards"])
    assert running.ok("/v1/score/evaluation", {"messages": [long]})["scores"] == kept
    cut = running.ok("/classify", {"input": long, "truncate_prompt_tokens": -1, **RAW})
    assert cut["data"][0]["probs"] == kept
    assert cut["usage"]["prompt_tokens"] == chat.max_tokens
    shorter = running.ok("/pooling", {"input": long, "truncate_prompt_tokens": 99})
    assert shorter["usage"]["prompt_tokens"] == 99
    refused = running.post("/classify", {"input": long})
    assert (refused.status_code, refused.json()["error"]["type"]) == (400, "too_long")
    assert running.post("/classify", {"text": long}).status_code == 400
    refused = running.post("/predict", {"inputs": long})
    assert (refused.status_code, refused.json()["error_type"]) == (413, "validation")
    found = running.ok("/predict", {"inputs": long, "truncate": True, "raw_scores": True})
    assert [row["score"] for row in found] == kept


def test_a_model_is_also_known_by_where_it_was_opened(running: Live, tiny_folder: Path) -> None:
    """Of two names for one folder the first is meant."""
    body = {"input": "x", "model": str(tiny_folder)}
    assert running.ok("/pooling", body)["model"] == "tiny"


def test_the_model_is_chosen_by_name_in_the_body_or_the_address(running: Live) -> None:
    body = {"input": "x", "model": "again"}
    assert running.ok("/pooling", body)["model"] == "again"
    assert running.ok("/v1/score/evaluation?model=again", {"messages": ["x"]})["model"] == "again"
    for path, given in (("/pooling", body | {"model": "no\x1b"}), ("/get_reward?model=no", None)):
        answer = running.post(path, given or {"query": "x"})
        assert answer.status_code == 404
        assert "known: tiny, again" in answer.json()["error"]["message"]


def test_tei_says_what_is_served_and_errs_in_its_own_words(running: Live) -> None:
    info = running.http.get("/info").json()
    assert info["model_id"] == "tiny"
    assert info["model_type"]["reranker"]["label2id"] == {"reward": 0}
    for path, body in (("/predict", {"inputs": 3}), ("/rerank", {"texts": [], "query": "x"})):
        error = running.post(path, body)
        assert error.status_code == 422
        assert error.json()["error_type"] == "tokenizer"
        assert isinstance(error.json()["error"], str)


def test_texts_without_the_template_are_counted(running: Live) -> None:
    before = metric(running, 'palate_untemplated_texts_total{model="tiny"}')
    running.ok("/get_reward", {"query": ["no template here"]})
    assert metric(running, 'palate_untemplated_texts_total{model="tiny"}') == before + 1


def metric(running: Live, name: str) -> float:
    lines = running.http.get("/metrics").text.splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(name))


@pytest.mark.parametrize(
    "shape", ["vllm-classify", "vllm-pooling", "sglang-classify", "tei-predict", "openrlhf"]
)
def test_pitfall_30_our_own_endpoint_judge_reads_the_same_rewards(
    shape: str, running: Live, scorer: RewardScorer, tiny_folder: Path
) -> None:
    asked = [Candidates(pair.prompt, (pair.first, pair.second)) for pair in pairs_of_words(6)]
    options = {"url": running.url, "shape": shape, "input": "chat", "tokenizer": str(tiny_folder)}
    served = RewardEndpoint(RewardEndpointSpec.model_validate(options)).score(asked)
    found = [score.value for row in served for score in row]
    here = [score.value for row in scorer.score(asked) for score in row]
    assert found == near(here)


def test_pitfall_30_parity_finds_the_server_the_same(
    running: Live, tiny_folder: Path, native_bf16: bool
) -> None:
    """Ways in bfloat16, run where it is native, are held to its own tolerance, not to 1e-4."""
    asked = f"--n 3 --tolerance 1e-4 --format json --url {running.url}"
    found = CliRunner().invoke(app, ["parity", str(tiny_folder), *asked.split()])
    assert "served: vllm-classify" in found.stdout
    assert found.exit_code == 0, found.output
    ways = {row["way"]: row for row in json.loads(found.stdout)}
    assert ways["Palate: bfloat16"]["tolerance"] == (0.2 if native_bf16 else None), "run or not"
    assert ways["Palate: one prompt at a time"]["tolerance"] == 1e-4


def test_pitfall_44_a_server_in_bfloat16_is_held_to_bfloat16(tiny_folder: Path) -> None:
    with live(server_of({"tiny": str(tiny_folder)}, dtype="bfloat16")) as served:
        words = f"parity {tiny_folder} --n 3 --format json --url {served.url}".split()
        found = CliRunner().invoke(app, words)
        assert found.exit_code == 0, found.output
        row = json.loads(found.stdout)[-1]
        assert row["way"] == f"served: vllm-classify at {served.url}, in bfloat16"
        assert (row["verdict"], row["tolerance"]) == ("same", 0.2)
        assert row["in SD"] > 1e-3, "it would have failed as float32"
        strict = CliRunner().invoke(app, [*words, "--tolerance", "rounded=1e-6"])
        assert strict.exit_code == 1
        assert "not the same scores by served: vllm-classify" in str(strict.exception)


@pytest.mark.parametrize("path", ["/v1/reward", "/pooling", "/classify"])
def test_content_of_a_message_that_is_not_read_is_refused(path: str, running: Live) -> None:
    call = {"role": "assistant", "content": "", "images": ["a.png"]}
    answer = running.post(path, {"messages": [TURNS[0], call, *TURNS]})
    assert answer.status_code == 422
    assert "'images' is content that Palate does not read" in answer.text
    empty = running.post(path, {"messages": [TURNS[0] | {"tool_calls": []}, TURNS[1]]})
    assert empty.status_code == 200


@pytest.mark.parametrize(
    ("prompt", "response"),
    [
        (f"\n\nHuman: {PROMPT}\n\nAssistant:", f" {RESPONSE}"),
        (f"<|im_start|>user\n{PROMPT}<|im_end|>\n<|im_start|>assistant\n", RESPONSE),
    ],
)
def test_a_prompt_in_text_has_the_reward_of_its_messages(
    prompt: str, response: str, running: Live, rewards: tuple[float, float]
) -> None:
    own = running.ok("/v1/reward", {"prompt": prompt, "responses": [response]})
    pair = running.ok(
        "/v1/compare", {"pairs": [{"prompt": prompt, "first": response, "second": ""}]}
    )
    score = running.ok("/score", {"text_1": prompt, "text_2": response, **RAW})
    rank = running.ok("/v1/rerank", {"query": prompt, "documents": [response], **RAW})
    found = [
        own["data"][0]["reward"],
        pair["data"][0]["first"]["reward"],
        score["data"][0]["score"],
        rank["results"][0]["relevance_score"],
    ]
    assert found == pytest.approx([rewards[0]] * 4, rel=1e-5, abs=1e-5)


def test_pitfall_32_token_ids_are_scored_as_they_stand_and_odd_ones_are_counted(
    running: Live, scorer: RewardScorer, tiny_folder: Path
) -> None:
    chat = scorer.model.chat
    encoded = chat.encode((Message("user", PROMPT),), RESPONSE)
    assert encoded is not None
    whole = encoded.ids.tolist()
    model = AutoModelForSequenceClassification.from_pretrained(tiny_folder).eval()
    for sent, odd in ((whole, None), (whole[:-1], "1"), ([*whole, 7], "1")):
        answer = running.post("/classify", {"input_ids": sent})
        with torch.no_grad():
            expected = float(model(torch.tensor([sent])).logits)
        assert answer.json()["embedding"][0] == pytest.approx(expected, abs=1e-4)
        assert answer.headers.get("x-palate-unframed") == odd
    refused = running.post("/classify", {"input_ids": [chat.pad_id, *whole]})
    assert refused.status_code == 422
    assert "begins with padding" in refused.text
    said = running.ok("/v1/reward", {"prompt": PROMPT, "responses": [RESPONSE]})
    assert said["reward_read_at"] == chat.read_at == "the terminal token '<|im_end|>'"
