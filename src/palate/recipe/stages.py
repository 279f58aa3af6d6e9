"""What a run does, stage by stage: files in, files out.

Raw rows to mixtures (import, lint, hold out, benchmarks, overlap, mix), mixtures to checkpoints
(train, export), checkpoints to tables (judges, limits, report). `recipe.run.run` calls these
functions in their order. What is made is made in a step (`Workspace.step`), which is skipped where
its options, inputs and outputs are unchanged.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import yaml

from palate.data.benchmarks import benchmark_named, import_benchmark
from palate.data.benchmarks.base import own_files
from palate.data.lint import LintReport, lint_of
from palate.data.mixture import MixtureSpec, mix
from palate.data.sources import BadRow, Request, not_read, open_source, read, source_named
from palate.data.sources.files import is_hub_id, locate
from palate.data.split import Holdout, split, split_by_share
from palate.evaluate.benchmark import (
    Benchmark,
    forbid_training_overlap,
    majority_first,
    rows_of,
    training_keys,
)
from palate.evaluate.run import slug, write_skipped
from palate.model.options import BaseOptions
from palate.recipe.cache import Files, Workspace, plain
from palate.recipe.distributed import Judging, Training, judge_together, train_together
from palate.recipe.judges import JudgeSpec, name_of
from palate.recipe.schema import BenchmarkConfig, Recipe, SourceConfig, fingerprinted, resolved
from palate.records import (
    read_comparisons,
    read_header,
    write_comparisons,
    write_json,
    write_text,
)
from palate.train.defaults import FOLLOWING, Course, follow, follows, learnable
from palate.train.options import FREE, TrainOptions
from palate.types import Candidates, Comparison, Judge, PalateError, Score, digest

if TYPE_CHECKING:
    from palate.model.backbone import Backbone
    from palate.model.export import Card
    from palate.report import Report

CARD, OPTIONS = "card.json", "options.json"
ON_CARDS = ("table-7", "table-8", "table-29")


# From raw rows to mixtures.


def require_data(recipe: Recipe) -> None:
    """Look for the files of all sources and benchmarks before anything is made of any.

    A source that is on the hub and was given no path is not looked for: it is read from there.

    Raises:
        PalateError: some are missing; all of them in one line.
    """
    root, missing, on_hub = recipe.data.root, list[str](), list[str]()
    for alias, config in recipe.data.sources.items():
        source = source_named(config.source)
        location = locate(config.path, source.folder, root)
        wanted = config.path or source.folder
        if wanted is None and source.hub_id is None and source.name != "simulated":
            key = f"data.sources.{alias}.path"
            raise PalateError(
                f"recipe {recipe.name}: {key}: {source.name} reads a file or folder of yours, got "
                f"none; --set {key}=FILE, or path: FILE in the recipe"
            )
        nowhere = location is None and source.hub_id is None and wanted is not None
        if nowhere or (isinstance(location, str) and not is_hub_id(location)):
            missing.append(f"{wanted} (data.sources.{alias})")
            if source.hub_id:
                on_hub.append(f"data.sources.{alias}.path={source.hub_id}")
    for name, benchmark in recipe.benchmarks.items():
        location, wanted = locate(benchmark.file, None, root), benchmark.file
        if benchmark.named is not None:
            location, wanted = _named_location(benchmark, root), benchmark.path
            if location is None and not (known := benchmark_named(benchmark.named)).hub_ids:
                key = f"benchmarks.{name}.path"
                raise PalateError(
                    f"recipe {recipe.name}: {key}: {known.name} is on no hub; fetch it from "
                    f"{known.url or 'a file of yours'}, and --set {key}=FOLDER"
                )
        if isinstance(location, str) and not is_hub_id(location):
            missing.append(f"{wanted} (benchmarks.{name})")
    if not missing:
        return
    where, cure = "here", "name the folder that has them by --data or PALATE_DATA"
    if root:
        where, cure = f"below {root}, nor here", f"put them there, or {cure}"
    hub = f"; from the hub: --set {' --set '.join(on_hub)}" if on_hub else ""
    raise PalateError(
        f"recipe {recipe.name}: no such file or folder {where}: {', '.join(missing)}; {cure}{hub}; "
        "to do without a source, set it to null, and take it out of what uses it"
    )


def import_sources(work: Workspace) -> dict[str, Path]:
    """Every source as comparisons, under its alias: `data/imported/ALIAS.parquet`."""
    sources = work.recipe.data.sources
    return {alias: _import(work, alias, config) for alias, config in sources.items()}


def _import(work: Workspace, alias: str, config: SourceConfig) -> Path:
    data = work.recipe.data
    location = locate(config.path, source_named(config.source).folder, data.root)
    options = dict(config.options)
    if config.source == "simulated":
        options.setdefault("seed", work.recipe.seed)
    request = Request(
        location,
        config.split,
        config.subset,
        options,
        config.ties,
        config.columns,
        config.values,
        config.annotators.rule,
        config.attributes,
    )
    out = work.folder / "data" / "imported" / f"{alias}.parquet"

    def make() -> Files:
        bad: list[BadRow] = []
        source = partial(open_source, config.source)
        rows = read(source, request, data.max_bad_share, bad.append)
        # Tables and splits go by the recipe's name for a source.
        aliased = (
            replace(row, source=alias, batch=row.batch if config.batch is None else config.batch)
            for row in rows
        )
        details = {"plan": config.model_dump(mode="json")}
        header = write_comparisons(out, aliased, details=lambda: details | {"bad_rows": len(bad)})
        bad_file = out.with_suffix(".bad.json")
        write_json(bad_file, [asdict(row) for row in bad])
        if not header.rows:
            raise PalateError(f"data.sources.{alias}: no usable row; see {bad_file}")
        work.log(f"  {alias}: {header.rows:,} comparisons, {not_read(bad)}")
        return {"imported": out}

    inputs = {"location": location} if isinstance(location, Path) else {}
    step_options = [config, options, data.max_bad_share]
    return work.step(f"import/{alias}", step_options, inputs, make)["imported"]


def lint_sources(work: Workspace, imported: Files) -> dict[str, Path]:
    """Sources without what lint excludes: `data/clean/ALIAS.parquet`, findings beside it."""
    return {alias: _lint(work, alias, path) for alias, path in imported.items()}


def _lint(work: Workspace, alias: str, path: Path) -> Path:
    config = work.recipe.data.lint
    out = work.folder / "data" / "clean" / f"{alias}.parquet"

    def make() -> Files:
        report = LintReport()
        lint_of(path, out, report, max_characters=config.max_characters)
        findings = out.with_suffix(".findings.parquet")
        report.write(findings)
        work.log(f"  {alias}: {report.excluded.total():,} of {report.rows.total():,} excluded")
        if again := report.judged_again.total():
            disagreed = report.disagreed.total()
            work.log(f"    in {disagreed:,} of {again:,} pairs with several rows these disagree")
        for line in report.disagreement().lines():
            work.log(f"    {line}")
        return {"clean": out, "findings": findings}

    return work.step(f"lint/{alias}", config, {"imported": path}, make)["clean"]


def hold_out(work: Workspace, clean: Files) -> tuple[dict[str, Path], dict[str, Path]]:
    """(train, held out) of every source, by prompt; sources of whole benchmarks are in neither."""
    config, seed = work.recipe.data.holdout, work.recipe.seed
    whole = {alias for b in work.recipe.benchmarks.values() for alias in b.whole}
    pools = {alias: path for alias, path in clean.items() if alias not in whole}
    held_out = {}
    for alias, share in config.fractions.items():
        pools[alias], held_out[alias] = _hold_out_fraction(work, alias, pools[alias], share)
    holdout = Holdout(
        per_batch=0,
        by_source=dict.fromkeys(config.sources, config.per_batch),
        max_share=config.max_share,
        seed=seed,
    )
    # Another size is another experiment; the same size goes on with its test prompts for ever.
    folder = work.folder / "data" / "split"
    state = folder / f"state-{digest(holdout.model_dump(mode='json'))[:12]}.parquet"

    def make() -> Files:
        result = split(pools, folder, holdout, state)
        write_json(folder / "split.json", result.table())
        train = {f"train/{alias}": path for alias, path in result.train.items()}
        return train | {f"test/{alias}": path for alias, path in result.test.items()}

    files = work.step("hold-out", holdout, pools, make)
    train = {alias: files[f"train/{alias}"] for alias in pools}
    return train, {alias: files[f"test/{alias}"] for alias in config.sources} | held_out


def _hold_out_fraction(work: Workspace, alias: str, clean: Path, share: float) -> tuple[Path, Path]:
    """(train, held out) of a source of which a share of the prompts is held out."""
    folder, seed = work.folder / "data" / "halves", work.recipe.seed
    train, held_out = (folder / part / f"{alias}.parquet" for part in ("train", "test"))

    def make() -> Files:
        split_by_share(clean, held_out, train, share, seed)
        return {"train": train, "held": held_out}

    work.step(f"halves/{alias}", [share, seed], {"clean": clean}, make)
    return train, held_out


def make_benchmarks(work: Workspace, clean: Files, held_out: Files) -> dict[str, Path]:
    """What judges are asked: `benchmarks/NAME.parquet`."""
    return {
        name: _benchmark(work, name, config, clean, held_out)
        for name, config in work.recipe.benchmarks.items()
    }


def _named_location(config: BenchmarkConfig, root: str | None) -> Path | str | None:
    """Where a benchmark of the field is; None where it is read from the hub."""
    assert config.named is not None
    return locate(config.path, benchmark_named(config.named).folder, root)


def _named_benchmark(work: Workspace, name: str, config: BenchmarkConfig) -> Path:
    """A benchmark of the field as its own code reads it: pairs, or items of K responses."""
    assert config.named is not None
    known = benchmark_named(config.named)
    location = _named_location(config, work.recipe.data.root)
    request = Request(location, config.split, config.subset)
    files: Files = {}
    if isinstance(location, Path):
        files = {str(path): path for path in own_files(known, location, request)}
    out = work.folder / "benchmarks" / f"{name}.parquet"

    def make() -> Files:
        header = import_benchmark(known.name, out, request, partial=config.partial)
        work.log(f"  {name}: {header.rows:,} {header.kind} of {known.title}")
        return {"benchmark": out}

    options = [known.name, str(location or ""), config.subset, config.split, config.partial]
    try:
        return work.step(f"benchmark/{name}", options, files, make)["benchmark"]
    except PalateError as error:
        raise PalateError(f"benchmarks.{name}: {error}") from None


def _benchmark(
    work: Workspace, name: str, config: BenchmarkConfig, clean: Files, held_out: Files
) -> Path:
    if config.named is not None:
        return _named_benchmark(work, name, config)
    parts = {alias: held_out[alias] for alias in config.held_out}
    parts |= {alias: clean[alias] for alias in config.whole}
    if config.file is not None:
        own = SourceConfig(source="own", path=config.file)
        alias = f"benchmark-{name}"
        parts = {alias: _lint(work, alias, _import(work, alias, own))}
    out = work.folder / "benchmarks" / f"{name}.parquet"

    def make() -> Files:
        inputs = {alias: read_header(path).fingerprint for alias, path in parts.items()}
        rows = _sample(parts, config.max_rows, work.recipe.seed)
        header = write_comparisons(out, rows, inputs=inputs)
        if not header.rows:
            raise PalateError(f"benchmarks.{name}: no comparison is left; hold out more")
        work.log(f"  {name}: {header.rows:,} comparisons")
        return {"benchmark": out}

    # `paper_column` is not an option of this step: it changes no row.
    options = [config.max_rows, work.recipe.seed]
    return work.step(f"benchmark/{name}", options, parts, make)["benchmark"]


def _sample(parts: Files, max_rows: int | None, seed: int) -> Iterator[Comparison]:
    """All rows in order, or the `max_rows` of them with the smallest seeded hash, in order."""

    def rows() -> Iterator[Comparison]:
        return map(majority_first, chain.from_iterable(map(read_comparisons, parts.values())))

    if max_rows is None:
        return rows()
    kept = set(sorted((digest("sample", seed, row.id), row.id) for row in rows())[:max_rows])
    return (row for row in rows() if (digest("sample", seed, row.id), row.id) in kept)


def exclude_overlaps(work: Workspace, train: Files, benchmarks: Files) -> dict[str, Path]:
    """Training rows that share no prompt with a benchmark: `data/pools/ALIAS.parquet`."""
    config, folder = work.recipe.data.overlap, work.folder / "data" / "pools"

    def make() -> Files:
        from palate.data.contamination import (
            BenchmarkIndex,
            OverlapOptions,
            OverlapReport,
            exclude_overlap_of,
        )

        options = OverlapOptions(**config.model_dump(exclude={"exclude"}))
        index = BenchmarkIndex.build(
            {name: rows_of(path) for name, path in benchmarks.items()}, options
        )
        report, outputs = OverlapReport(), {}
        for alias, path in train.items():
            outputs[alias] = folder / f"{alias}.parquet"
            exclude_overlap_of(path, outputs[alias], index, report, keep=not config.exclude)
        report.write(folder / "overlap.findings.parquet")
        write_json(folder / "overlap.json", report.to_json())
        work.log(f"  {report.excluded.total():,} of {report.rows.total():,} excluded")
        return outputs

    inputs = {f"train/{alias}": path for alias, path in train.items()}
    inputs |= {f"benchmark/{name}": path for name, path in benchmarks.items()}
    return work.step("overlap", config, inputs, make)


def make_mixtures(work: Workspace, pools: Files) -> dict[str, Path]:
    """What each model is trained on: `mixtures/NAME.parquet`, shares asked and achieved beside."""
    return {name: _mix(work, name, spec, pools) for name, spec in work.recipe.mixtures.items()}


def _mix(work: Workspace, name: str, spec: MixtureSpec, pools: Files) -> Path:
    seed, out = work.recipe.seed, work.folder / "mixtures" / f"{name}.parquet"
    inputs = {pool: pools[pool] for pool in spec.pools}

    def make() -> Files:
        made = mix(spec, inputs, out, seed)
        work.log(f"  {name}: {made.rows:,} comparisons")
        return {"mixture": made.path}

    return work.step(f"mix/{name}", [spec, seed], inputs, make)["mixture"]


def forbid_overlap(work: Workspace, mixtures: Files, benchmarks: Files) -> None:
    """Refuse to train on what will be judged: no benchmark shares a comparison or a prompt.

    The overlap stage has taken such rows out already; this looks at what is really trained on.
    Where the recipe says `overlap.exclude: false` the overlap is wanted, and reported there.
    """
    if not work.recipe.data.overlap.exclude:
        return
    for name, mixture in mixtures.items():
        out = work.folder / "mixtures" / f"{name}.apart.json"

        def make(mixture: Path = mixture, out: Path = out) -> Files:
            ids, prompts = training_keys(mixture)
            for benchmark, path in benchmarks.items():
                forbid_training_overlap(Benchmark(benchmark, path), ids=ids, prompts=prompts)
            write_json(out, {"apart_from": sorted(benchmarks)})
            return {"apart": out}

        work.step(f"apart/{name}", None, {"mixture": mixture, **benchmarks}, make)


# What follows from the rows: steps and rates of a training (`train.defaults`).


def log_courses(work: Workspace, mixtures: Files) -> None:
    """Log how many steps each model's training would take, and whether they can teach."""
    for name, model in work.recipe.models.items():
        options, base = work.recipe.train_options(name), work.recipe.backbone_options(name)
        rows, together = learnable(mixtures[model.mixture], options.loss)
        filled, cut = follow(options, base, rows, None, together=together)
        _log_course(work.log, name, options, filled, rows)
        _log_layers(work.log, name, options, base, filled, cut)


