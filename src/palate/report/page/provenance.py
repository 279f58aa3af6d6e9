"""What the report was made of, and the commands that make it again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from palate.records import Header, read_header
from palate.report import escape
from palate.report.tables import Cell, Column, Row, Table, count
from palate.types import PalateError

MOST_RECIPE = 60_000


@dataclass(frozen=True, slots=True)
class Provenance:
    """Verdict files with their fingerprints, versions in use, commands, and resolved recipes."""

    table: Table | None
    versions: str
    latest: str
    commands: tuple[str, ...]
    recipes: tuple[tuple[str, str], ...]


def provenance(runs: Sequence[Path]) -> Provenance:
    """Read the headers of what the runs' figures were made of."""
    headers = [(run, path, header) for run in runs for path, header in _headers(run)]
    packages = {
        f"{name} {version}" for _, _, h in headers for name, version in h.packages.items()
    } | {f"git {h.git}" for _, _, h in headers if h.git}
    return Provenance(
        table=_table(headers),
        versions=escape.plain(", ".join(sorted(packages)), 600),
        latest=escape.plain(max((h.created for _, _, h in headers), default=""), 40),
        commands=tuple(_commands(runs)),
        recipes=tuple(_recipes(runs)),
    )


def _headers(run: Path) -> Iterator[tuple[Path, Header]]:
    for path in sorted((run / "verdicts").glob("*.parquet")):
        try:
            yield path, read_header(path, "verdicts")
        except PalateError:
            continue  # The report names it among its problems.


def _table(headers: Sequence[tuple[Path, Path, Header]]) -> Table | None:
    columns = (
        *(Column(name, figures=False) for name in ("Judge", "Benchmark")),
        Column("Verdicts"),
        *(
            Column(name, figures=False)
            for name in ("Judge's revision", "Protocol", "Benchmark's data", "Made", "Git")
        ),
    )
    rows = []
    for _, _, header in headers:
        details = header.details
        protocol = details.get("protocol") or {}
        judge = protocol.get("judge")
        revision = judge.get("revision", "") if isinstance(judge, dict) else ""
        texts = (
            details.get("judge"), details.get("benchmark"), None, revision,
            details.get("protocol_fingerprint", ""), protocol.get("benchmark", ""),
            header.created, header.git,
        )  # fmt: skip
        cells = [Cell(escape.plain(str(text or ""), 60)) for text in texts]
        cells[2] = count(header.rows)
        rows.append(Row(tuple(cells)))
    title = "Verdict files and their fingerprints"
    return Table("provenance", title, columns, tuple(rows)) if rows else None


def _commands(runs: Sequence[Path]) -> Iterator[str]:
    for run in runs:
        if (run / "recipe.yaml").is_file():
            recipe, folder = shlex.quote(str(run / "recipe.yaml")), shlex.quote(str(run))
            yield f"palate run {recipe} --out {folder}"
    names = " ".join(shlex.quote(str(run)) for run in runs)
    yield f"palate report {names}" + (" --out FOLDER" if len(runs) > 1 else "")


def _recipes(runs: Sequence[Path]) -> Iterator[tuple[str, str]]:
    for run in runs:
        path = run / "recipe.yaml"
        if path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            yield escape.name(run.name), escape.prose(text, MOST_RECIPE)
