"""The verdict in sentences: what is shown, what is not, what must be borne in mind."""

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from palate.report import Report, report, write_page
from palate.report.verdict import Finding
from palate.types import Outcome

Write = Callable[..., Path]


def found(made: Report, kind: str) -> list[Finding]:
    return made.verdict.of(kind)


def right(share: float) -> Callable[[int], Outcome]:
    """The first of every hundred items are right."""
    return lambda i: Outcome.CORRECT if i % 100 < 100 * share else Outcome.WRONG


def test_a_model_that_is_better_beyond_luck_is_said_to_be(
    tmp_path: Path, write_file: Write
) -> None:
    write_file("longer", "bench", kind="longer", outcome=right(0.5))
    write_file("good", "bench", outcome=right(0.8))
    write_file("poor", "bench", outcome=right(0.3))
    made = report(tmp_path / "run")
    sentences = ["".join(words) for words in made.verdict.models]
    assert sentences[0] == (
        "good is the most accurate model on bench and beats every trivial judge on bench."
    )
    assert sentences[1] == (
        "poor is not shown to beat every trivial judge on any test set. "
        "It is less accurate than another model on bench and than the best trivial judge on bench."
    )
    against = {(f.words[1], f.words[3]): f for f in found(made, "shown")}
    lead = against["good", "poor"]
    assert lead.words[2] == " is more accurate than "
    assert abs(lead.difference.value - 0.5) < 1e-9
    assert lead.difference.low > 0
    assert against["poor", "Longer wins"].words[2] == " is less accurate than "
    assert not found(made, "open")


def test_what_luck_explains_is_open_and_says_what_would_settle_it(
    tmp_path: Path, write_file: Write
) -> None:
    write_file("longer", "bench", kind="longer", outcome=right(0.60))
    write_file("m", "bench", outcome=lambda i: right(0.62)((i * 37) % 200))
    made = report(tmp_path / "run")
    (finding,) = found(made, "open")
    assert "cannot be told apart" in finding.sentence
    assert "takes about" in finding.sentence
    assert finding.difference.low < 0 < finding.difference.high
    assert finding.p_value > 0.05
    assert not found(made, "shown")
    assert "not shown to beat every trivial judge" in "".join(made.verdict.models[0])


def test_no_lead_is_claimed_that_items_without_a_score_undo(
    tmp_path: Path, write_file: Write
) -> None:
    def leaves_out(scored: int) -> Callable[[int], Outcome]:
        """Right on the first of every hundred items, silent on the rest."""
        return lambda i: Outcome.CORRECT if i % 100 < scored else Outcome.UNSCORED

    write_file("longer", "bench", kind="longer", outcome=lambda i: right(0.5)((i * 37) % 200))
    write_file("silent", "bench", outcome=leaves_out(20))
    write_file("nearly", "bench", outcome=leaves_out(96))
    made = report(tmp_path / "run")
    nearly, silent = ("".join(words) for words in made.verdict.models)
    assert nearly.startswith("nearly ")
    assert "beats every trivial judge on bench" in nearly, "its few gaps would not undo it"
    assert "gone" not in nearly
    assert silent.startswith("silent is not shown to beat every trivial judge on any test set.")
    assert "Its lead over every trivial judge on bench is gone where items without" in silent
    (lead,) = [f for f in found(made, "shown") if f.words[1:4:2] == ("silent", "Longer wins")]
    assert lead.p_value < 0.05
    assert "with the others as wrong the difference is -30.0 points" in lead.sentence
    table = made.table("differences")
    assert table is not None
    notes = {row.cells[1].value: row.cells[3].notes for row in table.rows}
    assert any("without a score as wrong" in note for note in notes["silent"])
    assert not notes["nearly"]


def test_no_single_judge_is_compared_with_itself(tmp_path: Path, write_file: Write) -> None:
    write_file("m", "bench")
    made = report(tmp_path / "run")
    assert made.verdict.models == ()
    assert made.table("verdict") is None or not found(made, "shown")


def test_p_values_are_adjusted_over_all_comparisons(made: Report) -> None:
    table = made.table("verdict")
    assert table is not None
    compared = [f for f in made.verdict.findings if f.p_value is not None]
    assert len(compared) == 18, "three models and the best trivial judge on three benchmarks"
    assert all(f.p_value >= 0.0001 for f in compared)
    assert {row.cells[0].value for row in table.rows} <= {"shown", "not shown", "caution"}
    for finding in compared:
        decided = finding.kind == "shown"
        assert decided == (finding.p_value < 0.05)


def test_missing_scores_length_and_overfitting_are_cautions(
    tmp_path: Path, write_file: Write, write_training: Callable[[Path], None]
) -> None:
    def by_length(i: int) -> Outcome:
        if i % 10 == 0:
            return Outcome.UNSCORED
        return Outcome.CORRECT if 100 + 10 * (i % 7) > 125 else Outcome.WRONG

    write_file("m", "bench", outcome=by_length)
    write_training(tmp_path / "run" / "train" / "m" / "metrics.jsonl")
    said = [f.sentence for f in found(report(tmp_path / "run"), "caution")]
    assert any("gave no score to 20 of 200 items" in s for s in said)
    assert any("m goes by length on bench" in s and "on 100.0 %" in s for s in said)
    assert any("went on after step 10" in s and "ended at 0.660" in s for s in said)


