"""Kappa and alpha against published and hand-made figures."""

import math

import numpy as np
import pytest
from scipy.stats import t as student
from statsmodels.stats.inter_rater import cohens_kappa

from palate import stats
from palate.stats import cohen_kappa, krippendorff_alpha

# Krippendorff (2011), section C: four observers, twelve units, some not observed.
OBSERVED = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
]


def labels():
    found = [(v, u) for row in OBSERVED for u, v in enumerate(row) if v is not None]
    return [v for v, _ in found], [u for _, u in found]


@pytest.mark.parametrize(("distance", "expected"), [("nominal", 0.743), ("interval", 0.849)])
def test_alpha_of_krippendorffs_example(distance, expected):
    values, units = labels()
    found = krippendorff_alpha(values, units, rng=np.random.default_rng(0), distance=distance)
    assert found.value == pytest.approx(expected, abs=5e-4)
    assert (found.n, found.n_unscored, found.n_clusters) == (40, 1, 11)
    assert found.low < found.value < found.high


def test_alpha_does_not_depend_on_the_order_of_labels_or_their_names():
    values, units = labels()
    rng = np.random.default_rng(0)
    order = rng.permutation(len(values))
    shuffled = krippendorff_alpha(
        [10 - values[i] for i in order], [f"u{units[i]}" for i in order], rng=rng
    )
    assert shuffled.value == pytest.approx(0.743, abs=5e-4)


def test_alpha_is_one_without_disagreement_and_near_zero_by_chance():
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 2, 400)
    same = krippendorff_alpha(np.tile(truth, 2), np.tile(np.arange(400), 2), rng=rng)
    assert same.value == 1.0
    thrown = krippendorff_alpha(rng.integers(0, 2, 800), np.tile(np.arange(400), 2), rng=rng)
    assert thrown.low < 0 < thrown.high


def test_alphas_interval_is_of_clusters_not_of_items():
    rng = np.random.default_rng(2)
    truth = np.repeat(rng.integers(0, 2, 20), 10)
    wrong = np.repeat(rng.random(20) < 0.2, 10)
    both = np.concatenate([truth, np.where(wrong, 1 - truth, truth)])
    items, clusters = np.tile(np.arange(200), 2), np.tile(np.repeat(np.arange(20), 10), 2)
    alone = krippendorff_alpha(both, items, rng=np.random.default_rng(3))
    whole = krippendorff_alpha(both, items, clusters, rng=np.random.default_rng(3))
    assert alone.value == whole.value
    assert whole.error > 2 * alone.error


def test_nothing_to_say_is_nan():
    rng = np.random.default_rng(0)
    for values, items in (([], []), ([1], ["a"]), ([1, 1, 1, 1], "aabb"), ([1, 0], "aa")):
        found = krippendorff_alpha(values, list(items), rng=rng)
        assert math.isnan(found.value), values
    for first, second in (([], []), ([1, 1], [1, 1])):
        assert math.isnan(cohen_kappa(first, second).value)


def test_kappa_of_a_table_by_hand():
    """20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: p = 0.7, e = 0.5, kappa = 0.4."""
    first = [1] * 25 + [0] * 25
    second = [1] * 20 + [0] * 5 + [1] * 10 + [0] * 15
    found = cohen_kappa(first, second)
    assert found.value == pytest.approx(0.4)
    assert found.low < 0.4 < found.high
    assert (found.n, cohen_kappa([1, 0], [1, 0]).value) == (50, 1.0)
    with pytest.raises(ValueError, match="expected the same items"):
        cohen_kappa([1], [1, 0])


@pytest.mark.parametrize("labels", [2, 4])
def test_kappa_and_its_interval_are_those_of_statsmodels(labels):
    rng = np.random.default_rng(labels)
    first = rng.integers(0, labels, 300)
    second = np.where(rng.random(300) < 0.3, rng.integers(0, 2, 300), first)
    table = np.zeros((labels, labels))
    np.add.at(table, (first, second), 1)
    theirs, found = cohens_kappa(table), cohen_kappa(first, second)
    assert found.value == pytest.approx(theirs.kappa)
    assert found.error == pytest.approx(theirs.std_kappa)
    assert (found.low, found.high) == pytest.approx((theirs.kappa_low, theirs.kappa_upp))


