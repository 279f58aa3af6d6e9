"""`write_page()`: a report as one HTML file, which opens from disk and asks nothing of the network.

What stands where is in `templates/page.html`; here is what it is filled with: the verdict, tables
(`page.tables`), charts (`page.charts`), failures (`page.failures`), and what the report was made
of. Every script and style is named in the page's Content-Security-Policy by its digest: whatever a
text brings along cannot run.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from palate import escape
from palate.evaluate.audit import Audit
from palate.records import Header, read_header, verdict_paths, write_text
from palate.report.accuracy import judge_name
from palate.report.audit import sentences
from palate.report.data import read_recipe
from palate.report.diagnostics import PERFECT
from palate.report.page import charts
from palate.report.page.charts import Chart, Legend
from palate.report.page.failures import failure_section, select_failures
from palate.report.page.tables import view
from palate.report.render import p_value, percent
from palate.report.report import Report
from palate.report.study import chances, scaling_curves
from palate.report.table import HOLM_METHOD, Table, Unit, Values, columns, make_table
from palate.report.verdict import Finding
from palate.types import PalateError

__all__ = ["write_page"]

PAGE = "report.html"
SPEC_KEYS = ("spec", "panel", "columns", "left", "between", "below")


def write_page(made: Report) -> Path:
    """Write `report.html` beside the tables of a report; the same inputs give the same bytes."""
    path = made.run_dir / PAGE
    write_text(path, page(made))
    return path


def page(made: Report) -> str:
    """The page of a report: one HTML file that opens from disk and asks nothing of the network."""
    failures = failure_section(select_failures(made.judged, made.items))
    origin = provenance(made.runs)
    tables = [*made.tables, *([origin.table] if origin.table else [])]
    drawn = {chart.name: chart for chart in _charts(made)}
    names = [escape.name(str(read_recipe(run).get("name") or run.name)) for run in made.runs]
    about = read_recipe(made.runs[0]).get("description", "") if len(made.runs) == 1 else ""
    cautions = [
        (f"On {f.benchmark}, " if f.benchmark else "", f) for f in made.verdict.of("caution")
    ]
    values = {
        "title": ", ".join(names[:4]),
        "about": escape.plain(str(about), 400),
        "verdict": {
            "models": made.verdict.models,
            "shown": [_evidence(finding) for finding in made.verdict.of("shown")],
            "open": [_evidence(finding) for finding in made.verdict.of("open")],
            "cautions": [(start + f.words[0], *f.words[1:]) for start, f in cautions],
        },
        "tables": {one.name: view(one, failures.link, made.judged.results) for one in tables},
        "charts_shown": drawn,
        "audits": [(escape.name(one.name), *_first_and_rest(one)) for one in made.audits],
        "failures": failures,
        "origin": origin,
        "holm_method": HOLM_METHOD,
        "problems": [escape.plain(problem, 400) for problem in made.problems],
    }
    specs = {name: {key: asdict(chart)[key] for key in SPEC_KEYS} for name, chart in drawn.items()}
    return render(values, specs)


def _first_and_rest(audit: Audit) -> tuple[str, list[str]]:
    first, *rest = sentences(audit)
    return first, rest


def _evidence(finding: Finding) -> dict[str, Any]:
    """A finding's words, and its evidence as figures."""
    e, p = finding.difference, finding.p_value
    shares = (e.value, e.low, e.high) if e else ()
    ends = [percent(share) for share in shares]
    value, low, high = (
        (charts.minus(x) if x[0] == "-" else f"+{x}" for x in ends) if e else ("",) * 3
    )
    return {
        "benchmark": finding.benchmark,
        "words": finding.words,
        "value": value,
        "interval": f"{low} to {high}" if e else "",
        "n": f"{e.n:,}" if e else "",
        "p": "" if p is None else p_value(p).removeprefix("p ").removeprefix("= "),
    }


