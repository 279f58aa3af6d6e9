"""Chat templates that Palate brings, and the checks a checkpoint's own template must pass."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from palate.model.options import BaseOptions
from palate.types import PalateError, Role

log = logging.getLogger(__name__)

# ChatML without a default system turn: SmolLM2's own template writes 23 tokens of system prompt
# before every conversation, a tenth of an average HH pair.
CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' }}"
    "{% if not loop.last or add_generation_prompt %}{{ '\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
BUILT_IN = {"chatml": CHATML}
CLOCKS = ("strftime_now", "date_string", "datetime")
# Conversations by which a template is tried: with and without a system turn, of several turns.
PROBES: tuple[tuple[Role, ...], ...] = (
    ("user", "assistant"),
    ("system", "user", "assistant"),
    ("user", "assistant") * 3,
    ("system", *("user", "assistant") * 2),
)
PINNED_CLOCK = "{% macro strftime_now(format) %}"  # What an exported template begins with.


def choose_template(own: str | Mapping[str, str] | None, options: BaseOptions) -> str:
    """The template that `options.template` names.

    Raises:
        PalateError: the checkpoint has none, the file is missing, or the template reads the
            clock and `template_variables.date_string` does not pin it (pitfall 7).
    """
    text = _source(own, options)
    clock = next((word for word in CLOCKS if word in text), None)
    pinned = PINNED_CLOCK in text or "date_string" in options.template_variables
    if clock and not pinned:
        raise PalateError(
            f"the chat template of {options.model} reads the clock ({clock}), so a reward would "
            "change with the day; pin it: backbone.template_variables.date_string='01 Jan 2026'"
        )
    return _pin(text, options.template_variables)


def _pin(text: str, variables: Mapping[str, str]) -> str:
    """The template with its variables written into it, so that an export carries them."""
    for name, value in variables.items():
        if not (name.isidentifier() and re.fullmatch(r"[\w .,:/+-]*", value)):
            raise PalateError(
                f"backbone.template_variables: {name}={value!r}; expected a name and plain text"
            )
    pins = [f"{{% set {name} = '{value}' %}}" for name, value in variables.items()]
    if date := variables.get("date_string"):
        pins.append(f"{PINNED_CLOCK}{date}{{% endmacro %}}")
    return "".join(pins) + text


def own_template(own: str | Mapping[str, str] | None, location: str) -> str | None:
    """A tokenizer's template, of several by name (Command R's) the one for conversations.

    Raises:
        PalateError: there are several, and none is `default`.
    """
    if own is None or isinstance(own, str):
        return own
    if "default" not in own:
        raise PalateError(
            f"{location} has chat templates {', '.join(own)} and none named default; set "
            "backbone.template to a Jinja file"
        )
    return own["default"]


def _source(own: str | Mapping[str, str] | None, options: BaseOptions) -> str:
    if options.template in BUILT_IN:
        return BUILT_IN[options.template]
    if options.template != "model":
        path = Path(options.template)
        if not path.is_file():
            known = ", ".join(["model", *BUILT_IN])
            raise PalateError(f"backbone.template: no such file {path}; expected {known} or a file")
        return path.read_text(encoding="utf-8")
    text = own_template(own, options.model)
    if not text:
        raise PalateError(
            f"{options.model} has no chat template; set backbone.template to chatml or a Jinja file"
        )
    return text


def write_bos(template: str, bos: str | None) -> str:
    """`template` with the BOS that it asks its tokenizer for written into it."""
    if bos is None or "bos_token" not in template:
        return template
    return _bos_line(bos) + template


def without_bos(template: str, bos: str) -> str:
    """`template` before `write_bos`."""
    return template.removeprefix(_bos_line(bos))


def _bos_line(bos: str) -> str:
    # The empty expression keeps Jinja's block trimming away from the template's first line.
    return f"{{% set bos_token = {bos!r} %}}{{{{ '' }}}}"


class RefusedTurnsError(PalateError):
    """A chat template that refuses a conversation; `said` is its own reason, on one line."""

    def __init__(self, roles: Sequence[str], said: str) -> None:
        self.said = said
        super().__init__(f"the chat template refuses turns {'/'.join(roles)}: {said}")


def render(
    tokenizer: Any,
    template: str,
    turns: Sequence[Mapping[str, str]],
    variables: Mapping[str, str] | None = None,
) -> str:
    """What `template` writes of a conversation; raises `RefusedTurnsError` where it refuses it."""
    try:
        text = tokenizer.apply_chat_template(
            list(turns), chat_template=template, tokenize=False, **(variables or {})
        )
    except Exception as error:  # Jinja templates raise whatever their author wrote.
        # It may quote the conversation, so no more than its beginning.
        said = " ".join(str(error).split())[:120] or type(error).__name__
        raise RefusedTurnsError([turn["role"] for turn in turns], said) from None
    return str(text)


def tell_unwritten(
    name: str, tokenizer: Any, template: str, variables: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """What `template` does not write of conversations, in words, said once for each `name`.

    Mistral's writes a system turn only before a last turn of the user's, R1's no reasoning: what
    differs only there gets one reward, and nothing else would say so.

    Raises:
        PalateError: it does not write the response, so that all responses would get one reward.
    """
    lost = _unwritten(tokenizer, template, variables)
    if RESPONSE in lost:
        raise PalateError(
            f"{name}: the chat template does not write the response, so every response would get "
            "the same reward; set backbone.template to chatml or a Jinja file"
        )
    if lost and (name, lost) not in _TOLD:
        _TOLD.add((name, lost))
        log.warning(
            "%s: the chat template does not write %s; what differs only there gets one reward",
            name, ", ".join(lost),
        )  # fmt: skip
    return lost


RESPONSE, SYSTEM = "the response", "the system turn"
SYSTEM_OF_SEVERAL = "the system turn of a conversation of several turns"
_TOLD: set[tuple[str, tuple[str, ...]]] = set()


def _unwritten(
    tokenizer: Any, template: str, variables: Mapping[str, str] | None
) -> tuple[str, ...]:
    lost: dict[str, None] = {}  # In order, once.
    for roles in PROBES:
        words = probe_words(roles)
        turns = [{"role": r, "content": w} for r, w in zip(roles, words, strict=True)]
        try:
            text = render(tokenizer, template, turns, variables)
        except RefusedTurnsError:  # Whoever has such a row is told then.
            continue
        for place, (role, word) in enumerate(zip(roles, words, strict=True)):
            if word not in text:
                kind = RESPONSE if place == len(roles) - 1 else _kind(role, roles)
                if kind != SYSTEM_OF_SEVERAL or SYSTEM not in lost:
                    lost[kind] = None
        places = [text.find(word) for word in words if word in text]
        if places != sorted(places):
            lost[f"the turns {'/'.join(roles)} in their order"] = None
    thought, answer = probe_words(("user", "assistant"))
    said = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": f"<think>\n{thought}\n</think>\n\n{answer}"},
    ]
    with suppress(RefusedTurnsError):
        if thought not in render(tokenizer, template, said, variables):
            lost["reasoning before </think> in the response"] = None
    return tuple(lost)


def _kind(role: Role, roles: Sequence[Role]) -> str:
    """A turn that is not the response, in words."""
    if role == "system":
        return SYSTEM_OF_SEVERAL if len(roles) > 3 else SYSTEM
    return f"an earlier turn of the {role}"


def probe_words(roles: Sequence[Role]) -> list[str]:
    """For each turn of a probe a content that no template writes by itself."""
    return [f"{role}probe{place}word" for place, role in enumerate(roles)]
