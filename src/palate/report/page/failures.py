"""The failures that a page shows: a bounded sample of wrong verdicts and of disagreements.

For each judge that is not trivial its wrong verdicts are ranked by confidence, over all items and
within each rating and safety bin, and for each two judges the items on which one is right and the
other wrong. The ranked lists are drained in turn until `MAX_ITEMS` items are chosen. These are
clustered by the words of their prompts and responses, and filtered on the page by tags.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, combinations, zip_longest
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, ward

from palate import escape
from palate.evaluate.metrics import JudgeResults
from palate.evaluate.results import Codes, Floats
from palate.item_view import (
    ChoiceView,
    ItemVerdict,
    Side,
    Turn,
    choice_view,
    decimal,
    item_view,
    marked_html,
)
from palate.records import (
    COMPARISON_SCHEMA,
    ITEM_SCHEMA,
    comparison_from_row,
    item_from_row,
    read_batches,
)
from palate.report.accuracy import RATINGS, judge_name
from palate.report.read import Items, Judged
from palate.stats import TIE_VALUE
from palate.types import BenchmarkItem, Bin, Comparison, Outcome, Rating, in_words

# Clusters of failures, named by the words that set them apart.

MAX_CLUSTERS = 10
MIN_FAILURES = 12
DIMENSIONS = 12
MAX_TEXT_CHARACTERS = 2_000
_WORD = re.compile(r"[^\W\d_]{3,24}")
# Words of how a question is asked, not of what it is about.
_STOP_WORDS = frozenset(
    [
        "about", "all", "also", "and", "any", "are", "because", "been", "but", "can", "could",
        "did", "does", "don", "for", "from", "get", "give", "had", "has", "have", "her", "him",
        "his", "how", "human", "into", "its", "just", "know", "let", "like", "make", "may", "more",
        "most", "much", "need", "not", "now", "one", "only", "other", "our", "out", "please",
        "really", "should", "some", "such", "tell", "than", "that", "the", "their", "them", "then",
        "there", "these", "they", "thing", "things", "think", "this", "those", "use", "want",
        "was", "way", "were", "what", "when", "where", "which", "who", "why", "will", "with",
        "would", "write", "you", "your", "yes", "okay", "thanks", "assistant",
    ]
)  # fmt: skip


def clusters(texts: Sequence[str]) -> list[str]:
    """The name of the cluster of each text [N]; one and the same where there are too few.

    Words are weighed by tf-idf, texts reduced to 12 dimensions by a singular value decomposition,
    brought to one length and joined by Ward's method: no chance is involved.
    """
    words = [
        [w for w in _WORD.findall(text[:MAX_TEXT_CHARACTERS].lower()) if w not in _STOP_WORDS]
        for text in texts
    ]
    # V words, each in at least two texts and at most a quarter of them.
    texts_with = Counter(word for own in words for word in set(own))
    vocabulary = sorted(w for w, n in texts_with.items() if 2 <= n <= max(2, len(texts) // 4))
    if len(texts) < MIN_FAILURES or len(vocabulary) < 2:
        return ["all"] * len(texts)
    column = {word: number for number, word in enumerate(vocabulary)}
    weights = np.zeros((len(texts), len(vocabulary)))  # [N, V], rows of length one or zero
    for row, own in enumerate(words):
        for word, n in Counter(own).items():
            if word in column:
                weights[row, column[word]] = 1 + np.log(n)
    weights *= np.log(len(texts) / np.count_nonzero(weights, axis=0))
    lengths = np.linalg.norm(weights, axis=1, keepdims=True)
    weights /= np.where(lengths == 0, 1, lengths)

    u, s, _ = np.linalg.svd(weights, full_matrices=False)
    reduced = (u * s)[:, :DIMENSIONS]  # [N, 12]
    reduced /= np.maximum(np.linalg.norm(reduced, axis=1, keepdims=True), 1e-9)
    most = min(MAX_CLUSTERS, max(2, round(len(texts) ** 0.5 / 2)))
    codes = fcluster(ward(reduced), most, "maxclust")

    names = {}
    for code in np.unique(codes):
        inside = codes == code
        # The three words that this cluster has most beyond the others.
        beyond = weights[inside].mean(axis=0)
        if not inside.all():
            beyond -= weights[~inside].mean(axis=0)
        top = [i for i in np.argsort(-beyond, kind="stable")[:3] if beyond[i] > 0]
        names[code] = ", ".join(vocabulary[i] for i in top) or "other"
    return [names[code] for code in codes]


# The sample: which items are shown, and why.

MAX_ITEMS = 320
PER_PART = 2  # Of every rating and bin, so that each cell of Tables 8 and 29 has items behind it.
CLUSTERED_CHARACTERS = 400
CONFIDENT_WRONG, DISAGREEMENT = "sure and wrong", "judges disagree"


@dataclass(frozen=True, slots=True)
class Failure:
    """An item that a judge got wrong with confidence, or on which judges disagree.

    `blamed` are the judges for whose wrong verdict it was chosen. Of an item of K `shares` are by
    judge what it was right about, and `scores` those of all responses.
    """

    benchmark: str
    row: Comparison | BenchmarkItem
    reasons: tuple[str, ...]
    blamed: tuple[str, ...]
    verdicts: tuple[ItemVerdict, ...]
    shares: Mapping[str, float] = field(default_factory=dict[str, float])
    scores: Mapping[str, Sequence[float | None]] = field(
        default_factory=dict[str, Sequence[float | None]]
    )
    cluster: str = ""


@dataclass(frozen=True, slots=True)
class FailureSample:
    """The failures shown, and how many wrong verdicts and disagreements there are in all."""

    failures: tuple[Failure, ...]
    wrong: int
    disagreements: int


@dataclass(frozen=True, slots=True, eq=False)
class _JudgeColumns:
    """One judge on the N items of a benchmark; `confidence` is 0 to 1.

    `shares` are what it is right about; `values` are the same, but that an item of K of which it is
    right in part counts as a tie, as in the table of outcomes.
    """

    judge: str
    shares: Floats
    values: Floats
    confidence: Floats
    chosen: Floats
    rejected: Floats

    def verdict(self, row: int) -> ItemVerdict:
        value = self.values[row]
        outcome = Outcome.CORRECT if value > TIE_VALUE else Outcome.WRONG
        if value == TIE_VALUE:
            outcome = Outcome.TIE
        elif np.isnan(value):
            outcome = Outcome.UNSCORED
        chosen, rejected = (
            float(scores[row]) if np.isfinite(scores[row]) else None
            for scores in (self.chosen, self.rejected)
        )
        return ItemVerdict(self.judge, outcome, chosen, rejected)


@dataclass(frozen=True, slots=True, eq=False)
class _Benchmark:
    """The judges of one benchmark on the same items, in the order of the first; arrays are [N].

    `files` are by judge those of the verdicts, where the items are of K.
    """

    name: str
    ids: NDArray[np.object_]
    ratings: Codes
    bins: Codes
    judges: tuple[_JudgeColumns, ...]
    files: Mapping[str, Path]


class _Pick(NamedTuple):
    """A row of a benchmark in a ranked list; `blamed` is "" in a list of disagreements."""

    benchmark: str
    row: int
    reason: str
    blamed: str


def select_failures(judged: Judged, items: Mapping[str, Items]) -> FailureSample:
    """The surest wrong verdicts of every judge that is not trivial, and the starkest disagreements.

    At most `MAX_ITEMS` items; every judge, benchmark, rating and bin has its own.
    """
    benchmarks = {
        name: aligned
        for name in judged.benchmarks()
        if name in items and (aligned := _align(judged, name))
    }
    lists = [ranked for benchmark in benchmarks.values() for ranked in _ranked_lists(benchmark)]
    picks: dict[tuple[str, int], list[_Pick]] = {}
    # The first of every list, then the second of every list, and so on.
    for pick in filter(None, chain.from_iterable(zip_longest(*lists))):
        key = (pick.benchmark, pick.row)
        if key in picks or len(picks) < MAX_ITEMS:
            picks.setdefault(key, []).append(pick)

    ids: dict[str, set[str]] = {}
    for name, row in picks:
        ids.setdefault(name, set()).add(str(benchmarks[name].ids[row]))
    rows = {name: _read_rows(items[name], wanted) for name, wanted in ids.items()}
    scores = {
        name: {
            judge: _read_scores(file, ids[name]) for judge, file in benchmarks[name].files.items()
        }
        for name in ids
    }
    failures = []
    for (name, place), of_item in picks.items():
        benchmark = benchmarks[name]
        id = str(benchmark.ids[place])
        if (found := rows[name].get(id)) is not None:
            scored = {judge: of[id] for judge, of in scores[name].items() if of.get(id)}
            failures.append(
                Failure(
                    name,
                    found,
                    reasons=tuple(dict.fromkeys(pick.reason for pick in of_item)),
                    blamed=tuple(dict.fromkeys(pick.blamed for pick in of_item if pick.blamed)),
                    verdicts=tuple(judge.verdict(place) for judge in benchmark.judges),
                    shares={
                        judge.judge: float(judge.shares[place])
                        for judge in benchmark.judges
                        if judge.judge in benchmark.files
                    },
                    scores=scored,
                )
            )
    names = clusters([_clustered_text(failure.row) for failure in failures])
    return FailureSample(
        tuple(replace(f, cluster=name) for f, name in zip(failures, names, strict=True)),
        wrong=sum(
            int((judge.values < TIE_VALUE).sum()) for b in benchmarks.values() for judge in b.judges
        ),
        disagreements=sum(
            int(_disagree(one, two).sum())
            for b in benchmarks.values()
            for one, two in combinations(b.judges, 2)
        ),
    )


def _align(judged: Judged, benchmark: str) -> _Benchmark | None:
    """Judges that have verdicts on the same items as the first of them; None where none has any."""
    results = [
        own
        for result in judged.of(benchmark)
        if result.kind != "trivial" and (own := judged.votes.get((result.judge, benchmark)))
    ]
    if not results:
        return None
    first = results[0]
    judges = []
    for own in results:
        if own.items != first.items:
            continue
        place = {id: number for number, id in enumerate(own.ids)}
        order = np.array([place[id] for id in first.ids], dtype=np.int64)
        in_part = own.of_items & (own.values > 0) & (own.values < 1)
        columns = (
            own.values, np.where(in_part, TIE_VALUE, own.values), _confidence(own),
            own.chosen_scores, own.rejected_scores,
        )  # fmt: skip
        judges.append(_JudgeColumns(own.judge, *(column[order] for column in columns)))
    files = {
        judge.judge: judged.files[judge.judge, benchmark] for judge in judges if first.of_items
    }
    return _Benchmark(benchmark, first.ids, first.ratings, first.bins, tuple(judges), files)


def _confidence(results: JudgeResults) -> Floats:
    """How sure a judge is of each item among its own, as a rank: units differ between judges."""
    odds = np.abs(results.orders.log_odds)
    ranks = np.argsort(np.argsort(np.nan_to_num(odds, nan=-1.0), kind="stable"), kind="stable")
    return np.where(np.isnan(odds), 0.0, (ranks + 1) / max(odds.size, 1))


def _disagree(one: _JudgeColumns, two: _JudgeColumns) -> NDArray[np.bool_]:
    """Where one judge is right and the other wrong."""
    return (one.values - TIE_VALUE) * (two.values - TIE_VALUE) < 0


def _ranked_lists(benchmark: _Benchmark) -> Iterator[list[_Pick]]:
    """Items by rank: for each judge over all items and over each part, for each two judges."""

    def ranked(
        mask: NDArray[np.bool_], confidence: Floats, reason: str, blamed: str = ""
    ) -> list[_Pick]:
        rows = np.flatnonzero(mask)
        best = rows[np.argsort(-confidence[rows], kind="stable")][:MAX_ITEMS]
        return [_Pick(benchmark.name, int(row), reason, blamed) for row in best]

    parts = [benchmark.ratings == r for r in np.unique(benchmark.ratings) if r > 0]
    parts += [benchmark.bins == b for b in np.unique(benchmark.bins) if b >= 0]
    for judge in benchmark.judges:
        wrong = judge.values < TIE_VALUE
        yield ranked(wrong, judge.confidence, CONFIDENT_WRONG, judge.judge)
        for part in parts:
            yield ranked(wrong & part, judge.confidence, CONFIDENT_WRONG, judge.judge)[:PER_PART]
    for one, two in combinations(benchmark.judges, 2):
        both = np.minimum(one.confidence, two.confidence)
        yield ranked(_disagree(one, two), both, DISAGREEMENT)


def _read_rows(items: Items, ids: Iterable[str]) -> dict[str, Comparison | BenchmarkItem]:
    """Those of a benchmark's rows that have these ids."""
    wanted = pa.array(sorted(ids), pa.string())
    schema, kind = (ITEM_SCHEMA, "items") if items.of_items else (COMPARISON_SCHEMA, "comparisons")
    made = item_from_row if items.of_items else comparison_from_row
    return {
        row["id"]: made(row)
        for batch in read_batches(items.path, schema.names, kind)
        for row in batch.filter(pc.is_in(batch.column("id"), wanted)).to_pylist()
    }


