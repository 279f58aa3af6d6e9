"""Several processes on one recipe: rank 0 runs it, all train and judge, one result comes out."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

import palate
from apart import under_torchrun
from made import pool
from packed import tiny_reward_model
from palate.model.export import Card, export
from palate.recipe.distributed import Judging
from palate.records import read_comparisons, read_header, read_verdicts
from palate.train.checkpoint import stored_dtype
from palate.types import SELECTION
from ranked import launch, run_crew, write_mixture
from shared import command, judge_benchmarks, judge_what_opens
from tiny import save_tiny

SOURCE = Path(palate.__file__).parents[1]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return save_tiny(tmp_path / "base", "llama")


@pytest.fixture
def mixture(tmp_path: Path) -> Path:
    return write_mixture(tmp_path / "m.parquet")


def exported(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


# Of the way that training went, how far two right ones may end apart. In float32 it is sums in
# another order. Shards compute wholly in bfloat16, one process keeps some sums in float32; and Adam
# moves a weight whose gradient is all rounding as far as any other.
NEAR = {"float32": 1e-5, "bfloat16": 0.25}


def assert_same(one: Path, other: Path, base: Path, dtype: str = "float32") -> None:
    ours, theirs, began = exported(one), exported(other), exported(base)
    assert ours.keys() == theirs.keys()
    assert {f"model.{name}" for name in began} == ours.keys() - {"score.weight"}
    moved = torch.cat([(ours[f"model.{n}"] - value).flatten() for n, value in began.items()])
    apart = torch.cat([(theirs[n] - value).flatten() for n, value in ours.items()])
    assert moved.norm() > 0.1
    assert apart.norm() < NEAR[dtype] * moved.norm()


def test_two_ranks_export_what_one_process_exports(
    base: Path, mixture: Path, tmp_path: Path, native_bf16: bool
) -> None:
    """`dtype: auto`; what rank 1 would take on its own, on another machine, does not count."""
    dtype = "bfloat16" if native_bf16 else "float32"
    ranks = ("1", "0") if native_bf16 else ("0", "1")
    assert launch(2, run_crew, tmp_path, mixture, base, tmp_path / "two", *ranks) == ["", ""]
    run_crew(None, mixture, base, tmp_path / "one")
    for model in ("model-1", "model-2"):
        assert_same(tmp_path / "one" / model, tmp_path / "two" / model, base, dtype)
    states = [stored_dtype(tmp_path / n / "train-1" / "checkpoints") for n in ("one", "two")]
    assert states == [dtype, dtype]
    lines = (tmp_path / "two" / "train-1" / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert steps == [0, 1, 2, 3, 3], "written once, by rank 0"


def test_auto_goes_on_as_it_began_on_a_machine_that_would_choose_otherwise(
    base: Path, mixture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_crew(None, mixture, base, tmp_path, "1")
    run_crew(None, mixture, base, tmp_path, "0")
    said = capsys.readouterr().err
    assert "model-1: number format bfloat16, PALATE_NATIVE_BF16=1\n" in said
    assert "bfloat16, as it began; this cpu emulates it, which is slow\n" in said


def test_a_mistake_that_rank_0_finds_ends_the_others(base: Path, tmp_path: Path) -> None:
    first, second = launch(2, run_crew, tmp_path, tmp_path / "none.parquet", base, tmp_path)
    assert "none.parquet" in first
    assert second == "PalateError: another rank ended; its own line says why"


@pytest.mark.slow
def test_torchrun_runs_the_command_line(base: Path, mixture: Path, tmp_path: Path) -> None:
    def palate(*start: str, out: str) -> str:
        settings = [
            f"backbone.model={base}",
            "backbone.dtype=float32",
            "train.pairs_per_step=8",
            "train.learning_rate=0.001",
        ]
        command = ["-m", "palate", "train", str(mixture), "--out", out]
        command += [word for setting in settings for word in ("--set", setting)]
        done = subprocess.run(
            [*start, *command], cwd=tmp_path, capture_output=True, text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(SOURCE)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stderr

    torchrun = str(Path(sys.executable).with_name("torchrun"))
    told = palate(torchrun, "--nproc-per-node", "2", out="two")
    assert told.count("checkpoint: two") == 1, "rank 0 alone speaks"
    palate(sys.executable, out="one")
    assert_same(tmp_path / "one", tmp_path / "two", base)


def test_the_cluster_examples_start_the_command_line() -> None:
    examples = Path(__file__).parents[2] / "examples"
    script = examples / "slurm.sh"
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    job = yaml.safe_load((examples / "pytorchjob.yaml").read_text())
    for replicas in job["spec"]["pytorchReplicaSpecs"].values():
        (container,) = replicas["template"]["spec"]["containers"]
        assert container["command"][-5:] == ["540", "-m", "palate", "run", "recipe.yaml"]
    assert "-m palate run" in script.read_text()


# What several processes judge and score together equals what one does alone.


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


@pytest.mark.slow
def test_pitfall_23_two_ranks_choose_the_pairs_that_one_does(tmp_path: Path) -> None:
    folder = export(tiny_reward_model("llama", members=3), tmp_path / "model",
                    card=Card("tiny", "tiny", "0"))  # fmt: skip
    rows = [
        {"prompt": f"Of {i}?", "responses": ["Bread.", f"The sea {i}.", "No"]} for i in range(25)
    ]
    samples = tmp_path / "samples.jsonl"
    samples.write_text("".join(json.dumps(row) + "\n" for row in rows))
    target = pool(tmp_path / "target.parquet", 5, "target")
    words = ["next", str(folder), str(samples), "--budget", "8", "--random", "0.5",
             "--for", str(target), "--reserve", "0.3", "--format", "csv"]  # fmt: skip
    for ranks in (1, 2):
        out = tmp_path / str(ranks) / "round"
        under_torchrun(ranks, command, [*words, "--out", str(out)], tmp_path / f"{ranks}.csv")
    made = [tmp_path / str(ranks) / "round" for ranks in (1, 2)]
    files = [{str(path.relative_to(one)) for path in one.rglob("*")} for one in made]
    assert files[0] == files[1]
    one, two = (list(read_comparisons(at / "comparisons" / "chosen.parquet")) for at in made)
    assert [row.id for row in one] == [row.id for row in two]
    facts = [[row.meta[SELECTION]["probability"] for row in rows] for rows in (one, two)]
    assert facts[0] == pytest.approx(facts[1], rel=1e-4)
    printed = [(tmp_path / f"{ranks}.csv").read_text() for ranks in (1, 2)]
    assert printed[0].replace(str(made[0]), str(made[1])) == printed[1]


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
