"""What is asked: HH pairs, and prompts with 16 responses; no window repeats a conversation."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers.prepare import prepared, write_rows
from benchmarks.peers.turns import say
from benchmarks.peers.worker import read_rows

MADE = 1  # Raise it when what is made here changes.
RESPONSES = 16
PROMPTS = 256
HEAD_SCALE = 40.0  # A fresh head's rewards spread by .02, a trained one's by about 1.
Row = dict[str, Any]


def served_model(layers: int) -> tuple[Path, list[Row], list[Row]]:
    """A checkpoint whose rewards spread like a trained one's, pairs, and sets of 16 responses."""
    folder, pairs = prepared(layers)
    model, sets = folder.with_name(f"served-{MADE}"), folder.with_name(f"sets-{MADE}.jsonl")
    if not sets.exists():
        say(f"preparing {model}")
        _make(folder, model, pairs, sets)
    return model, [_pair(row) for row in pairs], read_rows(sets)


def _pair(row: Row) -> Row:
    return {
        "prompt": row["prompt"],
        "responses": row["responses"],
        "texts": [row["chosen"], row["rejected"]],
        "ids": [row["chosen_ids"], row["rejected_ids"]],
    }


def _make(folder: Path, out: Path, pairs: Sequence[Row], sets: Path) -> None:
    import torch

    from palate.model.export import Card, export
    from palate.model.loading import load_reward_model

    model = load_reward_model(folder)
    with torch.no_grad():
        model.head.weight.mul_(HEAD_SCALE)
    export(model, out, card=Card("benchmark", "smollm2", "a seeded head, scaled"))
    write_rows(sets, list(_sets(model.chat, pairs)))


def _sets(chat: Any, pairs: Sequence[Row]) -> Iterator[Row]:
    """Real prompts, each with its two responses and 14 of other prompts: lengths are HH's."""
    from palate.types import Message

    rng = random.Random(1)
    for row in rng.sample(pairs, PROMPTS):
        prompt = [Message(turn["role"], turn["content"]) for turn in row["prompt"]]
        others = (r for other in rng.sample(pairs, 3 * RESPONSES) for r in other["responses"][:1])
        responses = list(dict.fromkeys([*row["responses"], *others]))
        encoded = {r: chat.encode(prompt, r) for r in responses}
        fits = [r for r, e in encoded.items() if e is not None and not e.truncated][:RESPONSES]
        if len(fits) == RESPONSES:
            yield {
                "prompt": row["prompt"],
                "responses": fits,
                "texts": [chat.render(prompt, r) for r in fits],
                "ids": [encoded[r].ids.tolist() for r in fits],
            }


def windows(rows: Sequence[Row], count: int, size: int, seed: int) -> list[list[Row]]:
    """A first window to warm up on, and `count` of `size` rows, all different."""
    drawn = random.Random(seed).sample(list(rows), 4 + count * size)
    return [drawn[:4], *(drawn[4 + i * size : 4 + (i + 1) * size] for i in range(count))]
