"""Contenders in turns, and what their windows amount to: medians of ratios within a repeat."""

import sys
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.peers.contender import Contender

Facts = dict[str, Any]
Windows = dict[str, list[Facts]]  # By contender, one a repeat.


def take_turns(
    contenders: Sequence[Contender],
    repeats: int,
    request: Callable[[int], Mapping[str, Any]],
    label: str,
) -> Windows:
    """Ask every contender for the window of each repeat; the order moves on by one a repeat.

    Raises:
        RuntimeError: two contenders did not run the same tokens.
    """
    windows: Windows = {c.name: [] for c in contenders}
    for repeat in range(repeats):
        shift = repeat % len(contenders)
        for contender in [*contenders[shift:], *contenders[:shift]]:
            facts = contender.ask(**request(repeat))
            windows[contender.name].append(facts)
            say(f"{label} {repeat + 1}/{repeats}: {contender.name} {facts['seconds']:.1f} s")
    check_equal_work(windows)
    return windows


def check_equal_work(windows: Windows) -> None:
    """Refuse windows of one repeat in which contenders were given different pairs or tokens."""
    for what in ("pairs", "real_tokens"):
        for repeat in zip(*(w for w in windows.values() if what in w[0]), strict=True):
            if len({facts[what] for facts in repeat}) > 1:
                given = {name: w[0].get(what) for name, w in windows.items()}
                raise RuntimeError(f"unequal work: {what} of the first repeat are {given}")


def speedup(windows: Windows, ours: str, peer: str) -> list[float]:
    """How many times longer `peer` took than `ours`, repeat by repeat."""
    pairs = zip(windows[peer], windows[ours], strict=True)
    return [theirs["seconds"] / own["seconds"] for theirs, own in pairs]


def middle(values: Sequence[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": median(values), "min": min(values), "max": max(values)}


def rates(windows: Sequence[Facts]) -> dict[str, float]:
    """Medians over repeats of one contender's windows."""
    return {
        "pairs_per_second": median(w["pairs"] / w["seconds"] for w in windows),
        "real_tokens_per_second": median(w["real_tokens"] / w["seconds"] for w in windows),
        "computed_tokens_per_pair": median(w["computed_tokens"] / w["pairs"] for w in windows),
        "peak_gib": max(w["peak_bytes"] for w in windows) / 2**30,
        "rise_gib": max(w["peak_bytes"] - w["before_bytes"] for w in windows) / 2**30,
    }


def say(text: str) -> None:
    """Progress and tables go to stderr; the last line of stdout is the result."""
    print(text, file=sys.stderr, flush=True)


def table(rows: Mapping[str, Mapping[str, float]]) -> None:
    """Print figures by contender."""
    columns = list(next(iter(rows.values())))
    width = max(map(len, rows))
    say(" " * width + "  " + "  ".join(columns))
    for name, figures in rows.items():
        cells = (f"{figures[c]:>{len(c)}.3g}" for c in columns)
        say(f"{name:<{width}}  " + "  ".join(cells))
