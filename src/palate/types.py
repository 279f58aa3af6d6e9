"""The nouns of Palate: what one human judgement is, and what a judge may see of it.

A `Comparison` carries the label, of two responses; a `BenchmarkItem` that of K. A `Pair` is a
comparison with the label hidden and the two sides shuffled, and `Candidates` are the responses of
an item. A `Judge` answers pairs, a `Scorer` gives single responses a number; neither is ever handed
a `Comparison` or an item, so none can see the label.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any, Literal, Protocol, get_args

UNREAD_COLUMNS = "columns"
"""In a comparison's `meta`: the columns of the user's file that Palate does not read, by name."""

SELECTION = "selection"
"""In a comparison's `meta`: how it was chosen to be labelled: `round`, `reason`, `probability`."""

Role = Literal["system", "user", "assistant", "tool", "tools"]
ROLES: tuple[Role, ...] = get_args(Role)[:-1]
"""Who speaks in a file's or a request's messages. A turn of `tools` is Palate's own: it is the
first of a prompt and holds the tools that the model was given, as JSON."""
FORM = "\x1e{"
"""Begins a content that is more than text: U+001E, as RFC 7464 has it, and a JSON object."""


class PalateError(Exception):
    """A mistake of the user's or their data's; the message is one line that names the cure."""


class Rating(IntEnum):
    """How much better the chosen response is (Llama 2, section 3.2.1): four levels."""

    NEGLIGIBLY = 1
    SLIGHTLY = 2
    BETTER = 3
    SIGNIFICANTLY = 4

    @property
    def label(self) -> str:
        """The name used in files and recipes: `significantly`, `better`, ..."""
        return self.name.lower()

    @property
    def words(self) -> str:
        """As it is said: `significantly better`, `better`, ..."""
        return self.label if self is Rating.BETTER else f"{self.label} better"


class Bin(StrEnum):
    """Safety bin of a pair (section 3.2.1), named by chosen and rejected."""

    SAFE_UNSAFE = "safe chosen, unsafe rejected"
    BOTH_SAFE = "both safe"
    BOTH_UNSAFE = "both unsafe"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    `content` is its text. Where a turn is more than text (it calls tools, it reasons in a field of
    its own), it is `content_of` its text and these fields, and `text` and `fields` give them back.
    """

    role: Role
    content: str

    @property
    def text(self) -> str:
        """What the turn says, without its fields."""
        return parts_of(self.content)[0]

    @property
    def fields(self) -> Mapping[str, Any]:
        """What the turn has beside its text: `reasoning`, `tool_calls`, `tool_call_id`, `name`."""
        return parts_of(self.content)[1]


def content_of(text: str, fields: Mapping[str, Any]) -> str:
    """A message's or response's text and fields as one string, which is the text without fields.

    Equal messages are equal strings, so that ids, fingerprints, caches and duplicates see all of a
    message wherever they see its content.

    >>> content_of("Hi", {})
    'Hi'
    >>> parts_of(content_of("Hi", {"reasoning": "Greet."}))
    ('Hi', {'reasoning': 'Greet.'})
    """
    if not fields:
        return text
    ordered = {"content": text, **{name: fields[name] for name in sorted(fields)}}
    return FORM[0] + json.dumps(ordered, ensure_ascii=False, separators=(",", ":"))


def parts_of(content: str) -> tuple[str, dict[str, Any]]:
    """The text and the fields that `content_of` made a string of; any other string is text."""
    if not content.startswith(FORM):
        return content, {}
    try:
        fields = json.loads(content[1:])
        return fields.pop("content"), fields
    except (ValueError, KeyError):
        return content, {}


def is_text(prompt: Iterable[Message], *responses: str) -> bool:
    """Whether a conversation is nothing but text, for what takes no more."""
    turns = (*prompt, *(Message("assistant", response) for response in responses))
    return not any(turn.role in ("tool", "tools") or turn.fields for turn in turns)


def in_words(content: str) -> str:
    """A message's or response's content as a reader is shown it: its fields in lines of text.

    >>> in_words(content_of("Done.", {"reasoning": "Easy."}))
    'Reasoning: Easy.\\n\\nDone.'
    """
    text, fields = parts_of(content)
    if not fields:
        return text
    calls = [call["function"] for call in fields.get("tool_calls", ())]
    result = " ".join(str(fields[name]) for name in ("name", "tool_call_id") if name in fields)
    lines = [
        f"Reasoning: {fields['reasoning']}" if "reasoning" in fields else "",
        f"Result of {result}:" if result else "",
        text,
        *(f"Call of {call['name']}: {_as_json(call['arguments'])}" for call in calls),
    ]
    return "\n\n".join(filter(None, lines))


def _as_json(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was said of two responses: how much of it for each outcome, and how much it counts.

    One vote for `chosen` is the plain preference; votes of several annotators are counts; a
    probability p is `chosen=p, rejected=1-p`. `both_bad` is a tie between two bad responses.

    Raises:
        PalateError: an amount or the weight is negative or not finite, or there is no amount.
    """

    chosen: float = 1.0
    rejected: float = 0.0
    tie: float = 0.0
    both_bad: float = 0.0
    weight: float = 1.0

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise PalateError(f"{name}: expected a number of 0 or more, got {value!r}")
        if not self.total:
            raise PalateError(
                "expected a vote or a share for chosen, rejected, tie or both_bad, got none"
            )

    @property
    def total(self) -> float:
        """All votes, or 1 where they are shares."""
        return self.chosen + self.rejected + self.tie + self.both_bad

    @property
    def shares(self) -> tuple[float, float, float]:
        """Shares of chosen, tie (both bad is one) and rejected; they add up to 1."""
        return (
            self.chosen / self.total,
            (self.tie + self.both_bad) / self.total,
            self.rejected / self.total,
        )

    @property
    def decides(self) -> Literal["chosen", "tie", "rejected"]:
        """The outcome with the largest share; a tie where none is alone at the top."""
        chosen, tie, rejected = self.shares
        if chosen > max(tie, rejected):
            return "chosen"
        return "rejected" if rejected > max(tie, chosen) else "tie"

    @property
    def is_plain(self) -> bool:
        """Whether all of it is for chosen, with weight 1: what a file of pairs says."""
        return self.shares[0] == 1 and self.total == 1 and self.weight == 1


