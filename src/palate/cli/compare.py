"""`palate compare`: two judges on the same items."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from palate.cli.output import Format, FormatOption, emit, progress

if TYPE_CHECKING:
    from palate.evaluate.compare import Compared, Part


def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="A judge of RUN, or a verdict file.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Another one.")],
    run: Annotated[
        Path | None, typer.Option("--run", help="Folder of a run; A and B are its judges.")
    ] = None,
    benchmark: Annotated[
        str | None, typer.Option("--benchmark", help="Of the run; default: the one there is.")
    ] = None,
    items: Annotated[
        Path | None,
        typer.Option("--items", help="File of the comparisons; a run knows its own."),
    ] = None,
    flips: Annotated[
        Path | None,
        typer.Option("--flips", help="JSONL file to write what the judges answered differently."),
    ] = None,
    form: FormatOption = Format.TABLE,
) -> None:
    """Say by how much A is better than B on the same items, on which of them, and whether by luck.

    Difference is A minus B in points, clustered by prompt. All items: p and a 95 % interval. Parts:
    p_holm is adjusted over all of them, and low and high have the level that Holm tests the part
    at; they leave out zero where p_holm is below 0.05. Judges that were not asked the same, or not
    alike, are not compared.
    Example: [bold]palate compare helpfulness longer --run runs/demo --benchmark safety[/bold]
    """
    import numpy as np

    from palate.cli.sources import all_of
    from palate.evaluate.compare import compare_judges, flipped_rows, verdict_files
    from palate.evaluate.metrics import read_tally
    from palate.records import write_text
    from palate.types import PalateError

    paths = [Path(first), Path(second)]
    if run is not None:
        paths = list(verdict_files(run, (first, second), benchmark))
    for path in paths:
        if not path.is_file():
            raise PalateError(f"{path}: no such verdict file; to name judges of a run, give --run")
    ours, theirs = map(read_tally, paths)
    if run is not None and items is None:
        items = run / "benchmarks" / f"{ours.benchmark}.parquet"
    progress()
    asked = list(all_of(items)) if items is not None else []
    compared = compare_judges(ours, theirs, asked, np.random.default_rng(0))
    emit([_row(part, compared) for part in compared.parts], form, _title(compared))
    _say(compared)
    if flips is not None:
        if items is None:
            raise PalateError(f"--flips {flips}: needs the texts; give --items or --run")
        import json

        rows = flipped_rows(compared, asked)
        write_text(flips, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        progress()(f"flips: {flips}")


def _title(compared: Compared) -> str:
    return f"{compared.first} against {compared.second} on {compared.benchmark}"


def _row(part: Part, compared: Compared) -> dict[str, Any]:
    gap = part.difference.estimate
    return {
        "by": part.by,
        "part": part.level,
        "n": gap.n,
        compared.first: round(100 * part.first.value, 1),
        compared.second: round(100 * part.second.value, 1),
        "difference": round(100 * gap.value, 1),
        "low": round(100 * gap.low, 1),
        "high": round(100 * gap.high, 1),
        "p": round(part.difference.p_value, 4) if part.by == "all" else None,
        "p_holm": None if part.by == "all" else round(part.difference.p_value, 4),
    }


def _say(compared: Compared) -> None:
    first = sum(flip.first == "chosen" for flip in compared.flips)
    second = sum(flip.second == "chosen" for flip in compared.flips)
    progress()(
        f"{len(compared.flips)} items were answered differently: {first} where only "
        f"{compared.first} preferred the chosen response, {second} where only {compared.second} did"
    )
