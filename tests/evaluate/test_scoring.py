"""Scoring, ranking and filtering files: formats, order, ties, thresholds, resuming, shards."""

import csv
import datetime
import gzip
import json
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from palate.cli import app
from palate.evaluate.journal import Shard
from palate.evaluate.scoring import Bar, beside, facts_of, filter_file, rank_file, score_file
from palate.records import read_comparisons, read_header, write_comparisons
from palate.types import Comparison, Message, PalateError, Score

ROWS = [
    {"prompt": "Why?", "response": "Because.", "id": 7},
    {
        "prompt": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}],
        "responses": ["a", "bb", "too long" * 9],
    },
    {"prompt": "Numbers", "response": "nan", "extra": {"é": [1, None]}},
]


class Lengths:
    """Scores a response by its length; reads ahead; may stop at a given prompt."""

    name = "lengths"

    def __init__(self, stop_at=None, **protocol):
        self.stop_at, self.asked = stop_at, []
        self.protocol = {"judge": "lengths", **protocol}

    def score(self, candidates):
        for shown in list(candidates):
            if self.stop_at is not None and len(self.asked) >= self.stop_at:
                raise KeyboardInterrupt
            self.asked.append(shown)
            yield tuple(map(self.value, shown.responses))

    def value(self, response):
        if len(response) > 20:
            return Score(None, "too long", tokens=len(response))
        return Score(math.nan if response == "nan" else len(response) / 3, tokens=len(response))


@pytest.fixture
def responses(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in ROWS) + "\n\n")
    return path


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_jsonl_rows_come_back_with_their_rewards(responses, tmp_path):
    out = score_file(Lengths(), responses, tmp_path / "out.jsonl")
    one, many, broken = lines(out)
    assert one == ROWS[0] | {
        "reward": 8 / 3,
        "reward_reason": "",
        "reward_truncated": False,
        "reward_tokens": 8,
    }
    assert many["rewards"] == [1 / 3, 2 / 3, None]
    assert many["rewards_reason"] == ["", "", "too long"]
    assert (broken["reward"], broken["reward_reason"]) == (None, "non-finite")
    assert broken["extra"] == {"é": [1, None]}


def test_pitfall_28_a_score_file_names_its_protocol(responses, tmp_path):
    score_file(Lengths(limit=3), responses, tmp_path / "out.jsonl")
    header = json.loads((tmp_path / "out.jsonl.header.json").read_text())
    assert header["protocol"]["scorer"] == {"name": "lengths", "judge": "lengths", "limit": 3}
    assert len(header["protocol_fingerprint"]) == 32


@pytest.mark.parametrize("plural", [False, True])
def test_parquet_rows_come_back_with_their_rewards(tmp_path, plural):
    answers = {"responses": [["a", "bb"], ["c"]]} if plural else {"response": ["a", "bb"]}
    pq.write_table(
        pa.table({"prompt": ["p", "q"], **answers, "n": [1, 2]}), tmp_path / "in.parquet"
    )
    out = score_file(Lengths(), tmp_path / "in.parquet", tmp_path / "out.parquet")
    table = pq.read_table(out).to_pydict()
    assert table["n"] == [1, 2]
    if plural:
        assert table["rewards"] == [[1 / 3, 2 / 3], [1 / 3]]
    else:
        assert table["reward"] == [1 / 3, 2 / 3]
    assert read_header(out, "scores").details["scorer"] == "lengths"
    flat = score_file(Lengths(), tmp_path / "in.parquet", tmp_path / "out.jsonl")
    assert len(lines(flat)) == 2


def test_an_interrupted_run_scores_only_what_is_missing(responses, tmp_path):
    whole = score_file(Lengths(), responses, tmp_path / "whole.jsonl")
    with pytest.raises(KeyboardInterrupt):
        score_file(Lengths(stop_at=2), responses, tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()
    rest = Lengths()
    out = score_file(rest, responses, tmp_path / "out.jsonl")
    assert len(rest.asked) == 1
    assert out.read_bytes() == whole.read_bytes()
    assert list(tmp_path.glob("*journal*")) == []


def test_a_finished_file_is_not_scored_again(responses, tmp_path):
    notes = []
    score_file(Lengths(), responses, tmp_path / "out.jsonl")
    again = Lengths()
    score_file(again, responses, tmp_path / "out.jsonl", progress=lambda *a: notes.append(a))
    assert (again.asked, notes) == ([], [(3, 3, "already scored")])
    other = Lengths(limit=4)
    score_file(other, responses, tmp_path / "out.jsonl")
    assert len(other.asked) == 3


def test_a_foreign_file_is_not_replaced(responses, tmp_path):
    (tmp_path / "out.jsonl").write_text("mine")
    with pytest.raises(PalateError, match="holds no scores of ours"):
        score_file(Lengths(), responses, tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_text() == "mine"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", r"in.jsonl:2: .*broken JSON"),
        ("[]", r"in.jsonl:2: expected a JSON object"),
        ('{"response": "x"}', r"in.jsonl:2: expected `prompt` .* got nothing"),
        ('{"prompt": "x"}', r"in.jsonl:2: expected either `response`"),
        ('{"prompt": "x", "response": "a", "responses": ["b"]}', "expected either"),
        ('{"prompt": "x", "responses": []}', "expected either"),
        ('{"prompt": "x", "responses": [1]}', "expected either"),
        (
            '{"prompt": [{"role": "bot", "content": "x"}], "response": "a"}',
            "expected system, user, assistant or tool",
        ),
    ],
)
def test_a_bad_row_is_named_before_anything_is_scored(tmp_path, row, message):
    path = tmp_path / "in.jsonl"
    path.write_text('{"prompt": "x", "response": "a"}\n' + row + "\n")
    scorer = Lengths()
    with pytest.raises(PalateError, match=message):
        score_file(scorer, path, tmp_path / "out.jsonl")
    assert scorer.asked == []
    assert list(tmp_path.iterdir()) == [path]


