"""Palate's training step as a worker, by one of three paths: padded, packed, shared.

A request is a step of the loss curve (`step`) or a file of pairs (`rows`). Rewards, loss, clipping
and optimizer are the library's own; only how pairs become micro-batches differs between paths.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import palate
from benchmarks.peers.worker import Facts, read_rows, serve
from palate.model.attention import of_keys
from palate.model.device import default_device, keep_memory
from palate.model.loading import load_reward_model
from palate.model.packing import group, microbatches
from palate.model.reward_model import RewardModel
from palate.train.batching import split_step
from palate.train.dataset import Example
from palate.train.loop import make_optimizer
from palate.train.loss import ranking_loss
from palate.train.options import Trainable, TrainOptions
from palate.train.trainable import choose_trainable
from palate.types import Rating

# Rewards of chosen and rejected, margins, and the tokens that were computed.
Part = tuple[Tensor, Tensor, Tensor, int]
PAIRS_PER_PADDED_BATCH = 8


def shared(model: RewardModel, pairs: Sequence[Example], options: TrainOptions) -> Iterator[Part]:
    """Each prompt once."""
    budget = options.tokens_per_microbatch
    for part in split_step(pairs, options.margins(), budget).parts:
        reward, on_it = model(part.groups).reward, part.to(model.device)
        yield reward[on_it.chosen], reward[on_it.rejected], on_it.margin, part.tokens


def packed(model: RewardModel, pairs: Sequence[Example], options: TrainOptions) -> Iterator[Part]:
    """No padding, but each response with a prompt of its own."""
    groups = [group([p.chosen, p.rejected], shared=False) for p in pairs]
    for indices, chosen in microbatches(groups, options.tokens_per_microbatch):
        reward = model(chosen).reward
        margin = _margins([pairs[i] for i in indices], options)
        yield reward[0::2], reward[1::2], margin.to(model.device), sum(g.tokens for g in chosen)


def padded(model: RewardModel, pairs: Sequence[Example], options: TrainOptions) -> Iterator[Part]:
    """Eight pairs a batch in the order given, padded to the longest row."""
    for start in range(0, len(pairs), PAIRS_PER_PADDED_BATCH):
        batch = pairs[start : start + PAIRS_PER_PADDED_BATCH]
        rows = [p.chosen for p in batch] + [p.rejected for p in batch]
        reward = model.forward_padded(rows).reward
        computed = len(rows) * max(map(len, rows))
        margin = _margins(batch, options).to(model.device)
        yield reward[: len(batch)], reward[len(batch) :], margin, computed


PATHS: dict[str, Callable[[RewardModel, Sequence[Example], TrainOptions], Iterator[Part]]] = {
    "shared": shared,
    "packed": packed,
    "padded": padded,
}


def _margins(pairs: Sequence[Example], options: TrainOptions) -> Tensor:
    margins = options.margins()
    return torch.tensor([margins[p.rating] for p in pairs if p.rating is not None])


class Trainer:
    """A model, its optimizer, and one way of making micro-batches."""

    def __init__(self, model: RewardModel, path: str, options: TrainOptions) -> None:
        self.model = model
        self._options, self._path = options, PATHS[path]
        choose_trainable(self.model, options)
        self.model.train()
        self._optimizer = make_optimizer(self.model, options)
        self._trainable = [p for p in self.model.parameters() if p.requires_grad]

    def step(self, pairs: Sequence[Example]) -> Facts:
        """One optimizer step over `pairs`."""
        total, computed = torch.zeros((), device=self.model.device), 0
        for chosen, rejected, margin, tokens in self._path(self.model, pairs, self._options):
            loss = ranking_loss(chosen, rejected, margin).sum() / len(pairs)
            loss.backward()
            total += loss.detach()
            computed += tokens
        nn.utils.clip_grad_norm_(self._trainable, self._options.clip_norm)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return {
            "loss": float(total),
            "pairs": len(pairs),
            "real_tokens": sum(len(p.chosen) + len(p.rejected) for p in pairs),
            "computed_tokens": computed,
            "flops": self._flops(computed, 2 * len(pairs)),
        }

    def _flops(self, tokens: int, ends: int) -> int:
        """Forward and backward of the blocks' matrices: 6 x weights. Attention is not counted.

        The last layer runs for every token only where it makes keys and values.
        """
        layers: Any = self.model.backbone.layers
        everywhere = _weights(layers)
        at_ends = _weights(layers[-1], keys=False) if self.model.narrow else 0
        return 6 * ((everywhere - at_ends) * tokens + at_ends * ends)


def _weights(part: nn.Module, *, keys: bool = True) -> int:
    """Weights of the matrices of `part`; without those of keys and values if not `keys`."""
    linear = ((name, m) for name, m in part.named_modules() if isinstance(m, nn.Linear))
    return sum(m.weight.numel() for name, m in linear if keys or not of_keys(name))


def example(row: dict[str, Any]) -> Example:
    """A row of the pairs' file as Palate trains on it."""
    return Example(
        id=row["id"],
        prompt=str(row["prompt"]),
        chosen=np.asarray(row["chosen_ids"], np.int32),
        rejected=np.asarray(row["rejected_ids"], np.int32),
        rating=Rating(row["rating"]),
        chosen_safe=None,
        rejected_safe=None,
    )


def main() -> None:
    """Serve training steps."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--rows", required=True)
    parser.add_argument("--path", choices=PATHS, required=True)
    parser.add_argument("--layers", type=int, required=True)
    parser.add_argument("--budget", type=int, required=True)
    parser.add_argument("--learning-rate", type=float, required=True)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--compiled", action="store_true", help="as long trainings in bfloat16 are")
    arguments = parser.parse_args()
    keep_memory()
    options = TrainOptions(
        learning_rate=arguments.learning_rate,
        tokens_per_microbatch=arguments.budget,
        margin="small",
        trainable=Trainable(last_layers=arguments.layers),
    )
    dtype = getattr(torch, arguments.dtype)
    model = load_reward_model(arguments.model, dtype, default_device())
    trainer = Trainer(model, arguments.path, options)
    if arguments.compiled:
        from palate.model.compute import compile_parts  # A checkout of before has none.

        compile_parts(model)
    rows = read_rows(arguments.rows)
    # Tokenised and grouped before the window, as TRL does when it is built.
    steps = {n: [example(r) for r in rows if r["step"] == n] for n in {r["step"] for r in rows}}
    files: dict[str, list[Example]] = {}

    def work(request: Facts) -> Facts:
        if "step" in request:
            return trainer.step(steps[request["step"]])
        return trainer.step(files[request["rows"]])

    def prepare(request: Facts) -> None:
        if (path := request.get("rows")) is not None and path not in files:
            files[path] = [example(r) for r in read_rows(path)]

    serve(work, prepare, source=str(palate.__file__))


if __name__ == "__main__":
    main()
