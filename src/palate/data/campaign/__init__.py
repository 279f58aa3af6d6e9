"""The simulated campaign: comparisons whose truth is known; see docs/campaign.md.

A made-up assistant answers made-up prompts, week by week; every response has a known latent
helpfulness and safety, and annotators with a stated Bradley-Terry noise judge pairs of them. The
accuracy of the best possible judge is therefore known, overall and per rating.
"""

from palate.data.campaign.annotators import RATING_CUTS
from palate.data.campaign.campaign import simulate, utility
from palate.data.campaign.limits import (
    WordRule,
    bag_of_words_baseline,
    bayes_limit,
    item_limit,
    length_baseline,
    single_word_baseline,
)
from palate.data.campaign.options import CampaignOptions, CampaignTask

__all__ = [
    "RATING_CUTS",
    "CampaignOptions",
    "CampaignTask",
    "WordRule",
    "bag_of_words_baseline",
    "bayes_limit",
    "item_limit",
    "length_baseline",
    "simulate",
    "single_word_baseline",
    "utility",
]