def test_kappa_of_people_who_never_use_the_same_label_is_zero():
    found = cohen_kappa([0] * 5, [1] * 5)
    assert (found.value, found.error) == (0.0, 0.0)


# The limit set by annotators: by hand and against annotators who were drawn.


def test_agreement_by_hand():
    # Item a: 2 of 3 agree: 1 of 3 pairs. Item b: both agree. Item c: one label, no pair.
    found = stats.noise_ceiling([1, 1, 0, 0, 0, 1], list("aaabbc"), fingerprint="f")
    assert found.agreement.value == pytest.approx((1 / 3 + 1) / 2)
    assert found.ceiling.value == pytest.approx((1 + (1 / 3) ** 0.5) / 2)
    assert (found.agreement.n, found.agreement.n_unscored) == (2, 1)
    assert found.ceiling.fingerprint == "f"
    assert stats.noise_ceiling([1, 0], ["a", "b"]) is None


@pytest.mark.parametrize("alike", [True, False])
def test_the_best_judge_lies_between_agreement_and_ceiling(alike):
    rng, items, annotators = np.random.default_rng(0), 4_000, 3
    q = np.full(items, 0.8) if alike else rng.beta(2, 2, items)
    labels = rng.random((items, annotators)) < q[:, None]
    found = stats.noise_ceiling(labels.ravel(), np.repeat(np.arange(items), annotators))
    best = np.maximum(q, 1 - q).mean()
    assert found.agreement.value < best < found.ceiling.high
    if alike:
        assert found.ceiling.low <= best <= found.ceiling.high
    assert found.ceiling.low < found.ceiling.value < found.ceiling.high
    assert found.ceiling.error > 0


def test_annotators_who_toss_coins_leave_a_judge_nothing_to_know():
    rng = np.random.default_rng(1)
    labels = rng.random(6_000) < 0.5
    found = stats.noise_ceiling(labels, np.repeat(np.arange(2_000), 3))
    assert found.ceiling.low == 0.5
    assert found.ceiling.value < 0.6


def test_items_of_a_prompt_are_one_cluster():
    labels, items = [1, 1, 0, 0, 1, 0, 1, 1], np.repeat(np.arange(4), 2)
    found = stats.noise_ceiling(labels, items, np.repeat(["p", "q"], 4))
    assert (found.agreement.n, found.agreement.n_clusters) == (4, 2)


# A planted bias of position is found; judges without one show none.


def test_position_by_hand():
    one, other = [1, 1, 0, 0.5, math.nan], [1, 0, 0, 1, 1]
    same = stats.consistent(one, other)
    assert list(same[:4]) == [1, 0, 1, 0]
    assert math.isnan(same[4])
    first = stats.chose_first(one, other, [True, True, True, True, True])
    assert list(first[:4]) == [0.5, 1.0, 0.5, 0.25]
    assert math.isnan(first[4])
    assert stats.chose_first([1], [0], [False]) == [0.0]


@pytest.mark.parametrize("accuracy", [0.5, 0.8])
@pytest.mark.parametrize("bias", [0.0, 0.3])
def test_a_planted_position_bias_is_found_whatever_the_accuracy(accuracy, bias):
    rng, items = np.random.default_rng(1), 4_000
    chosen_first = rng.random(items) < 0.5

    def answers(stands_first):
        fair = rng.random(items) < accuracy
        return np.where(rng.random(items) < bias, stands_first, fair).astype(float)

    one, other = answers(chosen_first), answers(~chosen_first)
    found = stats.accuracy(stats.chose_first(one, other, chosen_first))
    assert found.low <= 0.5 + bias / 2 <= found.high
    assert (found.low > 0.5) == (bias > 0)


# Dawid-Skene.


