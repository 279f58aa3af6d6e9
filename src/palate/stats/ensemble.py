"""What the members of an ensemble say of a reward together: how far apart they are, and a bound.

Shape letters: N responses to one prompt, M members.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from palate.stats.estimate import Floats

MEMBER_LEVEL = 0.90


def member_interval(
    value: float, std: float, members: int, level: float = MEMBER_LEVEL
) -> tuple[float, float]:
    """Where one more member of an ensemble would lie with probability `level`.

    value +- t(1/2 + level/2; M - 1) s sqrt(1 + 1 / M): the prediction interval of the next value
    of a normal sample. What all members have wrong together is not in it.

    Args:
        value: the mean of what the members say.
        std: s, their standard deviation as of a sample.
        members: M, two or more.
    """
    quantile = float(stdtrit(members - 1, 0.5 + level / 2))
    half = quantile * std * math.sqrt(1 + 1 / members)
    return value - half, value + half


def lower_bounds(members: ArrayLike, deviations: float) -> Floats:
    """Rewards of the responses to one prompt, each lowered by what the members disagree on it.

    b_i = mean_m r_im - k sd_m(r_im - mean_j r_jm)

    Only differences between responses to one prompt mean something, so each member's mean over
    them is taken off before the members are compared: what they make of the prompt itself lowers
    no response below another. Of two responses both have the same deviation, and the order is that
    of the mean.

    Args:
        members: r, what each member says of each response, [N, M].
        deviations: k >= 0.

    Returns:
        b, [N].
    """
    said = np.asarray(members, dtype=np.float64)
    apart = (said - said.mean(0)).std(1, ddof=1)
    return np.asarray(said.mean(1) - deviations * apart)
