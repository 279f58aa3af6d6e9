"""Verdicts of one judge on one benchmark as columns, one row an item."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from palate import stats
from palate.data.benchmarks.base import Answers
from palate.records import VERDICT_SCHEMA, read_columns, read_header, verdict_to_row
from palate.renamed import renamed
from palate.stats import TIE_VALUE, Estimate
from palate.types import PREFERRED, Bin, Judgement, Outcome, PalateError, Rating, Verdict, digest

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
Flags = NDArray[np.bool_]
T = TypeVar("T", "Orders", "JudgeResults")

VALUES = {
    Outcome.CORRECT.value: 1.0,
    Outcome.WRONG.value: 0.0,
    Outcome.TIE.value: TIE_VALUE,
    Outcome.UNSCORED.value: np.nan,
    Outcome.UNDECIDED.value: np.nan,  # Its answer is in a column of its own.
}
PREFERRED_VALUES = {"chosen": 1.0, "rejected": 0.0, "tie": TIE_VALUE}
BINS = tuple(Bin)
SUREST = 1 - 1e-12
COLUMNS = [name for name in VERDICT_SCHEMA.names if name not in ("answer", "seconds")]
_RATINGS: dict[str, float] = {rating.label: int(rating) for rating in Rating}
_BINS: dict[str, float] = {bin.value: code for code, bin in enumerate(BINS)}


@dataclass(frozen=True, slots=True)
class Terms:
    """How a benchmark was put to a judge; "" is not known.

    `data` is the fingerprint of the benchmark's comparisons, `order` whether each item was shown
    in one seeded order (`seeded`) or in both.
    """

    order: str
    data: str = ""
    seed: str = ""
    tie_rule: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Orders:
    """A judge's answers in each order of the sides; every array but the last is [N, 2].

    Column 0 is the seeded order, column 1 its reverse: NaN (or False) where it was not asked.
    `values` and scores are as in `JudgeResults`. `chosen_first` [N] is whether the chosen response
    stood first in the seeded order.
    """

    values: Floats
    chosen_scores: Floats
    rejected_scores: Floats
    truncated: Flags
    chosen_first: Flags

    @property
    def preference_margins(self) -> Floats:
        """P(chosen) - P(rejected) = 2 P(chosen) - 1, from -1 to 1, [N, 2]; NaN without scores.

        Two scores that add up to 1 are the shares of the two sides. Others are logits:
        P = sigmoid(chosen - rejected), so that the margin is tanh of half the difference.
        """
        with np.errstate(over="ignore"):  # An infinite difference is a margin of 1.
            difference = self.chosen_scores - self.rejected_scores
            shares = np.abs(self.chosen_scores + self.rejected_scores - 1) < 1e-6
        return np.where(shares, difference, np.tanh(difference / 2))

    @property
    def log_odds(self) -> Floats:
        """The log-odds of the chosen response, [N]; sigmoid of it is P(chosen), NaN without scores.

        Of scalar scores chosen - rejected; of shares their log ratio; of both orders those of the
        mean P(chosen).
        """
        margins = self.preference_margins
        if not np.isnan(margins[:, 1]).all():
            return _log_odds(margins.mean(axis=1))
        difference = (self.chosen_scores - self.rejected_scores)[:, 0]
        shares = np.abs((self.chosen_scores + self.rejected_scores)[:, 0] - 1) < 1e-6
        return np.where(shares, _log_odds(margins[:, 0]), difference)

    def read_both(self) -> Floats:
        """The value of each item over both orders, [N].

        Where both have scores, P(chosen) is averaged: above one half is correct, below wrong,
        exactly one half a tie. Otherwise the mean of the values that are scored.
        """
        margin = self.preference_margins.sum(axis=1)
        decided = np.where(margin == 0, TIE_VALUE, (margin > 0).astype(np.float64))
        scored = ~np.isnan(margin) & ~np.isnan(self.values).any(axis=1)
        return np.where(scored, decided, _mean_of_scored(self.values))


@dataclass(frozen=True, slots=True, eq=False)
class Judgements:
    """What annotators said of all M items of a benchmark, and the judge's answer to each.

    `amounts` [M, 3] are votes or shares for the chosen response, a tie (both bad is one) and the
    rejected one, `weights` [M] how much each item counts, `clusters` [M] as in `JudgeResults`.
    `orders` are the answers in `both` orders of the sides or in one, value 1 where the chosen
    response is preferred.
    """

    amounts: Floats
    weights: Floats
    clusters: Codes
    orders: Orders
    both: bool

    @property
    def shares(self) -> Floats:
        """The amounts as shares of their sum, [M, 3]."""
        return self.amounts / self.amounts.sum(axis=1, keepdims=True)

    @property
    def decided(self) -> Flags:
        """Whether the chosen response has the largest share, alone; an item is else a tie, [M]."""
        return self.amounts[:, 0] > self.amounts[:, 1:].max(axis=1, initial=0)

    @property
    def answers(self) -> Floats:
        """The judge's answer, [M]: 1 chosen, 0 rejected, 0.5 tie, NaN unscored."""
        return self.orders.read_both() if self.both else self.orders.values[:, 0]

    @property
    def log_odds(self) -> Floats:
        """The judge's log-odds of the chosen response, [M]; NaN without scores."""
        return self.orders.log_odds


