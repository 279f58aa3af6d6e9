"""The objectives of training, as pure functions. Shapes: B pairs, R responses.

To add a loss: write a function of (rewards [R], batch, options) to losses [B] here, name it in
`LOSSES`, and add the name to `TrainOptions.loss`, by which a recipe chooses it (`train.loss`). What
it needs to know of the responses besides becomes a column of `Microbatch` (`batching.py`).
`objective` weighs its losses and `loop.py` divides their sum by the pairs of the whole step, so a
loss never takes a mean itself, and a row of weight 2 counts as two rows.

In every formula d = r_chosen - r_rejected, and c, t, r are the shares of chosen, tie and rejected
in a row's judgement, c + t + r = 1. So a row of many votes counts as much as a row of one, unless
its weight says more.

Source of the ranking and the safety loss: Llama 2, arXiv 2307.09288, section 3.2.2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from palate.train.batching import Microbatch
from palate.train.options import TrainOptions

Loss = Callable[[Tensor, Microbatch, TrainOptions], Tensor]
"""Rewards of the batch's responses, [R] float32, the batch and the options to one loss a pair, [B].
"""


def ranking_loss(chosen: Tensor, rejected: Tensor, margin: Tensor) -> Tensor:
    """Ranking loss with margin, one value a pair.

    L = -log sigmoid(r_chosen - r_rejected - m)   (arXiv 2307.09288, eq. 2)

    Args:
        chosen: rewards of the preferred responses, [B], float32.
        rejected: rewards of the others, [B], float32.
        margin: m(rating) >= 0 in units of reward, [B].

    Returns:
        Losses, [B], in nats. ln 2 where the rewards are equal and the margin is zero.

    Raises:
        ValueError: shapes differ; broadcasting [B, 1] with [B] would train on B x B false pairs.
    """
    if not chosen.shape == rejected.shape == margin.shape or chosen.ndim != 1:
        shapes = [tuple(t.shape) for t in (chosen, rejected, margin)]
        raise ValueError(f"chosen, rejected and margin must all be [B], got {shapes}")
    return -functional.logsigmoid(chosen - rejected - margin)


def bradley_terry_loss(
    chosen: Tensor, rejected: Tensor, margin: Tensor, shares: Tensor, smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy of Bradley and Terry's model with soft labels, one value a pair.

    L = -p log sigmoid(d - m) - (1 - p) log sigmoid(-d - m)
    p = (1 - e) q + e (1 - q),  q = c + t / 2

    A tie is half a vote for each side. With one vote for chosen and e = 0 it is `ranking_loss`.

    Args:
        chosen: rewards of the responses named first, [B], float32.
        rejected: rewards of the others, [B], float32.
        margin: m >= 0 in units of reward, [B]; of either outcome.
        shares: c, t and r, [B, 3].
        smoothing: e, the probability that a label is the wrong way round, 0 <= e < 1/2.

    Returns:
        Losses, [B], in nats. Least at d = log(p / (1 - p)) where the margin is zero.

    Raises:
        ValueError: shapes differ.

    Source: Bradley and Terry 1952; votes as by maximum likelihood; the smoothing is that of
    conservative DPO (E. Mitchell, "A note on DPO with noisy preferences", 2023).
    """
    _refuse_other_shapes(chosen, shares)
    right = shares[:, 0] + shares[:, 1] / 2
    right = (1 - smoothing) * right + smoothing * (1 - right)
    for_chosen = ranking_loss(chosen, rejected, margin)
    return right * for_chosen + (1 - right) * ranking_loss(rejected, chosen, margin)


