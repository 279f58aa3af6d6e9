"""A benchmark that is cut, empty, half fetched or something else is one line in every command."""

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

import choices
import published
from palate.cli import app
from palate.data.benchmarks import import_benchmark
from palate.data.sources import Request
from palate.evaluate.benchmark import Benchmark
from palate.evaluate.run import evaluate
from palate.judges import open_judge
from palate.types import PalateError

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
PAGE = "<!DOCTYPE html><html><body>429 Too Many Requests</body></html>"


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-37])


def _text(text: str) -> Callable[[Path], None]:
    return lambda path: path.write_text(text)  # type: ignore[return-value]


def _one_row_short_of_a_column(path: Path) -> None:
    rows = json.loads(path.read_text())
    del rows[3]["rejected"]
    path.write_text(json.dumps(rows))


def _twice(path: Path) -> None:
    rows = json.loads(path.read_text())
    path.write_text(json.dumps([*rows, rows[0]]))


BROKEN = {
    "cut": (_cut, "expected a JSON array, got broken JSON|it ends early"),
    "empty": (_text(""), "empty"),
    "a pointer of Git LFS": (_text(POINTER), "git lfs pull|Git LFS"),
    "a web page": (_text(PAGE), "expected .*JSON"),
    "a row without a column": (_one_row_short_of_a_column, "rejected.*a benchmark is scored whole"),
    "a row twice": (_twice, r"test\.json:9: item .* stands in .*test\.json:1 too"),
}


def said(*arguments: str) -> str:
    """The line with which a command ends."""
    found = CliRunner().invoke(app, list(arguments))
    assert isinstance(found.exception, PalateError), found.output
    line = str(found.exception)
    assert "\n" not in line
    return line


@pytest.mark.parametrize("name", BROKEN)
def test_it_is_one_line_where_it_is_read(tmp_path: Path, name: str) -> None:
    damage, expected = BROKEN[name]
    file = published.write_rows(tmp_path / "test.json", choices.rows(8))
    damage(file)
    benchmark = f"rewardbench-2={file}"
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "name: broken\ndata: {sources: {}}\njudges: [longer]\n"
        f"benchmarks: {{b: {{named: rewardbench-2, path: {file}, partial: true}}}}\n"
    )
    commands = {
        "judge": ["judge", "longer", benchmark, "--partial", "--out", str(tmp_path / "verdicts")],
        "audit": ["audit", "rewardbench-2", "--path", str(file)],
        "run": ["run", str(recipe), "--out", str(tmp_path / "run")],
        "evaluate": ["evaluate", str(recipe), "--out", str(tmp_path / "other")],
    }
    for command, arguments in commands.items():
        line = said(*arguments)
        assert re.search(expected, line), f"{command}: {line}"
        assert "test.json" in line or "rewardbench-2" in line
    assert not list((tmp_path / "verdicts").glob("*.parquet")), "nothing half is kept"


def test_of_items_of_ones_own_the_row_is_to_be_mended(tmp_path: Path) -> None:
    rows = [{"prompt": f"{n}?", "responses": ["a", "b"], "best": n} for n in range(3)]
    file = published.write_rows(tmp_path / "mine.jsonl", rows)
    line = said("judge", "longer", f"best-of-k={file}", "--out", str(tmp_path / "verdicts"))
    assert "mine.jsonl:3: best: expected a number of 0 to 1" in line
    assert line.endswith("a benchmark is scored whole: mend the row")
    assert said("judge", "longer", "best-of-k").endswith("give your file, best-of-k=FILE")

    contradictions = [
        {"chosen": ["a", "b"], "rejected": ["c", "b"]},
        {"responses": ["a", "b", "c", "b"], "places": [0, 0, 1, 1]},
        {"responses": ["a", "b", "c", "b"], "places": [0, 1, 2, 3]},
    ]
    places = ["right and wrong", "right and wrong", "at places 1 and 3"]
    for row, place in zip(contradictions, places, strict=True):
        file = published.write_rows(tmp_path / "mine.jsonl", [{"prompt": "?", **row}])
        line = said("judge", "longer", f"best-of-k={file}", "--out", str(tmp_path / "verdicts"))
        assert f"{file}:1: responses: expected each text at one place, got 'b' both {place}" in line
        assert line.endswith("remove one of the two; a benchmark is scored whole: mend the row")


def test_what_is_to_be_scored_is_read_before_a_model_is_sought(tmp_path: Path) -> None:
    line = said("parity", "no/model", "--items", str(tmp_path / "gone.jsonl"))
    assert "gone.jsonl: no such file" in line
    assert "did you mean 'rewardbench-2'" in said("parity", "no/model", "--items", "rewardbench-9")