@dataclass(frozen=True, slots=True, eq=False)
class RatedResponses:
    """What a judge's head said of n responses, and what people rated; each response once.

    All arrays are [n]; `clusters` as in `JudgeResults`.
    """

    predicted: Floats
    rated: Floats
    clusters: Codes


@dataclass(frozen=True, slots=True, eq=False)
class JudgeResults:
    """What one judge made of one benchmark; every array is [N], one entry an item that the
    annotators decided.

    `values` is 1 correct, 0 wrong, 0.5 tie, NaN unscored. An item judged in both orders is one
    entry (`Orders.read_both`; its scores are means); `orders` keeps the answers in each.
    `clusters` numbers prompts, `ratings` is 0 where there is none, `bins` indexes `BINS` and is
    -1 where there is none. Lengths are characters, NaN where they are not known; `spreads` how far
    the members of an ensemble are apart on the difference of the scores, NaN of other judges.
    `items` is a digest of all items' ids: two judges with unequal digests were not asked the same
    questions. `judgements` has the items that the annotators left undecided too, and what they said
    of all; None where each item has one plain preference. `attributes` are of the responses of all
    items, by name, where people rated what the judge has a head for. `sources` are the parts of the
    benchmark. Of items of K `values` are `Verdict.value`, `chance` is what random scores reach,
    `responses` is K, and the two scores and lengths are those that the verdict has for its sides.
    """

    judge: str
    benchmark: str
    protocol: str
    terms: Terms
    items: str
    ids: NDArray[Any]
    values: Floats
    clusters: Codes
    ratings: Codes
    bins: Codes
    reasons: NDArray[Any]
    truncated: Flags
    chosen_scores: Floats
    rejected_scores: Floats
    chosen_lengths: Floats
    rejected_lengths: Floats
    spreads: Floats
    orders: Orders
    sources: NDArray[Any]
    chance: Floats
    responses: Codes
    of_items: bool = False
    judgements: Judgements | None = None
    attributes: Mapping[str, RatedResponses] = field(default_factory=dict[str, RatedResponses])

    @property
    def undecided(self) -> int:
        """How many items the annotators left undecided; they are in none of the arrays."""
        return 0 if self.judgements is None else int((~self.judgements.decided).sum())

    @property
    def of_pairs(self) -> bool:
        """Whether every item has two responses, so that its scores are those of the two."""
        return bool((self.responses == 2).all())

    @property
    def fingerprint(self) -> str:
        """Protocol and items in one digest: what a figure made of these results depends on."""
        return digest(self.judge, self.benchmark, self.protocol, self.items)

    def accuracy(
        self, rows: Flags | slice = slice(None), *, probabilities: Floats | None = None
    ) -> Estimate:
        """The accuracy on the items that `rows` marks, clustered by prompt; by default on all.

        With the `probabilities` [N] that items were chosen with, what it is on all that they were
        chosen from.
        """
        return stats.accuracy(
            self.values[rows],
            self.clusters[rows],
            probabilities=None if probabilities is None else probabilities[rows],
            fingerprint=self.fingerprint,
        )

    @property
    def both(self) -> bool:
        """Whether this reads both orders of the sides."""
        return self.terms.order == "both"

    def one_order(self) -> JudgeResults:
        """The same judge as if it had been asked in the seeded order alone."""
        if not self.both:
            return self
        return replace(
            self,
            protocol=digest(self.protocol, "seeded order"),
            terms=replace(self.terms, order="seeded"),
            values=self.orders.values[:, 0],
            truncated=self.orders.truncated[:, 0],
            chosen_scores=self.orders.chosen_scores[:, 0],
            rejected_scores=self.orders.rejected_scores[:, 0],
            judgements=self.judgements and replace(self.judgements, both=False),
        )


