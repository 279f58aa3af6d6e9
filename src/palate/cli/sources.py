"""From the files and sources that were typed to comparisons."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import yaml

from palate.data.sources import (
    SOURCES,
    BadRow,
    Request,
    not_read,
    open_source,
    read,
    readable,
    source_named,
    worst,
)
from palate.data.sources.files import DATA_VARIABLE, find_files, locate, stem
from palate.data.sources.mapping import words
from palate.data.sources.own import is_ours
from palate.progress import info
from palate.records import read_header, write_comparisons
from palate.types import BenchmarkItem, Candidates, Comparison, PalateError
from palate.validation import did_you_mean

if TYPE_CHECKING:
    from palate.data.annotators import Rule


def comparisons(
    source: str,
    path: str | None,
    subset: str | None,
    split: str | None,
    options: Sequence[str] | None,
    data: str | None,
    max_bad_share: float,
    columns: Sequence[str] | None = None,
    values: Sequence[str] | None = None,
    ties: Literal["skip", "keep"] = "skip",
    annotators: Rule = "separate",
    attributes: Sequence[str] | None = None,
) -> tuple[Iterator[Comparison], list[BadRow]]:
    """The readable rows of a source, and a list that fills with the others as they are met."""
    name, location = _named(source, path, data)
    if name == "own" and Path(source).is_file():
        for typed, said in (("--path", path), ("--subset", subset), ("--split", split)):
            if said:
                raise PalateError(f"{typed} {said}: {source} is a file, read whole; leave it out")
    request = replace(
        reading(columns, values, ties, annotators, attributes),
        location=location,
        split=split,
        subset=subset,
        options={key: yaml.safe_load(value) for key, value in _assigned("--option", options)},
    )
    bad: list[BadRow] = []
    return read(partial(open_source, name), request, max_bad_share, bad.append), bad


def items_of(
    benchmark: str, path: str | None, subset: str | None, split: str | None, data: str | None
) -> Iterator[Comparison | BenchmarkItem]:
    """The items of a benchmark of the field that are at `path`, in the data root, or on the hub."""
    from palate.data import benchmarks

    named = benchmarks.benchmark_named(benchmark)
    request = Request(locate(path, named.folder, data), split=split, subset=subset)
    return benchmarks.read(named, request, partial=True)


def reading(
    columns: Sequence[str] | None,
    values: Sequence[str] | None,
    ties: Literal["skip", "keep"],
    annotators: Rule,
    attributes: Sequence[str] | None = None,
) -> Request:
    """How rows are read, of a file that is still to be named, as it was typed."""
    return Request(
        columns=dict(_assigned("--column", columns)),
        values=words(dict(_assigned("--value", values))),
        ties=ties,
        annotators=annotators,
        attributes=dict(_scales(attributes)),
    )


def all_of(file: Path) -> Iterator[Comparison]:
    """The comparisons of a file, Palate's own or in any other format that it imports."""
    return readable(open_source("own", Request(file)))


def asked_in(file: Path) -> Iterator[Comparison | BenchmarkItem]:
    """What judges were asked: the comparisons of a file as `all_of`, or Palate's items of K."""
    from palate.evaluate.benchmark import rows_of

    return rows_of(file) if holds_items(file) else all_of(file)


def holds_items(file: Path) -> bool:
    """Whether it is Palate's file of items of K."""
    return file.is_file() and is_ours(file) and read_header(file).kind == "items"


