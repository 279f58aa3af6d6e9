"""CPU seconds of a training step of hybrids, by how pairs become rows: shared, packed or padded.

    python -m benchmarks.hybrids [--families qwen3_5_text lfm2] [--pairs 16] [--repeats 5]

Random weights, forward and backward of the ranking loss. Lengths are made like HH's: prompts of
125 tokens and responses of 46 on average. `padded` is stock transformers in batches of eight
pairs, in the order given; `sorted` the same with pairs sorted by length. All take turns in one
process. Ends with a JSON line a family: medians, and the median and range of the ratio to
`shared`, round by round (CPU seconds because other work on the machine does not count).
"""

import argparse
import json
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoConfig, AutoModel

from palate.model.packing import Tokens, group, microbatches
from palate.model.precision import named_dtype
from palate.model.reward_model import RewardModel

SHAPE = {
    "vocab_size": 400, "hidden_size": 512, "intermediate_size": 1_536, "num_hidden_layers": 4,
    "num_attention_heads": 8, "num_key_value_heads": 2, "pad_token_id": 3, "bos_token_id": None,
    "eos_token_id": 2, "use_cache": False,
}  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "qwen3_5_text": {
        "head_dim": 64, "linear_num_key_heads": 4, "linear_num_value_heads": 8,
        "linear_key_head_dim": 128, "linear_value_head_dim": 128,
    },
    "granitemoehybrid": {
        "num_local_experts": 0, "shared_intermediate_size": 1_536, "mamba_n_heads": 16,
        "mamba_d_head": 64, "mamba_d_state": 128,
        "layer_types": ["mamba", "mamba", "mamba", "attention"],
    },
    "lfm2": {"layer_types": ["conv", "conv", "full_attention", "conv"]},
}  # fmt: skip
PAIRS_PER_PADDED_BATCH = 8

Pairs = Sequence[tuple[Tokens, Tokens]]


def made_pairs(count: int) -> Pairs:
    """Pairs of conversations of random tokens, in lengths like HH's."""
    rng = np.random.default_rng(0)

    def tokens(mean: float) -> Tokens:
        spread = 0.7  # Of the logarithm; assumed.
        length = rng.lognormal(np.log(mean) - spread**2 / 2, spread)
        return rng.integers(0, 400, int(np.clip(length, 3, 500)), dtype=np.int32)

    prompts = [tokens(125) for _ in range(count)]
    return [tuple(np.concatenate((p, tokens(46))) for _ in range(2)) for p in prompts]


def losses(model: RewardModel, pairs: Pairs, path: str) -> Any:
    """The ranking loss of each micro-batch."""
    if path in ("padded", "sorted"):
        if path == "sorted":
            pairs = sorted(pairs, key=lambda pair: max(map(len, pair)))
        for start in range(0, len(pairs), PAIRS_PER_PADDED_BATCH):
            rows = [row for pair in pairs[start : start + PAIRS_PER_PADDED_BATCH] for row in pair]
            yield loss(model.forward_padded(rows).reward)
    else:
        groups = [group(pair, shared=path == "shared") for pair in pairs]
        for _, part in microbatches(groups, 4_096):
            yield loss(model(part).reward)


def loss(reward: torch.Tensor) -> torch.Tensor:
    """The ranking loss of rewards in pairs."""
    return nn.functional.softplus(reward[1::2] - reward[0::2]).sum()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=FAMILIES)
    parser.add_argument("--pairs", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    asked = parser.parse_args()
    padding = SimpleNamespace(
        pad_id=3, check_rows=lambda _: None
    )  # All that is asked of a tokenizer.
    pairs = made_pairs(asked.pairs)
    for family in asked.families:
        torch.manual_seed(0)
        config = AutoConfig.for_model(family, **SHAPE | FAMILIES[family])
        model = RewardModel(AutoModel.from_config(config), padding, dtype=named_dtype(asked.dtype))
        model.train()
        seconds: dict[str, list[float]] = {p: [] for p in ("shared", "packed", "sorted", "padded")}
        for _ in range(asked.repeats + 1):  # The first warms up.
            for path, times in seconds.items():
                model.zero_grad()
                start = time.process_time()
                for part in losses(model, pairs, path):
                    part.backward()
                times.append(time.process_time() - start)
        shared = np.array(seconds["shared"][1:])
        ratios = {p: np.array(t[1:]) / shared for p, t in seconds.items()}
        print(
            json.dumps(
                {
                    "family": family,
                    "dtype": asked.dtype,
                    "pairs": asked.pairs,
                    "repeats": asked.repeats,
                    "cpu_seconds": {
                        p: round(float(np.median(t[1:])), 2) for p, t in seconds.items()
                    },
                    "over_shared": {
                        p: [round(float(f(r)), 2) for f in (np.median, np.min, np.max)]
                        for p, r in ratios.items()
                    },
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
