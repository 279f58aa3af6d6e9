"""`palate engines`: the programs that people serve reward models with, each where it can be run."""

from __future__ import annotations

from typing import Annotated

import typer

from palate.cli.options import Format, FormatOption, emit, progress

app = typer.Typer(no_args_is_help=True, help="Engines that serve reward models: install, list.")


@app.command("install")
def install(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="palate engines list.")],
    python: Annotated[
        str | None, typer.Option("--python", help="Interpreter to make it with; default: Palate's.")
    ] = None,
) -> None:
    """Install engines, each pinned and in an environment of its own, for `palate parity --engine`.

    They go under ~/.cache/palate/engines, or the folder in PALATE_ENGINES; remove a folder to be
    rid of it. Palate's own environment is not touched.
    Example: [bold]palate engines install vllm sentence-transformers[/bold]
    """
    from palate.engines import install as make
    from palate.engines import named, root
    from palate.types import PalateError

    log, engines = progress(), []
    for name in names:
        engine, path = named(name)
        if path is not None:
            raise PalateError(
                f"{name}: expected a name alone; a path is for palate parity --engine"
            )
        engines.append(engine)
    for engine in engines:
        made = make(engine, python=python, say=log)
        log(f"{engine.name} {made.version}: {root() / engine.name}")


@app.command("list")
def list_engines(form: FormatOption = Format.TABLE) -> None:
    """The engines that `palate parity --engine` runs: what is installed, and what would be.

    Example: [bold]palate engines list[/bold]
    """
    from palate.engines import ENGINES, find, root
    from palate.types import PalateError

    rows = []
    for engine in ENGINES.values():
        try:
            version, note = find(engine).version, ""
        except PalateError as error:
            version, note = "", str(error).removeprefix(f"{engine.name}: ").partition(",")[0]
        packages = " ".join(engine.requirements)
        rows.append({"engine": engine.name, "installed": version or note, "installs": packages})
    emit(rows, form, f"engines in {root()}")
