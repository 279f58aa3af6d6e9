"""One server of two tiny models for all tests that need nothing special of it."""

from collections.abc import Generator
from pathlib import Path

import pytest

from palate.judges.reward_model import RewardScorer
from server import Live, exported, live, server_of


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.mktemp("serve") / "tiny")


@pytest.fixture(scope="session")
def running(tiny_folder: Path) -> Generator[Live]:
    models = {"tiny": str(tiny_folder), "again": str(tiny_folder)}
    with live(server_of(models)) as found:
        yield found


@pytest.fixture(scope="session")
def scorer(tiny_folder: Path) -> RewardScorer:
    return RewardScorer(tiny_folder)
