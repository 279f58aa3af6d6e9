"""The simulated campaign as a source; see `palate.data.simulation`."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

from pydantic import ValidationError

from palate.data.sources.base import Request, Row, Source
from palate.types import PalateError
from palate.validation import explain

NAME = "simulated"


def load(request: Request) -> Iterator[Row]:
    """Comparisons of a campaign; `seed` and the fields of `CampaignOptions` are the options."""
    options = dict(request.options)
    seed = options.pop("seed", 0)
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise PalateError(f"{NAME}: seed: expected a whole number, got {seed!r}")
    campaign = import_module("palate.data.simulation")  # SciPy is imported only when asked for.
    try:
        campaign_options = campaign.CampaignOptions(**options)
    except ValidationError as error:
        said = explain(error, campaign.CampaignOptions, root="options")
        raise PalateError(f"{NAME}: {said}") from None
    yield from campaign.simulate(campaign_options, seed)


SOURCE = Source(
    name=NAME,
    title="Simulated annotation campaign",
    hub_id=None,
    licence="Apache-2.0",
    kind="both",
    load=load,
    options={"seed": "of the campaign (default 0)", "*": "the fields of CampaignOptions"},
    tried_on="made here",
    notes="latent truth known, so the best possible accuracy is known",
)