def _charts(made: Report) -> Iterator[Chart]:
    """Every chart that there is something to draw in. A new one is asked for here."""
    tables = {table.name: table for table in made.tables}
    legend, trained = _legends(made)
    drawn = [
        charts.training(made.curves, trained),
        charts.overview(tables.get("table-7"), legend),
        charts.reliability(tables.get("reliability"), legend),
        charts.best_of_n(tables.get("best-of-n"), legend),
        charts.over_optimisation(tables.get("over-optimisation")),
        charts.margins(tables.get("gaps")),
        *charts.slices(tables.get("parts"), legend),
        charts.distributions(made.judged),
        *charts.disagreements(made.judged),
        charts.shares(tables.get("mixture")),
        charts.ratings(made.contents),
        charts.batches(made.contents),
        charts.lengths(made.contents),
    ]
    if made.study is not None:
        axes = len(made.study.index.axes)
        drawn.append(charts.variants(tables.get("study-accuracy"), axes, chances(made.study)))
        drawn.append(charts.scaling(scaling_curves(made.study)))
    return (chart for chart in drawn if chart)


def _legends(made: Report) -> tuple[Legend, Legend]:
    """Models in colours, those that were trained first, trivial judges and limits in grey.

    The same in every chart; the second is for training alone, where models that were not judged
    have colours too.
    """
    kinds = made.judged.kinds()
    trained = list(dict.fromkeys(escape.name(curves.model) for curves in made.curves))
    by_name = {judge_name(judge): kinds[judge] for judge in made.judged.judges()}
    models = [name for name, kind in by_name.items() if kind in ("ours", "foreign")]
    models.sort(key=lambda name: (name not in trained, name))
    grey = [name for name, kind in by_name.items() if kind in ("trivial", "limit")]
    return Legend.of(models, [*grey, PERFECT]), Legend.of([*models, *trained])


# Templates, styles, scripts and fonts in one file.

FONTS = ("source-sans-3.woff2", "source-serif-4.woff2")
PACKAGE = "palate.report.page"


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
    headers: list[Header] = []
    commands: list[str] = []
    recipes: list[tuple[str, str]] = []
    for run in runs:
        for path in verdict_paths(run):
            with suppress(PalateError):  # The report names it among its problems.
                headers.append(read_header(path, "verdicts"))
        recipe = run / "recipe.yaml"
        if recipe.is_file():
            commands.append(f"palate run {shlex.quote(str(recipe))} --out {shlex.quote(str(run))}")
            text = recipe.read_text(encoding="utf-8", errors="replace")
            recipes.append((escape.name(run.name), escape.prose(text, MOST_RECIPE)))
    command = f"palate report {' '.join(shlex.quote(str(run)) for run in runs)}"
    commands.append(command + (" --out FOLDER" if len(runs) > 1 else ""))
    versions = {f"{name} {version}" for h in headers for name, version in h.packages.items()}
    versions |= {f"git {h.git}" for h in headers if h.git}
    return Provenance(
        table=_provenance_table(headers),
        versions=escape.plain(", ".join(sorted(versions)), 600),
        latest=escape.plain(max((h.created for h in headers), default=""), 40),
        commands=tuple(commands),
        recipes=tuple(recipes),
    )


def _provenance_table(headers: Sequence[Header]) -> Table | None:
    rows: list[Values] = []
    for header in headers:
        details = header.details
        protocol = details.get("protocol") or {}
        judge = protocol.get("judge")
        made_of = (
            judge.get("revision") if isinstance(judge, dict) else "",
            details.get("protocol_fingerprint"), protocol.get("benchmark"),
            header.created, header.git,
        )  # fmt: skip
        names = _short(details.get("judge")), _short(details.get("benchmark"))
        rows.append((*names, header.rows, *map(_short, made_of)))
    heads = [
        *columns(Unit.TEXT, "Judge", "Benchmark"),
        *columns(Unit.COUNT, "Verdicts"),
        *columns(Unit.TEXT, "Judge's revision", "Protocol", "Benchmark's data", "Made", "Git"),
    ]
    title = "Verdict files and their fingerprints"
    return make_table("provenance", title, heads, rows)


def _short(text: object) -> str:
    return escape.plain(str(text or ""), 60)
