"""`palate plan`: whether it fits, how long it lasts, and what to do."""

import json
from pathlib import Path

import pytest

from command import one_line, palate
from palate.cli.plan import number
from palate.recipe import load_recipe
from palate.recipe.forecast import Amounts, Machines, forecast
from palate.records import write_comparisons
from palate.train.dataset import tokenise
from palate.types import PalateError
from tiny import save_tiny, tiny_config
from train.test_dataset import CHAT, comparison

FULL = "train.compute.activation_checkpointing=full"
BIG = ["--shape", "llama2-70b", "--comparisons", "3M", "--tokens-per-comparison", "600"]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    save_tiny(tmp_path / "model", "llama")
    path = tmp_path / "small.yaml"
    path.write_text(f"""
data: {{sources: {{week-1: {{source: own, path: {tmp_path}/mine.jsonl}}}}}}
mixtures: {{all: {{all: [week-1]}}}}
backbone: {{model: {tmp_path}/model, template: chatml, dtype: float32}}
train: {{pairs_per_step: 8}}
models: {{one: {{mixture: all}}}}
""")
    return path


@pytest.mark.parametrize(
    ("text", "value"), [("600", 600), ("3M", 3e6), ("80G", 80e9), ("2.5k", 2_500)]
)
def test_numbers_have_units(text: str, value: float) -> None:
    assert number(text) == value


@pytest.mark.parametrize("text", ["", "M", "3X", "many"])
def test_a_number_that_is_none_is_one_line(text: str) -> None:
    with pytest.raises(PalateError, match="expected a number such as"):
        number(text)


def test_what_fits_is_exit_code_0_and_what_does_not_is_1_with_a_cure_that_is_true(tmp_path) -> None:
    ask = ["plan", "llama2-full", "--format", "json", *BIG]
    small = palate(*ask, "--gpus", 8, cwd=tmp_path)
    assert small.returncode == 1
    assert small.stderr == ""
    for row in json.loads(small.stdout):
        assert not row["fits"]
        assert row["total_bytes"] > row["capacity_bytes"] == 80e9
        assert row["cures"] == [f"32 GPUs and {FULL}"]
    large = palate(*ask, "--gpus", 32, "--set", FULL, cwd=tmp_path)
    assert large.returncode == 0
    for row in json.loads(large.stdout):
        assert row["total_bytes"] == sum(row["parts_bytes"].values()) <= row["capacity_bytes"]
        assert row["hours"] > 0
        assert row["comparisons"] == 3_000_000


def test_steps_follow_from_the_rows_and_too_few_are_named(tmp_path, recipe) -> None:
    ask = ["plan", recipe, "--tokens-per-comparison", 100, "--format", "json", "--comparisons"]
    (row,) = json.loads(palate(*ask, 300, cwd=tmp_path).stdout)
    assert (row["steps"], row["warmup_steps"], row["warning"]) == (38, 4, None)
    (row,) = json.loads(palate(*ask, 16, cwd=tmp_path).stdout)
    assert row["steps"] == 6, "two steps an epoch, three epochs"
    assert row["warning"].startswith("only 5 of 6 steps after warm-up, too few to teach")


def test_a_table_says_so_in_words(tmp_path, recipe) -> None:
    done = palate("plan", recipe, *BIG[2:], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "\nFITS: " in done.stdout
    assert "not known: add --measure" in done.stdout
    done = palate("plan", "llama2-full", *BIG, "--gpus", 8, cwd=tmp_path)
    assert "DOES NOT FIT" in done.stdout
    assert "cure: " in done.stdout


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_this_machine_is_measured_where_asked_in_the_recipes_format(
    dtype: str, tmp_path, recipe
) -> None:
    words = ["--measure", "--format", "json", "--set", f"backbone.dtype={dtype}"]
    done = palate("plan", recipe, *BIG[2:], *words, cwd=tmp_path)
    (row,) = json.loads(done.stdout)
    assert row["dtype"] == dtype
    assert row["rate_flops"] > 0
    assert row["hours"] > 0
    assert row["utilisation"] == 1.0


def test_without_data_or_numbers_it_says_which(tmp_path, recipe) -> None:
    line = one_line(palate("plan", recipe, cwd=tmp_path))
    assert "palate mix" in line
    assert "--comparisons" in line


def test_the_shape_can_be_a_folder_with_a_configuration_alone(tmp_path, recipe) -> None:
    tiny_config("qwen2").save_pretrained(tmp_path / "shape")
    done = palate("plan", recipe, "--shape", tmp_path / "shape", *BIG[2:], "--format", "json")
    (row,) = json.loads(done.stdout)
    assert row["parameters"] == 82_080


def test_tokens_are_counted_once_there_are_any(tmp_path, recipe) -> None:
    write_comparisons(tmp_path / "rows.parquet", map(comparison, range(20)))
    out = tmp_path / "run"
    examples = tokenise(tmp_path / "rows.parquet", CHAT, out / "train/one/tokens/mixture.arrow")
    found = forecast(load_recipe(recipe), "one", out, Machines(0), Amounts())
    assert found.data.comparisons == len(examples)
    assert found.data.tokens == pytest.approx(examples.lengths().sum(1).mean())
    assert found.data.prompt == pytest.approx(examples.lengths()[:, 0].mean())
    assert found.hours is None


def test_members_that_are_trained_one_after_another_take_as_long_as_all_of_them(
    tmp_path, recipe
) -> None:
    cpu, stated = Machines(0, rate=1e9), Amounts(comparisons=1_000, tokens=60.0)
    found = {}
    for name, changes in (
        ("one", []), ("heads", ["train.ensemble=3"]),
        ("seeds", ["train.ensemble.members=3", "train.ensemble.of=seeds"]),
    ):  # fmt: skip
        loaded = load_recipe(recipe, ["train.epochs=1", *changes])
        found[name] = forecast(loaded, "one", tmp_path, cpu, stated)
    assert found["seeds"].hours == pytest.approx(3 * found["one"].hours)
    assert found["heads"].hours == pytest.approx(found["one"].hours, rel=0.01)
    learns = [*changes, "train.epochs=1", "train.trainable.last_layers=0"]
    kept = forecast(load_recipe(recipe, learns), "one", tmp_path, cpu, stated)
    assert kept.keeps, "of one epoch a model alone would keep nothing"
    assert kept.hours < 1.5 * found["one"].hours
