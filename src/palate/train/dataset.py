"""A mixture as tokens: one memory-mapped file that training reads in any order.

`NAME.arrow` is an Arrow stream, a chunk for each row group of the comparisons; it only grows.
`NAME.json` beside it says how much of it is finished and what it was made of, and is replaced
whole after each chunk. What lies beyond that was being written when a run was killed, and is
cut off when tokenising goes on. `NAME.refused.jsonl` lists the rows that the chat template refuses.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import time
import weakref
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing, contextmanager
from copy import copy
from dataclasses import asdict, astuple, dataclass, field, replace
from functools import partial
from itertools import accumulate, islice
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
from filelock import FileLock
from numpy.typing import NDArray

from palate.model.packing import Tokens, group
from palate.model.templates import RefusedTurnsError
from palate.model.tokenizer import ChatTokens
from palate.progress import Bar, info, warn
from palate.records import (
    count_groups,
    has_values,
    read_comparisons,
    read_header,
    write_json,
    write_text,
)
from palate.types import (
    PREFERRED,
    Attributes,
    Comparison,
    Judgement,
    PalateError,
    Ranks,
    Rating,
    digest,
)
from palate.workers import in_order, workers_for

# One comparison as tokens, and as the bytes in which a token file holds it.

# Prompt digest, tokens of prefix, chosen and rejected, rating (0: none), two labels (-1: none), and
# which of the three below follow the tokens. A plain preference outside a ranking has none.
_HEAD = struct.Struct("<16s3ibbbB")
_LABELS = (None, False, True)  # Of -1, 0 and 1.
_JUDGED, _RANKED, _RATED = 1, 2, 4
_AMOUNTS = struct.Struct("<5d")  # Chosen, rejected, tie, both bad, weight.
_PLACES = struct.Struct("<3i")  # Of chosen and rejected, and bytes of the ranking's name.
_SIZE = struct.Struct("<i")  # Bytes of the attributes of both sides as JSON, which follow.


@dataclass(frozen=True, slots=True)
class Example:
    """A comparison as tokens. `prompt` names the prompt, so equal prompts can be run once."""

    id: str
    prompt: str
    chosen: Tokens
    rejected: Tokens
    rating: Rating | None
    chosen_safe: bool | None
    rejected_safe: bool | None
    judgement: Judgement = PREFERRED
    ranks: Ranks | None = None
    chosen_attributes: Attributes = field(default_factory=dict[str, float])
    rejected_attributes: Attributes = field(default_factory=dict[str, float])

    def pack(self) -> tuple[tuple[int, int, int], bytes]:
        """Tokens of the shared prefix and of each rest, and the example as bytes.

        What both conversations begin with is held once.
        """
        pair = group((self.chosen, self.rejected))
        parts = (pair.prefix, *pair.suffixes)
        lengths = (len(parts[0]), len(parts[1]), len(parts[2]))
        safe = (_LABELS.index(label) - 1 for label in (self.chosen_safe, self.rejected_safe))
        kind, more = 0, b""
        if not self.judgement.is_plain:
            kind, more = _JUDGED, _AMOUNTS.pack(*astuple(self.judgement))
        if self.ranks is not None:
            name = self.ranks.ranking.encode("utf-8", "surrogatepass")
            places = _PLACES.pack(self.ranks.chosen, self.ranks.rejected, len(name))
            kind, more = kind | _RANKED, more + places + name
        if self.chosen_attributes or self.rejected_attributes:
            rated = [dict(self.chosen_attributes), dict(self.rejected_attributes)]
            text = json.dumps(rated, sort_keys=True, separators=(",", ":")).encode()
            kind, more = kind | _RATED, more + _SIZE.pack(len(text)) + text
        head = _HEAD.pack(bytes.fromhex(self.prompt), *lengths, self.rating or 0, *safe, kind)
        tokens = np.concatenate(parts).astype("<i4").tobytes()
        return lengths, head + tokens + more + self.id.encode("utf-8", "surrogatepass")

    @classmethod
    def unpack(cls, data: bytes) -> Example:
        """The example that `pack` made bytes of."""
        prompt, prefix, chosen, rejected, rating, *labels, kind = _HEAD.unpack_from(data)
        tokens = np.frombuffer(data, "<i4", prefix + chosen + rejected, _HEAD.size)
        shared, rest = tokens[:prefix], tokens[prefix + chosen :]
        at = _HEAD.size + tokens.nbytes
        judgement, ranks = PREFERRED, None
        if kind & _JUDGED:
            judgement = Judgement(*_AMOUNTS.unpack_from(data, at))
            at += _AMOUNTS.size
        if kind & _RANKED:
            *places, size = _PLACES.unpack_from(data, at)
            at += _PLACES.size
            ranks = Ranks(data[at : at + size].decode("utf-8", "surrogatepass"), *places)
            at += size
        attributes: list[Attributes] = [{}, {}]
        if kind & _RATED:
            (size,) = _SIZE.unpack_from(data, at)
            at += _SIZE.size
            attributes = json.loads(data[at : at + size])
            at += size
        return cls(
            id=data[at:].decode("utf-8", "surrogatepass"),
            prompt=prompt.hex(),
            chosen=tokens[: prefix + chosen],
            rejected=np.concatenate((shared, rest)),
            rating=Rating(rating) if rating else None,
            chosen_safe=_LABELS[labels[0] + 1],
            rejected_safe=_LABELS[labels[1] + 1],
            judgement=judgement,
            ranks=ranks,
            chosen_attributes=attributes[0],
            rejected_attributes=attributes[1],
        )


# Row groups of comparisons as chunks of tokens, made in this process or by several.
#
# Pairs that tokenise to the same conversation, and pairs with a response over the limit, teach
# nothing or the wrong thing; they are left out here and counted (pitfalls 1, 2). So are pairs that
# the chat template refuses, each with the reason. A chunk is a pure function of its row group, so
# the file does not depend on which process makes it.

# Rows are read whole and at random, so each is one piece; what plans need of all rows is beside it.
SCHEMA = pa.schema(
    [
        pa.field("prompt", pa.binary(16), nullable=False),
        pa.field("lengths", pa.list_(pa.int32(), 3), nullable=False),
        pa.field("example", pa.binary(), nullable=False),
    ]
)
# Where some row is more than a plain preference: the shares of chosen, tie and rejected, and a
# number for the ranking, equal in all its rows, 0 outside rankings.
JUDGED_SCHEMA = pa.schema(
    [
        *SCHEMA,
        pa.field("shares", pa.list_(pa.float64(), 3), nullable=False),
        pa.field("ranking", pa.uint64(), nullable=False),
    ]
)


def _schema(comparisons: Path) -> pa.Schema:
    """The columns that tokens of these comparisons have."""
    judged = has_values(comparisons, "judgement") or has_values(comparisons, "ranks")
    return JUDGED_SCHEMA if judged else SCHEMA


@dataclass(frozen=True, slots=True)
class Chunk:
    """One row group as an Arrow message, and what making it cost, by name in `Cuts`.

    `refused` are the ids of rows that the chat template refuses, with its reason.
    """

    message: bytes
    counts: Counter[str]
    refused: tuple[tuple[str, str], ...] = ()


def chunks(
    comparisons: Path, chat: ChatTokens, groups: Sequence[int], workers: int
) -> Generator[Chunk]:
    """The chunks of row groups in order; more than one worker are processes of their own.

    Raises:
        PalateError: the template writes no stable end, or a process died.
    """
    do = partial(_chunk, comparisons, chat)
    cure = "what was finished is kept"
    return in_order(do, groups, workers, name="tokenising process", cure=cure)


def _chunk(comparisons: Path, chat: ChatTokens, number: int) -> Chunk:
    counts: Counter[str] = Counter()
    refused: list[tuple[str, str]] = []
    schema = _schema(comparisons)
    rows: list[tuple[Any, ...]] = []  # As in `schema`.
    for comparison in read_comparisons(comparisons, groups=[number]):
        counts["rows"] += 1
        try:
            chosen = chat.encode(comparison.prompt, comparison.chosen)
            rejected = chat.encode(comparison.prompt, comparison.rejected)
        except RefusedTurnsError as refusal:
            counts["refused"] += 1
            refused.append((comparison.id, str(refusal)))
            continue
        if chosen is None or rejected is None:
            counts["too_long"] += 1
        elif np.array_equal(chosen.ids, rejected.ids):
            counts["identical"] += 1
            counts["alike"] += comparison.chosen != comparison.rejected
        else:
            counts["kept"] += 1
            counts["truncated"] += chosen.truncated or rejected.truncated
            example = _example(comparison, chosen.ids, rejected.ids)
            row = (bytes.fromhex(example.prompt), *example.pack())
            judged = (example.judgement.shares, _ranking_key(example))
            rows.append(row + judged if schema is JUDGED_SCHEMA else row)
    columns = zip(*rows, strict=True) if rows else [()] * len(schema)
    arrays = [pa.array(c, t) for c, t in zip(columns, schema.types, strict=True)]
    message = pa.record_batch(arrays, schema=schema).serialize().to_pybytes()
    return Chunk(message, counts, tuple(refused))


def _example(comparison: Comparison, chosen: Tokens, rejected: Tokens) -> Example:
    """The comparison as tokens, the side that most votes are for as chosen."""
    example = Example(
        id=comparison.id,
        prompt=digest([[m.role, m.content] for m in comparison.prompt]),
        chosen=chosen,
        rejected=rejected,
        rating=comparison.rating,
        chosen_safe=comparison.chosen_safe,
        rejected_safe=comparison.rejected_safe,
        judgement=comparison.judgement,
        ranks=comparison.ranks,
        chosen_attributes=comparison.chosen_attributes,
        rejected_attributes=comparison.rejected_attributes,
    )
    if comparison.judgement.decides != "rejected" or comparison.ranks is not None:
        return example
    votes = comparison.judgement
    return replace(
        example,
        chosen=rejected,
        rejected=chosen,
        chosen_safe=comparison.rejected_safe,
        rejected_safe=comparison.chosen_safe,
        chosen_attributes=comparison.rejected_attributes,
        rejected_attributes=comparison.chosen_attributes,
        judgement=replace(votes, chosen=votes.rejected, rejected=votes.chosen),
    )


def _ranking_key(example: Example) -> int:
    """A number that the rows of a ranking share; 0 outside rankings."""
    if example.ranks is None:
        return 0
    return int(digest(example.prompt, example.ranks.ranking)[:16], 16) or 1


# A process imports for 5 s or more and tokenises some 500 rows of HH a second: fewer do not pay.
ROWS_PER_WORKER = 8_192


@dataclass(frozen=True, slots=True)
class Cuts:
    """What tokenising cost: rows left out by reason, prompts cut.

    `alike` of the `identical` have responses that differ: the template writes both the same.
    """

    rows: int = 0
    kept: int = 0
    too_long: int = 0
    identical: int = 0
    truncated: int = 0
    refused: int = 0
    alike: int = 0


@dataclass(frozen=True, slots=True)
class State:
    """What is finished of a token file: `done` of `groups` row groups, its first `size` bytes."""

    fingerprint: str
    groups: int
    done: int
    size: int
    cuts: Cuts

    @classmethod
    def read(cls, path: Path) -> State | None:
        """The state of the token file at `path`; None where there is none, or none to use."""
        try:
            values = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            state = cls(**values | {"cuts": Cuts(**values["cuts"])})
            return state if path.stat().st_size >= state.size else None
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def write(self, path: Path) -> None:
        """Write it beside the token file at `path`."""
        write_json(path.with_suffix(".json"), asdict(self))


class Examples:
    """Random access to the examples of a token file, in memory that does not grow with it.

    Columns are mapped. Rows are read with a system call: the kernel maps whole folios, so that a
    row would make 640 KB resident (measured, Linux 6.18, ext4), an epoch the whole file.

    Raises:
        PalateError: no token file, or one that is not finished.
    """

    def __init__(self, path: Path) -> None:
        state = State.read(path)
        if state is None or state.done < state.groups:
            raise PalateError(f"{path}: not a finished token file; start the training again")
        self.fingerprint, self.cuts = state.fingerprint, state.cuts
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)
        self._map = mmap.mmap(self._file, state.size, access=mmap.ACCESS_READ)
        self._whole = pa.py_buffer(self._map)
        with pa.ipc.open_stream(self._whole) as stream:
            self._judged = "shares" in stream.schema.names
            self._chunks = list(stream)
        self._ends = list(accumulate(chunk.num_rows for chunk in self._chunks))
        self._rows: NDArray[np.int64] | None = None  # All of the file.
        self._owner: Examples | None = None  # Whose end closes the file.

    def __len__(self) -> int:
        return self.cuts.kept if self._rows is None else len(self._rows)

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        if self._rows is not None:
            index = int(self._rows[index])
        number = bisect_right(self._ends, index)
        chunk = self._chunks[number]
        row = index - self._ends[number] + chunk.num_rows
        # Where in the file the column's offsets and bytes begin.
        buffers = chunk["example"].buffers()[1:]
        offsets, rows = (int(buffer.address - self._whole.address) for buffer in buffers)
        start, end = np.frombuffer(os.pread(self._file, 8, offsets + 4 * row), "<i4").tolist()
        return Example.unpack(os.pread(self._file, end - start, rows + start))

    def lengths(self) -> NDArray[np.int32]:
        """Tokens of each example's shared prefix, rest of chosen, rest of rejected: [rows, 3]."""
        return self._column("lengths", "<i4", width=3, kept=3)

    def prompt_keys(self) -> NDArray[np.uint64]:
        """Half of each example's prompt digest, [rows]: equal where the prompts are equal."""
        return self._column("prompt", "<u8", width=2, kept=1)[:, 0]

    def shares(self) -> NDArray[np.float64]:
        """Shares of chosen, tie and rejected in each example's judgement, [rows, 3]."""
        if self._judged:
            return self._column("shares", "<f8", width=3, kept=3)
        return np.tile((1.0, 0.0, 0.0), (len(self), 1))

    def ranking_keys(self) -> NDArray[np.uint64]:
        """A number for each example's ranking, [rows]: equal in all its rows, 0 outside."""
        if self._judged:
            return self._column("ranking", "<u8", width=1, kept=1)[:, 0]
        return np.zeros(len(self), np.uint64)

    def ratings(self, names: Sequence[str]) -> NDArray[np.float64]:
        """What was rated of each example's chosen and rejected response, [rows, 2, K]; NaN where
        nothing was. Every row is read for it."""
        ratings = np.full((len(self), 2, len(names)), np.nan)
        for row in range(len(self)):
            example = self[row]
            for side, rated in enumerate((example.chosen_attributes, example.rejected_attributes)):
                if rated:
                    ratings[row, side] = [rated.get(name, np.nan) for name in names]
        return ratings

    def decided(self) -> Examples:
        """The same without the rows whose judgement decides a tie (`Judgement.decides`)."""
        if not self._judged:
            return self
        chosen, tie, rejected = self.shares().T
        clear = (chosen > np.maximum(tie, rejected)) | (rejected > np.maximum(tie, chosen))
        rows = np.flatnonzero(clear) if self._rows is None else self._rows[clear]
        fewer = copy(self)
        fewer._rows, fewer._owner = rows, self
        return fewer

    def _column(self, name: str, dtype: str, width: int, kept: int) -> Any:
        """The first `kept` of `width` values a row of a column of fixed width, [rows, kept]."""
        column = np.empty((self.cuts.kept, kept), dtype)
        for chunk, end in zip(self._chunks, self._ends, strict=True):
            values = np.frombuffer(chunk[name].buffers()[-1], dtype, chunk.num_rows * width)
            column[end - chunk.num_rows : end] = values.reshape(-1, width)[:, :kept]
            self._map.madvise(mmap.MADV_DONTNEED)  # Given back, not lost: mapped again when read.
        return column if self._rows is None else column[self._rows]


