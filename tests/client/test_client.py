"""Both clients against Palate's own server: the offline rewards, whatever happens on the way."""

import asyncio
import socket
import subprocess
import sys
from dataclasses import replace

import pytest

import palate
from palate.serve.auth import Tokens, add_token
from palate.serve.settings import Limits, Settings
from palate.types import PalateError
from server import live, server_of
from troubled import HANG_UP, HOLD, ROWS

QUICK = {"backoff_seconds": 0.001}
KINDS = pytest.mark.parametrize("kind", ["threads", "tasks"])


def score(kind, url, rows=ROWS, **chosen):
    if kind == "threads":
        with palate.RewardClient(url, **chosen) as client:
            return client.score(rows)

    async def ask():
        async with palate.AsyncRewardClient(url, **chosen) as client:
            return await client.score(rows)

    return asyncio.run(ask())


def values(scores):
    return [score.value for score in scores]


@KINDS
@pytest.mark.parametrize("chosen", [{}, {"responses_per_request": 1}, {"model": "helpful"}])
def test_pitfall_30_the_served_reward_is_the_offline_one(kind, chosen, url, offline):
    scores = score(kind, url, **chosen)
    assert values(scores) == pytest.approx(offline(), abs=1e-5)
    assert all(score.tokens > 3 and not score.truncated for score in scores)


def test_one_response_or_all_of_a_prompt(url, offline):
    (prompt, first), (_, second) = ROWS[:2]
    expected = pytest.approx(offline()[:2], abs=1e-5)
    with palate.RewardClient(url) as client:
        assert [client.reward(prompt, first), client.reward(prompt, second)] == expected
        assert client.rewards(prompt, [first, second]) == expected
        assert client.rewards(prompt, []) == []

    async def ask():
        async with palate.AsyncRewardClient(url) as client:
            one = await asyncio.gather(client.reward(prompt, first), client.reward(prompt, second))
            assert await client.rewards(prompt, [first, second]) == expected
            return one

    assert asyncio.run(ask()) == expected


def test_a_response_that_is_too_long_has_no_reward_and_says_why(url):
    long = "sea " * 2000
    with palate.RewardClient(url) as client:
        (score,) = client.score([("Sea?", long)])
        assert (score.value, score.reason) == (None, "the response alone exceeds max_tokens")
        with pytest.raises(PalateError, match="no reward: the response alone exceeds"):
            client.reward("Sea?", long)
        (cut,) = client.score([(long, "Blue.")])
        assert cut.truncated


@KINDS
def test_troubles_on_the_way_change_nothing(kind, troubled, offline):
    """Each of the first requests meets one: too busy, hung up on, down."""
    faults = {0: 429, 1: HANG_UP, 2: 503, 4: 500, 5: HANG_UP}
    with troubled(faults.get) as (url, app):
        found = score(kind, url, responses_per_request=1, concurrency=2, **QUICK)
        assert values(found) == pytest.approx(offline(), abs=1e-5)
        assert app.requests == len(ROWS) + len(faults)


@KINDS
def test_requests_go_out_together_and_no_more_than_allowed(kind, troubled, offline):
    """Each waits at the server for two others, so one at a time would never end."""
    with troubled(gather=3) as (url, app):
        found = score(kind, url, responses_per_request=1, concurrency=3)
        assert values(found) == pytest.approx(offline(), abs=1e-5)
        assert app.most == 3


@KINDS
def test_too_large_for_the_server_is_asked_in_parts(kind, folder, offline):
    settings = Settings(limits=Limits(conversations_per_request=2))
    rows = [*ROWS, ("What is the sea?", "blue " * 30)]
    with live(server_of({"helpful": str(folder)}, settings, max_characters=90)) as running:
        scores = score(kind, running.url, rows)
    assert values(scores[:-1]) == pytest.approx(offline(), abs=1e-5)
    assert scores[-1].value is None
    assert "answers 413" in scores[-1].reason


@KINDS
def test_one_failure_ends_the_others_waiting(kind, troubled):
    """The first request would be asked again after an hour."""
    with troubled(lambda number: 422 if number else 503) as (url, _):
        hour = {"backoff_seconds": 7200.0, "longest_wait_seconds": 7200.0}
        with pytest.raises(PalateError, match="answers 422"):
            score(kind, url, responses_per_request=1, concurrency=2, **hour)


@KINDS
def test_a_server_that_is_down_is_one_line(kind):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(PalateError, match=r"cannot be reached .*, 2 times; start") as caught:
            score(kind, url, attempts=2, **QUICK)
    assert "\n" not in str(caught.value)


@KINDS
def test_the_token_comes_from_the_environment(kind, folder, tmp_path, monkeypatch, offline):
    token = add_token(tmp_path / "tokens", "trainer")
    server = replace(server_of({"helpful": str(folder)}), tokens=Tokens(tmp_path / "tokens"))
    monkeypatch.delenv("PALATE_TOKEN", raising=False)
    with live(server) as running:
        with pytest.raises(PalateError, match=r"answers 401 .*token in PALATE_TOKEN"):
            score(kind, running.url)
        monkeypatch.setenv("PALATE_TOKEN", token)
        assert values(score(kind, running.url)) == pytest.approx(offline(), abs=1e-5)


def test_an_unknown_model_is_one_line(url):
    with pytest.raises(PalateError, match=r"no model 'safe'; known: helpful.*check `url` and"):
        score("threads", url, model="safe")


def test_turns_that_a_template_cannot_hold_are_one_line(url):
    with pytest.raises(PalateError, match="answers 422"):
        score("threads", url, [([], "An answer to nothing.")])


def test_nothing_asked_is_nothing_answered(url):
    assert score("threads", url, []) == score("tasks", url, []) == []


def test_a_cancelled_caller_leaves_no_request_behind(troubled):
    """Its request is at the server, which holds it until the client ends it."""

    async def ask(url, app):
        async with palate.AsyncRewardClient(url, timeout_seconds=600) as client:
            task = asyncio.create_task(client.reward("Sea?", "Blue."))
            await asyncio.to_thread(app.held.wait)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(app.gone.wait, 60)

    with troubled(lambda _: HOLD) as (url, app):
        asyncio.run(ask(url, app))


def test_importing_palate_imports_no_client_and_the_client_no_torch():
    code = """
import sys, palate
assert not {"httpx2", "pydantic", "torch"} & sys.modules.keys()
assert "RewardClient" in palate.__all__
palate.RewardClient("http://127.0.0.1:1").close()
import palate.client.trl
assert not {"torch", "transformers", "pyarrow", "numpy"} & sys.modules.keys()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_palate_has_no_other_names():
    with pytest.raises(AttributeError, match="no attribute 'Reward'"):
        palate.Reward  # noqa: B018
