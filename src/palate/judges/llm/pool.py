"""Many requests at once: within limits and budget, again after faults, each answer kept."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

from palate.http import Retry, TransientError
from palate.judges.llm.answer import Answer, Refused
from palate.judges.llm.cache import Blocked, Cache, Claim
from palate.judges.llm.client import LIMITS, Client, OptionRefusedError, Request, location
from palate.judges.llm.price import Price
from palate.judges.options import ChatSpec
from palate.types import PalateError


class Pace:
    """Spaces starts evenly: request i starts at least 60 max(1/R, t/T) seconds after i - 1.

    R requests and T tokens a minute, t the tokens of request i - 1. Without bursts no window of a
    minute holds more than R + 1 starts.
    """

    def __init__(self, requests_per_minute: float | None, tokens_per_minute: float | None) -> None:
        self._per_request = 60 / requests_per_minute if requests_per_minute else 0.0
        self._per_token = 60 / tokens_per_minute if tokens_per_minute else 0.0
        self._free = self.hold_until = 0.0

    def start(self, now: float, tokens: int) -> float:
        """Book a request of `tokens`; the time at which it may start."""
        begin = max(now, self._free, self.hold_until)
        self._free = begin + max(self._per_request, tokens * self._per_token)
        return begin

    def hold(self, until: float) -> None:
        """Start nothing before `until`: the endpoint asked to wait."""
        self.hold_until = max(self.hold_until, until)


Deliver = Callable[[str, Answer | Refused], None]
LONGEST_PAUSE_SECONDS = 30.0
SLICE_SECONDS = 0.2  # How soon a pause notices that the pool was stopped.
LOOK_AGAIN_SECONDS = 0.05
SPARE_SECONDS = 30.0  # Beyond its timeout, before a call counts as nobody's.


class Pool:
    """Workers of one thread that ask what is not yet answered, until done, stopped or failed.

    Stopped or failed, it starts nothing more and waits for what is in flight, which is paid for.
    """

    def __init__(self, spec: ChatSpec, price: Price | None) -> None:
        self._spec, self._price = spec, price
        self._pace = Pace(spec.requests_per_minute, spec.tokens_per_minute)
        self._stop = threading.Event()
        self._failure: PalateError | None = None
        self._refused_options: set[str] = set()
        self._retry = Retry(spec.retries + 1, spec.retry_seconds, LONGEST_PAUSE_SECONDS)

    def stop(self) -> None:
        """Start nothing more; from any thread."""
        self._stop.set()

    def run(self, requests: Sequence[Request], deliver: Deliver) -> None:
        """Deliver a reply to each distinct request, in any order; in the calling thread.

        Raises:
            PalateError: a permanent fault, one that did not pass, no key, a spent budget; what
                was answered before has been delivered and kept.
        """
        with Cache(self._spec.cache_path, self._spec.base_url, self._spec.model) as cache:
            missing = []
            for request in {request.key: request for request in requests}.values():
                if (answer := cache.get(request.key)) is None:
                    missing.append(request)
                else:
                    deliver(request.key, answer)
            if missing:
                asyncio.run(self._ask_all(missing, cache, deliver))
        if self._failure is not None:
            raise self._failure

    async def _ask_all(self, requests: Sequence[Request], cache: Cache, deliver: Deliver) -> None:
        queue = iter(requests)

        async def work(client: Client) -> None:
            for request in queue:
                try:
                    reply = await self._answer(request, client, cache)
                except PalateError as error:
                    self._failure = self._failure or error
                    self._stop.set()
                    return
                if reply is None:
                    return
                deliver(request.key, reply)

        async with Client(self._spec) as client:
            workers = min(self._spec.concurrency, len(requests))
            await asyncio.gather(*(work(client) for _ in range(workers)))

    async def _answer(
        self, request: Request, client: Client, cache: Cache
    ) -> Answer | Refused | None:
        """A reply, however many tries it takes; None where the pool was stopped."""
        try:
            return await self._retry.call_async(
                partial(self._ask, request, client, cache),
                lambda seconds: self._pause_until(time.monotonic() + seconds),
            )
        except TransientError as error:
            raise PalateError(
                f"{location(self._spec)}: {error}, {self._retry.attempts} times in a row; "
                f"run again when it is well; {_kept(cache)}"
            ) from None

    async def _ask(self, request: Request, client: Client, cache: Cache) -> Answer | Refused | None:
        """One try, and others with fewer options; each is claimed before and billed after."""
        while True:
            await self._turn(request)
            claim = await self._claim(request, cache)
            if not isinstance(claim, Claim):
                return claim
            try:
                reply = await client.ask(self._body(request))
            except TransientError as error:
                cache.fail(claim, billed=error.answer_lost)
                if error.retry_after_seconds is not None:  # For every worker.
                    self._pace.hold(time.monotonic() + error.retry_after_seconds)
                raise
            except OptionRefusedError as error:
                cache.fail(claim, billed=False)
                self._refused_options.add(error.option)
                if self._refused_options.issuperset(LIMITS):
                    raise PalateError(f"{error}; {_kept(cache)}") from None
                continue
            except PalateError as error:
                cache.fail(claim, billed=False)
                raise PalateError(f"{error}; {_kept(cache)}") from None
            if isinstance(reply, Answer):
                cache.keep(claim, request.key, reply, self._money(claim, reply))
            else:
                cache.fail(claim, billed=False)
            return reply

    async def _turn(self, request: Request) -> None:
        """Wait until the rate limits, and the endpoint, allow one more request."""
        tokens = request.prompt_tokens_about + (self._spec.most_tokens or 0)
        await self._pause_until(self._pace.start(time.monotonic(), tokens))
        while time.monotonic() < self._pace.hold_until and not self._stopped:
            await self._pause_until(self._pace.hold_until)

    async def _claim(self, request: Request, cache: Cache) -> Claim | Answer | None:
        """Leave to ask, waiting for calls in flight that may answer it or free some budget."""
        price, budget = self._price, self._spec.budget
        worst = None
        if price is not None:
            worst = price.of(request.prompt_tokens_most, self._spec.most_tokens or 0)
        seconds = self._spec.timeout_seconds + SPARE_SECONDS
        while not self._stopped:
            claim = cache.claim(request.key, worst, budget, seconds)
            if claim is Blocked.SPENT:
                spent, money = cache.account().money, price and price.currency
                raise PalateError(
                    f"chat judge {self._spec.model}: budget {budget:g} {money}: {spent:.4f} is "
                    f"spent, and the next question may cost {worst:.4f}; raise budget to go on; "
                    f"{_kept(cache)}"
                )
            if not isinstance(claim, Blocked):
                return claim
            await asyncio.sleep(LOOK_AGAIN_SECONDS)
        return None

    async def _pause_until(self, moment: float) -> None:
        while (left := moment - time.monotonic()) > 0 and not self._stopped:
            await asyncio.sleep(min(left, SLICE_SECONDS))

    @property
    def _stopped(self) -> bool:
        # At the interpreter's end the main thread is gone: nobody is left to read an answer.
        return self._stop.is_set() or not threading.main_thread().is_alive()

    def _body(self, request: Request) -> dict[str, object]:
        body = dict(request.body)
        if "logprobs" in self._refused_options:
            body = {k: v for k, v in body.items() if k not in ("logprobs", "top_logprobs")}
        if LIMITS[0] in body:
            names = reversed(LIMITS) if self._spec.at_openai else LIMITS
            name = next(name for name in names if name not in self._refused_options)
            body[name] = body.pop(LIMITS[0])
        return body

    def _money(self, claim: Claim, answer: Answer) -> float | None:
        """What an answer cost; its worst case where the endpoint does not count its tokens."""
        if self._price is None:
            return None
        if answer.prompt_tokens is None or answer.completion_tokens is None:
            return claim.worst
        return self._price.of(answer.prompt_tokens, answer.completion_tokens)


def _kept(cache: Cache) -> str:
    return f"{cache.count()} answers are kept in {cache.path}"
