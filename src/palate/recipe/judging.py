"""The stages from checkpoints to tables: every judge on every benchmark, then the report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from palate.evaluate.metrics import bayes_limit, write_results
from palate.evaluate.run import slug
from palate.recipe.crew import Judging, judge_together
from palate.recipe.learn import add_tables
from palate.recipe.workspace import Files, Workspace
from palate.records import read_comparisons
from palate.report import Report, report
from palate.report.render import markdown
from palate.types import Judge

ON_CARDS = ("table-7", "table-8", "table-29")
JudgeSpec = str | Mapping[str, Any]


def judge_all(work: Workspace, models: Files, benchmarks: Files) -> list[Path]:
    """Verdict files of every judge on every benchmark: `verdicts/JUDGE--BENCHMARK.parquet`."""
    verdicts = []
    for spec in work.recipe.judges:
        name, opened = _name(spec), dict[str, Judge]()
        for benchmark, path in benchmarks.items():
            verdicts.append(_judge(work, name, spec, opened, models, benchmark, path))
    _set_aside(work.folder / "verdicts", verdicts)
    return verdicts


def find_limits(work: Workspace, benchmarks: Files) -> list[Path]:
    """What the best possible judge would score, where the truth is known: `results/NAME.json`."""
    limits = []
    for name, path in benchmarks.items():
        out = work.folder / "results" / f"{slug(name)}.json"
        column = work.recipe.benchmarks[name].paper_column

        def make(
            name: str = name, path: Path = path, out: Path = out, column: str | None = column
        ) -> Files:
            limit = bayes_limit(name, read_comparisons(path), paper_column=column)
            write_results(out, [] if limit is None else [limit])
            return {"limit": out}

        limits.append(work.step(f"limit/{slug(name)}", column, {"benchmark": path}, make)["limit"])
    _set_aside(work.folder / "results", limits)
    return limits


def write_report(work: Workspace, models: Files) -> Report:
    """Tables of the run under `tables/`, from verdicts alone; the models' cards get them too."""
    work.say("report ...")
    made = report(work.folder)
    drawn = {table.title: markdown(table) for table in made.tables if table.name in ON_CARDS}
    # A table brings its title as a heading; a card writes its own.
    add_tables(work, models, {title: text.partition("\n")[2] for title, text in drawn.items()})
    return made


def _set_aside(folder: Path, wanted: list[Path]) -> None:
    """Move what an earlier recipe left here to `unused/`, out of the tables but not lost."""
    for path in folder.glob("*" + (wanted[0].suffix if wanted else ".parquet")):
        if path not in wanted:
            (folder / "unused").mkdir(exist_ok=True)
            path.replace(folder / "unused" / path.name)


def _judge(
    work: Workspace,
    name: str,
    spec: JudgeSpec,
    opened: dict[str, Judge],
    models: Files,
    benchmark: str,
    path: Path,
) -> Path:
    """One judge on one benchmark; it is opened at its first question and kept in `opened`."""
    recipe = work.recipe
    plan = recipe.benchmarks[benchmark]

    def make() -> Files:
        judging = Judging(
            judge=_judge_of(name, spec, models, recipe.seed),
            benchmark=benchmark,
            comparisons=path,
            paper_column=plan.paper_column,
            folder=work.folder / "verdicts",
            seed=recipe.seed,
            order=recipe.judging.order,
        )
        with work.counting(f"{name} on {benchmark}") as told:
            return {"verdicts": judge_together(judging, opened, told)}

    inputs = {"benchmark": path} | ({"model": models[name]} if name in models else {})
    asked = [spec, recipe.seed, recipe.judging.order, plan.paper_column]
    return work.step(f"judge/{slug(name)}--{slug(benchmark)}", asked, inputs, make)["verdicts"]


def _judge_of(name: str, spec: JudgeSpec, models: Files, seed: int) -> str | dict[str, Any]:
    """The judge as it is opened, on any rank."""
    if name in models:
        return {"reward-model": {"folder": str(models[name]), "name": name}}
    if name == "random":
        return {"random": {"seed": seed}}
    return spec if isinstance(spec, str) else dict(spec)


def _name(spec: JudgeSpec) -> str:
    """The name of a judge in tables: its own, else its checkpoint's, else its kind."""
    if isinstance(spec, str):
        return spec
    ((kind, options),) = spec.items()
    options = options or {}
    return str(options.get("name") or options.get("model") or kind)