def settle(work: Workspace, mixtures: Files) -> Recipe:
    """The recipe with what follows from the rows and the backbone stated for each model."""
    models = {}
    for name, model in work.recipe.models.items():
        options, base = work.recipe.train_options(name), work.recipe.backbone_options(name)
        filled, cut = fill_in(
            name, options, base, mixtures[model.mixture], work.folder / "train" / name,
            resume=work.resume, log=work.log,
        )  # fmt: skip
        values = filled.model_dump(mode="json", exclude_none=True)
        if filled.trainable == "full":
            del values["trainable"]  # Recipes of before do not state it, nor do their fingerprints.
        unstated = [key for key in FOLLOWING if key not in options.model_fields_set]
        train = {key: values[key] for key in unstated if key in values}
        layers = {} if cut.layers == base.layers else {"layers": cut.layers}
        models[name] = model.model_copy(
            update={"train": model.train | train, "backbone": model.backbone | layers}
        )
    return work.recipe.model_copy(update={"models": models})


def fill_in(
    name: str,
    options: TrainOptions,
    base: BaseOptions,
    mixture: Path,
    folder: Path,
    *,
    resume: bool = True,
    log: Callable[[str], None] = lambda _: None,
) -> tuple[TrainOptions, BaseOptions]:
    """The options with what they do not state filled in; a training in `folder` keeps its own."""
    from palate.model.backbone import load_config
    from palate.train.cost import count_parameters

    def size(of: BaseOptions) -> int:
        config = load_config(of.model, revision=of.revision, layers=of.layers)
        return count_parameters(config, options)

    header = read_header(mixture, "comparisons")
    rows, together = learnable(mixture, options.loss)
    filled, cut = options, base
    if follows(options, base):
        begun = _begun_with(options, base, header.fingerprint, folder) if resume else None
        filled, cut = begun or follow(options, base, rows, size, together=together)
    _log_course(log, name, options, filled, rows, rates=_rates(filled))
    _log_layers(log, name, options, base, filled, cut)
    return filled, cut