def _read_scores(path: Path, ids: Iterable[str]) -> dict[str, list[float | None]]:
    """What a judge scored of the responses of some items of K, by item."""
    wanted = pa.array(sorted(ids), pa.string())
    return {
        row["comparison_id"]: [one["score"] for one in row["responses"] or ()]
        for batch in read_batches(path, ["comparison_id", "responses"], "verdicts")
        for row in batch.filter(pc.is_in(batch.column("comparison_id"), wanted)).to_pylist()
    }


def _clustered_text(row: Comparison | BenchmarkItem) -> str:
    """The last two questions, and the beginning of two responses: of K a right and a wrong one."""
    questions = [turn.text for turn in row.prompt if turn.role == "user"][-2:]
    responses = [row.chosen, row.rejected] if isinstance(row, Comparison) else _best_and_other(row)
    return " ".join((*questions, *(in_words(text)[:CLUSTERED_CHARACTERS] for text in responses)))


def _best_and_other(item: BenchmarkItem) -> list[str]:
    other = next(number for number, place in enumerate(item.places) if place)
    return [item.responses[item.places.index(0)], item.responses[other]]


# Failures as the page shows them: texts cut and compared, and tags that filters choose by.

RESPONSE_CHARACTERS, TURN_CHARACTERS, LAST_TURNS = 3_000, 1_500, 6
SUMMARY_CHARACTERS = 150
# Of K responses: how many are shown, and how much of each at least where they share what two have.
MOST_RESPONSES, FEWEST_CHARACTERS = 24, 400


