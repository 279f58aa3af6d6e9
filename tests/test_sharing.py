"""Several processes on one command: what they judge together equals what one judges alone."""

import json
from pathlib import Path

import pytest

from apart import under_torchrun
from made import pool
from packed import tiny_reward_model
from palate.model.export import Card, export
from palate.recipe.distributed import Judging
from palate.records import read_header, read_verdicts
from shared import command, judge_benchmarks, judge_what_opens


def same(one: Path, other: Path) -> None:
    assert list(read_verdicts(one)) == list(read_verdicts(other))
    assert read_header(one).fingerprint == read_header(other).fingerprint


def test_pitfall_23_a_judge_on_two_ranks_prints_and_writes_what_one_does(tmp_path: Path) -> None:
    words = ["evaluate", "random", "--benchmark", str(pool(tmp_path / "b.parquet", 31, "made"))]
    for ranks in (1, 2):
        out = tmp_path / str(ranks)
        form = ["--out", str(out), "--format", "csv"]
        under_torchrun(ranks, command, words + form, tmp_path / f"{ranks}.csv")
    same(tmp_path / "1" / "random--b.parquet", tmp_path / "2" / "random--b.parquet")
    printed = [(tmp_path / f"{ranks}.csv").read_text() for ranks in (1, 2)]
    assert printed[0].replace(str(tmp_path / "1"), str(tmp_path / "2")) == printed[1]
    assert [path.name for path in (tmp_path / "2").iterdir()] == ["random--b.parquet"]


@pytest.mark.slow
def test_pitfall_23_two_ranks_rank_what_one_does(tmp_path: Path) -> None:
    folder = export(tiny_reward_model("llama"), tmp_path / "model", card=Card("tiny", "tiny", "0"))
    rows = [
        {"prompt": f"Of {i}?", "responses": ["Bread.", f"The sea {i}.", "No"]} for i in range(9)
    ]
    samples = tmp_path / "samples.jsonl"
    samples.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for ranks in (1, 2):
        out = ["--out", str(tmp_path / f"best-{ranks}.jsonl"), "--top", "1"]
        under_torchrun(ranks, command, ["rank", str(folder), str(samples), *out], tmp_path / "told")
    one, two = ((tmp_path / f"best-{ranks}.jsonl").read_text() for ranks in (1, 2))
    best = [json.loads(line)["responses"] for line in one.splitlines()]
    assert best == [json.loads(line)["responses"] for line in two.splitlines()]
    assert len(best) == 9
    assert not list(tmp_path.glob("*journal*"))


def judging(judge: str | dict[str, str], path: Path, folder: Path) -> Judging:
    return Judging(
        judge=judge, benchmark=path.stem, comparisons=path, paper_column=None,
        folder=folder, seed=3, order="both",
    )  # fmt: skip


def test_a_judge_that_does_not_open_stops_no_rank(tmp_path: Path) -> None:
    path = pool(tmp_path / "one.parquet", 9, "one")
    asked = ["longer", {"sequence-classifier": "nowhere"}, "random"]
    judgings = [judging(judge, path, tmp_path / "v") for judge in asked]
    under_torchrun(2, judge_what_opens, judgings, tmp_path / "told")
    assert (tmp_path / "told").read_text().count("\n") == 1
    made = sorted(path.name for path in (tmp_path / "v").iterdir())
    assert made == ["longer--one.parquet", "random--one.parquet"]


def test_pitfall_23_ranks_join_rank_0_in_judging(tmp_path: Path) -> None:
    paths = [pool(tmp_path / f"{name}.parquet", 17, name) for name in ("one", "two")]

    asked = [(judge, path) for judge in ("longer", "random") for path in paths]
    judge_benchmarks([judging(*one, tmp_path / "alone") for one in asked])
    under_torchrun(3, judge_benchmarks, [judging(*one, tmp_path / "shared") for one in asked])
    made = sorted(path.name for path in (tmp_path / "alone").iterdir())
    assert len(made) == 4
    assert made == sorted(path.name for path in (tmp_path / "shared").iterdir())
    for name in made:
        same(tmp_path / "alone" / name, tmp_path / "shared" / name)