def candidates_in(given: str, count: int) -> list[Candidates]:
    """The responses of the first `count` prompts of what was typed, each once.

    It is a file as `palate score` takes, comparisons, Palate's items of K, or a benchmark of the
    field: NAME, read from its folder below PALATE_DATA or from the hub, or NAME=PATH.

    Raises:
        PalateError: no such file or benchmark, or a row that cannot be read.
    """
    from palate.data.benchmarks import BENCHMARKS
    from palate.evaluate.benchmark import candidates_of, rows_of
    from palate.evaluate.scoring import SHAPES, requests

    name, equals, where = given.partition("=")
    file = Path(given)
    if name in BENCHMARKS and (equals or not file.exists()):
        data = os.environ.get(DATA_VARIABLE) or None
        rows = items_of(name, where or None, None, None, data)
    elif holds_items(file):
        rows = rows_of(file)
    elif not file.exists():
        hint = did_you_mean(name, BENCHMARKS)
        raise PalateError(f"{given}: no such file, and no benchmark of that name; {hint}")
    else:
        return [row.candidates for row in islice(requests(file, tuple(SHAPES)), count)]
    return [shown for row in islice(rows, count) for shown in candidates_of(row)]


def comparison_file(file: Path, folder: Path, request: Request | None = None) -> Path:
    """The file itself where Palate wrote it, else what it holds as comparisons, in `folder`.

    `request` says how it is read, where that is not told by its columns.

    Raises:
        PalateError: there is no such file, or more than 1 % of its rows cannot be read.
    """
    if not file.exists():
        raise PalateError(f"{file}: no such file")
    if is_ours(file):
        return file  # What is of another kind is said where it is used.
    out = folder / f"{stem(file)}.parquet"
    bad: list[BadRow] = []
    request = replace(request or Request(), location=file)
    rows = read(partial(open_source, "own"), request, on_bad=bad.append)
    header = write_comparisons(out, rows, details={"source": str(file)})
    for row in worst(bad):
        info(str(row))
    info(f"{file}: {header.rows:,} comparisons, {not_read(bad)}; kept in {out}")
    return out


def identity(
    source: str, path: str | None, subset: str | None, split: str | None, data: str | None
) -> tuple[str, str]:
    """What was read, by name, and its sha256: of several files that of `sha256sum`'s lines.

    Both are empty for what is made here; of rows of the hub there is no digest.
    """
    from palate.data.benchmarks import BENCHMARKS
    from palate.data.benchmarks.base import own_files

    named = BENCHMARKS.get(source) if source not in SOURCES else None
    if named is not None:
        location, hub_id = locate(path, named.folder, data), ", ".join(named.hub_ids)
    else:
        name, location = _named(source, path, data)
        hub_id = source_named(name).hub_id or ""
    if not isinstance(location, Path):
        return str(location or hub_id), ""
    try:
        files = find_files(location, split, subset)
    except PalateError:  # Its parts, or its files, have other names.
        files = sorted(file for file in location.rglob("*") if file.is_file())
    if named is not None:
        files = own_files(named, location, Request(location, split=split, subset=subset))
    sums = []
    for file in files:
        with file.open("rb") as opened:
            sums.append((hashlib.file_digest(opened, "sha256").hexdigest(), file))
    if len(sums) == 1:
        return str(sums[0][1].relative_to(location.parent)), sums[0][0]
    lines = "".join(f"{digest}  {file.relative_to(location)}\n" for digest, file in sums)
    where = " ".join(filter(None, (location.name, subset, split)))
    return f"{where} ({len(sums)} files)", hashlib.sha256(lines.encode()).hexdigest()


