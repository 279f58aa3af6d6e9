"""Judging a benchmark: labels put back, protocols, resuming; records; what existing files keep."""

import json
import math
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from older import downgrade
from palate.evaluate.metrics import read_judge_results
from palate.evaluate.run import evaluate, record_from, record_of, slug, verdict_of
from palate.judges import open_judge
from palate.records import read_header, read_verdicts, write_comparisons
from palate.types import Outcome, Pair, PalateError, Preference


class Recorder:
    """Prefers the longer response and keeps what it was asked; may stop at a given answer."""

    def __init__(self, name="recorder", stop_at=None, **protocol):
        self.name, self.stop_at, self.asked = name, stop_at, []
        self.protocol = {"judge": "recorder", **protocol}

    def judge(self, pairs):
        for pair in pairs:
            if self.stop_at is not None and len(self.asked) >= self.stop_at:
                raise KeyboardInterrupt
            self.asked.append(pair)
            first, second = len(pair.first) / 3, len(pair.second) / 3
            choice = "tie" if first == second else "first" if first > second else "second"
            yield Preference(pair.id, choice, first, second)


class Answers:
    """Gives one and the same answer to every pair."""

    name = "answers"

    def __init__(self, choice, **fields):
        self.choice, self.fields = choice, fields
        self.protocol = {"judge": "answers"}

    def judge(self, pairs):
        return (Preference(pair.id, self.choice, **self.fields) for pair in pairs)


class Notes(list):
    def __call__(self, done, total, note):
        if note:
            self.append(note)


def outcomes(path):
    return [verdict.outcome for verdict in read_verdicts(path)]


def test_a_verdict_puts_the_label_back(make_benchmark, tmp_path):
    benchmark = make_benchmark(40)
    path = evaluate(Recorder(), benchmark, tmp_path / "v", seed=5)
    items = list(benchmark.items(5))
    for item, verdict in zip(items, read_verdicts(path), strict=True):
        chosen, rejected = len(item.comparison.chosen), len(item.comparison.rejected)
        expected = (
            Outcome.TIE if chosen == rejected else
            Outcome.CORRECT if chosen > rejected else Outcome.WRONG
        )  # fmt: skip
        assert verdict.outcome == expected
        assert (verdict.chosen_score, verdict.rejected_score) == (chosen / 3, rejected / 3)
        assert verdict.comparison_id == item.comparison.id
        assert (verdict.cluster, verdict.source) == (item.comparison.prompt_id, "made")
        assert (verdict.rating, verdict.bin) == (item.comparison.rating, item.comparison.bin)
        assert verdict.chosen_first == item.chosen_first
        assert (verdict.chosen_length, verdict.rejected_length) == (chosen, rejected)


def test_pitfall_28_the_file_carries_its_whole_protocol(make_benchmark, tmp_path):
    benchmark = make_benchmark(6)
    path = evaluate(Recorder("a/b c", limit=9), benchmark, tmp_path, seed=2, order="both")
    assert path == tmp_path / "a-b-c--made.parquet"
    header = read_header(path, "verdicts")
    details = header.details
    assert header.inputs == {"benchmark": benchmark.fingerprint}
    assert (details["judge"], details["benchmark"]) == ("a/b c", "made")
    assert details["paper_column"] is None
    assert details["protocol"]["judge"] == {"name": "a/b c", "judge": "recorder", "limit": 9}
    assert details["protocol"]["benchmark"] == benchmark.fingerprint
    assert (details["protocol"]["order"], details["protocol"]["seed"]) == ("both", 2)
    assert "tie" in details["protocol"]["tie_rule"]
    assert {v.protocol for v in read_verdicts(path)} == {details["protocol_fingerprint"]}
    assert sum(details["outcomes"].values()) == 12


def test_the_judge_is_handed_pairs_and_no_label(make_benchmark, tmp_path):
    judge = Recorder()
    evaluate(judge, make_benchmark(10), tmp_path)
    assert {type(pair) for pair in judge.asked} == {Pair}


def test_a_judge_that_always_picks_one_side_gets_half(make_benchmark, tmp_path):
    path = evaluate(open_judge("first"), make_benchmark(600), tmp_path)
    share = outcomes(path).count(Outcome.CORRECT) / 600
    assert abs(share - 0.5) < 3 * math.sqrt(0.25 / 600)


