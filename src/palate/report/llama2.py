"""Figures printed in the paper that is reproduced, to stand beside ours; all in percent.

Source: Touvron et al., Llama 2: Open Foundation and Fine-Tuned Chat Models, arXiv 2307.09288,
section 3.2 and appendix A.3. None of them carries an error or n.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

SOURCE = "Llama 2, arXiv 2307.09288"

COLUMNS = (
    "Meta Helpful.",
    "Meta Safety",
    "Anthropic Helpful",
    "Anthropic Harmless",
    "OpenAI Summ.",
    "Stanford SHP",
)
"""The test sets of Table 7, in its order."""

_ALIASES = {
    "metahelpful": "Meta Helpful.",
    "metahelpfulness": "Meta Helpful.",
    "metasafety": "Meta Safety",
    "anthropichelpful": "Anthropic Helpful",
    "anthropicharmless": "Anthropic Harmless",
    "openaisumm": "OpenAI Summ.",
    "openaisummarize": "OpenAI Summ.",
    "stanfordshp": "Stanford SHP",
}


def column(name: str | None) -> str | None:
    """The column of Table 7 that `name` means, whatever its case and stops; None for no such."""
    return _ALIASES.get(re.sub(r"[^a-z]", "", (name or "").lower()))


TABLE_6: Mapping[str, int] = MappingProxyType(
    {
        "Anthropic Helpful": 122_387,
        "Anthropic Harmless": 43_966,
        "OpenAI Summarize": 176_625,
        "OpenAI WebGPT": 13_333,
        "StackExchange": 1_038_480,
        "Stanford SHP": 74_882,
        "Synthetic GPT-J": 33_139,
        "Meta (Safety & Helpfulness)": 1_418_091,
    }
)
"""Comparisons by source. The paper's total line says 2,919,326; its rows add up to 2,920,903."""

TABLE_7: Mapping[str, tuple[float | None, ...]] = MappingProxyType(
    {
        "SteamSHP-XL": (52.8, 43.8, 66.8, 34.2, 54.7, 75.7),
        "Open Assistant": (53.8, 53.4, 67.7, 68.4, 71.7, 55.0),
        "GPT-4 (zero-shot)": (58.6, 58.1, None, None, None, None),
        "Safety RM": (56.2, 64.5, 55.4, 74.7, 71.7, 65.2),
        "Helpfulness RM": (63.2, 62.8, 72.0, 71.0, 75.5, 80.0),
    }
)
"""Accuracy by system, in the order of `COLUMNS`."""

TABLE_7_AVERAGE: Mapping[str, float] = MappingProxyType(
    {"SteamSHP-XL": 55.3, "Open Assistant": 63.0, "Safety RM": 64.3, "Helpfulness RM": 70.6}
)
"""The paper's "Avg". Its weights are not given and it is not the mean of the columns, so it
stands beside neither of our averages."""

TABLE_8: Mapping[tuple[str, str], tuple[float, ...]] = MappingProxyType(
    {
        ("Safety RM", "Meta Safety"): (94.3, 76.3, 65.7, 55.3, 64.5),
        ("Helpfulness RM", "Meta Safety"): (89.9, 73.2, 63.8, 54.5, 62.8),
        ("Safety RM", "Meta Helpful."): (64.6, 57.5, 53.8, 52.2, 56.2),
        ("Helpfulness RM", "Meta Helpful."): (80.7, 67.5, 60.9, 54.7, 63.2),
    }
)
"""(system, test set) to accuracy by rating, from significantly better down; then the average."""

TABLE_27: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {"small": (1.0, 2 / 3, 1 / 3, 0.0), "large": (3.0, 2.0, 1.0, 0.0)}
)
"""Margins by rating, from significantly better down; not percent."""

TABLE_28: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {
        "none": (79.1, 66.9, 59.8, 54.5, 62.5),
        "small": (80.4, 67.3, 60.4, 55.0, 63.0),
        "large": (80.7, 67.5, 60.5, 54.3, 62.9),
    }
)
"""Margin ablation of the Helpfulness RM: by rating as in Table 8, then the average."""

TABLE_29: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {
        "Safety RM without auxiliary loss": (63.7, 93.0, 56.0, 59.5, 73.0),
        "Safety RM with auxiliary loss": (64.5, 94.3, 56.9, 59.9, 90.4),
    }
)
"""On Meta Safety: average, safe chosen and unsafe rejected, both safe, both unsafe, recall of
unsafe responses (the share with sigmoid(score) < 0.5)."""


def figures(test_set: str | None) -> dict[str, float | None]:
    """The column of Table 7 by system, empty where the paper has no such test set."""
    known = column(test_set)
    if known is None:
        return {}
    return {system: row[COLUMNS.index(known)] for system, row in TABLE_7.items()}
