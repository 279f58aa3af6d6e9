"""A study: variants of one recipe as ordinary runs, what they share, and going on where it was."""

import json
from pathlib import Path

import pytest

from command import palate
from palate.recipe import load_recipe, run
from palate.records import file_digest, read_comparisons, read_header
from palate.report import report
from tiny import save_tiny

RECIPE = """
name: whole
data:
  sources:
    help: {source: simulated, options: {task: helpfulness, weeks: 2, comparisons_per_week: 40}}
  holdout: {per_batch: 10, sources: [help]}
benchmarks: {held-out: {held_out: [help]}}
mixtures: {all: {all: [help]}}
backbone: {model: TINY, max_tokens: 256, dtype: float32}
train: {pairs_per_step: 16, learning_rate: 1e-3, eval_rows: 0, trackers: []}
models: {m: {mixture: all}}
judges: [longer, m]
study:
  vary:
    margin: {none: {train.margin: none}, large: {train.margin: large}}
  seeds: [0, 1]
  paper: table-28
"""
RUNS = [f"variants/{v}/seed-{s}" for s in (0, 1) for v in ("none", "large")]
WEIGHTS = "models/m/model.safetensors"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    path = folder / "whole.yaml"
    path.write_text(RECIPE.replace("TINY", str(save_tiny(folder / "tiny", "llama"))))
    return path


@pytest.fixture(scope="module")
def study(recipe) -> tuple[Path, list[str]]:
    """(folder, what was said) of a whole study."""
    said: list[str] = []
    run(load_recipe(recipe, environment={}), recipe.parent / "run", say=said.append)
    return recipe.parent / "run", said


def made(said: list[str]) -> list[str]:
    return [line.removesuffix(" ...") for line in said if line.endswith(" ...")]


def weights(folder: Path) -> list[str]:
    return [file_digest(folder / one / WEIGHTS) for one in RUNS]


def test_every_variant_is_trained_and_judged_and_all_are_compared(study):
    folder, said = study
    assert next(line for line in said if line.startswith("run ")) == "run 1 of 4: none, seed 0"
    assert len(set(weights(folder))) == 4
    table = (folder / "tables" / "study-accuracy.md").read_text()
    assert table.startswith("## Table 28")
    assert table.count("| held-out |") == 4  # How many items, two variants, the Bayes limit.
    assert (folder / "tables" / "study-differences.csv").is_file()


def test_what_variants_share_is_made_once(study):
    steps = made(study[1])
    for step in ("import/help", "hold-out", "overlap", "mix/all", "judge/longer--held-out"):
        assert steps.count(step) == 1, step
    assert steps.count("train/m") == 4
    first, second = (study[0] / one / "mixtures" / "all.parquet" for one in RUNS[:2])
    assert first.stat().st_ino == second.stat().st_ino, "the same bytes on the disk"


def test_two_variants_equal_two_ordinary_runs(study, tmp_path):
    folder, _ = study
    for one in RUNS[:2]:
        run(load_recipe(folder / one / "recipe.yaml", environment={}), tmp_path / one)
        assert file_digest(folder / one / WEIGHTS) == file_digest(tmp_path / one / WEIGHTS)
        verdicts = "verdicts/m--held-out.parquet"
        ours, theirs = (read_header(d / one / verdicts) for d in (folder, tmp_path))
        assert ours.fingerprint == theirs.fingerprint


def test_nothing_is_done_twice(study, recipe):
    said: list[str] = []
    run(load_recipe(recipe, environment={}), study[0], say=said.append)
    assert made(said) == ["report"] * 4
    assert "run 1 of 4: none, seed 0; finished before" in said


@pytest.mark.slow
def test_a_study_that_was_stopped_goes_on_where_it_was(study, recipe, tmp_path):
    said: list[str] = []

    def stop(line: str) -> None:
        said.append(line)
        if line == "judge/m--held-out ..." and said.count(line) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(load_recipe(recipe, environment={}), tmp_path, say=stop)
    found = report(tmp_path)
    assert "2 of 4 runs are finished; the others are left out." in found.tables[0].remarks
    again: list[str] = []
    run(load_recipe(recipe, environment={}), tmp_path, say=again.append)
    assert [s for s in made(again) if s != "report"] == [
        "judge/m--held-out", "train/m", "judge/m--held-out",
    ]  # fmt: skip
    assert next(line for line in again if line.startswith("run 3")).endswith(" left")
    assert weights(tmp_path) == weights(study[0])
    tables = [(d / "tables" / "study-accuracy.csv").read_bytes() for d in (tmp_path, study[0])]
    assert tables[0] == tables[1]


