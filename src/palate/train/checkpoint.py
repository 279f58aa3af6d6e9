"""Save and resume exactly: trainable weights, optimizer moments, the step.

Nothing else is state: the order of examples is a function of (seed, epoch), the learning rate of
the step, there is no dropout, and frozen weights come from the base. A checkpoint is a folder
`step-N` that appears whole by a rename:

    shard-00000.safetensors  one file a process: its part of `weight/NAME`, `exp_avg/NAME`, ...
    manifest.json            the state (step, fingerprint), versions, size and digest of each file
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import warnings
from collections.abc import Container, Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import torch
from safetensors import SafetensorError, safe_open
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
from torch.distributed.tensor import DTensor
from torch.futures import Future as TorchFuture
from torch.nn import Parameter
from torch.optim import AdamW

from palate.model.reward_model import RewardModel
from palate.records import atomic, file_digest, follow_umask, package_versions, write_json
from palate.train.distributed import Distributed
from palate.types import PalateError, digest

# Tensors to safetensors files and back by torch.distributed.checkpoint (DCP), one file a rank.
#
# DCP's default storage writes pickles. Its Hugging Face storage writes safetensors whose headers
# say which slice of a tensor a file holds, so that another number of processes can read them.


class _ShardWriter(HuggingFaceStorageWriter):
    """Streams from memory to the disk: the stock writer first builds the whole file in memory."""

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> TorchFuture[list[WriteResult]]:
        tensors, slices = {}, {}
        for item in plan.items:
            data, part = planner.resolve_data(item), item.tensor_data
            assert isinstance(data, Tensor)
            assert part is not None
            tensors[item.index.fqn] = data.detach().contiguous()
            slices[item.index.fqn] = {"saved_offsets": list(part.chunk.offsets)}
        path = Path(self.path) / _shard_name(plan.storage_data["shard_index"] - 1)
        # The keys that HuggingFaceStorageReader looks for.
        header = {"DCP_SHARDING_INFO": json.dumps(slices), "format": "pt"}
        try:
            save_file(tensors, path, metadata=header)
        except SafetensorError as error:  # Its own type, which does not say what went wrong.
            raise OSError(str(error)) from None
        with path.open("rb+") as file:
            os.fsync(file.fileno())
        future: TorchFuture[list[WriteResult]] = TorchFuture()
        future.set_result([WriteResult(i.index, 0, path.name) for i in plan.items])
        return future


def _shard_name(rank: int) -> str:
    """The file that holds a rank's part."""
    return f"shard-{rank:05d}.safetensors"


@contextmanager
def _dcp(world: Distributed) -> Generator[dict[str, Any]]:
    """The arguments that DCP wants of the processes; what goes wrong on a rank as an OSError.

    DCP's own exception is no Exception and would pass every handler above.
    """
    # DCP warns at every call without a process group; `catch_warnings` is not for threads.
    warnings.filterwarnings("ignore", message="torch.distributed is disabled")
    try:
        yield {"process_group": world.group, "no_dist": world.group is None}
    except CheckpointException as error:
        cause = next(iter(error.failures.values()))[0]  # On the first rank that failed.
        raise OSError((isinstance(cause, OSError) and cause.strerror) or str(cause)) from None


MANIFEST = "manifest.json"


