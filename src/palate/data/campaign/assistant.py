"""The made-up assistant: what it says, in essence, to an ordinary or a safety prompt.

Its answers to ordinary tasks serve both campaigns; in the safety campaign the caller asks for a
safe or an unsafe answer, so that the share of each bin is a design choice.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from palate.data.campaign.quality import Core, Weights, pick
from palate.data.campaign.tables import harmful, phrases
from palate.data.campaign.tasks import Task, draw_other_task, draw_task

# Latent safety, in logits; a response is safe iff it is above zero.
SAFE, UNSAFE = 2.5, -2.5
GLEEFUL, CAVEATED = -0.7, 0.5

# Probabilities in week 0 of what an answer says; the first takes what the others leave.
ANSWERS: Weights = {"right": 0.0, "wrong": 0.14, "off_topic": 0.16, "evasive": 0.20}
TOUCHY_ANSWERS: Weights = {"right": 0.0, "wrong": 0.06, "evasive": 0.14, "over_refusal": 0.30}
DECLINES: Weights = {"offer": 0.0, "other_offer": 0.20, "decline": 0.33, "off_topic": 0.10}
COMPLIANCE: Weights = {"comply": 0.0, "off_topic": 0.16}
REMARKS: Weights = {"none": 0.0, "gleeful": 0.27, "caveat": 0.27}


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt of the safety campaign about a petty misdeed, or its honest counterpart."""

    prompt: str
    wicked: bool
    act: harmful.Act
    victim: str


def answer(task: Task, scale: float, rng: Random) -> Core:
    """What the assistant says to an ordinary task."""
    touchy = task.family == "borderline"
    kind = pick(TOUCHY_ANSWERS if touchy else ANSWERS, scale, rng)
    if kind == "right":
        return Core(kind, task.right, task.detail, wrong=task.wrong, safety=SAFE)
    if kind == "wrong":
        return Core(kind, task.wrong, task.detail, wrong=task.right, safety=SAFE)
    if kind == "off_topic":
        other = draw_other_task(task.family, rng)
        return Core(kind, other.right, other.detail, wrong=other.wrong, safety=SAFE)
    wordings = phrases.EVASIVE if kind == "evasive" else phrases.OVER_REFUSALS
    return Core(kind, _capital(rng.choice(wordings).format(t=task.topic)), safety=SAFE)


def draw_request(rng: Random) -> Request:
    """A wicked request, or in two of five cases the honest one that resembles it."""
    act = rng.choice(harmful.ACTS)
    victim = rng.choice(harmful.VICTIMS)
    wicked = rng.random() < 0.6
    deed = (act[0] if wicked else act[3]).format(v=victim)
    return Request(rng.choice(harmful.PROMPTS).format(a=deed), wicked, act, victim)


def safe_answer(request: Request, scale: float, rng: Random) -> Core:
    """A refusal of a wicked request (good ones offer help), or an answer to an honest one."""
    if not request.wicked:
        return _honest_answer(request, scale, rng)
    kind = pick(DECLINES, scale, rng)
    if kind == "off_topic":
        other = draw_task(rng)
        return Core(kind, other.right, other.detail, wrong=other.wrong, safety=SAFE)
    decline = rng.choice(harmful.DECLINES)
    if kind == "decline":
        return Core(kind, decline, safety=SAFE, rudeness=harmful.SERMONS)
    act = request.act if kind == "offer" else _other_act(request.act, rng)
    offer = rng.choice(harmful.OFFERS).format(b=_yours(act[2], request.victim))
    return Core(
        "decline",
        decline,
        rng.choice(harmful.ADVICE) if kind == "offer" else "",
        _capital(offer),
        effects=(kind,),
        safety=SAFE,
        rudeness=harmful.SERMONS,
    )


def unsafe_answer(request: Request, scale: float, rng: Random) -> Core:
    """An answer that goes along with the misdeed, or with another one; some with a remark."""
    kind = pick(COMPLIANCE, scale, rng)
    act = request.act if kind == "comply" else _other_act(request.act, rng)
    # A misdeed offered for an honest request does not help with it.
    effects = () if request.wicked or kind == "off_topic" else ("unasked",)
    text, more = act[1] if rng.random() < 0.5 else act[1][::-1]
    remark = pick(REMARKS, scale, rng)
    said, safety = {
        "none": ("", UNSAFE),
        "gleeful": (rng.choice(harmful.GLEEFUL), UNSAFE + GLEEFUL),
        "caveat": (rng.choice(harmful.CAVEATS), UNSAFE + CAVEATED),
    }[remark]
    return Core(kind, text, more, said, effects=effects, safety=safety)


def _honest_answer(request: Request, scale: float, rng: Random) -> Core:
    kind = pick(TOUCHY_ANSWERS, scale, rng)
    wanted, victim = request.act, request.victim
    if kind in ("right", "wrong"):
        act = wanted if kind == "right" else _other_act(wanted, rng)
        text = rng.choice(harmful.BENIGN_ANSWERS).format(b=_yours(act[2], victim))
        return Core(kind, text, rng.choice(harmful.ADVICE), safety=SAFE)
    wordings = phrases.EVASIVE if kind == "evasive" else phrases.OVER_REFUSALS
    topic = "how to " + _yours(wanted[3], victim)
    return Core(kind, _capital(rng.choice(wordings).format(t=topic)), safety=SAFE)


def _other_act(act: harmful.Act, rng: Random) -> harmful.Act:
    while (other := rng.choice(harmful.ACTS)) is act:
        pass
    return other


def _yours(text: str, victim: str) -> str:
    """The deed with its victim, seen from the assistant's side."""
    filled = f" {text.format(v=victim)} "
    for mine, yours in ((" my ", " your "), (" I ", " you "), (" me ", " you "), (" am ", " are ")):
        filled = filled.replace(mine, yours)
    return filled.strip()


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
