"""Other people's clients, as they ship them, against Palate's own server.

Those that need environments of their own are made by `make bench-clients`.
"""

import json
import math
import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from statistics import mean

import openai
import pytest

from palate.serve.auth import Tokens, add_token
from server import live, server_of
from speaking import save_speaker

ROOT = Path(__file__).parents[2]
JSON = re.compile(r'[-\d]|{"|\[[-\d]')
PROMPT = "How do I bake bread?"
RESPONSES = [
    "Mix flour, water, salt and yeast, then wait for the dough to rise.",
    "I cannot help you with that.",
    "The sea is wide, the sea is deep.",
]
ROWS = [(PROMPT, response) for response in RESPONSES]


def written(tokenizer, prompt, response):
    """The conversation as a trainer's template writes it."""
    turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
    return tokenizer.apply_chat_template(turns, tokenize=False)


@pytest.fixture(scope="session")
def tokenizer(folder):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def ranked(rewards):
    return sorted(range(len(rewards)), key=lambda i: -rewards[i])


def sigmoid(rewards):
    return [1 / (1 + math.exp(-reward)) for reward in rewards]


def test_openai_reads_rewards_as_embeddings_of_one_number(url, offline, tokenizer):
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["helpful"]
        texts = [written(tokenizer, *row) for row in ROWS]
        expected = [pytest.approx(reward, abs=1e-5) for reward in offline(ROWS)]
        for form in ({}, {"encoding_format": "float"}):  # By itself it asks for base64.
            found = client.embeddings.create(model="helpful", input=texts, **form)
            assert [row.embedding for row in found.data] == [[reward] for reward in expected]
        assert found.usage.prompt_tokens > 20
        with pytest.raises(openai.NotFoundError, match="no model 'gpt-4'; known: helpful"):
            client.embeddings.create(model="gpt-4", input=texts)


def test_openai_s_key_is_the_server_s_token(folder, tmp_path):
    token = add_token(tmp_path / "tokens", "ranker")
    server = replace(server_of({"helpful": str(folder)}), tokens=Tokens(tmp_path / "tokens"))
    with live(server) as running:
        options = {"base_url": f"{running.url}/v1", "max_retries": 0}
        with openai.OpenAI(**options, api_key=token) as client:
            assert [model.id for model in client.models.list()] == ["helpful"]
        with (
            openai.OpenAI(**options, api_key="sk-other") as client,
            pytest.raises(openai.AuthenticationError, match="expected a bearer token"),
        ):
            client.models.list()


