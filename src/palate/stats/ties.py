"""A judge on items with ties and split votes: tie-aware accuracy, likelihood, chances of a tie.

Threshold and temperature are never fitted on the items that they are used on: each fifth of the
clusters has those of the other four.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq, minimize
from scipy.special import expit, log_expit

from palate.stats.calibration import BINS, Calibration, event_calibration
from palate.stats.estimate import (
    Codes,
    Estimate,
    Floats,
    accuracy,
    cluster_codes,
    clustered_mean,
)

FOLDS = 5
STEEPEST = 1e3  # Of 1 / temperature, in mean differences: beyond, answers are certain.
THRESHOLDS = (1e-4, 20.0)  # Of a tie, in logits: P(tie) at no difference is 5e-5 and 1 - 4e-9.


@dataclass(frozen=True, slots=True)
class TieAware:
    """The share of three-way answers that are right, and the threshold (mean over the folds)."""

    accuracy: Estimate
    threshold: float


@dataclass(frozen=True, slots=True)
class VoteLikelihood:
    """Mean log-likelihood of the votes in nats, and the temperature (of the mean 1/T of the folds).

    A judge that knows nothing has log 1/2 = -0.693; `temperature` is infinite where it is no
    better than that on the folds it was fitted on.
    """

    mean: Estimate
    temperature: float


@dataclass(frozen=True, slots=True)
class TieModel:
    """Rao and Kupper's model of ties on top of scores: see `tie_model`.

    `threshold`, in logits, is how much better a response must seem to be preferred; `temperature`
    is infinite where the scores say nothing.
    """

    temperature: float
    threshold: float


@dataclass(frozen=True, slots=True)
class TieCalibration:
    """Whether ties come as often as the scores let expect, and the model that said how often."""

    calibration: Calibration
    model: TieModel


def tie_threshold(differences: ArrayLike, tied: ArrayLike) -> float:
    """The t that makes most three-way answers right, where |d| <= t says tie; the least of them.

    right(t) = #{tied, |d| <= t} + #{decided, d > t}, with d = score of the response that people
    preferred - that of the other. One pass over sorted |d|; t lies midway between two of them.

    Args:
        differences: [N]; NaN is left out.
        tied: [N] whether people's judgement is a tie.

    Source: Deutsch, Foster and Freitag, Ties Matter, EMNLP 2023 (arXiv 2305.14324), section 5.
    """
    d, tie = np.asarray(differences, dtype=np.float64), np.asarray(tied, dtype=np.bool_)
    scored = ~np.isnan(d)
    d, tie = d[scored], tie[scored]
    sizes = np.abs(d)
    order = np.argsort(sizes, kind="stable")
    # What is gained where t passes an item: a tie is found, a right answer lost.
    gains = np.where(tie, 1, np.where(d > 0, -1, 0))[order]
    gains[sizes[order] == 0] = 0  # Equal scores say tie at any t.
    right = np.concatenate([[0], np.cumsum(gains)])
    steps = np.concatenate([[0.0], sizes[order], [sizes.max(initial=0.0) + 1]])
    right[steps[:-1] == steps[1:]] = -d.size - 1  # No t lies between two equal ones.
    best = int(np.argmax(right))
    return 0.0 if right[best] <= 0 else float(steps[best] + steps[best + 1]) / 2


def tie_aware_accuracy(
    differences: ArrayLike,
    tied: ArrayLike,
    clusters: Iterable[Any] | None = None,
    *,
    threshold: float | None = None,
    fingerprint: str = "",
) -> TieAware | None:
    """Accuracy of three-way answers: right side, wrong side, or a tie where |d| <= t.

    Args:
        differences: [N] log-odds of the response that people preferred; NaN unscored.
        tied: [N] whether people's judgement is a tie.
        clusters: [N] labels, or None where items are independent.
        threshold: of other data; by default each fifth of the clusters has that of the rest.
        fingerprint: copied to the estimate.

    Returns:
        None where fewer than two clusters are scored. The interval is `accuracy`'s, and takes the
        thresholds as they are.
    """
    d, tie = np.asarray(differences, dtype=np.float64), np.asarray(tied, dtype=np.bool_)
    codes = np.arange(d.size) if clusters is None else cluster_codes(clusters)
    limits = np.full(d.size, np.nan if threshold is None else threshold)
    if threshold is None:
        for inside, rest in _folds(d, codes):
            limits[inside] = tie_threshold(d[rest], tie[rest])
        if np.isnan(limits).all():
            return None
    answers = np.where(np.abs(d) <= limits, 0.5, (d > 0).astype(np.float64))
    right = three_way(np.where(np.isnan(d), np.nan, answers), tie)
    return TieAware(accuracy(right, codes, fingerprint=fingerprint), float(np.nanmean(limits)))


def three_way(answers: ArrayLike, tied: ArrayLike) -> Floats:
    """1 where the answer is people's, else 0, NaN unscored, [N].

    `answers` [N] are 1 for the response that people preferred, 0 for the other, 0.5 for a tie.
    """
    answer, tie = np.asarray(answers, dtype=np.float64), np.asarray(tied, dtype=np.bool_)
    return np.where(np.isnan(answer), np.nan, answer == np.where(tie, 0.5, 1.0))


def vote_likelihood(
    differences: ArrayLike,
    shares: ArrayLike,
    clusters: Iterable[Any] | None = None,
    *,
    fingerprint: str = "",
) -> VoteLikelihood | None:
    """The mean of y log p + (1 - y) log(1 - p), p = sigmoid(d / T); y is the share for chosen.

    A tie is half a vote for each side. T >= 0 is the most likely one on the other four fifths of
    the clusters (see `temperature`, here of shares); where nothing is better than a coin, p = 1/2.

    Args:
        differences: [N] log-odds of the chosen response; NaN unscored.
        shares: [N, 3] of votes for chosen, tie and rejected.
        clusters: [N] labels, or None where items are independent.
        fingerprint: copied to the estimate.

    Returns:
        None where fewer than two clusters are scored.

    Source: Guo et al., ICML 2017, for T; Peterson et al., ICCV 2019, for soft labels.
    """
    d, share = np.asarray(differences, dtype=np.float64), np.asarray(shares, dtype=np.float64)
    codes = np.arange(d.size) if clusters is None else cluster_codes(clusters)
    y = share[:, 0] + share[:, 1] / 2
    slopes = np.full(d.size, np.nan)
    for inside, rest in _folds(d, codes):
        slopes[inside] = _slope(d[rest], y[rest])
    if np.isnan(slopes).all():
        return None
    scaled = d * slopes
    likelihood = y * log_expit(scaled) + (1 - y) * log_expit(-scaled)
    mean = clustered_mean(likelihood, codes, limits=(-np.inf, 0.0), fingerprint=fingerprint)
    slope = float(np.nanmean(slopes))
    return VoteLikelihood(mean, 1 / slope if slope else np.inf)


def tie_probability(differences: ArrayLike, model: TieModel) -> Floats:
    """P(tie) = (exp(2 h) - 1) sigmoid(d / T - h) sigmoid(-d / T - h), [N].

    Args:
        differences: d, [N] log-odds of one response, of either; NaN stays.
        model: T and h.

    Source: Rao and Kupper, JASA 62 (1967), with theta = exp(h); `train.loss: rao-kupper`.
    """
    d, h = np.asarray(differences, dtype=np.float64) / model.temperature, model.threshold
    return np.expm1(2 * h) * expit(d - h) * expit(-d - h)


def tie_model(differences: ArrayLike, shares: ArrayLike) -> TieModel | None:
    """The T >= 0 and h > 0 under which the votes are most likely.

    P(chosen) = sigmoid(d / T - h), P(rejected) = sigmoid(-d / T - h), else a tie. The log
    likelihood is concave in 1 / T and h, so that the search ends at its only top.

    Args:
        differences: d, [N] log-odds of the chosen response; NaN is left out.
        shares: [N, 3] of votes for chosen, tie and rejected.

    Returns:
        None where nothing is scored.

    Source: Rao and Kupper, JASA 62 (1967).
    """
    d, share = np.asarray(differences, dtype=np.float64), np.asarray(shares, dtype=np.float64)
    known = ~np.isnan(d)
    d, (chosen, tie, rejected) = d[known], share[known].T
    if not d.size:
        return None
    scale = float(np.abs(d).mean()) or 1.0
    unit = d / scale

    def loss(at: Floats) -> tuple[float, Floats]:
        slope, h = at
        wins, loses = slope * unit - h, -slope * unit - h
        for_one, for_other = chosen + tie, rejected + tie
        value = for_one * log_expit(wins) + for_other * log_expit(loses)
        value = value + tie * np.log(np.expm1(2 * h))
        up, down = for_one * expit(-wins), for_other * expit(-loses)
        of_h = 2 * tie / -np.expm1(-2 * h) - up - down
        return -float(value.mean()), -np.array([(unit * (up - down)).mean(), of_h.mean()])

    # Where the scores say nothing, h is that of the share of ties.
    start = np.array([0.0, np.clip(2 * np.arctanh(min(tie.mean(), 1 - 1e-9)), *THRESHOLDS)])
    bounds = ((0.0, STEEPEST), THRESHOLDS)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
    slope, threshold = map(float, found.x)
    return TieModel(scale / slope if slope else np.inf, threshold)


def held_out_tie_probability(
    differences: ArrayLike, shares: ArrayLike, clusters: Iterable[Any] | None = None
) -> Floats:
    """`tie_probability` of each item by the `tie_model` of the other four fifths, [N].

    Arguments as of `tie_model`, and `clusters`, [N] labels, which stay whole. NaN where unscored,
    and everywhere where fewer than two clusters are scored.
    """
    d, share = np.asarray(differences, dtype=np.float64), np.asarray(shares, dtype=np.float64)
    codes = np.arange(d.size) if clusters is None else cluster_codes(clusters)
    chances = np.full(d.size, np.nan)
    for inside, rest in _folds(d, codes):
        if fitted := tie_model(d[rest], share[rest]):
            chances[inside] = tie_probability(d[inside], fitted)
    return chances


def tie_calibration(
    differences: ArrayLike,
    shares: ArrayLike,
    clusters: Iterable[Any] | None,
    rng: np.random.Generator,
    *,
    model: TieModel | None = None,
    bins: int = BINS,
    fingerprint: str = "",
) -> TieCalibration | None:
    """Whether ties come as often as `tie_probability` says: `event_calibration` of a tie.

    Args:
        differences: [N] log-odds of the chosen response; NaN unscored.
        shares: [N, 3] of votes for chosen, tie and rejected.
        clusters: [N] labels, or None where items are independent.
        rng: draws for the interval of the ECE.
        model: of other data, such as that a loss was given (T = 1, h = 2 atanh(tie_share)); by
            default each fifth of the clusters has the `tie_model` of the rest.
        bins: of the probability, over [0, 1].
        fingerprint: copied to the estimates.

    Returns:
        None where fewer than two clusters are scored. The model is of all items where it is fitted.
    """
    d, share = np.asarray(differences, dtype=np.float64), np.asarray(shares, dtype=np.float64)
    codes = np.arange(d.size) if clusters is None else cluster_codes(clusters)
    if model is not None:
        chances = tie_probability(d, model)
    else:
        chances, model = held_out_tie_probability(d, share, codes), tie_model(d, share)
    made = event_calibration(chances, share[:, 1], codes, rng, bins=bins, fingerprint=fingerprint)
    return TieCalibration(made, model) if made and model else None


def _slope(d: Floats, y: Floats) -> float:
    """The b = 1 / T in [0, `STEEPEST` / mean |d|] that makes the shares y most likely."""
    scale = float(np.abs(d).mean())
    if not scale:
        return 0.0
    unit = d / scale

    def rise(b: float) -> float:
        return float((unit * (y - expit(b * unit))).sum())

    if rise(0.0) <= 0:
        return 0.0
    if rise(STEEPEST) >= 0:
        return STEEPEST / scale
    return float(brentq(rise, 0.0, STEEPEST)) / scale


def _folds(d: Floats, codes: Codes) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """(scored items of a fold, those of all others); none for fewer than two scored clusters."""
    scored = ~np.isnan(d)
    places = np.zeros(d.size, dtype=np.int64)
    places[scored] = cluster_codes(codes[scored])
    count = int(places.max(initial=0)) + 1
    for fold in range(min(FOLDS, count) if count > 1 else 0):
        inside = places % min(FOLDS, count) == fold
        yield scored & inside, scored & ~inside