def tokenise(
    comparisons: Path, chat: ChatTokens, out: Path, *, workers: int | None = None
) -> Examples:
    """Tokenise a comparison file to `out`, or reuse what `out` holds of the same input.

    Goes on where a killed run was. Whoever else tokenises to `out` waits, and finds it done.

    Args:
        workers: processes, 1 is this one; None: one for each core, as far as the rows pay for it.
            The file does not depend on it.

    Raises:
        PalateError: no pair is left to train on, or the file cannot be written.
    """
    source = read_header(comparisons, "comparisons")
    fingerprint = digest(source.fingerprint, chat.fingerprint)
    out.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(out.with_suffix(".lock")):  # Freed when its process dies, too.
        state = State.read(out)
        if state is None or state.fingerprint != fingerprint:
            out.unlink(missing_ok=True)  # Another process may have it mapped: never write over it.
            state = State(fingerprint, count_groups(comparisons), done=0, size=0, cuts=Cuts())
        if state.done < state.groups or not state.size:
            rows = source.rows - state.cuts.rows
            workers = workers or workers_for(rows, ROWS_PER_WORKER)
            made = chunks(comparisons, chat, range(state.done, state.groups), workers)
            cuts = Counter(asdict(state.cuts))
            with _bar(comparisons.stem, cuts, source.rows, out) as show, closing(made):
                _append(out, _schema(comparisons), state, cuts, made, show)
    examples = Examples(out)
    if not len(examples):
        raise PalateError(_why_none(comparisons, chat.max_tokens, examples.cuts, out))
    return examples


