"""The stages from raw rows to mixtures: files in, files out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import yaml

from palate.data.contamination import (
    BenchmarkIndex,
    OverlapOptions,
    OverlapReport,
    exclude_overlap,
)
from palate.data.lint import LintReport, lint
from palate.data.mixture import mix
from palate.data.sources import BadRow, Request, open_source, readable, source_named
from palate.data.sources.files import locate
from palate.data.split import Holdout, split, split_by_share
from palate.evaluate.benchmark import Benchmark, forbid_training_overlap, training_keys
from palate.evaluate.metrics import bayes_limit, noise_ceiling, write_results
from palate.evaluate.run import slug, write_skipped
from palate.model.options import BaseOptions
from palate.recipe.cache import Files, Workspace, plain
from palate.recipe.distributed import Judging, Training, judge_together, train_together
from palate.recipe.judges import JudgeSpec, name_of
from palate.recipe.schema import (
    BenchmarkConfig,
    ModelConfig,
    Recipe,
    SourceConfig,
    fingerprinted,
    resolved,
)
from palate.records import (
    read_comparisons,
    read_header,
    write_comparisons,
    write_json,
    write_text,
)
from palate.report import Report, report, write_page
from palate.report.render import markdown
from palate.train.defaults import FOLLOWING, Course, follow, follows
from palate.train.options import FREE, TrainOptions
from palate.types import Comparison, Judge, PalateError, digest

if TYPE_CHECKING:
    from palate.model.backbone import Backbone
    from palate.model.export import Card, DataShare


def import_sources(work: Workspace) -> dict[str, Path]:
    """Every source as comparisons, under its alias: `data/imported/ALIAS.parquet`."""
    return {alias: _import(work, alias, plan) for alias, plan in work.recipe.data.sources.items()}


def _import(work: Workspace, alias: str, plan: SourceConfig) -> Path:
    data = work.recipe.data
    location = locate(plan.path, source_named(plan.source).folder, data.root)
    options = dict(plan.options)
    if plan.source == "simulated":
        options.setdefault("seed", work.recipe.seed)
    request = Request(location, plan.split, plan.subset, options)
    out = work.folder / "data" / "imported" / f"{alias}.parquet"

    def make() -> Files:
        bad: list[BadRow] = []
        rows = readable(open_source(plan.source, request), data.max_bad_share, bad.append)
        named = (_under(alias, plan.batch, row) for row in rows)
        details = {"plan": plan.model_dump(mode="json")}
        header = write_comparisons(out, named, details=lambda: details | {"bad_rows": len(bad)})
        write_json(out.with_suffix(".bad.json"), [asdict(row) for row in bad])
        if not header.rows:
            raise PalateError(
                f"data.sources.{alias}: no usable row; see {out.with_suffix('.bad.json')}"
            )
        work.say(f"  {alias}: {header.rows:,} comparisons, {len(bad):,} rows not read")
        return {"imported": out}

    inputs = {"location": location} if isinstance(location, Path) else {}
    asked = [plan, options, data.max_bad_share]
    return work.step(f"import/{alias}", asked, inputs, make)["imported"]


def _under(alias: str, batch: str | None, comparison: Comparison) -> Comparison:
    """The comparison under the recipe's name for its source, which tables and splits go by."""
    return replace(comparison, source=alias, batch=comparison.batch if batch is None else batch)


def lint_sources(work: Workspace, imported: Files) -> dict[str, Path]:
    """Sources without what lint excludes: `data/clean/ALIAS.parquet`, findings beside it."""
    return {alias: _lint(work, alias, path) for alias, path in imported.items()}


def _lint(work: Workspace, alias: str, path: Path) -> Path:
    plan = work.recipe.data.lint
    out = work.folder / "data" / "clean" / f"{alias}.parquet"

    def make() -> Files:
        report = LintReport()
        rows = lint(read_comparisons(path), report, max_characters=plan.max_characters)
        inputs = {"imported": read_header(path).fingerprint}
        write_comparisons(out, rows, inputs=inputs, details=report.to_json)
        findings = out.with_suffix(".findings.parquet")
        report.write(findings)
        work.say(f"  {alias}: {report.excluded.total():,} of {report.rows.total():,} excluded")
        if again := report.judged_again.total():
            disagreed = report.disagreed.total()
            work.say(f"    in {disagreed:,} of {again:,} pairs with several rows these disagree")
        return {"clean": out, "findings": findings}

    return work.step(f"lint/{alias}", plan, {"imported": path}, make)["clean"]


