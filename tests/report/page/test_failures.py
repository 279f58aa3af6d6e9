"""Which failures a page shows, how they are told apart, compared and grouped."""

import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar

import hostile
import numpy as np

from palate.evaluate.benchmark import Benchmark
from palate.evaluate.run import evaluate
from palate.judges.scorer import ScorerJudge
from palate.records import write_items
from palate.report import Report, report, write_page
from palate.report.page.failures import (
    CONFIDENT_WRONG,
    DISAGREEMENT,
    MAX_ITEMS,
    MOST_RESPONSES,
    clusters,
    failure_section,
    select_failures,
)
from palate.types import BenchmarkItem, Candidates, Message, Score


def test_the_surest_wrong_verdicts_come_first(hostile_report: Report) -> None:
    chosen = select_failures(hostile_report.judged, hostile_report.items)
    for votes in hostile_report.judged.votes.values():
        wrong = np.flatnonzero(votes.values == 0)
        odds = np.abs(votes.orders.log_odds)
        surest = {str(votes.ids[i]) for i in wrong[np.argsort(-odds[wrong])][:5]}
        blamed = {f.row.id for f in chosen.failures if votes.judge in f.blamed}
        assert surest <= blamed
    assert len(chosen.failures) <= MAX_ITEMS
    tallies = list(hostile_report.judged.votes.values())
    assert chosen.wrong == sum(int((t.values == 0).sum()) for t in tallies)


def test_every_failure_is_one(hostile_report: Report) -> None:
    for failure in select_failures(hostile_report.judged, hostile_report.items).failures:
        outcomes = {v.judge: v.outcome for v in failure.verdicts}
        assert all(outcomes[judge] == "wrong" for judge in failure.blamed)
        if DISAGREEMENT in failure.reasons:
            assert {"correct", "wrong"} <= set(outcomes.values())
        assert (CONFIDENT_WRONG in failure.reasons) == bool(failure.blamed)


def test_every_rating_and_bin_has_items_behind_its_cells(hostile_report: Report) -> None:
    shown = failure_section(select_failures(hostile_report.judged, hostile_report.items))
    linked = 0
    for name in ("table-7", "table-8", "table-29"):
        for cell in hostile_report.table(name).cells():
            if not cell.behind or cell.estimate.value == 1:
                continue
            query = shown.link(dict(cell.behind))
            tags = [part.split("=") for part in query.split("&")]
            assert any(all(t in e.tags[k].split() for k, t in tags) for e in shown.items)
            linked += 1
    assert linked >= 14
    assert shown.link({"judge": "nobody", "benchmark": "bench"}) == ""


def test_filters_count_what_they_show(hostile_report: Report) -> None:
    shown = failure_section(select_failures(hostile_report.judged, hostile_report.items))
    names = {choice.name for choice in shown.filters}
    assert {"outcome", "rating", "bin", "kind"} <= names
    for choice in shown.filters:
        for tag, _, n in choice.options:
            assert n == sum(tag in item.tags[choice.name].split() for item in shown.items) > 0


def test_without_comparisons_there_are_no_failures(made: Report) -> None:
    assert select_failures(made.judged, made.items).failures == ()


def test_clusters_put_like_with_like_and_are_the_same_twice() -> None:
    about = {
        "bread": "bake bread flour oven dough yeast",
        "python": "python list loop function variable code",
        "travel": "flight hotel passport airport luggage ticket",
        "garden": "tomato seeds watering soil sunlight pruning",
        "music": "guitar chords melody rhythm singing concert",
    }
    rng = random.Random(0)
    texts = [" ".join(rng.sample(words.split(), 4)) for _ in range(12) for words in about.values()]
    names = clusters(texts)
    assert names == clusters(texts)
    groups = {
        name: {i % len(about) for i, one in enumerate(names) if one == name} for name in names
    }
    assert len(groups) >= 3
    assert sum(map(len, groups.values())) == len(about), "no subject is in two clusters"
    for name, subjects in groups.items():
        words = {w for number in subjects for w in list(about.values())[number].split()}
        assert set(name.split(", ")) <= words


