"""Progress of long work: log lines, and a bar on a terminal or a line now and then elsewhere.

Lines go through `logging`, so that a program that uses Palate gets them as from any library. The
command line writes them to stderr with `log_to_screen`, and `log_to_file` keeps them in a file.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:  # rich takes a twentieth of a second, and `palate --help` is instant.
    from rich.console import Console
    from rich.progress import Progress

LOG = logging.getLogger("palate.progress")
LINE_SECONDS = 30.0
HALF_LIFE_SECONDS = 60.0
NAME_WIDTH, BAR_WIDTH, FIGURES_WIDTH = 20, 10, 20  # With counts and time left: 80 columns.


class Screen(logging.Handler):
    """Lines on stderr, above the bar where there is one; neither where it is `quiet`."""

    def __init__(self, *, quiet: bool = False) -> None:
        from rich.console import Console

        super().__init__(logging.INFO)
        self.console: Console = Console(stderr=True, quiet=quiet)

    def emit(self, record: logging.LogRecord) -> None:
        # Not markup: a line may name what comes from data, which is untrusted. soft_wrap: in a
        # file, a reason that is longer than a window stays one line.
        self.console.print(
            record.getMessage(), markup=False, highlight=False, soft_wrap=True,
            style="dim" if getattr(record, "dim", False) else None,
        )  # fmt: skip


def info(line: str, *, dim: bool = False) -> None:
    """A line of progress."""
    LOG.info("%s", line, extra={"dim": dim})


def warn(line: str) -> None:
    """A line of what may make a result another than it seems."""
    LOG.warning("%s", line)


def log_to_screen(*, quiet: bool = False) -> None:
    """From now on, lines and bars are on stderr, or nowhere."""
    LOG.handlers = [h for h in LOG.handlers if not isinstance(h, Screen)]
    LOG.addHandler(Screen(quiet=quiet))
    LOG.setLevel(logging.DEBUG)
    LOG.propagate = False


@contextmanager
def log_to_file(path: Path, title: str) -> Generator[None]:
    """Add every line, and how the work ends, to the file at `path`, each with its time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = logging.FileHandler(path, encoding="utf-8")
    except OSError:  # The next write to this folder raises; a log is no reason to stop.
        yield
        return
    file.setFormatter(_OneLine("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    LOG.addHandler(file)
    LOG.setLevel(logging.DEBUG)
    try:
        LOG.debug("%s", title)
        yield
        LOG.debug("done")
    except BaseException as error:
        LOG.debug("stopped: %s: %s", type(error).__name__, error)
        raise
    finally:
        LOG.removeHandler(file)
        file.close()


class _OneLine(logging.Formatter):
    """Text of data or of a model cannot write a line of the log of its own."""

    def format(self, record: logging.LogRecord) -> str:
        return "".join(c if c.isprintable() else " " for c in super().format(record))


class TimeLeft:
    """Seconds that are left, from the pace of the last minute or two, the newest weighing most.

    Each second that passed weighs half as much a minute later, whether it did many units or few:
    one slow step moves the estimate little, a lasting change within a minute.
    """

    def __init__(self, total: int | None, done: int, now: float) -> None:
        self.total, self._done, self._updated = total, done, now
        self._units = self._seconds = 0.0

    def update(self, done: int, now: float) -> None:
        """`done` units are done at `now`; what was done before the start is no pace."""
        passed = now - self._updated
        if done <= self._done or passed <= 0:
            return
        decay = 0.5 ** (passed / HALF_LIFE_SECONDS)
        self._units = self._units * decay + done - self._done
        self._seconds = self._seconds * decay + passed
        self._done, self._updated = done, now

    def at(self, now: float) -> float | None:
        """Seconds left at `now`, or None where nobody knows yet."""
        if self.total is None or not self._units or self._done >= self.total:
            return None
        since_update = (self.total - self._done) * self._seconds / self._units
        return max(0.0, since_update - (now - self._updated))


class Bar:
    """How far some long work is: a bar on a terminal, elsewhere and in the log a line now and then.

    Where neither a program nor the command line configured the log, a bar adds a screen for as
    long as it runs, so that progress of a training in a notebook is visible.
    """

    def __init__(
        self, name: str, total: int | None = None, *, unit: str = "", shown: bool = True
    ) -> None:
        self.name, self.total, self.unit = name, total, unit
        self.done, self.figures = 0, ""
        self._shown = shown
        self._own_screen: Screen | None = None
        self._left: TimeLeft | None = None
        self._progress: Progress | None = None
        self._ended = threading.Event()
        self._refresher = threading.Thread(target=self._refresh, name="progress", daemon=True)

    def __enter__(self) -> Self:
        if not self._shown:
            return self
        if not LOG.hasHandlers():
            self._own_screen = Screen()
            LOG.addHandler(self._own_screen)
            LOG.setLevel(logging.DEBUG)
        screen = next((h for h in LOG.handlers if isinstance(h, Screen)), None)
        if screen is not None and screen.console.is_terminal and not screen.console.quiet:
            self._progress = rich_progress(screen.console)
            self._progress.add_task(self.title(), total=self.total, figures="", left="")
            self._progress.start()
        self._refresher.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        if self._progress is not None:
            self._progress.stop()
        if self._own_screen is not None:
            LOG.removeHandler(self._own_screen)

    def start(self, done: int) -> None:
        """`done` units are done; the time that is left is measured from here."""
        self._left = None
        self.update(done)

    def update(self, done: int, total: int | None = None, figures: str = "") -> None:
        """`done` of `total` units are done; `figures` are what is known of them."""
        now = time.monotonic()
        self.done, self.figures = done, figures
        self.total = self.total if total is None else total
        if self._left is None:
            self._left = TimeLeft(self.total, done, now)
        self._left.total = self.total
        self._left.update(done, now)
        self._draw()

    def _draw(self) -> None:
        if self._progress is not None:
            self._progress.update(
                self._progress.task_ids[0], completed=self.done, total=self.total,
                figures=self.figures, left=self._time_left(), description=self.title(),
            )  # fmt: skip

    def _refresh(self) -> None:
        """On a terminal the time left runs on between updates; the log has a line either way."""
        on_terminal = self._progress is not None
        logged = time.monotonic()
        while not self._ended.wait(1.0 if on_terminal else LINE_SECONDS):
            self._draw()
            if time.monotonic() - logged >= LINE_SECONDS:
                logged = time.monotonic()
                level = logging.DEBUG if on_terminal else logging.INFO
                LOG.log(level, "%s", self.line(), extra={"dim": True})

    def line(self) -> str:
        """How far it is, as a line: `mine: 12 of 38 steps, loss 0.650, 0:01:20 left`."""
        of_total = f" of {self.total:,}" if self.total is not None else ""
        count = f"{self.done:,}{of_total} {self.unit}".rstrip()
        return f"  {self.name}: " + ", ".join(
            filter(None, (count, self.figures, self._time_left()))
        )

    def _time_left(self) -> str:
        seconds = None if self._left is None else self._left.at(time.monotonic())
        return "" if seconds is None else f"{timedelta(seconds=round(seconds))} left"

    def title(self) -> str:
        """The name, cut to what the figures leave of it."""
        width = NAME_WIDTH if self.figures else NAME_WIDTH + FIGURES_WIDTH
        return self.name if len(self.name) <= width else f"{self.name[: width - 1].rstrip()}…"


def rich_progress(console: Console) -> Progress:
    """A bar for `Bar`'s fields that fits a terminal of 80 columns."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(BAR_WIDTH),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}", markup=False),
        TextColumn("{task.fields[left]}", markup=False, style="cyan"),
        console=console,
        transient=True,
    )
