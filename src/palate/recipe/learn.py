"""The stages from pools to checkpoints: mix, train, export."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from palate.data.mixture import mix
from palate.data.sources import source_named
from palate.evaluate.benchmark import Benchmark, forbid_training_overlap, training_keys
from palate.model.options import BaseOptions
from palate.recipe.crew import Training, train_together
from palate.recipe.schema import ModelPlan, Recipe, resolved
from palate.recipe.workspace import Files, Workspace, plain
from palate.records import read_header, write_json, write_text
from palate.train.defaults import FOLLOWING, Course, follow, follows
from palate.train.options import FREE, TrainOptions
from palate.types import digest

if TYPE_CHECKING:  # torch is slow to import and only training needs it.
    from palate.model.backbone import Backbone
    from palate.model.export import Card, DataShare

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
        options, base = work.recipe.training(name), work.recipe.backbone(name)
        rows = read_header(mixtures[plan.mixture]).rows
        settled, _ = follow(options, base, rows, None)
        for line in _course_said(name, options, settled, rows, rate=False):
            work.say(line)


def settle(work: Workspace, mixtures: Files) -> Recipe:
    """The recipe with what follows from the rows and the base stated for each model, and said."""
    models = {}
    for name, plan in work.recipe.models.items():
        options, base = work.recipe.training(name), work.recipe.backbone(name)
        mixture, folder = mixtures[plan.mixture], work.folder / "train" / name
        settled, cut = settle_one(
            name, options, base, mixture, folder, resume=work.resume, say=work.say
        )
        models[name] = _stated(plan, options, settled, base, cut)
    return work.recipe.model_copy(update={"models": models})


def _stated(
    plan: ModelPlan,
    options: TrainOptions,
    settled: TrainOptions,
    base: BaseOptions,
    cut: BaseOptions,
) -> ModelPlan:
    """The model's plan with what was filled in as overrides of its own."""
    unsaid = [key for key in FOLLOWING if key not in options.model_fields_set]
    train = {key: value for key in unsaid if (value := getattr(settled, key)) is not None}
    layers = {} if cut.layers == base.layers else {"layers": cut.layers}
    return plan.model_copy(update={"train": plan.train | train, "base": plan.base | layers})


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
        say(f"  {name}: the first {cut.layers} layers of the base; set base.layers to override")
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
    options, base = work.recipe.training(name), work.recipe.backbone(name)
    mixture = mixtures[plan.mixture]
    watched = {benchmark: benchmarks[benchmark] for benchmark in plan.watch}
    experiment = [base, options.decisive()]

    def make() -> Files:
        folder, out = work.folder / "train" / name, work.folder / "models" / name
        _set_aside(work, name, digest(plain(experiment), read_header(mixture).fingerprint))
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


def _set_aside(work: Workspace, name: str, experiment: str) -> None:
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
        recipe_fingerprint="" if values is None else digest(values),
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