def test_paths_that_cannot_work_are_one_line(responses, tmp_path):
    for source, out, message in [
        (tmp_path / "none.jsonl", tmp_path / "out.jsonl", "no such file"),
        (responses, responses, "would replace their input"),
        (responses, tmp_path / "out.parquet", "have fixed columns"),
        (responses, tmp_path / "out.txt", "ends in .jsonl or .parquet"),
    ]:
        with pytest.raises(PalateError, match=message):
            score_file(Lengths(), source, out)


def test_an_empty_file_is_one_line(tmp_path):
    (tmp_path / "in.jsonl").write_text("\n")
    with pytest.raises(PalateError, match="expected rows, the file is empty"):
        score_file(Lengths(), tmp_path / "in.jsonl", tmp_path / "out.jsonl")


def test_a_parquet_column_that_cannot_pass_is_named(tmp_path):
    day = [datetime.date(2024, 1, 1)]
    pq.write_table(
        pa.table({"prompt": ["p"], "response": ["r"], "day": day}), tmp_path / "in.parquet"
    )
    with pytest.raises(PalateError, match="column day holds date32"):
        score_file(Lengths(), tmp_path / "in.parquet", tmp_path / "out.parquet")


def test_a_scorer_that_drops_responses_is_one_line(responses, tmp_path):
    scorer = Lengths()
    scorer.score = lambda candidates: ((Score(1.0),) for _ in candidates)
    with pytest.raises(PalateError, match="gave 1 scores to 3 responses of row 2"):
        score_file(scorer, responses, tmp_path / "out.jsonl")


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [{"role": "user", "content": "a", "tool_calls": [{"id": "1"}]}]},
        {"prompt": "a", "documents": ["a book"]},
    ],
)
def test_a_row_with_content_that_is_not_read_is_named(tmp_path, row):
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps({"prompt": "a", "response": "b"}) + "\n")
    with path.open("a") as file:
        file.write(json.dumps(row | {"response": "b"}) + "\n")
    with pytest.raises(PalateError, match=r"in.jsonl:2: .*content that Palate does not read"):
        score_file(Lengths(), path, tmp_path / "out.jsonl")


def test_a_prompt_in_text_is_scored_as_its_messages(tmp_path):
    """The same conversation as a transcript and as messages; the rows come back as they went in."""
    rows = [
        {
            "prompt": "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Why?\n\nAssistant:",
            "response": " No.",
        },
        {
            "prompt": "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n",
            "responses": ["No.<|im_end|>", "Yes."],
        },
    ]
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    scorer = Lengths()
    one, many = lines(score_file(scorer, path, tmp_path / "out.jsonl"))
    assert [turn.content for turn in scorer.asked[0].prompt] == ["Hi", "Yes?", "Why?"]
    assert [asked.responses for asked in scorer.asked] == [("No.",), ("No.", "Yes.")]
    assert (one["response"], many["responses"]) == (" No.", ["No.<|im_end|>", "Yes."])


@pytest.mark.parametrize("form", ["csv", "tsv", "json", "jsonl.gz", "parquet"])
def test_every_format_that_import_takes_is_scored(tmp_path, form):
    rows = [{"prompt": "Größe?", "responses": ["a", "bb"]}, {"prompt": "b", "responses": ["ccc"]}]
    path = tmp_path / f"in.{form}"
    if form == "json":
        path.write_text(json.dumps(rows))
    elif form == "jsonl.gz":
        path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    elif form == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter=";" if form == "csv" else "\t")
            writer.writerow(rows[0])
            writer.writerows([row["prompt"], json.dumps(row["responses"])] for row in rows)
    scored = lines(score_file(Lengths(), path, tmp_path / "out.jsonl"))
    assert [row["rewards"] for row in scored] == [[1 / 3, 2 / 3], [1]]
    ranked = lines(rank_file(Lengths(), path, tmp_path / "ranked.jsonl", top=1))
    assert [row["responses"] for row in ranked] == [["bb"], ["ccc"]]
    assert (
        beside(path, "rewards").name == f"in.rewards.{'parquet' if form == 'parquet' else 'jsonl'}"
    )


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Why?", "chosen": "Because.", "rejected": "No."},
        {"prompt": "\n\nHuman: Why?\n\nAssistant:", "chosen": " Because.", "rejected": " No."},
        {
            "chosen": "\n\nHuman: Why?\n\nAssistant: Because.",
            "rejected": "\n\nHuman: Why?\n\nAssistant: No.",
        },
        {
            "prompt": "Why?",
            "chosen": [
                {"role": "user", "content": "Why?"},
                {"role": "assistant", "content": "Because."},
            ],
            "rejected": [{"role": "assistant", "content": "No."}],
        },
    ],
)
def test_filter_takes_every_layout_that_import_takes(tmp_path, row):
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps(row) + "\n")
    (kept,) = lines(filter_file(Lengths(), path, tmp_path / "out.jsonl", Bar(min_reward=0)))
    assert kept == row | {"chosen_reward": 8 / 3, "rejected_reward": 1.0}


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
        ({}, "--min-reward and --top-percent, got none"),
        ({"min_reward": 1, "top_percent": 1}, "--min-reward and --top-percent, got both"),
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
