"""One comparison as tokens, and as the bytes in which a token file holds it."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from palate.model.packing import Tokens, group
from palate.types import Rating

# Prompt digest, tokens of prefix, chosen and rejected, rating (0: none), two labels (-1: none).
_HEAD = struct.Struct("<16s3ibbbx")


@dataclass(frozen=True, slots=True)
class Example:
    """A comparison as tokens. `prompt` names the prompt, so equal prompts can be run once."""

    id: str
    prompt: str
    chosen: Tokens
    rejected: Tokens
    rating: Rating | None
    chosen_safe: bool | None
    rejected_safe: bool | None

    def pack(self) -> tuple[tuple[int, int, int], bytes]:
        """Tokens of the shared prefix and of each rest, and the example as bytes.

        What both conversations begin with is held once.
        """
        pair = group((self.chosen, self.rejected))
        parts = (pair.prefix, *pair.suffixes)
        lengths = (len(parts[0]), len(parts[1]), len(parts[2]))
        labels = (self.rating or 0, _code(self.chosen_safe), _code(self.rejected_safe))
        head = _HEAD.pack(bytes.fromhex(self.prompt), *lengths, *labels)
        tokens = np.concatenate(parts).astype("<i4")
        return lengths, head + tokens.tobytes() + self.id.encode("utf-8", "surrogatepass")

    @classmethod
    def unpack(cls, data: bytes) -> Example:
        """The example that `pack` made bytes of."""
        prompt, prefix, chosen, rejected, rating, *safe = _HEAD.unpack_from(data)
        tokens = np.frombuffer(data, "<i4", prefix + chosen + rejected, _HEAD.size)
        shared, rest = tokens[:prefix], tokens[prefix + chosen :]
        return cls(
            id=data[_HEAD.size + tokens.nbytes :].decode("utf-8", "surrogatepass"),
            prompt=prompt.hex(),
            chosen=tokens[: prefix + chosen],
            rejected=np.concatenate((shared, rest)),
            rating=Rating(rating) if rating else None,
            chosen_safe=_LABELS[safe[0]],
            rejected_safe=_LABELS[safe[1]],
        )


_LABELS = {-1: None, 0: False, 1: True}


def _code(label: bool | None) -> int:
    return -1 if label is None else int(label)
