"""Flipped labels found by `palate doubt`, where it is known which are flipped.

    python -m benchmarks.labels.flips FOLDER [--seeds 5] [--comparisons 3000] [--rate 0.1]
                                      [--earlier 24000] [--model MODEL [--layers N]]

A reward model of an earlier campaign (helpfulness), none of whose labels is flipped, audits a later
one: a small decoder that knew nothing, trained once on --earlier comparisons. Or --model: a
backbone, such as smollm2, or another reward model.

For each seed a campaign of which a share of the labels is turned round at random, ratings kept.
They are audited as `palate doubt` does it; nothing is told of what was flipped. Beside it, the same
list by judges that know the truth: the posterior of a flip given the latent utilities, without and
with the rating, at the true rate; the latter is the best that any list can be.

The model, states and each seed's line (FOLDER/flips.jsonl) are kept. Progress goes to stderr; ends
with one JSON line: means over seeds with t intervals of precision at recalls, precision and recall
at cuts of the probability, precision at recall 50 % by rating, how far stated probabilities come
true, and the estimated rate.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from benchmarks.judgements import learn
from palate import stats
from palate.data.simulation import CampaignOptions, simulate
from palate.data.simulation.annotators import rating_probabilities
from palate.labels.doubt import CUTS, DoubtOptions, doubt
from palate.model.device import keep_memory
from palate.model.export import Card, export
from palate.records import read_comparisons, write_comparisons
from palate.train.loop import train
from palate.train.options import TrainOptions
from palate.types import Comparison, Rating

WEEKS = 4
EARLIER_SEED = 1_000
RECALLS = (0.1, 0.25, 0.5, 0.75)
BINS = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


def campaign(seed: int, rows: int, rate: float) -> tuple[list[Comparison], Flags]:
    """Comparisons, and which of their labels were turned round."""
    options = CampaignOptions(weeks=WEEKS, comparisons_per_week=rows // WEEKS)
    made = list(simulate(options, seed))
    flipped = np.zeros(len(made), np.bool_)
    rng = np.random.default_rng([seed, 1])
    flipped[rng.choice(len(made), round(rate * len(made)), replace=False)] = True
    return [turned(c) if flip else c for c, flip in zip(made, flipped, strict=True)], flipped


def turned(comparison: Comparison) -> Comparison:
    """The comparison with its label the other way round, as a slip of the hand would have it."""
    latent = comparison.meta["latent"]
    meta = {
        **comparison.meta,
        "latent": {"chosen": latent["rejected"], "rejected": latent["chosen"]},
        "utility_difference": -comparison.meta["utility_difference"],
    }
    return replace(
        comparison, chosen=comparison.rejected, rejected=comparison.chosen, meta=meta,
        id=f"{comparison.id}-turned",
    )  # fmt: skip


def posterior(comparison: Comparison, rate: float, *, rated: bool) -> float:
    """P(flipped | latent utilities) at the true rate; with the rating too where it is `rated`."""
    x = float(comparison.meta["utility_difference"])
    if rated:
        assert comparison.rating is not None
        right, wrong = rating_probabilities(x, comparison.rating)
        meant, other = (right, wrong) if x >= 0 else (wrong, right)
    else:
        meant, other = float(expit(x)), float(expit(-x))
    return rate * other / (rate * other + (1 - rate) * meant)


def at_recall(scores: Floats, flipped: Flags, recall: float) -> float:
    """Precision of the shortest list, the highest scores first, that has this share of flips."""
    hits = np.cumsum(flipped[np.argsort(-scores, kind="stable")])
    needed = int(np.ceil(recall * flipped.sum()))
    return needed / (1 + int(np.searchsorted(hits, needed)))


def earlier_model(folder: Path, rows: int) -> Path:
    """A reward model of `rows` earlier comparisons, trained where it is not there yet."""
    out = folder / f"earlier-{rows}"
    if (out / "config.json").is_file():
        return out
    keep_memory()
    taught, _ = campaign(EARLIER_SEED, rows, rate=0)
    model = learn.small_model(taught)(0)
    work = folder / "training"
    work.mkdir(parents=True, exist_ok=True)
    examples = learn.tokens(model, taught, work, "earlier")
    options = TrainOptions(
        pairs_per_step=32, tokens_per_microbatch=4_096, epochs=1, warmup_steps_min=20,
        learning_rate=1e-3, head_learning_rate=1e-3, eval_rows=0, save_every_minutes=600,
        trackers=(),
    )  # fmt: skip
    train(model, examples, {}, options, work, name="earlier")
    return export(model, out, card=Card("earlier", "a decoder that knew nothing", ""))


def measure(seed: int, model: str, given: argparse.Namespace) -> dict[str, Any]:
    """One campaign, audited."""
    folder = given.folder / f"{Path(model).name}-{given.comparisons}-{seed}"
    rows, flipped = campaign(seed, given.comparisons, given.rate)
    path = folder / "comparisons.parquet"
    write_comparisons(path, rows)
    begun = time.process_time()
    options = DoubtOptions(model=model, layers=given.layers, max_tokens=256, seed=seed)

    def say(line: str) -> None:
        print(f"seed {seed}: {line}", file=sys.stderr)

    def show(done: int, total: int, _: str) -> None:
        print(f"seed {seed}: {done:,} of {total:,} rows", end="\r", file=sys.stderr)

    found = doubt(path, folder, options, log=say, show=show)
    seconds = time.process_time() - begun
    place = {row.id: n for n, row in enumerate(read_comparisons(path))}
    at = [place[row.id] for row in found.rows]
    truth = flipped[at]
    listed = [rows[n] for n in at]
    judges = {
        "doubt": found.wrong,
        "truth": np.array([posterior(c, given.rate, rated=False) for c in listed]),
        "truth and rating": np.array([posterior(c, given.rate, rated=True) for c in listed]),
        "margin alone": -found.margins,
    }
    ratings = np.array([c.rating or 0 for c in listed])
    groups: dict[str, Flags] = {level.label: ratings == level for level in Rating}
    groups["better and significantly better"] = ratings >= Rating.BETTER
    made: dict[str, Any] = {
        "seed": seed, "model": model, "comparisons": given.comparisons, "rate": given.rate,
        "rows": len(listed),
        "flips": int(truth.sum()), "unscored": found.unscored, "seconds": seconds,
        "agreement": float(found.agreement.value),
        "estimated": [getattr(found.noise.flip_rate, key) for key in ("value", "low", "high")],
        "identified": found.noise.identified,
        "at_recall": {
            name: [at_recall(scores, truth, recall) for recall in RECALLS]
            for name, scores in judges.items()
        },
        "by_rating": {
            group: {name: at_recall(scores[rows_], truth[rows_], 0.5)
                    for name, scores in judges.items()}
            for group, rows_ in groups.items()
        },
        "at_cuts": [
            [int((found.wrong >= cut).sum()), int(truth[found.wrong >= cut].sum())] for cut in CUTS
        ],
        "within": [bool(c.low <= truth[: c.rows].sum() <= c.high) for c in found.cuts],
        "calibration": calibration(found.wrong, truth),
    }  # fmt: skip
    return made


def calibration(wrong: Floats, flipped: Flags) -> list[list[float]]:
    """Of each bin of the stated probability: rows, the sum of what is said, and of flips."""
    bins = np.clip(np.digitize(wrong, BINS) - 1, 0, len(BINS) - 2)
    return [
        [float((bins == b).sum()), float(wrong[bins == b].sum()), float(flipped[bins == b].sum())]
        for b in range(len(BINS) - 1)
    ]


def over_seeds(values: Sequence[float]) -> dict[str, Any]:
    """The mean of one value a seed with its 95 % interval, and the values."""
    found = stats.clustered_mean(np.array(values, dtype=np.float64))
    ends = {name: round(float(getattr(found, name)), 3) for name in ("value", "low", "high")}
    return {**ends, "by_seed": [round(float(one), 3) for one in values]}


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What all seeds say together."""
    judges = list(rows[0]["at_recall"])
    bins = np.array([row["calibration"] for row in rows]).sum(0)  # [bins, 3]
    cuts = np.array([row["at_cuts"] for row in rows], dtype=np.float64)  # [seeds, cuts, 2]
    flips = np.array([row["flips"] for row in rows])
    return {
        "benchmark": "flips", "seeds": len(rows), "comparisons": rows[0]["comparisons"],
        "rate": rows[0]["rate"],
        "flip_precision_at_recall_50": over_seeds([row["at_recall"]["doubt"][2] for row in rows]),
        "precision_at_recalls": {
            name: {f"{recall:g}": over_seeds([row["at_recall"][name][n] for row in rows])
                   for n, recall in enumerate(RECALLS)}
            for name in judges
        },
        "precision_at_recall_50_by_rating": {
            group: {name: over_seeds([row["by_rating"][group][name] for row in rows])
                    for name in judges}
            for group in rows[0]["by_rating"]
        },
        "cuts": {
            f"{cut:g}": {
                "rows": cuts[:, n, 0].tolist(),
                "precision": round(float(cuts[:, n, 1].sum() / max(cuts[:, n, 0].sum(), 1)), 3),
                "recall": over_seeds((cuts[:, n, 1] / flips).tolist()),
            }
            for n, cut in enumerate(CUTS)
        },
        "number_within_its_95": f"{sum(sum(r['within']) for r in rows)} of "
        f"{sum(len(r['within']) for r in rows)}",
        "calibration": [
            {"from": BINS[n], "to": BINS[n + 1], "rows": int(count),
             "said": round(said / max(count, 1), 3), "came": round(came / max(count, 1), 3)}
            for n, (count, said, came) in enumerate(bins.tolist())
        ],
        "estimated_rate": over_seeds([row["estimated"][0] for row in rows]),
        "rate_within": sum(r["estimated"][1] <= r["rate"] <= r["estimated"][2] for r in rows),
        "agreement": over_seeds([row["agreement"] for row in rows]),
        "seconds": over_seeds([row["seconds"] for row in rows]),
    }  # fmt: skip


def main() -> None:
    """Audit what is missing, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--comparisons", type=int, default=3_000)
    parser.add_argument("--rate", type=float, default=0.1)
    parser.add_argument("--earlier", type=int, default=24_000)
    parser.add_argument("--model")
    parser.add_argument("--layers", type=int)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    model = given.model or str(earlier_model(given.folder, given.earlier))
    results = given.folder / "flips.jsonl"
    lines = results.read_text().splitlines() if results.is_file() else []
    found = {(row["seed"], row["comparisons"], row["rate"]): row for row in map(json.loads, lines)}
    asked = [(seed, given.comparisons, given.rate) for seed in range(given.seeds)]
    for key in asked:
        if key in found:
            continue
        found[key] = measure(key[0], model, given)
        with results.open("a") as file:
            file.write(json.dumps(found[key]) + "\n")
        print(f"seed {key[0]}: {found[key]['at_recall']}", file=sys.stderr)
    print(json.dumps(summary([found[key] for key in asked])))


if __name__ == "__main__":
    main()
