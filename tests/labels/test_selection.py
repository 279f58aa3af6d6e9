"""Which pairs are asked for: what they are worth, and how likely each choice was."""

import math
from collections import Counter

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.special import expit

from palate import stats
from palate.labels.selection import (
    Reason,
    Selection,
    SelectionOptions,
    expected_gain,
    inclusion_probabilities,
    information,
    select,
    systematic_sample,
)
from palate.types import PalateError


def options(budget: int = 20, **changes: float) -> SelectionOptions:
    return SelectionOptions(budget=budget, **{"random": 0.25} | changes)


def pool(prompts: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Worth and group of the pairs of prompts with two to four responses."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(prompts), rng.choice([1, 3, 6], prompts))
    return rng.gamma(0.5, size=groups.size), groups


def reasons(chosen: Selection) -> Counter[str]:
    return Counter(chosen.reason.tolist())


def test_information_is_what_members_disagree_on_not_what_they_are_unsure_of() -> None:
    apart, unsure, agreed = [40.0, -40.0], [0.0, 0.0], [3.0, 3.0]
    assert information([apart, unsure, agreed]) == pytest.approx([math.log(2), 0, 0], abs=1e-9)
    p = expit(np.array([0.3, -1.2, 2.0]))

    def entropy(x: np.ndarray) -> np.ndarray:
        return -x * np.log(x) - (1 - x) * np.log(1 - x)

    by_hand = entropy(p.mean()) - entropy(p).mean()
    assert information([[0.3, -1.2, 2.0]])[0] == pytest.approx(by_hand)
    assert information([[-0.3, 1.2, -2.0]])[0] == pytest.approx(by_hand), "whichever is first"


def test_the_expected_gain_is_the_information_that_two_labels_share() -> None:
    rng = np.random.default_rng(0)
    d, t = rng.normal(size=(7, 5)), rng.normal(size=(300, 5))
    p, q = expit(d), expit(t)
    for pair, got in zip(p, expected_gain(d, t), strict=True):
        shared = 0.0
        for target in q:
            for first in (pair, 1 - pair):
                for other in (target, 1 - target):
                    joint = (first * other).mean()
                    shared += joint * math.log(joint / (first.mean() * other.mean()))
        assert got == pytest.approx(shared / len(q))
    # Members that are sure and part alike on both know one label by the other.
    assert expected_gain([[30.0, -30.0]], [[-30.0, 30.0]]) == pytest.approx([math.log(2)])
    assert expected_gain([[30.0, -30.0]], [[5.0, 5.0]]) == pytest.approx([0], abs=1e-9)
    with pytest.raises(ValueError, match="target pairs"):
        expected_gain(d, np.empty((0, 5)))


def test_inclusion_probabilities_are_proportional_as_far_as_they_can_be() -> None:
    chances = inclusion_probabilities([1, 2, 3, 4], 2)
    assert chances == pytest.approx([0.2, 0.4, 0.6, 0.8])
    chances = inclusion_probabilities([1, 1, 2, 96], 2)
    assert chances == pytest.approx([0.25, 0.25, 0.5, 1])
    assert inclusion_probabilities([0, 0, 5, 0], 2) == pytest.approx([1 / 3, 1 / 3, 1, 1 / 3])
    assert inclusion_probabilities([3, 1], 2) == pytest.approx([1, 1])


def test_a_systematic_sample_has_its_size_and_its_probabilities() -> None:
    chances = inclusion_probabilities([1, 5, 2, 2, 9, 1, 40, 3], 4)
    rng, hits = np.random.default_rng(1), np.zeros(8)
    for _ in range(4_000):
        drawn = systematic_sample(chances, rng)
        assert len(set(drawn.tolist())) == 4
        hits[drawn] += 1
    assert hits / 4_000 == pytest.approx(chances, abs=4 * 0.5 / math.sqrt(4_000))
    assert systematic_sample([], rng).size == 0


def test_pairs_are_chosen_as_often_as_is_said_of_them() -> None:
    """Over draws of the test prompts too: every pair of the pool, by its two ways in."""
    worth, groups = pool(30)
    rng, runs = np.random.default_rng(2), 1_500
    hits, said = Counter[tuple[int, str]](), dict[int, set[float]]()
    for _ in range(runs):
        chosen = select(worth, groups, options(8, test_set=0, reserve=0), rng)
        for pair, chance in zip(chosen.pairs.tolist(), chosen.probability, strict=True):
            hits[pair, ""] += 1
            said.setdefault(pair, set()).add(round(float(chance), 9))
    for pair, chances in said.items():
        (chance,) = chances
        error = math.sqrt(chance * (1 - chance) / runs)
        assert hits[pair, ""] / runs == pytest.approx(chance, abs=5 * error + 1e-9)
    # Nobody is left out: 2 of 8 are spread evenly over 30 prompts, if no prompt is certain.
    sizes = np.bincount(groups)
    assert min(min(c) * sizes[groups[p]] for p, c in said.items()) > 0.5 * 2 / 30


def test_weighted_by_their_probabilities_the_labels_speak_for_the_pool() -> None:
    """Hajek's ratio over held-out and over drawn pairs; the plain mean of the drawn is far off."""
    worth, groups = pool(200)
    right = np.random.default_rng(3).random(worth.size) < expit(2 - 2 * np.sqrt(worth))
    truth, rng = right.mean(), np.random.default_rng(4)
    covered, plain, held_out = [], [], []
    for _ in range(400):
        chosen = select(worth, groups, options(80, test_set=20, random=0.3, reserve=0.3), rng)
        tests = chosen.reason == Reason.HELD_OUT
        for part, found in ((tests, held_out), (~tests, covered)):
            estimate = stats.accuracy(
                right[chosen.pairs[part]], groups[chosen.pairs[part]],
                probabilities=chosen.probability[part],
            )  # fmt: skip
            found.append((estimate.value, estimate.low <= truth <= estimate.high))
        plain.append(right[chosen.pairs[~tests]].mean())
    for found in (covered, held_out):
        values, inside = np.array(found).T
        # A ratio's bias is of the order of its variance, 1 / n.
        assert values.mean() == pytest.approx(truth, abs=4 * values.std() / 20 + 0.01)
        assert 0.92 < inside.mean() <= 1
    assert np.mean(plain) < truth - 0.05


def test_the_estimate_on_held_out_prompts_stays_unbiased_through_ten_rounds() -> None:
    """One pool, asked again and again for what is left: the harder prompts go first."""
    worth, groups = pool(500)
    difficulty = np.random.default_rng(5).normal(size=500)[groups]
    right = np.random.default_rng(6).random(worth.size) < expit(1.5 - difficulty - np.sqrt(worth))
    per_prompt = np.bincount(groups, weights=right) / np.bincount(groups)
    truth, rng = right.mean(), np.random.default_rng(7)
    assert abs(truth - per_prompt.mean()) < 0.2
    found, selected = [], []
    for _ in range(150):
        ranks = rng.integers(0, 2**64, 500, dtype=np.uint64)
        closed, rounds = np.zeros(500, dtype=bool), []
        for _week in range(10):
            chosen = select(
                worth, groups, options(30, test_set=8, reserve=0.3), rng, ranks=ranks,
                asked=closed,
            )  # fmt: skip
            tests = chosen.reason == Reason.HELD_OUT
            kept = options(30, reserve=0.3).keeps(ranks)[groups[chosen.pairs]]
            assert (kept == tests).all(), "what is kept for testing is never chosen to train on"
            assert not closed[groups[chosen.pairs]].any()
            closed[groups[chosen.pairs]] = True
            rounds.append(chosen)
        pairs, chance, reason = (
            np.concatenate([getattr(one, name) for one in rounds])
            for name in ("pairs", "probability", "reason")
        )
        tests = reason == Reason.HELD_OUT
        estimate = stats.accuracy(
            right[pairs[tests]], groups[pairs[tests]], probabilities=chance[tests]
        )
        found.append((estimate.value, estimate.low <= truth <= estimate.high))
        selected.append(right[pairs[~tests]].mean())
    values, inside = np.array(found).T
    assert values.mean() == pytest.approx(truth, abs=4 * values.std() / math.sqrt(150) + 0.01)
    # 95 %; the error of a share of 150 is 0.018.
    assert inside.mean() > 0.95 - 3 * 0.018


def test_as_many_as_asked_for_at_most_so_many_a_prompt_in_a_random_order() -> None:
    worth, groups = pool()
    for most in (1, 2):
        wanted = options(40, test_set=4, reserve=0.2, pairs_per_prompt=most)
        chosen = select(worth, groups, wanted, np.random.default_rng(8))
        assert len(set(chosen.pairs.tolist())) == 40
        assert max(Counter(groups[chosen.pairs].tolist()).values()) == most
        assert reasons(chosen)["held-out"] == 4
        assert ((chosen.probability > 0) & (chosen.probability <= 1)).all()
    again = select(worth, groups, wanted, np.random.default_rng(8))
    assert (again.pairs == chosen.pairs).all()
    places = [np.flatnonzero(select(worth, groups, wanted, np.random.default_rng(n)).reason
                             == "held-out") for n in range(20)]  # fmt: skip
    assert 15 < np.mean(places) < 24, "anywhere among the others"


def test_shares_are_those_asked_for() -> None:
    worth, groups = pool(400)
    about = np.arange(400) < 80
    rng, counts, safe = np.random.default_rng(9), Counter[str](), []
    for _ in range(40):
        wanted = options(100, test_set=0.1, random=0.5, safety=0.3, reserve=0.2)
        chosen = select(worth, groups, wanted, rng, safety=about)
        counts += reasons(chosen)
        training = chosen.reason != "held-out"
        safe.append(about[groups[chosen.pairs[training]]].sum())
    assert counts["held-out"] == 400
    # What each part gives; certain ones shift it a little.
    assert set(safe) == {27}, "three of ten, to the one"
    assert counts["safety"] / 40 == pytest.approx(27 - 18, abs=3)
    assert counts["random"] / (counts["random"] + counts["information"]) == pytest.approx(
        0.5, abs=0.06
    )
    chosen = select(worth, groups, options(50, random=1.0), rng)
    assert set(reasons(chosen)) == {"held-out", "random"}
    useless = select(0 * worth, groups, options(50, random=0.0), rng)
    assert useless.pairs.size == 50, "where nothing is worth more, all are as likely"


def test_similar_prompts_are_not_taken_together() -> None:
    """Along a line of topics a systematic sample takes of each what its worth is, within one."""
    groups, topics = np.arange(300), np.arange(300) % 10
    worth = np.ones(300)
    wanted = options(50, test_set=0, reserve=0)
    for seed in range(20):
        chosen = select(worth, groups, wanted, np.random.default_rng(seed), along=topics)
        assert set(Counter(topics[chosen.pairs].tolist()).values()) == {5}


def test_near_duplicates_are_asked_once_and_not_beside_a_test_question() -> None:
    """Prompts in threes: the first is near to both others, which are not near to each other."""
    groups, worth = np.arange(300), np.ones(300)
    near = [(n, n + k) for n in range(0, 300, 3) for k in (1, 2)]
    wanted = options(60, test_set=20, reserve=0.3)
    for seed in range(20):
        chosen = select(worth, groups, wanted, np.random.default_rng(seed), near=near)
        tests = chosen.pairs[chosen.reason == "held-out"].tolist()
        trained = chosen.pairs[chosen.reason != "held-out"].tolist()
        families = Counter(pair // 3 for pair in trained)
        assert set(families.values()) == {1}
        beside = {pair + k for pair in tests for k in ((1, 2) if pair % 3 == 0 else (-(pair % 3),))}
        assert not beside & set(trained)
    apart = np.arange(300) < 200
    chosen = select(worth, groups, wanted, np.random.default_rng(0), apart=apart)
    assert (chosen.pairs[chosen.reason != "held-out"] >= 200).all()
    assert (chosen.pairs[chosen.reason == "held-out"] < 200).any()


def test_a_higher_power_is_greedier() -> None:
    worth, groups = pool(300)
    means = []
    for power in (0.0, 1.0, 4.0):
        chosen = select(
            worth, groups, options(40, random=0.0, power=power, test_set=0),
            np.random.default_rng(10),
        )  # fmt: skip
        means.append(worth[chosen.pairs].mean())
    assert means[0] < means[1] < means[2]
    greedy = options(10, random=0.0, power=400.0, test_set=0, reserve=0)
    least = 1e-6 * worth  # To that power no float holds it.
    chosen = select(least, groups, greedy, np.random.default_rng(10))
    assert least.max() in least[chosen.pairs]


def test_what_cannot_be_had_is_a_line_with_the_cure() -> None:
    worth, groups = pool(30)
    rng = np.random.default_rng(11)
    with pytest.raises(PalateError, match=r"budget 40: besides 0 held-out pairs there are 30 to"):
        select(worth, groups, options(40, test_set=0, reserve=0), rng)
    with pytest.raises(PalateError, match=r"test set: 5 pairs .* 0 prompts .* \(reserve 0\)"):
        select(worth, groups, options(20, test_set=5, reserve=0), rng)
    with pytest.raises(PalateError, match="test set 30: more than the budget of 20"):
        select(worth, groups, options(20, test_set=30), rng)
    with pytest.raises(PalateError, match="safety: 2 pairs are to be about it, and 0 of"):
        select(worth, groups, options(10, safety=0.2, test_set=0), rng)
    with pytest.raises(ValueError, match="worths of 0 or more"):
        select(-worth, groups, options(10), rng)
    with pytest.raises(ValidationError, match="a share below 1 or a whole number"):
        options(20, test_set=1.5)
    for wrong in ({"power": math.nan}, {"random": math.nan}, {"power": math.inf}, {"seed": -1}):
        with pytest.raises(ValidationError, match=next(iter(wrong))):
            options(20, **wrong)
    assert (options(20, test_set=7).held_out, options(20).held_out) == (7, 2)
