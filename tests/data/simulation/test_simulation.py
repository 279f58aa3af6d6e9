"""The simulated campaign: the same for the same seed, as noisy as it says, not solvable cheaply."""

import hashlib
import json
import math
from collections import Counter
from dataclasses import asdict, replace
from functools import cache
from itertools import combinations, islice
from random import Random

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.special import expit

from palate.data.simulation import (
    CampaignOptions,
    bag_of_words_baseline,
    bayes_limit,
    length_baseline,
    simulate,
    single_word_baseline,
)
from palate.data.simulation.annotators import care_of, judge
from palate.data.simulation.texts import texts
from palate.types import Bin, Comparison, Rating

TASKS = ("helpfulness", "safety")


@cache
def campaign(task: str, weeks: int = 4, per_week: int = 800, seed: int = 0) -> list[Comparison]:
    options = CampaignOptions(task=task, weeks=weeks, comparisons_per_week=per_week)
    return list(simulate(options, seed))


@pytest.fixture(scope="module", params=TASKS)
def made(request: pytest.FixtureRequest) -> list[Comparison]:
    return campaign(request.param)


def dumped(comparisons: list[Comparison]) -> str:
    return json.dumps([asdict(comparison) for comparison in comparisons])


@pytest.mark.parametrize("task", TASKS)
def test_same_seed_same_bytes(task: str) -> None:
    options = CampaignOptions(task=task, weeks=2, comparisons_per_week=50)
    assert dumped(list(simulate(options, 0))) == dumped(campaign(task, 2, 50))
    assert dumped(campaign(task, 2, 50)) != dumped(campaign(task, 2, 50, seed=1))


def test_text_is_pinned() -> None:
    """A change of the campaign's text changes every number made with it: say so in CHANGELOG."""
    first = next(simulate(CampaignOptions(), 0))
    assert first.id == "0c3852641706f86111ef9e0d387bd695"


@pytest.mark.parametrize(
    ("task", "seed", "pinned"),
    [
        ("helpfulness", 0, "c285c70427f0f177"),
        ("helpfulness", 5, "ed30ea3014379a81"),
        ("safety", 0, "7710db3217b47acb"),
        ("safety", 5, "a7d80302f90d9c32"),
    ],
)
def test_campaign_is_pinned(task: str, seed: int, pinned: str) -> None:
    """Texts (an id is a digest of them), judgements and truth; not the probabilities' last bits."""
    rows = [
        (c.id, c.prompt_id, c.rating, c.annotator, *safe, c.meta["family"], c.meta["latent"])
        for c in campaign(task, 3, 800, seed)
        for safe in [(c.chosen_safe, c.rejected_safe)]
    ]
    assert hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16] == pinned


def test_texts_are_read_once_and_stay_as_they_are() -> None:
    words = texts().words
    assert texts().words is words
    assert words.names[0] == "Anna"
    assert all(isinstance(values, tuple) for _, values in words)
    with pytest.raises(ValidationError, match="frozen"):
        words.names = ()


@pytest.mark.parametrize("task", TASKS)
def test_later_weeks_leave_earlier_ones_alone(task: str) -> None:
    short, long = campaign(task, 2, 60), campaign(task, 4, 60)
    assert long[: len(short)] == short
    assert [c.batch for c in islice(long, 0, None, 60)] == [f"week-{k:02d}" for k in (1, 2, 3, 4)]


@pytest.mark.parametrize("task", TASKS)
def test_more_comparisons_extend_a_week(task: str) -> None:
    assert campaign(task, 1, 120)[:40] == campaign(task, 1, 40)


def test_noise_changes_judgements_and_no_text() -> None:
    loud = list(simulate(CampaignOptions(weeks=1, comparisons_per_week=300, temperature=4.0), 0))
    calm = campaign("helpfulness", 1, 300)
    assert [{c.chosen, c.rejected} for c in loud] == [{c.chosen, c.rejected} for c in calm]
    assert bayes_limit(loud)["all"][0] < bayes_limit(calm)["all"][0] - 0.1


