"""PandaLM's test set: pairs of answers to one instruction, each judged by three people.

Source: https://github.com/WeOpenML/PandaLM (arXiv 2306.05087). `annotator1` to `annotator3` are 1
or 2, the better response, or 0, a tie.
"""

from __future__ import annotations

from collections.abc import Iterator

from palate.data.sources import base
from palate.data.sources.base import Record, Request, Row, Source, each
from palate.data.sources.files import records
from palate.types import PREFERRED, Judgement

NAME = "pandalm"
HUB_ID = None
ANNOTATORS = ("annotator1", "annotator2", "annotator3")


def load(request: Request) -> Iterator[Row]:
    """Three comparisons a row, one an annotator."""
    return each(records(request, HUB_ID), _comparisons)


def _comparisons(record: Record) -> Iterator[Row]:
    data = record.data
    parts = [base.text(data, "instruction").strip(), base.text(data, "input").strip()]
    prompt = "\n\n".join(part for part in parts if part)
    responses = [base.text(data, f"response{i}").strip() for i in (1, 2)]
    models = base.text(data, "cmp_key").split("_")
    for annotator in ANNOTATORS:
        vote = base.integer(data, annotator, (0, 1, 2))
        chosen = 1 if vote == 2 else 0
        yield record.comparison(
            NAME,
            prompt,
            responses[chosen],
            responses[1 - chosen],
            key=f"{record.part}:{record.row}:{annotator}",
            annotator=annotator,
            judgement=PREFERRED if vote else Judgement(chosen=0, tie=1),
            meta={
                "application": base.optional_text(data, "motivation_app"),
                "models": [models[chosen], models[1 - chosen]] if len(models) == 2 else models,
            },
        )


SOURCE = Source(
    name=NAME,
    title="PandaLM's test set",
    hub_id=HUB_ID,
    url="https://github.com/WeOpenML/PandaLM",
    licence="Apache-2.0",
    kind="helpful",
    load=load,
    folder="pandalm",
    tried_on="testset-v1.json, 999 pairs",
    notes="a benchmark: never train on it; cluster: instruction with its input; an annotator is "
    "known by a column, which may be several people",
)
