"""What providers, and models that reason, are asked and answer: by the shapes of their packages."""

import json

import pytest

from answering import Reply, answers, endpoint, message, pair, says
from palate.judges import chat_spec, open_judge
from palate.judges.llm.providers import PROVIDERS
from palate.types import PalateError, Preference, digest

NOWHERE = "http://127.0.0.1:9/v1"


def ask(options: dict, count: int = 4) -> list[Preference]:
    return list(open_judge({"chat": options}).judge([pair(n) for n in range(count)]))


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_provider_is_an_endpoint_a_key_and_a_model(name):
    spec, provider = chat_spec({"provider": name}), PROVIDERS[name]
    assert (spec.model, spec.base_url) == (provider.model, provider.base_url)
    assert spec.key_variable == provider.key_env
    assert any(digit.isdecimal() for digit in provider.source), "the package's version is named"
    assert (spec.reasoning_tokens > 0) == ("reasoning_tokens" in provider.options)
    other = chat_spec({"provider": name, "model": "mine", "base_url": NOWHERE})
    assert (other.model, other.base_url, other.key_variable) == ("mine", NOWHERE, None)
    assert other.reasoning_effort is None, "the effort is that of the provider's own model"
    own = chat_spec({"provider": name, "reasoning_effort": "high", "key_env": "MINE"})
    assert (own.reasoning_effort, own.key_variable) == ("high", "MINE")


def test_a_key_is_sent_to_its_own_host_alone(options, monkeypatch):
    for provider in PROVIDERS.values():
        monkeypatch.setenv(provider.key_env, "sk-secret")
    with endpoint() as server:
        ask(options(server.url), 1)
        ask(options(server.url, model="n", api="chat"), 1)
    assert "sk-secret" not in json.dumps(server.headers)


def test_an_unknown_provider_names_the_known_ones():
    with pytest.raises(PalateError, match="provider"):
        chat_spec({"provider": "opnai"})
    with pytest.raises(PalateError, match="model"):
        chat_spec({})


@pytest.mark.parametrize(
    ("model", "reasons"),
    [
        ("gpt-5.5-2026-04-23", True), ("gpt-6-luna", True), ("o3", True), ("gpt-10", True),
        ("gpt-4.1", False), ("gpt-4o-mini", False), ("gpt-5.3-chat-latest", False),
        ("chatgpt-4o-latest", False),
    ],
)  # fmt: skip
def test_openai_s_models_that_reason_take_no_temperature_and_have_room(model, reasons):
    spec = chat_spec(model)
    assert (spec.temperature, spec.reasoning_tokens) == ((None, 2048) if reasons else (0.0, 0))
    own = chat_spec({"model": model, "temperature": 1.0, "reasoning_tokens": 64})
    assert (own.temperature, own.reasoning_tokens) == (1.0, 64)
    elsewhere = chat_spec({"model": model, "base_url": NOWHERE})
    assert (elsewhere.temperature, elsewhere.reasoning_tokens) == (0.0, 0)
    assert chat_spec({"model": model, "api": "decisions"}).reasoning_tokens == 0


# Answers that are none, and reasoning in its several places.


def test_a_refusal_is_an_answer_of_its_own_kept_and_not_asked_again(options):
    def declines(_body: dict, _before: int) -> Reply:
        reply = says(None)
        reply.body["choices"][0]["message"]["refusal"] = "I cannot help with that."
        return reply

    with endpoint(declines) as server:
        for _ in range(2):
            (found,) = ask(options(server.url), 1)
            assert (found.choice, found.reason) == (None, "refused: the model declines to answer")
            assert found.answer == "I cannot help with that."
        assert server.asked.total() == 1


def test_an_answer_that_is_cut_says_so(options):
    def long(_body: dict, _before: int) -> Reply:
        return says("Let us compare the two", finish_reason="length")

    with endpoint(long) as server:
        (found,) = ask(options(server.url), 1)
    assert found.reason == "unparsed: the answer is cut; raise max_tokens"


