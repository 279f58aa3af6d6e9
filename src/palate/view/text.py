"""Untrusted text as HTML: escaped, and nothing in it that moves what stands around it."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from markupsafe import Markup, escape

MAX_SHOWN_CHARACTERS = 20_000
_JOINERS = "\u200c\u200d"  # Persian, Indic scripts and many emoji need them.
_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def shown(text: str) -> Markup:
    """Text as it is, with characters that cannot be seen named in place: `U+202E`."""
    text = text.replace("\r\n", "\n")
    if text.isascii() and text.replace("\n", " ").replace("\t", " ").isprintable():
        return escape(text)
    return Markup("").join(_pieces(text))


def _pieces(text: str) -> Iterable[Markup]:
    start = 0
    for at, character in enumerate(text):
        if is_hidden(character):
            yield escape(text[start:at])
            yield Markup('<span class="hidden-char">{}</span>').format(f"U+{ord(character):04X}")
            start = at + 1
    yield escape(text[start:])


def is_hidden(character: str) -> bool:
    """Whether a character has no picture of its own or turns the direction of others."""
    if character in "\n\t" or character.isprintable() or character in _JOINERS:
        return False
    return unicodedata.category(character) in _HIDDEN


def line(text: str, limit: int = 240) -> str:
    """One line of plain text for a list or a title, without hidden characters."""
    cut = text[:limit]
    if cut.isprintable():  # Nearly all: a page has some hundred of them.
        return " ".join(cut.split())
    return " ".join("".join(" " if is_hidden(c) else c for c in cut).split())


def number(value: float | None, digits: int = 2, sign: str = "") -> str:
    """A number, whole ones without decimals; "" where there is none."""
    if value is None or value != value:
        return ""
    places = 0 if abs(value) >= 10 and value == int(value) else digits
    return f"{value:{sign}.{places}f}".replace("-", "\u2212")


def signed(value: float | None, digits: int = 2) -> str:
    """A difference: a number with its sign."""
    return number(value, digits, "+")
