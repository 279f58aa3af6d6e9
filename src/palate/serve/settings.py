"""What the server allows, and where it listens."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

# What may be kept of a model's prompts: of SmolLM2-135M in float32 some 23,000 tokens.
CACHE_BYTES = 1 << 30
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one request and of one client; None is no bound.

    `deadline_seconds` holds where a request asks for none, and is the most it may ask for.
    """

    body_bytes: int = 16 << 20
    body_seconds: float = 30.0
    conversations_per_request: int = 1024
    characters_per_conversation: int = 1 << 18
    requests_at_once: int = 1024
    deadline_seconds: float = 120.0
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Where the server listens, who may ask, and how it stops.

    On SIGTERM requests are still taken for `grace_seconds`, with /ready at 503 so that a load
    balancer looks elsewhere; then no more are, and the accepted ones have `drain_seconds`. Where
    the socket was passed to this process, another may hold it, and connections are left to that
    one at once.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    socket_was_passed: bool = False
    tokens: Path | None = None
    without_token: bool = False
    grace_seconds: float = 0.0
    drain_seconds: float = 60.0
    trace: bool = False
    limits: Limits = field(default_factory=Limits)

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


# How much one client may ask: a bucket each, which refills evenly.

MAX_CLIENTS = 4096  # Remembered; the one seen longest ago has a full bucket again anyway.
SECONDS_PER_MINUTE = 60.0
ROUNDING = 1e-6


class TokenBucket:
    """Up to `per_minute` units at once, refilled at `per_minute` a minute, for each client.

    A request of more than a minute's worth needs a full bucket and leaves it in debt: it is slow,
    not impossible.
    """

    def __init__(
        self, per_minute: float | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_minute = per_minute
        self._clock = clock
        # The level of each and its time in seconds, the one seen longest ago first.
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_seconds(self, client: str, units: float) -> float:
        """Take `units` and give 0, or take nothing and give the seconds until they are there."""
        if self._per_minute is None:
            return 0.0
        now, full = self._clock(), self._per_minute
        level, at_seconds = self._buckets.pop(client, (full, now))
        level = min(full, level + (now - at_seconds) * full / SECONDS_PER_MINUTE)
        missing = min(units, full) - level
        wait = missing > ROUNDING
        self._buckets[client] = (level if wait else level - units, now)
        if len(self._buckets) > MAX_CLIENTS:
            self._buckets.popitem(last=False)
        return missing * SECONDS_PER_MINUTE / full if wait else 0.0
