"""What stands is kept where it holds: only what is missing is asked."""

import json

import pytest

from older import downgrade
from palate.evaluate.metrics import read_judge_results
from palate.evaluate.run import evaluate
from palate.records import read_header, read_verdicts
from palate.types import PalateError, Preference


class Speaker:
    """Prefers the first side, says so, and keeps what it was asked; may stop at an answer."""

    name = "speaker"

    def __init__(self, stop_at=None, **protocol):
        self.stop_at, self.asked = stop_at, []
        self.protocol = {"judge": "speaker", **protocol}

    def judge(self, pairs):
        for pair in pairs:
            if len(self.asked) == self.stop_at:
                raise KeyboardInterrupt
            self.asked.append(pair.id)
            answer = f"A, for {pair.first!r}\x00\ud800"
            yield Preference(pair.id, "first", 0.75, 0.25, answer=answer, seconds=0.5)


def notes_of(judge, benchmark, folder, **options):
    said = []
    evaluate(
        judge, benchmark, folder, progress=lambda _, __, note: said.append(note or None), **options
    )
    return [note for note in said if note]


def test_words_and_seconds_are_kept_also_by_a_run_that_was_stopped(make_benchmark, tmp_path):
    benchmark = make_benchmark(6)
    whole = evaluate(Speaker(), benchmark, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        evaluate(Speaker(stop_at=4), benchmark, tmp_path / "cut")
    cut = evaluate(Speaker(), benchmark, tmp_path / "cut")
    verdicts = list(read_verdicts(cut))
    assert verdicts == list(read_verdicts(whole))
    for item, verdict in zip(benchmark.items(), verdicts, strict=True):
        assert verdict.answer == f"A, for {item.pair.first!r}\x00\\ud800"
        assert verdict.seconds == 0.5


def test_an_earlier_format_is_brought_up_to_date_without_a_question(make_benchmark, tmp_path):
    benchmark = make_benchmark(7)
    path = evaluate(Speaker(), benchmark, tmp_path)
    before = read_judge_results(path)
    downgrade(path)
    with pytest.raises(PalateError, match="evaluate again, its answers are kept"):
        read_judge_results(path)
    again = Speaker()
    said = notes_of(again, benchmark, tmp_path)
    assert said == ["judged again: written in format 1", "continued: 7 answers were kept"]
    assert again.asked == []
    assert list(read_judge_results(path).values) == list(before.values)
    assert {v.answer for v in read_verdicts(path)} == {""}


def test_the_other_order_is_all_that_is_asked_when_both_are_wanted(make_benchmark, tmp_path):
    benchmark = make_benchmark(7)
    evaluate(Speaker(), benchmark, tmp_path / "a")
    more = Speaker()
    said = notes_of(more, benchmark, tmp_path / "a", order="both")
    assert said == ["judged again: the protocol changed (order)", "continued: 7 answers were kept"]
    assert len(more.asked) == 7
    both = evaluate(Speaker(), benchmark, tmp_path / "b", order="both")
    path = tmp_path / "a" / both.name
    assert list(read_verdicts(path)) == list(read_verdicts(both))
    assert read_header(path).fingerprint == read_header(both).fingerprint
    fewer = Speaker()
    evaluate(fewer, benchmark, tmp_path / "a", order="seeded")
    assert fewer.asked == []
    assert read_header(path).rows == 7


@pytest.mark.parametrize("change", [{"seed": 1}, {"limit": 3}, {"rows": 8}])
def test_answers_to_other_questions_are_not_kept(make_benchmark, tmp_path, change):
    evaluate(Speaker(), make_benchmark(7), tmp_path)
    judge = Speaker(**({"limit": 3} if "limit" in change else {}))
    benchmark = make_benchmark(change.get("rows", 7))
    evaluate(judge, benchmark, tmp_path, seed=change.get("seed", 0))
    assert len(judge.asked) == benchmark.rows


def test_a_file_cut_in_half_is_said_and_made_again(make_benchmark, tmp_path):
    benchmark = make_benchmark(7)
    path = evaluate(Speaker(), benchmark, tmp_path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    judge = Speaker()
    (said,) = notes_of(judge, benchmark, tmp_path)
    assert "judged again: " in said
    assert "not a whole Parquet file" in said
    assert len(judge.asked) == 7
    assert len(list(read_verdicts(path))) == 7


def test_rows_that_are_damaged_under_a_whole_header_are_asked_again(make_benchmark, tmp_path):
    benchmark = make_benchmark(40)
    path = evaluate(Speaker(), benchmark, tmp_path)
    held = path.read_bytes()
    path.write_bytes(held[:4] + b"\xff" * 400 + held[404:])
    with pytest.raises(PalateError, match="remove it and evaluate again"):
        read_judge_results(path)
    judge = Speaker()
    evaluate(judge, benchmark, tmp_path, order="both")
    assert len(judge.asked) == 80


def test_the_journal_of_an_earlier_palate_goes_on(make_benchmark, tmp_path):
    benchmark = make_benchmark(5)
    with pytest.raises(KeyboardInterrupt):
        evaluate(Speaker(stop_at=3), benchmark, tmp_path)
    (kept,) = tmp_path.glob("*.journal.jsonl")
    header, *lines = kept.read_text().splitlines()
    short = [json.dumps([key, record[:5]]) for key, record in map(json.loads, lines)]
    kept.write_text("\n".join([header, *short]) + "\n")
    judge = Speaker()
    path = evaluate(judge, benchmark, tmp_path)
    assert len(judge.asked) == 2
    assert [bool(v.answer) for v in read_verdicts(path)] == [False] * 3 + [True] * 2
