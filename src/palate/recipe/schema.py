"""What a recipe may say. A recipe is the experiment: validated, frozen, saved with the results."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import product
from types import NoneType, UnionType
from typing import Any, Literal, Self, TypeVar, Union, get_args, get_origin

from pydantic import (
    BaseModel,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic.fields import FieldInfo

from palate.data.annotators import Rule
from palate.data.benchmarks import benchmark_named
from palate.data.mixture import MixtureSpec
from palate.data.sources import source_named
from palate.data.sources.mapping import check, words
from palate.evaluate.benchmark import OrderPlan
from palate.evaluate.run import slug
from palate.model.options import BaseOptions
from palate.recipe.yaml import FIRST_NAMES, merge, nested, rename_keys
from palate.train.defaults import FOLLOWING
from palate.train.options import Ensemble, TrainOptions
from palate.types import PalateError, digest
from palate.validation import explain, refuse_unknown

# What a study varies: named levels of one or more axes, and the trainings of each.

AMOUNTS = ("fraction", "rows")
"""Short for the `subset` of the mixture that each model is trained on."""
VARIES = ("backbone", "train", "models", "mixtures", *AMOUNTS)
Level = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Variant:
    """One level of each axis, and what they change in the recipe, in order."""

    levels: Mapping[str, str]
    changes: tuple[Level, ...]

    @property
    def name(self) -> str:
        """Its levels in the order of the axes: `small`, or `2 layers, quarter`."""
        return ", ".join(self.levels.values())

    @property
    def folder(self) -> str:
        """Its name as a folder's."""
        return "--".join(map(slug, self.levels.values()))


class StudyConfig(BaseModel, frozen=True, extra="forbid"):
    """One recipe, varied: every level of every axis with every seed is a run of its own."""

    vary: dict[str, dict[str, dict[str, Any]]] = Field(
        description="Axis to level to what it sets, as after --set: {train.margin: small}; "
        "`fraction` and `rows` say how much of the models' mixtures is trained on."
    )
    seeds: tuple[int, ...] = Field(
        (0, 1, 2), min_length=1, description="Of training, and of what `fraction` and `rows` keep."
    )
    baseline: str | dict[str, str] | None = Field(
        None, description="Level of each axis to compare with; default: the first of each."
    )
    paper: Literal["table-28"] | None = Field(
        None, description="The paper's table whose figures stand beside."
    )

    @model_validator(mode="after")
    def _is_sound(self) -> Self:
        for axis, levels in self.vary.items():
            for level, said in levels.items():
                _check_level(f"vary.{axis}.{level}", said)
        if len(self.variants()) < 2:
            raise ValueError("vary: one variant compares nothing; name another level")
        folders = [variant.folder for variant in self.variants()]
        if twice := [name for name in folders if folders.count(name) > 1]:
            raise ValueError(f"vary: two variants would share the folder {twice[0]}; rename")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: {list(self.seeds)} has a seed twice")
        self.compared_with()
        return self

    def variants(self) -> list[Variant]:
        """Every combination of levels, the last axis fastest."""
        return [
            Variant(dict(zip(self.vary, names, strict=True)), self._changes(names))
            for names in product(*self.vary.values())
        ]

    def _changes(self, names: Iterable[str]) -> tuple[Level, ...]:
        return tuple(self.vary[axis][name] for axis, name in zip(self.vary, names, strict=True))

    def compared_with(self) -> dict[str, str]:
        """The level of each axis that makes the baseline."""
        said = self.baseline or {}
        if isinstance(said, str):
            if len(self.vary) > 1:
                raise ValueError("baseline: several axes; say {axis: level} for each")
            said = dict.fromkeys(self.vary, said)
        for axis, level in said.items():
            refuse_unknown("baseline", (axis,), self.vary)
            refuse_unknown(f"baseline.{axis}", (level,), self.vary[axis])
        return {axis: said.get(axis, next(iter(levels))) for axis, levels in self.vary.items()}

    def explained(self) -> str:
        """What will be run, a line a variant."""
        variants, seeds = self.variants(), self.seeds
        baseline = ", ".join(self.compared_with().values())
        said = [
            f"{v.name}: " + ", ".join(f"{k}={x}" for level in v.changes for k, x in level.items())
            for v in variants
        ]
        head = f"{len(variants)} variants x {len(seeds)} seeds = {len(variants) * len(seeds)} runs"
        return "\n".join([f"A study of {head}, each compared with {baseline!r}:", *said])

    def data_axis(self) -> str | None:
        """The axis whose levels are amounts of data, or None."""
        amounts = (
            axis
            for axis, levels in self.vary.items()
            if all(set(said) & set(AMOUNTS) for said in levels.values())
        )
        return next(amounts, None)


