"""One verb a stage. `main` is the only place where an error becomes an exit code.

Each command imports what it needs when it runs, so that `palate --help` stays instant.
"""

from __future__ import annotations

import errno
import re
import sys

import typer

from palate.cli import (
    data,
    models,
    plan,
    recipes,
    score,
    serve,
)
from palate.cli.options import rank
from palate.types import PalateError

USERS_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EPERM)
EPILOG = "Start with `palate demo`; then `palate recipes show llama2`; then a recipe of your own."

app = typer.Typer(
    name="palate",
    help="Human comparisons in, trustworthy reward models out.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data.app, name="data")
app.add_typer(recipes.app, name="recipes")
app.add_typer(serve.app, name="tokens")
app.command("run")(recipes.run)
app.command("demo")(recipes.demo)
app.command("mix")(recipes.mix)
app.command("plan")(plan.plan)
app.command("train")(recipes.train)
app.command("evaluate")(recipes.evaluate)
app.command("compare")(score.compare)
app.command("parity")(models.parity)
app.command("report")(recipes.report)
app.command("score")(score.score)
app.command("rank")(score.rank)
app.command("filter")(score.filter_rows)
app.command("export")(models.export)
app.command("push")(models.push)
app.command("serve")(serve.serve)
app.command("combine")(score.combine)
app.command("view")(serve.view)
app.command("doctor")(plan.doctor)


def _paragraphs(text: str) -> str:
    """A docstring's paragraphs, and its examples, each on a line of its own.

    typer breaks a line where the docstring does, in the middle of a sentence.
    """
    paragraphs = re.split(r"\n\s*\n", text.strip())
    lines = [re.sub(r"\s*\n\s*(?!\[bold\]palate|\s)", " ", paragraph) for paragraph in paragraphs]
    return "\n\n".join(re.sub(r"\s+Example: ", "\n\nExample: ", line) for line in lines)


for _group in (app, data.app, recipes.app, serve.app):
    for _command in _group.registered_commands:
        _command.help = _paragraphs((_command.callback and _command.callback.__doc__) or "")


def _version(asked: bool) -> None:
    if asked:
        from palate import __version__

        typer.echo(f"palate {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and stop."
    ),
) -> None:
    del version


def main() -> None:
    """Run the command line; a user's mistake is one line on stderr and exit code 1."""
    try:
        app()
    except PalateError as error:
        line, number = " ".join(str(error).split()), rank()
        sys.stderr.write(f"palate: rank {number}: {line}\n" if number else f"palate: {line}\n")
        sys.exit(1)
    except OSError as error:
        # A full disk or a folder without permission, wherever it was met, is no bug of ours.
        if error.errno not in USERS_ERRNOS:
            raise
        sys.stderr.write(f"palate: {error.filename or 'writing'}: {error.strerror}\n")
        sys.exit(1)