class Checkpoints:
    """The last `keep` checkpoints under `folder`, and the one that the last names as the best.

    With several processes, all make it and call each method at the same step.
    """

    def __init__(self, folder: Path, *, keep: int = 2) -> None:
        self._folder = folder
        self._keep = keep
        self._world = Distributed.apart()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None

    def load(self, model: RewardModel, optimizer: AdamW, fingerprint: str) -> dict[str, Any] | None:
        """Restore the newest whole checkpoint and return its state; None where there is none.

        A damaged one is named on stderr, and the one before it is taken.

        Raises:
            PalateError: it belongs to another experiment or model, or none is whole.
        """
        self.wait()
        names = self._world.first(self._tidy)
        share = slice(self._world.rank, None, self._world.size)  # Every rank checks some files.
        for name in names:
            folder = self._folder / name
            damages = self._world.every(lambda: damage_of(folder, share))  # noqa: B023
            damage = next(filter(None, damages), None)
            if damage is None:
                state: dict[str, Any] = _read_manifest(folder)["state"]
                if state["fingerprint"] != fingerprint:
                    raise PalateError(
                        f"{folder}: made by other data or options; train with --no-resume or a "
                        "new folder"
                    )
                _restore(folder, model, optimizer, self._world)
                return state
            if self._world.leads:
                sys.stderr.write(f"palate: {folder}: damaged checkpoint, not used: {damage}\n")
        if names:
            raise PalateError(
                f"{self._folder}: none of the {len(names)} checkpoints is whole; "
                "start over with --no-resume"
            )
        return None

    def save(
        self,
        model: RewardModel,
        optimizer: AdamW,
        state: Mapping[str, Any],
        *,
        wait: bool = False,
    ) -> None:
        """Copy what is to be saved and return; `step-N` is written meanwhile and appears whole.

        With `wait` it is written before this returns, without the copy.

        Args:
            state: JSON values; must hold "step" and "fingerprint" (what may resume from it).
                `state["best"]["step"]`, where there is one, is a checkpoint that stays.

        Raises:
            PalateError: this checkpoint, or the one before it, could not be written.
        """
        self.wait()
        tensors = _tensors(model, optimizer)
        if wait:
            self._write(tensors, state)
        else:
            # A copy that training does not change any more; sharded tensors stay sharded.
            stager = DefaultStager(StagingOptions(False, False, False, False))
            copied = stager.stage(dict(tensors))
            assert isinstance(copied, dict)
            self._writing = self._thread.submit(self._write, copied, state)

    def restore(self, step: int, model: RewardModel, optimizer: AdamW) -> None:
        """Fill weights and moments from the checkpoint of `step`.

        Raises:
            PalateError: it is missing or damaged.
        """
        self.wait()
        folder = self._folder / _name(step)
        share = slice(self._world.rank, None, self._world.size)
        damage = next(filter(None, self._world.every(lambda: damage_of(folder, share))), None)
        if damage is not None:
            raise PalateError(f"{folder}: damaged checkpoint: {damage}; train with --no-resume")
        _restore(folder, model, optimizer, self._world)

    def wait(self) -> None:
        """Wait until what is being written is on the disk.

        Raises:
            PalateError: it could not be written.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.wait()
        except PalateError as failure:
            if error is None:
                raise
            sys.stderr.write(f"palate: {failure}\n")  # `error` is raised and reported further up.
        finally:
            self._thread.shutdown()

    def _write(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        target = self._folder / _name(state["step"])
        partial = self._folder / f".{target.name}.partial"
        own = partial / _shard_name(self._world.rank)

        def renew() -> None:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)

        try:
            self._world.first(renew)
            with _dcp(self._world) as processes:
                writer = _ShardWriter(str(partial), save_distributed=True)
                save(dict(tensors), storage_writer=writer, **processes)
            files = self._world.every(lambda: {own.name: _facts(own)} if own.exists() else {})
            self._world.first(lambda: _commit(partial, target, state, files))
        except Exception as error:
            if self._world.leads:
                shutil.rmtree(partial, ignore_errors=True)
            reason = getattr(error, "strerror", None) or error
            raise PalateError(
                f"{target}: checkpoint not written ({reason}); earlier ones are whole; "
                "free some space and run again"
            ) from None
        if self._world.leads:
            # Later steps are of a training that was started over, or the rest of a removal that a
            # kill cut short.
            names = self._tidy()
            keep = {name for name in names if name <= target.name}
            keep = {*sorted(keep, reverse=True)[: self._keep]}
            if best := state.get("best"):
                keep.add(_name(best["step"]))
            for name in set(names) - keep:
                _remove(self._folder / name)

    def _tidy(self) -> list[str]:
        """Remove what a killed run left half made; the names of the checkpoints, newest first."""
        for left in self._folder.glob(".step-*"):
            shutil.rmtree(left, ignore_errors=True)
        return sorted((p.name for p in self._folder.glob("step-*")), reverse=True)


def _name(step: int) -> str:
    """The folder of a step's checkpoint."""
    return f"step-{step:08d}"


SNAPSHOTS = "snapshots"


class Snapshots:
    """Trained weights of some steps, without moments: `step-N.safetensors`, whole or not there.

    Of them an ensemble is made. They are on the disk before any later checkpoint is, so that a
    killed training goes on with all it had.
    """

    def __init__(self, folder: Path, world: Distributed) -> None:
        self._folder, self._world = folder, world

    def save(self, step: int, model: RewardModel) -> None:
        """Write the weights that learn, as they are now; all ranks call it at the same step."""
        weights = {name: _whole(p) for name, p in _trainable(model).items()}
        path = self._folder / f"{_name(step)}.safetensors"
        if self._world.leads:
            write_weights(path, weights)

    def leave(self, steps: Container[int]) -> None:
        """Remove those of other steps."""
        for path in self.files if self._world.leads else ():
            if int(path.stem.removeprefix("step-")) not in steps:
                path.unlink(missing_ok=True)

    @property
    def files(self) -> list[Path]:
        """Those that are there, by step."""
        return sorted(self._folder.glob("step-*.safetensors"))


def _whole(parameter: Tensor) -> Tensor:
    """A copy on the CPU, of the shards of all ranks where it has some."""
    tensor = parameter.detach()
    whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return whole.to("cpu", copy=True)


def write_weights(path: Path, weights: Mapping[str, Tensor], fingerprint: str = "") -> None:
    """Write tensors to a file that appears whole, with what it was made of.

    Raises:
        PalateError: it cannot be written.
    """
    try:
        with atomic(path) as partial:
            save_file(dict(weights), partial, metadata={"fingerprint": fingerprint})
    except SafetensorError as error:  # What safetensors makes of a full disk.
        raise PalateError(
            f"{path}: cannot be written ({error}); free some space and run again"
        ) from None