def _append(
    out: Path,
    schema: pa.Schema,
    state: State,
    cuts: Counter[str],
    made: Iterable[Chunk],
    show: Callable[[], None],
) -> None:
    """Cut `out` and its list of refused rows after what is finished, and append what is missing.

    `cuts` counts on, and `show` is called after each chunk. A full disk leaves what is finished as
    it is.
    """
    refused, lines = _refusals(out), []
    if state.cuts.refused and refused.is_file():
        with refused.open(encoding="utf-8") as file:
            lines = list(islice(file, state.cuts.refused))
    refused.unlink(missing_ok=True)
    if lines:
        write_text(refused, "".join(lines))
    try:
        with out.open("r+b" if state.size else "wb") as file:
            file.truncate(state.size)
            file.seek(state.size)
            if not state.size:
                _write(file, schema.serialize())
                replace(state, size=file.tell()).write(out)
            for number, chunk in enumerate(made, state.done + 1):
                _write(file, chunk.message)
                if chunk.refused:
                    rows = [json.dumps({"id": id_, "reason": why}) for id_, why in chunk.refused]
                    with refused.open("a", encoding="utf-8") as listed:
                        listed.writelines(f"{row}\n" for row in rows)
                cuts.update(chunk.counts)
                new = replace(state, done=number, size=file.tell(), cuts=Cuts(**cuts))
                new.write(out)
                show()
    except OSError as error:
        raise PalateError(f"{out}: cannot be written ({error.strerror or error})") from error


