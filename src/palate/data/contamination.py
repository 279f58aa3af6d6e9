"""Contamination: training comparisons whose prompt is in a benchmark, found and excluded.

Three signs, each enough:

- `exact`: the openings are equal after normalisation (`palate.data.prompts`), any length;
- `contains`: the prompt holds at least `containment` of a benchmark prompt's word n-grams;
- `near`: the Jaccard similarity of the two sets of n-grams is at least `jaccard`.

Near ones are proposed by MinHash LSH (datasketch) and verified on the sets themselves. A prompt
of fewer than `min_words` words is compared exactly only: its few n-grams are everybody's.

Memory is the benchmarks', not the training data's. A training prompt costs one vectorised look-up
of its n-grams in the benchmarks' n-grams; MinHash runs only where enough of them are known. That
loses nothing: |A and B| / |A or B| >= j implies that A shares at least j |A| n-grams with B.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from datasketch import MinHash, MinHashLSH

from palate.data.prompts import hash64, normalise, prompt_key, words
from palate.data.transcript import as_turns
from palate.records import (
    COMPARISON_SCHEMA,
    Header,
    PackedRows,
    PackedRun,
    comparison_to_row,
    count_groups,
    read_comparisons,
    read_header,
    write_packed,
    write_table,
)
from palate.types import BenchmarkItem, Comparison, Message, in_words
from palate.workers import in_order, workers_for

OverlapKind = Literal["exact", "contains", "near"]
Grams = npt.NDArray[np.uint64]

OVERLAP_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("benchmark", pa.string(), nullable=False),
        pa.field("benchmark_id", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("similarity", pa.float64(), nullable=False),
    ]
)
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_UNKNOWN = 0  # The code of words in no benchmark; an n-gram with one in it matches nothing.
_MINHASH_SEED = 1


@dataclass(frozen=True, slots=True)
class OverlapOptions:
    """What counts as overlap. The thresholds are common choices, not measured ones."""

    ngram_words: int = 5
    min_words: int = 10
    containment: float = 0.8
    jaccard: float = 0.6
    permutations: int = 128


@dataclass(frozen=True, slots=True)
class Overlap:
    """One benchmark prompt that a training prompt overlaps with; similarity in [0, 1]."""

    benchmark: str
    benchmark_id: str
    kind: OverlapKind
    similarity: float


@dataclass(frozen=True, slots=True)
class _Entry:
    """A distinct benchmark prompt; `grams` is sorted, distinct, and empty for short prompts."""

    benchmark: str
    id: str
    grams: Grams


class BenchmarkIndex:
    """The prompts of all benchmarks, searchable by a training comparison's prompt."""

    def __init__(self, options: OverlapOptions) -> None:
        self.options = options
        self.benchmarks: list[str] = []
        self._exact: dict[int, list[tuple[str, str]]] = defaultdict(list)
        self._entries: list[_Entry] = []
        self._codes: dict[str, int] = {}
        self._grams: Grams = np.empty(0, np.uint64)
        self._starts: npt.NDArray[np.int64] = np.zeros(1, np.int64)
        self._posting: npt.NDArray[np.int64] = np.empty(0, np.int64)
        self._sizes: npt.NDArray[np.int64] = np.empty(0, np.int64)
        self._minhash = MinHash(options.permutations, _MINHASH_SEED, hashfunc=int)
        self._lsh = MinHashLSH(options.jaccard, options.permutations)

    @classmethod
    def build(
        cls,
        benchmarks: Mapping[str, Iterable[Comparison | BenchmarkItem]],
        options: OverlapOptions | None = None,
    ) -> BenchmarkIndex:
        """Index every benchmark's prompts; one id stands for each distinct prompt."""
        index = cls(options or OverlapOptions())
        for name, rows in benchmarks.items():
            index._add(name, rows)
        if not index._entries:
            return index
        # Sorted n-grams, each with a posting list of the entries that have it.
        flat = np.concatenate([entry.grams for entry in index._entries])
        index._sizes = np.array([len(entry.grams) for entry in index._entries])
        owner = np.repeat(np.arange(len(index._entries)), index._sizes)
        order = np.argsort(flat, kind="stable")
        index._posting = owner[order]
        index._grams, starts = np.unique(flat[order], return_index=True)
        index._starts = np.append(starts, len(flat))
        for number, entry in enumerate(index._entries):
            index._lsh.insert(number, index._signature(entry.grams))
        return index

    def find(self, comparison: Comparison) -> list[Overlap]:
        """The benchmark prompts this one overlaps with, each once, the strongest sign first."""
        exact = self._exact.get(prompt_key(comparison.prompt), [])
        overlaps = {prompt: Overlap(*prompt, "exact", 1.0) for prompt in exact}
        for overlap in self._similar(_words(comparison.prompt)):
            overlaps.setdefault((overlap.benchmark, overlap.benchmark_id), overlap)
        return list(overlaps.values())

    def _add(self, name: str, rows: Iterable[Comparison | BenchmarkItem]) -> None:
        self.benchmarks.append(name)
        openings, prompts = set[int](), set[int]()
        for row in rows:
            key, words = prompt_key(row.prompt), _words(row.prompt)
            if key not in openings:
                self._exact[key].append((name, row.id))
                openings.add(key)
            prompt = hash64(*words)
            if prompt not in prompts and len(words) >= self.options.min_words:
                codes = [self._codes.setdefault(word, hash64(word)) for word in words]
                self._entries.append(_Entry(name, row.id, np.unique(self._hash_grams(codes))))
            prompts.add(prompt)

    def _similar(self, words: list[str]) -> Iterator[Overlap]:
        if len(words) < self.options.min_words or not len(self._grams):
            return
        codes = [self._codes.get(word, _UNKNOWN) for word in words]
        grams = self._hash_grams(codes)
        places = np.minimum(np.searchsorted(self._grams, grams), len(self._grams) - 1)
        hits = places[self._grams[places] == grams]
        if not len(hits):
            return
        known = np.unique(hits)
        yield from self._containing(known)
        # N-grams of unknown words coincide here, which only lets more through to the next test.
        if len(known) >= self.options.jaccard * len(np.unique(grams)):
            yield from self._near(words)

    def _containing(self, known: npt.NDArray[np.int64]) -> Iterator[Overlap]:
        """The entries with at least `containment` of their n-grams among the known ones."""
        if len(known) < self.options.containment * self._sizes.min():
            return
        starts, ends = self._starts[known], self._starts[known + 1]
        counts = ends - starts
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        owners = self._posting[np.repeat(starts, counts) + within]
        entries, shared = np.unique(owners, return_counts=True)
        shares = shared / self._sizes[entries]
        for place in np.flatnonzero(shares >= self.options.containment).tolist():
            entry = self._entries[int(entries[place])]
            yield Overlap(entry.benchmark, entry.id, "contains", float(shares[place]))

    def _near(self, words: list[str]) -> Iterator[Overlap]:
        grams = np.unique(self._hash_grams([self._codes.get(w) or hash64(w) for w in words]))
        for number in sorted(self._lsh.query(self._signature(grams))):
            entry = self._entries[number]
            shared = len(np.intersect1d(entry.grams, grams, assume_unique=True))
            similarity = shared / (len(entry.grams) + len(grams) - shared)
            if similarity >= self.options.jaccard:
                yield Overlap(entry.benchmark, entry.id, "near", similarity)

    def _hash_grams(self, codes: Sequence[int]) -> Grams:
        """[words] codes -> [words - n + 1] hashes of their n-grams (polynomial, modulo 2^64)."""
        code = np.array(codes, np.uint64)
        n = self.options.ngram_words
        total = np.zeros(max(len(code) - n + 1, 0), np.uint64)
        for offset in range(n):
            total = total * _MULTIPLIER + code[offset : offset + len(total)]
        return total

    def _signature(self, grams: Grams) -> MinHash:
        signature = self._minhash.copy()
        # The high half: a polynomial's low bits mix least.
        signature.update_batch((grams >> np.uint64(32)).tolist())
        return signature


