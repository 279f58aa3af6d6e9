"""Untrusted text made safe for each kind of file. Names come from files that others wrote."""

from __future__ import annotations

import re
import unicodedata

MAX_NAME = 80
# Quick: what is not in it is shown as it is.
_UNSEEN = re.compile(r"[^\n -~\u00a1-\u00ac\u00ae-\u024f\u2010-\u2027]")
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


def plain(text: str, limit: int | None = None) -> str:
    """One line without control, bidirectional or surrogate characters, cut at `limit`."""
    # The cut comes first so that a name of a megabyte costs nothing.
    cut = text if limit is None or len(text) <= limit else text[: limit - 1] + "…"
    return " ".join("".join(c if c.isprintable() else " " for c in cut).split())


def name(text: str) -> str:
    """A name as it stands in a table: one line of at most `MAX_NAME` characters."""
    return plain(text, MAX_NAME) or "(no name)"


def prose(text: str, limit: int) -> str:
    """Lines of untrusted text as a page shows them, cut at `limit`.

    What would not be seen is made visible: control characters as their pictures, marks that turn
    the direction of writing as `[U+202E]`, lone surrogates and unknown characters as U+FFFD.
    """
    cut = text[:limit]
    safe = "".join(map(_visible, cut)) if _UNSEEN.search(cut) else cut
    left = len(text) - len(cut)
    return f"{safe} … [{left:,} more characters]" if left else safe


def _visible(character: str) -> str:
    code = ord(character)
    if character.isprintable() or character in "\n\t\u200c\u200d":
        return character
    if code < 0x20 or code == 0x7F:
        return "" if character == "\r" else chr(0x2421 if code == 0x7F else 0x2400 + code)
    match unicodedata.category(character):
        case "Zs":
            return character
        case "Zl" | "Zp":
            return "\n"
        case "Cf":
            return f"[U+{code:04X}]"
        case _:
            return "\ufffd"


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
