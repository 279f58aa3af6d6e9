"""`palate serve`: reward models over HTTP."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from palate.cli.output import progress

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
    Palate's own /v1/reward. Only this machine can reach it unless --host says otherwise.
    Example: [bold]palate serve runs/demo/models/helpfulness runs/demo/models/safety[/bold]
    """
    from palate.serve.app import Server, check_exposure, listen, run
    from palate.serve.auth import Tokens
    from palate.serve.loading import add_combined, chosen_dtype, named, open_models
    from palate.serve.metrics import start_tracing
    from palate.serve.service import Models
    from palate.serve.settings import Limits, Settings

    limits = Limits(
        body_bytes=body_megabytes << 20,
        deadline_seconds=deadline_seconds,
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
    )
    settings = Settings(
        host=host,
        port=port,
        tokens=tokens,
        without_token=without_token,
        grace_seconds=grace_seconds,
        drain_seconds=drain_seconds,
        trace=trace,
        limits=limits,
    )
    check_exposure(settings)
    access = Tokens(tokens) if tokens else None
    listening = listen(settings)
    _log()
    if trace:
        start_tracing()
    progress()(f"loading {', '.join(models)}")
    served, engines = open_models(
        named(models),
        dtype=chosen_dtype(dtype),
        tokens_per_microbatch=tokens_per_microbatch,
        max_waiting_tokens=max_waiting_tokens,
        max_tokens=max_tokens,
        workers=workers,
        most_characters=limits.characters_per_conversation,
    )
    if combined is not None:
        names = {"safety": safety, "helpfulness": helpfulness}
        add_combined(served, combined, **names, words=safety_words)
    run(Server(Models(served), engines, settings, access), listening)


def _log() -> None:
    """One line an event on stderr; uvicorn's own lines from warnings up."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("httpx2").setLevel(logging.WARNING)
