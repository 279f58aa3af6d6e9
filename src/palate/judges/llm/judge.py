"""A chat model behind an OpenAI-compatible endpoint as a judge.

What its prompt asks says which judge it is: `ChatJudge` is asked which of two responses is better,
`ChatChoice` which of K is best, `ChatRating` for a number of one response at a time. The last two
answer items of K; of `ChatJudge` these are a tournament of pairs.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, islice
from queue import SimpleQueue
from typing import Any, ClassVar

from palate.judges.baselines import better
from palate.judges.llm.answer import (
    BEST_PARSER,
    LAST_LINE,
    PARSER,
    RATING_PARSER,
    RUBRIC_PARSER,
    Answer,
    Letter,
    Refused,
    letter_of,
    preference,
    rating_of,
    rubric_of,
)
from palate.judges.llm.api import QUESTION
from palate.judges.llm.client import Request, make_request
from palate.judges.llm.pool import Pool
from palate.judges.llm.price import price_of
from palate.judges.options import NOT_TAKEN, ChatSpec
from palate.judges.questions import LETTERS, Prompt, load_prompt
from palate.judges.scorer import ALONE
from palate.types import Candidates, Judge, Pair, PalateError, Preference, Score

Arrival = tuple[str, Answer | Refused] | Exception | None
Reply = Answer | Refused
ITEMS_PER_CALL = 1_024  # Items of K that are asked side by side; bounds memory.
LEAST_TOKENS = 64  # Of an answer with an explanation; with fewer it would be paid for and cut.
TOO_MANY = f"more than {len(LETTERS)} responses"


def open_chat(spec: ChatSpec) -> Judge:
    """The judge that a spec's prompt makes of a chat model.

    Raises:
        PalateError: an unknown preset, options that do not fit it, a budget that cannot be kept.
    """
    spec, prompts = fitted(spec)
    asking = Asking(spec)
    if prompts.own.asks == "pair":
        return ChatJudge(asking, prompts.own)
    if prompts.own.asks == "best":
        assert prompts.rated is not None
        return ChatChoice(asking, prompts.own, ChatRating(asking, prompts.rated))
    return ChatRating(asking, prompts.own)


@dataclass(frozen=True, slots=True)
class Prompts:
    """What a judge asks; `rated` beside a choice among K, where each response is to be rated."""

    own: Prompt
    rated: Prompt | None = None


def fitted(spec: ChatSpec) -> tuple[ChatSpec, Prompts]:
    """A spec's prompts, and the spec with the room for an answer that they need.

    Raises:
        PalateError: an unknown preset, or options that do not fit it.
    """
    own = load_prompt(spec.preset).by(spec.criteria)
    rated = load_prompt(spec.rated_preset) if own.asks == "best" else None
    if rated is not None and rated.asks != "rating":
        raise PalateError(
            f"rated_preset {spec.rated_preset}: expected a prompt that rates one response, such as "
            "rating-ties"
        )
    if own.asks != "best" and "rated_preset" in spec.model_fields_set:
        raise PalateError(f"rated_preset: of a choice among K alone; preset {own.name} takes none")
    changed: dict[str, Any] = {}
    if own.asks != "pair" or own.explained:
        if spec.decides:
            raise PalateError(
                f"api {spec.api}: answers A or B; preset {own.name} asks for more, take one that "
                "asks for a letter of two, or api: chat"
            )
        # No letter is the first token.
        if spec.api == "chat" and (own.asks != "best" or own.explained):
            changed["logprobs"] = "off"
    asked = [prompt for prompt in (own, rated) if prompt is not None]
    tokens = max(prompt.answer_tokens for prompt in asked)
    if not spec.decides and "max_tokens" not in spec.model_fields_set:
        changed["max_tokens"] = tokens
    elif spec.max_tokens and spec.max_tokens < LEAST_TOKENS:
        for prompt in asked:
            if prompt.explained:
                raise PalateError(
                    f"preset {prompt.name}: asks for an explanation, for which max_tokens "
                    f"{spec.max_tokens} is no room; leave it out ({tokens}), or raise it"
                )
    return (spec.model_copy(update=changed) if changed else spec), Prompts(own, rated)


def messages(prompts: Prompts, shown: Pair | Candidates) -> list[str]:
    """What is asked about a pair, or about the responses of an item of K."""
    prompt, conversation = prompts.own, shown.prompt
    responses = (shown.first, shown.second) if isinstance(shown, Pair) else shown.responses
    rated = isinstance(shown, Candidates) and shown.rated
    if prompt.asks == "best" and rated and prompts.rated is not None:
        prompt = prompts.rated
    if prompt.asks in ("rating", "rubric"):
        return [prompt.message(conversation, [one]) for one in responses]
    if prompt.asks == "best" or isinstance(shown, Pair):
        fits = 2 <= len(responses) <= len(LETTERS)
        return [prompt.message(conversation, responses)] if fits else []
    duels = (both for two in combinations(responses, 2) for both in (two, two[::-1]))
    return [prompt.message(conversation, two) for two in duels]


class Asking:
    """A chat model at an endpoint: messages in, replies out in order.

    Questions are asked side by side in a thread of their own; answers are yielded in order as
    soon as they are there. Every complete answer is kept at once, so nothing is paid for twice.
    """

    def __init__(self, spec: ChatSpec) -> None:
        """Raises `PalateError` for a budget that cannot be kept."""
        self._spec, self._price = spec, price_of(spec)
        self.name = spec.name or spec.model
        self._options: dict[str, Any] = {
            "temperature": spec.temperature,
            "max_tokens": spec.max_tokens,
            "reasoning_effort": spec.reasoning_effort,
            "reasoning_tokens": spec.reasoning_tokens,
            "seed": spec.seed,
            "logprobs": spec.logprobs,
            "extra": spec.extra,
        }
        for name in NOT_TAKEN[spec.api]:
            del self._options[name]
        if spec.api != "chat":
            self._options["api"] = spec.api
        if spec.decides:
            self._options["question"] = QUESTION

    def protocol(self, prompt: Prompt, parser: str) -> dict[str, Any]:
        """All that may change an answer: who is asked, in which words, how an answer is read."""
        return {
            "judge": "chat",
            "model": self._spec.model,
            "endpoint": self._spec.base_url,
            "prompt": prompt.name,
            "prompt_fingerprint": prompt.fingerprint,
            **self._options,
            "parser": parser,
        }

    def replies(self, questions: Sequence[str]) -> Iterator[Reply]:
        """One reply for each message, in order.

        Stopped (Ctrl-C, or closed early) it asks nothing more and waits for what is in flight,
        at most `timeout_seconds`, because that is paid for.

        Raises:
            PalateError: no key, the endpoint down or refusing, the budget spent. What was
                answered is kept, and what stood before the first gap has been yielded.
        """
        requests = [make_request(self._spec, message) for message in questions]
        pool, arrivals = Pool(self._spec, self._price), SimpleQueue[Arrival]()
        thread = threading.Thread(target=_run, args=(pool, requests, arrivals), name="chat-judge")
        thread.start()
        try:
            yield from _in_order([request.key for request in requests], arrivals)
        finally:
            pool.stop()
            thread.join()


def _run(pool: Pool, requests: Sequence[Request], arrivals: SimpleQueue[Arrival]) -> None:
    try:
        pool.run(requests, lambda key, reply: arrivals.put((key, reply)))
    except Exception as error:  # Raised again where the answers are read.
        arrivals.put(error)
    else:
        arrivals.put(None)


def _in_order(keys: Sequence[str], arrivals: SimpleQueue[Arrival]) -> Iterator[Reply]:
    replies: dict[str, Reply] = {}
    for key in keys:
        while key not in replies:
            arrival = arrivals.get()
            if isinstance(arrival, Exception):
                raise arrival
            if arrival is None:
                raise RuntimeError(f"the pool ended without a reply to {key}")
            replies[arrival[0]] = arrival[1]
        yield replies[key]


class ChatJudge:
    """Sees both responses at once; one presented order a pair, one question a distinct pair."""

    sees_both: ClassVar[bool] = True

    def __init__(self, asking: Asking, prompt: Prompt) -> None:
        self.name, self._asking, self._prompt = asking.name, asking, prompt
        self.protocol = asking.protocol(prompt, LAST_LINE if prompt.explained else PARSER)

    def judge(self, pairs: Sequence[Pair]) -> Iterator[Preference]:
        """One preference for each pair, in order; raises as `Asking.replies`."""
        replies = self._asking.replies([self._prompt.ask(pair) for pair in pairs])
        for pair, reply in zip(pairs, replies, strict=True):
            yield preference(pair.id, reply, last_line=self._prompt.explained)


class ChatRating:
    """Rates one response at a time, or by each criterion of a rubric; equal ratings are a tie."""

    def __init__(self, asking: Asking, prompt: Prompt) -> None:
        self.name, self._asking, self._prompt = asking.name, asking, prompt
        parser = RUBRIC_PARSER if prompt.asks == "rubric" else RATING_PARSER
        self.protocol = asking.protocol(prompt, parser)
        if prompt.asks == "rubric":
            criteria = {name: one.model_dump() for name, one in prompt.criteria.items()}
            self.protocol |= {"criteria": criteria, "score": "weighted mean of the criteria"}

    def judge(self, pairs: Sequence[Pair]) -> Iterator[Preference]:
        """One preference for each pair, in order; raises as `Asking.replies`."""
        asked = [
            self._prompt.message(pair.prompt, [response])
            for pair in pairs
            for response in (pair.first, pair.second)
        ]
        replies = self._asking.replies(asked)
        for pair, first, second in zip(pairs, replies, replies, strict=True):
            yield self._preference(pair.id, first, second)

    def score(self, candidates: Iterable[Candidates]) -> Iterator[tuple[Score, ...]]:
        """A rating of each response."""
        remaining = iter(candidates)
        while chunk := list(islice(remaining, ITEMS_PER_CALL)):
            asked = [
                self._prompt.message(shown.prompt, [response])
                for shown in chunk
                for response in shown.responses
            ]
            replies = self._asking.replies(asked)
            for shown in chunk:
                yield tuple(map(self._score, islice(replies, len(shown.responses))))

    def _score(self, reply: Reply) -> Score:
        prompt = self._prompt
        if prompt.asks == "rubric":
            return rubric_of(reply, prompt.scale, prompt.criteria, last_line=prompt.explained)
        return rating_of(reply, prompt.scale, last_line=prompt.explained)

    def _preference(self, pair_id: str, first: Reply, second: Reply) -> Preference:
        one, two = self._score(first), self._score(second)
        words = [reply.text if isinstance(reply, Answer) else "" for reply in (first, second)]
        said = Preference(
            pair_id,
            None,
            reason=one.reason or two.reason,
            answer=f"first: {words[0]}\nsecond: {words[1]}",
            seconds=first.seconds + second.seconds,
        )
        if one.value is None or two.value is None:
            return said
        return replace(
            said,
            choice=better(one.value, two.value),
            first_score=one.value,
            second_score=two.value,
            first_attributes=one.attributes,
            second_attributes=two.attributes,
        )


class ChatChoice:
    """Sees all K responses at once and names the best one, in the order in which they are shown.

    Where a benchmark asks for a number of each response, `rating` gives it.
    """

    sees_both: ClassVar[bool] = True

    def __init__(self, asking: Asking, prompt: Prompt, rating: ChatRating) -> None:
        self.name, self._asking, self._prompt, self._rating = asking.name, asking, prompt, rating
        self.protocol = asking.protocol(prompt, LAST_LINE if prompt.explained else BEST_PARSER)
        keys = ("prompt", "prompt_fingerprint", "parser")
        self.protocol["rated"] = {key: rating.protocol[key] for key in keys}

    def judge(self, pairs: Sequence[Pair]) -> Iterator[Preference]:
        """One preference for each pair, in order; raises as `Asking.replies`."""
        replies = self._asking.replies([self._prompt.ask(pair) for pair in pairs])
        for pair, reply in zip(pairs, replies, strict=True):
            yield preference(pair.id, reply, last_line=self._prompt.explained)

    def score(self, candidates: Iterable[Candidates]) -> Iterator[tuple[Score, ...]]:
        """A number of each response: its share of the letters' probabilities, or 1 for the best."""
        remaining = iter(candidates)
        while chunk := list(islice(remaining, ITEMS_PER_CALL)):
            rated = self._rating.score([shown for shown in chunk if shown.rated])
            chosen = self._choose([shown for shown in chunk if not shown.rated])
            for shown in chunk:
                yield next(rated if shown.rated else chosen)

    def _choose(self, chunk: Sequence[Candidates]) -> Iterator[tuple[Score, ...]]:
        prompts = Prompts(self._prompt)
        asked = [messages(prompts, shown) for shown in chunk]
        replies = self._asking.replies([message for own in asked for message in own])
        for shown, own in zip(chunk, asked, strict=True):
            count = len(shown.responses)
            if not own:
                read = Letter(reason=ALONE if count < 2 else TOO_MANY)
            else:
                read = letter_of(next(replies), LETTERS[:count], last_line=self._prompt.explained)
            values: Sequence[float | None] = read.values or (None,) * count
            yield tuple(Score(value, read.reason) for value in values)