Turns = tuple[tuple[str, str], ...]
"""Who speaks and what, of each turn."""


@dataclass(frozen=True, slots=True)
class ShownResponse:
    """A response under its heading, after the `turns` of its own."""

    title: str
    turns: Turns
    text: Markup


@dataclass(frozen=True, slots=True)
class VerdictView:
    """A judge's verdict: its class and its words, and the scores of the two sides.

    Of an item of K the sides are the best of the right responses and of the others.
    """

    judge: str
    outcome: str
    words: str
    chosen: str
    rejected: str
    margin: str


@dataclass(frozen=True, slots=True)
class ResponseScores:
    """What `judges` scored of the responses of an item of K, of which `left_out` are not shown.

    A row is a response: its title, and (score, is the highest) of each judge.
    """

    judges: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[str, bool], ...]], ...]
    left_out: int


@dataclass(frozen=True, slots=True)
class FailureView:
    """One failure, its texts safe to show; `tags` by filter, several apart by spaces.

    `scores` are those of an item of K.
    """

    line: str
    facts: tuple[str, ...]
    turns: Turns
    earlier: int
    responses: tuple[ShownResponse, ...]
    verdicts: tuple[VerdictView, ...]
    tags: Mapping[str, str]
    scores: ResponseScores | None = None


@dataclass(frozen=True, slots=True)
class Filter:
    """One filter: its name, label, and options as (tag, label, items)."""

    name: str
    label: str
    options: tuple[tuple[str, str, int], ...]