def _log_course(
    log: Callable[[str], None],
    name: str,
    options: TrainOptions,
    filled: TrainOptions,
    rows: int,
    rates: str = "",
) -> None:
    """How many steps, and with which rates; what followed, and which key overrides it."""
    course = Course.of(filled, rows)
    unstated = [key for key in FOLLOWING if key not in {*options.model_fields_set, "trainable"}]
    override = f"; set train.{unstated[0]} to override" if unstated else ""
    log(f"  {name}: {course}{f', {rates}' if rates else ''}{override}")
    if course.trouble:
        log(f"  {name}: WARNING: {course.trouble}")


def _log_layers(
    log: Callable[[str], None],
    name: str,
    options: TrainOptions,
    base: BaseOptions,
    filled: TrainOptions,
    cut: BaseOptions,
) -> None:
    """How many layers of the backbone there are and whether they learn, where that followed."""
    keys, learns = ["backbone.layers"], ""
    if filled.trainable != options.trainable:
        keys, learns = ["train.trainable", *keys], " as they are, under a head that learns"
    if cut.layers != base.layers:
        log(
            f"  {name}: the first {cut.layers} layers of the backbone{learns}; "
            f"set {' or '.join(keys)} to override"
        )


def _rates(options: TrainOptions) -> str:
    head = options.head_learning_rate
    return f"learning rate {options.learning_rate:g}" + (f", head {head:g}" if head else "")


