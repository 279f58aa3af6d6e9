"""What a report says of ensembles: errors it expects, and the best of n against the truth."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palate import stats
from palate.data.simulation import CampaignOptions, many_responses, simulate
from palate.evaluate.benchmark import Benchmark
from palate.evaluate.results import read_judge_results
from palate.evaluate.run import evaluate
from palate.judges import ScorerJudge
from palate.records import BEST_OF_MANY_SCHEMA, read_verdicts, write_comparisons, write_table
from palate.report import report
from palate.report.page import page
from palate.types import Candidates, Score


class Lengths:
    """An ensemble whose members prefer length by more or less."""

    name = "lengths"
    protocol: Mapping[str, Any] = {"judge": "reward-model", "version": 1}
    members = 3

    def score(self, candidates: Iterable[Candidates]) -> Iterator[tuple[Score, ...]]:
        for shown in candidates:
            sizes = [len(response) / 100 for response in shown.responses]
            said = [(size, 1.5 * size, 0.5 * size + 0.01) for size in sizes]
            yield tuple(Score(float(np.mean(one)), members=one) for one in said)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    rows = list(simulate(CampaignOptions(weeks=1, comparisons_per_week=120), 3))
    write_comparisons(folder / "benchmarks" / "held-out.parquet", rows)
    benchmark = Benchmark("held-out", folder / "benchmarks" / "held-out.parquet")
    judge = ScorerJudge(Lengths())
    path = evaluate(judge, benchmark, folder / "verdicts", order="seeded")
    verdicts = list(read_verdicts(path))
    by_id = {row.id: row for row in rows}
    for verdict in verdicts[:20]:
        row = by_id[verdict.comparison_id]
        gap = (len(row.chosen) - len(row.rejected)) / 100
        expected = np.std([gap, 1.5 * gap, 0.5 * gap], ddof=1)
        assert verdict.spread == pytest.approx(expected, abs=1e-9)
    # Asked again, the answers come from the file: the spread among them.
    assert list(read_verdicts(evaluate(judge, benchmark, folder / "verdicts", order="seeded")))
    return folder


def test_a_table_holds_what_an_ensemble_expects_against_what_happens(run: Path) -> None:
    table = report(run).table("uncertainty")
    assert table is not None
    whole, *quarters = list(table.records())
    assert whole["Items"].value == 120 == sum(row["Items"].value for row in quarters)
    votes = read_judge_results(next((run / "verdicts").glob("*.parquet")))
    assert whole["Wrong"].estimate.value == pytest.approx(1 - np.nanmean(votes.values))
    assert 0.8 <= whole["Covered, of 90"].estimate.value <= 1
    expected = stats.error_probabilities(votes.chosen_scores - votes.rejected_scores, votes.spreads)
    assert whole["Predicted wrong"].value == pytest.approx(np.nanmean(expected))
    predicted = [row["Predicted wrong"].value for row in quarters]
    assert predicted == sorted(predicted)


def test_the_best_of_n_is_drawn_over_the_truth_and_says_where_it_turns(run: Path) -> None:
    rng, rows = np.random.default_rng(0), []
    for prompt in range(40):
        truth = rng.normal(size=64)
        # The highest scores are of responses that only look good.
        wrong = np.where(rng.random(64) < 0.05, 6.0, 0.0)
        for one, fooled in zip(truth - wrong / 2, wrong, strict=True):
            members = [one + fooled + noise for noise in rng.normal(scale=0.1, size=3)]
            rows.append({"prompt": prompt, "truth": one, "reward": float(np.mean(members)),
                         "members": members})  # fmt: skip
    details = {"model": "lengths", "source": "campaign", "responses": 64}
    path = run / "over-optimisation" / "lengths.parquet"
    write_table(path, rows, BEST_OF_MANY_SCHEMA, kind="best-of-many", details=details)
    made = report(run)
    table = made.table("over-optimisation")
    assert table is not None
    by = {row["Chosen by"].value: row for row in table.records()}
    assert list(by) == [
        "One member", "Mean, average", "Lower bound", "The truth",
    ]  # fmt: skip
    assert by["The truth"]["Turns over"].value == "no"
    assert by["Mean, average"]["Turns over"].value.startswith("at n = ")
    assert by["One member"]["Best of 1"].estimate.value == pytest.approx(
        np.mean([row["truth"] for row in rows])
    )
    assert "True reward" in page(made) or "true reward" in page(made)
    path.unlink()
    assert report(run).table("over-optimisation") is None


def test_a_curve_that_rises_to_its_end_does_not_turn_and_a_drop_by_luck_is_not_shown() -> None:
    rng = np.random.default_rng(1)
    quality = rng.normal(size=(20, 64))
    sizes = [1, 2, 4, 8, 16, 32, 64]
    assert stats.turnover(quality, quality, sizes) == stats.Turnover(
        64, None, shown=False, between=(64, 64)
    )
    worse = stats.turnover(-quality, quality, sizes)
    assert (worse.peak, worse.shown) == (1, True)
    shown = [
        stats.turnover(rng.normal(size=(20, 64)), rng.normal(size=(20, 64)), sizes).shown
        for _ in range(200)
    ]
    assert sum(shown) <= 20, "of noise at most a twentieth, and what luck adds"


def test_many_responses_are_new_and_their_worth_is_the_campaigns(run: Path) -> None:
    options = CampaignOptions(weeks=2)
    (first, worth), (second, _) = many_responses(options, 1, 2, 40)
    assert (len(first.responses), len(worth)) == (40, 40)
    assert first.prompt != second.prompt
    assert next(iter(many_responses(options, 1, 2, 40))) == (first, worth)
    best = first.responses[int(np.argmax(worth))]
    assert max(worth) > min(worth)
    assert best
