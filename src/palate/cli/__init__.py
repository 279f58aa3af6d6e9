"""One verb a stage. `main` is the only place where an error becomes an exit code.

Each command imports what it needs when it runs, so that `palate --help` stays instant.
"""

from __future__ import annotations

import errno
import inspect
import re
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

import typer

from palate.cli import (
    audit,
    data,
    doubt,
    engines,
    judging,
    labels,
    models,
    plan,
    recipes,
    score,
    serve,
)
from palate.process import this_process
from palate.types import PalateError

LARGEST, LARGEST_WHOLE = 1e15, 2**63 - 1
"""The largest number that an option may be: with a fraction, and without one."""
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
# The parts of `palate --help`, in the order in which they are met.
RUN, DATA, LABELS, MODELS, SERVE, LOOK = "Run", "Data", "Labels", "Models", "Serve", "Look"
COMMANDS: tuple[tuple[str, str, Callable[..., None]], ...] = (
    (RUN, "demo", recipes.demo),
    (RUN, "run", recipes.run),
    (RUN, "mix", recipes.mix),
    (RUN, "plan", plan.plan),
    (RUN, "train", recipes.train),
    (RUN, "evaluate", recipes.evaluate),
    (RUN, "report", recipes.report),
    (LABELS, "next", labels.next_round),
    (LABELS, "loop", labels.loop),
    (MODELS, "judge", recipes.judge),
    (MODELS, "probe", judging.probe),
    (MODELS, "win-rate", judging.win_rate),
    (MODELS, "score", score.score),
    (MODELS, "rank", score.rank),
    (MODELS, "filter", score.filter_rows),
    (MODELS, "parity", models.parity),
    (MODELS, "export", models.export),
    (MODELS, "push", models.push),
    (SERVE, "serve", serve.serve),
    (SERVE, "combine", score.combine),
    (LOOK, "view", serve.view),
    (LOOK, "compare", score.compare),
    (LOOK, "audit", audit.audit),
    (LOOK, "doubt", doubt.doubt),
    (LOOK, "doctor", plan.doctor),
)
for _panel, _name, _command in COMMANDS:
    app.command(_name, rich_help_panel=_panel)(_command)
    if _name == "report":
        app.add_typer(recipes.app, name="recipes", rich_help_panel=RUN)
        app.add_typer(data.app, name="data", rich_help_panel=DATA)
    if _name == "push":
        app.add_typer(engines.app, name="engines", rich_help_panel=MODELS)
    if _name == "serve":
        app.add_typer(serve.app, name="tokens", rich_help_panel=SERVE)


def _paragraphs(text: str) -> str:
    """A docstring's paragraphs, and its examples, each on a line of its own.

    typer breaks a line where the docstring does, in the middle of a sentence.
    """
    paragraphs = re.split(r"\n\s*\n", text.strip())
    lines = [re.sub(r"\s*\n\s*(?!\[bold\]palate|\s)", " ", paragraph) for paragraph in paragraphs]
    return "\n\n".join(re.sub(r"\s+Example: ", "\n\nExample: ", line) for line in lines)


def _bounded(command: Callable[..., None]) -> Callable[..., None]:
    """The command, which refuses numbers that are none, or larger than anything it counts.

    So no message has hundreds of digits, and no whole number is more than 64 bits hold.
    """

    @wraps(command)
    def checked(**values: Any) -> None:
        for name, value in values.items():
            if not isinstance(value, int | float):
                continue
            most = LARGEST_WHOLE if isinstance(value, int) else LARGEST
            if not abs(value) <= most:  # NaN is neither more nor less.
                got = f"{value:g}" if isinstance(value, float) else f"{len(str(abs(value)))} digits"
                raise PalateError(
                    f"{_typed(command, name)}: expected a number of at most {most:.2g}, got {got}"
                )
        command(**values)

    return checked


def _typed(command: Callable[..., None], name: str) -> str:
    """The option of a command's parameter, as it is typed."""
    kind = inspect.signature(command, eval_str=True).parameters[name].annotation
    info = next(iter(getattr(kind, "__metadata__", ())), None)
    words = (getattr(info, "default", None), *(getattr(info, "param_decls", None) or ()))
    return next((word for word in words if str(word).startswith("--")), name)


for _group in (app, data.app, engines.app, recipes.app, serve.app):
    for _one in _group.registered_commands:
        _one.help = _paragraphs((_one.callback and _one.callback.__doc__) or "")
        _one.callback = _one.callback and _bounded(_one.callback)


def _version(requested: bool) -> None:
    if requested:
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
        line, number = " ".join(str(error).split()), this_process().rank
        sys.stderr.write(f"palate: rank {number}: {line}\n" if number else f"palate: {line}\n")
        sys.exit(1)
    except OSError as error:
        # A full disk or a folder without permission, wherever it was met, is no bug of ours.
        if error.errno not in USERS_ERRNOS:
            raise
        sys.stderr.write(f"palate: {error.filename or 'writing'}: {error.strerror}\n")
        sys.exit(1)
