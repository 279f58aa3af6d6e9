"""Before a chat judge is asked: what it would cost, and the most it may."""

import csv
import json

import pytest

from answering import endpoint
from command import one_line, palate
from palate.recipe.forecast import Amounts, Machines, costs, forecast, with_budget
from palate.recipe.schema import validate
from palate.records import write_comparisons
from palate.types import Comparison, Message, PalateError

CHAT = {
    "model": "m",
    "base_url": "http://127.0.0.1:9/v1",
    "retries": 0,
}


@pytest.fixture
def benchmark(tmp_path, monkeypatch):
    monkeypatch.setenv("PALATE_CACHE", str(tmp_path / "cache"))
    rows = (
        Comparison(f"c{n}", "mine", (Message("user", f"q{n}"),), f"good {n}", f"bad {n}", f"p{n}")
        for n in range(6)
    )
    write_comparisons(tmp_path / "mine.parquet", rows)
    return tmp_path / "mine.parquet"


def prices(folder):
    path = folder / "prices.yaml"
    path.write_text(
        "models: {m: {input_per_million: 10, output_per_million: 100, date: 2026-01-01, "
        "source: a test}}"
    )
    return str(path)


def test_a_judge_of_both_sides_is_counted_in_both_orders(benchmark):
    rows = costs(["longer", {"chat": CHAT}], {"mine": benchmark}, seed=0, order="auto")
    assert [(row["judge"], row["questions"], row["calls"]) for row in rows] == [("m", 12, 12)]
    (row,) = costs([{"chat": CHAT}], {"mine": benchmark}, seed=0, order="seeded")
    assert (row["questions"], row["money"]) == (6, None)


def test_several_rows_have_a_total_and_of_money_only_where_all_is_known(benchmark, tmp_path):
    priced = CHAT | {"prices": prices(tmp_path)}
    files = {"one": benchmark, "two": benchmark}
    rows = costs([{"chat": priced}], files, seed=0, order="auto")
    assert rows[-1]["judge"] == "total"
    assert rows[-1]["calls"] == 24
    assert rows[-1]["money"] == pytest.approx(2 * rows[0]["money"])
    unknown = {"chat": priced | {"model": "n"}}
    assert costs([{"chat": priced}, unknown], files, seed=0, order="auto")[-1]["money"] is None


def test_a_budget_is_given_to_chat_judges_and_must_bound_something():
    assert with_budget(["longer", {"chat": "gpt-4"}], 2.0) == (
        "longer",
        {"chat": {"model": "gpt-4", "budget": 2.0}},
    )
    with pytest.raises(PalateError, match="nothing costs money"):
        with_budget(["longer"], 2.0)


def test_the_command_line_asks_nothing_first_and_then_everything_once(benchmark, tmp_path):
    with endpoint() as server:
        spec = {"chat": CHAT | {"base_url": server.url, "prices": prices(tmp_path)}}
        command = ["evaluate", json.dumps(spec), "--benchmark", benchmark, "--format", "json"]
        dry = palate(*command, "--dry-run")
        assert not server.asked
        (row,) = json.loads(dry.stdout)
        assert (row["calls"], row["kept"], row["currency"]) == (12, 0, "USD")
        done = palate(*command, "--out", tmp_path / "out", "--budget", "1")
        assert done.returncode == 0, done.stderr
        (found,) = json.loads(done.stdout)
        assert (found["judge"], found["accuracy"], found["n"]) == ("m", 1.0, 6)
        assert set(server.asked.values()) == {1}
        (after,) = json.loads(palate(*command, "--dry-run").stdout)
        assert (after["calls"], after["kept"], after["money"]) == (0, 12, 0.0)


def test_a_budget_that_is_spent_leaves_answers_that_a_larger_one_goes_on_from(benchmark, tmp_path):
    with endpoint() as server:
        spec = {"chat": CHAT | {"base_url": server.url, "prices": prices(tmp_path)}}
        command = ["evaluate", json.dumps(spec), "--benchmark", benchmark]
        command += ["--out", tmp_path / "out", "--format", "csv"]
        line = one_line(palate(*command, "--budget", "0.011"))
        assert "budget 0.011 USD" in line
        assert "raise budget" in line
        bought = server.asked.total()
        assert 0 < bought < 12
        rows = list(csv.DictReader(palate(*command, "--budget", "1").stdout.splitlines()))
        assert float(rows[0]["accuracy"]) == 1.0
        assert server.asked.total() == 12


def test_a_recipe_is_costed_before_anything_is_trained(tmp_path, monkeypatch):
    monkeypatch.setenv("PALATE_CACHE", str(tmp_path / "cache"))
    source = {"source": "simulated", "options": {"weeks": 1, "comparisons_per_week": 30}}
    holdout = {"per_batch": 10, "sources": ["week"]}
    values = {
        "data": {"sources": {"week": source}, "holdout": holdout},
        "benchmarks": {"held-out": {"held_out": ["week"]}, "some": {"held_out": ["week"]}},
        "judges": ["random", {"chat": CHAT | {"prices": prices(tmp_path)}}],
    }
    (tmp_path / "r.yaml").write_text(json.dumps(values))
    command = ["run", tmp_path / "r.yaml", "--out", tmp_path / "run", "--dry-run"]
    done = palate(*command, "--budget", "5")
    assert done.returncode == 0, done.stderr
    assert "held-out" in done.stdout
    assert "total" in done.stdout
    assert not (tmp_path / "run" / "verdicts").exists()
    assert not (tmp_path / "run" / "models").exists()
    free = palate(*command, "--judges", "random")
    assert "judging costs no money" in free.stderr


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("{chat: {model: m, budget: 1, base_url: 'http://127.0.0.1:9/v1'}}", "price at"),
        ("{chat: {modle: m}}", "did you mean 'model'"),
        ("{chat: [", "expected one judge such as"),
        ("{chta: {model: m}}", "did you mean 'chat'"),
    ],
)
def test_a_judge_that_is_mistyped_is_one_line(benchmark, what, line):
    assert line in one_line(palate("evaluate", what, "--benchmark", benchmark))


def test_a_plan_of_few_rows_is_of_the_head_that_they_will_teach(tmp_path):
    """Of a shape that is stated, everything learns, however few rows."""
    recipe = validate(
        {
            "name": "few",
            "data": {"sources": {"help": {"source": "simulated"}}},
            "benchmarks": {},
            "mixtures": {"all": {"all": ["help"]}},
            "models": {"mine": {"mixture": "all"}},
            "judges": ["mine"],
        }
    )

    def plan(**stated):
        amounts = Amounts(comparisons=300, tokens=90, **stated)
        return forecast(recipe, "mine", tmp_path, Machines(gpus=0), amounts)

    few = plan()
    assert (few.anatomy.layers, few.course.steps) == (20, 114)
    assert few.anatomy.trainable == 2 * few.anatomy.width, "the head and the final norm"
    shape = plan(shape="llama3-1b")
    assert shape.anatomy.trainable == shape.anatomy.parameters
    assert shape.course.steps == 38
