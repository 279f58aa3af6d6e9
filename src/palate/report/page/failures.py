"""The failures that a page shows: a bounded choice of wrong verdicts and of disagreements."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, ward

from palate.data.difference import Piece, differences
from palate.evaluate.metrics import JudgeResults, Result
from palate.evaluate.results import Codes, Floats
from palate.records import COMPARISON_SCHEMA, comparison_from_row, read_batches
from palate.report import escape
from palate.report.accuracy import RATINGS, judge_name
from palate.report.read import Items, Judged
from palate.stats import TIE_VALUE
from palate.types import Bin, Comparison, Message

# Failures that are alike: clusters of their prompts, named by the words that set them apart.

_WORDS = re.compile(r"[^\W\d_]{3,24}")
MOST_CLUSTERS = 10
LEAST_FAILURES = 12
DIMENSIONS = 12
MOST_CHARACTERS = 2_000
# What says how a question is asked, not what it is about.
_STOP = frozenset(
    [
        "about",
        "all",
        "also",
        "and",
        "any",
        "are",
        "because",
        "been",
        "but",
        "can",
        "could",
        "did",
        "does",
        "don",
        "for",
        "from",
        "get",
        "give",
        "had",
        "has",
        "have",
        "her",
        "him",
        "his",
        "how",
        "human",
        "into",
        "its",
        "just",
        "know",
        "let",
        "like",
        "make",
        "may",
        "more",
        "most",
        "much",
        "need",
        "not",
        "now",
        "one",
        "only",
        "other",
        "our",
        "out",
        "please",
        "really",
        "should",
        "some",
        "such",
        "tell",
        "than",
        "that",
        "the",
        "their",
        "them",
        "then",
        "there",
        "these",
        "they",
        "thing",
        "things",
        "think",
        "this",
        "those",
        "use",
        "want",
        "was",
        "way",
        "were",
        "what",
        "when",
        "where",
        "which",
        "who",
        "why",
        "will",
        "with",
        "would",
        "write",
        "you",
        "your",
        "yes",
        "okay",
        "thanks",
        "assistant",
    ]
)


def clusters(texts: Sequence[str]) -> list[str]:
    """The name of the cluster of each text [N]; one and the same where there are too few.

    Words are weighed by tf-idf, texts reduced to 12 dimensions by a singular value decomposition,
    brought to one length and joined by Ward's method: no chance is involved.
    """
    words = [_words(text) for text in texts]
    vocabulary = _vocabulary(words)
    if len(texts) < LEAST_FAILURES or len(vocabulary) < 2:
        return ["all"] * len(texts)
    weights = _weights(words, vocabulary)
    u, s, _ = np.linalg.svd(weights, full_matrices=False)
    reduced = (u * s)[:, :DIMENSIONS]
    reduced /= np.maximum(np.linalg.norm(reduced, axis=1, keepdims=True), 1e-9)
    most = min(MOST_CLUSTERS, max(2, round(len(texts) ** 0.5 / 2)))
    codes = fcluster(ward(reduced), most, "maxclust")
    names = {code: _name(weights, codes == code, vocabulary) for code in np.unique(codes)}
    return [names[code] for code in codes]


def _words(text: str) -> list[str]:
    return [w for w in _WORDS.findall(text[:MOST_CHARACTERS].lower()) if w not in _STOP]


def _vocabulary(words: Sequence[Sequence[str]]) -> list[str]:
    """Words of at least two texts and at most a quarter of them."""
    seen = Counter(word for one in words for word in set(one))
    return sorted(word for word, n in seen.items() if 2 <= n <= max(2, len(words) // 4))


def _weights(words: Sequence[Sequence[str]], vocabulary: Sequence[str]) -> Floats:
    """[N, V] tf-idf, each row of length one (or zero)."""
    place = {word: number for number, word in enumerate(vocabulary)}
    table = np.zeros((len(words), len(vocabulary)))
    for row, one in enumerate(words):
        for word, n in Counter(one).items():
            if word in place:
                table[row, place[word]] = 1 + np.log(n)
    table *= np.log(len(words) / np.count_nonzero(table, axis=0))
    lengths = np.linalg.norm(table, axis=1, keepdims=True)
    return np.asarray(table / np.where(lengths == 0, 1, lengths))


def _name(
    weights: Floats, held: np.ndarray[tuple[int], np.dtype[np.bool_]], words: Sequence[str]
) -> str:
    """The three words that this cluster has most beyond the others."""
    beyond = weights[held].mean(axis=0) - (weights[~held].mean(axis=0) if (~held).any() else 0)
    top = [i for i in np.argsort(-beyond, kind="stable")[:3] if beyond[i] > 0]
    return ", ".join(words[i] for i in top) or "other"


MOST = 320
ABOUT = 400
SURE, APART = "sure and wrong", "judges disagree"
EACH_PART = 2  # Of every rating and bin, so that each cell of Tables 8 and 29 has items behind it.


@dataclass(frozen=True, slots=True)
class Opinion:
    """What one judge made of an item; `standing` is correct, wrong, tie or unscored."""

    judge: str
    standing: str
    chosen: float | None
    rejected: float | None

    @property
    def gap(self) -> float | None:
        """By how much the chosen response is ahead."""
        known = self.chosen is not None and self.rejected is not None
        return self.chosen - self.rejected if known else None  # type: ignore[operator]


@dataclass(frozen=True, slots=True)
class Failure:
    """An item that a judge got wrong with confidence, or on which judges disagree.

    `blamed` are the judges for which it was chosen; `cluster` names its like.
    """

    benchmark: str
    comparison: Comparison
    reasons: tuple[str, ...]
    blamed: tuple[str, ...]
    opinions: tuple[Opinion, ...]
    cluster: str = ""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The failures shown, and how many wrong verdicts and disagreements there are in all."""

    failures: tuple[Failure, ...]
    wrong: int
    apart: int


