"""Rewards of typed responses are the models' own, to the last digit that is shown."""

import html
import re
from pathlib import Path

import pytest
import torch

from made import made
from palate.cli.serve import runs_to_view
from palate.explorer.run import OpenRun, read_prompt, run_names, write_prompt
from palate.judges.reward_model import RewardScorer
from palate.model.export import Card, export
from palate.model.options import BaseOptions
from palate.model.reward_model import RewardModel
from palate.model.tokenizer import TOO_LONG, ChatTokens
from palate.records import write_comparisons
from palate.report.study import StudyIndex, StudyRun, write_index
from palate.types import Candidates, Message, PalateError
from tiny import tiny_model, tiny_tokenizer

TALK = "Human: What is the sea?\n\nAssistant: Wide.\n\nHuman: And?"
TURNS = (
    Message("user", "What is the sea?"),
    Message("assistant", "Wide."),
    Message("user", "And?"),
)


@pytest.fixture(scope="module")
def modelled(tmp_path_factory) -> OpenRun:
    """A run with one comparison, two models and a folder that is none."""
    run: Path = tmp_path_factory.mktemp("live") / "run"
    write_comparisons(run / "benchmarks/one.parquet", [made(TURNS, "Deep.", "Blue.")])
    for seed, name in enumerate(("helpful", "safe")):
        chat = ChatTokens(tiny_tokenizer(), BaseOptions(max_tokens=64))
        model = RewardModel(tiny_model("llama", seed=seed), chat)
        torch.nn.init.normal_(model.head.weight, generator=torch.Generator().manual_seed(seed))
        export(model, run / "models" / name, card=Card(name, "tiny", "0"))
    (run / "models/<i>").mkdir()
    (run / "models/<i>/config.json").write_text("{}")
    return OpenRun(run)


def figures(text: str) -> dict[str, list[str]]:
    """The figures on the page by model."""
    rows = re.findall(r'<th scope="row">(.*?)</th>(.*?)</tr>', text, re.DOTALL)
    return {html.unescape(n): re.findall(r'class="figure">([^<]*)<', r) for n, r in rows}


def test_rewards_on_the_page_are_the_models_own(browse, modelled):
    sent = {"prompt": TALK, "first": "Deep.", "second": "Blue\r\nand wide."}
    text = browse(modelled).post("/r/0/live", data=sent).text
    for name in ("helpful", "safe"):
        scorer = RewardScorer(modelled.folder / "models" / name)
        first, second = next(scorer.score([Candidates(TURNS, ("Deep.", "Blue\nand wide."))]))
        margin = first.value - second.value
        expected = [f"{first.value:.3f}", f"{second.value:.3f}", f"{margin:+.3f}"]
        share = 100 / (1 + torch.tensor(-margin).exp().item())
        shown = [figure.strip().replace("−", "-") for figure in figures(text)[name]]
        assert shown == [*expected, f"{share:.1f} %"]
    assert figures(text)["<i>"] == []
    assert "<i>" not in text.replace("<i>·</i>", "")
    assert "Deep.</textarea>" in text


def test_a_response_that_is_too_long_or_empty_is_said(browse, modelled):
    sent = {"prompt": "Why?", "first": "word " * 200, "second": ""}
    text = browse(modelled).post("/r/0/live", data=sent).text
    assert f"A: {TOO_LONG}" in text
    assert figures(text)["helpful"][0].strip() == ""


def test_an_item_fills_the_form(browse, modelled):
    text = browse(modelled).get("/r/0/live?item=0").text
    assert TALK in html.unescape(text)
    assert "Deep.</textarea>" in text
    assert browse(modelled).get("/r/0/live?item=9").status_code == 200


def test_an_empty_prompt_asks_nothing(browse, modelled):
    answer = browse(modelled).post("/r/0/live", data={"prompt": " \n"})
    assert answer.status_code == 200
    assert figures(answer.text) == {}


def test_an_old_question_costs_nothing(modelled):
    rewards = modelled.rewards.submit(TURNS, ("a", "b"), lambda: False)
    assert rewards.result(timeout=60) == []


def test_a_prompt_is_one_turn_or_a_transcript():
    assert read_prompt(TALK) == TURNS
    assert write_prompt(TURNS) == TALK
    assert read_prompt("What\n\nis it?") == (Message("user", "What\n\nis it?"),)
    prompt = (Message("user", "Human: hm"),)
    assert read_prompt(write_prompt(prompt)) == prompt


def test_a_run_without_models_says_so(browse, opened):
    assert "no model under" in browse(opened).get("/r/0/live").text


def test_a_study_opens_its_variants_each_under_a_name_of_its_own(tmp_path):
    study, variants = tmp_path / "study", ("none", "large")
    runs = [
        StudyRun(
            levels={"margin": one}, seed=0, folder=f"variants/{one}/seed-0",
            experiment="now", mixtures={},
        )
        for one in variants
    ]  # fmt: skip
    (study / "benchmarks").mkdir(parents=True)  # What all variants have in common.
    index = StudyIndex(
        name="s", axes={"margin": variants}, baseline={"margin": "none"}, data_axis=None,
        paper="", models=(), runs=tuple(runs),
    )  # fmt: skip
    write_index(study, index)
    assert runs_to_view([study]) == [study]  # No variant is made yet.
    (study / runs[0].folder / "mixtures").mkdir(parents=True)
    assert runs_to_view([study]) == [study / runs[0].folder]
    (study / runs[1].folder / "benchmarks").mkdir(parents=True)
    made_runs = [study / run.folder for run in runs]
    assert runs_to_view([study]) == made_runs
    assert run_names(made_runs) == ["none/seed-0", "large/seed-0"]
    (study / "marks.sqlite").touch()  # What was marked there stays in sight.
    assert runs_to_view([study]) == [study, *made_runs]
    with pytest.raises(PalateError, match="no such run"):
        runs_to_view([tmp_path / "none"])


def test_names_of_runs_are_short_and_distinct(tmp_path):
    assert run_names([tmp_path / "a", tmp_path / "b"]) == ["a", "b"]
    assert run_names([tmp_path / "x/a", tmp_path / "y/a"]) == ["x/a", "y/a"]
    assert run_names([tmp_path / "a", tmp_path / "a"]) == ["a", "a"]
    assert run_names([]) == []
