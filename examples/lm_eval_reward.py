"""A reward model of Palate's in lm-evaluation-harness: which of K responses it gives the most.

    python examples/lm_eval_reward.py --reward runs/demo/models/helpfulness --items items.jsonl

In an environment with lm_eval 0.4.13 and palate. The harness asks for the log-likelihood of each
choice after the prompt and takes the highest; here it is handed the reward instead, so `acc` is
best-of-K accuracy, and any multiple-choice task that ships with the harness can be asked too
(`--task arc_easy`). Of equal rewards the harness takes the first, where Palate shares them.
"""

import argparse
import json
import math
from typing import Any

import lm_eval
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.task import ConfigurableTask

from palate import reward_func


class RewardModel(LM):
    """A model whose log-likelihood of an answer is its reward."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self._reward = reward_func(where)

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        prompts, responses = zip(*(request.args[:2] for request in requests), strict=True)
        # One without a reward loses. NaN would win: the harness takes numpy's argmax.
        found = self._reward(prompts, responses)
        return [(-math.inf if one is None else one, False) for one in found]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        raise NotImplementedError("a reward model has no likelihood of a text")

    def generate_until(self, requests: list[Instance]) -> list[str]:
        raise NotImplementedError("a reward model generates nothing")


def best_of_k(items: str) -> ConfigurableTask:
    """Rows of `prompt`, `responses` and `best`, the number of the right one from 0."""
    return ConfigurableTask(
        config={
            "task": "best_of_k",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": items}},
            "test_split": "test",
            "output_type": "multiple_choice",
            "doc_to_text": "prompt",
            "doc_to_choice": "responses",
            "doc_to_target": "best",
            "target_delimiter": "",  # By itself it puts a space before each response.
            "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reward", required=True, help="URL of a server, or a model's folder")
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("--items", help="JSON lines: prompt, responses, best")
    asked.add_argument("--task", help="a multiple-choice task of the harness instead")
    parser.add_argument("--limit", type=int)
    given = parser.parse_args()
    task: Any = given.task or best_of_k(given.items)
    found = lm_eval.simple_evaluate(
        RewardModel(given.reward), tasks=[task], limit=given.limit, num_fewshot=0
    )
    print(json.dumps(found["results"], default=str))


if __name__ == "__main__":
    main()