def judge_results(
    verdicts: Iterable[Verdict], protocol: Mapping[str, Any] | None = None
) -> JudgeResults:
    """The verdicts of one judge on one benchmark as columns, asked under `protocol` if known.

    An item asked twice in the same order counts once, the first time it was asked; its first
    verdict of all stands for the seeded order.

    Raises:
        PalateError: no verdicts, or more than one judge, benchmark or protocol among them.
    """
    rows = [verdict_to_row(verdict) for verdict in verdicts]
    return _from_table(pa.Table.from_pylist(rows, VERDICT_SCHEMA), protocol or {}, "verdicts")


def read_judge_results(path: Path) -> JudgeResults:
    """A verdict file's; as `judge_results(read_verdicts(path))` without a row in Python."""
    columns = read_columns(path, COLUMNS, "verdicts")
    return _from_table(columns, read_header(path).details.get("protocol") or {}, str(path))


def read_answers(path: Path) -> Answers:
    """A verdict file's as a benchmark's own score takes them, undecided items too."""
    columns = read_columns(path, COLUMNS, "verdicts")
    return _answers(columns, _everything(columns, read_header(path).details.get("protocol") or {}))


def _answers(table: pa.Table, results: JudgeResults) -> Answers:
    first = _first_of_each(_codes(table, "comparison_id")[0])
    amounts, _ = _judgements(table, first)
    size, cells = first.size, _responses(table, first)
    if cells is None:
        starts = 2 * np.arange(size + 1)
        scores = np.stack([results.chosen_scores, results.rejected_scores], axis=1).reshape(-1)
        places = np.tile([0, 1], size)
    else:
        starts = np.asarray(cells.offsets.to_numpy(), dtype=np.int64)
        starts = starts - starts[0]
        flat = cells.flatten()
        scores = np.asarray(flat.field("score").to_numpy(zero_copy_only=False), dtype=np.float64)
        places = np.asarray(flat.field("place").to_numpy(zero_copy_only=False), dtype=np.int64)
    return Answers(
        ids=results.ids,
        sources=results.sources,
        clusters=results.clusters,
        values=results.values,
        by_order=results.orders.values,
        starts=starts,
        scores=scores,
        places=places,
        votes=amounts,
    )


def _responses(table: pa.Table, rows: Codes) -> pa.ListArray | None:
    """The responses of items of K, a list a row of `rows`; None where these are pairs."""
    if "responses" not in table.column_names:
        return None
    cells = table["responses"].combine_chunks().take(pa.array(rows))
    return None if cells.null_count else cells


def items_digest(ids: Iterable[str]) -> str:
    """The digest of a set of comparison ids, whatever their order."""
    return digest(sorted(set(ids)))


def _from_table(table: pa.Table, protocol: Mapping[str, Any], where: str) -> JudgeResults:
    everything = _everything(table, protocol, where)
    first = _first_of_each(_codes(table, "comparison_id")[0])
    amounts, weights = _judgements(table, first)
    if (amounts == PLAIN).all() and (weights == PREFERRED.weight).all():
        return everything
    judgements = Judgements(
        amounts, weights, everything.clusters, everything.orders, everything.both
    )
    return replace(_rows_of(everything, judgements.decided), judgements=judgements)