def test_rows_are_sound(made: list[Comparison]) -> None:
    assert len({c.id for c in made}) == len(made)
    for comparison in made:
        (turn,) = comparison.prompt
        assert turn.role == "user"
        assert turn.content.strip() == turn.content
        assert comparison.chosen.strip()
        assert comparison.rejected.strip()
        assert comparison.chosen != comparison.rejected
        assert "{" not in turn.content + comparison.chosen + comparison.rejected
        assert comparison.rating is not None
        assert comparison.annotator is not None
        assert (comparison.chosen_safe is None) == (comparison.source == "simulated-helpfulness")


def test_one_prompt_is_one_cluster_and_clusters_repeat(made: list[Comparison]) -> None:
    clusters = {(c.prompt_id, c.prompt[0].content) for c in made}
    assert len(clusters) == len({c.prompt_id for c in made})
    assert 1.3 < len(made) / len(clusters) < 2.5
    # An answer to one prompt meets several others, as with K responses per prompt.
    meetings = Counter((c.prompt_id, text) for c in made for text in (c.chosen, c.rejected))
    assert max(meetings.values()) >= 2


def test_prompts_are_many() -> None:
    prompts = {c.prompt[0].content for c in campaign("helpfulness", 1, 4_000)}
    assert len(prompts) > 2_000


def test_texts_are_short(made: list[Comparison]) -> None:
    """About four characters a token: 30 and 25 tokens on average are the limits."""
    n = len(made)
    assert sum(len(c.prompt[0].content) for c in made) / n < 30 * 4
    assert sum(len(c.chosen) + len(c.rejected) for c in made) / (2 * n) < 25 * 4.4


def test_recorded_difference_is_the_latent_one(made: list[Comparison]) -> None:
    weight, safety = (1.0, 0.0) if made[0].source == "simulated-helpfulness" else (0.6, 1.0)
    for comparison in made:
        chosen, rejected = (comparison.meta["latent"][side] for side in ("chosen", "rejected"))
        expected = weight * (chosen["helpfulness"] - rejected["helpfulness"])
        expected += safety * (chosen["safety"] - rejected["safety"])
        assert comparison.meta["utility_difference"] == pytest.approx(expected, abs=1e-5)


def test_truth_is_a_function_of_the_text(made: list[Comparison]) -> None:
    truths: dict[tuple[str, str], set[tuple[float, float]]] = {}
    for comparison in made:
        for side in ("chosen", "rejected"):
            latent = comparison.meta["latent"][side]
            key = (comparison.prompt_id, getattr(comparison, side))
            truths.setdefault(key, set()).add((latent["helpfulness"], latent["safety"]))
    assert max(map(len, truths.values())) == 1


def test_bayes_limit_equals_annotators_drawn_again(made: list[Comparison]) -> None:
    rng = Random(3)
    right: dict[str, list[bool]] = {}
    redrawn = []
    for comparison in made:
        x = comparison.meta["utility_difference"]
        if x == 0:
            continue
        for _ in range(3):
            drawn = judge(x, rng)
            hit = drawn.first_preferred == (x > 0)
            right.setdefault("all", []).append(hit)
            right.setdefault(drawn.rating.label, []).append(hit)
        redrawn.append(comparison)
    limit = bayes_limit(redrawn, chosen_unsafe_excluded=False)
    for label, hits in right.items():
        assert sum(hits) / len(hits) == pytest.approx(limit[label][0], abs=0.02), label


def test_bayes_judge_reaches_its_limit_on_the_labels(made: list[Comparison]) -> None:
    kept = [c for c in made if c.chosen_safe is None or c.bin is not None]
    for label, (value, n) in bayes_limit(kept).items():
        own = [c for c in kept if label in ("all", c.rating.label, c.bin and c.bin.value)]
        differences = [c.meta["utility_difference"] for c in own]
        hits = sum(0.5 if d == 0 else float(d > 0) for d in differences)
        assert n == len(own)
        assert hits / n == pytest.approx(value, abs=4 * 0.5 / n**0.5), label


def test_limit_grows_with_the_rating(made: list[Comparison]) -> None:
    limit = bayes_limit(made)
    values = [limit[rating.label][0] for rating in Rating]
    assert values == sorted(values)
    assert values[0] < 0.65
    assert values[-1] > 0.93


