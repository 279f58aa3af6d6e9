"""What a simulated campaign may be asked for."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

CampaignTask = Literal["helpfulness", "safety"]
Family = Literal[
    "fact", "arithmetic", "conversion", "comparison", "passage", "steps", "reply", "borderline"
]


class CampaignOptions(BaseModel):
    """Size, kind and noise of a campaign; the seed is given apart.

    `temperature` is the annotators' noise: P(A preferred) = sigmoid((u_A - u_B) / temperature),
    with u in logits. It changes the judgements only: prompts and responses stay the same.
    `families` are those of the ordinary prompts: fewer are learnt from fewer comparisons.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: CampaignTask = "helpfulness"
    weeks: int = Field(default=8, ge=1, le=999)
    comparisons_per_week: int = Field(default=2_000, ge=1)
    temperature: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    annotators: int = Field(default=40, ge=1, le=999)
    families: tuple[Family, ...] = Field(default=get_args(Family), min_length=1)