@pytest.mark.slow
def test_cohere_reranks(url, offline):
    cohere = pytest.importorskip("cohere", reason="pip install cohere")
    client = cohere.ClientV2(api_key="none", base_url=url)
    found = client.rerank(model="helpful", query=PROMPT, documents=RESPONSES, top_n=2)
    expected = offline(ROWS)
    assert [row.index for row in found.results] == ranked(expected)[:2]
    scores = [row.relevance_score for row in found.results]
    assert scores == pytest.approx(sigmoid(sorted(expected)[:0:-1]), abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("provider", ["hosted_vllm", "cohere", "huggingface", "jina_ai"])
@pytest.mark.filterwarnings("ignore")  # Its own, when it is imported.
def test_litellm_reranks(provider, url, offline, monkeypatch):
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # Else it asks GitHub first.
    litellm = pytest.importorskip("litellm", reason="pip install litellm")
    found = litellm.rerank(
        model=f"{provider}/helpful",
        query=PROMPT,
        documents=RESPONSES,
        top_n=3,
        api_base=url,
        api_key="none",
    )
    rewards = offline(ROWS)
    assert [row["index"] for row in found.results] == ranked(rewards)
    scores = {row["index"]: row["relevance_score"] for row in found.results}
    assert [scores[i] for i in range(3)] == pytest.approx(sigmoid(rewards), abs=1e-5)


def peer(name):
    python = ROOT / f"benchmarks/.venv-{name}/bin/python"
    if not python.exists():
        pytest.skip(f"no environment benchmarks/.venv-{name}; make bench-clients")
    return str(python)


def run(command, said="", **options):
    """The numbers or rows that a program prints, a line of JSON each."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        command, input=said, capture_output=True, text=True, env=environment, **options
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines() if JSON.match(line)]


def shipped(stack, url, folder):
    """Rewards of the rows as a stack's own code asks for them and reads them."""
    said = "".join(json.dumps({"prompt": p, "response": r}) + "\n" for p, r in ROWS)
    script = str(ROOT / "benchmarks/clients/shipped.py")
    return run([peer("rlhf"), script, stack, url, str(folder)], said)


@pytest.mark.slow
@pytest.mark.parametrize(
    "stack",
    ["openrlhf", "verl-vllm", "verl-sglang", "verl-custom", "llamafactory", "reward-hub"],
)
def test_a_trainer_s_own_request_code_reads_the_raw_reward(stack, folder, offline):
    """It sends its own template's text, and verl the checkpoint's folder as the model's name."""
    with live(server_of({str(folder): str(folder)})) as running:
        found = shipped(stack, running.url, folder)
    assert found == pytest.approx(offline(ROWS), abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("stack", ["openrlhf", "verl-vllm"])
def test_a_trainer_that_sets_no_header_has_the_token_in_its_address(
    stack, folder, tmp_path, offline
):
    token = add_token(tmp_path / "tokens", "trainer")
    server = server_of({str(folder): str(folder)})
    with live(replace(server, tokens=Tokens(tmp_path / "tokens"))) as running:
        address = running.url.replace("//", f"//trainer:{token}@")
        assert shipped(stack, address, folder) == pytest.approx(offline(ROWS), abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["served", "awaited", "local"])
def test_a_policy_that_trl_trains_by_the_reward_gets_more_of_it(how, folder, tmp_path):
    """Here from 0.65 in the first five of its 40 steps to 1.13 in the last ten, however asked."""
    python = peer("trl")
    policy = save_speaker(tmp_path / "policy", "llama")
    command = [python, str(ROOT / "examples/trl_grpo.py"), "--policy", str(policy)]
    command += ["--out", str(tmp_path / "out"), "--max-tokens", "12", "--learning-rate", "1e-2"]
    with live(server_of({"helpful": str(folder)})) as running:
        command += ["--reward", str(folder) if how == "local" else running.url]
        steps = run([*command, *(["--awaited"] if how == "awaited" else [])])
    rewards = [step["reward"] for step in steps]
    assert len(rewards) == 40
    assert mean(rewards[-10:]) > max(rewards[:5])


ITEMS = [
    {"prompt": PROMPT, "responses": RESPONSES, "best": 1},
    {"prompt": "What is the capital of France?", "responses": RESPONSES[::-1], "best": 0},
    {"prompt": "Thank you!", "responses": ["Yes.", "Yes.", "No."], "best": 1},  # Two are equal.
]


def items_file(tmp_path):
    path = tmp_path / "items.jsonl"
    path.write_text("".join(json.dumps(item) + "\n" for item in ITEMS))
    return path


def shares(offline):
    """The right response's share of the highest reward, and whether it is the first of these."""
    for item in ITEMS:
        rewards = offline([(item["prompt"], response) for response in item["responses"]])
        top = [n for n, reward in enumerate(rewards) if reward == max(rewards)]
        yield (item["best"] in top) / len(top), item["best"] == top[0]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["served", "local"])
def test_lm_eval_takes_the_response_with_the_highest_reward(how, folder, url, offline, tmp_path):
    command = [peer("harnesses"), str(ROOT / "examples/lm_eval_reward.py")]
    command += ["--items", str(items_file(tmp_path))]
    command += ["--reward", str(folder) if how == "local" else url]
    (found,) = run(command, cwd=tmp_path)
    assert found["best_of_k"]["acc,none"] == mean(first for _, first in shares(offline))


INSPECT = """
import json
import sys

from inspect_ai import eval as run

sys.path.insert(0, sys.argv[1])
import inspect_reward as example

where, items, logs = sys.argv[2:]
options = {"display": "none", "log_dir": logs, "max_samples": 1}
(log,) = run(example.best_of_k(where, items), model="none", **options)
assert log.status == "success", log.error
metrics = {name: one.value for name, one in log.results.scores[0].metrics.items()}
print(json.dumps({"values": [s.scores["best"].value for s in log.samples], **metrics}))

outputs = json.loads(sys.stdin.read())
from inspect_ai.model import ModelOutput, ModelUsage, get_model
outputs = [ModelOutput.from_content("mockllm/model", output) for output in outputs]
for output in outputs:  # Else it counts tokens by a file that it fetches.
    output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
model = get_model("mockllm/model", custom_outputs=outputs)
(log,) = run(example.answers(where, items), model=model, **options)
assert log.status == "success", log.error
print(json.dumps({"values": [s.scores["reward"].value for s in log.samples]}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["served", "local"])
def test_inspect_scores_the_best_of_k_and_what_a_model_writes(how, folder, url, offline, tmp_path):
    """What the model writes is given by Inspect's own `mockllm`; the scorers are the example's."""
    where = str(folder) if how == "local" else url
    command = [peer("harnesses"), "-c", INSPECT, str(ROOT / "examples"), where]
    command += [str(items_file(tmp_path)), str(tmp_path / "logs")]
    best, written = run(command, json.dumps(RESPONSES), cwd=tmp_path)
    expected = [share for share, _ in shares(offline)]
    assert best["values"] == pytest.approx(expected)
    assert best["accuracy"] == pytest.approx(mean(expected))
    rows = [(item["prompt"], response) for item, response in zip(ITEMS, RESPONSES, strict=True)]
    assert written["values"] == pytest.approx(offline(rows), abs=1e-5)


MLFLOW = """
import json, sys
import mlflow
from transformers import pipeline

folder, store, texts = sys.argv[1], sys.argv[2], json.load(sys.stdin)
mlflow.set_tracking_uri(f"sqlite:///{store}/mlflow.db")
reward = pipeline("text-classification", model=folder)
with mlflow.start_run():
    logged = mlflow.transformers.log_model(
        transformers_model=reward,
        name="reward",
        pip_requirements=["torch", "transformers"],
        model_config={"truncation": True},
    )
found = mlflow.pyfunc.load_model(logged.model_uri).predict(texts)
print(json.dumps(found["score"].tolist()))
"""


@pytest.mark.slow
def test_mlflow_logs_and_loads_an_export_unchanged(folder, tokenizer, tmp_path, offline):
    """Also a text that is too long: its oldest end is cut, as the tokenizer says."""
    long = written(tokenizer, "word " * 3_000, RESPONSES[0])
    texts = [*(written(tokenizer, *row) for row in ROWS), long]
    command = [peer("mlflow"), "-c", MLFLOW, str(folder), str(tmp_path)]
    (found,) = run(command, json.dumps(texts), cwd=tmp_path)
    assert found[:-1] == pytest.approx(offline(ROWS), abs=1e-5)
    ids = tokenizer(long)["input_ids"][-tokenizer.model_max_length :]
    assert found[-1] == pytest.approx(stock(folder, ids), abs=1e-5)


def stock(folder, ids):
    """What transformers' own classifier gives token ids."""
    import torch
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        return float(model(torch.tensor([ids])).logits[0, 0])
