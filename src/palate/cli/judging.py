"""`palate probe` and `palate win-rate`: what a judge leans to, and what people would say by it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from palate.cli.options import (
    Format,
    FormatOption,
    QuietOption,
    command_line,
    counting,
    emit,
    interruptible,
    progress,
)

if TYPE_CHECKING:
    from palate.stats import Estimate

JudgeArgument = Annotated[
    str,
    typer.Argument(
        metavar="JUDGE",
        help="A checkpoint, a trivial judge such as longer, or '{KIND: {OPTION: VALUE}}'.",
    ),
]


def probe(
    judge: JudgeArgument,
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILES", help="Comparisons or benchmarks, as for `palate judge`."),
    ],
    own: Annotated[
        list[str] | None,
        typer.Option(
            "--own",
            metavar="WORD",
            help="In the names of models of the judge's own family, such as gpt; repeatable.",
        ),
    ] = None,
    sample: Annotated[
        int, typer.Option("--sample", min=2, help="Pairs that are asked, whole prompts.")
    ] = 200,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the verdicts; default: probes.")
    ] = None,
    form: FormatOption = Format.TABLE,
    quiet: QuietOption = False,
) -> None:
    """Say what moves a judge that should not: place, padding, restating, its own family.

    The same pairs are asked as they are and changed; nothing of it enters an accuracy. Whose a
    response is say the benchmark's models, or the columns chosen_model and rejected_model.
    Example: [bold]palate probe runs/demo/models/helpfulness mine.parquet[/bold]
    Example: [bold]palate probe '{chat: gpt-5.4-mini}' mine.parquet --own gpt --sample 100[/bold]
    """
    from palate.cli.recipes import judge_spec
    from palate.cli.sources import benchmark_files
    from palate.evaluate.audit import as_pairs
    from palate.evaluate.benchmark import Benchmark
    from palate.evaluate.probes import place_of_k
    from palate.evaluate.probes import probe as ask
    from palate.evaluate.run import slug
    from palate.judges import open_judge
    from palate.records import read_benchmark_items, read_comparisons
    from palate.types import PalateError

    if not all(word.strip() for word in own or ()):
        raise PalateError("--own: expected a word of the names of the judge's family, got nothing")
    say, spec, folder = progress(quiet=quiet), judge_spec(judge), out or Path("probes")
    rows: list[dict[str, Any]] = []
    with interruptible(command_line()):
        asked = benchmark_files(files, folder / "benchmarks")
        opened = open_judge(spec)
        for title, file in asked.items():
            items = [*read_benchmark_items(file)] if Benchmark(title, file).of_items else []
            pairs = [pair for row in items or read_comparisons(file) for pair in as_pairs(row)]
            place = folder / slug(opened.name) / slug(title)
            with counting(f"{opened.name} on {title}") as bar:
                found = ask(
                    title,
                    pairs,
                    opened,
                    place,
                    own=tuple(own or ()),
                    pairs=sample,
                    progress=bar,
                )
            for line in found.skipped:
                say(f"left out: {title}: {line}")
            probes = list(found.probes)
            # Of those that compare K responses in one question.
            if items and hasattr(opened, "score") and getattr(opened, "sees_both", False):
                with counting(f"{opened.name} on items of {title}") as bar:
                    of_k = place_of_k(title, items, opened, place, most=sample, progress=bar)
                probes += [] if of_k is None else [of_k]
            for one in probes:
                apart = one.difference.estimate
                rows.append(
                    {
                        "benchmark": title,
                        "probe": one.name,
                        "what": one.what,
                        "share": round(one.share.value, 4),
                        "without": round(one.without, 4),
                        "difference": round(apart.value, 4),
                        "low": round(apart.low, 4),
                        "high": round(apart.high, 4),
                        "p": float(f"{one.difference.p_value:.2g}"),
                        "n": apart.n,
                        "unscored": "" if one.name == "self-preference" else apart.n_unscored,
                    }
                )
    emit(rows, form, f"What moves {opened.name} that should not")


def win_rate(
    judge: JudgeArgument,
    comparisons: Annotated[
        Path, typer.Argument(metavar="FILE", help="Comparisons that only the judge will see.")
    ],
    labelled: Annotated[
        Path,
        typer.Argument(
            metavar="LABELLED", help="Comparisons of the same systems that people have labelled."
        ),
    ],
    system: Annotated[
        str,
        typer.Option("--system", help="Whose wins are counted, by its name in chosen_model or so."),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the verdicts; default: win-rates.")
    ] = None,
    form: FormatOption = Format.TABLE,
    quiet: QuietOption = False,
) -> None:
    """Say how often people would prefer a system, by a judge whose errors are taken out.

    The errors are those on LABELLED, of the same two systems; the interval has the error of both
    files. Both need the columns chosen_model and rejected_model; labels in FILE are not read. It
    refuses (exit code 1) where the judge is near chance, or errs in FILE in another way.
    Example: [bold]palate win-rate '{chat: gpt-5.4-mini}' new.jsonl seen.jsonl --system mine[/bold]
    """
    from palate.cli.recipes import judge_spec
    from palate.cli.sources import comparison_file
    from palate.evaluate.win_rate import win_rates
    from palate.judges import open_judge
    from palate.records import read_comparisons
    from palate.types import PalateError

    for file in (comparisons, labelled):
        if not file.exists():
            raise PalateError(f"{file}: no such file")
    progress(quiet=quiet)
    spec, folder = judge_spec(judge), out or Path("win-rates")
    rows, refused = [], []
    with interruptible(command_line()):
        new, known = (
            comparison_file(file, folder / place)
            for file, place in ((comparisons, "new"), (labelled, "labelled"))
        )
        opened = open_judge(spec)
        with counting(f"{opened.name} on {system}") as bar:
            found = win_rates(
                opened,
                read_comparisons(new),
                read_comparisons(known),
                system,
                folder / "asked",
                progress=bar,
            )
        for one in found:
            said = one.found
            if said.estimate is None:
                refused.append(f"{one.system} and {one.other}: {said.reason}")

            def row(what: str, of: Estimate | None, other: str = one.other) -> dict[str, Any]:
                return {
                    "against": other,
                    "what": what,
                    "value": None if of is None else round(of.value, 4),
                    "low": None if of is None else round(of.low, 4),
                    "high": None if of is None else round(of.high, 4),
                    "n": None if of is None else of.n,
                    "unscored": None if of is None else of.n_unscored,
                }

            rows += [
                row("people would prefer it (corrected)", said.estimate),
                row("the judge prefers it", said.judged),
                row("people preferred it, labelled", said.people),
                row("judge agrees where they did (sensitivity)", said.sensitivity),
                row("and where they did not (specificity)", said.specificity),
                row("J, their sum less one", said.informedness),
            ]
    emit(rows, form, f"How often {system} is preferred")
    if refused:
        raise PalateError(f"no corrected share: {'; '.join(refused)}")
