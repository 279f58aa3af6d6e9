"""`palate next` and `palate loop`: which comparisons to have labelled next, week by week."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from palate.cli.options import (
    DataOption,
    Format,
    FormatOption,
    QuietOption,
    SetOption,
    command_line,
    counting,
    emit,
    interruptible,
    progress,
)
from palate.cli.recipes import RecipeArgument

if TYPE_CHECKING:
    from collections.abc import Callable

    from palate.labels.round import Asking, Round
    from palate.labels.selection import SelectionOptions

ROUNDS = Path("rounds")

# What `next` and `loop` both ask of a selection.

RandomOption = Annotated[
    float,
    typer.Option(
        "--random",
        min=0,
        max=1,
        help="Share of a round drawn at random; the rest by what the members disagree on.",
    ),
]
TestSetOption = Annotated[
    float,
    typer.Option(
        "--test-set",
        min=0,
        help="Held-out pairs of a round that people answer: a share below 1, or their number.",
    ),
]
ReserveOption = Annotated[
    float, typer.Option("--reserve", min=0, help="Share of prompts kept for testing, for ever.")
]
SafetyOption = Annotated[
    float, typer.Option("--safety", min=0, max=1, help="Least share of pairs on safety prompts.")
]
SeedOption = Annotated[
    int, typer.Option("--seed", min=0, help="Of test prompts, for ever, and of draws.")
]


def next_round(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[MODEL] POOL",
            help="Ensemble (folder or hub id), then JSONL, JSON, CSV, TSV or Parquet with prompt "
            "and responses; POOL alone with --random 1, or with rewards_members of `palate score`.",
            show_default=False,
        ),
    ],
    budget: Annotated[int, typer.Option("--budget", min=1, help="Pairs to ask for, in all.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder of the round; default: the next in rounds/."),
    ] = None,
    random: RandomOption = 1.0,
    test_set: TestSetOption = 0.1,
    reserve: ReserveOption = 0.1,
    safety: SafetyOption = 0.0,
    safety_words: Annotated[
        Path | None,
        typer.Option(
            "--safety-words", help="Words, one a line; a prompt that says one is of safety."
        ),
    ] = None,
    targets: Annotated[
        list[str] | None,
        typer.Option(
            "--for", metavar="FILE|BENCHMARK", help="Choose what tells most of these; repeatable."
        ),
    ] = None,
    tests: Annotated[
        list[str] | None,
        typer.Option(
            "--test",
            metavar="FILE|BENCHMARK",
            help="Test set the pool must not overlap; repeatable.",
        ),
    ] = None,
    leave_out_overlap: Annotated[
        bool, typer.Option("--leave-out-overlap", help="Ask nothing of prompts that are in one.")
    ] = False,
    exclude: Annotated[
        list[Path] | None,
        typer.Option(
            "--exclude",
            help="Round, or file of comparisons, whose prompts are not asked again; "
            "repeatable. Rounds beside this one count by themselves.",
        ),
    ] = None,
    pairs_per_prompt: Annotated[
        int, typer.Option("--pairs-per-prompt", min=1, help="Most pairs of one prompt.")
    ] = 1,
    power: Annotated[
        float, typer.Option("--power", min=0, help="The higher, the greedier for disagreement.")
    ] = 1.0,
    seed: SeedOption = 0,
    form: FormatOption = Format.TABLE,
    quiet: QuietOption = False,
) -> None:
    """Choose the pairs of a pool to have labelled next; each has a known probability and a reason.

    Written are tasks for Label Studio and Potato, and a queue for [bold]palate view ROUND[/bold].
    Some are held out, drawn at random before all others, and their prompts are never trained on.
    What an earlier round asked is not asked again. Stopped, it goes on where it was.

    The answers: [bold]palate data import ANSWERS --round rounds/round-1[/bold]

    Example: [bold]palate next samples.jsonl --budget 500[/bold]
    Example: [bold]palate next runs/demo/models/helpfulness samples.jsonl --budget 500 --random 0.5
    [/bold]
    """
    from palate.evaluate.journal import sharing
    from palate.labels.round import make_round
    from palate.types import PalateError

    log = progress(quiet=quiet)
    if len(words) > 2:
        raise PalateError(f"expected [MODEL] POOL, got {len(words)} arguments")
    options = _options(
        budget=budget, test_set=test_set, reserve=reserve, random=random, safety=safety,
        pairs_per_prompt=pairs_per_prompt, power=power, seed=seed,
    )  # fmt: skip
    folder = out or _free(ROUNDS)
    with interruptible(command_line()), sharing() as share:
        asking = _asking(folder, targets, tests, exclude, safety_words, leave_out_overlap)
        scorer = None
        if len(words) == 2 and random < 1:
            from palate.judges import ScorerJudge, open_judge

            judge = open_judge({"reward-model": words[0]})
            assert isinstance(judge, ScorerJudge)
            scorer = judge.scorer
        elif len(words) == 2:
            log(f"all pairs are drawn at random (--random 1): {words[0]} is not asked")
        with counting("rows") as bar:
            made = make_round(
                scorer, Path(words[-1]), folder, options, asking, progress=bar, share=share
            )
    if made is not None:
        _say(made, form, log)


def _options(**values: Any) -> SelectionOptions:
    """Options of a selection as they were typed."""
    from pydantic import ValidationError

    from palate.labels.selection import SelectionOptions
    from palate.types import PalateError
    from palate.validation import explain

    try:
        return SelectionOptions(**values)
    except ValidationError as error:
        name, colon, wrong = explain(error, SelectionOptions, root="options").partition(":")
        raise PalateError(f"--{name.replace('_', '-')}{colon}{wrong}") from None


def _free(folder: Path) -> Path:
    """The first of round-1, round-2, ... in a folder that is not whole."""
    from palate.labels.round import ROUND

    number = 1
    while (folder / f"round-{number}" / ROUND).exists():
        number += 1
    return folder / f"round-{number}"


def _asking(
    folder: Path,
    targets: list[str] | None,
    tests: list[str] | None,
    exclude: list[Path] | None,
    safety_words: Path | None,
    leave_out_overlap: bool,
) -> Asking:
    from palate.cli.sources import benchmark_files, comparison_file
    from palate.labels.round import Asking, read_round, rounds_beside
    from palate.records import file_digest

    kept = folder / "benchmarks-read"
    rounds = rounds_beside(folder)
    rounds += [read_round(path) for path in exclude or () if path.is_dir()]
    rule = None
    if safety_words is not None:
        from palate.serve.combined import SafetyWords

        rule = SafetyWords.read(safety_words)
    return Asking(
        targets=benchmark_files(targets or (), kept, partial=True),
        tests=benchmark_files(tests or (), kept, partial=True),
        leave_out_overlap=leave_out_overlap,
        earlier=list({one.fingerprint: one for one in rounds}.values()),
        labelled=[comparison_file(path, kept) for path in exclude or () if not path.is_dir()],
        about_safety=rule,
        safety_rule="" if safety_words is None else file_digest(safety_words),
    )


def _say(made: Round, form: Format, log: Callable[[str], None]) -> None:
    """The pairs by reason, with the probabilities that they had."""
    from palate.types import SELECTION

    by_reason: dict[str, list[float]] = {}
    for row in made.chosen():
        facts = row.meta[SELECTION]
        by_reason.setdefault(facts["reason"], []).append(facts["probability"])
    named = {} if form is Format.TABLE else {"round": str(made.folder)}  # A table has a title.
    emit(
        (
            {
                **named,
                "reason": reason,
                "pairs": len(chances),
                "least probability": float(f"{min(chances):.3g}"),
                "most": float(f"{max(chances):.3g}"),
            }
            for reason, chances in sorted(by_reason.items())
        ),
        form,
        f"{made.folder}",
    )
    counts = made.counts
    log(f"of {counts['pairs']:,} pairs of {counts['prompts']:,} prompts; "
        f"{counts['asked_before']:,} prompts were asked before, "
        f"{counts['near_duplicates']:,} are near to another")  # fmt: skip
    if counts["overlapping"]:
        log(f"left out: {counts['overlapping']:,} prompts that are in a test set")
    for reason, count in counts["left_out"].items():
        log(f"left out: {count:,} {reason}")
    log(f"to be labelled: {made.folder / 'tasks'}, or palate view {made.folder} --blind; then: "
        f"palate data import ANSWERS --round {made.folder}")  # fmt: skip


def loop(
    recipe: RecipeArgument,
    pool: Annotated[
        Path,
        typer.Argument(
            help="Prompts with responses, which people are asked; or comparisons, whose labels are "
            "replayed beside random ones."
        ),
    ],
    budget: Annotated[int, typer.Option("--budget", min=1, help="Pairs to ask for each week.")],
    weeks: Annotated[int, typer.Option("--weeks", min=1, help="How many rounds, in all.")] = 4,
    random: RandomOption = 1.0,
    test_set: TestSetOption = 0.1,
    reserve: ReserveOption = 0.1,
    safety: SafetyOption = 0.0,
    model: Annotated[
        str | None, typer.Option("--model", help="Which of the recipe's; default: the only one.")
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Go on with a round that is answered in part.")
    ] = False,
    seed: SeedOption = 0,
    overrides: SetOption = None,
    data: DataOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Default: runs/NAME-loop.")
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Label, train, judge, and ask again: accuracy by labels spent, week by week.

    The recipe's model is trained on what it has; each week draws a round by it, adds the answers to
    its mixture and trains it again. A pool of comparisons is replayed, at random beside by
    disagreement from the same start. A pool of prompts is asked of people: it stops at each round,
    says what to do, and goes on when called again.

    Example: [bold]palate loop mine.yaml samples.jsonl --budget 500[/bold]
    Example: [bold]palate loop mine.yaml labelled.parquet --budget 100 --random 0.5[/bold]
    """
    from palate.cli.sources import comparison_file
    from palate.labels.loop import loop as go
    from palate.labels.loop import replays
    from palate.recipe import load_recipe
    from palate.recipe.distributed import distributed

    with interruptible(command_line()), distributed() as leads:
        if not leads:
            return
        log = progress(quiet=quiet)
        options = _options(
            budget=budget, test_set=test_set, reserve=reserve, random=random, safety=safety,
            seed=seed,
        )  # fmt: skip
        plan = load_recipe(recipe, overrides or (), data=data)
        folder = out or Path("runs") / f"{plan.name}-loop"
        if replays(pool):
            pool = comparison_file(pool, folder / "replayed")
        waiting = go(
            plan, pool, folder, options, weeks=weeks, model=model, partial=partial, say=log,
            counting=counting,
        )  # fmt: skip
    if waiting is not None:
        at = waiting.round_.folder
        without = " (with --partial: without them)" if waiting.trainable else ""
        typer.echo(
            f"{at}: {waiting.answered:,} of {waiting.tasks:,} tasks are answered. Have the others "
            f"labelled ({at / 'tasks'}, or palate view {at} --blind), then: palate data import "
            f"ANSWERS --round {at}; then this command again{without}"
        )
        return
    from rich.console import Console

    from palate.report import report

    report(folder, Console(file=sys.stdout))
    log(f"results: {folder / 'report.html'}")
