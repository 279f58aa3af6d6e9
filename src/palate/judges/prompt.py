"""The question that a speaking judge is asked: a reviewed text file with places for the data.

A file is a header of `key: value` lines, a line `---`, and the text of one user message in which
`{conversation}`, `{answer_a}` and `{answer_b}` each stand once. There is no template language:
places are filled in one pass, so nothing in the data is ever read as a place, let alone run.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from palate.model.markers import BREAK, broken, untokenised_markers
from palate.types import Pair, PalateError, digest

FOLDER = Path(__file__).with_name("prompts")
PLACES = ("conversation", "answer_a", "answer_b")
PLACE = re.compile(r"\{(" + "|".join(PLACES) + r")\}")
# What delimits data, in any case and spacing; data that spells it out gets a zero-width space.
TAG = re.compile(r"<(?=\s*/?\s*(?:conversation|system|user|assistant|answer_[ab])\b)", re.I)
LAYOUT = 2  # Raise it when the same file and pair would give another message.


@dataclass(frozen=True, slots=True)
class Prompt:
    """A named question; `fingerprint` changes with its text and with the layout of data."""

    name: str
    text: str

    @property
    def fingerprint(self) -> str:
        return digest("prompt", LAYOUT, self.text)

    def ask(self, pair: Pair, markers: Sequence[str] = ()) -> str:
        """The message for one pair, each text between tags that no text can close.

        `markers` are what its reader's tokenizer would read as more than text.
        """
        turns = [_tagged(m.role, _inert(m.content, markers)) for m in pair.prompt]
        filled = {
            "conversation": _tagged("conversation", "\n".join(turns)),
            "answer_a": _tagged("answer_A", _inert(pair.first, markers)),
            "answer_b": _tagged("answer_B", _inert(pair.second, markers)),
        }
        return PLACE.sub(lambda place: filled[place[1]], self.text)


def load_prompt(preset: str) -> Prompt:
    """The prompt of that name under `judges/prompts`, or in a file of the user's own.

    Raises:
        PalateError: no such name or file, no `---` under a header, a place missing or twice.
    """
    built_in = FOLDER / f"{preset}.txt"
    path = built_in if built_in.parent == FOLDER and built_in.is_file() else Path(preset)
    if not path.is_file():
        known = ", ".join(presets())
        raise PalateError(f"preset {preset!r}: expected one of {known}, or a prompt file")
    _, rule, text = path.read_text(encoding="utf-8").partition("\n---\n")
    if not rule:
        raise PalateError(f"{path}: expected a header of `key: value` lines, `---`, then the text")
    found = PLACE.findall(text)
    for place in PLACES:
        if found.count(place) != 1:
            raise PalateError(
                f"{path}: expected {{{place}}} once, found it {found.count(place)} times"
            )
    return Prompt(path.stem, text.strip())


def presets() -> list[str]:
    """The names of the prompts that Palate brings."""
    return sorted(path.stem for path in FOLDER.glob("*.txt"))


def _tagged(tag: str, text: str) -> str:
    return f"<{tag}>\n{text}\n</{tag}>"


def _inert(text: str, markers: Sequence[str]) -> str:
    """Text that neither closes a tag nor forges a turn, which some servers read in text as well."""
    text = TAG.sub(f"<{BREAK}", text)
    return broken(text, (*markers, *untokenised_markers(text)))
