r"""Conversations written as one text: transcripts, and what chat templates write.

Many data sets hold a prompt as text with its turns marked inside: "\n\nHuman: ...\n\nAssistant:",
or ChatML's "<|im_start|>user\n...<|im_end|>\n<|im_start|>assistant\n". Taken as one user's turn it
is another prompt than the same conversation in messages: a judge sees the marks as words, and the
same question in two forms is in training and test at once. So every prompt that comes as text is
read here, and only where the text can be nothing else: from its first mark to its last it must be
turns of one form. Marks elsewhere stay words (`marks_in` names them for lint).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from palate.types import Message, PalateError, Role

Turns = tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Form:
    """How a conversation is written as text.

    `sign` is in every text of this form. `opening` matches where a turn begins and `ending` what
    closes it, at the end of its text; `closed` says that a turn must be closed before the next
    begins. White space around a turn's text is the form's own where `padded`. `introduced`: text
    before the first turn is the system's.
    """

    name: str
    sign: str
    opening: re.Pattern[str]
    ending: re.Pattern[str]
    roles: Mapping[str, Role]
    closed: bool = True
    padded: bool = False
    introduced: bool = False

    def content(self, text: str) -> str:
        """The text of a turn without what this form puts around it."""
        content = self.ending.sub("", text, count=1)
        return content.strip() if self.padded else content


_ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "model": "assistant",
}


def _form(
    name: str,
    sign: str,
    opening: str,
    ending: str = "(?!)",
    roles: Mapping[str, Role] = _ROLES,
    **options: bool,
) -> Form:
    return Form(name, sign, re.compile(opening), re.compile(ending), roles, **options)


TRANSCRIPT = _form(
    "transcript",
    "Human:",
    r"\n\n(?P<role>Human|Assistant):",
    roles={"Human": "user", "Assistant": "assistant"},
    closed=False,
    padded=True,
    introduced=True,
)
TEMPLATES = (
    # Qwen, SmolLM, LFM, Nemotron and many more.
    _form("ChatML", "<|im_start|>", r"<\|im_start\|>(?P<role>[\w-]+)\n", r"<\|im_end\|>\s*\Z"),
    _form(
        "Llama 3",
        "<|start_header_id|>",
        r"<\|start_header_id\|>(?P<role>[\w-]+)<\|end_header_id\|>\n\n",
        r"<\|eot_id\|>\s*\Z",
    ),
    _form(
        "Llama 4",
        "<|header_start|>",
        r"<\|header_start\|>(?P<role>[\w-]+)<\|header_end\|>\n\n",
        r"<\|eot\|>\s*\Z",
    ),
    _form("Gemma", "<start_of_turn>", r"<start_of_turn>(?P<role>[\w-]+)\n", r"<end_of_turn>\s*\Z"),
    _form(
        "Granite",
        "<|start_of_role|>",
        r"<\|start_of_role\|>(?P<role>[\w-]+)<\|end_of_role\|>",
        r"<\|end_of_text\|>\s*\Z",
    ),
    _form(  # Phi-3 and -4-mini, Zephyr, Tulu, GLM-4: who speaks is the token.
        "role tokens",
        "<|user|>",
        r"<\|(?P<role>system|user|assistant)\|>\n?",
        r"(?:<\|end\|>|</s>|<\|endoftext\|>)?\s*\Z",
        closed=False,
    ),
    _form(
        "DeepSeek",
        "<｜User｜>",
        r"<｜(?P<role>User|Assistant)｜>",
        r"<｜end▁of▁sentence｜>\s*\Z",
        {"User": "user", "Assistant": "assistant"},
        closed=False,
        introduced=True,
    ),
    _form(  # Llama 2 and Mistral.
        "[INST]",
        "[INST]",
        r"\s*(?:<s>\s*)?\[(?P<role>/?INST|SYSTEM_PROMPT)\]",
        r"\s*(?:</s>|\[/SYSTEM_PROMPT\])\s*\Z",
        {"INST": "user", "/INST": "assistant", "SYSTEM_PROMPT": "system"},
        closed=False,
        padded=True,
    ),
)
# Begin a text whatever the form; a tokenizer adds them again.
_BEGINNING = re.compile(
    r"\s*(?:(?:<s>|<bos>|<\|begin_of_text\|>|<\|startoftext\|>|<｜begin▁of▁sentence｜>|\[gMASK\]"
    r"|<sop>)\s*)*"
)
# After the mark at which the assistant goes on; Qwen 3 writes no reasoning as an empty block.
_CUE = re.compile(r"\s*(?:<think>\s*</think>\s*)?")
_SYSTEM_IN_USER = re.compile(r"\A\s*<<SYS>>\n(?P<system>.*?)\n<</SYS>>\s*", re.DOTALL)
_MARKS = re.compile(
    r"<\|(?:im_start|im_end|im_sep|start_header_id|end_header_id|eot_id|eot|header_start|header_end"
    r"|begin_of_text|end_of_text|endoftext|start_of_role|end_of_role|system|user|assistant|end"
    r"|turn|channel|message|return)\|>"
    r"|<(?:start_of_turn|end_of_turn|bos|eos)>|<｜[^｜\s]{1,30}｜>|\[/?INST\]|<</?SYS>>"
    r"|\A\s*<s>|</s>\s*\Z|\A\s*Human:(?=.*\n\nAssistant:)|\n\n(?:Human|Assistant):",
    re.DOTALL,
)
# What has none of these is no conversation, which decides for most texts.
_SIGNS = re.compile("Human:|<[|s｜]|" + re.escape("[INST]"))


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt as messages, and the form of its text where it was written in one."""

    turns: Turns
    form: Form | None = None

    def reply(self, text: str) -> str:
        """A response to it without what the form puts around one: white space, an end mark."""
        return text if self.form is None else self.form.content(text)


