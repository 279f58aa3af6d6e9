"""Fixtures shared by every room's tests."""

import os
from pathlib import Path

# Tiny models gain nothing from a second thread, and parallel test workers that each spin on two
# threads slow one another tenfold. Set before torch reads it.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real preference data, or a skip that says where it was looked for."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    root = Path(os.environ.get("PALATE_DATA", beside))
    if not (root / "INDEX.md").is_file():
        pytest.skip(f"real data not at {root}; set PALATE_DATA")
    return root
