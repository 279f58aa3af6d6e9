"""`palate score`: responses in, rewards out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from palate.cli.output import QuietOption, command_line, counting, interruptible, progress


def score(
    model: Annotated[str, typer.Argument(help="Folder or hub id of a reward model.")],
    file: Annotated[Path, typer.Argument(help="JSONL, JSON, CSV, TSV or Parquet.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help=".jsonl or .parquet; default: FILE.rewards.jsonl here."),
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Give every response a reward; columns: prompt and response, or responses (a list).

    Rows come out as they went in, with reward, reward_reason, reward_truncated, reward_tokens.
    Stopped, it goes on where it was.
    Example: [bold]palate score runs/demo/models/helpfulness responses.jsonl -o rewards.jsonl[/bold]
    """
    from palate.evaluate.scoring import beside, score_file
    from palate.judges import ScorerJudge, open_judge
    from palate.recipe.distributed import sharing

    say = progress(quiet=quiet)
    target = out or beside(file, "rewards")
    with interruptible(command_line()), sharing() as share, counting("rows") as told:
        judge = open_judge({"reward-model": model})
        assert isinstance(judge, ScorerJudge)
        score_file(judge.scorer, file, target, progress=told, share=share)
    say(f"rewards: {target}")
