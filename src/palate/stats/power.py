"""What a test set of a given size can show."""

from __future__ import annotations

import math

from scipy.special import ndtri

from palate.stats.estimate import CONFIDENCE, Estimate, normal_quantile


def half_width(
    n: int, accuracy: float, *, design_effect: float = 1.0, confidence: float = CONFIDENCE
) -> float:
    """Half the normal interval of one accuracy: z sqrt(d p(1-p) / n).

    1,000 independent pairs at 64 %: 0.030. `design_effect` d is the variance with clusters over
    the variance without.
    """
    return normal_quantile(confidence) * _error(n, accuracy * (1 - accuracy), design_effect)


def minimum_detectable_difference(
    n: int,
    variance: float,
    *,
    design_effect: float = 1.0,
    power: float = 0.8,
    confidence: float = CONFIDENCE,
) -> float:
    """The smallest true difference that a two-sided test finds with the given power.

    (z_{1-alpha/2} + z_{power}) sqrt(d v / n).

    Args:
        n: items.
        variance: per item: p(1-p) for one accuracy against a fixed figure; for two judges on the
            same items, the variance of the differences (the discordant share less the squared
            difference).
        design_effect: variance with clusters over the variance without.
        power: chance of finding it.
        confidence: one less the level of the test.

    Source: Miller, arXiv 2411.00640, section 5.
    """
    return (normal_quantile(confidence) + float(ndtri(power))) * _error(n, variance, design_effect)


def detectable(difference: Estimate) -> float:
    """The smallest true difference that the test of a paired difference finds, power 80 %.

    At the level of its interval: in a family of tests that is not 5 %.
    """
    return minimum_detectable_difference(1, difference.error**2, confidence=difference.confidence)


def items_needed(
    difference: float,
    variance: float,
    *,
    design_effect: float = 1.0,
    power: float = 0.8,
    confidence: float = CONFIDENCE,
) -> int:
    """How many items find a true `difference`; the inverse of `minimum_detectable_difference`."""
    if difference <= 0:
        raise ValueError(f"difference is {difference}: expected above zero")
    reach = normal_quantile(confidence) + float(ndtri(power))
    return math.ceil(design_effect * variance * (reach / difference) ** 2)


def _error(n: int, variance: float, design_effect: float) -> float:
    if n < 1 or variance < 0 or design_effect <= 0:
        raise ValueError(
            f"n {n}, variance {variance}, design effect {design_effect}: expected n >= 1, "
            "variance >= 0, design effect > 0"
        )
    return math.sqrt(design_effect * variance / n)