def test_too_few_or_empty_texts_are_one_cluster(tmp_path: Path) -> None:
    assert clusters(["a question"] * 3) == ["all"] * 3
    assert clusters([""] * 40) == ["all"] * 40
    assert clusters([]) == []


class ByLength:
    """Scores a response by its length, the longer the higher or, with -1, the lower."""

    protocol: ClassVar = {"judge": "reward-model"}

    def __init__(self, name: str, sign: float) -> None:
        self.name, self.sign = name, sign

    def score(self, candidates: Iterable[Candidates]) -> Iterator[tuple[Score, ...]]:
        for shown in candidates:
            yield tuple(Score(self.sign * len(text) / 4) for text in shown.responses)


def test_an_item_of_k_is_shown_whole_with_all_scores_and_nothing_in_it_runs(tmp_path: Path) -> None:
    def item(n: int, responses: tuple[str, ...], places: tuple[int, ...]) -> BenchmarkItem:
        prompt = (Message("user", f"{n} {hostile.ALL[n]}"),)
        labels = (hostile.SCRIPT, *map(str, places[1:]))
        return BenchmarkItem(
            f"i{n}", hostile.IMAGE, prompt, responses, places, f"p{n}", labels=labels
        )

    def of_four(n: int) -> tuple[str, ...]:
        return (f"{hostile.ALL[n]} longest of all", f"{n} a", f"{n} b", f"{n}")

    items = [item(n, of_four(n), (0, 1, 1, 1)) for n in range(6)]
    items.append(item(6, ("aa", "bb", "c"), (0, 1, 1)))  # Two scored alike: one half is right.
    items.append(item(7, tuple("x" * k for k in range(1, 31)), (0, *[1] * 29)))
    path = tmp_path / "benchmarks" / "bench.parquet"
    write_items(path, items)
    for judge in (ByLength("long", 1.0), ByLength("short", -1.0)):
        evaluate(ScorerJudge(judge), Benchmark("bench", path), tmp_path / "verdicts")

    made = report(tmp_path, out=tmp_path / "out")
    sample = select_failures(made.judged, made.items)
    blamed = {f.row.id: f.blamed for f in sample.failures}
    assert blamed == {**{f"i{n}": ("short",) for n in range(6)}, "i6": ("short",), "i7": ("long",)}
    assert (sample.wrong, sample.disagreements) == (8, 7)
    assert sample.wrong == sum(r.counts.wrong for r in made.judged.all())
    in_part = next(f for f in sample.failures if f.row.id == "i6")
    assert in_part.scores == {"long": [0.5, 0.5, 0.25], "short": [-0.5, -0.5, -0.25]}

    views = failure_section(sample).items
    shown = {f.row.id: view for f, view in zip(sample.failures, views, strict=True)}
    assert [(v.judge, v.words) for v in shown["i6"].verdicts] == [
        ("long", "50 % right"), ("short", "wrong"),
    ]  # fmt: skip
    of_three = shown["i6"].scores
    assert of_three.judges == ("long", "short")
    assert [scores for _, scores in of_three.rows] == [
        (("0.50", True), ("−0.50", False)), (("0.50", True), ("−0.50", False)),
        (("0.25", False), ("−0.25", True)),
    ]  # fmt: skip
    assert len(shown["i7"].responses) == MOST_RESPONSES
    assert shown["i7"].scores.left_out == 6
    assert {"1 · Right", "30 · Wrong"} <= {
        one.title[:10].rstrip(" ·") for one in shown["i7"].responses
    }

    page = write_page(made).read_text()
    assert "50 % right" in page
    for text in (hostile.SCRIPT, hostile.IMAGE, hostile.CLOSING):
        assert text not in page
    sources = {row.cells[2].value for row in made.table("parts").rows}
    assert sources == {"length difference"}, "one turn and one source are no parts"
