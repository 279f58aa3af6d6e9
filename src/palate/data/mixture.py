"""Mixtures: which comparisons a reward model is trained on, in shares asked and achieved.

Sampling is without replacement and by seeded hash of the comparison's id: the k rows of smallest
hash are a uniform sample, whatever the order of rows, files and pools. Four independent hashes
serve caps, samples, subsets and the final order; ids are stored. A ranking has one hash for all its
rows and is taken whole: a sample ends before the ranking that would exceed it.

Two passes keep memory flat. The first reads ids and keeps 8 bytes of hash a row. The second copies
the chosen rows into temporary buckets by their place in the order, then sorts one bucket at a time.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, model_validator

from palate.data.prompts import hash64
from palate.data.split import Keys, seeded
from palate.records import (
    COMPARISON_SCHEMA,
    ROWS_PER_GROUP,
    comparison_from_row,
    has_values,
    read_header,
    read_rows,
    write_json,
    write_table,
)
from palate.types import Comparison, PalateError

__all__ = [
    "Mixture",
    "MixtureSpec",
    "Share",
    "estimate_tokens",
    "llama2_helpfulness",
    "llama2_safety",
    "mix",
]


# What a mixture asks for, and how many rows that is of the rows there are.

WHOLE, EQUAL = "all", "equal part"


@dataclass(frozen=True, slots=True)
class Part:
    """A group of pools with one share of the mixture; `whole` ones are taken to the last row."""

    group: str
    pools: tuple[str, ...]
    share: Fraction
    whole: bool


class Subset(BaseModel):
    """How much of a finished mixture is kept; with one seed, less is always a part of more."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fraction: float | None = Field(None, gt=0, le=1, description="Of the mixture's comparisons.")
    rows: int | None = Field(None, ge=1, description="Comparisons, at most what there are.")
    seed: int | None = Field(None, description="Which are kept; default: the mixture's seed.")

    @model_validator(mode="after")
    def _says_how_much(self) -> Subset:
        if (self.fraction is None) == (self.rows is None):
            raise ValueError("subset: give exactly one of fraction and rows")
        return self

    def size(self, total: int) -> int:
        """How many of `total` comparisons are kept, at least one.

        Raises:
            PalateError: more are asked for than there are.
        """
        if self.rows is None:
            return max(1, round((self.fraction or 1) * total))
        if self.rows > total:
            raise PalateError(
                f"mixture: a subset of {self.rows} comparisons was asked of {total}; "
                f"lower rows to {total} or add data"
            )
        return self.rows