def rao_kupper_loss(
    chosen: Tensor, rejected: Tensor, shares: Tensor, tie_share: float | Tensor
) -> Tensor:
    """Cross-entropy of Rao and Kupper's Bradley-Terry model with ties, one value a pair.

    P(chosen) = sigmoid(d - h),  P(rejected) = sigmoid(-d - h)
    P(tie) = (exp(2 h) - 1) P(chosen) P(rejected)
    L = -c log P(chosen) - t log P(tie) - r log P(rejected)

    The threshold h > 0 is how much better a response must be to be seen as such. It is given by
    P(tie) at d = 0, which is s = tanh(h / 2).

    Args:
        chosen: rewards of the responses named first, [B], float32.
        rejected: rewards of the others, [B], float32.
        shares: c, t and r, [B, 3].
        tie_share: s, in (0, 1).

    Returns:
        Losses, [B], in nats.

    Raises:
        ValueError: shapes differ.

    Source: Rao and Kupper, "Ties in paired-comparison experiments", JASA 62 (1967); theirs is
    theta = exp(h).
    """
    _refuse_other_shapes(chosen, rejected, shares)
    threshold = 2 * torch.atanh(torch.as_tensor(tie_share, dtype=chosen.dtype))
    difference = chosen - rejected
    wins = functional.logsigmoid(difference - threshold)
    loses = functional.logsigmoid(-difference - threshold)
    ties = torch.log(torch.expm1(2 * threshold)) + wins + loses
    return -(shares * torch.stack((wins, ties, loses), dim=1)).sum(1)


def davidson_loss(
    chosen: Tensor, rejected: Tensor, shares: Tensor, tie_share: float | Tensor
) -> Tensor:
    """Cross-entropy of Davidson's Bradley-Terry model with ties, one value a pair.

    P(chosen) : P(tie) : P(rejected) = exp(d / 2) : v : exp(-d / 2)
    L = -c log P(chosen) - t log P(tie) - r log P(rejected)

    The weight of ties v > 0 is given by P(tie) at d = 0, which is s = v / (2 + v). Half a vote for
    each side adds the same to the slope as a tie does, at every d.

    Args:
        chosen: rewards of the responses named first, [B], float32.
        rejected: rewards of the others, [B], float32.
        shares: c, t and r, [B, 3].
        tie_share: s, in (0, 1).

    Returns:
        Losses, [B], in nats.

    Raises:
        ValueError: shapes differ.

    Source: Davidson, "On extending the Bradley-Terry model to accommodate ties in paired comparison
    experiments", JASA 65 (1970).
    """
    _refuse_other_shapes(chosen, rejected, shares)
    share = torch.as_tensor(tie_share, dtype=chosen.dtype)
    half = (chosen - rejected) / 2
    ties = torch.log(2 * share / (1 - share)).expand_as(half)
    logs = functional.log_softmax(torch.stack((half, ties, -half), dim=1), dim=1)
    return -(shares * logs).sum(1)


def plackett_luce_loss(rewards: Tensor, ranking: Tensor, place: Tensor) -> Tensor:
    """Negative log-likelihood of rankings, one value a response; a ranking's is their sum.

    L_i = log(sum_j exp r_j) - r_i,  over j of the same ranking with place_j >= place_i

    The best is chosen from all, the next from the rest, and so on; of two responses it is
    `ranking_loss` without a margin. Tied responses are each chosen from all that are not better,
    themselves included (Breslow's rule), so that a tie draws their rewards together.

    Args:
        rewards: [N], float32.
        ranking: the number of the ranking that a response stands in, [N].
        place: its place there, 0 the best, equal in a tie, [N].

    Returns:
        Losses, [N], in nats; zero for the last of a ranking, if it is alone.

    Raises:
        ValueError: shapes differ.

    Source: Plackett, "The analysis of permutations", Applied Statistics 24 (1975); Luce 1959.
    The ties: Breslow, "Covariance analysis of censored survival data", Biometrics 30 (1974), whose
    partial likelihood is the same product.
    """
    _refuse_other_shapes(rewards, ranking, place)
    left = (ranking[:, None] == ranking) & (place[:, None] <= place)  # [N, N]: of row i, each j.
    sums = torch.where(left, rewards, -torch.inf).logsumexp(1) if len(rewards) else rewards
    return sums - rewards


def centring_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    """What draws a pair's rewards to both sides of 0, one value a pair, [B].

    L = (r_chosen + r_rejected)^2

    Source: Eisenstein et al., arXiv 2312.09244, eq. 2, as TRL's `center_rewards_coefficient`.
    """
    return (chosen + rejected) ** 2


