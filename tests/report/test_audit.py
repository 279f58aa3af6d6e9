"""An audit in words: one sentence first, and every sentence from a figure."""

import json
from pathlib import Path

import pytest

from palate.evaluate.audit import Audit, audit, to_json
from palate.evaluate.benchmark import Benchmark
from palate.evaluate.run import evaluate
from palate.judges import open_judge
from palate.records import write_comparisons
from palate.report import report, write_page
from palate.report.audit import AUDIT, headline, markdown, sentences, tables
from palate.types import Comparison, Judgement, Message


def row(number: int, chosen: str, rejected: str, **more: object) -> Comparison:
    prompt = (Message("user", f"What of matter number {number}?"),)
    return Comparison(
        f"i{number}", "made", prompt, chosen, rejected, f"p{number}", batch="all", **more
    )  # type: ignore[arg-type]


def rows(count: int) -> list[Comparison]:
    return [row(n, f"Indeed, {n}.\n\nAnd more.", f"No, {n}.") for n in range(count)]


@pytest.fixture(scope="module")
def made() -> Audit:
    tie = row(100, "Yes.", "So.", judgement=Judgement(chosen=0, tie=1))
    every = [*rows(100), tie]
    return audit("made | up", every, training=[("mine", rows(7)), ("theirs", [tie])])


def test_the_first_sentence_says_what_a_lead_means(made: Audit) -> None:
    first = headline(made)
    assert first == (
        "On made | up a lead of less than 8.6 points cannot be told from luck, and a true lead is "
        "found four times in five from 12.1 points on."
    )
    assert sentences(made)[0] == first


def test_few_pairs_show_no_lead() -> None:
    assert "no true lead is found four times in five" in headline(audit("few", rows(30)))
    assert headline(audit("none", rows(8))) == (
        "On none no lead can be told from luck: 8 decided pairs of 8 prompts are too few for "
        "judges that differ on one pair in five."
    )


def test_no_lead_is_above_the_share_on_which_judges_differ() -> None:
    said = sentences(audit("few", rows(20)))[
        1
    ]  # By hand: 1.96 (0.1 / (20 + 3.84))^1/2 = 12.7 > 10.
    assert "Where they differ on 10% it is none, where on 30% 22.0 points." in said
    alike = [row(0, "Indeed.", f"No, {n}.") for n in range(20)]
    assert headline(audit("one", alike)) == (
        "On one no lead can be told from luck: 20 decided pairs of 1 prompts are too few for "
        "judges that differ on one pair in five."
    )


def test_findings_are_told(made: Audit) -> None:
    said = "\n".join(sentences(made))
    assert "always taking the longer one reaches 100.0 ± 3.7 %" in said
    assert "several paragraphs (100.0 of 100)" in said
    assert "1 of 101 rows (1.0 %) are ties" in said
    assert "7 of its prompts are in mine, in 7 of 7 rows" in said
    assert "1 of its prompts are in theirs" in said
    assert "Each pair has one label" in said


def test_tables_are_named_and_have_the_benchmark_where_there_are_several(made: Audit) -> None:
    alone, both = tables([made]), tables([made, audit("other", rows(20))])
    assert {table.name for table in [*alone, *both]} <= set(AUDIT)
    assert both[0].name == "audit"
    assert [record["Benchmark"].value for record in both[0].records()] == ["made | up", "other"]
    assert all(table.columns[0].name != "Benchmark" for table in alone)
    assert all(table.columns[0].name == "Benchmark" for table in both)


def test_markdown_is_escaped_and_says_what_it_was_made_of(made: Audit) -> None:
    text = markdown(made, "palate audit it.jsonl")
    assert text.startswith("# Audit of made \\| up\n")
    assert f"digest of their ids {made.items}" in text
    assert "palate audit it.jsonl" in text


def test_audits_of_a_run_stand_on_its_page(tmp_path: Path, made: Audit) -> None:
    path = tmp_path / "benchmarks" / "b.parquet"
    write_comparisons(path, rows(6))
    evaluate(open_judge("longer"), Benchmark("b", path), tmp_path / "verdicts")
    (tmp_path / "audits").mkdir()
    for name, one in (("a", made), ("b", audit("other", rows(20)))):
        (tmp_path / "audits" / f"{name}.json").write_text(json.dumps(to_json(one)))
    (tmp_path / "audits" / "c.json").write_text("{")
    written = report(tmp_path)
    assert [one.name for one in written.audits] == ["made | up", "other"]
    assert written.table("audit") is not None
    assert any("c.json" in problem for problem in written.problems)
    page = write_page(written).read_text()
    assert "Benchmarks: what they can show" in page
    assert headline(made) in page
