"""What a client asks of a model, and the ways in which it gets no answer."""

from __future__ import annotations

from dataclasses import dataclass

from palate.model.packing import Tokens


@dataclass(frozen=True, slots=True)
class Ask:
    """Conversations to score together, of one prompt or of several.

    `conversations` are token ids, each at least one long; those that begin alike share their
    prompt's work, in one ask and across asks. `client` takes turns with other clients. After
    `deadline`, a time of `time.monotonic()`, nobody waits for the answer. `safety` says for each
    conversation whether its prompt is about safety, which only the combined reward reads; empty
    where it is not known.
    """

    conversations: tuple[Tokens, ...]
    client: str = ""
    deadline: float | None = None
    safety: tuple[bool, ...] = ()


# Named for what a client is told, which is not always that something is in error.


class Busy(Exception):  # noqa: N818
    """Too much is waiting; by `retry_after_seconds` what waits now should be answered."""

    def __init__(self, retry_after_seconds: float) -> None:
        super().__init__(f"too many tokens are waiting; ask again in {retry_after_seconds:.0f} s")
        self.retry_after_seconds = retry_after_seconds


class Late(Exception):  # noqa: N818
    """The deadline passed before the answer."""


class Closing(Exception):  # noqa: N818
    """The server is shutting down and takes no new asks."""


class NonFinite(Exception):  # noqa: N818
    """The model gave a reward that is not a finite number."""


class Failed(Exception):  # noqa: N818
    """The model could not compute this ask, alone and in a micro-batch of its own."""
