"""What keeping prompts between requests saves, where they come as rollouts do; one JSON line.

    python -m benchmarks.serve.rollouts [--layers N] [--dtype D] [--windows N] [--prompts N]
        [--clients N] [--megabytes N]

Three kinds of requests, each one conversation: real dialogues of HH, of which every assistant's
turn is asked about in order; prompts with 16 responses, which come one by one; and responses to as
many prompts, of which none comes again: what keeping costs where it saves nothing. Two engines of
one model, with and without kept prompts, are asked the same window in turns; time is that of the
process's CPUs, so that other work on the machine hardly counts. The rewards of both are compared.
"""

import argparse
import asyncio
import json
import os
import random
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.contender import DTYPES
from benchmarks.peers.turns import middle, say
from benchmarks.serve.asked import Row, served_model
from palate.judges.reward_model import RewardScorer
from palate.model.packing import Tokens
from palate.serve.engine import Engine, ScoreRequest
from palate.types import Message

Streams = list[list[Tokens]]  # Of each prompt or dialogue what is asked, in order.


def dialogues(chat: Any, count: int, rng: random.Random) -> Iterator[list[Tokens]]:
    """HH's dialogues of two turns or more: the conversation up to each assistant's turn."""
    from palate.data.sources import Request, open_source, readable

    root = Path(os.environ["PALATE_DATA"])
    request = Request(location=root / "anthropic_hh", subset="helpful-base", split="test")
    rows = list(readable(open_source("anthropic-hh", request), max_bad_share=0.05))
    rng.shuffle(rows)
    for row in rows:
        said = (*row.prompt, Message("assistant", row.chosen))
        ends = [n for n, message in enumerate(said) if message.role == "assistant"]
        encoded = [chat.encode(said[:n], said[n].content) for n in ends]
        if len(ends) > 1 and all(e is not None and not e.truncated for e in encoded):
            yield [e.ids for e in encoded]
            count -= 1
        if not count:
            return


def one_by_one(sets: Sequence[Row], count: int, rng: random.Random) -> Streams:
    """Prompts with their 16 responses, in an order of their own."""
    return [
        [np.asarray(ids, np.int32) for ids in rng.sample(row["ids"], len(row["ids"]))]
        for row in rng.sample(list(sets), count)
    ]


def once(pairs: Sequence[Row], seen: Sequence[Any], count: int, rng: random.Random) -> Streams:
    """A response each of prompts that are not among those `seen`."""
    rows = [row for row in pairs if row["prompt"] not in seen]
    return [[np.asarray(row["ids"][0], np.int32)] for row in rng.sample(rows, count)]


async def ask(engine: Engine, streams: Streams, clients: int) -> list[float]:
    """Every stream in order, by so many clients at once; the rewards."""
    answers: list[list[float]] = [[] for _ in streams]
    left = iter(enumerate(streams))

    async def client() -> None:
        for number, stream in left:
            for conversation in stream:
                (reward,) = await engine.rewards(ScoreRequest((conversation,)))
                answers[number].append(reward)

    await asyncio.gather(*(client() for _ in range(clients)))
    return [reward for own in answers for reward in own]


def main() -> None:
    """Read the size from the command line, run, print one JSON line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--windows", type=int, default=5)
    parser.add_argument("--prompts", type=int, default=16, help="or dialogues, of each window")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--megabytes", type=int, default=1_024)
    given = parser.parse_args()
    folder, pairs, sets = served_model(given.layers)
    model = RewardScorer(folder, dtype=given.dtype).model
    lock, rng = threading.Lock(), random.Random(7)
    sizes = {"kept": given.megabytes << 20, "without": 0}
    engines = {
        name: Engine(model, name=name, cache_bytes=size, device_lock=lock)
        for name, size in sizes.items()
    }
    for engine in engines.values():
        engine.start()
    # Besides those that are timed one window to warm up on.
    total = (given.windows + 1) * given.prompts
    found = {
        "dialogues": list(dialogues(model.chat, total, rng)),
        "one_by_one": one_by_one(sets, min(total, len(sets)), rng),
        "unrelated": once(pairs, [row["prompt"] for row in sets], total, rng),
    }
    line: dict[str, Any] = {"benchmark": "rollouts", **vars(given)}
    for kind, streams in found.items():
        line |= {f"{kind}_{key}": value for key, value in compare(engines, streams, given).items()}
        say(f"{kind}: {line}")
    print(json.dumps(line))


def compare(engines: dict[str, Engine], streams: Streams, given: Any) -> dict[str, Any]:
    """Both engines on every window, in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    before = {name: vars_of(engine) for name, engine in engines.items()}
    apart = 0.0
    for number, start in enumerate(range(0, len(streams), given.prompts)):
        window = streams[start : start + given.prompts]
        rewards = {}
        for name in list(engines) if number % 2 else list(engines)[::-1]:
            began = time.process_time()
            rewards[name] = asyncio.run(ask(engines[name], window, given.clients))
            seconds[name].append(time.process_time() - began)
        apart = max(apart, float(np.abs(np.subtract(*rewards.values())).max()))
        say(f"{number}: " + ", ".join(f"{n} {s[-1]:.1f} CPU s" for n, s in seconds.items()))
    ratios = [w / k for w, k in zip(seconds["without"][1:], seconds["kept"][1:], strict=True)]
    used = {
        name: {key: value - before[name][key] for key, value in vars_of(engine).items()}
        for name, engine in engines.items()
    }
    kept = used["kept"]
    return {
        "conversations": kept["conversations"],
        "asked_tokens": kept["asked_tokens"],
        "computed_without": used["without"]["computed_tokens"],
        "computed": kept["computed_tokens"],
        "hit_rate": round(kept["prompts_found"] / kept["prompts"], 3),
        "speedup": {key: round(value, 3) for key, value in middle(ratios).items()},
        "max_difference": apart,
        "kept_megabytes": engines["kept"].kept_bytes >> 20,
    }


def vars_of(engine: Engine) -> dict[str, float]:
    """An engine's counts."""
    return {name: getattr(engine.stats, name) for name in type(engine.stats).__slots__}


if __name__ == "__main__":
    main()