@dataclass(frozen=True, slots=True)
class FailureSection:
    """All failures shown, the filters over them, and how many there are beyond.

    `codes` are by filter the tag of each value.
    """

    items: tuple[FailureView, ...]
    filters: tuple[Filter, ...]
    clusters: tuple[tuple[str, str, int], ...]
    wrong: int
    disagreements: int
    codes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def link(self, behind: Mapping[str, str]) -> str:
        """The filter that shows the wrong verdicts behind a figure; empty where none are shown."""
        wanted = {key: self.codes.get(key, {}).get(value, "") for key, value in behind.items()}
        wanted["outcome"] = f"w{wanted.pop('judge')}" if wanted.get("judge") else ""
        if not all(wanted.values()):
            return ""
        matches = any(
            all(tag in item.tags[key].split() for key, tag in wanted.items()) for item in self.items
        )
        return "&".join(f"{key}={tag}" for key, tag in wanted.items()) if matches else ""


def failure_section(sample: FailureSample) -> FailureSection:
    """Failures with their texts made safe, grouped for filtering."""
    failures = sample.failures
    rows = [f.row for f in failures]
    pairs = [row for row in rows if isinstance(row, Comparison)]
    counts = Counter(f.cluster for f in failures).most_common()
    codes = {
        "benchmark": _codes(f.benchmark for f in failures),
        "judge": _codes(v.judge for f in failures for v in f.verdicts),
        "rating": _codes(r.label for r in RATINGS if any(c.rating == r for c in pairs)),
        "bin": _codes(b.value for b in Bin if any(c.bin == b for c in pairs)),
        "source": _codes(sorted({row.source for row in rows})),
        "kind": {CONFIDENT_WRONG: "sure", DISAGREEMENT: "apart"},
        "cluster": _codes(name for name, _ in counts),
    }
    items = tuple(_failure_view(failure, codes) for failure in failures)
    named = tuple((codes["cluster"][name], escape.name(name), n) for name, n in counts)
    return FailureSection(
        items,
        tuple(_filters(items, codes)),
        named if len(named) > 1 else (),
        sample.wrong,
        sample.disagreements,
        codes,
    )


