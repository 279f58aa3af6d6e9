"""A user's columns as Palate's: which is the prompt, which the responses, and who won.

`columns` maps a role to the column that plays it: `{prompt: question, response_a: answer_1,
response_b: answer_2, winner: better}`. A role that is not named is played by the column of that
name, where there is one. `data.question` is the key `question` within `data`, `answers.0` the first
of a list. `values` says what the words of `winner`, or of a strength, mean where Palate cannot
know: `{neither: both_bad, unsure: skip}`. What was rated of single responses is read where
`attributes` asks for it; `response_a.helpfulness: a_stars` is the column of one response's.

A row that was not judged (an empty cell) is left out; one with two winners, an unknown word or a
strength outside its scale is bad. Nothing is guessed from the order of columns.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import combinations
from statistics import fmean
from typing import Any

from palate.data.messages import SHOWN_CHARACTERS, shown
from palate.data.sources import base
from palate.data.sources.base import BadRow, InvalidRecord, Record, Scales, SingleResponse
from palate.progress import warn
from palate.types import PREFERRED, Attributes, Judgement, PalateError, Ranks, Rating, digest
from palate.validation import did_you_mean

Columns = Mapping[str, str]
"""Role to column."""

ROLES: Mapping[str, str] = {
    "prompt": "text or messages; not needed where the responses are whole conversations",
    "chosen": "the response that was preferred",
    "rejected": "the other one",
    "response_a": "the first response, where another column says who won",
    "response_b": "the second one",
    "responses": "a list of responses, ranked by `ranks` or `scores`",
    "response": "one response; those of a prompt are compared by `score`",
    "winner": "a, b, tie or both bad, in any of the known words or as `values` says",
    "winner_a": "1 where the first won: one-hot, with winner_b, winner_tie, winner_both_bad",
    "winner_b": "1 where the second won",
    "winner_tie": "1 where neither did",
    "winner_both_bad": "1 where both are bad",
    "votes_a": "number of votes for the first, with votes_b, votes_tie, votes_both_bad",
    "votes_b": "number of votes for the second",
    "votes_tie": "number of votes for neither",
    "votes_both_bad": "number of votes that both are bad",
    "probability": "probability, 0 to 1, that the first (or `chosen`) is the better one",
    "strength_a": "-3 to 3: how much better the first is; below 0 the second is better",
    "strength_b": "-3 to 3: how much better the second is; below 0 the first is better",
    "ranks": "places of `responses`, the smallest is the best; equal places are a tie",
    "scores": "scores of `responses`, the largest is the best; equal scores are a tie",
    "score": "score of `response`, the largest is the best; equal scores are a tie",
    "weight": "how much the row counts; default 1",
    "rating": "significantly, better, slightly, negligibly, or 4 to 1",
    "annotator": "who judged",
    "batch": "the annotation batch",
    "prompt_id": "the cluster of prompts that is kept together",
    "source": "the name the row goes by",
    "chosen_safe": "whether the chosen response is safe",
    "rejected_safe": "whether the rejected one is",
    "safe_a": "whether the first response is safe",
    "safe_b": "whether the second one is",
}
# Columns that say which of two responses won. A row has one way to say it.
VERDICTS: Mapping[str, tuple[str, ...]] = {
    "winner": ("winner",),
    "winner_a": ("winner_a", "winner_b", "winner_tie", "winner_both_bad"),
    "votes_a": ("votes_a", "votes_b", "votes_tie", "votes_both_bad"),
    "probability": ("probability",),
    "strength_a": ("strength_a",),
    "strength_b": ("strength_b",),
}
VERDICT_ROLES = tuple(role for roles in VERDICTS.values() for role in roles)
SHAPES: Mapping[str, tuple[str, ...]] = {
    "chosen": ("chosen", "rejected"),
    "response_a": ("response_a", "response_b"),
    "responses": ("responses",),
    "response": ("response",),
}
# Taken from a column of that name unasked; `weight` and `probability` beside a pair are not, for
# files that have them were read without.
FACTS = ("prompt", "rating", "annotator", "batch", "prompt_id", "source")
UNASKED: Mapping[str, tuple[str, ...]] = {
    "chosen": (*FACTS, "chosen_safe", "rejected_safe"),
    "response_a": (*FACTS, "safe_a", "safe_b", *VERDICT_ROLES),
    "responses": (*FACTS, "ranks", "scores"),
    # A column `rating` beside one response is of that response, and no strength of a preference.
    "response": (*(role for role in FACTS if role != "rating"), "score"),
}

OUTCOMES = ("a", "b", "tie", "both_bad")
SKIP = "skip"
"""In `values`: a row with this word is left out."""
STRENGTHS = tuple(range(-3, 4))
RATINGS = {1: Rating.SLIGHTLY, 2: Rating.BETTER, 3: Rating.SIGNIFICANTLY}


@dataclass(frozen=True, slots=True)
class Reading:
    """One comparison that a row holds, in Palate's columns.

    `data` has prompt, chosen, rejected, rating and so on as the file says them; `key` tells apart
    the comparisons of one row. `attributes` are all ratings that the row has of the chosen and of
    the rejected response, as the file says them.
    """

    data: Mapping[str, Any]
    judgement: Judgement = PREFERRED
    ranks: Ranks | None = None
    strength: float | None = None
    key: str = ""
    attributes: tuple[Mapping[str, Any], Mapping[str, Any]] = ({}, {})


Together = Callable[[Iterable[Record | BadRow]], Iterator[tuple[Record, Reading] | BadRow]]
"""All rows of a file to its comparisons, each with the row that it is known by."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A way in which files hold comparisons.

    `columns` says which column plays which role; `readings` makes a row's comparisons of it, and
    raises `InvalidRecord` where it holds none. It is None where only several rows `together` make a
    comparison (thumbs, rated responses). `fits` says whether a row is in this layout.
    """

    name: str
    columns: Columns
    readings: Callable[[Record], Iterable[Reading]] | None = field(repr=False)
    fits: Callable[[Mapping[str, Any]], bool] = field(default=lambda _: False, repr=False)
    together: Together | None = field(default=None, repr=False)

    @property
    def read(self) -> frozenset[str]:
        """The columns of a file that are read, without what is taken within them."""
        return frozenset(name for column in self.columns.values() for name in _names(column))


def _names(column: str) -> tuple[str, str]:
    return column, column.partition(".")[0]


def attribute_of(role: str) -> tuple[str, str] | None:
    """The response and the attribute that a role such as `response_a.helpfulness` is of."""
    side, dot, name = role.partition(".")
    return (
        (side, name) if dot and name and any(side in roles for roles in SHAPES.values()) else None
    )


def check(columns: Columns, values: Mapping[str, str], scales: Scales | None = None) -> None:
    """Refuse what no file could make right.

    Raises:
        ValueError: an unknown role or meaning, two ways to say who won, or one that does not fit;
            a scale without two ends in order; an attribute without a scale.
    """
    for name, (low, high) in (scales or {}).items():
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(
                f"attributes: {name}: expected the lowest and the highest rating, such as [0, 4], "
                f"got [{low:g}, {high:g}]"
            )
    for role in columns:
        attribute = attribute_of(str(role))
        if attribute and attribute[1] not in (scales or {}):
            raise ValueError(
                f"columns: {role}: no scale of {attribute[1]!r}; state it in "
                f"attributes: {{{attribute[1]}: [0, 4]}}"
            )
        if role not in ROLES and not attribute:
            raise ValueError(f"columns: no role {role!r}; {did_you_mean(str(role), ROLES)}")
        if not isinstance(columns[role], str):
            raise ValueError(f"columns: {role}: expected a column's name, got {columns[role]!r}")
    texts = [role for roles in SHAPES.values() for role in roles if role in columns]
    for role, other in combinations(texts, 2):
        if columns[role] == columns[other]:
            raise ValueError(f"columns: {role} and {other} are both {columns[role]!r}")
    if len(shapes := _named(SHAPES, columns)) > 1:
        raise ValueError(f"columns: {shapes[0]} and {shapes[1]} are both responses; keep one pair")
    if len(verdicts := _named(VERDICTS, columns)) > 1:
        raise ValueError(f"columns: {verdicts[0]} and {verdicts[1]} both say who won; keep one")
    strengths = tuple(map(str, STRENGTHS))
    meanings: tuple[str, ...] = (*OUTCOMES, *strengths, SKIP)
    match verdicts:
        case ["winner"]:
            meanings = (*OUTCOMES, SKIP)
        case ["strength_a" | "strength_b"]:
            meanings = (*strengths, SKIP)
        case [_]:
            meanings = ()
    for said, meaning in values.items():
        if not meanings:
            raise ValueError(f"values: are of winner or a strength; {verdicts[0]} needs none")
        if meaning not in meanings:
            raise ValueError(
                f"values: {said} means {meaning!r}, expected one of {', '.join(meanings)}"
            )


def _named(groups: Mapping[str, Sequence[str]], columns: Collection[str]) -> list[str]:
    """The groups of which a role is named."""
    return [name for name, roles in groups.items() if set(roles) & set(columns)]


def mapped(
    columns: Columns,
    values: Mapping[str, str],
    head: Sequence[Record],
    file: str,
    scales: Scales | None = None,
) -> Layout:
    """The layout that a mapping makes of a file whose first rows are `head`.

    Raises:
        PalateError: the mapping is no mapping, names a column that the file has not, or lacks one.
    """
    try:
        check(columns, values, scales)
    except ValueError as error:
        raise PalateError(str(error)) from None
    names = list(dict.fromkeys(str(name) for record in head for name in record.data))
    for role, column in columns.items():
        if not any(_has(record.data, column) for record in head):
            raise PalateError(
                f"{file}: no column {column!r} (columns.{role}); {did_you_mean(column, names)}"
            )
    roles = dict(columns)
    shape = _shape(roles, names, file)
    taken = {name for column in roles.values() for name in _names(column)}
    said = next(iter(_named(VERDICTS, roles)), None)
    for role in (*SHAPES[shape], *UNASKED[shape]):
        of_verdict = role in VERDICT_ROLES and said is not None and role not in VERDICTS[said]
        if role in names and role not in taken and role not in roles and not of_verdict:
            roles[role] = role
    roles = with_attributes(roles, shape, scales or {}, names)
    _complete(shape, roles, names, file)
    if shape == "response":
        return Layout(
            "columns", roles, None, together=partial(rated_pairs, roles=roles, scales=scales or {})
        )
    if shape == "responses":
        return Layout("columns", roles, lambda record: _ranking(record, roles))
    words = _vocabulary(roles, values, head, file) if "winner" in roles else values
    return Layout("columns", roles, lambda record: (pair(record, roles, words),))


def with_attributes(
    roles: Columns, shape: str, scales: Scales, names: Collection[str]
) -> dict[str, str]:
    """The roles with the columns of the attributes, by the names that these have unasked.

    Of one response or a list of them that is the attribute's own, else SIDE_attributes, an object.
    """
    added = dict(roles)
    for side in SHAPES[shape] if scales else ():
        for name in scales:
            column = name if shape in ("response", "responses") else f"{side}_attributes.{name}"
            if column.partition(".")[0] in names:
                added.setdefault(f"{side}.{name}", column)
    return added


def has_roles(data: Mapping[str, Any]) -> bool:
    """Whether a row's columns bear the names of roles, so that nothing need be mapped."""
    pair_of_responses = {"response_a", "response_b"} <= data.keys()
    ranking = "responses" in data and bool(data.keys() & {"ranks", "scores"})
    ranking = ranking or {"prompt", "response", "score"} <= data.keys()
    return ranking or (pair_of_responses and bool(_named(VERDICTS, data)))


