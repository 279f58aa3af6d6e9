"""`palate engines`: the programs that people serve reward models with, each where it can be run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from palate.cli.options import Format, FormatOption, emit, progress

if TYPE_CHECKING:
    from palate.engines.base import Engine
    from palate.evaluate.parity import Agreement

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
            version, note = None, str(error).removeprefix(f"{engine.name}: ").partition(",")[0]
        packages = " ".join(engine.requirements)
        rows.append({"engine": engine.name, "version": version, "installs": packages, "note": note})
    emit(rows, form, f"engines in {root()}")


HEAD = """# Engines: what each makes of an export

`palate parity MODEL --engine NAME` starts the engine, asks it in every way that its users have, and
compares each reward with Palate's. This page is written by such a run:

```sh
palate engines install {names}
palate parity MODEL --engine all --page engines.md
```

**same** is within the tolerance of the number format that the engine computes in: 0.001 SD of the
rewards in float32, 0.025 in float16, 0.2 in bfloat16. A way that differs, or is refused, is shown
so that nobody takes it for the reward. Pairs of a prompt and a response are asked of conversations
of one turn only.
"""


def page_of(agreements: Sequence[Agreement], engines: Sequence[Engine], about: str) -> str:
    """The page: a section an engine with its flags, ways, figures, and what cannot be had.

    `about` says what was asked of which model.
    """
    asked = {
        engine.name: (engine, rows)
        for engine in engines
        if (rows := [one for one in agreements if one.details.get("engine") == engine.title])
    }
    parts = [HEAD.format(names=" ".join(asked)), f"{about}\n"]
    for engine, rows in asked.values():
        parts.append(f"## {engine.title} {rows[0].details['version']}\n")
        command = rows[0].details["command"] or engine.name
        parts.append(f"`palate engines install {engine.name}` · `{command}`\n")
        parts.append(
            "| flags | way | computes in | largest difference | in SD | flips | |\n"
            "|---|---|---|---:|---:|---:|---|"
        )
        for one in rows:
            facts = one.details
            figures = f"{one.largest:.1e} | {one.relative:.1e} | {len(one.flips)} of {one.pairs}"
            verdict = "**same**" if one.holds else "differs"
            if one.unequal:
                verdict = f"{one.unequal} without a reward"
            if one.refused:
                figures, verdict = " |  | ", f"refused: {one.refused}"
            if facts["note"]:
                verdict += f"; {facts['note']}"
            cells = [
                f"`{facts['flags']}`" if facts["flags"] != "no flags" else "none",
                f"`{facts['route']}` `{facts['asked']}`",
                facts["computes in"],
                figures,
                verdict.replace("|", "/").replace("<", "&lt;"),
            ]
            parts.append("| " + " | ".join(cells) + " |")
        if engine.missing:
            parts.append("\nCannot be had:\n")
            parts += [f"- {sentence}" for sentence in engine.missing]
        parts.append("")
    return "\n".join(parts).rstrip() + "\n"
