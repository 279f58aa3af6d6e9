"""Chat templates that Palate brings, and the checks a checkpoint's own template must pass."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from palate.model.options import BaseOptions
from palate.types import Message, PalateError, Role, content_of

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
# The same with tools, their calls and results, and reasoning, as Qwen 3's template writes them, but
# that all reasoning stays: what a judge compares may stand in an earlier turn too.
CHATML_TOOLS = (
    "{% if tools %}"
    "{{ '<|im_start|>system\n' }}"
    "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] + '\n\n' }}{% endif %}"
    "{{ '# Tools\n\n<tools>' }}"
    "{% for tool in tools %}{{ '\n' + (tool | tojson) }}{% endfor %}"
    "{{ '\n</tools><|im_end|>\n' }}"
    "{% endif %}"
    "{% for message in messages %}{% if not (tools and loop.first and message.role == 'system') %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['name'] %}{{ message['name'] + '\n' }}{% endif %}"
    "{% if message['reasoning'] %}"
    "{{ '<think>\n' + message['reasoning'] + '\n</think>\n\n' }}"
    "{% endif %}"
    "{{ message['content'] }}"
    "{% for call in message['tool_calls'] or [] %}"
    "{% if message['content'] or not loop.first %}{{ '\n' }}{% endif %}"
    "{{ '<tool_call>\n{\"name\": ' + (call['function']['name'] | tojson) + ', \"arguments\": ' }}"
    "{{ (call['function']['arguments'] | tojson) + '}\n</tool_call>' }}"
    "{% endfor %}"
    "{{ '<|im_end|>' }}"
    "{% if not loop.last or add_generation_prompt %}{{ '\n' }}{% endif %}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
BUILT_IN = {"chatml": CHATML, "chatml-tools": CHATML_TOOLS}
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
    turns: Sequence[Mapping[str, Any]],
    variables: Mapping[str, str] | None = None,
    tools: Sequence[Any] | None = None,
) -> str:
    """What `template` writes of a conversation; raises `RefusedTurnsError` where it refuses it."""
    try:
        text = tokenizer.apply_chat_template(
            list(turns),
            tools=tools and list(tools),
            chat_template=template,
            tokenize=False,
            **(variables or {}),
        )
    except Exception as error:  # Jinja templates raise whatever their author wrote.
        # It may quote the conversation, so no more than its beginning.
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise RefusedTurnsError([turn["role"] for turn in turns], reason) from None
    return str(text)


BREAK = "\u200b"  # A zero-width space: no tokenizer reads across it, and no reader sees it.


def broken(text: str, markers: Sequence[str]) -> str:
    """`text` with a zero-width space after the first character of every marker in it."""
    for marker in markers:
        if marker in text:
            text = text.replace(marker, marker[0] + BREAK + marker[1:])
    return text


# What templates expect of a message that is more than text: arguments as an object (Qwen, Llama)
# or as its JSON (DeepSeek), and nothing or an empty text beside a call (DeepSeek R1 drops a call
# beside any text). In the order in which they are tried.
ARGUMENTS: tuple[tuple[bool, bool], ...] = tuple(product((False, True), (False, True)))
THINKS = ("reasoning", "reasoning_content", "thinking")  # All the names, each template reads one.
CURE = "set backbone.template to chatml-tools, to a Jinja file that does, or write it into the text"


def render_messages(
    tokenizer: Any,
    template: str,
    turns: Sequence[Message],
    markers: Sequence[str] = (),
    variables: Mapping[str, str] | None = None,
    *,
    name: str = "",
) -> str:
    """What `template` writes of turns, the last of which is the response, `markers` broken in them.

    A turn of `tools` becomes the template's tools, a turn's fields what the template reads of them.
    What it does not write of earlier turns is logged once for each `name`.

    Raises:
        RefusedTurnsError: it refuses the turns, or does not write all of the response.
    """
    if not any(turn.role == "tools" or turn.fields for turn in turns):
        plain = [{"role": m.role, "content": broken(m.content, markers)} for m in turns]
        return render(tokenizer, template, plain, variables)

    def written(turns: Sequence[Message], form: tuple[bool, bool]) -> str:
        tools = [json.loads(turn.content) for turn in turns if turn.role == "tools"]
        spoken = [_as_read(turn, markers, *form) for turn in turns if turn.role != "tools"]
        given = _broken_values(tools[0], markers) if tools else None
        return render(tokenizer, template, spoken, variables, given)

    refusal: RefusedTurnsError | None = None
    for form in ARGUMENTS:
        try:
            text = written(turns, form)
            lost = [
                field
                for field, others in _changed(turns, len(turns) - 1)
                if written(others, form) == text
            ]
        except RefusedTurnsError as error:
            refusal = refusal or error
            continue
        if not lost:
            _log_unwritten(name, turns, partial(written, form=form), text)
            return text
        refusal = RefusedTurnsError(
            [turn.role for turn in turns],
            f"it does not write {' and '.join(lost)} of the response; {CURE}",
        )
    assert refusal is not None
    raise refusal


def _as_read(turn: Message, markers: Sequence[str], as_json: bool, as_none: bool) -> dict[str, Any]:
    """A turn as templates read it, `markers` broken in all its texts."""
    fields = _broken_values(turn.fields, markers)
    if (reasoning := fields.pop("reasoning", None)) is not None:
        fields |= dict.fromkeys(THINKS, reasoning)
    calls = fields.get("tool_calls", ())
    for call in calls if as_json else ():
        if not isinstance(arguments := call["function"]["arguments"], str):
            call["function"]["arguments"] = json.dumps(arguments, ensure_ascii=False)
    content = None if as_none and calls and not turn.text else broken(turn.text, markers)
    return {"role": turn.role, "content": content, **fields}


def _broken_values(value: Any, markers: Sequence[str]) -> Any:
    """A JSON value with `markers` broken in all its texts, keys included."""
    if isinstance(value, str):
        return broken(value, markers)
    if isinstance(value, Mapping):
        return {broken(k, markers): _broken_values(v, markers) for k, v in value.items()}
    return [_broken_values(one, markers) for one in value] if isinstance(value, list) else value


def _changed(turns: Sequence[Message], at: int) -> Iterator[tuple[str, list[Message]]]:
    """Each part of a turn in words, and the turns with that part another one."""
    turn, probe = turns[at], "probeword"

    def replaced(content: str) -> list[Message]:
        return [*turns[:at], Message(turn.role, content), *turns[at + 1 :]]

    if turn.role == "tools":
        tool = {"type": "function", "function": {"name": probe}}
        yield "the tools", replaced(json.dumps([*json.loads(turn.content), tool]))
        return
    fields = turn.fields
    if "reasoning" in fields:
        changed = {**fields, "reasoning": f"{probe} {fields['reasoning']}"}
        yield "reasoning", replaced(content_of(turn.text, changed))
    if turn.text.strip():
        yield "the text", replaced(content_of(f"{turn.text.rstrip()} {probe}", fields))
    calls = fields.get("tool_calls", [])
    for place, call in enumerate(calls):
        function = call["function"]
        arguments = function["arguments"]
        others = f"{arguments} {probe}" if isinstance(arguments, str) else {**arguments, probe: 1}
        for words, part in (("name", f"{function['name']}{probe}"), ("arguments", others)):
            other = {**call, "function": {**function, words: part}}
            changed = {**fields, "tool_calls": [*calls[:place], other, *calls[place + 1 :]]}
            yield f"the {words} of a call of a tool", replaced(content_of(turn.text, changed))


def _log_unwritten(
    name: str, turns: Sequence[Message], written: Callable[[list[Message]], str], text: str
) -> None:
    """Say once for each part of the turns before the response that `text` is made without it."""
    for at, turn in enumerate(turns[:-1]):
        if not (turn.role in ("tool", "tools") or turn.fields):
            continue
        for part, others in _changed(turns, at):
            words = (
                part if turn.role == "tools" else f"{part} of an earlier turn of the {turn.role}"
            )
            if (name, (words,)) in _LOGGED:
                continue
            with suppress(RefusedTurnsError):
                if written(others) == text:
                    _LOGGED.add((name, (words,)))
                    log.warning(
                        "%s: the chat template does not write %s; what differs only there gets "
                        "one reward", name, words,
                    )  # fmt: skip


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