def hold_out(work: Workspace, clean: Files) -> tuple[dict[str, Path], dict[str, Path]]:
    """(train, held out) of every source, by prompt; sources of whole benchmarks are in neither."""
    plan, seed = work.recipe.data.holdout, work.recipe.seed
    whole = {alias for b in work.recipe.benchmarks.values() for alias in b.whole}
    pools = {alias: path for alias, path in clean.items() if alias not in whole}
    halves, folder = _halves(work, pools), work.folder / "data" / "split"
    pools |= {alias: train for alias, (train, _) in halves.items()}
    holdout = Holdout(
        per_batch=0,
        by_source=dict.fromkeys(plan.sources, plan.per_batch),
        max_share=plan.max_share,
        seed=seed,
    )
    # Another size is another experiment; the same size goes on with its test prompts for ever.
    state = folder / f"state-{digest(holdout.model_dump(mode='json'))[:12]}.parquet"

    def make() -> Files:
        result = split(pools, folder, holdout, state)
        write_json(folder / "split.json", result.table())
        train = {f"train/{alias}": path for alias, path in result.train.items()}
        return train | {f"test/{alias}": path for alias, path in result.test.items()}

    files = work.step("hold-out", holdout, pools, make)
    train = {alias: files[f"train/{alias}"] for alias in pools}
    test = {alias: files[f"test/{alias}"] for alias in plan.sources}
    return train, test | {alias: held for alias, (_, held) in halves.items()}


def _halves(work: Workspace, pools: Files) -> dict[str, tuple[Path, Path]]:
    """(train, held out) of the sources of which a share is held out."""
    folder, seed = work.folder / "data" / "halves", work.recipe.seed
    result = {}
    for alias, share in work.recipe.data.holdout.fractions.items():
        train, held = folder / "train" / f"{alias}.parquet", folder / "test" / f"{alias}.parquet"

        def make(
            alias: str = alias, share: float = share, train: Path = train, held: Path = held
        ) -> Files:
            split_by_share(pools[alias], held, train, share, seed)
            return {"train": train, "held": held}

        work.step(f"halves/{alias}", [share, seed], {"clean": pools[alias]}, make)
        result[alias] = (train, held)
    return result


def make_benchmarks(work: Workspace, clean: Files, held_out: Files) -> dict[str, Path]:
    """What judges are asked: `benchmarks/NAME.parquet`."""
    return {
        name: _benchmark(work, name, plan, clean, held_out)
        for name, plan in work.recipe.benchmarks.items()
    }


def _benchmark(
    work: Workspace, name: str, plan: BenchmarkConfig, clean: Files, held_out: Files
) -> Path:
    parts = {alias: held_out[alias] for alias in plan.held_out}
    parts |= {alias: clean[alias] for alias in plan.whole}
    if plan.file is not None:
        own = SourceConfig(source="own", path=plan.file)
        alias = f"benchmark-{name}"
        parts = {alias: _lint(work, alias, _import(work, alias, own))}
    out = work.folder / "benchmarks" / f"{name}.parquet"

    def make() -> Files:
        inputs = {alias: read_header(path).fingerprint for alias, path in parts.items()}
        rows = _sampled(parts, plan.max_rows, work.recipe.seed)
        header = write_comparisons(out, rows, inputs=inputs)
        if not header.rows:
            raise PalateError(f"benchmarks.{name}: no comparison is left; hold out more")
        work.say(f"  {name}: {header.rows:,} comparisons")
        return {"benchmark": out}

    # `paper_column` is not an option of this step: it changes no row.
    asked = [plan.max_rows, work.recipe.seed]
    return work.step(f"benchmark/{name}", asked, parts, make)["benchmark"]


def _sampled(parts: Files, most: int | None, seed: int) -> Iterator[Comparison]:
    """All rows in order, or the `most` of them with the smallest seeded hash, in order."""
    rows = chain.from_iterable(map(read_comparisons, parts.values()))
    if most is None:
        return rows
    ids = chain.from_iterable(map(read_comparisons, parts.values()))
    kept = set(sorted((digest("sample", seed, c.id), c.id) for c in ids)[:most])
    return (c for c in rows if (digest("sample", seed, c.id), c.id) in kept)