def _begun_with(
    options: TrainOptions, base: BaseOptions, fingerprint: str, folder: Path
) -> tuple[TrainOptions, BaseOptions] | None:
    """What the training in `folder` had where now nothing is stated, if the rest is the same.

    One that was begun before anything followed from the rows has no file of options, and had the
    paper's defaults. One that was refused before its first step has not begun.
    """
    if not (folder / "metrics.jsonl").is_file():
        return None
    if not (folder / OPTIONS).is_file():
        path = folder / "experiment.json"
        experiment = digest(plain([base, options.decisive()]), fingerprint)
        same = not path.is_file() or json.loads(path.read_text(encoding="utf-8")) == experiment
        return (options, base) if same else None
    try:
        stored = json.loads((folder / OPTIONS).read_text(encoding="utf-8"))
        before = TrainOptions.model_validate(stored["train"])
        cut = BaseOptions.model_validate(stored["base"])
        same = stored["mixture"] == fingerprint
    except (ValueError, KeyError, TypeError):  # Of another release: it is not gone on with.
        return None
    stated = options.model_fields_set - set(FREE)
    if not same or any(getattr(options, key) != getattr(before, key) for key in stated):
        return None
    if any(
        getattr(base, key) != getattr(cut, key)
        for key in {"model", "layers"} & base.model_fields_set
    ):
        return None
    unstated = {key: getattr(before, key) for key in FOLLOWING if key not in stated}
    return options.model_copy(update=unstated), base.model_copy(update={"layers": cut.layers})


