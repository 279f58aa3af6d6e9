"""Options of a chat judge whose answers are kept in the test's own folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PRICES = """models:
  m: {input_per_million: 10, output_per_million: 100, date: 2026-01-01, source: a test}
"""


@pytest.fixture
def options(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """`options(url, budget=1)` gives what a recipe says of the judge; pauses are short."""
    (tmp_path / "prices.yaml").write_text(PRICES)

    def make(url: str, **changes: Any) -> dict[str, Any]:
        return {
            "model": "m",
            "base_url": url,
            "cache": str(tmp_path / "chat.sqlite"),
            "prices": str(tmp_path / "prices.yaml"),
            "retry_seconds": 0.01,
            "timeout_seconds": 20,
        } | changes

    return make
