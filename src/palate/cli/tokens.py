"""`palate tokens`: who may ask a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from palate.cli.output import Format, FormatOption, emit, progress

app = typer.Typer(help="Bearer tokens of a server: add, revoke, list.", no_args_is_help=True)

FileOption = Annotated[Path, typer.Option("--file", help="Where hashes of the tokens are kept.")]
NameArgument = Annotated[str, typer.Argument(help="Who holds it; a client's limits go by it.")]
DEFAULT = Path("palate-tokens")


@app.command("add")
def add(name: NameArgument, file: FileOption = DEFAULT) -> None:
    """Make a token for NAME and print it, once: only its hash is kept.

    A running server lets it in at once.
    Example: [bold]export PALATE_TOKEN=$(palate tokens add trainer)[/bold]
    """
    from palate.serve.auth import add_token

    typer.echo(add_token(file, name))
    progress()(f"its hash is in {file}; serve with: palate serve MODEL --tokens {file}")


@app.command("revoke")
def revoke(name: NameArgument, file: FileOption = DEFAULT) -> None:
    """Take the token of NAME back; a running server refuses it at once.

    Example: [bold]palate tokens revoke trainer[/bold]
    """
    from palate.serve.auth import revoke_token

    revoke_token(file, name)
    progress()(f"{name} is no longer in {file}")


@app.command("list")
def list_tokens(file: FileOption = DEFAULT, form: FormatOption = Format.TABLE) -> None:
    """Show who has a token, and since when.

    Example: [bold]palate tokens list[/bold]
    """
    from palate.serve.auth import token_dates

    emit([{"name": n, "since": d} for n, d in token_dates(file).items()], form, str(file))
