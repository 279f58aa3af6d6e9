"""A run's folder: where each stage's files lie, and whether they are still current."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palate.recipe.schema import Recipe
from palate.records import file_digest, read_header, write_json
from palate.types import PalateError, digest

Files = Mapping[str, Path]
Told = Callable[[int, int, str], None]
"""Told of progress: (done, in all, what there is to say)."""


@contextmanager
def uncounted(_unit: str) -> Generator[Told]:
    """Progress that nobody watches."""
    yield lambda _done, _total, _note: None


@dataclass(frozen=True, slots=True)
class Workspace:
    """A recipe and the folder in which it runs.

    `resume` False makes every stage again; `say` gets one line of progress at a time; `counting`
    opens a counter for a long step.
    """

    recipe: Recipe
    folder: Path
    resume: bool = True
    say: Callable[[str], None] = lambda _: None
    counting: Callable[[str], AbstractContextManager[Told]] = uncounted

    def step(
        self, name: str, options: object, inputs: Files, make: Callable[[], Files]
    ) -> dict[str, Path]:
        """The output files of one step, made only if its options, inputs or outputs changed.

        A step is known by its name. What it was made from and what it made is kept beside the
        results, with the fingerprints of both, so a file that was cut or edited is made again.
        """
        stamp = self.folder / ".stages" / f"{name.replace('/', '--')}.json"
        wanted = {"options": plain(options), "inputs": self._fingerprints(inputs)}
        if self.resume and (standing := self._standing(stamp, wanted)) is not None:
            self.say(f"{name}: unchanged")
            return standing
        stamp.unlink(missing_ok=True)
        self.say(f"{name} ...")
        outputs = dict(make())
        made = {
            key: [str(p.relative_to(self.folder)), fingerprint(p)] for key, p in outputs.items()
        }
        write_json(stamp, {**wanted, "outputs": made})
        return outputs

    def _standing(self, stamp: Path, wanted: Mapping[str, Any]) -> dict[str, Path] | None:
        try:
            kept = json.loads(stamp.read_text(encoding="utf-8"))
            outputs = {key: self.folder / path for key, (path, _) in kept["outputs"].items()}
            whole = all(fingerprint(self.folder / p) == f for p, f in kept["outputs"].values())
        except (OSError, ValueError, KeyError, PalateError):
            return None
        same = {key: kept[key] for key in wanted} == wanted
        return outputs if same and whole else None

    def _fingerprints(self, files: Files) -> dict[str, str]:
        return {name: fingerprint(path) for name, path in sorted(files.items())}


def fingerprint(path: Path) -> str:
    """Of a table its contents' fingerprint, of anything else a digest of its files.

    Prose (.md) is left out: a model card gets its tables after the model was judged.
    """
    if path.suffix == ".parquet" and path.is_file():
        return read_header(path).fingerprint if _is_ours(path) else file_digest(path)
    if not path.exists():
        raise PalateError(f"{path}: no such file; run the stage that makes it first")
    files = sorted(f for f in path.rglob("*") if f.is_file()) if path.is_dir() else [path]
    return digest(*((str(f.relative_to(path)), file_digest(f)) for f in files if not _prose(f)))


def _prose(path: Path) -> bool:
    return path.suffix == ".md"


def _is_ours(path: Path) -> bool:
    try:
        return bool(read_header(path))
    except PalateError:
        return False


def plain(value: object) -> Any:
    """A value as what JSON gives back, so that it can be compared with a stored one."""
    return json.loads(json.dumps(value, default=_plain, sort_keys=True))


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else str(value)


@contextmanager
def locked(folder: Path) -> Generator[None]:
    """Hold the folder against a second run; the lock goes when the process does."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise PalateError(f"{folder}: cannot be written ({error.strerror}); use --out") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PalateError(f"{folder}: another run is writing here; use --out") from None
        yield
