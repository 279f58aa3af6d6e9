"""From rows to requests, and from answers to scores, without a network or a clock."""

import json

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.client import RewardClient
from palate.client.requests import Item, batches, conversation, halves, parse_options, turns
from palate.types import Message, PalateError, Score

URL = "http://127.0.0.1:8000"
BREAD = (Message("user", "Bread?"),)
ROWS = st.lists(
    st.tuples(st.sampled_from(["a", "bb", "ccc"]), st.text("xy", max_size=9)), max_size=20
)


def bounded(rows, safety=None, **chosen):
    return list(batches(rows, safety, parse_options("http://h", chosen)))


def flat(asked):
    """The rows again."""
    return [
        (item.prompt[0].content, response)
        for items in asked
        for item in items
        for response in item.responses
    ]


@settings(max_examples=50)
@given(ROWS, st.integers(1, 7), st.integers(1, 40))
def test_every_row_is_asked_once_in_order_within_the_bounds(rows, most, characters):
    asked = bounded(rows, responses_per_request=most, characters_per_request=characters)
    assert flat(asked) == rows
    for items in asked:
        assert sum(len(item.responses) for item in items) <= most
        assert len(items) == 1 or sum(item.characters for item in items) <= characters


@settings(max_examples=50)
@given(ROWS.filter(bool))
def test_halves_are_the_whole(rows):
    (items,) = bounded(rows)
    parts = halves(items)
    if len(rows) == 1:
        assert parts is None
    else:
        assert flat(parts) == rows
        assert all(parts)


def test_neighbours_of_one_prompt_are_one_item_and_stay_together():
    rows = [("a", str(i)) for i in range(4)] + [("b", str(i)) for i in range(4)] + [("a", "x")]
    asked = bounded(rows, responses_per_request=6)
    assert [[len(item.responses) for item in items] for items in asked] == [[4], [4, 1]]


def test_a_prompt_s_safety_is_said_with_it():
    rows = [("a", "1"), ("a", "2"), ("a", "3")]
    ((first, second),) = bounded(rows, [True, True, False])
    assert (first.safety, first.responses) == (True, ("1", "2"))
    assert (second.safety, second.responses) == (False, ("3",))
    with pytest.raises(ValueError, match="shorter"):
        bounded(rows, [True])


def test_turns_may_be_text_messages_mappings_or_blocks():
    said = (Message("user", "Hello"),)
    blocks = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    for prompt in ("Hello", said, [{"role": "user", "content": "Hello"}]):
        assert turns(prompt) == said
    assert turns([{"role": "user", "content": blocks}]) == said
    assert bounded([("Hello", blocks)]) == [(Item(said, ("Hello",)),)]


@pytest.mark.parametrize(
    ("prompt", "match"),
    [
        (["Hello"], "expected turns with role and content, got str 'Hello'"),
        ([{"role": "bot", "content": "3"}], "role str 'bot'; a reward model reads system, user"),
        ([{"role": "user", "content": None}], "expected text, got NoneType"),
        ([{"role": "user", "content": [{"type": "image"}]}], "a part of type .image. is content"),
        (7, "expected text or turns, got int"),
    ],
)
def test_what_is_no_conversation_is_one_line(prompt, match):
    with pytest.raises(PalateError, match=match):
        turns(prompt)


def test_a_prompt_in_text_is_sent_as_its_messages():
    prompt = "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Why?\n\nAssistant:"
    turns, response = conversation(prompt, " No.")
    assert [turn.content for turn in turns] == ["Hi", "Yes?", "Why?"]
    assert response == "No."


def test_content_that_is_not_read_is_refused():
    call = {"role": "assistant", "content": "", "tool_calls": [{"type": "function"}]}
    with pytest.raises(PalateError, match="'tool_calls' is content that is not taken here"):
        conversation([call], "x")


# Requests and answers.


def client(**chosen):
    return RewardClient(URL, **{"backoff_seconds": 1.0, **chosen})


def items(*counts):
    return [Item(BREAD, tuple(f"response {i} of {n}" for i in range(n))) for n in counts]


def row(item, response, **changes):
    known = {"reward": item + response / 8, "tokens": 5, "truncated": False, "reason": ""}
    return {"item": item, "response": response, "probability": None} | known | changes


def answer(rows, status=200, fingerprint="f1", **headers):
    body = {"model": "m", "fingerprint": fingerprint, "data": rows}
    return httpx2.Response(status, json=body, headers=headers)


class Wire:
    """Stands for the network: gives the next reply or raises it, and records sends and pauses."""

    def __init__(self, replies):
        self.replies, self.sent, self.pauses, self.events = iter(replies), [], [], ""

    def post(self, url, content, headers):
        self.sent.append((json.loads(content), headers))
        self.events += "s"
        reply = next(self.replies)
        if isinstance(reply, Exception):
            raise reply
        return reply

    def is_set(self):
        return False

    def wait(self, seconds):
        self.pauses.append(seconds)
        self.events += "p"

    def close(self):
        pass


def ask(client, items, replies):
    """What went over the wire, where it gives these replies, and the scores."""
    client._http.close()
    client._http = wire = Wire(replies)
    return wire, client._score(items, wire)


