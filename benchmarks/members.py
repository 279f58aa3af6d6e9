"""Ensembles of each kind beside one model and the average of weights, where the truth is known.

    python -m benchmarks.members FOLDER [--seeds 5] [--kinds heads seeds checkpoints lora]
                                 [--best-of seeds] [--comparisons 480] [--layers 4] [--learn 1]
                                 [--responses 512]

For each seed a simulated campaign of its own (helpfulness): comparisons to learn from and 400 that
are held out, of other prompts. Models of each kind have five members and learn from the same
comparisons, the last layers above frozen ones; `lora` adapts all. Each is asked the held-out
comparisons as the ensemble's mean, as each member and as the one model of the average weights;
accuracy is against the labels. Then, of the kinds named after --best-of, 6 new prompts with many
responses each: the true reward of the best of n, chosen in each of these ways and by the lower
bound.

Each model is a line of FOLDER/results.jsonl as it ends, and is not made twice; a training that was
stopped goes on. Progress goes to stderr; ends with one JSON line: means over seeds with t intervals
(paired differences of accuracy in points, coverage of 90 % conformal intervals, where curves turn
over), and processor seconds of training and of scoring.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palate import stats
from palate.data.simulation import CampaignOptions, many_responses, simulate
from palate.judges.reward_model import RewardScorer
from palate.model.device import keep_memory
from palate.model.options import BaseOptions
from palate.recipe.stages import train_one
from palate.records import write_comparisons
from palate.train.options import LoraOptions, Trainable, TrainOptions
from palate.types import Candidates, Comparison

KINDS = ("heads", "seeds", "checkpoints", "lora")
MEMBERS, HELD_OUT, PROMPTS, WEEKS = 5, 400, 6, 4
Floats = NDArray[np.float64]


def campaign(
    seed: int, comparisons: int
) -> tuple[CampaignOptions, list[Comparison], list[Comparison]]:
    """Its options, what is learnt from and what is held out: the last prompts of every week."""
    options = CampaignOptions(weeks=WEEKS, comparisons_per_week=(comparisons + HELD_OUT) // WEEKS)
    rows = list(simulate(options, seed))
    prompts = list(dict.fromkeys(row.prompt_id for row in rows))
    np.random.default_rng(seed).shuffle(prompts)
    held: list[Comparison] = []
    apart: set[str] = set()
    by_prompt: dict[str, list[Comparison]] = {}
    for row in rows:
        by_prompt.setdefault(row.prompt_id, []).append(row)
    for prompt in prompts:
        if len(held) >= HELD_OUT:
            break
        held += by_prompt[prompt]
        apart.add(prompt)
    return options, [row for row in rows if row.prompt_id not in apart], held


def options_of(kind: str, seed: int, learn: int) -> TrainOptions:
    """As the demo trains, but for what learns and for the ensemble."""
    adapters = kind == "lora"
    return TrainOptions(
        pairs_per_step=16, tokens_per_microbatch=2048, epochs=1, warmup_steps_min=5,
        learning_rate=4e-4 if adapters else 2e-4, head_learning_rate=2e-3, margin="small",
        eval_rows=0, trackers=(), seed=seed, ensemble={"members": MEMBERS, "of": kind},
        trainable=Trainable(lora=LoraOptions()) if adapters else Trainable(last_layers=learn),
    )  # fmt: skip


def asked(scorer: RewardScorer, rows: Sequence[Candidates]) -> tuple[list[Floats], list[Floats]]:
    """Of each row's responses the rewards [R], and what each member says [R, M] (M = 0: one)."""
    values, members = [], []
    for scores in scorer.score(rows):
        values.append(np.array([score.value for score in scores], dtype=np.float64))
        members.append(np.array([score.members for score in scores], dtype=np.float64))
    return values, members


