"""TRL's GRPO with two reward functions: Palate's client, and a user's own few lines for vLLM.

Runs in TRL's environment. Both are asked about the same completions in every step; the policy
follows Palate's alone. Prints one line of JSON: of each step, what both answered and how long.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx2
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed
from trl import GRPOConfig, GRPOTrainer

from palate.client.trl import reward_func

Turns = list[dict[str, str]]
Reward = Callable[..., list[float | None]]


def vllm_reward(address: str, model: str) -> Reward:
    """All completions of a step in one request of rendered texts, which vLLM batches itself."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    http = httpx2.Client(base_url=address, timeout=None)

    def vllm(prompts: Sequence[Turns], completions: Sequence[Turns], **_: Any) -> list[float]:
        texts = [
            tokenizer.apply_chat_template([*prompt, *completion], tokenize=False)
            for prompt, completion in zip(prompts, completions, strict=True)
        ]
        body = {"model": model, "input": texts, "use_activation": False}
        rows = http.post("/classify", json=body).raise_for_status().json()["data"]
        return [row["probs"][0] for row in sorted(rows, key=lambda row: row["index"])]

    return vllm


class Timed:
    """A reward function that keeps what it answered and how long it took."""

    def __init__(self, name: str, reward: Reward) -> None:
        self.__name__, self._reward = name, reward
        self.calls: list[dict[str, Any]] = []

    def __call__(self, *given: Any, **named: Any) -> list[float | None]:
        started = time.perf_counter()
        rewards = self._reward(*given, **named)
        self.calls.append({"seconds": time.perf_counter() - started, "rewards": rewards})
        return rewards


def main() -> None:
    """Train, and print what both were asked and said."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--policy", required=True)
    parser.add_argument("--reward", required=True, help="the folder that both servers serve")
    parser.add_argument("--palate", required=True, help="address")
    parser.add_argument("--vllm", required=True, help="address")
    parser.add_argument("--prompts", type=Path, required=True, help="JSON: lists of turns")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--prompts-per-step", type=int, required=True)
    parser.add_argument("--generations", type=int, required=True)
    parser.add_argument("--out", required=True)
    given = parser.parse_args()
    set_seed(0)
    asked = [
        Timed("palate", reward_func(given.palate)),
        Timed("vllm", vllm_reward(given.vllm, given.reward)),
    ]
    # The folder is a classifier's; the weights are SmolLM2's, whose vocabulary head is tied.
    policy = AutoModelForCausalLM.from_pretrained(given.policy)
    policy.generation_config.use_cache = True
    started = time.perf_counter()
    GRPOTrainer(
        model=policy,
        processing_class=AutoTokenizer.from_pretrained(given.policy),
        reward_funcs=asked,
        train_dataset=Dataset.from_dict({"prompt": json.loads(given.prompts.read_text())}),
        args=GRPOConfig(
            output_dir=given.out,
            max_steps=given.steps,
            per_device_train_batch_size=given.prompts_per_step * given.generations,
            num_generations=given.generations,
            max_completion_length=64,
            reward_weights=[1.0, 0.0],
            learning_rate=1e-6,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            gradient_checkpointing=False,
            bf16=False,
        ),
    ).train()
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, **{one.__name__: one.calls for one in asked}}))


if __name__ == "__main__":
    main()