def test_pitfall_26_position_bias_is_exactly_half_in_both_orders(make_benchmark, tmp_path):
    path = evaluate(open_judge("first"), make_benchmark(30), tmp_path, order="both")
    assert outcomes(path).count(Outcome.CORRECT) == 30
    assert len(outcomes(path)) == 60


@pytest.mark.parametrize("order", ["seeded", "both"])
@pytest.mark.parametrize("name", ["random", "longer", "shorter", "first"])
def test_every_trivial_judge_answers_every_item(make_benchmark, tmp_path, name, order):
    path = evaluate(open_judge(name), make_benchmark(25), tmp_path, order=order)
    assert len(outcomes(path)) == (50 if order == "both" else 25)


def test_pitfall_25_ties_and_unscored_are_outcomes_of_their_own(make_benchmark, tmp_path):
    benchmark = make_benchmark(4)
    tied = evaluate(Answers("tie"), benchmark, tmp_path / "a")
    assert outcomes(tied) == [Outcome.TIE] * 4
    missing = evaluate(Answers(None, reason="too long", truncated=True), benchmark, tmp_path / "b")
    assert outcomes(missing) == [Outcome.UNSCORED] * 4
    assert {(v.reason, v.truncated) for v in read_verdicts(missing)} == {("too long", True)}
    assert read_header(missing).details["outcomes"]["unscored"] == 4


@pytest.mark.parametrize("value", [math.nan, math.inf, np.float32("nan")])
def test_a_score_that_is_not_finite_is_unscored(make_benchmark, tmp_path, value):
    judge = Answers("first", first_score=value, second_score=0.0)
    path = evaluate(judge, make_benchmark(2), tmp_path)
    assert {(v.outcome, v.reason, v.chosen_score) for v in read_verdicts(path)} == {
        (Outcome.UNSCORED, "non-finite", None)
    }


def test_a_finished_file_is_not_asked_again(make_benchmark, tmp_path):
    benchmark, notes = make_benchmark(5), Notes()
    path = evaluate(Recorder(), benchmark, tmp_path)
    before = path.read_bytes()
    again = Recorder()
    assert evaluate(again, benchmark, tmp_path, progress=notes) == path
    assert again.asked == []
    assert notes == ["already judged"]
    assert path.read_bytes() == before


def test_pitfall_28_another_protocol_is_judged_again_and_said(make_benchmark, tmp_path):
    benchmark, notes = make_benchmark(5), Notes()
    evaluate(Recorder(max_tokens=512), benchmark, tmp_path)
    judge = Recorder(max_tokens=1024)
    path = evaluate(judge, benchmark, tmp_path, seed=1, progress=notes)
    assert len(judge.asked) == 5
    assert notes == ["judged again: the protocol changed (judge.max_tokens, seed)"]
    assert read_header(path).details["protocol"]["seed"] == 1


def test_a_changed_benchmark_is_judged_again(make_benchmark, tmp_path):
    evaluate(Recorder(), make_benchmark(5), tmp_path)
    judge, notes = Recorder(), Notes()
    evaluate(judge, make_benchmark(6), tmp_path, progress=notes)
    assert len(judge.asked) == 6
    assert notes == ["judged again: the protocol changed (benchmark)"]


