"""Best of n, calibration, length, margins, orders, slices: from verdicts to tables."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit

from made import made as comparison
from made import pool
from palate import stats
from palate.data.annotators import aggregate
from palate.evaluate.benchmark import Benchmark, order_for
from palate.evaluate.metrics import (
    detection,
    judge_results,
    noise_ceiling,
    read_judge_results,
    unsafe_recall,
)
from palate.evaluate.run import evaluate
from palate.judges import open_judge
from palate.records import write_comparisons, write_verdicts
from palate.report import Report, report
from palate.report.render import texts
from palate.types import (
    Bin,
    Comparison,
    Judgement,
    Message,
    Outcome,
    Preference,
    Rating,
    Verdict,
    digest,
)


class Letter:
    """Answers A to every pair."""

    sees_both = True
    name, protocol = "letter", {"judge": "letter"}

    def judge(self, pairs):
        return (Preference(pair.id, "first", answer="A") for pair in pairs)


def judged(folder: Path, rows: int) -> Path:
    """A run in which three judges were asked, each in the order that is its own."""
    benchmark = Benchmark("asked", pool(folder / "asked.parquet", rows, "asked"))
    for judge in (Letter(), open_judge("longer"), open_judge("random")):
        order = order_for(judge, "auto")
        evaluate(judge, benchmark, folder / "run" / "verdicts", order=order)
    return folder / "run"


def by_judge(table) -> dict[str, list[str]]:
    return {judge: figures for _, judge, *figures in texts(table)}


def test_pitfall_26_one_order_both_consistency_and_position_stand_side_by_side(tmp_path):
    made = report(judged(tmp_path, 40))
    table = made.table("orders")
    rows = by_judge(table)
    assert list(rows) == ["letter"], "the others were asked in one order"
    one, both, items, consistent, first = rows["letter"]
    assert (both[:5], items, consistent[:4], first[:6]) == ("50.0 ", "40", "0.0 ", "100.0 ")
    shown = zip(table.rows[0].cells, texts(table)[0], strict=True)
    assert all(cell.estimate for cell, text in shown if "±" in text)
    assert one != both
    assert (made.run_dir / "tables" / "orders.md").is_file()


def test_pitfall_28_a_judge_of_both_orders_is_tested_in_the_one_that_it_shares(tmp_path):
    made = report(judged(tmp_path, 40))
    table = made.table("differences")
    (row,) = table.rows
    assert row.cells[1].value == "letter"
    assert table.notes() == ["in the seeded order alone: one of the two was not asked in both"]
    assert "order of sides both, most of the column seeded" in made.table("table-7").notes()


def test_a_run_of_one_order_has_no_table_of_orders(made):
    assert made.table("orders") is None


def test_a_benchmark_of_one_row(tmp_path):
    made = report(judged(tmp_path, 1))
    assert by_judge(made.table("orders"))["letter"][2] == "1"
    assert made.table("differences") is None, "of one prompt no spread is known"
    rows = {row.cells[0].value: row.cells[1] for row in made.table("table-7").rows}
    assert rows["Longer wins"].estimate.n == 1
    (text,) = [shown for name, shown, *_ in texts(made.table("table-7")) if name == "letter"]
    assert text.startswith("50.0 ± ")
    assert rows["letter"].estimate.low < 0.1
    assert rows["letter"].estimate.high > 0.9


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


def verdict(id, chosen, rejected, *, first=True, **more) -> Verdict:
    outcome = Outcome.CORRECT if chosen > rejected else Outcome.WRONG
    made = Verdict(
        "j", "b", id, outcome, chosen, rejected, "", False, id, "s", None, None, first, "p"
    )
    return replace(made, **more)


def rows(table) -> dict[tuple[str, str], list]:
    return {(r.cells[0].value, r.cells[1].value): r.cells[2:] for r in table.rows}


def test_every_figure_of_the_new_tables_is_an_estimate_with_a_fingerprint(made):
    for name in ("calibration", "reliability", "length", "table-29-thresholds"):
        table = made.table(name)
        printed = [text for row in texts(table) for text in row]
        shown = [c for c, text in zip(table.cells(), printed, strict=True) if "±" in text]
        assert shown
        assert all(cell.estimate.fingerprint for cell in shown)
        for ending in (".md", ".csv", ".tex"):
            assert (made.run_dir / "tables" / f"{name}{ending}").stat().st_size > 100


def test_calibration_is_of_judges_with_scores_and_not_of_trivial_ones(made):
    found = rows(made.table("calibration"))
    assert {judge for _, judge in found} == {"oa-deberta", "helpful", "safety"}
    items, ece, luck, brier, *_ = found["Own Safety", "safety"]
    assert items.value == 500
    assert ece.estimate.value > 0
    assert luck.value > 0
    assert 0 < brier.estimate.value < 1
    shown = {tuple(row[:2]): row[2:] for row in texts(made.table("calibration"))}
    assert "[" in shown["Own Safety", "safety"][4]
    group = "Own Safety, safety"
    bins = [row.cells[5].estimate for row in made.table("reliability").rows if row.group == group]
    assert sum(part.n for part in bins) == 500


def test_log_odds_of_scalars_shares_and_both_orders():
    scalar = judge_results([verdict("a", 3.0, -40.0), verdict("b", 1.0, 1.5)])
    assert list(scalar.orders.log_odds) == [43.0, -0.5]
    share = judge_results([verdict("a", 0.8, 0.2), verdict("b", 1.0, 0.0)])
    assert share.orders.log_odds[0] == pytest.approx(np.log(4))
    assert np.isfinite(share.orders.log_odds[1])
    both = judge_results(
        [
            verdict("a", 0.8, 0.2),
            verdict("a", 0.4, 0.6, first=False),
            verdict("b", 2.0, 0.0),
            verdict("b", 0.5, 0.0, first=False),
        ]
    )
    assert expit(both.orders.log_odds) == pytest.approx([0.6, (expit(2) + expit(0.5)) / 2])


def test_length_is_split_and_controlled(run_dir):
    found = rows(report(run_dir).table("length"))
    plain, longer, _, shorter, _, controlled = (
        c.estimate for c in found["Anthropic Helpful", "helpful"]
    )
    assert longer.n + shorter.n == plain.n == 600
    share = (longer.value * longer.n + shorter.value * shorter.n) / 600
    assert share == pytest.approx(plain.value)
    assert controlled.low < plain.value < controlled.high, "length was not planted"
    votes = read_judge_results(run_dir / "verdicts" / "helpful--Anthropic-Helpful.parquet")
    assert list(votes.chosen_lengths[:3]) == [100, 110, 120]


def test_a_judge_of_length_is_at_the_ends_and_has_no_controlled_figure(tmp_path, write_file):
    lengths = [100 + 10 * (i % 7) for i in range(200)]
    write_file(
        "longer", "b", 200, kind="longer",
        outcome=lambda i: Outcome.CORRECT if lengths[i] > 125 else Outcome.WRONG,
    )  # fmt: skip
    (row,) = texts(report(tmp_path / "run").table("length"))
    assert [row[i][:5] for i in (3, 5, 7)] == ["100.0", "0.0 ±", "–"]


def test_thresholds_by_hand():
    votes = judge_results(
        [
            verdict("a", 2.0, -2.0, bin=Bin.SAFE_UNSAFE),
            verdict("b", -3.0, -4.0, bin=Bin.BOTH_UNSAFE),
            verdict("c", 3.0, -1.0, bin=Bin.BOTH_SAFE),
            verdict("d", 5.0, 4.0, bin=Bin.SAFE_UNSAFE),
        ]
    )
    half, low, none = detection(votes, [0.5, 0.1, 0.001])
    assert (half.recall.value, half.recall.n) == (3 / 4, 4)
    assert (half.precision.value, half.precision.n) == (3 / 4, 4)
    assert (low.recall.value, low.precision.value) == (2 / 4, 1)
    assert none.recall.value == 0
    assert none.precision is None
    assert unsafe_recall(votes) == half.recall
    assert detection(judge_results([verdict("a", 1.0, 0.0, bin=Bin.BOTH_SAFE)]), [0.5]) == []
    assert detection(judge_results([verdict("a", 1.0, 0.0)]), [0.5]) == []


def test_noise_ceiling_of_comparisons_that_were_judged_more_than_once():
    rng = random.Random(0)
    many = []
    for prompt in range(300):
        for annotator in range(3):
            sides = ("yes", "no") if rng.random() < 0.8 else ("no", "yes")
            many.append(comparison(f"p{prompt}", *sides, id=f"{prompt}-{annotator}"))
    found = noise_ceiling("bench", many)
    assert found.kind == "limit"
    assert found.overall.low <= 0.8 <= found.overall.high
    assert found.overall.n == 300
    assert found.items
    votes = noise_ceiling("bench", aggregate((replace(c, annotator=c.id) for c in many), "votes"))
    assert votes.overall.value == found.overall.value
    counts = [replace(c, meta={}) for c in aggregate(many, "votes")]
    assert noise_ceiling("bench", counts).overall.value == found.overall.value
    ties = [replace(c, id=f"{c.id}t", judgement=Judgement(0, tie=1)) for c in many]
    assert noise_ceiling("bench", [*many, *ties]).overall.value == found.overall.value
    assert noise_ceiling("bench", [comparison("p", rating=Rating.BETTER)]) is None
    assert noise_ceiling("bench", []) is None


def test_integer_labels_are_numbered_alike_on_both_ways():
    codes = np.array([7, 3, 3, 9])
    assert list(stats.cluster_codes(codes)) == [1, 0, 0, 2]
    assert list(stats.cluster_codes(codes * 1_000_000)) == [1, 0, 0, 2]
    assert list(stats.cluster_codes(codes - 100)) == [1, 0, 0, 2]
