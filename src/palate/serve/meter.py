"""What an engine has done, for metrics and for saying when to come back."""

from __future__ import annotations

import math
from dataclasses import dataclass

FIRST_TOKENS_PER_SECOND = 1_000.0  # Of a small model on two CPU cores, until it is measured.
REMEMBERED_SECONDS = 10.0


@dataclass(slots=True)
class Meter:
    """Running counts since the start.

    `asked_tokens` are those of conversations as asked, `computed_tokens` those that the model ran;
    between them lie shared prompts and equal conversations. `busy_seconds` is time in the model.
    """

    batches: int = 0
    conversations: int = 0
    asked_tokens: int = 0
    computed_tokens: int = 0
    busy_seconds: float = 0.0
    refused: int = 0
    late: int = 0
    cancelled: int = 0
    failed: int = 0
    tokens_per_second: float = FIRST_TOKENS_PER_SECOND

    def computed(self, tokens: int, seconds: float) -> None:
        """Add a micro-batch, and what it says of the speed of late."""
        self.computed_tokens += tokens
        self.busy_seconds += seconds
        self.batches += 1
        # By its time, so that a hundred small micro-batches say no more than they lasted.
        weight = 1 - math.exp(-seconds / REMEMBERED_SECONDS)
        speed = tokens / max(seconds, 1e-6)
        self.tokens_per_second += weight * (speed - self.tokens_per_second)
