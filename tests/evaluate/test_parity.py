"""Every way to score with one model gives the same numbers, and a broken way is caught."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification
from typer.testing import CliRunner

import published
from palate.cli import app
from palate.data.benchmarks import import_benchmark
from palate.data.simulation import CampaignOptions, simulate
from palate.data.sources.base import Request
from palate.evaluate.parity import (
    EMULATED,
    TOLERANCE,
    Backend,
    classifier_backends,
    parity,
    reward_model_backends,
    template_backend,
)
from palate.judges import sequence_classifier_spec
from palate.judges.reward_model import RewardScorer
from palate.model.export import Card, export
from palate.model.loading import start_model
from palate.model.options import BaseOptions
from palate.model.tokenizer import ChatTokens
from palate.types import Candidates, Message, PalateError
from serving import serving
from tiny import EXPORTED, save_tiny, tiny_config, tiny_tokenizer


def exported(folder: Path, family: str) -> Path:
    base = save_tiny(folder.with_name(f"{family}-base"), family)
    model, _ = start_model(BaseOptions(model=str(base)))
    torch.nn.init.normal_(model.head.weight, generator=torch.Generator().manual_seed(1))
    return export(model.eval(), folder, card=Card(family, "tiny", "0"))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.mktemp("parity") / "llama", "llama")


@pytest.fixture(scope="module")
def asked() -> list[Candidates]:
    campaign = simulate(CampaignOptions(weeks=1, comparisons_per_week=12), seed=0)
    return [Candidates(c.prompt, (c.chosen, c.rejected)) for c in campaign]


QUICK = ("llama", "gpt_neox")


@pytest.mark.parametrize(
    "family",
    [*QUICK, *(pytest.param(f, marks=pytest.mark.slow) for f in EXPORTED if f not in QUICK)],
)
def test_every_way_gives_the_same_scores(
    family: str, tmp_path: Path, asked: list[Candidates]
) -> None:
    folder = exported(tmp_path / family, family)
    spec = sequence_classifier_spec({"model": str(folder), "format": "chat"})
    found = parity(
        [*reward_model_backends(RewardScorer(folder)), *classifier_backends(spec)], asked
    )
    assert len(found) == 9
    for agreement in found:
        assert agreement.holds, agreement
        assert agreement.responses == 24
        if agreement.kind == "float32":
            assert agreement.relative < 1e-4
            assert not agreement.flips
        else:
            assert agreement.largest > 0, "bfloat16 was really computed"


def broken(ways: list[Backend], change: str) -> list[Backend]:
    """The reference, and a way that is like it but for one fault."""
    right = ways[0]

    def score(candidates: list[Candidates]) -> np.ndarray:
        values = right.score(candidates)
        if change == "shifted":
            return values + 0.05
        if change == "lost":
            values[3] = np.nan
            return values
        return values[::-1].copy()

    return [right, Backend(change, "float32", score)]


@pytest.mark.parametrize("change", ["shifted", "lost", "reversed"])
def test_pitfall_30_a_broken_way_is_caught(
    change: str, llama: Path, asked: list[Candidates]
) -> None:
    (agreement,) = parity(broken(reward_model_backends(RewardScorer(llama)), change), asked)
    assert not agreement.holds
    assert agreement.unequal == (change == "lost")
    assert bool(agreement.flips) == (change == "reversed"), "a shift turns no verdict"
    if change == "shifted":
        assert agreement.largest == pytest.approx(0.05)


def test_pitfall_3_a_reward_read_one_token_early_is_caught(
    llama: Path, asked: list[Candidates], monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = RewardScorer(llama)
    ways = reward_model_backends(scorer)
    padded = scorer.model.forward_padded
    monkeypatch.setattr(scorer.model, "forward_padded", lambda rows: padded([r[:-1] for r in rows]))
    found = {agreement.way: agreement for agreement in parity(ways, asked)}
    assert not found["Palate: padded, one row at a time"].holds
    assert found["Palate: packed, prompts not shared"].holds


def test_pitfall_32_a_reward_read_before_the_templates_newline_is_caught(
    tmp_path: Path, asked: list[Candidates], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stock code on the template as it stands: no way that gets Palate's tokens would notice."""
    own = tiny_tokenizer()
    config = tiny_config("llama", len(own), num_labels=1, pad_token_id=own.pad_token_id)
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    own.save_pretrained(tmp_path)
    whole = template_backend(str(tmp_path), 1024)
    (agreement,) = parity([reward_model_backends(RewardScorer(tmp_path))[0], whole], asked)
    assert agreement.holds
    monkeypatch.setattr(ChatTokens, "render", _to_the_terminal)
    (agreement,) = parity([reward_model_backends(RewardScorer(tmp_path))[0], whole], asked)
    assert not agreement.holds


