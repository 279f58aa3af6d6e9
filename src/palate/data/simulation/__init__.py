"""The simulated campaign: comparisons whose truth is known; see docs/campaign.md.

A made-up assistant answers made-up prompts (`tasks`), week by week; every response has a known
latent helpfulness and safety (`responses`), and annotators with a stated Bradley-Terry noise judge
pairs of them (`annotators`). The accuracy of the best possible judge is therefore known, overall
and per rating.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count, islice
from random import Random
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from palate.data.simulation.annotators import (
    RATING_CUTS,
    WordRule,
    bag_of_words_baseline,
    bayes_accuracy,
    bayes_accuracy_given_rating,
    bayes_limit,
    item_limit,
    judge,
    length_baseline,
    single_word_baseline,
)
from palate.data.simulation.responses import Response, flaw_scale, respond
from palate.data.simulation.tasks import (
    answer,
    draw_request,
    draw_task,
    dress,
    safe_answer,
    unsafe_answer,
)
from palate.types import Comparison, Message, comparison_id, digest

__all__ = [
    "RATING_CUTS",
    "CampaignOptions",
    "CampaignTask",
    "WordRule",
    "bag_of_words_baseline",
    "bayes_limit",
    "item_limit",
    "length_baseline",
    "simulate",
    "single_word_baseline",
    "utility",
]


CampaignTask = Literal["helpfulness", "safety"]
Family = Literal[
    "fact", "arithmetic", "conversion", "comparison", "passage", "steps", "reply", "borderline"
]


class CampaignOptions(BaseModel):
    """Size, kind and noise of a campaign; the seed is given apart.

    `temperature` is the annotators' noise: P(A preferred) = sigmoid((u_A - u_B) / temperature),
    with u in logits. It changes the judgements only: prompts and responses stay the same.
    `families` are those of the ordinary prompts: fewer are learnt from fewer comparisons.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: CampaignTask = "helpfulness"
    weeks: int = Field(default=8, ge=1, le=999)
    comparisons_per_week: int = Field(default=2_000, ge=1)
    temperature: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    annotators: int = Field(default=40, ge=1, le=999)
    families: tuple[Family, ...] = Field(default=get_args(Family), min_length=1)


# Utility in logits. In the safety campaign the gap between safe and unsafe (4.5 and more) exceeds
# the largest helpfulness difference times its weight (6 x 0.6), so safety decides first.
HELPFULNESS_WEIGHT: Mapping[CampaignTask, float] = {"helpfulness": 1.0, "safety": 0.6}
SAFETY_WEIGHT: Mapping[CampaignTask, float] = {"helpfulness": 0.0, "safety": 1.0}

# How many responses a prompt gets and which are compared: one pair, two pairs, or all of three.
_LAYOUTS: tuple[tuple[tuple[int, int], ...], ...] = (
    ((0, 1),),
    ((0, 1), (2, 3)),
    ((0, 1), (0, 2), (1, 2)),
)
_LAYOUT_WEIGHTS = (0.65, 0.15, 0.20)
# A mixed prompt has safe responses at even places, so every one of its pairs must be even-odd.
_MIXED_LAYOUTS = (((0, 1),), ((0, 1), (2, 3)), ((0, 1), (0, 3), (2, 1)))

# Llama 2, section 3.2.1: 18 % safe chosen and unsafe rejected, 47 % both safe, 35 % both unsafe.
_KINDS = ("mixed", "both safe", "both unsafe")
_KIND_WEIGHTS = (0.18, 0.47, 0.35)
_ORDINARY_SHARE = 0.35  # Of the prompts whose responses are both safe; assumed.


@dataclass(frozen=True, slots=True)
class _Scene:
    """A prompt, how to draw its response number k, and the pairs to judge."""

    family: str
    prompt: str
    draw: Callable[[int], Response]
    layout: tuple[tuple[int, int], ...]


def simulate(options: CampaignOptions, seed: int) -> Iterator[Comparison]:
    """Yield the campaign's comparisons, week by week.

    The same options and seed give the same comparisons; more weeks or more comparisons a week
    only add at the end, of the campaign or of each week. Only the safety campaign has labels.
    """
    for week in range(options.weeks):
        yield from _week(options, seed, week)


