"""Files that appear whole or not at all, written beside their name and renamed; their digests."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from palate.types import PalateError


@contextmanager
def atomic(path: Path) -> Generator[Path]:
    """Yield a temporary path beside `path`; rename it there on success, remove it on failure."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise PalateError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        with suppress(OSError):  # What went wrong was said above.
            partial.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path, *, replace: bool = True) -> Generator[Path]:
    """Yield an empty temporary folder beside `path`; rename it there on success.

    A folder already at `path` is replaced, or kept where `replace` is false (a cache that
    another process filled meanwhile). On failure nothing is left behind. What may read the files
    is the umask's affair, whichever library wrote them.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
        yield partial
        follow_umask(partial)
        if path.exists() and replace:
            path.rename(old)
        if not path.exists():
            partial.rename(path)
    except OSError as error:
        raise PalateError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def follow_umask(folder: Path) -> None:
    """Give the files in `folder` the mode of any new file, as `folder` has that of a new one.

    safetensors 0.8 makes files that nobody but their owner reads (mode 0600), and a server that
    runs as another user cannot open the model.
    """
    # Of a folder that was just made: the umask itself can only be read by setting it, for every
    # thread at once.
    mode = folder.stat().st_mode & 0o666
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(mode)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with atomic(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="surrogatepass")


def write_json(path: Path, value: object) -> None:
    """Write an indented JSON file whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


WHOLE_DIGEST_BYTES = 1 << 30  # Above it a file is sampled: reading 140 GB takes minutes.
SAMPLES, SAMPLE_BYTES = 256, 1 << 16


def file_digest(path: Path, *, whole: bool = False) -> str:
    """A 128-bit hex digest of a file's bytes; above 1 GiB, of its size and 256 spaced samples.

    With `whole`, of every byte at any size.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        if whole or size <= WHOLE_DIGEST_BYTES:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
        hashed = hashlib.blake2b(str(size).encode(), digest_size=16)
        for index in range(SAMPLES):
            file.seek(index * (size - SAMPLE_BYTES) // (SAMPLES - 1))
            hashed.update(file.read(SAMPLE_BYTES))
    return hashed.hexdigest()
