"""Tiny chat checkpoints that speak, and a real endpoint that serves one with its logprobs."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from answering import Behaviour, Reply, message, says
from tiny import tiny_config, tiny_tokenizer


def save_speaker(folder: Path, family: str, *, tokenizer: Any = None, seed: int = 0) -> Path:
    """A whole chat checkpoint of `family` with seeded random weights and its vocabulary head."""
    tokenizer = tiny_tokenizer() if tokenizer is None else tokenizer
    config = tiny_config(family, len(tokenizer), initializer_range=0.1)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def speaks(folder: Path) -> Behaviour:
    """What a server of the checkpoint answers: one greedy token, and the likeliest with it."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()

    @torch.inference_mode()
    def behave(body: dict[str, Any], _before: int) -> Reply:
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": message(body)}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=False,
        )
        values = model(ids).logits[0, -1].log_softmax(-1)
        count = int(body.get("top_logprobs", 1))
        best = values.topk(count)
        top = {
            tokenizer.decode([token]): value
            for token, value in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        }
        return says(next(iter(top)), top=top, finish_reason="length")

    return behave
