"""Who may see the explorer, and what a browser may do with its pages.

A URL with the token lets a browser in and gives it a cookie, as Jupyter does; everything else is
refused. Pages may load style, script and data from here and nothing from anywhere else.
"""

from __future__ import annotations

import html
import secrets
from collections.abc import MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

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
            return _page(
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
        answer = _page(f'<a href="{link}">Open the explorer</a>', 200, head)
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
        return _page("This change came from another site and was not made.", 403)
    length = headers.get("content-length", "")
    if not length.isdigit():
        return _page("A body of known length was expected.", 411)
    if int(length) > MAX_BODY_BYTES:
        return _page(f"At most {MAX_BODY_BYTES:,} bytes can be sent.", 413)
    return None


def _page(text: str, status: int, head: str = "") -> HTMLResponse:
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
