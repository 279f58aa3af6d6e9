"""What may be said of a server and of how it is asked."""

from __future__ import annotations

import os
from typing import TypedDict

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from palate.http import address, bearer_key
from palate.types import PalateError

TOKEN = "PALATE_TOKEN"


class Options(BaseModel):
    """How a server is asked. No secret is in it, so it can be kept and sent to another process."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    model: str | None = Field(None, description="By name, where the server has several.")
    token_env: str = Field(TOKEN, description="Environment variable of the bearer token.")
    timeout_seconds: float = Field(60.0, gt=0, description="Of one request.")
    concurrency: int = Field(8, ge=1, le=256, description="Requests under way at once.")
    responses_per_request: int = Field(64, ge=1, description="Best-of-n stays together.")
    characters_per_request: int = Field(1_000_000, ge=1, description="One response at least.")
    attempts: int = Field(8, ge=1, description="Of one request.")
    backoff_seconds: float = Field(0.5, ge=0, description="Before the second; doubles after.")
    longest_wait_seconds: float = Field(60.0, ge=0, description="Bound on any wait asked of us.")

    @field_validator("url")
    @classmethod
    def _plain_address(cls, url: str) -> str:
        return address(url)


class Chosen(TypedDict, total=False):
    """The keyword arguments of a client: `Options` but for the address."""

    model: str | None
    token_env: str
    timeout_seconds: float
    concurrency: int
    responses_per_request: int
    characters_per_request: int
    attempts: int
    backoff_seconds: float
    longest_wait_seconds: float


def options(url: str, chosen: Chosen) -> Options:
    """Options that hold, or one line about the first that does not."""
    try:
        return Options.model_validate({"url": url, **chosen})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        # Without the value, which may be an address with a key in it.
        raise PalateError(f"reward client: {where}: {first['msg']}") from None


def token(chosen: Options) -> str:
    """The bearer token, "" where the default variable is unset: a server may ask for none."""
    if chosen.token_env == TOKEN and not os.environ.get(TOKEN, "").strip():
        return ""
    return bearer_key(chosen.token_env, "reward client", chosen.url)