def _shape(roles: Columns, names: Sequence[str], file: str) -> str:
    """How the responses come: by the roles that are named, else by the file's own columns."""
    if shapes := _named(SHAPES, roles) or _named(SHAPES, names):
        return shapes[0]
    raise PalateError(
        f"{file}: no column is a response; name chosen and rejected, response_a and response_b, "
        f"or responses in `columns`; the file has: {', '.join(names[:12]) or 'none'}"
    )


def _complete(shape: str, roles: Columns, names: Sequence[str], file: str) -> None:
    wanted = list(SHAPES[shape])
    verdicts = _named(VERDICTS, roles)
    has = f"; the file has: {', '.join(names[:12])}"
    if len(verdicts) > 1:
        raise PalateError(
            f"{file}: {verdicts[0]} and {verdicts[1]} both say who won; name one in `columns`"
        )
    if shape == "response_a":
        if not verdicts:
            raise PalateError(
                f"{file}: no column says who won; name it in `columns`: winner, winner_a and "
                f"winner_b, votes_a and votes_b, probability, strength_a or strength_b{has}"
            )
        if verdicts[0] in ("winner_a", "votes_a"):
            wanted += VERDICTS[verdicts[0]][:2]
    elif shape == "chosen" and verdicts and verdicts != ["probability"]:
        raise PalateError(
            f"{file}: {verdicts[0]} says who won of response_a and response_b; beside chosen and "
            "rejected there is no question, name these two instead"
        )
    elif shape == "responses" and len(roles.keys() & {"ranks", "scores"}) != 1:
        raise PalateError(f"{file}: name ranks or scores of responses in `columns`, one{has}")
    elif shape == "response":
        wanted += ["score", "prompt"]
        for role in (*VERDICT_ROLES, "rating"):
            if role in roles:
                raise PalateError(f"{file}: {role} is of two responses; name the score of one")
    for role in wanted:
        if role not in roles:
            raise PalateError(f"{file}: no column is {role}; name it in `columns`{has}")


