"""PKU-SafeRLHF: two replies to a prompt, a safety label for each, two kinds of preference.

Source: https://huggingface.co/datasets/PKU-Alignment/PKU-SafeRLHF (arXiv 2310.12773). The hub
form has both preferences and both labels. The local form `safe_vs_unsafe.json` is a filtered
copy, `{"prompt", "response": [safe one, unsafe one]}`: the labels follow from the filter.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from palate.data.sources import base
from palate.data.sources.base import (
    Record,
    Request,
    Row,
    Source,
    Unfit,
    ask,
    each,
    prompt_cluster,
)
from palate.data.sources.files import records
from palate.types import Comparison, PalateError, comparison_id

NAME = "pku-saferlhf"
HUB_ID = "PKU-Alignment/PKU-SafeRLHF"
PREFERENCES = ("better", "safer")


def load(request: Request) -> Iterator[Row]:
    """Comparisons by the option `preference`: "safer" (default) or "better" (more helpful)."""
    preference = request.options.get("preference", "safer")
    if preference not in PREFERENCES:
        raise PalateError(f"{NAME}: preference is better or safer, not {preference!r}")
    found = records(request, HUB_ID, splits=("train", "test"))
    return each(found, partial(_comparison, preference=preference))


def _comparison(record: Record, preference: str) -> Iterator[Row]:
    data = record.data
    if "response" in data:
        if preference != "safer":
            raise Unfit("this file holds the safer preference only, not the better one")
        pair = base.items(data, "response", 2)
        chosen, rejected = (base.as_text(pair[i], f"response[{i}]") for i in (0, 1))
        safe: tuple[bool | None, bool | None] = (True, False)
        extra = {"safety_labels": "implied by the filter"}
    else:
        first = base.whole(data, f"{preference}_response_id", (0, 1))
        chosen, rejected = (base.text(data, f"response_{i}") for i in (first, 1 - first))
        labels = [base.truth(data, f"is_response_{i}_safe") for i in (first, 1 - first)]
        safe, extra = (labels[0], labels[1]), {"preference": preference}
    asked = base.text(data, "prompt").strip()
    prompt = ask(asked)
    yield Comparison(
        id=comparison_id(NAME, prompt, chosen, rejected, record.key),
        source=NAME,
        prompt=prompt,
        chosen=chosen.strip(),
        rejected=rejected.strip(),
        prompt_id=prompt_cluster(asked),
        batch=NAME,
        chosen_safe=safe[0],
        rejected_safe=safe[1],
        meta={**record.origin, **extra},
    )


SOURCE = Source(
    name=NAME,
    title="PKU-SafeRLHF",
    hub_id=HUB_ID,
    licence="CC BY-NC 4.0",
    url=f"https://huggingface.co/datasets/{HUB_ID}",
    kind="safety",
    load=load,
    options={"preference": "which preference labels the pair: safer (default) or better"},
    folder="pku_saferlhf",
    tried_on="safe_vs_unsafe.json (5,135 rows, 930 prompts); hub form: hand-made rows only",
    notes="non-commercial; cluster: prompt; offensive and harmful text",
)
