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
    opens a counter for a long step. `lenders` are folders of runs whose finished steps are taken
    over where they are of the same options and inputs.
    """

    recipe: Recipe
    folder: Path
    resume: bool = True
    say: Callable[[str], None] = lambda _: None
    counting: Callable[[str], AbstractContextManager[Told]] = uncounted
    lenders: Sequence[Path] = ()

    def step(
        self, name: str, options: object, inputs: Files, make: Callable[[], Files]
    ) -> dict[str, Path]:
        """The output files of one step, made only if its options, inputs or outputs changed.

        A step is known by its name. What it was made from and what it made is kept beside the
        results, with the fingerprints of both, so a file that was cut or edited is made again.
        """
        stamp = _stamp(self.folder, name)
        wanted = {"options": plain(options), "inputs": self._fingerprints(inputs)}
        if self.resume and (standing := _standing(self.folder, name, wanted)) is not None:
            self.say(f"{name}{UNCHANGED}")
            return standing
        stamp.unlink(missing_ok=True)
        for lender in self.lenders:
            if (lent := _standing(lender, name, wanted)) is not None:
                self.say(f"{name}{LENT}")
                return _borrow(lender, self.folder, name, lent)
        self.say(f"{name} ...")
        outputs = dict(make())
        made = {
            key: [str(p.relative_to(self.folder)), fingerprint(p)] for key, p in outputs.items()
        }
        write_json(stamp, {**wanted, "outputs": made})
        return outputs

    def _fingerprints(self, files: Files) -> dict[str, str]:
        return {name: fingerprint(path) for name, path in sorted(files.items())}


def _stamp(folder: Path, name: str) -> Path:
    return folder / ".stages" / f"{name.replace('/', '--')}.json"


def _standing(folder: Path, name: str, wanted: Mapping[str, Any]) -> dict[str, Path] | None:
    """The outputs of a step that was made in `folder` from what is wanted, if they are whole."""
    try:
        kept = json.loads(_stamp(folder, name).read_text(encoding="utf-8"))
        if {key: kept[key] for key in wanted} != wanted:
            return None
        outputs = {key: folder / path for key, (path, _) in kept["outputs"].items()}
        whole = all(fingerprint(folder / p) == f for p, f in kept["outputs"].values())
    except (OSError, ValueError, KeyError, PalateError):
        return None
    return outputs if whole else None


def _borrow(lender: Path, folder: Path, name: str, outputs: Files) -> dict[str, Path]:
    """Another run's outputs under this folder too; its note of the step last, as a step does."""
    taken = {key: folder / path.relative_to(lender) for key, path in outputs.items()}
    for key, path in outputs.items():
        _link(path, taken[key])
    _link(_stamp(lender, name), _stamp(folder, name))
    return taken


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
