"""train(): optimizer and schedule, signals, and the loop with its gradients, top to bottom.

A step takes its comparisons (`batching.steps`), splits them into micro-batches of prompt groups
(`split_step`), sums the losses' gradients over them, clips, and lets AdamW step.
"""

from __future__ import annotations

import math
import signal
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import AdamW

from palate.model.compute import apply_compute, compile_and_try, uncompile, worth_compiling
from palate.model.precision import name_of
from palate.model.reward_model import RewardModel, Rewards
from palate.records import write_json
from palate.train.batching import (
    Microbatch,
    Step,
    prefetch,
    refuse_long_rankings,
    split_step,
    steps,
    steps_per_epoch,
)
from palate.train.checkpoint import SNAPSHOTS, Checkpoints, Snapshots, refuse_other_dtype
from palate.train.cost import describe
from palate.train.dataset import Examples
from palate.train.distributed import Distributed, clip_gradients, peers, place, reduce_gradients
from palate.train.logging import RunLog, drop_after
from palate.train.loss import (
    accuracy,
    load_balancing_loss,
    objective,
    safety_loss,
    with_tie_share,
)
from palate.train.options import TrainOptions
from palate.train.states import Visited, forget_states, keep_states
from palate.train.trainable import choose_trainable
from palate.train.validation import (
    ATTRIBUTE_LOSS,
    Validation,
    attribute_errors,
    centre_members,
    pair_rewards,
)
from palate.types import PalateError, digest

# AdamW's parameter groups, and the learning rate of every step.


@dataclass(frozen=True, slots=True)
class Schedule:
    """Linear warm-up to 1, then cosine down to `final` at the last step; steps count from 1.

    As a factor on each group's peak learning rate (arXiv 2307.09288, section 3.2.2: warm-up 3 %
    of the steps and at least 5, cosine down to 10 %).
    """

    steps: int
    warmup: int
    final: float

    @classmethod
    def of(cls, options: TrainOptions, steps: int) -> Schedule:
        """The schedule of a run of `steps` optimizer steps, all epochs together."""
        return cls(steps, options.warmup_steps(steps), options.final_lr_fraction)

    def factor(self, step: int) -> float:
        """The factor at `step`, 1 <= step <= steps."""
        if not 1 <= step <= self.steps:
            raise ValueError(f"step {step} is outside 1..{self.steps}")
        if step <= self.warmup:
            return step / self.warmup
        progress = (step - self.warmup) / (self.steps - self.warmup)
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * progress)) / 2


def make_optimizer(model: RewardModel, options: TrainOptions) -> AdamW:
    """AdamW over what is trainable: matrices with weight decay, vectors and norms without.

    The paper says neither what decays nor whether the fresh head has its own rate; both are
    options of ours (pitfall 17).
    """
    heads = {id(p) for head in model.heads for p in head.parameters()}
    head_rate = options.head_learning_rate or options.learning_rate
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in (p for p in model.parameters() if p.requires_grad):
        rate = head_rate if id(parameter) in heads else options.learning_rate
        decay = options.weight_decay if parameter.ndim >= 2 else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return AdamW(
        [
            {"params": parameters, "lr": rate, "peak_lr": rate, "weight_decay": decay}
            for (rate, decay), parameters in groups.items()
        ],
        betas=(options.adam_beta1, options.adam_beta2),
        eps=options.adam_epsilon,
        fused=True,
    )


def set_learning_rate(optimizer: AdamW, factor: float) -> float:
    """Scale every group's peak by `factor`; returns the backbone's rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
    return float(optimizer.param_groups[0]["lr"])


# Ctrl-C and SIGTERM: logged at once, obeyed at the end of a step; a second Ctrl-C at once.

STOPPING = "stopping after this step; again to stop now"


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM arrived; everything up to `step` is saved."""

    def __init__(self, step: int) -> None:
        super().__init__(f"saved at step {step}")
        self.step = step