def test_a_folder_without_its_files_and_a_half_fetched_one_are_named(tmp_path: Path) -> None:
    (tmp_path / "RM-Bench" / "data").mkdir(parents=True)
    line = said("judge", "first", f"rm-bench={tmp_path / 'RM-Bench'}")
    assert str(tmp_path / "RM-Bench") in line
    # Fetched to the half: the file's name still says so, or it has fewer items than published.
    file = published.write_rows(tmp_path / "test.json", choices.rows(8))
    file.rename(tmp_path / "test.json.incomplete")
    assert "no such file or folder" in said("judge", "first", f"rewardbench-2={file}")
    gz = tmp_path / "test.jsonl.gz"
    whole = gzip.compress("".join(json.dumps(row) + "\n" for row in choices.rows(60)).encode())
    gz.write_bytes(whole[: len(whole) // 2])
    line = said("judge", "first", f"rewardbench-2={gz}", "--partial", "--out", str(tmp_path / "v"))
    assert "test.jsonl.gz" in line


def test_what_palate_kept_of_it_and_was_cut_is_named_by_what_reads_it(tmp_path: Path) -> None:
    kept = tmp_path / "benchmarks" / "b.parquet"
    file = published.write_rows(tmp_path / "test.json", choices.rows(2))
    import_benchmark("rewardbench-2", kept, Request(file), partial=True)
    _, first = (
        evaluate(open_judge(judge), Benchmark("b", kept), tmp_path / "verdicts")
        for judge in ("longer", "first")
    )
    compare = ["compare", "longer", "first", "--run", str(tmp_path)]
    parity = ["parity", "anything", "--items", str(kept)]
    for broken, reads in ((kept, compare), (kept, parity), (first, compare)):
        whole = broken.read_bytes()
        broken.write_bytes(whole[:-100])
        line = said(*reads)
        assert str(broken) in line
        assert "not a whole Parquet file" in line
        broken.write_bytes(whole)


def test_what_is_typed_wrong_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pair = {"prompt": "?", "chosen": "a", "rejected": "b"}
    published.write_rows(Path("mine.jsonl"), [pair])
    published.write_rows(Path("k.jsonl"), [{**pair, "rejected": ["b", "c"]}])
    tie = {"prompt": "?", "response_a": "a", "response_b": "b", "winner": "tie"}
    published.write_rows(Path("ties.jsonl"), [tie])
    published.write_rows(Path("best-of-k.jsonl"), [pair])
    published.write_rows(Path("folder/pairs.jsonl"), [pair])
    Path("nothing").mkdir()
    for line, arguments in {
        "mine.jsonl: given twice; name it once": ["judge", "longer", "mine.jsonl", "./mine.jsonl"],
        "best-of-k=k.jsonl, best-of-k.jsonl: results are kept by the name 'best-of-k'": [
            "judge", "longer", "best-of-k=k.jsonl", "best-of-k.jsonl",
        ],
        "mine.jsonl: is a file of data; the judge comes first": ["judge", "mine.jsonl", "longer"],
        "rejected: expected one response, got a list of 2; such": ["judge", "longer", "k.jsonl"],
        "found none; 1 rows have none, the first: ties.jsonl:1": ["judge", "longer", "ties.jsonl"],
        "nothing: expected data files, found none": ["judge", "longer", "nothing"],
        "folder: expected data files subset=x, found pairs.jsonl": [
            "judge", "longer", "rewardbench=folder", "--subset", "x",
        ],
        "did you mean 'mt-bench-human'?": ["audit", "mtbench"],
        "x=k.jsonl: no benchmark 'x'": ["audit", "x=k.jsonl"],
        "and --path y; say once where it is": ["audit", "best-of-k=k.jsonl", "--path", "y"],
        "--model longer: given twice": ["audit", "mine.jsonl", *(["--model", "longer"] * 2)],
        "--own: expected a word": ["probe", "longer", "mine.jsonl", "--own", " "],
        "mine.jsonl: expected a verdict file": ["compare", "mine.jsonl", "chance"],
    }.items():  # fmt: skip
        assert line in said(*arguments)
    assert (
        CliRunner().invoke(app, ["judge", "longer", "folder", "best-of-k=k.jsonl"]).exit_code == 0
    )
    kept = "verdicts/benchmarks/best-of-k.parquet"
    found = CliRunner().invoke(app, ["audit", kept, "--format", "json"])
    assert json.loads(found.stdout)["size"]["items"] == 1
