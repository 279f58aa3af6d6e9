"""What asking would cost, before anything is asked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from palate.judges.llm.cache import Cache
from palate.judges.llm.client import METHOD, request
from palate.judges.llm.price import Price, price_of
from palate.judges.options import ChatSpec
from palate.judges.prompting import load_prompt
from palate.types import Pair


@dataclass(frozen=True, slots=True)
class Cost:
    """Calls, tokens and money still to be spent; `money` None where no price is known.

    `kept` questions are answered already. Tokens are estimates by `method`; `most_money` is the
    most that the calls can cost without retries: a token a byte, every answer at full length.
    """

    questions: int
    kept: int
    calls: int
    prompt_tokens: int
    completion_tokens: int
    money: float | None
    most_money: float | None
    currency: str
    price: str
    method: str = METHOD


def estimate(spec: ChatSpec, pairs: Iterable[Pair]) -> Cost:
    """What judging `pairs` would cost. Asks nothing and needs no key.

    Show it the pairs in each order in which they will be judged.

    Raises:
        PalateError: an unknown preset, or a budget that cannot be kept.
    """
    prompt, price = load_prompt(spec.preset), price_of(spec)
    asked: dict[str, tuple[int, int]] = {}
    for pair in pairs:
        made = request(spec, prompt, pair)
        asked[made.key] = (made.prompt_tokens_about, made.prompt_tokens_most)
    kept = _kept(spec, asked)
    new = [sizes for key, sizes in asked.items() if key not in kept]
    about, most = (sum(size[i] for size in new) for i in (0, 1))
    answers = len(new) * (spec.most_tokens or 0)
    return Cost(
        questions=len(asked),
        kept=len(kept),
        calls=len(new),
        prompt_tokens=about,
        completion_tokens=answers,
        money=price.of(about, answers) if price else None,
        most_money=price.of(most, answers) if price and spec.most_tokens else None,
        currency=price.currency if price else "",
        price=_origin(price) if price else "unknown; name a table: prices: FILE",
    )


def _origin(price: Price) -> str:
    end = f"; the model ends on {price.ends:%Y-%m-%d}" if price.ends else ""
    return f"{price.date}, {price.source}{end}"


def _kept(spec: ChatSpec, keys: Iterable[str]) -> set[str]:
    if not spec.cache_path.is_file():
        return set()
    with Cache(spec.cache_path, spec.base_url, spec.model) as cache:
        return {key for key in keys if cache.get(key) is not None}
