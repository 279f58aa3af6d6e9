"""The stages from raw rows to mixtures: files in, files out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path

from palate.data.contamination import (
    BenchmarkIndex,
    OverlapOptions,
    OverlapReport,
    exclude_overlap,
)
from palate.data.lint import LintReport, lint
from palate.data.sources import BadRow, Request, open_source, readable, source_named
from palate.data.split import Holdout, split, split_by_share
from palate.recipe.locate import locate
from palate.recipe.schema import BenchmarkPlan, SourcePlan
from palate.recipe.workspace import Files, Workspace
from palate.records import read_comparisons, read_header, write_comparisons, write_json
from palate.types import Comparison, PalateError, digest


def import_sources(work: Workspace) -> dict[str, Path]:
    """Every source as comparisons, under its alias: `data/imported/ALIAS.parquet`."""
    return {alias: _import(work, alias, plan) for alias, plan in work.recipe.data.sources.items()}


def _import(work: Workspace, alias: str, plan: SourcePlan) -> Path:
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
    for alias, share in work.recipe.data.holdout.halves.items():
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
    work: Workspace, name: str, plan: BenchmarkPlan, clean: Files, held_out: Files
) -> Path:
    parts = {alias: held_out[alias] for alias in plan.held_out}
    parts |= {alias: clean[alias] for alias in plan.whole}
    if plan.file is not None:
        own = SourcePlan(source="own", path=plan.file)
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
