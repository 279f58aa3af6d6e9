"""Where every protocol hands in its conversations and is given their rewards."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Protocol, TypeVar

from starlette.requests import Request
from starlette.types import Scope

from palate.serve.engine import Busy, Closing, Failed, Late, NonFinite, ScoreRequest
from palate.serve.errors import CLIENT_GONE, RequestError, invalid, overloaded, too_large
from palate.serve.metrics import Telemetry
from palate.serve.settings import Limits, TokenBucket
from palate.serve.tokenize import Cutting, Form, Read, Reader, require
from palate.types import PalateError

# The models that are served, by name.


class Rewarding(Protocol):
    """What answers asks: an engine, or several combined."""

    name: str

    async def rewards(self, ask: ScoreRequest) -> tuple[float, ...]: ...


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One model as clients know it; `facts` is what /v1/models and /info say of it.

    `location` is the folder or hub id it was opened from, which trainers send as its name that
    start the engine themselves elsewhere (verl). `raw` is whether its own configuration asks for
    its value as it is, which engines go by where a request does not say.
    """

    name: str
    source: Rewarding
    reader: Reader
    fingerprint: str
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])
    location: str = ""
    raw: bool = True
    created: int = field(default_factory=lambda: int(time.time()))


class Registry:
    """The served models; the first is the one that requests mean which name none."""

    def __init__(self, served: Mapping[str, ServedModel]) -> None:
        self._served = dict(served)
        # Of several names for one place the first is meant.
        given = reversed(self._served.values())
        self._located = {one.location: one for one in given if one.location}

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._served.values())

    def get(self, name: str | None) -> ServedModel:
        """The model of that name, or opened from there; raises `RequestError` (404) for neither."""
        if name is None:
            return next(iter(self._served.values()))
        found = self._served.get(name) or self._located.get(name)
        if found is None:
            # The name is a client's text, but not a prompt; still no more than its beginning.
            known = ", ".join(self._served)
            raise RequestError(
                HTTPStatus.NOT_FOUND, "not_found", f"no model {name[:80]!r}; known: {known}"
            )
        return found


CLIENT, TALLY, TRUNCATED = "palate.client", "palate.tally", "x-palate-truncated"
UNFRAMED = "x-palate-unframed"
DEADLINE = "x-deadline-seconds"
T = TypeVar("T")
CUT = Cutting()


@dataclass(frozen=True, slots=True)
class Scored:
    """One conversation's reward; None where its response alone is too long for the model."""

    reward: float | None
    tokens: int
    truncated: bool


@dataclass(slots=True)
class Tally:
    """What a request came to, for its log line and the headers that say what was cut or odd."""

    model: str = ""
    conversations: int = 0
    tokens: int = 0
    truncated: int = 0
    unframed: int = 0