def exclude_overlaps(work: Workspace, train: Files, benchmarks: Files) -> dict[str, Path]:
    """Training rows that share no prompt with a benchmark: `data/pools/ALIAS.parquet`."""
    plan, folder = work.recipe.data.overlap, work.folder / "data" / "pools"

    def make() -> Files:
        options = OverlapOptions(**plan.model_dump(exclude={"exclude"}))
        index = BenchmarkIndex.build(
            {name: read_comparisons(path) for name, path in benchmarks.items()}, options
        )
        report, outputs = OverlapReport(), {}
        for alias, path in train.items():
            outputs[alias] = folder / f"{alias}.parquet"
            rows = exclude_overlap(read_comparisons(path), index, report, keep=not plan.exclude)
            inputs = {"train": read_header(path).fingerprint}
            write_comparisons(outputs[alias], rows, inputs=inputs)
        report.write(folder / "overlap.findings.parquet")
        write_json(folder / "overlap.json", report.to_json())
        work.say(f"  {report.excluded.total():,} of {report.rows.total():,} excluded")
        return outputs

    inputs = {f"train/{k}": v for k, v in train.items()}
    inputs |= {f"benchmark/{k}": v for k, v in benchmarks.items()}
    return work.step("overlap", plan, inputs, make)


# The stages from pools to checkpoints: mix, train, export.

CARD, OPTIONS = "card.json", "options.json"


def make_mixtures(work: Workspace, pools: Files) -> dict[str, Path]:
    """What each model is trained on: `mixtures/NAME.parquet`, shares asked and achieved beside."""
    result = {}
    for name, spec in work.recipe.mixtures.items():
        out = work.folder / "mixtures" / f"{name}.parquet"
        drawn = {pool: pools[pool] for pool in spec.pools}

        def make(name: str = name, out: Path = out, drawn: Files = drawn) -> Files:
            made = mix(work.recipe.mixtures[name], drawn, out, work.recipe.seed)
            work.say(f"  {name}: {made.rows:,} comparisons")
            return {"mixture": made.path}

        result[name] = work.step(f"mix/{name}", [spec, work.recipe.seed], drawn, make)["mixture"]
    return result


def keep_apart(work: Workspace, mixtures: Files, benchmarks: Files) -> None:
    """Refuse to train on what will be judged: no benchmark shares a comparison or a prompt.

    The overlap stage has taken such rows out already; this looks at what is really trained on.
    Where the recipe says `overlap.exclude: false` the overlap is wanted, and reported there.
    """
    if not work.recipe.data.overlap.exclude:
        return
    for name, path in mixtures.items():
        out = work.folder / "mixtures" / f"{name}.apart.json"

        def make(path: Path = path, out: Path = out) -> Files:
            ids, prompts = training_keys(path)
            for benchmark, asked in benchmarks.items():
                forbid_training_overlap(Benchmark(benchmark, asked), ids=ids, prompts=prompts)
            write_json(out, {"apart_from": sorted(benchmarks)})
            return {"apart": out}

        work.step(f"apart/{name}", None, {"mixture": path, **benchmarks}, make)


def say_courses(work: Workspace, mixtures: Files) -> None:
    """Say how many steps each model's training would take, and whether they can teach."""
    for name, plan in work.recipe.models.items():
        options, base = work.recipe.train_options(name), work.recipe.backbone_options(name)
        rows = read_header(mixtures[plan.mixture]).rows
        settled, _ = follow(options, base, rows, None)
        for line in _course_said(name, options, settled, rows, rate=False):
            work.say(line)


def settle(work: Workspace, mixtures: Files) -> Recipe:
    """The recipe with what follows from the rows and the base stated for each model, and said."""
    models = {}
    for name, plan in work.recipe.models.items():
        options, base = work.recipe.train_options(name), work.recipe.backbone_options(name)
        mixture, folder = mixtures[plan.mixture], work.folder / "train" / name
        settled, cut = settle_one(
            name, options, base, mixture, folder, resume=work.resume, say=work.say
        )
        models[name] = _stated(plan, options, settled, base, cut)
    return work.recipe.model_copy(update={"models": models})


def _stated(
    plan: ModelConfig,
    options: TrainOptions,
    settled: TrainOptions,
    base: BaseOptions,
    cut: BaseOptions,
) -> ModelConfig:
    """The model's plan with what was filled in as overrides of its own."""
    unsaid = [key for key in FOLLOWING if key not in options.model_fields_set]
    train = {key: value for key in unsaid if (value := getattr(settled, key)) is not None}
    layers = {} if cut.layers == base.layers else {"layers": cut.layers}
    return plan.model_copy(update={"train": plan.train | train, "backbone": plan.backbone | layers})