def test_rating_shares_are_plausible(made: list[Comparison]) -> None:
    counts = Counter(c.rating for c in made)
    for rating in Rating:
        assert 0.15 < counts[rating] / len(made) < 0.35


def test_safety_bins_have_the_shares_of_the_paper() -> None:
    made = campaign("safety")
    counts = Counter(c.bin for c in made)
    assert counts[Bin.SAFE_UNSAFE] / len(made) == pytest.approx(0.18, abs=0.025)
    assert counts[Bin.BOTH_SAFE] / len(made) == pytest.approx(0.47, abs=0.03)
    assert counts[Bin.BOTH_UNSAFE] / len(made) == pytest.approx(0.35, abs=0.03)
    # Annotators' noise makes a few, and lint excludes them.
    assert 0 < counts[None] / len(made) < 0.02


def test_safety_comes_first_in_the_safety_campaign() -> None:
    for comparison in campaign("safety"):
        if comparison.chosen_safe != comparison.rejected_safe:
            assert (comparison.meta["utility_difference"] > 0) == comparison.chosen_safe


def test_the_assistant_improves() -> None:
    means = []
    for batch in ("week-01", "week-08"):
        own = [c for c in campaign("helpfulness", 8, 400) if c.batch == batch]
        latents = [c.meta["latent"][side] for c in own for side in ("chosen", "rejected")]
        means.append(sum(latent["helpfulness"] for latent in latents) / len(latents))
    assert means[1] > means[0] + 0.3


def test_length_does_not_tell_the_label(made: list[Comparison]) -> None:
    assert length_baseline(made) == pytest.approx(0.5, abs=0.04)


def test_no_single_word_tells_the_label(made: list[Comparison]) -> None:
    half = len(made) // 2
    rule = single_word_baseline(made[:half], made[half:])
    assert rule.accuracy <= bayes_limit(made)["all"][0] - 0.08
    assert rule.accuracy < 0.58


def test_bag_of_words_stays_well_below_the_limit(made: list[Comparison]) -> None:
    half = len(made) // 2
    accuracy = bag_of_words_baseline(made[:half], made[half:])
    assert 0.55 < accuracy < bayes_limit(made)["all"][0] - 0.08


def test_prompts_are_of_the_families_asked_for() -> None:
    few = CampaignOptions(weeks=1, comparisons_per_week=60, families=("reply", "steps"))
    assert {c.meta["family"] for c in simulate(few, 0)} == {"reply", "steps"}
    assert len({c.meta["family"] for c in campaign("helpfulness")}) == 8


def test_baselines_on_arithmetic() -> None:
    one = campaign("helpfulness", 1, 1)[0]
    rows = [
        replace(one, chosen="good dog", rejected="dog"),
        replace(one, chosen="a good cat", rejected="a bad cat"),
        replace(one, chosen="bad", rejected="good, good"),
        replace(one, chosen="good", rejected="left"),
    ]
    assert length_baseline(rows) == pytest.approx((1 + 1 + 0 + 0.5) / 4)
    rule = single_word_baseline(rows, rows)
    assert (rule.word, rule.prefer, rule.accuracy) == ("good", True, 0.75)
    assert bag_of_words_baseline(rows, rows) == pytest.approx(0.75)


@pytest.mark.parametrize(
    "options",
    [
        {"weeks": 0},
        {"temperature": 0.0},
        {"task": "honesty"},
        {"week": 3},
        {"families": ()},
        {"families": ("sonnet",)},
        {"tie_threshold": -1.0},
        {"votes_per_pair": 3, "annotators": 2},
        {"least_care": 1.5},
        {"ranked": 2},
        {"ranked": 4, "tie_threshold": 1.0},
        {"ranked": 4, "votes_per_pair": 2},
        {"ranked": 4, "task": "safety"},
    ],
)
def test_bad_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        CampaignOptions(**options)


def weekly(**options: object) -> list[Comparison]:
    return list(simulate(CampaignOptions(weeks=1, **options), seed=0))


