"""The verdict in sentences: what is shown, what is not, what must be borne in mind."""

from collections.abc import Callable
from pathlib import Path

from palate.report import Report, report
from palate.report.findings import Finding
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
    assert {row.cells[0].text for row in table.rows} <= {"shown", "not shown", "caution"}
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
