"""The stages from checkpoints to tables: every judge on every benchmark, then the report."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from palate.evaluate.metrics import bayes_limit, noise_ceiling, write_results
from palate.evaluate.run import slug, write_absent
from palate.recipe.crew import Judging, judge_together
from palate.recipe.judges import JudgeSpec, name_of
from palate.recipe.learn import add_tables
from palate.recipe.workspace import Files, Workspace
from palate.records import read_comparisons
from palate.report import Report, report, write_page
from palate.report.render import markdown
from palate.types import Judge, PalateError

ON_CARDS = ("table-7", "table-8", "table-29")
LIMITS = (bayes_limit, noise_ceiling)


@dataclass(slots=True)
class _Asked:
    """One judge while it is asked; `opened` holds it from its first question on.

    `trouble` is why it cannot be asked: it is not tried again, but verdicts that stand are kept.
    """

    name: str
    spec: JudgeSpec
    opened: dict[str, Judge] = field(default_factory=dict)
    trouble: str = ""

    @property
    def shown(self) -> str:
        """Its name in tables: what it says itself, else what its spec lets expect."""
        known = next(iter(self.opened.values()), None)
        return PurePosixPath(self.name).name if known is None else known.name


def judge_all(work: Workspace, models: Files, benchmarks: Files) -> list[Path]:
    """Verdict files of every judge on every benchmark: `verdicts/JUDGE--BENCHMARK.parquet`.

    A judge that cannot be asked does not keep the others from it: its reason is said and kept
    in `verdicts/absent.json`, from which tables show it as missing.
    """
    verdicts: list[Path] = []
    absent: dict[str, str] = {}
    for spec in work.recipe.judges:
        asked = _Asked(name_of(spec), spec)
        for benchmark, path in benchmarks.items():
            try:
                verdicts.append(_judge(work, asked, models, benchmark, path))
            except PalateError as error:
                asked.trouble = " ".join(str(error).split())
        if asked.trouble:
            absent[asked.shown] = asked.trouble
            work.say(f"left out: {asked.shown}: {asked.trouble}")
    write_absent(work.folder / "verdicts", absent)
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
            made = (find(name, read_comparisons(path), paper_column=column) for find in LIMITS)
            write_results(out, [limit for limit in made if limit is not None])
            return {"limit": out}

        limits.append(work.step(f"limit/{slug(name)}", column, {"benchmark": path}, make)["limit"])
    _set_aside(work.folder / "results", limits)
    return limits


def write_report(work: Workspace, models: Files) -> Report:
    """Tables under `tables/` and the page `report.html`; the models' cards get the tables too."""
    work.say("report ...")
    made = report(work.folder)
    write_page(made)
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


def _bring_back(folder: Path, asked: _Asked, benchmark: str) -> None:
    """Put verdicts that were set aside in their place again, so that nothing is asked twice."""
    path = folder / f"{slug(asked.shown)}--{slug(benchmark)}.parquet"
    aside = folder / "unused" / path.name
    if aside.exists() and not path.exists():
        aside.replace(path)


def _judge(work: Workspace, asked: _Asked, models: Files, benchmark: str, path: Path) -> Path:
    """One judge on one benchmark."""
    recipe, name, spec = work.recipe, asked.name, asked.spec
    plan = recipe.benchmarks[benchmark]
    _bring_back(work.folder / "verdicts", asked, benchmark)

    def make() -> Files:
        if asked.trouble:
            raise PalateError(asked.trouble)
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
            return {"verdicts": judge_together(judging, asked.opened, told)}

    inputs = {"benchmark": path} | ({"model": models[name]} if name in models else {})
    options = [spec, recipe.seed, recipe.judging.order, plan.paper_column]
    return work.step(f"judge/{slug(name)}--{slug(benchmark)}", options, inputs, make)["verdicts"]


def _judge_of(name: str, spec: JudgeSpec, models: Files, seed: int) -> JudgeSpec:
    """The judge as it is opened, on any rank."""
    if name in models:
        return {"reward-model": {"folder": str(models[name]), "name": name}}
    if name == "random":
        return {"random": {"seed": seed}}
    return spec
