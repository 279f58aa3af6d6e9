"""PKU-SafeRLHF: two replies to a prompt, a safety label for each, two kinds of preference.

Source: https://huggingface.co/datasets/PKU-Alignment/PKU-SafeRLHF (arXiv 2310.12773). The hub
form has both preferences and both labels. The local form `safe_vs_unsafe.json` is a filtered
copy, `{"prompt", "response": [safe one, unsafe one]}`: the labels follow from the filter.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from palate.data.sources import base
from palate.data.sources.base import InvalidRecord, Record, Request, Row, Source, each
from palate.data.sources.files import records
from palate.types import PalateError

NAME = "pku-saferlhf"
HUB_ID = "PKU-Alignment/PKU-SafeRLHF"
PREFERENCES = ("better", "safer")


def load(request: Request) -> Iterator[Row]:
    """Comparisons by the option `preference`: "safer" (default) or "better" (more helpful)."""
    preference = request.options.get("preference", "safer")
    if preference not in PREFERENCES:
        raise PalateError(f"{NAME}: preference is better or safer, not {preference!r}")
    rows = records(request, HUB_ID, splits=("train", "test"))
    return each(rows, partial(_comparison, preference=preference))


def _comparison(record: Record, preference: str) -> Iterator[Row]:
    data = record.data
    safe: tuple[bool | None, bool | None]
    if "response" in data:
        if preference != "safer":
            raise InvalidRecord("this file holds the safer preference only, not the better one")
        pair = base.items(data, "response", 2)
        chosen, rejected = (base.as_text(pair[i], f"response[{i}]") for i in (0, 1))
        safe, meta = (True, False), {"safety_labels": "implied by the filter"}
    else:
        first = base.integer(data, f"{preference}_response_id", (0, 1))
        sides = (first, 1 - first)
        chosen, rejected = (base.text(data, f"response_{i}") for i in sides)
        labels = [base.boolean(data, f"is_response_{i}_safe") for i in sides]
        safe, meta = (labels[0], labels[1]), {"preference": preference}
    prompt = base.text(data, "prompt").strip()
    comparison = record.comparison(NAME, prompt, chosen, rejected, safe=safe, meta=meta)
    # The id is of the replies as the file has them.
    yield replace(comparison, chosen=chosen.strip(), rejected=rejected.strip())


SOURCE = Source(
    name=NAME,
    title="PKU-SafeRLHF",
    hub_id=HUB_ID,
    licence="CC BY-NC 4.0",
    kind="safety",
    load=load,
    options={"preference": "which preference labels the pair: safer (default) or better"},
    folder="pku_saferlhf",
    tried_on="safe_vs_unsafe.json (5,135 rows, 930 prompts); hub form: hand-made rows only",
    notes="non-commercial; cluster: prompt; offensive and harmful text",
)
