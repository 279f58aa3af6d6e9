"""How many labels are wrong, and which: a mixture of right and flipped ones, by held-out margins.

A judge that never saw a comparison gives it a margin m: the logit by which it prefers the response
that the label prefers. An annotator who is not mistaken agrees with it with probability
sigmoid(b m), where b is how much the margin is worth, by level of a covariate such as the rating. A
share e of labels says the opposite of what its annotator meant, whatever the margin:

    P(label | m) = (1 - e) sigmoid(b m) + e sigmoid(-b m)
    P(wrong | label, m) = e sigmoid(-b m) / P(label | m)

A weak judge cannot tell the two apart: that it is often contradicted may be its own fault (b is
small) or the labels' (e is large). One estimate of e makes the probabilities too sure then, so they
are averaged over all that the data leave possible: a posterior on a grid of e and b, drawn again
for resampled clusters.

Shape letters: N comparisons, L levels, G clusters, B resamplings, E rates and S slopes of the grid,
D draws.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logsumexp, xlog1py, xlogy

from palate.stats.estimate import CONFIDENCE, Codes, Estimate, Floats, cluster_codes

FLIP_PRIOR = (1.0, 9.0)
"""Beta prior of the flip rate: mean 10 %, 95 % of it below 28 %, worth ten comparisons. Weak on
purpose, and about what is known of labels that people gave: 0.2 to 10 % wrong in ten test sets
(Northcutt et al., arXiv 2103.14749)."""
SLOPE_PRIOR = 0.5
"""Standard deviation of log b around 0, the calibrated judge: a factor between 0.4 and 2.7. The
margins are a Bradley-Terry model's own logits, so they are near it (assumed)."""
MOST_FLIPPED = 0.5  # At a half a label says nothing; beyond it, rates and signs trade places.
POINTS = 33  # Of the grid in each direction, over six standard deviations to either side.
ZOOMS = 6
RESAMPLES, DRAWS_EACH = 100, 8
ROWS_AT_ONCE = 2_048  # Bounds the memory of a table [rows, E, S] at 18 MB.
COUNTS = 2.0
"""Clusters drawn in a resampling, over those there are. The spread between resamplings and that
inside each add up; with twice as many clusters each is half of what the data say, and the sum is
right where rows are independent, and takes in what clusters add (Huggins and Miller)."""


@dataclass(frozen=True, slots=True)
class NoiseModel:
    """The share of flipped labels, and what margins are worth, as D draws of all that is possible.

    `flip_rate` has the highest-density interval of the posterior; where that reaches 0, whether
    any label is flipped is not known, and `identified` is false. `rates` [D]; `slopes` [D, L].
    """

    flip_rate: Estimate
    rates: Floats
    slopes: Floats

    @property
    def identified(self) -> bool:
        """Whether the data say that labels are flipped at all."""
        return self.flip_rate.low > 0

    def wrong(self, margins: ArrayLike, levels: ArrayLike | None = None) -> Floats:
        """P(wrong) of each label, [N]: the mean over draws. NaN where the margin is.

        Args:
            margins: m, [N]; below 0 the judge contradicts the label.
            levels: [N], from 0; None where there is one.
        """
        m, level = _rows(margins, levels)
        found = np.empty(m.size)
        for part in _parts(m.size):
            found[part] = self._of_draws(m[part], level[part]).mean(0)
        return found

    def counts(
        self, margins: ArrayLike, levels: ArrayLike | None, cuts: Sequence[int],
        rng: np.random.Generator,
    ) -> Floats:  # fmt: skip
        """How many labels are wrong among the first n, for every n of `cuts`: [D, cuts].

        Each draw is one way in which it may be, so quantiles over draws are an interval of the
        number itself.
        """
        m, level = _rows(margins, levels)
        found = np.zeros((len(self.rates), len(cuts)))
        for part in _parts(max(cuts, default=0)):
            chances = self._of_draws(m[part], level[part])
            flips = np.cumsum(rng.random(chances.shape) < chances, axis=1)
            inside = np.clip(np.asarray(cuts) - part.start, 0, flips.shape[1])
            found += np.where(inside > 0, flips[:, inside - 1], 0)
        return found

    def _of_draws(self, margins: Floats, levels: Codes) -> Floats:
        """P(wrong) by each draw, [D, N]."""
        right = expit(self.slopes[:, levels] * margins)
        flipped = self.rates[:, None] * (1 - right)
        return flipped / (flipped + (1 - self.rates[:, None]) * right)


