"""What an endpoint is sent of a conversation: token ids, text, two texts, or messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import AutoTokenizer

from palate.judges.classifier_format import NO_LIMIT, Encoded, InputFormat, Refused
from palate.judges.spec import RewardEndpointSpec, SequenceClassifierSpec
from palate.judges.turns import labelled, question
from palate.model.backbone import quiet
from palate.model.markers import broken, untokenised_markers
from palate.types import Message, PalateError, digest

Said = tuple[int, ...] | str | tuple[str, str] | tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """One conversation as it is sent; `prompt` is its prompt alone, for shapes that ask for it."""

    said: Said
    prompt: str
    truncated: bool = False
    tokens: int = 0


class Wording:
    """From (prompt, response) to what is sent.

    With a tokenizer it is what `SequenceClassifier` reads of the same format, so that a server of
    the same model reads the same tokens.
    """

    def __init__(self, spec: RewardEndpointSpec, *, takes_ids: bool) -> None:
        """Open the tokenizer, if any; raises `PalateError` where it cannot be."""
        self._spec = spec
        self._takes_ids = takes_ids
        self._tokenizer: Any = None
        self._format: InputFormat | None = None
        if spec.tokenizer is not None and spec.input != "messages":
            self._tokenizer = _open(spec, spec.tokenizer)
            self._format = _input_format(spec, spec.tokenizer, self._tokenizer)

    @property
    def protocol(self) -> Mapping[str, Any]:
        """What decides what is sent, as JSON values."""
        if self._format is not None:
            sent = "token ids" if self._takes_ids else "text"
            return {**self._format.protocol, "sent": sent}
        spec = self._spec
        rule: list[Any] = [] if spec.input == "messages" else [dict(spec.prefixes), spec.suffix]
        return {
            "format": spec.input,
            "template": digest(rule),
            "sent": spec.input,
            "special_tokens_in_text": "known ones broken by a zero-width space",
        }

    def of(self, prompt: Sequence[Message], response: str) -> Asked | Refused:
        """What is sent, or the reason why nothing is."""
        clean = [Message(m.role, self._broken(m.content)) for m in prompt]
        alone = question(clean, self._spec.prefixes)
        if self._format is None:
            return Asked(self._untokenised(clean, self._broken(response), alone), alone)
        encoded = self._format.encode(prompt, response)
        if isinstance(encoded, Refused):
            return encoded
        said = encoded.ids if self._takes_ids else self._text(encoded)
        return Asked(said, alone, encoded.truncated, len(encoded.ids))

    def _broken(self, text: str) -> str:
        """`text` without what the server would read as the end of a turn."""
        if self._format is not None:
            return broken(text, self._format.markers)
        written = (*self._spec.prefixes.values(), self._spec.suffix)
        return broken(text, untokenised_markers(text, written))

    def _untokenised(self, prompt: Sequence[Message], response: str, alone: str) -> Said:
        turns = (*prompt, Message("assistant", response))
        match self._spec.input:
            case "messages":
                return tuple((turn.role, turn.content) for turn in turns)
            case "pair":
                return alone, response
            case _:
                return labelled(turns, self._spec.prefixes) + self._spec.suffix

    def _text(self, encoded: Encoded) -> Said:
        """The text that becomes `encoded` where the server adds special tokens (pitfall 4)."""
        if self._spec.input == "pair":
            return encoded.texts[0], encoded.texts[1]
        (text,) = encoded.texts
        without_bos = text.removeprefix(self._tokenizer.bos_token or "")
        for candidate in (text, without_bos):
            if tuple(self._tokenizer(candidate, verbose=False)["input_ids"]) == encoded.ids:
                return candidate
        raise PalateError(
            f"{self._spec.tokenizer}: as text, shape {self._spec.shape} would read other tokens "
            "than the template's; serve the model in a shape that takes ids (vllm-classify, "
            "sglang-classify)"
        )


def _open(spec: RewardEndpointSpec, name: str) -> Any:
    try:
        with quiet():
            return AutoTokenizer.from_pretrained(
                name, revision=spec.revision or "main", trust_remote_code=False
            )
    except Exception as error:  # Each tokenizer raises its own.
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise PalateError(
            f"{name}: cannot be opened as a tokenizer ({first[:200]}); expected a hub id or folder"
        ) from None


def _input_format(spec: RewardEndpointSpec, name: str, tokenizer: Any) -> InputFormat:
    own = tokenizer.model_max_length
    limit = spec.max_tokens or (int(own) if 0 < own < NO_LIMIT else NO_LIMIT)
    rule = SequenceClassifierSpec.model_validate(
        {
            "model": name,
            "format": spec.input,
            "over_limit": spec.over_limit,
            "prefixes": spec.prefixes,
            "suffix": spec.suffix,
            "date": spec.date,
        }
    )
    return InputFormat(tokenizer, rule, limit)
