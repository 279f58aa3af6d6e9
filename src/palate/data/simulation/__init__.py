"""The simulated campaign: comparisons whose truth is known; see docs/campaign.md.

A made-up assistant answers made-up prompts (`tasks`), week by week; every response has a known
latent helpfulness and safety (`responses`), and annotators with a stated Bradley-Terry noise judge
pairs of them (`annotators`), or rank several. The accuracy of the best possible judge is therefore
known, overall and per rating.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, count, islice
from random import Random
from typing import Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from palate.data.simulation.annotators import (
    RATING_CUTS,
    WordRule,
    bag_of_words_baseline,
    bag_of_words_margins,
    bayes_accuracy,
    bayes_accuracy_given_rating,
    bayes_limit,
    care_of,
    item_limit,
    judged,
    length_baseline,
    logistic,
    perceive,
    rating_of,
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
from palate.types import (
    PREFERRED,
    Candidates,
    Comparison,
    Judgement,
    Message,
    Ranks,
    Rating,
    comparison_id,
    digest,
)

__all__ = [
    "RATING_CUTS",
    "CampaignOptions",
    "CampaignTask",
    "WordRule",
    "bag_of_words_baseline",
    "bag_of_words_margins",
    "bayes_limit",
    "item_limit",
    "length_baseline",
    "many_responses",
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

    `tie_threshold`: annotators who perceive a smaller difference, in logits, say that it is a tie.
    `votes_per_pair`: so many annotators judge each pair, a row each. `least_care`: the first of the
    annotators reads the responses with this probability, the last always, the others evenly
    between; who does not read judges as if they were equal. `ranked`: so many responses to each
    prompt are ranked by one annotator; the rows are the ranking's pairs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: CampaignTask = "helpfulness"
    weeks: int = Field(default=8, ge=1, le=999)
    comparisons_per_week: int = Field(default=2_000, ge=1)
    temperature: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    annotators: int = Field(default=40, ge=1, le=999)
    families: tuple[Family, ...] = Field(default=get_args(Family), min_length=1)
    tie_threshold: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    votes_per_pair: int = Field(default=1, ge=1)
    least_care: float = Field(default=1.0, ge=0, le=1)
    ranked: int | None = Field(default=None, ge=3, le=9)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.votes_per_pair > self.annotators:
            raise ValueError(
                f"votes_per_pair: {self.votes_per_pair}, of {self.annotators} annotators"
            )
        pairs = self.tie_threshold > 0 or self.votes_per_pair > 1 or self.task == "safety"
        if self.ranked and pairs:
            raise ValueError("ranked: goes with neither tie_threshold, votes_per_pair nor safety")
        return self


TIE = Judgement(chosen=0, tie=1)
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
    only add at the end, of the campaign or of each week. With `votes_per_pair`, so many rows are a
    comparison; of rankings, a week has as many as it has comparisons for. Only the safety campaign
    has labels.
    """
    for week in range(options.weeks):
        yield from _week(options, seed, week)


def many_responses(
    options: CampaignOptions, seed: int, prompts: int, responses: int
) -> Iterator[tuple[Candidates, tuple[float, ...]]]:
    """New prompts of the last week with many responses each, and what each is worth in truth.

    They are drawn as the campaign's are, from a seed of their own: none is one of its comparisons
    but by chance. A response may come twice.
    """
    writer = Random(f"palate campaign many responses {options.task} {seed}")
    scale = flaw_scale(options.weeks - 1)
    draw_scene = _ordinary_scene if options.task == "helpfulness" else _safety_scene
    for _ in range(prompts):
        scene = draw_scene(options, scale, writer)
        drawn = [scene.draw(place) for place in range(responses)]
        shown = Candidates((Message("user", scene.prompt),), tuple(one.text for one in drawn))
        yield shown, tuple(utility(one, options.task) for one in drawn)


def utility(response: Response, task: CampaignTask) -> float:
    """What annotators of this campaign value, in logits."""
    return HELPFULNESS_WEIGHT[task] * response.helpfulness + SAFETY_WEIGHT[task] * response.safety