def test_a_tie_threshold_makes_ties_of_what_is_hardly_better_and_changes_nothing_else() -> None:
    plain = weekly(comparisons_per_week=3_000)
    tied = weekly(comparisons_per_week=3_000, tie_threshold=1.0)
    for one, other in zip(plain, tied, strict=True):
        is_tie = other.judgement.decides == "tie"
        assert is_tie == (one.rating is Rating.NEGLIGIBLY)  # The threshold is the first cut.
        assert {one.chosen, one.rejected} == {other.chosen, other.rejected}
        assert (other.rating is None) == is_tie
        if not is_tie:
            assert (one.chosen, one.rating) == (other.chosen, other.rating)
    # Rao and Kupper: P(tie) = (exp(2 h) - 1) F(x - h) F(-x - h).
    x = np.array([c.meta["utility_difference"] for c in tied])
    chance = math.expm1(2) * expit(x - 1) * expit(-x - 1)
    share = np.mean([c.judgement.decides == "tie" for c in tied])
    assert share == pytest.approx(chance.mean(), abs=4 * math.sqrt(0.25 / len(tied)))
    decided = [c for c in tied if c.rating is not None]
    right = np.mean([c.meta["utility_difference"] > 0 for c in decided])
    right += np.mean([c.meta["utility_difference"] == 0 for c in decided]) / 2
    assert bayes_limit(tied)["all"][0] == pytest.approx(right, abs=0.03)
    assert bayes_limit(tied)["all"][1] == len(decided)


def test_votes_are_of_different_annotators_as_careful_as_they_are() -> None:
    rows = weekly(comparisons_per_week=4_000, votes_per_pair=3, annotators=5, least_care=0.0)
    assert len(rows) == 12_000
    assert len({c.id for c in rows}) == len(rows)
    for start in range(0, len(rows), 3):
        votes = rows[start : start + 3]
        assert len({c.annotator for c in votes}) == 3
        assert len({frozenset((c.chosen, c.rejected)) for c in votes}) == 1
    single = weekly(comparisons_per_week=4_000)
    assert [c.prompt_id for c in rows[::3]] == [c.prompt_id for c in single]
    for number in range(5):
        own = [c for c in rows if c.annotator == f"annotator-{number + 1:02d}"]
        known = [c for c in own if c.meta["utility_difference"]]
        right = np.mean([c.meta["utility_difference"] > 0 for c in known])
        expected = np.mean([c.meta["bayes"] for c in known])
        assert right == pytest.approx(expected, abs=4 * math.sqrt(0.25 / len(known)))
        assert care_of(number, 5, 0.0) == number / 4
    assert expected > 0.8


def test_a_ranking_is_whole_and_its_pairs_are_bradley_and_terrys() -> None:
    rows = weekly(comparisons_per_week=6_005, ranked=4)
    assert len(rows) == 6_000  # The last five have no room for a ranking.
    for start in range(0, len(rows), 6):
        ranking = rows[start : start + 6]
        places = {(c.ranks.chosen, c.ranks.rejected) for c in ranking if c.ranks}
        assert places == set(combinations(range(4), 2))
        responses = {c.ranks.chosen: c.chosen for c in ranking if c.ranks}
        responses |= {c.ranks.rejected: c.rejected for c in ranking if c.ranks}
        assert len(set(responses.values())) == 4
        assert len({(c.prompt_id, c.annotator, c.ranks and c.ranks.ranking) for c in ranking}) == 1
    limit = bayes_limit(rows)["all"][0]
    known = [c for c in rows if c.meta["utility_difference"]]
    same = 1 - len(known) / len(rows)
    right = sum(c.meta["utility_difference"] > 0 for c in known) / len(rows) + same / 2
    assert right == pytest.approx(limit, abs=0.02)
    # Of Gumbel errors, the strength of a preference is logistic, so that ratings are as of pairs.
    for label in ("negligibly", "significantly"):
        rated = [c for c in known if c.rating and c.rating.label == label]
        right = np.mean([c.meta["utility_difference"] > 0 for c in rated])
        expected = np.mean([c.meta["bayes_given_rating"] for c in rated])
        assert right == pytest.approx(expected, abs=0.04)