def _check_level(where: str, said: Level) -> None:
    if not said:
        raise ValueError(
            f"{where}: sets nothing; give the value itself (null in a recipe takes a key away)"
        )
    for key, value in said.items():
        root, dot, _ = key.partition(".")
        if root in ("data", "benchmarks", "judges", "judging", "seed", "study"):
            raise ValueError(
                f"{where}: {key} cannot vary, for all variants are asked the same questions; "
                f"vary {', '.join(VARIES)}"
            )
        refuse_unknown(where, (root,), VARIES)
        if root not in AMOUNTS and not dot and not isinstance(value, Mapping):
            raise ValueError(f"{where}: {key} has keys of its own; say {key}.KEY: {value!r}")


def applied(recipe: Mapping[str, Any], variant: Variant, seed: int) -> dict[str, Any]:
    """A recipe's dictionary without its study, as one variant with one seed has it."""
    values = {key: value for key, value in recipe.items() if key != "study"}
    said = [(key, value) for level in variant.changes for key, value in level.items()]
    amounts = {key: value for key, value in said if key in AMOUNTS}
    others = (nested(key.split("."), value) for key, value in said if key not in AMOUNTS)
    values = reduce(merge, others, values)
    if amounts:  # Of the mixtures that the models have by now.
        mixtures = {model["mixture"] for model in values["models"].values()}
        values = merge(values, {"mixtures": {name: {"subset": amounts} for name in mixtures}})
    values["name"] = f"{values['name']}-{variant.folder}-seed-{seed}"
    return _seeded(values, seed)


def _seeded(values: dict[str, Any], seed: int) -> dict[str, Any]:
    """The seed decides how every model is trained and which part of a mixture it sees."""
    values = merge(values, {"train": {"seed": seed}})
    for name in values["models"]:  # Null takes the model's own seed away.
        values = merge(values, {"models": {name: {"train": {"seed": None}}}})
    for name, mixture in values["mixtures"].items():
        if isinstance(mixture, Mapping) and mixture.get("subset"):
            values = merge(values, {"mixtures": {name: {"subset": {"seed": seed}}}})
    return values


Options = TypeVar("Options", bound=BaseModel)
TRIVIAL_JUDGES = ("random", "longer", "shorter", "first")
# In the place of the paper's GPT-4, which ended on 2026-10-23: a snapshot with no end announced in
# openai 3.57.0. Models that reason take no temperature, and their reasoning counts as answer.
CHAT_JUDGE: Mapping[str, Any] = {
    "model": "gpt-5.5-2026-04-23",
    "preset": "llama2-zero-shot",
    "temperature": None,
    "reasoning_effort": "low",
    "reasoning_tokens": 2048,
}


LATER_KEYS = frozenset({"ties", "columns", "values", "annotators", "attributes"})
"""Keys of a source that came after runs were made: at their defaults they are not written down."""


class AnnotatorsConfig(BaseModel, frozen=True, extra="forbid"):
    """What becomes of several annotators' votes on one pair."""

    rule: Rule = Field(
        "separate",
        description="Each vote a comparison of its own; or one comparison a pair, with the votes "
        "counted (votes), what most said (majority), shares by weight (mean), or shares by how "
        "reliable each annotator is (dawid-skene).",
    )


