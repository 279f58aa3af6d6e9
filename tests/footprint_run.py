"""A training in a process of its own that says how much memory it took: DTYPE, FOLDER, CONFIG.

CONFIG: a configuration of transformers as JSON, with its `model_type`; default: a small Llama.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModel

from palate.model.device import keep_memory
from palate.model.options import BaseOptions
from palate.model.reward_model import RewardModel
from palate.model.tokenizer import ChatTokens
from palate.records import write_comparisons
from palate.train.cost import Setup, memory_parts, model_stats
from palate.train.dataset import tokenise
from palate.train.loop import train
from palate.train.options import TrainOptions
from palate.types import Comparison, Message
from tiny import TEXT, tiny_model, tiny_tokenizer


def resident(what: str) -> int:
    """Bytes in memory now (VmRSS) or at most so far (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1_024 * int(line.split()[1]) for line in lines if line.startswith(what))


def main(dtype: torch.dtype, folder: Path, config: str) -> None:
    keep_memory()
    chat = ChatTokens(tiny_tokenizer(), BaseOptions(max_tokens=256))
    rng = np.random.default_rng(0)

    def words() -> str:
        return " ".join(rng.choice(TEXT.split(), rng.integers(8, 40)))

    write_comparisons(
        folder / "c.parquet",
        [Comparison(str(i), "made", (Message("user", words()),), words(), words(), str(i))
         for i in range(96)],
    )  # fmt: skip
    examples = tokenise(folder / "c.parquet", chat, folder / "t.arrow")
    prompt, chosen, rejected = map(float, examples.lengths().mean(0))
    options = TrainOptions(
        pairs_per_step=8, tokens_per_microbatch=1_024, trackers=(), learning_rate=1e-4
    )
    before = resident("VmRSS")
    model = RewardModel(made(config), chat, dtype=dtype)
    setup = Setup(
        bfloat16=dtype == torch.bfloat16, microbatch=1_024, prompt=prompt,
        response=(chosen + rejected) / 2,
    )  # fmt: skip
    said = {
        part.name: part.bytes
        for part in memory_parts(model_stats(model.backbone.config, options), setup)
    }
    train(model, examples, {}, options, folder / "run")
    took = resident("VmHWM")
    print(json.dumps({"before": before, "took": took, "said": said, "sum": sum(said.values())}))


def made(config: str) -> Any:
    """A backbone of random weights."""
    if not config:
        shape = {"hidden_size": 192, "intermediate_size": 576, "num_hidden_layers": 8}
        return tiny_model("llama", **shape)
    return AutoModel.from_config(AutoConfig.for_model(**json.loads(config)))


if __name__ == "__main__":
    main(getattr(torch, sys.argv[1]), Path(sys.argv[2]), "".join(sys.argv[3:]))
