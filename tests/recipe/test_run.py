"""run(recipe) from raw rows to tables with a tiny real model, and what hangs on what."""

import json
from pathlib import Path

import pytest

import choices
import published
from made import made
from palate.model.options import BaseOptions
from palate.recipe import load_recipe, run
from palate.recipe.cache import Workspace, plain
from palate.recipe.schema import fingerprinted, resolved, validate
from palate.recipe.stages import OPTIONS, fill_in, forbid_overlap, settle
from palate.recipe.yaml import merge
from palate.records import read_comparisons, read_header, write_comparisons
from palate.train.defaults import follows
from palate.train.options import Trainable, TrainOptions
from palate.types import PalateError, digest
from tiny import save_tiny

RECIPE = """
name: whole
data:
  sources:
    help: {source: simulated, options: {task: helpfulness, weeks: 2, comparisons_per_week: 40}}
    safe: {source: simulated, options: {task: safety, weeks: 2, comparisons_per_week: 40}}
    half: {source: simulated, options: {task: safety, weeks: 1, comparisons_per_week: 40, seed: 9}}
    apart: {source: simulated, options: {weeks: 1, comparisons_per_week: 30, seed: 5}}
  holdout: {per_batch: 10, sources: [help, safe], fractions: {half: 0.5}}
benchmarks:
  held-out help: {held_out: [help]}
  held-out safe: {held_out: [safe, half]}
  apart: {whole: [apart], paper_column: Anthropic Helpful}
mixtures:
  helpfulness: {all: [help], equal_part_from: [safe, half], on_shortage: shrink}
backbone: {max_tokens: 256, dtype: float32}
train: {pairs_per_step: 16, learning_rate: 1e-3, eval_rows: 8, trackers: []}
models:
  helpfulness: {mixture: helpfulness, eval_sets: [held-out help]}
judges: [random, longer, helpfulness]
"""


@pytest.fixture(scope="module")
def experiment(tmp_path_factory) -> tuple[Path, Path, list[str]]:
    """(recipe file, run folder, what was said) of a whole run."""
    folder = tmp_path_factory.mktemp("whole")
    model, said = save_tiny(folder / "tiny", "llama"), []
    recipe = folder / "whole.yaml"
    recipe.write_text(RECIPE.replace("backbone: {", f"backbone: {{model: {model}, "))
    run(load_recipe(recipe, environment={}), folder / "run", say=said.append)
    return recipe, folder / "run", said


def again(experiment, *overrides: str, **arguments) -> list[str]:
    """Run once more and return the names of the steps that were made."""
    recipe, folder, _ = experiment
    said: list[str] = []
    run(load_recipe(recipe, overrides, environment={}), folder, say=said.append, **arguments)
    return [line.removesuffix(" ...") for line in said if line.endswith(" ...")]


def test_a_run_under_old_words_goes_on_and_trains_nothing_anew(experiment, caplog):
    recipe, folder, _ = experiment
    old = recipe.with_name("old.yaml")
    text = recipe.read_text().replace("backbone:", "base:")
    old.write_text(text.replace("eval_sets:", "watch:").replace("fractions:", "halves:"))
    assert again((old, folder, [])) == ["report"]
    assert len(caplog.records) == 1


def prompts(path: Path) -> set[str]:
    return {c.prompt[0].content for c in read_comparisons(path)}


def test_files_of_every_stage_are_there(experiment):
    _, folder, _ = experiment
    for name in ("recipe.yaml", "mixtures/helpfulness.parquet", "models/helpfulness/config.json"):
        assert (folder / name).is_file()
    assert len(list((folder / "verdicts").glob("*.parquet"))) == 9
    assert "Bayes limit" in (folder / "tables" / "table-7.md").read_text()
    assert "Table 7" in (folder / "models" / "helpfulness" / "README.md").read_text()


def test_pitfall_20_and_22_no_test_prompt_is_trained_on(experiment):
    _, folder, _ = experiment
    trained = prompts(folder / "mixtures" / "helpfulness.parquet")
    for benchmark in (folder / "benchmarks").glob("*.parquet"):
        assert not trained & prompts(benchmark), benchmark


