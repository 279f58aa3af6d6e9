"""Several processes on one command: what they judge together equals what one judges alone."""

from pathlib import Path

from apart import under_torchrun
from made import pool
from palate.recipe.crew import Judging
from palate.records import read_header, read_verdicts
from shared import command, judge_benchmarks


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


def test_pitfall_23_ranks_join_rank_0_in_judging(tmp_path: Path) -> None:
    paths = [pool(tmp_path / f"{name}.parquet", 17, name) for name in ("one", "two")]

    def judgings(folder: Path) -> list[Judging]:
        return [
            Judging(
                judge=judge, benchmark=path.stem, comparisons=path, paper_column=None,
                folder=folder, seed=3, order="both",
            )
            for judge in ("longer", "random") for path in paths
        ]  # fmt: skip

    judge_benchmarks(judgings(tmp_path / "alone"))
    under_torchrun(3, judge_benchmarks, judgings(tmp_path / "shared"))
    made = sorted(path.name for path in (tmp_path / "alone").iterdir())
    assert len(made) == 4
    assert made == sorted(path.name for path in (tmp_path / "shared").iterdir())
    for name in made:
        same(tmp_path / "alone" / name, tmp_path / "shared" / name)
