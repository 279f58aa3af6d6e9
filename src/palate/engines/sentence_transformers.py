"""sentence-transformers: a classifier of one label as its `CrossEncoder`."""

from __future__ import annotations

from pathlib import Path

from palate.engines.base import Engine, Setup, Way
from palate.engines.session import ask_worker, worker_command


def _command(program: Path, model: Path, _port: int, setup: Setup) -> list[str]:
    return worker_command(program, "sentence_transformers", model, setup)


WAYS = (
    Way(
        "CrossEncoder.predict",
        "[messages, ...]",
        ask_worker("messages"),
        note="a conversation as a list of messages",
    ),
    Way("CrossEncoder.predict", "[(prompt, response), ...]", ask_worker("pairs"), pairs=True,
        promised=False),
    Way("CrossEncoder.rank", "prompt, [response]", ask_worker("rank"), pairs=True, promised=False),
)  # fmt: skip

SENTENCE_TRANSFORMERS = Engine(
    name="sentence-transformers",
    title="sentence-transformers",
    distribution="sentence-transformers",
    requirements=("sentence-transformers==6.2.0",),
    oldest="6.0",
    command=_command,
    setups=lambda _limit: (Setup((), WAYS),),
    server=False,
)