def slow_dawid_skene(votes, prior_votes):
    """The same by dictionaries and products: {(item, annotator): outcome of 0, 1, 2}."""
    items, people = sorted({i for i, _ in votes}), sorted({a for _, a in votes})

    def chance(said, truth, d, q):
        if truth == 1:
            return q if said == 1 else (1 - q) / 2
        return d[said if truth == 0 else 2 - said]

    def em(who, prior, names):
        z = {i: [0.0] * 3 for i in items}
        for (i, _), said in votes.items():
            z[i][said] += 1
        z = {i: [n / sum(counts) for n in counts] for i, counts in z.items()}
        gain, before = math.inf, -math.inf
        while gain > 1e-8 * len(votes):
            t = sum(z[i][1] for i in items) / len(items)
            d, q = {}, {}
            for a in names:
                own = [(i, said) for (i, b), said in votes.items() if who(b) == a]
                counts = list(prior[0])
                tied, ties = prior[1], prior[2]
                for i, said in own:
                    counts[said] += z[i][0]
                    counts[2 - said] += z[i][2]
                    ties += z[i][1]
                    tied += z[i][1] * (said == 1)
                d[a], q[a] = [n / sum(counts) for n in counts], tied / ties
            total = 0.0
            for i in items:
                p = [(1 - t) / 2, t, (1 - t) / 2]
                for (j, b), said in votes.items():
                    if i == j:
                        a = who(b)
                        p = [p[k] * chance(said, k, d[a], q[a]) for k in range(3)]
                total += math.log(sum(p))
                z[i] = [x / sum(p) for x in p]
            for a in names:
                total += sum(n * math.log(p) for n, p in zip(prior[0], d[a], strict=True))
                if prior[2]:
                    total += prior[1] * math.log(q[a]) + (prior[2] - prior[1]) * math.log(1 - q[a])
            gain, before = total - before, total
        return z, d, q

    _, d, q = em(lambda _: "all", ([0.0] * 3, 0.0, 0.0), ["all"])
    prior = [prior_votes * n for n in d["all"]], prior_votes * q["all"], prior_votes
    z, d, q = em(lambda a: a, prior, people)
    return np.array([z[i] for i in items]), np.array([d[a] for a in people]), [q[a] for a in people]


def simulated_votes(rng, items, reliability, each, ties=0.2):
    """Truth [N] and rows (item, annotator, outcome): wrong votes are spread over the other two."""
    truth = rng.choice(3, size=items, p=[(1 - ties) / 2, ties, (1 - ties) / 2])
    rows = []
    for item, outcome in enumerate(truth):
        for person in rng.choice(len(reliability), each, replace=False):
            right = rng.random() < reliability[person]
            said = outcome if right else rng.choice([k for k in range(3) if k != outcome])
            rows.append((item, int(person), int(said)))
    return truth, np.array(rows)


def fitted(rows, **options):
    return stats.dawid_skene(np.eye(3)[rows[:, 2]], rows[:, 0], rows[:, 1], **options)


def test_dawid_skene_is_what_a_slow_one_says():
    rng = np.random.default_rng(1)
    _, rows = simulated_votes(rng, 30, [0.9, 0.8, 0.7, 0.5], 3)
    found = fitted(rows, prior_votes=3)
    shares, decisive, tied = slow_dawid_skene({(i, a): v for i, a, v in rows.tolist()}, 3)
    np.testing.assert_allclose(found.shares, shares, atol=1e-10)
    np.testing.assert_allclose(found.decisive, decisive, atol=1e-10)
    np.testing.assert_allclose(found.tied, tied, atol=1e-10)


def test_dawid_skene_recovers_reliability_and_beats_the_majority():
    rng = np.random.default_rng(2)
    reliability = np.array([0.95, 0.9, 0.85, 0.7, 0.6, 0.5, 0.4, 0.34])
    truth, rows = simulated_votes(rng, 1_500, reliability, 4)
    found = fitted(rows)
    counts = np.zeros((len(truth), 3))
    np.add.at(counts, rows[:, 0], np.eye(3)[rows[:, 2]])
    right, right_by_majority = (
        (shares.argmax(axis=1) == truth).mean() for shares in (found.shares, counts)
    )
    assert right > right_by_majority + 0.03
    # 750 votes each: five binomial errors.
    np.testing.assert_allclose(found.decisive[:, 0], reliability, atol=0.09)
    # The posterior is as sure as it is right.
    assert found.shares.max(axis=1).mean() == pytest.approx(right, abs=0.03)


def test_dawid_skene_climbs_and_knows_no_side():
    rng = np.random.default_rng(3)
    _, rows = simulated_votes(rng, 200, rng.uniform(0.4, 0.9, 30), 2)
    found = fitted(rows)
    assert (np.diff(found.likelihoods) > -1e-9).all()
    turned = rng.random(200) < 0.5
    other = rows.copy()
    other[:, 2] = np.where(turned[rows[:, 0]], 2 - rows[:, 2], rows[:, 2])
    again = fitted(other)
    expected = np.where(turned[:, None], found.shares[:, ::-1], found.shares)
    np.testing.assert_allclose(again.shares, expected, atol=1e-9)