class MixtureSpec(BaseModel):
    """A mixture in one of two forms.

    - `all` pools whole, and with `equal_part_from` as many rows again, uniform over the rows of
      those pools together.
    - `shares` of the mixture's rows by group (they sum to 1), uniform over the rows of a group's
      pools together; `groups` names a group's pools, and a group without an entry is the pool
      of that name. The size is that which takes the one group in `all` whole, or `rows`, or else
      as large as the smallest pool allows.

    `max_rows` caps pools by a uniform sample before anything else. `on_shortage` says what
    happens where a group has too few rows: `error`, or `shrink`. Shrinking keeps `all` whole and
    takes what the short group has, so the share achieved is smaller; without `all` it keeps the
    shares and makes the mixture smaller. `subset` keeps a uniform part of what all this gives.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    all: tuple[str, ...] = Field((), description="Pools that are taken whole.")
    equal_part_from: tuple[str, ...] = Field(
        (), description="Pools that give as many rows again, uniform over their rows together."
    )
    shares: Mapping[str, float] = Field(
        default_factory=dict, description="Share of the mixture's rows by group; they sum to 1."
    )
    groups: Mapping[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="Pools of a group; a group without an entry is the pool of that name.",
    )
    rows: int | None = Field(
        default=None, gt=0, description="Size, where shares alone do not fix it."
    )
    max_rows: Mapping[str, int] = Field(
        default_factory=dict, description="Cap of a pool by a uniform sample, before anything else."
    )
    on_shortage: Literal["error", "shrink"] = Field(
        "error", description="Where a group has too few rows: stop, or shrink."
    )
    subset: Subset | None = Field(None, description="A uniform part of what all this gives.")

    @model_validator(mode="after")
    def _is_one_form(self) -> MixtureSpec:
        if self.shares:
            if self.equal_part_from:
                raise ValueError("`equal_part_from` goes with `all` alone, not with `shares`")
            if any(not 0 < share <= 1 for share in self.shares.values()):
                raise ValueError("every share must be above 0 and at most 1")
            if abs(sum(self.shares.values()) - 1) > 1e-6:
                raise ValueError(f"shares sum to {sum(self.shares.values()):g}, they must sum to 1")
            if stray := sorted({*self.groups, *self.all} - set(self.shares)):
                raise ValueError(f"{stray[0]} has no share; add it to `shares`")
            if len(self.all) > 1:
                raise ValueError(
                    "with `shares` one group at most is taken whole: two fix two sizes"
                )
            if self.all and self.rows:
                raise ValueError("`rows` and `all` both fix the size; keep one")
        elif not self.all:
            raise ValueError(
                "a mixture needs `all` (pools taken whole) or `shares` (fractions by group)"
            )
        elif self.groups or self.rows:
            raise ValueError("`groups` and `rows` go with `shares`")
        pools = self.pools
        if twice := [pool for pool in pools if pools.count(pool) > 1]:
            raise ValueError(f"pool {twice[0]} is in two parts; name it once")
        if stray := sorted(set(self.max_rows) - set(pools)):
            raise ValueError(f"max_rows names {stray[0]}, which is no pool of this mixture")
        if low := [pool for pool, rows in self.max_rows.items() if rows < 1]:
            raise ValueError(f"max_rows of {low[0]} must be at least 1; leave the pool out instead")
        return self

    @property
    def pools(self) -> tuple[str, ...]:
        """Every pool the mixture draws on."""
        return tuple(pool for part in self.parts for pool in part.pools)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The groups with their shares, exact: a decimal share is taken as written."""
        if self.shares:
            exact = {g: Fraction(str(share)) for g, share in self.shares.items()}
            total = sum(exact.values())
            return tuple(
                Part(g, self.groups.get(g, (g,)), share / total, g in self.all)
                for g, share in exact.items()
            )
        if not self.equal_part_from:
            return (Part(WHOLE, self.all, Fraction(1), True),)
        half = Fraction(1, 2)
        return (
            Part(WHOLE, self.all, half, True),
            Part(EQUAL, self.equal_part_from, half, False),
        )


def llama2_helpfulness(
    helpfulness: Sequence[str], rest: Sequence[str], **options: object
) -> MixtureSpec:
    """All helpfulness data and an equal part of the rest, uniformly sampled.

    Source: Llama 2, section 3.2.2: "all Meta Helpfulness data, combined with an equal part of the
    remaining data uniformly sampled from Meta Safety and from the open-source datasets".
    """
    return MixtureSpec.model_validate(
        {"all": tuple(helpfulness), "equal_part_from": tuple(rest), **options}
    )


def llama2_safety(
    safety: Sequence[str],
    helpfulness: Sequence[str],
    *,
    helpfulness_share: float = 0.1,
    **options: object,
) -> MixtureSpec:
    """All safety data, mixed with helpfulness data in a 90/10 proportion.

    Source: Llama 2, section 3.2.2: "all Meta Safety and Anthropic Harmless data, mixed with Meta
    Helpfulness and open-source helpfulness data in a 90/10 proportion".
    """
    return MixtureSpec.model_validate(
        {
            "all": ("safety",),
            "groups": {"safety": tuple(safety), "helpfulness": tuple(helpfulness)},
            "shares": {"safety": 1 - helpfulness_share, "helpfulness": helpfulness_share},
            **options,
        }
    )


def rows_asked(spec: MixtureSpec, available: Sequence[int]) -> list[int]:
    """The number of rows each part asks for; `available` rows are there of each.

    With a whole part every other is within half a row of its share beside it. Otherwise the
    counts sum to the size and each is within one row of its share (largest remainders).
    """
    parts = spec.parts
    for number, part in enumerate(parts):
        if part.whole:
            unit = available[number] / part.share
            return [
                available[i] if p.whole else int(unit * p.share + Fraction(1, 2))
                for i, p in enumerate(parts)
            ]
    return _shared_out(spec.rows or _largest(parts, available), parts)


def rows_taken(spec: MixtureSpec, available: Sequence[int]) -> list[int]:
    """The number of rows each part gives: what is asked, or less by `on_shortage: shrink`.

    Raises:
        PalateError: a part has too few rows; the message says how many are missing.
    """
    asked = rows_asked(spec, available)
    for part, want, have in zip(spec.parts, asked, available, strict=True):
        if have == 0:
            raise PalateError(
                f"mixture: {part.group} has no rows (pools: {', '.join(part.pools)}); "
                "add data or take it out of the mixture"
            )
        if want > have and spec.on_shortage == "error":
            raise PalateError(_missing(spec, part, want, have, sum(asked) - want, available))
    if all(want <= have for want, have in zip(asked, available, strict=True)):
        return asked
    if any(part.whole for part in spec.parts):
        return [min(pair) for pair in zip(asked, available, strict=True)]
    return _shared_out(_largest(spec.parts, available), spec.parts)