class SourceConfig(BaseModel, frozen=True, extra="forbid"):
    """One data set under a name of its own."""

    source: str = Field(description="A name of `palate data list`.")
    path: str | None = Field(
        None, description="File or folder, relative to the data root; or hub id."
    )
    subset: str | None = Field(None, description="Part of the source, such as helpful-base.")
    split: str | None = Field(None, description="Split of the source, such as train or test.")
    options: dict[str, Any] = Field(
        default_factory=dict, description="What the source itself takes."
    )
    batch: str | None = Field(
        None, description="Annotation batch of every row; default: the source's."
    )
    ties: Literal["skip", "keep"] = Field(
        "skip", description="Ties counted and skipped, or kept for losses that learn from them."
    )
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="Of `own`: role to column, {prompt: question, response_a: left, response_b: "
        "right, winner: better}; `palate data inspect FILE` proposes it.",
    )
    values: dict[str, str] = Field(
        default_factory=dict,
        description="Of `own`: what the file's words for the winner mean (a, b, tie, both_bad, "
        "skip), or those for a strength (-3 to 3, skip).",
    )

    attributes: dict[str, tuple[float, float]] = Field(
        default_factory=dict,
        description="What was rated of single responses and is to be read, with the ends of its "
        "scale: {helpfulness: [0, 4]}; heads learn it (train.attributes).",
    )
    annotators: AnnotatorsConfig = Field(
        AnnotatorsConfig(), description="What becomes of several votes on one pair."
    )

    @field_validator("source")
    @classmethod
    def _is_known(cls, source: str) -> str:
        try:
            return source_named(source).name
        except PalateError as error:
            raise ValueError(error) from None

    @field_validator("values", mode="before")
    @classmethod
    def _as_words(cls, values: Any) -> Any:
        return words(values) if isinstance(values, Mapping) else values

    @model_validator(mode="after")
    def _columns_are_of_an_own_file(self) -> Self:
        if (self.columns or self.values) and self.source != "own":
            raise ValueError(f"columns, values: {self.source} has its own; they are of source: own")
        check(self.columns, self.values, self.attributes)
        return self

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A key that runs of before did not have is no part of what they were made from."""
        fields = type(self).model_fields
        return {
            key: value
            for key, value in dump(self).items()
            if key not in LATER_KEYS
            or getattr(self, key) != fields[key].get_default(call_default_factory=True)
        }


class LintConfig(BaseModel, frozen=True, extra="forbid"):
    """What lint needs to be told; every finding is counted and its row excluded."""

    max_characters: int | None = Field(None, ge=1, description="Prompt and responses together.")


class ContaminationConfig(BaseModel, frozen=True, extra="forbid"):
    """Training rows whose prompt is in a benchmark; see `palate.data.contamination`."""

    exclude: bool = Field(True, description="False reports them and trains on them all the same.")
    ngram_words: int = Field(5, ge=1, description="Words of the n-grams that are compared.")
    min_words: int = Field(10, ge=1, description="Shorter prompts are compared exactly only.")
    containment: float = Field(
        0.8, gt=0, le=1, description="Share of a benchmark prompt's n-grams."
    )
    jaccard: float = Field(0.6, gt=0, le=1, description="Similarity of the two sets of n-grams.")


class HoldoutConfig(BaseModel, frozen=True, extra="forbid"):
    """What is never trained on: N of each annotation batch, or a share of a source, by prompt."""

    per_batch: int = Field(1000, ge=0, description="Held-out comparisons of each annotation batch.")
    sources: tuple[str, ...] = Field((), description="Sources from which `per_batch` is held out.")
    max_share: float = Field(0.5, ge=0, le=1, description="Most of a small batch to hold out.")
    fractions: dict[str, float] = Field(
        default_factory=dict, description="Share of a source's prompts that is held out."
    )


class DataConfig(BaseModel, frozen=True, extra="forbid"):
    """Where comparisons come from and what keeps them apart."""

    root: str | None = Field(None, description="Data root; --data and PALATE_DATA set it.")
    sources: dict[str, SourceConfig] = Field(
        description="Data sets, each under a name of your own."
    )
    max_bad_share: float = Field(0.01, ge=0, le=1, description="More unreadable rows stop the run.")
    lint: LintConfig = Field(LintConfig(), description="What lint needs to be told.")
    overlap: ContaminationConfig = Field(
        ContaminationConfig(), description="Training rows whose prompt is in a benchmark."
    )
    holdout: HoldoutConfig = Field(HoldoutConfig(), description="What is never trained on.")


def _absent(value: object) -> bool:
    """Whether a key is left out of what is written: it came after runs were made."""
    return value is None or value is False


class BenchmarkConfig(BaseModel, frozen=True, extra="forbid"):
    """What judges are asked: the held-out part of sources, whole sources, an own file, or a
    benchmark of the field."""

    held_out: tuple[str, ...] = Field((), description="Held-out comparisons of these sources.")
    whole: tuple[str, ...] = Field((), description="All comparisons of these sources.")
    file: str | None = Field(None, description="Own JSONL, CSV or Parquet file of comparisons.")
    named: str | None = Field(
        None,
        description="A benchmark of the field, such as rewardbench-2 (`palate data benchmarks`), "
        "scored by its own rule too; best-of-k for items of your own.",
        exclude_if=_absent,
    )
    path: str | None = Field(
        None,
        description="Where `named` is: its file or folder, in its own form, relative to the data "
        "root; or hub id. Default: its folder below the data root, else the hub.",
        exclude_if=_absent,
    )
    subset: str | None = Field(
        None, description="Of `named`: a configuration, such as a language.", exclude_if=_absent
    )
    split: str | None = Field(None, description="Of `named`: a split.", exclude_if=_absent)
    partial: bool = Field(
        False,
        description="Whether `named` may have fewer items than were published.",
        exclude_if=_absent,
    )
    max_rows: int | None = Field(None, ge=1, description="Seeded sample of at most this many.")
    paper_column: str | None = Field(None, description="Column of Table 7 that holds the same set.")

    @property
    def of_items(self) -> bool:
        """Whether it holds items of K responses, and not comparisons."""
        return self.named is not None and benchmark_named(self.named).kind == "items"

    @field_validator("named")
    @classmethod
    def _is_known(cls, named: str | None) -> str | None:
        try:
            return named and benchmark_named(named).name
        except PalateError as error:
            raise ValueError(error) from None

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if sum(map(bool, (self.held_out, self.whole, self.file, self.named))) != 1:
            raise ValueError("name exactly one of held_out, whole, file, named")
        of_named = {"path": self.path, "subset": self.subset, "split": self.split}
        stray = [key for key, value in {**of_named, "partial": self.partial}.items() if value]
        if stray and not self.named:
            raise ValueError(f"{stray[0]}: says more of `named`; name a benchmark of the field")
        if self.named and self.max_rows:
            raise ValueError(
                f"max_rows: {self.named} is scored whole; leave it out, or give a file with fewer "
                "items and say partial: true"
            )
        return self


class ModelConfig(BaseModel, frozen=True, extra="forbid"):
    """One reward model: its mixture, and where it departs from `backbone` and `train`."""

    mixture: str = Field(description="Name of the mixture that it learns from.")
    eval_sets: tuple[str, ...] = Field(
        (), description="Held-out benchmarks evaluated during training."
    )
    backbone: dict[str, Any] = Field(default_factory=dict, description="Overrides of `backbone`.")
    train: dict[str, Any] = Field(default_factory=dict, description="Overrides of `train`.")
    ensemble: Ensemble | None = Field(
        None,
        description="Members of an ensemble, as `train.ensemble`: 5, or {members: 5, of: seeds}.",
        exclude_if=lambda members: members is None,
    )

    @model_validator(mode="after")
    def _one_ensemble(self) -> Self:
        if self.ensemble is not None and "ensemble" in self.train:
            raise ValueError("ensemble: stands in `train` too; leave one of them out")
        return self


class OverOptimisationConfig(BaseModel, frozen=True, extra="forbid"):
    """Best of n by a model against the true reward, which a simulated campaign knows."""

    model: str = Field(description="The reward model that chooses.")
    source: str = Field(description="A simulated source, whose prompts and responses are drawn.")
    prompts: int = Field(16, ge=2, description="New prompts.")
    responses: int = Field(512, ge=2, description="Responses to each, and the largest n.")


class JudgingConfig(BaseModel, frozen=True, extra="forbid"):
    """How judges are asked."""

    order: OrderPlan = Field(
        "auto",
        description="Order of sides: auto is both for judges that see both responses at once.",
    )
    chat: dict[str, Any] | str = Field(
        CHAT_JUDGE["model"],
        description="What `--judges chat` asks in the place of the paper's GPT-4: a model's name, "
        "or options of a chat judge. What is not said is as by default: no temperature, low "
        "reasoning_effort with room for 2,048 tokens of it.",
    )


class Recipe(BaseModel, frozen=True, extra="forbid"):
    """The experiment: data, mixtures, models, training, judges, benchmarks."""

    name: str = Field(description="Name of the experiment, and of its folder under runs/.")
    description: str = Field("", description="What it is for, in a sentence.")
    seed: int = Field(
        0, description="Of all that is drawn; training has it too unless train.seed is set."
    )
    data: DataConfig = Field(description="Sources and what is done before training.")
    benchmarks: dict[str, BenchmarkConfig] = Field(
        default_factory=dict, description="Test sets, each under a name of your own."
    )
    mixtures: dict[str, MixtureSpec] = Field(
        default_factory=dict, description="What models learn from, each under a name of your own."
    )
    backbone: BaseOptions = Field(
        BaseOptions(), description="The checkpoint that reward models start from."
    )
    train: TrainOptions = Field(TrainOptions(), description="How they are trained.")
    models: dict[str, ModelConfig] = Field(
        default_factory=dict, description="Reward models, each under a name of your own."
    )
    judges: tuple[str | dict[str, Any], ...] = Field(
        TRIVIAL_JUDGES, description="Trivial judges, models of this recipe, {kind: options}."
    )
    judging: JudgingConfig = Field(JudgingConfig(), description="How judges are asked.")
    over_optimisation: OverOptimisationConfig | None = Field(
        None,
        description="Draw the true reward of the best of n by a model, as n grows.",
        exclude_if=lambda config: config is None,
    )
    study: StudyConfig | None = Field(None, description="The recipe run in variants and compared.")

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        sources, holdout = self.data.sources, self.data.holdout
        refuse_unknown("data.holdout.sources", holdout.sources, sources)
        refuse_unknown("data.holdout.fractions", holdout.fractions, sources)
        for name, benchmark in self.benchmarks.items():
            refuse_unknown(f"benchmarks.{name}", (*benchmark.held_out, *benchmark.whole), sources)
        for name, model in self.models.items():
            refuse_unknown(f"models.{name}.mixture", (model.mixture,), self.mixtures)
            refuse_unknown(f"models.{name}.eval_sets", model.eval_sets, self.benchmarks)
            if of_items := [one for one in model.eval_sets if self.benchmarks[one].of_items]:
                raise ValueError(
                    f"models.{name}.eval_sets: {of_items[0]} holds items of K responses, and a "
                    "training is watched on comparisons; leave it out: it is judged after training"
                )
        if (wanted := self.over_optimisation) is not None:
            refuse_unknown("over_optimisation.model", (wanted.model,), self.models)
            refuse_unknown("over_optimisation.source", (wanted.source,), sources)
            if (kind := sources[wanted.source].source) != "simulated":
                raise ValueError(
                    f"over_optimisation.source: {wanted.source!r} is {kind}, of which no true "
                    "reward is known; expected a simulated source"
                )
        whole = {alias for benchmark in self.benchmarks.values() for alias in benchmark.whole}
        trainable = [alias for alias in sources if alias not in whole]
        for name, mixture in self.mixtures.items():
            refuse_unknown(f"mixtures.{name}", mixture.pools, trainable)
        plain = (j for j in self.judges if isinstance(j, str))
        refuse_unknown("judges", plain, (*TRIVIAL_JUDGES, *self.models))
        return self

    @model_validator(mode="after")
    def _held_out_is_held_out(self) -> Self:
        apart = {*self.data.holdout.sources, *self.data.holdout.fractions}
        for name, benchmark in self.benchmarks.items():
            if loose := [alias for alias in benchmark.held_out if alias not in apart]:
                raise ValueError(
                    f"benchmarks.{name}: nothing is held out of {loose[0]!r}; "
                    "add it to data.holdout.sources or data.holdout.fractions"
                )
        return self

    @model_validator(mode="after")
    def _overrides_are_valid(self) -> Self:
        for name in self.models:
            options, base = self.train_options(name), self.backbone_options(name)
            last = None if options.trainable == "full" else options.trainable.last_layers
            if last and base.layers is not None and last > base.layers:
                raise ValueError(
                    f"models.{name}: train.trainable.last_layers is {last}, and backbone.layers "
                    f"keeps {base.layers}; set train.trainable.last_layers={base.layers} or fewer"
                )
        return self

    @model_validator(mode="after")
    def _variants_are_valid_and_differ(self) -> Self:
        if self.study is None:
            return self
        if not self.models:
            raise ValueError("study: the recipe trains no model; add one to models")
        seen: dict[str, str] = {}
        for variant in self.study.variants():
            experiment = self.varied(variant, self.study.seeds[0])._experiment()
            if (same := seen.setdefault(experiment, variant.name)) != variant.name:
                raise ValueError(
                    f"study.vary: {same!r} and {variant.name!r} train the same; does a model of "
                    "its own override what they set? vary models.NAME.train.KEY then"
                )
        return self

    def varied(self, variant: Variant, seed: int) -> Recipe:
        """The ordinary recipe of one variant of the study, trained with one seed."""
        values = applied(resolved(self), variant, seed)
        return validate(values, f"study.vary: {variant.name}")

    def _experiment(self) -> str:
        """A digest of all that decides what the models are."""
        return digest(
            *(
                {
                    "train": self.train_options(name).decisive(),
                    "base": self.backbone_options(name).model_dump(mode="json"),
                    "mixture": self.mixtures[plan.mixture].model_dump(mode="json"),
                }
                for name, plan in self.models.items()
            )
        )

    def train_options(self, model: str) -> TrainOptions:
        """The training options of one model: `train` with the model's own laid over it."""
        config = self.models[model]
        over = merge({"seed": self.seed, **_given(self.train)}, config.train)
        if config.ensemble is not None:
            over["ensemble"] = config.ensemble
        return valid(TrainOptions, over, f"models.{model}.train")

    def backbone_options(self, model: str) -> BaseOptions:
        """The backbone of one model: `backbone` with the model's own laid over it."""
        over = merge(_given(self.backbone), self.models[model].backbone)
        return valid(BaseOptions, over, f"models.{model}.backbone")


