"""What frozen layers make of every conversation, computed once and kept in a file.

Where the lower layers do not learn, each epoch and each evaluation would run them again over the
same tokens for the same states. They are run once instead, prompts shared, and their output is
kept in float32, as it was: 4 D bytes a token (D width), of a head that learns alone 4 D a
conversation. The gradients are those of a training that keeps nothing, rounding aside.

`states.bin` holds micro-batch after micro-batch in an order that follows from the data;
`states.json` beside it says how many are whole, of what, and with which CRC-32. A training that was
killed makes what is missing, and all of it where the file is another than it wrote. Both go when
the training ends.
"""

from __future__ import annotations

import json
import os
import shutil
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

from palate.model.frozen import FrozenLayers, conversation_key
from palate.model.packing import Group, Tokens, group, pack, plan
from palate.model.precision import name_of
from palate.model.reward_model import RewardModel
from palate.records import write_json
from palate.train.dataset import Example, Examples
from palate.types import PalateError, digest

FILE = "states.bin"
BYTES = 4  # Of a value: float32, in which layers hand on what they add up, in bfloat16 too.
# `auto` leaves as much of the disk free as it takes.
ROOM = 2
CHUNK = 16 << 20  # Bytes of the file that are read at once where it is checked.
# Times that comparisons may be larger, each by itself, than what is kept of them all (assumed).
SHARED = 8
# Groups that are laid out together: the planner's time grows with their square.
PLANNED = 256


@dataclass(frozen=True, slots=True)
class Place:
    """Rows of the file that hold a conversation: `shared` from `prefix` on, the rest from `rest`.

    Where ends alone are kept, `rest` is its one row.
    """

    prefix: int
    shared: int
    rest: int


class FrozenStates:
    """States after the frozen layers by conversation, on disk, as `RewardModel.kept` reads them."""

    def __init__(self, path: Path, layers: FrozenLayers, width: int, *, ends: bool) -> None:
        self.path, self.layers, self.width, self.ends = path, layers, width, ends
        self.places: dict[bytes, Place] = {}
        self.rows = 0
        self._file = -1

    def lay_out(self, rows: Iterable[Example], budget: int) -> list[list[Group]]:
        """Micro-batches of at most `budget` tokens that hold every conversation of `rows` once.

        A function of its arguments, and of what was laid out before; the places of all
        conversations follow from it.
        """
        prompts: dict[str, dict[bytes, Tokens]] = {}
        for row in rows:
            responses = prompts.setdefault(row.prompt, {})
            for tokens in (row.chosen, row.rejected):
                if (key := conversation_key(tokens)) not in self.places:
                    responses.setdefault(key, tokens)
        groups = [group(c) for p in prompts.values() for c in _within(p.values(), budget)]
        parts: list[list[Group]] = []
        for start in range(0, len(groups), PLANNED):
            some = groups[start : start + PLANNED]
            for indices in plan([g.tokens for g in some], budget)[0]:
                parts.append([some[i] for i in indices])
                for one in parts[-1]:
                    self._place(one)
        return parts

    def _place(self, one: Group) -> None:
        prefix, shared = self.rows, 0 if self.ends else len(one.prefix)
        self.rows += shared
        for suffix in one.suffixes:
            place = Place(prefix, shared, self.rows)
            self.places[conversation_key(one.prefix, suffix)] = place
            self.rows += 1 if self.ends else len(suffix)

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return self.rows * self.row_size

    @property
    def row_size(self) -> int:
        """Bytes of one state."""
        return self.width * BYTES

    def open(self) -> None:
        """Read from the file from now on."""
        self._file = os.open(self.path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)

    @contextmanager
    def standing_in(self, groups: Sequence[Group]) -> Generator[None]:
        """Inside, kept states of a packed row of `groups` stand in for the frozen layers."""
        states = self.read(groups)
        if states is None:
            yield
            return
        with self.layers.given(states):
            yield

    def read(self, groups: Sequence[Group]) -> Tensor | None:
        """[1, T, D] of a packed row of `groups`, [1, R, D] where ends alone are kept.

        None where a conversation is not kept.
        """
        runs: list[tuple[int, int]] = []  # Rows of the file: the first, and how many.
        for one in groups:
            for number, suffix in enumerate(one.suffixes):
                conversation = np.concatenate((one.prefix, suffix))
                place = self.places.get(conversation_key(conversation))
                if place is None:
                    return None
                if self.ends:
                    runs.append((place.rest, 1))
                    continue
                start = 0 if number == 0 else len(one.prefix)
                inside = max(0, place.shared - start)  # Of the prefix as it is kept.
                after = len(conversation) - start - inside
                runs += [(place.prefix + start, inside)] if inside else []
                runs.append((place.rest + start + inside - place.shared, after))
        states = np.empty((1, sum(count for _, count in runs), self.width), np.float32)
        room, at = states.data.cast("B"), 0
        for first, count in runs:
            size = count * self.row_size
            if os.preadv(self._file, [room[at : at + size]], first * self.row_size) != size:
                raise PalateError(f"{self.path}: ends early; start the training again")
            at += size
        return torch.from_numpy(states)


