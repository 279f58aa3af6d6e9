"""Comparisons made by hand for tests that need rows."""

from dataclasses import replace
from pathlib import Path

from palate.records import read_header, write_comparisons
from palate.types import Comparison, Message, comparison_id


def user(text: str) -> tuple[Message, ...]:
    return (Message("user", text),)


def made(prompt="What is a palate good for?", chosen="Taste.", rejected="Colour.", **fields):
    turns = user(prompt) if isinstance(prompt, str) else prompt
    source = fields.pop("source", "made")
    id_ = fields.pop("id", None) or comparison_id(source, turns, chosen, rejected, "")
    fields.setdefault("prompt_id", turns[0].content if turns else "")
    return Comparison(id_, source, turns, chosen, rejected, **fields)


def pool(path: Path, rows: int, source: str, prompts: int | None = None) -> Path:
    """A file of `rows` comparisons over `prompts` prompts."""
    many = [
        made(
            f"Question {source} number {i % (prompts or rows)}?",
            f"yes {i}",
            f"no {i}",
            source=source,
        )
        for i in range(rows)
    ]
    write_comparisons(path, many)
    return path


def same_table(first: Path, second: Path) -> bool:
    """Whether two tables are equal byte for byte, but for when they were made."""

    def before_the_footer(path: Path) -> bytes:
        data = path.read_bytes()
        return data[: -8 - int.from_bytes(data[-8:-4], "little")]

    headers = [replace(read_header(path), created="") for path in (first, second)]
    return headers[0] == headers[1] and before_the_footer(first) == before_the_footer(second)