def _words(prompt: Sequence[Message]) -> list[str]:
    turns = (turn for turn in as_turns(tuple(prompt)) if turn.role not in ("system", "tools"))
    return [word for turn in turns for word in words(normalise(in_words(turn.content)))]


@dataclass(slots=True)
class OverlapReport:
    """What overlapped: rows read by source, and every (row, benchmark prompt) found."""

    rows: Counter[str] = field(default_factory=Counter[str])
    excluded: Counter[str] = field(default_factory=Counter[str])
    kept: bool = False
    overlaps: list[tuple[str, str, Overlap]] = field(default_factory=list[tuple[str, str, Overlap]])
    benchmarks: list[str] = field(default_factory=list[str])

    def add(self, id_: str, source: str, overlaps: Sequence[Overlap]) -> bool:
        """Count a row and what it overlaps with; whether it stays."""
        self.rows[source] += 1
        self.overlaps.extend((id_, source, overlap) for overlap in overlaps)
        if overlaps and not self.kept:
            self.excluded[source] += 1
            return False
        return True

    def table(self, examples: int = 3) -> list[dict[str, Any]]:
        """One row for each benchmark and source: overlapping rows by their strongest sign.

        `examples` pairs of (training id, benchmark id) stand beside; benchmarks without
        overlap have a row too, so that zero is something that was looked for.
        """
        signs: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
        pairs: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
        for row_id, source, overlap in self.overlaps:
            place = (overlap.benchmark, source)
            pairs[place].append((row_id, overlap.benchmark_id))
            signs[place].setdefault(row_id, overlap.kind)  # `find` gives the strongest first.
        lines = []
        for benchmark in self.benchmarks:
            for source in sorted(self.rows):
                place = (benchmark, source)
                counts = Counter(signs[place].values())
                lines.append(
                    {
                        "benchmark": benchmark,
                        "source": source,
                        "rows": self.rows[source],
                        "overlapping": len(signs[place]),
                        "exact": counts["exact"],
                        "contains": counts["contains"],
                        "near": counts["near"],
                        "benchmark_prompts": len({prompt for _, prompt in pairs[place]}),
                        "examples": [list(pair) for pair in pairs[place][:examples]],
                    }
                )
        return lines

    def to_json(self) -> dict[str, Any]:
        """Counts and examples as JSON values."""
        return {
            "rows": dict(sorted(self.rows.items())),
            "excluded": dict(sorted(self.excluded.items())),
            "overlap_kept": self.kept,
            "overlaps": self.table(),
        }

    def write(self, path: Path) -> Header:
        """Write every overlap to Parquet, with the counts in its head."""
        rows = (
            {"id": row_id, "source": source, **asdict(overlap)}
            for row_id, source, overlap in self.overlaps
        )
        return write_table(path, rows, OVERLAP_SCHEMA, kind="overlap", details=self.to_json())


