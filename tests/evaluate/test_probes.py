"""What moves a judge that should not, found where it is planted and nowhere else."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from palate.data.prompts import hash64
from palate.evaluate.audit import pairs_of
from palate.evaluate.probes import PADDING, place_of_k, probe, systems_of
from palate.judges import open_judge
from palate.types import (
    UNREAD_COLUMNS,
    BenchmarkItem,
    Comparison,
    Judgement,
    Message,
    Pair,
    PalateError,
    Preference,
    Score,
)

PLAIN = {"length", "verbosity"}


def comparisons(count: int = 160, **meta) -> list[Comparison]:
    """Questions of which the right answer is as long as the wrong one; two a prompt."""
    return [
        Comparison(
            f"c{n}",
            "made",
            (Message("user", f"What is {n // 2} plus one?"),),
            f"right {n:03}",
            f"wrong {n:03}",
            f"p{n // 2}",
            meta={"models": ["gpt-x", "other"] if n % 3 else ["other", "gpt-x"], **meta},
        )
        for n in range(count)
    ]


class Leaning:
    """Right nine times in ten, but for what it leans to: its answer is a hash of the question."""

    name = "leaning"
    sees_both = True

    def __init__(self, first: int = 0, longer: int = 0, own: int = 0) -> None:
        self.lean = {"first": first, "longer": longer, "own": own}
        self.protocol = {"judge": "leaning", **self.lean}

    def judge(self, pairs: Sequence[Pair]) -> Iterator[Preference]:
        for pair in pairs:
            texts = (pair.first, pair.second)
            key = sorted(text.split()[1] for text in texts)[0]

            def throws(what: str, percent: int, key: str = key) -> bool:
                return hash64(f"leaning {what}", key) % 100 < percent

            right = "first" if pair.first.startswith("right") else "second"
            wrong = "second" if right == "first" else "first"
            choice = right if throws("right", 90) else wrong
            if throws("first", self.lean["first"]):
                choice = "first"
            if len(pair.first) != len(pair.second) and throws("longer", self.lean["longer"]):
                choice = "first" if len(pair.first) > len(pair.second) else "second"
            number = int(key)
            own = (right if number % 3 else wrong) if throws("own", self.lean["own"]) else None
            yield Preference(pair.id, own or choice)


def test_what_is_planted_is_found_and_nothing_else(tmp_path):
    for name, planted in (
        ("none", {}),
        ("first", {"first": 40}),
        ("longer", {"longer": 50}),
        ("own", {"own": 60}),
    ):
        found = probe("made", comparisons(), Leaning(**planted), tmp_path / name, own=["GPT"])
        p = {one.name: one.difference.p_value for one in found.probes}
        assert set(p) == {"position", "length", "verbosity", "self-preference"}
        assert found.pairs == 160
        low = {key for key, value in p.items() if value < 0.05}
        expected = {
            "none": set(),
            "first": {"position"},
            "longer": PLAIN,
            "own": {"self-preference"},
        }
        assert low == expected[name], (name, p)
    by_name = {one.name: one for one in found.probes}
    own = by_name["self-preference"]
    assert own.difference.estimate.value == pytest.approx(own.share.value - own.without)
    assert own.share.value > own.without
    people = sum(n % 3 != 0 for n in range(160)) / 160
    assert f"people {people:.1%}" in own.what
    assert by_name["position"].without == 0.5


def test_a_longer_is_better_judge_is_moved_by_every_character(tmp_path):
    found = probe("made", comparisons(40), open_judge("longer"), tmp_path)
    by_name = {one.name: one for one in found.probes}
    assert set(by_name) == PLAIN
    for one in by_name.values():
        assert (one.share.value, one.without) == (1.0, 0.5), "as long as the other one before"
        assert one.difference.estimate.value == 0.5
    assert [line.partition(":")[0] for line in found.skipped] == ["position", "self-preference"]


def test_only_one_response_of_a_pair_is_changed_and_the_label_is_not_known(tmp_path):
    seen = []

    class Watches(Leaning):
        def judge(self, pairs):
            seen.extend(pairs)
            return super().judge(pairs)

    probe("made", comparisons(40), Watches(), tmp_path)
    padded = [pair for pair in seen if PADDING in pair.first or PADDING in pair.second]
    assert len(padded) == 80, "each pair in both orders"
    assert all((PADDING in pair.first) != (PADDING in pair.second) for pair in padded)
    right = sum("right" in (p.first if PADDING in p.first else p.second) for p in padded)
    assert 20 < right < 60, "the right one is padded as often as the wrong one"


def test_a_stopped_probe_goes_on_and_nothing_is_asked_twice(tmp_path):
    asked = []

    class Counts(Leaning):
        def judge(self, pairs):
            asked.extend(pairs)
            return super().judge(pairs)

    once = probe("made", comparisons(20), Counts(), tmp_path)
    count = len(asked)
    again = probe("made", comparisons(20), Counts(), tmp_path)
    assert len(asked) == count
    assert [one.share for one in again.probes] == [one.share for one in once.probes]


def test_own_responses_are_known_by_models_or_by_columns(tmp_path):
    (one,) = comparisons(1)
    assert systems_of(one) == ("other", "gpt-x")
    columns = {UNREAD_COLUMNS: {"chosen_model": "a", "rejected_model": "b"}}
    assert systems_of(comparisons(1, models=None, **columns)[0]) == ("a", "b")
    assert systems_of(comparisons(1, models=None)[0]) is None
    item = BenchmarkItem(
        "i", "s", one.prompt, ("a", "b", "c"), (1, 0, 1), "p", labels=("x", "gpt-y", "z")
    )
    assert [systems_of(pair) for pair in pairs_of(item)] == [("gpt-y", "x"), ("gpt-y", "z")]
    assert systems_of(comparisons(1, models=["a", None])[0]) is None
    found = probe("made", comparisons(20), Leaning(), tmp_path, own=["claude"])
    assert "no pair says" in found.skipped[-1]


def test_votes_against_the_chosen_response_turn_whose_win_it_is(tmp_path):
    plain = comparisons(40)
    votes = [
        replace(c, chosen=c.rejected, rejected=c.chosen, judgement=Judgement(1, 2),
                meta={"models": c.meta["models"][::-1]})
        for c in plain
    ]  # fmt: skip
    found = [
        probe("made", of, Leaning(own=60), tmp_path / name, own=["gpt"]).probes[-1]
        for name, of in (("plain", plain), ("votes", votes))
    ]
    assert found[0].what == found[1].what
    assert found[0].difference.estimate.value == found[1].difference.estimate.value


class NamesAPlace:
    """Names the right one of K, but for a fifth of the items, where it names the first shown."""

    name = "names-a-place"
    protocol = {"judge": "names-a-place"}  # noqa: RUF012
    sees_both = True

    def __init__(self, leans: int) -> None:
        self.leans = leans

    def score(self, candidates):
        for shown in candidates:
            texts = shown.responses
            first = hash64("leans", shown.prompt[0].content) % 100 < self.leans
            best = 0 if first else next(n for n, text in enumerate(texts) if "right" in text)
            yield tuple(Score(float(n == best)) for n in range(len(texts)))


def test_a_lean_to_the_first_of_k_is_found(tmp_path):
    items = [
        BenchmarkItem(
            f"k{n}", "made", (Message("user", f"Question {n}?"),),
            (f"right {n}", f"wrong {n}", f"worse {n}", f"worst {n}"), (0, 1, 1, 1), f"q{n}",
        )
        for n in range(150)
    ]  # fmt: skip
    none, some = (
        place_of_k("made", items, NamesAPlace(leans), tmp_path / str(leans), most=120)
        for leans in (0, 30)
    )
    assert (none.without, some.without) == (0.25, 0.25)
    assert none.difference.p_value > 0.05
    assert some.difference.p_value < 0.001
    assert some.difference.estimate.value > 0.1
    assert some.difference.estimate.n == 120
    assert place_of_k("made", [], NamesAPlace(0), tmp_path / "none") is None


def test_nothing_to_ask_is_one_line(tmp_path):
    with pytest.raises(PalateError, match="no decided pair of plain text"):
        probe("made", [], Leaning(), tmp_path)


class Silent:
    """Answers nothing."""

    name = "silent"
    protocol = {"judge": "silent"}  # noqa: RUF012
    sees_both = True

    def judge(self, pairs: Sequence[Pair]) -> Iterator[Preference]:
        for pair in pairs:
            yield Preference(pair.id, None, reason="unparsed")


@pytest.mark.filterwarnings("error")
def test_of_a_judge_that_answers_nothing_nothing_is_known(tmp_path):
    found = probe("made", comparisons(20), Silent(), tmp_path, own=["gpt"])
    assert len(found.probes) == 4
    for one in found.probes:
        assert math.isnan(one.without), one.name
        assert one.difference.estimate.n == 0
        assert one.difference.p_value == 1
