"""Anthropic HH: crowd workers' choices between two continuations of a conversation.

Source: https://github.com/anthropics/hh-rlhf (arXiv 2204.05862). Each row holds two whole
transcripts; there is no strength of preference, so no rating.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from palate.data.sources import base, files
from palate.data.sources.base import (
    Record,
    Request,
    Row,
    Source,
    each,
    first_user_turn,
    join,
    prompt_cluster,
    split_transcript,
)
from palate.data.sources.files import find_files, locate, read_file, stem
from palate.types import Comparison, PalateError, comparison_id

NAME = "anthropic-hh"
HUB_ID = "Anthropic/hh-rlhf"
SUBSETS = ("helpful-base", "helpful-online", "helpful-rejection-sampled", "harmless-base")
SPLITS = ("train", "test")


def load(request: Request) -> Iterator[Row]:
    """Comparisons of one subset, or of all; the subset is the annotation batch."""
    if request.subset is not None and request.subset not in SUBSETS:
        raise PalateError(f"{NAME}: no subset {request.subset!r}; it has {', '.join(SUBSETS)}")
    where = locate(request, HUB_ID)
    files = _local(where, request) if isinstance(where, Path) else _on_hub(where, request)
    for path, subset in files:
        yield from each(read_file(path, f"{subset}/{stem(path)}"), _comparison)


def _local(where: Path, request: Request) -> Iterator[tuple[Path, str]]:
    """Data files of the folder of all subsets, of one subset, or one file by itself."""
    inside = where if where.is_dir() else where.parent
    if inside.name in SUBSETS:
        if request.subset not in (None, inside.name):
            raise PalateError(f"{where}: is {inside.name}, not {request.subset}")
        yield from ((path, inside.name) for path in find_files(where, request.split))
    elif where.is_file():
        yield where, request.subset or stem(where)
    else:
        subsets = (
            [request.subset] if request.subset else [s for s in SUBSETS if (where / s).is_dir()]
        )
        if not subsets:
            raise PalateError(f"{where}: expected a folder of {', '.join(SUBSETS)}, found none")
        for subset in subsets:
            yield from ((path, subset) for path in find_files(where / subset, request.split))


def _on_hub(hub_id: str, request: Request) -> Iterator[tuple[Path, str]]:
    for subset in [request.subset] if request.subset else SUBSETS:
        for split in [request.split] if request.split else SPLITS:
            yield files.download(hub_id, f"{subset}/{split}.jsonl.gz"), subset


def _comparison(record: Record) -> Iterator[Row]:
    chosen = split_transcript(base.text(record.data, "chosen"), "chosen")
    rejected = split_transcript(base.text(record.data, "rejected"), "rejected")
    prompt = chosen[0]
    yield Comparison(
        id=comparison_id(NAME, prompt, chosen[1], rejected[1], record.key),
        source=NAME,
        prompt=prompt,
        chosen=chosen[1],
        rejected=rejected[1],
        prompt_id=prompt_cluster(first_user_turn(prompt)),
        batch=record.part.split("/")[0],
        meta={**record.origin, **join(chosen, rejected)},
    )


SOURCE = Source(
    name=NAME,
    title="Anthropic Helpful and Harmless",
    hub_id=HUB_ID,
    licence="MIT",
    url="https://github.com/anthropics/hh-rlhf",
    kind="both",
    load=load,
    subsets=SUBSETS,
    folder="anthropic_hh",
    tried_on="test splits of all four subsets (8,552 rows); train splits and hub not run",
    notes=(
        "split at the last assistant turn; a row whose two prompts differ is marked "
        "rejected_prompt_differs; cluster: first human turn; batch: subset"
    ),
)
