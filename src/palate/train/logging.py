"""What a user sees of a run: a bar, `metrics.jsonl`, and the trackers they asked for."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from palate.extras import install_command
from palate.progress import Bar, info
from palate.records import write_text
from palate.types import PalateError

Track = Callable[[int, Mapping[str, float]], None]


class RunLog:
    """Sends each step's figures to the bar, to `metrics.jsonl` and to the trackers.

    Of several ranks only one has it `shown`; the others' figures are the same and go nowhere.
    """

    def __init__(
        self, folder: Path, name: str, steps: int, trackers: Sequence[str], *, shown: bool = True
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "metrics.jsonl" if shown else Path(os.devnull)
        self._file = path.open("a", encoding="utf-8", buffering=1)
        self._tracks = [_open_tracker(t, folder, name) for t in trackers if shown]
        self._shown = shown
        self._bar = Bar(name, steps, unit="steps", shown=shown)

    def __enter__(self) -> Self:
        self._bar.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.__exit__(kind, error, trace)
        self._file.close()
        if error is None:
            self.info(self._bar.line())

    def info(self, line: str) -> None:
        """Log a line of progress; of several ranks one does."""
        if self._shown:
            info(line, dim=True)

    def starts(self, done: int) -> None:
        """Training goes on after step `done`; the time that is left is measured from here."""
        self._bar.start(done)

    def prepares(self, what: str) -> None:
        """Show on the bar what is done before the next step."""
        self._bar.update(self._bar.done, figures=what)

    def step(self, step: int, figures: Mapping[str, float]) -> None:
        """Record one optimizer step."""
        self._write({"step": step, **figures})
        self._track(step, {f"train/{k}": v for k, v in figures.items()})
        accuracy = f" acc {figures['accuracy']:.2f}" if "accuracy" in figures else ""  # Of ties.
        self._bar.update(step, figures=f"loss {figures['loss']:.3f}{accuracy}")

    def evaluations(self, step: int, epoch: float, sets: Mapping[str, Mapping[str, float]]) -> None:
        """Record the evaluations on held-out sets, by name."""
        for name, figures in sets.items():
            self._write({"step": step, "epoch": epoch, "eval": {"name": name, **figures}})
            self._track(step, {f"{name}/{k}": v for k, v in figures.items()})
            ties = f" and {figures['ties']:.0f} ties" if "ties" in figures else ""
            ranked = f"accuracy {figures['accuracy']:.3f}, " if "accuracy" in figures else ""
            attributes = "".join(
                f", {key.rpartition('/')[2]} {value:.3f}"
                for key, value in figures.items()
                if key.startswith("attribute_loss/")
            )
            self.info(
                f"  step {step}: {name} {ranked}loss {figures['loss']:.4f}{attributes} "
                f"(n = {figures['pairs']:.0f}{ties})"
            )

    def _write(self, row: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(row) + "\n")

    def _track(self, step: int, figures: Mapping[str, float]) -> None:
        for track in self._tracks:
            track(step, figures)


def _open_tracker(tracker: str, folder: Path, name: str) -> Track:
    if tracker == "tensorboard":
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(str(folder / "tensorboard"))

        def track(step: int, figures: Mapping[str, float]) -> None:
            for key, value in figures.items():
                writer.add_scalar(key, value, step)
            writer.flush()

        return track
    try:
        module = __import__(tracker)
    except ImportError:
        raise PalateError(
            f"train.trackers: {tracker} is not installed; run: {install_command(tracker)}"
        ) from None
    run = module.init(project="palate", name=name)
    return lambda step, figures: run.log(dict(figures), step=step)


def drop_after(folder: Path, step: int) -> None:
    """Forget metrics of steps after `step`, which a resumed run will record again."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:  # The last line of a killed run.
            continue
        if row["step"] <= step:
            kept.append(line)
    write_text(path, "".join(f"{line}\n" for line in kept))