PREFERRED = Judgement()
"""One vote for the chosen response."""
UNLABELLED = Judgement(chosen=0, tie=1, weight=0)
"""What nobody has said anything of: the two responses are no more than the first and the second."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """Places of a comparison's two responses in the ranking that it was taken from.

    `ranking` names the ranking; places count from 0, the best, and are equal in a tie.

    Raises:
        PalateError: a place is negative, or the chosen response stands below the other.
    """

    ranking: str
    chosen: int
    rejected: int

    def __post_init__(self) -> None:
        if not 0 <= self.chosen <= self.rejected:
            raise PalateError(
                f"ranking {self.ranking}: expected 0 <= chosen <= rejected, "
                f"got {self.chosen} and {self.rejected}"
            )


Attributes = Mapping[str, float]
"""What was rated of one response, by name: `{"helpfulness": 4.0, "verbosity": 1.0}`."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One human judgement of two responses to one prompt; as a rule `chosen` was preferred.

    `prompt_id` is the cluster (prompt, post or tree) that statistics and splits keep whole;
    `batch` is the annotation batch; `meta` holds provenance and source-specific facts (origin
    file and row, raw strength, latent truth of a simulation) as JSON values. Where `judgement`
    is a tie, `chosen` and `rejected` are no more than the first and the second response.
    `ranks` says which ranking of several responses the pair belongs to. Attributes are what people
    rated of each response by itself; empty where nothing was.
    """

    id: str
    source: str
    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    prompt_id: str
    batch: str = ""
    rating: Rating | None = None
    chosen_safe: bool | None = None
    rejected_safe: bool | None = None
    annotator: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict[str, Any])
    judgement: Judgement = PREFERRED
    ranks: Ranks | None = None
    chosen_attributes: Attributes = field(default_factory=dict[str, float])
    rejected_attributes: Attributes = field(default_factory=dict[str, float])

    @property
    def bin(self) -> Bin | None:
        """The safety bin, or None where labels are missing or the chosen one alone is unsafe."""
        match (self.chosen_safe, self.rejected_safe):
            case (True, False):
                return Bin.SAFE_UNSAFE
            case (True, True):
                return Bin.BOTH_SAFE
            case (False, False):
                return Bin.BOTH_UNSAFE
            case _:
                return None


Pairs = tuple[tuple[int, int], ...]
"""Two responses each, by their numbers: the better one first."""


@dataclass(frozen=True, slots=True)
class BenchmarkItem:
    """One prompt with K responses and the truth about them: what a benchmark of best-of-K asks.

    `places` says where each response stands, 0 the best, equal in a tie: one best is (0, 1, 1, 1),
    a set of acceptable ones (0, 0, 1), a ranking (2, 0, 1). A judge is right where what it scores
    highest stands at 0. Where `pairs` are given these are asked instead, each right or wrong.

    `prompt_id` is the cluster and `source` the part of the benchmark, as in a `Comparison`.
    `turns` are those between the prompt and each response, where responses have earlier turns of
    their own. `labels` name the responses (a model, a style). `judgement` are people's votes on
    the first and the second of two responses.

    Raises:
        PalateError: fewer than two responses, places or turns that are not one a response, none
            at 0 or all at 0 without a judgement that is a tie, or pairs that are none of places.
    """

    id: str
    source: str
    prompt: tuple[Message, ...]
    responses: tuple[str, ...]
    places: tuple[int, ...]
    prompt_id: str
    pairs: Pairs = ()
    turns: tuple[tuple[Message, ...], ...] = ()
    labels: tuple[str, ...] = ()
    judgement: Judgement = PREFERRED
    meta: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        count = len(self.responses)
        if count < 2:
            raise PalateError(f"item {self.id}: expected two responses or more, got {count}")
        lengths = {"places": self.places, "turns": self.turns, "labels": self.labels}
        for name, values in lengths.items():
            if len(values) != count and (values or name == "places"):
                raise PalateError(
                    f"item {self.id}: expected {name} of each of {count} responses, "
                    f"got {len(values)}"
                )
        if min(self.places) != 0 or (max(self.places) == 0 and not self.undecided):
            raise PalateError(
                f"item {self.id}: expected places from 0, the best, and a response that is not at "
                f"it, got {self.places}"
            )
        for better, worse in self.pairs:
            within = 0 <= better < count and 0 <= worse < count
            if not within or self.places[better] >= self.places[worse]:
                raise PalateError(
                    f"item {self.id}: expected pairs of a better and a worse response, "
                    f"got ({better}, {worse})"
                )

    @property
    def undecided(self) -> bool:
        """Whether people's votes are a tie, so that no answer is right."""
        return self.judgement.decides == "tie"

    @property
    def chance(self) -> float:
        """What a judge that scores at random reaches on average: best-of-4 with one best, 1/4."""
        return 0.5 if self.pairs else self.places.count(0) / len(self.places)

    def conversations(self) -> tuple[tuple[Message, ...], ...]:
        """The turns before each response: the prompt, and those of the response's own."""
        own = self.turns or ((),) * len(self.responses)
        return tuple((*self.prompt, *turns) for turns in own)


