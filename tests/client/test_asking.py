"""The steps of one request, walked by hand: no network, no clock."""

import json

import httpx2
import pytest

from palate.client.requests import Asking, Item, Send, Wait, options
from palate.types import Message, PalateError, Score

URL = "http://127.0.0.1:8000"
BREAD = (Message("user", "Bread?"),)


def asking(**chosen):
    return Asking(options(URL, {"backoff_seconds": 1.0, **chosen}))


def items(*counts):
    return [Item(BREAD, tuple(f"response {i} of {n}" for i in range(n))) for n in counts]


def row(item, response, **changes):
    known = {"reward": item + response / 8, "tokens": 5, "truncated": False, "reason": ""}
    return {"item": item, "response": response, "probability": None} | known | changes


def answer(rows, status=200, fingerprint="f1", **headers):
    body = {"model": "m", "fingerprint": fingerprint, "data": rows}
    return httpx2.Response(status, json=body, headers=headers)


def walk(steps, replies):
    """The steps until the walk ends, each `Send` given the next reply; and the scores."""
    done, reply, replies = [], None, iter(replies)
    while True:
        try:
            step = steps.send(reply)
        except StopIteration as end:
            return done, end.value
        done.append(step)
        reply = next(replies) if isinstance(step, Send) else None


def fails(asking, replies, match):
    with pytest.raises(PalateError, match=match) as caught:
        walk(asking.scores(items(1)), replies)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_request_says_items_model_and_deadline():
    rows = [row(0, 0), row(1, 0), row(1, 1)]
    told = [Item(BREAD, ("Flour.",)), Item(BREAD, ("No.", "Yes."), safety=True)]
    (step,), scores = walk(asking(model="m", timeout_seconds=9).scores(told), [answer(rows)])
    assert json.loads(step.content) == {
        "model": "m",
        "deadline_seconds": 9,
        "items": [
            {"prompt": [{"role": "user", "content": "Bread?"}], "responses": ["Flour."]},
            {
                "prompt": [{"role": "user", "content": "Bread?"}],
                "responses": ["No.", "Yes."],
                "safety_prompt": True,
            },
        ],
    }
    assert scores == [Score(0.0, tokens=5), Score(1.0, tokens=5), Score(1.125, tokens=5)]


def test_half_a_surrogate_pair_can_be_sent():
    (step,), _ = walk(asking().scores([Item(BREAD, ("\ud800",))]), [answer([row(0, 0)])])
    assert json.loads(step.content)["items"][0]["responses"] == ["\ud800"]


def test_a_response_without_a_reward_says_why():
    said = [row(0, 0, reward=None, tokens=0, reason="too long"), row(0, 1, truncated=True)]
    _, scores = walk(asking().scores(items(2)), [answer(said)])
    assert scores == [Score(None, "too long"), Score(0.125, "", True, 5)]


def test_passing_troubles_are_outlasted_with_doubling_pauses_and_one_id():
    troubles = [
        httpx2.ConnectError("refused"),
        httpx2.ReadTimeout(""),
        answer([], 503),
        answer([], 504),
        answer([row(0, 0)]),
    ]
    steps, scores = walk(asking().scores(items(1)), troubles)
    sent = [step for step in steps if isinstance(step, Send)]
    waits = [step.seconds for step in steps if isinstance(step, Wait)]
    assert len({step.headers["x-request-id"] for step in sent}) == 1
    assert [type(step) for step in steps] == [Send, Wait] * 4 + [Send]
    for doubled, seconds in zip((1, 2, 4, 8), waits, strict=True):
        assert doubled / 2 <= seconds <= doubled
    assert scores == [Score(0.0, tokens=5)]


@pytest.mark.parametrize(
    ("asked", "least", "most"), [("30", 30, 30), ("86400", 60, 60), ("0", 0.5, 1), ("soon", 0.5, 1)]
)
def test_retry_after_is_honoured_and_bounded(asked, least, most):
    replies = [answer([], 429, **{"retry-after": asked}), answer([row(0, 0)])]
    (_, wait, _), _ = walk(asking().scores(items(1)), replies)
    assert least <= wait.seconds <= most


