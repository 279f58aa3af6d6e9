"""What a stage of a run has to show, on stdout."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palate.cli.output import Format, emit

if TYPE_CHECKING:
    from palate.report.verdict import Verdict

MOST_CAUTIONS = 4


def show_stage(stage: str, folder: Path, form: Format = Format.TABLE) -> None:
    """Print the result of the stage at which a run stopped."""
    SHOW[stage](folder, form)


def _mixtures(folder: Path, form: Format) -> None:
    emit(_shares(folder), form, "Shares asked and achieved")


def _shares(folder: Path) -> Iterator[Mapping[str, Any]]:
    for path in sorted((folder / "mixtures").glob("*.shares.json")):
        name = path.name.removesuffix(".shares.json")
        for share in json.loads(path.read_text(encoding="utf-8"))["shares"]:
            yield {
                "mixture": name,
                "group": share["group"],
                "pool": share["pool"],
                "available": share["available"],
                "rows asked": share["rows_asked"],
                "rows": share["rows"],
                "asked": _percent(share["share_asked"]),
                "of rows": _percent(share["share_rows"]),
                "of tokens": _percent(share["share_tokens"]),
            }


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _runs(folder: Path) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """The folders of a run and what names them: of a study its variants', else the run's own."""
    from palate.report.study import is_study, read_index

    if not is_study(folder):
        yield folder, {}
        return
    for run in read_index(folder).runs:
        yield folder / run.folder, {**run.levels, "seed": run.seed}


def _training(folder: Path, form: Format) -> None:
    rows = [
        {**names, "model": path.name, "checkpoint": str(path)}
        for run, names in _runs(folder)
        for path in _models(run)
    ]
    emit(rows, form, "Checkpoints")


def _models(run: Path) -> list[Path]:
    return sorted(path for path in (run / "models").glob("*") if path.is_dir())


def _verdicts(folder: Path, form: Format) -> None:
    from palate.records import read_header

    rows = []
    for run, names in _runs(folder):
        for path in sorted((run / "verdicts").glob("*.parquet")):
            details = read_header(path, "verdicts").details
            of = {"judge": details["judge"], "benchmark": details["benchmark"]}
            rows.append({**names, **of, **details["outcomes"]})
    emit(rows, form, "Verdicts")


def _report(folder: Path, form: Format) -> None:
    """What can be concluded of a run that has just written its page, and what to do next."""
    from rich.console import Console
    from rich.text import Text

    from palate.report import report
    from palate.report.page import PAGE

    del form  # A run has no --format: its tables are `palate report`'s.
    made, console = report(folder), Console()
    console.print()
    for line in _concluded(made.verdict):
        console.print(Text(line), soft_wrap=not console.is_terminal)
    _say_problems(made.problems)
    console.print(
        f"\npage: {folder / PAGE} (open it in a browser)\nnext:", style=None, markup=False
    )
    width = max(len(command) for command, _ in _next(folder))
    for command, why in _next(folder):
        console.print(
            f"  {command:{width}}  # {why}", markup=False, highlight=False, soft_wrap=True
        )


def _concluded(verdict: Verdict) -> list[str]:
    """A sentence a model, and what must be borne in mind of them; the rest is on the page."""
    models = ["".join(words) for words in verdict.models]
    cautions = [f"Caution: {finding.sentence}" for finding in verdict.of("caution")]
    more = len(cautions) - MOST_CAUTIONS
    left_out = [f"{more} more cautions are on the page."] if more > 0 else []
    none = [] if models else ["No model was judged; what the judges answered is on the page."]
    return [*models, *none, *cautions[:MOST_CAUTIONS], *left_out]


def _next(folder: Path) -> list[tuple[str, str]]:
    """The three commands that are asked for most after a run, as they can be pasted."""
    run = shlex.quote(str(folder))
    models = [path for one, _ in _runs(folder) for path in _models(one)]
    use = (
        (f"palate score {shlex.quote(str(models[0]))} responses.jsonl", "rewards for your own rows")
        if models
        else ("palate recipes show demo", "a recipe that trains models")
    )
    return [
        (f"palate report {run}", "all tables"),
        (f"palate view {run}", "every comparison, to look at and to mark"),
        use,
    ]


def _say_problems(problems: Sequence[str]) -> None:
    for problem in problems:
        sys.stderr.write(f"palate: left out: {problem}\n")


def show_report(
    folders: Sequence[Path],
    form: Format = Format.TABLE,
    *,
    out: Path | None = None,
    page: bool = True,
) -> None:
    """Make the tables of runs anew and print them; CSV prints Table 7 and JSON all tables."""
    from rich.console import Console

    from palate.report import report, write_page

    made = report(folders, Console() if form is Format.TABLE else None, out=out)
    tables = made.run_dir / "tables"
    if form is Format.JSON:
        sys.stdout.write((tables / "tables.json").read_text(encoding="utf-8"))
    elif form is Format.CSV:
        first = made.tables[0].name
        sys.stdout.write((tables / f"{first}.csv").read_text(encoding="utf-8"))
    _say_problems(made.problems)
    if page:
        _say_page(write_page(made))


def _say_page(path: Path) -> None:
    from palate.cli.output import progress

    progress()(f"page: {path} (open it in a browser)")


SHOW: Mapping[str, Callable[[Path, Format], None]] = {
    "mix": _mixtures,
    "train": _training,
    "evaluate": _verdicts,
    "report": _report,
}
