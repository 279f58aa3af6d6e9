import csv
import datetime
import gzip
import json
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from palate.evaluate.scoring import Bar, beside, filter_file, rank_file, score_file
from palate.records import read_header
from palate.types import PalateError, Score

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
            "expected system, user or assistant",
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
        {"prompt": "a", "tools": [{"type": "function"}]},
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