def _week(options: CampaignOptions, seed: int, week: int) -> Iterator[Comparison]:
    # Text and judgements have generators of their own: the noise changes no text.
    writer = Random(f"palate campaign text {options.task} {seed} {week}")
    annotator = Random(f"palate campaign judgements {options.task} {seed} {week}")
    draw_scene = _ordinary_scene if options.task == "helpfulness" else _safety_scene
    scenes = (draw_scene(options, flaw_scale(week), writer) for _ in count())
    batch, size = f"week-{week + 1:02d}", options.comparisons_per_week
    if options.ranked:
        rankings = islice(scenes, size // math.comb(options.ranked, 2))
        for index, scene in enumerate(rankings):
            yield from _rank(options, scene, options.ranked, f"{batch}/{index}", annotator)
        return
    pairs = ((scene, pair) for scene in scenes for pair in _pairs(scene))
    for index, (scene, pair) in enumerate(islice(pairs, size)):
        yield from _judge(options, scene, pair, f"{batch}/{index}", annotator)


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
    drawn = _responses(scene, 1 + max(max(pair) for pair in scene.layout))
    for first, second in scene.layout:
        yield drawn[first], drawn[second]


def _responses(scene: _Scene, size: int) -> tuple[Response, ...]:
    responses: dict[str, Response] = {}
    for place in range(size):
        while (response := scene.draw(place)).text in responses:
            pass
        responses[response.text] = response
    return tuple(responses.values())


def _judge(
    options: CampaignOptions,
    scene: _Scene,
    pair: tuple[Response, Response],
    name: str,
    rng: Random,
) -> Iterator[Comparison]:
    """A row for each vote on the pair called `name`; nobody votes twice."""
    first, second = pair
    difference = utility(first, options.task) - utility(second, options.task)
    voted = set[int]()
    for vote in range(options.votes_per_pair):
        error = logistic(rng)
        while (who := rng.randrange(options.annotators)) in voted:
            pass
        voted.add(who)
        perceived = difference / options.temperature * _reads(options, who, rng) + error
        said = judged(perceived, options.tie_threshold)
        row = name if vote == 0 else f"{name}/{vote}"
        if said.first_preferred or said.rating is None:
            yield _row(options, scene, pair, difference, said.rating, row, who)
        else:
            yield _row(options, scene, (second, first), -difference, said.rating, row, who)


def _rank(
    options: CampaignOptions, scene: _Scene, size: int, name: str, rng: Random
) -> Iterator[Comparison]:
    """The pairs of a ranking of `size` responses, called `name`, the better one as chosen."""
    drawn = _responses(scene, size)
    who = rng.randrange(options.annotators)
    reads = _reads(options, who, rng)
    worth = [utility(response, options.task) for response in drawn]
    perceived = perceive([reads * value / options.temperature for value in worth], rng)
    order = sorted(range(size), key=lambda place: -perceived[place])
    for number, (chosen, rejected) in enumerate(combinations(range(size), 2)):
        better, worse = order[chosen], order[rejected]
        rating = rating_of(perceived[better] - perceived[worse])
        ranks = Ranks(name, chosen, rejected)
        sides = (drawn[better], drawn[worse])
        difference = worth[better] - worth[worse]
        yield _row(options, scene, sides, difference, rating, f"{name}/{number}", who, ranks)


def _reads(options: CampaignOptions, annotator: int, rng: Random) -> bool:
    """Whether the annotator reads the responses this time."""
    care = care_of(annotator, options.annotators, options.least_care)
    return options.least_care == 1 or rng.random() < care


def _row(
    options: CampaignOptions,
    scene: _Scene,
    sides: tuple[Response, Response],
    difference: float,
    rating: Rating | None,
    name: str,
    annotator: int,
    ranks: Ranks | None = None,
) -> Comparison:
    """The row called `name`: its first side was preferred, unless there is no rating: a tie."""
    first, second = sides
    scaled = difference / options.temperature
    care = care_of(annotator, options.annotators, options.least_care)
    noise = {"tie_threshold": options.tie_threshold, "care": care}
    truth: dict[str, Any] = {"bayes": bayes_accuracy(scaled, **noise)}
    if rating is not None:
        truth["bayes_given_rating"] = bayes_accuracy_given_rating(scaled, rating, **noise)
    prompt = (Message("user", scene.prompt),)
    source, labelled = f"simulated-{options.task}", options.task == "safety"
    return Comparison(
        id=comparison_id(source, prompt, first.text, second.text, name),
        source=source,
        prompt=prompt,
        chosen=first.text,
        rejected=second.text,
        prompt_id=digest("simulated", scene.prompt),
        batch=name.split("/")[0],
        rating=rating,
        chosen_safe=first.safety > 0 if labelled else None,
        rejected_safe=second.safety > 0 if labelled else None,
        annotator=f"annotator-{1 + annotator:02d}",
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
            **truth,
        },
        judgement=PREFERRED if rating is not None else TIE,
        ranks=ranks,
    )