def fit_noise(
    margins: ArrayLike,
    clusters: Iterable[Any] | None,
    rng: np.random.Generator,
    *,
    levels: ArrayLike | None = None,
    prior: tuple[float, float] = FLIP_PRIOR,
    resamples: int = RESAMPLES,
    fingerprint: str = "",
) -> NoiseModel | None:
    """Fit the mixture to held-out margins, with slopes by level and one flip rate.

    Each of B resamplings of whole clusters has a posterior over (e, b of every level), exact on a
    grid that closes in on where the mass is; draws come from the mixture of these ("BayesBag").

    Args:
        margins: m, [N], of judges that did not see the row; NaN unscored.
        clusters: [N] labels, or None where rows are independent.
        rng: resamples and draws.
        levels: [N], from 0: ratings, say. Each has a slope of its own.
        prior: a and b of the flip rate's Beta prior, cut at a half.
        resamples: B.
        fingerprint: copied to the estimate.

    Returns:
        None where fewer than two clusters are scored.

    Source: the mixture, Natarajan et al., NeurIPS 2013, with equal rates for both labels; the
    draws, Huggins and Miller, arXiv 1912.07104.
    """
    every = np.asarray(margins, dtype=np.float64)
    m, level = _rows(every, levels)
    codes = np.arange(m.size) if clusters is None else cluster_codes(clusters)
    keep = ~np.isnan(m)
    m, level, codes = m[keep], level[keep], cluster_codes(codes[keep])
    count = int(codes.max()) + 1 if m.size else 0
    if count < 2:
        return None
    several = 1 + int(level.max()) if levels is None else 1 + int(np.asarray(levels).max())
    grid = _close_in(_Grid.whole(several), m, level, prior)
    drawn = rng.multinomial(round(COUNTS * count), np.full(count, 1 / count), size=resamples)
    weights = drawn[:, codes].astype(np.float64)
    joint = grid.posterior(grid.likelihood(m, level, weights), prior)
    rate_of, slopes = _draw(grid, joint, rng)
    density = np.exp(joint.total - logsumexp(joint.total, axis=1, keepdims=True)).mean(0)
    value, error, low, high = _highest(grid.rates, density)
    estimate = Estimate(
        value, error, low, high, m.size, int((~keep).sum()), count,
        f"posterior over resampled clusters, prior Beta({prior[0]:g}, {prior[1]:g})", fingerprint,
    )  # fmt: skip
    return NoiseModel(estimate, rate_of, slopes)


@dataclass(frozen=True, slots=True)
class _Joint:
    """Logarithms of B posteriors: `total` [B, E] of the rate, `given` [B, L, E, S] of the slopes
    of each level given the rate, neither normalised."""

    total: Floats
    given: Floats


@dataclass(frozen=True, slots=True)
class _Grid:
    """Rates [E], evenly spaced, and logarithms of slopes by level [L, S], evenly spaced each."""

    rates: Floats
    slopes: Floats

    @classmethod
    def whole(cls, levels: int) -> _Grid:
        """Every rate, and slopes from 1/50 to 50."""
        slopes = np.linspace(-4.0, 4.0, POINTS)
        return cls(np.linspace(0.0, MOST_FLIPPED, POINTS), np.tile(slopes, (levels, 1)))

    def likelihood(self, margins: Floats, levels: Codes, weights: Floats) -> Floats:
        """Log-likelihood of rows that count by `weights` [B, N], by level: [B, L, E, S]."""
        found = np.zeros((len(weights), len(self.slopes), len(self.rates), POINTS))
        for number, slopes in enumerate(np.exp(self.slopes)):
            rows = np.flatnonzero(levels == number)
            for part in _parts(rows.size):
                some = rows[part]
                agree = expit(margins[some, None] * slopes)  # [n, S]
                label = self.rates[:, None] + (1 - 2 * self.rates[:, None]) * agree[:, None]
                logs = np.log(np.maximum(label, 1e-300)).reshape(len(some), -1)  # [n, E S]
                added = weights[:, some] @ logs
                found[:, number] += added.reshape(len(weights), len(self.rates), POINTS)
        return found

    def posterior(self, likelihood: Floats, prior: tuple[float, float]) -> _Joint:
        """The posterior of a log-likelihood [B, L, E, S], up to a constant."""
        given = likelihood - 0.5 * (self.slopes[:, None] / SLOPE_PRIOR) ** 2
        a, b = prior
        rate = xlogy(a - 1, self.rates) + xlog1py(b - 1, -self.rates)
        return _Joint(logsumexp(given, axis=3).sum(1) + rate, given)