def _codes(names: Iterable[str]) -> dict[str, str]:
    """Each name once, under a short code that is safe in an attribute."""
    return {name: str(number) for number, name in enumerate(dict.fromkeys(names))}


def _failure_view(f: Failure, codes: Mapping[str, Mapping[str, str]]) -> FailureView:
    row = f.row
    rating: Rating | None = None
    bin = ""
    if isinstance(row, Comparison):
        rating, bin = row.rating, row.bin.value if row.bin else ""
        view = item_view(
            row,
            last_turns=LAST_TURNS,
            turn_characters=TURN_CHARACTERS,
            response_characters=RESPONSE_CHARACTERS,
            compare_whole=False,
        )
        said, turns, earlier = row.chosen, view.turns, view.earlier
        titles = ("People preferred", "The other")
        responses = tuple(
            ShownResponse(title, (), _html(side))
            for title, side in zip(titles, view.sides, strict=True)
        )
        scores = None
    else:
        choice = choice_view(
            row,
            f.scores,
            last_turns=LAST_TURNS,
            turn_characters=TURN_CHARACTERS,
            response_characters=max(
                FEWEST_CHARACTERS, 2 * RESPONSE_CHARACTERS // len(row.responses)
            ),
        )
        said, turns, earlier = row.responses[0], choice.turns, choice.earlier
        responses, scores = _responses(choice)
    question = next((m.content for m in reversed(row.prompt) if m.role == "user"), in_words(said))
    facts = (
        escape.name(f.benchmark), rating.words if rating else "", bin, escape.name(row.source),
    )  # fmt: skip
    return FailureView(
        line=escape.plain(question, SUMMARY_CHARACTERS) or "(no text)",
        facts=tuple(dict.fromkeys(filter(None, facts))),
        turns=_turns(turns[earlier:]),
        earlier=earlier,
        verdicts=tuple(_verdict_view(v, f.shares.get(v.judge)) for v in f.verdicts),
        tags={
            "benchmark": codes["benchmark"][f.benchmark],
            "rating": codes["rating"][rating.label] if rating else "",
            "bin": codes["bin"].get(bin, ""),
            "source": codes["source"][row.source],
            "kind": " ".join(codes["kind"][reason] for reason in f.reasons),
            "cluster": codes["cluster"][f.cluster],
            "outcome": " ".join(f"{v.outcome[0]}{codes['judge'][v.judge]}" for v in f.verdicts),
        },
        responses=responses,
        scores=scores,
    )


