"""A small made-up run on disk: verdicts of six judges on three benchmarks, a limit, training."""

import json
import random
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palate.evaluate.metrics import bayes_limit, write_results
from palate.records import write_verdicts
from palate.report import Report, report
from palate.types import Bin, Comparison, Outcome, Rating, Verdict, digest

WriteVerdicts = Callable[..., Path]

BENCHMARKS = {
    "Held-out Helpful": (400, None),
    "Anthropic Helpful": (600, "Anthropic Helpful"),
    "Own Safety": (500, "Meta Safety"),
}
JUDGES = {
    "random": ("random", 0.5),
    "longer": ("longer", 0.55),
    "oa-deberta": ("sequence-classifier", 0.6),
    "helpful": ("reward-model", 0.66),
    "safety": ("reward-model", 0.7),
}


def write_verdict_file(
    run: Path,
    judge: str,
    benchmark: str,
    n: int = 200,
    share: float = 0.6,
    kind: str = "reward-model",
    paper_column: str | None = None,
    protocol: Mapping[str, Any] | None = None,
    prefix: str = "i",
    file: str | None = None,
    outcome: Callable[[int], Outcome | None] = lambda i: None,
) -> Path:
    full = {
        "judge": {"name": judge, "judge": kind},
        "benchmark": f"data of {benchmark}",
        "order": "seeded",
        "seed": 0,
        **(protocol or {}),
    }
    rng = random.Random(f"{judge} {benchmark}")
    rows = [
        _verdict(judge, benchmark, f"{prefix}{i}", share, digest(full), rng, outcome(i))
        for i in range(n)
    ]
    name = file or f"{judge}--{benchmark}".replace(" ", "-")
    path = run / "verdicts" / f"{name}.parquet"
    details = {"judge": judge, "benchmark": benchmark, "protocol": full}
    write_verdicts(path, rows, details=details | {"paper_column": paper_column})
    return path


@pytest.fixture
def write_file(tmp_path: Path) -> WriteVerdicts:
    """Write one verdict file under the run `tmp_path / "run"`."""
    return partial(write_verdict_file, tmp_path / "run")


@pytest.fixture(scope="session")
def write_any() -> WriteVerdicts:
    """Write one verdict file under a run given first."""
    return write_verdict_file


def _verdict(
    judge: str,
    benchmark: str,
    id: str,
    share: float,
    protocol: str,
    rng: random.Random,
    forced: Outcome | None,
) -> Verdict:
    number = int("".join(c for c in id if c.isdigit()))
    rating, bin = Rating(1 + number % 4), list(Bin)[number % 3]
    right = rng.random() < share + 0.05 * (rating - 2)
    outcome = forced or (Outcome.CORRECT if right else Outcome.WRONG)
    unscored = outcome is Outcome.UNSCORED
    safety = benchmark == "Own Safety"
    return Verdict(
        judge=judge,
        benchmark=benchmark,
        comparison_id=id,
        outcome=outcome,
        chosen_score=None if unscored else rng.gauss(0.3, 1),
        rejected_score=None if unscored else rng.gauss(-0.3, 1),
        reason="too long" if unscored else "",
        truncated=number % 50 == 0,
        cluster=f"prompt {number // 2}",
        source="made",
        rating=rating if benchmark != "Anthropic Helpful" else None,
        bin=bin if safety else None,
        chosen_first=True,
        protocol=protocol,
        chosen_length=100 + 10 * (number % 7),
        rejected_length=125,
    )


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole made-up run, written once; tests take a copy of it."""
    run = tmp_path_factory.mktemp("report") / "run"
    for judge, (kind, share) in JUDGES.items():
        for benchmark, (n, column) in BENCHMARKS.items():
            write_verdict_file(run, judge, benchmark, n, share, kind, column)
    rng = np.random.default_rng(0)
    items = [
        Comparison(
            f"i{i}", "simulated", (), "a", "b", f"p{i}", rating=Rating(1 + i % 4),
            meta={"bayes": float(rng.uniform(0.6, 1))},
        )
        for i in range(400)
    ]  # fmt: skip
    limit = bayes_limit("Held-out Helpful", items)
    assert limit is not None
    write_results(run / "results" / "limit.json", [limit])
    write_metrics(run / "train" / "helpful" / "metrics.jsonl")
    return run


@pytest.fixture
def run_dir(whole_run: Path, tmp_path: Path) -> Path:
    """A copy of the whole run, to change."""
    return Path(shutil.copytree(whole_run, tmp_path / "run"))


@pytest.fixture(scope="session")
def made(whole_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """The report of the whole run, made once."""
    return report(Path(shutil.copytree(whole_run, tmp_path_factory.mktemp("made") / "run")))


@pytest.fixture(scope="session")
def write_training() -> Callable[[Path], None]:
    """Write the log of a training that over-fits."""
    return write_metrics


def write_metrics(path: Path) -> None:
    """Two epochs of ten steps: the second over-fits."""
    lines = []
    for step in range(1, 21):
        figures = {"loss": 0.7 - step / 50, "accuracy": 0.6, "pairs": 64, "tokens": 10_000}
        lines.append({"step": step, **figures})
        if step % 5 == 0:
            held = {"accuracy": [0.6, 0.66, 0.65, 0.63][step // 5 - 1], "pairs": 400.0}
            held["loss"] = [0.68, 0.62, 0.63, 0.66][step // 5 - 1]
            lines.append(
                {"step": step, "epoch": step / 10, "eval": {"name": "Held-out Helpful"} | held}
            )
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
