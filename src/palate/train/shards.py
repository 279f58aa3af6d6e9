"""Tensors to safetensors files and back by torch.distributed.checkpoint (DCP), one file a rank.

DCP's default storage writes pickles. Its Hugging Face storage writes safetensors whose headers
say which slice of a tensor a file holds, so that another number of processes can read them.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

from palate.train.ranks import Ranks


def shard_name(rank: int) -> str:
    """The file that holds a rank's part."""
    return f"shard-{rank:05d}.safetensors"


def copy_to_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A copy that training does not change any more; sharded tensors stay sharded."""
    stager = DefaultStager(StagingOptions(False, False, False, False))
    copied = stager.stage(dict(tensors))
    assert isinstance(copied, dict)
    return copied


def write_shards(folder: Path, tensors: Mapping[str, Tensor], ranks: Ranks) -> None:
    """Write every rank's part of `tensors` into `folder`; returns when all are on the disk.

    Raises:
        OSError: a rank could not write; raised on all.
    """
    _silence_single_process()
    writer = _ShardWriter(str(folder), save_distributed=True)
    with _os_errors():
        save(
            dict(tensors),
            storage_writer=writer,
            process_group=ranks.group,
            no_dist=ranks.group is None,
        )


def read_shards(folder: Path, tensors: Mapping[str, Tensor], ranks: Ranks) -> None:
    """Fill `tensors` from `folder`, however many processes wrote it.

    Raises:
        OSError: a tensor is missing, has another shape, or cannot be read.
    """
    _silence_single_process()
    reader = HuggingFaceStorageReader(str(folder))
    with _os_errors():
        load(
            dict(tensors),
            storage_reader=reader,
            process_group=ranks.group,
            no_dist=ranks.group is None,
        )


def shard_contents(folder: Path) -> dict[str, TensorStorageMetadata]:
    """The whole shape and the dtype of every tensor in `folder`, by name."""
    found = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    return {k: v for k, v in found.items() if isinstance(v, TensorStorageMetadata)}


class _ShardWriter(HuggingFaceStorageWriter):
    """Streams from memory to the disk: the stock writer first builds the whole file in memory."""

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        tensors, slices = {}, {}
        for item in plan.items:
            data, part = planner.resolve_data(item), item.tensor_data
            assert isinstance(data, Tensor)
            assert part is not None
            tensors[item.index.fqn] = data.detach().contiguous()
            slices[item.index.fqn] = {"saved_offsets": list(part.chunk.offsets)}
        path = Path(self.path) / shard_name(plan.storage_data["shard_index"] - 1)
        # The keys that HuggingFaceStorageReader looks for.
        header = {"DCP_SHARDING_INFO": json.dumps(slices), "format": "pt"}
        try:
            save_file(tensors, path, metadata=header)
        except SafetensorError as error:  # Its own type, which does not say what went wrong.
            raise OSError(str(error)) from None
        with path.open("rb+") as file:
            os.fsync(file.fileno())
        done: Future[list[WriteResult]] = Future()
        done.set_result([WriteResult(i.index, 0, path.name) for i in plan.items])
        return done


@contextmanager
def _os_errors() -> Generator[None]:
    """DCP's own exception as an OSError: it is no Exception and would pass every handler above."""
    try:
        yield
    except CheckpointException as error:
        raise OSError(_reason(error)) from None


def _reason(error: CheckpointException) -> str:
    """What went wrong on the first rank that failed."""
    cause = next(iter(error.failures.values()))[0]
    return (isinstance(cause, OSError) and cause.strerror) or str(cause)


def _silence_single_process() -> None:
    """DCP warns at every call without a process group; `catch_warnings` is not for threads."""
    warnings.filterwarnings("ignore", message="torch.distributed is disabled")
