"""What stands where on the page, and the file that holds it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from palate.records import write_text
from palate.report import escape
from palate.report.accuracy import judge_name
from palate.report.findings import Finding
from palate.report.hygiene import read_recipe
from palate.report.page import accuracies, courses, mixtures, scores, studies
from palate.report.page.cells import TableView, view
from palate.report.page.chart import Chart, Series
from palate.report.page.examples import Examples, examples
from palate.report.page.failures import choose
from palate.report.page.provenance import Provenance, provenance
from palate.report.page.render import render
from palate.report.scaling import all_curves
from palate.report.tables import HOLM_METHOD, p_value, percent
from palate.report.write import Report

PAGE = "report.html"
SPEC_KEYS = ("spec", "panel", "columns", "left", "between", "below")


def write_page(made: Report) -> Path:
    """Write `report.html` beside the tables of a report; the same inputs give the same bytes."""
    path = made.run_dir / PAGE
    write_text(path, page(made))
    return path


def page(made: Report) -> str:
    """The page of a report: one HTML file that opens from disk and asks nothing of the network."""
    shown = examples(choose(made.judged, made.items))
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


def _tables(made: Report, shown: Examples, origin: Provenance) -> dict[str, TableView]:
    results = made.judged.results
    tables = [*made.tables, *([origin.table] if origin.table else [])]
    return {table.name: view(table, shown.link, results) for table in tables}


def _charts(made: Report) -> Iterator[Chart]:
    series = _series(made)
    tables = {table.name: table for table in made.tables}
    drawn: list[Chart | None] = [courses.training(made.courses, _of_courses(made, series))]
    if "table-7" in tables:
        drawn.append(accuracies.overview(tables["table-7"], series))
    if "reliability" in tables:
        drawn.append(accuracies.reliability(tables["reliability"], series))
    if "best-of-n" in tables:
        drawn.append(accuracies.best_of_n(tables["best-of-n"], series))
    if "gaps" in tables:
        drawn.append(accuracies.gaps(tables["gaps"]))
    if "parts" in tables:
        drawn += accuracies.parts(tables["parts"], series)
    drawn += [scores.distributions(made.judged), *scores.disagreements(made.judged)]
    drawn += _data_charts(made, tables)
    if made.studied is not None:
        axes = len(made.studied.index.axes)
        drawn.append(accuracies.variants(tables["study-accuracy"], axes))
        drawn.append(studies.scaling(all_curves(made.studied)))
    return (chart for chart in drawn if chart)


def _data_charts(made: Report, tables: Mapping[str, Any]) -> Iterator[Chart | None]:
    if "mixture" in tables:
        yield mixtures.shares(tables["mixture"])
    yield mixtures.ratings(made.contents)
    yield mixtures.batches(made.contents)
    yield mixtures.lengths(made.contents)


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