# From mixtures to checkpoints.


def train_models(work: Workspace, mixtures: Files, benchmarks: Files) -> dict[str, Path]:
    """Every reward model as a checkpoint: `models/NAME`; curves in `train/NAME`."""
    return {name: _train(work, name, mixtures, benchmarks) for name in work.recipe.models}


def _train(work: Workspace, name: str, mixtures: Files, benchmarks: Files) -> Path:
    model = work.recipe.models[name]
    options, base = work.recipe.train_options(name), work.recipe.backbone_options(name)
    mixture = mixtures[model.mixture]
    eval_sets = {benchmark: benchmarks[benchmark] for benchmark in model.eval_sets}
    experiment = [base, options.decisive()]

    def make() -> Files:
        folder, out = work.folder / "train" / name, work.folder / "models" / name
        _set_training_aside(work, name, digest(plain(experiment), read_header(mixture).fingerprint))
        train_one(
            name, base, options, mixture, eval_sets, folder, out,
            recipe=work.recipe, resume=work.resume,
        )  # fmt: skip
        # The card's facts go with the model to who takes it over.
        return {"model": out, "card": folder / CARD}

    inputs = {"mixture": mixture, **{f"watch/{key}": path for key, path in eval_sets.items()}}
    return work.step(f"train/{name}", experiment, inputs, make)["model"]


