"""The parent's side: contenders as processes that wait until it is their turn."""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

HERE = Path(__file__).parents[1]
WORK = HERE / ".work"
OURS = Path(sys.executable)
TRL = HERE / ".venv-trl/bin/python"
VLLM = HERE / ".venv-vllm/bin/python"
REWARDBENCH = HERE / ".venv-rewardbench/bin/python"

# What `palate.model.device.keep_memory` sets from within: glibc keeps what is freed.
KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
}


DTYPES = ("float32", "bfloat16")


def add_options(parser: argparse.ArgumentParser) -> None:
    """`--dtype` and `--base`, which every benchmark beside peers has."""
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of all contenders")
    parser.add_argument(
        "--base", type=checkout, help="a second checkout of Palate, timed in the same turns"
    )


def checkout(text: str) -> Path:
    """The folder of a checkout; what is none is refused by argparse, in one line."""
    folder = Path(text).resolve()
    if not (folder / "src/palate/__init__.py").is_file():
        raise argparse.ArgumentTypeError(f"{text}: expected a checkout, which has src/palate")
    return folder


def imports_from(base: Path | None) -> dict[str, str]:
    """The environment in which our workers import the package of another checkout."""
    return {} if base is None else {"PYTHONPATH": str(base / "src")}


def vs_today(dtype: str) -> str:
    """The key of the ratio to the other checkout: `vs_today_bf16`, or `vs_today_float32`."""
    return "vs_today_bf16" if dtype == "bfloat16" else f"vs_today_{dtype}"


@dataclass(frozen=True)
class Command:
    """How a contender is started: interpreter, module, arguments, extra environment."""

    name: str
    python: Path
    module: str
    arguments: Sequence[object] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


class Contender:
    """One started worker. Only the one that is asked computes."""

    def __init__(self, command: Command, threads: int) -> None:
        """Start it and wait until it has loaded; raises `RuntimeError` with its last words."""
        self.name = command.name
        if not command.python.exists():
            raise RuntimeError(f"{command.python}: no such environment; run the make target")
        self._log = WORK / "logs" / f"{command.name}.log"
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [command.python, "-m", command.module, *map(str, command.arguments)],
                cwd=HERE.parent,
                env=environment(threads) | dict(command.environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.facts = self._hear()
        wanted, source = command.environment.get("PYTHONPATH"), self.facts.get("source", "")
        if wanted is not None and not source.startswith(wanted):
            self.close()
            raise RuntimeError(f"{command.name}: expected palate from {wanted}, got {source!r}")

    def ask(self, **request: Any) -> dict[str, Any]:
        """Run one window and return its facts."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._hear()

    def close(self) -> None:
        """Let it end: it reads to the end of its requests."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            last = "\n".join(self._log.read_text().splitlines()[-15:])
            raise RuntimeError(f"{self.name} ended without an answer; {self._log} ends in\n{last}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def environment(threads: int) -> dict[str, str]:
    """The parent's environment, with equal threads for all and nothing that asks the network."""
    return os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "RAYON_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_CACHE": str(WORK / "datasets"),
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "WANDB_MODE": "disabled",
        "TOKENIZERS_PARALLELISM": "true",
    }
