"""`palate parity`: one model, scored every way that it can be."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from palate.cli.output import Format, FormatOption, emit, progress

if TYPE_CHECKING:
    from palate.evaluate.parity import Agreement, Way
    from palate.types import Candidates


def parity(
    model: Annotated[str, typer.Argument(help="Folder or hub id of a reward model.")],
    items: Annotated[
        Path | None,
        typer.Option("--items", help="JSONL or Parquet as `palate score` takes, or comparisons."),
    ] = None,
    count: Annotated[int, typer.Option("--n", min=2, help="Prompts that are scored.")] = 64,
    tolerance: Annotated[
        float | None,
        typer.Option(min=0, help="In SD of the rewards; default: 0.001, in bfloat16 0.2."),
    ] = None,
    form_of: Annotated[
        str, typer.Option("--input", help="Input of a foreign model: chat, pair or plain.")
    ] = "chat",
    emulated: Annotated[
        bool, typer.Option("--emulated", help="Run bfloat16 where the device emulates it: slow.")
    ] = False,
    save: Annotated[Path | None, typer.Option("--save", help="JSON file with all of it.")] = None,
    form: FormatOption = Format.TABLE,
) -> None:
    """Score the same responses every way the model can be scored; exit 1 if the numbers part.

    Alone and in batches, padded, packed, with shared prompts, in bfloat16, and by transformers'
    own class. Without --items the responses are those of a simulated campaign.
    Example: [bold]palate parity runs/demo/models/safety --items responses.jsonl[/bold]
    """
    from palate.evaluate.parity import parity as compare
    from palate.model.device import default_device
    from palate.records import write_json
    from palate.types import PalateError

    ways = _ways(model, form_of)
    say = progress()
    found = compare(
        ways,
        _candidates(items, count),
        tolerance=tolerance,
        told=lambda name: say(f"{name} ..."),
        emulated=emulated,
        device=default_device(),
    )
    emit([_row(agreement) for agreement in found], form, f"{model}: against {ways[0].name}")
    if save is not None:
        write_json(save, {"model": model, "reference": ways[0].name, "ways": [*map(asdict, found)]})
        say(f"saved: {save}")
    if broken := [agreement.way for agreement in found if not agreement.holds]:
        raise PalateError(
            f"{model}: not the same scores by {'; '.join(broken)}; do not mix them, or allow the "
            "difference with --tolerance"
        )


def _ways(model: str, form: str) -> list[Way]:
    """Our engine where it can open the model, and transformers' own class."""
    from palate.evaluate.parity import classifier_ways, reward_model_ways
    from palate.judges import sequence_classifier_spec
    from palate.judges.reward_model import RewardScorer
    from palate.types import PalateError

    spec = sequence_classifier_spec({"model": model, "format": form, "over_limit": "unscored"})
    stock = classifier_ways(spec)
    if form != "chat":
        return stock
    try:
        return [*reward_model_ways(RewardScorer(model, dtype="float32")), *stock]
    except PalateError as error:
        progress()(f"Palate's engine is left out: {error}")
        return stock


def _candidates(items: Path | None, count: int) -> list[Candidates]:
    from itertools import islice

    from palate.evaluate.score import requests
    from palate.records import read_comparisons, read_header
    from palate.types import Candidates, PalateError

    if items is None:
        from palate.data.campaign import CampaignOptions, simulate

        campaign = simulate(CampaignOptions(weeks=1, comparisons_per_week=count), seed=0)
        return [Candidates(c.prompt, (c.chosen, c.rejected)) for c in campaign]
    try:
        read_header(items, "comparisons")
    except PalateError:
        return [request.candidates for request in islice(requests(items), count)]
    rows = islice(read_comparisons(items), count)
    return [Candidates(c.prompt, (c.chosen, c.rejected)) for c in rows]


def _row(agreement: Agreement) -> dict[str, Any]:
    found = agreement
    if found.not_run:
        blank = dict.fromkeys(("responses", "largest", "in SD", "tolerance", "flips"))
        return {"way": found.way, **blank, "verdict": f"not run: {found.not_run}"}
    return {
        "way": found.way,
        "responses": found.responses,
        "largest": found.largest,
        "in SD": found.relative,
        "tolerance": found.tolerance,
        "flips": f"{len(found.flips)} of {found.pairs}",
        "verdict": "same" if found.holds else _why(found),
    }


def _why(agreement: Agreement) -> str:
    if agreement.unequal:
        return f"{agreement.unequal} responses scored by one of the two only"
    return "differs"
