"""Which judges a run asks, in which order, and what becomes of those that cannot be asked."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from palate.evaluate.run import read_skipped
from palate.judges import JUDGES, chat_spec
from palate.recipe import load_recipe, run
from palate.recipe.judges import PAPER_JUDGES, chat_judge, name_of, refuse_one_name, with_judges
from palate.recipe.schema import CHAT_JUDGE
from palate.records import read_header, read_verdicts
from palate.types import PalateError, Preference


class Letter:
    """Answers A to every pair; without `up`, only the first two."""

    sees_both = True

    def __init__(self, up=True, name="letter"):
        self.name, self.up, self.asked = name, up, []
        self.protocol = {"judge": "letter"}

    def judge(self, pairs):
        for pair in pairs:
            if not self.up and len(self.asked) == 2:
                raise PalateError("letter: the endpoint is down; start it")
            self.asked.append(pair)
            yield Preference(pair.id, "first", answer="A", seconds=0.1)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    source = {"source": "simulated", "options": {"weeks": 1, "comparisons_per_week": 30}}
    values = {
        "data": {
            "sources": {"week": source},
            "holdout": {"per_batch": 10, "sources": ["week"]},
        },
        "benchmarks": {"held-out": {"held_out": ["week"]}, "also": {"held_out": ["week"]}},
        "judges": ["random", {"letter": {}}, "longer"],
    }
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(values))
    return tmp_path / "r.yaml"


@pytest.fixture
def letter(monkeypatch):
    """`letter(judge)`: what a recipe's `{letter: {}}` opens; a string is why it does not."""

    def opens(judge):
        def open_it(_options):
            if isinstance(judge, str):
                raise PalateError(judge)
            return judge

        monkeypatch.setitem(JUDGES, "letter", open_it)

    return opens


def orders(folder: Path) -> dict[str, str]:
    found = (read_header(path).details for path in (folder / "verdicts").glob("*.parquet"))
    return {f"{d['judge']} on {d['benchmark']}": d["protocol"]["order"] for d in found}


def test_pitfall_26_a_judge_that_sees_both_is_asked_in_both_orders(tmp_path, recipe, letter):
    letter(Letter())
    run(load_recipe(recipe, environment={}), tmp_path / "run")
    assert orders(tmp_path / "run") == {
        f"{judge} on {benchmark}": order
        for judge, order in (("random", "seeded"), ("letter", "both"), ("longer", "seeded"))
        for benchmark in ("held-out", "also")
    }
    table = (tmp_path / "run" / "tables" / "orders.csv").read_text()
    assert table.count("letter") == 2


@pytest.mark.parametrize("order", ["seeded", "both"])
def test_an_order_in_the_recipe_is_that_of_every_judge(tmp_path, recipe, letter, order):
    letter(Letter())
    run(load_recipe(recipe, [f"judging.order={order}"], environment={}), tmp_path / "run")
    assert set(orders(tmp_path / "run").values()) == {order}


def test_auto_in_place_of_an_order_asks_only_what_is_missing(tmp_path, recipe, letter):
    letter(first := Letter())
    run(load_recipe(recipe, ["judging.order=seeded"], environment={}), tmp_path / "run")
    letter(second := Letter())
    run(load_recipe(recipe, environment={}), tmp_path / "run")
    assert (len(first.asked), len(second.asked)) == (20, 20)


def test_a_judge_that_cannot_be_opened_is_said_once_and_the_run_goes_on(tmp_path, recipe, letter):
    letter("letter: no hub\nfrom here")
    said: list[str] = []
    run(load_recipe(recipe, environment={}), tmp_path / "run", say=said.append)
    told = [line for line in said if line.startswith("left out")]
    assert told == ["left out: letter: letter: no hub from here"]
    assert set(orders(tmp_path / "run")) == {
        f"{judge} on {name}" for judge in ("random", "longer") for name in ("held-out", "also")
    }
    text = (tmp_path / "run" / "tables" / "table-7.md").read_text()
    assert "| letter | – \\[1\\] | – \\[1\\] | – \\[2\\] | – \\[2\\] |" in text
    assert "missing: letter: no hub from here" in text


def test_what_was_answered_before_an_endpoint_went_down_is_kept(tmp_path, recipe, letter):
    letter(Letter(up=False))
    folder = tmp_path / "run"
    run(load_recipe(recipe, environment={}), folder)
    assert read_skipped(folder / "verdicts") == {"letter": "letter: the endpoint is down; start it"}
    letter(again := Letter())
    run(load_recipe(recipe, environment={}), folder)
    assert len(again.asked) == 40 - 2
    assert read_skipped(folder / "verdicts") == {}
    assert len(list(read_verdicts(folder / "verdicts" / "letter--also.parquet"))) == 20


def test_verdicts_that_stand_are_kept_when_the_judge_no_longer_opens(tmp_path, recipe, letter):
    letter(Letter())
    folder = tmp_path / "run"
    run(load_recipe(recipe, environment={}), folder)
    letter("letter: no hub")
    run(load_recipe(recipe, ["benchmarks.also.max_rows=5"], environment={}), folder)
    assert orders(folder)["letter on held-out"] == "both"
    assert "letter on also" not in orders(folder)
    table = (folder / "tables" / "table-7.md").read_text()
    assert "50.0 ±" in next(line for line in table.splitlines() if line.startswith("| letter"))