def _write(file: IO[bytes], message: bytes) -> None:
    file.write(message)
    file.flush()
    os.fsync(file.fileno())  # Before the state that says so.


def _why_none(comparisons: Path, max_tokens: int, cuts: Cuts, out: Path) -> str:
    """That no pair can be used, and the cure of the most frequent reason."""
    same = cuts.identical - cuts.alike
    another = "set backbone.template to chatml or to a Jinja file"
    cures = (
        (cuts.too_long, "raise backbone.max_tokens"),
        (same, "give pairs whose responses differ"),
        (
            cuts.alike,
            "their responses differ only in what the chat template does not write, such as "
            f"reasoning before </think>; {another} that writes it",
        ),
        (cuts.refused, f"{_first_refusal(out)}; {another} that takes such turns"),
    )
    return (
        f"{comparisons}: none of {cuts.rows} pairs can be used ({cuts.too_long} longer than "
        f"max_tokens={max_tokens}, {same} with one response twice, {cuts.alike} written alike by "
        f"the chat template, {cuts.refused} refused by it); {max(cures)[1]}"
    )


def _refusals(out: Path) -> Path:
    return out.with_suffix(".refused.jsonl")


def _first_refusal(out: Path) -> str:
    path = _refusals(out)
    if not path.is_file():
        return ""
    with path.open(encoding="utf-8") as lines:
        first = json.loads(next(lines, "null"))
    return f"row {first['id']}: {first['reason']}" if first else ""


@contextmanager
def _bar(name: str, cuts: Counter[str], rows: int, out: Path) -> Generator[Callable[[], None]]:
    """A bar that follows `cuts`, and one line at the end that says what was cut."""
    started, before = time.perf_counter(), cuts["rows"]

    def rate() -> str:
        return f"{(cuts['rows'] - before) / (time.perf_counter() - started):,.0f} rows/s"

    with Bar(f"tokenise {name}", rows, unit="rows") as bar:
        bar.update(before)
        yield lambda: bar.update(cuts["rows"], figures=rate())
        info(
            f"tokenised {name}: {cuts['kept']:,} of {cuts['rows']:,} comparisons kept, "
            f"{cuts['too_long']:,} too long, {cuts['identical']:,} identical, "
            f"{cuts['truncated']:,} prompts cut, {rate()}",
            dim=True,
        )
    if cuts["alike"]:
        warn(
            f"  {cuts['alike']:,} of the identical differ in what the chat template does not "
            "write, such as reasoning that it strips; backbone.template can name another"
        )
    if cuts["refused"]:
        warn(f"  {cuts['refused']:,} left out, first {_first_refusal(out)}; all: {_refusals(out)}")
