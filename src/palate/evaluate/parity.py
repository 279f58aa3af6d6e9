"""One model, every way to score with it: do the numbers agree? (pitfalls 24 and 30)

A way is a function from conversations to scores. All are compared with the first, the reference:
differences in units of the reference's standard deviation, and pairs whose verdict flips.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from palate.judges.reward_model import RewardScorer
from palate.judges.sequence_classifier import SequenceClassifier
from palate.judges.spec import SequenceClassifierSpec
from palate.judges.trivial import better
from palate.model.batch import Tokens, group, microbatches
from palate.model.device import autocast, native_bfloat16
from palate.model.reward_model import RewardModel
from palate.types import Candidates, PalateError, Scorer

Floats = NDArray[np.float64]
Kind = Literal["float32", "bfloat16"]
# In standard deviations of the rewards. float32: what an export must keep (rounding of another
# order of sums stays near 1e-5). bfloat16: 8 bits of mantissa; tiny models reach 0.11.
TOLERANCE: dict[Kind, float] = {"float32": 1e-3, "bfloat16": 0.2}
BUDGET, ROWS = 4_096, 16
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
    tolerance: float | None = None,
    told: Callable[[str], None] = lambda _: None,
    emulated: bool = True,
    device: torch.device | None = None,
) -> list[Agreement]:
    """Score `candidates` by every way and compare each with the first.

    Args:
        ways: at least two.
        tolerance: in standard deviations of the rewards; default `TOLERANCE` of the way's kind.
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
        limit = TOLERANCE[way.kind] if tolerance is None else tolerance
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


def scorer_way(name: str, scorer: Scorer, kind: Kind = "float32") -> Way:
    """Any scorer as a way: a server, another program's model."""

    def score(candidates: Sequence[Candidates]) -> Floats:
        scores = scorer.score(iter(candidates))
        values = [math.nan if s.value is None else s.value for row in scores for s in row]
        return np.array(values, dtype=np.float64)

    return Way(name, kind, score)


def reward_model_ways(scorer: RewardScorer) -> list[Way]:
    """Every path of our own engine; the first is the one that trains, judges and scores."""
    model = scorer.model

    def shared(candidates: Sequence[Candidates]) -> Floats:
        return scorer_way("", scorer).score(candidates)

    def in_bfloat16(candidates: Sequence[Candidates]) -> Floats:
        with _computing(model, torch.bfloat16):
            return shared(candidates)

    def alone(candidates: Sequence[Candidates]) -> Floats:
        return np.concatenate([shared([item]) for item in candidates])

    def unshared(candidates: Sequence[Candidates]) -> Floats:
        return _by_rows(model, candidates, _packed)

    def padded(candidates: Sequence[Candidates]) -> Floats:
        return _by_rows(model, candidates, lambda m, rows: _padded(m, rows, ROWS))

    def padded_alone(candidates: Sequence[Candidates]) -> Floats:
        return _by_rows(model, candidates, lambda m, rows: _padded(m, rows, 1))

    return [
        Way(f"Palate: {model.path}", "float32", shared),
        Way("Palate: one prompt at a time", "float32", alone),
        Way("Palate: packed, prompts not shared", "float32", unshared),
        Way(f"Palate: padded, {ROWS} rows a batch", "float32", padded),
        Way("Palate: padded, one row at a time", "float32", padded_alone),
        Way("Palate: bfloat16", "bfloat16", in_bfloat16),
    ]


def classifier_ways(spec: SequenceClassifierSpec) -> list[Way]:
    """The sequence classifier as transformers loads it; the first in rows of like length."""
    alone = spec.model_copy(update={"batch_tokens": 1})
    eager = spec.model_copy(update={"attention": "eager"})

    def stock(given: SequenceClassifierSpec) -> Callable[[Sequence[Candidates]], Floats]:
        # Opened when it runs, so that no two of the models are held at once.
        return lambda candidates: scorer_way("", SequenceClassifier(given)).score(candidates)

    def in_bfloat16(candidates: Sequence[Candidates]) -> Floats:
        opened = SequenceClassifier(spec)
        with autocast(torch.bfloat16, opened.device):
            return scorer_way("", opened).score(candidates)

    return [
        Way("transformers: batches of like length", "float32", stock(spec)),
        Way("transformers: one row at a time", "float32", stock(alone)),
        Way("transformers: eager attention", "float32", stock(eager)),
        Way("transformers: bfloat16", "bfloat16", in_bfloat16),
    ]


@contextmanager
def _computing(model: RewardModel, dtype: torch.dtype) -> Iterator[None]:
    before, model.dtype = model.dtype, dtype
    try:
        yield
    finally:
        model.dtype = before


@torch.inference_mode()
def _by_rows(
    model: RewardModel,
    candidates: Sequence[Candidates],
    reward: Callable[[RewardModel, Sequence[Tokens]], Floats],
) -> Floats:
    """Rewards of every response as a row of its own; NaN where it has no tokens."""
    encoded = [model.chat.encode(item.prompt, r) for item in candidates for r in item.responses]
    known = [row.ids for row in encoded if row is not None]
    values = iter(reward(model, known) if known else ())
    return np.array([math.nan if row is None else next(values) for row in encoded])


def _packed(model: RewardModel, rows: Sequence[Tokens]) -> Floats:
    found = np.empty(len(rows))
    for indices, groups in microbatches([group([row], shared=False) for row in rows], BUDGET):
        found[indices] = model(groups).reward.float().cpu().numpy()
    return found


def _padded(model: RewardModel, rows: Sequence[Tokens], count: int) -> Floats:
    batches = (rows[start : start + count] for start in range(0, len(rows), count))
    return np.concatenate([model.forward_padded(b).reward.float().cpu().numpy() for b in batches])
