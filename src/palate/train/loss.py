"""The objectives of training, as pure functions. Shapes: B pairs, R responses.

To add a loss: write a function of (rewards [R], batch) to losses [B] here, name it in `LOSSES`, and
add the name to `TrainOptions.loss`, by which a recipe chooses it (`train.loss`). What it needs to
know of the responses besides becomes a column of `Microbatch` (`batching.py`). `_losses` in
`loop.py` calls it; it divides by the pairs of the whole step, so a loss never takes a mean itself.

Source: Llama 2, arXiv 2307.09288, section 3.2.2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from palate.train.batching import Microbatch

Loss = Callable[[Tensor, Microbatch], Tensor]
"""Rewards of the batch's responses, [R] float32, and the batch to one loss a pair, [B]."""


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


def accuracy(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Share of pairs ranked rightly, one value a pair: 1, 0, or 1/2 for a tie. [B] -> [B]."""
    return (torch.sign(chosen - rejected) + 1) / 2


LOSSES: Mapping[str, Loss] = {
    "ranking": lambda rewards, batch: ranking_loss(
        rewards[batch.chosen], rewards[batch.rejected], batch.margin
    ),
}
"""By its name in `train.loss`. The safety loss is added to whichever is chosen."""
