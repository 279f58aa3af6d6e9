"""`palate rank` and `palate filter`: the best responses of each prompt, and rows worth keeping."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from palate.cli.output import QuietOption, command_line, counting, interruptible, progress

if TYPE_CHECKING:
    from palate.evaluate.journal import Share
    from palate.types import Scorer

Words = Annotated[
    list[str],
    typer.Argument(
        metavar="[MODEL] FILE",
        help="Reward model (folder or hub id), then JSONL, JSON, CSV, TSV or Parquet; FILE alone "
        "where it has rewards already, from `palate score`.",
        show_default=False,
    ),
]


class On(StrEnum):
    """What of a comparison is held against the bar."""

    CHOSEN = "chosen"
    MARGIN = "margin"


def rank(
    words: Words,
    top: Annotated[
        int | None, typer.Option("--top", min=1, help="Keep the best K responses of each prompt.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help=".jsonl or .parquet; default: FILE.ranked.jsonl here."),
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Order the responses of each prompt by reward, best first; --top 1 is best-of-n.

    FILE has columns prompt and responses (a list). Added: rewards, and rewards_order, where each
    response stood before. Any size, memory stays; stopped, it goes on where it was; torchrun shares
    it out.
    Example: [bold]palate rank runs/demo/models/safety samples.jsonl --top 1 -o best.jsonl[/bold]
    """
    from palate.evaluate.scoring import beside, rank_file

    progress(quiet=quiet)
    model, file = _model_and_file(words)
    target = out or beside(file, "ranked")
    with _scoring(model) as (scorer, share, told):
        rank_file(scorer, file, target, top=top, progress=told, share=share)
    _say(target, "ranked")


def filter_rows(
    words: Words,
    min_reward: Annotated[
        float | None, typer.Option("--min-reward", help="Keep what has at least this reward.")
    ] = None,
    top_percent: Annotated[
        float | None,
        typer.Option("--top-percent", help="Keep the best P percent of all; ties are kept."),
    ] = None,
    on: Annotated[
        On, typer.Option("--on", help="Of comparisons: the chosen one's reward, or its margin.")
    ] = On.CHOSEN,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help=".jsonl or .parquet; default: FILE.kept.jsonl here."),
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Keep the rows whose reward is high enough: an absolute reward, or a share of the best.

    FILE has prompt and response, or responses (a list: the good ones stay), or chosen and rejected;
    comparisons in Parquet stay comparisons, for `palate train`. What has no score is dropped.
    Example: [bold]palate filter runs/demo/models/safety pairs.parquet --min-reward 0.5[/bold]
    Example: [bold]palate filter rewards.jsonl --top-percent 10 -o best.jsonl[/bold]
    """
    from palate.evaluate.scoring import Bar, beside, filter_file

    progress(quiet=quiet)
    model, file = _model_and_file(words)
    bar = Bar(min_reward, top_percent, on.value)
    target = out or beside(file, "kept")
    with _scoring(model) as (scorer, share, told):
        filter_file(scorer, file, target, bar, progress=told, share=share)
    _say(target, "kept")


def _model_and_file(words: list[str]) -> tuple[str | None, Path]:
    from palate.types import PalateError

    if len(words) > 2:
        raise PalateError(f"expected MODEL FILE, or FILE with rewards, got {len(words)} arguments")
    model = words[0] if len(words) == 2 else None
    return model, Path(words[-1])


@contextmanager
def _scoring(model: str | None) -> Generator[tuple[Scorer | None, Share, Any]]:
    from palate.judges import ScorerJudge, open_judge
    from palate.recipe.distributed import sharing

    with interruptible(command_line()), sharing() as share, counting("rows") as told:
        scorer: Scorer | None = None
        if model is not None:
            judge = open_judge({"reward-model": model})
            assert isinstance(judge, ScorerJudge)
            scorer = judge.scorer
        yield scorer, share, told


def _say(path: Path, done: str) -> None:
    from palate.evaluate.scoring import facts_of
    from palate.progress import say

    facts = facts_of(path)
    line = f"{done}: {facts['kept']:,} of {facts['rows']:,} rows"
    if facts.get("threshold") is not None:
        line += f", reward at least {facts['threshold']:.6g}"
    if facts.get("unscored"):
        line += f"; {facts['unscored']:,} responses without a score are left out"
    say(f"{line}: {path}")
