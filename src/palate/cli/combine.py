"""`palate combine`: a safety and a helpfulness model as one reward, whitened."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from palate.cli.output import progress


def combine(
    safety: Annotated[str, typer.Argument(help="Folder of the safety reward model.")],
    helpfulness: Annotated[str, typer.Argument(help="Folder of the helpfulness reward model.")],
    file: Annotated[Path, typer.Argument(help="JSONL or Parquet of prompts and responses.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to write.")] = Path(
        "combined.json"
    ),
    threshold: Annotated[
        float, typer.Option(help="Safety decides where its sigmoid is below this.")
    ] = 0.15,
    safety_words: Annotated[
        Path | None,
        typer.Option(help="Words, one a line; a prompt that says one is about safety."),
    ] = None,
) -> None:
    """Measure how a safety and a helpfulness model combine, for `palate serve`.

    The reward is the safety model's where the prompt is about safety or it finds the response
    unsafe, else the helpfulness model's; then it is whitened with the mean and the standard
    deviation that it has over FILE (Llama 2, section 3.2.3). FILE is as for `palate score`; a
    column `safety` (true or false) says which prompts are about safety.
    Example: [bold]palate combine models/safety models/helpfulness responses.jsonl[/bold]
    """
    from palate.evaluate.scoring import requests
    from palate.judges.reward_model import RewardScorer
    from palate.serve.combined import SafetyWords, measure, write_combination

    rule = SafetyWords.read(safety_words) if safety_words else None
    rows = [
        (item.candidates, tag if isinstance(tag := item.row.get("safety"), bool) else False)
        for item in requests(file)
    ]
    if rule:
        rows = [(asked, tag or rule(asked.prompt)) for asked, tag in rows]
    found = measure(RewardScorer(safety), RewardScorer(helpfulness), rows, str(file), threshold)
    write_combination(out, found)
    progress()(
        f"{out}: {found.responses} responses, mean {found.mean:.4g}, "
        f"standard deviation {found.std:.4g}, {found.by_safety:.1%} by safety"
    )