def test_reasoning_in_blocks_of_the_content_is_left_out(options):
    def blocks(_body: dict, _before: int) -> Reply:
        thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "A? No."}]}
        return says([thinking, {"type": "text", "text": "B"}], top={"A": -0.1, "B": -3.0})

    with endpoint(blocks) as server:
        (found,) = ask(options(server.url), 1)
    assert (found.choice, found.first_score, found.answer) == ("second", None, "B")


# Anthropic's messages.


def claude(body: dict, _before: int) -> Reply:
    """As `anthropic.types.Message` of 2.14.0 has it: thinking in a block, then the letter."""
    letter = "A" if "good" in answers(message(body))[0] else "B"
    thinks = body["thinking"] == {"type": "adaptive"}
    content = [{"type": "text", "text": letter}]
    if thinks:
        content.insert(0, {"type": "thinking", "thinking": "A or B?", "signature": "x"})
    usage = {"input_tokens": 80, "cache_read_input_tokens": 20, "output_tokens": 40}
    return Reply(
        {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": content,
         "stop_reason": "end_turn", "stop_sequence": None, "usage": usage}
    )  # fmt: skip


def test_messages_are_asked_and_read_in_anthropic_s_shape(options, monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-ant-1")
    with endpoint(claude) as server:
        given = options(server.url, api="messages", key_env="MY_KEY", reasoning_tokens=2048)
        found = ask(given | {"reasoning_effort": "low"})
    assert [one.choice for one in found] == ["first", "second"] * 2
    body, headers = server.bodies[0], server.headers[0]
    assert {key: body[key] for key in body if key != "messages"} == {
        "model": "m", "max_tokens": 2056, "thinking": {"type": "adaptive"},
        "output_config": {"effort": "low"},
    }  # fmt: skip
    assert headers["authorization"] == "Bearer sk-ant-1"
    assert headers["anthropic-version"] == "2026-10-21"


def test_without_room_for_it_nothing_is_thought(options):
    with endpoint(claude) as server:
        judge = open_judge({"chat": options(server.url, api="messages")})
        assert [one.choice for one in judge.judge([pair(0)])] == ["first"]
    assert server.bodies[0]["thinking"] == {"type": "disabled"}
    assert server.bodies[0]["max_tokens"] == 8
    assert judge.protocol["api"] == "messages"
    assert not {"temperature", "seed", "logprobs"} & set(judge.protocol)
    thinks = open_judge({"chat": options(server.url, api="messages", reasoning_tokens=99)})
    assert digest(thinks.protocol) != digest(judge.protocol)


@pytest.mark.parametrize(
    ("stop", "text", "reason"),
    [
        ("refusal", "", "refused: the model declines to answer"),
        ("refusal", "A", "refused: the model declines to answer"),
        ("max_tokens", "", "unparsed: no token was left for the answer; raise reasoning_tokens"),
        ("model_context_window_exceeded", "The", "unparsed: the answer is cut; raise max_tokens"),
        ("end_turn", "Both.", "unparsed"),
    ],
)
def test_why_a_message_ended_says_why_there_is_no_answer(options, stop, text, reason):
    def ends(body: dict, before: int) -> Reply:
        reply = claude(body, before)
        reply.body.update(stop_reason=stop, content=[{"type": "text", "text": text}])
        return reply

    with endpoint(ends) as server:
        (found,) = ask(options(server.url, api="messages"), 1)
    assert (found.choice, found.reason) == (None, reason)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"temperature": 0.0}, "temperature: messages takes none"),
        ({"logprobs": "off"}, "logprobs: messages takes none"),
        ({"max_tokens": None}, "max_tokens: messages wants one"),
        ({"reasoning_effort": "minimal"}, "messages takes low, medium"),
    ],
)
def test_what_messages_does_not_take_is_refused_by_name(options, change, line):
    with pytest.raises(PalateError, match=line):
        open_judge({"chat": options(NOWHERE, api="messages") | change})
