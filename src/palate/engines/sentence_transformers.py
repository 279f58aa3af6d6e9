"""sentence-transformers: a classifier of one label as its `CrossEncoder`."""

from __future__ import annotations

from pathlib import Path

from palate.engines.base import Engine, Setup, Way
from palate.engines.session import ask_worker, worker_command


def _command(program: Path, model: Path, _port: int, setup: Setup) -> list[str]:
    return worker_command(program, "sentence_transformers", model, setup)


PAIRS = "rendered by the roles query and document, which the export's template reads as its own"
WAYS = (
    Way("CrossEncoder.predict", "[messages, ...]", ask_worker("messages")),
    Way(
        "CrossEncoder.predict",
        "[(prompt, response), ...]",
        ask_worker("pairs"),
        pairs=True,
        note=PAIRS,
    ),
    Way("CrossEncoder.rank", "prompt, [response]", ask_worker("rank"), pairs=True, note=PAIRS),
    Way(
        "CrossEncoder.predict",
        "[rendered text, ...]",
        ask_worker("text"),
        promised=False,
        note="a text alone is no input of its",
    ),
)

SENTENCE_TRANSFORMERS = Engine(
    name="sentence-transformers",
    title="sentence-transformers",
    distribution="sentence-transformers",
    requirements=("sentence-transformers==6.2.0",),
    oldest="6.0",
    written="CrossEncoder(MODEL)",
    command=_command,
    setups=lambda _limit: (Setup((), WAYS),),
    server=False,
    missing=(
        "**A conversation of several turns as a pair.** A pair is one text and its response: give "
        "messages.",
    ),
)
