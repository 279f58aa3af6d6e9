"""What the server allows, and where it listens."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

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
    balancer looks elsewhere; then no more are, and the accepted ones have `drain_seconds`.
    """

    host: str = "127.0.0.1"
    port: int = 8000
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

KEPT = 4096  # Clients remembered; the one seen longest ago has a full bucket again anyway.
SECONDS_PER_MINUTE = 60.0
ROUNDING = 1e-6


@dataclass(slots=True)
class _Bucket:
    level: float
    at_seconds: float


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
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def wait_seconds(self, client: str, units: float) -> float:
        """Take `units` and give 0, or take nothing and give the seconds until they are there."""
        if self._per_minute is None:
            return 0.0
        bucket = self._refilled(client, self._per_minute)
        missing = min(units, self._per_minute) - bucket.level
        if missing > ROUNDING:
            return missing * SECONDS_PER_MINUTE / self._per_minute
        bucket.level -= units
        return 0.0

    def _refilled(self, client: str, most: float) -> _Bucket:
        now = self._clock()
        bucket = self._buckets.pop(client, None) or _Bucket(most, now)
        gained = (now - bucket.at_seconds) * most / SECONDS_PER_MINUTE
        bucket.level, bucket.at_seconds = min(most, bucket.level + gained), now
        self._buckets[client] = bucket
        if len(self._buckets) > KEPT:
            self._buckets.popitem(last=False)
        return bucket
