"""`palate score`: responses in, rewards out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from palate.cli.output import command_line, interruptible, progress


def score(
    model: Annotated[str, typer.Argument(help="Folder or hub id of a reward model.")],
    file: Annotated[Path, typer.Argument(help="JSONL, CSV or Parquet of prompts and responses.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help=".jsonl or .parquet; default: stdout.")
    ] = None,
) -> None:
    """Give every response a reward; columns: prompt and response, or responses (a list).

    Rows come out as they went in, with reward (or rewards), truncated and reason.
    Example: [bold]palate score runs/demo/models/helpfulness responses.jsonl -o rewards.jsonl[/bold]
    """
    from palate.judges import ScorerJudge, open_judge
    from palate.score import score_file
    from palate.types import PalateError

    if not file.is_file():
        raise PalateError(f"{file}: no such file; give JSONL, CSV or Parquet")
    judge = open_judge({"reward-model": model})
    assert isinstance(judge, ScorerJudge)
    with interruptible(command_line()):
        rows, unscored = score_file(judge.scorer, file, sys.stdout if out is None else out)
    progress()(f"{rows:,} rows, {unscored:,} without a reward")
