"""People's share for a system through a judge that errs, for each system beside it."""

import math
from collections.abc import Iterator, Sequence

import pytest

from palate.data.prompts import hash64
from palate.evaluate.win_rate import win_rates
from palate.types import Comparison, Judgement, Message, Pair, PalateError, Preference


def rows(count: int, share: int, kind: str, other: str = "old") -> list[Comparison]:
    """Comparisons of `mine` with another, of which people prefer mine in `share` of a hundred."""
    made = []
    for n in range(count):
        wins = hash64(kind, f"{n}") % 100 < share
        texts = {
            "mine": f"mine {kind} {n} {int(wins)}",
            other: f"{other} {kind} {n} {int(not wins)}",
        }
        best, worst = ("mine", other) if wins else (other, "mine")
        made.append(
            Comparison(
                f"{kind}{other}{n}", "made", (Message("user", f"{kind} {n}?"),), texts[best],
                texts[worst], f"{kind}{n}", meta={"models": [best, worst]},
            )
        )  # fmt: skip
    return made


class Biased:
    """Gives mine what people give it nine times in ten, and the other its due six times in ten."""

    name = "biased"
    protocol = {"judge": "biased"}  # noqa: RUF012
    sees_both = True

    def judge(self, pairs: Sequence[Pair]) -> Iterator[Preference]:
        for pair in pairs:
            mine = pair.first if pair.first.startswith("mine") else pair.second
            wins = mine.endswith("1")
            agrees = hash64("biased", mine) % 100 < (90 if wins else 60)
            gives = wins if agrees else not wins
            yield Preference(pair.id, "first" if (mine == pair.first) == gives else "second")


def test_the_judge_s_favour_is_taken_out(tmp_path):
    (one,) = win_rates(Biased(), rows(800, 45, "new"), rows(600, 50, "seen"), "mine", tmp_path)
    truth = sum(c.meta["models"][0] == "mine" for c in rows(800, 45, "new")) / 800
    found = one.found
    assert (one.system, one.other) == ("mine", "old")
    assert found.sensitivity.value == pytest.approx(0.9, abs=0.03)
    assert found.specificity.value == pytest.approx(0.6, abs=0.09)
    assert found.judged.low > truth + 0.1, "its own word favours mine"
    assert found.estimate.low < truth < found.estimate.high
    assert found.estimate.n == 800


def test_labels_of_what_only_the_judge_sees_are_not_read(tmp_path):
    new, seen = rows(200, 45, "new"), rows(300, 50, "seen")
    turned = [
        Comparison(
            c.id, c.source, c.prompt, c.rejected, c.chosen, c.prompt_id,
            meta={"models": c.meta["models"][::-1]}, judgement=Judgement(0, 1),
        )
        for c in new
    ]  # fmt: skip
    (one,) = win_rates(Biased(), new, seen, "mine", tmp_path / "a")
    (two,) = win_rates(Biased(), turned, seen, "mine", tmp_path / "b")
    assert one.found.estimate.value == two.found.estimate.value


def test_each_other_system_has_errors_of_its_own_and_none_is_refused(tmp_path):
    new = rows(100, 45, "new") + rows(100, 45, "new", "older")
    found = win_rates(Biased(), new, rows(200, 50, "seen"), "mine", tmp_path)
    assert [one.other for one in found] == ["old", "older"]
    assert found[0].found.estimate is not None
    assert found[1].found.estimate is None
    assert "decided 0 labelled comparisons for it and 0 against" in found[1].found.reason
    assert not math.isnan(found[1].found.judged.value)


def test_a_system_that_stands_in_no_comparison_is_one_line(tmp_path):
    with pytest.raises(
        PalateError, match=r"'yours'.*chosen_model and rejected_model; there are 'mine', 'old'"
    ):
        win_rates(Biased(), rows(9, 50, "new"), rows(9, 50, "seen"), "yours", tmp_path)
    # The judge's errors are not independent of what they were measured on.
    with pytest.raises(PalateError, match="9 of 12 comparisons are among the labelled ones too"):
        win_rates(Biased(), rows(12, 50, "new"), rows(9, 50, "new"), "mine", tmp_path)
