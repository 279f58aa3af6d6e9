"""One arm learnt by Palate's trainer, and its reward differences on the held-out pairs."""

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

from benchmarks.judgements.arms import Arm
from palate.model.loading import start_model
from palate.model.options import BaseOptions
from palate.model.reward_model import RewardModel
from palate.model.tokenizer import ChatTokens
from palate.records import write_comparisons
from palate.train.batching import split_step
from palate.train.dataset import Examples, tokenise
from palate.train.distributed import Distributed
from palate.train.loop import train
from palate.train.loss import with_tie_share
from palate.train.options import TrainOptions
from palate.train.validation import pair_rewards
from palate.types import Comparison

Start = Callable[[int], RewardModel]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"]
WIDTH, LAYERS = 128, 2


def small_model(texts: Sequence[Comparison]) -> Start:
    """A decoder that knows nothing: two layers of width 128, and the words of `texts`."""
    words = Tokenizer(models.WordLevel(unk_token=SPECIAL[0]))
    words.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    trainer = trainers.WordLevelTrainer(  # type: ignore[call-arg]
        vocab_size=6_000, min_frequency=2, special_tokens=SPECIAL, show_progress=False
    )
    spoken = (text for c in texts for text in (c.prompt[0].content, c.chosen, c.rejected))
    words.train_from_iterator(spoken, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        unk_token=SPECIAL[0],
        eos_token=SPECIAL[2],
        pad_token=SPECIAL[3],
        additional_special_tokens=[SPECIAL[1]],
        clean_up_tokenization_spaces=False,
    )
    chat = ChatTokens(tokenizer, BaseOptions(template="chatml", max_tokens=256))
    config = AutoConfig.for_model(
        "llama",
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=1_024,
        initializer_range=0.05,
        use_cache=False,
    )

    def start(seed: int) -> RewardModel:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return RewardModel(AutoModel.from_config(config).eval(), chat, seed=seed)

    return start


def smollm2(layers: int) -> Start:
    """The first layers of SmolLM2-135M-Instruct with a new head."""
    base = BaseOptions(layers=layers, template="chatml", max_tokens=256)
    return lambda seed: start_model(base, seed=seed)[0]


def options_of(
    arm: Arm, rows: int, steps: int, epochs: int, seed: int, **more: Any
) -> TrainOptions:
    """Every arm takes `steps` steps in `epochs` passes, whatever its rows: their batch follows."""
    return TrainOptions(
        loss=arm.loss,  # type: ignore[arg-type]
        tie_share=arm.tie_share,
        pairs_per_step=max(6, math.ceil(rows * epochs / steps)),
        epochs=epochs,
        seed=seed,
        trackers=(),
        save_every_minutes=600,
        eval_rows=0,
        **more,
    )


def tokens(model: RewardModel, rows: Iterable[Comparison], folder: Path, name: str) -> Examples:
    """The rows as a token file in `folder`."""
    write_comparisons(folder / f"{name}.parquet", rows)
    return tokenise(folder / f"{name}.parquet", model.chat, folder / f"{name}.arrow", workers=1)


def learn(
    model: RewardModel,
    arm: Arm,
    examples: Examples,
    steps: int,
    epochs: int,
    seed: int,
    **more: Any,
) -> tuple[int, float | None]:
    """Train `model` on the arm; how many rows it learnt from, and the share of ties of its loss."""
    rows = len(examples.decided()) if arm.loss == "ranking" else len(examples)
    options = options_of(arm, rows, steps, epochs, seed, **more)
    with TemporaryDirectory(prefix="palate-judgements-") as folder:
        train(model, examples, {}, options, Path(folder), name=arm.name, resume=False)
    return rows, with_tie_share(options, examples.shares()[:, 1]).tie_share


def differences(model: RewardModel, asked: Examples, ids: Sequence[str]) -> list[float]:
    """Reward of chosen less that of rejected, in the order of `ids`; NaN where not tokenised."""
    gap = {}
    rows = [asked[place] for place in range(len(asked))]
    for start in range(0, len(rows), 256):
        step = split_step(rows[start : start + 256], TrainOptions().margins(), 8_192)
        chosen, rejected = pair_rewards(model, step, Distributed()).unbind(1)
        gap |= dict(zip(step.ids, (chosen - rejected).tolist(), strict=True))
    return [gap.get(name, math.nan) for name in ids]