def resolved(recipe: Recipe) -> dict[str, Any]:
    """Everything a recipe says, defaults included, as plain values that make the same recipe.

    What follows from something else, and must still do so when read again, is left out where it
    is not stated: the seed of training from `seed`, and from the rows what `train.defaults` says.
    """
    values = recipe.model_dump(mode="json", exclude_none=True)
    for key in {"seed", *FOLLOWING} - recipe.train.model_fields_set:
        values["train"].pop(key, None)
    if not {"model", "layers"} & recipe.backbone.model_fields_set:
        del values["backbone"]["model"]  # How many layers are kept follows where none is named.
    return values


def fingerprinted(recipe: Recipe) -> dict[str, Any]:
    """What fingerprints of a recipe are made of: its resolved values under the keys' first names.

    A run of before goes on although a key was renamed since, or follows from the rows.
    """
    values = resolved(recipe)
    values["train"].setdefault("trainable", "full")
    compute = values["train"]["compute"]
    compute["compile"] = compute["compile"] is True  # It was false before there was "auto".
    return rename_keys(values, FIRST_NAMES)


def _given(options: BaseModel) -> dict[str, Any]:
    return options.model_dump(exclude_unset=True)


def valid(model: type[Options], values: Mapping[str, Any], where: str) -> Options:
    """Options from a dictionary; a mistake is one line that begins with `where`."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise PalateError(f"{where}: {explain(error, model)}") from None


def validate(values: Mapping[str, Any], where: str = "") -> Recipe:
    """A recipe from its dictionary; a mistake is one line with the key's path and the cure."""
    where = where or f"recipe {values.get('name', '')}".strip()
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise PalateError(f"{where}: {explain(error, Recipe)}") from None
    except PalateError as error:
        raise PalateError(f"{where}: {error}") from None


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a recipe: `NAME` in its path stands for a name of the recipe's own."""

    path: str
    kind: str
    default: str
    meaning: str


