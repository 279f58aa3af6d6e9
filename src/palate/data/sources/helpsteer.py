"""HelpSteer2 and HelpSteer3: which of two responses is more helpful, how much, and attributes.

Sources: https://huggingface.co/datasets/nvidia/HelpSteer2 (folder `preference`, arXiv 2410.01257)
and https://huggingface.co/datasets/nvidia/HelpSteer3 (arXiv 2505.11475). The strength is -3 to 3:
below 0 response 1 is better, above 0 response 2, 0 is a tie; 1 slightly, 2 better, 3 much better.
A copy that has turned the pairs round, `chosen` before `rejected` with a strength of 0 to 3, is
read too; rewards of a model beside it are not.

HelpSteer2's main files (arXiv 2406.08673) and HelpSteer's have one response a row with five
attributes that people rated 0 to 4. They are read where `attributes` asks for some of them: the two
responses of a prompt are then a comparison by their helpfulness, and equal ones a tie.
"""

from __future__ import annotations

from collections.abc import Iterator

from palate.data.sources import base
from palate.data.sources.base import (
    BadRow,
    InvalidRecord,
    Record,
    Records,
    Request,
    Row,
    Scales,
    Source,
    each,
    split_messages,
    user_turn,
)
from palate.data.sources.files import records
from palate.data.sources.mapping import rated_pairs
from palate.data.transcript import Turns
from palate.types import PREFERRED, Judgement, Rating

NAME = "helpsteer"
HUB_ID = "nvidia/HelpSteer3"
RATINGS = {1: Rating.SLIGHTLY, 2: Rating.BETTER, 3: Rating.SIGNIFICANTLY}


def load(request: Request) -> Iterator[Row]:
    """One comparison a row; of rows with attributes of one response, one for each two of a prompt.

    These are left out where no attribute is asked for.
    """
    rows = records(request, HUB_ID, splits=("train", "validation"))
    if not request.attributes:
        return each(rows, _comparison)
    return _with_attributes(rows, request.attributes)


def _with_attributes(rows: Records, scales: Scales) -> Iterator[Row]:
    single: list[Record] = []
    for row in rows:
        if isinstance(row, Record) and "response" in row.data:
            single.append(row)
        else:
            yield from each([row], _comparison)
    roles = {"prompt": "prompt", "response": "response", "score": "helpfulness"}
    roles |= {f"response.{name}": name for name in scales}
    for pair in rated_pairs(single, roles, scales):
        if isinstance(pair, BadRow):
            yield pair
            continue
        record, reading = pair
        try:
            yield record.comparison(
                NAME,
                *(base.text(reading.data, name) for name in ("prompt", "chosen", "rejected")),
                key=reading.key,
                judgement=reading.judgement,
                ranks=reading.ranks,
                attributes=reading.attributes,
            )
        except InvalidRecord as invalid:
            yield record.bad(invalid)


def _comparison(record: Record) -> Iterator[Row]:
    data = record.data
    prompt, responses, strength = _fields(record)
    chosen = 1 if strength > 0 else 0
    yield record.comparison(
        NAME,
        prompt,
        responses[chosen],
        responses[1 - chosen],
        rating=RATINGS.get(abs(strength)),
        judgement=PREFERRED if strength else Judgement(chosen=0, tie=1),
        meta={
            "strength": abs(strength),
            **{key: data[key] for key in ("domain", "language") if data.get(key)},
        },
    )


def _fields(record: Record) -> tuple[Turns, list[str], int]:
    """Prompt, both responses, and the strength, below 0 where the first is better."""
    data = record.data
    if "chosen" in data:
        strength = base.integer(data, "preference_strength", range(4))
        sides = [
            split_messages(base.messages(base.required(data, column), column), column)
            for column in ("chosen", "rejected")
        ]
        return sides[0][0], [sides[0][1], sides[1][1]], -strength
    column = next((c for c in ("overall_preference", "preference_strength") if c in data), None)
    if column is None:
        raise InvalidRecord("no preference: a row of attributes of one response", "left out")
    strength = base.integer(data, column, range(-3, 4))
    context = data.get("context")
    prompt = (
        user_turn(base.text(data, "prompt"))
        if context is None
        else base.messages(context, "context")
    )
    names = ("response1", "response2") if "response1" in data else ("response_1", "response_2")
    return prompt, [base.text(data, name).strip() for name in names], strength


SOURCE = Source(
    name=NAME,
    title="HelpSteer2, HelpSteer3",
    hub_id=HUB_ID,
    licence="CC BY 4.0",
    kind="helpful",
    load=load,
    folder="helpsteer2_sample",
    attributes=("helpfulness", "correctness", "coherence", "complexity", "verbosity"),
    tried_on="100 rows of HelpSteer2-Preference in a copy; hand-made rows of the hub forms",
    notes="strength 1 to 3 is slightly, better, significantly better; 0 is a tie; cluster: first "
    "user turn; attributes 0 to 4, of responses that are compared by helpfulness",
)
