"""Label, train, judge, and ask again, week by week; what labels buy, beside labels drawn at random.

Week 0 trains on what the recipe has. Every later week draws a round by the model of the week
before, adds its answers to the model's mixture, trains from the backbone again and judges: an
ordinary run of the recipe in a folder of its own. All weeks together are a study, whose report has
accuracy by labels spent.

A pool of comparisons is replayed: its labels are seen only for the pairs that are asked. The
prompts that are kept for testing are all a test set, and a second arm, drawn at random, spends as
many labels on the same pool from the same start. A pool of prompts with responses is asked of
people: the loop stops at each round until its answers are imported, and goes on when it is called
again.

Whatever was finished is not done again: rounds and runs are known by what they were made of.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from palate.data.prompts import prompt_key
from palate.data.sources import own
from palate.data.sources.base import Record
from palate.data.sources.files import read_file
from palate.evaluate.benchmark import seeded_side
from palate.evaluate.scoring import row_of
from palate.labels.round import (
    ANSWERS,
    CHOSEN,
    HELD_OUT,
    ROUND,
    Asking,
    Round,
    check_rounds,
    import_answers,
    make_round,
    permanent_ranks,
    rounds_beside,
)
from palate.labels.selection import SelectionOptions
from palate.recipe.cache import Progress, locked, no_progress
from palate.recipe.run import run
from palate.recipe.schema import Recipe, fingerprinted, resolved, validate
from palate.records import read_comparisons, read_header, write_comparisons, write_text
from palate.report import report, write_page
from palate.report.study import StudyIndex, StudyRun, Took, write_index, write_took
from palate.types import (
    UNLABELLED,
    Candidates,
    Comparison,
    Message,
    PalateError,
    Scorer,
    digest,
)

AT_RANDOM, SELECTED = "at random", "by disagreement"
TEST = "asked at random"
"""The name of the benchmark of held-out pairs."""
WEEK, DRAWN = "week", "drawn"
"""The axes of the study."""
Pair = tuple[tuple[Message, ...], frozenset[str]]


@dataclass(frozen=True, slots=True)
class Waiting:
    """A round whose answers are to be imported before the loop can go on.

    `trainable` says whether what has been answered could be trained on without the rest.
    """

    round_: Round
    answered: int
    tasks: int
    trainable: bool


def loop(
    recipe: Recipe,
    pool: Path,
    folder: Path,
    options: SelectionOptions,
    *,
    weeks: int,
    model: str | None = None,
    partial: bool = False,
    say: Callable[[str], None] = lambda _: None,
    counting: Callable[[str], AbstractContextManager[Progress]] = no_progress,
) -> Waiting | None:
    """Go through as many weeks as there are answers for; None when all of them are done.

    `pool` is a file of comparisons in Palate's form, which is replayed, or of prompts with
    responses. `options.budget` is of each week. With `partial` a round with some answers counts as
    answered. The report is written after every week.

    Raises:
        PalateError: the recipe has no such model or no place for more data; what `make_round` and
            `run` raise.
    """
    name = _model_of(recipe, model, selective=options.random < 1)
    if recipe.study is not None:
        raise PalateError(f"recipe {recipe.name}: has a study of its own; leave `study` out")
    with locked(folder / "loop"):
        replayed = own.is_ours(pool) and read_header(pool).kind == "comparisons"
        labels: Mapping[Pair, Comparison] = {}
        test = folder / "test.parquet"
        if replayed:
            labels = {_pair(row): row for row in reversed(list(read_comparisons(pool)))}
            rows = list(reversed(labels.values()))
            if unlabelled := sum(row.judgement == UNLABELLED for row in rows):
                raise PalateError(
                    f"{pool}: {unlabelled:,} of {len(rows):,} pairs have no label that could be "
                    "replayed, as in a round's own file; give labelled comparisons, or prompts "
                    "with `responses` to have people asked"
                )
            options = options.model_copy(update={"test_set": 0.0})  # All of them are labelled.
            _write_test(test, pool, rows, options)
            pool = _without_labels(folder / "pool.jsonl", rows)
        share = options.random
        arms = {AT_RANDOM if share == 1 else SELECTED: options}
        if replayed and share < 1:
            arms = {AT_RANDOM: options.model_copy(update={"random": 1.0}), **arms}
        waiting = None
        drawn = all(
            (_rounds(folder, arm) / f"week-{week}" / ROUND).exists()
            for arm in arms
            for week in range(1, weeks + 1)
        )
        if not drawn:  # What cannot be asked is said before a model is trained.
            tests = {TEST: test} if replayed else {}
            check_rounds(pool, options, Asking(tests=tests, leave_out_overlap=True), rounds=weeks)
            start = _recipe(recipe, name, folder, next(iter(arms)), 0, test)
            if not (_week(folder, "", 0) / "mixtures").exists():
                run(start, _week(folder, "", 0), until="mix", say=say, counting=counting)
            first = _asking(recipe, name, folder, (), test if replayed else None)
            check_rounds(pool, options, first, rounds=weeks)
        for week in range(weeks + 1):
            for arm, how in arms.items():
                place = _rounds(folder, arm)
                if week:
                    waiting = _label(
                        recipe, name, pool, folder, place / f"week-{week}", week, how, labels,
                        test if replayed else None, partial=partial, say=say, counting=counting,
                    )  # fmt: skip
                    if waiting is not None:
                        break
                say(f"week {week}, {arm}")
            if waiting is not None:
                break
            if not replayed:
                _gather(
                    test,
                    [
                        _rounds(folder, arm) / f"week-{w}"
                        for arm in arms
                        for w in range(1, week + 1)
                    ],
                )
            # With more held-out answers earlier weeks are judged again; they are not trained again.
            for before in range(week + 1) if not replayed else (week,):
                for arm in arms:
                    _train(recipe, name, folder, arm, before, test, say, counting)
            _report(recipe, name, folder, arms, week, test)
    return waiting


def replays(pool: Path) -> bool:
    """Whether a pool has labels: it is of comparisons, or its first row has no responses."""
    if own.is_ours(pool):
        return True
    first = next(iter(read_file(pool)), None)
    return isinstance(first, Record) and "responses" not in first.data


def _model_of(recipe: Recipe, model: str | None, *, selective: bool) -> str:
    if model is None and len(recipe.models) == 1:
        (model,) = recipe.models
    if model not in recipe.models:
        raise PalateError(
            f"recipe {recipe.name}: expected one model, got {', '.join(recipe.models) or 'none'}; "
            "name one of them by --model"
        )
    ensemble = recipe.train_options(model).ensemble
    if selective and (ensemble is None or ensemble.members < 2):
        raise PalateError(
            f"models.{model}: an ensemble of one, and one model knows no disagreement; give it "
            "`ensemble: 5`, or draw all at random (--random 1)"
        )
    mixture = recipe.mixtures[recipe.models[model].mixture]
    if not mixture.all or mixture.shares:
        raise PalateError(
            f"mixtures.{recipe.models[model].mixture}: answers are added to `all`, and it has "
            "shares; give the loop a mixture of pools that are taken whole"
        )
    return model


# A pool whose labels are known.


def _pair(row: Comparison) -> Pair:
    return row.prompt, frozenset((row.chosen, row.rejected))


def _write_test(
    path: Path, pool: Path, rows: Iterable[Comparison], options: SelectionOptions
) -> None:
    """The comparisons of all prompts that are kept for testing: a random sample of prompts."""
    inputs = {"pool": read_header(pool).fingerprint}
    details = {"seed": options.seed, "reserve": options.reserve}
    if path.exists() and (header := read_header(path)).inputs == inputs:
        if header.details == details:
            return
        raise PalateError(
            f"{path}: was kept with {header.details}, asked is {details}; name another --out"
        )
    every = list(rows)
    kept = options.keeps(permanent_ranks((prompt_key(row.prompt) for row in every), options.seed))
    tests = [row for row, keep in zip(every, kept.tolist(), strict=True) if keep]
    if not tests:
        raise PalateError(f"{pool}: no prompt is kept for testing; raise --reserve")
    write_comparisons(path, tests, inputs=inputs, details=details)


def _without_labels(path: Path, rows: Iterable[Comparison]) -> Path:
    """The pairs of comparisons as prompts with two responses, in an order that tells no label."""
    lines = []
    for row in rows:
        low, high = sorted((row.chosen, row.rejected))
        sides = (low, high) if seeded_side(0, row.prompt_id) else (high, low)
        facts = {
            **row_of(Candidates(row.prompt, sides)),
            "prompt_id": row.prompt_id,
            "safety": row.bin is not None,
        }
        lines.append(json.dumps(facts, ensure_ascii=False) + "\n")
    text = "".join(lines)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)
    return path


# A week: a round, its answers, a run of the recipe.


def _rounds(folder: Path, arm: str) -> Path:
    return folder / arm.replace(" ", "-") / "rounds"


def _week(folder: Path, arm: str, week: int) -> Path:
    """The run of a week; the first is the same in every arm."""
    return (
        folder / "weeks" / "0"
        if week == 0
        else folder / arm.replace(" ", "-") / "weeks" / str(week)
    )


def _asking(
    recipe: Recipe, model: str, folder: Path, earlier: Sequence[Round], test: Path | None
) -> Asking:
    """What the rounds of all weeks leave out, by the data of the first: known once it is mixed."""
    first = _week(folder, "", 0)
    tests = {TEST: test} if test else {}
    if recipe.data.overlap.exclude:  # Then no label of such a prompt would be trained on.
        judged = sorted((first / "benchmarks").glob("*.parquet"))
        tests |= {path.stem: path for path in judged if path.stem != TEST}
    start = first / "mixtures" / f"{recipe.models[model].mixture}.parquet"
    return Asking(tests=tests, leave_out_overlap=True, earlier=earlier, labelled=[start])


def _label(
    recipe: Recipe,
    model: str,
    pool: Path,
    folder: Path,
    round_folder: Path,
    week: int,
    options: SelectionOptions,
    labels: Mapping[Pair, Comparison],
    test: Path | None,
    *,
    partial: bool,
    say: Callable[[str], None],
    counting: Callable[[str], AbstractContextManager[Progress]],
) -> Waiting | None:
    """Draw a week's round where it is not there, and answer it where labels are known."""
    scorer: Scorer | None = None
    arm = round_folder.parent.parent.name
    if options.random < 1:
        from palate.judges.reward_model import RewardScorer

        scorer = RewardScorer(_week(folder, arm, week - 1) / "models" / model, name=model)
    names = [f"week-{n}" for n in range(1, week)]
    earlier = [one for one in rounds_beside(round_folder) if one.folder.name in names]
    asking = _asking(recipe, model, folder, earlier, test)
    asking = replace(asking, any_model=not labels)
    with counting(f"week {week}: pool") as progress:
        round_ = make_round(scorer, pool, round_folder, options, asking, progress=progress)
    assert round_ is not None
    if labels:
        rows = (
            (f"{pool}: {truth.id}", replace(truth, meta={**truth.meta, "of": row.id}))
            for row in round_.chosen()
            if (truth := labels[_pair(row)])
        )
        import_answers(round_, rows, round_folder / ANSWERS, round_folder / HELD_OUT)
        return None
    tasks = read_header(round_folder / CHOSEN).rows
    files = [path for path in (round_folder / ANSWERS, round_folder / HELD_OUT) if path.exists()]
    answered = len({row.meta["of"] for path in files for row in read_comparisons(path)})
    trainable = (round_folder / ANSWERS).exists()  # Those held out alone teach nothing.
    if answered < tasks and not (partial and trainable):
        return Waiting(round_, answered, tasks, trainable)
    say(f"week {week}: {answered:,} of {tasks:,} tasks are answered")
    return None


