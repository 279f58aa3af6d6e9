"""How much one client may ask: a bucket each, which refills evenly."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

KEPT = 4096  # Clients remembered; the one seen longest ago has a full bucket again anyway.
SECONDS_PER_MINUTE = 60.0
ROUNDING = 1e-6


@dataclass(slots=True)
class _Bucket:
    level: float
    at_seconds: float


class Allowance:
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