def _within(conversations: Iterable[Tokens], budget: int) -> Iterator[list[Tokens]]:
    """Conversations of one prompt in lists of at most about `budget` tokens, each at least one."""
    some: list[Tokens] = []
    for one in conversations:
        if some and group([*some, one]).tokens > budget:
            yield some
            some = []
        some.append(one)
    if some:
        yield some


@dataclass(frozen=True, slots=True)
class Visited:
    """Comparisons, the first `rows` of them, that a training runs `times` over its whole length."""

    examples: Examples
    rows: int
    times: int

    @property
    def tokens(self) -> int:
        """Of all rows, each by itself: at least as many as are kept."""
        return int(self.examples.lengths()[: self.rows].sum())

    def __iter__(self) -> Iterator[Example]:
        return (self.examples[row] for row in range(self.rows))


def keep_states(
    model: RewardModel,
    sets: Sequence[Visited],
    budget: int,
    folder: Path,
    *,
    made_of: str,
    asked: bool,
    stop: Callable[[], bool],
    log: Callable[[str], None],
    show: Callable[[str], None],
) -> bool:
    """Make the states of those `sets` that are visited more than once, and have `model` read them.

    Goes on where a killed run was. Without `asked`, a reason against it is logged or, where there
    is nothing to gain, not said. False where `stop` ended it.

    Args:
        made_of: a digest of weights and data; states made of another are thrown away.

    Raises:
        PalateError: it is `asked`, and cannot be.
    """
    layers = FrozenLayers.of(model.backbone)
    reason = _why_not(model, layers)
    if reason:
        if asked:
            raise PalateError(f"train.compute.keep_frozen_states: {reason}; leave it at auto")
        return True
    ends = layers.count == len(layers.layers) and model.narrow
    states = FrozenStates(folder / FILE, layers, _width(model), ends=ends)
    sets = [one for one in sets if one.times > 1]
    if not sets:
        return True
    room = shutil.disk_usage(folder).free + _size(states.path)
    # Prompts that recur are kept once, but not so many are laid out in memory in vain.
    most = sum(one.tokens for one in sets) * states.row_size
    parts = [] if most > SHARED * room else [p for s in sets for p in states.lay_out(s, budget)]
    size = states.size if parts else most
    if size * (1 if asked else ROOM) > room:
        need = f"{size / 1e9:.1f} GB of the {room / 1e9:.1f} GB free in {folder}"
        if asked:
            raise PalateError(f"train.compute.keep_frozen_states: wants {need}; leave it at auto")
        log(f"frozen states are not kept: they want {need}")
        return True
    if apart := _apart(model, layers, parts[0]):
        if asked:
            raise PalateError(f"train.compute.keep_frozen_states: {apart}; leave it at auto")
        log(f"frozen states are not kept ({apart})")
        return True
    dtype = name_of(model.dtype)
    fingerprint = digest(made_of, layers.count, dtype, budget, states.rows, states.width)
    try:
        if not _make(model, states, parts, fingerprint, stop, show):
            return False
    except OSError as error:
        forget_states(folder)
        if asked:
            raise PalateError(
                f"{states.path}: cannot be written ({error.strerror}); make room, or leave "
                "train.compute.keep_frozen_states at auto"
            ) from error
        log(f"frozen states are not kept: {states.path} cannot be written ({error.strerror})")
        return True
    states.open()
    model.kept = states
    log(
        f"frozen states: {layers.count} of {len(layers.layers)} layers were run once; "
        f"{states.size / 1e9:.2f} GB in {states.path} until the training ends"
    )
    return True


def forget_states(folder: Path) -> None:
    """Remove the file of states in `folder`, if there is one.

    What a disk does not let go of stays: no training ends for it.
    """
    for path in (folder / FILE, (folder / FILE).with_suffix(".json")):
        with suppress(OSError):
            path.unlink()


