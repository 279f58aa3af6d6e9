"""Which labels are probably wrong: comparisons whose label heads contradict that never saw them.

A frozen backbone runs every response once (`train.heads.end_states`). Clusters of prompts, and with
them all near-duplicates, go to folds; each fold is judged by an ensemble of heads that learnt from
the other folds alone. What its margins are worth, by rating, and how many labels are wrong is then
estimated together (`stats.noise`), and with it a first time, the heads learn once more: from labels
that count by their rating, some of which are taken to be wrong.

Shape letters: N comparisons, M members.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from palate import stats
from palate.data.contamination import BenchmarkIndex
from palate.data.prompts import cluster_key, prompt_key
from palate.data.split import group
from palate.records import (
    read_comparisons,
    read_header,
    read_rows,
    write_comparisons,
    write_table,
    write_text,
)
from palate.stats import Estimate, NoiseModel
from palate.types import Comparison, PalateError, Rating, digest

if TYPE_CHECKING:
    from palate.explorer.queue import Entry
    from palate.model.reward_model import RewardModel

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

LEAST_ROWS, LEAST_CLUSTERS = 20, 10
"""Of a fold. With fewer the heads' penalty is chosen by luck (assumed)."""
CUTS = (0.9, 0.75, 0.5, 0.25)
FIRST = (10, 50, 100, 500, 1_000, 5_000)
TOKENS_PER_MICROBATCH = 4_096
ROUNDS = 2


