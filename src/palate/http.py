"""What everyone here who asks a server does alike: keys, waits, and what an error said."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from palate.types import PalateError

if TYPE_CHECKING:
    import httpx2


PASSING = frozenset({408, 424, 425, 429, *range(500, 600)})  # The server's fault, or its load.
REFUSED = frozenset({400, 413, 422})  # The text's fault: asking again is vain.
HIDDEN = "***"


def address(url: str) -> str:
    """A server's address without a slash at its end; ValueError where it is none or holds a key."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
        raise ValueError("expected http://HOST:PORT or https://HOST")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError(
            "expected no user, password or query in an address; put a key into an "
            "environment variable and name it in key_env"
        )
    return url.rstrip("/")


def bearer_key(variable: str, who: str, url: str) -> str:
    """The key that an environment variable holds; `PalateError` where it holds none."""
    key = os.environ.get(variable, "").strip()
    if not key:
        raise PalateError(
            f"{who}: environment variable {variable} is not set; export the key of {url} in it, "
            "or name another variable: key_env"
        )
    # A header cannot hold it, and the client's own error would quote it.
    if not all("!" <= character <= "~" for character in key):
        raise PalateError(
            f"{who}: environment variable {variable} holds a space, a line break or another "
            "character that no header can hold; export one bare key in it"
        )
    return key


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that `Retry-After` asks to wait, which it says as a number or as a date."""
    asked = headers.get("retry-after", "").strip()
    if re.fullmatch(r"-?\d{1,9}(\.\d*)?", asked):
        return max(0.0, float(asked))
    try:
        return max(0.0, parsedate_to_datetime(asked).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None


def error_line(response: httpx2.Response, key: str = "") -> str:
    """What the body of an error says, in one short line without the key."""
    try:
        said = response.json()
        while isinstance(said, dict):
            said = next((said[k] for k in ("error", "message", "detail") if said.get(k)), "")
    except (ValueError, RecursionError):
        said = response.text
    return one_line(str(said), key) or response.reason_phrase


def one_line(text: str, key: str = "") -> str:
    """The first 160 characters on one line, without the key: half a key is one too."""
    line = " ".join(text.split())
    return (line.replace(key, HIDDEN) if key else line)[:160]
