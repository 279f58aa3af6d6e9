"""train(): the loop, top to bottom."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import AdamW

from palate.model.reward_model import RewardModel
from palate.train.checkpoint import Checkpoints
from palate.train.examples import Example, Examples
from palate.train.loss import accuracy, ranking_loss, safety_loss
from palate.train.microbatch import Microbatch, split_step
from palate.train.options import TrainOptions
from palate.train.progress import RunLog, drop_after
from palate.train.schedule import Schedule, make_optimizer, set_learning_rate
from palate.train.trainable import choose_trainable
from palate.types import PalateError, digest


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM arrived; everything up to `step` is saved."""

    def __init__(self, step: int) -> None:
        super().__init__(f"saved at step {step}")
        self.step = step


@dataclass(frozen=True, slots=True)
class StepSums:
    """Sums over the pairs of one step, and its token count."""

    loss: float
    accuracy: float
    gap: float
    safety: float
    tokens: int


def train(
    model: RewardModel,
    examples: Examples,
    heldout: Mapping[str, Examples],
    options: TrainOptions,
    folder: Path,
    *,
    name: str = "reward model",
    resume: bool = True,
) -> RewardModel:
    """Train `model` in place on `examples` and return it.

    Writes `metrics.jsonl`, tracker files and checkpoints under `folder`. With `resume`, goes on
    from the newest checkpoint there; a killed run equals an uninterrupted one.

    Args:
        heldout: sets whose accuracy and loss are recorded during training, by name.

    Raises:
        PalateError: non-finite loss or gradient (names the pairs), or a foreign checkpoint.
        Interrupted: Ctrl-C or SIGTERM; a checkpoint was saved first.
    """
    choose_trainable(model, options)
    model.train()
    steps_per_epoch = math.ceil(len(examples) / options.pairs_per_step)
    schedule = Schedule.of(options, steps_per_epoch * options.epochs)
    optimizer = make_optimizer(model, options)
    fingerprint = digest(examples.fingerprint, options.model_dump(), len(examples))
    checkpoints = Checkpoints(folder / "checkpoints")
    state = checkpoints.load(model, optimizer, fingerprint) if resume else None
    done = state["step"] if state else 0
    drop_after(folder, done or -1)  # A new start evaluates at step 0 once more.

    with (
        RunLog(folder, name, schedule.steps, options.trackers) as log,
        _signals() as stop,
        checkpoints,
    ):
        saved_at = time.monotonic()
        for step, batch in _steps(examples, options, start=done):
            if step == 1:
                _evaluate_all(model, heldout, options, log, 0, 0.0)
            started = time.perf_counter()
            rate = set_learning_rate(optimizer, schedule.factor(step))
            sums, norm = _step(model, optimizer, batch, options)
            seconds = time.perf_counter() - started
            log.step(step, _figures(sums, len(batch), rate, norm, seconds))
            if _is_eval_step(step, steps_per_epoch, options):
                _evaluate_all(model, heldout, options, log, step, step / steps_per_epoch)
            last, stopped = step == schedule.steps, stop()
            if stopped or last or time.monotonic() - saved_at > 60 * options.save_every_minutes:
                state = {"step": step, "fingerprint": fingerprint}
                checkpoints.save(model, optimizer, state, wait=stopped or last)
                saved_at = time.monotonic()
            if stopped and not last:
                raise Interrupted(step)
    model.eval()
    return model