class DoubtOptions(BaseModel):
    """Which backbone judges, and how rows are cross-validated."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field("smollm2", description="Backbone or reward model: hub id, folder, .gguf.")
    layers: int | None = Field(
        None, ge=1, description="The first N decoder layers of a backbone; of smollm2 20 by itself."
    )
    max_tokens: int = Field(1024, ge=8, description="Longest conversation; oldest turns are cut.")
    folds: int = Field(5, ge=3, description="Parts that are judged by heads of the others.")
    members: int = Field(8, ge=2, description="Heads of a fold, by resampled clusters.")
    seed: int = Field(0, ge=0, description="Of folds, members and resamplings.")


@dataclass(frozen=True, slots=True)
class Row:
    """A comparison as the audit needs it: without its texts.

    `stated` is the response that the label prefers: `rejected` where votes went that way.
    """

    id: str
    source: str
    batch: str
    prompt_id: str
    stated: str
    rating: Rating | None
    annotator: str | None

    @classmethod
    def of(cls, comparison: Comparison) -> Row:
        """Without the texts."""
        c = comparison
        return cls(c.id, c.source, c.batch, c.prompt_id, c.judgement.decides, c.rating, c.annotator)


@dataclass(frozen=True, slots=True)
class Cut:
    """The rows at the head of the list down to a probability or a place: how many of their labels
    are expected to be wrong, with the 95 % interval of that number."""

    name: str
    rows: int
    least: float
    wrong: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Part:
    """The rows of one rating or annotator, and how many labels are expected to be wrong there."""

    by: str
    name: str
    rows: int
    wrong: float


@dataclass(frozen=True, slots=True, eq=False)
class Doubts:
    """N comparisons in the order of P(wrong), the highest first, and what is known of them all.

    `margins` [N] are logits by which the heads prefer the response that the label prefers, `spread`
    [N] their standard deviation over members, `wrong` [N] the probability that the label is wrong.
    `clusters` and `folds` [N]. `ties`: comparisons without a label that could be wrong; `unscored`:
    those that the backbone cannot read. `agreement` is how often heads prefer what labels do.
    """

    rows: tuple[Row, ...]
    wrong: Floats
    margins: Floats
    spread: Floats
    clusters: Codes
    folds: Codes
    noise: NoiseModel
    agreement: Estimate
    cuts: tuple[Cut, ...]
    parts: tuple[Part, ...]
    ties: int
    unscored: int
    fingerprint: str
    protocol: dict[str, Any]


def doubt(
    comparisons: Path,
    folder: Path,
    options: DoubtOptions,
    *,
    log: Callable[[str], None],
    show: Callable[[int, int, str], None] = lambda *_: None,
    named: str = "",
) -> Doubts:
    """Rank the comparisons of a file by the probability that their label is wrong.

    Args:
        comparisons: a Parquet file of Palate's.
        folder: where tokens and states are kept; a run that was stopped goes on there.
        show: is told how many of how many rows are done.
        named: the rows for messages, where the file is not one that the user knows.

    Raises:
        PalateError: too few rows or clusters, no label to be doubted, a model that was trained on
            these rows, or one that cannot be opened.
    """
    refuse_trained_on(options.model, comparisons, log)
    every, clusters = read_clusters(comparisons)
    decided = np.array([row.stated != "tie" for row in every], dtype=np.bool_)
    if not decided.any():
        raise PalateError(
            f"{named or comparisons}: all {len(every):,} comparisons are ties or have no label "
            "yet; there is none to doubt"
        )
    check_size(named or comparisons, clusters[decided], options.folds)  # Before a model is loaded.
    model, facts = open_backbone(options)
    ids, signs, differences, own, fingerprint = _states(
        model, comparisons, folder, facts, log, show
    )
    place = {id_: number for number, id_ in enumerate(ids)}
    kept = [n for n, row in enumerate(every) if decided[n] and row.id in place]
    rows = [every[n] for n in kept]
    at = np.array([place[row.id] for row in rows], dtype=np.int64)
    _, codes = np.unique(clusters[kept], return_inverse=True)
    folds = spread_over_folds(codes, options.folds, options.seed)
    check_size(named or comparisons, codes, options.folds)
    z = differences[at] * signs[at, None].astype(np.float32)
    judged = judge(
        z, folds, codes, levels_of(rows), own=None if own is None else own[at] * signs[at],
        options=options, log=log,
    )  # fmt: skip
    made = replace(judged, fingerprint=fingerprint)
    return summed_up(
        made, rows, codes, folds, ties=int((~decided).sum()),
        unscored=int(decided.sum()) - len(rows), options=options, facts=facts,
    )  # fmt: skip


# What is audited, and what is near to what.


def read_clusters(comparisons: Path) -> tuple[list[Row], Codes]:
    """The rows of a file, and the cluster of each, [N]: prompts that are one, that the source holds
    together, or that are near-duplicates, and all that hangs together by these."""
    index = BenchmarkIndex.build({"": read_comparisons(comparisons)})
    rows, prompts, clusters = list[Row](), list[int](), list[int]()
    number: dict[str, int] = {}
    pairs: list[tuple[int, str]] = []
    for comparison in read_comparisons(comparisons):
        key = prompt_key(comparison.prompt)
        number.setdefault(comparison.id, len(rows))
        pairs += [(len(rows), near.benchmark_id) for near in index.find(comparison)]
        rows.append(Row.of(comparison))
        prompts.append(key)
        clusters.append(cluster_key(comparison.source, comparison.prompt_id))
    groups = group(np.array(prompts, np.uint64), np.array(clusters, np.uint64)).astype(np.int64)
    edges = np.array([(n, number[id_]) for n, id_ in pairs], np.int64).reshape(-1, 2)
    size = int(groups.max(initial=-1)) + 1
    near = coo_array((np.ones(len(edges), np.int8), groups[edges].T), shape=(size, size))
    _, joined = connected_components(near, directed=False)
    return rows, joined[groups].astype(np.int64)


def check_size(comparisons: Path | str, clusters: Codes, folds: int) -> None:
    """Raise `PalateError` where folds would be too small to say anything."""
    rows, count = len(clusters), len(np.unique(clusters))
    for found, least, what in (
        (rows, LEAST_ROWS, "comparisons with a preference"),
        (count, LEAST_CLUSTERS, "clusters of prompts"),
    ):
        if found < least * folds:
            raise PalateError(
                f"{comparisons}: {found:,} {what}; {folds} folds need {least * folds:,} or more: "
                + ("give more rows" if folds == 3 else "give more rows, or fewer --folds")
            )
    largest = int(np.bincount(clusters - clusters.min()).max())
    if 2 * largest > rows:
        raise PalateError(
            f"{comparisons}: {largest:,} of {rows:,} comparisons are of one prompt or of prompts "
            "near to it; no head could learn without them: give rows of more prompts"
        )


def spread_over_folds(clusters: Codes, folds: int, seed: int) -> Codes:
    """A fold for each row, [N]: whole clusters, the largest first, each to the fold with fewest."""
    sizes = np.bincount(clusters)
    order = np.random.default_rng(seed).permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    filled, fold_of = np.zeros(folds, np.int64), np.empty(len(sizes), np.int64)
    for cluster in order:
        fold_of[cluster] = int(filled.argmin())
        filled[fold_of[cluster]] += sizes[cluster]
    return fold_of[clusters]


def levels_of(rows: Sequence[Row]) -> Codes:
    """The covariate of each row, [N]: its rating, from 1; 0 where it has none."""
    return np.array([row.rating or 0 for row in rows], dtype=np.int64)


# The model, and whether it has seen the labels.


def refuse_trained_on(model: str, comparisons: Path, log: Callable[[str], None]) -> None:
    """Refuse a reward model that was trained on these rows; say where that is not known.

    By the fingerprint of its training data, which its config.json has, and, where the training's
    own file is still beside it, by the ids of the rows.

    Raises:
        PalateError: it was; then its heads have seen the labels that they would judge.
    """
    folder = Path(model).expanduser()
    config = folder / "config.json"
    if not config.is_file():
        return
    try:
        ours = json.loads(config.read_text(encoding="utf-8")).get("palate")
    except (OSError, ValueError):
        return  # Opening it says what is wrong.
    if not isinstance(ours, dict):
        return
    base = ours.get("base") or "the model that it began from"
    cure = f"--model {base} has not seen them, or audit rows that it was not trained on"
    trained_on = ours.get("training_data")
    if trained_on and trained_on == read_header(comparisons, "comparisons").fingerprint:
        raise PalateError(f"{model}: was trained on {comparisons}; {cure}")
    mixture = _training_file(folder, trained_on)
    if mixture is not None:
        seen = {row["id"] for row in read_rows(mixture, ["id"])}
        shared = sum(row["id"] in seen for row in read_rows(comparisons, ["id"]))
        if shared:
            raise PalateError(
                f"{model}: was trained on {shared:,} of these comparisons ({mixture}); {cure}"
            )
    elif not trained_on:
        log(f"{model} does not say what it was trained on; if on these rows, it knows their labels")


def _training_file(model: Path, fingerprint: str | None) -> Path | None:
    """The file that a model was trained on, where it lies in the model's run or beside it."""
    kept = model.with_name(f"{model.name}.train")
    candidates = [*model.parent.parent.glob("mixtures/*.parquet"), *kept.glob("data/*.parquet")]
    for path in candidates:
        try:
            if fingerprint and read_header(path, "comparisons").fingerprint == fingerprint:
                return path
        except PalateError:
            continue  # Of another kind, or not whole.
    return None


