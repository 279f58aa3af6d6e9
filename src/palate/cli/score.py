"""`palate rank` and `palate filter`: the best responses of each prompt, and rows worth keeping."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from enum import StrEnum
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
    from palate.evaluate.compare import Compared, Part
    from palate.evaluate.journal import Shard
    from palate.evaluate.results import JudgeResults
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
    lower_bound: Annotated[
        float,
        typer.Option(
            "--lower-bound",
            min=0,
            metavar="K",
            help="Of an ensemble: order by the reward less K standard deviations of its members.",
        ),
    ] = 0.0,
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
    Example: [bold]palate rank my-ensemble samples.jsonl --top 1 --lower-bound 1[/bold]
    """
    from palate.evaluate.scoring import beside, rank_file

    progress(quiet=quiet)
    model, file = _model_and_file(words)
    target = out or beside(file, "ranked")
    with _scoring(model) as (scorer, share, progress_bar):
        rank_file(
            scorer, file, target, top=top, deviations=lower_bound, progress=progress_bar,
            share=share,
        )  # fmt: skip
    _say_kept(target, "ranked")


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
    with _scoring(model) as (scorer, share, progress_bar):
        filter_file(scorer, file, target, bar, progress=progress_bar, share=share)
    _say_kept(target, "kept")


def _model_and_file(words: list[str]) -> tuple[str | None, Path]:
    from palate.types import PalateError

    if len(words) > 2:
        raise PalateError(f"expected MODEL FILE, or FILE with rewards, got {len(words)} arguments")
    model = words[0] if len(words) == 2 else None
    return model, Path(words[-1])


@contextmanager
def _scoring(model: str | None) -> Generator[tuple[Scorer | None, Shard, Any]]:
    from palate.evaluate.journal import sharing
    from palate.judges import ScorerJudge, open_judge

    with interruptible(command_line()), sharing() as share:
        scorer: Scorer | None = None
        if model is not None:
            judge = open_judge({"reward-model": model})
            assert isinstance(judge, ScorerJudge)
            scorer = judge.scorer
        with counting("rows") as progress_bar:
            yield scorer, share, progress_bar


def _say_kept(path: Path, done: str) -> None:
    from palate.evaluate.scoring import facts_of
    from palate.progress import info

    facts = facts_of(path)
    line = f"{done}: {facts['kept']:,} of {facts['rows']:,} rows"
    if facts.get("threshold") is not None:
        line += f", reward at least {facts['threshold']:.6g}"
    if facts.get("unscored"):
        line += f"; {facts['unscored']:,} responses without a score are left out"
    info(f"{line}: {path}")