def _set_training_aside(work: Workspace, name: str, experiment: str) -> None:
    """Move a model's training out of the way where it was of other data or options.

    It cannot be gone on with, and it may have taken hours: the last one is kept in `earlier/`.
    """
    folder, earlier = work.folder / "train" / name, work.folder / "earlier" / name
    path = folder / "experiment.json"
    if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != experiment:
        shutil.rmtree(earlier, ignore_errors=True)
        earlier.parent.mkdir(exist_ok=True)
        folder.replace(earlier)
        work.log(f"  {name}: other data or options than before; that training is in {earlier}")
    write_json(path, experiment)


def train_one(
    name: str,
    base: BaseOptions,
    options: TrainOptions,
    mixture: Path,
    eval_sets: Files,
    folder: Path,
    out: Path,
    *,
    recipe: Recipe | None = None,
    resume: bool = True,
) -> Path:
    """Train one reward model on a mixture file and export it to the folder `out`.

    Curves, checkpoints and tokens are kept in `folder`, from which a stopped training goes on.
    Under torchrun, ranks above 0 must be in `recipe.distributed.distributed`.
    """
    from palate.model.export import export

    for path in (mixture, *eval_sets.values()):
        read_header(path, "comparisons")  # A mistyped path is refused before a model is loaded.
    training = Training(
        name=name, base=base, train=options, mixture=mixture, eval_sets=dict(eval_sets),
        folder=folder, resume=resume,
    )  # fmt: skip
    header = read_header(mixture)
    stored = {"mixture": header.fingerprint, "base": base, "train": options.decisive()}
    write_json(folder / OPTIONS, plain(stored))
    model, backbone = train_together(training)
    card = _card(name, backbone, mixture, recipe, options, folder)
    write_json(folder / CARD, asdict(card))
    return export(model, out, card=card)


def _card(
    name: str,
    backbone: Backbone,
    mixture: Path,
    recipe: Recipe | None,
    options: TrainOptions,
    folder: Path,
) -> Card:
    """How the model was made; and that it cannot have learnt, where it cannot."""
    from palate.model.export import Card, DataShare, attributes_fact, ensemble_fact
    from palate.train.loop import SELECTION

    header = read_header(mixture)
    course = Course.of(options, learnable(mixture, options.loss)[0])
    facts = {**backbone.facts, "training": f"{course}, {_rates(options)}"}
    if options.selects:
        facts |= json.loads((folder / SELECTION).read_text(encoding="utf-8"))
    if options.attributes:
        facts["attributes"] = attributes_fact(options.attributes)
    if options.ensemble is not None:
        facts["ensemble"] = ensemble_fact(options.ensemble.members, options.ensemble.of)
    if course.trouble:
        facts["caution"] = course.trouble
    configs = {} if recipe is None else recipe.data.sources
    sources = {alias: source_named(config.source) for alias, config in configs.items()}
    shares = [  # What each source gave to the mixture, as the mixture's header says.
        DataShare(
            source=share["pool"],
            licence=sources[share["pool"]].licence if share["pool"] in sources else "unknown",
            rows=share["rows"],
            row_share=share["share_rows"],
            token_share=share["share_tokens"],
            url=sources[share["pool"]].url if share["pool"] in sources else "",
        )
        for share in header.details.get("shares", ())
        if share["pool"]
    ]
    return Card(
        name=name,
        base=backbone.location,
        base_revision=backbone.revision,
        base_licence=backbone.licence,
        base_layers=backbone.layers,
        recipe="" if recipe is None else yaml.safe_dump(resolved(recipe), sort_keys=False),
        recipe_fingerprint="" if recipe is None else digest(fingerprinted(recipe)),
        data=tuple(shares),
        facts=facts,
        training_data=header.fingerprint,
    )


