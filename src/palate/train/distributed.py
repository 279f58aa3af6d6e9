"""One process or many: who takes part, what each holds, and how they agree.

torchrun starts the processes and says so in the environment. Weights, gradients and optimizer
moments are sharded by FSDP2, block by block: over all ranks, or over groups of them that hold
replicas of each other (HSDP), by default the devices of a node. A world of one is neither wrapped
nor does it open a process group.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from palate.model.device import default_device
from palate.model.reward_model import RewardModel
from palate.process import this_process
from palate.types import PalateError

PATIENCE = timedelta(days=30)  # Ranks above 0 wait as long as rank 0 prepares data or judges.
WHOLE_GRADIENTS = 0.25  # Of a GPU's memory, assumed: what gradients not yet reduced may take.


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Distributed:
    """The processes that train a model together; by default this one alone.

    `local_size` of them are on this machine. `group` is a patient gloo group on the CPU, for text,
    flags and results; None where there is one process.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=default_device)
    local_size: int = 1
    group: dist.ProcessGroup | None = None

    @classmethod
    def apart(cls) -> Distributed:
        """These processes with a group of their own, which a background thread may use meanwhile.

        Where there are several, all must call this.
        """
        if not (dist.is_available() and dist.is_initialized()):
            return cls()
        return cls(dist.get_rank(), dist.get_world_size(), group=dist.new_group(backend="gloo"))

    @property
    def alone(self) -> bool:
        """Whether this process is all there is."""
        return self.size == 1

    @property
    def leads(self) -> bool:
        """Whether this rank is the one that logs, writes and exports."""
        return self.rank == 0

    def shards(self, number: int | None = None) -> int:
        """How many ranks hold one copy of a model together: `number`, else those of a machine.

        Raises:
            PalateError: so many do not divide the ranks.
        """
        several = 1 < self.local_size < self.size and self.size % self.local_size == 0
        shards = number or (self.local_size if several else self.size)
        if self.size % shards:
            raise PalateError(f"compute.shards: {shards} does not divide {self.size} processes")
        return shards

    def total(self, values: Tensor) -> Tensor:
        """`values` summed over the ranks, in place, on every rank."""
        if not self.alone:
            dist.all_reduce(values)
        return values

    def any(self, *flags: bool) -> list[bool]:
        """For each flag whether it is up on any rank: all ranks act at the same step."""
        if self.alone:
            return list(flags)
        up = torch.tensor([float(flag) for flag in flags])
        dist.all_reduce(up, group=self.group)
        return [bool(count) for count in up.tolist()]

    def broadcast(self, text: str = "") -> str:
        """Rank 0's `text`, on every rank; the others wait for it."""
        message = [text]
        if not self.alone:
            dist.broadcast_object_list(message, 0, group=self.group)
        return message[0]

    def every(self, do: Callable[[], T]) -> list[T]:
        """Do it on every rank; the results by rank. What fails on one is raised on all."""
        mine: T | Exception
        try:
            mine = do()
        except Exception as error:
            mine = error
        results: list[T | Exception] = [mine] * self.size
        if self.group is not None:
            dist.all_gather_object(results, mine, group=self.group)
        for result in results:
            if isinstance(result, Exception):
                raise result
        return [result for result in results if not isinstance(result, Exception)]

    def first(self, do: Callable[[], T]) -> T:
        """Do it on rank 0 alone; the result on every rank, which wait for it."""
        return cast(T, self.every(lambda: do() if self.rank == 0 else None)[0])

    def wait(self) -> None:
        """Go on when every rank is here."""
        self.any(False)


