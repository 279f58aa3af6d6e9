"""The pages of the explorer. Every one works without script; script only saves the reloading."""

from __future__ import annotations

import html
import secrets
import socket
import tempfile
from collections.abc import AsyncGenerator, Callable, MutableMapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from threading import Thread
from typing import Annotated, Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import duckdb
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from palate.explorer.annotations import Annotation, annotator_name, export_marks
from palate.explorer.index import comparison_files, read_item
from palate.explorer.pages import item_page, list_page, marked, render
from palate.explorer.query import Query, read_query
from palate.explorer.run import Explorer, OpenRun, Reward, Viewer, read_prompt, write_prompt
from palate.types import Comparison, PalateError

# Who may see the explorer, and what a browser may do with its pages.
#
# A URL with the token lets a browser in and gives it a cookie, as Jupyter does; everything else
# is
# refused. Pages may load style, script and data from here and nothing from anywhere else.

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
_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>palate view</title>
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
        """Answer or pass on one request; websockets are none of ours."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, _with_headers(scope, send))

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        refused = self._refusal(scope, headers)
        if refused is not None:
            await refused(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _refusal(self, scope: Scope, headers: MutableMapping[str, str]) -> Response | None:
        if scope["path"].startswith("/static/"):
            return None
        given = dict(parse_qsl(scope["query_string"].decode("latin-1"))).get("token")
        if given is not None and _same(given, self._token):
            return self._let_in(scope)
        if not _same(_cookie(headers.get("cookie", ""), self._cookie), self._token):
            return _access_page(
                "Open the address that <code>palate view</code> printed: it holds the token.", 403
            )
        if scope["method"] not in ("GET", "HEAD"):
            return _refused_write(headers)
        return None

    def _let_in(self, scope: Scope) -> Response:
        """Set the cookie, then go on by a page of our own.

        After a redirect from another site a browser would not send a strict cookie.
        """
        asked = parse_qsl(scope["query_string"].decode("latin-1"))
        rest = urlencode([pair for pair in asked if pair[0] != "token"])
        # One slash: two would name another host.
        where = "/" + quote(scope["path"].lstrip("/")) + (f"?{rest}" if rest else "")
        link = html.escape(where)
        head = f'<meta http-equiv="refresh" content="0;url={link}">'
        answer = _access_page(f'<a href="{link}">Open the explorer</a>', 200, head)
        answer.set_cookie(self._cookie, self._token, httponly=True, samesite="strict", path="/")
        return answer


def new_token() -> str:
    """A token that nobody guesses."""
    return secrets.token_urlsafe(24)


def _same(given: str, token: str) -> bool:
    return secrets.compare_digest(given.encode("utf-8", "surrogatepass"), token.encode())


def _cookie(header: str, name: str) -> str:
    try:
        morsel = SimpleCookie(header).get(name)
    except CookieError:
        return ""
    return morsel.value if morsel else ""


def _refused_write(headers: MutableMapping[str, str]) -> Response | None:
    """A change comes from a page of this very host and port, and is of bounded size."""
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != headers.get("host"):
        return _access_page("This change came from another site and was not made.", 403)
    length = headers.get("content-length", "")
    if not length.isdigit():
        return _access_page("A body of known length was expected.", 411)
    if int(length) > MAX_BODY_BYTES:
        return _access_page(f"At most {MAX_BODY_BYTES:,} bytes can be sent.", 413)
    return None


def _access_page(text: str, status: int, head: str = "") -> HTMLResponse:
    return HTMLResponse(_PAGE.format(text=text, head=head), status)


def _with_headers(scope: Scope, send: Send) -> Send:
    kept = "no-cache" if scope["path"].startswith("/static/") else "no-store"

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            given: list[Any] = list(message["headers"])
            values = HEADERS | {"cache-control": kept}
            given += [(name.encode(), value.encode()) for name, value in values.items()]
            message = {**message, "headers": given}
        await send(message)

    return sending


STATIC = Path(__file__).parent / "static"
ANNOTATOR, BLIND = "palate-annotator", "palate-blind"
MAX_FIELDS = 20
COOKIE: dict[str, Any] = {"httponly": True, "samesite": "strict", "max_age": 365 * 24 * 3600}

Fields = dict[str, str]


def build_app(explorer: Explorer, *, token: str, port: int) -> Guard:
    """The explorer as an ASGI application that lets in who has the token."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        yield
        explorer.close()

    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.explorer = explorer
    app.mount("/static", StaticFiles(directory=STATIC))
    for path, page in PAGES.items():
        app.add_api_route(path, page, methods=["GET"], response_model=None)
    for path, change in CHANGES.items():
        app.add_api_route(path, change, methods=["POST"], response_model=None)
    for kind in (PalateError, StarletteHTTPException, RequestValidationError, duckdb.Error):
        app.add_exception_handler(kind, _said_plainly)
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
    name = unquote(request.cookies.get(ANNOTATOR, "")) or explorer.annotator
    try:
        name = annotator_name(name)
    except PalateError:
        name = explorer.annotator
    return Viewer(name, explorer.blind or request.cookies.get(BLIND) == "1", explorer.blind)


