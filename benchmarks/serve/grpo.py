"""The reward step of a training loop: TRL's GRPO asks Palate and vLLM about the same completions.

    python -m benchmarks.serve.grpo [--layers 6] [--steps 8] [--dtype bfloat16]

Both serve one checkpoint, on the same CPU; in every step of one training each is asked about all
completions of that step, one server after the other. The prompts are HH's; the policy is SmolLM2's
first layers, whose text is no sense but costs as much to score. Ends with one JSON line; the first
step is left out of the times. `make bench-serve PEER=vllm` and `make bench-train` make the
environments.
"""

import argparse
import json
import random
import subprocess
from contextlib import ExitStack
from statistics import median, pstdev
from typing import Any

from benchmarks.peers.contender import DTYPES, HERE, TRL, WORK, environment
from benchmarks.peers.prepare import prepared
from benchmarks.serve.asked import served_model
from benchmarks.serve.served import palate_serve, vllm_serve

FOLDER = WORK / "grpo"


def main() -> None:
    """Start both servers, train, compare."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--layers", type=int, default=6, help="of the reward model")
    parser.add_argument("--policy-layers", type=int, default=4)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--prompts", type=int, default=4, help="a step")
    parser.add_argument("--generations", type=int, default=8, help="of a prompt")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    given = parser.parse_args()
    model, pairs, _ = served_model(given.layers)
    policy, _ = prepared(given.policy_layers)
    FOLDER.mkdir(parents=True, exist_ok=True)
    drawn = random.Random(4).sample(pairs, given.steps * given.prompts)
    prompts = FOLDER / "prompts.json"
    prompts.write_text(json.dumps([row["prompt"] for row in drawn]), encoding="utf-8")
    with ExitStack() as stack:
        vllm = stack.enter_context(vllm_serve(model, given.dtype, given.threads))
        ours = palate_serve("palate", given.threads, model, "--dtype", given.dtype)
        palate = stack.enter_context(ours)
        command = [
            TRL, "-m", "benchmarks.serve.grpo_trainer", "--policy", policy, "--reward", model,
            "--palate", palate.address, "--vllm", vllm.address, "--prompts", prompts,
            "--steps", given.steps, "--prompts-per-step", given.prompts,
            "--generations", given.generations, "--out", FOLDER / "out",
        ]  # fmt: skip
        variables = environment(given.threads) | {"PYTHONPATH": str(HERE.parent / "src")}
        done = subprocess.run(
            list(map(str, command)),
            cwd=HERE.parent,
            env=variables,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(json.dumps(compared(found) | vars(given)))


def compared(found: dict[str, Any]) -> dict[str, Any]:
    """Times and rewards of both, step by step; the first step warms up."""
    ours, theirs = found["palate"][1:], found["vllm"][1:]
    ratios = [b["seconds"] / a["seconds"] for a, b in zip(ours, theirs, strict=True)]
    rewards = [reward for call in ours for reward in call["rewards"]]
    others = [reward for call in theirs for reward in call["rewards"]]
    return {
        "benchmark": "grpo",
        "vs_vllm_reward_step": round(median(ratios), 3),
        "range": [round(min(ratios), 3), round(max(ratios), 3)],
        "seconds_palate": round(median(call["seconds"] for call in ours), 4),
        "seconds_vllm": round(median(call["seconds"] for call in theirs), 4),
        "seconds_of_training": round(found["seconds"], 1),
        "completions": len(rewards),
        "max_difference": max(abs(a - b) for a, b in zip(rewards, others, strict=True)),
        "reward_spread": round(pstdev(rewards), 3),
    }


if __name__ == "__main__":
    main()
