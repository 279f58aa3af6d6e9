"""The served models by name, and the service that gives every protocol its rewards."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Protocol, TypeVar

from starlette.requests import Request

from palate.serve.engine import Busy, Closing, Failed, Late, NonFinite, Reward, ScoreRequest
from palate.serve.errors import CLIENT_GONE, RequestError, invalid, overloaded, too_large
from palate.serve.metrics import Telemetry
from palate.serve.settings import Limits, TokenBucket
from palate.serve.tokenize import Form, Reader, Truncation, require
from palate.types import PalateError


class RewardSource(Protocol):
    """What computes rewards: an engine, or several combined."""

    name: str

    async def rewards_with_std(self, request: ScoreRequest, /) -> tuple[Reward, ...]: ...


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One model as clients know it; `facts` is what /v1/models and /info say of it.

    `location` is the folder or hub id it was opened from, which trainers send as its name that
    start the engine themselves elsewhere (verl). `raw` is whether its own configuration asks for
    its value as it is, which engines go by where a request does not say.
    """

    name: str
    source: RewardSource
    reader: Reader
    fingerprint: str
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])
    location: str = ""
    raw: bool = True
    created: int = field(default_factory=lambda: int(time.time()))


class Registry:
    """The served models; the first is the one that requests mean which name none."""

    def __init__(self, served: Mapping[str, ServedModel]) -> None:
        self._by_name = dict(served)
        # Of several names for one location the first is meant.
        models = reversed(self._by_name.values())
        self._by_location = {model.location: model for model in models if model.location}

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._by_name.values())

    def get(self, name: str | None) -> ServedModel:
        """The model of that name, or opened from there; raises `RequestError` (404) for neither."""
        if name is None:
            return next(iter(self))
        model = self._by_name.get(name) or self._by_location.get(name)
        if model is None:
            # The name is a client's text, but not a prompt; still no more than its beginning.
            known = ", ".join(self._by_name)
            raise RequestError(
                HTTPStatus.NOT_FOUND, "not_found", f"no model {name[:80]!r}; known: {known}"
            )
        return model


# Keys of a request's scope.
CLIENT, STATS = "palate.client", "palate.stats"
# Headers.
DEADLINE, TRUNCATED, UNFRAMED = "x-deadline-seconds", "x-palate-truncated", "x-palate-unframed"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Scored:
    """One conversation's reward; None where its response alone is too long for the model.

    `std` is the standard deviation of an ensemble's members, None of a single model.
    """

    reward: float | None
    tokens: int
    truncated: bool
    std: float | None = None


@dataclass(slots=True)
class RequestStats:
    """What a request came to, for its log line and the headers that count what was cut or odd."""

    model: str = ""
    conversations: int = 0
    tokens: int = 0
    truncated: int = 0
    unframed: int = 0


class RewardService:
    """Tokenizes, limits, asks the model, and turns what goes wrong into an answer."""

    def __init__(self, models: Registry, limits: Limits, telemetry: Telemetry) -> None:
        self.models, self.limits, self.telemetry = models, limits, telemetry
        self._tokens_per_minute = TokenBucket(limits.tokens_per_minute)

    def served(self, request: Request, model: str | None) -> ServedModel:
        """The model that a request names in its body or its address, or the first.

        Raises:
            RequestError: no such model, another in the body than in the address, or an address
                that asks for something else.
        """
        for key in request.query_params:
            if key != "model":
                raise invalid(f"{key[:40]!r}: no such key in an address; known is model")
        addressed = self.models.get(request.query_params.get("model"))
        if model and "model" in request.query_params and self.models.get(model) is not addressed:
            raise invalid("model: the body and the address name different ones; name one")
        return self.models.get(model) if model else addressed

    async def rewards(
        self,
        request: Request,
        forms: Sequence[Form],
        model: str | None = None,
        truncation: Truncation | None = None,
        salt: str | None = None,
    ) -> list[float]:
        """Rewards in order, for protocols that have one for every conversation or none."""
        scored = await self.score(request, forms, model, truncation, complete=True, salt=salt)
        return [one.reward for one in scored if one.reward is not None]

    async def score(
        self,
        request: Request,
        forms: Sequence[Form],
        model: str | None = None,
        truncation: Truncation | None = None,
        *,
        complete: bool = False,
        safety: Sequence[bool | None] = (),
        deadline_seconds: float | None = None,
        salt: str | None = None,
    ) -> list[Scored]:
        """One `Scored` for each form, in order.

        `safety` says for each whether its prompt is about safety, as far as the client knows. What
        is kept of prompts is kept apart by `salt`.

        Raises:
            RequestError: for whatever reason there is no answer; with `complete` also where one
                response is too long.
        """
        served = self.served(request, model)
        if len(forms) > self.limits.conversations_per_request:
            raise too_large(
                f"{len(forms)} conversations; at most {self.limits.conversations_per_request} "
                "a request"
            )
        deadline = time.monotonic() + self._deadline_seconds(request, deadline_seconds)
        truncation = truncation or Truncation()

        async def work() -> list[Scored]:
            reads = await served.reader.read(forms, truncation)
            fitting = require(reads, truncation) if complete else [r for r in reads if r]
            client = request.scope[CLIENT]
            tokens = sum(len(read.ids) for read in fitting)
            if wait := self._tokens_per_minute.wait_seconds(client, tokens):
                raise overloaded("over the tokens a minute of one client", wait)
            stats: RequestStats = request.scope[STATS]
            stats.model = served.name
            stats.conversations += len(fitting)
            stats.tokens += tokens
            stats.truncated += sum(read.truncated for read in fitting)
            stats.unframed += sum(read.unframed for read in fitting)
            self.telemetry.count(served.name, fitting)
            flags = tuple(
                read.safety if flag is None else flag
                for flag, read in zip(safety or [None] * len(reads), reads, strict=True)
                if read is not None
            )
            ids = tuple(read.ids for read in fitting)
            asked = ScoreRequest(ids, client, deadline, flags, salt or "")
            rewards = iter(await rewards_from(served, asked))
            scored = []
            for read in reads:
                if read is None:
                    scored.append(Scored(None, 0, False))
                    continue
                reward, std = next(rewards)
                scored.append(Scored(reward, len(read.ids), read.truncated, std))
            return scored

        return await unless_gone(request, work())

    def _deadline_seconds(self, request: Request, field: float | None) -> float:
        """The least of the field, the header and the server's own."""
        try:
            stated = [float(request.headers[DEADLINE])] if DEADLINE in request.headers else []
        except ValueError:
            stated = [math.nan]
        if field is not None:
            stated.append(field)
        if not all(0 < seconds < math.inf for seconds in stated):
            raise invalid(f"{DEADLINE}: expected seconds above 0")
        return min([*stated, self.limits.deadline_seconds])


async def rewards_from(served: ServedModel, request: ScoreRequest) -> tuple[Reward, ...]:
    """The model's rewards; where it gives none, a `RequestError` says why."""
    try:
        rewards = await served.source.rewards_with_std(request)
    except Busy as error:
        raise overloaded(str(error), error.retry_after_seconds) from None
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
    if not all(math.isfinite(reward) for reward, _ in rewards):
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
