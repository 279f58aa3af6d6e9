"""A mixture as tokens: one memory-mapped file that training reads in any order.

Pairs that tokenise to the same conversation, and pairs with a response over the limit, teach
nothing or the wrong thing; they are left out here and counted (pitfalls 1, 2).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from palate.model.batch import Tokens
from palate.model.tokens import ChatTokens
from palate.records import atomic, read_comparisons, read_header
from palate.types import Comparison, PalateError, Rating, digest

ROWS_PER_CHUNK = 1_024

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("prompt", pa.string()),
        ("chosen", pa.list_(pa.int32())),
        ("rejected", pa.list_(pa.int32())),
        ("rating", pa.int8()),
        ("chosen_safe", pa.bool_()),
        ("rejected_safe", pa.bool_()),
    ]
)


@dataclass(frozen=True, slots=True)
class Example:
    """A comparison as tokens. `prompt` names the prompt, so equal prompts can be run once."""

    id: str
    prompt: str
    chosen: Tokens
    rejected: Tokens
    rating: Rating | None
    chosen_safe: bool | None
    rejected_safe: bool | None


@dataclass(frozen=True, slots=True)
class Cuts:
    """What tokenising cost: rows left out by reason, prompts cut."""

    rows: int
    kept: int
    too_long: int
    identical: int
    truncated: int


class Examples:
    """Random access to the examples of a token file; the file is mapped, not read."""

    def __init__(self, path: Path) -> None:
        self._map = pa.memory_map(str(path))
        reader = pa.ipc.open_file(self._map)
        header = json.loads(reader.schema.metadata[b"palate"])
        self.fingerprint: str = header["fingerprint"]
        self.cuts = Cuts(**json.loads(path.with_suffix(".json").read_text())["cuts"])
        self._chunks = [reader.get_batch(i) for i in range(reader.num_record_batches)]

    def __len__(self) -> int:
        return self.cuts.kept

    def __getitem__(self, index: int) -> Example:
        chunk, row = self._chunks[index // ROWS_PER_CHUNK], index % ROWS_PER_CHUNK
        rating = chunk["rating"][row].as_py()
        return Example(
            id=chunk["id"][row].as_py(),
            prompt=chunk["prompt"][row].as_py(),
            chosen=_tokens(chunk["chosen"], row),
            rejected=_tokens(chunk["rejected"], row),
            rating=None if rating is None else Rating(rating),
            chosen_safe=chunk["chosen_safe"][row].as_py(),
            rejected_safe=chunk["rejected_safe"][row].as_py(),
        )

    def prompt_keys(self) -> NDArray[np.uint64]:
        """A number for each row, equal where the prompts are: [N]."""
        keys = [_keys(chunk["prompt"]) for chunk in self._chunks]
        return np.concatenate(keys) if keys else np.empty(0, np.uint64)


def _keys(prompts: Any) -> NDArray[np.uint64]:
    """The first 8 of the 32 hex digits; two prompts that share them are merely neighbours."""
    heads = pc.binary_slice(prompts.cast(pa.binary()), 0, 8).cast(pa.binary(8))
    return np.frombuffer(heads.buffers()[1], np.uint64, len(heads), 8 * heads.offset)


def _tokens(column: Any, row: int) -> Tokens:
    values: Tokens = column[row].values.to_numpy(zero_copy_only=True)
    return values


def tokenise(comparisons: Path, chat: ChatTokens, out: Path) -> Examples:
    """Tokenise a comparison file to `out`, or reuse `out` where it was made of the same input.

    Raises:
        PalateError: no pair is left to train on.
    """
    source = read_header(comparisons, "comparisons")
    fingerprint = digest(source.fingerprint, chat.fingerprint)
    if _made_of(out, fingerprint):
        return Examples(out)
    counts: Counter[str] = Counter()
    schema = SCHEMA.with_metadata({b"palate": json.dumps({"fingerprint": fingerprint})})
    rows = _rows(read_comparisons(comparisons), chat, counts)
    with atomic(out) as partial, pa.ipc.new_file(partial, schema) as writer:
        while chunk := list(islice(rows, ROWS_PER_CHUNK)):
            writer.write_batch(pa.RecordBatch.from_pylist(chunk, schema=schema))
    cuts = {name: counts[name] for name in Cuts.__dataclass_fields__}
    with atomic(out.with_suffix(".json")) as partial:
        partial.write_text(json.dumps({"fingerprint": fingerprint, "cuts": cuts}))
    if not counts["kept"]:
        raise PalateError(
            f"{comparisons}: none of {counts['rows']} pairs can be used at "
            f"max_tokens={chat.max_tokens} ({counts['too_long']} too long, "
            f"{counts['identical']} identical); raise base.max_tokens"
        )
    return Examples(out)


def _made_of(out: Path, fingerprint: str) -> bool:
    note = out.with_suffix(".json")
    if not (out.is_file() and note.is_file()):
        return False
    return bool(json.loads(note.read_text())["fingerprint"] == fingerprint)


def _rows(
    comparisons: Iterable[Comparison], chat: ChatTokens, counts: Counter[str]
) -> Iterator[dict[str, Any]]:
    for comparison in comparisons:
        counts["rows"] += 1
        chosen = chat.encode(comparison.prompt, comparison.chosen)
        rejected = chat.encode(comparison.prompt, comparison.rejected)
        if chosen is None or rejected is None:
            counts["too_long"] += 1
        elif np.array_equal(chosen.ids, rejected.ids):
            counts["identical"] += 1
        else:
            counts["kept"] += 1
            counts["truncated"] += chosen.truncated or rejected.truncated
            yield {
                "id": comparison.id,
                "prompt": digest([[m.role, m.content] for m in comparison.prompt]),
                "chosen": chosen.ids,
                "rejected": rejected.ids,
                "rating": comparison.rating,
                "chosen_safe": comparison.chosen_safe,
                "rejected_safe": comparison.rejected_safe,
            }
