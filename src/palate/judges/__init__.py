"""Judges: everything that is evaluated is one; `open_judge` makes one of a name and options."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from palate.judges.baselines import FirstPosition, LengthChoice, RandomChoice
from palate.judges.options import (
    ChatSpec,
    GenerationSpec,
    RewardEndpointSpec,
    RunBatchSpec,
    SequenceClassifierSpec,
    TextToTextSpec,
)
from palate.judges.scorer import ScorerJudge
from palate.process import importing
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
    "RunBatchSpec",
    "ScorerJudge",
    "SequenceClassifierSpec",
    "TextToTextSpec",
    "chat_spec",
    "open_judge",
    "sequence_classifier_spec",
]

Spec = TypeVar("Spec", bound=BaseModel)
JudgeSpec = str | Mapping[str, Any]


# torch and transformers are slow to import and baselines need neither, so that each opener imports
# its judge when it is called.


def _sequence_classifier(options: object) -> Judge:
    spec = _spec(SequenceClassifierSpec, "sequence-classifier", options, "`model` and `format`")
    from palate.judges.sequence_classifier import SequenceClassifier

    return ScorerJudge(SequenceClassifier(spec))


def _text_to_text(options: object) -> Judge:
    spec = _spec(TextToTextSpec, "text-to-text", options)
    from palate.judges.text_to_text import TextToText

    judge = TextToText(spec)
    return judge if spec.reading == "pair" else ScorerJudge(judge)


def _reward_endpoint(options: object) -> Judge:
    spec = _spec(RewardEndpointSpec, "reward-endpoint", options, "`url`, `shape` and `input`")
    from palate.judges.endpoint import RewardEndpoint

    return ScorerJudge(RewardEndpoint(spec))


def _run_batch(options: object) -> Judge:
    spec = _spec(RunBatchSpec, "run-batch", options, "`model` and `folder`")
    from palate.judges.run_batch import RunBatch

    return RunBatch(spec)


def _reward_model(options: object) -> Judge:
    if not isinstance(options, Mapping):
        options = {"folder": options}
    if "folder" not in options:
        raise PalateError("reward-model: expected a folder, or a mapping with `folder`")
    from palate.judges.reward_model import OnnxScorer, RewardScorer
    from palate.model.onnx import is_onnx

    if is_onnx(str(options["folder"])):
        return ScorerJudge(OnnxScorer(**_only(options, "reward-model", "folder", "name")))
    known = inspect.signature(RewardScorer).parameters
    given = _only(options, "reward-model", *known)
    return ScorerJudge(RewardScorer(**{"share_trunk": True} | given))


def _chat(options: object) -> Judge:
    spec = chat_spec(options)
    from palate.judges.llm.judge import open_chat

    return open_chat(spec)


def _generation(options: object) -> Judge:
    spec = _spec(GenerationSpec, "generation", options)
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
    "run-batch": _run_batch,
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
        spec = {spec: None}
    if len(spec) != 1:
        raise PalateError(f"judge: expected one name with its options, got {sorted(spec)}")
    ((name, options),) = spec.items()
    if name not in JUDGES:
        raise PalateError(f"unknown judge {name!r}; {did_you_mean(name, list(JUDGES))}")
    with importing():
        return JUDGES[name]({} if options is None else options)


def _only(options: object, judge: str, *known: str) -> dict[str, Any]:
    if not isinstance(options, Mapping):
        raise PalateError(f"judge {judge}: expected a mapping of options, got {options!r}")
    for key in options:
        if key not in known:
            hint = did_you_mean(key, known, most=2) if known else "it has no options"
            raise PalateError(f"judge {judge}: unknown option {key!r}; {hint}")
    return dict(options)


def chat_spec(options: object) -> ChatSpec:
    """The options of a chat judge, checked; a model's name alone is enough."""
    return _spec(ChatSpec, "chat", options)


def sequence_classifier_spec(options: Mapping[str, Any]) -> SequenceClassifierSpec:
    """The options of a foreign reward model, checked; a `PalateError` names the wrong key."""
    return _spec(SequenceClassifierSpec, "sequence-classifier", options)


def _spec(model: type[Spec], kind: str, options: object, required: str = "") -> Spec:
    """Options checked; a model's name alone will do where `required` names no other keys."""
    if not isinstance(options, Mapping):
        if required:
            raise PalateError(f"{kind}: expected a mapping with {required}")
        options = {"model": options}
    try:
        return model.model_validate(dict(options))
    except ValidationError as error:
        # Without the values: one of them may be a key.
        raise PalateError(f"{kind}: {explain(error, model, show_input=False)}") from None