@dataclass(frozen=True, slots=True, eq=False)
class _Sheet:
    """The judges of one benchmark on the same items, in the order of the first; arrays are [N]."""

    benchmark: str
    ids: NDArray[np.object_]
    ratings: Codes
    bins: Codes
    judges: tuple[Result, ...]
    values: tuple[Floats, ...]
    sure: tuple[Floats, ...]
    scores: tuple[tuple[Floats, Floats], ...]


_Pick = tuple[int, str, str, str]
"""(place in the sheet, reason, judge blamed, benchmark), in a list by rank."""


def choose(judged: Judged, items: Mapping[str, Items]) -> Chosen:
    """The surest wrong verdicts of every judge that is not trivial, and the starkest disagreements.

    At most `MOST` items; every judge, benchmark, rating and bin has its own.
    """
    sheets = [s for name in judged.benchmarks() if name in items and (s := _sheet(judged, name))]
    lists = [ranked for sheet in sheets for ranked in _lists(sheet)]
    taken: dict[tuple[str, int], list[_Pick]] = {}
    for pick in _in_turn(lists):
        key = pick[3], pick[0]
        if key in taken or len(taken) < MOST:
            taken.setdefault(key, []).append(pick)
    by_sheet = {sheet.benchmark: sheet for sheet in sheets}
    found = list(_failures(taken, by_sheet, items))
    names = clusters([_about(failure) for failure in found])
    clustered = tuple(replace(f, cluster=name) for f, name in zip(found, names, strict=True))
    wrong = sum(int((v < TIE_VALUE).sum()) for s in sheets for v in s.values)
    apart = sum(
        int(_apart(one, two).sum()) for s in sheets for one, two in combinations(s.values, 2)
    )
    return Chosen(clustered, wrong, apart)


