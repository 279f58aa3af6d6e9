"""Task families: each draws a prompt with a right answer, a wrong answer and a useful extra.

A wrong answer has the form and the words of a right one; only the fact, number, order, reading
of the passage or tone is wrong. That is what keeps the campaign from being solvable by words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from palate.data.simulation.responses import Core, Weights, capitalised, pick
from palate.data.simulation.texts import Act, texts

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Task:
    """A prompt and what an assistant could say to it; `topic` is a noun phrase for evasions."""

    family: str
    prompt: str
    right: str
    wrong: str
    detail: str
    topic: str


def fact(rng: Random) -> Task:
    """A factual question; a wrong answer takes the value of another entry."""
    relation = rng.choice(texts().facts.relations)
    s, v, n = rng.choice(relation.entries)
    other = _another(rng, v, [entry.value for entry in relation.entries])
    answer = rng.choice(relation.answers)
    return Task(
        "fact",
        rng.choice(relation.questions).format(s=s),
        capitalised(answer.format(s=s, v=v)),
        capitalised(answer.format(s=s, v=other)),
        capitalised(rng.choice(relation.details).format(s=s, n=n)),
        rng.choice(relation.topics).format(s=s),
    )


def arithmetic(rng: Random) -> Task:
    """A word problem; a wrong answer is off by a little."""
    words = texts().words
    kind = rng.randrange(3)
    b = rng.randint(2, 9)
    if kind == 0:
        a = rng.randint(2, 30)
        problem, result = rng.choice(words.sums), a + b
    elif kind == 1:
        a = rng.randint(b + 2, 30)
        problem, result = rng.choice(words.differences), a - b
    else:
        a = rng.randint(2, 9)
        problem, result = rng.choice(words.products), a * b
    slots = {
        "x": rng.choice(words.names),
        "t": rng.choice(words.things),
        "d": rng.choice(words.days),
        "a": a,
        "b": b,
    }
    wrong = _another(rng, result, [result + k for k in (-3, -2, -1, 1, 2, 4, 10) if result + k > 0])
    return Task(
        "arithmetic",
        problem.question.format(**slots),
        problem.answer.format(r=result, **slots),
        problem.answer.format(r=wrong, **slots),
        problem.detail.format(**slots),
        f"the number of {slots['t']}",
    )


def conversion(rng: Random) -> Task:
    """A change of units; a wrong answer has a wrong factor."""
    unit = rng.choice(texts().words.units)
    of, to, factor = unit.of, unit.to, unit.factor
    a = rng.randint(unit.smallest, unit.largest)
    question, answer = rng.choice(texts().words.conversions)
    slip = rng.choice((factor * 10, factor + 10, max(factor // 2, 1), factor + 1))
    return Task(
        "conversion",
        question.format(a=a, of=of, to=to),
        answer.format(a=a, of=of, to=to, r=a * factor),
        answer.format(a=a, of=of, to=to, r=a * slip),
        unit.detail,
        f"{of} and {to}",
    )


def comparison(rng: Random) -> Task:
    """Which of two items is heavier, faster, ...; a wrong answer has them swapped."""
    ranking = rng.choice(texts().words.rankings)
    drawn = sorted(rng.sample(ranking.items, 2), key=lambda item: -item.value)
    (win, high), (lose, low) = drawn
    question, answer = rng.choice(texts().words.comparisons)
    subject, number = rng.choice(((win, high), (lose, low)) if low else ((win, high),))
    topic, comparative = ranking.topic, ranking.more
    if rng.random() < 0.5:
        comparative, win, lose = ranking.less, lose, win
    x, y = (win, lose) if rng.random() < 0.5 else (lose, win)
    return Task(
        "comparison",
        question.format(c=comparative, x=x, y=y, topic=topic),
        capitalised(answer.format(c=comparative, topic=topic, w=win, l=lose)),
        capitalised(answer.format(c=comparative, topic=topic, w=lose, l=win)),
        f"For {subject} it is roughly {number} {ranking.unit}.",
        f"the {topic} of {x}",
    )


def passage(rng: Random) -> Task:
    """A question about a short passage; a wrong answer contradicts the passage."""
    words = texts().words
    drawn = rng.choice(words.passages)
    choices = {
        "name": words.names,
        "place": words.places,
        "day": words.days,
        "thing": words.things,
        "job": words.jobs,
        "colour": words.colours,
        "weather": words.weathers,
    }
    slots = {slot: rng.choice(values) for slot, values in choices.items()}
    slots["other"] = _another(rng, slots["name"], words.names)
    question, answer, slot = rng.choice(drawn.questions)
    lie = slots["name"] if slot == "other" else _another(rng, slots[slot], choices[slot])
    wrong = slots | {slot: lie}
    return Task(
        "passage",
        f"{drawn.text} {question}".format(**slots),
        capitalised(answer.format(**slots)),
        capitalised(answer.format(**wrong)),
        rng.choice(
            ("The text says so.", "This is stated in the note.", "I took it from the text.")
        ),
        rng.choice(("that text", "this passage", "the note", f"the {slots['place']}")),
    )


def steps(rng: Random) -> Task:
    """A how-to; a wrong answer has the steps in an impossible order."""
    howto = rng.choice(texts().howto.tasks)
    answer = rng.choice(texts().howto.answers)
    one, two, three = howto.steps
    muddled = rng.choice(((three, one, two), (three, two, one), (two, three, one)))
    return Task(
        "steps",
        rng.choice(texts().howto.questions).format(task=howto.task),
        answer.format(*howto.steps),
        answer.format(*muddled),
        howto.tip,
        f"how to {howto.task}",
    )


def reply(rng: Random) -> Task:
    """A polite message to draft; a wrong one is cold or hostile to its reader."""
    replies = texts().replies
    message = rng.choice(replies.replies)
    person = rng.choice(replies.people)
    prompt = rng.choice(replies.prompts).format(p=person, s=message.situation)
    topic = f"{person} and the message"
    return Task("reply", prompt, message.right, message.wrong, message.extra, topic)


def borderline(rng: Random) -> Task:
    """A request that sounds worse than it is and should be helped."""
    wish = rng.choice(texts().replies.borderline)
    prompt = rng.choice(texts().replies.borderline_prompts).format(s=wish.request)
    topic = "how to " + wish.request.replace(" my ", " your ")
    return Task("borderline", prompt, wish.right, wish.wrong, wish.extra, topic)


# Weights assumed; families that a small model can judge by reading weigh more than arithmetic.
FAMILIES: dict[str, tuple[Callable[[Random], Task], float]] = {
    "fact": (fact, 0.20),
    "arithmetic": (arithmetic, 0.10),
    "conversion": (conversion, 0.09),
    "comparison": (comparison, 0.11),
    "passage": (passage, 0.15),
    "steps": (steps, 0.13),
    "reply": (reply, 0.12),
    "borderline": (borderline, 0.10),
}


def draw_task(rng: Random, families: Sequence[str] = tuple(FAMILIES)) -> Task:
    """A task of a random family."""
    drawers, weights = zip(*(FAMILIES[family] for family in families), strict=True)
    return rng.choices(drawers, weights)[0](rng)


def dress(prompt: str, rng: Random) -> str:
    """The prompt with an opening or a closing, as people write; half stay bare."""
    roll = rng.random()
    if roll < 0.25:
        return rng.choice(texts().phrases.openings) + prompt
    if roll < 0.5:
        return prompt + rng.choice(texts().phrases.closings)
    return prompt


def _another(rng: Random, value: T, values: Sequence[T]) -> T:
    """A value at random, other than the given one."""
    while (other := rng.choice(values)) == value:
        pass
    return other


# The made-up assistant: what it says, in essence, to an ordinary or a safety prompt.
#
# Its answers to ordinary tasks serve both campaigns; in the safety campaign the caller asks for a
# safe or an unsafe answer, so that the share of each bin is a design choice.

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
    act: Act
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
        while (other := draw_task(rng)).family == task.family:
            pass
        return _off_topic(other)
    return _evasion(kind, task.topic, rng)


def _off_topic(other: Task) -> Core:
    return Core("off_topic", other.right, other.detail, wrong=other.wrong, safety=SAFE)


def _evasion(kind: str, topic: str, rng: Random) -> Core:
    phrases = texts().phrases
    wordings = phrases.evasive if kind == "evasive" else phrases.over_refusals
    return Core(kind, capitalised(rng.choice(wordings).format(t=topic)), safety=SAFE)


def draw_request(rng: Random) -> Request:
    """A wicked request, or in two of five cases the honest one that resembles it."""
    harmful = texts().harmful
    act = rng.choice(harmful.acts)
    victim = rng.choice(harmful.victims)
    wicked = rng.random() < 0.6
    deed = (act.request if wicked else act.benign).format(v=victim)
    return Request(rng.choice(harmful.prompts).format(a=deed), wicked, act, victim)


def safe_answer(request: Request, scale: float, rng: Random) -> Core:
    """A refusal of a wicked request (good ones offer help), or an answer to an honest one."""
    if not request.wicked:
        return _honest_answer(request, scale, rng)
    harmful = texts().harmful
    kind = pick(DECLINES, scale, rng)
    if kind == "off_topic":
        return _off_topic(draw_task(rng))
    decline = rng.choice(harmful.declines)
    if kind == "decline":
        return Core(kind, decline, safety=SAFE, rudeness=harmful.sermons)
    act = request.act if kind == "offer" else _another(rng, request.act, texts().harmful.acts)
    offer = rng.choice(harmful.offers).format(b=_yours(act.alternative, request.victim))
    return Core(
        "decline",
        decline,
        rng.choice(harmful.advice) if kind == "offer" else "",
        capitalised(offer),
        effects=(kind,),
        safety=SAFE,
        rudeness=harmful.sermons,
    )


def unsafe_answer(request: Request, scale: float, rng: Random) -> Core:
    """An answer that goes along with the misdeed, or with another one; some with a remark."""
    kind = pick(COMPLIANCE, scale, rng)
    act = request.act if kind == "comply" else _another(rng, request.act, texts().harmful.acts)
    # A misdeed offered for an honest request does not help with it.
    effects = () if request.wicked or kind == "off_topic" else ("unasked",)
    text, more = act.answers if rng.random() < 0.5 else act.answers[::-1]
    manner = pick(REMARKS, scale, rng)
    # Both are drawn whichever is used: the draws that follow depend on it.
    remark, safety = {
        "none": ("", UNSAFE),
        "gleeful": (rng.choice(texts().harmful.gleeful), UNSAFE + GLEEFUL),
        "caveat": (rng.choice(texts().harmful.caveats), UNSAFE + CAVEATED),
    }[manner]
    return Core(kind, text, more, remark, effects=effects, safety=safety)


def _honest_answer(request: Request, scale: float, rng: Random) -> Core:
    kind = pick(TOUCHY_ANSWERS, scale, rng)
    wanted, victim = request.act, request.victim
    if kind in ("right", "wrong"):
        harmful = texts().harmful
        act = wanted if kind == "right" else _another(rng, wanted, harmful.acts)
        text = rng.choice(harmful.benign_answers).format(b=_yours(act.alternative, victim))
        return Core(kind, text, rng.choice(harmful.advice), safety=SAFE)
    return _evasion(kind, "how to " + _yours(wanted.benign, victim), rng)


def _yours(text: str, victim: str) -> str:
    """The deed with its victim, seen from the assistant's side."""
    filled = f" {text.format(v=victim)} "
    for mine, yours in ((" my ", " your "), (" I ", " you "), (" me ", " you "), (" am ", " are ")):
        filled = filled.replace(mine, yours)
    return filled.strip()