def _close_in(grid: _Grid, margins: Floats, levels: Codes, prior: tuple[float, float]) -> _Grid:
    """The grid made finer where the posterior has its mass, with room for resamplings.

    A posterior of a quarter of the data is twice as wide as that of all.
    """
    weights = np.full((1, margins.size), 0.25)
    for _ in range(ZOOMS):
        joint = grid.posterior(grid.likelihood(margins, levels, weights), prior)
        rates = _narrowed(grid.rates, joint.total[0])
        others = joint.total[0] - logsumexp(joint.given[0], axis=2)  # [L, E]: without a level's own
        by_slope = logsumexp(joint.given[0] + others[:, :, None], axis=1)  # [L, S]
        slopes = np.stack([_narrowed(*one) for one in zip(grid.slopes, by_slope, strict=True)])
        closer = _Grid(rates, slopes)
        if np.ptp(rates) > 0.8 * np.ptp(grid.rates) and bool(
            (np.ptp(slopes, axis=1) > 0.8 * np.ptp(grid.slopes, axis=1)).all()
        ):
            break
        grid = closer
    return grid


def _narrowed(points: Floats, logs: Floats) -> Floats:
    """As many points where the mass of `exp(logs)` is, and one beyond on either side."""
    mass = np.exp(logs - logs.max())
    inside = np.flatnonzero(mass > 1e-4 * mass.max())
    first, last = max(inside[0] - 1, 0), min(inside[-1] + 1, len(points) - 1)
    return np.linspace(points[first], points[last], len(points))


def _draw(grid: _Grid, joint: _Joint, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """`DRAWS_EACH` rates and slopes of every posterior, evenly along its mass: [D], [D, L]."""
    rates, slopes = [], []
    for total, given in zip(joint.total, joint.given, strict=True):
        chosen = _evenly(total, DRAWS_EACH, rng)
        rates.append(grid.rates[chosen])
        of_rates = np.empty((DRAWS_EACH, len(given)))
        for draw, rate in enumerate(chosen):
            for level, logs in enumerate(given[:, rate]):
                of_rates[draw, level] = grid.slopes[level, _evenly(logs, 1, rng)[0]]
        slopes.append(np.exp(of_rates))
    return np.concatenate(rates), np.concatenate(slopes)


def _evenly(logs: Floats, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """A systematic sample of indices by the weights exp(logs)."""
    mass = np.cumsum(np.exp(logs - logs.max()))
    at = (np.arange(count) + rng.random()) / count * mass[-1]
    return np.minimum(np.searchsorted(mass, at, side="right"), len(mass) - 1)


def _highest(points: Floats, density: Floats) -> tuple[float, float, float, float]:
    """Mean, standard deviation and ends of the highest-density interval of a density at points."""
    fine = np.linspace(points[0], points[-1], 4_001)
    mass = np.interp(fine, points, density)
    mass /= mass.sum()
    mean = float(mass @ fine)
    error = float(np.sqrt(mass @ (fine - mean) ** 2))
    order = np.argsort(-mass, kind="stable")
    inside = order[: 1 + int(np.searchsorted(np.cumsum(mass[order]), CONFIDENCE))]
    return mean, error, float(fine[inside.min()]), float(fine[inside.max()])


def _rows(margins: ArrayLike, levels: ArrayLike | None) -> tuple[Floats, Codes]:
    m = np.asarray(margins, dtype=np.float64)
    level = np.zeros(m.size, np.int64) if levels is None else np.asarray(levels, dtype=np.int64)
    if m.ndim != 1 or level.shape != m.shape:
        raise ValueError(f"margins {m.shape} and levels {level.shape}: expected [N] each")
    return m, level


def _parts(size: int) -> Iterator[slice]:
    return (slice(n, min(n + ROWS_AT_ONCE, size)) for n in range(0, size, ROWS_AT_ONCE))
