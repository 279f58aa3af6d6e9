"""What 100, 300, 1,000 comparisons teach a head on frozen layers: depth, rate, epochs, batch.

    python -m benchmarks.small_data FOLDER [--draw 1000] [--rows 100 300 1000] [--layers 20 30 ...]
                                    [--rates 2e-3 5e-3] [--epochs 1 3] [--batches 8] [--minutes 60]

The simulated campaign (helpfulness), whose truth is known: one draw of comparisons, cut into parts
of each number of rows (at most five, no comparison in two of a size), and 500 that are held out, of
prompts that are not in the draw. Each is run once through all 30 layers of SmolLM2-135M; what every
layer gives at the end of a response, after the final norm, is kept in FOLDER, 100 comparisons a
file. A training is then that of `palate train` with `trainable: {last_layers: 0}`: its order of
comparisons, loss, schedule, AdamW and clipping, on a head alone (there the final norm learns too).

Every training is a line of FOLDER/trainings.jsonl as it ends, and is not run twice; a kill loses
one training or 100 comparisons. Progress goes to stderr. Ends with one JSON line: for each number
of rows what the trivial judges reach, and for each setting accuracy and its interval (over items
and parts, `replicated_accuracy`), held-out loss, and the paired difference to a bag of words that
was fitted on the same rows.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import softplus

from palate.data.prompts import hash64
from palate.data.simulation import CampaignOptions, bag_of_words_margins, bayes_limit, simulate
from palate.model.device import keep_memory
from palate.model.loading import start_model
from palate.model.options import BaseOptions
from palate.model.packing import pack
from palate.model.precision import compute_dtype
from palate.model.reward_model import RewardModel
from palate.records import write_comparisons
from palate.stats import replicated_accuracy, replicated_difference
from palate.train.batching import epoch_order, split_step
from palate.train.dataset import Examples, tokenise
from palate.train.loop import Schedule
from palate.train.options import TrainOptions
from palate.types import Comparison

HELD_OUT_SEED, WEEKS, SHARD, MOST_PARTS = 977, 4, 100, 5
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Training:
    """One training: the comparisons [part * rows, (part + 1) * rows) of the draw, and how."""

    rows: int
    part: int
    layers: int
    rate: float
    epochs: int
    batch: int

    @property
    def setting(self) -> tuple[int, float, int, int]:
        """What is compared, over parts of as many rows."""
        return self.layers, self.rate, self.epochs, self.batch

    @property
    def place(self) -> slice:
        """The comparisons of the draw that it learns from."""
        return slice(self.part * self.rows, (self.part + 1) * self.rows)


def held_out() -> list[Comparison]:
    """The 500 comparisons that every model is asked."""
    campaign = CampaignOptions(weeks=WEEKS, comparisons_per_week=250)
    return list(simulate(campaign, HELD_OUT_SEED))[::2]


def draw(rows: int, asked: Sequence[Comparison]) -> list[Comparison]:
    """So many comparisons of the campaign, without the prompts of those that are asked."""
    prompts = {c.prompt_id for c in asked}
    campaign = CampaignOptions(weeks=WEEKS, comparisons_per_week=rows)
    pool = [c for c in simulate(campaign, 0) if c.prompt_id not in prompts]
    return Random(0).sample(pool, rows)


# What each layer gives.


def states(model: RewardModel, rows: Sequence[Comparison], name: str, folder: Path) -> Tensor:
    """Chosen minus rejected of what each layer gives at their ends, normed, [N, layers, width]."""
    path = folder / f"{name}.parquet"
    write_comparisons(path, rows)
    examples = tokenise(path, model.chat, path.with_suffix(".arrow"), workers=1)
    if len(examples) != len(rows):
        raise SystemExit(f"{name}: {len(rows) - len(examples)} comparisons are no pairs of tokens")
    shards = []
    for start in range(0, len(rows), SHARD):
        shard = folder / f"{name}-{start}.pt"
        if not shard.exists():
            end = min(start + SHARD, len(rows))
            torch.save(_states(model, examples, range(start, end)), shard)
            print(f"{name}: {end:,} of {len(rows):,} comparisons run", file=sys.stderr)
        shards.append(torch.load(shard))
    return torch.cat(shards)


@torch.no_grad()
def _states(model: RewardModel, examples: Examples, rows: range) -> Tensor:
    layers = model.backbone.layers
    found = torch.zeros(len(rows), len(layers), model.head.in_features)
    given: list[Tensor] = []
    hooks = [layer.register_forward_hook(lambda *a: given.append(a[2])) for layer in layers]
    step = split_step([examples[row] for row in rows], TrainOptions().margins(), 4_096)
    for part in step.parts:
        given.clear()
        packed = pack(part.groups, model.device)
        model.forward_packed(packed)
        for depth, state in enumerate(given):
            state = state.squeeze(0)
            ends = state if len(state) == len(packed.ends) else state[packed.ends]
            ends = model.backbone.norm(ends.float())
            found[part.places, depth] = ends[part.chosen] - ends[part.rejected]
    for hook in hooks:
        hook.remove()
    return found


# A head on them.


def train(training: Training, rows: Tensor, prompts: NDArray[np.uint64]) -> Tensor:
    """The head, [width], that learns from states [N, width] of comparisons of those prompts."""
    head = new_head(rows.shape[1], training.part)
    epochs = [
        torch.from_numpy(epoch_order(prompts, training.part, epoch))
        for epoch in range(training.epochs)
    ]
    descend(
        head, epochs, training.batch, training.rate,
        lambda batch: softplus(-(rows[batch] @ head)).mean(),
    )  # fmt: skip
    return head.detach()


def new_head(width: int, seed: int) -> torch.nn.Parameter:
    """A head as a training begins with it, nearly 0."""
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.Parameter(1e-3 * torch.randn(width, generator=generator))


def descend(
    head: torch.nn.Parameter, epochs: Sequence[Tensor], batch: int, rate: float,
    loss: Callable[[Tensor], Tensor],
) -> None:  # fmt: skip
    """Train a head by the schedule, AdamW and clipping of `palate train`.

    Args:
        epochs: the rows of each, in order.
        loss: of the rows of a step.
    """
    steps = [step for order in epochs for step in order.split(batch)]
    options = TrainOptions(
        epochs=len(epochs),
        pairs_per_step=batch,
        warmup_steps_min=min(5, -(-len(steps) // 10)),
    )
    optimizer = torch.optim.AdamW(
        [head],
        betas=(options.adam_beta1, options.adam_beta2),
        eps=options.adam_epsilon,
        weight_decay=options.weight_decay,
    )
    schedule = Schedule.of(options, len(steps))
    for number, step in enumerate(steps):
        optimizer.param_groups[0]["lr"] = rate * schedule.factor(number + 1)
        loss(step).backward()
        torch.nn.utils.clip_grad_norm_([head], options.clip_norm)
        optimizer.step()
        optimizer.zero_grad()


def trained(file: Path) -> dict[Training, list[float]]:
    """The reward differences on what is asked, by training, of a file of trainings."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    read = [json.loads(line) for line in lines]
    return {Training(**line["training"]): line["gaps"] for line in read}