def _everything(
    table: pa.Table, protocol: Mapping[str, Any], where: str = "verdicts"
) -> JudgeResults:
    """All items, those that the annotators left undecided too."""
    judge, benchmark, fingerprint = (
        _only_value(table, name, where) for name in ("judge", "benchmark", "protocol")
    )
    # Rows [M] to items [N], numbered by appearance. A row counts where it is the first of its item
    # in its order of sides; the first of all of an item is the seeded order, column 0 of [N, 2].
    item, names = _codes(table, "comparison_id")
    counted = _first_of_each(item * 2 + _flags(table, "chosen_first"))
    first = counted[_first_of_each(item[counted])]
    place = item[counted], (first[item[counted]] != counted).astype(np.int64)
    both = counted.size > first.size

    def by_order(column: NDArray[Any], empty: float | bool) -> NDArray[Any]:
        columns = np.full((first.size, 2), empty, dtype=column.dtype)
        columns[place] = column[counted]
        return columns

    answers = _mapped(table, "outcome", VALUES, np.nan)
    of_undecided = np.full(answers.size, np.nan)
    if "preferred" in table.column_names:
        of_undecided = _mapped(table, "preferred", PREFERRED_VALUES, np.nan)
        answers = np.where(np.isnan(of_undecided), answers, of_undecided)
    cells = _responses(table, first)
    chance = np.full(first.size, TIE_VALUE)
    responses = np.full(first.size, 2)
    if cells is not None:
        # Of an item of K any share; of a pair that is undecided what was preferred.
        answers = np.where(np.isnan(of_undecided), _floats(table, "value"), answers)
        chance = _floats(table, "chance")[first]
        responses = np.diff(np.asarray(cells.offsets.to_numpy(), dtype=np.int64))
    orders = Orders(
        values=by_order(answers, np.nan),
        chosen_scores=by_order(_floats(table, "chosen_score"), np.nan),
        rejected_scores=by_order(_floats(table, "rejected_score"), np.nan),
        truncated=by_order(_flags(table, "truncated"), False),
        chosen_first=_flags(table, "chosen_first")[first],
    )
    known = (protocol.get(key) for key in ("benchmark", "seed", "tie_rule"))
    terms = ("" if value is None else str(value) for value in known)
    reason, reasons = _codes(table, "reason")
    return JudgeResults(
        judge=judge,
        benchmark=benchmark,
        protocol=fingerprint,
        terms=Terms("both" if both else "seeded", *terms),
        # As `items_digest`, sorted by Arrow: a third of the time of reading.
        items=digest(_strings(names.take(pc.array_sort_indices(names))).tolist()),
        ids=_strings(names),
        values=orders.read_both() if both else orders.values[:, 0],
        clusters=_codes(table, "cluster")[0][first],
        ratings=_mapped(table, "rating", _RATINGS, 0)[first].astype(np.int64),
        bins=_mapped(table, "bin", _BINS, -1)[first].astype(np.int64),
        reasons=_strings(reasons)[reason[first]],
        truncated=np.logical_or(*orders.truncated.T),
        chosen_scores=_mean_of_scored(orders.chosen_scores),
        rejected_scores=_mean_of_scored(orders.rejected_scores),
        chosen_lengths=_floats(table, "chosen_length")[first],
        rejected_lengths=_floats(table, "rejected_length")[first],
        spreads=_floats(table, "spread")[first]
        if "spread" in table.column_names
        else np.full(first.size, np.nan),
        orders=orders,
        of_items=cells is not None,
        sources=_strings(table["source"].combine_chunks().take(pa.array(first))),
        chance=chance,
        responses=responses,
        attributes=_attributes(table, first, _codes(table, "cluster")[0][first]),
    )


PLAIN = (PREFERRED.chosen, PREFERRED.tie + PREFERRED.both_bad, PREFERRED.rejected)


def _judgements(table: pa.Table, rows: Codes) -> tuple[Floats, Floats]:
    """Amounts [N, 3] and weights [N] of some rows; those of a plain preference where none is."""
    if "judgement" not in table.column_names:
        return np.tile(PLAIN, (rows.size, 1)), np.ones(rows.size)
    column = table["judgement"].combine_chunks()
    cells = {
        name: pc.fill_null(pc.struct_field(column, name), getattr(PREFERRED, name)).to_numpy()[rows]
        for name in Judgement.__slots__
    }
    amounts = [cells["chosen"], cells["tie"] + cells["both_bad"], cells["rejected"]]
    return np.stack(amounts, axis=1), cells["weight"]


def _attributes(table: pa.Table, rows: Codes, clusters: Codes) -> dict[str, RatedResponses]:
    """The rated responses of some rows [N], of which `clusters` [N] are, by attribute."""
    if "attributes" not in table.column_names or not rows.size:
        return {}
    cells = table["attributes"].combine_chunks().take(pa.array(rows))
    said = cells.flatten()
    if not len(said):
        return {}
    cluster = clusters[pc.list_parent_indices(cells).to_numpy()]
    name = said.field("name").to_numpy(zero_copy_only=False)
    values = np.stack([cluster, *(said.field(f).to_numpy() for f in ("predicted", "rated"))])
    attributes = {}
    for one in sorted(set(name)):
        # A response of several items is the one of its prompt with this score and this rating.
        distinct = np.unique(values[:, name == one], axis=1)
        attributes[one] = RatedResponses(distinct[1], distinct[2], distinct[0].astype(np.int64))
    return attributes


def _rows_of(results: T, rows: Flags) -> T:
    """The same with those entries of every array that `rows` [N] marks."""
    changes: dict[str, Any] = {}
    for one in fields(results):
        value = getattr(results, one.name)
        if isinstance(value, np.ndarray):
            changes[one.name] = value[rows]
        elif isinstance(value, Orders):
            changes[one.name] = _rows_of(value, rows)
    return replace(results, **changes)


