"""`palate serve`: reward models over HTTP."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from palate.cli.options import Format, FormatOption, emit, progress, run_folders
from palate.process import importing

LIMITS, STOP, MODELS, PAIR = "Limits", "Stopping", "Models", "Combined reward"


def serve(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL", help="Folders or hub ids, or NAME=MODEL.")
    ],
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    tokens: Annotated[
        Path | None,
        typer.Option("--tokens", help="File of `palate tokens`; then one is asked for."),
    ] = None,
    without_token: Annotated[
        bool, typer.Option("--without-token", help="Let everybody in who reaches --host.")
    ] = False,
    dtype: Annotated[
        str, typer.Option(help="float32, bfloat16 or auto.", rich_help_panel=MODELS)
    ] = "float32",
    max_tokens: Annotated[
        int | None,
        typer.Option(
            min=8, help="Longest conversation; default: as trained.", rich_help_panel=MODELS
        ),
    ] = None,
    tokens_per_microbatch: Annotated[
        int, typer.Option(min=64, help="Computed together.", rich_help_panel=MODELS)
    ] = 4_096,
    prompt_cache_megabytes: Annotated[
        int,
        typer.Option(
            min=0,
            help="Kept of prompts between requests, a model; 0: nothing.",
            rich_help_panel=MODELS,
        ),
    ] = 1_024,
    workers: Annotated[
        int,
        typer.Option(
            min=0, help="Processes a model; 0: this one. On GPUs in turn.", rich_help_panel=MODELS
        ),
    ] = 0,
    combined: Annotated[
        Path | None,
        typer.Option(
            help="File of `palate combine`: adds both as one model.", rich_help_panel=PAIR
        ),
    ] = None,
    safety: Annotated[str, typer.Option(help="Its safety model.", rich_help_panel=PAIR)] = "safety",
    helpfulness: Annotated[
        str, typer.Option(help="Its helpfulness model.", rich_help_panel=PAIR)
    ] = "helpfulness",
    safety_words: Annotated[
        Path | None,
        typer.Option(help="Words, one a line, of prompts about safety.", rich_help_panel=PAIR),
    ] = None,
    max_waiting_tokens: Annotated[
        int, typer.Option(min=1, help="A model's; above it: 429.", rich_help_panel=LIMITS)
    ] = 262_144,
    deadline_seconds: Annotated[
        float, typer.Option(min=0.1, help="Longest wait for an answer.", rich_help_panel=LIMITS)
    ] = 120.0,
    requests_per_minute: Annotated[
        float | None, typer.Option(min=1, help="Of one client.", rich_help_panel=LIMITS)
    ] = None,
    tokens_per_minute: Annotated[
        float | None, typer.Option(min=1, help="Of one client.", rich_help_panel=LIMITS)
    ] = None,
    body_megabytes: Annotated[
        int, typer.Option(min=1, help="Of one request.", rich_help_panel=LIMITS)
    ] = 16,
    grace_seconds: Annotated[
        float,
        typer.Option(min=0, help="From SIGTERM on requests are still taken.", rich_help_panel=STOP),
    ] = 0.0,
    drain_seconds: Annotated[
        float, typer.Option(min=0, help="Then for accepted ones to finish.", rich_help_panel=STOP)
    ] = 60.0,
    trace: Annotated[
        bool, typer.Option("--trace", help="OpenTelemetry spans; needs palate\\[otel].")
    ] = False,
) -> None:
    """Serve reward models to trainers and rankers, in the shapes that they already speak.

    OpenRLHF, verl, slime, LLaMA-Factory, vLLM, SGLang, TEI, Cohere's and OpenAI's clients, and
    Palate's own /v1/reward. Only this machine can reach it unless --host says otherwise. A socket
    that systemd passes takes the place of --host and --port, and lets one server replace another
    without losing a request: docs/serve.md, Stopping.
    Example: [bold]palate serve runs/demo/models/helpfulness runs/demo/models/safety[/bold]
    """
    with importing():
        from palate.serve.app import Server, check_exposure, listen, passed_socket, run
        from palate.serve.auth import Tokens
        from palate.serve.loading import add_combined, chosen_dtype, named, open_models
        from palate.serve.metrics import start_tracing
        from palate.serve.service import Registry
        from palate.serve.settings import Limits, Settings

    limits = Limits(
        body_bytes=body_megabytes << 20,
        deadline_seconds=deadline_seconds,
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
    )
    passed = passed_socket()
    if passed is not None:
        host, port = passed.getsockname()[:2]
    settings = Settings(
        host=host,
        port=port,
        socket_was_passed=passed is not None,
        tokens=tokens,
        without_token=without_token,
        grace_seconds=grace_seconds,
        drain_seconds=drain_seconds,
        trace=trace,
        limits=limits,
    )
    check_exposure(settings)
    access = Tokens(tokens) if tokens else None
    listening = passed or listen(settings)
    _log()
    if trace:
        start_tracing()
    if passed is not None:
        progress()(f"listening on the socket that was passed, at {host}:{port}")
    progress()(f"loading {', '.join(models)}")
    served, engines = open_models(
        named(models),
        dtype=chosen_dtype(dtype),
        tokens_per_microbatch=tokens_per_microbatch,
        max_waiting_tokens=max_waiting_tokens,
        cache_bytes=prompt_cache_megabytes << 20,
        max_tokens=max_tokens,
        workers=workers,
        max_characters=limits.characters_per_conversation,
    )
    if combined is not None:
        names = {"safety": safety, "helpfulness": helpfulness}
        add_combined(served, combined, **names, words=safety_words)
    run(Server(Registry(served), engines, settings, access), listening)


def _log() -> None:
    """One line an event on stderr; uvicorn's own lines from warnings up."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("httpx2").setLevel(logging.WARNING)