def _sheet(judged: Judged, benchmark: str) -> _Sheet | None:
    found = [
        (result, votes)
        for result in judged.of(benchmark)
        if result.kind != "trivial" and (votes := judged.tallies.get((result.judge, benchmark)))
    ]
    if not found:
        return None
    first = found[0][1]
    alike = [(result, votes) for result, votes in found if votes.items == first.items]
    orders = [_order(first, votes) for _, votes in alike]
    laid = list(zip(alike, orders, strict=True))
    return _Sheet(
        benchmark,
        first.ids,
        first.ratings,
        first.bins,
        tuple(result for result, _ in alike),
        tuple(votes.values[order] for (_, votes), order in laid),
        tuple(_sureness(votes)[order] for (_, votes), order in laid),
        tuple((v.chosen_scores[order], v.rejected_scores[order]) for (_, v), order in laid),
    )


def _order(first: JudgeResults, votes: JudgeResults) -> Codes:
    if np.array_equal(first.ids, votes.ids):
        return np.arange(first.ids.size)
    place = {name: number for number, name in enumerate(votes.ids)}
    return np.array([place[name] for name in first.ids])


def _sureness(votes: JudgeResults) -> Floats:
    """How sure a judge is of each item among its own, 0 to 1: units differ between judges."""
    odds = np.abs(votes.orders.log_odds)
    ranks = np.argsort(np.argsort(np.nan_to_num(odds, nan=-1.0), kind="stable"), kind="stable")
    return np.where(np.isnan(odds), 0.0, (ranks + 1) / max(odds.size, 1))


def _apart(one: Floats, two: Floats) -> NDArray[np.bool_]:
    """Where one judge is right and the other wrong."""
    return (one - TIE_VALUE) * (two - TIE_VALUE) < 0


def _lists(sheet: _Sheet) -> Iterator[list[_Pick]]:
    """Items by rank: for each judge over all items and over each part, for each two judges."""
    parts = [sheet.ratings == r for r in np.unique(sheet.ratings) if r > 0]
    parts += [sheet.bins == b for b in np.unique(sheet.bins) if b >= 0]
    for result, values, sure in zip(sheet.judges, sheet.values, sheet.sure, strict=True):
        wrong = values < TIE_VALUE
        yield _ranked(sheet, wrong, sure, SURE, result.judge)
        for part in parts:
            yield _ranked(sheet, wrong & part, sure, SURE, result.judge)[:EACH_PART]
    for i, j in combinations(range(len(sheet.judges)), 2):
        apart = _apart(sheet.values[i], sheet.values[j])
        both = np.minimum(sheet.sure[i], sheet.sure[j])
        yield _ranked(sheet, apart, both, APART, "")


def _ranked(
    sheet: _Sheet, held: NDArray[np.bool_], sure: Floats, reason: str, judge: str
) -> list[_Pick]:
    places = np.flatnonzero(held)
    best = places[np.argsort(-sure[places], kind="stable")][:MOST]
    return [(int(place), reason, judge, sheet.benchmark) for place in best]


def _in_turn(lists: Sequence[Sequence[_Pick]]) -> Iterator[_Pick]:
    """The first of every list, then the second of every list, and so on."""
    for rank in range(max(map(len, lists), default=0)):
        yield from (ranked[rank] for ranked in lists if rank < len(ranked))


def _failures(
    taken: Mapping[tuple[str, int], Sequence[_Pick]],
    sheets: Mapping[str, _Sheet],
    items: Mapping[str, Items],
) -> Iterator[Failure]:
    """In the order in which they were taken."""
    wanted: dict[str, set[str]] = {}
    for name, place in taken:
        wanted.setdefault(name, set()).add(str(sheets[name].ids[place]))
    texts = {name: _texts(items[name], ids) for name, ids in wanted.items()}
    for (name, place), picks in taken.items():
        sheet = sheets[name]
        comparison = texts[name].get(str(sheet.ids[place]))
        if comparison is not None:
            yield Failure(
                name,
                comparison,
                tuple(dict.fromkeys(reason for _, reason, _, _ in picks)),
                tuple(dict.fromkeys(judge for _, _, judge, _ in picks if judge)),
                tuple(_opinions(sheet, place)),
            )


