"""One server of two tiny models for all tests that need nothing special of it."""

from collections.abc import Generator
from pathlib import Path

import pytest

from palate.judges.reward_model import RewardScorer
from palate.types import Candidates, Message
from server import OTHER, PROMPT, RESPONSE, Live, exported, live, server_of


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


@pytest.fixture(scope="session")
def rewards(scorer: RewardScorer) -> tuple[float, float]:
    """Of RESPONSE and OTHER, by `palate score`."""
    ((first, second),) = scorer.score([Candidates((Message("user", PROMPT),), (RESPONSE, OTHER))])
    assert first.value is not None
    assert second.value is not None
    return first.value, second.value


@pytest.fixture(scope="session")
def reward(rewards: tuple[float, float]) -> float:
    return rewards[0]


@pytest.fixture(scope="session")
def text(scorer: RewardScorer) -> str:
    return scorer.model.chat.render((Message("user", PROMPT),), RESPONSE)


@pytest.fixture(scope="session")
def ids(scorer: RewardScorer) -> list[int]:
    encoded = scorer.model.chat.encode((Message("user", PROMPT),), RESPONSE)
    assert encoded is not None
    return [int(token) for token in encoded.ids]
