"""The stages from pools to checkpoints: mix, train, export."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from palate.data.mixture import mix
from palate.data.sources import source_named
from palate.evaluate.benchmark import Benchmark, forbid_training_overlap, training_keys
from palate.model.options import BaseOptions
from palate.recipe.crew import Training, train_together
from palate.recipe.schema import Recipe, resolved
from palate.recipe.workspace import Files, Workspace, plain
from palate.records import read_header, write_json, write_text
from palate.train.options import TrainOptions
from palate.types import digest

if TYPE_CHECKING:  # torch is slow to import and only training needs it.
    from palate.model.backbone import Backbone
    from palate.model.card import Card, DataShare

CARD = "card.json"


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
    model, backbone = train_together(training)
    card = _card(name, backbone, mixture, recipe)
    write_json(folder / CARD, asdict(card))
    return export(model, out, card=card)


def add_tables(work: Workspace, models: Files, tables: Mapping[str, str]) -> None:
    """Write the models' cards again with the tables (heading to Markdown) of their judging."""
    from palate.model.card import Card, DataShare, render_card

    for name, folder in models.items():
        values = json.loads((work.folder / "train" / name / CARD).read_text(encoding="utf-8"))
        shares = tuple(DataShare(**share) for share in values.pop("data"))
        card = Card(**values | {"data": shares, "tables": dict(tables)})
        facts = json.loads((folder / "config.json").read_text(encoding="utf-8"))["palate"]
        terminal, longest = facts["terminal_token"], facts["max_tokens"]
        write_text(folder / "README.md", render_card(card, terminal=terminal, max_tokens=longest))


def _card(name: str, backbone: Backbone, mixture: Path, recipe: Recipe | None) -> Card:
    from palate.model.card import Card

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
    )


def _shares(mixture: Path, recipe: Recipe | None) -> Sequence[DataShare]:
    """What each source gave to a mixture, with its licence; from the mixture's own header."""
    from palate.model.card import DataShare

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
