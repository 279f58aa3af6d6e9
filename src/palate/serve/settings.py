"""What the server allows, and where it listens."""

from __future__ import annotations

import ipaddress
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