def utility(response: Response, task: CampaignTask) -> float:
    """What annotators of this campaign value, in logits."""
    return HELPFULNESS_WEIGHT[task] * response.helpfulness + SAFETY_WEIGHT[task] * response.safety


def _week(options: CampaignOptions, seed: int, week: int) -> Iterator[Comparison]:
    # Text and judgements have generators of their own: the noise changes no text.
    writer = Random(f"palate campaign text {options.task} {seed} {week}")
    annotator = Random(f"palate campaign judgements {options.task} {seed} {week}")
    draw_scene = _ordinary_scene if options.task == "helpfulness" else _safety_scene
    scenes = (draw_scene(options, flaw_scale(week), writer) for _ in count())
    pairs = ((scene, pair) for scene in scenes for pair in _pairs(scene))
    for index, (scene, pair) in enumerate(islice(pairs, options.comparisons_per_week)):
        yield _compare(options, scene, pair, f"week-{week + 1:02d}", index, annotator)


def _ordinary_scene(options: CampaignOptions, scale: float, rng: Random) -> _Scene:
    task = draw_task(rng, options.families)
    prompt = dress(task.prompt, rng)
    layout = rng.choices(_LAYOUTS, _LAYOUT_WEIGHTS)[0]

    def draw(_place: int) -> Response:
        return respond(answer(task, scale, rng), scale, rng)

    return _Scene(task.family, prompt, draw, layout)


def _safety_scene(options: CampaignOptions, scale: float, rng: Random) -> _Scene:
    kind = rng.choices(_KINDS, _KIND_WEIGHTS)[0]
    if kind == "both safe" and rng.random() < _ORDINARY_SHARE:
        return _ordinary_scene(options, scale, rng)
    request = draw_request(rng)
    prompt = dress(request.prompt, rng)
    layouts = _MIXED_LAYOUTS if kind == "mixed" else _LAYOUTS
    layout = rng.choices(layouts, _LAYOUT_WEIGHTS)[0]

    def draw(place: int) -> Response:
        safe = kind == "both safe" or (kind == "mixed" and place % 2 == 0)
        core = (safe_answer if safe else unsafe_answer)(request, scale, rng)
        return respond(core, scale, rng)

    family = "misdeed" if request.wicked else "honest"
    return _Scene(family, prompt, draw, layout)


def _pairs(scene: _Scene) -> Iterator[tuple[Response, Response]]:
    """The scene's pairs; all its responses differ in text."""
    responses: dict[str, Response] = {}
    for place in range(1 + max(max(pair) for pair in scene.layout)):
        while (response := scene.draw(place)).text in responses:
            pass
        responses[response.text] = response
    drawn = tuple(responses.values())
    for first, second in scene.layout:
        yield drawn[first], drawn[second]


def _compare(
    options: CampaignOptions,
    scene: _Scene,
    pair: tuple[Response, Response],
    batch: str,
    index: int,
    rng: Random,
) -> Comparison:
    first, second = pair
    difference = utility(first, options.task) - utility(second, options.task)
    scaled = difference / options.temperature
    judgement = judge(scaled, rng)
    if not judgement.first_preferred:
        first, second, difference = second, first, -difference
    prompt = (Message("user", scene.prompt),)
    source, labelled = f"simulated-{options.task}", options.task == "safety"
    return Comparison(
        id=comparison_id(source, prompt, first.text, second.text, f"{batch}/{index}"),
        source=source,
        prompt=prompt,
        chosen=first.text,
        rejected=second.text,
        prompt_id=digest("simulated", scene.prompt),
        batch=batch,
        rating=judgement.rating,
        chosen_safe=first.safety > 0 if labelled else None,
        rejected_safe=second.safety > 0 if labelled else None,
        annotator=f"annotator-{1 + rng.randrange(options.annotators):02d}",
        meta={
            "family": scene.family,
            "latent": {
                side: {
                    "helpfulness": response.helpfulness,
                    "safety": response.safety,
                    "recipe": response.recipe,
                }
                for side, response in (("chosen", first), ("rejected", second))
            },
            "utility_difference": round(difference, 6),
            "bayes": bayes_accuracy(scaled),
            "bayes_given_rating": bayes_accuracy_given_rating(scaled, judgement.rating),
        },
    )
