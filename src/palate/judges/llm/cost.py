"""What asking would cost, before anything is asked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from palate.judges.llm.cache import Cache
from palate.judges.llm.client import METHOD, make_request
from palate.judges.llm.judge import fitted, messages
from palate.judges.llm.price import price_of
from palate.judges.options import ChatSpec
from palate.types import Candidates, Pair


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


def estimate(spec: ChatSpec, shown: Iterable[Pair | Candidates]) -> Cost:
    """What judging pairs, or the responses of items of K, would cost. Needs no key, asks nothing.

    Show it the pairs in each order in which they will be judged.

    Raises:
        PalateError: an unknown preset, or a budget that cannot be kept.
    """
    spec, prompts = fitted(spec)
    price = price_of(spec)
    sizes: dict[str, tuple[int, int]] = {}  # Not the requests, which hold every text.
    for one in shown:
        for message in messages(prompts, one):
            request = make_request(spec, message)
            sizes[request.key] = (request.prompt_tokens_about, request.prompt_tokens_most)
    cached: set[str] = set()
    if spec.cache_path.is_file():
        with Cache(spec.cache_path, spec.base_url, spec.model) as cache:
            cached = {key for key in sizes if cache.get(key) is not None}
    missing = [size for key, size in sizes.items() if key not in cached]
    about, most = (sum(size[i] for size in missing) for i in (0, 1))
    answers = len(missing) * (spec.most_tokens or 0)
    origin = "unknown; name a table: prices: FILE"
    if price:
        end = f"; the model ends on {price.ends:%Y-%m-%d}" if price.ends else ""
        origin = f"{price.date}, {price.source}{end}"
    return Cost(
        questions=len(sizes),
        kept=len(cached),
        calls=len(missing),
        prompt_tokens=about,
        completion_tokens=answers,
        money=price.of(about, answers) if price else None,
        most_money=price.of(most, answers) if price and spec.most_tokens else None,
        currency=price.currency if price else "",
        price=origin,
    )