def test_a_model_that_was_asked_other_items_is_said_to_stand_apart(
    tmp_path: Path, write_file: Write
) -> None:
    for name in ("one", "two"):
        write_file(name, "bench")
    write_file("other", "bench", prefix="week-2-")
    made = report(tmp_path / "run")
    said = [f.sentence for f in found(made, "caution")]
    assert "other was asked something else on bench than most: it is not compared there." in said
    assert not any("other" in f.sentence for f in made.verdict.findings if f.difference)


class Rows(HTMLParser):
    """The rows of all tables of a page, as the texts of their cells."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.rows: list[list[str]] = []
        self.inside = False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        self.inside = tag in ("td", "th") or (self.inside and tag not in ("tr", "table", "p"))
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data):
        if self.inside and self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


def pair_of(sentence: str) -> frozenset[str]:
    """The two judges of a finding."""
    match = re.match(
        r"(?:On [^,]*, )?(.+?) (?:is (?:more|less) accurate than (.+): |and (.+) cannot)", sentence
    )
    assert match, sentence
    return frozenset(name for name in match.groups() if name)


def test_one_comparison_has_one_p_and_an_interval_that_agrees_with_it(made: Report) -> None:
    """Over tables.json: the verdict, the best trivial judges, the letters of Table 7."""
    path = next(path for path in made.files if path.name == "tables.json")
    tables = {table["name"]: table for table in json.loads(path.read_text())["tables"]}
    said: dict[tuple[str, frozenset[str]], set[tuple[str, float, float]]] = {}
    for name, estimate_at, p_at in (("verdict", 2, 4), ("differences", 3, 5)):
        assert "Holm" in tables[name]["columns"][p_at]["name"]
        assert "Holm" in tables[name]["columns"][estimate_at]["detail"]
        for row in tables[name]["rows"]:
            cells = row["cells"]
            if "estimate" not in cells[estimate_at]:
                continue
            texts = [cell["text"] for cell in cells]
            of = texts[0], frozenset(texts[1:3])
            if name == "verdict":
                of = texts[1].removeprefix("On ").split(",")[0], pair_of(texts[1])
            e, p = cells[estimate_at]["estimate"], texts[p_at]
            arms = sorted(round(abs(end), 9) for end in (e["low"], e["high"]))
            said.setdefault(of, set()).add((p, *arms))
            below = p == "p < 0.001" or float(p.removeprefix("p = ")) < 0.05
            assert below == (e["low"] > 0 or e["high"] < 0), row
    assert len(said) == 18
    assert all(len(one) == 1 for one in said.values()), (
        "two p-values or intervals of one comparison"
    )
    letters = {row["cells"][0]["text"]: row["cells"] for row in tables["table-7"]["rows"]}
    heads = [column["name"] for column in tables["table-7"]["columns"]]
    for (benchmark, pair), ((p, *_),) in said.items():
        one, two = (letters[name][heads.index(benchmark)]["text"].split()[-1] for name in pair)
        apart = p == "p < 0.001" or float(p.removeprefix("p = ")) < 0.05
        assert apart == set(one).isdisjoint(two), "letters that say otherwise than the verdict"


def test_the_page_prints_one_p_for_one_comparison(made: Report) -> None:
    rows = Rows(write_page(made).read_text()).rows
    said: dict[tuple[str, frozenset[str]], set[str]] = {}
    for cells in rows:
        if len(cells) == 6 and ("accurate than" in cells[1] or "told apart" in cells[1]):
            p = cells[5] if cells[5].startswith("<") else f"= {cells[5]}"
            said.setdefault((cells[0], pair_of(cells[1])), set()).add(p)
            low, high = (float(x.replace("−", "-")) for x in cells[3].split(" to "))
            if abs(low) >= 0.1 and abs(high) >= 0.1:  # Not rounded to zero.
                assert (p.startswith("<") or float(p[2:]) < 0.05) == (low * high > 0)
        elif len(cells) == 8 and cells[5].startswith(("p =", "p <")):
            said.setdefault((cells[0], frozenset(cells[1:3])), set()).add(cells[5][2:])
    assert len(said) == 18
    assert all(len(p_values) == 1 for p_values in said.values())
    assert sum(cells[-1:] == ["p\u00a0(Holm)"] for cells in rows) == 2, "a list shown, a list open"


@pytest.mark.parametrize("share", [0.58, 0.6, 0.62, 0.66])
def test_no_interval_of_the_page_contradicts_its_p(
    share: float, tmp_path: Path, write_file: Write
) -> None:
    """Four models a few points apart: unadjusted intervals would leave out zero here and there."""
    for number, accuracy in enumerate((0.5, 0.55, share, 0.68)):
        write_file(f"m{number}", "bench", outcome=lambda i, a=accuracy: right(a)((i * 37) % 200))
    write_file("longer", "bench", kind="longer", outcome=right(0.5))
    made = report(tmp_path / "run")
    compared = [f for f in made.verdict.findings if f.difference]
    assert len(compared) == 10
    for finding in compared:
        e = finding.difference
        assert (finding.p_value < 0.05) == (e.low > 0 or e.high < 0), finding.sentence