def _gather(test: Path, rounds: Iterable[Path]) -> None:
    """All held-out answers so far as one benchmark."""
    files = [one / HELD_OUT for one in rounds if (one / HELD_OUT).exists()]
    if files:
        inputs = {str(n): read_header(path).fingerprint for n, path in enumerate(files)}
        if not test.exists() or read_header(test).inputs != inputs:
            rows = chain.from_iterable(map(read_comparisons, files))
            write_comparisons(test, rows, inputs=inputs)


def _recipe(recipe: Recipe, model: str, folder: Path, arm: str, week: int, test: Path) -> Recipe:
    """The recipe with the answers of all weeks up to this one, of one model and its judging."""
    values = resolved(recipe)
    mixture = recipe.models[model].mixture
    answers = {
        f"week-{n}": {
            "source": "own",
            "path": str((_rounds(folder, arm) / f"week-{n}" / ANSWERS).resolve()),
        }
        for n in range(1, week + 1)
    }
    values["data"]["sources"] |= answers
    plan = values["mixtures"][mixture]
    values["mixtures"] = {mixture: plan | {"all": [*plan["all"], *answers]}}
    # What is watched in training would have it made again with every new held-out answer.
    values["models"] = {model: values["models"][model] | {"eval_sets": []}}
    if test.exists():
        values["benchmarks"][TEST] = {"file": str(test.resolve())}
    others = (j for j in values["judges"] if not (isinstance(j, str) and j in recipe.models))
    values["judges"] = [*others, model]
    values.pop("over_optimisation", None)
    values["name"] = f"{recipe.name}-{arm.replace(' ', '-')}-week-{week}"
    return validate(values)