# From checkpoints to tables: every judge on every benchmark, then the report.


@dataclass(slots=True)
class _RunJudge:
    """A judge of the run; `opened` holds it from its first question on.

    `trouble` is why it cannot be asked: it is not tried again, but verdicts that are there count.
    """

    name: str
    spec: JudgeSpec
    opened: dict[str, Judge] = field(default_factory=dict)
    trouble: str = ""

    @property
    def shown(self) -> str:
        """Its name in tables: the opened judge's own, else the last part of the recipe's."""
        judge = next(iter(self.opened.values()), None)
        return PurePosixPath(self.name).name if judge is None else judge.name


def judge_all(work: Workspace, models: Files, benchmarks: Files) -> list[Path]:
    """Verdict files of every judge on every benchmark: `verdicts/JUDGE--BENCHMARK.parquet`.

    A judge that cannot be asked does not stop the others: its reason is logged and kept in
    `verdicts/absent.json`, from which tables show it as missing.
    """
    verdicts: list[Path] = []
    skipped: dict[str, str] = {}
    for spec in work.recipe.judges:
        judge = _RunJudge(name_of(spec), spec)
        for benchmark, path in benchmarks.items():
            try:
                verdicts.append(_judge(work, judge, models, benchmark, path))
            except PalateError as error:
                judge.trouble = " ".join(str(error).split())
        if judge.trouble:
            skipped[judge.shown] = judge.trouble
            work.log(f"left out: {judge.shown}: {judge.trouble}")
    write_skipped(work.folder / "verdicts", skipped)
    _set_files_aside(work.folder / "verdicts", verdicts)
    return verdicts


def _judge(work: Workspace, judge: _RunJudge, models: Files, benchmark: str, path: Path) -> Path:
    """One judge on one benchmark."""
    recipe, name, folder = work.recipe, judge.name, work.folder / "verdicts"
    column = recipe.benchmarks[benchmark].paper_column
    # Verdicts that were set aside come back first, so that nothing is asked twice.
    verdicts = folder / f"{slug(judge.shown)}--{slug(benchmark)}.parquet"
    aside = folder / "unused" / verdicts.name
    if aside.exists() and not verdicts.exists():
        aside.replace(verdicts)

    def make() -> Files:
        if judge.trouble:
            raise PalateError(judge.trouble)
        spec = judge.spec
        if name in models:
            spec = {"reward-model": {"folder": str(models[name]), "name": name}}
        elif judge.spec == "random":
            spec = {"random": {"seed": recipe.seed}}
        judging = Judging(
            judge=spec, benchmark=benchmark, comparisons=path, paper_column=column, folder=folder,
            seed=recipe.seed, order=recipe.judging.order,
        )  # fmt: skip
        with work.progress(f"{name} on {benchmark}") as progress:
            return {"verdicts": judge_together(judging, judge.opened, progress)}

    inputs = {"benchmark": path} | ({"model": models[name]} if name in models else {})
    options = [judge.spec, recipe.seed, recipe.judging.order, column]
    return work.step(f"judge/{slug(name)}--{slug(benchmark)}", options, inputs, make)["verdicts"]


def find_limits(work: Workspace, benchmarks: Files) -> list[Path]:
    """What the best possible judge would score, where the truth is known: `results/NAME.json`."""
    limits = [_find_limit(work, name, path) for name, path in benchmarks.items()]
    _set_files_aside(work.folder / "results", limits)
    return limits


