"""A tiny reward model, its scores offline, and Palate's own server of it, well or troubled."""

from contextlib import contextmanager

import pytest

from palate.judges.reward_model import RewardScorer
from palate.serve import app as serve_app
from palate.types import Candidates
from server import exported, live, server_of
from troubled import ROWS, Troubled, messages


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return exported(tmp_path_factory.mktemp("model") / "helpful")


@pytest.fixture(scope="session")
def offline(folder):
    """Rewards of rows as `palate score` gives them."""
    scorer = RewardScorer(folder)

    def score(rows=ROWS):
        asked = [Candidates(messages(prompt), (response,)) for prompt, response in rows]
        return [score.value for (score,) in scorer.score(asked)]

    return score


@pytest.fixture(scope="session")
def url(folder):
    with live(server_of({"helpful": str(folder)})) as running:
        yield running.url


@pytest.fixture
def troubled(folder, monkeypatch):
    """`with troubled(fault, gather=0) as (url, app)`: our server behind troubles."""

    create_app = serve_app.create_app

    @contextmanager
    def serving(fault=lambda _: None, gather=0):
        app = Troubled(fault, gather)

        def create(server):
            app.app = create_app(server)
            return app

        monkeypatch.setattr(serve_app, "create_app", create)
        with live(server_of({"helpful": str(folder)})) as running:
            yield running.url, app

    return serving
