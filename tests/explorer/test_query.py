"""What a query finds, against a plain loop over the comparisons."""

import numpy as np
import pytest

from palate.explorer.index import Texts, open_index
from palate.explorer.query import Place, Query, Selector, neighbours, place_in, read_query
from palate.explorer.queue import Entry, queue_path, write_queue
from palate.records import read_comparisons, read_verdicts


@pytest.fixture(scope="module")
def rows(saved_run):
    return [
        *read_comparisons(saved_run / "benchmarks/exam.parquet"),
        *read_comparisons(saved_run / "mixtures/all.parquet"),
    ]


@pytest.fixture(scope="module")
def outcome(saved_run):
    """Of a judge asked in one order, its outcome by comparison id."""
    outcomes = {}
    for judge in ("helpful", "safe"):
        for verdict in read_verdicts(saved_run / f"verdicts/{judge}--exam.parquet"):
            outcomes[judge, verdict.comparison_id] = verdict.outcome.value
    # The hostile row of the mixture has the same id; no judge was asked it there.
    exam = {c.id: c for c in read_comparisons(saved_run / "benchmarks/exam.parquet")}
    return lambda judge, row, at: outcomes.get((judge, row.id)) if at < len(exam) else None


def text(row):
    return "\n".join([*(m.content for m in row.prompt), row.chosen, row.rejected]).lower()


FILTERS = {
    "rating=better": lambda r, o, n: r.rating == 3,
    "rating=better&rating=slightly": lambda r, o, n: r.rating in (2, 3),
    "source=films&bin=both safe": lambda r, o, n: r.source == "films" and r.bin == "both safe",
    "part=all (mixture)": lambda r, o, n: "practice" in r.chosen or "script" in r.chosen,
    "judge.helpful=wrong": lambda r, o, n: o("helpful", r, n) == "wrong",
    "judge.helpful=correct&judge.safe=wrong": lambda r, o, n: (
        o("helpful", r, n) == "correct" and o("safe", r, n) == "wrong"
    ),
    "judge.safe=unscored": lambda r, o, n: o("safe", r, n) == "unscored",
    "q=SEA salt": lambda r, o, n: "sea" in text(r) and "salt" in text(r),
    'q="sea salt" 12': lambda r, o, n: "sea salt" in text(r) and "12" in text(r),
    "q=answer 7 of&rating=significantly": lambda r, o, n: (
        all(w in text(r) for w in ("answer", "7", "of")) and r.rating == 4
    ),
    "q='; drop table texts --": lambda r, o, n: False,
    "q=%_": lambda r, o, n: False,
}


def query_of(opened, url):
    pairs = [tuple(pair.split("=", 1)) for pair in url.split("&")]
    return read_query(pairs, opened.index)


@pytest.mark.parametrize("url", FILTERS)
def test_a_filter_finds_what_a_loop_finds(opened, rows, outcome, url):
    items = opened.selector.select(query_of(opened, url)).items.tolist()
    part = range(60, 100) if url.startswith("part=") else range(100)
    assert items == [n for n in part if FILTERS[url](rows[n], outcome, n)]
    assert items or "q=" in url


def test_counts_are_of_each_filter_alone(opened, rows):
    counts = opened.selector.select(query_of(opened, "rating=better&source=books")).counts
    books = [row for row in rows if row.source == "books"]
    assert counts["rating"]["negligibly"] == sum(row.rating == 1 for row in books) > 0
    better = [row for row in rows if row.rating == 3]
    assert counts["source"]["films"] == sum(row.source == "films" for row in better)
    assert sum(counts["judge.helpful"].values()) == sum(r.source == "books" for r in better) > 0


def test_judges_that_read_disagree_and_trivial_ones_do_not_count(opened):
    opinions = opened.index.judges
    items = set(opened.selector.select(Query(disagree=True)).items.tolist())
    readers = [opinions[name].outcomes for name in ("chat", "helpful", "safe")]
    assert items == {n for n in range(100) if {1, 2} <= {int(o[n]) for o in readers}}
    assert 0 < len(items) < 60


def test_sorting_by_confidence_puts_the_unscored_last(opened):
    margins = opened.index.judges["helpful"].margins
    surest = opened.selector.select(Query(sort="confident:helpful")).items
    sizes = np.abs(margins[surest])
    assert len(surest) == 100
    assert (np.diff(sizes[:59]) <= 0).all()
    assert np.isnan(sizes[59:]).all()
    least = opened.selector.select(Query(sort="unsure:helpful")).items
    assert (np.diff(np.abs(margins[least])[:59]) >= 0).all()


