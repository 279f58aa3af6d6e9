"""From a command to pages on loopback."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread

from palate.types import PalateError
from palate.view.catalogue import comparison_files
from palate.view.explorer import Explorer, OpenRun

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

    from palate.view.access import MIN_TOKEN_CHARACTERS, new_token
    from palate.view.app import build_app

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