def _texts(items: Items, ids: Iterable[str]) -> dict[str, Comparison]:
    wanted, found = pa.array(sorted(ids)), {}
    for batch in read_batches(items.path, COMPARISON_SCHEMA.names, "comparisons"):
        for row in batch.filter(pc.is_in(batch.column("id"), wanted)).to_pylist():
            found[row["id"]] = comparison_from_row(row)
    return found


def _opinions(sheet: _Sheet, place: int) -> Iterator[Opinion]:
    for result, values, scores in zip(sheet.judges, sheet.values, sheet.scores, strict=True):
        chosen, rejected = (_known(side[place]) for side in scores)
        yield Opinion(result.judge, standing(float(values[place])), chosen, rejected)


def standing(value: float) -> str:
    """What a tally's value says of a verdict."""
    if np.isnan(value):
        return "unscored"
    return "tie" if value == TIE_VALUE else "correct" if value > TIE_VALUE else "wrong"


def _known(score: float) -> float | None:
    return float(score) if np.isfinite(score) else None


def _about(failure: Failure) -> str:
    """What a failure is about: the questions, and the beginning of the answers."""
    c = failure.comparison
    asked = [turn.content for turn in c.prompt if turn.role == "user"][-2:]
    return " ".join((*asked, c.chosen[:ABOUT], c.rejected[:ABOUT]))


# Failures as the page shows them: texts cut and compared, and what they can be filtered by.

RESPONSE, PROMPT, TURNS = 3_000, 1_500, 6
"""Most characters of a response and of a turn, most turns of a prompt."""
FIRST_LINE = 150


@dataclass(frozen=True, slots=True)
class Example:
    """One failure; `tags` say by filter what it is found under."""

    number: int
    line: str
    facts: tuple[str, ...]
    turns: tuple[tuple[str, str], ...]
    skipped: int
    chosen: tuple[Piece, ...]
    rejected: tuple[Piece, ...]
    opinions: tuple[tuple[str, str, str, str, str], ...]
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Choice:
    """One filter: its name, label, and options as (tag, label, items)."""

    name: str
    label: str
    options: tuple[tuple[str, str, int], ...]


@dataclass(frozen=True, slots=True)
class Examples:
    """All failures shown, the filters over them, and how many there are beyond."""

    items: tuple[Example, ...]
    choices: tuple[Choice, ...]
    clusters: tuple[tuple[str, str, int], ...]
    wrong: int
    apart: int
    codes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def link(self, behind: Mapping[str, str]) -> str:
        """The filter that shows the wrong verdicts behind a figure; empty where none are shown."""
        wanted = {key: self.codes.get(key, {}).get(value, "") for key, value in behind.items()}
        wanted["outcome"] = f"w{wanted.pop('judge')}" if wanted.get("judge") else ""
        if not all(wanted.values()):
            return ""
        there = any(
            all(tag in example.tags[key].split() for key, tag in wanted.items())
            for example in self.items
        )
        return "&".join(f"{key}={tag}" for key, tag in wanted.items()) if there else ""


def examples(chosen: Chosen) -> Examples:
    """Failures with their texts made safe, grouped for filtering."""
    failures = chosen.failures
    codes = {
        "benchmark": _codes(f.benchmark for f in failures),
        "judge": _codes(o.judge for f in failures for o in f.opinions),
        "rating": _codes(
            r.label for r in RATINGS if any(f.comparison.rating == r for f in failures)
        ),
        "bin": _codes(b.value for b in Bin if any(f.comparison.bin == b for f in failures)),
        "source": _codes(sorted({f.comparison.source for f in failures})),
        "kind": {SURE: "sure", APART: "apart"},
        "cluster": _codes(name for name, _ in Counter(f.cluster for f in failures).most_common()),
    }
    items = tuple(_example(i, failure, codes) for i, failure in enumerate(failures, 1))
    clusters = Counter(f.cluster for f in failures)
    named = tuple(
        (codes["cluster"][name], escape.name(name), n) for name, n in clusters.most_common()
    )
    return Examples(
        items, tuple(_choices(items, codes)), named if len(named) > 1 else (), chosen.wrong,
        chosen.apart, codes,
    )  # fmt: skip