@cache
def join() -> Distributed:
    """The world that torchrun's environment describes; the first call opens its process group.

    Raises:
        PalateError: more processes on this machine than it has GPUs.
    """
    process = this_process()
    if process.size == 1:
        return Distributed()
    local_size, device = process.local_size, torch.device("cpu")
    if torch.cuda.is_available():
        if local_size > (gpus := torch.cuda.device_count()):
            raise PalateError(f"{local_size} processes on a machine of {gpus} GPUs; start {gpus}")
        device = torch.device("cuda", process.local_rank)
        torch.cuda.set_device(device)
    # Gloo beside nccl: checkpoints and text travel on the CPU.
    dist.init_process_group("gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl")
    group = dist.new_group(backend="gloo", timeout=PATIENCE)
    return Distributed(process.rank, process.size, device, local_size, group)


def leave(world: Distributed) -> None:
    """Close the process group."""
    if not world.alone:
        dist.destroy_process_group()


def place(model: RewardModel, world: Distributed, shards: int | None = None) -> None:
    """Move the model to its device; of several ranks each keeps a shard of every matrix.

    Shards, reductions and moments are float32. Blocks compute in the model's number format; the
    heads are sharded apart, in float32 (pitfall 9).
    """
    if world.alone:
        model.to(world.device)
        return
    # All ranks in a row, or replicas x the shards of each.
    shards = world.shards(shards)
    sizes, names = (world.size // shards, shards), ("replicate", "shard")
    one_copy = shards == world.size
    mesh = init_device_mesh(world.device.type, sizes[one_copy:], mesh_dim_names=names[one_copy:])
    compute = None if model.dtype == torch.float32 else model.dtype
    mixed = MixedPrecisionPolicy(param_dtype=compute, reduce_dtype=torch.float32)
    for block in blocks_of(model.backbone):
        fully_shard(block, mesh=mesh, mp_policy=mixed)
    fully_shard(model.backbone, mesh=mesh, mp_policy=mixed)
    for head in model.heads:
        fully_shard(head, mesh=mesh)


def blocks_of(backbone: nn.Module) -> list[nn.Module]:
    """The decoder blocks, by the class names under which transformers keeps them whole."""
    names = set(getattr(backbone, "_no_split_modules", None) or ())
    blocks = [module for module in backbone.modules() if type(module).__name__ in names]
    if not blocks:
        raise PalateError(
            f"{type(backbone).__name__} names no blocks to shard; train on one process"
        )
    return blocks


def _sharded(model: RewardModel) -> Iterator[FSDPModule]:
    for part in (model.backbone, *model.heads):
        if isinstance(part, FSDPModule):
            yield part


def reduce_gradients(model: RewardModel, world: Distributed, *, now: bool) -> None:
    """Reduce the next backward's gradients over the ranks, or keep them for a later one.

    Kept gradients are whole. A GPU that has no room for them reduces every time.
    """
    if world.alone:
        return
    if world.device.type == "cuda":
        size = sum(4 * p.numel() for p in model.parameters() if p.requires_grad)
        memory = torch.cuda.get_device_properties(world.device).total_memory
        now = now or size > WHOLE_GRADIENTS * memory
    for part in _sharded(model):
        part.set_requires_gradient_sync(now)


def clip_gradients(parameters: list[nn.Parameter], limit: float) -> Tensor:
    """Scale the gradients so that their norm over all ranks is at most `limit`; the norm before."""
    norm = torch.nn.utils.clip_grad_norm_(parameters, limit)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def gather(model: RewardModel, world: Distributed) -> None:
    """Give rank 0 the unsharded weights on the CPU; the model can then be exported, not run."""
    if world.alone:
        return
    for part in _sharded(model):
        part.reshard()
    for module in model.modules():
        for name, shard in list(module.named_parameters(recurse=False)):
            weights = cast(DTensor, shard).full_tensor().detach().cpu()
            if world.leads:
                setattr(module, name, nn.Parameter(weights, requires_grad=False))


@contextmanager
def peers(world: Distributed) -> Generator[None]:
    """Raise in one line that another rank is gone, instead of what the network says of it."""
    try:
        yield
    except RuntimeError as error:
        lost = isinstance(error, dist.DistError) or "gloo" in str(error).lower()
        if world.alone or not lost:
            raise
        raise PalateError("another rank ended; its own line says why") from error
