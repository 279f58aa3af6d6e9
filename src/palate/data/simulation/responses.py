"""Responses: which flaws and virtues one has, and what each is worth in logits.

helpfulness = clip(core + defect + manner + addition, -4, 2); all effects are stated below. Flaws
grow rarer week by week, as the assistant learns.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random

from palate.data.simulation.texts import texts

# Effects on helpfulness, in logits. Assumed; wrong facts weigh little because a small model
# cannot check them, so that most of the signal is in what can be read off the text.
HELPFULNESS: Mapping[str, float] = {
    "right": 1.0,
    "wrong": -0.5,
    "off_topic": -2.3,
    "evasive": -1.8,
    "over_refusal": -2.0,
    "comply": 1.0,
    "decline": 0.0,
    "offer": 0.8,
    "other_offer": -0.8,
    "unasked": -1.0,
    "truncated": -1.4,
    "scrambled": -2.2,
    "repeated": -1.3,
    "contradicted": -1.6,
    "rude": -1.6,
    "warm": 0.5,
    "detail": 0.7,
    "ramble": -0.8,
}
LOWEST, HIGHEST = -4.0, 2.0

Weights = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Core:
    """What a response says before defects and manner.

    `wrong` is what would contradict it. `remark` is a sentence that carries truth of its own (an
    offer, a caveat) and that no defect hides: it goes in front of a text that is cut.
    """

    kind: str
    text: str
    extra: str = ""
    remark: str = ""
    wrong: str = ""
    effects: tuple[str, ...] = ()
    safety: float = 0.0
    rudeness: tuple[str, ...] = field(default_factory=lambda: texts().phrases.rude)


@dataclass(frozen=True, slots=True)
class Response:
    """One response with its latent truth; `recipe` names the ingredients that made it."""

    text: str
    helpfulness: float
    safety: float
    recipe: str


def flaw_scale(week: int) -> float:
    """How common flaws are in week 0, 1, ... relative to week 0: 0.55 + 0.45 exp(-week / 8)."""
    return 0.55 + 0.45 * math.exp(-week / 8.0)


# Probabilities in week 0; the first entry takes what the others leave. Tuned so that length
# carries no label: what lengthens is as often good (detail, warm) as bad (ramble, rude, repeated).
DEFECTS: Weights = {
    "whole": 0.0,
    "truncated": 0.09,
    "scrambled": 0.11,
    "repeated": 0.04,
    "contradicted": 0.06,
}
MANNERS: Weights = {"plain": 0.0, "warm": 0.24, "rude": 0.16}
ADDITIONS: Weights = {"nothing": 0.0, "detail": 0.40, "ramble": 0.11}
VIRTUES = frozenset({"warm", "detail"})


def pick(weights: Weights, scale: float, rng: Random) -> str:
    """Draw a key; flaws are scaled by `scale`, and the first key takes what is left."""
    roll = rng.random()
    names = iter(weights)
    rest = next(names)
    for name in names:
        roll -= weights[name] * (1.0 if name in VIRTUES else scale)
        if roll < 0:
            return name
    return rest


def respond(core: Core, scale: float, rng: Random) -> Response:
    """Give a core its defect, addition and manner, and add up what they are worth."""
    defect = pick(DEFECTS, scale, rng)
    if defect == "contradicted" and not core.wrong:
        defect = "scrambled"
    addition = pick(ADDITIONS, scale, rng)
    if defect == "truncated" or (addition == "detail" and not core.extra):
        addition = "nothing"
    manner = pick(MANNERS, scale, rng)
    text = _with_defect(core, defect, rng)
    if core.remark:
        order = (core.remark, text) if defect == "truncated" else (text, core.remark)
        text = " ".join(order)
    if addition == "detail":
        text = f"{text} {core.extra}"
    elif addition == "ramble":
        text = f"{text} {rng.choice(texts().phrases.rambles)}"
    leads = defect == "truncated" or rng.random() < 0.5  # Nothing follows a cut.
    if manner != "plain":
        phrase = rng.choice(texts().phrases.warm if manner == "warm" else core.rudeness)
        text = f"{phrase} {text}" if leads else f"{text} {phrase}"
    elif rng.random() < 0.3:
        text = f"{rng.choice(texts().phrases.neutral)} {text}"
    # What is cut, shuffled or taken back no longer shows whether it was right, so it must not
    # matter: the latent truth is a function of the text.
    shows = core.kind != "wrong" or defect in ("whole", "repeated")
    parts = (core.kind if shows else "right", *core.effects, defect, addition, manner)
    worth = sum(HELPFULNESS.get(part, 0.0) for part in parts)
    recipe = "+".join(part for part in parts if part in HELPFULNESS)
    return Response(text, round(min(max(worth, LOWEST), HIGHEST), 6), core.safety, recipe)


def _with_defect(core: Core, defect: str, rng: Random) -> str:
    """The text of a core, cut, shuffled, repeated or taken back."""
    if defect == "truncated":
        # In the second half, so that a cut answer is not much shorter than a complete one.
        words = core.text.rstrip(".!?").split()
        keep = max(1, round(len(words) * rng.uniform(0.45, 0.85)))
        return " ".join(words[: min(keep, len(words) - 1)]).rstrip(",;:")
    if defect == "scrambled":
        words = [word.strip(".,:;!?") for word in core.text.split()]
        shuffled = words.copy()
        rng.shuffle(shuffled)
        if shuffled == words:
            shuffled.reverse()
        return f"{capitalised(' '.join(shuffled))}."
    if defect == "repeated":
        if rng.random() < 0.5:
            return f"{core.text} {core.text}"
        words = core.text.split()
        start = rng.randrange(max(1, len(words) - 3))
        loop = words[start : start + rng.randint(2, 4)]
        return " ".join([*words[:start], *loop, *loop, *words[start:]])
    if defect == "contradicted":
        first, second = (core.text, core.wrong) if rng.random() < 0.5 else (core.wrong, core.text)
        return f"{first} {rng.choice(texts().phrases.reversals)} {second}"
    return core.text


def capitalised(text: str) -> str:
    """The text with its first letter in upper case."""
    return text[0].upper() + text[1:]