# One row.

_MISSING = object()


def _cell(data: Mapping[str, Any], column: str) -> Any:
    """The value of a column, or of a key within it; `_MISSING` if the row has none."""
    if column in data:
        return data[column]
    value: Any = data
    for part in column.split("."):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list | tuple) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return _MISSING
    return value


def _has(data: Mapping[str, Any], column: str) -> bool:
    return _cell(data, column) is not _MISSING


def _value(record: Record, roles: Columns, role: str) -> Any:
    """What a role says in a row; None where the cell is empty or absent."""
    value = _cell(record.data, roles[role]) if role in roles else None
    return None if value is _MISSING or value == "" else value


def _facts(record: Record, roles: Columns) -> dict[str, Any]:
    facts = {role: _value(record, roles, role) for role in FACTS if role in roles}
    if "prompt" in roles and facts["prompt"] is None and _has(record.data, roles["prompt"]):
        facts["prompt"] = (
            ""  # Lint finds it; a prompt that is not there is sought in the responses.
        )
    return facts


def pair(record: Record, roles: Columns, words: Mapping[str, str]) -> Reading:
    """The comparison of a row with two responses."""
    facts = _facts(record, roles)
    shape = "response_a" if "response_a" in roles else "chosen"
    sides: list[Any] = []
    for role in SHAPES[shape]:
        if (value := _value(record, roles, role)) is None and not _has(record.data, roles[role]):
            columns = ", ".join(sorted(map(str, record.data))[:12])
            raise InvalidRecord(f"missing column {roles[role]!r}; the row has: {columns}")
        sides.append("" if value is None else value)
    safe_roles = ("safe_a", "safe_b") if shape == "response_a" else ("chosen_safe", "rejected_safe")
    safe = [_value(record, roles, role) for role in safe_roles]
    rated = [_rated(record, roles, role) for role in SHAPES[shape]]
    amounts, strength = _amounts(record, roles, words)
    weight = 1.0
    if (given := _value(record, roles, "weight")) is not None:
        weight = number(given, roles["weight"], 0, math.inf, "a weight of 0 or more")
    a, b, tie, both_bad = amounts
    if b > a:
        a, b = b, a
        sides.reverse()
        safe.reverse()
        rated.reverse()
    judgement = Judgement(a, b, tie, both_bad, weight)
    rating = facts.pop("rating", None)
    if judgement.decides == "tie":
        rating = None
    elif rating is None and strength:
        rating = RATINGS[strength].label
    data = {
        **facts,
        "chosen": sides[0],
        "rejected": sides[1],
        "rating": rating,
        "chosen_safe": safe[0],
        "rejected_safe": safe[1],
    }
    return Reading(data, judgement, strength=strength, attributes=(rated[0], rated[1]))


