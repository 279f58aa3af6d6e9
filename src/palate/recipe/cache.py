"""A run's folder: where each stage's files lie, and whether they are still current."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palate.recipe.schema import Recipe
from palate.records import file_digest, read_header, write_json
from palate.types import PalateError, digest

Files = Mapping[str, Path]
UNCHANGED, LENT = ": unchanged", ": made before"
"""How a line of progress ends of a step that was not made."""
Progress = Callable[[int, int, str], None]
"""Takes the progress of a long step: (done, in all, a note)."""


@contextmanager
def no_progress(_unit: str) -> Generator[Progress]:
    """Progress that nobody watches."""
    yield lambda _done, _total, _note: None


@dataclass(frozen=True, slots=True)
class Workspace:
    """A recipe and the folder in which it runs.

    `resume` False makes every stage again; `log` gets one line at a time; `progress` opens a
    counter for a long step. `lenders` are folders of runs whose finished steps are taken over where
    they are of the same options and inputs.
    """

    recipe: Recipe
    folder: Path
    resume: bool = True
    log: Callable[[str], None] = lambda _: None
    progress: Callable[[str], AbstractContextManager[Progress]] = no_progress
    lenders: Sequence[Path] = ()

    def step(
        self, name: str, options: object, inputs: Files, make: Callable[[], Files]
    ) -> dict[str, Path]:
        """The output files of one step, made only if its options, inputs or outputs changed.

        A step is known by its name. What it was made from and what it made is kept beside the
        results, with the fingerprints of both, so a file that was cut or edited is made again.
        """
        stamp = _stamp(self.folder, name)
        made_from = {
            "options": plain(options),
            "inputs": {key: fingerprint(path) for key, path in sorted(inputs.items())},
        }
        if self.resume and (existing := _existing(self.folder, name, made_from)) is not None:
            self.log(f"{name}{UNCHANGED}")
            return existing
        stamp.unlink(missing_ok=True)
        for lender in self.lenders:
            if (existing := _existing(lender, name, made_from)) is not None:
                self.log(f"{name}{LENT}")
                outputs = {k: self.folder / p.relative_to(lender) for k, p in existing.items()}
                for key, path in existing.items():
                    _link(path, outputs[key])
                _link(_stamp(lender, name), stamp)  # Last, as where a step is made.
                return outputs
        self.log(f"{name} ...")
        outputs = dict(make())
        made = {
            key: [str(p.relative_to(self.folder)), fingerprint(p)] for key, p in outputs.items()
        }
        write_json(stamp, {**made_from, "outputs": made})
        return outputs


def _stamp(folder: Path, name: str) -> Path:
    return folder / ".stages" / f"{name.replace('/', '--')}.json"


def _existing(folder: Path, name: str, made_from: Mapping[str, Any]) -> dict[str, Path] | None:
    """The outputs of a step that was made in `folder` from the same, if none has changed."""
    try:
        stamp = json.loads(_stamp(folder, name).read_text(encoding="utf-8"))
        if {key: stamp[key] for key in made_from} != made_from:
            return None
        outputs = {key: folder / path for key, (path, _) in stamp["outputs"].items()}
        intact = all(fingerprint(folder / p) == f for p, f in stamp["outputs"].values())
    except (OSError, ValueError, KeyError, PalateError):
        return None
    return outputs if intact else None


def _link(path: Path, to: Path) -> None:
    """The same bytes under a second name; files here are replaced whole, never written into."""
    if path.is_dir():
        shutil.rmtree(to, ignore_errors=True)
        for inner in path.iterdir():
            _link(inner, to / inner.name)
        return
    to.parent.mkdir(parents=True, exist_ok=True)
    to.unlink(missing_ok=True)
    try:
        to.hardlink_to(path)
    except OSError:  # A file system without hard links.
        shutil.copy2(path, to)


def fingerprint(path: Path) -> str:
    """Of a table its contents' fingerprint, of anything else a digest of its files.

    Prose (.md) is left out: a model card gets its tables after the model was judged.
    """
    if path.suffix == ".parquet" and path.is_file():
        try:
            return read_header(path).fingerprint
        except PalateError:  # Not a file of ours.
            return file_digest(path)
    if not path.exists():
        raise PalateError(f"{path}: no such file; run the stage that makes it first")
    files = sorted(f for f in path.rglob("*") if f.is_file()) if path.is_dir() else [path]
    digests = ((str(f.relative_to(path)), file_digest(f)) for f in files if f.suffix != ".md")
    return digest(*digests)


def plain(value: object) -> Any:
    """A value as what JSON gives back, so that it can be compared with a stored one."""

    def default(value: Any) -> Any:
        return value.model_dump(mode="json") if hasattr(value, "model_dump") else str(value)

    return json.loads(json.dumps(value, default=default, sort_keys=True))


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
