"""What the layers of a backbone make of conversations, for other reward models of the same layers.

Heads on frozen layers are models of their own: each judge would run the same layers over the same
conversations. Where several are asked in one process, states at the ends are kept by the weights of
the layers, and a model goes on from those that another one left: its final norm and its heads are
all that is run. Its own are never read, so that whoever asks a model twice has it run twice.

Shape letters: R responses, D width.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor

from palate.model.frozen import FrozenLayers, conversation_key
from palate.model.packing import Group, pack
from palate.model.reward_model import RewardModel
from palate.types import digest

ROOM = 128 << 20  # Bytes of states in a process: 58,000 conversations of SmolLM2-135M.
LARGEST = 4 << 30  # Bytes of weights: a digest of more takes longer than a few benchmarks gain.
# What decoders call the norm after their last layer, which learns beside a head.
FINAL_NORMS = ("norm", "ln_f", "final_layer_norm", "final_layernorm", "final_norm")
# Of a configuration, what no layer reads.
ASIDE = (
    *("_name_or_path", "architectures", "dtype", "id2label", "label2id", "num_labels"),
    *("palate", "transformers_version"),
)


class _States(dict[bytes, Tensor]):
    """Of one model, by conversation: [D], as its last layer hands them on."""

    size = 0  # Bytes.

    def keep(self, key: bytes, state: Tensor) -> None:
        self.size += 0 if key in self else state.nbytes
        self[key] = state


# By layers and model, the one opened longest ago first.
_left: OrderedDict[tuple[str, str], _States] = OrderedDict()


class SharedTrunk:
    """States of one model's layers, as `RewardModel.kept` reads them; see the module."""

    def __init__(self, layers: FrozenLayers, weights: str, model: str) -> None:
        self.layers, self._weights, self._model = layers, weights, model

    @contextmanager
    def standing_in(self, groups: Sequence[Group]) -> Generator[None]:
        """Inside, states that another model left stand in for the layers, else they are kept."""
        keys = [conversation_key(g.prefix, suffix) for g in groups for suffix in g.suffixes]
        others = [s for (w, m), s in _left.items() if w == self._weights and m != self._model]
        left = next((states for states in others if all(key in states for key in keys)), None)
        if left is not None:
            with self.layers.given(torch.stack([left[key] for key in keys])[None]):
                yield
            return
        with self.layers.alone() as made:
            yield
        self._keep(keys, made[0][0])

    def _keep(self, keys: Sequence[bytes], states: Tensor) -> None:
        """Rows of `states`, [R, D], in place of the models opened longest ago where room ends."""
        own = _left.setdefault((self._weights, self._model), _States())
        while sum(s.size for s in _left.values()) + states.nbytes > ROOM:
            if next(iter(_left.values())) is own:
                return
            _left.popitem(last=False)
        for key, state in zip(keys, states, strict=True):
            own.keep(key, state.clone())


def shared_trunk(model: RewardModel, name: str) -> SharedTrunk | None:
    """That of `model`, which others are told from by `name`; None where layers cannot be shared.

    On a CPU alone, and where the last layer works for the ends alone (`RewardModel.narrow`).
    """
    weights = sum(tensor.nbytes for tensor in model.backbone.state_dict().values())
    whole = model.own is not None or model.experts_per_token
    if model.device.type != "cpu" or not model.narrow or whole or weights > LARGEST:
        return None
    layers = FrozenLayers.of(model.backbone, lambda _: False)
    return SharedTrunk(layers, _digest(model), name) if _can_go_on(model, layers) else None


@torch.no_grad()
def _can_go_on(model: RewardModel, layers: FrozenLayers) -> bool:
    """Whether a few tokens have the same rewards by what the last layer hands on alone.

    What an architecture hands past its layers cannot be read off its parts.
    """
    packed = pack(model.sample()[1], model.device)
    with layers.alone() as made:
        whole = model.forward_packed(packed).reward
    try:
        with layers.given(made[0].clone()):
            after = model.forward_packed(packed).reward
    except Exception:  # Whatever an architecture makes of a layer passed over.
        return False
    return torch.allclose(after, whole, rtol=1e-4, atol=1e-5 * float(whole.abs().max()))


def _digest(model: RewardModel) -> str:
    """Of all that states depend on but tokens: weights, configuration, how they are computed."""
    config: dict[str, Any] = model.backbone.config.to_dict()
    read = blake2b(digest_size=16)
    for name, tensor in sorted(model.backbone.state_dict().items()):
        if name.split(".")[0] not in FINAL_NORMS:
            read.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            read.update(memoryview(tensor.contiguous().flatten().view(torch.uint8).numpy()))
    known = {key: value for key, value in config.items() if key not in ASIDE}
    return digest(read.hexdigest(), known, str(model.dtype), model.path)
