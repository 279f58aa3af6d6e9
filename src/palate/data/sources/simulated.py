"""The simulated campaign as a source; see `palate.data.simulation`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module

from pydantic import ValidationError

from palate.data.sources.base import InvalidRecord, Request, Row, Source, rated
from palate.types import Comparison, PalateError
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
    for comparison in campaign.simulate(campaign_options, seed):
        yield comparison if not request.attributes else _with_attributes(comparison, request)


def _with_attributes(comparison: Comparison, request: Request) -> Row:
    """The comparison with the latent truth of either response as its attributes, without noise."""
    latent = comparison.meta["latent"]
    try:
        chosen, rejected = (
            rated(latent[side], request.attributes) for side in ("chosen", "rejected")
        )
    except InvalidRecord as invalid:
        raise PalateError(f"{NAME}: {invalid.reason}") from None
    return replace(comparison, chosen_attributes=chosen, rejected_attributes=rejected)


SOURCE = Source(
    name=NAME,
    title="Simulated annotation campaign",
    hub_id=None,
    licence="Apache-2.0",
    kind="both",
    load=load,
    options={"seed": "of the campaign (default 0)", "*": "the fields of CampaignOptions"},
    tried_on="made here",
    attributes=("helpfulness", "safety"),
    notes="latent truth known, so the best possible accuracy is known",
)
