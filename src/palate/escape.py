"""Untrusted text made safe for each kind of file: a page, a terminal, Markdown, CSV, LaTeX.

Names and texts come from files that others wrote. Escaping the markup of a format is not enough: a
control character or a mark that turns the direction of writing changes what is around it, so
these are removed from one-line text and shown by their code in longer text.
"""

from __future__ import annotations

import re
import unicodedata

from markupsafe import Markup, escape

MAX_NAME = 80
JOINERS = "\u200c\u200d"  # Persian, Indic scripts and many emoji need them.
# Finds all hidden characters and some that are not; text without a match is shown as it is.
_MAYBE_HIDDEN = re.compile(r"[^\n -~\u00a1-\u00ac\u00ae-\u024f\u2010-\u2027]")
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
_MARKDOWN = re.compile(r"([\\`*_{}\[\]|#~!$])")
_LINK = re.compile(r"(?i)(:(?=//)|(?<=www)\.|(?<=\w)@|(?<=javascript):)")
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "–": "--",
} | {c: "\\" + c for c in "&%$#_{}"}


def is_hidden(character: str) -> bool:
    """Whether a character has no picture of its own or turns the direction of others."""
    if character in "\n\t" or character.isprintable() or character in JOINERS:
        return False
    return unicodedata.category(character) != "Zs"  # A wide or narrow space is seen.


def plain(text: str, limit: int | None = None) -> str:
    """One line without control, bidirectional or surrogate characters, cut at `limit`."""
    # The cut comes first so that a name of a megabyte costs nothing.
    cut = text if limit is None or len(text) <= limit else text[: limit - 1] + "…"
    return " ".join("".join(c if c.isprintable() else " " for c in cut).split())


def line(text: str, limit: int = 240) -> str:
    """The first `limit` characters as one line, with the joiners that words and emoji need."""
    cut = _MAYBE_HIDDEN.sub(lambda match: " " if is_hidden(match[0]) else match[0], text[:limit])
    return " ".join(cut.split())


def name(text: str) -> str:
    """A name as it stands in a table: one line of at most `MAX_NAME` characters."""
    return plain(text, MAX_NAME) or "(no name)"


def prose(text: str, limit: int | None = None) -> str:
    """Lines of untrusted text, cut at `limit` with a note of how much is left out.

    Hidden characters become visible: control characters as their pictures, marks that turn the
    direction of writing as `[U+202E]`, lone surrogates and unknown characters as U+FFFD.
    """
    cut = text[:limit]
    return _MAYBE_HIDDEN.sub(_picture, cut) + cut_note(len(text) - len(cut))


def cut_note(characters: int) -> str:
    """What follows a text of which so many characters are left out; nothing where none are."""
    return f" … [{characters:,} more characters]" if characters else ""


def _picture(match: re.Match[str]) -> str:
    character = match[0]
    code = ord(character)
    if not is_hidden(character):
        return character
    if code < 0x20 or code == 0x7F:
        return "" if character == "\r" else chr(0x2421 if code == 0x7F else 0x2400 + code)
    category = unicodedata.category(character)
    if category in ("Zl", "Zp"):
        return "\n"
    return f"[U+{code:04X}]" if category == "Cf" else "\ufffd"


def html(text: str) -> Markup:
    """All of a text as HTML, with hidden characters named in a tag of their own: `U+202E`."""
    # Escaping neither makes nor removes a hidden character.
    return Markup(_MAYBE_HIDDEN.sub(_tag, escape(text.replace("\r\n", "\n"))))


def _tag(match: re.Match[str]) -> str:
    if not is_hidden(match[0]):
        return match[0]
    return f'<span class="hidden-char">U+{ord(match[0]):04X}</span>'


def markdown(text: str) -> str:
    """Text that Markdown shows as it is: no markup, HTML, table bars or links."""
    safe = plain(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _LINK.sub(r"\\\1", _MARKDOWN.sub(r"\\\1", safe))


def spreadsheet(text: str) -> str:
    """Text that no spreadsheet takes for a formula: such a cell begins with an apostrophe."""
    safe = plain(text)
    return f"'{safe}" if safe.startswith(_FORMULA) else safe


def latex(text: str) -> str:
    """Text that LaTeX sets as it is."""
    return "".join(_LATEX.get(c, c) for c in plain(text))
