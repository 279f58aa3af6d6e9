"""Votes on one pair become one comparison by a stated rule."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from made import made
from palate import load_comparisons
from palate.data.annotators import RULES, Disagreement, Votes, aggregate, answers_of
from palate.recipe.schema import SourceConfig
from palate.types import PREFERRED, Judgement, PalateError, Ranks, Rating

TIE = Judgement(chosen=0, tie=1)
BOTH_BAD = Judgement(chosen=0, both_bad=1)
MERGING = [rule for rule in RULES if rule != "separate"]


def votes(answers, **fields):
    """One row for each letter: a and b prefer a side, t is a tie, x both bad."""
    for number, answer in enumerate(answers):
        sides = {"chosen": "B", "rejected": "A"} if answer == "b" else {}
        judgement = {"t": TIE, "x": BOTH_BAD}.get(answer, PREFERRED)
        row = made(**{"chosen": "A", "rejected": "B", **sides, **fields})
        name = f"annotator-{number}"
        yield replace(row, id=f"{answer}{number}", annotator=name, judgement=judgement)


def pair(answers, rule, **fields):
    (row,) = aggregate(votes(answers, **fields), rule)
    return row


def test_separate_leaves_rows_as_they_are():
    rows = list(votes("aab"))
    assert list(aggregate(rows, "separate")) == rows


@pytest.mark.parametrize(
    ("answers", "rule", "chosen", "judgement"),
    [
        ("aab", "votes", "A", Judgement(2, 1)),
        ("abb", "votes", "B", Judgement(2, 1)),
        ("bbtx", "votes", "B", Judgement(2, 0, 1, 1)),
        ("ba", "votes", "B", Judgement(1, 1)),
        ("aab", "majority", "A", PREFERRED),
        ("bta", "majority", "B", TIE),
        ("ttb", "majority", "A", TIE),
        ("xxta", "majority", "A", BOTH_BAD),
        ("aabb", "majority", "A", TIE),
        ("abb", "mean", "B", Judgement(2 / 3, 1 / 3)),
        ("attx", "mean", "A", Judgement(1 / 4, 0, 1 / 2, 1 / 4)),
        ("aaa", "mean", "A", PREFERRED),
    ],
)
def test_each_rule_by_hand(answers, rule, chosen, judgement):
    row = pair(answers, rule)
    assert row.chosen == chosen
    assert row.judgement.total == pytest.approx(judgement.total)
    for name in Judgement.__slots__:
        assert getattr(row.judgement, name) == pytest.approx(getattr(judgement, name)), name


@pytest.mark.parametrize("rule", MERGING)
def test_a_pair_has_one_row_that_keeps_who_said_what(rule):
    rows = [*votes("aab"), *votes("bb", chosen="C", rejected="D")]
    rows[0] = replace(rows[0], rating=Rating.BETTER, ranks=Ranks("r", 0, 1))
    first, second = aggregate(rows, rule)
    assert {first.annotator, first.ranks} == {None}
    assert first.prompt_id == rows[0].prompt_id
    assert first.meta["votes"] == [
        {"annotator": "annotator-0", "vote": "chosen", "rating": "better"},
        {"annotator": "annotator-1", "vote": "chosen"},
        {"annotator": "annotator-2", "vote": "rejected"},
    ]
    assert len({first.id, second.id, *(row.id for row in rows)}) == 7


@pytest.mark.parametrize("rule", MERGING)
def test_ids_and_judgements_do_not_depend_on_the_order_of_rows(rule):
    rows = [r for text in "CDEF" for r in votes("aabta", rejected=text)]
    found = {row.id: row.judgement.shares for row in aggregate(rows, rule)}
    order = np.random.default_rng(0).permutation(len(rows))
    again = {row.id: row.judgement.shares for row in aggregate([rows[i] for i in order], rule)}
    assert found.keys() == again.keys()
    for name, shares in found.items():
        assert again[name] == pytest.approx(shares, abs=1e-9)


def test_the_weight_is_the_mean_and_the_shares_of_a_mean_are_weighted():
    rows = [
        replace(row, judgement=replace(row.judgement, weight=weight))
        for row, weight in zip(votes("ab"), (3, 1), strict=True)
    ]
    (row,) = aggregate(rows, "mean")
    assert row.judgement == Judgement(0.75, 0.25, weight=2)
    (row,) = aggregate(rows, "votes")
    assert row.judgement == Judgement(1, 1, weight=2)


def test_the_rating_is_the_mean_strength_towards_the_chosen_side():
    def rated(answers, *ratings):
        rows = [
            replace(r, rating=g and Rating(g)) for r, g in zip(votes(answers), ratings, strict=True)
        ]
        return next(iter(aggregate(rows, "majority"))).rating

    assert rated("aaa", 4, 4, 3) is Rating.SIGNIFICANTLY
    assert rated("aab", 3, 3, 2) is Rating.NEGLIGIBLY  # (3 + 3 - 2) / 3 = 1.3
    assert rated("aab", 1, 1, 4) is Rating.NEGLIGIBLY  # Below zero: the lowest.
    assert rated("aat", 3, 3, None) is Rating.SLIGHTLY
    assert rated("aa", None, 3) is Rating.BETTER
    assert rated("aa", None, None) is None
    assert rated("ab", 3, 3) is None


def test_safety_is_that_of_most_rows():
    rows = list(votes("aab"))
    labels = [(True, False), (True, None), (True, True)]  # The last one's chosen side is B.
    rows = [
        replace(r, chosen_safe=c, rejected_safe=d) for r, (c, d) in zip(rows, labels, strict=True)
    ]
    (row,) = aggregate(rows, "majority")
    assert (row.chosen_safe, row.rejected_safe) == (True, None)


def test_what_a_row_says_of_its_sides_stays_true():
    rows = [
        replace(row, meta={"file": "f", "row": at, "models": [row.chosen, row.rejected]})
        for at, row in enumerate(votes("abb"))
    ]
    (row,) = aggregate(rows, "majority")
    assert (row.chosen, row.meta["models"], row.meta["row"]) == ("B", ["B", "A"], 1)


def test_an_annotators_first_answer_counts_and_rows_without_a_name_are_a_vote_each(warned):
    first, second, _ = rows = list(votes("aba"))
    again = replace(second, annotator=first.annotator)
    assert [r.judgement for r in aggregate([first, again], "votes")] == [PREFERRED]
    assert [line.partition(",")[0] for line in warned] == ["annotators: 1 answers left out"]
    unnamed = [replace(row, annotator=None) for row in rows]
    assert [r.judgement for r in aggregate(unnamed, "votes")] == [Judgement(2, 1)]


def test_dawid_skene_takes_the_word_of_those_who_are_reliable():
    rng = np.random.default_rng(0)
    reliability = [0.95, 0.95, 0.55, 0.5, 0.5]
    rows, truth = [], []
    for number in range(150):
        truth.append("ab"[number % 2])
        right = rng.random(len(reliability)) < reliability
        said = [truth[-1] if ok else "ba"[number % 2] for ok in right]
        rows += votes(said, prompt=f"Question {number}?")
    share_right = {}
    for rule in ("majority", "dawid-skene"):
        chosen = [row.chosen.lower() for row in aggregate(rows, rule)]
        share_right[rule] = np.mean([c == t for c, t in zip(chosen, truth, strict=True)])
    assert share_right["dawid-skene"] > share_right["majority"] + 0.05


def test_dawid_skene_says_what_it_lacks():
    with pytest.raises(PalateError, match=r"row has no annotator.*majority"):
        list(aggregate([replace(next(votes("a")), annotator=None)], "dawid-skene"))
    with pytest.raises(PalateError, match="several annotators judged, and there is none"):
        list(aggregate(votes("a"), "dawid-skene"))


def test_an_unknown_rule_names_the_known_ones():
    with pytest.raises(PalateError, match=r"separate, votes, majority.*'median'"):
        list(aggregate([], "median"))


def test_ties_are_what_the_rule_makes_a_tie():
    rows = [
        {"prompt": "Q?", "chosen": "A", "rejected": "B", "annotator": name} for name in "xy"
    ] + [
        {"prompt": "R?", "chosen": first, "rejected": other, "annotator": name}
        for name, first, other in ("xCD", "yDC")
    ]
    bad = []
    kept = load_comparisons(rows, annotators="majority", on_bad=bad.append)
    assert [row.chosen for row in kept] == ["A"]
    assert [row.kind for row in bad] == ["tie"]
    assert len(load_comparisons(rows, annotators="majority", ties="keep")) == 2


def test_a_recipe_without_the_rule_is_written_down_as_before():
    assert "annotators" not in SourceConfig(source="own").model_dump(mode="json")
    config = SourceConfig.model_validate({"source": "own", "annotators": {"rule": "votes"}})
    assert config.model_dump(mode="json")["annotators"] == {"rule": "votes"}


@pytest.mark.parametrize("rule", MERGING)
def test_votes_that_were_aggregated_are_aggregated_anew_by_another_rule(rule):
    rows = [row for text in "CD" for row in votes("aabtx", rejected=text)]
    rows[0] = replace(rows[0], rating=Rating.BETTER)
    assert list(aggregate(aggregate(rows, "majority"), rule)) == list(aggregate(rows, rule))


def test_counts_of_votes_are_votes_before_and_after_aggregation():
    (row,) = votes("a")
    counted = replace(row, annotator=None, judgement=Judgement(3, 2, 1, weight=2))
    said = {"chosen": 3, "rejected": 2, "tie": 1}
    assert Counter(answers_of(counted)) == {(None, name): n for name, n in said.items()}
    (summed,) = aggregate([counted], "votes")
    assert summed.judgement == counted.judgement
    assert Counter(answers_of(summed)) == Counter(answers_of(counted))
    (mean,) = aggregate([summed], "mean")
    assert mean.judgement.shares == pytest.approx(counted.judgement.shares)
    share = replace(counted, judgement=Judgement(0.7, 0.3))
    assert answers_of(share) == [(None, "chosen")]
    assert answers_of(replace(counted, annotator="a")) == [("a", "chosen")]


# How far annotators agree.


def disagreement(rows):
    collected = Votes()
    for row in rows:
        collected.add(row)
    return collected.disagreement()


def campaign(reliability, pairs=120, batches=1):
    """Votes of every annotator on every pair; `reliability` is the chance to name A."""
    rng = np.random.default_rng(5)
    return [
        row
        for number in range(pairs)
        for row in votes(
            ["a" if rng.random() < share else "b" for share in reliability],
            prompt=f"Question {number}?",
            batch=f"week-{number % batches}",
        )
    ]


def test_disagreement_counts_by_source_and_batch():
    rows = [*votes("aat"), *votes("ab", prompt="Other?", batch="late"), made(prompt="Unnamed?")]
    found = disagreement(rows)
    whole, early, late = found.groups
    assert (whole.batch, whole.pairs, whole.votes, whole.annotators) == ("", 2, 5, 3)
    assert whole.agreement.value == pytest.approx((1 / 3 + 0) / 2)
    assert whole.ties.value == 1 / 5
    assert (early.batch, early.votes, late.batch, late.votes) == ("", 3, "late", 2)
    assert {one.name: one.votes for one in found.annotators} == {
        "annotator-0": 2, "annotator-1": 2, "annotator-2": 1,
    }  # fmt: skip
    assert Disagreement.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_disagreement_is_the_same_before_and_after_aggregation():
    rows = campaign([0.9, 0.8, 0.7], pairs=30)
    before, after = disagreement(rows), disagreement(aggregate(rows, "mean"))
    assert before == after


def test_who_answers_at_random_is_far_from_the_rest_and_nobody_else_is():
    found = disagreement(campaign([0.9, 0.9, 0.9, 0.85, 0.5]))
    assert [one.name for one in found.annotators if one.is_far] == ["annotator-4"]
    assert found.annotators[0].name == "annotator-4"
    assert any("annotator-4 agrees with the others in" in line for line in found.lines())


def test_no_pair_with_two_named_votes_is_no_disagreement():
    assert disagreement([made(), made(annotator="ann")]) == Disagreement()
    assert disagreement([]).lines() == []


def test_an_annotator_does_not_agree_with_themselves():
    (first,) = votes("a")
    again = replace(first, id="again")
    assert disagreement([first, again]) == Disagreement()


def test_mt_bench_annotators(data_root):
    rows = load_comparisons("mtbench-human", data=data_root, ties="keep", on_bad=lambda _: None)
    found = disagreement(rows)
    (group,) = found.groups
    assert (group.annotators, group.votes, group.agreement.n) == (65, 882, 209)
    assert group.alpha.low < group.alpha.value < group.alpha.high
    assert not any(one.is_far for one in found.annotators)


def test_pandalm_has_three_votes_a_pair(data_root):
    rows = load_comparisons(
        "pandalm", data=data_root, ties="keep", annotators="votes", on_bad=lambda _: None
    )
    assert len(rows) == 861
    assert {row.judgement.total for row in rows} == {3}
