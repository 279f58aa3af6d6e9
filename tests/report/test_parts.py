"""Accuracy on parts, score gaps, best of n: from verdicts and the comparisons behind them."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from made import made as comparison
from palate.records import write_comparisons, write_verdicts
from palate.report import Report, report
from palate.report.render import texts
from palate.types import Comparison, Message, Outcome, Rating, Verdict, digest

QUALITY = {"bad": 0.0, "fair": 1.0, "good": 2.0}


def write_run(
    run: Path, rows: Sequence[Comparison], scorers: dict[str, Callable[[str], float | None]]
) -> Path:
    """A benchmark and the verdicts of judges that score responses by text."""
    header = write_comparisons(run / "benchmarks" / "bench.parquet", rows)
    for judge, score in scorers.items():
        protocol = {
            "judge": {"name": judge, "judge": "reward-model"},
            "benchmark": header.fingerprint,
        }
        verdicts = [_verdict(judge, c, score, digest(protocol)) for c in rows]
        details = {"judge": judge, "benchmark": "bench", "protocol": protocol}
        write_verdicts(run / "verdicts" / f"{judge}.parquet", verdicts, details=details)
    return run


def _verdict(
    judge: str, c: Comparison, score: Callable[[str], float | None], protocol: str
) -> Verdict:
    chosen, rejected = score(c.chosen), score(c.rejected)
    if chosen is None or rejected is None:
        outcome, chosen, rejected = Outcome.UNSCORED, None, None
    else:
        outcome = Outcome.CORRECT if chosen > rejected else Outcome.WRONG
    return Verdict(
        judge, "bench", c.id, outcome, chosen, rejected, "", False, c.prompt_id, c.source,
        c.rating, c.bin, True, protocol, "", None, len(c.chosen), len(c.rejected),
    )  # fmt: skip


def trios(prompts: int) -> list[Comparison]:
    """Prompts with three responses, every two compared; the better one is always chosen."""
    rows = []
    for p in range(prompts):
        texts = {level: f"{level} answer {p}" for level in QUALITY}
        for better, worse in (("good", "fair"), ("good", "bad"), ("fair", "bad")):
            rows.append(
                comparison(f"question {p}?", texts[better], texts[worse], rating=Rating.BETTER)
            )
    return rows


def quality(text: str) -> float:
    return QUALITY[text.split()[0]]


def test_best_of_n_of_perfect_reversed_and_blind_scores(tmp_path: Path) -> None:
    scorers = {
        "perfect": quality,
        "reversed": lambda text: -quality(text),
        "blind": lambda _: 0.0,
    }
    table = report(write_run(tmp_path, trios(25), scorers)).table("best-of-n")
    assert table is not None
    curves = {
        row.cells[1].value: [round(100 * c.estimate.value, 1) for c in row.cells[3:]]
        for row in table.rows
    }
    # Of three the best beats both others, the middle one half, the worst none: 50 by chance;
    # the better of two drawn is the best with 2/3 and the middle one with 1/3.
    assert curves["perfect"] == curves["Perfect judge"] == [50.0, 83.3, 100.0]
    assert curves["reversed"] == [50.0, 16.7, 0.0]
    assert curves["blind"] == [50.0, 50.0, 50.0]
    assert {row.cells[2].value for row in table.rows} == {25}


def test_prompts_without_every_score_or_comparison_are_left_out(tmp_path: Path) -> None:
    rows = trios(24)
    missing = next(c for c in rows if c.chosen == "fair answer 0")
    unscored = "good answer 1"
    table = report(
        write_run(
            tmp_path,
            [c for c in rows if c.id != missing.id],
            {"perfect": lambda text: None if text == unscored else quality(text)},
        )
    ).table("best-of-n")
    assert table is not None
    assert [row.cells[2].value for row in table.rows] == [22, 23]


def test_pairs_alone_have_no_best_of_n(tmp_path: Path) -> None:
    rows = [comparison(f"q{i}", f"good {i}", f"bad {i}") for i in range(40)]
    assert report(write_run(tmp_path, rows, {"m": quality})).table("best-of-n") is None


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Half the prompts have one turn and are judged right, half have three and are not."""
    rows = []
    for i in range(60):
        turns = [Message("user", f"start {i}")]
        if i % 2:
            turns += [Message("assistant", "yes"), Message("user", "go on")]
        rows.append(
            comparison(
                tuple(turns), "good " + "x" * i, "bad", source=f"s{i % 3}", prompt_id=f"p{i}",
                rating=Rating(1 + i % 4),
            )
        )  # fmt: skip
    by_id = {c.chosen: 1.0 if len(c.prompt) == 1 else -1.0 for c in rows}
    run = tmp_path_factory.mktemp("mixed")
    return report(write_run(run, rows, {"m": lambda text: by_id.get(text, 0.0)}))


def test_parts_are_by_length_turns_and_source(mixed: Report) -> None:
    table = mixed.table("parts")
    assert table is not None
    found = {(r.cells[2].value, r.cells[3].value): r.cells[4].estimate for r in table.rows}
    assert found["turns of the prompt", "1"].value == 1
    assert found["turns of the prompt", "2 to 3"].value == 0
    assert {part for by, part in found if by == "source"} == {"s0", "s1", "s2"}
    fifths = [e.n for (by, _), e in found.items() if by == "length difference"]
    assert len(fifths) == 5
    assert sum(fifths) == 60
    assert max(fifths) - min(fifths) <= 2


def test_gaps_are_means_of_chosen_less_rejected(mixed: Report) -> None:
    table = mixed.table("gaps")
    assert table is not None
    (row,) = table.rows
    assert row.cells[2].estimate.value == pytest.approx(0)
    votes = mixed.judged.votes["m", "bench"]
    gap = votes.chosen_scores - votes.rejected_scores
    for text, rating in zip(texts(table)[0][3:], (4, 3, 2, 1), strict=True):
        held = gap[votes.ratings == rating]
        # Ratings follow the index, and so do turns: within a rating all gaps are equal.
        assert np.unique(held).size == 1
        assert text == "–", "a mean without an error is no figure"


def test_a_benchmark_of_other_data_is_not_taken_for_the_one_judged(tmp_path: Path) -> None:
    run = write_run(tmp_path, trios(25), {"m": quality})
    write_comparisons(run / "benchmarks" / "bench.parquet", trios(26))
    made = report(run)
    assert made.items == {}
    assert made.table("best-of-n") is None
