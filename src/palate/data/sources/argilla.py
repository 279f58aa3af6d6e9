"""Argilla: records with their responses, as the SDK writes them, flattened or not.

Source: https://docs.argilla.io. Flattened records (`to_list(flatten=True)`) have lists side by
side: `QUESTION.responses`, `.responses.users`, `.responses.status`; drafts and discarded answers
stand among the submitted. Records as objects have no status at all, so that a draft looks
submitted: the log says so. A label names a field or is one of the known words; a ranking orders
fields.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from palate.data.messages import shown
from palate.data.sources import answers, base
from palate.data.sources.answers import STRENGTH_CUTS, Answer
from palate.data.sources.base import BadRow, Cuts, InvalidRecord, Record, Request, Row, Source
from palate.data.sources.files import data_files, ending, read_file, resolve
from palate.data.sources.mapping import word
from palate.progress import info, warn
from palate.types import PalateError

NAME = "argilla"
OWN = frozenset({"id", "status", "_server_id", "metadata", "suggestions", "vectors", "responses"})
PAIRS = (("response_a", "response_b"), ("a", "b"))
STRENGTH = "strength"
"""The question of how much better the response is, which `palate data export-tasks` writes."""
LARGEST = 10  # Number that a RatingQuestion may have.
CUTS = Cuts("number of a RatingQuestion", 2, 3, 4)
TRIED = "tried on records of the SDK 2.8.0"


@dataclass(frozen=True, slots=True)
class Response:
    """One user's answer to one question; `status` is None where the form has none."""

    value: Any
    user: str | None
    status: str | None


def load(request: Request) -> Iterator[Row]:
    """One comparison a submitted response, K(K-1)/2 a ranking of K."""
    options, known = request.options, answers.meanings(request.options)
    cuts = answers.cuts_of(options, CUTS)
    if ("left" in options) != ("right" in options):
        raise PalateError("left, right: expected the fields of both, got one")
    location = resolve(request, None)
    if isinstance(location, str):
        raise PalateError(f"{location}: expected a file of records, got a name of the hub")
    for path, part in data_files(location, request.split, request.subset):
        columns, unmarked = None, False
        for record in _records(path, part):
            if isinstance(record, BadRow):
                yield record
                continue
            key = record.data.get("id", record.row)
            try:
                fields, facts, responses = _opened(record.data)
                question = _question(responses, options)
            except InvalidRecord as invalid:
                yield record.bad(InvalidRecord(f"record {key}: {invalid.reason}", invalid.kind))
                continue
            if not responses[question]:
                yield record.bad(InvalidRecord(f"record {key}: nobody answered it", "left out"))
            for response in responses[question]:
                unmarked |= response.status is None
                try:
                    answer = _answer(str(key), fields, question, response, options, known)
                    answer = _rated(answer, responses, options, cuts)
                    answer = replace(answer, data={**facts, **fields})
                    columns = columns or answers.columns_of(answer)
                    yield from answers.comparisons(record, answer, NAME, columns)
                except InvalidRecord as invalid:
                    where = f"record {key}, user {response.user}"
                    yield record.bad(InvalidRecord(f"{where}: {invalid.reason}", invalid.kind))
        if columns is not None and columns.read:
            info(f"{path}: {columns.summary()}")
        if unmarked:
            warn(
                f"{path}: this form has no status, so drafts and discarded answers are read as "
                "submitted; write to_list(flatten=True), which has it"
            )


def recognise(path: Path) -> bool:
    """Whether a file holds records of Argilla."""
    if not path.is_file() or ending(path) not in (".json", ".jsonl", ".parquet"):
        return False
    try:
        first = next(iter(_records(path, "")), None)
        return isinstance(first, Record) and bool(_opened(first.data)[2])
    except (PalateError, InvalidRecord):
        return False


def _records(path: Path, part: str) -> Iterator[Record | BadRow]:
    """The records of a file; one object of whole columns, as `to_dict()` makes it, taken apart."""
    for record in read_file(path, part):
        if isinstance(record, BadRow) or not isinstance(record.data.get("responses"), list):
            yield record
            continue
        lists = {name: value for name, value in record.data.items() if isinstance(value, list)}
        for row in range(len(record.data["responses"])):
            data = {name: value[row] for name, value in lists.items() if row < len(value)}
            yield replace(record, row=row + 1, data=data)


Fields = Mapping[str, Any]


def _opened(data: Mapping[str, Any]) -> tuple[Fields, Fields, dict[str, list[Response]]]:
    """Fields, metadata, and responses by question."""
    if isinstance(fields := data.get("fields"), Mapping):
        given = base.mapping(data.get("responses") or {}, "responses")
        made = {
            str(name): [_response(one, name) for one in base.items(given, name)] for name in given
        }
        facts = data.get("metadata")
        return fields, facts if isinstance(facts, Mapping) else {}, made
    questions = [name.removesuffix(".responses") for name in data if name.endswith(".responses")]
    if not questions:
        names = ", ".join(sorted(map(str, data))[:12])
        raise InvalidRecord(
            "expected `fields` and `responses`, or columns QUESTION.responses, got "
            f"{names or 'nothing'}; {TRIED}"
        )
    made = {}
    for name in questions:
        column = f"{name}.responses"
        values = data[column] or []
        users, states = (data.get(f"{column}.{what}") or [] for what in ("users", "status"))
        if not len(values) == len(users) == len(states):
            raise InvalidRecord(f"{column}: expected as many users and statuses as responses")
        made[name] = [
            Response(value, str(user), str(status))
            for value, user, status in zip(values, users, states, strict=True)
        ]
    fields = {name: v for name, v in data.items() if name not in OWN and "." not in name}
    before = "metadata."
    facts = {name.removeprefix(before): v for name, v in data.items() if name.startswith(before)}
    return fields, facts, made


