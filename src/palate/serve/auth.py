"""Who may ask: bearer tokens, of which only hashes are kept, in a file that may change any time.

A line of the file is `NAME SHA256 DATE`. Tokens are 256 random bits, so that a plain hash cannot
be searched backwards.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import logging
import os
import re
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from palate.records import atomic
from palate.types import PalateError

LOG = logging.getLogger(__name__)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
LINE = re.compile(rf"({NAME.pattern}) ([0-9a-f]{{64}}) (\S+)")
PREFIX = "palate_"  # So that scanners of leaked secrets can know one.


class Tokens:
    """The tokens of a file, read again as soon as it changes.

    A file that is gone lets nobody in; a line that is damaged lets nobody in and is logged.
    """

    def __init__(self, file: Path) -> None:
        """Raises `PalateError` where there is no token yet."""
        self._file = file
        self._seen: tuple[int, ...] = ()
        self._hashes: Mapping[str, bytes] = {}
        if not self._current():
            raise PalateError(f"{file}: no token in it; make one with: palate tokens add NAME")

    def holder(self, authorization: str) -> str | None:
        """The name of the token in an Authorization header, None where it is not one of ours.

        `Basic` is taken too, with the token as password: clients that can set no header can
        still have it in their URL.
        """
        offered = hashlib.sha256(_offered(authorization)).digest()
        found = None
        for name, kept in self._current().items():  # All of them, whichever it is: equal time.
            if hmac.compare_digest(offered, kept):
                found = name
        return found

    def _current(self) -> Mapping[str, bytes]:
        try:
            stat = self._file.stat()
            seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if seen != self._seen:
                self._hashes = {n: bytes.fromhex(h) for n, (h, _) in _read(self._file).items()}
                self._seen = seen
        except OSError as error:
            if self._hashes:
                LOG.error("%s: cannot be read (%s); nobody is let in", self._file, error.strerror)
            self._hashes, self._seen = {}, ()
        return self._hashes


def add_token(file: Path, name: str) -> str:
    """Make a token for `name`, keep its hash in `file`, and give the token: it is nowhere else.

    Raises:
        PalateError: a name of other characters, or one that has a token.
    """
    if not NAME.fullmatch(name):
        raise PalateError(f"{name!r}: expected a name of letters, digits and . _ -, at most 64")
    kept = _known(file)
    if name in kept:
        raise PalateError(f"{file}: {name} has a token; revoke it first, or add another name")
    token = PREFIX + secrets.token_urlsafe(32)
    hashed = hashlib.sha256(token.encode()).hexdigest()
    _write(file, {**kept, name: (hashed, datetime.now(UTC).strftime("%Y-%m-%d"))})
    return token


def revoke_token(file: Path, name: str) -> None:
    """Take the token of `name` out of `file`; raises `PalateError` where it has none."""
    kept = _known(file)
    if name not in kept:
        raise PalateError(f"{file}: {name} has no token; it knows {', '.join(kept) or 'nobody'}")
    _write(file, {other: value for other, value in kept.items() if other != name})


def token_dates(file: Path) -> dict[str, str]:
    """Who has a token, and since when."""
    return {name: date for name, (_, date) in _known(file).items()}


def _known(file: Path) -> dict[str, tuple[str, str]]:
    return _read(file) if file.exists() else {}


def _read(file: Path) -> dict[str, tuple[str, str]]:
    found = {}
    for number, line in enumerate(file.read_text("utf-8", "replace").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        if (matched := LINE.fullmatch(line.strip())) is None:
            LOG.error("%s:%d: not a token's line (NAME SHA256 DATE); left out", file, number)
            continue
        found[matched[1]] = (matched[2], matched[3])
    return found


def _write(file: Path, kept: Mapping[str, tuple[str, str]]) -> None:
    text = "".join(f"{name} {hashed} {date}\n" for name, (hashed, date) in kept.items())
    with atomic(file) as partial:
        os.close(os.open(partial, os.O_CREAT | os.O_WRONLY, 0o600))
        partial.write_text(text, encoding="utf-8")


def _offered(authorization: str) -> bytes:
    scheme, _, value = authorization.strip().partition(" ")
    if scheme.lower() == "bearer":
        return value.strip().encode("utf-8", "surrogateescape")
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value.strip(), validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return b""
    return b""
