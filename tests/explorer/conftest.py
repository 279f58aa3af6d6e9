"""A small run on disk with everything the explorer reads, and a browser's side of it."""

import shutil
from collections.abc import Callable
from copy import copy
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from made import made, user
from palate.explorer.annotations import Annotations
from palate.explorer.app import build_app
from palate.explorer.run import Explorer, OpenRun
from palate.records import write_comparisons, write_verdicts
from palate.types import Comparison, Message, Outcome, Rating, Verdict

TOKEN, PORT = "a-token-for-tests-only", 4321
HOSTILE = (
    '<script>alert(1)</script> <img src=x onerror="alert(2)"> [x](javascript:alert(3)) \u202eevil'
)


def comparisons(name: str, rows: int = 60) -> list[Comparison]:
    """Rows with every facet; the last one is hostile in each of its texts."""
    rows_with_facets = [
        made(
            (
                (Message("user", "first turn"), Message("assistant", "well"))
                if n % 2
                else ()
            ) + user(f"{name} question {n} about {'bread' if n % 3 else 'Sea Salt'}?"),
            f"the good answer {n} of {name}",
            f"the poor answer {n} of {name}",
            source=("books", "films")[n % 2],
            prompt_id=f"{name} {n // 2}",
            batch=f"week {n % 4}",
            rating=Rating(1 + n % 4) if n % 5 else None,
            chosen_safe=(True, True, False, None)[n % 4],
            rejected_safe=(False, True, False, None)[n % 4],
        )
        for n in range(rows - 1)
    ]  # fmt: skip
    hostile = made(
        HOSTILE, f"{HOSTILE} chosen", f"{HOSTILE} rejected\n=cmd()", source=HOSTILE, batch=HOSTILE,
        prompt_id=name, annotator=HOSTILE,
    )  # fmt: skip
    return [*rows_with_facets, hostile]


def write_judge(
    run: Path,
    judge: str,
    benchmark: str,
    rows: list[Comparison],
    margin: Callable[[int], float | None],
    *,
    kind: str = "reward-model",
    both: bool = False,
) -> Path:
    """Verdicts of a judge whose chosen score exceeds the rejected by `margin`; None is unscored."""
    protocol = {"judge": {"name": judge, "judge": kind}, "order": "both" if both else "seeded"}
    verdicts = [
        _verdict(judge, benchmark, row, margin(n * (1 + both) + order), chosen_first=not order)
        for n, row in enumerate(rows)
        for order in range(1 + both)
    ]
    path = run / "verdicts" / f"{judge}--{benchmark}.parquet"
    details = {"judge": judge, "benchmark": benchmark, "protocol": protocol}
    write_verdicts(path, verdicts, details=details)
    return path


def _verdict(
    judge: str, benchmark: str, row: Comparison, margin: float | None, chosen_first: bool
) -> Verdict:
    outcome = Outcome.UNSCORED if margin is None else Outcome.TIE
    if margin:
        outcome = Outcome.CORRECT if margin > 0 else Outcome.WRONG
    return Verdict(
        judge=judge, benchmark=benchmark, comparison_id=row.id, outcome=outcome,
        chosen_score=None if margin is None else margin + 7.25,
        rejected_score=None if margin is None else 7.25,
        reason="too long" if margin is None else "", truncated=False, cluster=row.prompt_id,
        source=row.source, rating=row.rating, bin=row.bin, chosen_first=chosen_first,
        protocol="p", answer=HOSTILE if judge == "chat" else "", chosen_length=1, rejected_length=1,
    )  # fmt: skip


def margins(shift: int) -> Callable[[int], float | None]:
    """Margins of both signs and all sizes, a tie now and then and one without a score."""
    return lambda n: None if n == 3 + shift else ((n * 37 + shift) % 21 - 8) / 4


@pytest.fixture(scope="session")
def saved_run(tmp_path_factory) -> Path:
    """The run, made once; nothing may write to it."""
    run = tmp_path_factory.mktemp("view") / "run <b>"
    rows = comparisons("exam")
    write_comparisons(run / "benchmarks" / "exam.parquet", rows)
    write_comparisons(run / "mixtures" / "all.parquet", comparisons("practice", 40))
    write_judge(run, "helpful", "exam", rows, margins(0))
    write_judge(run, "safe", "exam", rows, margins(5))
    write_judge(run, "chat", "exam", rows, margins(2), kind="chat", both=True)
    write_judge(run, "longer", "exam", rows, margins(9), kind="longer")
    return run


@pytest.fixture
def run(saved_run, tmp_path) -> Path:
    """A copy of the run, to change."""
    return Path(shutil.copytree(saved_run, tmp_path / "run"))


@pytest.fixture(scope="session")
def opened(saved_run, tmp_path_factory) -> OpenRun:
    """The run, opened once; its marks stay empty."""
    run = OpenRun(saved_run, tmp_path_factory.mktemp("none") / "marks.sqlite")
    run.open()
    return run


@pytest.fixture
def marking(opened, tmp_path) -> OpenRun:
    """The run with a file of marks of this test's own."""
    run = copy(opened)
    run.annotations = Annotations(tmp_path / "marks.sqlite")
    return run


@pytest.fixture
def browse() -> Callable[..., TestClient]:
    """A browser that was let in to some runs."""

    def let_in(*runs: OpenRun, annotator: str = "ann", blind: bool = False) -> TestClient:
        app = build_app(Explorer(runs, annotator, blind), token=TOKEN, port=PORT)
        client = TestClient(app, base_url=f"http://127.0.0.1:{PORT}")
        assert client.get("/", params={"token": TOKEN}).status_code == 200
        return client

    return let_in