def _rated(record: Record, roles: Columns, side: str) -> dict[str, Any]:
    """What a row says of the attributes of one response."""
    names = [role.partition(".")[2] for role in roles if role.startswith(f"{side}.")]
    return {name: _value(record, roles, f"{side}.{name}") for name in names}


Amounts = tuple[float, float, float, float]
"""Of the first, the second, a tie and both bad."""


def _amounts(
    record: Record, roles: Columns, words: Mapping[str, str]
) -> tuple[Amounts, int | None]:
    """What was said of the two responses, and how strongly where the file says it."""
    if "winner" in roles:
        outcome = _outcome(_value(record, roles, "winner"), roles["winner"], words)
        return _one(outcome), None
    if "strength_a" in roles or "strength_b" in roles:
        role = "strength_a" if "strength_a" in roles else "strength_b"
        strength = _strength(_value(record, roles, role), roles[role], words)
        first = strength if role == "strength_a" else -strength
        return _one("a" if first > 0 else "b" if first < 0 else "tie"), abs(strength)
    if "probability" in roles:
        column = roles["probability"]
        if (value := _value(record, roles, "probability")) is None:
            raise _not_judged(column)
        share = number(value, column, 0, 1, "a probability of 0 to 1")
        return (share, 1 - share, 0, 0), None
    for name in ("winner_a", "votes_a"):
        if name in roles:
            counted = [
                _count(_value(record, roles, role), roles.get(role, role), name)
                for role in VERDICTS[name]
            ]
            return _counts(counted, [roles[r] for r in VERDICTS[name] if r in roles], name), None
    return _one("a"), None