def _codes(names: Iterator[str] | Sequence[str]) -> dict[str, str]:
    """Each name once, under a short code that is safe in an attribute."""
    return {name: str(number) for number, name in enumerate(dict.fromkeys(names))}


def _rating(failure: Failure) -> str:
    return failure.comparison.rating.label if failure.comparison.rating else ""


def _bin(failure: Failure) -> str:
    return failure.comparison.bin.value if failure.comparison.bin else ""


def _example(number: int, f: Failure, codes: Mapping[str, Mapping[str, str]]) -> Example:
    c = f.comparison
    responses = escape.prose(c.chosen, RESPONSE), escape.prose(c.rejected, RESPONSE)
    sides = differences(*responses) or tuple((Piece(text, False),) for text in responses)
    last = next((m.content for m in reversed(c.prompt) if m.role == "user"), c.chosen)
    rating = c.rating.words if c.rating else ""
    facts = [escape.name(f.benchmark), rating, _bin(f), escape.name(c.source)]
    facts = list(dict.fromkeys(fact for fact in facts if fact))
    turns = c.prompt[-TURNS:]
    return Example(
        number=number,
        line=escape.plain(last, FIRST_LINE) or "(no text)",
        facts=tuple(facts),
        turns=tuple((turn.role, _turn(turn)) for turn in turns),
        skipped=len(c.prompt) - len(turns),
        chosen=sides[0],
        rejected=sides[1],
        opinions=tuple(map(_opinion, f.opinions)),
        tags={
            "benchmark": codes["benchmark"][f.benchmark],
            "rating": codes["rating"].get(_rating(f), ""),
            "bin": codes["bin"].get(_bin(f), ""),
            "source": codes["source"][c.source],
            "kind": " ".join(codes["kind"][reason] for reason in f.reasons),
            "cluster": codes["cluster"][f.cluster],
            "outcome": " ".join(_outcome(o, codes["judge"]) for o in f.opinions),
        },
    )


def _turn(turn: Message) -> str:
    return escape.prose(turn.content, PROMPT)


def _opinion(o: Opinion) -> tuple[str, str, str, str, str]:
    """Judge, standing, both scores and their gap."""
    shown = (_score(o.chosen), _score(o.rejected), _score(o.gap, "+"))
    return (judge_name(o.judge), o.standing, *shown)


def _score(value: float | None, sign: str = "") -> str:
    return "" if value is None else f"{value:{sign}.2f}".replace("-", "−")


def _outcome(o: Opinion, judges: Mapping[str, str]) -> str:
    return f"{o.standing[0]}{judges[o.judge]}"


STANDINGS = {"w": "wrong", "c": "right", "t": "tied", "u": "not scored"}
LABELS = {
    "kind": "Shown for", "benchmark": "Benchmark", "outcome": "Judge", "rating": "Rating",
    "bin": "Safety bin", "source": "Source", "cluster": "Cluster",
}  # fmt: skip


def _choices(items: Sequence[Example], codes: Mapping[str, Mapping[str, str]]) -> Iterator[Choice]:
    """A filter for everything that distinguishes the items."""
    names = {key: dict(codes[key]) for key in LABELS if key != "outcome"}
    words = {rating.label: rating.words for rating in RATINGS}
    names["rating"] = {words[label]: code for label, code in codes["rating"].items()}
    names["outcome"] = {
        f"{judge_name(judge)} {said}": f"{letter}{code}"
        for judge, code in codes["judge"].items()
        for letter, said in STANDINGS.items()
    }
    for key, label in LABELS.items():
        counts = Counter(tag for item in items for tag in item.tags[key].split())
        options = tuple(
            (tag, escape.name(name), counts[tag]) for name, tag in names[key].items() if counts[tag]
        )
        if len(options) > 1:
            yield Choice(key, label, options)