def open_backbone(options: DoubtOptions) -> tuple[RewardModel, dict[str, Any]]:
    """The model that judges, and all that may change a state.

    A reward model brings its own head, whose margin the heads may go on from; of an ensemble the
    average of the weights is taken.
    """
    from palate.model.backbone import SMOLLM2, load_config
    from palate.model.device import default_device, keep_memory
    from palate.model.loading import load_reward_model, maker_of, start_model
    from palate.model.options import BaseOptions
    from palate.model.precision import compute_dtype, name_of
    from palate.train.defaults import HEAD_LAYERS

    keep_memory()
    device = default_device()
    dtype = compute_dtype("auto", device)
    location = options.model
    config = None if location == SMOLLM2 else load_config(location)
    maker = None if config is None else maker_of(config, location)
    if maker is not None and options.layers is not None:
        raise PalateError(
            f"--layers {options.layers}: {location} is a reward model, whose head reads its last "
            "layer; leave --layers out"
        )
    if maker is not None:
        model = load_reward_model(location, dtype, device, max_tokens=options.max_tokens)
        if model.members > 1:
            model.keep_average()
    else:
        layers = options.layers
        if layers is None and location == SMOLLM2:
            layers = HEAD_LAYERS
        base = BaseOptions(model=location, layers=layers, max_tokens=options.max_tokens)
        model, _ = start_model(base, dtype=dtype)
        model.to(device)
    facts = {
        "model": location, "weights": digest(*_sums(model)), "dtype": name_of(dtype),
        "max_tokens": model.chat.max_tokens, "format": model.chat.fingerprint,
        "own_head": maker is not None,
    }  # fmt: skip
    return model.eval(), facts