def test_an_interrupted_run_asks_only_what_is_missing(make_benchmark, tmp_path):
    benchmark = make_benchmark(20)
    whole = evaluate(Recorder(), benchmark, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        evaluate(Recorder(stop_at=7), benchmark, tmp_path / "cut")
    assert list((tmp_path / "cut").glob("*.parquet")) == []
    rest, notes = Recorder(), Notes()
    path = evaluate(rest, benchmark, tmp_path / "cut", progress=notes)
    assert len(rest.asked) == 13
    assert notes == ["continued: 7 answers were kept"]
    assert list(read_verdicts(path)) == list(read_verdicts(whole))
    assert read_header(path).fingerprint == read_header(whole).fingerprint
    assert [p.name for p in (tmp_path / "cut").iterdir()] == ["recorder--made.parquet"]


def test_a_journal_cut_in_half_loses_only_the_other_half(make_benchmark, tmp_path):
    benchmark = make_benchmark(20)
    with pytest.raises(KeyboardInterrupt):
        evaluate(Recorder(stop_at=16), benchmark, tmp_path)
    (kept,) = tmp_path.glob("*.journal.jsonl")
    kept.write_bytes(kept.read_bytes()[: kept.stat().st_size // 2])
    rest = Recorder()
    path = evaluate(rest, benchmark, tmp_path)
    assert 10 < len(rest.asked) < 16
    assert len({v.comparison_id for v in read_verdicts(path)}) == 20


def test_a_journal_of_another_protocol_is_not_used(make_benchmark, tmp_path):
    benchmark = make_benchmark(8)
    with pytest.raises(KeyboardInterrupt):
        evaluate(Recorder(stop_at=4), benchmark, tmp_path)
    other = Recorder(max_tokens=3)
    evaluate(other, benchmark, tmp_path)
    assert len(other.asked) == 8


KILLED = """
    import sys, time
    from pathlib import Path
    from palate.evaluate.benchmark import Benchmark
    from palate.evaluate.run import evaluate
    from palate.types import Preference

    class Slow:
        name, protocol = "slow", {"judge": "slow"}
        def judge(self, pairs):
            for number, pair in enumerate(pairs):
                if number == 9:
                    sys.stdout.write("nine\\n"); sys.stdout.flush(); time.sleep(60)
                yield Preference(pair.id, "first", 1.0, 0.0)

    evaluate(Slow(), Benchmark("made", Path(sys.argv[1])), Path(sys.argv[2]))
"""


def test_kill_minus_nine_keeps_every_answer(make_benchmark, tmp_path):
    benchmark = make_benchmark(12)
    command = [sys.executable, "-c", textwrap.dedent(KILLED), benchmark.path, tmp_path / "v"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as running:
        assert running.stdout.readline() == b"nine\n"
        os.kill(running.pid, signal.SIGKILL)
    rest = Recorder("slow")
    rest.protocol = {"judge": "slow"}
    path = evaluate(rest, benchmark, tmp_path / "v")
    assert len(rest.asked) == 3
    assert len(outcomes(path)) == 12


def test_pitfall_23_every_item_is_judged_once_across_chunks(make_benchmark, tmp_path, monkeypatch):
    monkeypatch.setattr("palate.evaluate.run.PAIRS_PER_CALL", 7)
    benchmark, judge = make_benchmark(50), Recorder()
    path = evaluate(judge, benchmark, tmp_path)
    asked = [item.comparison.id for item in benchmark.items()]
    assert [v.comparison_id for v in read_verdicts(path)] == asked
    assert read_header(path).rows == 50
    assert len(judge.asked) == 50


def test_a_benchmark_of_one_row(make_benchmark, tmp_path):
    assert len(outcomes(evaluate(Recorder(), make_benchmark(1), tmp_path))) == 1


def test_an_empty_benchmark_is_one_line(tmp_path):
    from palate.evaluate.benchmark import Benchmark

    write_comparisons(tmp_path / "e.parquet", [])
    with pytest.raises(PalateError, match="holds no comparisons"):
        evaluate(Recorder(), Benchmark("empty", tmp_path / "e.parquet"), tmp_path / "v")
    assert not (tmp_path / "v").exists()


def test_a_folder_that_cannot_be_written_is_one_line(make_benchmark, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PalateError, match="cannot be written"):
        evaluate(Recorder(), make_benchmark(2), tmp_path / "file")


def test_a_broken_verdict_file_is_made_again(make_benchmark, tmp_path):
    benchmark = make_benchmark(5)
    path = evaluate(Recorder(), benchmark, tmp_path)
    path.write_bytes(path.read_bytes()[:100])
    evaluate(Recorder(), benchmark, tmp_path)
    assert len(outcomes(path)) == 5


def test_two_judges_that_would_share_a_file_are_an_error(make_benchmark, tmp_path):
    benchmark = make_benchmark(2)
    evaluate(Recorder("a/b"), benchmark, tmp_path)
    with pytest.raises(PalateError, match="rename one judge"):
        evaluate(Recorder("a b"), benchmark, tmp_path)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (lambda pairs: iter(()), "expected an answer to pair .*, got no answer"),
        (lambda pairs: (Preference(p.id, "first") for p in reversed(pairs)), "got one to"),
        (lambda pairs: (Preference(p.id, "A") for p in pairs), "tie or None, got 'A'"),
    ],
)
def test_a_judge_that_breaks_the_protocol_is_one_line(make_benchmark, tmp_path, answers, message):
    judge = Recorder()
    judge.judge = answers
    with pytest.raises(PalateError, match=message):
        evaluate(judge, make_benchmark(3), tmp_path)
    assert list(tmp_path.glob("recorder*.parquet")) == []


def test_a_protocol_that_is_not_json_is_one_line(make_benchmark, tmp_path):
    with pytest.raises(PalateError, match="must be JSON values"):
        evaluate(Recorder(device=object()), make_benchmark(2), tmp_path)


def test_an_unknown_order_is_one_line(make_benchmark, tmp_path):
    with pytest.raises(PalateError, match="expected seeded or both, got 'random'"):
        evaluate(Recorder(), make_benchmark(2), tmp_path, order="random")


def test_progress_counts_answers(make_benchmark, tmp_path):
    told = []
    evaluate(Recorder(), make_benchmark(3), tmp_path, progress=lambda *said: told.append(said[:2]))
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)], "the total is known before the first answer"