# `palate tokens`: who may ask a server.

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


# `palate view`: the explorer of a run's comparisons.


def view(
    folders: Annotated[
        list[Path], typer.Argument(metavar="RUN", help="Folders of runs or studies.")
    ],
    marks: Annotated[
        Path | None,
        typer.Option("--marks", metavar="FILE", help="Where marks are kept; RUN/marks.sqlite."),
    ] = None,
    annotator: Annotated[
        str | None, typer.Option("--annotator", help="Your name in the marks; your login.")
    ] = None,
    blind: Annotated[
        bool, typer.Option("--blind", help="Hide labels and scores from everybody.")
    ] = False,
    export: Annotated[
        Path | None,
        typer.Option("--export", metavar="FILE", help="Write the marks as comparisons, and stop."),
    ] = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: a free one.")] = 0,
) -> None:
    """Look at every comparison of a run, search, filter, compare judges, and mark by keyboard.

    Listens on 127.0.0.1 and prints an address with a token (PALATE_VIEW_TOKEN sets your own).
    Nothing in RUN is changed. Example: [bold]palate view runs/llama2[/bold]
    The marks as another annotation batch:
    [bold]palate view runs/llama2 --export marks.parquet[/bold]
    """
    import getpass
    import os

    from palate.cli.sources import check_parquet
    from palate.explorer.annotations import annotator_name

    runs = runs_to_view(folders)
    if export is not None:
        check_parquet(export, "--export")
        _export(runs, marks, export)
        return
    from palate.explorer.app import serve

    def opened(url: str) -> None:
        sys.stdout.write(f"{url}\n")
        sys.stdout.flush()
        progress()("open this address in a browser; Ctrl-C stops")

    serve(
        runs,
        annotator=annotator_name(annotator or getpass.getuser()),
        marks=marks,
        blind=blind,
        port=port,
        token=os.environ.get("PALATE_VIEW_TOKEN", ""),
        opened=opened,
    )


def runs_to_view(folders: list[Path]) -> list[Path]:
    """The folders of runs; of a study those of its variants, as far as they are made."""
    from palate.explorer.annotations import MARKS
    from palate.types import PalateError

    def shows(run: Path) -> bool:
        return any((run / part).is_dir() for part in ("benchmarks", "mixtures"))

    runs: list[Path] = []
    for folder in folders:
        if not folder.is_dir():
            raise PalateError(f"{folder}: no such run; make one with `palate run`")
        variants: list[Path] = []
        if (
            folder / "study.json"
        ).is_file():  # A look inside imports the report's statistics: a second.
            # Weeks of a loop begin in one folder, whichever way they go on.
            variants = list(dict.fromkeys(run for run, _ in run_folders(folder) if shows(run)))
        # The study's own folder has the same comparisons without verdicts.
        if not variants or (folder / MARKS).is_file():
            runs.append(folder)
        runs += variants
    return runs


def _export(runs: list[Path], marks: Path | None, out: Path) -> None:
    from palate.explorer.annotations import MARKS, Annotations, export_annotations
    from palate.explorer.index import open_index
    from palate.types import PalateError

    if len(runs) != 1:
        raise PalateError(
            f"--export: expected one run, got {len(runs)}; name one of them, such as {runs[-1]}"
        )
    annotations = Annotations(marks or runs[0] / MARKS)
    batch = export_annotations(open_index(runs[0]), annotations.all(), out)
    progress()(f"{out}: {batch}")