def sweep(
    trainings: Iterable[Training], rows: Tensor, asked: Tensor, prompts: NDArray[np.uint64],
    file: Path, minutes: float,
) -> None:  # fmt: skip
    """Append every training that is not in the file; none begins after so many minutes."""
    begun, known = time.monotonic(), trained(file)
    for training in trainings:
        if training in known:
            continue
        if time.monotonic() - begun > 60 * minutes:
            print(f"{minutes:g} minutes are over before {training}", file=sys.stderr)
            return
        depth, place = training.layers - 1, training.place
        gaps = asked[:, depth] @ train(training, rows[place, depth], prompts[place])
        line = {"training": asdict(training), "gaps": [round(gap, 4) for gap in gaps.tolist()]}
        with file.open("a", encoding="utf-8") as out:
            out.write(json.dumps(line) + "\n")


# What came of it.


def summary(
    found: dict[Training, list[float]], drawn: Sequence[Comparison], asked: Sequence[Comparison]
) -> list[dict[str, Any]]:
    """For each number of rows the judges that read little, and every setting beside them."""
    prompts = [c.prompt_id for c in asked]
    lengths = np.sign([len(c.chosen) - len(c.rejected) for c in asked])
    sizes = []
    for size in sorted({t.rows for t in found}):
        parts = sorted({t.part for t in found if t.rows == size})
        cut = [drawn[part * size : (part + 1) * size] for part in parts]
        words = np.stack([_right(bag_of_words_margins(rows, asked)) for rows in cut])
        settings = []
        for setting in sorted({t.setting for t in found if t.rows == size}):
            gaps = np.array([found[Training(size, part, *setting)] for part in parts])
            difference, _ = replicated_difference(_right(gaps), words, prompts)
            settings.append(
                dict(zip(("layers", "rate", "epochs", "batch"), setting, strict=True))
                | _figures(_right(gaps), prompts)
                | {
                    "loss": round(float(np.logaddexp(0, -gaps).mean()), 3),
                    "over_words": round(100 * difference.estimate.value, 1),
                    "over_words_low": round(100 * difference.estimate.low, 1),
                    "over_words_high": round(100 * difference.estimate.high, 1),
                }
            )
        sizes.append(
            {
                "rows": size,
                "parts": len(parts),
                "longer": _figures((lengths[None] + 1) / 2, prompts),
                "words": _figures(words, prompts),
                "settings": settings,
            }
        )
    return sizes


