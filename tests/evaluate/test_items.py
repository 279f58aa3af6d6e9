"""Items of K put to judges: what is shown, what becomes of it, and what is kept."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import published
from palate.data.benchmarks import import_benchmark
from palate.data.sources.base import Request
from palate.evaluate.benchmark import Benchmark
from palate.evaluate.metrics import judge_benchmark, summarise
from palate.evaluate.results import read_answers, read_judge_results
from palate.evaluate.run import evaluate, item_value
from palate.judges import open_judge
from palate.judges.scorer import ScorerJudge, Tournament
from palate.records import read_verdicts
from palate.types import Candidates, Outcome, Pair, PalateError, Preference, Score


def best_of_k(tmp_path: Path, rows: list[dict[str, Any]], name: str = "best-of-k") -> Benchmark:
    file = published.write_rows(tmp_path / "rows.jsonl", rows)
    path = tmp_path / "benchmarks" / f"{name}.parquet"
    import_benchmark(name, path, Request(file), partial=True)
    return Benchmark(name, path)


def rows(count: int = 12, wrong: int = 3) -> list[dict[str, Any]]:
    return [
        {
            "id": f"i{n}",
            "prompt": f"Question {n // 2}?",
            "chosen": f"9 is right, {n}",
            "rejected": [f"{k} is wrong, {n}" for k in range(wrong)],
            "subset": "even" if n % 2 == 0 else "odd",
        }
        for n in range(count)
    ]


class ByDigit:
    """Scores a response by its first character, and keeps what it was shown."""

    name = "by-digit"
    protocol = {"judge": "by-digit"}  # noqa: RUF012

    def __init__(self, change: dict[str, float | None] | None = None) -> None:
        self.change = change or {}
        self.shown: list[Candidates] = []

    def score(self, candidates: Iterable[Candidates]) -> Iterator[tuple[Score, ...]]:
        for shown in candidates:
            self.shown.append(shown)
            values = [self.change.get(t, float(t[0])) for t in shown.responses]
            yield tuple(Score(v, "" if v is not None else "too long") for v in values)


def judged(benchmark: Benchmark, tmp_path: Path, scorer: Any) -> Path:
    return evaluate(ScorerJudge(scorer), benchmark, tmp_path / "verdicts")


def test_one_prompt_is_one_question_with_the_truth_hidden(tmp_path):
    benchmark = best_of_k(tmp_path, rows(40))
    scorer = ByDigit()
    path = judged(benchmark, tmp_path, scorer)
    assert len(scorer.shown) == 40
    assert all(len(shown.responses) == 4 for shown in scorer.shown)
    places = [[t[0] for t in shown.responses].index("9") for shown in scorer.shown]
    assert set(places) == {0, 1, 2, 3}  # Not always first, as in the file.
    verdicts = list(read_verdicts(path))
    assert {v.outcome for v in verdicts} == {Outcome.CORRECT}
    assert [r.score for r in verdicts[0].responses] == [9, 0, 1, 2]
    assert [r.place for r in verdicts[0].responses] == [0, 1, 1, 1]
    assert (verdicts[0].chosen_score, verdicts[0].rejected_score) == (9, 2)
    results = read_judge_results(path)
    assert results.accuracy().value == 1
    assert results.chance.tolist() == [0.25] * 40
    assert summarise(results).counts.correct == 40


@pytest.mark.parametrize(
    ("scores", "places", "pairs", "value"),
    [
        ([2, 1, 1, 1], [0, 1, 1, 1], (), 1.0),
        ([2, 2, 2, 1], [0, 1, 1, 1], (), 1 / 3),
        ([2, 2, 1, 1], [0, 0, 1, 1], (), 1.0),
        ([2, 1, 3, 1], [0, 0, 1, 1], (), 0.0),
        ([1, 3, 2], [2, 0, 1], (), 1.0),
        ([2, 2, 1], [0, 1, 1], ((0, 1), (0, 2)), 0.75),
        ([2, None, 1], [0, 1, 1], (), None),
    ],
)
def test_what_a_judge_is_right_about(scores, places, pairs, value):
    assert item_value(scores, places, pairs) == value


def test_ties_and_missing_scores_are_outcomes_of_their_own(tmp_path):
    benchmark = best_of_k(tmp_path, rows(4))
    change = {"2 is wrong, 0": 9.0, "9 is right, 1": None, "1 is wrong, 2": 10.0}
    path = judged(benchmark, tmp_path, ByDigit(change))
    verdicts = list(read_verdicts(path))
    assert [v.outcome.value for v in verdicts] == ["tie", "unscored", "wrong", "correct"]
    assert verdicts[1].reason == "too long"
    results = read_judge_results(path)
    np.testing.assert_equal(results.values, [0.5, np.nan, 0, 1])
    counts = summarise(results).counts
    assert (counts.correct, counts.wrong, counts.tie) == (1, 1, 1)
    assert dict(counts.unscored) == {"too long": 1}


def test_a_judgement_is_asked_once_and_goes_on_where_it_was(tmp_path):
    benchmark = best_of_k(tmp_path, rows(10))

    class Stops(ByDigit):
        def score(self, candidates):
            for number, answer in enumerate(super().score(candidates)):
                if number == 6:
                    raise KeyboardInterrupt
                yield answer

    with pytest.raises(KeyboardInterrupt):
        judged(benchmark, tmp_path, Stops())
    scorer = ByDigit()
    path = judged(benchmark, tmp_path, scorer)
    assert len(scorer.shown) == 4
    whole = list(read_verdicts(path))
    assert whole == list(read_verdicts(judged(benchmark, tmp_path / "other", ByDigit())))
    assert judged(benchmark, tmp_path, ByDigit()) == path


def test_responses_with_turns_of_their_own_are_asked_each_by_itself(tmp_path):
    votes = [published.vote("model_b", turn=2), published.vote("model_b")]
    benchmark = best_of_k(tmp_path, votes, "mt-bench-human")

    class Longest(ByDigit):
        def score(self, candidates):
            for shown in candidates:
                self.shown.append(shown)
                yield tuple(Score(float(len(text))) for text in shown.responses)

    scorer = Longest()
    path = judged(benchmark, tmp_path, scorer)
    assert sorted(len(shown.responses) for shown in scorer.shown) == [1, 1, 2]
    own = [s.prompt[1].content for s in scorer.shown if len(s.responses) == 1]
    assert sorted(own) == ["alpaca goes.", "vicuna goes."]
    answers = read_answers(path)
    assert answers.size == 2
    assert answers.counts.tolist() == [2, 2]


def test_undecided_votes_are_in_no_accuracy_but_in_agreement(tmp_path):
    votes = [published.vote("tie", "expert_1"), published.vote("model_a", question=82)]
    benchmark = best_of_k(tmp_path, votes, "mt-bench-human")
    path = evaluate(open_judge("longer"), benchmark, tmp_path / "verdicts")
    results = read_judge_results(path)
    assert (results.ids.size, results.undecided) == (1, 1)
    assert read_answers(path).size == 2


class Prefers:
    """A judge of pairs that prefers the larger first character, and reads both at once."""

    name = "prefers"
    protocol = {"judge": "prefers"}  # noqa: RUF012
    sees_both = True

    def __init__(self) -> None:
        self.asked = 0

    def judge(self, pairs: list[Pair]) -> Iterator[Preference]:
        for pair in pairs:
            self.asked += 1
            choice = "first" if pair.first > pair.second else "second"
            yield Preference(pair.id, choice)


def test_a_judge_of_pairs_answers_by_a_tournament_in_both_orders(tmp_path):
    benchmark = best_of_k(tmp_path, rows(5))
    judge = Prefers()
    path = evaluate(judge, benchmark, tmp_path / "verdicts", order="both")
    assert judge.asked == 5 * 6 * 2
    verdicts = list(read_verdicts(path))
    assert [r.score for r in verdicts[0].responses] == [
        1.0,
        0.0,
        pytest.approx(1 / 3),
        pytest.approx(2 / 3),
    ]
    assert {v.outcome for v in verdicts} == {Outcome.CORRECT}
    assert "every two responses, both orders" in Tournament(judge).protocol["items"]


def test_a_judge_of_pairs_has_no_answer_to_a_response_by_itself(tmp_path):
    votes = [published.vote("model_b", turn=2), published.vote("model_b")]
    benchmark = best_of_k(tmp_path, votes, "mt-bench-human")
    verdicts = list(read_verdicts(evaluate(Prefers(), benchmark, tmp_path / "verdicts")))
    assert sorted(v.reason for v in verdicts) == ["", "no other response to choose from"]


def test_trivial_judges_reach_chance(tmp_path):
    benchmark = best_of_k(tmp_path, rows(400))
    folder = tmp_path / "verdicts"
    for name in ("random", "first"):
        result = judge_benchmark(open_judge(name), benchmark, folder)
        assert 0.18 < result.overall.value < 0.32
    longer = judge_benchmark(open_judge("longer"), benchmark, folder)
    assert (longer.overall.value, longer.counts.tie) == (0.25, 400)  # All are of one length.


def test_a_scorer_that_answers_short_is_refused(tmp_path):
    class Short(ByDigit):
        def score(self, candidates):
            for answer in super().score(candidates):
                yield answer[:-1]

    with pytest.raises(PalateError, match="gave 3 scores to 4 responses"):
        judged(best_of_k(tmp_path, rows(2)), tmp_path, Short())


def test_nan_is_no_score(tmp_path):
    path = judged(best_of_k(tmp_path, rows(1)), tmp_path, ByDigit({"9 is right, 0": float("nan")}))
    (verdict,) = read_verdicts(path)
    assert (verdict.outcome, verdict.reason) == (Outcome.UNSCORED, "non-finite")


def test_the_protocol_names_how_items_are_read(tmp_path):
    from palate.records import read_header

    path = judged(best_of_k(tmp_path, rows(1)), tmp_path, ByDigit())
    details = read_header(path, "verdicts").details
    assert details["named"] == "best-of-k"
    assert "each its share" in details["protocol"]["tie_rule"]
    json.dumps(details)
