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
    """The template that `options.template` names, its variables written into it.

    Raises:
        PalateError: the checkpoint has none, or several and none is `default`; the file is missing;
            the template reads the clock and `template_variables.date_string` does not pin it
            (pitfall 7).
    """
    if options.template in BUILT_IN:
        text = BUILT_IN[options.template]
    elif options.template == "model":
        if own and not isinstance(own, str):  # Several by name: Command R's.
            if "default" not in own:
                raise PalateError(
                    f"{options.model} has chat templates {', '.join(own)} and none named default; "
                    "set backbone.template to a Jinja file"
                )
            own = own["default"]
        if not isinstance(own, str) or not own:
            raise PalateError(
                f"{options.model} has no chat template; set backbone.template to chatml or a "
                "Jinja file"
            )
        text = own
    else:
        path = Path(options.template)
        if not path.is_file():
            known = ", ".join(["model", *BUILT_IN])
            raise PalateError(f"backbone.template: no such file {path}; expected {known} or a file")
        text = path.read_text(encoding="utf-8")
    clock = next((word for word in CLOCKS if word in text), None)
    pinned = PINNED_CLOCK in text or "date_string" in options.template_variables
    if clock and not pinned:
        raise PalateError(
            f"the chat template of {options.model} reads the clock ({clock}), so a reward would "
            "change with the day; pin it: backbone.template_variables.date_string='01 Jan 2026'"
        )
    # Variables are written into the template, so that an export carries them.
    variables = options.template_variables
    for name, value in variables.items():
        if not (name.isidentifier() and re.fullmatch(r"[\w .,:/+-]*", value)):
            raise PalateError(
                f"backbone.template_variables: {name}={value!r}; expected a name and plain text"
            )
    pins = [f"{{% set {name} = '{value}' %}}" for name, value in variables.items()]
    if date := variables.get("date_string"):
        pins.append(f"{PINNED_CLOCK}{date}{{% endmacro %}}")
    return "".join(pins) + text


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
    """A chat template that refuses a conversation; `reason` is its own, on one line."""

    def __init__(self, roles: Sequence[str], reason: str) -> None:
        self.reason = reason
        super().__init__(f"the chat template refuses turns {'/'.join(roles)}: {reason}")


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
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise RefusedTurnsError([turn["role"] for turn in turns], reason) from None
    return str(text)


RESPONSE, SYSTEM = "the response", "the system turn"
SYSTEM_OF_SEVERAL = "the system turn of a conversation of several turns"
_LOGGED: set[tuple[str, tuple[str, ...]]] = set()


def unwritten_parts(
    name: str, tokenizer: Any, template: str, variables: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """What `template` does not write of conversations, in words, logged once for each `name`.

    Mistral's writes a system turn only before a last turn of the user's, R1's no reasoning: what
    differs only there gets one reward, and nothing else would say so.

    Raises:
        PalateError: it does not write the response, so that all responses would get one reward.
    """
    unwritten: dict[str, None] = {}  # In order, once.
    for roles in PROBES:
        words = probe_words(roles)
        turns = [{"role": r, "content": w} for r, w in zip(roles, words, strict=True)]
        try:
            text = render(tokenizer, template, turns, variables)
        except RefusedTurnsError:  # Reported where a row has such turns.
            continue
        for place, (role, word) in enumerate(zip(roles, words, strict=True)):
            if word in text:
                continue
            kind = f"an earlier turn of the {role}"
            if place == len(roles) - 1:
                kind = RESPONSE
            elif role == "system":
                kind = SYSTEM_OF_SEVERAL if len(roles) > 3 else SYSTEM
            if kind != SYSTEM_OF_SEVERAL or SYSTEM not in unwritten:
                unwritten[kind] = None
        places = [text.find(word) for word in words if word in text]
        if places != sorted(places):
            unwritten[f"the turns {'/'.join(roles)} in their order"] = None
    thought, answer = probe_words(("user", "assistant"))
    turns = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": f"<think>\n{thought}\n</think>\n\n{answer}"},
    ]
    with suppress(RefusedTurnsError):
        if thought not in render(tokenizer, template, turns, variables):
            unwritten["reasoning before </think> in the response"] = None
    parts = tuple(unwritten)
    if RESPONSE in parts:
        raise PalateError(
            f"{name}: the chat template does not write the response, so every response would get "
            "the same reward; set backbone.template to chatml or a Jinja file"
        )
    if parts and (name, parts) not in _LOGGED:
        _LOGGED.add((name, parts))
        log.warning(
            "%s: the chat template does not write %s; what differs only there gets one reward",
            name, ", ".join(parts),
        )  # fmt: skip
    return parts


def probe_words(roles: Sequence[Role]) -> list[str]:
    """For each turn of a probe a content that no template writes by itself."""
    return [f"{role}probe{place}word" for place, role in enumerate(roles)]
