"""Rows of the Hugging Face hub, streamed or downloaded; code of a data set is never run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from palate.data.sources.source import Record, Records
from palate.types import PalateError

# Where the hub keeps the converted copy of data sets whose own form is a program.
CONVERTED = "refs/convert/parquet"


def stream(
    hub_id: str,
    *,
    split: str,
    name: str | None = None,
    data_dir: str | None = None,
) -> Records:
    """Yield the rows of one split of a hub data set, without storing it.

    `name` is a configuration, `data_dir` a folder of the data set.
    """
    file = f"hub:{hub_id}:{split}"
    part = "/".join(filter(None, (name or data_dir, split)))
    rows = _streamed(hub_id, {"split": split, "name": name, "data_dir": data_dir})
    for row, data in enumerate(rows, start=1):
        yield Record(file, row, part, data)


def _streamed(hub_id: str, wanted: dict[str, Any]) -> Iterator[dict[str, Any]]:
    arguments = {key: value for key, value in wanted.items() if value is not None}
    try:
        yield from _open(hub_id, arguments)
    except PalateError:
        raise
    except Exception as error:
        # datasets, huggingface_hub, fsspec, pyarrow and the network each raise their own.
        raise _unreachable(hub_id, error) from error


def _open(hub_id: str, arguments: dict[str, Any]) -> Any:
    import datasets  # Heavy, and needed only for rows of the hub.

    try:
        return datasets.load_dataset(hub_id, streaming=True, **arguments)
    except RuntimeError as error:
        if "script" not in str(error):
            raise
        # In the converted copy a configuration is a folder.
        folder = {"data_dir": arguments["name"]} if "name" in arguments else {}
        plain = {key: value for key, value in arguments.items() if key != "name"} | folder
        return datasets.load_dataset(hub_id, streaming=True, revision=CONVERTED, **plain)


def download(hub_id: str, filename: str) -> Path:
    """The local copy of one file of a hub data set."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(hub_id, filename, repo_type="dataset"))
    except Exception as error:
        raise _unreachable(f"{hub_id}/{filename}", error) from error


def _unreachable(what: str, error: Exception) -> PalateError:
    reason = (str(error).strip().splitlines() or [""])[0]
    return PalateError(
        f"{what}: not read from the hub ({type(error).__name__}: {reason}); "
        "check the name and the connection, or give a local file or folder"
    )
