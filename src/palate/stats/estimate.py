"""An estimate: the only kind of figure that enters a table."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import ndtri

CONFIDENCE = 0.95
LEVEL = 0.05


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with all that is needed to read it; shares are fractions, not percent.

    `error` is the standard error of `value`; `low` and `high` bound the interval that `method`
    names, of 95 % unless `confidence` says otherwise. `n` counts scored items, `n_unscored` those
    left out of `value`, `n_clusters` the independent groups among the scored. `fingerprint` says
    under which protocol and on which data the figure was made. With `n` = 0 the value and error
    are NaN.
    """

    value: float
    error: float
    low: float
    high: float
    n: int
    n_unscored: int = 0
    n_clusters: int = 0
    method: str = ""
    fingerprint: str = ""
    confidence: float = CONFIDENCE

    @property
    def half_width(self) -> float:
        """The longer arm of the interval: `value` plus or minus it always contains both ends."""
        return max(self.value - self.low, self.high - self.value)


def normal_quantile(confidence: float = CONFIDENCE) -> float:
    """The two-sided standard normal quantile: 1.96 for 0.95."""
    return float(ndtri(0.5 + confidence / 2))


def combine(estimates: Sequence[Estimate], weights: Sequence[float], method: str) -> Estimate:
    """The weighted mean of independent estimates, with its interval (MOVER).

    value = sum(w v), low = value - sqrt(sum(w^2 (v - l)^2)), high likewise with h - v, error =
    sqrt(sum(w^2 e^2)), where w are the weights made to sum to one. Weights count as fixed and
    the estimates as independent: test sets that share no prompts. The fingerprint is a digest
    of the parts' fingerprints, or empty where one of them is.

    Source: Zou and Donner, Statistics in Medicine 27 (2008) 1693-1702.

    Raises:
        ValueError: no estimates, lengths differ, or the weights do not sum above zero.
    """
    total = math.fsum(weights)
    if len(estimates) != len(weights) or total <= 0:
        raise ValueError(f"{len(estimates)} estimates with weights {list(weights)}: cannot combine")
    shares = [weight / total for weight in weights]
    parts = list(zip(shares, estimates, strict=True))
    value = math.fsum(w * e.value for w, e in parts)
    below = math.sqrt(math.fsum((w * (e.value - e.low)) ** 2 for w, e in parts))
    above = math.sqrt(math.fsum((w * (e.high - e.value)) ** 2 for w, e in parts))
    return Estimate(
        value=value,
        error=math.sqrt(math.fsum((w * e.error) ** 2 for w, e in parts)),
        low=value - below,
        high=value + above,
        n=sum(e.n for e in estimates),
        n_unscored=sum(e.n_unscored for e in estimates),
        n_clusters=sum(e.n_clusters for e in estimates),
        method=method,
        fingerprint=_joint_fingerprint([e.fingerprint for e in estimates]),
    )


def macro_average(estimates: Sequence[Estimate]) -> Estimate:
    """The mean of columns: every test set counts the same. See `combine`."""
    return combine(estimates, [1.0] * len(estimates), "macro average of columns, MOVER")


def micro_average(estimates: Sequence[Estimate]) -> Estimate:
    """The mean of examples: every scored item counts the same. See `combine`."""
    return combine(estimates, [e.n for e in estimates], "micro average of examples, MOVER")


def _joint_fingerprint(fingerprints: Sequence[str]) -> str:
    if not all(fingerprints):
        return ""
    return hashlib.blake2b("\n".join(fingerprints).encode(), digest_size=16).hexdigest()