def _refuse_other_shapes(first: Tensor, *others: Tensor) -> None:
    """Raise where the tensors are not all [B], or [B, 3] of shares."""
    wanted = (tuple(first.shape), (len(first), 3)) if first.ndim == 1 else ()
    shapes = [tuple(t.shape) for t in (first, *others)]
    if any(shape not in wanted for shape in shapes):
        raise ValueError(f"expected rewards [B] and shares [B, 3], got {shapes}")


def safety_loss(logits: Tensor, safe: Tensor, labelled: Tensor) -> Tensor:
    """Binary cross-entropy of "this response is safe", one value a response.

    Args:
        logits: logit of safe, [R], float32.
        safe: labels in {0, 1}, [R], float32; ignored where unlabelled.
        labelled: 1 where a label exists, else 0, [R], float32.

    Returns:
        Losses, [R], in nats; zero where unlabelled.
    """
    if not logits.shape == safe.shape == labelled.shape:
        raise ValueError("logits, safe and labelled must all be [R]")
    losses = functional.binary_cross_entropy_with_logits(logits, safe, reduction="none")
    return losses * labelled


def load_balancing_loss(router_logits: Sequence[Tensor], experts_per_token: int) -> Tensor:
    r"""What keeps the routers of a mixture of experts from sending all tokens to a few experts.

    L = 1/M sum_m E sum_e f_me P_me,
    f_me = 1/T sum_t [e among the k largest logits of t],  P_me = 1/T sum_t softmax(logits_mt)_e

    f has no gradient. M layers are balanced each by itself: the mean of what the families' own
    `load_balancing_loss_func` (transformers) gives for one layer. That function adds up the counts
    of all layers first, so that one layer's crowded expert makes good for another's empty one
    (`findings/router_loss_pools_layers.sh`).

    Args:
        router_logits: of each layer, [T, E], of real tokens.
        experts_per_token: k.

    Returns:
        One number; k where every expert gets as many tokens, at most E.

    Source: Switch Transformers, arXiv 2101.03961, eq. 4 to 6, whose k is 1; with k as in Mixtral.
    """
    losses = list[Tensor]()
    for logits in router_logits:
        probabilities = logits.float().softmax(dim=-1)  # [T, E]
        chosen = probabilities.topk(experts_per_token, dim=-1).indices
        counts = torch.zeros_like(probabilities).scatter_(1, chosen, 1.0)
        losses.append(logits.shape[1] * (counts.mean(0) * probabilities.mean(0)).sum())
    return torch.stack(losses).mean()


def attribute_loss(values: Tensor, ratings: Tensor, spread: Tensor) -> Tensor:
    """Squared error of rated attributes, in units of their variance, a value a response and head.

    L = ((v - y) / s)^2

    Dividing by the spread s makes attributes of unlike scales weigh the same: a head that always
    says the mean rating has a mean loss of 1, and 1 less the mean loss is the share of variance
    explained, both on the ratings of which s is the standard deviation.

    Args:
        values: v, what the heads say, [R, K], float32, in the units of the ratings.
        ratings: y, [R, K], NaN where a response was not rated.
        spread: s > 0, the standard deviation of the training ratings, [K].

    Returns:
        Losses, [R, K]; zero where nothing was rated.

    Raises:
        ValueError: shapes differ.

    Source: pointwise regression of HelpSteer2's five attributes by the mean squared error of one
    linear head each (arXiv 2406.08673, section 3.1), after the attributes of SteerLM (arXiv
    2310.05344). The division by s^2 is ours.
    """
    if values.shape != ratings.shape or spread.shape != values.shape[1:]:
        shapes = [tuple(t.shape) for t in (values, ratings, spread)]
        raise ValueError(f"expected values and ratings [R, K] and spread [K], got {shapes}")
    rated = ~torch.isnan(ratings)
    # The rating is made finite first: NaN times zero would be a gradient of NaN.
    errors = (values - torch.where(rated, ratings, 0.0)) / spread
    return torch.where(rated, errors**2, 0.0)


