"""A backbone with a scalar head: a prompt and a response in, one reward out.

Shape letters: R responses, T tokens of a packed row, D width of the backbone.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers import PreTrainedModel

from palate.model.attention import (
    NAME,
    VARLEN,
    Path,
    angles_by_row,
    attention_path,
    read_ends_only,
    short_windows,
    steady_length,
    stock_attention,
    supports_shared_prefix,
)
from palate.model.device import autocast
from palate.model.ensemble import MemberWeights
from palate.model.frozen import FrozenLayers
from palate.model.packing import Group, Packed, Tokens, group, pack
from palate.model.prompt_cache import PromptCache
from palate.model.recurrence import mixers, share_states
from palate.model.tokenizer import ChatTokens
from palate.types import PalateError

# Small enough that every first reward is near 0 and the first loss is ln 2 (pitfall 15).
HEAD_STD = 1e-3

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rewards:
    """Rewards of a micro-batch, [R] float32, and what other heads say where there are any.

    `safety` are logits of "safe", [R]; `attributes` in the units of their ratings, [R, K].
    `members` are those of an ensemble, [R, M], of which `reward` is the mean.
    `router_logits`: of each layer with experts, [T, E], every token once; where they are asked for.
    """

    reward: Tensor
    safety: Tensor | None = None
    router_logits: tuple[Tensor, ...] = ()
    attributes: Tensor | None = None
    members: Tensor | None = None


class KeptStates(Protocol):
    """What layers made of conversations before (`train.states`, `model.trunk`)."""

    def standing_in(self, groups: Sequence[Group]) -> AbstractContextManager[None]:
        """Inside, states of a packed row of `groups` stand in for the layers, if all are kept."""


class AttributeHeads(nn.Module):
    """K linear heads beside the scalar one, each of an attribute that people rate of a response.

    value = centre + spread (w . h), in the units of the ratings; h is the state that the reward is
    read from. Centre and spread are the mean and the standard deviation of the ratings that are
    learnt from, so that all heads learn alike, whatever their scale. They are NaN until `scale`.

    `names` are in order of the alphabet: nothing depends on the order in which a recipe has them.
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, names: Iterable[str], width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.names = tuple(sorted(names))
        self.linear = _linear(width, generator, len(self.names))
        for name in ("centre", "spread"):
            self.register_buffer(name, torch.full((len(self.names),), math.nan))

    @property
    def is_scaled(self) -> bool:
        """Whether centre and spread are known."""
        return bool(torch.isfinite(self.spread).all())

    def scale(self, centre: Sequence[float], spread: Sequence[float]) -> None:
        """Set centre and spread, [K] each; a spread is above 0."""
        self.centre.copy_(torch.tensor(centre))
        self.spread.copy_(torch.tensor(spread))

    def forward(self, last: Tensor) -> Tensor:
        """Values [R, K] of states [R, D], float32."""
        return self.centre + self.spread * self.linear(last)


