"""What is not stated follows from the rows and the base; what is stated stays."""

from dataclasses import replace
from pathlib import Path

import pytest

from palate.model.options import BaseOptions
from palate.recipe import built_in, load_recipe
from palate.records import write_comparisons
from palate.train.defaults import LEAST_TAUGHT, Course, follow, follows, learnable, trouble
from palate.train.options import LoraOptions, Trainable, TrainOptions
from palate.types import Comparison, Judgement, Message, Ranks


def size(parameters: float):
    return lambda base: int(parameters)


@pytest.mark.parametrize("rows", [60, 100, 300, 1_000, 10_000, 100_000, 3_000_000])
def test_any_number_of_rows_makes_steps_that_teach(rows: int) -> None:
    options, _ = follow(TrainOptions(), BaseOptions(), rows, size(5e7))
    course = Course.of(options, rows)
    assert not course.trouble
    assert course.steps - course.warmup >= LEAST_TAUGHT
    assert options.epochs <= 3


def test_300_rows_make_steps_and_not_one_of_512_pairs_that_warms_up() -> None:
    assert Course.of(TrainOptions(), 300).trouble, "the paper's defaults alone"
    options, base = follow(TrainOptions(), BaseOptions(), 300, size(5e7))
    assert str(Course.of(options, 300)) == (
        "300 rows: 114 steps of 8 pairs (3 epochs), 5 of them warm-up"
    )
    assert (options.trainable, base.layers) == (Trainable(last_layers=0), 20)
    assert (options.learning_rate, options.head_learning_rate) == (5e-4, 5e-3)
    again, _ = follow(TrainOptions(), BaseOptions(), 300, None)
    assert again == options, "plans need no size of the base to agree"


@pytest.mark.parametrize("stated", [{"trainable": "full"}, {"learning_rate": 2e-4}])
def test_who_says_how_layers_learn_has_the_first_six_learn(stated) -> None:
    options, base = follow(TrainOptions(**stated), BaseOptions(), 300, size(5e7))
    assert (options.trainable, base.layers, options.epochs) == ("full", 6, 1)
    assert options.learning_rate == 2e-4
    head = options.head_learning_rate
    assert head == (2e-3 if "trainable" in stated else None)


def test_layers_follow_from_the_rows_and_a_base_that_is_stated_keeps_its_own() -> None:
    def layers(rows: int, base: BaseOptions) -> tuple[int | None, bool]:
        options, cut = follow(TrainOptions(), base, rows, size(5e7))
        return cut.layers, options.trainable == "full"

    rows = (100, 2_000, 2_001, 10_000, 10_001)
    expected = [(20, False), (20, False), (6, True), (6, True), (None, True)]
    assert [layers(n, BaseOptions()) for n in rows] == expected
    assert layers(300, BaseOptions(layers=4)) == (4, True)
    assert layers(300, BaseOptions(model="smollm2")) == (None, True)


def test_millions_of_rows_have_the_papers_steps() -> None:
    options, base = follow(TrainOptions(), BaseOptions(), 3_000_000, size(7e9))
    assert (options.pairs_per_step, options.epochs, options.learning_rate) == (512, 1, 1e-5)
    assert (options.warmup_steps_min, base.layers) == (5, None)
    assert follow(TrainOptions(), BaseOptions(), 3_000_000, size(7e10))[0].learning_rate == 5e-6


def test_what_is_stated_stays() -> None:
    stated = {"pairs_per_step": 512, "epochs": 1, "warmup_steps_min": 5, "learning_rate": 1e-5}
    options, base = TrainOptions(**stated), BaseOptions(model="smollm2")
    assert not follows(options, base)
    assert follow(options, base, 300, size(5e7)) == (options, base)
    assert follow(options, base, 300, size(5e7))[0].head_learning_rate is None
    one, _ = follow(TrainOptions(pairs_per_step=32), base, 300, None)
    assert (one.pairs_per_step, one.epochs) == (32, 3), "the rest follows from what is stated"
    assert follow(options, BaseOptions(layers=2), 300, None)[1].layers == 2


def test_adapters_take_their_own_rate_and_rates_wait_for_a_size() -> None:
    lora = TrainOptions(trainable=Trainable(lora=LoraOptions()))
    assert follow(lora, BaseOptions(), 300, size(7e9))[0].learning_rate == 1e-4
    assert follow(TrainOptions(), BaseOptions(model="smollm2"), 300, None)[0].learning_rate == 1e-5


@pytest.mark.parametrize("name", built_in())
def test_the_recipes_that_come_with_palate_state_everything(name: str) -> None:
    recipe = load_recipe(name, environment={})
    for model in recipe.models:
        assert not follows(recipe.train_options(model), recipe.backbone_options(model))


def test_too_few_steps_are_said_with_the_cure() -> None:
    assert trouble(1, 0).startswith("none of 1 step after warm-up")
    assert "train.pairs_per_step" in trouble(14, LEAST_TAUGHT - 1)
    assert trouble(15, LEAST_TAUGHT) == ""
    assert Course.of(follow(TrainOptions(), BaseOptions(), 12, None)[0], 12).trouble


def test_ties_and_rankings_count_in_the_course(tmp_path: Path) -> None:
    """Ties are no rows of the ranking loss; a step has room for the longest ranking."""
    row = Comparison("0", "made", (Message("user", "x"),), "a", "b", "p")
    ranked = [replace(row, ranks=Ranks("r", 0, k + 1)) for k in range(10)]
    tie = replace(row, judgement=Judgement(chosen=0, tie=1))
    write_comparisons(tmp_path / "m.parquet", [row, tie, *ranked])
    assert learnable(tmp_path / "m.parquet", "ranking") == (11, 10)
    assert learnable(tmp_path / "m.parquet", "davidson") == (12, 10)
    write_comparisons(tmp_path / "m.parquet", [row, row])
    assert learnable(tmp_path / "m.parquet", "ranking") == (2, 0)
    assert follow(TrainOptions(), BaseOptions(), 11, None, together=10)[0].pairs_per_step == 10
    stated = TrainOptions(pairs_per_step=4)
    assert follow(stated, BaseOptions(), 11, None, together=10)[0].pairs_per_step == 4
