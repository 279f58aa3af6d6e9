"""What training a recipe's models will take, before anything is trained or any weight is read."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

from palate.evaluate.benchmark import Benchmark, Order, OrderPlan
from palate.judges import chat_spec
from palate.judges.llm.cost import estimate
from palate.recipe.judges import CHAT, JudgeSpec
from palate.recipe.schema import Recipe
from palate.records import read_header
from palate.train.defaults import Course, follow, learnable
from palate.types import Candidates, Pair, PalateError

if TYPE_CHECKING:
    from palate.train.cost import Data, ModelStats, Pace, Setup


# Of a comparison's tokens in a packed row, the prompt's: HH harmless-base, 125 of 125 + 41 + 51
# (measured, 2,307 test pairs).
PROMPT_SHARE = 0.58


@dataclass(frozen=True, slots=True)
class Machines:
    """What there is to train on. No GPUs: one process on this machine's CPU."""

    gpus: int
    per_node: int = 8
    memory: int | None = None  # Bytes of one GPU; of a CPU this machine's.
    rate: float | None = None  # Operations a second of one GPU; None: not known.
    measures: bool = False  # Whether a CPU's rate is measured, of each model.
    utilisation: float = 1.0


@dataclass(frozen=True, slots=True)
class Amounts:
    """What the command line states instead of the recipe and its run's folder."""

    shape: str | None = None
    comparisons: int | None = None
    tokens: float | None = None
    prompt_share: float = PROMPT_SHARE


@dataclass(frozen=True, slots=True)
class Forecast:
    """One model's memory on each device and its time; `pace` None where no rate is known.

    `kept`: bytes of the states of frozen layers that are kept on disk, of `free` bytes there.
    """

    name: str
    course: Course
    anatomy: ModelStats
    data: Data
    setup: Setup
    rate: float | None
    pace: Pace | None
    kept: int = 0
    free: int = 0
    trainings: int = 1  # Of an ensemble, one after another.

    @property
    def seconds(self) -> float | None:
        """Of the whole training, of all members, without evaluation and saving."""
        from palate.train.cost import flops

        if self.pace is None:
            return None
        epochs = self.data.epochs * self.trainings
        seconds = self.pace.step * self.data.steps * self.trainings
        if self.keeps:  # Of each epoch after the first, what is frozen is not run again.
            pair = flops(self.anatomy, self.data, self.setup)
            again = (epochs - 1) / epochs
            seconds *= 1 - again * pair.frozen / (pair.model + pair.recomputed)
        return seconds

    @property
    def keeps(self) -> bool:
        """Whether states of frozen layers are kept."""
        from palate.train.states import ROOM

        return 0 < ROOM * self.kept <= self.free

    @property
    def hours(self) -> float | None:
        """`seconds` in hours."""
        return None if self.seconds is None else self.seconds / 3_600


def forecast(
    recipe: Recipe, name: str, folder: Path, machines: Machines, stated: Amounts
) -> Forecast:
    """The forecast for one model of a recipe whose run is, or will be, in `folder`.

    Raises:
        PalateError: no such shape or checkpoint, or neither mixtures nor numbers to count on.
    """
    from palate.model.backbone import load_config
    from palate.model.precision import named_dtype
    from palate.train.cost import (
        SHAPES,
        Data,
        kept_bytes,
        layer_rate,
        model_stats,
        pace,
        shape_config,
    )

    rows, tokens, share = _amounts(recipe, name, folder, stated)
    options, base = recipe.train_options(name), recipe.backbone_options(name)
    if stated.shape is not None:  # Not the embedded backbone, of which only some layers are taken.
        base = base.model_copy(update={"model": stated.shape})
    mixture = folder / "mixtures" / f"{recipe.models[name].mixture}.parquet"
    together = learnable(mixture, options.loss)[1] if mixture.is_file() else 0
    options, base = follow(options, base, rows, None, together=together)
    if stated.shape is None:
        config = load_config(base.model, revision=base.revision, layers=base.layers)
    else:
        config = (shape_config if stated.shape in SHAPES else load_config)(stated.shape)
    model = model_stats(config, options)
    course, response = Course.of(options, rows), (1 - share) * tokens / 2
    data = Data(rows, share * tokens, response, options.pairs_per_step, options.epochs)
    setup = _setup(recipe, name, model, data, machines)
    rate = machines.rate
    if machines.measures:
        rate = layer_rate(config, data, named_dtype("bfloat16" if setup.bfloat16 else "float32"))
    speed = None
    if rate is not None:
        speed = pace(model, data, setup, rate=rate, utilisation=machines.utilisation)
    kept = kept_bytes(model, data, setup, options, len(recipe.models[name].eval_sets))
    disk = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    return Forecast(
        name, course, model, data, setup, rate, speed, kept, shutil.disk_usage(disk).free,
        options.trainings,
    )  # fmt: skip


