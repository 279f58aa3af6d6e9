"""What it would cost is said before anything is asked, and only where a price is known."""

import pytest

from answering import pair
from palate.judges import chat_spec
from palate.judges.llm.answer import Answer
from palate.judges.llm.cache import Cache, Claim
from palate.judges.llm.client import make_request
from palate.judges.llm.cost import estimate
from palate.judges.llm.price import price_of
from palate.judges.questions import load_prompt
from palate.types import PalateError


@pytest.fixture
def spoken(options):
    return options("http://127.0.0.1:9/v1")  # Nothing listens there, and nothing need.


def test_calls_tokens_and_money_are_those_of_what_is_not_yet_answered(spoken):
    spec, pairs = chat_spec(spoken), [pair(n) for n in range(10)]
    whole = estimate(spec, [*pairs, *pairs])
    assert (whole.questions, whole.kept, whole.calls) == (10, 0, 10)
    texts = [
        make_request(spec, load_prompt(spec.preset).ask(p)).body["messages"][0]["content"]
        for p in pairs
    ]
    assert whole.prompt_tokens == sum(-(-len(text) // 4) for text in texts)
    assert whole.completion_tokens == 80
    assert whole.money == pytest.approx((whole.prompt_tokens * 10 + 80 * 100) / 1e6)
    assert whole.most_money > whole.money
    assert "2026-01-01, a test" in whole.price
    keep(spec, pairs[0])
    rest = estimate(spec, pairs)
    assert (rest.kept, rest.calls) == (1, 9)


def keep(spec, shown) -> None:
    key = make_request(spec, load_prompt(spec.preset).ask(shown)).key
    with Cache(spec.cache_path, spec.base_url, spec.model) as cache:
        claim = cache.claim(key, None, None, 60)
        assert isinstance(claim, Claim)
        cache.keep(claim, key, Answer("A", "stop", (), 1.0), None)


def test_an_estimate_writes_nothing(spoken, tmp_path):
    estimate(chat_spec(spoken), [pair(1)])
    assert not (tmp_path / "chat.sqlite").exists()


def test_an_unknown_price_is_said_and_a_budget_then_is_an_error(spoken):
    unknown = chat_spec(spoken | {"model": "n"})
    cost = estimate(unknown, [pair(1)])
    assert (cost.money, cost.most_money) == (None, None)
    assert "unknown" in cost.price
    with pytest.raises(PalateError, match=r"budget 5 cannot be kept.*price.*unknown.*prices: FILE"):
        price_of(chat_spec(spoken | {"model": "n", "budget": 5}))


def test_palate_s_own_table_is_for_openai_alone(spoken):
    del spoken["prices"]
    assert price_of(chat_spec(spoken | {"model": "gpt-4"})) is None
    del spoken["base_url"]
    price = price_of(chat_spec(spoken | {"model": "gpt-4"}))
    assert price is not None
    assert price.source
    assert price.ends is not None, "as its maker announced"
    assert f"ends on {price.ends}" in estimate(chat_spec(spoken | {"model": "gpt-4"}), []).price
    assert price.of(1_000_000, 500_000) == price.input_per_million + price.output_per_million / 2


def test_a_budget_needs_a_bound_on_answers(spoken):
    endless = spoken | {"budget": 1, "max_tokens": None}
    with pytest.raises(PalateError, match="nothing bounds an answer"):
        price_of(chat_spec(endless))
    assert price_of(chat_spec(endless | {"extra": {"max_completion_tokens": 64}}))


@pytest.mark.parametrize(
    "text", ["models: [1]", "{", "models: {m: {input_per_million: 1}}", "x: 1", ""]
)
def test_what_is_no_price_table_is_one_line(spoken, tmp_path, text):
    (tmp_path / "prices.yaml").write_text(text)
    with pytest.raises(PalateError, match="not a price table") as caught:
        price_of(chat_spec(spoken))
    assert "\n" not in str(caught.value)
