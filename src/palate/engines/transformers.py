"""transformers of another version than Palate's: the last of the fourth line, which many still run.

Palate holds every export against the transformers that it runs on itself; this holds it against the
one that reads the older keys of `config.json` and `tokenizer_config.json`.
"""

from __future__ import annotations

from pathlib import Path

from palate.engines.base import Engine, Setup, Way
from palate.engines.session import ask_worker, worker_command


def _command(program: Path, model: Path, _port: int, setup: Setup) -> list[str]:
    return worker_command(program, "transformers", model, setup)


WAYS = (
    Way(
        "AutoModelForSequenceClassification",
        "apply_chat_template(messages), one at a time",
        ask_worker("template"),
    ),
    Way("AutoModelForSequenceClassification", "batches of 8 texts, padded", ask_worker("batch")),
    Way('pipeline("text-classification")', "rendered text", ask_worker("pipeline")),
    Way(
        'pipeline("text-classification")',
        'rendered text, function_to_apply="none"',
        ask_worker("pipeline raw"),
    ),
)

TRANSFORMERS = Engine(
    name="transformers",
    title="transformers",
    distribution="transformers",
    requirements=("transformers==4.57.6",),
    oldest="4.51",
    written="AutoModelForSequenceClassification.from_pretrained(MODEL)",
    command=_command,
    setups=lambda _limit: (Setup((), WAYS),),
    server=False,
)
