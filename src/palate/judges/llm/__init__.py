"""A chat model behind an OpenAI-compatible endpoint as a judge."""

from palate.judges.options import ChatSpec

__all__ = [
    "ChatSpec",
]
