"""The common providers: where they are asked, whose key, which model, and what theirs need.

The models are those of the examples in each provider's own package (its README), in the dated
snapshot where its list of names has one, and not announced to end there. Nobody asked them: see
docs/chat.md. Look the names up again with each release of these packages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

OPENAI = "https://api.openai.com/v1"
ANTHROPIC = "https://api.anthropic.com/v1"


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider's endpoint, the variable of its key, its model, and options that are its defaults.

    `source` is the package that says so, with its version.
    """

    base_url: str
    key_env: str
    model: str
    source: str
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])


# Room for reasoning, and little effort: the question is short.
REASONS: Mapping[str, Any] = {
    "temperature": None,
    "reasoning_effort": "low",
    "reasoning_tokens": 2048,
}
PROVIDERS: Mapping[str, Provider] = {
    "openai": Provider(
        OPENAI,
        "OPENAI_API_KEY",
        "gpt-5.5-2026-04-23",
        "openai 3.57.0: README, types/shared/chat_model.py",
        REASONS,
    ),
    "anthropic": Provider(
        ANTHROPIC,
        "ANTHROPIC_API_KEY",
        "claude-opus-5-5",
        "anthropic 2.14.0: README, types/model.py",
        {"api": "messages", "reasoning_effort": "low", "reasoning_tokens": 2048},
    ),
    # Its endpoint for the openai package.
    "google": Provider(
        "https://generativelanguage.googleapis.com/v1beta/openai",
        "GEMINI_API_KEY",
        "gemini-3.8-flash",
        "google-genai 3.6.1: README",
        REASONS,
    ),
    "mistral": Provider(
        "https://api.mistral.ai/v1",
        "MISTRAL_API_KEY",
        "mistral-large-latest",
        "mistralai 3.7.0: README",
    ),
}