def test_a_whole_source_is_a_benchmark_and_no_pool(experiment):
    _, folder, _ = experiment
    assert read_header(folder / "benchmarks" / "apart.parquet").rows == 30
    assert not (folder / "data" / "pools" / "apart.parquet").exists()


def test_nothing_is_done_twice(experiment):
    assert again(experiment) == ["report"]


@pytest.mark.slow
def test_another_learning_rate_trains_and_judges_again_and_keeps_the_earlier_one(experiment):
    made = again(experiment, "train.learning_rate=2e-3")
    assert made[0] == "train/helpfulness"
    assert {step for step in made if step.startswith("judge/")} == {
        f"judge/helpfulness--{b}" for b in ("held-out-help", "held-out-safe", "apart")
    }
    assert (experiment[1] / "earlier" / "helpfulness" / "metrics.jsonl").is_file()
    assert again(experiment)[0] == "train/helpfulness"


def test_until_stops_there(experiment):
    assert again(experiment, until="mix") == []


def test_the_checkpoint_scores_a_file(experiment, tmp_path):
    from palate.evaluate.scoring import score_file
    from palate.judges import open_judge

    rows = [{"prompt": "How do I bake bread?", "response": r} for r in ("Mix flour.", "No.")]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    judge = open_judge({"reward-model": str(experiment[1] / "models" / "helpfulness")})
    score_file(judge.scorer, tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    scored = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert all(isinstance(row["reward"], float) for row in scored)


def test_the_run_of_the_saved_recipe_is_the_same_run(experiment, tmp_path):
    _, folder, _ = experiment
    run(load_recipe(folder / "recipe.yaml", environment={}), tmp_path / "b")
    for name in ("mixtures/helpfulness.parquet", "verdicts/helpfulness--apart.parquet"):
        assert (
            read_header(folder / name).fingerprint == read_header(tmp_path / "b" / name).fingerprint
        )


def test_a_source_that_does_not_exist_names_the_nearest(experiment):
    with pytest.raises(PalateError, match=r"sources\.help\.source: .*did you mean 'simulated'"):
        load_recipe(experiment[0], ["data.sources.help.source=simulate"], environment={})


def test_all_missing_files_are_said_before_anything_is_made(tmp_path):
    (tmp_path / "data").mkdir()
    recipe = load_recipe("llama2-modern", environment={}, data=tmp_path / "data")
    mine = {"benchmarks": {"extra": {"file": "extra.jsonl"}}}
    recipe = load_recipe(merge(resolved(recipe), mine), environment={})
    with pytest.raises(PalateError) as caught:
        run(recipe, tmp_path / "run")
    said = str(caught.value)
    assert "\n" not in said
    assert said.startswith(
        f"recipe llama2-modern: no such file or folder below {tmp_path / 'data'}"
    )
    for missing in (
        "oasst1_en_validation (data.sources.oasst)",  # Has a path; anthropic-hh would be streamed.
        "qa_feedback (data.sources.qa-feedback)",  # Is not on the hub.
        "pandalm (data.sources.pandalm)",
        "extra.jsonl (benchmarks.extra)",
    ):
        assert missing in said
    assert "anthropic" not in said
    assert "--set data.sources.oasst.path=OpenAssistant/oasst1" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.slow  # 10 s on an idle machine.
def test_real_data_up_to_the_mixtures(tmp_path, data_root):
    run(load_recipe("llama2", data=data_root), tmp_path, until="mix")
    safety = read_header(tmp_path / "mixtures" / "safety.parquet")
    shares = {s["group"]: s["share_rows"] for s in safety.details["shares"] if not s["pool"]}
    assert shares["safety"] == pytest.approx(0.9, abs=1e-3)
    assert read_header(tmp_path / "benchmarks" / "anthropic-helpful.parquet").rows > 2_300
    trained = prompts(tmp_path / "mixtures" / "safety.parquet")
    assert not trained & prompts(tmp_path / "benchmarks" / "anthropic-harmless.parquet")


def test_pitfall_22_a_benchmark_that_was_trained_on_stops_the_run(experiment, tmp_path):
    recipe, _, _ = experiment
    keep = ["data.overlap.ngram_words=50", "data.overlap.exclude=true"]
    work = Workspace(load_recipe(recipe, keep, environment={}), tmp_path)
    trained = tmp_path / "mixture.parquet"
    write_comparisons(trained, [made("Shared?", "yes", "no"), made("Own?", "yes", "no")])
    asked = tmp_path / "asked.parquet"
    write_comparisons(asked, [made("Shared?", "other", "none"), made("New?", "yes", "no")])
    with pytest.raises(PalateError, match="of 2 comparisons 0 were trained on and 1"):
        forbid_overlap(work, {"mixture": trained}, {"mine": asked})


UNSAID = """
name: few
data:
  sources: {help: {source: simulated, options: {weeks: 1, comparisons_per_week: 60}}}
  holdout: {per_batch: 10, sources: [help]}
benchmarks: {held-out: {held_out: [help]}}
mixtures: {all: {all: [help]}}
backbone: {max_tokens: 64, dtype: float32, model: MODEL}
train: {eval_rows: 0, trackers: []}
models: {mine: {mixture: all}}
judges: [longer, mine]
"""


@pytest.fixture(scope="module")
def few(tmp_path_factory) -> tuple[Path, Path, list[str]]:
    """As `experiment`, of a recipe that states nothing of steps and rates."""
    folder = tmp_path_factory.mktemp("few")
    recipe, said = folder / "few.yaml", []
    recipe.write_text(UNSAID.replace("MODEL", str(save_tiny(folder / "tiny", "llama"))))
    run(load_recipe(recipe, environment={}), folder / "run", say=said.append)
    return recipe, folder / "run", said


def trained_with(folder: Path) -> dict:
    return json.loads((folder / "train" / "mine" / OPTIONS).read_text())["train"]


def test_what_a_recipe_does_not_state_follows_from_its_rows_and_is_said(few, tmp_path):
    _, folder, said = few
    rows = read_header(folder / "mixtures" / "all.parquet").rows
    (line,) = [line for line in said if "warm-up" in line]
    assert line.startswith(
        f"  mine: {rows} rows: 21 steps of 8 pairs (3 epochs), 3 of them warm-up"
    )
    assert line.endswith("learning rate 0.0002, head 0.002; set train.pairs_per_step to override")
    kept = trained_with(folder)
    assert (kept["pairs_per_step"], kept["epochs"], kept["learning_rate"]) == (8, 3, 2e-4)
    assert "21 steps of 8 pairs" in (folder / "models" / "mine" / "README.md").read_text()
    saved = load_recipe(folder / "recipe.yaml", environment={}).train_options("mine")
    assert (saved.pairs_per_step, saved.epochs, saved.learning_rate) == (8, 3, 2e-4)
    assert again(few) == ["report"], "the same rows make the same steps"
    other = again((folder / "recipe.yaml", tmp_path, []), until="train")
    assert trained_with(tmp_path) == kept, other


def test_mix_says_the_steps_to_come_and_whether_they_can_teach(few, tmp_path):
    said: list[str] = []
    stated = load_recipe(few[0], ["train.pairs_per_step=512"], environment={})
    run(stated, tmp_path, until="mix", say=said.append)
    assert any("3 steps of 50 pairs (3 epochs)" in line for line in said), said
    assert any("WARNING: only 2 of 3 steps after warm-up" in line for line in said), said


def test_the_report_and_the_card_say_that_nothing_was_taught(few, tmp_path):
    stated = ["train.pairs_per_step=512", "train.epochs=1"]
    run(load_recipe(few[0], stated, environment={}), tmp_path)
    why = "none of 1 step after warm-up"
    assert why in (tmp_path / "tables" / "verdict.md").read_text()
    assert why in (tmp_path / "models" / "mine" / "README.md").read_text()
    assert why not in (few[1] / "tables" / "verdict.md").read_text()


def test_a_training_that_was_begun_keeps_its_own_steps(few, tmp_path):
    """Also one of a release that took the paper's 512 pairs where nothing was stated."""
    recipe, folder, _ = few
    mixture, loaded = folder / "mixtures" / "all.parquet", load_recipe(recipe, environment={})
    options, base = loaded.train_options("mine"), loaded.backbone_options("mine")

    def settled(**stated) -> TrainOptions:
        given = {**options.model_dump(exclude_unset=True), **stated}
        return fill_in("mine", TrainOptions(**given), base, mixture, tmp_path)[0]

    kept = json.loads((folder / "train" / "mine" / OPTIONS).read_text())
    kept["train"]["pairs_per_step"] = 24
    (tmp_path / OPTIONS).write_text(json.dumps(kept))
    assert settled().pairs_per_step == 8, "refused before its first step, so never begun"
    (tmp_path / "metrics.jsonl").write_text("")
    assert settled().pairs_per_step == 24
    assert settled(weight_decay=0.5).pairs_per_step == 8, "other options are another training"
    assert fill_in("mine", options, base, mixture, tmp_path, resume=False)[0].pairs_per_step == 8
    kept["mixture"] = "other rows"
    (tmp_path / OPTIONS).write_text(json.dumps(kept))
    assert settled().pairs_per_step == 8
    (tmp_path / OPTIONS).unlink()
    assert settled().pairs_per_step == 512
    (tmp_path / "experiment.json").write_text('"of other data"')
    assert settled().pairs_per_step == 8


def test_a_training_begun_when_six_layers_learnt_keeps_them_and_its_fingerprint(few, tmp_path):
    """Of the release before a head alone learnt from few rows; whoever begins now has the head."""
    mixture = few[1] / "mixtures" / "all.parquet"
    begun = TrainOptions(
        pairs_per_step=8, epochs=3, warmup_steps_min=3, learning_rate=2e-4, head_learning_rate=2e-3
    )
    base = BaseOptions(layers=6)
    stored = {
        "mixture": read_header(mixture).fingerprint,
        "base": base.model_dump(mode="json"),
        "train": begun.decisive(),
    }
    (tmp_path / OPTIONS).write_text(json.dumps(stored))
    (tmp_path / "metrics.jsonl").write_text("")

    def experiment(folder: Path) -> str:
        options, cut = fill_in("mine", TrainOptions(), BaseOptions(), mixture, folder)
        return digest(plain([cut, options.decisive()]))

    kept = "421c911755c509cd8bc4736a8c06a466"  # As that release gave it.
    assert experiment(tmp_path) == kept
    options, cut = fill_in("mine", TrainOptions(), BaseOptions(), mixture, tmp_path / "new")
    assert (options.trainable, cut.layers) == (Trainable(last_layers=0), 20)
    assert experiment(tmp_path / "new") != kept
    for layers in (4, 6):  # What is stated wins over what was begun with.
        stated = BaseOptions(layers=layers)
        assert fill_in("mine", TrainOptions(), stated, mixture, tmp_path)[1].layers == layers


def test_what_learns_of_few_rows_is_said_and_stated_in_the_recipe_of_the_run(tmp_path):
    """With the embedded base: 20 layers as they are under a head; `mix` trains nothing."""
    said: list[str] = []
    recipe = tmp_path / "few.yaml"
    recipe.write_text(UNSAID.replace(", model: MODEL", ""))
    loaded = load_recipe(recipe, environment={})
    run(loaded, tmp_path / "run", until="mix", say=said.append)
    assert any("the first 20 layers of the backbone as they are" in line for line in said), said
    work = Workspace(loaded, tmp_path / "run")
    settled = settle(work, {"all": tmp_path / "run" / "mixtures" / "all.parquet"})
    again = validate(resolved(settled))
    assert again.train_options("mine").trainable == Trainable(last_layers=0)
    assert again.backbone_options("mine").layers == 20
    assert not follows(again.train_options("mine"), again.backbone_options("mine"))
    assert fingerprinted(loaded)["train"]["trainable"] == "full", "as in the release before"


NAMED = """
name: named
data: {sources: {help: {source: simulated, options: {weeks: 1, comparisons_per_week: 30}}}}
benchmarks:
  rewardbench-2: {named: rewardbench-2, path: rewardbench_2.json, partial: true}
  mine: {named: best-of-k, path: mine.jsonl}
  llmbar: {named: llmbar, path: LLMBar, partial: true}
  pairs: {whole: [help]}
judges: [longer, first]
"""


@pytest.fixture
def named(tmp_path: Path) -> Path:
    """A recipe that asks benchmarks of the field, in their own forms, and of one's own."""
    published.write_rows(tmp_path / "rewardbench_2.json", choices.rows(12))
    own = [
        {"prompt": f"{n} + 1?", "chosen": f"{n + 1}.", "rejected": ["Why?", "No."]}
        for n in range(9)
    ]
    published.write_rows(tmp_path / "mine.jsonl", own)
    pairs = [published.llmbar(label=1 + n % 2, number=n) for n in range(6)]
    published.write_rows(tmp_path / "LLMBar" / "Dataset" / "Natural" / "dataset.json", pairs)
    recipe = tmp_path / "named.yaml"
    recipe.write_text(NAMED)
    return recipe


def test_benchmarks_of_the_field_are_read_judged_and_scored_by_their_own_rule(named, tmp_path):
    said: list[str] = []
    out = run(load_recipe(named, environment={}, data=tmp_path), tmp_path / "run", say=said.append)
    assert "  rewardbench-2: 12 items of RewardBench 2" in said
    assert len(list((out / "verdicts").glob("*.parquet"))) == 8
    table = (out / "tables" / "scores-rewardbench-2.md").read_text()
    assert "Rule: mean of six subsets" in table
    assert "| Longer wins | 50.0" in table
    assert (out / "tables" / "scores-llmbar.md").is_file()
    head = (out / "tables" / "table-7.md").read_text()
    assert "mine (n = 9, chance 33.3 %)" in head
    again: list[str] = []
    run(load_recipe(out / "recipe.yaml", environment={}), out, say=again.append)
    assert [line for line in again if line.endswith(" ...")] == ["report ..."]
    # Another version of its file is read, and judged, again.
    published.write_rows(tmp_path / "rewardbench_2.json", choices.rows(14))
    run(load_recipe(out / "recipe.yaml", environment={}), out, say=(more := list[str]()).append)
    assert "benchmark/rewardbench-2 ..." in more
    assert "judge/longer--rewardbench-2 ..." in more
    assert "judge/longer--mine: unchanged" in more


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("benchmarks.rewardbench-2.partial=false", "Factuality has 6 of 475 items"),
        ("benchmarks.rewardbench-2.path=nowhere.json", "nowhere.json (benchmarks.rewardbench-2)"),
        ("benchmarks.rewardbench-2.named=rewardbench2", "did you mean 'rewardbench-2'"),
        ("benchmarks.rewardbench-2.max_rows=3", "max_rows: rewardbench-2 is scored whole"),
        ("benchmarks.pairs.path=x.json", "path: says more of `named`"),
        ("benchmarks.extra={named: rmb}", "rmb is on no hub"),
    ],
)
def test_what_is_wrong_with_a_benchmark_of_the_field_is_one_line(named, tmp_path, change, said):
    with pytest.raises(PalateError) as caught:
        run(load_recipe(named, [change], environment={}, data=tmp_path), tmp_path / "run")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pitfall_22_items_of_k_that_were_trained_on_leave_the_mixture(named, tmp_path):
    recipe = load_recipe(named, environment={}, data=tmp_path)
    values = merge(
        resolved(recipe),
        {
            "data": {"sources": {"own": {"source": "own", "path": "own.jsonl"}}},
            "mixtures": {"all": {"all": ["own"]}},
        },
    )
    rows = [
        {"prompt": prompt, "chosen": f"yes {n}", "rejected": f"no {n}"}
        for n, prompt in enumerate(["Question 1?", "3 + 1?", "Another one?"])
    ]
    published.write_rows(tmp_path / "own.jsonl", rows)
    run(validate(values), tmp_path / "run", until="mix")
    kept = [c.prompt[0].content for c in read_comparisons(tmp_path / "run/mixtures/all.parquet")]
    assert kept == ["Another one?"]
    trained = tmp_path / "mixture.parquet"
    write_comparisons(trained, [made("3 + 1?", "yes", "no")])
    work = Workspace(recipe, tmp_path / "work")
    path = tmp_path / "run" / "benchmarks" / "mine.parquet"
    with pytest.raises(PalateError, match="of 9 items 0 were trained on and 1"):
        forbid_overlap(work, {"mixture": trained}, {"mine": path})


def test_a_training_is_not_watched_on_items_of_k(named, tmp_path):
    models = "models={m: {mixture: all, eval_sets: [mine]}}"
    with pytest.raises(PalateError, match="mine holds items of K responses, and a training is"):
        load_recipe(named, ["mixtures={all: {all: [help]}}", models], environment={})
