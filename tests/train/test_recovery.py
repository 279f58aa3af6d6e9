"""A known Bradley-Terry truth is recovered: the trainer reaches the Bayes limit, and no more.

Responses are lists of words, each worth a known amount; their sum is the latent quality. An
annotator prefers the better one with probability sigmoid(difference). The best possible judge
agrees with that annotator with the mean of sigmoid(|difference|), which is known exactly.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from palate.model.options import BaseOptions
from palate.model.reward_model import RewardModel
from palate.model.tokens import ChatTokens
from palate.records import write_comparisons
from palate.stats import accuracy
from palate.train.examples import tokenise
from palate.train.loop import train
from palate.train.microbatch import split_step
from palate.train.options import TrainOptions
from palate.train.parallel import World
from palate.train.watch import pair_rewards
from palate.types import Comparison, Message
from tiny import tiny_model, tiny_tokenizer

WORTH = {"honest": 1.2, "helpful": 0.8, "short": 0.4, "sea": 0.0, "bread": 0.0, "salt": 0.0}
WORTH |= {"water": 0.0, "yeast": -0.4, "dough": -0.8, "cannot": -1.2}
WORDS = list(WORTH)
TRAINED, ASKED = 1_200, 500


def quality(response: str) -> float:
    return sum(WORTH[word] for word in response.split())


def campaign(rng: np.random.Generator, count: int, batch: str) -> Iterator[Comparison]:
    for index in range(count):
        a, b = (" ".join(rng.choice(WORDS, 4)) for _ in range(2))
        if rng.random() > 1 / (1 + math.exp(quality(b) - quality(a))):
            a, b = b, a
        prompt = (Message("user", f"Say {' '.join(rng.choice(WORDS, 2))}."),)
        yield Comparison(f"{batch}{index}", "truth", prompt, a, b, f"{batch}{index}", batch)


def test_rewards_follow_the_truth_and_accuracy_reaches_the_bayes_limit(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    asked = list(campaign(rng, ASKED, "test"))
    sets = {"train": list(campaign(rng, TRAINED, "train")), "test": asked}
    chat = ChatTokens(tiny_tokenizer(), BaseOptions(max_tokens=64))
    examples = {}
    for name, rows in sets.items():
        write_comparisons(tmp_path / f"{name}.parquet", rows)
        examples[name] = tokenise(tmp_path / f"{name}.parquet", chat, tmp_path / f"{name}.arrow")
    model = RewardModel(tiny_model("llama", num_hidden_layers=2), chat)
    options = TrainOptions(pairs_per_step=32, learning_rate=3e-3, epochs=4, trackers=())
    train(model, examples["train"], {}, options, tmp_path, resume=False)

    test = examples["test"]
    step = split_step([test[i] for i in range(len(test))], options.margins(), 1_000_000)
    chosen, rejected = pair_rewards(model, step, World()).unbind(1)
    gap = dict(zip(step.ids, (chosen - rejected).tolist(), strict=True))
    kept = [c for c in asked if c.id in gap]
    truth = np.array([quality(c.chosen) - quality(c.rejected) for c in kept])
    ours = np.array([gap[c.id] for c in kept])

    assert np.corrcoef(ours, truth)[0, 1] > 0.9
    bayes = float(np.mean(1 / (1 + np.exp(-np.abs(truth)))))
    estimate = accuracy((ours > 0).astype(float))
    assert estimate.low <= bayes <= estimate.high, f"{estimate.value:.3f} against {bayes:.3f}"
    slope = float(np.polyfit(truth, ours, 1)[0])
    assert 0.6 < slope < 1.6, "rewards are in the truth's own units: log odds"
