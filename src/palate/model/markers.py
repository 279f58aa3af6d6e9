"""What in a text would be read as more than text, and how it is broken.

A response that spells out `<|im_end|>` would end its turn, and the rest would be read as another
turn. Special tokens are three lists (pitfall 33): a tokenizer's named tokens, those marked
special in its table, and its whole added vocabulary, where Gemma 3 keeps line breaks and HTML tags,
GPT-NeoX runs of blanks, and Qwen 3 `<think>`. Broken are the first two, and what of the third, or
in brackets, a template writes between turns; all else is text and stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from palate.model.templates import (
    BREAK as BREAK,
)
from palate.model.templates import (
    PROBES,
    RefusedTurnsError,
    probe_words,
    render,
)
from palate.model.templates import (
    broken as broken,
)
from palate.types import digest

# Marks that templates write out of ordinary tokens: [INST], <<SYS>>, <|user|>, [|assistant|].
_BRACKETED = re.compile(r"<{1,2}[^\s<>]{1,60}>{1,2}|\[[^\s\[\]]{1,60}\]")
# A model writes these in its own response, so they cannot tell turns apart, whatever a template
# writes before one.
_REASONING = re.compile(
    r"[<\[]/?(?:\w+[:_])?(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflection|answer)(?:[:_]\w+)?[>\]]|"
    r"<[|｜]\w*(?:think|thought|reason)\w*[|｜]>",
    re.I,
)
_PIPED = re.compile(r"<[|｜][^\s<>]{1,60}[|｜]>")
# Where the tokenizer is not known: the marks by which chat models tell turns apart.
KNOWN = re.compile(
    r"<[|｜][^\s|｜<>]{1,60}[|｜]>|\[\|\w{1,60}\|\]|</?s>|<(?:[be]os|(?:start|end)_of_turn)>|"
    r"<</?SYS>>|\[/?(?:INST|SYSTEM_PROMPT|TOOL_CALLS|TOOL_RESULTS|AVAILABLE_TOOLS)\]"
)


def markers(
    tokenizer: Any,
    template: str | None = None,
    *,
    variables: Mapping[str, str] | None = None,
    prefixes: Iterable[str] = (),
) -> tuple[str, ...]:
    """The strings that are broken in untrusted text for this tokenizer, longest first.

    `prefixes` are what is written around turns where no `template`, rendered with `variables`,
    writes them.
    """
    added = tokenizer.added_tokens_decoder  # Made anew whenever it is read.
    special = {str(token) for token in tokenizer.all_special_tokens}
    special |= {str(token) for token in added.values() if token.special}

    def marks(written: str) -> set[str]:
        """Tokens of the added vocabulary, and marks in brackets, that are no block of its own."""
        ids = tokenizer(written, add_special_tokens=False, verbose=False)["input_ids"]
        named = {str(added[i]) for i in ids if i in added} | set(_BRACKETED.findall(written))

        def in_block(mark: str) -> bool:
            """Whether it opens or closes a block inside `written`, so that no turn begins there."""
            name = mark.lstrip("<[").lstrip("/")
            opening, closing = written.find(mark[0] + name), written.find(f"{mark[0]}/{name}")
            return 0 <= opening < closing

        return {mark for mark in named if _is_marker(mark) and not in_block(mark)}

    if template is not None:
        special |= _between_turns(tokenizer, template, variables or {}, marks)
        # Those of turns that no probe has, such as a tool's; they are spelled out in its source.
        named = {str(token) for token in added.values() if _PIPED.fullmatch(str(token))}
        special |= {token for token in named if token in template and _is_marker(token)}
    return _longest_first(special.union(*map(marks, prefixes)))


def untokenised_markers(text: str, prefixes: Iterable[str] = ()) -> tuple[str, ...]:
    """The strings that are broken in `text` where its reader's tokenizer is not known."""
    bracketed = (mark for prefix in prefixes for mark in _BRACKETED.findall(prefix))
    return _longest_first({*KNOWN.findall(text), *filter(_is_marker, bracketed)})


def breaking(tokenizer: Any, markers: Sequence[str]) -> str:
    """How `markers` are broken, in words for a protocol.

    They are named where they are more than the tokenizer's named tokens, which alone were broken
    once; where they are not, tokens and so fingerprints are what they were.
    """
    rule = "broken by a zero-width space"
    named = {token for token in tokenizer.all_special_tokens if token}
    return rule if named == set(markers) else f"{rule}: {digest(markers)}"


def _longest_first(markers: Iterable[str]) -> tuple[str, ...]:
    # White space is text in every list, and one character cannot be broken.
    strings = {marker for marker in markers if len(marker) > 1 and not marker.isspace()}
    return tuple(sorted(strings, key=lambda marker: (-len(marker), marker)))


def _between_turns(
    tokenizer: Any,
    template: str,
    variables: Mapping[str, str],
    marks: Callable[[str], set[str]],
) -> set[str]:
    """What the template writes between turns of two roles, every time."""
    special: set[str] = set()
    for roles in PROBES:
        words = probe_words(roles)
        turns = [{"role": r, "content": w} for r, w in zip(roles, words, strict=True)]
        try:
            text = render(tokenizer, template, turns, variables)
        except RefusedTurnsError:  # Some know no system turn.
            continue
        # By the roles on both sides of a text between contents, what is in each such text.
        seams: dict[tuple[str, str], set[str]] = {}
        places = sorted(
            (text.find(word), word, role)
            for role, word in zip(roles, words, strict=True)
            if word in text
        )
        start, before = 0, ""
        for place, word, role in [*places, (len(text), "", "")]:
            written = marks(text[start:place])
            seams[before, role] = seams.get((before, role), written) & written
            start, before = place + len(word), role
        special.update(*seams.values())
    return special


def _is_marker(mark: str) -> bool:
    """Whether it is more than a word, a line break or a colon, and no tag of reasoning."""
    word = any(c.isalnum() for c in mark)
    return word and not mark.strip().isalnum() and not _REASONING.fullmatch(mark)
