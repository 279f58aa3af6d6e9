"""Anthropic HH: crowd workers' choices between two continuations of a conversation.

Source: https://github.com/anthropics/hh-rlhf (arXiv 2204.05862). Each row holds two whole
transcripts; there is no strength of preference, so no rating.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from palate.data.sources import base, files
from palate.data.sources.base import Record, Request, Row, Source, each, split_transcript
from palate.data.sources.files import find_files, read_file, resolve, stem
from palate.types import PalateError

NAME = "anthropic-hh"
HUB_ID = "Anthropic/hh-rlhf"
SUBSETS = ("helpful-base", "helpful-online", "helpful-rejection-sampled", "harmless-base")
SPLITS = ("train", "test")


def load(request: Request) -> Iterator[Row]:
    """Comparisons of one subset, or of all; the subset is the annotation batch."""
    if request.subset is not None and request.subset not in SUBSETS:
        raise PalateError(f"{NAME}: no subset {request.subset!r}; it has {', '.join(SUBSETS)}")
    location = resolve(request, HUB_ID)
    paths = _local(location, request) if isinstance(location, Path) else _on_hub(location, request)
    for path, subset in paths:
        yield from each(read_file(path, f"{subset}/{stem(path)}"), _comparison)


def _local(location: Path, request: Request) -> Iterator[tuple[Path, str]]:
    """Data files of the folder of all subsets, of one subset, or one file by itself."""
    folder = location if location.is_dir() else location.parent
    if folder.name in SUBSETS:
        if request.subset not in (None, folder.name):
            raise PalateError(f"{location}: is {folder.name}, not {request.subset}")
        yield from ((path, folder.name) for path in find_files(location, request.split))
    elif location.is_file():
        yield location, request.subset or stem(location)
    else:
        existing = [subset for subset in SUBSETS if (location / subset).is_dir()]
        subsets = [request.subset] if request.subset else existing
        if not subsets:
            raise PalateError(f"{location}: expected a folder of {', '.join(SUBSETS)}, found none")
        for subset in subsets:
            yield from ((path, subset) for path in find_files(location / subset, request.split))


def _on_hub(hub_id: str, request: Request) -> Iterator[tuple[Path, str]]:
    for subset in [request.subset] if request.subset else SUBSETS:
        for split in [request.split] if request.split else SPLITS:
            yield files.download(hub_id, f"{subset}/{split}.jsonl.gz"), subset


def _comparison(record: Record) -> Iterator[Row]:
    prompt, chosen = split_transcript(base.text(record.data, "chosen"), "chosen")
    other, rejected = split_transcript(base.text(record.data, "rejected"), "rejected")
    batch, meta = record.part.split("/")[0], base.prompts_differ(prompt, other)
    yield record.comparison(NAME, prompt, chosen, rejected, batch=batch, meta=meta)


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