@pytest.mark.slow
def test_what_an_earlier_recipe_left_is_not_mixed_with_what_is_new(study, recipe, tmp_path):
    said: list[str] = []
    run(load_recipe(recipe, ["study.seeds=[0]"], environment={}), tmp_path)

    def stop(line: str) -> None:
        said.append(line)
        if line.startswith("run 2"):
            raise KeyboardInterrupt

    other = load_recipe(recipe, ["study.seeds=[0]", "train.epochs=2"], environment={})
    with pytest.raises(KeyboardInterrupt):
        run(other, tmp_path, say=stop)
    found = report(tmp_path)
    assert "1 of 2 runs are finished; the others are left out." in found.tables[0].remarks
    assert found.table("study-differences") is None
    anew: list[str] = []
    run(other, tmp_path, resume=False, say=anew.append)
    assert (made(anew).count("import/help"), made(anew).count("train/m")) == (1, 2)


@pytest.fixture(scope="module")
def scaled(recipe) -> Path:
    """A study of two sizes and two amounts of data."""
    size = "{one: {backbone.layers: 1}, two: {backbone.layers: 2}}"
    data = "{third: {fraction: 0.34}, all: {fraction: 1}}"
    overrides = [f"study.vary={{size: {size}, data: {data}}}", "study.vary.margin=null"]
    loaded = load_recipe(recipe, [*overrides, "study.paper=null"], environment={})
    return run(loaded, recipe.parent / "scaled")


def ids(folder: Path) -> set[str]:
    return {c.id for c in read_comparisons(folder / "mixtures" / "all.parquet")}


@pytest.mark.slow
def test_smaller_amounts_are_parts_of_larger_ones_and_the_same_for_every_size(scaled):
    for seed in (0, 1):
        third, whole = (ids(scaled / f"variants/one--{d}/seed-{seed}") for d in ("third", "all"))
        assert third < whole == ids(scaled)
        assert len(third) == round(0.34 * len(whole))
        assert third == ids(scaled / f"variants/two--third/seed-{seed}")
    zero, one = (ids(scaled / f"variants/one--third/seed-{seed}") for seed in (0, 1))
    assert zero != one, "the luck of the draw is part of a seed's"


@pytest.mark.slow
def test_every_variant_is_asked_the_same_questions(scaled):
    index = json.loads((scaled / "study.json").read_text())
    assert len(index["runs"]) == 8
    asked = {read_header(p).fingerprint for p in scaled.glob("variants/*/*/benchmarks/*.parquet")}
    assert asked == {read_header(scaled / "benchmarks" / "held-out.parquet").fingerprint}


@pytest.mark.slow
def test_scaling_has_its_table_its_trend_and_its_page(scaled):
    tables = scaled / "tables"
    for name in ("scaling.md", "scaling-trend.md", "../report.html", "study-runs.csv"):
        assert (tables / name).is_file(), name


def test_the_command_line_runs_shows_and_remakes_a_study(recipe, study, tmp_path):
    folder, _ = study
    done = palate("run", recipe, "--out", folder)
    assert done.returncode == 0, done.stderr
    assert "with another variant than with" in done.stdout
    assert f"palate score {folder / 'variants' / 'none' / 'seed-0' / 'models' / 'm'}" in done.stdout
    assert "finished before" in done.stderr
    (folder / "tables" / "study-accuracy.md").unlink()
    assert "Table 28" in palate("report", folder).stdout
    assert (folder / "tables" / "study-accuracy.md").is_file()


def test_the_stages_of_a_study_name_its_variants(study, recipe):
    done = palate("evaluate", recipe, "--out", study[0], "--format", "json")
    rows = json.loads(done.stdout)
    assert [(r["margin"], r["seed"], r["judge"]) for r in rows][:2] == [
        ("none", 0, "longer"), ("none", 0, "m"),
    ]  # fmt: skip
    assert len(rows) == 8
    assert "Shares asked and achieved" in palate("mix", recipe, "--out", study[0]).stdout
    shown = palate("train", recipe, "--out", study[0]).stdout
    assert "variants/large/seed-1/models/m" in shown


def test_recipes_show_says_what_a_study_runs():
    shown = palate("recipes", "show", "margin").stdout
    assert "# A study of 3 variants x 3 seeds = 9 runs, each compared with 'none':" in shown
    assert "# large: train.margin=large" in shown


def test_a_recipe_that_is_no_study_any_more_is_reported_as_a_run(recipe, tmp_path):
    run(load_recipe(recipe, environment={}), tmp_path, until="mix")
    (tmp_path / "study.json").write_text("{}")
    run(
        load_recipe(recipe, ["study=null", "judges=[longer]", "models=null"], environment={}),
        tmp_path,
    )
    assert (tmp_path / "tables" / "table-7.md").is_file()
