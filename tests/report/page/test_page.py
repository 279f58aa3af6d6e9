"""The page as a file: self-contained, under a strict policy, hostile texts as text."""

import base64
import csv
import hashlib
import io
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import hostile
import pytest

from palate.report import Report, report, write_page
from palate.report.data import NONE, Contents
from palate.report.page import as_json, charts
from palate.report.page.tables import view


class Seen(HTMLParser):
    """What a browser would make of the page: elements, attributes, text by element."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.inside: list[tuple[str, str]] = []
        self.element = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.element = tag

    def handle_endtag(self, tag):
        self.element = ""

    def handle_data(self, data):
        self.texts.append(data)
        if self.element in ("script", "style"):
            self.inside.append((self.element, data))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def page(hostile_page: Path) -> str:
    return hostile_page.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def seen(page: str) -> Seen:
    return Seen(page)


def test_nothing_loads_from_outside(seen: Seen) -> None:
    for tag, attributes in seen.tags:
        assert not {"src", "srcset", "action", "style", "ping"} & set(attributes), tag
        assert not [name for name in attributes if name.startswith("on")]
        assert (attributes.get("href") or "#").startswith("#")
    assert {tag for tag, _ in seen.tags}.isdisjoint({"link", "img", "iframe", "base", "object"})
    assert "url(" not in re.sub(r'url\("data:font/woff2;base64,[^"]+"\)', "", seen.inside[0][1])


def test_the_policy_names_every_script_and_style_by_its_digest(seen: Seen) -> None:
    policy = next(m["content"] for m in seen.of("meta") if m.get("http-equiv"))
    rules = dict(part.split(" ", 1) for part in policy.split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["base-uri"] == rules["form-action"] == "'none'"
    assert not re.search(r"unsafe|\*|https?:|'self'", policy)
    scripts = [a for a in seen.of("script") if "type" not in a]
    texts = {kind: [t for k, t in seen.inside if k == kind] for kind in ("script", "style")}
    data, *code = texts["script"]
    assert len(code) == len(scripts) == 2
    assert data.startswith("{")

    def named(text: str) -> str:
        digest = hashlib.sha256(text.encode()).digest()
        return f"'sha256-{base64.b64encode(digest).decode()}'"

    assert rules["script-src"].split() == [named(text) for text in code]
    assert rules["style-src"].split() == [named(text) for text in texts["style"]]


def test_hostile_texts_are_text(page: str, seen: Seen) -> None:
    assert len(seen.of("script")) == 3
    assert len(seen.of("style")) == 1
    # In a script element the browser reads no entities: there, too, nothing may end it.
    for text in ("<script>document", "<img", "javascript:alert"):
        assert page.count(text) == page.count("javascript:alert") * (text[0] == "j")
    said = "".join(seen.texts)
    assert hostile.SCRIPT in said
    assert hostile.IMAGE in said
    assert hostile.TEMPLATE in said
    assert "right [U+202E]left[U+2066] [U+200F]" in said
    assert "bell ␇ escape ␛[31m null ␀" in said
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069]", page)


def test_a_megabyte_of_one_line_is_cut_and_counted(page: str, seen: Seen) -> None:
    assert len(page) < 2_500_000
    said = "".join(seen.texts)
    assert "[997,006 more characters]" in said
    assert max(len(word) for word in re.findall("x+", said)) <= 3_000


def test_hostile_names_are_no_formulas_in_spreadsheets(hostile_report: Report) -> None:
    files = [path for path in hostile_report.files if path.suffix == ".csv"]
    assert len(files) > 10
    for path in files:
        for row in csv.reader(io.StringIO(path.read_text(encoding="utf-8"))):
            assert not [field for field in row if re.match(r"[=@]|[+-](?![\d.])", field)], path


def test_hostile_names_are_text_in_markdown_and_latex(hostile_report: Report) -> None:
    for path in hostile_report.files:
        text = path.read_text(encoding="utf-8")
        assert len(text) < 200_000
        if path.suffix in (".md", ".tex"):
            assert "<script" not in text
            assert "<img" not in text


def test_text_that_is_not_utf8_is_shown_and_written(tmp_path: Path, hostile_run: Path) -> None:
    import shutil

    run = shutil.copytree(hostile_run, tmp_path / "run")
    broken = b'{"step": 1, "eval": {"name": "a\xff\\ud800b", "accuracy": 0.5, "n": 9}}\n'
    (run / "train" / "m" / "metrics.jsonl").write_bytes(broken)
    (run / "recipe.yaml").write_bytes(b"name: caf\xe9\n")
    text = write_page(report(run)).read_bytes().decode("utf-8")
    assert "a\ufffd" in text


def test_json_in_a_script_cannot_end_it() -> None:
    made = as_json({"a": "</script><!--&", "b": "\u2028\ud800"})
    assert not re.search("[<>&]", made)
    assert made.isascii()


def test_the_same_inputs_give_the_same_page(hostile_run: Path, hostile_page: Path, tmp_path: Path):
    again = write_page(report(hostile_run, out=tmp_path))
    assert again.read_bytes() == hostile_page.read_bytes()


def test_every_reference_on_the_page_leads_somewhere(seen: Seen) -> None:
    ids = [a["id"] for _, a in seen.tags if a.get("id")]
    assert len(ids) == len(set(ids))
    wanted = {a["href"][1:] for a in seen.of("a")}
    wanted |= {word for _, a in seen.tags for word in (a.get("aria-labelledby") or "").split()}
    assert wanted <= set(ids)


def test_charts_have_words_and_their_numbers(seen: Seen, page: str, charts) -> None:
    specs = charts(page)
    plots = [a for _, a in seen.tags if a.get("data-chart")]
    assert {a["data-chart"] for a in plots} == set(specs)
    for plot in plots:
        assert plot["role"] == "img"
        assert len(plot["aria-label"]) > 20
    assert {"overview", "distributions", "against-1", "gaps", "reliability"} <= set(specs)
    colours = re.findall(r'"(?:color|stroke|fill)":"([^"]+)"', str(as_json(specs)))
    assert all(colour.startswith("var(--") for colour in colours), "themes are in the style alone"


def test_numbers_in_charts_are_those_of_the_tables(made: Report, charts) -> None:
    from palate.report.page import page as draw

    rows = charts(draw(made))["overview"]["spec"]["data"]["values"]
    table = made.table("table-7")
    for row in rows:
        if row["kind"] != "measured":
            continue
        column = [c.name for c in table.columns].index(row["panel"])
        cell = next(r for r in table.rows if r.cells[0].value == row["judge"]).cells[column]
        assert row["v"] == pytest.approx(100 * cell.estimate.value, abs=1e-3)
        assert row["low"] <= row["v"] <= row["high"]
    paper = {row["v"] for row in rows if row["kind"] != "measured"}
    assert {72.0, 62.8} <= paper


def test_the_papers_figures_are_sorted_among_those_measured(made: Report) -> None:
    table = view(made.table("table-7"), lambda _: "", {})
    column = [head[0] for head in table.heads].index("Anthropic Helpful")
    cells = {line.cells[0].text: line.cells[column] for body in table.bodies for line in body}
    paper, ours = cells["Safety RM"], cells["helpful"]
    assert (paper.text, float(paper.sort)) == ("55.4", pytest.approx(0.554))
    assert float(ours.sort) == pytest.approx(float(ours.text) / 100, abs=6e-4)
    assert float(ours.sort) > float(paper.sort)


def test_a_page_of_training_alone_and_of_nothing_else(tmp_path: Path, write_training) -> None:
    write_training(tmp_path / "run" / "train" / "m" / "metrics.jsonl")
    seen = Seen(write_page(report(tmp_path / "run")).read_text())
    assert {a["data-chart"] for _, a in seen.tags if a.get("data-chart")} == {"training"}
    sections = {a["id"] for a in seen.of("section")}
    assert sections == {"verdict", "tables", "training", "provenance"}
    assert {a["href"] for a in seen.of("a")} <= {f"#{name}" for name in sections} | {
        "#t-training-curve"
    }


def test_a_finding_can_be_read_without_its_headings(made: Report) -> None:
    """On a phone its cells are blocks: each says what it is, and is still a cell to a reader."""
    seen = Seen(write_page(made).read_text())
    tables = [a for a in seen.of("table") if a.get("class") == "findings"]
    assert tables
    assert all(table["role"] == "table" for table in tables)
    figures = [a for a in seen.of("td") if a.get("data-label")]
    assert {a["data-label"] for a in figures} == {"points", "interval", "n", "p"}
    assert all(a["role"] == "cell" for a in figures)


def of_ratings(**counts: int) -> Contents:
    """What is in a mixture whose rows are rated so, in two batches."""
    batches = {(f"week {i}", label): n // 2 for label, n in counts.items() for i in (1, 2)}
    return Contents(
        "mix", "mixture", sum(counts.values()), ratings=Counter(counts), batches=Counter(batches)
    )


def test_data_without_ratings_draws_no_grey_bars() -> None:
    """Bars of one grey, all as long, without a legend."""
    unrated = of_ratings(**{NONE: 40})
    assert charts.ratings([unrated]) is None
    batches = charts.batches([unrated])
    colour = batches.spec["spec"]["layer"][0]["encoding"]["color"]
    assert colour["scale"] == {"domain": ["Unrated"], "range": ["var(--s1)"]}
    assert "none has a rating" in batches.caption


@pytest.mark.parametrize("counts", [{"better": 40}, {"better": 20, NONE: 20}])
def test_a_chart_of_ratings_says_which_they_are(counts: dict[str, int]) -> None:
    rated = of_ratings(**counts)
    for chart in (charts.ratings([rated]), charts.batches([rated])):
        encoding = chart.spec.get("encoding") or chart.spec["spec"]["layer"][0]["encoding"]
        assert encoding["color"]["legend"] is not None, "one shade alone says nothing"
        assert encoding["color"]["scale"]["domain"][0] == "Better"
