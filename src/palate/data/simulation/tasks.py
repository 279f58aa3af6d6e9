"""Task families: each draws a prompt with a right answer, a wrong answer and a useful extra.

A wrong answer has the form and the words of a right one; only the fact, number, order, reading
of the passage or tone is wrong. That is what keeps the campaign from being solvable by words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from palate.data.simulation.annotators import Core, Weights, pick
from palate.data.simulation.tables import facts, harmful, howto, phrases, replies, words

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
    questions, answers, details, topics, entries = rng.choice(facts.RELATIONS)
    s, v, n = rng.choice(entries)
    other = _another(rng, v, [entry[1] for entry in entries])
    answer = rng.choice(answers)
    return Task(
        "fact",
        rng.choice(questions).format(s=s),
        _sentence(answer.format(s=s, v=v)),
        _sentence(answer.format(s=s, v=other)),
        _sentence(rng.choice(details).format(s=s, n=n)),
        rng.choice(topics).format(s=s),
    )


def arithmetic(rng: Random) -> Task:
    """A word problem; a wrong answer is off by a little."""
    kind = rng.randrange(3)
    b = rng.randint(2, 9)
    if kind == 0:
        a = rng.randint(2, 30)
        template, result = rng.choice(words.SUMS), a + b
    elif kind == 1:
        a = rng.randint(b + 2, 30)
        template, result = rng.choice(words.DIFFERENCES), a - b
    else:
        a = rng.randint(2, 9)
        template, result = rng.choice(words.PRODUCTS), a * b
    slots = {
        "x": rng.choice(words.NAMES),
        "t": rng.choice(words.THINGS),
        "d": rng.choice(words.DAYS),
        "a": a,
        "b": b,
    }
    question, answer, detail = template
    wrong = _another(rng, result, [result + k for k in (-3, -2, -1, 1, 2, 4, 10) if result + k > 0])
    return Task(
        "arithmetic",
        question.format(**slots),
        answer.format(r=result, **slots),
        answer.format(r=wrong, **slots),
        detail.format(**slots),
        f"the number of {slots['t']}",
    )


def conversion(rng: Random) -> Task:
    """A change of units; a wrong answer has a wrong factor."""
    of, to, factor, detail, smallest, largest = rng.choice(words.UNITS)
    a = rng.randint(smallest, largest)
    question, answer = rng.choice(words.CONVERSIONS)
    slip = rng.choice((factor * 10, factor + 10, max(factor // 2, 1), factor + 1))
    return Task(
        "conversion",
        question.format(a=a, of=of, to=to),
        answer.format(a=a, of=of, to=to, r=a * factor),
        answer.format(a=a, of=of, to=to, r=a * slip),
        detail,
        f"{of} and {to}",
    )


def comparison(rng: Random) -> Task:
    """Which of two items is heavier, faster, ...; a wrong answer has them swapped."""
    more, less, topic, items, unit = rng.choice(words.RANKED)
    (win, high), (lose, low) = sorted(rng.sample(items, 2), key=lambda item: -item[1])
    question, answer = rng.choice(words.COMPARISONS)
    subject, number = rng.choice(((win, high), (lose, low)) if low else ((win, high),))
    comparative = more
    if rng.random() < 0.5:
        comparative, win, lose = less, lose, win
    x, y = (win, lose) if rng.random() < 0.5 else (lose, win)
    return Task(
        "comparison",
        question.format(c=comparative, x=x, y=y, topic=topic),
        _sentence(answer.format(c=comparative, topic=topic, w=win, l=lose)),
        _sentence(answer.format(c=comparative, topic=topic, w=lose, l=win)),
        f"For {subject} it is roughly {number} {unit}.",
        f"the {topic} of {x}",
    )


def passage(rng: Random) -> Task:
    """A question about a short passage; a wrong answer contradicts the passage."""
    text, questions = rng.choice(words.PASSAGES)
    slots = {
        "name": rng.choice(words.NAMES),
        "place": rng.choice(words.PLACES),
        "day": rng.choice(words.DAYS),
        "thing": rng.choice(words.THINGS),
        "job": rng.choice(words.JOBS),
        "colour": rng.choice(words.COLOURS),
        "weather": rng.choice(words.WEATHERS),
    }
    slots["other"] = _another(rng, slots["name"], words.NAMES)
    question, answer, slot = rng.choice(questions)
    lie = slots["name"] if slot == "other" else _another(rng, slots[slot], _SLOT_WORDS[slot])
    wrong = slots | {slot: lie}
    return Task(
        "passage",
        f"{text} {question}".format(**slots),
        _sentence(answer.format(**slots)),
        _sentence(answer.format(**wrong)),
        rng.choice(
            ("The text says so.", "This is stated in the note.", "I took it from the text.")
        ),
        rng.choice(("that text", "this passage", "the note", f"the {slots['place']}")),
    )


def steps(rng: Random) -> Task:
    """A how-to; a wrong answer has the steps in an impossible order."""
    name, in_order, tip = rng.choice(howto.TASKS)
    answer = rng.choice(howto.ANSWERS)
    one, two, three = in_order
    muddled = rng.choice(((three, one, two), (three, two, one), (two, three, one)))
    return Task(
        "steps",
        rng.choice(howto.QUESTIONS).format(task=name),
        answer.format(*in_order),
        answer.format(*muddled),
        tip,
        f"how to {name}",
    )


def reply(rng: Random) -> Task:
    """A polite message to draft; a wrong one is cold or hostile to its reader."""
    situation, kind, cold, extra = rng.choice(replies.REPLIES)
    person = rng.choice(replies.PEOPLE)
    prompt = rng.choice(replies.REPLY_PROMPTS).format(p=person, s=situation)
    return Task("reply", prompt, kind, cold, extra, f"{person} and the message")


def borderline(rng: Random) -> Task:
    """A request that sounds worse than it is and should be helped."""
    request, right, wrong, extra = rng.choice(replies.BORDERLINE)
    prompt = rng.choice(replies.BORDERLINE_PROMPTS).format(s=request)
    topic = request.replace(" my ", " your ")
    return Task("borderline", prompt, right, wrong, extra, f"how to {topic}")


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


def draw_other_task(task_family: str, rng: Random) -> Task:
    """A task of another family: where off-topic answers come from."""
    while (other := draw_task(rng)).family == task_family:
        pass
    return other


def dress(prompt: str, rng: Random) -> str:
    """The prompt with an opening or a closing, as people write; half stay bare."""
    roll = rng.random()
    if roll < 0.25:
        return rng.choice(phrases.OPENINGS) + prompt
    if roll < 0.5:
        return prompt + rng.choice(phrases.CLOSINGS)
    return prompt


_SLOT_WORDS: dict[str, tuple[str, ...]] = {
    "place": words.PLACES,
    "day": words.DAYS,
    "thing": words.THINGS,
    "job": words.JOBS,
    "colour": words.COLOURS,
    "weather": words.WEATHERS,
}


def _another(rng: Random, value: T, values: Sequence[T]) -> T:
    while (other := rng.choice(values)) == value:
        pass
    return other


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


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