async def _form(request: Request) -> Fields:
    body = (await request.body()).decode("utf-8", "replace")
    try:
        return dict(parse_qsl(body, keep_blank_values=True, max_num_fields=MAX_FIELDS))
    except ValueError:
        raise HTTPException(400, "A form with fewer fields was expected.") from None


Run = Annotated[OpenRun, Depends(_run)]
Who = Annotated[Viewer, Depends(_viewer)]
Form = Annotated[Fields, Depends(_form)]


def _page(request: Request, name: str, status: int = 200, **values: Any) -> HTMLResponse:
    explorer, number = _explorer(request), request.path_params.get("run", "0")
    shared = {
        "viewer": _viewer(request),
        "runs": [run.name for run in explorer.runs],
        "number": int(number) if str(number).isdecimal() else 0,
        "here": str(request.url.path) + (f"?{request.url.query}" if request.url.query else ""),
    }
    return HTMLResponse(render(name, **shared, **values), status)


def _said_plainly(request: Request, error: Exception) -> HTMLResponse:
    """An error as a page: one line, no traceback."""
    if isinstance(error, StarletteHTTPException):
        return _page(request, "message", error.status_code, text=error.detail)
    if isinstance(error, RequestValidationError):
        return _page(request, "message", 404, text="There is no such page.")
    return _page(request, "message", 400, text=str(error).splitlines()[0])


def _back(url: str) -> RedirectResponse:
    """To a page of ours after a change; anything else leads to the first page."""
    ours = url.startswith("/r/") and "\\" not in url
    return RedirectResponse(url if ours else "/r/0/", 303)


def _query(request: Request, run: OpenRun) -> Query:
    pairs = parse_qsl(request.url.query, max_num_fields=200) if request.url.query else []
    return read_query(pairs, run.catalogue)


def home() -> Response:
    """The first run."""
    return RedirectResponse("/r/0/", 303)


def items(request: Request, run: Run, viewer: Who) -> Response:
    """The list."""
    catalogue, page = run.catalogue, list_page(run, _query(request, run), viewer)
    answer = _page(request, "list", page=page, problems=catalogue.problems, size=catalogue.size)
    answer.background = BackgroundTask(run.selector.texts.load)  # The first screen comes first.
    return answer


def one_item(request: Request, item: int, run: Run, viewer: Who) -> Response:
    """One comparison."""
    if not 0 <= item < run.catalogue.size:
        raise HTTPException(404, f"There is no item {item} in {run.name}.")
    full = request.query_params.get("full") == "yes"
    return _page(request, "item", page=item_page(run, item, _query(request, run), viewer, full))


def mark_item(request: Request, item: int, run: Run, viewer: Who, form: Form) -> Response:
    """Keep or remove a mark, and show the item again."""
    if not 0 <= item < run.catalogue.size:
        raise HTTPException(404, f"There is no item {item} in {run.name}.")
    (id,) = run.catalogue.ids_of([item])
    if "clear" in form:
        run.marks.remove(viewer.annotator, id)
    else:
        blank = Annotation(viewer.annotator, id, part=run.catalogue.part_of(item).name)
        run.marks.change(blank, lambda old: marked(old, form, viewer))
    return _back(f"{request.url.path.removesuffix('/mark')}{_query(request, run).url()}")


def all_marks(request: Request, run: Run, viewer: Who) -> Response:
    """What was marked, and how far people agree; in blind mode only how much was marked."""
    # Imported here: statistics bring scipy with them, most of a second at every start.
    from palate.explorer.annotations import measure_agreement

    marks = run.marks.all()
    blind_only = request.query_params.get("blind") == "yes"
    used = [mark for mark in marks if mark.blind] if blind_only else marks
    agreement = None if viewer.blind else measure_agreement(run.catalogue, used)
    own = sum(mark.annotator == viewer.annotator for mark in marks)
    return _page(
        request, "marks", agreement=agreement, marks=len(marks), own=own, blind_only=blind_only,
        path=str(run.marks.path),
    )  # fmt: skip


