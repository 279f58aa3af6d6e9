"""A recipe: reading, laying one on another, and telling mistakes in one line."""

import json
from pathlib import Path

import pytest
import yaml

from palate.data.sources.files import locate
from palate.recipe import built_in, load_recipe, resolved, save_recipe, schema
from palate.recipe.schema import SourceConfig, fingerprinted
from palate.recipe.yaml import merge, read
from palate.types import PalateError, digest

SMALL = {
    "data": {
        "sources": {"mine": {"source": "own", "path": "mine.jsonl"}},
        "holdout": {"per_batch": 10, "sources": ["mine"]},
    },
    "benchmarks": {"held-out": {"held_out": ["mine"]}},
    "mixtures": {"all": {"all": ["mine"]}},
    "models": {"m": {"mixture": "all", "eval_sets": ["held-out"]}},
    "judges": ["random", "longer", "m"],
}


def write(path: Path, value: object) -> Path:
    path.write_text(value if isinstance(value, str) else yaml.safe_dump(value))
    return path


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write(tmp_path / "small.yaml", SMALL)


def test_merge_joins_mappings_replaces_the_rest_and_null_takes_away():
    under = {"a": {"x": 1, "y": 2}, "b": [1, 2], "c": 3}
    over = {"a": {"y": 5}, "b": [9], "c": None}
    assert merge(under, over) == {"a": {"x": 1, "y": 5}, "b": [9]}


def test_override_reads_yaml_values_in_order():
    result = read({"a": {"b": 1}}, ["a.b=2", "a.c=[x, y]", "d.e=1e-5", "a.b=3"])
    assert result == {"a": {"b": 3, "c": ["x", "y"]}, "d": {"e": 1e-5}}


@pytest.mark.parametrize("text", ["a", "=3", "a..b=1", "a=[1"])
def test_a_malformed_override_is_one_line(text):
    with pytest.raises(PalateError, match="--set"):
        read({}, [text])


def test_extends_a_file_beside_it_and_keeps_its_own_name(tmp_path, small):
    child = write(tmp_path / "child.yaml", {"extends": "small.yaml", "train": {"epochs": 2}})
    recipe = load_recipe(child)
    assert (recipe.name, recipe.train.epochs) == ("child", 2)
    assert recipe.models["m"].mixture == "all"


def test_extends_in_a_circle_says_so(tmp_path):
    write(tmp_path / "a.yaml", "extends: b.yaml")
    write(tmp_path / "b.yaml", "extends: a.yaml")
    with pytest.raises(PalateError, match="circle"):
        read(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("train.epoch=2", "train.epoch: unknown key; did you mean 'epochs'"),
        ("trian.epochs=2", "trian: unknown key; did you mean 'train'"),
        ("data.sources.mine.pth=x", "data.sources.mine.pth: unknown key; did you mean 'path'"),
        ("train.trainable.last_layer=2", "last_layer: unknown key; did you mean 'last_layers'"),
        ("models.m.train.learning_rat=1", "models.m.train: learning_rat: unknown key"),
        (
            "models.m.backbone.max_token=9",
            "models.m.backbone: max_token: unknown key; did you mean",
        ),
        ("models.m.mixture=al", "models.m.mixture: no 'al'; did you mean 'all'"),
        ("judges=[longr]", "judges: no 'longr'; did you mean 'longer'"),
        ("train.learning_rate=fast", "train.learning_rate: "),
        ("train.epochs=0", "train.epochs: Input should be greater than or equal to 1, got 0"),
        ("data.holdout.sources=[]", "nothing is held out of 'mine'"),
        ("benchmarks.held-out.file=x", "name exactly one of held_out, whole, file"),
        ("data.holdout.fractions.other=0.5", "no 'other'"),
        ("train.trainable={last_layers:2}", "write 'last_layers: 2', with a space after the colon"),
    ],
)
def test_a_mistake_is_one_line_with_its_key_and_its_cure(small, assignment, expected):
    with pytest.raises(PalateError) as caught:
        load_recipe(small, [assignment])
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: x\n  data: 3", "broken.yaml:2: not YAML"),
        ("- a\n- b", "expected keys and values, got list"),
        ("seed: 1\nseed: 2", "broken.yaml:2: 'seed' is given twice"),
        ("seed: 1\ntrain: {epochs:2}", "broken.yaml:2: 'epochs:2' is one word of YAML"),
        ("name: !!python/object/apply:os.system [ls]", "not YAML"),
        ("", "expected keys and values, got an empty file"),
        ("name: x\ndata: {sources: {a: {source: owm}}}",
         "recipe x: data.sources.a.source: no source 'owm'; did you mean 'own'?"),
        ("name: x\ndata: {sources: {a: {source: own}}}\nmodels: {m: {mixture: al}}",
         "recipe x: models.m.mixture: no 'al'"),
    ],
)  # fmt: skip
def test_a_broken_file_is_one_line_with_its_place(tmp_path, text, expected):
    with pytest.raises(PalateError, match=r"^[^\n]*$") as caught:
        load_recipe(write(tmp_path / "broken.yaml", text))
    assert expected in str(caught.value)


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(PalateError, match="did you mean 'llama2'"):
        load_recipe("lama2")


