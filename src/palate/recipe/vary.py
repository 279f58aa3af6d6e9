"""What a study varies: named levels of one or more axes, and the trainings of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from itertools import product
from typing import Any, Literal, Self

from pydantic import BaseModel, Field, model_validator

from palate.evaluate.run import slug
from palate.recipe.load import merge, nested, refuse_unknown

AMOUNTS = ("fraction", "rows")
"""Short for the `subset` of the mixture that each model is trained on."""
VARIES = ("base", "train", "models", "mixtures", *AMOUNTS)
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


class StudyPlan(BaseModel, frozen=True, extra="forbid"):
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
