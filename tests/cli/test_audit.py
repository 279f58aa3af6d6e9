"""`palate audit`: the sentence first, files as they are asked for, one line where it cannot."""

import hashlib
import json
from pathlib import Path

import pytest

from command import one_line, palate


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    rows = [
        {"prompt": f"What is {n} plus one?", "chosen": f"{n + 1}", "rejected": f"{n}, I believe"}
        for n in range(60)
    ]
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_sentence_comes_first_and_files_are_written(mine: Path) -> None:
    page, values = mine.with_suffix(".md"), mine.with_suffix(".json")
    done = palate("audit", mine, "--train", mine, "--against", mine, "-o", page, "-o", values)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("On mine a lead of less than ")
    assert "always taking the shorter one" in done.stdout
    written = json.loads(values.read_text())
    assert written["sentences"][0] == done.stdout.splitlines()[0]
    assert written["sha256"] == hashlib.sha256(mine.read_bytes()).hexdigest()
    assert written["training_sets"][0]["prompts"] == 60
    assert written["stability"][0]["same"]["value"] == 1
    assert written["sha256"] in page.read_text()
    assert f"palate audit {mine}" in page.read_text()


def test_json_goes_to_stdout_and_progress_does_not(mine: Path) -> None:
    done = palate("audit", mine, "--name", "Ours", "--format", "json")
    assert json.loads(done.stdout)["name"] == "Ours"
    assert "60 comparisons" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["nothing.jsonl"], "nothing.jsonl: no such file"),
        (["{mine}", "-o", "audit.pdf"], "--out audit.pdf: expected a name that ends in"),
        (["{mine}", "-o", "{mine}"], "the result would replace its input"),
        (["{mine}", "--against", "old.jsonl"], "--against old.jsonl: no such file"),
        (["{mine}", "--train", "oast"], "did you mean 'oasst'"),
        (["pandaln"], "pandalm"),
        (["{mine}", "--subset", "x"], "is a file, read whole"),
        (["{mine}", "--path", "other.jsonl"], "is a file, read whole"),
        (["llmbra"], "no benchmark, source or file 'llmbra'; did you mean 'llmbar'?"),
        (["llmbar", "--ties", "skip"], "--ties: llmbar is read whole"),
        (["llmbar", "--column", "prompt=q"], "--column: llmbar is read whole"),
    ],
)
def test_mistakes_are_one_line(mine: Path, arguments: list[str], expected: str) -> None:
    done = palate("audit", *(str(mine) if a == "{mine}" else a for a in arguments))
    assert done.returncode == 1
    assert expected in one_line(done)
