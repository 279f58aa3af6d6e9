"""Mixtures: which comparisons a reward model is trained on, in shares asked and achieved.

Sampling is without replacement and by seeded hash of the comparison's id: the k rows of smallest
hash are a uniform sample, whatever the order of rows, files and pools. Four independent hashes
serve caps, samples, subsets and the final order; ids are stored.

Two passes keep memory flat. The first reads ids and keeps 8 bytes of hash a row. The second copies
the chosen rows into temporary buckets by their place in the order, then sorts one bucket at a time.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from palate.data.groups import Keys, seeded
from palate.data.prompts import hash64
from palate.data.shares import (
    MixtureSpec,
    Subset,
    llama2_helpfulness,
    llama2_safety,
    rows_asked,
    rows_taken,
)
from palate.data.shuffle import shuffled
from palate.records import (
    COMPARISON_SCHEMA,
    comparison_from_row,
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
    names = _checked(spec, pools)
    headers = [read_header(pools[name], "comparisons") for name in names]
    keys = [_id_keys(pools[name]) for name in names]
    _forbid_twins(names, [pools[name] for name in names], keys)
    draw = _draw(spec, names, keys, seed)
    if spec.subset is not None:
        draw = _reduced(draw, spec.subset, keys, seed)
    order, pool_of = _order(keys, draw.chosen, seed)
    tokens = np.zeros(len(pool_of), np.int64)

    def counted() -> Iterator[dict[str, Any]]:
        files = [(pools[name], places) for name, places in zip(names, order, strict=True)]
        for place, row in enumerate(shuffled(files, out.parent)):
            tokens[place] = count_tokens(comparison_from_row(row))
            yield row

    def details() -> dict[str, Any]:
        return {
            "mixture": spec.model_dump(mode="json"),
            "seed": seed,
            "tokens_estimated": count_tokens is estimate_tokens,
            "shares": [asdict(s) for s in _shares(spec, names, draw, pool_of, tokens)],
        }

    out.parent.mkdir(parents=True, exist_ok=True)
    inputs = {name: header.fingerprint for name, header in zip(names, headers, strict=True)}
    header = write_table(
        out, counted(), COMPARISON_SCHEMA, kind="comparisons", inputs=inputs, details=details
    )
    ids = out.with_suffix(".ids.parquet")
    rows = _id_rows(out, spec, [names[i] for i in pool_of.tolist()], tokens)
    write_table(ids, rows, IDS_SCHEMA, kind="mixture ids", inputs={out.stem: header.fingerprint})
    write_json(out.with_suffix(".shares.json"), header.details)
    shares = _shares(spec, names, draw, pool_of, tokens)
    estimated = count_tokens is estimate_tokens
    return Mixture(out, ids, header.fingerprint, header.rows, estimated, shares)


@dataclass(frozen=True, slots=True)
class _Draw:
    """Rows chosen of each pool, rows available of each pool, rows asked of each part."""

    chosen: list[Rows]
    available: list[int]
    asked: list[int]


def _checked(spec: MixtureSpec, pools: Mapping[str, Path]) -> list[str]:
    """The spec's pools by name, so that neither spec's nor mapping's order matters."""
    for name in spec.pools:
        if name not in pools:
            known = ", ".join(sorted(pools)) or "none"
            raise PalateError(f"mixture: no pool named {name}; the pools are: {known}")
    return sorted(spec.pools)


def _id_keys(path: Path) -> Keys:
    keys = array("Q", (hash64("id", row["id"]) for row in read_rows(path, ["id"])))
    return np.array(keys, np.uint64)


def _forbid_twins(names: Sequence[str], paths: Sequence[Path], keys: Sequence[Keys]) -> None:
    flat = np.concatenate(keys)
    order = np.argsort(flat, kind="stable")
    twins = np.flatnonzero(flat[order][1:] == flat[order][:-1])
    if not len(twins):
        return
    ends = np.cumsum([len(k) for k in keys])
    places = []
    for row in (int(order[twins[0]]), int(order[twins[0] + 1])):
        pool = int(np.searchsorted(ends, row, side="right"))
        places.append(
            f"{names[pool]} ({paths[pool]}:{row - int(ends[pool]) + len(keys[pool]) + 1})"
        )
    raise PalateError(
        f"mixture: {len(twins)} comparisons are in the pools twice, first {' and '.join(places)}; "
        "keep each in one pool, or run lint on them together"
    )


