"""Conversations with the reply inside: transcripts and message lists, split at the last turn."""

from __future__ import annotations

import re
from typing import Any

from palate.data.sources.source import Unfit
from palate.types import Message

# The marker that lint finds: the two sides answer different prompts, and `prompt` is the chosen
# side's. Cutting one side by the length of the other's prompt would corrupt both.
PROMPTS_DIFFER = "rejected_prompt_differs"

_TURN = re.compile(r"\n\n(Human|Assistant):")
_LAST_REPLY = "\n\nAssistant:"

Turns = tuple[Message, ...]


def split_transcript(text: str, column: str) -> tuple[Turns, str]:
    """Split "\\n\\nHuman: ... \\n\\nAssistant: ..." at its *last* assistant turn.

    Returns the turns before it and the reply, each without white space around it. What follows
    the last "\\n\\nAssistant:" is the reply even where it imitates a human turn.
    """
    before, found, reply = text.rpartition(_LAST_REPLY)
    if not found:
        raise Unfit(f"{column}: expected a transcript with an assistant turn, found none")
    pieces = _TURN.split(before)
    if pieces[0].strip() or len(pieces) < 2:
        raise Unfit(f"{column}: expected a transcript that begins with a human turn")
    pairs = zip(pieces[1::2], pieces[2::2], strict=True)
    turns = tuple(
        Message("user" if who == "Human" else "assistant", said.strip()) for who, said in pairs
    )
    return turns, reply.strip()


def split_messages(turns: Turns, column: str) -> tuple[Turns, str]:
    """Split a message list at its last message, which must be the assistant's."""
    if turns[-1].role != "assistant":
        raise Unfit(f"{column}: expected the last message to be assistant, got {turns[-1].role}")
    if len(turns) < 2:
        raise Unfit(f"{column}: expected a prompt before the reply, found the reply alone")
    return turns[:-1], turns[-1].content


def join(chosen: tuple[Turns, str], rejected: tuple[Turns, str]) -> dict[str, Any]:
    """The marker for `meta` if the two sides have different prompts, else nothing."""
    return {PROMPTS_DIFFER: True} if chosen[0] != rejected[0] else {}


def first_user_turn(prompt: Turns) -> str:
    """The text that tells a conversation: its first user turn, or all of it if it has none."""
    said = (turn.content for turn in prompt if turn.role == "user")
    return next(said, None) or "\n".join(turn.content for turn in prompt)