def fails(client, replies, match):
    with pytest.raises(PalateError, match=match) as caught:
        ask(client, items(1), replies)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_request_says_items_model_and_deadline():
    rows = [row(0, 0), row(1, 0), row(1, 1)]
    asked = [Item(BREAD, ("Flour.",)), Item(BREAD, ("No.", "Yes."), safety=True)]
    wire, scores = ask(client(model="m", timeout_seconds=9), asked, [answer(rows)])
    ((body, _),) = wire.sent
    assert body == {
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
    wire, _ = ask(client(), [Item(BREAD, ("\ud800",))], [answer([row(0, 0)])])
    assert wire.sent[0][0]["items"][0]["responses"] == ["\ud800"]


def test_a_response_without_a_reward_says_why():
    said = [row(0, 0, reward=None, tokens=0, reason="too long"), row(0, 1, truncated=True)]
    _, scores = ask(client(), items(2), [answer(said)])
    assert scores == [Score(None, "too long"), Score(0.125, "", True, 5)]


def test_passing_troubles_are_outlasted_with_doubling_pauses_and_one_id():
    troubles = [
        httpx2.ConnectError("refused"),
        httpx2.ReadTimeout(""),
        answer([], 503),
        answer([], 504),
        answer([row(0, 0)]),
    ]
    wire, scores = ask(client(), items(1), troubles)
    assert len({headers["x-request-id"] for _, headers in wire.sent}) == 1
    assert wire.events == "sp" * 4 + "s"
    for doubled, seconds in zip((1, 2, 4, 8), wire.pauses, strict=True):
        assert doubled / 2 <= seconds <= doubled
    assert scores == [Score(0.0, tokens=5)]


@pytest.mark.parametrize(
    ("asked", "least", "most"), [("30", 30, 30), ("86400", 60, 60), ("0", 0.5, 1), ("soon", 0.5, 1)]
)
def test_retry_after_is_honoured_and_bounded(asked, least, most):
    replies = [answer([], 429, **{"retry-after": asked}), answer([row(0, 0)])]
    wire, _ = ask(client(), items(1), replies)
    assert wire.events == "sps"
    assert least <= wire.pauses[0] <= most


def test_a_server_that_stays_bad_is_one_line():
    line = fails(client(attempts=2), [answer([], 503)] * 2, "answers 503 .*, 2 times; start")
    assert line.startswith(f"{URL}/v1/reward: ")
    fails(
        client(attempts=1),
        [httpx2.ConnectError("refused")],
        r"cannot be reached \(ConnectError: ref",
    )
    fails(client(attempts=1), [httpx2.ReadTimeout("")], "no answer in time .*`timeout_seconds`")


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
    fails(client(), [answer([], status)], cure)


def test_what_is_too_large_is_asked_in_halves_down_to_one_row():
    too_large = httpx2.Response(413, json={"error": {"message": "at most 2"}})
    replies = [
        too_large,  # 1 + 3 responses
        answer([row(0, 0)]),
        too_large,  # 3 responses
        too_large,  # the first of them alone
        answer([row(0, 0, reward=2.0), row(0, 1, reward=3.0)]),
    ]
    wire, scores = ask(client(), items(1, 3), replies)
    sizes = [[len(item["responses"]) for item in body["items"]] for body, _ in wire.sent]
    assert sizes == [[1, 3], [1], [3], [1], [2]]
    assert [score.value for score in scores] == [0.0, None, 2.0, 3.0]
    assert scores[1].reason == "answers 413 (at most 2)"


def test_rewards_of_two_models_are_never_mixed():
    one = client()
    ask(one, items(1), [answer([row(0, 0)])])
    ask(one, items(1), [answer([row(0, 0)])])
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
    fails(client(), [answer(rows)], "other rows than asked for")


@pytest.mark.parametrize("content", [b"<html>", b"[]", b'{"data": [{"reward": NaN}]}'])
def test_what_is_no_answer_scores_nobody(content):
    fails(client(), [httpx2.Response(200, content=content)], "other rows than asked for")


def test_the_token_is_sent_and_in_no_message(monkeypatch):
    monkeypatch.setenv("PALATE_TOKEN", "palate_secret")
    one = client(attempts=1)
    assert one._http.headers["authorization"] == "Bearer palate_secret"
    parrot = httpx2.Response(401, json={"error": {"message": "palate_secret is not known"}})
    assert r"*** is not known" in fails(one, [parrot], "401")
    assert "secret" not in fails(one, [httpx2.ConnectError("palate_secret")], "cannot be reached")


def test_no_token_is_needed_unless_one_is_named(monkeypatch):
    monkeypatch.delenv("PALATE_TOKEN", raising=False)
    assert "authorization" not in client()._http.headers
    with pytest.raises(PalateError, match="variable MY_TOKEN is not set"):
        client(token_env="MY_TOKEN")


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
        client(**chosen)


def test_an_address_with_a_key_is_refused_and_not_quoted():
    with pytest.raises(PalateError, match="no user, password or query") as caught:
        RewardClient("http://me:palate_secret@host")
    assert "secret" not in str(caught.value)