def test_a_server_that_stays_bad_is_one_line():
    line = fails(asking(attempts=2), [answer([], 503)] * 2, "answers 503 .*, 2 times; start")
    assert line.startswith(f"{URL}/v1/reward: ")
    fails(asking(attempts=1), [httpx2.ConnectError("refused")], r"not reached \(ConnectError: ref")
    fails(asking(attempts=1), [httpx2.ReadTimeout("")], "no answer in time .*`timeout_seconds`")


@pytest.mark.parametrize(
    ("status", "cure"),
    [
        (401, "export the server's token in PALATE_TOKEN"),
        (404, "check `url` and `model`"),
        (422, "answers 422"),
        (302, "expected 200"),
    ],
)
def test_a_permanent_fault_is_one_line_at_once(status, cure):
    fails(asking(), [answer([], status)], cure)


def test_what_is_too_large_is_asked_in_halves_down_to_one_row():
    too_large = httpx2.Response(413, json={"error": {"message": "at most 2"}})
    replies = [
        too_large,  # 1 + 3 responses
        answer([row(0, 0)]),
        too_large,  # 3 responses
        too_large,  # the first of them alone
        answer([row(0, 0, reward=2.0), row(0, 1, reward=3.0)]),
    ]
    steps, scores = walk(asking().scores(items(1, 3)), replies)
    sizes = [
        [len(item["responses"]) for item in json.loads(step.content)["items"]] for step in steps
    ]
    assert sizes == [[1, 3], [1], [3], [1], [2]]
    assert [score.value for score in scores] == [0.0, None, 2.0, 3.0]
    assert scores[1].reason == "answers 413 (at most 2)"


def test_rewards_of_two_models_are_never_mixed():
    one = asking()
    walk(one.scores(items(1)), [answer([row(0, 0)])])
    walk(one.scores(items(1)), [answer([row(0, 0)])])
    fails(one, [answer([row(0, 0)], fingerprint="f2")], r"another model \(f2\).*before \(f1\)")


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [row(0, 1)],
        [row(0, 0), row(0, 1)],
        [row(0, 0, reward="1")],
        [row(0, 0, reward=True)],
        [row(0, 0, reward=10**400)],
        [{"reward": 1.0}],
        [None],
        7,
        None,
    ],
)
def test_pitfall_25_an_answer_to_other_rows_scores_nobody(rows):
    fails(asking(), [answer(rows)], "other rows than asked for")


@pytest.mark.parametrize("content", [b"<html>", b"[]", b'{"data": [{"reward": NaN}]}'])
def test_what_is_no_answer_scores_nobody(content):
    fails(asking(), [httpx2.Response(200, content=content)], "other rows than asked for")


def test_the_token_is_sent_and_in_no_message(monkeypatch):
    monkeypatch.setenv("PALATE_TOKEN", "palate_secret")
    one = asking(attempts=1)
    assert one.http["headers"]["authorization"] == "Bearer palate_secret"
    parrot = httpx2.Response(401, json={"error": {"message": "palate_secret is not known"}})
    assert r"*** is not known" in fails(one, [parrot], "401")
    assert "secret" not in fails(one, [httpx2.ConnectError("palate_secret")], "not reached")


def test_no_token_is_needed_unless_one_is_named(monkeypatch):
    monkeypatch.delenv("PALATE_TOKEN", raising=False)
    assert "authorization" not in asking().http["headers"]
    with pytest.raises(PalateError, match="variable MY_TOKEN is not set"):
        asking(token_env="MY_TOKEN")


@pytest.mark.parametrize(
    ("chosen", "match"),
    [
        ({"concurrency": 0}, "concurrency: .*greater than or equal to 1"),
        ({"timeout_seconds": 0}, "timeout_seconds: .*greater than 0"),
        ({"retries": 3}, "retries: unknown key; known: url"),
        ({"attempts": "many"}, "attempts: .*valid integer"),
    ],
)
def test_a_wrong_option_is_one_line(chosen, match):
    with pytest.raises(PalateError, match=match):
        asking(**chosen)


def test_an_address_with_a_key_is_refused_and_not_quoted():
    with pytest.raises(PalateError, match="no user, password or query") as caught:
        options("http://me:palate_secret@host", {})
    assert "secret" not in str(caught.value)
