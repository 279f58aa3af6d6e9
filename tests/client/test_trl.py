"""Reward functions called as TRL's trainers call them; the trainer itself is in test_stacks."""

import asyncio
import inspect
import pickle

import pytest

from palate.client.trl import async_reward_func, reward_func
from palate.types import PalateError
from troubled import ROWS, messages

STATE = {"trainer_state": object(), "log_extra": print, "log_metric": print}


def text_rows():
    return [(prompt, response) for prompt, response in ROWS if isinstance(prompt, str)]


def turns(prompt):
    return [{"role": turn.role, "content": turn.content} for turn in messages(prompt)]


def called(func, prompts, completions, **columns):
    """As GRPOTrainer._calculate_rewards calls it."""
    ids = [[0]] * len(prompts)
    given = {"prompts": prompts, "completions": completions, "completion_ids": ids}
    if not inspect.iscoroutinefunction(func.__call__):
        return func(**given, **columns, **STATE)

    async def awaited():
        async with func.client:
            return await func(**given, **columns, **STATE)

    return asyncio.run(awaited())


@pytest.fixture(params=["served", "awaited", "local"])
def func(request, url, folder):
    """Each is sent to another process first, as asynchronous trainers do."""
    made = {"served": reward_func, "awaited": async_reward_func, "local": reward_func}
    where = str(folder) if request.param == "local" else url
    func = pickle.loads(pickle.dumps(made[request.param](where)))  # noqa: S301
    yield func
    if request.param == "served":
        func.client.close()


def test_text_completions(func, offline):
    prompts, responses = zip(*text_rows(), strict=True)
    found = called(func, list(prompts), list(responses), answer=["x"] * len(prompts))
    assert found == pytest.approx(offline(text_rows()), abs=1e-5)


def test_conversations(func, offline):
    prompts = [turns(prompt) for prompt, _ in ROWS]
    completions = [[{"role": "assistant", "content": response}] for _, response in ROWS]
    assert called(func, prompts, completions) == pytest.approx(offline(), abs=1e-5)


def test_the_last_of_several_turns_is_the_response(func, offline):
    completion = turns("And you?")
    completion.insert(0, {"role": "assistant", "content": "I am fine."})
    completion.append({"role": "assistant", "content": "Thank you!"})
    row = ([*turns("How are you?"), *completion[:-1]], "Thank you!")
    assert called(func, [turns("How are you?")], [completion]) == pytest.approx(
        offline([row]), abs=1e-5
    )


def test_what_ends_in_no_response_has_no_reward_and_its_neighbours_have(func, offline):
    call = {"role": "assistant", "content": None, "tool_calls": [{"type": "function"}]}
    blue = {"role": "assistant", "content": "Blue."}
    reasoned = [blue | {"reasoning_content": "The sea."}]  # Read without it, it were another.
    completions = [[call], [], turns("A user's turn"), reasoned, [blue]]
    flags = [True, True, True, True, False]
    found = called(func, [turns("Sea?")] * 5, completions, safety_prompt=flags)
    assert found[:4] == [None, None, None, None]
    assert found[4:] == pytest.approx(offline([("Sea?", "Blue.")]), abs=1e-5)


def test_trl_knows_by_the_call_which_to_await_and_logs_a_name(url, folder):
    """`trl.trainer.utils.is_async_callable` and `get_callable_name` read these."""
    assert inspect.iscoroutinefunction(async_reward_func(url).__call__)
    assert not inspect.iscoroutinefunction(reward_func(url).__call__)
    assert reward_func(url).__name__ == "palate"
    assert async_reward_func(url, model="safety").__name__ == "safety"
    assert reward_func(folder).__name__ == "helpful"


def test_what_cannot_be_is_one_line(folder, tmp_path):
    with pytest.raises(PalateError, match="concurrency is for a server"):
        reward_func(folder, concurrency=3)
    with pytest.raises(PalateError):
        reward_func(tmp_path / "nothing")
    with pytest.raises(PalateError, match="expected http"):
        async_reward_func("runs/demo")
