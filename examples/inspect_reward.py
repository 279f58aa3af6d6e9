"""A reward model of Palate's as scorers of Inspect: of what a model writes, and of the best of K.

    inspect eval examples/inspect_reward.py@best_of_k --model none \
        -T where=runs/demo/models/helpfulness -T items=items.jsonl
    inspect eval examples/inspect_reward.py@answers --model openai/gpt-5.5 \
        -T where=http://127.0.0.1:8000 -T items=items.jsonl

In an environment with inspect_ai 0.3.285 and palate. `where` is a server's URL or the folder of a
reward model; `items` has a row an item: `prompt`, and for best_of_k `responses` and `best`, the
number of the right one from 0.
"""

import json
from collections.abc import Callable
from pathlib import Path

from anyio import to_thread
from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.scorer import Score, Scorer, Target, accuracy, mean, scorer, stderr
from inspect_ai.solver import TaskState, generate

from palate import reward_func

CLUSTER = "prompt"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"  # Of the responses, as Inspect names choices.


def rewards_of(where: str) -> Callable[..., list[float | None]]:
    return reward_func(where)


@scorer(metrics=[mean(), stderr(cluster=CLUSTER)])
def reward(where: str) -> Scorer:
    """The raw reward of what the model wrote; without one the sample is unscored."""
    ask = rewards_of(where)

    async def score(state: TaskState, _target: Target) -> Score:
        turns = [{"role": m.role, "content": m.text} for m in state.messages[:-1]]
        (found,) = await to_thread.run_sync(ask, [turns], [state.output.completion])
        if found is None:
            return Score.unscored(explanation="no reward: too long, or empty")
        return Score(value=found, answer=state.output.completion)

    return score


@scorer(metrics=[accuracy(), stderr(cluster=CLUSTER)])
def best(where: str) -> Scorer:
    """The right response's share of the highest reward, as Palate counts it: ties are shared."""
    ask = rewards_of(where)

    async def score(state: TaskState, target: Target) -> Score:
        texts = [choice.value for choice in state.choices]
        found = await to_thread.run_sync(ask, [state.input_text] * len(texts), texts)
        known = [one for one in found if one is not None]
        if len(known) < len(texts):
            return Score.unscored(explanation="a response without a reward")
        top = [n for n, one in enumerate(known) if one == max(known)]
        right = LETTERS.index(target.text)
        return Score(value=(right in top) / len(top), metadata={"rewards": known})

    return score


def samples(items: str) -> MemoryDataset:
    lines = Path(items).read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines if line.strip()]
    return MemoryDataset(
        [
            Sample(
                id=number,
                input=row["prompt"],
                choices=row.get("responses"),
                target=LETTERS[row["best"]] if "responses" in row else "",
                metadata={CLUSTER: row["prompt"]},
            )
            for number, row in enumerate(rows)
        ]
    )


@task
def best_of_k(where: str, items: str) -> Task:
    """Does the reward model find the right response? Nothing is generated."""
    return Task(samples(items), solver=[], scorer=best(where))


@task
def answers(where: str, items: str) -> Task:
    """How well a model writes, by the reward model."""
    return Task(samples(items), solver=[generate()], scorer=reward(where))