def benchmark_files(
    given: Sequence[str],
    folder: Path,
    *,
    subset: str | None = None,
    split: str | None = None,
    partial: bool = False,
) -> dict[str, Path]:
    """What judges are asked, by name: files of comparisons, and benchmarks of the field.

    A benchmark is NAME, read from its folder below PALATE_DATA or from the hub, or NAME=PATH; it is
    kept in `folder`. One from the hub that is kept there already is not read again.

    Raises:
        PalateError: no such file or benchmark, or one that is not whole.
    """
    from palate.data.benchmarks import BENCHMARKS, import_benchmark
    from palate.evaluate.benchmark import Benchmark

    asked: dict[str, Path] = {}
    files: list[Path] = []
    typed: dict[str, str] = {}

    def claim(title: str, one: str) -> None:
        other = typed.setdefault(title, one)
        if other is not one:
            raise PalateError(
                f"{other}, {one}: results are kept by the name {title!r}, which both have; "
                "judge them one after the other, each with --out of its own"
            )

    for one in dict.fromkeys(given):
        name, equals, where = one.partition("=")
        if name not in BENCHMARKS or (Path(one).exists() and not equals):
            if equals and not Path(one).exists():
                raise PalateError(f"{one}: no benchmark {name!r}; {did_you_mean(name, BENCHMARKS)}")
            if not Path(one).exists():
                hint = did_you_mean(one, BENCHMARKS)
                raise PalateError(f"{one}: no such file, and no benchmark of that name; {hint}")
            files.append(Path(one))
            continue
        root = os.environ.get(DATA_VARIABLE) or None
        location: Path | str | None = Path(where).expanduser() if where else None
        if location is None:
            found = locate(None, BENCHMARKS[name].folder, root)
            location = found if isinstance(found, Path) else None
        elif not Path(location).exists():
            location = where  # A hub id, or said to be nowhere.
        title = "-".join(filter(None, (name, subset, split)))
        claim(title, one)
        path = folder / f"{title}.parquet"
        if not (location is None and path.exists() and Benchmark(title, path).named):
            request = Request(location, split, subset)
            header = import_benchmark(name, path, request, partial=partial)
            info(f"{title}: {header.rows:,} {header.kind}; kept in {path}")
        asked[title] = path
    named = by_name(files)
    for title, file in named.items():
        claim(title, str(file))
    return asked | {title: comparison_file(file, folder) for title, file in named.items()}


def by_name(files: Sequence[Path]) -> dict[str, Path]:
    """Files by their names without folder and ending, as results of each are kept.

    Raises:
        PalateError: two files have one name, and the results of one would replace the other's.
    """
    named: dict[str, Path] = {}
    for file in files:
        other = named.setdefault(stem(file), file)
        if other is not file and other.resolve() == file.resolve():
            raise PalateError(f"{file}: given twice; name it once")
        if other is not file:
            raise PalateError(
                f"{other}, {file}: results are kept by the name {stem(file)!r}, which both have; "
                "rename one"
            )
    return named


def check_output(out: Path | None, *inputs: str | Path | None) -> None:
    """Raise `PalateError` where writing `out` would replace one of the files that are read."""
    if out and any(file and Path(file).resolve() == out.resolve() for file in inputs):
        raise PalateError(f"{out}: the result would replace its input; name another file")


def check_parquet(out: Path | None, option: str = "--out") -> None:
    """Raise `PalateError` where what is Parquet would get a name by which nothing reads it."""
    if out is not None and out.suffix != ".parquet":
        raise PalateError(f"{option} {out}: expected a name that ends in .parquet")


def _named(source: str, path: str | None, data: str | None) -> tuple[str, Path | str | None]:
    if source in SOURCES:
        return source, locate(path, SOURCES[source].folder, data)
    if Path(source).exists():
        return "own", Path(source)
    if Path(source).suffix or "/" in source:
        raise PalateError(f"{source}: no such file")
    return source_named(source).name, None  # Unknown: the error names the nearest source.


def _scales(attributes: Sequence[str] | None) -> Iterator[tuple[str, tuple[float, float]]]:
    """What was typed as NAME=LOW..HIGH."""
    for name, scale in _assigned("--attribute", attributes):
        low, dots, high = scale.partition("..")
        try:
            ends = float(low), float(high if dots else "")
        except ValueError:
            raise PalateError(
                f"--attribute {name}={scale}: expected NAME=LOW..HIGH, such as helpfulness=0..4"
            ) from None
        if not ends[0] < ends[1]:
            raise PalateError(f"--attribute {name}={scale}: expected LOW below HIGH")
        yield name, ends


def _assigned(option: str, assignments: Sequence[str] | None) -> Iterator[tuple[str, str]]:
    """What was typed as KEY=VALUE."""
    for assignment in assignments or ():
        key, equals, value = assignment.partition("=")
        if not (key and equals):
            raise PalateError(f"{option} {assignment!r}: expected KEY=VALUE")
        yield key, value