def test_resolved_makes_the_same_recipe_again(tmp_path, small):
    recipe = load_recipe(small, ["seed=7", "train.margin={significantly: 2.0}"])
    save_recipe(recipe, tmp_path / "again.yaml")
    again = load_recipe(tmp_path / "again.yaml")
    assert resolved(again) == resolved(recipe)
    assert again.train_options("m") == recipe.train_options("m")


def test_the_recipes_seed_trains_unless_a_model_has_its_own(tmp_path, small):
    assert load_recipe(small, ["seed=7"]).train_options("m").seed == 7
    assert load_recipe(small, ["seed=7", "train.seed=8"]).train_options("m").seed == 8
    assert load_recipe(small, ["seed=7", "models.m.train.seed=9"]).train_options("m").seed == 9
    save_recipe(load_recipe(small, ["seed=7"]), tmp_path / "again.yaml")
    assert load_recipe(tmp_path / "again.yaml", ["seed=3"]).train_options("m").seed == 3


def test_a_models_overrides_lie_over_the_shared_ones(small):
    recipe = load_recipe(small, ["train.epochs=2", "models.m.train.clip_norm=0.5"])
    assert (recipe.train_options("m").epochs, recipe.train_options("m").clip_norm) == (2, 0.5)


def test_the_data_root_given_wins_over_the_environment(tmp_path, small):
    assert load_recipe(small, data=tmp_path, environment={"PALATE_DATA": "/x"}).data.root == str(
        tmp_path
    )
    assert load_recipe(small, environment={"PALATE_DATA": "/x"}).data.root == "/x"
    assert load_recipe(small, environment={}).data.root is None


def test_a_data_root_that_is_not_there_stops_the_run_instead_of_asking_the_hub(tmp_path):
    for path, folder in ((None, "anthropic_hh"), ("mine.jsonl", None)):
        with pytest.raises(PalateError, match="no such data folder"):
            locate(path, folder, str(tmp_path / "nowhere"))
    assert locate(None, None, str(tmp_path / "nowhere")) is None, "a simulated source reads nothing"
    assert locate(None, "anthropic_hh", str(tmp_path)) is None, "the hub, where the root lacks it"


@pytest.mark.parametrize("name", built_in())
def test_every_built_in_recipe_is_valid_and_describes_itself(name):
    recipe = load_recipe(name, environment={})
    assert recipe.name == name
    assert recipe.description
    assert recipe.models
    assert set(recipe.models) <= {j for j in recipe.judges if isinstance(j, str)}


def test_the_papers_hyper_parameters_are_the_defaults(small):
    train = load_recipe(small).train
    assert (train.epochs, train.pairs_per_step, train.learning_rate) == (1, 512, 1e-5)
    assert (train.adam_beta1, train.adam_beta2, train.adam_epsilon) == (0.9, 0.95, 1e-5)
    assert (train.weight_decay, train.clip_norm, train.warmup_fraction) == (0.1, 1.0, 0.03)
    assert (train.warmup_steps_min, train.final_lr_fraction) == (5, 0.1)


def test_the_schema_is_json_and_knows_the_nested_keys():
    text = json.dumps(schema())
    for key in ("extends", "pairs_per_step", "held_out", "max_bad_share", "last_layers"):
        assert f'"{key}"' in text


def test_on_and_off_are_names_not_booleans(tmp_path, small):
    child = write(
        tmp_path / "c.yaml", "extends: small.yaml\ntrain: {safety_loss: {weight: 1, on: head}}"
    )
    assert load_recipe(child).train.safety_loss.on == "head"
    assert load_recipe(small, ["train.safety_loss={on: head}"]).train.safety_loss.on == "head"


# Keys that were renamed: the old word is read wherever a recipe is, with one warning.

OLD = {
    "name": "small",
    "data": {
        "sources": {"mine": {"source": "own", "path": "mine.jsonl"}},
        "holdout": {"halves": {"mine": 0.5}},
    },
    "benchmarks": {"held-out": {"held_out": ["mine"]}},
    "mixtures": {"all": {"all": ["mine"]}},
    "base": {"model": "tiny", "layers": 2},
    "models": {"m": {"mixture": "all", "watch": ["held-out"], "base": {"max_tokens": 64}}},
    "judges": ["longer", "m"],
    "study": {
        "vary": {
            "size": {
                "one": {"base.layers": 1},
                "two": {"models": {"m": {"base": {"layers": 2}}}},
            }
        }
    },
}
WARNING = "`base` is now `backbone`, `halves` is now `fractions`, `watch` is now `eval_sets`"


