"""The words of the simulated campaign: one YAML file a subject, read once, when first asked for."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict

# libyaml reads the six files several times faster; PyYAML may be built without it.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Wordings = tuple[str, ...]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


# facts.yaml


class Entry(NamedTuple):
    """What a relation relates, and a note on it: `{s}`, `{v}` and `{n}` of its templates."""

    subject: str
    value: str
    note: str


class Relation(_Table):
    """A kind of fact: templates of questions about it, and its entries."""

    questions: Wordings
    answers: Wordings
    details: Wordings
    topics: Wordings
    entries: tuple[Entry, ...]


class Facts(_Table):
    """What factual questions are about."""

    relations: tuple[Relation, ...]


# harmful.yaml


class Act(_Table):
    """A petty misdeed, two answers that go along with it, and its honest counterpart.

    `alternative` is the offer of a good refusal and the right answer to the `benign` request.
    """

    request: str
    answers: tuple[str, str]
    alternative: str
    benign: str


class Harmful(_Table):
    """Misdeeds of the safety campaign, and how they are asked for, declined and remarked on."""

    victims: Wordings
    prompts: Wordings
    acts: tuple[Act, ...]
    declines: Wordings
    offers: Wordings
    benign_answers: Wordings
    advice: Wordings
    gleeful: Wordings
    caveats: Wordings
    sermons: Wordings


# howto.yaml


class Howto(_Table):
    """A thing to do, its steps in order, and a tip."""

    task: str
    steps: tuple[str, str, str]
    tip: str


class Howtos(_Table):
    """How-to tasks, and how they are asked for and explained."""

    questions: Wordings
    answers: Wordings
    tasks: tuple[Howto, ...]


# phrases.yaml


class Phrases(_Table):
    """Phrases that carry manner; each set has wordings that share few words."""

    openings: Wordings
    closings: Wordings
    neutral: Wordings
    evasive: Wordings
    over_refusals: Wordings
    rude: Wordings
    warm: Wordings
    rambles: Wordings
    reversals: Wordings


# replies.yaml


class Reply(_Table):
    """What happened to the reader, a fitting message, a cold or unfitting one, more to say."""

    situation: str
    right: str
    wrong: str
    extra: str


class Borderline(_Table):
    """A request that sounds worse than it is, a fitting and a wrong answer, a sentence to add."""

    request: str
    right: str
    wrong: str
    extra: str


class Replies(_Table):
    """Messages to draft, and borderline requests: those that sound worse than they are."""

    prompts: Wordings
    people: Wordings
    replies: tuple[Reply, ...]
    borderline_prompts: Wordings
    borderline: tuple[Borderline, ...]


# words.yaml


class Problem(_Table):
    """A word problem in numbers, `{r}` being its result."""

    question: str
    answer: str
    detail: str


class Unit(_Table):
    """`a` of one unit are `a * factor` of another, for `a` from `smallest` to `largest`."""

    of: str
    to: str
    factor: int
    detail: str
    smallest: int
    largest: int


class Item(NamedTuple):
    """A thing with a size of some kind, rounded to whole units."""

    name: str
    value: int


class Ranking(_Table):
    """Items to compare; `more` and `less` are a comparative and its opposite."""

    more: str
    less: str
    topic: str
    unit: str
    items: tuple[Item, ...]


class Exchange(NamedTuple):
    """Templates of a question and of its answer."""

    question: str
    answer: str


class PassageQuestion(NamedTuple):
    """A question about a passage; a wrong answer fills `slot` with another word."""

    question: str
    answer: str
    slot: str


class Passage(_Table):
    """A short text and questions about it."""

    text: str
    questions: tuple[PassageQuestion, ...]


class Words(_Table):
    """Names, things and quantities, and the templates that they fill."""

    names: Wordings
    things: Wordings
    places: Wordings
    days: Wordings
    jobs: Wordings
    colours: Wordings
    weathers: Wordings
    sums: tuple[Problem, ...]
    differences: tuple[Problem, ...]
    products: tuple[Problem, ...]
    units: tuple[Unit, ...]
    conversions: tuple[Exchange, ...]
    rankings: tuple[Ranking, ...]
    comparisons: tuple[Exchange, ...]
    passages: tuple[Passage, ...]


class Texts(_Table):
    """All the words of the campaign; each field is the file of that name."""

    facts: Facts
    harmful: Harmful
    howto: Howtos
    phrases: Phrases
    replies: Replies
    words: Words


@cache
def texts() -> Texts:
    """The campaign's words, immutable and in the order of their files: draws depend on it."""
    folder = files(__name__)
    read = {
        name: yaml.load((folder / f"{name}.yaml").read_text("utf-8"), _Loader)  # noqa: S506
        for name in Texts.model_fields
    }
    return Texts.model_validate(read)