def settle_one(
    name: str,
    options: TrainOptions,
    base: BaseOptions,
    mixture: Path,
    folder: Path,
    *,
    resume: bool = True,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[TrainOptions, BaseOptions]:
    """The options with what they do not state filled in; a training in `folder` keeps its own."""
    header = read_header(mixture, "comparisons")
    settled, cut = options, base
    if follows(options, base):
        kept = _kept(options, base, header.fingerprint, folder) if resume else None
        settled, cut = kept or follow(options, base, header.rows, lambda b: _size(b, options))
    for line in _course_said(name, options, settled, header.rows):
        say(line)
    if cut.layers != base.layers:
        say(
            f"  {name}: the first {cut.layers} layers of the backbone; "
            "set backbone.layers to override"
        )
    return settled, cut


def _course_said(
    name: str, options: TrainOptions, settled: TrainOptions, rows: int, *, rate: bool = True
) -> Iterator[str]:
    """How many steps, and with which rates; what follows, and how to say otherwise."""
    course = Course.of(settled, rows)
    unsaid = [key for key in FOLLOWING if key not in options.model_fields_set]
    how = f"; set train.{unsaid[0]} to override" if unsaid else ""
    yield f"  {name}: {course}{f', {_rates(settled)}' if rate else ''}{how}"
    if course.trouble:
        yield f"  {name}: WARNING: {course.trouble}"


def _rates(options: TrainOptions) -> str:
    head = options.head_learning_rate
    return f"learning rate {options.learning_rate:g}" + (f", head {head:g}" if head else "")


def _size(base: BaseOptions, options: TrainOptions) -> int:
    from palate.model.backbone import load_config
    from palate.train.cost import count_parameters

    return count_parameters(
        load_config(base.model, revision=base.revision, layers=base.layers), options
    )


def _kept(
    options: TrainOptions, base: BaseOptions, fingerprint: str, folder: Path
) -> tuple[TrainOptions, BaseOptions] | None:
    """What the training in `folder` had where now nothing is stated, if the rest is the same."""
    if not (folder / OPTIONS).is_file():
        return _kept_of_older(options, base, fingerprint, folder)
    try:
        kept = json.loads((folder / OPTIONS).read_text(encoding="utf-8"))
        before = TrainOptions.model_validate(kept["train"])
        layers = BaseOptions.model_validate(kept["base"]).layers
        same = kept["mixture"] == fingerprint
    except (ValueError, KeyError, TypeError):  # Of another release: it is not gone on with.
        return None
    stated = options.model_fields_set - set(FREE)
    if not same or any(getattr(options, key) != getattr(before, key) for key in stated):
        return None
    unsaid = {key: getattr(before, key) for key in FOLLOWING if key not in stated}
    return options.model_copy(update=unsaid), base.model_copy(update={"layers": layers})


def _kept_of_older(
    options: TrainOptions, base: BaseOptions, fingerprint: str, folder: Path
) -> tuple[TrainOptions, BaseOptions] | None:
    """The paper's defaults, for a training that was begun when nothing followed from the rows."""
    if not (folder / "metrics.jsonl").is_file():
        return None
    mark = folder / "experiment.json"
    if mark.is_file():
        experiment = digest(plain([base, options.decisive()]), fingerprint)
        if json.loads(mark.read_text(encoding="utf-8")) != experiment:
            return None
    return options, base


def train_models(work: Workspace, mixtures: Files, benchmarks: Files) -> dict[str, Path]:
    """Every reward model as a checkpoint: `models/NAME`; curves in `train/NAME`."""
    return {name: _train(work, name, mixtures, benchmarks) for name in work.recipe.models}


def _train(work: Workspace, name: str, mixtures: Files, benchmarks: Files) -> Path:
    plan = work.recipe.models[name]
    options, base = work.recipe.train_options(name), work.recipe.backbone_options(name)
    mixture = mixtures[plan.mixture]
    watched = {benchmark: benchmarks[benchmark] for benchmark in plan.eval_sets}
    experiment = [base, options.decisive()]

    def make() -> Files:
        folder, out = work.folder / "train" / name, work.folder / "models" / name
        _set_training_aside(work, name, digest(plain(experiment), read_header(mixture).fingerprint))
        train_one(
            name,
            base,
            options,
            mixture,
            watched,
            folder,
            out,
            recipe=work.recipe,
            resume=work.resume,
        )
        # The card's facts go with the model to who takes it over.
        return {"model": out, "card": folder / CARD}

    inputs = {"mixture": mixture, **{f"watch/{k}": v for k, v in watched.items()}}
    return work.step(f"train/{name}", experiment, inputs, make)["model"]


def _set_training_aside(work: Workspace, name: str, experiment: str) -> None:
    """Move a model's training out of the way where it was of other data or options.

    It cannot be gone on with, and it may have taken hours: the last one is kept in `earlier/`.
    """
    folder, earlier = work.folder / "train" / name, work.folder / "earlier" / name
    mark = folder / "experiment.json"
    if mark.is_file() and json.loads(mark.read_text(encoding="utf-8")) != experiment:
        shutil.rmtree(earlier, ignore_errors=True)
        earlier.parent.mkdir(exist_ok=True)
        folder.replace(earlier)
        work.say(f"  {name}: other data or options than before; that training is in {earlier}")
    write_json(mark, experiment)


def train_one(
    name: str,
    base: BaseOptions,
    options: TrainOptions,
    mixture: Path,
    watched: Files,
    folder: Path,
    out: Path,
    *,
    recipe: Recipe | None = None,
    resume: bool = True,
) -> Path:
    """Train one reward model on a mixture file and export it to the folder `out`.

    Curves, checkpoints and tokens are kept in `folder`, from which a stopped training goes on.
    Under torchrun, ranks above 0 must be in `crew`.
    """
    from palate.model.export import export

    for path in (mixture, *watched.values()):
        read_header(path, "comparisons")  # A mistyped path is told before a model is loaded.
    training = Training(
        name=name, base=base, train=options, mixture=mixture, watched=dict(watched),
        folder=folder, resume=resume,
    )  # fmt: skip
    header = read_header(mixture)
    kept = {"mixture": header.fingerprint, "base": base, "train": options.decisive()}
    write_json(folder / OPTIONS, plain(kept))
    model, backbone = train_together(training)
    card = _card(name, backbone, mixture, recipe, _facts(options, header.rows))
    write_json(folder / CARD, asdict(card))
    return export(model, out, card=card)


def add_tables(work: Workspace, models: Files, tables: Mapping[str, str]) -> None:
    """Write the models' cards again with the tables (heading to Markdown) of their judging."""
    from palate.model.export import Card, DataShare, render_card

    for name, folder in models.items():
        values = json.loads((work.folder / "train" / name / CARD).read_text(encoding="utf-8"))
        shares = tuple(DataShare(**share) for share in values.pop("data"))
        card = Card(**values | {"data": shares, "tables": dict(tables)})
        facts = json.loads((folder / "config.json").read_text(encoding="utf-8"))["palate"]
        text = render_card(
            card, terminal=facts["terminal_token"], max_tokens=facts["max_tokens"],
            ending=facts.get("ending", "terminal"),
        )  # fmt: skip
        write_text(folder / "README.md", text)


def _facts(options: TrainOptions, rows: int) -> dict[str, str]:
    """How it was trained, for the card; and that it was not, where it was not."""
    course = Course.of(options, rows)
    facts = {"training": f"{course}, {_rates(options)}"}
    return facts | ({"caution": course.trouble} if course.trouble else {})


def _card(
    name: str, backbone: Backbone, mixture: Path, recipe: Recipe | None, facts: Mapping[str, str]
) -> Card:
    from palate.model.export import Card

    values = None if recipe is None else resolved(recipe)
    return Card(
        name=name,
        base=backbone.location,
        base_revision=backbone.revision,
        base_licence=backbone.licence,
        base_layers=backbone.layers,
        recipe="" if values is None else yaml.safe_dump(values, sort_keys=False),
        recipe_fingerprint="" if recipe is None else digest(fingerprinted(recipe)),
        data=tuple(_shares(mixture, recipe)),
        facts={**backbone.facts, **facts},
    )


def _shares(mixture: Path, recipe: Recipe | None) -> Sequence[DataShare]:
    """What each source gave to a mixture, with its licence; from the mixture's own header."""
    from palate.model.export import DataShare

    pools = [s for s in read_header(mixture).details.get("shares", ()) if s["pool"]]
    sources = {} if recipe is None else recipe.data.sources
    named = {alias: source_named(plan.source) for alias, plan in sources.items()}
    return [
        DataShare(
            source=share["pool"],
            licence=named[share["pool"]].licence if share["pool"] in named else "unknown",
            rows=share["rows"],
            row_share=share["share_rows"],
            token_share=share["share_tokens"],
            url=named[share["pool"]].url if share["pool"] in named else "",
        )
        for share in pools
    ]


# The stages from checkpoints to tables: every judge on every benchmark, then the report.

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
    write_skipped(work.folder / "verdicts", absent)
    _set_files_aside(work.folder / "verdicts", verdicts)
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
    _set_files_aside(work.folder / "results", limits)
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


def _set_files_aside(folder: Path, wanted: list[Path]) -> None:
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