def test_judges_left_out_for_a_while_are_not_asked_again(tmp_path, recipe, letter):
    letter(Letter())
    folder, whole = tmp_path / "run", load_recipe(recipe, environment={})
    run(whole, folder)
    run(with_judges(whole, "longer"), folder)
    assert set(orders(folder)) == {"longer on held-out", "longer on also"}
    letter(again := Letter())
    run(whole, folder)
    assert again.asked == []
    assert len(orders(folder)) == 6
    assert not list((folder / "verdicts" / "unused").iterdir())


def test_all_is_the_recipes_judges_and_the_papers(recipe):
    plain = load_recipe(recipe, environment={})
    every = with_judges(plain, "all").judges
    papers = (*PAPER_JUDGES.values(), chat_judge(plain))
    assert every == ("random", {"letter": {}}, "longer", *papers)
    again = load_recipe(recipe, [f"judges={json.dumps(every)}"], environment={})
    assert with_judges(again, "all").judges == every, "none of them twice"


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("longer", ("longer",)),
        ("letter, first", ({"letter": {}}, "first")),
        ("steamshp-xl,random,steamshp-xl", (PAPER_JUDGES["steamshp-xl"], "random")),
    ],
)
def test_judges_by_name(recipe, wanted, expected):
    assert with_judges(load_recipe(recipe, environment={}), wanted).judges == expected


def test_the_chat_judge_is_a_setting_and_the_papers_one_its_former_name(recipe):
    plain = load_recipe(recipe, environment={})
    (spec,) = with_judges(plain, "chat").judges
    assert chat_spec(spec["chat"]).temperature is None, "models that reason take none"
    said = []
    assert with_judges(plain, "gpt-4", said.append).judges == (spec,)
    assert len(said) == 1
    assert "2026-10-23" in said[0]
    assert "judging.chat=NAME" in said[0]
    other = load_recipe(recipe, ["judging.chat=gpt-7"], environment={})
    assert chat_judge(other) == {"chat": spec["chat"] | {"model": "gpt-7"}}
    local = load_recipe(
        recipe, ["judging.chat={model: m, base_url: 'http://h/v1'}"], environment={}
    )
    assert chat_spec(chat_judge(local)["chat"]).base_url == "http://h/v1"
    claude = load_recipe(recipe, ["judging.chat={provider: anthropic}"], environment={})
    assert chat_spec(chat_judge(claude)["chat"]).api == "messages"
    own = {"chat": {"model": "gpt-4", "base_url": "http://h/v1"}}
    mine = plain.model_copy(update={"judges": (own,)})
    assert with_judges(mine, "gpt-4", said.append).judges == (own,), "the recipe's own comes first"
    assert len(said) == 1


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("steamshp", "no judge 'steamshp'; did you mean 'steamshp-xl'"),
        ("", "no judge ''; known: all, random"),
        ("random,qqqq", "no judge 'qqqq'; known: all,"),
    ],
)
def test_a_name_that_is_none_is_one_line(recipe, wanted, message):
    with pytest.raises(PalateError, match=message):
        with_judges(load_recipe(recipe, environment={}), wanted)


def test_two_judges_of_one_name_are_refused_and_one_judge_twice_is_not():
    two = [{"chat": {"model": "m", "preset": "safety"}}, {"chat": {"model": "m"}}]
    with pytest.raises(PalateError, match="judges: two are called 'm', and the verdicts of one"):
        refuse_one_name(two)
    refuse_one_name(["longer", "longer", two[0], {"chat": {"model": "m", "name": "plain"}}])


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("longer", "longer"),
        ({"random": None}, "random"),
        ({"reward-model": "runs/a/models/b"}, "runs/a/models/b"),
        ({"chat": {"model": "gpt-4", "preset": "x"}}, "gpt-4"),
        ({"chat": {"model": "gpt-4", "name": "mine"}}, "mine"),
        ({"chat": {"provider": "anthropic"}}, "claude-opus-5-5"),
    ],
)
def test_a_judge_is_called_by_its_name_its_checkpoint_or_its_kind(spec, name):
    assert name_of(spec) == name


@pytest.mark.slow  # A fresh interpreter that looks for three judges.
def test_run_with_all_judges_without_hub_and_key_fills_what_it_can(tmp_path, recipe):
    values = yaml.safe_load(recipe.read_text()) | {"judges": ["random", "longer"]}
    recipe.write_text(yaml.safe_dump(values))
    out = tmp_path / "run"
    environment = {k: v for k, v in os.environ.items() if k != "OPENAI_API_KEY"}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    environment |= {"PALATE_CACHE": str(tmp_path / "cache"), "COLUMNS": "200"}
    command = [sys.executable, "-m", "palate", "run", recipe, "--judges", "all", "--out", out]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    absent = ["SteamSHP-flan-t5-xl", "reward-model-deberta-v3-large-v2", CHAT_JUDGE["model"]]
    lines = done.stderr.splitlines()
    left_out = [line for line in lines if line.startswith("left out: ")]
    assert [line.split(": ")[1] for line in left_out] == absent
    assert lines[-1].startswith(f"palate: not asked: {', '.join(absent)}; the reasons are above")
    assert "Traceback" not in done.stderr
    assert "No model was judged" in done.stdout
    rows = (out / "tables" / "table-7.csv").read_text().splitlines()
    for name in absent:
        (row,) = [row for row in rows if row.startswith(name)]
        assert set(row.split(",")[1:17]) == {""}, "missing, not zero"
    assert set(orders(out)) == {
        f"{j} on {b}" for j in ("random", "longer") for b in values["benchmarks"]
    }
    asked = yaml.safe_load((out / "recipe.yaml").read_text())["judges"]
    assert asked[2:] == [*PAPER_JUDGES.values(), {"chat": dict(CHAT_JUDGE)}]
