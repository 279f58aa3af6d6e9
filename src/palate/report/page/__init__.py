"""What stands where on the page, and the file that holds it."""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from palate import escape
from palate.records import Header, read_header, write_text
from palate.report.accuracy import judge_name
from palate.report.data import read_recipe
from palate.report.page import charts
from palate.report.page.charts import Chart, Series
from palate.report.page.failures import FailureSection, failure_section, select_failures
from palate.report.page.tables import TableView, view
from palate.report.report import Report
from palate.report.study import all_curves
from palate.report.table import (
    HOLM_METHOD,
    Cell,
    Column,
    Row,
    Table,
    count,
    p_value,
    percent,
)
from palate.report.verdict import Finding
from palate.types import PalateError

__all__ = [
    "write_page",
]


# Templates, styles, scripts and fonts put into one file, under a policy that lets nothing else
# in.
#
# Every script and style of the page is named in its Content-Security-Policy by its digest;
# nothing is
# fetched, nothing is posted, and whatever text brings along cannot run.

FONTS = ("source-sans-3.woff2", "source-serif-4.woff2")
PACKAGE = "palate.report"


def render(values: Mapping[str, Any], charts: Mapping[str, Any]) -> str:
    """The page of `values`; `charts` are specifications by name."""
    style, scripts = _style(), (_text("vega.min.js"), _text("page.js"))
    return (
        _templates()
        .get_template("page.html")
        .render(
            values,
            policy=_policy(style, *scripts),
            style=Markup(style),
            scripts=[Markup(script) for script in scripts],
            charts=as_json(charts),
        )
    )


def as_json(value: object) -> Markup:
    """A value as JSON that may stand in a script element: nothing in it can end the element."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader(PACKAGE, "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _text(name: str) -> str:
    return (files(PACKAGE) / "templates" / name).read_text(encoding="utf-8")


@cache
def _style() -> str:
    text = _text("page.css")
    for name in FONTS:
        font = base64.b64encode((files(PACKAGE) / "templates" / name).read_bytes()).decode()
        text = text.replace(f'url("{name}")', f'url("data:font/woff2;base64,{font}")')
    return text


def _policy(style: str, *scripts: str) -> str:
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {' '.join(map(_digest, scripts))}",
            f"style-src {_digest(style)}",
            "font-src data:",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


# What the report was made of, and the commands that make it again.

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


PAGE = "report.html"
SPEC_KEYS = ("spec", "panel", "columns", "left", "between", "below")


def write_page(made: Report) -> Path:
    """Write `report.html` beside the tables of a report; the same inputs give the same bytes."""
    path = made.run_dir / PAGE
    write_text(path, page(made))
    return path


def page(made: Report) -> str:
    """The page of a report: one HTML file that opens from disk and asks nothing of the network."""
    shown = failure_section(select_failures(made.judged, made.items))
    origin = provenance(made.runs)
    charts = {chart.name: chart for chart in _charts(made)}
    values = {
        "title": _title(made),
        "about": _about(made),
        "verdict": _verdict(made),
        "tables": _tables(made, shown, origin),
        "charts_shown": charts,
        "failures": shown,
        "origin": origin,
        "holm_method": HOLM_METHOD,
        "problems": [escape.plain(problem, 400) for problem in made.problems],
    }
    specs = {name: {key: asdict(chart)[key] for key in SPEC_KEYS} for name, chart in charts.items()}
    return render(values, specs)


def _title(made: Report) -> str:
    names = [escape.name(str(read_recipe(run).get("name") or run.name)) for run in made.runs]
    return ", ".join(names[:4])


def _about(made: Report) -> str:
    said = read_recipe(made.runs[0]).get("description", "") if len(made.runs) == 1 else ""
    return escape.plain(str(said), 400)


def _verdict(made: Report) -> dict[str, Any]:
    found = made.verdict
    cautions = [
        (f"On {f.benchmark}, " if f.benchmark else "", f.words) for f in found.of("caution")
    ]
    return {
        "models": found.models,
        "shown": [_evidence(finding) for finding in found.of("shown")],
        "open": [_evidence(finding) for finding in found.of("open")],
        "cautions": [(start + words[0], *words[1:]) for start, words in cautions],
    }


def _evidence(finding: Finding) -> dict[str, Any]:
    """A finding's words, and its evidence as figures."""
    e, p = finding.difference, finding.p_value
    value, low, high = (_signed(x) for x in (e.value, e.low, e.high)) if e else ("", "", "")
    return {
        "benchmark": finding.benchmark,
        "words": finding.words,
        "value": value,
        "interval": f"{low} to {high}" if e else "",
        "n": f"{e.n:,}" if e else "",
        "p": "" if p is None else p_value(p).removeprefix("p ").removeprefix("= "),
    }


