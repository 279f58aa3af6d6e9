"""Best of n, and rows good enough: order, ties, thresholds, resuming, sharing out."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from palate.cli import app
from palate.evaluate.journal import Shard
from palate.evaluate.scoring import Bar, facts_of, filter_file, rank_file
from palate.records import read_comparisons, read_header, write_comparisons
from palate.types import Comparison, Message, PalateError, Score


class Digits:
    """A response's reward is the number that it says; "?" has none. May stop at a given row."""

    name, protocol = "digits", {"judge": "digits"}

    def __init__(self, stop_at=None):
        self.stop_at, self.asked = stop_at, []

    def score(self, candidates):
        for shown in candidates:
            if len(self.asked) == self.stop_at:
                raise KeyboardInterrupt
            self.asked.append(shown)
            yield tuple(
                Score(None, "too long") if r == "?" else Score(float(r), tokens=len(r))
                for r in shown.responses
            )


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def samples(tmp_path, *answers):
    rows = [
        {"prompt": f"p{i}", "responses": list(given), "id": i} for i, given in enumerate(answers)
    ]
    return write(tmp_path / "in.jsonl", rows)


def pairs(path, *sides):
    prompt = (Message("user", "Which?"),)
    rows = [
        Comparison(f"c{i}", "made", prompt, chosen, rejected, f"p{i}")
        for i, (chosen, rejected) in enumerate(sides)
    ]
    write_comparisons(path, rows)
    return path


def test_rank_puts_the_best_first_and_says_where_it_stood(tmp_path):
    path = samples(tmp_path, ("2", "?", "7", "2", "-1"), ("?",))
    first, second = lines(rank_file(Digits(), path, tmp_path / "out.jsonl"))
    assert first["responses"] == ["7", "2", "2", "-1", "?"]
    assert first["rewards"] == [7, 2, 2, -1, None]
    assert first["rewards_order"] == [2, 0, 3, 4, 1]
    assert first["rewards_reason"] == ["", "", "", "", "too long"]
    assert first["id"] == 0
    assert second["responses"] == ["?"]


def test_rank_top_keeps_the_best_that_have_a_score(tmp_path):
    path = samples(tmp_path, ("2", "?", "7"), ("?",), ("?", "1"))
    found = lines(rank_file(Digits(), path, tmp_path / "out.jsonl", top=2))
    assert [row["responses"] for row in found] == [["7", "2"], ["1"]]
    facts = facts_of(tmp_path / "out.jsonl")
    assert (facts["rows"], facts["kept"]) == (3, 2)


def test_filter_keeps_rows_at_or_above_a_reward(tmp_path):
    rows = [{"prompt": "p", "response": r, "n": i} for i, r in enumerate(["3", "1", "?", "2"])]
    path = write(tmp_path / "in.jsonl", rows)
    out = filter_file(Digits(), path, tmp_path / "out.jsonl", Bar(min_reward=2))
    assert [(row["n"], row["reward"]) for row in lines(out)] == [(0, 3), (3, 2)]
    facts = facts_of(out)
    assert [facts[name] for name in ("threshold", "rows", "kept", "unscored")] == [2, 4, 2, 1]


def test_filter_of_lists_keeps_the_good_responses_in_place(tmp_path):
    path = samples(tmp_path, ("1", "5", "?", "4"), ("0", "2"))
    (row,) = lines(filter_file(Digits(), path, tmp_path / "out.jsonl", Bar(min_reward=4)))
    assert (row["responses"], row["rewards"], row["rewards_order"]) == (["5", "4"], [5, 4], [1, 3])


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(-5, 5), min_size=1, max_size=30),
    st.floats(0.5, 100) | st.sampled_from([1, 10, 50, 100]),
)
def test_top_percent_is_the_least_number_that_is_enough(tmp_path_factory, rewards, percent):
    folder = tmp_path_factory.mktemp("top")
    path = write(folder / "in.jsonl", [{"prompt": "p", "response": str(r)} for r in rewards])
    out = filter_file(Digits(), path, folder / "out.jsonl", Bar(top_percent=percent))
    kept = [row["reward"] for row in lines(out)]
    dropped = sorted(rewards)[: len(rewards) - len(kept)]
    assert len(kept) >= len(rewards) * percent / 100 - 1e-9
    assert all(reward < min(kept) for reward in dropped)
    above = [reward for reward in kept if reward > min(kept)]
    assert len(above) < len(rewards) * percent / 100


@pytest.mark.parametrize(
    ("bar", "expected"),
    [
        (Bar(min_reward=5), ["c0", "c1"]),
        (Bar(min_reward=0, on="margin"), ["c1", "c2"]),
        (Bar(top_percent=50, on="margin"), ["c1", "c2"]),
    ],
)
def test_comparisons_stay_comparisons(tmp_path, bar, expected):
    path = pairs(tmp_path / "in.parquet", ("5", "9"), ("6", "1"), ("3", "3"), ("0", "2"))
    out = filter_file(Digits(), path, tmp_path / "out.parquet", bar)
    assert [c.id for c in read_comparisons(out)] == expected
    assert read_header(out).kind == "comparisons"
    assert pq.read_table(out)["chosen_reward"].to_pylist()[-1] in (6, 3)


def test_a_comparison_with_one_score_has_no_margin(tmp_path):
    path = pairs(tmp_path / "in.parquet", ("5", "?"), ("6", "1"))
    out = filter_file(Digits(), path, tmp_path / "out.jsonl", Bar(min_reward=-99, on="margin"))
    assert [row["id"] for row in lines(out)] == ["c1"]
    assert facts_of(out)["unscored"] == 1