def recipe_keys(model: type[BaseModel] = Recipe, prefix: str = "") -> Iterator[Key]:
    """Every key that a recipe may have, in the order of the schema.

    A key that holds others has no default of its own; one without a default must be given.
    """
    for name, field in model.model_fields.items():
        path, parts = f"{prefix}{name}", _models_in(field.annotation)
        named = get_origin(field.annotation) is dict
        yield Key(path, _kind(field.annotation), _default(field, parts), field.description or "")
        for part in parts:
            yield from recipe_keys(part, f"{path}.NAME." if named else f"{path}.")


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models that a value of this type may be, or hold under names."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models_in(inner)]


def _kind(annotation: Any) -> str:
    """A type in words: `float, 0.0 or none`, `list of names`, `one of a, b`."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " / ".join(map(str, inner))
    if origin in (Union, UnionType):
        return " or ".join(_kind(part) for part in inner if part is not NoneType)
    if origin is tuple:
        return f"list of {_kind(inner[0])}"
    if origin is not None and issubclass(origin, Mapping):
        return f"{_kind(inner[0])} to {_kind(inner[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "keys"
    words = {str: "text", int: "whole number", float: "number", bool: "true / false", Any: "any"}
    return words[annotation]


def _default(field: FieldInfo, parts: Sequence[type[BaseModel]]) -> str:
    if field.is_required():
        return "must be given"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "none"
    if parts and isinstance(value, BaseModel):
        return ""
    return json.dumps(value) if value != "" else "none"
