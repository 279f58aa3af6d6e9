"""When the next request may start, under limits a minute."""

from __future__ import annotations


class Pace:
    """Spaces starts evenly: request i starts at least 60 max(1/R, t/T) seconds after i - 1.

    R requests and T tokens a minute, t the tokens of request i - 1. Without bursts no window of a
    minute holds more than R + 1 starts.
    """

    def __init__(self, requests_per_minute: float | None, tokens_per_minute: float | None) -> None:
        self._per_request = 60 / requests_per_minute if requests_per_minute else 0.0
        self._per_token = 60 / tokens_per_minute if tokens_per_minute else 0.0
        self._free = self.held_until = 0.0

    def start(self, now: float, tokens: int) -> float:
        """Book a request of `tokens`; the time at which it may start."""
        begin = max(now, self._free, self.held_until)
        self._free = begin + max(self._per_request, tokens * self._per_token)
        return begin

    def hold(self, until: float) -> None:
        """Start nothing before `until`: the endpoint asked to wait."""
        self.held_until = max(self.held_until, until)
