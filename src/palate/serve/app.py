"""The application: the door, the protocols behind it, and what a machine asks about its health."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from palate import __version__
from palate.serve.access import Tokens
from palate.serve.desk import Desk
from palate.serve.engine import Engine
from palate.serve.faults import SHAPE, Fault, invalid, said
from palate.serve.gate import Gate, Shift
from palate.serve.protocols import FAMILIES
from palate.serve.served import Models
from palate.serve.settings import Settings
from palate.serve.telemetry import Telemetry

DESCRIPTION = """Rewards of responses, in the shapes that trainers and rankers already speak.
The raw reward comes back unless a protocol's own default is another."""
GUIDE = (
    "docs/serve.md beside Palate's source: shapes, fields, limits; `palate serve --help`: options"
)
UNTRACED = frozenset({"/health", "/ready", "/metrics"})
STATUSES = (400, 401, 404, 408, 413, 421, 422, 429, 500, 503, 504)


class ErrorBody(BaseModel):
    """`type` is one word for programs, `message` one line for people."""

    message: str
    type: str
    code: int


class ErrorAnswer(BaseModel):
    """An error as OpenAI's clients read it; TEI's paths answer `{error, error_type}`."""

    error: ErrorBody | str
    error_type: str | None = None


@dataclass(frozen=True, slots=True)
class Server:
    """What is served and how: everything that an application is made of."""

    models: Models
    engines: Sequence[Engine]
    settings: Settings = field(default_factory=Settings)
    tokens: Tokens | None = None
    shift: Shift = field(default_factory=Shift)
    telemetry: Telemetry = field(default_factory=Telemetry)


def create_app(server: Server) -> ASGIApp:
    """The ASGI application of `server`, whose engines are started and stopped by `lifecycle`."""
    app = FastAPI(
        title="Palate",
        version=__version__,
        description=DESCRIPTION,
        responses={status: {"model": ErrorAnswer} for status in STATUSES},
        docs_url=None,  # Its page loads scripts from elsewhere.
        redoc_url=None,
        telemetry={
            "tracing": server.settings.trace,
            "exclude": lambda scope: scope["path"] in UNTRACED,
            "operation_spans": False,
            "metrics": False,
            "logs": False,  # They quote what was wrong in a body.
            "auto_configure": False,
        },
    )
    desk = Desk(server.models, server.settings.limits, server.telemetry)
    for family in FAMILIES:
        app.include_router(family(desk))
    _about(app, server)
    _health(app, server)
    app.add_exception_handler(Fault, _fault)
    app.add_exception_handler(RequestValidationError, _unreadable)
    app.add_exception_handler(HTTPException, _http_error)
    server.telemetry.watch(server.engines)
    return Gate(
        app,
        settings=server.settings,
        telemetry=server.telemetry,
        shift=server.shift,
        tokens=server.tokens,
        paths=frozenset(app.openapi()["paths"]),
    )


class About(BaseModel):
    """What answers here, and where it is described."""

    name: str
    version: str
    about: str
    models: list[str]
    shapes: dict[str, str]
    docs: dict[str, str]


def _about(app: FastAPI, server: Server) -> None:
    @app.get("/", tags=["operation"])
    async def about() -> About:
        """What this server is, and where its documents are."""
        operations = app.openapi()["paths"].items()
        return About(
            name="Palate",
            version=__version__,
            about=DESCRIPTION,
            models=[served.name for served in server.models],
            shapes={
                f"POST {path}": methods["post"]["description"].splitlines()[0]
                for path, methods in operations
                if "post" in methods
            },
            docs={"every path and field": "/openapi.json", "models": "/v1/models", "guide": GUIDE},
        )


def _health(app: FastAPI, server: Server) -> None:
    @app.get("/health", tags=["operation"])
    async def health() -> dict[str, str]:
        """Whether the process lives; needs no token."""
        return {"status": "ok"}

    @app.get("/ready", tags=["operation"])
    async def ready() -> dict[str, str]:
        """Whether requests should be sent here: 503 from SIGTERM on; needs no token."""
        if server.shift.leaving:
            raise Fault(HTTPStatus.SERVICE_UNAVAILABLE, "closing", "the server is shutting down")
        if not all(engine.ready for engine in server.engines):
            raise Fault(HTTPStatus.SERVICE_UNAVAILABLE, "loading", "a model is not loaded yet")
        return {"status": "ready"}

    @app.get("/metrics", tags=["operation"], response_class=Response)
    async def metrics() -> Response:
        """Counters for Prometheus."""
        return Response(server.telemetry.page(), media_type=CONTENT_TYPE_LATEST)


async def _fault(request: Request, fault: Exception) -> JSONResponse:
    assert isinstance(fault, Fault)
    return fault.response(request.scope)


async def _unreadable(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    if isinstance(error.body, dict) and "texts" in error.body:
        request.scope[SHAPE] = "tei"
    return invalid(said(error.errors())).response(request.scope)


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    fault = Fault(error.status_code, "invalid_request", str(error.detail))
    response = fault.response(request.scope)
    response.headers.update(error.headers or {})
    return response