class RewardService:
    """Reads, limits, asks the model, and turns what goes wrong into an answer."""

    def __init__(self, models: Registry, limits: Limits, telemetry: Telemetry) -> None:
        self.models, self.limits, self.telemetry = models, limits, telemetry
        self._token_allowance = TokenBucket(limits.tokens_per_minute)

    def served(self, request: Request, model: str | None) -> ServedModel:
        """The model that a request names in its body or its address, or the first."""
        return self.models.get(model or request.query_params.get("model"))

    async def rewards(
        self,
        request: Request,
        forms: Sequence[Form],
        model: str | None = None,
        cutting: Cutting = CUT,
    ) -> list[float]:
        """Rewards in order, for protocols that have one for every conversation or none."""
        scored = await self.score(request, forms, model, cutting, whole=True)
        return [one.reward for one in scored if one.reward is not None]

    async def score(
        self,
        request: Request,
        forms: Sequence[Form],
        model: str | None = None,
        cutting: Cutting = CUT,
        *,
        whole: bool = False,
        safety: Sequence[bool | None] = (),
        deadline_seconds: float | None = None,
    ) -> list[Scored]:
        """One `Scored` for each form, in order.

        `safety` says for each whether its prompt is about safety, as far as the client knows.

        Raises:
            Fault: for whatever reason there is no answer; with `whole`, a response too long too.
        """
        served = self.served(request, model)
        if len(forms) > self.limits.conversations_per_request:
            raise too_large(
                f"{len(forms)} conversations; at most {self.limits.conversations_per_request} "
                "a request"
            )
        deadline = time.monotonic() + self._deadline_seconds(request, deadline_seconds)
        work = self._answer(request.scope, served, forms, cutting, whole, safety, deadline)
        return await unless_gone(request, work)

    async def _answer(
        self,
        scope: Scope,
        served: ServedModel,
        forms: Sequence[Form],
        cutting: Cutting,
        whole: bool,
        safety: Sequence[bool | None],
        deadline: float,
    ) -> list[Scored]:
        reads = await served.reader.read(forms, cutting)
        known = require(reads) if whole else [read for read in reads if read is not None]
        client = scope[CLIENT]
        self._take(client, sum(len(read.ids) for read in known))
        self._count(scope, served, known)
        told = safety or [None] * len(reads)
        flags = tuple(
            read.tagged if flag is None else flag
            for flag, read in zip(told, reads, strict=True)
            if read is not None
        )
        ask = ScoreRequest(tuple(read.ids for read in known), client, deadline, flags)
        rewards = iter(await asked(served, ask))
        return [
            Scored(None, 0, False)
            if read is None
            else Scored(next(rewards), len(read.ids), read.truncated)
            for read in reads
        ]

    def _deadline_seconds(self, request: Request, field: float | None) -> float:
        """The least of the field, the header and the server's own."""
        header = request.headers.get(DEADLINE)
        try:
            wanted = [float(header)] if header is not None else []
        except ValueError:
            wanted = [math.nan]
        if field is not None:
            wanted.append(field)
        if not all(0 < seconds < math.inf for seconds in wanted):
            raise invalid(f"{DEADLINE}: expected seconds above 0")
        return min([*wanted, self.limits.deadline_seconds])

    def _take(self, client: str, tokens: int) -> None:
        wait = self._token_allowance.wait_seconds(client, tokens)
        if wait:
            raise overloaded("over the tokens a minute of one client", wait)

    def _count(self, scope: Scope, served: ServedModel, reads: Sequence[Read]) -> None:
        tally: Tally = scope[TALLY]
        tally.model = served.name
        tally.conversations += len(reads)
        tally.tokens += sum(len(read.ids) for read in reads)
        tally.truncated += sum(read.truncated for read in reads)
        tally.unframed += sum(read.unframed for read in reads)
        self.telemetry.count(served.name, reads)


async def asked(served: ServedModel, ask: ScoreRequest) -> tuple[float, ...]:
    """What the model answers; what it does not, as a `RequestError`."""
    try:
        rewards = await served.source.rewards(ask)
    except Busy as busy:
        raise overloaded(str(busy), busy.retry_after_seconds) from None
    except Late:
        raise RequestError(
            HTTPStatus.GATEWAY_TIMEOUT, "late", "no answer by the deadline"
        ) from None
    except Closing:
        raise closing() from None
    except PalateError as error:
        raise invalid(str(error)) from None
    except (NonFinite, Failed) as error:
        raise RequestError(HTTPStatus.INTERNAL_SERVER_ERROR, "model_failed", str(error)) from None
    if not all(map(math.isfinite, rewards)):
        raise RequestError(
            HTTPStatus.INTERNAL_SERVER_ERROR, "model_failed", "a reward is not finite"
        )
    return rewards


def closing() -> RequestError:
    """The server takes no more requests."""
    message = "the server is shutting down"
    return RequestError(HTTPStatus.SERVICE_UNAVAILABLE, "closing", message, retry_after_seconds=1.0)


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the client hangs up."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise RequestError(CLIENT_GONE, "client_gone", "the client hung up")
    finally:
        gone.cancel()
        if not task.done():
            task.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