def exclude_overlap(
    comparisons: Iterable[Comparison],
    index: BenchmarkIndex,
    report: OverlapReport,
    *,
    keep: bool = False,
) -> Iterator[Comparison]:
    """Yield the comparisons that overlap no benchmark, in order; report the others.

    `keep` yields them all and only reports: figures on those benchmarks are then contaminated.
    """
    report.benchmarks, report.kept = list(index.benchmarks), keep
    for comparison in comparisons:
        if report.add(comparison.id, comparison.source, index.find(comparison)):
            yield comparison


def exclude_overlap_of(
    path: Path,
    out: Path,
    index: BenchmarkIndex,
    report: OverlapReport,
    *,
    keep: bool = False,
    workers: int | None = None,
) -> Header:
    """`exclude_overlap` of a file of comparisons, to a file, which does not depend on `workers`.

    Each worker holds the index, and one row group of the file at a time. None: one for each core,
    as far as the rows pay for it.
    """
    header = read_header(path, "comparisons")
    report.benchmarks, report.kept = list(index.benchmarks), keep
    workers = workers or workers_for(header.rows, ROWS_PER_WORKER)
    parts = in_order(
        partial(_find_in_group, path, index), range(count_groups(path)), workers,
        name="process that finds overlaps", cure="nothing was written",
    )  # fmt: skip

    def runs() -> Generator[PackedRun]:
        for part in parts:
            kept = [report.add(*row) for row in part.rows]
            yield from part.packed.runs(kept, COMPARISON_SCHEMA)

    inputs = {"train": header.fingerprint}
    with closing(parts):
        return write_packed(out, runs(), COMPARISON_SCHEMA, kind="comparisons", inputs=inputs)


# As of lint: a process starts in the time that some 15,000 rows take.
ROWS_PER_WORKER = 32_768


@dataclass(frozen=True, slots=True)
class _Group:
    """A row group: of each row its id, source and overlaps; and the rows as they are written."""

    rows: list[tuple[str, str, list[Overlap]]]
    packed: PackedRows


def _find_in_group(path: Path, index: BenchmarkIndex, number: int) -> _Group:
    comparisons = list(read_comparisons(path, groups=[number]))
    found = [(c.id, c.source, index.find(c)) for c in comparisons]
    rows = [comparison_to_row(comparison) for comparison in comparisons]
    return _Group(found, PackedRows.of(rows, COMPARISON_SCHEMA))