class Stop:
    """Whether Ctrl-C or SIGTERM came; a second Ctrl-C raises KeyboardInterrupt at once.

    A SIGTERM after a Ctrl-C does not: torchrun sends one to a process that is saving already.
    """

    def __init__(self) -> None:
        self._received: list[int] = []
        self._blocked = False  # Inside `deferred`.
        self._pending = False  # A second Ctrl-C came meanwhile.

    def __call__(self) -> bool:
        return bool(self._received)

    def handle(self, number: int, _frame: object) -> None:
        """What `signal` calls."""
        again = number == signal.SIGINT and number in self._received
        self._received.append(number)
        if again and not self._blocked:
            raise KeyboardInterrupt
        self._pending |= again

    @contextmanager
    def deferred(self) -> Generator[None]:
        """What runs inside is finished first: a second Ctrl-C waits for its end."""
        self._blocked = True
        try:
            yield
        finally:
            self._blocked = False
        if self._pending:
            self._pending = False
            raise KeyboardInterrupt


@contextmanager
def stop_signals(log: Callable[[str], None] = lambda _: None) -> Generator[Stop]:
    """Yield what notices Ctrl-C and SIGTERM, and `log` at the first that it was noticed."""
    stop = Stop()
    try:
        before = {s: signal.signal(s, stop.handle) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # Not the main thread: whoever runs us handles signals.
        yield stop
        return
    try:
        with _log_at_once(log):
            yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _log_at_once(log: Callable[[str], None]) -> Generator[None]:
    """Log that a signal came while the main thread is still deep in a matrix product.

    Python runs a signal's handler between two of its instructions, and a step of a large model
    has seconds of none. The number of the signal comes through a socket in the meantime.
    """
    receiving, sending = socket.socketpair()
    sending.setblocking(False)
    before = signal.set_wakeup_fd(sending.fileno(), warn_on_full_buffer=False)

    def listen() -> None:
        with receiving:
            while number := receiving.recv(1):
                if number[0] in (signal.SIGINT, signal.SIGTERM):
                    log(STOPPING)
                    return

    thread = threading.Thread(target=listen, name="signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        sending.close()
        thread.join()


ALONE = Distributed()
SELECTION = "selection.json"
"""Beside the curves: which step's weights the model has, where evaluations decided it."""


def train(
    model: RewardModel,
    examples: Examples,
    heldout: Mapping[str, Examples],
    options: TrainOptions,
    folder: Path,
    *,
    name: str = "reward model",
    origin: str = "",
    resume: bool = True,
    world: Distributed = ALONE,
    states: Path | None = None,
    trainings: int = 1,
) -> RewardModel:
    """Train `model` in place on `examples` and return it; every rank of `world` calls this.

    Writes `metrics.jsonl`, tracker files and checkpoints under `folder`. With `resume`, goes on
    from the newest checkpoint there; a killed run equals an uninterrupted one.

    Args:
        heldout: sets whose accuracy and loss are recorded during training, by name.
        origin: what the weights are before training, as a digest; only the same may be resumed.
        world: the processes that train together. The result does not depend on how many they
            are, but for rounding.
        states: a folder where several `trainings` of the same frozen layers keep their states, and
            leave them; default: `folder`, where none are left.

    Raises:
        PalateError: non-finite loss or gradient (names the pairs), a foreign checkpoint, or too
            little memory.
        Interrupted: Ctrl-C or SIGTERM; a checkpoint was saved first.
    """
    made_of: list[object] = [examples.fingerprint, options.decisive(), len(examples), origin]
    examples, left_out = learnable_examples(examples, options)
    taught = with_tie_share(options, examples.shares()[:, 1])
    if options.router_loss_coefficient:
        model.keep_router_logits()
    if options.quantizes and not world.alone:
        raise PalateError(
            f"train.trainable.lora.quantization: one process, got {world.size}: four bits cannot "
            "be sharded; start without torchrun, or leave it out"
        )
    if model.members != options.heads:
        raise PalateError(
            f"train.ensemble: expected {options.heads} members, the model has {model.members}"
        )
    model.offsets.zero_()
    fit_attributes(model, examples, options)
    choose_trainable(model, options)
    apply_compute(model, options.compute)
    place(model, world, options.compute.shards)
    model.train()
    per_epoch = steps_per_epoch(len(examples), options.pairs_per_step)
    schedule = Schedule.of(options, per_epoch * options.epochs)
    optimizer = make_optimizer(model, options)
    validation = Validation.of(heldout, options)
    best = validation.best(options)
    snapshots = _snapshots(options, schedule.steps, per_epoch)
    if best:
        made_of.append(heldout[best.name].fingerprint)
    fingerprint = digest(*made_of)
    refuse_long_rankings(examples.ranking_keys(), options.pairs_per_step)
    checkpoints = Checkpoints(folder / "checkpoints")
    state = checkpoints.load(model, optimizer, fingerprint) if resume else None
    kept = Snapshots(folder / SNAPSHOTS, world)
    dtype = name_of(model.dtype)
    if state:
        refuse_other_dtype(folder, state, dtype)
    done = state["step"] if state else 0
    if best and state and "best" in state:
        best.resume(state["best"])
    # Where it ended early, no step is left.
    start = schedule.steps if best and best.is_over else done
    if world.leads:
        drop_after(folder, done or -1)  # A new start evaluates at step 0 once more.
        if not done:
            kept.leave(())

    with (
        peers(world),
        RunLog(folder, name, schedule.steps, options.trackers, shown=world.leads) as log,
        stop_signals(log.info) as stop,
        checkpoints,
        closing(prefetch(_shares(examples, options, world, start))) as shares,
    ):
        shards = world.shards(options.compute.shards)
        log.info(describe(model, options, processes=world.size, shards=shards))
        if left_out:
            log.info(f"ties: {left_out:,} left out; {LEARN_FROM_TIES}")
        if taught.tie_share is not None:
            log.info(f"ties: {taught.tie_share:.3f} of equally good responses (train.tie_share)")
        compiled = _compile(model, examples, options, world, state, log.info)
        for line in _attribute_lines(model):
            log.info(line)
        inputs = digest(
            examples.fingerprint, len(examples), origin, options.eval_rows,
            *(one.fingerprint for one in validation.sets.values()),
        )  # fmt: skip
        if start < schedule.steps and not _keep_states(
            model, examples, validation, options, world, states or folder, inputs, schedule.steps,
            trainings, stop, log,
        ):  # fmt: skip
            raise Interrupted(done)
        saved_at = time.monotonic()
        if not done:
            log.evaluations(0, 0.0, validation.figures(model, world))
        log.starts(done)
        finished = done  # The last step that the weights have had.

        def save(*, wait: bool) -> None:
            with stop.deferred():
                state = {"step": finished, "fingerprint": fingerprint, "dtype": dtype}
                if compiled:
                    state["compiled"] = True
                if best and best.step:
                    state["best"] = best.state
                checkpoints.save(model, optimizer, state, wait=wait)

        try:
            for number, step in shares:
                started = time.perf_counter()
                rate = set_learning_rate(optimizer, schedule.factor(number))
                with _enough_memory(step, options):
                    sums = _gradients(model, optimizer, step, taught, world)
                    with stop.deferred():
                        optimizer.step()
                        optimizer.zero_grad(set_to_none=True)
                        finished = number
                        if number in snapshots:
                            kept.save(number, model)
                        seconds = time.perf_counter() - started
                        log.step(
                            number, sums.figures(step, rate, seconds, sorted(options.attributes))
                        )
                every = options.eval_every_steps
                if number % per_epoch == 0 or (every and number % every == 0):
                    figures = validation.figures(model, world)
                    log.evaluations(number, number / per_epoch, figures)
                    better = best is not None and best.see(number, figures)
                    if best and number in best.top:
                        kept.save(number, model)
                        kept.leave(best.top)
                else:
                    better = False
                over = best is not None and best.is_over
                last = over or number == schedule.steps
                overdue = better or (time.monotonic() - saved_at > 60 * options.save_every_minutes)
                stopped, due = world.any(stop(), overdue)
                if stopped or due or last:
                    save(wait=stopped or last)
                    saved_at = time.monotonic()
                if stopped and not last:
                    raise Interrupted(number)
                if last:
                    break
        except KeyboardInterrupt as error:
            # A second signal: this step is given up, and no step before it. Several processes
            # cannot save then: they are at different points of the step.
            if isinstance(error, Interrupted) or world.size > 1:
                raise
            save(wait=True)
            raise Interrupted(finished) from None
        if best:
            if options.keep == "best" and best.step:
                checkpoints.restore(best.step, model, optimizer)
            weights = best.words(options.keep, finished, schedule.steps)
            log.info(f"weights: {weights}")
            if world.leads:
                write_json(folder / SELECTION, {"weights": weights})
        if model.members > 1:
            centre_members(model, examples, options.tokens_per_microbatch, world)
    if compiled:
        uncompile(model)
    model.kept = None
    if world.leads and states is None:
        forget_states(folder)
    model.eval()
    return model


def _snapshots(options: TrainOptions, steps: int, per_epoch: int) -> set[int]:
    """The steps whose weights are members of an ensemble: evenly spaced over the second half of a
    training, the last among them. None where evaluations choose them.

    Raises:
        PalateError: there are too few steps, or evaluations, for as many members.
    """
    wanted, every = options.checkpoints, options.eval_every_steps
    if not wanted:
        return set()
    if options.keep == "best":
        evaluated = sum(
            n % per_epoch == 0 or bool(every and n % every == 0) for n in range(1, steps + 1)
        )
        if evaluated < wanted:
            raise PalateError(
                f"train.ensemble: {wanted} checkpoints with keep=best, and {evaluated} "
                f"evaluations; set train.eval_every_steps={max(1, steps // (2 * wanted))} or fewer"
            )
        return set()
    if steps < wanted:
        raise PalateError(
            f"train.ensemble: {wanted} checkpoints of a training of {steps} steps; set a smaller "
            "train.pairs_per_step, more train.epochs or fewer members"
        )
    apart = max(1, steps // (2 * wanted))
    return {steps - apart * number for number in range(wanted)}


def _keep_states(
    model: RewardModel, examples: Examples, validation: Validation, options: TrainOptions,
    world: Distributed, folder: Path, made_of: str, steps: int, trainings: int,
    stop: Callable[[], bool], log: RunLog,
) -> bool:  # fmt: skip
    """Keep what frozen layers make of all rows that are run more than once, as `compute` says.

    False where it was stopped.

    Raises:
        PalateError: it is asked for and cannot be.
    """
    asked = options.compute.keep_frozen_states
    if not world.alone and asked is True:
        raise PalateError(
            f"train.compute.keep_frozen_states: one process, got {world.size}; leave it at auto"
        )
    if not asked or not world.alone or (asked == "auto" and world.device.type != "cpu"):
        return True
    every = options.eval_every_steps
    evaluations = trainings * (1 + options.epochs + (steps // every if every else 0))
    sets = [Visited(examples, len(examples), trainings * options.epochs)]
    for heldout in validation.sets.values():
        sets.append(Visited(heldout, min(len(heldout), validation.rows), evaluations))
    return keep_states(
        model, sets, options.tokens_per_microbatch, folder,
        made_of=made_of, asked=asked is True, stop=stop, log=log.info, show=log.prepares,
    )  # fmt: skip


def _compile(
    model: RewardModel, examples: Examples, options: TrainOptions, world: Distributed,
    state: Mapping[str, Any] | None, log: Callable[[str], None],
) -> bool:  # fmt: skip
    """Compile the layers where `auto` says so; a training goes on as it began.

    Rewards differ by the rounding of bfloat16 from those without.
    """
    if options.compute.compile != "auto" or not world.alone:
        return False
    if state:
        wanted = bool(state.get("compiled"))
    else:
        wanted = worth_compiling(model, options.epochs * int(examples.lengths().sum()))
    if not wanted:
        return False
    log("compiling the layers: about a minute, once (train.compute.compile=false leaves it out)")
    part = split_step([examples[0]], options.margins(), options.tokens_per_microbatch).parts[0]
    return compile_and_try(model, part.groups)


LEARN_FROM_TIES = "train.loss: rao-kupper, davidson or bradley-terry learns from them"


def learnable_examples(examples: Examples, options: TrainOptions) -> tuple[Examples, int]:
    """What the loss can learn from, and how many ties it leaves out: the ranking loss all."""
    if options.loss != "ranking":
        return examples, 0
    decided = examples.decided()
    if not len(decided):
        raise PalateError(f"all of {len(examples)} comparisons are ties; {LEARN_FROM_TIES}")
    return decided, len(examples) - len(decided)


def fit_attributes(model: RewardModel, examples: Examples, options: TrainOptions) -> None:
    """Give new attribute heads the mean and the spread of the ratings that they learn from.

    Heads that were trained before keep theirs.

    Raises:
        PalateError: an attribute that no training response has, or one rating for all.
    """
    heads = model.attribute_heads
    if options.attributes and set(options.attributes) != set(model.attributes):
        raise PalateError(
            f"train.attributes: expected heads of {', '.join(sorted(options.attributes))}, the "
            f"model has {', '.join(model.attributes) or 'none'}"
        )
    if heads is None or heads.is_scaled:
        return
    ratings = examples.ratings(heads.names).reshape(-1, len(heads.names))
    centre, spread = [], []
    for name, column in zip(heads.names, ratings.T, strict=True):
        rated = column[~np.isnan(column)]
        if not rated.size:
            raise PalateError(
                f"train.attributes: none of {2 * len(examples):,} training responses has a rating "
                f"of {name!r}; read it with `attributes` of its source, or leave it out"
            )
        if rated.min() == rated.max():
            raise PalateError(
                f"train.attributes: every rating of {name!r} is {rated[0]:g}, from which nothing "
                "can be learnt; leave it out"
            )
        centre.append(float(rated.mean()))
        spread.append(float(rated.std()))
    heads.scale(centre, spread)


def _attribute_lines(model: RewardModel) -> list[str]:
    """What the heads of attributes start from."""
    heads = model.attribute_heads
    if heads is None:
        return []
    scales = zip(heads.names, heads.centre.tolist(), heads.spread.tolist(), strict=True)
    return [f"attributes: {', '.join(f'{n} {c:.3g} ± {s:.2g}' for n, c, s in scales)} (ratings)"]


def _shares(
    examples: Examples, options: TrainOptions, world: Distributed, done: int
) -> Iterator[tuple[int, Step]]:
    """(step, this rank's share of it) after step `done`."""
    margins, budget = options.margins(), options.tokens_per_microbatch
    rows = steps(examples, options.pairs_per_step, options.epochs, options.seed, start=done)
    attributes = sorted(options.attributes)
    for number, batch in rows:
        yield (
            number,
            split_step(
                batch,
                margins,
                budget,
                attributes=attributes,
                members=options.heads,
                seed=options.seed,
                rank=world.rank,
                ranks=world.size,
            ),
        )


@dataclass(frozen=True, slots=True)
class StepSums:
    """Sums over the pairs of one step, all ranks together, and the gradient's norm.

    The losses of safety and of attributes are means over what has a label, a rating.
    """

    loss: float
    accuracy: float
    gap: float
    safety: float
    router: float
    attributes: tuple[float, ...]
    norm: float

    def figures(
        self, step: Step, rate: float, seconds: float, attributes: Sequence[str] = ()
    ) -> dict[str, float]:
        """What is logged: means over the pairs (accuracy and gap: without ties), and speed.

        The loss of an attribute is there where a response of the step has a rating.
        """
        pairs = len(step.ids)
        decided = {"accuracy": self.accuracy, "gap": self.gap}
        return {
            "loss": self.loss / pairs,
            **{key: value / step.decided for key, value in decided.items() if step.decided},
            "safety_loss": self.safety,
            **({"router_loss": self.router} if self.router else {}),
            **{
                f"{ATTRIBUTE_LOSS}{name}": loss
                for name, loss, n in zip(attributes, self.attributes, step.rated, strict=True)
                if n
            },
            "learning_rate": rate,
            "gradient_norm": self.norm,
            "pairs": pairs,
            "tokens": step.tokens,
            "pairs_per_second": pairs / seconds,
            "tokens_per_second": step.tokens / seconds,
        }


def _gradients(
    model: RewardModel, optimizer: AdamW, step: Step, options: TrainOptions, world: Distributed
) -> StepSums:
    """The clipped gradients of one step; they depend neither on the micro-batches nor on the ranks.

    Each micro-batch adds the *sum* of its losses over the pairs of the whole step: a mean of
    micro-batch means would weigh pairs by the company they keep (pitfall 12). FSDP averages
    gradients over ranks, so the loss is multiplied by their number. Nothing is read back from
    the device before the one transfer at the end.
    """
    totals = torch.zeros(5 + len(step.rated), dtype=torch.float64, device=world.device)
    for part in step.parts:
        reduce_gradients(model, world, now=part is step.parts[-1])
        loss, sums = _losses(model, part, step, options)
        (loss * world.size).backward()
        totals += sums
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = clip_gradients(parameters, options.clip_norm)
    figures = torch.cat((world.total(totals), norm[None])).tolist()
    if not all(map(math.isfinite, figures)):
        finite = torch.isfinite(pair_rewards(model, step, world)).all(dim=1).tolist()
        bad = [id_ for id_, good in zip(step.ids, finite, strict=True) if not good]
        where, named = "loss" if bad else "gradient", ", ".join((bad or step.ids)[:8])
        raise PalateError(f"non-finite {where} among the pairs {named}; lower learning_rate")
    loss, right, gap, safety, router, *attributes, gradient = figures
    return StepSums(loss, right, gap, safety, router, tuple(attributes), gradient)


def _losses(
    model: RewardModel, part: Microbatch, step: Step, options: TrainOptions
) -> tuple[Tensor, Tensor]:
    """The micro-batch's share of the step's loss, and detached sums for the log.

    Sums are [loss, accuracy, gap, safety, router, attributes ...] over pairs (accuracy, gap: those
    that are no ties; safety, attributes: already averaged over labels and ratings; router: over
    tokens).
    """
    rewards = model(part.groups)
    part = part.to(rewards.reward.device)
    chosen, rejected = rewards.reward[part.chosen], rewards.reward[part.rejected]  # [B]
    every = _members(rewards, part)
    losses = torch.stack([objective(reward, own, options) for reward, own, _ in every]).mean(0)
    loss = losses.sum() / len(step.ids)
    safety = torch.zeros((), device=rewards.reward.device)
    if options.safety_loss is not None:
        read = [(reward, drawn) for reward, _, drawn in every]
        if options.safety_loss.on == "head":
            assert rewards.safety is not None
            read = [(rewards.safety, torch.ones_like(rewards.safety))]
        each = [safety_loss(logits, part.safe, part.labelled) * drawn for logits, drawn in read]
        safety = torch.stack(each).mean(0).sum() / max(1, step.labelled)
        loss = loss + options.safety_loss.weight * safety
    router = torch.zeros((), device=rewards.reward.device)
    if options.router_loss_coefficient:
        # By tokens: a step's is then the mean of its micro-batches', of which each has its own.
        router = load_balancing_loss(rewards.router_logits, model.experts_per_token)
        router = router * part.tokens / step.tokens
        loss = loss + options.router_loss_coefficient * router
    right, gap = accuracy(chosen, rejected) * part.decided, (chosen - rejected) * part.decided
    sums = (losses, right, gap, safety, router)
    figures = torch.stack([f.detach().sum().double() for f in sums])
    if not options.attributes:
        return loss, figures
    errors = attribute_errors(model, rewards, part, step)  # [K]
    weights = [options.attributes[name] for name in model.attributes]
    loss = loss + (torch.tensor(weights, device=errors.device) * errors).sum()
    return loss, torch.cat((figures, errors.detach().double()))


def _members(rewards: Rewards, part: Microbatch) -> list[tuple[Tensor, Microbatch, Tensor]]:
    """Of each member of an ensemble its rewards [R], its comparisons by their weights, and how
    often it has drawn each response's prompt [R]; of one model its own."""
    if rewards.members is None:
        return [(rewards.reward, part, torch.ones_like(rewards.reward))]
    columns = zip(rewards.members.unbind(1), part.drawn.unbind(1), strict=True)
    return [
        (reward, replace(part, weight=part.weight * drawn[part.chosen]), drawn)
        for reward, drawn in columns
    ]


@contextmanager
def _enough_memory(step: Step, options: TrainOptions) -> Generator[None]:
    """Turn exhausted memory into one line with the cure."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError.
        exhausted = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not (exhausted or "can't allocate memory" in str(error)):
            raise
        budget, largest = options.tokens_per_microbatch, max(part.tokens for part in step.parts)
        raise PalateError(
            f"out of memory at micro-batches of up to {largest} tokens; set "
            f"train.tokens_per_microbatch={max(64, budget // 2)} (it is {budget}; the result "
            "does not depend on it)"
        ) from error