def test_old_words_are_read_everywhere_with_one_warning(tmp_path, caplog):
    recipe = load_recipe(write(tmp_path / "old.yaml", OLD), ["models.m.base.layers=3"])
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / 'old.yaml'}: {WARNING}; the old word still works"
    ]
    assert recipe.data.holdout.fractions == {"mine": 0.5}
    assert recipe.models["m"].eval_sets == ("held-out",)
    assert recipe.backbone.layers == 2
    options = recipe.backbone_options("m")
    assert (options.model, options.layers, options.max_tokens) == ("tiny", 3, 64)
    one, two = recipe.study.variants()
    assert (one.changes, two.changes) == (
        ({"backbone.layers": 1},),
        ({"models": {"m": {"backbone": {"layers": 2}}}},),
    )
    assert recipe.varied(one, 0).backbone.layers == 1
    save_recipe(recipe, tmp_path / "resolved.yaml")
    caplog.clear()
    assert resolved(load_recipe(tmp_path / "resolved.yaml")) == resolved(recipe)
    assert not caplog.records, "what is written has today's words"


def test_a_recipe_extends_one_of_either_wording(tmp_path, caplog):
    write(tmp_path / "old.yaml", OLD)
    mine = {"extends": "old.yaml", "backbone": {"layers": 5}, "models": {"m": {"eval_sets": []}}}
    recipe = load_recipe(write(tmp_path / "mine.yaml", mine), ["base.revision=main"])
    assert (recipe.backbone.model, recipe.backbone.layers) == ("tiny", 5)
    assert (recipe.backbone.revision, recipe.models["m"].eval_sets) == ("main", ())
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("both", "message"),
    [
        ({"backbone": {}}, "backbone is given under its old word too; keep backbone"),
        ({"models": {"m": {"watch": [], "eval_sets": []}}}, "eval_sets is given under its old"),
        ({"data": {"holdout": {"halves": {}, "fractions": {}}}}, "fractions is given under its"),
        (
            {"study": {"vary": {"a": {"b": {"base.layers": 1, "backbone.layers": 2}}}}},
            "backbone.layers is given under its old",
        ),
    ],
)
def test_both_words_at_once_are_an_error_in_one_line(tmp_path, both, message):
    path = write(tmp_path / "both.yaml", OLD | both)
    with pytest.raises(PalateError, match=rf"^{path}: {message}[^\n]*$"):
        load_recipe(path)


def test_a_name_of_ones_own_is_no_key():
    named = {"models": {"base": {"mixture": "watch"}}, "data": {"sources": {"halves": {"base": 1}}}}
    assert read(named) == named


def test_fingerprints_do_not_change_with_the_words(caplog):
    """Of the commit before the keys were renamed: a run of before goes on."""
    recipe = load_recipe(OLD, environment={})
    one, two = recipe.study.variants()
    assert digest(fingerprinted(recipe)) == "efba463dfd2d7944cddd5340277a82e3"
    assert digest(fingerprinted(recipe.varied(one, 0))) == "ca15bf59667f8eb13afe650714e7ee21"
    assert digest(fingerprinted(recipe.varied(two, 0))) == "a6700f01ed99d8724213c9804de6b00a"
    # The demo as it was before its model was an ensemble that is asked for the best of many.
    before = ["models.helpfulness.ensemble=null", "over_optimisation=null"]
    assert digest(fingerprinted(load_recipe("demo", before, environment={}))) == (
        "3cf2311485959acf8ff9c546068a3551"
    )
    assert digest(fingerprinted(load_recipe("demo", environment={}))) == (
        "e482291554a323e4f005d872f51310f3"
    )


def test_later_keys_of_a_source_are_written_where_they_say_something():
    plain = SourceConfig(source="own", path="a.csv")
    assert plain.model_dump() == {
        "source": "own", "path": "a.csv", "subset": None, "split": None, "options": {},
        "batch": None,
    }  # fmt: skip
    values = {"columns": {"prompt": "q"}, "values": {"1": "a"}, "ties": "keep"}
    said = SourceConfig.model_validate({"source": "own", "path": "a.csv"} | values)
    assert said.model_dump() == plain.model_dump() | values
    assert SourceConfig.model_validate(said.model_dump()) == said


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"columns": {"promt": "q"}}, "columns: no role 'promt'; did you mean 'prompt'"),
        ({"columns": {"winner": "w"}, "values": {"x": "y"}}, "values: x means 'y', expected one"),
        ({"source": "shp", "columns": {"prompt": "q"}}, "shp has its own"),
        ({"ties": "drop"}, "Input should be 'skip' or 'keep'"),
    ],
)
def test_a_wrong_mapping_is_named_before_anything_is_read(source, message):
    values = {"name": "x", "data": {"sources": {"mine": {"source": "own"} | source}}}
    with pytest.raises(PalateError, match=rf"data\.sources\.mine[^\n]*{message}"):
        load_recipe(values, environment={})