def _sums(model: RewardModel) -> Iterator[str]:
    """What tells a checkpoint from another of the same name and layers."""
    for name, weight in model.named_parameters():
        yield f"{name} {tuple(weight.shape)} {float(weight.detach().float().sum()):.9g}"


def _states(
    model: RewardModel, comparisons: Path, folder: Path, facts: dict[str, Any],
    log: Callable[[str], None], show: Callable[[int, int, str], None],
) -> tuple[list[str], Floats, NDArray[np.float32], Floats | None, str]:  # fmt: skip
    """Ids of the rows that the backbone can read, -1 where the first side is not the preferred one,
    their states, and what its own head says.

    A token file has the side that most votes are for first, but for rows of a ranking.
    """
    from palate.train.dataset import tokenise
    from palate.train.heads import end_states

    examples = tokenise(comparisons, model.chat, folder / "tokens.arrow")
    fingerprint = digest(examples.fingerprint, facts)
    states = end_states(
        model, examples, folder, budget=TOKENS_PER_MICROBATCH, made_of=fingerprint, log=log,
        show=lambda done, total: show(done, total, ""),
    )  # fmt: skip
    ids, signs = list[str](), np.ones(len(examples))
    for n in range(len(examples)):
        example = examples[n]
        ids.append(example.id)
        signs[n] = -1.0 if example.judgement.decides == "rejected" else 1.0
    return ids, signs, states.differences, states.own if facts["own_head"] else None, fingerprint


# Judging, and what comes of it.


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """What held-out heads make of N rows: mean and standard deviation of members' margins, [N], the
    noise model, and P(wrong), [N]."""

    margins: Floats
    spread: Floats
    noise: NoiseModel
    wrong: Floats
    ridges: Floats
    fingerprint: str = ""


def judge(
    differences: NDArray[np.float32],
    folds: Codes,
    clusters: Codes,
    levels: Codes,
    *,
    own: Floats | None,
    options: DoubtOptions,
    log: Callable[[str], None] = lambda _: None,
) -> Judged:
    """P(wrong) of every row, by heads of other folds.

    Args:
        differences: states of the response that the label prefers less those of the other, [N, D].
        folds, clusters, levels: [N], from 0.
        own: what a head of the model's own says, [N], as in `held_out_margins`.
    """
    from palate.train.heads import held_out_margins

    scales, rate, number = np.ones(len(folds)), 0.0, 0
    while True:
        number += 1
        held = held_out_margins(
            differences, folds, clusters, own=own, scales=scales, flip_rate=rate,
            members=options.members, seed=options.seed,
        )  # fmt: skip
        mean, spread = held.margins.mean(1), held.margins.std(1, ddof=1)
        sure = lowered(mean, spread)
        log(f"heads, round {number} of {ROUNDS}: prefer what labels do in {(mean > 0).mean():.1%}")
        rng = np.random.default_rng(options.seed)
        noise = stats.fit_noise(sure, clusters, rng, levels=levels)
        if noise is None:
            raise PalateError("expected margins of two clusters of prompts or more, got fewer")
        if number == ROUNDS:
            return Judged(mean, spread, noise, noise.wrong(sure, levels), held.ridges)
        worth = noise.slopes.mean(0)[levels]
        scales, rate = worth / worth.mean(), float(noise.flip_rate.value)


