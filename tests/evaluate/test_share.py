"""Several processes on one benchmark: each its own part, every answer once, the same file."""

import pytest

from palate.evaluate.journal import ALONE, Shard
from palate.evaluate.run import evaluate
from palate.evaluate.scoring import score_file
from palate.records import read_header, read_verdicts
from palate.types import PalateError, Preference, Score


class Judge:
    """Prefers the longer response and keeps what it was asked; may stop at a given answer."""

    name, protocol = "longer", {"judge": "longer"}

    def __init__(self, stop_at=None):
        self.stop_at, self.asked = stop_at, []

    def judge(self, pairs):
        for pair in pairs:
            if len(self.asked) == self.stop_at:
                raise KeyboardInterrupt
            self.asked.append(pair.id)
            first, second = len(pair.first), len(pair.second)
            choice = "tie" if first == second else "first" if first > second else "second"
            yield Preference(pair.id, choice, first / 3, second / 3)

    def score(self, candidates):
        for shown in candidates:
            self.asked.append(shown.responses)
            yield tuple(Score(len(text) / 3) for text in shown.responses)


def in_turn(ranks, do):
    """Each rank does its part; rank 0 comes last, when no other is to be waited for."""
    return [do(Shard(rank, ranks)) for rank in reversed(range(ranks))][-1]


@pytest.mark.parametrize("order", ["seeded", "both"])
@pytest.mark.parametrize(("rows", "ranks"), [(41, 2), (41, 4), (2, 4)])
def test_pitfall_23_any_number_of_ranks_makes_the_same_verdicts(
    make_benchmark, tmp_path, rows, ranks, order
):
    benchmark, judge = make_benchmark(rows), Judge()
    alone = evaluate(Judge(), benchmark, tmp_path / "alone", order=order)
    shared = in_turn(
        ranks, lambda s: evaluate(judge, benchmark, tmp_path / "shared", order=order, share=s)
    )
    assert list(read_verdicts(shared)) == list(read_verdicts(alone))
    assert read_header(shared).fingerprint == read_header(alone).fingerprint
    assert len(judge.asked) == len(set(judge.asked)) == rows * (2 if order == "both" else 1)
    assert [path.name for path in (tmp_path / "shared").iterdir()] == [shared.name]


def test_pitfall_23_a_killed_run_goes_on_with_other_ranks_and_asks_nothing_twice(
    make_benchmark, tmp_path
):
    benchmark, asked = make_benchmark(60), []
    for share in (Shard(1, 3), Shard(2, 3), Shard(0, 3)):
        judge = Judge(stop_at=7)
        with pytest.raises(KeyboardInterrupt):
            evaluate(judge, benchmark, tmp_path / "shared", share=share)
        asked += judge.asked
    assert len(list((tmp_path / "shared").glob("*.journal.jsonl.?-of-3"))) == 3
    judge = Judge()
    shared = in_turn(2, lambda s: evaluate(judge, benchmark, tmp_path / "shared", share=s))
    asked += judge.asked
    assert len(asked) == len(set(asked)) == 60
    alone = evaluate(Judge(), benchmark, tmp_path / "alone", share=ALONE)
    assert list(read_verdicts(shared)) == list(read_verdicts(alone))


def test_what_one_process_cannot_do_none_goes_on_from():
    def fails():
        raise PalateError("my own trouble")

    done = []
    Shard(any=bool).together(lambda: done.append(1))
    assert done == [1]
    with pytest.raises(PalateError, match="my own trouble"):
        Shard(any=bool).together(fails)
    with pytest.raises(PalateError, match="another process could not go on"):
        Shard(any=lambda _mine: True).together(lambda: done.append(2))
    assert done == [1, 2]


def test_pitfall_23_any_number_of_ranks_writes_the_same_scores(tmp_path):
    rows = tmp_path / "in.jsonl"
    rows.write_text("".join(f'{{"prompt": "p", "response": "{"x" * n}"}}\n' for n in range(17)))
    alone = score_file(Judge(), rows, tmp_path / "alone.jsonl")
    judge = Judge()
    shared = in_turn(3, lambda s: score_file(judge, rows, tmp_path / "shared.jsonl", share=s))
    assert shared.read_bytes() == alone.read_bytes()
    assert len(judge.asked) == 17
    assert not list(tmp_path.glob("*.journal.*"))