def _only_value(table: pa.Table, name: str, where: str) -> str:
    values: list[str] = sorted(pc.unique(table[name]).to_pylist())
    if len(values) != 1:
        shown = ", ".join(repr(value) for value in values[:3]) or "none"
        raise PalateError(
            f"{where}: expected verdicts of one {name}, got {len(values)} ({shown}); "
            "remake the file with `palate evaluate`"
        )
    return values[0]


def _codes(table: pa.Table, name: str) -> tuple[Codes, pa.Array]:
    """Strings as numbers in order of first appearance [M], and the strings by number."""
    coded = table[name].combine_chunks().dictionary_encode()
    return pc.fill_null(coded.indices, -1).to_numpy().astype(np.int64), coded.dictionary


def _strings(dictionary: pa.Array) -> NDArray[Any]:
    return np.asarray(dictionary.to_numpy(zero_copy_only=False), dtype=object)


def _mapped(table: pa.Table, name: str, meaning: Mapping[str, float], empty: float) -> Floats:
    """What each string of a column means [M]; `empty` where it is null."""
    codes, strings = _codes(table, name)
    # The code of a null is -1, which takes the last.
    return np.array([*(meaning[string] for string in strings.to_pylist()), empty])[codes]


def _floats(table: pa.Table, name: str) -> Floats:
    numbers = table[name].combine_chunks().cast(pa.float64())
    return np.asarray(pc.fill_null(numbers, math.nan).to_numpy(), dtype=np.float64)


def _flags(table: pa.Table, name: str) -> Flags:
    return np.asarray(table[name].to_numpy(), dtype=np.bool_)


def _first_of_each(codes: Codes) -> Codes:
    """Where each code appears first, in order of appearance."""
    return np.sort(np.unique(codes, return_index=True)[1])


def _log_odds(margin: Floats) -> Floats:
    # One less a rounding error: a share of exactly one would have infinite log-odds.
    return 2 * np.arctanh(np.clip(margin, -SUREST, SUREST))


def _mean_of_scored(table: Floats) -> Floats:
    """The mean of each row [N, 2] over what is not NaN; NaN where nothing is."""
    scored = ~np.isnan(table)
    count = scored.sum(axis=1)
    total = np.where(scored, table, 0.0).sum(axis=1)
    return np.divide(total, count, out=np.full(len(table), np.nan), where=count > 0)


# Comparability: only figures of judges that were asked the same are compared.


def on_equal_terms(first: JudgeResults, second: JudgeResults) -> tuple[JudgeResults, JudgeResults]:
    """Both judges as they answered in the seeded order, where one was asked in that alone."""
    if first.both == second.both:
        return first, second
    return first.one_order(), second.one_order()


def differences_in_protocol(first: JudgeResults, second: JudgeResults) -> list[str]:
    """What makes two judges incomparable, in words; empty where they may be compared.

    Looked at are the benchmark's name, data and items, order, seed and tie rule. What is not
    known of one of them is no difference.
    """
    pairs = {
        "benchmark": (first.benchmark, second.benchmark),
        "the benchmark's data": (first.terms.data, second.terms.data),
        "order of sides": (first.terms.order, second.terms.order),
        "seed": (first.terms.seed, second.terms.seed),
        "tie rule": (first.terms.tie_rule, second.terms.tie_rule),
    }
    words = [f"{what} ({a:.40}, {b:.40})" for what, (a, b) in pairs.items() if a and b and a != b]
    if first.items != second.items:
        sizes = f"{first.ids.size:,} and {second.ids.size:,}"
        shared = len(set(first.ids) & set(second.ids))
        words.append(f"items ({sizes}, {shared:,} in common)")
    return words


def refuse_incomparable(first: JudgeResults, second: JudgeResults) -> None:
    """Raise `PalateError` with every difference in protocol of two judges, if there is one."""
    if differences := differences_in_protocol(first, second):
        raise PalateError(
            f"{first.judge!r} and {second.judge!r} were not asked the same and are not compared: "
            f"{'; '.join(differences)}. Evaluate both on one benchmark in one order with one seed"
        )


FORMER_NAMES = {
    "Tally": "JudgeResults",
    "tally": "judge_results",
    "read_tally": "read_judge_results",
}
if not TYPE_CHECKING:
    __getattr__ = renamed(__name__, FORMER_NAMES)
