"""Failures as the page shows them: texts cut and compared, and what they can be filtered by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from palate.data.difference import Piece, differences
from palate.report import escape
from palate.report.accuracy import RATINGS, judge_name
from palate.report.page.failures import APART, SURE, Chosen, Failure, Opinion
from palate.types import Bin, Message

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