def _draw(spec: MixtureSpec, names: Sequence[str], keys: Sequence[Keys], seed: int) -> _Draw:
    capped = [
        _smallest(seeded(k, "cap", seed), spec.max_rows.get(name, len(k)))
        for name, k in zip(names, keys, strict=True)
    ]
    available = [len(rows) for rows in capped]
    members = [[names.index(pool) for pool in part.pools] for part in spec.parts]
    by_part = [sum(available[i] for i in pools) for pools in members]
    asked, taken = rows_asked(spec, by_part), rows_taken(spec, by_part)
    chosen: list[Rows] = [np.empty(0, np.int64)] * len(names)
    for pools, rows in zip(members, taken, strict=True):
        ranks = np.concatenate([seeded(keys[i][capped[i]], "sample", seed) for i in pools])
        owner = np.repeat(pools, [available[i] for i in pools])
        row = np.concatenate([capped[i] for i in pools])
        sample = _smallest(ranks, rows)
        for i in pools:
            chosen[i] = row[sample[owner[sample] == i]]
    return _Draw(chosen, available, asked)


def _reduced(draw: _Draw, subset: Subset, keys: Sequence[Keys], seed: int) -> _Draw:
    """The rows of smallest hash of all chosen, so that a smaller subset is part of a larger one."""
    sizes = [len(rows) for rows in draw.chosen]
    count, seed = subset.size(sum(sizes)), seed if subset.seed is None else subset.seed
    hashes = [seeded(k[rows], "subset", seed) for k, rows in zip(keys, draw.chosen, strict=True)]
    kept = np.zeros(sum(sizes), np.bool_)
    kept[_smallest(np.concatenate(hashes), count)] = True
    parts = np.split(kept, np.cumsum(sizes)[:-1])
    return _Draw(
        [rows[part] for rows, part in zip(draw.chosen, parts, strict=True)],
        draw.available,
        [round(asked * count / sum(sizes)) for asked in draw.asked],
    )


def _smallest(ranks: Keys, count: int) -> Rows:
    """The positions of the `count` smallest ranks: a uniform sample without replacement."""
    if count >= len(ranks):
        return np.arange(len(ranks))
    return np.argpartition(ranks, count)[:count]


def _order(
    keys: Sequence[Keys], chosen: Sequence[Rows], seed: int
) -> tuple[list[Rows], npt.NDArray[np.int32]]:
    """Each pool's rows' places in the mixture (-1: not in it), and the pool at each place."""
    ranks = [seeded(k[rows], "order", seed) for k, rows in zip(keys, chosen, strict=True)]
    sizes = [len(rows) for rows in chosen]
    order = np.argsort(np.concatenate(ranks), kind="stable")
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    pool_of = np.repeat(np.arange(len(keys), dtype=np.int32), sizes)[order]
    places = [np.full(len(k), -1, np.int64) for k in keys]
    for mine, rows, part in zip(
        places, chosen, np.split(place, np.cumsum(sizes)[:-1]), strict=True
    ):
        mine[rows] = part
    return places, pool_of


def _shares(
    spec: MixtureSpec,
    names: Sequence[str],
    draw: _Draw,
    pool_of: npt.NDArray[np.int32],
    tokens: Rows,
) -> list[Share]:
    rows = np.bincount(pool_of, minlength=len(names)).tolist()
    token = [int(tokens[pool_of == i].sum()) for i in range(len(names))]
    all_rows, all_tokens = max(sum(rows), 1), max(sum(token), 1)

    def line(group: str, pool: str, of: list[int], asked: int | None, share: float | None) -> Share:
        r, t, have = (sum(x[i] for i in of) for x in (rows, token, draw.available))
        return Share(group, pool, have, asked, r, share, r / all_rows, t, t / all_tokens)

    lines = []
    for part, asked in zip(spec.parts, draw.asked, strict=True):
        members = [names.index(pool) for pool in part.pools]
        lines.append(line(part.group, "", members, asked, float(part.share)))
        lines.extend(line(part.group, names[i], [i], None, None) for i in members)
    return lines


def _id_rows(
    path: Path, spec: MixtureSpec, pool_at: Sequence[str], tokens: Rows
) -> Iterator[dict[str, Any]]:
    group_of = {pool: part.group for part in spec.parts for pool in part.pools}
    ids = (row["id"] for row in read_rows(path, ["id"]))
    for id_, pool, count in zip(ids, pool_at, tokens.tolist(), strict=True):
        yield {"id": id_, "pool": pool, "group": group_of[pool], "tokens": count}