def _right(gaps: Floats) -> Floats:
    return (np.sign(gaps) + 1) / 2


def _figures(right: Floats, prompts: Sequence[str]) -> dict[str, float]:
    estimate = replicated_accuracy(right, prompts).estimate
    names = ("accuracy", "low", "high")
    values = (estimate.value, estimate.low, estimate.high)
    return {name: round(100 * value, 1) for name, value in zip(names, values, strict=True)}


def main() -> None:
    """Run what is asked for and is not there yet, and print the summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--draw", type=int, default=1_000)
    parser.add_argument("--rows", type=int, nargs="+", default=[100, 300, 1_000])
    parser.add_argument("--layers", type=int, nargs="+", default=[6, 10, 16, 18, 20, 22, 26, 30])
    parser.add_argument("--rates", type=float, nargs="+", default=[5e-3])
    parser.add_argument("--epochs", type=int, nargs="+", default=[3])
    parser.add_argument("--batches", type=int, nargs="+", default=[8])
    parser.add_argument("--minutes", type=float, default=60)
    asking = parser.parse_args()
    if max(asking.rows) > asking.draw:
        parser.error(f"--rows {max(asking.rows)}: the draw has {asking.draw}; set --draw")
    keep_memory()
    asking.folder.mkdir(parents=True, exist_ok=True)
    asked = held_out()
    drawn = draw(asking.draw, asked)
    dtype = compute_dtype("auto", torch.device("cpu"))
    model, _ = start_model(BaseOptions(), dtype=dtype)
    model.eval()
    of_asked = states(model, asked, "held-out", asking.folder)
    of_drawn = states(model, drawn, f"draw-{asking.draw}", asking.folder)
    parts = {rows: range(min(MOST_PARTS, asking.draw // rows)) for rows in asking.rows}
    trainings = [
        Training(rows, part, *setting)
        for rows in asking.rows
        for setting in product(asking.layers, asking.rates, asking.epochs, asking.batches)
        for part in parts[rows]
    ]
    prompts = np.array([hash64(c.prompt_id) for c in drawn], np.uint64)
    file = asking.folder / "trainings.jsonl"
    sweep(trainings, of_drawn, of_asked, prompts, file, asking.minutes)
    made = trained(file)
    found = {t: made[t] for t in trainings if t in made}
    whole = [t for t in found if all(replace(t, part=p) in found for p in parts[t.rows])]
    limit = round(100 * bayes_limit(asked)["all"][0], 1)
    sizes = summary({t: found[t] for t in whole}, drawn, asked)
    print(json.dumps({"held_out": len(asked), "limit": limit, "sizes": sizes}))


if __name__ == "__main__":
    main()