def _one(outcome: str) -> Amounts:
    a, b, tie, both_bad = (float(outcome == name) for name in OUTCOMES)
    return a, b, tie, both_bad


def _counts(counted: Sequence[float | None], columns: Sequence[str], name: str) -> Amounts:
    if all(n is None for n in counted):
        raise _not_judged(", ".join(columns))
    a, b, tie, both_bad = (n or 0.0 for n in counted)
    total = a + b + tie + both_bad
    if name == "votes_a":
        if not total:
            raise InvalidRecord(f"{', '.join(columns)}: nobody voted", "left out")
    elif total != 1:
        got = "none" if not total else "two" if total == 2 else "more than two"
        cure = "" if total or len(columns) > 2 else "; a column that has ties is named winner_tie"
        raise InvalidRecord(f"{', '.join(columns)}: expected one winner, got {got}{cure}")
    return a, b, tie, both_bad


def _count(value: Any, column: str, name: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or str(value).strip().casefold() in ("true", "false"):
        return float(str(value).strip().casefold() == "true")
    wanted = "0 or 1" if name == "winner_a" else "a whole number of 0 or more"
    count = number(value, column, 0, 1 if name == "winner_a" else math.inf, wanted)
    if count != int(count):
        raise InvalidRecord(f"{column}: expected {wanted}, got {shown(value)}")
    return count


def _outcome(value: Any, column: str, words: Mapping[str, str]) -> str:
    if value is None or not (said := word(value)):
        raise _not_judged(column)
    outcome = words.get(said)
    if outcome == SKIP:
        raise InvalidRecord(f"{column}: {shown(value)} is to be skipped", "left out")
    if outcome is None:
        hint = f"say what it means: values: {{{said[:SHOWN_CHARACTERS]}: tie}}"
        if _strength_like(said):
            hint = "a signed strength is strength_a or strength_b in `columns`"
        raise InvalidRecord(f"{column}: expected a, b, tie or both_bad, got {shown(value)}; {hint}")
    return outcome


def _strength(value: Any, column: str, values: Mapping[str, str]) -> int:
    if value is None or not (said := word(value)):
        raise _not_judged(column)
    meaning = values.get(said, said)
    if meaning == SKIP:
        raise InvalidRecord(f"{column}: {shown(value)} is to be skipped", "left out")
    if meaning not in map(str, STRENGTHS):
        raise InvalidRecord(
            f"{column}: expected a whole strength of -3 to 3, got {shown(value)}; "
            f"map another scale: values: {{{said[:SHOWN_CHARACTERS]}: 3}}"
        )
    return int(meaning)


def _strength_like(said: str) -> bool:
    return re.fullmatch(r"-\d+(\.\d+)?", said) is not None


def _not_judged(column: str) -> InvalidRecord:
    return InvalidRecord(f"{column}: empty, so nothing was preferred", "left out")


def number(value: Any, column: str, low: float, high: float, wanted: str) -> float:
    """A number of a cell, which CSV holds as text."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not (math.isfinite(number) and low <= number <= high):
        raise InvalidRecord(f"{column}: expected {wanted}, got {shown(value)}")
    return number


# Words for an outcome.

_NOUNS = (
    "model", "response", "answer", "assistant", "output", "completion", "option", "candidate",
    "reply", "choice", "text",
)  # fmt: skip
_NUMBERED = re.compile(rf"(?:(?:{'|'.join(_NOUNS)}) ?)?([012])")
_PARTS = re.compile(r"[^\W\d_]+|\d+")
WORDS: Mapping[str, str] = {
    **{f"{noun}{letter}": letter for letter in "ab" for noun in ("", *(n + " " for n in _NOUNS))},
    **{f"{letter} is better": letter for letter in "ab"},
    **{"left": "a", "first": "a", "right": "b", "second": "b"},
    **dict.fromkeys(("tie", "tied", "draw", "equal", "same", "middle", "both good"), "tie"),
    **{"tie (bothgood)": "tie", "a=b": "tie", "a>b": "a", "b>a": "b", "a<b": "b", "b<a": "a"},
    **dict.fromkeys(("both bad", "bothbad", "tie (bothbad)", "tie (both bad)"), "both_bad"),
}


def word(value: object) -> str:
    """A cell as a word: case, `_`, `-` and white space tell nothing apart, nor do 1 and 1.0.

    >>> word(" Model_A "), word(-3.0), word("+1.0"), word("both-bad")
    ('model a', '-3', '1', 'both bad')
    """
    text = " ".join(str(value).casefold().replace("_", " ").split())
    if number := re.fullmatch(r"\+?(-?\d+)(\.0+)?", text):
        return number[1]
    return re.sub(r"(?<=[^\W\d])-(?=[^\W\d])", " ", text)


def words(values: Mapping[Any, Any]) -> dict[str, str]:
    """`values` as given, from YAML or Python, with words on both sides.

    YAML reads a bare yes, no, on, off, true and false as a truth value: each of its words is meant.
    """
    said: dict[str, str] = {}
    for value, meaning in values.items():
        names = ("true", "yes", "on") if value is True else ("false", "no", "off")
        for name in names if isinstance(value, bool) else (value,):
            said[word(name)] = word(meaning).replace(" ", "_")
    return said


def _vocabulary(
    roles: Columns, values: Mapping[str, str], head: Sequence[Record], file: str
) -> Mapping[str, str]:
    """What the words of `winner` mean in a file whose first rows are `head`.

    A word that one response's column alone has in its name means that response: `left` is what
    stands in `left_answer`. Else 1 and 2 are the first and the second, and 0 beside them a tie.
    Where no 2 is seen, 0 and 1 may as well be the first and the second, and they are where the
    columns are called so.

    Raises:
        PalateError: that.
    """
    columns = (roles["response_a"], roles["response_b"])
    named = _named_sides(*columns)
    known = {**WORDS, **named, **values}
    seen = {
        word(value) for record in head if (value := _value(record, roles, "winner")) is not None
    }
    certain = {*values, *map(word, columns)}
    numbered = {said: match[1] for said in seen - certain if (match := _NUMBERED.fullmatch(said))}
    numbers, from_0 = {*numbered.values()}, {"0", "1"} <= named.keys()
    if numbers <= named.keys():
        return known
    if "-1" in seen - certain and seen <= {"-1", "0", "1"}:
        raise PalateError(
            f"{file}: {roles['winner']}: expected a, b or tie, got -1 among numbers; say what they "
            "mean: values: {-1: a, 0: tie, 1: b}, or the other way round"
        )
    if "2" not in numbers or from_0:
        raise PalateError(
            f"{file}: {roles['winner']}: {', '.join(sorted(numbered))} may count from 0 or from 1; "
            f"say it: values: {{{min(numbered)}: a, ...}}"
        )
    if "0" in numbers:
        warn(
            f"{file}: {roles['winner']}: 0 is read as a tie, 1 as the first response and 2 as the "
            "second; if it counts from 0, say so: values: {0: a, 1: b, 2: tie}"
        )
    plain = {"1": "a", "2": "b", "0": "tie"}
    nouns = {f"{noun}{gap}{n}": plain[n] for noun in _NOUNS for gap in ("", " ") for n in "12"}
    return {**nouns, **plain, **known}


def _named_sides(column_a: str, column_b: str) -> dict[str, str]:
    """The words that mean a response by its column's name, with its side.

    >>> _named_sides("answer_0", "answer_1")["0"], _named_sides("right", "left_text")["left"]
    ('a', 'b')
    """
    # A number after a point is a place in a list, which counts from 0 whatever the words do.
    a, b = (
        set(_PARTS.findall(re.sub(r"\.\d+", "", word(column)))) for column in (column_a, column_b)
    )
    sides: dict[str, str] = {}
    for side, parts in (("a", a - b), ("b", b - a)):
        for part in parts:
            sides |= dict.fromkeys((part, *(f"{noun} {part}" for noun in _NOUNS)), side)
            if part.isdecimal():
                sides |= {f"{noun}{part}": side for noun in _NOUNS}
    return sides | {word(column_a): "a", word(column_b): "b"}


# Rankings.


def _ranking(record: Record, roles: Columns) -> Iterator[Reading]:
    facts = _facts(record, roles)
    responses = _listed(record, roles, "responses")
    role = "ranks" if "ranks" in roles else "scores"
    column = roles[role]
    numbers = [
        number(value, column, -math.inf, math.inf, "a number")
        for value in _listed(record, roles, role)
    ]
    if len(numbers) != len(responses):
        raise InvalidRecord(
            f"{column}: expected {len(responses)} numbers, one a response, got {len(numbers)}"
        )
    order = numbers if role == "ranks" else _negated(numbers)
    yield from ranked(record, facts, responses, order, rated=_rated_list(record, roles, responses))


def _rated_list(
    record: Record, roles: Columns, responses: Sequence[Any]
) -> list[dict[str, Any]] | None:
    """What a row says of the attributes of several responses, each attribute a list of ratings."""
    columns = {role.partition(".")[2]: role for role in roles if role.startswith("responses.")}
    if not columns:
        return None
    lists = {name: _listed(record, roles, role) for name, role in columns.items()}
    for name, values in lists.items():
        if len(values) != len(responses):
            raise InvalidRecord(
                f"{roles[columns[name]]}: expected {len(responses)} ratings, one a response, got "
                f"{len(values)}"
            )
    return [{name: values[i] for name, values in lists.items()} for i in range(len(responses))]


def _negated(numbers: Iterable[float]) -> list[float]:
    return [-number for number in numbers]


def _listed(record: Record, roles: Columns, role: str) -> Sequence[Any]:
    """A list in a cell, which CSV holds as JSON."""
    value = _value(record, roles, role)
    if isinstance(value, str):
        with suppress(ValueError):
            value = json.loads(value)
    return base.items({roles[role]: value}, roles[role])


def ranked(
    record: Record,
    facts: Mapping[str, Any],
    responses: Sequence[Any],
    order: Sequence[float],
    strengths: bool = False,
    rated: Sequence[Mapping[str, Any]] | None = None,
) -> Iterator[Reading]:
    """The K(K-1)/2 comparisons of K responses, the smallest of `order` the best.

    Equal numbers are one place, and their pair a tie. With `strengths` the difference of the two
    numbers is kept as strength. The ranking's name is of its row and of what it says, for two files
    of one name, each an annotator's, may rank the same responses in the same row. `rated` are
    the attributes of each response.

    Raises:
        InvalidRecord: fewer than two responses.
    """
    attributes: Sequence[Mapping[str, Any]] = rated or [{}] * len(responses)
    if len(responses) < 2:
        raise InvalidRecord(f"expected two responses or more, got {len(responses)}", "left out")
    levels = sorted(set(order))
    places = [levels.index(number) for number in order]
    name = f"{record.part}:{record.row}"
    said = digest(*map(str, responses), *places, str(facts.get("annotator")))
    for first, second in combinations(range(len(responses)), 2):
        tie = places[first] == places[second]
        better, worse = (second, first) if places[second] < places[first] else (first, second)
        yield Reading(
            {**facts, "chosen": responses[better], "rejected": responses[worse]},
            Judgement(chosen=0, tie=1) if tie else PREFERRED,
            Ranks(f"{name}:{said[:16]}", places[better], places[worse]),
            abs(order[first] - order[second]) if strengths else None,
            f"{name}:{first}-{second}",
            (attributes[better], attributes[worse]),
        )


# Rated responses, one a row: those of one prompt are compared by their score.


def rated_pairs(
    records: Iterable[Record | BadRow], roles: Columns, scales: Scales
) -> Iterator[tuple[Record, Reading] | BadRow]:
    """Every two responses to one prompt, the one with the larger score chosen; equal ones tie.

    Of three responses or more they are a ranking. A response that stands in several rows (several
    people rated it) has the mean of its scores, and of its attributes. One without another to the
    same prompt is left out: nothing can be compared with it. All rows are held in memory.

    Raises:
        PalateError: no prompt has two.
    """

    def read(record: Record) -> tuple[Any, Any, _Rating]:
        prompt, response = (
            base.required(record.data, roles[role])
            if roles[role] in record.data
            else _value(record, roles, role)
            for role in ("prompt", "response")
        )
        if (score := _value(record, roles, "score")) is None:
            raise InvalidRecord(f"{roles['score']}: empty, so nothing was rated", "left out")
        value = number(score, roles["score"], -math.inf, math.inf, "a number")
        return prompt, response, (value, base.rated(_rated(record, roles, "response"), scales))

    prompts = yield from base.responses_by_prompt(records, read)
    pairs = 0
    for responses in prompts:
        first = responses[0][0].record
        if len(responses) == 1:
            reason = "single response: its prompt has no other, so nothing can be compared"
            yield first.bad(InvalidRecord(reason, "left out"))
            continue
        for reading in _compared(responses, roles):
            pairs += 1
            yield first, reading
    if prompts and not pairs:
        raise PalateError(
            f"{prompts[-1][-1][-1].record.file}: single rated responses, and none of its "
            f"{len(prompts):,} prompts has two; a reward model learns from two responses to one "
            "prompt, and its heads from the ratings of these"
        )


_Rating = tuple[float, Attributes]
"""A score, and the attributes that were rated beside it."""


def _compared(
    responses: Sequence[Sequence[SingleResponse[_Rating]]], roles: Columns
) -> Iterator[Reading]:
    first = responses[0][0].record
    facts = {role: value for role, value in _facts(first, roles).items() if role != "annotator"}
    texts = [rows[0].response for rows in responses]
    scores = [fmean(row.opinion[0] for row in rows) for rows in responses]
    attributes = [_means([row.opinion[1] for row in rows]) for rows in responses]
    for reading in ranked(first, facts, texts, _negated(scores), rated=attributes):
        yield reading if len(responses) > 2 else replace(reading, ranks=None)


def _means(rows: Sequence[Attributes]) -> dict[str, float]:
    """The mean of each attribute over the rows that rate it."""
    ratings: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            ratings.setdefault(name, []).append(value)
    return {name: fmean(values) for name, values in ratings.items()}
