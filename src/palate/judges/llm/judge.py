"""A chat model behind an OpenAI-compatible endpoint, asked which of two responses is better."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from queue import SimpleQueue
from typing import Any, ClassVar

from palate.judges.llm.answer import PARSER, Answer, Refused, preference
from palate.judges.llm.api import QUESTION
from palate.judges.llm.client import Request, make_request
from palate.judges.llm.pool import Pool
from palate.judges.llm.price import price_of
from palate.judges.options import OPTIONS, ChatSpec
from palate.judges.prompting import load_prompt
from palate.types import Pair, Preference

Arrival = tuple[str, Answer | Refused] | Exception | None


class ChatJudge:
    """Sees both responses at once; one presented order a pair, one question a distinct pair.

    Questions are asked side by side in a thread of their own; answers are yielded in order as
    soon as they are there. Every complete answer is kept at once, so nothing is paid for twice.
    """

    sees_both: ClassVar[bool] = True

    def __init__(self, spec: ChatSpec) -> None:
        """Raises `PalateError` for an unknown preset, or a budget that cannot be kept."""
        self._spec, self._prompt, self._price = spec, load_prompt(spec.preset), price_of(spec)
        self.name = spec.name or spec.model
        self.protocol: dict[str, Any] = {
            "judge": "chat",
            "model": spec.model,
            "endpoint": spec.base_url,
            "prompt": self._prompt.name,
            "prompt_fingerprint": self._prompt.fingerprint,
            "temperature": spec.temperature,
            "max_tokens": spec.max_tokens,
            "reasoning_effort": spec.reasoning_effort,
            "reasoning_tokens": spec.reasoning_tokens,
            "seed": spec.seed,
            "logprobs": spec.logprobs,
            "extra": spec.extra,
            "parser": PARSER,
        }
        if spec.api != "chat":
            for name in (*OPTIONS, "reasoning_tokens"):  # Not sent.
                del self.protocol[name]
            self.protocol |= {"api": spec.api, "question": QUESTION}

    def judge(self, pairs: Sequence[Pair]) -> Iterator[Preference]:
        """One preference for each pair, in order.

        Stopped (Ctrl-C, or closed early) it asks nothing more and waits for what is in flight,
        at most `timeout_seconds`, because that is paid for.

        Raises:
            PalateError: no key, the endpoint down or refusing, the budget spent. What was
                answered is kept, and what stood before the first gap has been yielded.
        """
        requests = [make_request(self._spec, self._prompt, pair) for pair in pairs]
        pool, arrivals = Pool(self._spec, self._price), SimpleQueue[Arrival]()
        thread = threading.Thread(target=_run, args=(pool, requests, arrivals), name="chat-judge")
        thread.start()
        try:
            replies = _in_order([request.key for request in requests], arrivals)
            for pair, reply in zip(pairs, replies, strict=True):
                yield preference(pair.id, reply)
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


def _in_order(keys: Sequence[str], arrivals: SimpleQueue[Arrival]) -> Iterator[Answer | Refused]:
    replies: dict[str, Answer | Refused] = {}
    for key in keys:
        while key not in replies:
            arrival = arrivals.get()
            if isinstance(arrival, Exception):
                raise arrival
            if arrival is None:
                raise RuntimeError(f"the pool ended without a reply to {key}")
            replies[arrival[0]] = arrival[1]
        yield replies[key]
