"""What does an item of K cost in one pass, beside K scorings of its responses one by one?

    python -m benchmarks.items COMPARISONS [--responses 4] [--prompts 64] [--layers 6] [--repeats 5]

COMPARISONS is what `palate data import` wrote of a source with several responses to a prompt, such
as stackexchange; the first prompts with as many distinct responses, none of which is cut, are
asked. `together` gives
`RewardScorer.score` each prompt with all its responses, as `palate judge` does with items of K;
`apart` asks of all prompts the first response, then of all the second, and so on: K files of
single responses. Both in turns, in processor seconds of this process; the first round warms up.
Ends with one JSON line: apart over together within a round, and tokens inside the model's forward.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from benchmarks.judge_once import Meter
from benchmarks.peers.prepare import prepared
from benchmarks.peers.turns import middle
from palate.judges.reward_model import RewardScorer
from palate.model.tokenizer import ChatTokens
from palate.records import read_comparisons
from palate.types import Candidates, Message, Score


def asked(path: Path, chat: ChatTokens, responses: int, prompts: int) -> list[Candidates]:
    """The first prompts with as many distinct responses; the others of a prompt are left out.

    A prompt of which a conversation is cut is none: cut by different amounts, it is not shared.
    """

    def fits(shown: Candidates) -> bool:
        encoded = [chat.encode(shown.prompt, text) for text in shown.responses]
        return all(one is not None and not one.truncated for one in encoded)

    by_prompt: dict[tuple[Message, ...], dict[str, None]] = {}
    for row in read_comparisons(path):
        by_prompt.setdefault(row.prompt, {}).update(dict.fromkeys((row.chosen, row.rejected)))
    many = (
        Candidates(prompt, tuple(texts)[:responses])
        for prompt, texts in by_prompt.items()
        if len(texts) >= responses
    )
    found = list(islice(filter(fits, many), prompts))
    if not found:
        raise SystemExit(f"{path}: no prompt has {responses} distinct responses")
    return found


def value_of(score: Score) -> float:
    """A reward; NaN where there is none."""
    return math.nan if score.value is None else score.value


def together(scorer: RewardScorer, rows: Sequence[Candidates]) -> list[float]:
    """All responses of a prompt at once; rewards by prompt and response."""
    return [value_of(score) for scores in scorer.score(rows) for score in scores]


def apart(scorer: RewardScorer, rows: Sequence[Candidates]) -> list[float]:
    """One response of every prompt, then the next one of every prompt; rewards as `together`."""
    count = len(rows[0].responses)
    passes = [
        [
            value_of(scores[0])
            for scores in scorer.score(Candidates(r.prompt, (r.responses[n],)) for r in rows)
        ]
        for n in range(count)
    ]
    return [passes[n][row] for row in range(len(rows)) for n in range(count)]


def main() -> None:
    """Read the size from the command line, take turns, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("comparisons", type=Path)
    parser.add_argument("--responses", type=int, default=4)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    scorer = RewardScorer(prepared(given.layers)[0])
    rows = asked(given.comparisons, scorer.model.chat, given.responses, given.prompts)
    meter = Meter(scorer)
    ways: dict[str, Callable[[RewardScorer, Sequence[Candidates]], list[float]]] = {
        "together": together, "apart": apart,
    }  # fmt: skip
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    tokens: dict[str, int] = {}
    rewards: dict[str, list[float]] = {}
    for repeat in range(given.repeats + 1):
        for name in list(ways) if repeat % 2 else list(ways)[::-1]:
            meter.tokens, begun = 0, time.process_time()
            rewards[name] = ways[name](scorer, rows)
            spent = time.process_time() - begun
            tokens[name] = meter.tokens
            if repeat:
                seconds[name].append(spent)
            print(f"{repeat}/{given.repeats} {name}: {spent:.2f} s", file=sys.stderr)
    ratios = [a / t for a, t in zip(seconds["apart"], seconds["together"], strict=True)]
    both = np.array([rewards["apart"], rewards["together"]])
    line = {
        "benchmark": "items",
        "apart_over_together": {k: round(v, 3) for k, v in middle(ratios).items()},
        "seconds": {name: round(middle(of)["median"], 2) for name, of in seconds.items()},
        "tokens": tokens,
        "tokens_ratio": round(tokens["apart"] / tokens["together"], 3),
        "largest_difference": float(np.nanmax(np.abs(both[0] - both[1]))),
        "spread": round(float(np.nanstd(both[1])), 4),
        "prompts": len(rows),
    }
    print(json.dumps(line | {n: v for n, v in vars(given).items() if n != "comparisons"}))


if __name__ == "__main__":
    main()