def _find_limit(work: Workspace, name: str, path: Path) -> Path:
    out = work.folder / "results" / f"{slug(name)}.json"
    column = work.recipe.benchmarks[name].paper_column

    def make() -> Files:
        from palate.evaluate.metrics import bayes_limit, noise_ceiling, write_results

        # Of items of K neither is known: a truth is given, and nobody answered it twice.
        both = () if Benchmark(name, path).of_items else (bayes_limit, noise_ceiling)
        limits = (limit(name, read_comparisons(path), paper_column=column) for limit in both)
        write_results(out, [limit for limit in limits if limit is not None])
        return {"limit": out}

    return work.step(f"limit/{slug(name)}", column, {"benchmark": path}, make)["limit"]


def choose_best_of_many(work: Workspace, models: Files) -> Path | None:
    """What a model says of many responses to a prompt, and their true reward:
    `over-optimisation/NAME.parquet`. None where the recipe does not ask for it."""
    config = work.recipe.over_optimisation
    if config is None:
        return None
    source, seed = work.recipe.data.sources[config.source], work.recipe.seed
    out = work.folder / "over-optimisation" / f"{slug(config.model)}.parquet"

    def make() -> Files:
        from palate.data.simulation import CampaignOptions, many_responses
        from palate.judges.reward_model import RewardScorer
        from palate.records import BEST_OF_MANY_SCHEMA, write_table

        options = {name: value for name, value in source.options.items() if name != "seed"}
        campaign = CampaignOptions.model_validate(options)
        drawn = list(many_responses(campaign, seed, config.prompts, config.responses))
        # A response that was drawn twice is scored once.
        asked = [
            Candidates(shown.prompt, tuple(dict.fromkeys(shown.responses))) for shown, _ in drawn
        ]
        scorer = RewardScorer(models[config.model], name=config.model)
        ways = 1 + (scorer.model.own is not None)
        with work.progress(f"{config.model}: best of {config.responses}") as progress:

            def scores(done: int) -> Iterator[dict[str, Score]]:
                for number, one in enumerate(asked, done + 1):
                    (said,) = scorer.score([one])  # By itself, or progress waits for many prompts.
                    progress(number, ways * config.prompts, "")
                    yield dict(zip(one.responses, said, strict=True))

            rewards, averages = list(scores(0)), list[dict[str, Score]]()
            if scorer.model.own is not None:
                scorer.model.keep_average()
                averages = list(scores(config.prompts))
        rows = [
            {
                "prompt": number,
                "truth": truth,
                "reward": rewards[number][response].value,
                "members": list(rewards[number][response].members) or None,
                "average": averages[number][response].value if averages else None,
            }
            for number, (shown, worth) in enumerate(drawn)
            for response, truth in zip(shown.responses, worth, strict=True)
        ]
        details = {"model": config.model, "source": config.source, "responses": config.responses}
        write_table(out, rows, BEST_OF_MANY_SCHEMA, kind="best-of-many", details=details)
        return {"best of many": out}

    name, inputs = f"over-optimisation/{slug(config.model)}", {"model": models[config.model]}
    return work.step(name, [config, source, seed], inputs, make)["best of many"]


def _set_files_aside(folder: Path, current: list[Path]) -> None:
    """Move what an earlier recipe left here to `unused/`, out of the tables but not lost."""
    for path in folder.glob("*" + (current[0].suffix if current else ".parquet")):
        if path not in current:
            (folder / "unused").mkdir(exist_ok=True)
            path.replace(folder / "unused" / path.name)


def write_report(work: Workspace, models: Files) -> Report:
    """Tables under `tables/` and the page `report.html`; the models' cards get the tables too."""
    from palate.report import report, write_page
    from palate.report.render import markdown

    work.log("report ...")
    made = report(work.folder)
    write_page(made)
    shown = (t for t in made.tables if t.name in ON_CARDS or t.name.startswith("scores-"))
    texts = {table.title: markdown(table) for table in shown}
    # A table brings its title as a heading; a card writes its own.
    _add_to_cards(work, models, {title: text.partition("\n")[2] for title, text in texts.items()})
    return made


def _add_to_cards(work: Workspace, models: Files, tables: Mapping[str, str]) -> None:
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