def test_rewards_that_are_there_are_not_asked_for_again(tmp_path):
    path = samples(tmp_path, ("2", "7"), ("1", "?"))
    scored = rank_file(Digits(), path, tmp_path / "scored.jsonl")
    best = lines(rank_file(None, scored, tmp_path / "best.jsonl", top=1))
    assert [(row["responses"], row["rewards"]) for row in best] == [(["7"], [7]), (["1"], [1])]
    good = lines(filter_file(None, scored, tmp_path / "good.jsonl", Bar(top_percent=30)))
    assert [row["responses"] for row in good] == [["7"]]


def test_rows_without_rewards_need_a_model(tmp_path):
    path = samples(tmp_path, ("2", "7"))
    with pytest.raises(PalateError, match=r"in.jsonl:1: expected rewards, .* name a model"):
        rank_file(None, path, tmp_path / "out.jsonl")
    row = {"prompt": "p", "response": "r", "reward": "high", "reward_reason": ""}
    row |= {"reward_truncated": False, "reward_tokens": 1}
    path = write(tmp_path / "odd.jsonl", [row])
    with pytest.raises(PalateError, match=r"odd.jsonl:1: reward 'high', expected a finite number"):
        filter_file(None, path, tmp_path / "out.jsonl", Bar(min_reward=0))
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize("kind", ["rank", "filter"])
def test_parquet_gives_what_jsonl_gives(tmp_path, kind):
    answers = [["1", "9"], ["?", "4"], ["2", "2"]]
    path = samples(tmp_path, *answers)
    table = pa.table({"prompt": ["p0", "p1", "p2"], "responses": answers, "id": [0, 1, 2]})
    pq.write_table(table, tmp_path / "in.parquet")
    found = []
    for source in (path, tmp_path / "in.parquet"):
        out = tmp_path / f"out{source.suffix}"
        if kind == "rank":
            rank_file(Digits(), source, out)
        else:
            filter_file(Digits(), source, out, Bar(min_reward=2))
        found.append(lines(out) if out.suffix == ".jsonl" else pq.read_table(out).to_pylist())
    assert found[0] == found[1]


def test_pitfall_23_a_killed_run_goes_on_with_other_ranks_and_asks_nothing_twice(tmp_path):
    answers = [(str(i % 7), str(i % 5)) for i in range(40)]
    path = samples(tmp_path, *answers)
    alone = rank_file(Digits(), path, tmp_path / "alone.jsonl", top=1)
    asked = []
    for share in (Shard(1, 3), Shard(2, 3), Shard(0, 3)):
        scorer = Digits(stop_at=5)
        with pytest.raises(KeyboardInterrupt):
            rank_file(scorer, path, tmp_path / "out.jsonl", top=1, share=share)
        asked += scorer.asked
    scorer = Digits()
    for share in (Shard(1, 2), Shard(0, 2)):
        rank_file(scorer, path, tmp_path / "out.jsonl", top=1, share=share)
    asked += scorer.asked
    assert len(asked) == 40
    assert (tmp_path / "out.jsonl").read_bytes() == alone.read_bytes()
    assert not list(tmp_path.glob("*journal*"))


def test_another_bar_makes_another_file_and_the_same_one_none(tmp_path):
    path = samples(tmp_path, ("1",), ("2",))
    notes = []
    for least in (1, 1, 2):
        scorer = Digits()
        filter_file(
            scorer, path, tmp_path / "out.jsonl", Bar(min_reward=least),
            progress=lambda *told: notes.append(told[2]),
        )  # fmt: skip
    assert len(lines(tmp_path / "out.jsonl")) == 1
    assert "already scored" in notes
    assert any("an option changed" in note for note in notes)


@pytest.mark.parametrize(
    ("bar", "message"),
    [
        ({}, "one of the two"),
        ({"min_reward": 1, "top_percent": 1}, "one of the two"),
        ({"min_reward": float("nan")}, "expected a finite number"),
        ({"top_percent": 0}, "more than 0, at most 100"),
        ({"top_percent": 101}, "more than 0, at most 100"),
    ],
)
def test_a_bar_that_means_nothing_is_one_line(bar, message):
    with pytest.raises(PalateError, match=message):
        Bar(**bar)


def test_nothing_scored_has_no_top(tmp_path):
    path = samples(tmp_path, ("?",))
    with pytest.raises(PalateError, match="there is no top"):
        filter_file(Digits(), path, tmp_path / "out.jsonl", Bar(top_percent=10))
    assert not (tmp_path / "out.jsonl").exists()


def test_commands_take_a_scored_file_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scored = rank_file(Digits(), samples(tmp_path, ("2", "7"), ("1", "0")), tmp_path / "s.jsonl")
    found = CliRunner().invoke(app, ["rank", str(scored), "--top", "1"])
    assert found.exit_code == 0, found.output
    assert "ranked: 2 of 2 rows: s.ranked.jsonl" in found.stderr
    found = CliRunner().invoke(app, ["filter", str(scored), "--min-reward", "2"])
    assert found.exit_code == 0, found.output
    assert "kept: 1 of 2 rows, reward at least 2: s.kept.jsonl" in found.stderr
    assert lines(tmp_path / "s.kept.jsonl")[0]["responses"] == ["7", "2"]