@dataclass(frozen=True, slots=True)
class Candidates:
    """One prompt and the responses to be scored for it; what a `Scorer` sees.

    `rated` says that the benchmark asks for a number of each response, as its rule has it, and not
    for the best one: a scorer that would compare them scores each by itself instead.
    """

    prompt: tuple[Message, ...]
    responses: tuple[str, ...]
    rated: bool = False


@dataclass(frozen=True, slots=True)
class Score:
    """A scorer's answer for one response: a value, or None with the reason it has none.

    `attributes` are what its heads say beside the value, in the units of their ratings. `members`
    are what each member of an ensemble says, of which `value` is the mean.
    """

    value: float | None
    reason: str = ""
    truncated: bool = False
    tokens: int = 0
    attributes: Attributes = field(default_factory=dict[str, float])
    members: tuple[float, ...] = ()

    @property
    def std(self) -> float | None:
        """The standard deviation of an ensemble's members, as of a sample; None without one."""
        return spread_of(self.members) if self.members else None


def spread_of(values: Sequence[float]) -> float:
    """The standard deviation of two or more values, as of a sample."""
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


@dataclass(frozen=True, slots=True)
class Pair:
    """A comparison with its label hidden and its sides in a seeded order; what a `Judge` sees."""

    id: str
    prompt: tuple[Message, ...]
    first: str
    second: str


