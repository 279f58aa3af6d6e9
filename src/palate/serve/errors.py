"""Why a request gets no reward: the status, one line, and the body in the protocol's own shape."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import Scope

from palate.validation import explain

SHAPE = "palate.shape"  # In a request's scope: "tei" where its errors are to be TEI's.
CLIENT_GONE = 499  # nginx's number for it; nobody reads this answer.
TEI_KINDS = {
    HTTPStatus.BAD_REQUEST: "validation",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "validation",
    HTTPStatus.UNPROCESSABLE_ENTITY: "tokenizer",
    HTTPStatus.TOO_MANY_REQUESTS: "overloaded",
    HTTPStatus.SERVICE_UNAVAILABLE: "unhealthy",
}


class RequestError(Exception):
    """A request that is refused, or could not be answered; `message` never quotes its text."""

    def __init__(
        self, status: int, kind: str, message: str, *, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.kind, self.message = status, kind, message
        self.retry_after_seconds = retry_after_seconds

    def response(self, scope: Scope) -> JSONResponse:
        """The answer, in the shape that the request's protocol gives its errors."""
        headers = {}
        if self.retry_after_seconds is not None:
            headers["retry-after"] = str(max(1, math.ceil(self.retry_after_seconds)))
        if self.status == HTTPStatus.UNAUTHORIZED:
            headers["www-authenticate"] = "Bearer"
        if self.status in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.REQUEST_ENTITY_TOO_LARGE):
            headers["connection"] = "close"  # The rest of the body is not read.
        content: dict[str, Any] = {
            "error": {"message": self.message, "type": self.kind, "code": self.status}
        }
        status = self.status
        if scope.get(SHAPE) == "tei":
            if status == HTTPStatus.INTERNAL_SERVER_ERROR:  # Where inference itself failed.
                status = HTTPStatus.FAILED_DEPENDENCY
            content = {
                "error": self.message,
                "error_type": TEI_KINDS.get(HTTPStatus(status), "backend"),
            }
        return JSONResponse(content, status, headers)


def invalid(message: str) -> RequestError:
    """The request is not what its shape asks for."""
    return RequestError(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_request", message)


def too_large(message: str) -> RequestError:
    """More than a limit of the server or the model."""
    return RequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", message)


def overloaded(message: str, retry_after_seconds: float) -> RequestError:
    """Not now, but later."""
    return RequestError(
        HTTPStatus.TOO_MANY_REQUESTS, "overloaded", message, retry_after_seconds=retry_after_seconds
    )


def explain_body(errors: Sequence[Mapping[str, Any]]) -> str:
    """What is wrong in a body, without the values it was found in: those are a client's text."""
    # Keys that only the client knows could be text too, so they are cut.
    located = [
        {**error, "loc": [str(part)[:40] for part in error["loc"] if part != "body"]}
        for error in errors
    ]
    message = explain(located, root="body", most=3, show_input=False)
    # Escaped, since half a surrogate pair in a key could not be sent back.
    return message.encode("ascii", "backslashreplace").decode()
