"""Random asks of a server: few tokens and few beginnings, so that prompts meet by chance."""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from palate.model.packing import Tokens

VOCABULARY = 400
_RNG = np.random.default_rng(5)
# Prompts of which one begins another, and one shorter than what is worth sharing.
PROMPTS = [_RNG.integers(0, VOCABULARY, n) for n in (3, 12, 70, 90)]
PROMPTS.append(np.concatenate((PROMPTS[2], PROMPTS[1])))


def conversation(prompt: int, response: list[int]) -> Tokens:
    """One of the prompts with a response of at least one token."""
    return np.concatenate((PROMPTS[prompt], response)).astype(np.int32)


conversations: Any = st.builds(
    conversation,
    st.integers(0, len(PROMPTS) - 1),
    st.lists(st.integers(0, 3), min_size=1, max_size=12),
)
several: Any = st.lists(conversations, min_size=1, max_size=6).map(tuple)
clients: Any = st.sampled_from(["", "a", "b", "c"])