def _to_the_terminal(self: ChatTokens, prompt: Sequence[Message], response: str) -> str:
    turns = [{"role": m.role, "content": m.content} for m in prompt]
    turns.append({"role": "assistant", "content": response})
    return str(self.tokenizer.apply_chat_template(turns, tokenize=False)).rstrip("\n")


def test_rewards_that_are_all_equal_compare_nothing(llama: Path, asked: list[Candidates]) -> None:
    flat = Backend("flat", "float32", lambda candidates: np.zeros(2 * len(candidates)))
    with pytest.raises(PalateError, match="no two different rewards to 24 responses"):
        parity([flat, flat], asked)


def test_command_prints_saves_and_fails_above_the_tolerance(llama: Path, tmp_path: Path) -> None:
    rows = tmp_path / "responses.jsonl"
    lines = [{"prompt": f"Bread {i}?", "responses": ["Flour.", "No salt."]} for i in range(5)]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    saved = tmp_path / "parity.json"
    arguments = ["parity", str(llama), "--items", str(rows), "--emulated", "--format", "json"]
    found = CliRunner().invoke(app, [*arguments, "--save", str(saved)])
    assert found.exit_code == 0, found.output
    printed = json.loads(found.stdout)
    assert {row["verdict"] for row in printed} == {"same"}
    assert len(json.loads(saved.read_text())["ways"]) == len(printed) == 11

    for format_of, least in (("", "one prompt at a time"), ("bfloat16=", "Palate: bfloat16")):
        strict = CliRunner().invoke(app, [*arguments, "--tolerance", f"{format_of}0"])
        assert strict.exit_code == 1
        assert f"not the same scores by Palate: {least.removeprefix('Palate: ')}" in str(
            strict.exception
        )


@pytest.mark.parametrize("words", ["-1", "much", "int8=0.1", "float32=", "nan"])
def test_a_tolerance_that_is_none_is_one_line(words: str, llama: Path) -> None:
    found = CliRunner().invoke(app, ["parity", str(llama), "--tolerance", words])
    assert isinstance(found.exception, PalateError)
    assert "FORMAT one of float32, float16, bfloat16, rounded" in str(found.exception)


def test_what_is_emulated_is_not_run_and_what_is_native_is(
    llama: Path, asked: list[Candidates], native_bf16: bool
) -> None:
    ways = reward_model_backends(RewardScorer(llama))
    found = parity(ways, asked, emulated=False, device=torch.device("cpu"))
    (half,) = (agreement for agreement in found if agreement.kind == "bfloat16")
    assert half.not_run == ("" if native_bf16 else EMULATED)
    assert all(agreement.holds for agreement in found)


def test_pitfall_30_a_server_is_compared_too(llama: Path) -> None:
    with serving(llama) as server:
        arguments = ["parity", str(llama), "--n", "6", "--url", server.url, "--format", "json"]
        found = CliRunner().invoke(app, arguments)
        assert found.exit_code == 0, found.output
        row = json.loads(found.stdout)[-1]
        assert row["way"] == f"served: vllm-classify at {server.url}"
        assert (row["verdict"], row["responses"]) == ("same", 12)
        assert server.bodies


def test_tolerance_of_bfloat16_is_wider() -> None:
    assert TOLERANCE["float32"] < TOLERANCE["float16"] < TOLERANCE["bfloat16"]


def test_command_scores_every_response_of_items_of_k_once(llama: Path, tmp_path: Path) -> None:
    rows = [published.rewardbench_2("Math", str(n)) for n in range(6)]
    rows.append(published.rewardbench_2("Ties", "tied:1", right=3, wrong=2))
    file = published.write_rows(tmp_path / "test.json", rows)
    kept = tmp_path / "rewardbench-2.parquet"
    import_benchmark("rewardbench-2", kept, Request(file), partial=True)
    votes = published.write_rows(
        tmp_path / "votes.json", [published.vote("model_a", turn=turn) for turn in (1, 2)]
    )
    # Of the two turns of one conversation the second has earlier answers of its own: no pair.
    asked = {
        f"rewardbench-2={file}": (29, 46),
        str(kept): (29, 46),
        f"mt-bench-human={votes}": (4, 1),
    }
    for items, (responses, pairs) in asked.items():
        arguments = ["parity", str(llama), "--items", items, "--format", "json"]
        found = CliRunner().invoke(app, arguments)
        assert found.exit_code == 0, found.output
        way = json.loads(found.stdout)[0]
        assert (way["responses"], way["flips"]) == (responses, f"0 of {pairs}")
    cut = published.write_rows(tmp_path / "cut.json", rows)
    cut.write_bytes(cut.read_bytes()[:-90])
    found = CliRunner().invoke(app, ["parity", str(llama), "--items", f"rewardbench-2={cut}"])
    assert isinstance(found.exception, PalateError)
    assert "cut.json: expected a JSON array, got broken JSON in item 7" in str(found.exception)
    assert "\n" not in str(found.exception)
