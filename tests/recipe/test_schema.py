"""What a study may vary, and the ordinary recipes it becomes."""

import pytest

from palate.recipe import load_recipe, resolved
from palate.types import PalateError

RECIPE = """
name: mine
seed: 5
data:
  sources: {mine: {source: own, path: mine.jsonl}}
  holdout: {per_batch: 10, sources: [mine]}
benchmarks: {held-out: {held_out: [mine]}}
mixtures: {all: {all: [mine]}}
models: {m: {mixture: all, train: {seed: 9}}}
judges: [longer, m]
study:
  vary:
    size: {small: {backbone.layers: 2}, large: {backbone.layers: 4}}
    data: {half: {fraction: 0.5}, whole: {fraction: 1}}
  seeds: [3, 4]
"""


@pytest.fixture
def path(tmp_path):
    (tmp_path / "mine.yaml").write_text(RECIPE)
    return tmp_path / "mine.yaml"


def test_variants_are_all_combinations_of_levels(path):
    study = load_recipe(path).study
    assert [v.name for v in study.variants()] == [
        "small, half", "small, whole", "large, half", "large, whole",
    ]  # fmt: skip
    assert next(v.folder for v in study.variants()) == "small--half"
    assert study.compared_with() == {"size": "small", "data": "half"}
    assert study.data_axis() == "data"
    assert "4 variants x 2 seeds = 8 runs" in study.explained()


def test_a_variant_is_an_ordinary_recipe_that_differs_in_what_it_sets(path):
    recipe = load_recipe(path)
    one = recipe.varied(recipe.study.variants()[2], 4)
    assert one.study is None
    assert one.name == "mine-large--half-seed-4"
    assert one.backbone_options("m").layers == 4
    assert (one.seed, one.train_options("m").seed) == (5, 4), "the data's seed stays"
    subset = one.mixtures["all"].subset
    assert (subset.fraction, subset.rows, subset.seed) == (0.5, None, 4)
    assert (one.data, one.benchmarks) == (recipe.data, recipe.benchmarks)


def test_levels_may_be_nested_and_are_laid_over_the_recipe(path):
    nested = "{a: {backbone: {layers: 2}, train: {epochs: 2}}, b: {backbone.layers: 3}}"
    clean = ["study.vary.size=null", "study.vary.data=null", "backbone.max_tokens=64"]
    recipe = load_recipe(path, [*clean, f"study.vary.size={nested}"])
    first, second = (recipe.varied(variant, 3) for variant in recipe.study.variants())
    assert (first.train.epochs, first.backbone.layers, first.backbone.max_tokens) == (2, 2, 64)
    assert (second.train.epochs, second.backbone.layers) == (1, 3)
    assert second.mixtures["all"].subset is None


def test_an_amount_is_of_the_mixture_that_the_variant_trains_on(path):
    swap = "study.vary.size.small.models.m.mixture=part"
    recipe = load_recipe(path, ["mixtures.part={all: [mine], max_rows: {mine: 5}}", swap])
    mixtures = recipe.varied(recipe.study.variants()[0], 3).mixtures
    assert mixtures["part"].subset.fraction == 0.5
    assert mixtures["all"].subset is None


def test_a_study_is_saved_and_read_again(path, tmp_path):
    from palate.recipe import save_recipe

    recipe = load_recipe(path)
    save_recipe(recipe, tmp_path / "again.yaml")
    assert resolved(load_recipe(tmp_path / "again.yaml")) == resolved(recipe)


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("study.varry={}", "study.varry: unknown key; did you mean 'vary'"),
        ("study.vary.size.small.trian.epochs=2", "vary.size.small: no 'trian'; did you mean"),
        ("study.vary.size.small.train.epoch=2", "small, half: train.epoch: unknown key; did you"),
        ("study.vary.size.small.base.layers=0", "small, half: backbone.layers: "),
        ("study.vary.size.small.benchmarks={a: 1}", "benchmarks cannot vary"),
        ("study.vary.size.small.train=5", "train has keys of its own; say train.KEY"),
        ("study.vary.size.small={backbone.layers: null}", "vary.size.small: sets nothing"),
        ("study.vary.data.half.rows=3", "exactly one of fraction and rows"),
        ("study.vary.size.large={backbone.layers: 2}", "'small, half' and 'large, half' train the"),
        ("study.vary={size: {large: null}, data: null}", "one variant compares nothing"),
        (
            "study.vary.size={'a b': {backbone.layers: 2}, a-b: {backbone.layers: 3}}",
            "share the folder",
        ),
        ("study.seeds=[1, 1]", "seeds: [1, 1] has a seed twice"),
        ("study.seeds=[]", "study.seeds: "),
        ("study.baseline=small", "several axes"),
        ("study.baseline={sise: small}", "baseline: no 'sise'; did you mean 'size'"),
        ("study.baseline={size: smal}", "baseline.size: no 'smal'; did you mean 'small'"),
        ("study.paper=table-9", "study.paper: "),
    ],
)
def test_a_mistake_is_one_line_with_its_key_and_its_cure(path, assignment, expected):
    # What --set lays on a level joins it; these replace it.
    first = ["study.vary.size.small=null"] if "={backbone.layers: null}" in assignment else []
    with pytest.raises(PalateError) as caught:
        load_recipe(path, [*first, assignment])
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_what_a_model_overrides_itself_cannot_be_varied_in_silence(path):
    same = "study.vary={epochs: {one: {train.epochs: 1}, two: {train.epochs: 2}}}"
    own = ["study.vary.size=null", "study.vary.data=null", same, "models.m.train.epochs=3"]
    with pytest.raises(PalateError, match=r"'one' and 'two' train the same; .*models\.NAME"):
        load_recipe(path, own)


def test_a_study_without_a_model_says_so(path):
    with pytest.raises(PalateError, match="trains no model"):
        load_recipe(path, ["models=null", "judges=[longer]"])