def _why_not(model: RewardModel, layers: FrozenLayers) -> str:
    if not layers.count:
        return "every layer learns, or an embedding"
    if not model.shared:
        return "this backbone takes padded rows"
    if model.experts_per_token:
        return "a router loss wants the routers of all layers"
    return ""


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _width(model: RewardModel) -> int:
    return int(model.backbone.config.get_text_config().hidden_size)


@torch.no_grad()
def run_frozen(model: RewardModel, layers: FrozenLayers, groups: Sequence[Group]) -> Tensor:
    """What the frozen layers make of a packed row of `groups`, [T, D] float32; [R, D] of ends."""
    with layers.alone() as made:
        model.forward_packed(pack(groups, model.device))
    (states,) = made
    if not isinstance(states, Tensor) or states.ndim != 3:
        raise TypeError("a layer hands on more than a state")
    return states[0].float()


def _apart(model: RewardModel, layers: FrozenLayers, groups: Sequence[Group]) -> str:
    """Why the rest of the network does not do with kept states what it does whole; else nothing.

    What an architecture hands past its layers, or shares between them, cannot be read off its
    parts, so one micro-batch is run both ways, forward and backward.
    """

    def learnt() -> tuple[Tensor, list[Tensor | None]]:
        rewards = model.forward_packed(packed).reward
        rewards.sum().backward()
        gradients = [p.grad for p in model.parameters() if p.requires_grad]
        model.zero_grad(set_to_none=True)
        return rewards.detach(), gradients

    groups = list(groups[:1])
    packed = pack(groups, model.device)
    try:
        whole = learnt()
        states = run_frozen(model, layers, groups)[None]
        with layers.given(states):
            kept = learnt()
    except Exception as error:  # Whatever an architecture makes of a layer passed over.
        return " ".join(str(error).split())[:100] or type(error).__name__
    finally:
        model.zero_grad(set_to_none=True)
    bound = 0.02 if model.dtype == torch.bfloat16 else 1e-4
    pairs = [(whole[0], kept[0]), *zip(whole[1], kept[1], strict=True)]
    for first, second in pairs:
        if (first is None) != (second is None):
            return "weights below the frozen layers learn"
        if first is not None and second is not None:
            apart = float((first - second).norm() / first.norm().clamp(min=1e-12))
            if not apart <= bound:
                return f"what is learnt from kept states is {apart:.1g} apart"
    return ""


def _make(
    model: RewardModel,
    states: FrozenStates,
    parts: Sequence[Sequence[Group]],
    fingerprint: str,
    stop: Callable[[], bool],
    show: Callable[[str], None],
) -> bool:
    """Write what is missing of the file; False where `stop` ended it, after a whole micro-batch."""
    record = states.path.with_suffix(".json")
    done, size, check = _done(states.path, record, fingerprint)
    with states.path.open("r+b" if done else "wb") as file:
        file.truncate(size)
        file.seek(size)
        for number, part in enumerate(parts[done:], done + 1):
            if stop():
                return False
            made = run_frozen(model, states.layers, part).cpu().numpy()
            data = np.ascontiguousarray(made, "<f4").data.cast("B")
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # Before the record that says so.
            size, check = size + made.nbytes, crc32(data, check)
            whole = {"fingerprint": fingerprint, "parts": number, "size": size, "crc32": check}
            write_json(record, whole)
            show(f"frozen layers {number / len(parts):.0%}")
    return True


def _done(path: Path, record: Path, fingerprint: str) -> tuple[int, int, int]:
    """How many micro-batches of the file are whole, their bytes and the CRC-32 of these.

    None of a file that is no longer what was written: states that are not the layers' would be
    learnt from without a word.
    """
    try:
        values = json.loads(record.read_text(encoding="utf-8"))
        if values["fingerprint"] == fingerprint:
            parts, size, check = (int(values[key]) for key in ("parts", "size", "crc32"))
            if _size(path) >= size and _check(path, size) == check:
                return parts, size, check
    except (OSError, ValueError, TypeError, KeyError):
        pass
    return 0, 0, 0


def _check(path: Path, size: int) -> int:
    """The CRC-32 of the first `size` bytes of a file."""
    check = 0
    with path.open("rb") as file:
        while size and (data := file.read(min(size, CHUNK))):
            check, size = crc32(data, check), size - len(data)
    return check
