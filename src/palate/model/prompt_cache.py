"""What a model made of conversations, kept: one that begins like a kept one costs only its rest.

A causal model makes the same of the first tokens of a conversation whatever follows. Of every token
that a micro-batch ran, keys and values of every call of attention are kept in a trie of token ids.
The next micro-batch goes on from the longest beginning that each of its conversations has there: K
responses to a prompt that come one by one run it once, and a conversation's next turn runs only
what is new in it.

A node holds the tokens in which a conversation left those before it, so what several have in common
is kept once. Nodes are never split: a node knows at which token of its parent it leaves. What was
used longest ago goes first once more than `max_bytes` are held; a node is used with all that follow
it, so the oldest is always a leaf.

Layers that carry a state (`recurrence`) can go on only from where a state was taken, and a state is
as large as hundreds of tokens. There one is taken where two conversations were seen to part: at the
end of a prompt with several responses, or at the second response of one that come one by one.

Rewards are those without the cache up to the order of sums, as with other company in a micro-batch:
the kept keys were computed in another row. It is of one model with fixed weights; where they change
in place it forgets all.

Cost: a walk of the trie (a comparison of arrays for each node), a copy of what is kept of a
conversation in and out. Memory beside `max_bytes`: keys and values of one micro-batch.
Source: the trie of SGLang's RadixAttention (arXiv 2312.07104), here without pages.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from palate.model.packing import Group, Integers, Kept, Packed, Tokens, pack
from palate.model.recurrence import States

# A shorter beginning is a template's: its tokens are computed in less time than they are copied.
LEAST_TOKENS = 16
NODE_BYTES = 1_024  # Of a node's own Python objects.

State = Sequence[States]  # What each call of a mixer ended in, N = 1.
Key = tuple[int | str, int]


@dataclass(slots=True)
class CacheUse:
    """What a cache did: for one micro-batch, or since it was made.

    `prompts` are those that were looked for, `found` those of which a beginning was kept,
    `saved_tokens` what need not be computed for it.
    """

    prompts: int = 0
    found: int = 0
    saved_tokens: int = 0


@dataclass(slots=True, eq=False)
class _Node:
    """`tokens` that follow the first `start` of a conversation, and what was made of them.

    `rows`: [n, B] bytes, keys and values of every call of attention. `states`: by the number of
    tokens before it, from the conversation's first.
    """

    parent: _Node | None
    start: int
    tokens: Tokens
    rows: Tensor
    salt: str
    children: dict[Key, _Node] = field(default_factory=dict)
    states: dict[int, State] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        """Among those of its parent: where it leaves, and with which token; a root by its salt."""
        return self.salt if self.parent is None else self.start, int(self.tokens[0])

    @property
    def bytes(self) -> int:
        """What it holds."""
        held = NODE_BYTES + self.tokens.nbytes + self.rows.nbytes
        return held + sum(map(_bytes_of, self.states.values()))


Path = list[tuple[_Node, int]]  # Nodes, each with how many tokens of the conversation it ends at.


@dataclass(frozen=True, slots=True)
class Row:
    """A micro-batch that goes on from what was kept.

    `groups` are without their kept beginnings, `heads` those beginnings, one each and empty where
    nothing was kept; `order`: [R], where each response of the groups that were asked for lies among
    those of `groups`.
    """

    groups: tuple[Group, ...]
    heads: tuple[Tokens, ...]
    order: Integers
    packed: Packed
    kept: Kept
    salt: str


class PromptCache:
    """Kept beginnings of conversations of one model, at most `max_bytes` of them; for one thread.

    `stateful`: the model has layers that carry a state. `bytes` are held now, `use` counts since
    the cache was made.
    """

    def __init__(self, max_bytes: int, *, stateful: bool = False) -> None:
        self.max_bytes, self.stateful = max_bytes, stateful
        self.bytes = 0
        self.use = CacheUse()
        self._roots: dict[Key, _Node] = {}
        self._nodes: OrderedDict[_Node, None] = OrderedDict()  # The one used longest ago first.
        self._weights: list[int] = []

    def clear(self) -> None:
        """Forget everything."""
        self._roots.clear()
        self._nodes.clear()
        self.bytes = 0

    def check_weights(self, model: nn.Module) -> None:
        """Forget everything where the weights are not those of the call before."""
        # Where they lie, and how often they were written to, which torch counts for its gradients.
        weights = [
            number
            for p in model.parameters()
            for number in (p.data_ptr(), 0 if p.is_inference() else p._version)
        ]
        if weights != self._weights:
            self.clear()
            self._weights = weights

    def row(self, groups: Sequence[Group], device: torch.device, salt: str = "") -> Row:
        """The micro-batch of `groups` that goes on from what is kept of their beginnings.

        What was computed with another `salt` is not found.
        """
        rests, heads, paths = list[Group](), list[Tokens](), list[Path]()
        asked, place = list[int](), 0
        for one in groups:
            for part, responses in self._parts(one, salt):
                rest, head, path = self._after_kept(part, salt)
                rests.append(rest)
                heads.append(head)
                paths.append(path)
                asked += [place + n for n in responses]
            place += len(one.suffixes)
        self.use.prompts += len(rests)
        self.use.found += sum(1 for head in heads if len(head))
        self.use.saved_tokens += sum(g.tokens for g in groups) - sum(g.tokens for g in rests)
        found = [(head, path) for head, path in zip(heads, paths, strict=True) if len(head)]
        for _, path in found:
            self._touch(path)
        rows = [node.rows[: end - node.start] for _, path in found for node, end in path]
        states = [path[-1][0].states[len(head)] for head, path in found] if self.stateful else []
        kept = Kept(torch.cat(rows) if rows else None, states)
        packed = pack(rests, device, kept=kept, kept_tokens=[*map(len, heads)])
        return Row(tuple(rests), tuple(heads), np.argsort(asked), packed, kept, salt)

    def keep(self, row: Row) -> None:
        """Keep what a forward pass over `row.packed` left."""
        first, segment, states = 0, 0, self._left_states(row) if self.stateful else {}
        for head, rest in zip(row.heads, row.groups, strict=True):
            before = head
            if len(rest.prefix):
                before = np.concatenate((head, rest.prefix))
                self._add(before, len(rest.prefix), first, row)
                if self.stateful:
                    self._add_state(before, states[segment], row.salt)
                first, segment = first + len(rest.prefix), segment + 1
            for suffix in rest.suffixes:
                self._add(np.concatenate((before, suffix)), len(suffix), first, row)
                first, segment = first + len(suffix), segment + 1

    def _parts(self, asked: Group, salt: str) -> Iterator[tuple[Group, list[int]]]:
        """A group, less the conversations of which more is kept than its prompt, each by itself.

        Each with the places of its responses in what was asked.
        """
        whole = [np.concatenate((asked.prefix, suffix)) for suffix in asked.suffixes]
        if len(whole) == 1:
            yield Group(whole[0][:0], (whole[0],)), [0]
            return
        least = len(asked.prefix) + LEAST_TOKENS
        known = [self._usable(self._walk(c[:-1], salt)) >= least for c in whole]
        stay = [n for n, leaves in enumerate(known) if not leaves]
        if stay:
            yield Group(asked.prefix, tuple(asked.suffixes[n] for n in stay)), stay
        for n, leaves in enumerate(known):
            if leaves:
                yield Group(whole[n][:0], (whole[n],)), [n]

    def _after_kept(self, part: Group, salt: str) -> tuple[Group, Tokens, Path]:
        """What is to be computed of a group, the tokens before it, and the nodes that have them."""
        alone = not len(part.prefix)
        # The token at which the reward is read is computed anew.
        prompt = part.suffixes[0][:-1] if alone and len(part.suffixes) == 1 else part.prefix
        path = self._walk(prompt, salt)
        seen, kept = path[-1][1] if path else 0, self._usable(path)
        if kept < LEAST_TOKENS:
            kept = 0
        head, rest = prompt[:kept], prompt[kept:]
        path = [(node, min(end, kept)) for node, end in path if node.start < kept]
        if not alone:
            if self.stateful and kept and len(rest) < LEAST_TOKENS:
                if len(rest) * (len(part.suffixes) - 1) > kept:  # Joined, it would cost more.
                    return part, prompt[:0], []
                joined = tuple(np.concatenate((rest, suffix)) for suffix in part.suffixes)
                return Group(rest[:0], joined), head, path
            return Group(rest, part.suffixes), head, path
        if len(part.suffixes) > 1:
            return part, head, path
        # Where a conversation parts from a kept one is worth a state.
        parts = seen - kept if self.stateful and seen - kept >= LEAST_TOKENS else 0
        whole = part.suffixes[0][kept:]
        return Group(whole[:parts], (whole[parts:],)), head, path

    def _walk(self, tokens: Tokens, salt: str) -> Path:
        """The nodes that `tokens` begin with, each with how many of them it ends at."""
        path: Path = []
        node = self._roots.get((salt, int(tokens[0]))) if len(tokens) else None
        while node is not None:
            own = node.tokens[: len(tokens) - node.start]
            differs = own != tokens[node.start : node.start + len(own)]
            end = node.start + (int(differs.argmax()) if differs.any() else len(own))
            path.append((node, end))
            node = node.children.get((end, int(tokens[end]))) if end < len(tokens) else None
        return path

    def _usable(self, path: Path) -> int:
        """Of the tokens of a path as many as a conversation can go on from."""
        if not self.stateful:
            return path[-1][1] if path else 0
        taken = (n for node, end in path for n in node.states if n <= end)
        return max(taken, default=0)

    def _touch(self, path: Path) -> None:
        """Now used; a node after all that come from it, so that it never goes before them."""
        for node, _ in reversed(path):
            self._nodes.move_to_end(node)

    def _add(self, tokens: Tokens, fresh: int, first: int, row: Row) -> None:
        """Keep the last `fresh` of `tokens`, in the row from `first` on, where they are new."""
        path = self._walk(tokens, row.salt)
        start = path[-1][1] if path else 0
        self._touch(path)
        missing = len(tokens) - start
        if not 0 < missing <= fresh:  # There already, or what it follows is gone meanwhile.
            return
        last = first + fresh
        rows = torch.cat([part[last - missing : last] for part in row.kept.left_rows], dim=1)
        parent = path[-1][0] if path else None
        node = _Node(parent, start, tokens[start:].copy(), rows, row.salt)
        if node.bytes > self.max_bytes:
            return
        self._siblings(node)[node.key] = node
        self._nodes[node] = None
        self._touch(path)
        self.bytes += node.bytes
        self._evict()

    def _add_state(self, tokens: Tokens, state: State, salt: str) -> None:
        path = self._walk(tokens, salt)
        if path and path[-1][1] == len(tokens) and len(tokens) not in path[-1][0].states:
            path[-1][0].states[len(tokens)] = state
            self.bytes += _bytes_of(state)
            self._evict()

    def _left_states(self, row: Row) -> dict[int, State]:
        """The states at the ends of the row's prompts, by segment."""
        batches = row.packed.layout.batches
        return {
            segment: [calls[number].row(place) for calls in row.kept.left_states]
            for number, batch in enumerate((*batches.prompts, *batches.further))
            for place, segment in enumerate(batch.segments)
        }

    def _siblings(self, node: _Node) -> dict[Key, _Node]:
        return self._roots if node.parent is None else node.parent.children

    def _evict(self) -> None:
        while self.bytes > self.max_bytes:
            node, _ = self._nodes.popitem(last=False)
            del self._siblings(node)[node.key]
            self.bytes -= node.bytes


def _bytes_of(state: State) -> int:
    return sum(tensor.nbytes for states in state for tensor in states.tensors)
