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
        self._version: tuple[int, ...] = ()
        self._hashes: Mapping[str, bytes] = {}
        if not self._current():
            raise PalateError(f"{file}: no token in it; make one with: palate tokens add NAME")

    def holder(self, authorization: str) -> str | None:
        """The name of the token in an Authorization header, None where it is not one of ours.

        `Basic` is taken too, with the token as password: clients that can set no header can
        still have it in their URL.
        """
        offered = hashlib.sha256(_token(authorization)).digest()
        hashes = self._current()
        # All of them are compared, whichever it is: equal time.
        names = [name for name in hashes if hmac.compare_digest(offered, hashes[name])]
        return names[0] if names else None

    def _current(self) -> Mapping[str, bytes]:
        try:
            stat = self._file.stat()
            version = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if version != self._version:
                self._hashes = {n: bytes.fromhex(h) for n, (h, _) in _read(self._file).items()}
                self._version = version
        except OSError as error:
            if self._hashes:
                LOG.error("%s: cannot be read (%s); nobody is let in", self._file, error.strerror)
            self._hashes, self._version = {}, ()
        return self._hashes


def add_token(file: Path, name: str) -> str:
    """Make a token for `name`, keep its hash in `file`, and give the token: it is nowhere else.

    Raises:
        PalateError: a name of other characters, or one that has a token.
    """
    if not NAME.fullmatch(name):
        raise PalateError(f"{name!r}: expected a name of letters, digits and . _ -, at most 64")
    entries = _read(file)
    if name in entries:
        raise PalateError(f"{file}: {name} has a token; revoke it first, or add another name")
    token = PREFIX + secrets.token_urlsafe(32)
    hashed = hashlib.sha256(token.encode()).hexdigest()
    _write(file, {**entries, name: (hashed, datetime.now(UTC).strftime("%Y-%m-%d"))})
    return token


def revoke_token(file: Path, name: str) -> None:
    """Take the token of `name` out of `file`; raises `PalateError` where it has none."""
    entries = _read(file)
    if name not in entries:
        known = ", ".join(entries) or "nobody"
        raise PalateError(f"{file}: {name} has no token; it knows {known}")
    del entries[name]
    _write(file, entries)


def token_dates(file: Path) -> dict[str, str]:
    """Who has a token, and since when."""
    return {name: date for name, (_, date) in _read(file).items()}


def _read(file: Path) -> dict[str, tuple[str, str]]:
    """Hash and date by name; nothing where there is no file."""
    entries: dict[str, tuple[str, str]] = {}
    if not file.exists():
        return entries
    for number, line in enumerate(file.read_text("utf-8", "replace").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        if (matched := LINE.fullmatch(line.strip())) is None:
            LOG.error("%s:%d: not a token's line (NAME SHA256 DATE); left out", file, number)
            continue
        entries[matched[1]] = (matched[2], matched[3])
    return entries


def _write(file: Path, entries: Mapping[str, tuple[str, str]]) -> None:
    text = "".join(f"{name} {hashed} {date}\n" for name, (hashed, date) in entries.items())
    with atomic(file) as partial:
        os.close(os.open(partial, os.O_CREAT | os.O_WRONLY, 0o600))
        partial.write_text(text, encoding="utf-8")


def _token(authorization: str) -> bytes:
    scheme, _, value = authorization.strip().partition(" ")
    if scheme.lower() == "bearer":
        return value.strip().encode("utf-8", "surrogateescape")
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value.strip(), validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return b""
    return b""