def lowered(margins: Floats, spread: Floats) -> Floats:
    """Margins with what members disagree on taken in: m / sqrt(1 + pi s^2 / 8), [N].

    The sigmoid of it is about the mean of sigmoids of a normal with mean m and deviation s.

    Source: MacKay, Neural Computation 4 (1992) 720.
    """
    return margins / np.sqrt(1 + np.pi * spread**2 / 8)


def summed_up(
    judged: Judged,
    rows: Sequence[Row],
    clusters: Codes,
    folds: Codes,
    *,
    ties: int,
    unscored: int,
    options: DoubtOptions,
    facts: dict[str, Any],
) -> Doubts:
    """The rows in order, with what is expected at each cut and in each part."""
    order = np.argsort(-judged.wrong, kind="stable")
    ranked = [rows[n] for n in order]
    wrong, margins = judged.wrong[order], judged.margins[order]
    spread = judged.spread[order]
    levels = levels_of(ranked)
    right = np.where(judged.margins == 0, stats.TIE_VALUE, judged.margins > 0)
    sizes = {f"P >= {least:g}": int((wrong >= least).sum()) for least in CUTS}
    sizes |= {f"first {first:,}": first for first in FIRST if first < len(rows)}
    counts = judged.noise.counts(
        lowered(margins, spread), levels, list(sizes.values()), np.random.default_rng(options.seed)
    )
    ends = np.quantile(counts, (0.025, 0.975), axis=0)
    cuts = tuple(
        Cut(name, size, float(wrong[size - 1]) if size else float("nan"),
            float(wrong[:size].sum()), float(low), float(high))
        for (name, size), low, high in zip(sizes.items(), *ends, strict=True)
    )  # fmt: skip
    return Doubts(
        rows=tuple(ranked),
        wrong=wrong,
        margins=margins,
        spread=spread,
        clusters=clusters[order],
        folds=folds[order],
        noise=judged.noise,
        agreement=stats.accuracy(right, clusters, fingerprint=judged.fingerprint),
        cuts=cuts,
        parts=tuple(_parts(ranked, wrong)),
        ties=ties,
        unscored=unscored,
        fingerprint=judged.fingerprint,
        protocol={**facts, **options.model_dump(), "ridges": judged.ridges.tolist()},
    )


def _parts(rows: Sequence[Row], wrong: Floats) -> Iterator[Part]:
    """By rating, by source, and by annotator, where there is more than one."""
    kinds: dict[str, Callable[[Row], str]] = {
        "rating": lambda row: row.rating.label if row.rating else "none",
        "source": lambda row: row.source,
        "annotator": lambda row: row.annotator or "none",
    }
    for by, name_of in kinds.items():
        chances = defaultdict[str, list[float]](list)
        for row, chance in zip(rows, wrong.tolist(), strict=True):
            chances[name_of(row)].append(chance)
        if len(chances) > 1:
            parts = [Part(by, name, len(some), sum(some)) for name, some in chances.items()]
            yield from sorted(parts, key=lambda part: -part.wrong / part.rows)


# The list as a file.

SCHEMA = pa.schema(
    [
        pa.field("rank", pa.int64(), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
        pa.field("wrong", pa.float64(), nullable=False),
        pa.field("margin", pa.float64(), nullable=False),
        pa.field("std", pa.float64(), nullable=False),
        pa.field("rating", pa.string()),
        pa.field("annotator", pa.string()),
        pa.field("source", pa.string(), nullable=False),
        pa.field("batch", pa.string(), nullable=False),
        pa.field("prompt_id", pa.string(), nullable=False),
        pa.field("cluster", pa.int64(), nullable=False),
        pa.field("fold", pa.int64(), nullable=False),
    ]
)


def listed(doubts: Doubts) -> Iterator[dict[str, Any]]:
    """The rows as they are written, the most doubtful first."""
    for n, row in enumerate(doubts.rows):
        yield {
            "rank": n + 1, "id": row.id, "label": row.stated, "wrong": float(doubts.wrong[n]),
            "margin": float(doubts.margins[n]), "std": float(doubts.spread[n]),
            "rating": row.rating.label if row.rating else None, "annotator": row.annotator,
            "source": row.source, "batch": row.batch, "prompt_id": row.prompt_id,
            "cluster": int(doubts.clusters[n]), "fold": int(doubts.folds[n]),
        }  # fmt: skip


def write_doubts(doubts: Doubts, path: Path, comparisons: Path) -> None:
    """Write the list: Parquet with a header, or a JSON line a row."""
    if path.suffix == ".parquet":
        inputs = {"comparisons": read_header(comparisons).fingerprint}
        write_table(
            path, listed(doubts), SCHEMA, kind="doubts", inputs=inputs, details=facts_of(doubts)
        )
        return
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in listed(doubts))
    write_text(path, "".join(lines))