def marks_file(run: Run, viewer: Who) -> Response:
    """All marks as a file of comparisons, which says whether they agree with the labels."""
    if viewer.blind:
        raise HTTPException(403, "Blind mode hides labels.")
    with tempfile.NamedTemporaryFile(suffix=".parquet", delete=False) as file:
        path = Path(file.name)
    try:
        export_marks(run.catalogue, run.marks.all(), path)
    except PalateError:
        path.unlink()
        raise
    done = BackgroundTask(partial(path.unlink, missing_ok=True))
    return FileResponse(path, filename="marks.parquet", background=done)


def name_yourself(form: Form) -> Response:
    """Keep the name under which this browser marks."""
    answer = _back(form.get("back", ""))
    answer.set_cookie(ANNOTATOR, quote(annotator_name(form.get("annotator", ""))), **COOKIE)
    return answer


def blindfold(form: Form) -> Response:
    """Hide labels and scores in this browser, or show them again."""
    answer = _back(form.get("back", ""))
    answer.set_cookie(BLIND, "1" if form.get("blind") == "1" else "0", **COOKIE)
    return answer


def live(request: Request, run: Run, viewer: Who, item: int | None = None) -> Response:
    """A form for a prompt and two responses, which an item of the list may fill."""
    if viewer.blind:
        return _page(request, "live", fields=None, rewards=None, models=run.rewards.models)
    run.rewards.warm()
    known = item is not None and 0 <= item < run.catalogue.size
    fields = _filled(read_item(run.catalogue, item or 0).comparison) if known else {}
    return _page(request, "live", fields=fields, rewards=None, models=run.rewards.models)


def _filled(comparison: Comparison) -> Fields:
    prompt = write_prompt(comparison.prompt)
    return {"prompt": prompt, "first": comparison.chosen, "second": comparison.rejected}


def score_live(request: Request, run: Run, viewer: Who, form: Form) -> Response:
    """The rewards of what was typed."""
    if viewer.blind:
        raise HTTPException(403, "Blind mode hides scores.")
    fields = {
        name: form.get(name, "").replace("\r\n", "\n") for name in ("prompt", "first", "second")
    }
    rewards = _rewards(_explorer(request), run, viewer, fields) if fields["prompt"].strip() else []
    return _page(request, "live", fields=fields, rewards=rewards, models=run.rewards.models)


def _rewards(explorer: Explorer, run: OpenRun, viewer: Viewer, fields: Fields) -> list[Reward]:
    """Only a person's newest question is worth computing: they type on while one is answered."""
    turn = explorer.asked[viewer.annotator] = explorer.asked.get(viewer.annotator, 0) + 1
    asked = run.rewards.ask(
        read_prompt(fields["prompt"]),
        (fields["first"], fields["second"]),
        lambda: explorer.asked[viewer.annotator] == turn,
    )
    return asked.result()


PAGES: dict[str, Callable[..., Any]] = {
    "/": home,
    "/r/{run}/": items,
    "/r/{run}/item/{item}": one_item,
    "/r/{run}/marks": all_marks,
    "/r/{run}/marks.parquet": marks_file,
    "/r/{run}/live": live,
}
CHANGES: dict[str, Callable[..., Any]] = {
    "/r/{run}/item/{item}/mark": mark_item,
    "/r/{run}/live": score_live,
    "/name": name_yourself,
    "/blind": blindfold,
}


# From a command to pages on loopback.

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
    runs = tuple(OpenRun(folder, marks) for folder in folders)
    Thread(target=_open, args=(runs[0],), daemon=True, name="opening").start()
    # Imported here: meanwhile DuckDB reads the columns.
    import uvicorn

    if token and len(token) < MIN_TOKEN_CHARACTERS:
        raise PalateError(
            f"PALATE_VIEW_TOKEN: expected {MIN_TOKEN_CHARACTERS} characters or more, got "
            f"{len(token)}; make it longer, or leave it unset for a random one"
        )
    token = token or new_token()
    with _listening(port) as listener:
        port = listener.getsockname()[1]
        app = build_app(Explorer(runs, annotator, blind), token=token, port=port)
        # No access log: it would print the token. No proxy headers: none is between.
        config = uvicorn.Config(
            app, access_log=False, log_level="warning", proxy_headers=False, server_header=False
        )
        opened(f"http://{HOST}:{port}/?token={token}")
        uvicorn.Server(config).run(sockets=[listener])


def _open(run: OpenRun) -> None:
    with suppress(PalateError):  # The page says it.
        run.open()


def _listening(port: int) -> socket.socket:
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        reason = error.strerror or error
        raise PalateError(f"port {port}: cannot be listened on ({reason}); use --port 0") from None