def _responses(choice: ChoiceView) -> tuple[tuple[ShownResponse, ...], ResponseScores]:
    """The responses of an item of K, and what each judge scored of them.

    Of very many those are shown that are right or that a judge scored highest, then the first.
    """
    by_weight = sorted(
        choice.responses,
        key=lambda one: not (one.side.label == "chosen" or any(cell.top for cell in one.scores)),
    )
    shown = {
        " · ".join(filter(None, (str(one.number), one.side.title, escape.line(one.label, 80)))): one
        for one in sorted(by_weight[:MOST_RESPONSES], key=lambda one: one.number)
    }
    responses = tuple(
        ShownResponse(title, _turns(one.turns), _html(one.side)) for title, one in shown.items()
    )
    rows = tuple(
        (title, tuple((decimal(cell.score), cell.top) for cell in one.scores))
        for title, one in shown.items()
    )
    left_out = len(choice.responses) - len(shown)
    return responses, ResponseScores(tuple(map(judge_name, choice.judges)), rows, left_out)


def _verdict_view(v: ItemVerdict, share: float | None) -> VerdictView:
    words = v.outcome
    if share is not None and v.outcome == Outcome.TIE:
        words = f"{decimal(100 * share, 0)} % right"
    scores = (decimal(v.chosen_score), decimal(v.rejected_score), decimal(v.margin, sign="+"))
    return VerdictView(judge_name(v.judge), v.outcome, words, *scores)


def _turns(turns: Iterable[Turn]) -> Turns:
    return tuple(
        (turn.role, escape.prose(turn.text) + escape.cut_note(turn.left_out)) for turn in turns
    )


def _html(side: Side) -> Markup:
    return marked_html(side.pieces, escape.prose) + escape.cut_note(side.left_out)


OUTCOME_WORDS = {"w": "wrong", "c": "right", "t": "tied", "u": "not scored"}
FILTER_LABELS = {
    "kind": "Shown for", "benchmark": "Benchmark", "outcome": "Judge", "rating": "Rating",
    "bin": "Safety bin", "source": "Source", "cluster": "Cluster",
}  # fmt: skip


def _filters(
    items: Sequence[FailureView], codes: Mapping[str, Mapping[str, str]]
) -> Iterator[Filter]:
    """A filter for everything that distinguishes the items."""
    tags = {key: dict(codes[key]) for key in FILTER_LABELS if key != "outcome"}
    words = {rating.label: rating.words for rating in RATINGS}
    tags["rating"] = {words[label]: code for label, code in codes["rating"].items()}
    tags["outcome"] = {
        f"{judge_name(judge)} {outcome}": f"{letter}{code}"
        for judge, code in codes["judge"].items()
        for letter, outcome in OUTCOME_WORDS.items()
    }
    for key, label in FILTER_LABELS.items():
        counts = Counter(tag for item in items for tag in item.tags[key].split())
        options = tuple(
            (tag, escape.name(name), counts[tag]) for name, tag in tags[key].items() if counts[tag]
        )
        if len(options) > 1:
            yield Filter(key, label, options)
