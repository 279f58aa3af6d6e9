"""Asks a server by the request code that OpenRLHF, verl, LLaMA-Factory and RewardHub ship.

    python benchmarks/clients/shipped.py STACK URL TOKENIZER < rows.jsonl

STACK is a name below, URL the server's address, TOKENIZER a folder with a chat template. A row
is {"prompt": text, "response": text}; the rewards, one a line, are what that stack's own code
read from the answer. Nothing of the stacks is copied: their packages are imported, and where a
package's `__init__` wants what a request does not (deepspeed, vLLM, gradio) the module that asks
is loaded from its file, unchanged.
"""

import asyncio
import importlib
import importlib.metadata
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

Row = dict[str, str]
FUNCTION = Path(__file__).parents[2] / "examples/verl_reward.py"


def openrlhf(url: str, tokenizer: Any, rows: list[Row]) -> list[float]:
    """`SingleTurnAgentExecutor`, what `--reward.remote_url` makes: a generation and its reward."""
    agent = _module("openrlhf", "openrlhf.utils.agent")
    executor = agent.SingleTurnAgentExecutor([f"{url}/get_reward"])

    async def ask(row: Row) -> float:
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": row["prompt"]}], tokenize=False, add_generation_prompt=True
        )
        engine = _Says(tokenizer(row["response"] + tokenizer.eos_token, add_special_tokens=False))
        parameters = SimpleNamespace(max_tokens=64, logprobs=None)
        found = await executor.execute(prompt, "", parameters, 1024, tokenizer, engine)
        return float(found["reward"][0])

    async def ask_all() -> list[float]:
        return await asyncio.gather(*map(ask, rows))

    return asyncio.run(ask_all())


class _Says:
    """What OpenRLHF sees of a vLLM engine; it says a response that is known beforehand."""

    def __init__(self, encoded: Any) -> None:
        self._ids = list(encoded["input_ids"])

    async def generate(self, *_: Any, **__: Any) -> Any:
        """One finished output."""
        said = SimpleNamespace(token_ids=self._ids, text="", finish_reason="stop", logprobs=None)
        return SimpleNamespace(outputs=[said])


def verl_vllm(url: str, tokenizer: Any, rows: list[Row]) -> list[float]:
    """`RewardLoopWorker` with a discriminative reward model on vLLM."""
    return _verl("vllm", url, tokenizer, rows)


def verl_sglang(url: str, tokenizer: Any, rows: list[Row]) -> list[float]:
    """`RewardLoopWorker` with a discriminative reward model on SGLang."""
    return _verl("sglang", url, tokenizer, rows)


def verl_custom(url: str, tokenizer: Any, rows: list[Row]) -> list[float]:
    """`RewardLoopWorker` with the custom reward function of examples/verl_reward.py."""
    return _verl("custom", url, tokenizer, rows)


def _verl(engine: str, url: str, tokenizer: Any, rows: list[Row]) -> list[float]:
    import numpy as np
    import torch
    from omegaconf import OmegaConf
    from verl import DataProto
    from verl.experimental.reward_loop import RewardLoopWorker

    folder, ours = tokenizer.name_or_path, engine == "custom"
    function = {"path": str(FUNCTION), "name": "compute_score", "reward_kwargs": {"url": url}}
    config = OmegaConf.create(
        {
            "actor_rollout_ref": {"model": {"path": folder, "tokenizer_path": None}},
            "reward": {
                "custom_reward_function": function if ours else {"path": None},
                "reward_manager": {"source": "register", "name": "naive"},
                "reward_model": {
                    "enable": not ours,
                    "model_path": folder,
                    "rollout": {"name": engine},
                },
                "sandbox_fusion": None,
            },
        }
    )

    def data(row: Row) -> Any:
        ids = tokenizer(row["response"] + tokenizer.eos_token, add_special_tokens=False)
        responses = torch.tensor([ids["input_ids"]])
        turns = _turns(row)[:1]
        known = {
            "raw_prompt": turns,
            "extra_info": {"messages": turns},
            "data_source": "",
            "reward_model": {"ground_truth": ""},
        }
        objects = {name: np.array([None], dtype=object) for name in known}
        for name, value in known.items():
            objects[name][0] = value
        mask = torch.ones_like(responses)
        return DataProto.from_dict({"responses": responses, "attention_mask": mask}, objects)

    async def ask_all() -> list[float]:
        worker = RewardLoopWorker(config, urlsplit(url).netloc)
        found = await asyncio.gather(*(worker.compute_score(data(row)) for row in rows))
        return [float(one["reward_score"]) for one in found]

    return asyncio.run(ask_all())


def llamafactory(url: str, tokenizer: Any, rows: list[Row]) -> list[float]:
    """`get_rewards_from_server`, what `reward_model_type: api` calls."""
    module = _module("llamafactory", "llamafactory.train.ppo.ppo_utils")
    texts = [_written(tokenizer, row) for row in rows]
    return module.get_rewards_from_server(f"{url}/v1/score/evaluation", texts).tolist()


def reward_hub(url: str, tokenizer: Any, rows: list[Row]) -> list[float]:
    """`HTTPClient.post_reward_requests`, one conversation a request."""
    module = _module("reward_hub", "reward_hub.openai.vllm_client")
    parts = urlsplit(url)
    client = module.HTTPClient(parts.hostname, parts.port, tokenizer.name_or_path)
    found = client.post_reward_requests([_turns(row) for row in rows])
    return [float(one["data"][0]["data"][0]) for one in found]


def _turns(row: Row) -> list[dict[str, str]]:
    return [
        {"role": "user", "content": row["prompt"]},
        {"role": "assistant", "content": row["response"]},
    ]


def _written(tokenizer: Any, row: Row) -> str:
    return str(tokenizer.apply_chat_template(_turns(row), tokenize=False))


def _module(distribution: str, name: str) -> ModuleType:
    """The module as the distribution ships it, without the `__init__` of packages above it."""
    root = Path(str(importlib.metadata.distribution(distribution).locate_file("")))
    parts = name.split(".")
    for depth in range(1, len(parts)):
        package = ModuleType(".".join(parts[:depth]))
        package.__path__ = [str(root.joinpath(*parts[:depth]))]
        sys.modules[package.__name__] = package
    return importlib.import_module(name)


STACKS = {
    "openrlhf": openrlhf,
    "verl-vllm": verl_vllm,
    "verl-sglang": verl_sglang,
    "verl-custom": verl_custom,
    "llamafactory": llamafactory,
    "reward-hub": reward_hub,
}


def main() -> None:
    """Rewards of stdin's rows on stdout."""
    from transformers import AutoTokenizer

    stack, url, folder = sys.argv[1:]
    rows = [json.loads(line) for line in sys.stdin]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for reward in STACKS[stack](url, tokenizer, rows):
        print(json.dumps(reward))


if __name__ == "__main__":
    main()
