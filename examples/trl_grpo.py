"""TRL's GRPO with a reward model of Palate's: a server's, or a checkpoint's in this process.

    palate serve runs/llama2/models/helpfulness &
    python examples/trl_grpo.py --policy Qwen/Qwen3-0.6B --reward http://127.0.0.1:8000

In an environment with trl 1.16 and palate. Prints the mean reward of every step as a line of JSON.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import set_seed
from trl import GRPOConfig, GRPOTrainer

from palate.client.trl import async_reward_func, reward_func

QUESTIONS = (
    "How do I bake bread?",
    "What is the capital of France?",
    "Please write a short poem about the sea.",
    "Which of these two answers is better, and why?",
)


def asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--policy", required=True, help="chat checkpoint: a folder or a hub id")
    parser.add_argument(
        "--reward", required=True, help="URL of a server, or a reward model's folder"
    )
    parser.add_argument("--model", help="the reward model's name, where a server has several")
    parser.add_argument("--awaited", action="store_true", help="use the asynchronous function")
    parser.add_argument("--out", type=Path, default=Path(".scratch/grpo"))
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--learning-rate", type=float, default=1e-6)
    parser.add_argument("--generations", type=int, default=8, help="of one prompt")
    parser.add_argument("--max-tokens", type=int, default=64, help="of a completion")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def reward_of(options: argparse.Namespace) -> Any:
    named = {"model": options.model} if options.model else {}
    if options.awaited:
        return async_reward_func(options.reward, **named)
    return reward_func(options.reward, **named)


def main() -> None:
    options = asked()
    set_seed(options.seed)
    prompts = [[{"role": "user", "content": question}] for question in QUESTIONS]
    trainer = GRPOTrainer(
        model=options.policy,
        reward_funcs=reward_of(options),
        train_dataset=Dataset.from_dict({"prompt": prompts * options.steps}),
        args=GRPOConfig(
            output_dir=str(options.out),
            max_steps=options.steps,
            # Every prompt in every step, so that the mean reward is of one set of prompts.
            per_device_train_batch_size=len(QUESTIONS) * options.generations,
            num_generations=options.generations,
            max_completion_length=options.max_tokens,
            learning_rate=options.learning_rate,
            lr_scheduler_type="constant",
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            seed=options.seed,
            bf16=False,
            gradient_checkpointing=False,
        ),
    )
    trainer.train()
    for row in trainer.state.log_history:
        if "reward" in row:
            print(json.dumps({"step": row["step"], "reward": row["reward"]}))


if __name__ == "__main__":
    main()
