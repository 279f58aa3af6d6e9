"""`make bench-labels` without a backbone: its heads, rounds, figures and made-up world."""

import json
import math

import numpy as np
import pytest
from benchmarks.labels import unbiased
from benchmarks.labels.figures import labels_to_reach, summary
from benchmarks.labels.heads import PRECISIONS, bootstrap, fit, fit_best, posterior, unseen
from benchmarks.labels.pools import Pairs, campaign, differences, pairs_of, reduced
from benchmarks.labels.rounds import ARMS, INFORMATION, RANDOM, Plan, play
from scipy.integrate import quad
from scipy.special import expit

from palate.model.loading import start_model
from palate.model.options import BaseOptions
from palate.records import write_comparisons
from palate.train.batching import split_step
from palate.train.dataset import tokenise
from palate.train.distributed import Distributed
from palate.train.options import TrainOptions
from palate.train.validation import pair_rewards
from tiny import save_tiny


def pairs(prompts: int, seed: int, width: int = 6):
    """Pairs whose truth is linear in their states, two of a prompt."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2 * prompts, width))
    rating = rng.integers(1, 5, len(x))
    bins = np.array(["both safe", "both unsafe"])[rng.integers(0, 2, len(x))]
    return Pairs(x, 2 * x[:, 0] - x[:, 1], np.repeat(np.arange(prompts), 2), rating, bins)


def test_a_head_is_the_most_likely_one_and_its_evidence_that_of_its_labels():
    rng = np.random.default_rng(0)
    x, counts = rng.normal(size=(40, 3)) + 0.5, rng.poisson(1.0, 40).astype(float)
    head = fit(x, counts, 2.0)
    slope = 2.0 * head.weights - x.T @ (counts * expit(-(x @ head.weights)))
    assert np.abs(slope).max() < 1e-4
    p = expit(x @ head.weights)
    hessian = (x.T * (counts * p * (1 - p))) @ x + 2 * np.eye(3)
    assert head.factor @ head.factor.T == pytest.approx(hessian, rel=1e-6)
    # One weight: the integral over it, by quadrature.
    one = x[:, :1]
    found = fit(one, counts, 2.0)

    def likely(w: float) -> float:
        return math.exp(-counts @ np.logaddexp(0, -one[:, 0] * w) - w * w) * math.sqrt(1 / math.pi)

    whole, _ = quad(likely, -8, 8)
    assert found.evidence == pytest.approx(math.log(whole), abs=0.02)
    best = fit_best(x, counts)
    place = PRECISIONS.index(best.precision)
    for other in PRECISIONS[max(0, place - 1) : place + 2]:
        assert fit(x, counts, other).evidence <= best.evidence + 1e-9
    assert fit_best(x, counts, near=PRECISIONS[0]).evidence == pytest.approx(best.evidence)


def test_members_spread_as_the_weights_may_and_are_asked_what_they_have_not_seen():
    rng = np.random.default_rng(1)
    x, counts = rng.normal(size=(60, 2)) + 0.4, np.ones(60)
    head = fit(x, counts, 1.0)
    drawn = posterior(head, 20_000, rng).weights
    inverse = np.linalg.inv(head.factor @ head.factor.T)
    assert np.cov(drawn.T) == pytest.approx(inverse, rel=0.05, abs=0.002)
    prompts = np.repeat(np.arange(30), 2)
    members = bootstrap(x, counts, prompts, head, 4, rng)
    assert (members.drawn[:, ::2] == members.drawn[:, 1::2]).all(), "a prompt's pairs together"
    said = unseen(x, members)
    for n, value in enumerate(said):
        away = members.drawn[:, n] == 0
        expected = (members.weights[away] @ x[n]).mean() if away.any() else math.nan
        assert value == pytest.approx(expected, nan_ok=True)
    assert np.isnan(unseen(x, posterior(head, 3, rng))).all()


def test_arms_share_labels_tests_and_the_first_round_and_learn_the_truth():
    pool, asked = pairs(300, 2), pairs(150, 3)
    plan = Plan(rounds=3, pairs_per_round=20)
    made = {name: list(play(pool, asked, ARMS[name], plan, seed=0, repetition=0)) for name in ARMS}
    json.dumps(made, allow_nan=False)
    for name, rounds in made.items():
        assert [one["labels"] for one in rounds] == [20, 40, 60]
        assert rounds[0]["apart"] == made[RANDOM][0]["apart"] or name == "random again"
        # A fresh annotator agrees with the truth in about 81 %.
        assert rounds[-1]["accuracy"] > 0.7
        assert rounds[-1]["better"] > rounds[-1]["accuracy"]
        assert set(rounds[-1]["parts"]) >= {"rating 1", "both safe"}
        assert sum(rounds[1]["worth"]) == pytest.approx(1, abs=1e-3)
    again = list(play(pool, asked, ARMS["expected gain"], plan, seed=0, repetition=0))
    assert again == made["expected gain"]


def test_labels_to_reach_are_those_of_the_smoothed_curves():
    labels = np.arange(40.0, 561, 40)
    random = 0.5 + 0.03 * np.log(labels)
    ahead = 0.5 + 0.03 * np.log(labels / 0.7)
    behind = 0.5 + 0.03 * np.log(labels / 1.2)
    assert labels_to_reach(labels, random, random, 9) == pytest.approx(1, abs=0.002)
    assert labels_to_reach(labels, random, ahead, 9) == pytest.approx(0.7, abs=0.002)
    assert labels_to_reach(labels, random, behind, 9) == pytest.approx(1.2, abs=0.002)
    assert labels_to_reach(labels, random, random - 0.1, 9) == pytest.approx(1.4), "at most"
    pool, asked, plan = pairs(200, 4), pairs(60, 5), Plan(rounds=3, pairs_per_round=20)
    found = {
        name: {
            seed: [list(play(pool, asked, ARMS[name], plan, seed, n)) for n in range(2)]
            for seed in range(3)
        }
        for name in (RANDOM, INFORMATION)
    }
    made = summary(found, at=1)
    json.dumps(made, allow_nan=False)
    assert (made["seeds"], made["repetitions"], made["all_labels"]) == (3, 2, 40)
    row = made[INFORMATION]
    assert row["labels_to_reach"]["at_most"] == 1.5
    assert len(row["labels_to_reach"]["by_seed"]) == 3
    assert row["less_random"]["40 labels"]["value"] == pytest.approx(
        row["curve"][1] - made[RANDOM]["curve"][1], abs=0.02
    )
    assert set(row["parts_less_random"]) == {
        "rating 1", "rating 2", "rating 3", "rating 4", "both safe", "both unsafe",
    }  # fmt: skip


def test_the_made_up_world_goes_on_where_it_was(tmp_path):
    file = tmp_path / "unbiased.jsonl"
    first = list(unbiased.simulated(2, file))
    made = list(unbiased.simulated(4, file))
    assert made[:2] == first
    assert len(made[0]) == unbiased.ROUNDS
    found = unbiased.summary(made)
    json.dumps(found, allow_nan=False)
    assert found["replicates"] == 4
    assert len(found["held-out"]["coverage_by_round"]) == unbiased.ROUNDS
    assert len(found["fresh, plain"]["coverage_by_round"]) == unbiased.ROUNDS - 1
    # What it has learnt from flatters a head.
    assert found["all labels"]["bias"][0] > found["held-out"]["bias"][0]


def test_states_are_what_the_head_is_given(tmp_path):
    rows = campaign("helpfulness", 0, 48)
    assert len(rows) == 48
    base = BaseOptions(model=str(save_tiny(tmp_path / "model", "llama")), max_tokens=256)
    model, _ = start_model(base)
    write_comparisons(tmp_path / "rows.parquet", rows)
    examples = tokenise(tmp_path / "rows.parquet", model.chat, tmp_path / "rows.arrow", workers=1)
    some = [examples[place] for place in range(len(examples))]
    states = differences(model, some)
    head = model.head.weight.detach().numpy()[0]
    step = split_step(some, TrainOptions().margins(), 4_096)
    chosen, rejected = pair_rewards(model, step, Distributed()).unbind(1)
    assert states @ head == pytest.approx((chosen - rejected).detach().numpy(), abs=1e-5)
    pool = pairs_of(rows, states.astype(np.float64))
    assert len(set(pool.prompts.tolist())) == len({row.prompt_id for row in rows})
    small, same = reduced(pool, pool)
    assert (small.states == same.states).all()
