"""Items of K in the explorer: the list and its counts, the page of one, search, and marks."""

from pathlib import Path

import pytest

import choices
import published
from palate.data.benchmarks import import_benchmark
from palate.data.sources.base import Request
from palate.evaluate.benchmark import Benchmark
from palate.evaluate.run import evaluate
from palate.explorer.annotations import export_annotations, measure_agreement
from palate.explorer.index import TIE, UNDECIDED, open_index, read_item
from palate.explorer.pages import live_texts
from palate.explorer.query import Query
from palate.explorer.run import OpenRun, Viewer
from palate.judges import open_judge
from palate.types import BenchmarkItem, PalateError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with items of four and with experts' votes on two, in which turns are their own."""
    run = choices.write_run(tmp_path_factory.mktemp("choices") / "run")
    votes = [published.vote("tie", turn=2), published.vote("model_a", question=82)]
    path = run / "benchmarks" / "mt-bench-human.parquet"
    file = published.write_rows(run / "votes.json", votes)
    import_benchmark("mt-bench-human", path, Request(file), partial=True)
    evaluate(open_judge("longer"), Benchmark("mt-bench-human", path), run / "verdicts")
    return run


@pytest.fixture
def items(folder: Path, tmp_path: Path) -> OpenRun:
    return OpenRun(folder, tmp_path / "marks.sqlite")


def test_filters_count_items_of_k_by_what_became_of_them(items: OpenRun) -> None:
    counts = items.selector.select(Query()).counts
    assert counts["part"] == {"mt-bench-human": 2, "rewardbench-2": 40}
    assert counts["source"]["Factuality"] == counts["source"]["Math"] == 20
    outcomes = counts["judge.poor"]
    assert {name: outcomes[name] for name in ("correct", "wrong", "tie", "unscored")} == {
        "correct": 19, "wrong": 19, "tie": 0, "unscored": 2,
    }  # fmt: skip
    chosen = Query(filters=(("judge.good", "wrong"), ("source", "Factuality")))
    assert len(items.selector.select(chosen).items) == 10
    # Where the wrong responses are of one length, and longest, none of the top is right.
    assert counts["judge.longer"]["wrong"] >= 20
    assert not (items.index.judges["longer"].outcomes[2:] == TIE).any()
    assert (items.index.judges["longer"].outcomes == UNDECIDED).sum() == 1


def test_every_response_is_searched(items: OpenRun) -> None:
    assert len(items.selector.select(Query(search='"wrong 2 of math 7"')).items) == 1
    assert len(items.selector.select(Query(search='"alpaca goes"')).items) == 2, "own turns too"


def test_an_item_has_its_responses_scores_and_truth(items: OpenRun) -> None:
    number = items.index.first_items(["rewardbench-2/Math/7"])["rewardbench-2/Math/7"][0]
    item = read_item(items.index, number)
    assert isinstance(item.row, BenchmarkItem)
    assert item.scores["good"] == (5.0, 4.0, 3.0, 2.0)
    assert (item.values["good"], item.values["longer"]) == (1.0, 0.0)


def test_the_page_shows_all_of_it(items: OpenRun, browse) -> None:
    browser = browse(items)
    number = items.index.first_items(["rewardbench-2/Math/7"])["rewardbench-2/Math/7"][0]
    page = browser.get(f"/r/0/item/{number}").text
    assert page.count('<section class="side chosen"') == 1
    assert page.count('<section class="side rejected"') == 3
    for text in ("right 7", "wrong 2 of Math 7", "1 · Right", "model-3", "Best right"):
        assert text in page
    assert "\u22120.00" not in page, "first position's best"
    assert page.count("▲") - 1 == 8, "six judges' highest, of which longer has three alike"
    assert 'name="choice"' not in page
    listed = browser.get("/r/0/?part=rewardbench-2").text
    assert "<strong>40</strong> of 42" in listed


def test_blind_nothing_tells_the_truth(items: OpenRun, browse) -> None:
    browser = browse(items, blind=True)
    numbers = items.index.first_items([f"rewardbench-2/Math/{n}" for n in range(1, 20, 2)])
    orders = set()
    for number, _ in numbers.values():
        page = browser.get(f"/r/0/item/{number}").text
        for word in ("Right", "Wrong", "▲", "model-", 'class="side chosen"', "Best right"):
            assert word not in page
        sections = page.split('<section class="side "')[1:]
        assert len(sections) == 4
        orders.add(["right " in section for section in sections].index(True))
    assert len(orders) > 1, "the right one does not always stand first"


def test_items_of_k_take_notes_and_no_choice(items: OpenRun, browse, tmp_path: Path) -> None:
    browser = browse(items)
    number, _ = items.index.first_items(["rewardbench-2/Math/7"])["rewardbench-2/Math/7"]
    form = {"choice": "disagree", "rating": "4", "note": "two are right"}
    origin = {"origin": "http://127.0.0.1:4321"}
    sent = browser.post(f"/r/0/item/{number}/mark", data=form, headers=origin)
    assert sent.status_code == 200
    (kept,) = items.annotations.all()
    assert (kept.choice, kept.rating, kept.note) == ("", None, "two are right")
    assert "two are right" in browser.get(f"/r/0/item/{number}").text
    seen = items.select(Query(marked="yes"), Viewer("ann", blind=False))
    assert seen.items.tolist() == [number]
    agreement = measure_agreement(items.index, [kept])
    assert (agreement.judges, agreement.absent) == ((), 0)
    with pytest.raises(PalateError, match="none of 1 marks prefers a response"):
        export_annotations(items.index, [kept], tmp_path / "marks.parquet")


def test_two_of_its_responses_are_tried_live(items: OpenRun, browse) -> None:
    number, _ = items.index.first_items(["rewardbench-2/Math/7"])["rewardbench-2/Math/7"]
    assert browse(items).get(f"/r/0/live?item={number}").status_code == 200
    prompt, first, second = live_texts(read_item(items.index, number).row)
    assert [turn.content for turn in prompt] == ["Question 3?"]
    assert (first, second) == ("right 7", "wrong 0 of Math 7")


def test_a_benchmark_that_was_cut_is_named_and_the_rest_is_shown(folder: Path, tmp_path) -> None:
    import shutil

    run = Path(shutil.copytree(folder, tmp_path / "run"))
    path = run / "benchmarks" / "rewardbench-2.parquet"
    path.write_bytes(path.read_bytes()[:-300])
    index = open_index(run)
    assert [part.name for part in index.parts] == ["mt-bench-human"]
    assert str(path) in index.problems[0]
    assert all("\n" not in problem for problem in index.problems)
