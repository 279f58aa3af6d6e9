"""Resident memory of a process and its children over time: how much it grew, and a picture."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import psutil

Series = Sequence[tuple[float, int]]  # (seconds, bytes)
LEAST_SECONDS = 300.0
WIDTH, HEIGHT, EDGE = 720, 240, 40


def resident(pid: int) -> int:
    """Bytes of a process and its children."""
    total = 0
    with contextlib.suppress(psutil.Error):
        parent = psutil.Process(pid)
        for process in [parent, *parent.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                total += process.memory_info().rss
    return total


def growth(series: Series) -> float | None:
    """The last quarter's median over the second's, less 1; medians pass over restarts.

    None where that is not told from starting up.
    """
    if not series or series[-1][0] < LEAST_SECONDS:
        return None
    count = len(series) // 4
    second, last = series[count : 2 * count], series[-count:]
    return median(b for _, b in last) / median(b for _, b in second) - 1


def plot(series: Series, path: Path) -> None:
    """A line of MiB over minutes, as SVG."""
    if not series:
        return
    longest, most = max(t for t, _ in series) or 1.0, max(b for _, b in series) or 1
    inner, tall = WIDTH - 2 * EDGE, HEIGHT - 2 * EDGE
    points = " ".join(
        f"{EDGE + t / longest * inner:.1f},{HEIGHT - EDGE - b / most * tall:.1f}" for t, b in series
    )
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">'
        f'<path d="M{EDGE},{EDGE}v{tall}h{inner}" fill="none" stroke="#888"/>'
        f'<polyline points="{points}" fill="none" stroke="#0072b2"/>'
        f'<text x="{EDGE}" y="{EDGE - 10}">resident memory, at most {most / 2**20:.0f} MiB</text>'
        f'<text x="{WIDTH - EDGE}" y="{HEIGHT - 15}" text-anchor="end">{longest / 60:.1f} minutes'
        "</text></svg>\n",
        encoding="utf-8",
    )
