"""Everything that is evaluated is a judge; `open_judge` makes one from what a recipe says."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from palate.judges.baselines import FirstPosition, LengthChoice, RandomChoice
from palate.judges.llm import ChatSpec
from palate.judges.options import (
    GenerationSpec,
    RewardEndpointSpec,
    SequenceClassifierSpec,
    TextToTextSpec,
)
from palate.judges.scalar import ScorerJudge
from palate.types import Judge, PalateError
from palate.validation import did_you_mean, explain

__all__ = [
    "JUDGES",
    "ChatSpec",
    "FirstPosition",
    "GenerationSpec",
    "LengthChoice",
    "RandomChoice",
    "RewardEndpointSpec",
    "ScorerJudge",
    "SequenceClassifierSpec",
    "TextToTextSpec",
    "chat_spec",
    "open_judge",
    "sequence_classifier_spec",
]

Spec = TypeVar("Spec", bound=BaseModel)
JudgeSpec = str | Mapping[str, Any]


def _sequence_classifier(options: object) -> Judge:
    if not isinstance(options, Mapping):
        raise PalateError("sequence-classifier: expected a mapping with `model` and `format`")
    spec = sequence_classifier_spec(options)
    # torch and transformers are slow to import, and trivial judges need neither.
    from palate.judges.sequence_classifier import SequenceClassifier

    return ScorerJudge(SequenceClassifier(spec))


def _text_to_text(options: object) -> Judge:
    given = options if isinstance(options, Mapping) else {"model": options}
    spec = _validated("text-to-text", TextToTextSpec, given)
    from palate.judges.text_to_text import TextToText, TextToTextScorer

    absolute = spec.reading == "absolute"
    return ScorerJudge(TextToTextScorer(spec)) if absolute else TextToText(spec)


def _reward_endpoint(options: object) -> Judge:
    if not isinstance(options, Mapping):
        raise PalateError("reward-endpoint: expected a mapping with `url`, `shape` and `input`")
    spec = _validated("reward-endpoint", RewardEndpointSpec, options)
    from palate.judges.endpoint import RewardEndpoint

    return ScorerJudge(RewardEndpoint(spec))


def _reward_model(options: object) -> Judge:
    if isinstance(options, Mapping) and "folder" not in options:
        raise PalateError("reward-model: expected a folder, or a mapping with `folder`")
    from palate.judges.reward_model import RewardScorer
    from palate.model.onnx import is_onnx

    given = options if isinstance(options, Mapping) else {"folder": options}
    if is_onnx(str(given["folder"])):
        from palate.judges.reward_model import OnnxScorer

        return ScorerJudge(OnnxScorer(**_only(given, "reward-model", "folder", "name")))
    known = inspect.signature(RewardScorer).parameters
    return ScorerJudge(RewardScorer(**_only(given, "reward-model", *known)))


def chat_spec(options: object) -> ChatSpec:
    """The options of a chat judge, checked; a model's name alone is enough."""
    given = options if isinstance(options, Mapping) else {"model": options}
    return _validated("chat", ChatSpec, given)


def _chat(options: object) -> Judge:
    spec = chat_spec(options)
    from palate.judges.llm.judge import ChatJudge

    return ChatJudge(spec)


def _generation(options: object) -> Judge:
    given = options if isinstance(options, Mapping) else {"model": options}
    spec = _validated("generation", GenerationSpec, given)
    from palate.judges.generation import GenerationJudge

    return GenerationJudge(spec)


JUDGES: Mapping[str, Callable[[Any], Judge]] = {
    "random": lambda options: RandomChoice(**_only(options, "random", "seed")),
    "longer": lambda options: LengthChoice(**_only(options, "longer")),
    "shorter": lambda options: LengthChoice(longer=False, **_only(options, "shorter")),
    "first": lambda options: FirstPosition(**_only(options, "first")),
    "sequence-classifier": _sequence_classifier,
    "reward-model": _reward_model,
    "text-to-text": _text_to_text,
    "reward-endpoint": _reward_endpoint,
    "chat": _chat,
    "generation": _generation,
}


def open_judge(spec: JudgeSpec) -> Judge:
    """The judge that `spec` names: `"longer"`, or `{"reward-model": "runs/demo/helpful"}`.

    Raises:
        PalateError: an unknown name or option (the nearest real one is named), or a checkpoint
            that cannot be opened.
    """
    if isinstance(spec, str):
        return _opener(spec)({})
    if len(spec) != 1:
        raise PalateError(f"judge: expected one name with its options, got {sorted(spec)}")
    ((name, options),) = spec.items()
    return _opener(name)({} if options is None else options)


def _opener(name: str) -> Callable[[Any], Judge]:
    if name not in JUDGES:
        raise PalateError(f"unknown judge {name!r}; {did_you_mean(name, list(JUDGES))}")
    return JUDGES[name]


def _only(options: object, judge: str, *known: str) -> dict[str, Any]:
    if not isinstance(options, Mapping):
        raise PalateError(f"judge {judge}: expected a mapping of options, got {options!r}")
    for key in options:
        if key not in known:
            hint = did_you_mean(key, known, most=2) if known else "it has no options"
            raise PalateError(f"judge {judge}: unknown option {key!r}; {hint}")
    return dict(options)


def sequence_classifier_spec(options: Mapping[str, Any]) -> SequenceClassifierSpec:
    """What `options` say of a foreign reward model; raises `PalateError` naming the wrong key."""
    return _validated("sequence-classifier", SequenceClassifierSpec, options)


def _validated(kind: str, model: type[Spec], options: Mapping[str, Any]) -> Spec:
    try:
        return model.model_validate(dict(options))
    except ValidationError as error:
        # Without the values: one of them may be a key.
        raise PalateError(f"{kind}: {explain(error, model, show_input=False)}") from None
