"""The explorer as a server on loopback: who is let in, the addresses, a page for each.

A URL with the token lets a browser in and gives it a cookie, as Jupyter does; everything else is
refused. Pages may load style, script and data from here and nothing from anywhere else. Every page
works without script, which only saves the reloading.
"""

from __future__ import annotations

import html
import secrets
import socket
import tempfile
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import repeat
from pathlib import Path
from threading import Thread
from typing import Annotated, Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import duckdb
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from fastapi.staticfiles import StaticFiles
from starlette.background import BackgroundTask
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from palate.explorer.annotations import Annotation, annotator_name, export_annotations
from palate.explorer.index import comparison_files, read_item
from palate.explorer.pages import annotate, item_page, list_page, live_texts, render
from palate.explorer.query import Query, read_query
from palate.explorer.run import (
    Explorer,
    OpenRun,
    Reward,
    Viewer,
    read_prompt,
    run_names,
    write_prompt,
)
from palate.types import PalateError, is_text

MIN_TOKEN_CHARACTERS = 16
MAX_BODY_BYTES = 1 << 20
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    # Not no-referrer: with it a browser names the origin of a form "null".
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
_ACCESS_PAGE = """\
<!doctype html><html lang="en"><head><meta charset="utf-8"><title>palate view</title>
{head}<link rel="icon" href="/static/icon.svg">
<link rel="stylesheet" href="/static/view.css"></head>
<body class="plain"><main><h1>palate view</h1><p>{text}</p></main></body></html>"""


class Guard:
    """ASGI middleware: token, cookie, origin, size of bodies, headers."""

    def __init__(self, app: ASGIApp, *, token: str, port: int) -> None:
        self._app, self._token = app, token
        # Browsers send one host's cookies to all its ports; the name keeps two explorers apart.
        self._cookie = f"palate-view-{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or pass on one request; there are no websockets."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            caching = "no-cache" if scope["path"].startswith("/static/") else "no-store"

            async def send_with_headers(message: Message) -> None:
                if message["type"] == "http.response.start":
                    MutableHeaders(scope=message).update(HEADERS | {"cache-control": caching})
                await send(message)

            respond = self._refuse(Request(scope)) or self._app
            await respond(scope, receive, send_with_headers)

    def _refuse(self, request: Request) -> Response | None:
        """The response to who may not come in or change anything; None lets the request pass."""
        if request.scope["path"].startswith("/static/"):
            return None
        if self._is_token(request.query_params.get("token", "")):
            return self._let_in(request)
        if not self._is_token(request.cookies.get(self._cookie, "")):
            return _access_page(
                "Open the address that <code>palate view</code> printed: it holds the token.", 403
            )
        if request.method in ("GET", "HEAD"):
            return None
        # A change comes from a page of this very host and port, and is of bounded size.
        origin = request.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
            return _access_page("This change came from another site and was not made.", 403)
        length = request.headers.get("content-length", "")
        if not length.isdigit():
            return _access_page("A body of known length was expected.", 411)
        if int(length) > MAX_BODY_BYTES:
            return _access_page(f"At most {MAX_BODY_BYTES:,} bytes can be sent.", 413)
        return None

    def _is_token(self, text: str) -> bool:
        return secrets.compare_digest(text.encode(), self._token.encode())

    def _let_in(self, request: Request) -> Response:
        """Set the cookie, then go on by a page of our own.

        After a redirect from another site a browser would not send a strict cookie.
        """
        query = urlencode([(k, v) for k, v in request.query_params.multi_items() if k != "token"])
        # One slash: two would name another host.
        url = "/" + quote(request.scope["path"].lstrip("/")) + (f"?{query}" if query else "")
        link = html.escape(url)
        head = f'<meta http-equiv="refresh" content="0;url={link}">'
        response = _access_page(f'<a href="{link}">Open the explorer</a>', 200, head)
        response.set_cookie(self._cookie, self._token, httponly=True, samesite="strict", path="/")
        return response


def _access_page(text: str, status: int, head: str = "") -> HTMLResponse:
    return HTMLResponse(_ACCESS_PAGE.format(text=text, head=head), status)


STATIC = Path(__file__).parent / "static"
ANNOTATOR_COOKIE, BLIND_COOKIE = "palate-annotator", "palate-blind"
COOKIE: dict[str, Any] = {"httponly": True, "samesite": "strict", "max_age": 365 * 24 * 3600}
MAX_FIELDS = 20

Fields = dict[str, str]
router = APIRouter()


