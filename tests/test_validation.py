"""A mistake is one line with its place and its cure."""

from typing import Literal

import pytest
from pydantic import BaseModel, ValidationError, field_validator, model_validator

from palate.validation import did_you_mean, explain, refuse_unknown


class Layers(BaseModel, extra="forbid"):
    last_layers: int


class Training(BaseModel, extra="forbid"):
    epochs: int = 1
    trainable: Literal["full"] | Layers = "full"
    fused: bool | Literal["auto"] = "auto"
    parts: tuple[Layers, ...] = ()
    named: dict[str, Layers] = {}
    judge: str = "longer"

    @field_validator("judge")
    @classmethod
    def _known(cls, judge: str) -> str:
        refuse_unknown("judges", [judge], ["longer"])
        return judge

    @model_validator(mode="after")
    def _few(self) -> "Training":
        if self.epochs > 9:
            raise ValueError("too many epochs")
        return self


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"epoch": 2}, "epoch: unknown key; did you mean 'epochs'?"),
        ({"qqq": 2}, "qqq: unknown key; known: epochs, trainable, fused, parts, named, judge"),
        ({"epochs": "two"}, "epochs: Input should be a valid integer, unable to parse string as an "
         "integer, got 'two'"),
        ({"judge": "longr"}, "judge: judges: no 'longr'; did you mean 'longer'?"),
        ({"epochs": 10}, "the recipe: too many epochs"),
        ({"parts": "x"}, "parts: expected a list, as in [a, b], got 'x'"),
        ({"named": "x"}, "named: expected keys and values, got 'x'"),
        ({"parts": [{}]}, "parts.0.last_layers: is required"),
        ({"named": {"a": {"last": 1}}},
         "named.a.last: unknown key; did you mean 'last_layers'? (and 1 more)"),
        ({"fused": "maybe"}, "fused: expected true or false or 'auto', got 'maybe'"),
        ({"trainable": "half"}, "trainable: expected 'full' or keys and values, got 'half'"),
        ({"trainable": {"last_layers": "4bit"}}, "trainable.last_layers: Input should be a valid "
         "integer, unable to parse string as an integer, got '4bit'"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_with_its_cure(values, line):
    with pytest.raises(ValidationError) as caught:
        Training.model_validate(values)
    assert explain(caught.value, Training, root="the recipe") == line
    assert explain(caught.value.errors(), Training, root="the recipe") == line


def test_the_tag_of_a_union_is_no_key_and_a_value_can_be_kept_back():
    with pytest.raises(ValidationError) as caught:
        Training.model_validate({"trainable": {"last_layer": 1}})
    line = explain(caught.value, Training)
    assert line.startswith("trainable.last_layer: unknown key; did you mean 'last_layers'?")
    with pytest.raises(ValidationError) as caught:
        Training.model_validate({"epochs": "s3cret", "parts": "s3cret"})
    assert "s3cret" in explain(caught.value, Training)
    assert "s3cret" not in explain(caught.value, Training, show_input=False, most=2)
    assert explain(caught.value, most=2).count(";") == 1


def test_a_mistyped_name_gets_the_nearest_or_all():
    assert did_you_mean("longr", ["longer", "random"]) == "did you mean 'longer'?"
    assert did_you_mean("q", ["longer", "random"]) == "known: longer, random"
    benchmarks = ["rm-bench", "mt-bench-human"]
    assert did_you_mean("MTBench", benchmarks) == "did you mean 'mt-bench-human'?"
    assert did_you_mean("rm-bnch", benchmarks) == "did you mean 'rm-bench'?"
    assert did_you_mean("q", [], else_say="built in") == "built in: none"
    with pytest.raises(ValueError, match=r"^judges: no 'longr'; did you mean 'longer'\?$"):
        refuse_unknown("judges", ["random", "longr"], ["longer", "random"])