def test_dawid_skene_without_ties_gives_none_and_an_average_annotator_to_single_votes():
    rng = np.random.default_rng(4)
    _, rows = simulated_votes(rng, 300, [0.8] * 5, 3, ties=0)
    rows = rows[rows[:, 2] != 1]
    alone = np.array([[300, 9, 0]])
    found = fitted(np.concatenate([rows, alone]))
    assert found.prior_tie == 0
    np.testing.assert_array_equal(found.shares[:, 1], 0)
    assert np.isfinite(found.shares).all()
    assert found.shares[-1, 0] == pytest.approx(found.decisive[-1, 0], abs=1e-9)
    assert 0.75 < found.shares[-1, 0] < 0.97


def test_dawid_skene_needs_items_with_two_votes():
    with pytest.raises(ValueError, match="no item has two votes"):
        fitted(np.array([[0, 0, 0], [1, 1, 2]]))


# Annotators beside the others.


def test_agreement_of_labels_is_that_of_pairs_of_annotators():
    labels, items = ["a", "a", "b", "a", "a", "t"], [0, 0, 0, 1, 1, 2]
    found = stats.agreement_of_labels(labels, items)
    assert (found.value, found.n, found.n_unscored) == (pytest.approx((1 / 3 + 1) / 2), 2, 1)


def slow_against_others(rows):
    """(agreement, the others', p before Holm) of each annotator, by pairs and clusters."""
    answers = {}
    for item, name, answer, cluster in rows:
        answers.setdefault((item, cluster), {})[name] = answer
    for name in dict.fromkeys(row[1] for row in rows):
        own, theirs = [], []  # (cluster, x) of each label.
        for (_, cluster), given in answers.items():
            for person, answer in given.items():
                beside = [b for p, b in given.items() if p not in (person, name)]
                if person == name:
                    beside = [b for p, b in given.items() if p != name]
                if beside:
                    x = sum(b == answer for b in beside) / len(beside)
                    (own if person == name else theirs).append((cluster, x))
        mean, other = (sum(x for _, x in side) / len(side) for side in (own, theirs))
        pooled = (sum(x for _, x in own + theirs)) / (len(own) + len(theirs))
        total = 0.0
        for cluster in {c for c, _ in own + theirs}:
            one = sum(x - pooled for c, x in own if c == cluster) / len(own)
            total += (one - sum(x - pooled for c, x in theirs if c == cluster) / len(theirs)) ** 2
        size = min(len({c for c, _ in side}) for side in (own, theirs))
        t = (mean - other) / math.sqrt(size / (size - 1) * total)
        yield mean, other, 2 * student.sf(abs(t), size - 1)


def test_against_others_is_what_pairs_of_labels_say():
    rng = np.random.default_rng(0)
    _, rows = simulated_votes(rng, 40, [0.9, 0.9, 0.8, 0.8, 0.4], 3)
    rows = [(i, f"p{a}", v, i // 2) for i, a, v in rows.tolist()]
    items, names, labels, clusters = zip(*rows, strict=True)
    found = stats.against_others(labels, items, names, clusters)
    slow = list(slow_against_others(rows))
    assert [one.annotator for one in found] == list(dict.fromkeys(names))
    adjusted = stats.holm([p for *_, p in slow])
    for one, (mean, other, _), p in zip(found, slow, adjusted, strict=True):
        assert one.agreement.value == pytest.approx(mean)
        assert one.others == pytest.approx(other)
        assert one.p_value == pytest.approx(p)


def test_alike_annotators_are_seldom_far_from_the_rest():
    rng = np.random.default_rng(7)
    false = 0
    for _ in range(60):
        _, rows = simulated_votes(rng, 60, [0.75] * 8, 3)
        found = stats.against_others(rows[:, 2], rows[:, 0], rows[:, 1])
        false += any(one.p_value < 0.05 for one in found)
    assert false <= 8  # 5 % of 60 are 3; nine or more have a probability below 0.005.


def test_two_annotators_have_nobody_to_be_compared_with():
    first, second = stats.against_others([0, 1, 1, 1], [0, 0, 1, 1], ["a", "b", "a", "b"])
    assert first.agreement.value == second.agreement.value == 0.5
    assert (first.others, first.p_value, first.is_far) == (None, None, False)
    assert stats.against_others([], [], []) == []
