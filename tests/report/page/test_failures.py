"""Which failures a page shows, how they are told apart, compared and grouped."""

import random
from pathlib import Path

import numpy as np

from palate.report import Report
from palate.report.page.failures import (
    CONFIDENT_WRONG,
    DISAGREEMENT,
    MAX_ITEMS,
    clusters,
    failure_section,
    select_failures,
)


def test_the_surest_wrong_verdicts_come_first(hostile_report: Report) -> None:
    chosen = select_failures(hostile_report.judged, hostile_report.items)
    for votes in hostile_report.judged.votes.values():
        wrong = np.flatnonzero(votes.values == 0)
        odds = np.abs(votes.orders.log_odds)
        surest = {str(votes.ids[i]) for i in wrong[np.argsort(-odds[wrong])][:5]}
        blamed = {f.comparison.id for f in chosen.failures if votes.judge in f.blamed}
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
