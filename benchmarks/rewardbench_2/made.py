"""Made-up items of RewardBench 2's form and size, of Anthropic HH's texts.

A prompt is a dialogue of HH as one text. A response is as many of HH's responses as a drawn length
takes: RewardBench 2's are written by language models and longer than HH's. What is right is drawn.
"""

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers.prepare import MAX_TOKENS
from palate.data.benchmarks.rewardbench_2 import SIZES, TIES

Row = dict[str, Any]
ITEMS = sum(SIZES.values())
# Of a response, in characters: half are between 500 and 1,250. At most what fits beside a prompt.
MEDIAN, SPREAD, MOST = 800, 0.7, 2_400
LONGEST_PROMPT = 1_200
RIGHT_OF_TIED, WRONG_OF_TIED = (2, 20), (5, 18)
WRONG_OF_REF = 5


def write_items(path: Path, pairs: Sequence[Row], items: int) -> dict[str, float]:
    """Write `items` of them, subsets in the shares of the real ones; the lengths that they have."""
    rng = random.Random(0)
    rows = list(_items(rng, pairs, items))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    responses = sorted(len(text) for row in rows for text in row["chosen"] + row["rejected"])
    prompts = sorted(len(row["prompt"]) for row in rows)
    return {
        "items": len(rows),
        "responses": len(responses),
        "prompt_characters": prompts[len(prompts) // 2],
        "response_characters": responses[len(responses) // 2],
    }


def _items(rng: random.Random, pairs: Sequence[Row], items: int) -> Iterator[Row]:
    prompts = ["\n\n".join(turn["content"] for turn in row["prompt"]) for row in pairs]
    prompts = list(dict.fromkeys(prompt for prompt in prompts if len(prompt) <= LONGEST_PROMPT))
    rng.shuffle(prompts)
    pieces = list(dict.fromkeys(text for row in pairs for text in row["responses"]))
    number = 0
    for subset, size in SIZES.items():
        count = round(size * items / ITEMS)
        count += count % 2 if subset == TIES else 0  # Its prompts are pairs.
        for place in range(count):
            name, right, wrong = str(number), 1, 3
            if subset == TIES:
                sort = ("ref", "tied")[place % 2]
                name = f"{sort}:{place // 2}"
                wrong = WRONG_OF_REF
                if sort == "tied":
                    right, wrong = rng.randint(*RIGHT_OF_TIED), rng.randint(*WRONG_OF_TIED)
            texts: list[str] = []
            while len(texts) < right + wrong:
                if (text := _response(rng, pieces)) not in texts:
                    texts.append(text)
            yield {
                "id": name,
                "prompt": prompts[number % len(prompts)],
                "chosen": texts[:right],
                "rejected": texts[right:],
                "num_correct": right,
                "num_incorrect": wrong,
                "total_completions": right + wrong,
                "subset": subset,
            }
            number += 1


def _response(rng: random.Random, pieces: Sequence[str]) -> str:
    length = min(MOST, round(MEDIAN * rng.lognormvariate(0, SPREAD)))
    text = rng.choice(pieces)
    while len(text) < length:
        text += "\n\n" + rng.choice(pieces)
    return text[: max(length, 1)].strip() or text[:MOST].strip()


assert LONGEST_PROMPT + MOST < 4 * MAX_TOKENS  # English has more than four characters a token.