def accuracy(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Share of pairs ranked rightly, one value a pair: 1, 0, or 1/2 for a tie. [B] -> [B]."""
    return (torch.sign(chosen - rejected) + 1) / 2


def _ranking(rewards: Tensor, batch: Microbatch, _options: TrainOptions) -> Tensor:
    return ranking_loss(rewards[batch.chosen], rewards[batch.rejected], batch.margin)


def _bradley_terry(rewards: Tensor, batch: Microbatch, options: TrainOptions) -> Tensor:
    chosen, rejected = rewards[batch.chosen], rewards[batch.rejected]
    smoothing = options.label_smoothing
    return bradley_terry_loss(chosen, rejected, batch.margin, batch.shares, smoothing)


def _rao_kupper(rewards: Tensor, batch: Microbatch, options: TrainOptions) -> Tensor:
    chosen, rejected = rewards[batch.chosen], rewards[batch.rejected]
    return rao_kupper_loss(chosen, rejected, batch.shares, _stated(options.tie_share))


def _davidson(rewards: Tensor, batch: Microbatch, options: TrainOptions) -> Tensor:
    chosen, rejected = rewards[batch.chosen], rewards[batch.rejected]
    return davidson_loss(chosen, rejected, batch.shares, _stated(options.tie_share))


def _plackett_luce(rewards: Tensor, batch: Microbatch, options: TrainOptions) -> Tensor:
    """A ranking's loss in equal parts on its pairs; pairs outside rankings by Bradley-Terry."""
    ranking, response, place = batch.entries.unbind(1)
    ranked = batch.ranking >= 0
    number = batch.ranking.clamp(min=0)
    # No more rankings than pairs, so no size has to be read back from the device.
    none = torch.zeros(max(1, len(ranked)), dtype=rewards.dtype, device=rewards.device)
    losses = none.index_add(0, ranking, plackett_luce_loss(rewards[response], ranking, place))
    pairs = none.index_add(0, number, ranked.to(rewards.dtype))
    single = _bradley_terry(rewards, batch, options)
    return torch.where(ranked, losses[number] / pairs[number].clamp(min=1), single)


def _stated(tie_share: float | None) -> float:
    if tie_share is None:
        raise ValueError("tie_share: expected a share, got None; `with_tie_share` fits it")
    return tie_share


LOSSES: Mapping[str, Loss] = {
    "ranking": _ranking,
    "bradley-terry": _bradley_terry,
    "rao-kupper": _rao_kupper,
    "davidson": _davidson,
    "plackett-luce": _plackett_luce,
}
"""By its name in `train.loss`. The safety loss and the losses of attributes are added to whichever
is chosen."""


def objective(rewards: Tensor, batch: Microbatch, options: TrainOptions) -> Tensor:
    """The chosen loss and the centring, times each row's weight: one value a pair, [B].

    Args:
        rewards: of the batch's responses, [R], float32.
    """
    losses = LOSSES[options.loss](rewards, batch, options)
    if options.center_rewards_coefficient:
        centring = centring_loss(rewards[batch.chosen], rewards[batch.rejected])
        losses = losses + options.center_rewards_coefficient * centring
    return losses * batch.weight


def with_tie_share(options: TrainOptions, ties: NDArray[np.float64]) -> TrainOptions:
    """The options with the tie share that a loss needs, where they do not state it.

    (sum of shares + 1/2) / (rows + 1): as often as in the rows, and never 0 or 1. It is right for
    rewards that are all equal, as those of a new model nearly are; pairs of unequal responses tie
    less often, so the share among equally good ones may be stated higher.

    Args:
        ties: the share of tie in each row's judgement, [rows].
    """
    if options.loss not in ("rao-kupper", "davidson") or options.tie_share is not None:
        return options
    share = (float(ties.sum()) + 0.5) / (len(ties) + 1)
    return options.model_copy(update={"tie_share": share})
