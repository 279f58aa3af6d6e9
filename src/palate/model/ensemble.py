"""Weights of their own that the members of an ensemble have in one backbone.

An ensemble of heads needs none (`RewardModel.head` has a row for each member). Members of the other
kinds differ in the backbone too: by their last layers (`seeds`), by all that one training has moved
between some of its steps (`checkpoints`), or by a low-rank update of each matrix (`lora`). The
backbone in memory is there once. It holds the mean of what members have whole, and none of the
updates, which are added to each product as it is computed.

A reward is the mean over members, each run by itself; layers at the bottom in which no member has
anything of its own are run once for all. What other readers open is the average of the weights, one
plain model (Wortsman et al., arXiv 2203.05482; of reward models Rame et al., arXiv 2401.12187).

Shape letters: M members, D width, r rank.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.utils.hooks import RemovableHandle

from palate.model.frozen import FrozenLayers
from palate.types import PalateError

Kind = Literal["seeds", "checkpoints", "lora"]
WHOLE, DOWN, UP = "weight/", "down/", "up/"
"""What tensors in a file of members are called by: whole weights, both parts of updates."""


@dataclass(slots=True)
class _Update:
    """x -> scale up (down x) of one matrix, by member: down [M, r, in], up [M, out, r]."""

    down: Tensor
    up: Tensor


class MemberWeights(nn.Module):
    """What M members have of their own: `whole` weights by name [M, ...], `updates` by the module.

    It has no parameters of its own: nothing here is trained.
    """

    def __init__(self, kind: Kind, tensors: Mapping[str, Tensor], scale: float = 0.0) -> None:
        """Take the tensors as `tensors` gives them; `scale` is that of updates."""
        super().__init__()
        self.kind: Kind = kind
        self.scale = scale
        self.whole = {
            name.removeprefix(WHOLE): tensor
            for name, tensor in tensors.items()
            if name.startswith(WHOLE)
        }
        self.updates = {
            name.removeprefix(DOWN): _Update(tensor, tensors[f"{UP}{name.removeprefix(DOWN)}"])
            for name, tensor in tensors.items()
            if name.startswith(DOWN)
        }
        self._member = 0
        self._hooks: list[RemovableHandle] = []

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All there is, by its name in a file."""
        return (
            {f"{WHOLE}{name}": tensor for name, tensor in self.whole.items()}
            | {f"{DOWN}{name}": update.down for name, update in self.updates.items()}
            | {f"{UP}{name}": update.up for name, update in self.updates.items()}
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> MemberWeights:
        """To another device or number format, as a module's weights go."""
        self.whole = {name: fn(tensor) for name, tensor in self.whole.items()}
        self.updates = {n: _Update(fn(u.down), fn(u.up)) for n, u in self.updates.items()}
        super()._apply(fn, recurse)
        return self

    def check(self, backbone: nn.Module, members: int, where: str) -> None:
        """Raise `PalateError` where they do not fit the backbone, or are not of so many members."""
        weights = dict(backbone.named_parameters())
        expected = {f"{WHOLE}{n}": weights[n].shape for n in self.whole if n in weights}
        for name, update in self.updates.items():
            if (weight := weights.get(f"{name}.weight")) is not None and weight.ndim == 2:
                rank, (out, into) = update.down.shape[1], weight.shape
                expected |= {
                    f"{DOWN}{name}": torch.Size((rank, into)),
                    f"{UP}{name}": torch.Size((out, rank)),
                }
        for name, tensor in self.tensors.items():
            if name not in expected or tensor.shape != (members, *expected[name]):
                raise PalateError(
                    f"{where}: {name} is not of {members} members of this model; export it again"
                )

    def attach(self, backbone: Any) -> FrozenLayers | None:
        """Have the backbone's matrices add the updates of whichever member runs.

        Returns the layers at the bottom that all members share; None where there are none.
        """
        modules = dict(backbone.named_modules())
        self._hooks = [
            modules[name].register_forward_hook(partial(self._add, name)) for name in self.updates
        ]
        own = {*self.whole, *(f"{name}.weight" for name in self.updates)}
        parameters = {id(p) for name, p in backbone.named_parameters() if name in own}
        layers = FrozenLayers.of(backbone, lambda p: id(p) in parameters)
        return layers if layers.count else None

    def _add(self, name: str, _: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        update, member = self.updates[name], self._member
        states = inputs[0].to(update.down.dtype)
        change = linear(linear(states, update.down[member]), update.up[member])
        return output + self.scale * change

    @contextmanager
    def running(self, member: int) -> Generator[dict[str, Tensor]]:
        """Inside, matrices add the updates of `member`; gives its whole weights, by name."""
        self._member = member
        yield {name: tensor[member] for name, tensor in self.whole.items()}

    def deltas(self, member: int | None = None) -> dict[str, Tensor]:
        """What the updates of a member come to, or the mean of all, float32 by weight."""
        found = {}
        for name, update in self.updates.items():
            down, up = update.down.float(), update.up.float()
            if member is not None:
                found[f"{name}.weight"] = self.scale * (up[member] @ down[member])
            else:  # The mean of products, in one: sum over members and ranks.
                products = torch.einsum("mor,mri->oi", up, down) / len(up)
                found[f"{name}.weight"] = self.scale * products
        return found

    def averaged(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`weights` of the backbone with the average of all members in the place of what is theirs.

        The average of low-rank updates is that of the matrices which they make.
        """
        made = dict(weights)
        for name, tensor in self.whole.items():
            made[name] = tensor.float().mean(0).to(weights[name].dtype)
        for name, delta in self.deltas().items():
            made[name] = (weights[name].float() + delta).to(weights[name].dtype)
        return made

    @torch.no_grad()
    def settle(self, backbone: nn.Module, member: int | None = None) -> None:
        """Give the backbone the weights of one member, or the average of all, and let go of it."""
        self.detach()
        weights = dict(backbone.named_parameters())
        if member is None:
            made = self.averaged({name: p.detach() for name, p in weights.items()})
        else:
            made = {name: tensor[member] for name, tensor in self.whole.items()}
            for name, delta in self.deltas(member).items():
                made[name] = (weights[name].float() + delta).to(weights[name].dtype)
        for name in {*self.whole, *(f"{name}.weight" for name in self.updates)}:
            weights[name].copy_(made[name])

    @torch.no_grad()
    def average_into(self, backbone: nn.Module) -> None:
        """Give the backbone the mean of whole weights, as it has them beside members."""
        weights = dict(backbone.named_parameters())
        for name, tensor in self.whole.items():
            weights[name].copy_(tensor.float().mean(0))

    @torch.no_grad()
    def take_out(self, backbone: nn.Module) -> None:
        """Take the mean of the updates out of a backbone that was saved with it."""
        weights = dict(backbone.named_parameters())
        for name, delta in self.deltas().items():
            weights[name].copy_(weights[name].float() - delta)

    def detach(self) -> None:
        """Let the backbone compute as it would alone."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