def test_names_become_file_names():
    assert slug("OpenAssistant/reward--model v2") == "OpenAssistant-reward-model-v2"
    assert slug("../../etc/passwd") == "etc-passwd"
    assert len(slug("x" * 300)) == 80
    with pytest.raises(PalateError, match="needs a name"):
        slug("../..")


def test_the_judges_of_a_finished_run_need_no_torch(make_benchmark, tmp_path):
    code = "import sys, palate.evaluate.run; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_answers_are_json_in_the_journal(make_benchmark, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        evaluate(Recorder(stop_at=2), make_benchmark(4), tmp_path)
    (kept,) = tmp_path.glob("*.journal.jsonl")
    header, *answers = [json.loads(line) for line in kept.read_text().splitlines()]
    assert header["palate"] == "journal"
    assert [len(answer) for answer in answers] == [2, 2]


DETAILS = {"judge": "j", "benchmark": "b", "protocol_fingerprint": "f"}


@pytest.mark.parametrize("choice", ["first", "second", "tie", None])
def test_a_record_survives_its_verdict_on_either_side(make_benchmark, choice):
    said = Preference(
        "p", choice, 0.75, 0.25, reason="" if choice else "unparsed",
        truncated=True, answer="A, I think\x00", seconds=1.5,
    )  # fmt: skip
    record = record_of("j", said)
    assert json.loads(json.dumps(record)) == record
    for item in make_benchmark(2).items(order="both"):
        verdict = verdict_of(item, record, DETAILS)
        assert record_from(verdict) == record
        assert (verdict.answer, verdict.seconds) == ("A, I think\x00", 1.5)
        assert verdict.chosen_score == (0.75 if item.chosen_first else 0.25)


def test_a_record_of_an_earlier_palate_has_no_words(make_benchmark):
    (item,) = make_benchmark(1).items()
    verdict = verdict_of(item, ["tie", 1.0, 1.0, "", False], DETAILS)
    assert (verdict.outcome, verdict.answer, verdict.seconds) == (Outcome.TIE, "", None)


@pytest.mark.parametrize("seconds", [math.nan, math.inf, np.float32("nan"), None])
def test_a_time_that_is_none_is_not_known(seconds):
    assert record_of("j", Preference("p", "first", seconds=seconds))[-1] is None


def test_numbers_of_numpy_become_plain():
    record = record_of("j", Preference("p", "first", np.float32(0.5), np.int64(0), seconds=np.pi))
    assert json.loads(json.dumps(record)) == ["first", 0.5, 0.0, "", False, "", np.pi]


def test_a_choice_that_is_none_is_one_line():
    with pytest.raises(PalateError, match="judge j: expected first, second, tie or None, got 'A'"):
        record_of("j", Preference("p", "A"))


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