class RewardModel(nn.Module):
    """The bare backbone (no vocabulary head), a float32 scalar head, and others where asked for:
    a safety head, heads of rated attributes by their names.

    `backbone` gives hidden states after its final norm; they are cast to float32 before the
    head, because bfloat16 ties rewards (spacing 0.031 at |r| >= 4; pitfall 9).

    An ensemble has M scalar heads, [M, D]: the reward is the mean of what they say, and what the
    mean of their weights would say. A constant that a head adds to every reward means nothing, so
    `offsets` [M], which sum to 0, are taken off before members are compared.

    Members may have weights of their own in the backbone too (`give_members`). Each is then run by
    itself above the layers that they share, and the reward is the mean of what they say, which no
    one model's weights give.
    """

    offsets: Tensor

    def __init__(
        self,
        backbone: PreTrainedModel,
        chat: ChatTokens,
        *,
        dtype: torch.dtype = torch.float32,
        safety_head: bool = False,
        attributes: Iterable[str] = (),
        members: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        width = state_width(backbone.config)
        self.backbone, self.chat, self.dtype = backbone, chat, dtype
        if chat is not None:  # Plans have a model without weights, and no tokenizer.
            chat.check_rows(backbone.get_input_embeddings().weight.shape[0])
        self.bias = 0.0  # A peer's constant, added to every reward; nothing trains it.
        self.shared = supports_shared_prefix(backbone)
        self.steady = steady_length(backbone)
        if self.steady < math.inf:
            angles_by_row(backbone)
        if self.shared:
            share_states(backbone)
        self.narrow = self.shared and read_ends_only(backbone)
        self.experts_per_token = 0  # Of a mixture of experts whose router logits are kept.
        self.kept: KeptStates | None = None  # Of its frozen layers, in training; of its trunk.
        self.own: MemberWeights | None = None  # Of an ensemble whose members are more than heads.
        self.common: FrozenLayers | None = None  # Layers that its members share.
        self.stock = stock_attention(backbone)
        self._select_attention(NAME if self.shared else self.stock)
        generator = torch.Generator().manual_seed(seed)
        self.head = _linear(width, generator)
        self.safety_head = _linear(width, generator) if safety_head else None
        names = tuple(attributes)
        self.attribute_heads = AttributeHeads(names, width, generator) if names else None
        if members > 1:  # Drawn last: the first head is the one that a model alone would have.
            others = _linear(width, generator, members - 1)
            self.head.weight = nn.Parameter(torch.cat((self.head.weight, others.weight)).detach())
            self.head.out_features = members
        self.register_buffer("offsets", torch.zeros(members))

    def prompt_cache(self, max_bytes: int) -> PromptCache:
        """An empty cache of this model's prompts, for `forward`."""
        return PromptCache(max_bytes, stateful=bool(mixers(self.backbone)))

    @property
    def heads(self) -> list[nn.Module]:
        """All heads there are, the scalar one first."""
        heads = (self.head, self.safety_head, self.attribute_heads)
        return [head for head in heads if head is not None]

    @property
    def attributes(self) -> tuple[str, ...]:
        """The attributes that there are heads of, in the order of `Rewards.attributes`."""
        return () if self.attribute_heads is None else self.attribute_heads.names

    @property
    def members(self) -> int:
        """How many scalar heads there are: 1, or those of an ensemble."""
        return len(self.offsets)

    def give_members(self, own: MemberWeights, heads: Tensor, offsets: Tensor) -> None:
        """Make it an ensemble of members with weights of their own in the backbone.

        Args:
            heads: [M, D]. offsets: [M], which sum to 0.
        """
        self._set_head(heads, offsets)
        self.own = own.to(self.device)
        self.common = own.attach(self.backbone)
        if self.common is not None and self.shared:
            self._check_common(self.common)

    def keep_member(self, number: int) -> None:
        """Become one member of the ensemble alone, from 0; its offset stays, as a constant."""
        head, offset = self.head.weight[number : number + 1], float(self.offsets[number])
        self._become_one(head, number)
        self.bias -= offset

    def keep_average(self) -> None:
        """Become the one model whose weights are the average of the members'."""
        self._become_one(self.head.weight.mean(0, keepdim=True), None)

    def _become_one(self, head: Tensor, number: int | None) -> None:
        if self.own is not None:
            self.own.settle(self.backbone, number)
        self.own = self.common = None
        self._set_head(head, torch.zeros(1))

    def _set_head(self, weight: Tensor, offsets: Tensor) -> None:
        device = self.device
        self.head.weight = nn.Parameter(weight.detach().float().clone().to(device))
        self.head.out_features = len(weight)
        self.offsets = offsets.detach().float().clone().to(device)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.head.weight.device

    @property
    def path(self) -> Path:
        """How attention is computed here and now, by name, for a record of what was run."""
        return attention_path(
            self.backbone, shared=self.shared, device=self.device, dtype=self.dtype
        )

    def forward(
        self, groups: Sequence[Group], cache: PromptCache | None = None, salt: str = ""
    ) -> Rewards:
        """Rewards of every response of every group, in order.

        With a `cache` of this model's own, beginnings that it has are not computed again, and
        what is computed is kept there, for others of the same `salt`. Without gradients. Where
        members have weights of their own nothing is kept, for each would have to be by itself.

        Packed with shared prefixes where the backbone can, else padded rows (encoders and some
        recurrences; a conversation over the length that angles of positions follow): the rule is
        `attention_path`, its outcome `path`.
        """
        longest = (len(g.prefix) + max(map(len, g.suffixes)) for g in groups)
        if self.shared and max(longest, default=0) <= self.steady:
            if cache is not None and self.own is None:
                cache.check_weights(self)
                row = cache.row(groups, self.device, salt)
                last, router_logits = self._packed_states(row.packed)
                cache.keep(row)
                return self._read(last[torch.from_numpy(row.order)], router_logits)
            packed = pack(groups, self.device)
            with nullcontext() if self.kept is None else self.kept.standing_in(groups):
                return self.forward_packed(packed)
        return self.forward_padded(
            [np.concatenate((g.prefix, suffix)) for g in groups for suffix in g.suffixes],
            [0 if n == 0 else len(g.prefix) for g in groups for n in range(len(g.suffixes))],
        )

    def forward_packed(self, packed: Packed) -> Rewards:
        """Rewards of one packed row, read at its `ends`."""
        if self.own is None:
            return self._read(*self._packed_states(packed))
        given: AbstractContextManager[Any] = nullcontext()
        if self.common is not None:
            with self.common.alone() as made:
                self._packed_states(packed)
            given = self.common.given(made[0])
        with given:
            return self._read_each(lambda weights: self._packed_states(packed, weights)[0])

    def _packed_states(
        self, packed: Packed, weights: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """States at the `ends`, [R, D], and what routers make of every token.

        `weights` stand in the place of the backbone's own of the same names.
        """
        layout = packed.layout
        if self.experts_per_token:  # The last layer's router, too, sees every token.
            layout = replace(layout, ends=None)
        with autocast(self.dtype, self.device):
            output = self._run(
                weights,
                input_ids=packed.ids,
                position_ids=packed.positions,
                layout=layout,
                varlen=self.path == VARLEN,
                use_cache=False,
                **self._asked,
            )
        hidden: Tensor = output.last_hidden_state
        last = hidden[0] if self.narrow else hidden[0, packed.ends]
        return last, tuple(output.router_logits) if self.experts_per_token else ()

    def _run(self, weights: Mapping[str, Tensor] | None, **inputs: Any) -> Any:
        if not weights:
            return self.backbone(**inputs)
        return functional_call(self.backbone, dict(weights), (), inputs)

    def _read_each(self, states: Callable[[Mapping[str, Tensor]], Tensor]) -> Rewards:
        """Rewards by members of whom each has states [R, D] of its own."""
        assert self.own is not None
        of_all = []
        for number in range(self.members):
            with self.own.running(number) as weights:
                of_all.append(states(weights))
        return self._read(torch.stack(of_all))

    @property
    def _asked(self) -> dict[str, bool]:
        return {"output_router_logits": True} if self.experts_per_token else {}

    def forward_padded(
        self, conversations: Sequence[Tokens], seen: Sequence[int] | None = None
    ) -> Rewards:
        """The reference path: one right-padded row a conversation, stock attention.

        `seen`: of each conversation, how many of its first tokens stand in one before it, so that
        router logits have every token once.
        """
        if self.own is not None:
            return self._read_each(lambda weights: self._padded_states(conversations, weights)[0])
        last, router_logits = self._padded_states(conversations)
        if router_logits:
            longest = max(map(len, conversations))
            starts = [0] * len(conversations) if seen is None else seen
            rows = zip(conversations, starts, strict=True)
            places = [
                np.arange(start, len(row)) + longest * n for n, (row, start) in enumerate(rows)
            ]
            tokens = torch.from_numpy(np.concatenate(places)).to(self.device)
            router_logits = tuple(logits[tokens] for logits in router_logits)
        return self._read(last, router_logits)

    def _padded_states(
        self, conversations: Sequence[Tokens], weights: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        lengths = np.array([len(c) for c in conversations])
        ids = np.full((len(lengths), lengths.max()), self.chat.pad_id, dtype=np.int64)
        for row, conversation in enumerate(conversations):
            ids[row, : len(conversation)] = conversation
        mask = np.arange(ids.shape[1]) < lengths[:, None]
        inputs = {"input_ids": ids, "attention_mask": mask.astype(np.int64)}
        if self.steady < math.inf:  # Padding takes no part in a row's length.
            inputs["position_ids"] = np.minimum(np.arange(ids.shape[1]), lengths[:, None] - 1)
        rows = {name: torch.from_numpy(array).to(self.device) for name, array in inputs.items()}
        self._select_attention(self.stock)
        try:
            with autocast(self.dtype, self.device):
                output = self._run(weights, **rows, use_cache=False, **self._asked)
        finally:
            self._select_attention(NAME if self.shared else self.stock)
        last = output.last_hidden_state[torch.arange(len(lengths)), torch.from_numpy(lengths - 1)]
        return last, tuple(output.router_logits) if self.experts_per_token else ()

    def keep_router_logits(self) -> None:
        """Give router logits beside rewards, as training with a router loss needs them.

        The last layer works for every token then.

        Raises:
            PalateError: a backbone without experts, or of a family without such a loss.
        """
        config = self.backbone.config.get_text_config()
        chosen = getattr(config, "num_experts_per_tok", None)
        recorded = getattr(self.backbone, "_can_record_outputs", None) or {}
        known = hasattr(config, "router_aux_loss_coef") and "router_logits" in recorded
        if not (chosen and known):
            raise PalateError(
                f"train.router_loss_coefficient: {config.model_type} has no experts whose load its "
                "own code balances by a loss (as Mixtral, Qwen3-MoE, OLMoE and gpt-oss do); leave "
                "it out"
            )
        self.experts_per_token, self.narrow = int(chosen), False

    @torch.no_grad()
    def check_sharing(self) -> None:
        """Read a few tokens packed and padded; where the two differ, take padded rows always.

        What an architecture computes cannot be read off its parts: one that its configuration
        makes bidirectional, that hands its attention no layout, that runs its layers twice.
        """
        if not self.shared:
            kind = type(self.backbone).__name__
            log.info("%s takes padded rows (its layers cannot go on from a shared prompt)", kind)
            return
        conversations, groups = self.sample()
        with short_windows(self.backbone, 4):
            padded, _ = self._padded_states(conversations)
        try:
            with short_windows(self.backbone, 4):
                packed, _ = self._packed_states(pack(groups, self.device))
            apart = float((packed - padded).norm() / padded.norm())
            # bfloat16 moves a state by hundredths, a wrong mask by tenths.
            reason = "" if apart < 0.1 else f"states {apart:.0%} apart"
        except Exception as error:  # Whatever an architecture makes of a layout.
            reason = " ".join(str(error).split())[:100] or type(error).__name__
        if reason:
            log.info("%s takes padded rows (%s)", type(self.backbone).__name__, reason)
            self.shared = self.narrow = False
            self._select_attention(self.stock)

    def sample(self) -> tuple[list[Tokens], list[Group]]:
        """A few tokens as conversations, and the groups of these, by which paths are compared."""
        prompt = np.resize(self.chat.sample, 12)[: int(min(12, self.steady - 1))]
        ends = np.array([self.chat.pad_id, self.chat.terminal_id], np.int32)
        cut = len(prompt) // 2
        conversations = [prompt, np.append(prompt[:cut], ends[:1]), np.append(prompt[:cut], ends)]
        conversations.append(prompt[:1])  # Of a group of its own.
        return conversations, [group(conversations[:3]), group(conversations[3:])]

    @torch.no_grad()
    def _check_common(self, common: FrozenLayers) -> None:
        """Read a few tokens with the shared layers run once, and with every member run whole.

        What an architecture hands past its layers cannot be read off its parts. Where the two
        differ, every member is run whole always.
        """
        packed = pack(self.sample()[1], self.device)
        self.common = None
        whole = self.forward_packed(packed).members
        assert whole is not None
        try:
            self.common = common
            shared = self.forward_packed(packed).members
            assert shared is not None
            fits = torch.allclose(shared, whole, rtol=0.01, atol=1e-3 * float(whole.abs().max()))
        except Exception:  # Whatever an architecture makes of a layer passed over.
            fits = False
        if not fits:
            log.info("%s: each member is run whole", type(self.backbone).__name__)
            self.common = None

    def _read(self, last: Tensor, router_logits: tuple[Tensor, ...] = ()) -> Rewards:
        """Rewards of states [R, D]; of members with states of their own, [M, R, D]."""
        last = last.float()
        safety = None if self.safety_head is None else self.safety_head(last)[:, 0]
        attributes = None if self.attribute_heads is None else self.attribute_heads(last)
        if last.ndim == 3:
            said = torch.einsum("mrd,md->rm", last, self.head.weight)
        else:
            said = self.head(last)  # [R, M]
        reward = said.mean(1)
        reward = reward + self.bias if self.bias else reward
        members = said - self.offsets.to(said.device) if self.members > 1 else None
        return Rewards(reward, safety, router_logits, attributes, members)

    def _select_attention(self, name: str) -> None:
        self.backbone.set_attn_implementation(name)


def state_width(config: Any) -> int:
    """Width of what the head reads; OPT-350m's last projection makes it narrower than the model."""
    text = config.get_text_config()
    return int(getattr(text, "word_embed_proj_dim", None) or text.hidden_size)


def _linear(width: int, generator: torch.Generator, outputs: int = 1) -> nn.Linear:
    layer = nn.Linear(width, outputs, bias=False, dtype=torch.float32)
    nn.init.normal_(layer.weight, std=HEAD_STD, generator=generator)
    return layer