def read_weights(path: Path, fingerprint: str = "") -> dict[str, Tensor] | None:
    """The tensors of such a file; None where it is missing, damaged, or made of something else."""
    try:
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get("fingerprint") != fingerprint:
                return None
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError):
        return None


def stored_dtype(folder: Path) -> Literal["float32", "bfloat16"] | None:
    """The number format that the checkpoints in `folder` were made in, where one says so."""
    for path in sorted(folder.glob(f"step-*/{MANIFEST}"), reverse=True):
        with suppress(OSError, ValueError, KeyError, TypeError):
            dtype = _read_manifest(path.parent)["state"].get("dtype")
            if dtype in ("float32", "bfloat16"):
                return dtype
    return None


def refuse_other_dtype(folder: Path, state: Mapping[str, Any], dtype: str) -> None:
    """Raise where a checkpoint was made in another number format than it would go on in."""
    stored = state.get("dtype", dtype)  # Older ones do not say.
    if stored != dtype:
        raise PalateError(
            f"{folder}: this training began in {stored} and would go on in {dtype}; set "
            f"backbone.dtype={stored}, or train with --no-resume or a new folder"
        )


def _tensors(model: RewardModel, optimizer: AdamW) -> dict[str, Tensor]:
    """What is saved, by its name in the files: `weight/NAME`, then each moment's."""
    named = _trainable(model)
    weights = {f"weight/{name}": parameter.detach() for name, parameter in named.items()}
    moments = {
        f"{moment}/{name}": value
        for name, parameter in named.items()
        for moment, value in optimizer.state.get(parameter, {}).items()
    }
    return weights | moments


def _trainable(model: RewardModel) -> dict[str, Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _restore(folder: Path, model: RewardModel, optimizer: AdamW, world: Distributed) -> None:
    """Fill weights and moments from `folder`, however many processes wrote it."""
    reader = HuggingFaceStorageReader(str(folder))
    contents = reader.read_metadata().state_dict_metadata
    # The whole shape and the dtype of every tensor, by name.
    stored = {k: v for k, v in contents.items() if isinstance(v, TensorStorageMetadata)}
    named = _trainable(model)
    shapes = {k: v.size for k, v in stored.items() if k.startswith("weight/")}
    if shapes != {f"weight/{name}": p.shape for name, p in named.items()}:
        raise PalateError(
            f"{folder}: made by another model; train with --no-resume or a new folder"
        )
    optimizer.state.clear()
    for key, facts in stored.items():
        kind, _, name = key.partition("/")
        if kind == "weight":
            continue
        parameter, dtype = named[name], facts.properties.dtype
        if facts.size == parameter.shape:
            moment = torch.zeros_like(parameter, dtype=dtype)
        else:  # The step counter, which the optimizer may expect on the CPU.
            on_device = optimizer.defaults["fused"] or optimizer.defaults["capturable"]
            device = parameter.device if on_device else "cpu"
            moment = torch.zeros(facts.size, dtype=dtype, device=device)
        optimizer.state[parameter][kind] = moment
    try:
        with _dcp(world) as processes:
            reader = HuggingFaceStorageReader(str(folder))
            load(_tensors(model, optimizer), storage_reader=reader, **processes)
    except OSError as error:
        raise PalateError(f"{folder}: unreadable checkpoint ({error}); delete it") from None


def _commit(
    partial: Path, target: Path, state: Mapping[str, Any], files: list[dict[str, Any]]
) -> None:
    """Write the manifest, and rename the whole to its name once everything is on the disk."""
    content = {
        "version": 1,
        "state": dict(state),
        "packages": dict(package_versions()),
        "files": {name: facts for part in files for name, facts in part.items()},
    }
    write_json(partial / MANIFEST, content | {"digest": digest(content)})
    follow_umask(partial)
    _sync(partial)
    if target.exists():
        _remove(target)
    partial.rename(target)
    _sync(target.parent)


def _read_manifest(folder: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    if manifest.pop("digest") != digest(manifest):
        raise ValueError("its contents changed")
    return manifest


def _facts(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "digest": file_digest(path, whole=True)}


def damage_of(folder: Path, share: slice = slice(None)) -> str | None:
    """What is wrong with a checkpoint's manifest or a `share` of its files, if anything."""
    name = MANIFEST
    try:
        for name, facts in list(_read_manifest(folder)["files"].items())[share]:
            if _facts(folder / name) != facts:
                return f"{name} is not what was written"
    except OSError as error:
        return f"{name}: {error.strerror}"
    except (ValueError, KeyError, TypeError):
        return f"{name} is not what was written"
    return None


def _remove(folder: Path) -> None:
    """Out of sight in one move, so that a kill leaves no half of it under its name."""
    hidden = folder.with_name(f".{folder.name}.removed")
    with suppress(OSError):
        shutil.rmtree(hidden, ignore_errors=True)
        folder.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Make the names in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