def test_the_spread_of_judges_does_not_depend_on_their_scales(opened):
    first = opened.selector.select(Query(sort="spread")).items[0]
    opinions = [opened.index.judges[n].margins for n in ("chat", "helpful", "safe")]
    scaled = np.stack([m / np.sqrt(np.nanmean(m.astype(float) ** 2)) for m in opinions])
    ranges = np.nanmax(scaled[:, :60], axis=0) - np.nanmin(scaled[:, :60], axis=0)
    assert ranges[first] == pytest.approx(ranges.max(), rel=1e-5)


@pytest.mark.parametrize(
    "hostile",
    ["judge.nobody=wrong", "judge.helpful=' OR 1", "sort=confident:nobody", "rating=great",
     "marked=maybe", "page=-1", "page=९", "page=99999999999999999999", "q=", "nothing=at all",
     'q="', "q='", "q=\x00", "q=\udc80"],
)  # fmt: skip
def test_what_names_nothing_is_left_out(opened, hostile):
    query = query_of(opened, hostile)
    assert query.page == 1
    items = opened.selector.select(query).items
    assert query.search or len(items) == 100


def test_a_query_is_its_url(opened):
    query = query_of(opened, "rating=better&rating=slightly&judge.safe=wrong&q=a b&sort=spread")
    query = query_of(opened, "&".join(map("=".join, query.pairs())))
    assert query.url(3).endswith("page=3")
    assert query.without("rating", "better").values("rating") == ("slightly",)
    assert query.without("q", "a b").search == ""


def test_a_blind_query_keeps_nothing_that_tells_of_labels_or_scores(opened):
    query = query_of(
        opened, "rating=better&bin=both safe&judge.safe=wrong&sort=spread&disagree=yes"
        "&marked=agree&source=books&q=bread",
    )  # fmt: skip
    assert query.blind().pairs() == [("source", "books"), ("q", "bread")]


def test_neighbours():
    items = np.array([7, 2, 9], dtype=np.int32)
    assert neighbours(items, 2) == (7, 9, 1)
    assert neighbours(items, 7) == (None, 2, 0)
    assert neighbours(items, 5) == (None, None, -1)


def test_excerpts_are_the_same_before_and_after_the_texts_are_read(saved_run):
    fresh = Texts(open_index(saved_run))
    before = fresh.excerpts([99, 3, 60])
    assert before[1] == "exam question 3 about Sea Salt?"
    fresh.find("bread")
    assert fresh.excerpts([99, 3, 60]) == before


def test_a_queue_is_shown_in_its_own_order_and_narrowed_like_any_list(run, rows):
    wanted = [rows[7], rows[2], rows[70], rows[2]]
    entries = [Entry(row.id, f"because {n}", n / 4 or None) for n, row in enumerate(wanted)]
    write_queue(queue_path(run, "first"), [*entries, Entry("not here")], scored_by="worth")
    (run / "queues" / "broken.parquet").write_bytes(b"PAR1")
    index = open_index(run)
    assert len(index.problems) == 2
    assert "broken.parquet" in index.problems[0]
    assert index.problems[1].endswith("first.parquet: 1 of its comparisons are not in this run")
    selector = Selector(index)
    assert selector.select(Query(queue="first")).items.tolist() == [7, 2, 70]
    among = selector.select(Query((("part", "exam"),), queue="first"))
    assert among.items.tolist() == [7, 2]
    assert among.counts["part"] == {"exam": 2, "all (mixture)": 1}
    sorted_by = selector.select(Query(queue="first", sort="confident:helpful")).items
    assert sorted(sorted_by.tolist()) == [2, 7, 70]
    assert place_in(index, "first", 2) == Place("first", 2, 3, "because 1", 0.25, "worth")
    first = place_in(index, "first", 7)
    assert (first.number, first.score) == (1, None)
    assert place_in(index, "first", 3) is place_in(index, "", 7) is None
    assert read_query([("queue", "none")], index) == Query()
    query = read_query([("queue", "first")], index)
    assert query.blind() == query
    assert query.url() == "?queue=first"
