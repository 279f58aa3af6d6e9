"""Fixtures shared by every room's tests."""

import logging
import os
from collections.abc import Generator
from pathlib import Path

# Tiny models gain nothing from a second thread, and parallel test workers that each spin on two
# threads slow one another tenfold. Set before torch reads it.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# `dtype: auto` is float32 here, whatever the CPU; PALATE_NATIVE_BF16=1 makes it bfloat16. What
# depends on it is tested both ways by `native_bf16`.
os.environ.setdefault("PALATE_NATIVE_BF16", "0")

import pytest

from palate.progress import LOG


@pytest.fixture(params=["0", "1"], ids=["bf16-emulated", "bf16-native"])
def native_bf16(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Runs a test with bfloat16 counting as emulated and as native; what counts is in the env."""
    monkeypatch.setenv("PALATE_NATIVE_BF16", request.param)
    return bool(int(request.param))


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real preference data, or a skip that says where it was looked for."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    root = Path(os.environ.get("PALATE_DATA", beside))
    if not (root / "INDEX.md").is_file():
        pytest.skip(f"real data not at {root}; set PALATE_DATA")
    return root


@pytest.fixture
def warned() -> Generator[list[str]]:
    """What is said of results that may be another than they seem, line by line."""
    lines: list[str] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    handler = Lines(logging.WARNING)
    LOG.addHandler(handler)
    yield lines
    LOG.removeHandler(handler)