def _steps(
    examples: Examples, options: TrainOptions, start: int
) -> Iterator[tuple[int, list[Example]]]:
    """(step, its examples) from `start` on; every epoch in an order of its own."""
    per_epoch = math.ceil(len(examples) / options.pairs_per_step)
    for epoch in range(start // per_epoch, options.epochs):
        order = np.random.default_rng([options.seed, epoch]).permutation(len(examples))
        for index in range(per_epoch):
            step = epoch * per_epoch + index + 1
            if step > start:
                rows = order[index * options.pairs_per_step :][: options.pairs_per_step]
                yield step, [examples[int(row)] for row in rows]


def _step(
    model: RewardModel, optimizer: AdamW, batch: list[Example], options: TrainOptions
) -> tuple[StepSums, float]:
    """One optimizer step over `batch`; the gradient does not depend on the micro-batching.

    Each micro-batch adds the *sum* of its losses over the pairs of the whole step: a mean of
    micro-batch means would weigh pairs by the company they keep (pitfall 12).
    """
    budget = options.tokens_per_microbatch
    parts = split_step(batch, options.margins(), options.unrated_margin, budget)
    labelled = max(1.0, sum(float(part.labelled.sum()) for part in parts))
    totals = torch.zeros(4, dtype=torch.float64)
    for part in parts:
        loss, sums = _losses(model, part, options, pairs=len(batch), labelled=labelled)
        loss.backward()
        totals += sums
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = float(torch.nn.utils.clip_grad_norm_(parameters, options.clip_norm))
    if not (math.isfinite(norm) and bool(torch.isfinite(totals).all())):
        _refuse_non_finite(model, parts, options)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    loss_sum, correct, gap, safety = totals.tolist()
    return StepSums(loss_sum, correct, gap, safety, sum(p.tokens for p in parts)), norm


def _losses(
    model: RewardModel, part: Microbatch, options: TrainOptions, *, pairs: int, labelled: float
) -> tuple[Tensor, Tensor]:
    """The micro-batch's share of the step's loss, and detached sums for the log.

    Sums are [loss, accuracy, gap, safety] over pairs (safety: already averaged over labels).
    """
    rewards = model(part.groups)
    device = rewards.reward.device
    chosen = rewards.reward[part.chosen.to(device)]
    rejected = rewards.reward[part.rejected.to(device)]
    ranking = ranking_loss(chosen, rejected, part.margin.to(device))
    loss = ranking.sum() / pairs
    auxiliary = torch.zeros((), device=device)
    if options.safety_loss is not None:
        logits = rewards.reward if options.safety_loss.on == "reward" else rewards.safety
        assert logits is not None
        losses = safety_loss(logits, part.safe.to(device), part.labelled.to(device))
        auxiliary = losses.sum() / labelled
        loss = loss + options.safety_loss.weight * auxiliary
    detached = (ranking, accuracy(chosen, rejected), chosen - rejected, auxiliary)
    return loss, torch.stack([d.detach().sum().double().cpu() for d in detached])


def _refuse_non_finite(model: RewardModel, parts: list[Microbatch], options: TrainOptions) -> None:
    """Name the pairs whose loss is not finite; the last checkpoint stays as it was."""
    bad: list[str] = []
    with torch.no_grad():
        for part in parts:
            loss, _ = _losses(model, part, options, pairs=1, labelled=1.0)
            if not bool(torch.isfinite(loss)):
                bad += part.ids
    named = ", ".join((bad or [i for part in parts for i in part.ids])[:8])
    where = "loss" if bad else "gradient"
    raise PalateError(f"non-finite {where} among the pairs {named}; lower learning_rate")


@torch.no_grad()
def evaluate_examples(
    model: RewardModel, examples: Examples, rows: int, budget: int
) -> dict[str, float]:
    """Accuracy (ties count one half) and loss without margin over the first `rows` examples."""
    chosen = [examples[i] for i in range(min(rows, len(examples)))]
    totals = torch.zeros(4, dtype=torch.float64)
    plain = TrainOptions()  # No margin, no safety loss.
    for part in split_step(chosen, plain.margins(), 0.0, budget):
        totals += _losses(model, part, plain, pairs=1, labelled=1.0)[1]
    loss, correct, gap, _ = (totals / len(chosen)).tolist()
    return {"accuracy": correct, "loss": loss, "gap": gap, "pairs": float(len(chosen))}


def _evaluate_all(
    model: RewardModel,
    heldout: Mapping[str, Examples],
    options: TrainOptions,
    log: RunLog,
    step: int,
    epoch: float,
) -> None:
    if not options.eval_rows:
        return
    for name, examples in heldout.items():
        rows, budget = options.eval_rows, options.tokens_per_microbatch
        log.evaluation(step, epoch, name, evaluate_examples(model, examples, rows, budget))


def _is_eval_step(step: int, per_epoch: int, options: TrainOptions) -> bool:
    every = options.eval_every_steps
    return step % per_epoch == 0 or bool(every and step % every == 0)


def _figures(
    sums: StepSums, pairs: int, rate: float, norm: float, seconds: float
) -> dict[str, float]:
    means = asdict(sums)
    return {
        "loss": means["loss"] / pairs,
        "accuracy": means["accuracy"] / pairs,
        "gap": means["gap"] / pairs,
        "safety_loss": means["safety"],
        "learning_rate": rate,
        "gradient_norm": norm,
        "pairs": pairs,
        "tokens": sums.tokens,
        "pairs_per_second": pairs / seconds,
        "tokens_per_second": sums.tokens / seconds,
    }


@contextmanager
def _signals() -> Generator[Any]:
    """Yield a function that says whether Ctrl-C or SIGTERM came; a second Ctrl-C stops at once."""
    caught: list[int] = []

    def handle(number: int, _frame: object) -> None:
        if caught:
            raise KeyboardInterrupt
        caught.append(number)

    try:
        before = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # Not the main thread: whoever runs us handles signals.
        before = {}
    try:
        yield lambda: bool(caught)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
