"""When two prompts are the same prompt: the one normalisation that splits and overlap share.

A conversation is known by its opening, the first user turn, because data sets hold many
comparisons from one conversation at several depths; splitting those apart leaks.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence

from palate.data.transcript import as_turns
from palate.types import Message

NORMALISATION = 1  # Raised when `normalise` or `opening` changes: stored hashes then go stale.
EARLIER_KEY = "prompt_text_key"  # In `meta`: the `text_key`, in hex, of a prompt read from text.
OPENING_WORDS = 3  # A first turn shorter than this ("Hi!") does not identify a conversation.

# Only marks that carry no meaning between words. Operators stay ("2+2" is not "2-2"), and so do
# combining marks, which Indic scripts need.
_MARKS = re.compile(
    r"[\s.,!?;:'\"()\[\]{}`´«»¿¡“”‘’‚„…–—、。「」『』\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u2064\ufeff]+"
)
# Scripts without spaces count one character as one word.
_WORDS = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\s\u3040-\u30ff\u3400-\u9fff]+")


def normalise(text: str) -> str:
    """The text in NFKC, case folded, with punctuation and white space made single spaces.

    A text of nothing but punctuation keeps it, so that "?" and "!" stay two prompts.
    """
    folded = (text if text.isascii() else unicodedata.normalize("NFKC", text)).casefold()
    return _MARKS.sub(" ", folded).strip() or " ".join(folded.split())


def words(text: str) -> list[str]:
    """The words of a normalised text; a Chinese or Japanese character is a word."""
    return text.split() if text.isascii() else _WORDS.findall(text)


def opening(prompt: Sequence[Message]) -> str:
    """The normalised first user turn; later turns join it until it has `OPENING_WORDS` words.

    Text of a system turn is left out: it belongs to the deployment, not to the question. Turns
    that the only message holds as text count as turns, so that one conversation has one opening
    in whatever form it comes.
    """
    text, started = "", False
    for turn in as_turns(tuple(prompt)):
        started = started or turn.role == "user"
        if not started or turn.role == "system":
            continue
        text = f"{text}\n{normalise(turn.content)}" if text else normalise(turn.content)
        if len(words(text)) >= OPENING_WORDS:
            break
    return text


def hash64(*parts: str) -> int:
    """A stable 64-bit hash of texts; a million of them collide with probability 3e-8."""
    text = "\0".join(parts).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def prompt_key(prompt: Sequence[Message]) -> int:
    """The 64-bit identity of a prompt: equal openings are one prompt, in any source."""
    return hash64("prompt", opening(prompt))


def text_key(text: str) -> int:
    """The key of a prompt by its text as it stands, marks of turns included.

    It is the key that a transcript had while it was read as one user's turn: sides given under it
    hold for ever.
    """
    return hash64("prompt", normalise(text))


def cluster_key(source: str, prompt_id: str) -> int:
    """The 64-bit identity of a source's own cluster."""
    return hash64("cluster", source, prompt_id)