def _response(value: Any, question: str) -> Response:
    one = base.mapping(value, question)
    user, status = (one.get(name) for name in ("user_id", "status"))
    return Response(
        base.required(one, "value"),
        None if user is None else str(user),
        None if status is None else str(status),
    )


def _question(responses: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    wanted = options.get("question")
    strength = options.get("strength", STRENGTH)
    asked = [name for name in responses if name != strength] or list(responses)
    names = [str(wanted)] if wanted in responses else [] if wanted else asked
    if len(names) != 1:
        found = ", ".join(responses) or "none"
        raise InvalidRecord(f"expected one question, got {found}; name one by the option question")
    return names[0]


def _answer(
    key: str,
    fields: Mapping[str, Any],
    question: str,
    response: Response,
    options: Mapping[str, Any],
    known: Mapping[str, str],
) -> Answer:
    if response.status not in (None, "submitted"):
        raise InvalidRecord(f"{response.status}, not submitted", "left out")
    if response.value is None:
        raise InvalidRecord("no choice", "left out")
    prompt = str(options.get("prompt", "prompt"))
    texts = [name for name in fields if name != prompt and name not in answers.TASK_COLUMNS]
    if "left" in options:
        texts = [str(options["left"]), str(options["right"])]
    facts: dict[str, Any] = {
        "name": f"record:{key}:{response.user}:{question}",
        "data": fields,
        "annotator": response.user,
    }
    if isinstance(response.value, list):
        roles = {"prompt": prompt, **{name: name for name in texts}}
        places = _places(response.value, question, texts)
        return Answer(**facts, roles=roles, responses=[fields[t] for t in texts], places=places)
    pair = next((pair for pair in PAIRS if set(pair) <= set(texts)), tuple(texts))
    if len(pair) != 2:
        raise InvalidRecord(
            f"which two fields are compared: name left and right; there are {', '.join(texts)}"
        )
    strength = 0
    if response.value in pair:
        outcome = "ab"[pair.index(response.value)]
    else:
        said = answers.outcome(response.value, question, known)
        if isinstance(said, int):
            strength, said = abs(said), "a" if said > 0 else "b" if said else "tie"
        outcome = said
        if outcome in ("a", "b") and "left" not in options and pair not in PAIRS:
            raise InvalidRecord(
                f"{question}: {shown(response.value)} names no field; say which is first by the "
                f"options left and right: {word(pair[0])}, {word(pair[1])}"
            )
    roles = {"prompt": prompt, "left": pair[0], "right": pair[1]}
    texts_of = [base.required(fields, name) for name in pair]
    return Answer(
        **facts,
        roles=roles,
        responses=texts_of,
        outcome=outcome,
        rating=STRENGTH_CUTS.rate(strength) if strength else None,
        strength=strength or None,
    )


def _rated(
    answer: Answer,
    responses: Mapping[str, Sequence[Response]],
    options: Mapping[str, Any],
    cuts: Cuts,
) -> Answer:
    """The answer with how much better its user said that the response is, in another question."""
    name = str(options.get("strength", STRENGTH))
    if "strength" in options and name not in responses:
        raise InvalidRecord(f"strength: no question {name!r}; there are {', '.join(responses)}")
    if name == answer.name.rpartition(":")[2] or answer.outcome not in ("a", "b"):
        return answer
    for response in responses.get(name, ()):
        submitted = response.status in (None, "submitted")
        if response.user == answer.annotator and submitted and response.value is not None:
            size = base.number({name: response.value}, name)
            if not 0 < size <= LARGEST:
                raise InvalidRecord(f"{name}: expected 1 to {LARGEST}, got {size:g}")
            return replace(answer, strength=size, rating=cuts.rate(size))
    return answer


def _places(value: Sequence[Any], question: str, texts: Sequence[str]) -> list[float]:
    """Each field's place in a ranking: names in order, or names with ranks, equal in a tie."""
    order: dict[str, float] = {}
    for place, one in enumerate(value):
        name = one.get("value") if isinstance(one, Mapping) else one
        rank = base.number(one, "rank") if isinstance(one, Mapping) else place
        if name in order:
            raise InvalidRecord(f"{question}: {shown(name)} is ranked twice")
        order[str(name)] = rank
    if set(order) != set(texts):
        raise InvalidRecord(
            f"{question}: expected every one of {', '.join(texts)} once, got {', '.join(order)}"
        )
    return [order[name] for name in texts]


SOURCE = Source(
    name=NAME,
    title="Argilla",
    hub_id=None,
    url="https://docs.argilla.io",
    licence="yours",
    kind="both",
    load=load,
    recognise=recognise,
    cuts=(CUTS, STRENGTH_CUTS),
    options={
        "question": "which question to read, where there are several",
        "strength": "the RatingQuestion that says how much better (default: strength)",
        "cuts": "numbers from which on it is slightly, better, significantly (default: [2, 3, 4])",
        "prompt": "the field of the prompt (default: prompt)",
        "left": "the field of the first response, where labels do not name fields",
        "right": "the field of the second one",
        "values": "what a label means: {good: a, equal: tie, unsure: skip}; or a number, "
        "above 0 for the first",
    },
    tried_on="records of the SDK 2.8.0; no server was run",
    notes="write records with to_list(flatten=True): other forms have no status, and a draft looks "
    "submitted",
)