QUEUED = 1_000
"""At most so many rows of a list are worth a person's eyes."""


def missing_in(folder: Path, name: str, comparisons: Path) -> bool:
    """Whether a folder to view gets a copy of the comparisons: a new one does, a run has them.

    Raises:
        PalateError: it is no folder, or has comparisons, and some of these are not among them.
    """
    from palate.explorer.index import comparison_files

    if folder.exists() and not folder.is_dir():
        raise PalateError(f"--queue {folder}: is a file; name a run's folder, or a new one")
    try:
        files = [path for _, path in comparison_files(folder)]
    except PalateError:
        return True
    copy = _copy_in(folder, name)
    if copy in files:
        return True
    there = {row["id"] for path in files for row in read_rows(path, ["id"])}
    absent = sum(row["id"] not in there for row in read_rows(comparisons, ["id"]))
    if absent:
        raise PalateError(
            f"--queue {folder}: {absent:,} of the comparisons are not among those that it has; "
            "name the run that they are of, or a new folder"
        )
    return False


def _copy_in(folder: Path, name: str) -> Path:
    return folder / "comparisons" / f"{name}.parquet"


def write_doubts_queue(doubts: Doubts, folder: Path, name: str, comparisons: Path) -> Path:
    """Write the head of the list as a queue of `palate view FOLDER`.

    A run's folder has the comparisons already; any other gets them.

    Raises:
        PalateError: as `missing_in`.
    """
    from palate.explorer.queue import queue_path, write_queue

    if missing_in(folder, name, comparisons):
        write_comparisons(_copy_in(folder, name), read_comparisons(comparisons))
    path = queue_path(folder, f"doubts-{name}")
    write_queue(path, _entries(doubts), scored_by="probability of a wrong label")
    return path


def _entries(doubts: Doubts) -> Iterator[Entry]:
    from palate.explorer.queue import Entry

    for n, row in enumerate(doubts.rows[:QUEUED]):
        strength = f", rated {row.rating.label}" if row.rating else ""
        side = "for" if doubts.margins[n] > 0 else "against"
        logits = f"heads speak {side} the label by {abs(doubts.margins[n]):.1f} logits{strength}"
        yield Entry(row.id, logits, float(doubts.wrong[n]))


def facts_of(doubts: Doubts) -> dict[str, Any]:
    """The summary as JSON values."""
    rate, agreement = doubts.noise.flip_rate, doubts.agreement
    return {
        "rows": len(doubts.rows),
        "clusters": rate.n_clusters,
        "ties": doubts.ties,
        "unscored": doubts.unscored,
        "agreement": {name: getattr(agreement, name) for name in ("value", "low", "high")},
        "flip_rate": {name: getattr(rate, name) for name in ("value", "low", "high")},
        "identified": doubts.noise.identified,
        "method": rate.method,
        "cuts": [
            {"cut": c.name, "rows": c.rows, "wrong": c.wrong, "low": c.low, "high": c.high}
            for c in doubts.cuts
        ],
        "parts": [
            {"by": p.by, "part": p.name, "rows": p.rows, "wrong": p.wrong} for p in doubts.parts
        ],
        "fingerprint": doubts.fingerprint,
        "protocol": doubts.protocol,
    }
