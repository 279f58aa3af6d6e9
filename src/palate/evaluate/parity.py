"""One model, every way to score with it: do the numbers agree? (pitfalls 24 and 30)

A way is a function from conversations to scores. All are compared with the first, the reference:
differences in units of the reference's standard deviation, and pairs whose verdict flips.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from types import MappingProxyType
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from palate.judges.baselines import better
from palate.model.device import native_bfloat16
from palate.types import Candidates, PalateError

Floats = NDArray[np.float64]
Kind = Literal["float32", "float16", "bfloat16", "rounded"]
# In standard deviations of the rewards. float32: what an export must keep (rounding of another
# order of sums stays near 1e-5). bfloat16, computed here: 8 bits of mantissa; tiny models reach
# 0.11. rounded: bfloat16 that is not computed here, but stored, or computed by a server. float16,
# stored or computed by a server: 3 bits more.
TOLERANCE: Mapping[Kind, float] = MappingProxyType(
    {"float32": 1e-3, "float16": 0.2 / 8, "bfloat16": 0.2, "rounded": 0.2}
)
EMULATED = "this device emulates bfloat16; ask for it with --emulated, or run it on a GPU"


@dataclass(frozen=True, slots=True)
class Way:
    """A way of scoring; `score` gives [R], one number a response, NaN where there is none."""

    name: str
    kind: Kind
    score: Callable[[Sequence[Candidates]], Floats]


@dataclass(frozen=True, slots=True)
class Agreement:
    """How a way differs from the reference, or `not_run` with the reason.

    `largest` and `mean` are |difference| in rewards; `relative` is `largest` in standard
    deviations of the reference's rewards. `unequal` counts responses that only one of the two
    scored. `flips` are the pairs, as (candidates, response, response), that changed sides.
    """

    way: str
    kind: Kind
    tolerance: float
    responses: int = 0
    pairs: int = 0
    largest: float = 0.0
    mean: float = 0.0
    relative: float = 0.0
    unequal: int = 0
    flips: tuple[tuple[int, int, int], ...] = ()
    not_run: str = ""

    @property
    def holds(self) -> bool:
        """Whether the way gives the same scores, within the tolerance; True where not run."""
        return not self.unequal and self.relative <= self.tolerance


def parity(
    ways: Sequence[Way],
    candidates: Sequence[Candidates],
    *,
    tolerance: Mapping[Kind, float] = TOLERANCE,
    told: Callable[[str], None] = lambda _: None,
    emulated: bool = True,
    device: torch.device | None = None,
) -> list[Agreement]:
    """Score `candidates` by every way and compare each with the first.

    Args:
        ways: at least two.
        tolerance: of each number format, in standard deviations of the rewards; `TOLERANCE` of
            those that it does not name.
        told: called with the name of each way before it runs.
        emulated: False leaves bfloat16 out where `device` has no hardware for it.

    Raises:
        PalateError: the reference gives no two different scores, so that nothing can be compared.
    """
    reference, *others = ways
    told(reference.name)
    expected = reference.score(candidates)
    spread = float(np.nanstd(expected)) if np.isfinite(expected).any() else 0.0
    if not spread:
        raise PalateError(
            f"{reference.name}: gives no two different rewards to {expected.size} responses, so "
            "no other way can be compared with it; give more --items"
        )
    found = []
    for way in others:
        limit = tolerance.get(way.kind, TOLERANCE[way.kind])
        slow = device is not None and way.kind == "bfloat16" and not native_bfloat16(device)
        if slow and not emulated:
            found.append(Agreement(way.name, way.kind, limit, not_run=EMULATED))
            continue
        told(way.name)
        found.append(_agreement(way, limit, expected, way.score(candidates), candidates, spread))
    return found


def _agreement(
    way: Way,
    tolerance: float,
    expected: Floats,
    found: Floats,
    candidates: Sequence[Candidates],
    spread: float,
) -> Agreement:
    one, other = np.isfinite(expected), np.isfinite(found)
    gap = np.abs(found - expected)[one & other]
    pairs = list(_pairs(candidates, one & other))
    flips = tuple(
        (index, a, b)
        for index, start, a, b in pairs
        if better(expected[start + a], expected[start + b])
        != better(found[start + a], found[start + b])
    )
    largest = float(gap.max(initial=0.0))
    return Agreement(
        way=way.name,
        kind=way.kind,
        tolerance=tolerance,
        responses=gap.size,
        pairs=len(pairs),
        largest=largest,
        mean=float(gap.mean()) if gap.size else math.nan,
        relative=largest / spread,
        unequal=int((one != other).sum()),
        flips=flips,
    )


def _pairs(
    candidates: Sequence[Candidates], known: NDArray[np.bool_]
) -> Iterator[tuple[int, int, int, int]]:
    """(candidates, its first row, response, response) of every pair that both ways scored."""
    start = 0
    for index, item in enumerate(candidates):
        for a, b in combinations(range(len(item.responses)), 2):
            if known[start + a] and known[start + b]:
                yield index, start, a, b
        start += len(item.responses)