def read_prompt(text: str) -> Prompt:
    r"""The messages of a prompt that came as text: those written in it, or one user's turn.

    The mark at which the assistant is to go on is no turn. A text that ends within the
    assistant's turn gives that turn as its last message.

    >>> read_prompt("\n\nHuman: Hi\n\nAssistant: Hello!\n\nHuman: A fruit?\n\nAssistant:").turns[2]
    Message(role='user', content='A fruit?')

    Raises:
        PalateError: a turn of a tool or another role that Palate does not read.
    """
    conversation = _read(text)
    if conversation is None:
        return Prompt((Message("user", text),))
    form, turns, cue = conversation
    return Prompt(turns[:-1] if cue else turns, form)


def read_conversation(text: str) -> tuple[Turns, str] | None:
    """The prompt and the reply of a whole conversation in one text; None where it is none.

    Of a transcript all that follows the last "Assistant:" is the reply.

    Raises:
        PalateError: as `read_prompt`.
    """
    if not _SIGNS.search(text):
        return None
    before, cue, reply = text.replace("\r\n", "\n").rpartition("\n\nAssistant:")
    if cue and (prompt := _transcript(before + cue)) is not None:
        return prompt[:-1], reply.strip()
    form, turns, _ = _read(text) or (TRANSCRIPT, (), False)
    if form is TRANSCRIPT or turns[-1].role != "assistant" or len(turns) < 2:
        return None
    return turns[:-1], turns[-1].content


def as_turns(prompt: Turns) -> Turns:
    """A prompt with the turns apart that its only message holds as text; any other itself."""
    if len(prompt) != 1 or prompt[0].role != "user":
        return prompt
    try:
        read = read_prompt(prompt[0].content)
    except PalateError:
        return prompt
    return prompt if read.form is None else read.turns


def marks_in(text: str) -> str:
    """The first mark of a template or transcript that is left in a text, or ""."""
    if not any(sign in text for sign in ("<", "[", "Human:", "Assistant:")):
        return ""
    mark = _MARKS.search(text)
    return mark[0].strip() if mark else ""


def _read(text: str) -> tuple[Form, Turns, bool] | None:
    """The form, its turns, and whether the last is the mark at which the assistant goes on."""
    if not _SIGNS.search(text):
        return None
    if (turns := _transcript(text)) is not None:
        return TRANSCRIPT, turns, turns[-1] == Message("assistant", "")
    body = text[_BEGINNING.match(text).end() :]  # type: ignore[union-attr] # Matches nothing too.
    for form in TEMPLATES:
        if form.sign in body and (read := _turns(form, body)) is not None:
            return form, *read
    return None


def _transcript(text: str) -> Turns | None:
    text = text.replace("\r\n", "\n")
    body = "\n\n" + text.lstrip()
    before, *marks = TRANSCRIPT.opening.split(body)
    roles, texts = marks[::2], marks[1::2]
    if "Human" not in roles:
        return None
    cue = roles[-1] == "Assistant" and not texts[-1].strip()
    if before.strip() and not cue:
        return None  # Prose that quotes a conversation.
    # One "Human:" may begin any text; blank lines before it, or the cue at its end, are a form.
    is_form = text.startswith("\n\n") or cue
    if not is_form and not ("Assistant" in roles and roles[-1] == "Human"):
        return None
    turns = [Message(TRANSCRIPT.roles[r], t.strip()) for r, t in zip(roles, texts, strict=True)]
    system = [Message("system", before.strip())] if before.strip() else []
    return (*system, *turns)


def _turns(form: Form, body: str) -> tuple[Turns, bool] | None:
    """The turns of a text that is of this form from its beginning to its end, or None."""
    openings = list(form.opening.finditer(body))
    if not openings:
        return None
    before = body[: openings[0].start()].strip()
    if before and not form.introduced:
        return None
    turns = [Message("system", before)] if before else []
    cue = False
    ends = [opening.start() for opening in openings[1:]] + [len(body)]
    for opening, end in zip(openings, ends, strict=True):
        text = body[opening.end() : end]
        role = form.roles.get(opening["role"])
        if role is None:
            raise PalateError(
                f"a turn of {opening['role']!r} in {form.name} is content that Palate does not read"
            )
        unfinished = end == len(body) and role == "assistant"
        cue = unfinished and _CUE.fullmatch(text) is not None
        if form.closed and not unfinished and not form.ending.search(text):
            return None
        content = "" if cue else form.content(text)
        # Llama 2 writes the system's text into the first user's turn.
        system = (
            _SYSTEM_IN_USER.match(content) if role == "user" and form.sign == "[INST]" else None
        )
        if system is not None:
            turns.append(Message("system", system["system"]))
            content = content[system.end() :]
        turns.append(Message(role, content))
    return (tuple(turns), cue) if any(turn.role == "user" for turn in turns) else None