def build_app(explorer: Explorer, *, token: str, port: int) -> Guard:
    """The explorer as an ASGI application that lets in who has the token."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        yield
        explorer.close()

    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.explorer = explorer
    app.mount("/static", StaticFiles(directory=STATIC))
    app.include_router(router)
    for kind in (PalateError, StarletteHTTPException, RequestValidationError, duckdb.Error):
        app.add_exception_handler(kind, _error_page)
    return Guard(app, token=token, port=port)


def _explorer(request: Request) -> Explorer:
    explorer: Explorer = request.app.state.explorer
    return explorer


def _run(run: int, request: Request) -> OpenRun:
    runs = _explorer(request).runs
    if not 0 <= run < len(runs):
        raise HTTPException(404, f"There is no run {run}.")
    return runs[run]


def _viewer(request: Request) -> Viewer:
    explorer = _explorer(request)
    name = explorer.annotator
    with suppress(PalateError):
        name = annotator_name(unquote(request.cookies.get(ANNOTATOR_COOKIE, "")))
    blind = explorer.blind or request.cookies.get(BLIND_COOKIE) == "1"
    return Viewer(name, blind, forced=explorer.blind)


def _query(request: Request, run: Annotated[OpenRun, Depends(_run)]) -> Query:
    return read_query(request.query_params.multi_items(), run.index)


def _item(item: int, run: Annotated[OpenRun, Depends(_run)]) -> int:
    if not 0 <= item < run.index.size:
        raise HTTPException(404, f"There is no item {item} in {run.name}.")
    return item


async def _form(request: Request) -> Fields:
    body = (await request.body()).decode("utf-8", "replace")
    try:
        return dict(parse_qsl(body, keep_blank_values=True, max_num_fields=MAX_FIELDS))
    except ValueError:
        raise HTTPException(400, "A form with fewer fields was expected.") from None


RunParameter = Annotated[OpenRun, Depends(_run)]
ViewerParameter = Annotated[Viewer, Depends(_viewer)]
QueryParameter = Annotated[Query, Depends(_query)]
ItemParameter = Annotated[int, Depends(_item)]
Form = Annotated[Fields, Depends(_form)]


def _page(request: Request, name: str, status: int = 200, **values: Any) -> HTMLResponse:
    number = str(request.path_params.get("run", "0"))
    shared = {
        "viewer": _viewer(request),
        "runs": [run.name for run in _explorer(request).runs],
        "number": int(number) if number.isdecimal() else 0,
        "url": request.url.path + (f"?{request.url.query}" if request.url.query else ""),
    }
    return HTMLResponse(render(name, **shared, **values), status)


def _error_page(request: Request, error: Exception) -> HTMLResponse:
    """An error as a page: one line, no traceback."""
    if isinstance(error, StarletteHTTPException):
        return _page(request, "message", error.status_code, text=error.detail)
    if isinstance(error, RequestValidationError):
        return _page(request, "message", 404, text="There is no such page.")
    return _page(request, "message", 400, text=str(error).splitlines()[0])


def _redirect(url: str) -> RedirectResponse:
    """To a page of ours after a change; anything else leads to the first page."""
    ours = url.startswith("/r/") and "\\" not in url
    return RedirectResponse(url if ours else "/r/0/", 303)


@router.get("/")
def home() -> Response:
    """The first run."""
    return _redirect("")


@router.get("/r/{run}/")
def items(
    request: Request, run: RunParameter, query: QueryParameter, viewer: ViewerParameter
) -> Response:
    """The list."""
    page = list_page(run, query, viewer)
    response = _page(request, "list", page=page, problems=run.index.problems, size=run.index.size)
    response.background = BackgroundTask(run.selector.texts.load)  # The first screen comes first.
    return response


@router.get("/r/{run}/item/{item}")
def one_item(
    request: Request, item: ItemParameter, run: RunParameter, query: QueryParameter,
    viewer: ViewerParameter,
) -> Response:  # fmt: skip
    """One comparison."""
    full = request.query_params.get("full") == "yes"
    return _page(request, "item", page=item_page(run, item, query, viewer, full))


@router.post("/r/{run}/item/{item}/mark")
def annotate_item(
    request: Request, item: ItemParameter, run: RunParameter, query: QueryParameter,
    viewer: ViewerParameter, form: Form,
) -> Response:  # fmt: skip
    """Keep or remove an annotation, and show the item again."""
    (id,) = run.index.ids_of([item])
    if "clear" in form:
        run.annotations.remove(viewer.annotator, id)
    else:
        part = run.index.part_of(item)
        if part.of_items:  # Which of K is better is no choice of two: a note alone.
            form = {name: text for name, text in form.items() if name == "note"}
        blank = Annotation(viewer.annotator, id, part=part.name)
        run.annotations.change(blank, lambda old: annotate(old, form, viewer))
    return _redirect(f"{request.url.path.removesuffix('/mark')}{query.url()}")


@router.get("/r/{run}/marks")
def all_annotations(request: Request, run: RunParameter, viewer: ViewerParameter) -> Response:
    """What was annotated, and how far people agree; in blind mode only how much was annotated."""
    # Imported here: statistics bring scipy with them, most of a second at every start.
    from palate.data.annotators import Disagreement
    from palate.explorer.annotations import measure_agreement

    annotations = run.annotations.all()
    blind_only = request.query_params.get("blind") == "yes"
    used = [annotation for annotation in annotations if annotation.blind or not blind_only]
    agreement = None if viewer.blind else measure_agreement(run.index, used)
    own = sum(annotation.annotator == viewer.annotator for annotation in annotations)
    return _page(
        request, "marks", agreement=agreement, marks=len(annotations), own=own,
        blind_only=blind_only, path=str(run.annotations.path),
        data=Disagreement() if viewer.blind else Disagreement.of_run(run.folder),
    )  # fmt: skip


@router.get("/r/{run}/marks.parquet")
def annotations_file(run: RunParameter, viewer: ViewerParameter) -> Response:
    """All annotations as a file of comparisons, which says whether they agree with the labels."""
    if viewer.blind:
        raise HTTPException(403, "Blind mode hides labels.")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "marks.parquet"
        export_annotations(run.index, run.annotations.all(), path)
        content = path.read_bytes()
    headers = {"content-disposition": 'attachment; filename="marks.parquet"'}
    return Response(content, headers=headers, media_type="application/vnd.apache.parquet")


@router.post("/name")
def set_annotator(form: Form) -> Response:
    """Keep the name under which this browser annotates."""
    response = _redirect(form.get("back", ""))
    name = annotator_name(form.get("annotator", ""))
    response.set_cookie(ANNOTATOR_COOKIE, quote(name), **COOKIE)
    return response


@router.post("/blind")
def set_blind(form: Form) -> Response:
    """Hide labels and scores in this browser, or show them again."""
    response = _redirect(form.get("back", ""))
    response.set_cookie(BLIND_COOKIE, "1" if form.get("blind") == "1" else "0", **COOKIE)
    return response


@router.get("/r/{run}/live")
def live(
    request: Request, run: RunParameter, viewer: ViewerParameter, item: int | None = None
) -> Response:
    """A form for a prompt and two responses, which an item of the list may fill."""
    fields: Fields | None = None
    if not viewer.blind:
        run.rewards.warm()
        fields = {}
        if item is not None and 0 <= item < run.index.size:
            prompt, first, second = live_texts(read_item(run.index, item).row)
            if is_text(prompt, first, second):  # The form has no place for more.
                fields = {"prompt": write_prompt(prompt), "first": first, "second": second}
    return _page(request, "live", fields=fields, rewards=None, models=run.rewards.models)


@router.post("/r/{run}/live")
def score_live(
    request: Request, run: RunParameter, viewer: ViewerParameter, form: Form
) -> Response:
    """The rewards of what was typed."""
    if viewer.blind:
        raise HTTPException(403, "Blind mode hides scores.")
    fields = {
        name: form.get(name, "").replace("\r\n", "\n") for name in ("prompt", "first", "second")
    }
    rewards: list[Reward] = []
    if fields["prompt"].strip():
        # Only a person's newest request is worth computing: they type on while one is answered.
        newest = _explorer(request).newest
        number = newest[viewer.annotator] = newest.get(viewer.annotator, 0) + 1
        rewards = run.rewards.submit(
            read_prompt(fields["prompt"]),
            (fields["first"], fields["second"]),
            is_wanted=lambda: newest[viewer.annotator] == number,
        ).result()
    return _page(request, "live", fields=fields, rewards=rewards, models=run.rewards.models)


HOST = "127.0.0.1"  # Nothing else: from afar, `ssh -L` brings the page to you.


def serve(
    folders: Sequence[Path],
    *,
    annotator: str,
    marks: Path | None = None,
    blind: bool = False,
    port: int = 0,
    token: str = "",
    opened: Callable[[str], None],
) -> None:
    """Serve runs until interrupted; `opened` gets the address that lets a browser in.

    Raises:
        PalateError: no such run, a token that can be guessed, or the port is taken.
    """
    for folder in folders:
        comparison_files(folder)
    names = run_names(folders)
    runs = tuple(OpenRun(*one) for one in zip(folders, repeat(marks), names, strict=False))

    def open_first() -> None:
        with suppress(PalateError):  # The page shows it.
            runs[0].open()

    Thread(target=open_first, daemon=True, name="opening").start()
    # Imported here: meanwhile DuckDB reads the columns.
    import uvicorn

    if token and len(token) < MIN_TOKEN_CHARACTERS:
        raise PalateError(
            f"PALATE_VIEW_TOKEN: expected {MIN_TOKEN_CHARACTERS} characters or more, got "
            f"{len(token)}; make it longer, or leave it unset for a random one"
        )
    token = token or secrets.token_urlsafe(24)
    try:
        listener = socket.create_server((HOST, port))
    except OSError as error:
        reason = error.strerror or error
        raise PalateError(f"port {port}: cannot be listened on ({reason}); use --port 0") from None
    with listener:
        port = listener.getsockname()[1]
        app = build_app(Explorer(runs, annotator, blind), token=token, port=port)
        # No access log: it would print the token. No proxy headers: none is between.
        config = uvicorn.Config(
            app, access_log=False, log_level="warning", proxy_headers=False, server_header=False
        )
        opened(f"http://{HOST}:{port}/?token={token}")
        uvicorn.Server(config).run(sockets=[listener])