def _train(
    recipe: Recipe,
    model: str,
    folder: Path,
    arm: str,
    week: int,
    test: Path,
    say: Callable[[str], None],
    counting: Callable[[str], AbstractContextManager[Progress]],
) -> None:
    one, place = _recipe(recipe, model, folder, arm, week, test), _week(folder, arm, week)
    run(
        one,
        place,
        until="evaluate",
        say=say,
        counting=counting,
        lenders=[_week(folder, arm, 0)] if week else [],
    )
    write_took(place, Took(experiment=_experiment(one), stage="evaluate"))


def _experiment(recipe: Recipe) -> str:
    """What decides a week's figures; not its name, which the first has of either arm."""
    return digest({key: value for key, value in fingerprinted(recipe).items() if key != "name"})


def _report(
    recipe: Recipe,
    model: str,
    folder: Path,
    arms: Iterable[str],
    last: int,
    test: Path,
) -> None:
    """All weeks so far as a study, and its page."""
    runs = []
    for week in range(last + 1):
        for arm in arms:
            one = _recipe(recipe, model, folder, arm, week, test)
            runs.append(
                StudyRun(
                    levels={DRAWN: arm, WEEK: str(week)},
                    seed=recipe.seed,
                    folder=str(_week(folder, arm, week).relative_to(folder)),
                    experiment=_experiment(one),
                    mixtures={model: recipe.models[model].mixture},
                )
            )
    levels = tuple(str(week) for week in range(last + 1))
    if last == 0:  # One week of one arm compares nothing.
        return
    write_index(
        folder,
        StudyIndex(
            name=recipe.name,
            axes={DRAWN: tuple(arms), WEEK: levels},
            baseline={DRAWN: next(iter(arms)), WEEK: levels[-1]},
            data_axis=WEEK,
            paper=None,
            models=(model,),
            runs=tuple(runs),
        ),
    )
    write_page(report(folder))