def _missing(
    spec: MixtureSpec, part: Part, want: int, have: int, others: int, available: Sequence[int]
) -> str:
    if spec.rows:
        cure = f"lower rows to {_largest(spec.parts, available)}"
    elif spec.shares:
        cure = f"lower the share to {int(have / (have + others) * 1e4) / 1e4:g}"
    else:
        cure = "name more pools in equal_part_from"
    return (
        f"mixture: {part.group} at a share of {float(part.share):.4g} beside {others} other rows "
        f"needs {want} rows, its pools ({', '.join(part.pools)}) have {have}: {want - have} are "
        f"missing; add them, {cure}, or set on_shortage: shrink"
    )


def _largest(parts: Sequence[Part], available: Sequence[int]) -> int:
    """The largest size at which no part asks for more than there is."""
    return min(int(have / part.share) for part, have in zip(parts, available, strict=True))


def _shared_out(rows: int, parts: Sequence[Part]) -> list[int]:
    counts = [int(rows * part.share) for part in parts]
    left = [rows * part.share - count for part, count in zip(parts, counts, strict=True)]
    by_remainder = sorted(range(len(parts)), key=lambda i: (-left[i], i))
    for i in by_remainder[: rows - sum(counts)]:
        counts[i] += 1
    return counts


# Rows of several files in a chosen order, in bounded memory.

ROWS_PER_BUCKET = 16_384  # About 32 MB of HH text: the memory of one sort.
MAX_BUCKETS = 256  # Open files; past 4 M rows the buckets grow instead.
_PLACE = "__place"