@dataclass(frozen=True, slots=True)
class Preference:
    """A judge's answer to one pair; `choice` None means unscored, and `reason` says why.

    `answer` is what a judge that speaks said, word for word; `seconds` how long it took to say.
    Attributes are what a scorer's heads say of each response; `spread` is the standard deviation of
    the difference of the scores over the members of an ensemble.
    """

    pair_id: str
    choice: Literal["first", "second", "tie"] | None
    first_score: float | None = None
    second_score: float | None = None
    reason: str = ""
    truncated: bool = False
    answer: str = ""
    seconds: float | None = None
    first_attributes: Attributes = field(default_factory=dict[str, float])
    second_attributes: Attributes = field(default_factory=dict[str, float])
    spread: float | None = None


Side = Literal["chosen", "rejected", "tie"]
"""The response that a judge prefers, by the names that the comparison gives them, or neither."""


class Outcome(StrEnum):
    """What became of one item under one judge.

    `UNDECIDED` is an item on which the annotators' own judgement is a tie: whatever a judge says
    of it is neither right nor wrong.
    """

    CORRECT = "correct"
    WRONG = "wrong"
    TIE = "tie"
    UNSCORED = "unscored"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class RatedAttribute:
    """An attribute of one side of an item: what people rated, and what a judge's head said."""

    name: str
    side: Literal["chosen", "rejected"]
    rated: float
    predicted: float


@dataclass(frozen=True, slots=True)
class JudgedResponse:
    """A response of an item of K: its place in the truth, its length in characters, its score.

    A response without a score has the reason why.
    """

    place: int
    length: int
    score: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A preference with the label put back: one row per judge, benchmark item and order.

    `rating`, `bin`, `cluster`, and `source` are copied from the comparison so that tables are
    remade from verdicts alone. `answer` is what the judge said, word for word: untrusted text.
    `seconds` is how long it took to say, None where the judge does not say. Lengths are characters.
    `judgement` is the annotators', copied from the comparison; where it is a tie and the judge gave
    an answer, `preferred` says which. `attributes` are those that people rated and the judge has a
    head for. `spread` is how far the members of an ensemble are apart on the difference of the
    scores.

    Of an item of K `responses` are all of them, in the item's order, and `value` is what the judge
    is right about: the share of right responses among those scored highest, or of the item's pairs,
    a tie one half; `chance` is what random scores reach there. Scores and lengths of the two sides
    are then the highest score and the mean length of the responses at place 0, and of the others.
    """

    judge: str
    benchmark: str
    comparison_id: str
    outcome: Outcome
    chosen_score: float | None
    rejected_score: float | None
    reason: str
    truncated: bool
    cluster: str
    source: str
    rating: Rating | None
    bin: Bin | None
    chosen_first: bool
    protocol: str
    answer: str = ""
    seconds: float | None = None
    chosen_length: int | None = None
    rejected_length: int | None = None
    judgement: Judgement = PREFERRED
    preferred: Side | None = None
    attributes: tuple[RatedAttribute, ...] = ()
    spread: float | None = None
    value: float | None = None
    chance: float | None = None
    responses: tuple[JudgedResponse, ...] = ()


class Scorer(Protocol):
    """Gives one response at a time a number, comparable between responses to one prompt."""

    @property
    def name(self) -> str: ...

    @property
    def protocol(self) -> Mapping[str, Any]:
        """Everything that may change a score: revision, template, truncation, dtype, ..."""
        ...

    def score(self, candidates: Iterable[Candidates]) -> Iterator[tuple[Score, ...]]:
        """One tuple of scores for each `Candidates`, in order, responses in order."""
        ...


class Judge(Protocol):
    """Says which of two responses is better."""

    @property
    def name(self) -> str: ...

    @property
    def protocol(self) -> Mapping[str, Any]: ...

    def judge(self, pairs: Sequence[Pair]) -> Iterator[Preference]:
        """One preference for each pair, in order."""
        ...


def digest(*parts: object) -> str:
    """A stable 128-bit hex digest of JSON-able parts; ids and fingerprints are made of it."""
    text = json.dumps(parts, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def comparison_id(
    source: str, prompt: Sequence[Message], chosen: str, rejected: str, row: str = ""
) -> str:
    """The id of a comparison: its content, plus `row` where a source repeats content on purpose."""
    turns = [[m.role, m.content] for m in prompt]
    return digest(source, turns, chosen, rejected, row)