def _signed(share: float) -> str:
    text = percent(share)
    return f"−{text[1:]}" if text.startswith("-") else f"+{text}"


def _tables(made: Report, shown: FailureSection, origin: Provenance) -> dict[str, TableView]:
    results = made.judged.results
    tables = [*made.tables, *([origin.table] if origin.table else [])]
    return {table.name: view(table, shown.link, results) for table in tables}


def _charts(made: Report) -> Iterator[Chart]:
    series = _series(made)
    tables = {table.name: table for table in made.tables}
    drawn: list[Chart | None] = [charts.training(made.courses, _of_courses(made, series))]
    if "table-7" in tables:
        drawn.append(charts.overview(tables["table-7"], series))
    if "reliability" in tables:
        drawn.append(charts.reliability(tables["reliability"], series))
    if "best-of-n" in tables:
        drawn.append(charts.best_of_n(tables["best-of-n"], series))
    if "gaps" in tables:
        drawn.append(charts.gaps(tables["gaps"]))
    if "parts" in tables:
        drawn += charts.parts(tables["parts"], series)
    drawn += [charts.distributions(made.judged), *charts.disagreements(made.judged)]
    drawn += _data_charts(made, tables)
    if made.studied is not None:
        axes = len(made.studied.index.axes)
        drawn.append(charts.variants(tables["study-accuracy"], axes))
        drawn.append(charts.scaling(all_curves(made.studied)))
    return (chart for chart in drawn if chart)


def _data_charts(made: Report, tables: Mapping[str, Any]) -> Iterator[Chart | None]:
    if "mixture" in tables:
        yield charts.shares(tables["mixture"])
    yield charts.ratings(made.contents)
    yield charts.batches(made.contents)
    yield charts.lengths(made.contents)


def _series(made: Report) -> Series:
    """Models in colours, trivial judges and limits in grey; the same in every chart."""
    kinds = made.judged.kinds()
    names = made.judged.judges()
    models = [judge_name(judge) for judge in names if kinds[judge] in ("ours", "foreign")]
    models.sort(key=lambda name: (name not in _trained(made), name))
    rest = [judge_name(judge) for judge in names if kinds[judge] in ("trivial", "limit")]
    return Series.of(models, [*rest, "Perfect judge"])


def _trained(made: Report) -> set[str]:
    return {escape.name(course.model) for course in made.courses}


def _of_courses(made: Report, series: Series) -> Series:
    """Models that were trained but not judged have colours too."""
    more = [escape.name(course.model) for course in made.courses]
    models = [name for name in series.names if not series.colours[name].endswith("faint)")]
    return Series.of([*models, *more])


# One HTML file of a report: it asks nothing of the network and opens from disk.
#
# build.py        what stands where on the page
# render.py       templates, styles and scripts in one file, under a strict policy
# cells.py        a table as the page shows it
# chart.py        a chart as a Vega-Lite specification; what charts share
# accuracies.py   charts of tables with accuracies
# scores.py       distributions of scores, one judge's against another's
# courses.py      training curves
# mixtures.py     what is in the data
# failures.py     the wrong verdicts and disagreements that are shown
# clusters.py     failures that are alike
# provenance.py   what the report was made of, and how to make it again
