"""A known Bradley-Terry truth is recovered: the trainer reaches the Bayes limit, and no more.

An annotator prefers the better response with probability sigmoid(difference in latent quality).
The best possible judge agrees with that annotator with the mean of sigmoid(|difference|), which
is known exactly. Once the responses are lists of words, each worth a known amount; once, slowly,
they are the simulated campaign's texts, of two task families that an untaught model can read.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from palate.data.simulation import CampaignOptions, simulate
from palate.model.options import BaseOptions
from palate.model.reward_model import RewardModel
from palate.model.tokenizer import ChatTokens
from palate.records import write_comparisons
from palate.stats import accuracy, tie_calibration, tie_model
from palate.train.batching import split_step
from palate.train.dataset import tokenise
from palate.train.distributed import Distributed
from palate.train.loop import train
from palate.train.options import TrainOptions
from palate.train.validation import pair_rewards
from palate.types import Comparison, Judgement, Message
from tiny import CHATML, END, PAD, START, TEXT_END, tiny_model, tiny_tokenizer

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


def gaps(
    model: RewardModel,
    trained: Iterable[Comparison],
    asked: Sequence[Comparison],
    options: TrainOptions,
    folder: Path,
) -> NDArray[np.float64]:
    """Train `model`, and its reward differences, chosen minus rejected, [N], for all of `asked`."""
    sets = {}
    for name, rows in (("trained", trained), ("asked", asked)):
        write_comparisons(folder / f"{name}.parquet", rows)
        table = folder / f"{name}.arrow"
        sets[name] = tokenise(folder / f"{name}.parquet", model.chat, table)
    train(model, sets["trained"], {}, options, folder, resume=False)
    test = sets["asked"]
    step = split_step([test[i] for i in range(len(test))], options.margins(), 100_000)
    chosen, rejected = pair_rewards(model, step, Distributed()).unbind(1)
    gap = dict(zip(step.ids, (chosen - rejected).tolist(), strict=True))
    return np.array([gap.get(c.id, math.nan) for c in asked])


def test_rewards_follow_the_truth_and_accuracy_reaches_the_bayes_limit(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    asked = list(campaign(rng, ASKED, "test"))
    trained = list(campaign(rng, TRAINED, "train"))
    chat = ChatTokens(tiny_tokenizer(), BaseOptions(max_tokens=64))
    model = RewardModel(tiny_model("llama", num_hidden_layers=2), chat)
    options = TrainOptions(pairs_per_step=32, learning_rate=3e-3, epochs=4, trackers=())
    ours = gaps(model, trained, asked, options, tmp_path)
    known = ~np.isnan(ours)
    ours = ours[known]
    truth = np.array([quality(c.chosen) - quality(c.rejected) for c in asked])[known]

    assert np.corrcoef(ours, truth)[0, 1] > 0.9
    bayes = float(np.mean(1 / (1 + np.exp(-np.abs(truth)))))
    estimate = accuracy((ours > 0).astype(float))
    assert estimate.low <= bayes <= estimate.high, f"{estimate.value:.3f} against {bayes:.3f}"
    slope = float(np.polyfit(truth, ours, 1)[0])
    assert 0.6 < slope < 1.6, "rewards are in the truth's own units: log odds"


@pytest.mark.slow
def test_a_tie_threshold_is_recovered_from_what_rao_and_kuppers_loss_learns(tmp_path: Path) -> None:
    """Who perceives less than a logit says tie: rewards are in logits, and tell how often."""
    rng, known = np.random.default_rng(11), 1.0
    rows = []
    for row in campaign(rng, TRAINED + 4 * ASKED, "ties"):
        # The first side by chance, for a tie names none.
        first, second = (row.chosen, row.rejected)[:: rng.choice((1, -1))]
        perceived = quality(first) - quality(second) + rng.logistic()
        tie, won = abs(perceived) < known, perceived > 0
        sides = (first, second) if won or tie else (second, first)
        said = Judgement(0, tie=1) if tie else Judgement()
        rows.append(replace(row, chosen=sides[0], rejected=sides[1], judgement=said))
    trained, asked = rows[:TRAINED], rows[TRAINED:]
    chat = ChatTokens(tiny_tokenizer(), BaseOptions(max_tokens=64))
    model = RewardModel(tiny_model("llama", num_hidden_layers=2), chat)
    options = TrainOptions(
        loss="rao-kupper", tie_share=math.tanh(known / 2),
        pairs_per_step=32, learning_rate=3e-3, epochs=4, trackers=(),
    )  # fmt: skip
    ours = gaps(model, trained, asked, options, tmp_path)
    truth = np.array([quality(c.chosen) - quality(c.rejected) for c in asked])
    shares = np.array([c.judgement.shares for c in asked])
    correlation = np.corrcoef(ours[~np.isnan(ours)], truth[~np.isnan(ours)])[0, 1]
    best, found = tie_model(truth, shares), tie_model(ours, shares)
    assert best is not None
    assert found is not None
    made = tie_calibration(ours, shares, None, np.random.default_rng(0))
    assert made is not None
    print(
        f"correlation {correlation:.3f}, threshold {found.threshold:.3f} ({best.threshold:.3f} by "
        f"the truth), temperature {found.temperature:.2f}, ECE {made.calibration.ece.value:.3f}"
    )
    assert correlation > 0.9
    assert found.threshold == pytest.approx(known, abs=0.2)
    assert 0.6 < found.temperature < 1.6
    assert made.calibration.ece.low == 0


def word_tokenizer(rows: Iterable[Comparison]) -> Any:
    """A tokenizer that knows the words of `rows`."""
    words = Tokenizer(models.WordLevel(unk_token=TEXT_END))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    special = [TEXT_END, START, END, PAD]
    trainer = trainers.WordLevelTrainer(
        vocab_size=6_000, min_frequency=3, special_tokens=special, show_progress=False
    )
    texts = (text for c in rows for text in (c.prompt[0].content, c.chosen, c.rejected))
    words.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        eos_token=END,
        unk_token=TEXT_END,
        pad_token=PAD,
        additional_special_tokens=[START],
        chat_template=CHATML,
        clean_up_tokenization_spaces=False,
    )


@pytest.mark.slow
def test_a_small_model_reaches_the_bayes_limit_of_the_simulated_campaign(tmp_path: Path) -> None:
    families = ("reply", "borderline")
    big = CampaignOptions(weeks=20, comparisons_per_week=2_000, families=families)
    trained = list(simulate(big, seed=1))
    small = CampaignOptions(weeks=1, comparisons_per_week=800, families=families)
    asked = list(simulate(small, seed=2))
    chat = ChatTokens(word_tokenizer(trained), BaseOptions(max_tokens=256))
    shape = {"hidden_size": 128, "intermediate_size": 256, "num_key_value_heads": 4}
    backbone = tiny_model("llama", len(chat.tokenizer), initializer_range=0.05, **shape)
    options = TrainOptions(pairs_per_step=64, learning_rate=1e-3, epochs=3, trackers=())
    ours = gaps(RewardModel(backbone, chat), trained, asked, options, tmp_path)
    truth = np.array([c.meta["utility_difference"] for c in asked])

    assert not np.isnan(ours).any()
    correlation = np.corrcoef(ours, truth)[0, 1]
    # The best judge there is, on these very annotations: it knows which response is better.
    best = float(np.where(truth == 0, 0.5, truth > 0).mean())
    estimate = accuracy((ours > 0).astype(float), clusters=[c.prompt_id for c in asked])
    found = f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}] of {best:.3f}"
    print(f"{found}, correlation {correlation:.3f}")
    assert correlation > 0.85
    assert estimate.low <= best <= estimate.high, found
