"""Journals survive what a kill or a full disk leaves; several processes share the questions."""

import errno
from contextlib import closing

import pytest

from palate.evaluate import journal as module
from palate.evaluate.journal import ALONE, Answers, Journal, Shard
from palate.evaluate.run import evaluate
from palate.evaluate.scoring import score_file
from palate.records import read_header, read_verdicts
from palate.types import PalateError, Preference, Score


def fill(path, count, fingerprint="f"):
    with closing(Journal(path, fingerprint)) as kept:
        for number in range(count):
            kept.add(f"k{number}", [number, None, "é"])


def read(path, fingerprint="f"):
    with closing(Journal(path, fingerprint)), closing(Answers([path], fingerprint)) as answers:
        return dict(answers)


def test_answers_come_back(tmp_path):
    fill(tmp_path / "j", 3)
    assert read(tmp_path / "j") == {f"k{n}": [n, None, "é"] for n in range(3)}


@pytest.mark.parametrize("lost", [1, 5, 12])
def test_a_torn_last_line_is_dropped_and_written_over(tmp_path, lost):
    path = tmp_path / "j"
    fill(path, 3)
    path.write_bytes(path.read_bytes()[:-lost])
    assert set(read(path)) == {"k0", "k1"}
    with closing(Journal(path, "f")) as kept:
        kept.add("k2", "again")
    assert read(path) == {"k0": [0, None, "é"], "k1": [1, None, "é"], "k2": "again"}


def test_every_cut_leaves_a_readable_journal(tmp_path):
    fill(tmp_path / "whole", 4)
    whole = (tmp_path / "whole").read_bytes()
    for length in range(len(whole)):
        path = tmp_path / "cut"
        path.write_bytes(whole[:length])
        kept = read(path)
        assert kept == {f"k{n}": [n, None, "é"] for n in range(len(kept))}


def test_a_damaged_line_costs_only_itself(tmp_path):
    path = tmp_path / "j"
    fill(path, 3)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b"\xff\x00{]\n", lines[3]]))
    assert set(read(path)) == {"k0", "k2"}


@pytest.mark.parametrize("first", [b"", b"{}\n", b"[]\n", b"nonsense\n"])
def test_a_damaged_first_line_starts_over(tmp_path, first):
    path = tmp_path / "j"
    path.write_bytes(first + b'["k0",1]\n')
    assert read(path) == {}


def test_another_protocol_starts_over(tmp_path):
    fill(tmp_path / "j", 3)
    assert read(tmp_path / "j", "g") == {}
    assert read(tmp_path / "j", "f") == {}


def test_answers_reach_the_disk_every_few_seconds(tmp_path, monkeypatch):
    now, synced = [0.0], []
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(module.os, "fsync", lambda _number: synced.append(now[0]))
    with closing(Journal(tmp_path / "j", "f")) as kept:
        for second in range(10):
            now[0] = float(second)
            kept.add(str(second), second)
    assert synced == [3.0, 6.0, 9.0, 9.0]


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PalateError, match="cannot be written"):
        fill(tmp_path / "file" / "j", 1)


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    def full(_number):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", full)
    with pytest.raises(PalateError, match=r"j: cannot be written \(No space left on device\)"):
        fill(tmp_path / "j", 1)


def test_answers_by_row_number_are_read_from_their_journals(tmp_path):
    for name, numbers in (("one", (0, 3)), ("two", (4, 1))):
        with closing(Journal(tmp_path / name, "f")) as kept:
            for number in numbers:
                kept.add(str(number), [number, "é"])
    with (tmp_path / "two").open("ab") as file:
        file.write(b'["2",[2,')  # Killed while it wrote.
    found = Answers([tmp_path / "one", tmp_path / "two"], "f", 5)
    assert [str(number) in found for number in range(5)] == [True, True, False, True, True]
    assert len(found) == 4
    assert [found[str(number)] for number in (4, 0, 1, 3)] == [[n, "é"] for n in (4, 0, 1, 3)]
    assert list(found) == ["0", "1", "3", "4"]
    with pytest.raises(KeyError):
        found["2"]
    found.close()


def test_answers_by_row_number_of_another_protocol_are_none(tmp_path):
    with closing(Journal(tmp_path / "j", "f")) as kept:
        kept.add("0", 1)
    found = Answers([tmp_path / "j"], "g", 1)
    assert len(found) == 0
    found.close()


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


def test_a_file_is_not_written_where_another_process_could_not_score_its_part(tmp_path):
    rows = tmp_path / "in.jsonl"
    rows.write_text('{"prompt": "p", "response": "x"}\n' * 4)
    judge, stopped = Judge(), Shard(0, 2, lambda _mine: True)
    with pytest.raises(PalateError, match="another process could not go on"):
        score_file(judge, rows, tmp_path / "out.jsonl", share=stopped)
    assert not (tmp_path / "out.jsonl").exists()
    assert len(list(tmp_path.glob("*.journal.jsonl.0-of-2"))) == 1
    score_file(judge, rows, tmp_path / "out.jsonl")
    assert len(judge.asked) == 4
