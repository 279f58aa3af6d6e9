"""Answers kept as they arrive, so that a killed run asks only for what is missing."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from palate.types import PalateError

SYNC_SECONDS = 2.0  # What a power cut may cost; a killed process loses nothing.


class Journal:
    """JSON lines `[key, answer]` under a first line that names the protocol's fingerprint.

    Lines of another protocol are dropped, a last line that was cut is dropped, and a line that
    cannot be read is dropped: its key is asked again. One answer a key; the last one counts.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        """Open or make the journal at `path`; raises `PalateError` where it cannot be written."""
        self.path = path
        self._synced = time.monotonic()
        with _writable(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: BinaryIO = path.open("ab+")
            self._file.seek(0)
            self.answers, whole = _read(self._file, fingerprint)
            self._file.truncate(whole)
            if not whole:
                self._write({"palate": "journal", "protocol": fingerprint})

    def add(self, key: str, answer: Any) -> None:
        """Keep one answer; it is in the file when this returns, on the disk seconds later."""
        with _writable(self.path):
            self._write([key, answer])
            if time.monotonic() - self._synced > SYNC_SECONDS:
                self._sync()
        self.answers[key] = answer

    def close(self) -> None:
        """Bring everything to the disk."""
        with _writable(self.path):
            try:
                self._sync()
            finally:
                self._file.close()

    def _write(self, value: object) -> None:
        self._file.write(json.dumps(value, ensure_ascii=True).encode() + b"\n")
        self._file.flush()

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()


def answers_of(path: Path, fingerprint: str) -> dict[str, Any]:
    """What a journal holds, also while another process writes it."""
    with path.open("rb") as file:
        return _read(file, fingerprint)[0]


def _read(file: BinaryIO, fingerprint: str) -> tuple[dict[str, Any], int]:
    """The answers, and the length in bytes of what is whole."""
    answers: dict[str, Any] = {}
    whole = 0
    for number, line in enumerate(file):
        if not line.endswith(b"\n"):
            break
        try:
            value = json.loads(line)
        except ValueError:
            value = None
        if number == 0 and (not isinstance(value, dict) or value.get("protocol") != fingerprint):
            return {}, 0
        if number and isinstance(value, list) and len(value) == 2:
            answers[value[0]] = value[1]
        whole += len(line)
    return answers, whole


@contextmanager
def journal(path: Path, fingerprint: str) -> Generator[Journal]:
    """An open journal, on the disk and closed when the block ends, however it ends."""
    opened = Journal(path, fingerprint)
    try:
        yield opened
    finally:
        opened.close()


@contextmanager
def _writable(path: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise PalateError(
            f"{path}: cannot be written ({reason}); free or name another folder and run again, "
            "answers so far are kept"
        ) from error