def measure(kind: str, seed: int, given: argparse.Namespace) -> dict[str, Any]:
    """Train one ensemble and ask it everything."""
    folder = given.folder / f"{kind}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    options, taught, held = campaign(seed, given.comparisons)
    mixture = folder / "mixture.parquet"
    if not mixture.is_file():
        write_comparisons(mixture, taught)
    base = BaseOptions(layers=given.layers, template="chatml", max_tokens=256)
    begun = time.process_time()
    out = train_one(
        kind, base, options_of(kind, seed, given.learn), mixture, {}, folder, folder / "model"
    )
    training = time.process_time() - begun
    scorer = RewardScorer(out)
    pairs = [Candidates(row.prompt, (row.chosen, row.rejected)) for row in held]
    begun = time.process_time()
    values, said = asked(scorer, pairs)
    scoring = time.process_time() - begun
    many_prompts = PROMPTS if kind in given.best_of else 0
    drawn = list(many_responses(options, seed, many_prompts, given.responses))
    distinct = [Candidates(one.prompt, tuple(dict.fromkeys(one.responses))) for one, _ in drawn]
    many, many_said = asked(scorer, distinct)
    gaps = np.array([v[0] - v[1] for v in values])  # [N]
    members = np.array([s[0] - s[1] for s in said])  # [N, M]
    own = scorer.model.own is not None
    scorer.model.keep_average()
    begun = time.process_time()
    average = np.array([v[0] - v[1] for v in asked(scorer, pairs)[0]])
    alone = time.process_time() - begun
    many_average = asked(scorer, distinct)[0] if own else many
    prompts = [row.prompt_id for row in held]
    covered = stats.conformal_coverage(
        gaps, members.std(1, ddof=1), prompts, np.random.default_rng(0)
    )
    places = [{text: n for n, text in enumerate(one.responses)} for one in distinct]
    order = [
        [place[text] for text in one.responses]
        for place, (one, _) in zip(places, drawn, strict=True)
    ]
    truth = np.array([worth for _, worth in drawn])
    ways = {
        "one": np.array([m[o, 0] for m, o in zip(many_said, order, strict=True)]),
        "mean": np.array([v[o] for v, o in zip(many, order, strict=True)]),
        "lower bound": np.array(
            [stats.lower_bounds(m, 1.0)[o] for m, o in zip(many_said, order, strict=True)]
        ),
        "average": np.array([v[o] for v, o in zip(many_average, order, strict=True)]),
        "truth": truth,
    }
    sizes = [2**k for k in range(given.responses.bit_length()) if 2**k <= given.responses]
    curves = {
        way: stats.best_of_n_by_prompt(scores, truth, sizes).tolist()
        for way, scores in ways.items()
        if drawn
    }
    return {
        "kind": kind, "seed": seed, "taught": len(taught), "held_out": len(held),
        "mean": _right(gaps), "average": _right(average),
        "members": [_right(members[:, n]) for n in range(MEMBERS)],
        "coverage": None if covered is None else float(covered[0].value),
        "spread": float(members.std(1, ddof=1).mean() / np.abs(gaps).mean()),
        "training_seconds": training, "scoring_seconds": scoring, "one_scoring_seconds": alone,
        "sizes": sizes, "curves": curves,
    }  # fmt: skip


def _right(gaps: Floats) -> float:
    """The share of comparisons whose chosen response is above; of equal ones a half."""
    return float(((gaps > 0) + 0.5 * (gaps == 0)).mean())


def over_seeds(values: Sequence[float], scale: float = 1.0) -> dict[str, Any]:
    """The mean of one value a seed with its 95 % interval, and the values."""
    array = scale * np.array(values, dtype=np.float64)
    found = stats.clustered_mean(array)
    ends = {name: round(float(getattr(found, name)), 3) for name in ("value", "low", "high")}
    return {**ends, "by_seed": [round(float(one), 2) for one in array]}


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What all seeds of one kind say together."""
    member = [float(np.mean(row["members"])) for row in rows]
    mean, average = ([row[way] for row in rows] for way in ("mean", "average"))
    made: dict[str, Any] = {
        "kind": rows[0]["kind"], "seeds": len(rows),
        "accuracy of a member": over_seeds(member, 100),
        "mean less a member": over_seeds(np.subtract(mean, member).tolist(), 100),
        "average less a member": over_seeds(np.subtract(average, member).tolist(), 100),
        "average less the mean": over_seeds(np.subtract(average, mean).tolist(), 100),
        "coverage of 90": over_seeds([row["coverage"] for row in rows], 100),
        "spread over difference": over_seeds([row["spread"] for row in rows]),
        "training seconds": over_seeds([row["training_seconds"] for row in rows]),
        "scoring over one model": over_seeds(
            [row["scoring_seconds"] / row["one_scoring_seconds"] for row in rows]
        ),
    }  # fmt: skip
    sizes = rows[0]["sizes"]
    for way in rows[0]["curves"]:
        by_prompt = np.concatenate([np.array(row["curves"][way]) for row in rows], axis=1)  # [S, P]
        turned = stats.turnover_of(by_prompt, sizes)
        lost = None if turned.lost is None else [
            round(x, 2) for x in (turned.lost.value, turned.lost.low, turned.lost.high)
        ]  # fmt: skip
        made[f"best of n by {way}"] = {
            "true reward": [round(float(v), 2) for v in by_prompt.mean(1)],
            "highest at": turned.peak, "between": turned.between, "lost after": lost,
            "shown": turned.shown,
        }  # fmt: skip
    return made


def main() -> None:
    """Read what is asked for, make what is missing, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--best-of", nargs="*", choices=KINDS, default=["seeds"])
    parser.add_argument("--comparisons", type=int, default=480)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--learn", type=int, default=1)
    parser.add_argument("--responses", type=int, default=512)
    given = parser.parse_args()
    keep_memory()
    given.folder.mkdir(parents=True, exist_ok=True)
    results = given.folder / "results.jsonl"
    lines = results.read_text().splitlines() if results.is_file() else []
    found = {(row["kind"], row["seed"]): row for row in map(json.loads, lines)}
    for seed in range(given.seeds):
        for kind in given.kinds:
            if (kind, seed) in found:
                continue
            found[kind, seed] = measure(kind, seed, given)
            with results.open("a") as file:
                file.write(json.dumps(found[kind, seed]) + "\n")
            print(f"{kind}, seed {seed}: {found[kind, seed]['mean']:.3f}", file=sys.stderr)
    by_kind = {
        kind: summary([row for (of, _), row in found.items() if of == kind])
        for kind in given.kinds
        if any(of == kind for of, _ in found)
    }
    print(json.dumps({"benchmark": "members", "by_kind": by_kind}))


if __name__ == "__main__":
    main()