# `palate score`: responses in, rewards out.


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

    Rows come out as they went in, with reward, reward_reason, reward_truncated, reward_tokens; of a
    model with heads of attributes reward_attributes too, in the units of their ratings; of an
    ensemble reward_std, reward_low and reward_high (90 %), reward_members. Stopped, it goes on
    where it was.
    Example: [bold]palate score runs/demo/models/helpfulness responses.jsonl -o rewards.jsonl[/bold]
    """
    from palate.evaluate.journal import sharing
    from palate.evaluate.scoring import beside, score_file
    from palate.judges import ScorerJudge, open_judge

    log = progress(quiet=quiet)
    target = out or beside(file, "rewards")
    with interruptible(command_line()), sharing() as share:
        judge = open_judge({"reward-model": model})
        assert isinstance(judge, ScorerJudge)
        with counting("rows") as progress_bar:
            score_file(judge.scorer, file, target, progress=progress_bar, share=share)
    log(f"rewards: {target}")


# `palate compare`: two judges on the same items.


def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="A judge of RUN, or a verdict file.")],
    second: Annotated[
        str,
        typer.Argument(metavar="B", help="Another one; or chance, what random scores reach."),
    ],
    run: Annotated[
        Path | None,
        typer.Option(
            "--run", help="Folder of a run, or of `palate judge`; A and B are its judges."
        ),
    ] = None,
    benchmark: Annotated[
        str | None, typer.Option("--benchmark", help="Of the run; default: the one there is.")
    ] = None,
    items: Annotated[
        Path | None,
        typer.Option(
            "--items",
            help="File of the comparisons, or Palate's of items of K; a run knows its own, and "
            "`palate judge` keeps it beside the verdicts.",
        ),
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
    at; they leave out zero where p_holm is below 0.05. Of items of K an item is worth the share of
    right responses among those scored highest; a benchmark of the field has its own score beside.
    Judges that were not asked the same, or not alike, are not compared.
    Example: [bold]palate compare helpfulness longer --run runs/demo --benchmark safety[/bold]
    Example: [bold]palate compare verdicts/rm--rewardbench-2.parquet chance[/bold]
    """
    from dataclasses import replace

    import numpy as np

    from palate.cli.sources import asked_in
    from palate.evaluate import compare as comparing
    from palate.evaluate.metrics import read_judge_results
    from palate.evaluate.scores import read_score
    from palate.records import write_text
    from palate.types import PalateError

    if first == comparing.CHANCE and not Path(first).is_file():
        raise PalateError("chance: is B alone; give the judge first, as A")
    by_chance = second == comparing.CHANCE and not Path(second).is_file()
    names = [first] if by_chance else [first, second]
    paths = list(map(Path, names))
    if run is not None:
        paths = comparing.verdict_files(run, names, benchmark)
    for path in paths:
        if not path.is_file():
            raise PalateError(f"{path}: no such verdict file; to name judges of a run, give --run")
        if path.suffix != ".parquet":
            raise PalateError(f"{path}: expected a verdict file, whose name ends in .parquet")
    if len({path.resolve() for path in paths}) < len(paths):
        raise PalateError(f"{paths[0]}: given twice; a judge is compared with another one")
    results = list(map(read_judge_results, paths))
    if len({one.judge for one in results}) < len(results):  # As those of two runs may be.
        results = [replace(one, judge=str(path)) for one, path in zip(results, paths, strict=True)]
    own = [score for path in paths if (score := read_score(path)) is not None]
    if by_chance:
        results.append(comparing.by_chance(results[0]))
        own += map(comparing.score_by_chance, own[:1])
    ours, theirs = results
    if items is None:
        items = _asked_beside(paths[0], ours) if run is None else _asked_in_run(run, ours)
    say = progress()
    if items is None:
        say("all items alone: of parts the texts are needed; give --items FILE")
    asked = list(asked_in(items)) if items is not None else []
    scores = (own[0], own[1]) if len(own) == 2 else None
    compared = comparing.compare_judges(ours, theirs, asked, np.random.default_rng(0), scores)
    emit([_row(part, compared) for part in compared.parts], form, _title(compared))
    if not by_chance:  # Which random scores answer nothing.
        _say_flips(compared)
    _say_unscored(compared)
    if flips is not None:
        if not asked:
            raise PalateError(f"--flips {flips}: needs the texts; give --items or --run")
        import json

        from palate.evaluate.scores import scores_by_item

        of_each = [scores_by_item(path) for path in paths] if compared.of_items else []
        rows = comparing.flipped_rows(compared, asked, of_each)
        write_text(flips, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        progress()(f"flips: {flips}")


def _asked_in_run(run: Path, results: JudgeResults) -> Path | None:
    path = run / "benchmarks" / f"{results.benchmark}.parquet"
    return path if path.is_file() else None  # `palate judge` keeps no copy of Palate's own files.


def _asked_beside(verdicts: Path, results: JudgeResults) -> Path | None:
    """What `palate judge` kept beside its verdicts, where it is what they are of."""
    from palate.data.sources.own import is_ours
    from palate.records import read_header

    path = _asked_in_run(verdicts.parent, results)
    if path is None or not is_ours(path):
        return None
    return path if read_header(path).fingerprint == results.terms.data else None


def _title(compared: Compared) -> str:
    return f"{compared.first} against {compared.second} on {compared.benchmark}"


def _row(part: Part, compared: Compared) -> dict[str, Any]:
    from palate.evaluate.compare import CHANCE

    gap = part.difference.estimate
    beside = compared.of_items and compared.second != CHANCE
    chance = {"chance": round(100 * part.chance, 1)} if beside else {}
    return {
        "by": part.by,
        "part": part.level,
        "n": gap.n,
        **chance,
        compared.first: round(100 * part.first.value, 1),
        compared.second: round(100 * part.second.value, 1),
        "difference": round(100 * gap.value, 1),
        "low": round(100 * gap.low, 1),
        "high": round(100 * gap.high, 1),
        "p": round(part.difference.p_value, 4) if part.alone else None,
        "p_holm": None if part.alone else round(part.difference.p_value, 4),
    }


def _say_flips(compared: Compared) -> None:
    flips, say = compared.flips, progress()
    differently = f"{len(flips):,} items were answered differently"
    if compared.of_items:
        leads = [sum(sign * flip.lead > 0 for flip in flips) for sign in (1, -1)]
        say(
            f"{differently}: {leads[0]:,} where {compared.first} has more of the item right, "
            f"{leads[1]:,} where {compared.second} has"
        )
    else:
        first = sum(flip.first == "chosen" for flip in flips)
        second = sum(flip.second == "chosen" for flip in flips)
        say(
            f"{differently}: {first} where only {compared.first} preferred the chosen response, "
            f"{second} where only {compared.second} did"
        )


def _say_unscored(compared: Compared) -> None:
    say = progress()
    own = any(part.by != "all" and part.alone for part in compared.parts)
    for judge, count in zip((compared.first, compared.second), compared.unscored, strict=True):
        if count:
            wrong = "; they count as wrong in the benchmark's own score" if own else ""
            say(f"{count:,} items have no score from {judge} and are in no difference{wrong}")


# `palate combine`: a safety and a helpfulness model as one reward, whitened.


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
    combination = measure(
        RewardScorer(safety), RewardScorer(helpfulness), rows, str(file), threshold
    )
    write_combination(out, combination)
    progress()(
        f"{out}: {combination.responses} responses, mean {combination.mean:.4g}, "
        f"standard deviation {combination.std:.4g}, {combination.by_safety:.1%} by safety"
    )
