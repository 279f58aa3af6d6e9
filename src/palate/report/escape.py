"""Untrusted text made safe for each kind of file. Names come from files that others wrote."""

from __future__ import annotations

import re

MAX_NAME = 80
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
