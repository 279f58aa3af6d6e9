"""Which pairs are trained on: the steps of the loss curve, and the shapes of the growth windows."""

import random
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from benchmarks.peers.prepare import MARGINS, SUBSETS

Row = dict[str, Any]


def draw_steps(pairs: Sequence[Row], steps: int, pairs_per_step: int, seed: int) -> list[Row]:
    """Step 0, discarded, of the shortest pairs; then steps of random pairs, half of each subset.

    No pair occurs twice.
    """
    by_length = sorted(pairs, key=tokens)
    warm, rest = by_length[:pairs_per_step], by_length[pairs_per_step:]
    rng = random.Random(seed)
    rng.shuffle(rest)
    pools = [[row for row in rest if row["subset"] == subset] for subset in SUBSETS]
    drawn = [{**row, "step": 0} for row in warm]
    share = pairs_per_step // len(pools)
    for step in range(1, steps + 1):
        rows = [row for pool in pools for row in pool[(step - 1) * share : step * share]]
        rng.shuffle(rows)
        drawn += [{**row, "step": step} for row in rows]
    return drawn


def draw_subset(pairs: Sequence[Row], subset: str, count: int, seed: int) -> list[Row]:
    """`count` random pairs of one subset."""
    return random.Random(seed).sample([p for p in pairs if p["subset"] == subset], count)


def tokens(row: Row) -> int:
    """Tokens of both conversations: what a peer must read."""
    return len(row["chosen_ids"]) + len(row["rejected_ids"])


def ranked_sets(
    pairs: Sequence[Row], *, sets: int, responses: int, prompt_tokens: int, seed: int
) -> list[Row]:
    """Prompts of a given length with K ranked responses, as the K - 1 pairs of neighbours.

    Neighbours are the fewest comparisons that say the whole ranking. Prompts are cut from the
    stream of HH tokens; responses are real HH responses with their own lengths.
    """
    rng = random.Random(seed)
    stream = [t for row in rng.sample(pairs, 400) for t in row["chosen_ids"]]
    answers = [_response(row) for row in rng.sample(pairs, sets * responses * 2)]
    answers = [answer for answer in answers if len(answer) > 1][: sets * responses]
    rows = []
    for i in range(sets):
        prompt = stream[i * prompt_tokens : (i + 1) * prompt_tokens]
        ranked = [prompt + a for a in answers[i * responses : (i + 1) * responses]]
        for j, (better, worse) in enumerate(pairwise(ranked)):
            rows.append(
                {
                    "id": f"{i}-{j}",
                    "prompt": f"prompt {i}",
                    "chosen_ids": better,
                    "rejected_ids": worse,
                    "rating": 1,
                    "margin": MARGINS[0],
                }
            )
    return rows


def _response(row: Row) -> list[int]:
    """The tokens of the rejected response after what it shares with the chosen one."""
    return list(row["rejected_ids"][_prefix(row) :])


def grouped_padding(pairs: Sequence[Row], batch: int, seed: int) -> float:
    """Padded tokens for each real one when a whole data set is grouped by length.

    As transformers' LengthGroupedSampler does: pools of 50 batches in random order, each sorted.
    """
    order = list(pairs)
    random.Random(seed).shuffle(order)
    padded, pool = 0, 50 * batch
    for start in range(0, len(order), pool):
        longest = sorted(map(longer, order[start : start + pool]), reverse=True)
        # The first of each batch is its longest; both rows of every pair are padded to it.
        padded += sum(
            2 * longest[i] * len(longest[i : i + batch]) for i in range(0, len(longest), batch)
        )
    return padded / sum(map(tokens, pairs))


def longer(row: Row) -> int:
    """Tokens of the longer of a pair's conversations."""
    return max(len(row["chosen_ids"]), len(row["rejected_ids"]))


def shared_tokens(row: Row) -> int:
    """Tokens of a pair whose prompt is run once."""
    return tokens(row) - _prefix(row)


def _prefix(row: Row) -> int:
    chosen, rejected = row["chosen_ids"], row["rejected_ids"]
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    return shared
