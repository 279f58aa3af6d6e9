"""`make bench-judgements` without a training: its arms, and its figures of known differences."""

import json
import math

import numpy as np
import pytest
from benchmarks.judgements import arms, figures, learn

from palate.train.batching import steps_per_epoch

SEEDS, COST = 3, 240


def test_right_is_the_sign_of_the_truth():
    found = figures.right(np.array([[2.0, -1, 0, 3]]), np.array([1.0, 2, -1, 0]))
    assert found.tolist()[0][:3] == [1, 0, 0.5]
    assert math.isnan(found[0, 3])


def test_arms_of_a_question_cost_the_same_and_share_their_prompts():
    for question, asked in arms.QUESTIONS.items():
        made = {arm.name: arm for arm in arms.arms_of(question, 0, COST)}
        assert {name for pair in asked.compared for name in pair} <= set(made)
        for arm in made.values():
            assert not any(map(arms.is_held_out, arm.rows))
            responses = {(c.prompt_id, text) for c in arm.rows for text in (c.chosen, c.rejected)}
            match question:
                case "ties":
                    assert len(arm.rows) == arm.cost == COST
                case "votes" | "annotators":
                    votes = sum(len(c.meta.get("votes", "1")) for c in arm.rows)
                    # A pair that is drawn twice has the first answer of each annotator.
                    assert arm.cost * 0.95 <= votes <= arm.cost
                case "rankings":
                    assert 0.9 * arm.cost <= len(responses) <= arm.cost
        if question == "rankings":
            every = {c.prompt_id for c in made[arms.ALL_PAIRS].rows}
            assert every == {c.prompt_id for c in made[arms.ONE_PAIR].rows}
            assert len(made[arms.ALL_PAIRS].rows) == 6 * len(made[arms.ONE_PAIR].rows)
            assert all(c.ranks is None for c in made[arms.OTHER_PROMPTS].rows)
        if question == "votes":
            some = {c.prompt_id for c in made[arms.MAJORITY].rows}
            assert some <= {c.prompt_id for c in made[arms.SPREAD].rows}


def test_every_arm_takes_the_same_steps():
    for rows in (150, 600, 1_800):
        options = learn.options_of(arms.Arm("a", "ranking", [], rows), rows, 100, 2, seed=0)
        steps = options.epochs * steps_per_epoch(rows, options.pairs_per_step)
        assert 50 <= steps <= 100 if rows == 150 else 90 <= steps <= 100


def test_figures_of_a_judge_that_knows_and_of_one_that_guesses(tmp_path):
    asked = arms.test_set(600)
    truth = np.array([c.meta["utility_difference"] for c in asked])
    rng = np.random.default_rng(0)
    made = []
    for seed in range(SEEDS):
        known = dict.fromkeys(("rao-kupper", arms.HALVES, "davidson"), 2 * truth)
        for arm, gaps in {**known, arms.DROPPED: rng.normal(size=truth.size)}.items():
            rule = "ranking" if arm == arms.DROPPED else arm
            made.append(figures.Training("ties", arm, seed, rule, 1, 1, 0.3, 0.0, gaps.tolist()))
    path = tmp_path / "trainings.jsonl"
    path.write_text("".join(f"{json.dumps(one.__dict__)}\n" for one in made))
    assert figures.read(path) == made
    # A seed that not every arm has is in no figure.
    alone = figures.Training("ties", arms.DROPPED, SEEDS, "ranking", 1, 1, None, 0.0, [])
    whole = figures.summary([*made, alone], asked)
    assert whole["pairs"] == (truth != 0).sum()
    assert whole["threshold_by_truth"] == pytest.approx(arms.TIE_THRESHOLD, abs=0.2)
    found = whole["ties"]
    json.dumps(found, allow_nan=False)
    assert found["seeds"] == SEEDS
    best, guess = found["arms"]["rao-kupper"], found["arms"][arms.DROPPED]
    assert best["accuracy"]["value"] == 1
    assert guess["accuracy"]["low"] < 0.5 < guess["accuracy"]["high"]
    assert best["correlation"]["value"] == pytest.approx(1)
    assert best["slope"]["value"] == pytest.approx(2)
    # The annotators' threshold, in their own logits, whatever the unit of the rewards.
    assert best["threshold"]["value"] == pytest.approx(arms.TIE_THRESHOLD, abs=0.2)
    assert best["tie_ece_fitted"]["low"] == 0
    assert best["tie_ece_of_loss"]["low"] > 0  # Of a share that is not the annotators'.
    assert "tie_ece_of_loss" not in guess
    paired = found["paired"][f"rao-kupper - {arms.DROPPED}"]
    by_seed = [1 - figures.right(np.array(t.differences), truth)[truth != 0].mean()
               for t in made if t.arm == arms.DROPPED]  # fmt: skip
    assert paired["by_seed"] == pytest.approx(by_seed, abs=1e-4)
    assert paired["value"] == pytest.approx(np.mean(by_seed), abs=1e-4)
    assert paired["low"] > 0.3
    assert paired["p_value"] < 0.001
    assert paired["correlation"]["value"] == pytest.approx(
        1 - guess["correlation"]["value"], abs=2e-4
    )
    reach = 4.302653 * np.std(by_seed, ddof=1) / math.sqrt(SEEDS)
    assert paired["of_seeds"]["low"] == pytest.approx(np.mean(by_seed) - reach, abs=2e-4)