def shuffled(
    files: Sequence[tuple[Path, npt.NDArray[np.int64]]],
    folder: Path,
    rows_per_bucket: int = ROWS_PER_BUCKET,
) -> Iterator[dict[str, Any]]:
    """Yield the chosen rows of Parquet files of one schema, ordered by place.

    `files` pairs each file with the place of each of its rows in the result, -1 to leave it out;
    places are 0 .. n-1, each once. Every file is read once, front to back; rows wait in temporary
    files in `folder`, which must have room for the result.

    Raises:
        PalateError: the temporary files cannot be written.
    """
    total = sum(int((places >= 0).sum()) for _, places in files)
    width = max(rows_per_bucket, -(-total // MAX_BUCKETS), 1)
    try:
        with TemporaryDirectory(prefix=".shuffle-", dir=folder) as scratch:
            buckets = [Path(scratch) / f"{i}.arrow" for i in range(-(-total // width))]
            _scatter(files, buckets, width)
            for bucket in buckets:
                with pa.ipc.open_file(str(bucket)) as reader:
                    table = reader.read_all().sort_by(_PLACE).drop_columns([_PLACE])
                for batch in table.to_batches(max_chunksize=1_024):
                    yield from batch.to_pylist()
                bucket.unlink()
    except OSError as error:
        reason = error.strerror or error
        raise PalateError(f"{folder}: rows cannot be shuffled there ({reason})") from error


def _scatter(
    files: Sequence[tuple[Path, npt.NDArray[np.int64]]], buckets: Sequence[Path], width: int
) -> None:
    """Copy each chosen row, with its place, to the bucket of `width` places it belongs to."""
    if not buckets:
        return
    with ExitStack() as stack:
        schema = pq.read_schema(files[0][0]).remove_metadata()
        schema = schema.append(pa.field(_PLACE, pa.int64()))
        writers = [stack.enter_context(pa.ipc.new_file(str(path), schema)) for path in buckets]
        for path, places in files:
            start = 0
            file = stack.enter_context(pq.ParquetFile(path, pre_buffer=False))
            for batch in file.iter_batches(ROWS_PER_GROUP * 4):
                part = places[start : start + len(batch)]
                start += len(batch)
                chosen = np.flatnonzero(part >= 0)
                chosen = chosen[np.argsort(part[chosen])]
                rows = batch.take(pa.array(chosen)).replace_schema_metadata(None)
                rows = rows.append_column(pa.field(_PLACE, pa.int64()), pa.array(part[chosen]))
                ends = np.searchsorted(part[chosen] // width, np.arange(len(buckets) + 1))
                for number in np.flatnonzero(np.diff(ends)).tolist():
                    first, last = int(ends[number]), int(ends[number + 1])
                    writers[number].write_batch(rows.slice(first, last - first))


# The mixture itself: which rows are drawn, in which order, and how it is written.

CountTokens = Callable[[Comparison], int]
Rows = npt.NDArray[np.int64]

IDS_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("pool", pa.string(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("tokens", pa.int64(), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True)
class Share:
    """A line of the table of shares: a pool of a group, or (`pool` "") the group as a whole.

    `share_asked` and `rows_asked` belong to groups: within one, rows are uniform.
    """

    group: str
    pool: str
    available: int
    rows_asked: int | None
    rows: int
    share_asked: float | None
    share_rows: float
    tokens: int
    share_tokens: float


@dataclass(frozen=True, slots=True)
class Mixture:
    """A mixture on disk: the comparisons in training order, their ids, the table of shares."""

    path: Path
    ids: Path
    fingerprint: str
    rows: int
    tokens_estimated: bool
    shares: Sequence[Share]

    def table(self) -> list[dict[str, Any]]:
        """Shares asked and achieved, in rows and tokens: a line for each group and its pools."""
        return [asdict(share) for share in self.shares]


def estimate_tokens(comparison: Comparison) -> int:
    """About how many tokens a comparison has, prompt once: characters / 4, an assumption."""
    prompt = sum(len(turn.content) for turn in comparison.prompt)
    return (prompt + len(comparison.chosen) + len(comparison.rejected)) // 4


def mix(
    spec: MixtureSpec,
    pools: Mapping[str, Path],
    out: Path,
    seed: int,
    count_tokens: CountTokens = estimate_tokens,
) -> Mixture:
    """Write the mixture of `pools` to `out`, and beside it `*.ids.parquet` and `*.shares.json`.

    Equal rows, spec and seed give the same file whatever the order of rows and pools.

    Raises:
        PalateError: a pool is missing or empty, a share is impossible, or a comparison is in
            the pools twice.
    """
    for name in spec.pools:
        if name not in pools:
            known = ", ".join(sorted(pools)) or "none"
            raise PalateError(f"mixture: no pool named {name}; the pools are: {known}")
    names = sorted(spec.pools)  # So that neither the spec's nor the mapping's order matters.
    inputs = {name: read_header(pools[name], "comparisons").fingerprint for name in names}
    keys_by_pool, units_by_pool = zip(*(_keys(pools[name]) for name in names), strict=True)
    starts = np.cumsum([0, *map(len, keys_by_pool)])
    keys = np.concatenate(keys_by_pool)  # [N], as everything below: the pools one after another.
    units = np.concatenate(units_by_pool)
    _forbid_duplicates(keys, starts, [f"{name} ({pools[name]}" for name in names])

    capped = {
        name: _sample(np.arange(start, end), units, spec.max_rows.get(name, len(keys)), "cap", seed)
        for name, start, end in zip(names, starts, starts[1:], strict=False)
    }
    candidates = [np.concatenate([capped[pool] for pool in part.pools]) for part in spec.parts]
    available = [len(rows) for rows in candidates]
    asked, taken = rows_asked(spec, available), rows_taken(spec, available)
    chosen = np.concatenate(
        [
            _sample(rows, units, count, "sample", seed)
            for rows, count in zip(candidates, taken, strict=True)
        ]
    )
    if spec.subset is not None:
        # Of smallest hash of all chosen, so that a smaller subset is part of a larger one.
        count = spec.subset.size(len(chosen))
        asked = [round(rows * count / len(chosen)) for rows in asked]
        subset_seed = seed if spec.subset.seed is None else spec.subset.seed
        chosen = _sample(chosen, units, count, "subset", subset_seed)

    order = chosen[np.argsort(seeded(keys[chosen], "order", seed), kind="stable")]
    places = np.full(len(keys), -1, np.int64)
    places[order] = np.arange(len(order))
    pool_at = np.searchsorted(starts, order, side="right") - 1  # [place] the number of its pool.
    tokens = np.zeros(len(order), np.int64)

    def rows() -> Iterator[dict[str, Any]]:
        files = [
            (pools[n], part) for n, part in zip(names, np.split(places, starts[1:-1]), strict=True)
        ]
        for place, row in enumerate(shuffled(files, out.parent)):
            tokens[place] = count_tokens(comparison_from_row(row))
            yield row

    def details() -> dict[str, Any]:
        counts = {
            name: (len(capped[name]), int((pool_at == i).sum()), int(tokens[pool_at == i].sum()))
            for i, name in enumerate(names)
        }
        return {
            "mixture": spec.model_dump(mode="json"),
            "seed": seed,
            "tokens_estimated": count_tokens is estimate_tokens,
            "shares": [asdict(share) for share in _shares(spec.parts, asked, counts)],
        }

    out.parent.mkdir(parents=True, exist_ok=True)
    header = write_table(
        out, rows(), COMPARISON_SCHEMA, kind="comparisons", inputs=inputs, details=details
    )
    group_of = {pool: part.group for part in spec.parts for pool in part.pools}
    ids = (
        {"id": row["id"], "pool": names[pool], "group": group_of[names[pool]], "tokens": count}
        for row, pool, count in zip(
            read_rows(out, ["id"]), pool_at.tolist(), tokens.tolist(), strict=True
        )
    )
    ids_path = out.with_suffix(".ids.parquet")
    write_table(
        ids_path, ids, IDS_SCHEMA, kind="mixture ids", inputs={out.stem: header.fingerprint}
    )
    write_json(out.with_suffix(".shares.json"), header.details)
    shares = [Share(**share) for share in header.details["shares"]]
    estimated = header.details["tokens_estimated"]
    return Mixture(out, ids_path, header.fingerprint, header.rows, estimated, shares)


def _keys(path: Path) -> tuple[Keys, Keys]:
    """A key for each comparison's id, [N], and what is taken whole: that, or its ranking's key."""
    ids, units = array("Q"), array("Q")
    ranked = ["ranks", "source", "prompt_id"] if has_values(path, "ranks") else []
    for row in read_rows(path, ["id", *ranked]):
        ids.append(hash64("id", row["id"]))
        ranks = row.get("ranks")
        if ranks is None:
            units.append(ids[-1])
        else:
            units.append(hash64("ranking", row["source"], row["prompt_id"], ranks["ranking"]))
    return np.array(ids, np.uint64), np.array(units, np.uint64)


def _sample(rows: Rows, units: Keys, count: int, purpose: str, seed: int) -> Rows:
    """A uniform sample without replacement: the `count` rows whose units have the smallest hash.

    Fewer where the last unit would exceed them: a smaller sample is part of a larger one.

    Raises:
        PalateError: the first unit, a ranking, has more rows than that.
    """
    if count >= len(rows):
        return rows
    hashes = seeded(units[rows], purpose, seed)
    order = np.argpartition(hashes, count)
    first_out = hashes[order[count]]
    sample = rows[order[:count][hashes[order[:count]] < first_out]]
    if count and not len(sample):
        size = int((hashes == first_out).sum())
        raise PalateError(
            f"mixture: {count} rows were asked of pools with rankings of {size} comparisons, which "
            f"stay whole; ask for {size} or more"
        )
    return sample


def _forbid_duplicates(keys: Keys, starts: Rows, pools: Sequence[str]) -> None:
    order = np.argsort(keys, kind="stable")
    twice = np.flatnonzero(keys[order][1:] == keys[order][:-1])
    if not len(twice):
        return
    places = []
    for row in order[twice[0] : twice[0] + 2].tolist():
        pool = int(np.searchsorted(starts, row, side="right")) - 1
        places.append(f"{pools[pool]}:{row - int(starts[pool]) + 1})")
    raise PalateError(
        f"mixture: {len(twice)} comparisons are in the pools twice, first {' and '.join(places)}; "
        "keep each in one pool, or run lint on them together"
    )


def _shares(
    parts: Sequence[Part], asked: Sequence[int], counts: Mapping[str, tuple[int, int, int]]
) -> Iterator[Share]:
    """The lines of each group and its pools; `counts` of a pool: available, rows, tokens."""
    all_rows, all_tokens = (max(sum(count[i] for count in counts.values()), 1) for i in (1, 2))

    def line(
        group: str, pool: str, of: Sequence[str], asked: int | None, share: float | None
    ) -> Share:
        available, rows, tokens = map(sum, zip(*(counts[pool] for pool in of), strict=True))
        return Share(
            group, pool, available, asked, rows, share, rows / all_rows, tokens, tokens / all_tokens
        )

    for part, rows in zip(parts, asked, strict=True):
        yield line(part.group, "", part.pools, rows, float(part.share))
        for pool in part.pools:
            yield line(part.group, pool, [pool], None, None)
