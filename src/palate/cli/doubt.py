"""`palate doubt`: which labels are probably wrong."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from palate.cli.data import (
    Annotators,
    AnnotatorsOption,
    BadShareOption,
    ColumnOption,
    OptionOption,
    PathOption,
    SplitOption,
    SubsetOption,
    Ties,
    ValueOption,
)
from palate.cli.options import (
    DataOption,
    Format,
    FormatOption,
    QuietOption,
    command_line,
    counting,
    emit,
    in_one_process,
    interruptible,
    progress,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from palate.labels.doubt import Doubts

FORMS = (".jsonl", ".parquet")
SHOWN_PARTS = 8
"""Of ratings, sources and annotators each: those with the largest share of wrong labels."""


def doubt(
    what: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="A file of comparisons, such as RUN/mixtures/NAME.parquet, or a name of "
            "`palate data list`.",
        ),
    ],
    model: Annotated[
        str,
        typer.Option(
            "--model",
            metavar="MODEL",
            help="Backbone, or a reward model that was not trained on DATA: hub id or folder.",
        ),
    ] = "smollm2",
    layers: Annotated[
        int | None,
        typer.Option(
            "--layers", min=1, help="The first N layers of a backbone; of smollm2, 20 by itself."
        ),
    ] = None,
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", min=8, help="Longest conversation; oldest turns are cut.")
    ] = 1024,
    folds: Annotated[
        int, typer.Option("--folds", min=3, help="Parts, each judged by heads of the others.")
    ] = 5,
    members: Annotated[
        int, typer.Option("--members", min=2, max=1_000, help="Heads that judge each row.")
    ] = 8,
    sample: Annotated[
        int | None, typer.Option("--sample", min=1, help="So many rows at random, whole prompts.")
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Of folds, heads and resamplings.")
    ] = 0,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help=".jsonl or .parquet; default: NAME.doubts.jsonl here."),
    ] = None,
    queue: Annotated[
        Path | None,
        typer.Option(
            "--queue",
            metavar="FOLDER",
            help="Also as a queue for `palate view FOLDER`: a run that has DATA, or a new folder.",
        ),
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(
            "--work",
            help="Folder in which states are kept, to go on or audit again; default: beside --out, "
            "removed at the end.",
        ),
    ] = None,
    path: PathOption = None,
    subset: SubsetOption = None,
    split: SplitOption = None,
    option: OptionOption = None,
    column: ColumnOption = None,
    value: ValueOption = None,
    annotators: AnnotatorsOption = Annotators.SEPARATE,
    data: DataOption = None,
    max_bad_share: BadShareOption = 0.01,
    form: FormatOption = Format.TABLE,
    quiet: QuietOption = False,
) -> None:
    """List comparisons by the probability that their label is wrong, each judged without itself.

    A frozen MODEL runs every response once; small heads on it learn from the other folds, of other
    prompts. How many labels are wrong, and which, follows from how surely these heads contradict
    them. What is printed says how many wrong ones to expect at each cut, and whether the data tell
    a wrong label from a weak model at all.

    Example: [bold]palate doubt week-1.jsonl --model Qwen/Qwen3-0.6B-Base -o doubts.jsonl[/bold]
    Example: [bold]palate doubt runs/mine/mixtures/helpfulness.parquet[/bold]
    Example: [bold]palate doubt anthropic-hh --subset helpful-base --sample 3000 --data DIR[/bold]
    """
    import shutil

    from palate.cli.sources import check_output, comparisons
    from palate.data.sources import not_read, worst
    from palate.data.sources.files import stem
    from palate.data.sources.own import is_ours
    from palate.labels.doubt import DoubtOptions, missing_in, write_doubts, write_doubts_queue
    from palate.labels.doubt import doubt as audit
    from palate.recipe.cache import locked
    from palate.records import write_comparisons
    from palate.types import PalateError

    in_one_process("palate doubt")
    name = "-".join(filter(None, (stem(Path(what)), subset, split)))
    target = out or Path(f"{name}.doubts.jsonl")
    if target.suffix not in FORMS:
        raise PalateError(f"--out {target}: expected a name that ends in {' or '.join(FORMS)}")
    check_output(target, what, path)
    folder = work or target.with_name(f"{target.name}.work")
    say = progress(quiet=quiet)
    options = DoubtOptions(
        model=model, layers=layers, max_tokens=max_tokens, folds=folds, members=members, seed=seed
    )
    ours = is_ours(Path(what))
    if ours:
        for typed, said in (
            ("--path", path), ("--subset", subset), ("--split", split), ("--option", option),
            ("--column", column), ("--value", value),
            ("--annotators", annotators is not Annotators.SEPARATE),
        ):  # fmt: skip
            if said:
                raise PalateError(
                    f"{typed}: {what} is Palate's own, read as it stands; leave it out"
                )
    with locked(folder):  # Nobody else may remove it, or write states into it.
        try:
            with interruptible(command_line()), counting("rows") as show:
                file = Path(what)  # Ours as it stands: a training knows it by its fingerprint.
                if not ours:
                    rows, bad = comparisons(
                        what, path, subset, split, option, data, max_bad_share, column, value,
                        Ties.KEEP.value, annotators.value,
                    )  # fmt: skip
                    file = folder / "comparisons.parquet"
                    header = write_comparisons(file, rows)
                    for row in worst(bad):
                        say(str(row))
                    if bad:
                        say(f"{what}: {header.rows:,} comparisons, {not_read(bad)}")
                if queue is not None:  # Before hours are spent on it.
                    missing_in(queue, name, file)
                if sample is not None:
                    file = _sampled(file, folder / "sample.parquet", sample, seed, model, say)
                named = what if sample is None else f"--sample of {what}"
                found = audit(file, folder, options, log=say, show=show, named=named)
        except PalateError:
            if work is None and not (folder / "states.json").exists():  # Nothing to go on with.
                shutil.rmtree(folder, ignore_errors=True)
            raise
        write_doubts(found, target, file)
        _show(found, form)
        say(f"doubts: {target}")
        if queue is not None:
            say(f"queue: {write_doubts_queue(found, queue, name, file)}; palate view {queue}")
        if work is None:
            shutil.rmtree(folder)


def _sampled(
    file: Path, out: Path, rows: int, seed: int, model: str, say: Callable[[str], None]
) -> Path:
    """At least so many rows of a file, at random, prompts whole; or all that there are."""
    import numpy as np

    from palate.data.split import group, read_keys
    from palate.labels.doubt import refuse_trained_on
    from palate.records import read_comparisons, write_comparisons

    refuse_trained_on(model, file, say)  # By the fingerprint of all rows, which a sample has not.
    keys = read_keys([file])
    groups = group(keys.prompts, keys.clusters)
    order = np.random.default_rng(seed).permutation(int(groups.max()) + 1)
    ends = np.cumsum(np.bincount(groups)[order])
    taken = np.zeros(len(order), np.bool_)
    taken[order[: 1 + int(np.searchsorted(ends, rows))]] = True
    kept = taken[groups]
    chosen = (row for row, keep in zip(read_comparisons(file), kept, strict=True) if keep)
    header = write_comparisons(out, chosen)
    say(f"{header.rows:,} of {len(groups):,} comparisons, at random by prompt")
    return out


def sentences(found: Doubts) -> list[str]:
    """What there is to say before the tables, a sentence a line."""
    rate, agreement = found.noise.flip_rate, found.agreement
    left_out = {"ties": found.ties, "that the model cannot read": found.unscored}
    counts = ", ".join(f"{count:,} {what}" for what, count in left_out.items() if count)
    lines = [
        f"{len(found.rows):,} comparisons in {rate.n_clusters:,} clusters of prompts, each judged "
        f"by heads that saw none of its cluster{f'; left out: {counts}' if counts else ''}.",
        f"Held-out heads prefer what labels do in {agreement.value:.1%} "
        f"[{agreement.low:.1%}, {agreement.high:.1%}].",
    ]
    ends = f"[{rate.low:.1%}, {rate.high:.1%}]"
    if found.noise.identified:
        lines.append(f"Wrong labels: {rate.value:.1%} {ends} of them, estimated.")
    else:
        lines.append(
            f"How many labels are wrong is not identified: {rate.value:.1%} {ends}, which reaches "
            "0. These heads are contradicted as often as a weak model is without one wrong label; "
            "the order still says where to look first, and probabilities lean on the prior "
            "(mean 10 %). A stronger --model or more rows tell more."
        )
    return lines


def _show(found: Doubts, form: Format) -> None:
    from palate.labels.doubt import facts_of

    if form is Format.JSON:
        facts = {"sentences": sentences(found), **facts_of(found)}
        sys.stdout.write(json.dumps(facts, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
        return
    cuts: list[dict[str, Any]] = [
        {
            "cut": cut.name,
            "rows": cut.rows,
            "wrong expected": round(cut.wrong, 1),
            "low": round(cut.low),
            "high": round(cut.high),
            "share": f"{cut.wrong / cut.rows:.0%}" if cut.rows else "",
        }
        for cut in found.cuts
    ]
    if form is Format.CSV:
        emit(cuts, form)
        return
    sys.stdout.write("\n".join(sentences(found)) + "\n\n")
    emit(cuts, form, "Wrong labels to expect among the rows at each cut, with 95 % intervals")
    parts: list[dict[str, Any]] = []
    for by in dict.fromkeys(part.by for part in found.parts):
        some = [part for part in found.parts if part.by == by]
        parts += [
            {
                "by": part.by,
                "part": part.name,
                "rows": part.rows,
                "wrong expected": round(part.wrong, 1),
                "share": f"{part.wrong / part.rows:.1%}",
            }
            for part in some[:SHOWN_PARTS]
        ]
    if parts:
        sys.stdout.write("\n")
        emit(parts, form, f"Where: at most {SHOWN_PARTS} parts of each kind, the worst first")
