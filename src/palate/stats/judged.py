"""What people would say of comparisons that only a judge has seen, by how the judge errs on others.

A judge that stands in for people shifts every share towards what its errors make of it. Where the
same judge was asked about comparisons that people have labelled, its errors are known, within the
error of that sample, and can be taken out again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, stdtr, stdtrit

from palate.stats.compare import PairedDifference, student_ends
from palate.stats.estimate import CONFIDENCE, LEVEL, Codes, Estimate, Floats, clustered_mean

LEAST_LABELLED = 10  # Comparisons that people decided for either side, below which none is said.
TIES_LEVEL = 0.01  # Of the test that the judge ties as its calibration lets expect.
METHOD = "judge-corrected, Fieller"


@dataclass(frozen=True, slots=True)
class JudgeCorrected:
    """A share of people's preferences estimated through a judge.

    `estimate` is the share that people would give to a side, None with the `reason` where it cannot
    be said. `judged` is the judge's own share, uncorrected; `people` that of the labelled sample.
    `sensitivity` is what the judge gives to that side where people prefer it, `specificity` what it
    gives to the other where they prefer the other; `informedness` J is their sum less one.
    """

    estimate: Estimate | None
    reason: str
    judged: Estimate
    people: Estimate
    sensitivity: Estimate
    specificity: Estimate
    informedness: Estimate


def judge_corrected(
    judged: ArrayLike,
    clusters: Iterable[Any] | None,
    labelled_judged: ArrayLike,
    labels: ArrayLike,
    labelled_clusters: Iterable[Any] | None,
    *,
    confidence: float = CONFIDENCE,
    fingerprint: str = "",
) -> JudgeCorrected:
    """The share of comparisons that people would decide for a side, from a judge's answers.

    With p the judge's share for the side, m1 and m0 the judge's share among labelled comparisons
    that people decided for and against it:

        theta = (p - m0) / (m1 - m0),    J = m1 - m0 = sensitivity + specificity - 1

    (Rogan and Gladen). The interval is Fieller's: all theta with (p - m0 - theta J)^2 <= t^2 Var,
    Var that of the left side from the cluster-robust covariance of p, m1 and m0, so that prompts
    which stand in both samples count. For small samples each mean has a right and a wrong answer
    more, as in the source. Ties of the judge count one half; comparisons that people left undecided
    have no part.

    It holds where the judge errs on both samples alike, given what people prefer: about **this**
    side, for a judge may favour its own kind. It refuses (`reason`) where that is not so, or cannot
    be known:

    - fewer than `LEAST_LABELLED` labelled comparisons for the side or against it;
    - J is not above 0 beyond its error, where any share at all would explain the judge's;
    - the judge's share is beyond what any share of people's could give with these errors;
    - the judge ties more or less often than any such share could give (a test at 1 %).

    Args:
        judged: [N] the judge's answers for the side: 1, 0, 0.5 a tie, NaN unscored.
        clusters: [N] labels, or None where comparisons are independent.
        labelled_judged: [M] the same of the labelled comparisons.
        labels: [M] people's: 1 for the side, 0 against it, NaN undecided.
        labelled_clusters: [M] labels of the same kind as `clusters`, or None.
        confidence: coverage asked for.
        fingerprint: copied to the estimate.

    Source: Rogan and Gladen 1978; Lee et al., arXiv 2511.21140, for both samples' uncertainty;
    Fieller 1954; Fiedler, arXiv 2605.06939, for J and for what a shared calibration does.

    Raises:
        ValueError: arrays of unequal lengths, or labels that are not 1, 0 or NaN.
    """
    answers, truth = (np.asarray(values, dtype=np.float64) for values in (labelled_judged, labels))
    if answers.shape != truth.shape:
        raise ValueError(f"{answers.size} labelled answers but {truth.size} labels")
    if not np.isin(truth[~np.isnan(truth)], (0.0, 1.0)).all():
        raise ValueError("labels: expected 1, 0 or NaN")
    new = np.asarray(judged, dtype=np.float64)
    named = _Sample.of(new, clusters, answers, labelled_clusters)
    decided = ~np.isnan(truth) & ~np.isnan(answers)
    right, wrong = decided & (truth == 1), decided & (truth == 0)
    parts = _Sample(
        (new[~np.isnan(new)], answers[right], answers[wrong]),
        (
            named.codes[0][~np.isnan(new)],
            named.codes[1][right],
            named.codes[1][wrong],
        ),
    )

    def mean(values: Floats, codes: Codes) -> Estimate:
        return clustered_mean(
            values, codes, confidence=confidence, limits=(0.0, 1.0), fingerprint=fingerprint
        )

    p, m1, m0 = (values.mean() if values.size else math.nan for values in parts.values)
    covariance = parts.with_two_more().covariance()
    contrast = np.array([0.0, 1.0, -1.0])
    error = math.sqrt(float(contrast @ covariance @ contrast))
    freedom = max(1, parts.clusters() - 1)
    reach = float(stdtrit(freedom, 0.5 + confidence / 2))
    j = m1 - m0
    unknown = math.isnan(j)  # Nothing labelled for a side.
    informedness = Estimate(
        j, error, -1.0 if unknown else max(-1.0, j - reach * error),
        1.0 if unknown else min(1.0, j + reach * error),
        int(decided.sum()), int((~decided).sum()), parts.clusters(), "clustered t", fingerprint,
        confidence,
    )  # fmt: skip

    def told(estimate: Estimate | None, reason: str = "") -> JudgeCorrected:
        return JudgeCorrected(
            estimate,
            reason,
            mean(new, named.codes[0]),
            mean(np.where(decided, truth, np.nan), named.codes[1]),
            mean(answers[right], named.codes[1][right]),
            mean(1 - answers[wrong], named.codes[1][wrong]),
            informedness,
        )

    if not parts.values[0].size:
        return told(None, "the judge answered no comparison")
    least = min(parts.values[1].size, parts.values[2].size)
    if least < LEAST_LABELLED:
        return told(
            None,
            f"people decided {parts.values[1].size} labelled comparisons for it and "
            f"{parts.values[2].size} against it; expected {LEAST_LABELLED} of each at least",
        )
    # (c - theta J)^2 <= t^2 (u + theta w)' S (u + theta w), a quadratic in theta.
    u, w = np.array([1.0, 0.0, -1.0]), np.array([0.0, -1.0, 1.0])
    c, square = p - m0, reach**2
    a = j * j - square * float(w @ covariance @ w)
    b = -2 * c * j - 2 * square * float(u @ covariance @ w)
    constant = c * c - square * float(u @ covariance @ u)
    if a <= 0 or j <= 0:
        return told(
            None,
            f"sensitivity and specificity add up to {1 + j:.2f}: not above 1 beyond the error "
            f"({1 + informedness.low:.2f} to {1 + informedness.high:.2f}), so that any share would "
            "explain what the judge says",
        )
    value = c / j
    root = math.sqrt(max(0.0, b * b - 4 * a * constant))
    low, high = (-b - root) / (2 * a), (-b + root) / (2 * a)
    if high < 0 or low > 1:
        return told(
            None,
            f"the judge gives it {p:.1%}, and with these errors could give {min(m0, m1):.1%} to "
            f"{max(m0, m1):.1%}: it errs here in another way than on the labelled comparisons",
        )
    if (chance := _ties_chance(parts, value)) < TIES_LEVEL:
        return told(
            None,
            f"the judge ties on {float((parts.values[0] == 0.5).mean()):.1%}, which its ties on "
            f"the labelled comparisons do not explain (p = {chance:.2g}): it errs here in another "
            "way",
        )
    line = u + value * w
    inside = min(max(value, 0.0), 1.0)
    return told(
        Estimate(
            inside,
            math.sqrt(float(line @ covariance @ line)) / j,
            min(max(low, 0.0), inside),
            max(min(high, 1.0), inside),
            parts.values[0].size,
            int(np.isnan(new).sum()),
            int(np.unique(parts.codes[0]).size),
            METHOD,
            fingerprint,
            confidence,
        )
    )


def favour(
    judged: ArrayLike,
    labels: ArrayLike,
    clusters: Iterable[Any] | None,
    *,
    fingerprint: str = "",
) -> PairedDifference:
    """How much more often a judge agrees with people where they are for a side than against it.

    sensitivity - specificity: 0 where the judge errs as often to the side's harm as to its favour,
    however often it errs and whatever people's share is. The judge's share of wins less people's is
    no such measure: errors alone pull it towards one half. Student's t on the cluster-robust error,
    with a right and a wrong answer more for the side and against it.

    Args:
        judged: [N] the judge's answers for the side: 1, 0, 0.5 a tie, NaN unscored.
        labels: [N] people's: 1 for the side, 0 against it, NaN undecided.
        clusters: [N] labels, or None where comparisons are independent.
        fingerprint: copied to the estimate.
    """
    answers, truth = (np.asarray(values, dtype=np.float64) for values in (judged, labels))
    codes = _Sample.of(answers, clusters, np.array([]), None).codes[0]
    right = ~np.isnan(answers) & (truth == 1)
    wrong = ~np.isnan(answers) & (truth == 0)
    parts = _Sample((answers[right], 1 - answers[wrong]), (codes[right], codes[wrong]))
    line = np.array([1.0, -1.0])
    error = math.sqrt(float(line @ parts.with_two_more().covariance() @ line))
    least = min(parts.values, key=len).size
    value = float(parts.values[0].mean() - parts.values[1].mean()) if least else math.nan
    error = error if least else math.nan
    estimate = Estimate(
        value, error, -1.0, 1.0, int(right.sum() + wrong.sum()),
        int(answers.size - right.sum() - wrong.sum()), parts.clusters(), "clustered t", fingerprint,
    )  # fmt: skip
    freedom = max(1, parts.clusters() - 1)
    ends = partial(student_ends, estimate, freedom, (-1.0, 1.0))
    low, high = ends(LEVEL)
    p = 2 * float(stdtr(freedom, -abs(value) / error)) if least else 1.0
    return PairedDifference(replace(estimate, low=low, high=high), p, "Student t", ends)


@dataclass(frozen=True, slots=True)
class _Sample:
    """Values of several means, and the clusters of each, numbered alike over all of them."""

    values: tuple[Floats, ...]
    codes: tuple[Codes, ...]

    @classmethod
    def of(
        cls,
        new: Floats,
        clusters: Iterable[Any] | None,
        labelled: Floats,
        labelled_clusters: Iterable[Any] | None,
    ) -> _Sample:
        """Both samples; where one has no clusters its rows are clusters of their own."""
        numbers: dict[Any, int] = {}
        codes = []
        for name, values, given in (
            ("comparisons", new, clusters),
            ("labelled", labelled, labelled_clusters),
        ):
            labels = [(name, n) for n in range(values.size)] if given is None else list(given)
            if len(labels) != values.size:
                raise ValueError(f"{values.size} {name} but {len(labels)} cluster labels")
            codes.append(np.array([numbers.setdefault(one, len(numbers)) for one in labels], int))
        return cls((new, labelled), tuple(codes))

    def clusters(self) -> int:
        """How many clusters the mean has that has the fewest."""
        return min(int(np.unique(codes).size) for codes in self.codes)

    def with_two_more(self) -> _Sample:
        """A right and a wrong answer more in each mean, each a cluster of its own."""
        free = max((int(codes.max(initial=-1)) for codes in self.codes), default=-1) + 1
        values = tuple(np.append(one, (0.0, 1.0)) for one in self.values)
        codes = tuple(
            np.append(one, (free + 2 * n, free + 2 * n + 1)) for n, one in enumerate(self.codes)
        )
        return _Sample(values, codes)

    def influences(self) -> Floats:
        """What each cluster adds to each mean's error, [G, means]; see `clustered_variance`."""
        groups = max(int(codes.max(initial=-1)) for codes in self.codes) + 1
        made = np.zeros((groups, len(self.values)))
        for column, (values, codes) in enumerate(zip(self.values, self.codes, strict=True)):
            count = np.unique(codes).size
            if count < 2:
                continue
            sums = np.bincount(codes, values - values.mean(), groups) / values.size
            made[:, column] = sums * math.sqrt(count / (count - 1))
        return made

    def covariance(self) -> Floats:
        """Of the means, [means, means]."""
        made = self.influences()
        return np.asarray(made.T @ made)


def _ties_chance(parts: _Sample, theta: float) -> float:
    """How likely so unlike a share of ties is, were it theta t1 + (1 - theta) t0; 1 if none."""
    ties = _Sample(tuple((one == 0.5).astype(np.float64) for one in parts.values), parts.codes)
    t, t1, t0 = (float(one.mean()) for one in ties.values)
    if not t + t1 + t0:
        return 1.0
    m1, m0 = (float(one.mean()) for one in parts.values[1:])
    line = np.array([1.0, -theta, theta - 1])
    # The ties' own error, and that of theta, which moves what is expected of them.
    of_ties = ties.with_two_more().influences() @ line
    of_theta = parts.with_two_more().influences() @ line / (m1 - m0)
    error = math.sqrt(float(((of_ties - (t1 - t0) * of_theta) ** 2).sum()))
    gap = abs(t - theta * t1 - (1 - theta) * t0)
    return float(2 * ndtr(-gap / error))