def _amounts(recipe: Recipe, name: str, folder: Path, stated: Amounts) -> tuple[int, float, float]:
    """(rows, tokens of one, the prompt's share of them): as stated; else of the token file; else of
    the mixture, estimated."""
    from palate.train.dataset import Examples

    tokens = folder / "train" / name / "tokens" / "mixture.arrow"
    mixture = folder / "mixtures" / f"{recipe.models[name].mixture}.parquet"
    rows, size, share = stated.comparisons, stated.tokens, stated.prompt_share
    if (rows is None or size is None) and tokens.with_suffix(".json").is_file():
        examples = Examples(tokens)
        if recipe.train_options(name).loss == "ranking":
            examples = examples.decided()
        lengths = examples.lengths()
        prompt, mean = float(lengths[:, 0].mean()), float(lengths.sum(1).mean())
        rows, size, share = rows or len(lengths), size or mean, prompt / mean
    elif (rows is None or size is None) and mixture.is_file():
        header = read_header(mixture, "comparisons")
        counted = sum(s["tokens"] for s in header.details["shares"] if s["pool"])
        learnt, _ = learnable(mixture, recipe.train_options(name).loss)
        rows, size = rows or learnt, size or counted / max(header.rows, 1)
    if rows is None or size is None:
        raise PalateError(
            f"{mixture}: not made yet; make it with `palate mix`, or say --comparisons and "
            "--tokens-per-comparison"
        )
    return rows, size, share


def _setup(recipe: Recipe, name: str, model: ModelStats, data: Data, machines: Machines) -> Setup:
    import torch

    from palate.model.precision import compute_dtype
    from palate.train.cost import Setup, capacity, microbatches, shard_over

    dtype, options = recipe.backbone_options(name).dtype, recipe.train_options(name)
    cpu = torch.device("cpu")
    setup = Setup(
        processes=max(1, machines.gpus),
        device="cuda" if machines.gpus else "cpu",
        bfloat16=dtype != "float32"
        if machines.gpus
        else compute_dtype(dtype, cpu, "training") == torch.bfloat16,
        checkpointing=options.compute.activation_checkpointing,
        microbatch=options.tokens_per_microbatch,
        prompt=data.prompt,
        response=data.response,
        capacity=machines.memory or capacity(cpu),
    )
    setup = replace(setup, accumulates=microbatches(data, setup) > 1)
    if options.compute.shards is not None:
        return replace(setup, shards=min(options.compute.shards, setup.processes))
    return shard_over(model, setup, min(machines.per_node, setup.processes))


# What the judges that cost money would cost, and the most they may.

TOTALS = ("questions", "kept", "calls", "prompt_tokens", "completion_tokens")
MONEY = ("money", "most_money")


def costs(
    judges: Sequence[JudgeSpec], benchmarks: Mapping[str, Path], *, seed: int, order: str
) -> list[dict[str, Any]]:
    """A row for each chat judge on each benchmark, and their total; nothing is stated.

    Questions that are answered already cost nothing. Raises `PalateError` where a judge's options
    are wrong or its budget cannot be kept.
    """
    if order not in get_args(OrderPlan):
        raise PalateError(f"order: expected auto, seeded or both, got {order!r}")
    sides: Order = "seeded" if order == "seeded" else "both"
    rows = []
    for options in (judge[CHAT] for judge in judges if isinstance(judge, dict) and CHAT in judge):
        spec = chat_spec(options)
        for name, path in benchmarks.items():
            benchmark = Benchmark(name, path)
            shown: Iterable[Pair | Candidates] = benchmark.pairs(seed, sides)
            if benchmark.of_items:
                shown = (one for item in benchmark.choices(seed) for one in item.candidates())
            cost = estimate(spec, shown)
            rows.append({"judge": spec.name or spec.model, "benchmark": name} | asdict(cost))
    return [*rows, _total(rows)] if len(rows) > 1 else rows


def with_budget(judges: Sequence[JudgeSpec], budget: float) -> tuple[JudgeSpec, ...]:
    """The judges, with the most money that each chat judge may cost.

    Raises:
        PalateError: there is no chat judge, so the budget would bound nothing.
    """
    result = list(judges)
    chats = [n for n, judge in enumerate(judges) if isinstance(judge, dict) and CHAT in judge]
    if not chats:
        raise PalateError("--budget: no chat judge is asked, so nothing costs money; leave it out")
    for n in chats:
        options = cast("dict[str, Any]", judges[n])[CHAT]
        given = options if isinstance(options, dict) else {"model": options}
        result[n] = {CHAT: given | {"budget": budget}}
    return tuple(result)


def _total(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The sums; of money only where every row has a price in the same currency."""
    total: dict[str, Any] = dict.fromkeys(rows[0], "") | {"judge": "total"}
    total |= {key: sum(row[key] for row in rows) for key in TOTALS}
    currencies = {row["currency"] for row in rows}
    for key in MONEY:
        known = len(currencies) == 1 and all(row[key] is not None for row in rows)
        total[key] = sum(row[key] for row in rows) if known else None
    return total | {"currency": currencies.pop() if len(currencies) == 1 else ""}
