"""Label Studio: exports as JSON, JSON_MIN, CSV and TSV, of Pairwise, Choices, Rating and Ranker.

Source: https://labelstud.io/guide/export. A `Pairwise` answer is `left` or `right`, the first or
the second name of the labelling configuration's `toName`, whatever the order of the columns. JSON
repeats that in `to_name`; the flat forms do not, so they need `config`, or `left` and `right`.
`middle` is a tie. A `Rating` beside it is how much better the response is; a `Ranker` orders the
items of a List.

JSON alone has everything: the flat forms have no skipped answer, and an export of annotated tasks
has no task that nobody answered.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

from palate.data.messages import shown
from palate.data.sources import answers, base
from palate.data.sources.answers import Answer
from palate.data.sources.base import (
    BadRow,
    Cuts,
    InvalidRecord,
    Record,
    Records,
    Request,
    Row,
    Source,
)
from palate.data.sources.files import data_files, ending, read_file, resolve
from palate.data.sources.mapping import word
from palate.progress import info
from palate.types import PalateError

NAME = "label-studio"
CUTS = Cuts("stars of a Rating", 2, 3, 4)
STARS = 5  # What a Rating has where its configuration does not say.
SIDES = {"left": "a", "right": "b", "middle": "tie"}
FLAT = frozenset({"annotator", "annotation_id", "created_at", "updated_at", "lead_time"})
HEAD_ROWS = 1_000  # Records at the beginning from which a file's sides are known.
TRIED = "tried on the exports of 1.23.2"

Kind = Literal["pairwise", "choices", "rating", "ranker", "other"]
KINDS: Mapping[str, Kind] = {
    "selected": "pairwise",
    "choices": "choices",
    "rating": "rating",
    "ranker": "ranker",
}  # By the key that holds an answer's value.


@dataclass(frozen=True, slots=True)
class Configuration:
    """The labelling configuration: what each question is about, and which column each text shows.

    `columns` is from an object's name to its column, `shows` from a question's name to the objects
    of its `toName`, `kinds` to what it asks, `stars` to the most that it can give.
    """

    columns: Mapping[str, str] = field(default_factory=dict[str, str])
    shows: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    kinds: Mapping[str, str] = field(default_factory=dict[str, str])
    stars: Mapping[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True, slots=True)
class Value:
    """One question's answer: `about` has the objects it is about, where the export says."""

    name: str
    kind: Kind
    value: Any
    about: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reader:
    """How the answers of one export are read: the options, checked once."""

    configuration: Configuration
    options: Mapping[str, Any]
    words: Mapping[str, str]
    cuts: Cuts


def load(request: Request) -> Iterator[Row]:
    """One comparison an answer, K(K-1)/2 a ranking of K."""
    options = request.options
    config = options.get("config")
    reader = Reader(
        configuration=read_configuration(Path(config)) if config else Configuration(),
        options=options,
        words=answers.meanings(options),
        cuts=answers.cuts_of(options, CUTS),
    )
    if ("left" in options) != ("right" in options):
        raise PalateError("left, right: expected the columns of both, got one")
    location = resolve(request, None)
    if isinstance(location, str):
        raise PalateError(f"{location}: expected an export's file, got a name of the hub")
    for path, part in data_files(location, request.split, request.subset):
        yield from _file(str(path), read_file(path, part), reader)


def recognise(path: Path) -> bool:
    """Whether a file is an export of Label Studio, in any of its forms."""
    if not path.is_file() or ending(path) not in (".json", ".csv", ".tsv"):
        return False
    try:
        first = next(iter(read_file(path)), None)
    except PalateError:
        return False
    return isinstance(first, Record) and (_is_task(first.data) or _is_flat(first.data))


def _is_task(data: Mapping[str, Any]) -> bool:
    return isinstance(data.get("annotations"), list) and isinstance(data.get("data"), Mapping)


def _is_flat(data: Mapping[str, Any]) -> bool:
    return data.keys() >= FLAT


def read_configuration(path: Path) -> Configuration:
    """The labelling configuration in a file (Settings > Labeling Interface > Code).

    Raises:
        PalateError: it cannot be read, or is no XML.
    """
    try:
        root = ElementTree.fromstring(path.read_text("utf-8-sig"))
    except OSError as error:
        raise PalateError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ElementTree.ParseError, UnicodeDecodeError) as error:
        raise PalateError(
            f"{path}: expected the XML of a labelling configuration, as its Code view shows it "
            f"({error})"
        ) from None
    columns, shows, kinds, stars = {}, {}, {}, {}
    for tag in root.iter():
        name, about = tag.get("name"), tag.get("toName")
        if name is None:
            continue
        if about is not None:
            shows[name] = tuple(one.strip() for one in about.split(","))
            kinds[name] = tag.tag.casefold()
            if (most := tag.get("maxRating", str(STARS))).isdecimal():
                stars[name] = int(most)
        elif (value := tag.get("value", "")).startswith("$"):
            columns[name] = value[1:]
    return Configuration(columns, shows, kinds, stars)


def _file(file: str, records: Records, reader: Reader) -> Iterator[Row]:
    columns, flat = None, 0
    head = list(islice(records, HEAD_ROWS))
    reader = replace(reader, configuration=_with_sides(reader.configuration, head))
    for record in chain(head, records):
        if isinstance(record, BadRow):
            yield record
            continue
        flat += _is_flat(record.data)
        try:
            in_record = list(_answers(record, reader))
        except PalateError as error:
            raise PalateError(f"{file}: {error}") from None
        for name, found in in_record:
            try:
                if isinstance(found, InvalidRecord):
                    raise found
                if columns is None:
                    columns = answers.columns_of(found)
                yield from answers.comparisons(record, found, NAME, columns)
            except InvalidRecord as invalid:
                yield record.bad(InvalidRecord(f"{name}: {invalid.reason}", invalid.kind))
    if columns is not None and columns.read:
        info(f"{file}: {columns.summary()}")
    if flat:
        info(f"{file}: answers that were skipped are not in this form; JSON has them")


def _with_sides(configuration: Configuration, head: Sequence[Record | BadRow]) -> Configuration:
    """The configuration with what JSON repeats of it: the objects that a Pairwise compares."""
    shows, kinds = dict(configuration.shows), dict(configuration.kinds)
    for record in head:
        if isinstance(record, BadRow) or not _is_task(record.data):
            continue
        for annotation in record.data["annotations"]:
            for result in annotation.get("result") or () if isinstance(annotation, Mapping) else ():
                if isinstance(result, Mapping) and result.get("type") == "pairwise":
                    name = str(result.get("from_name"))
                    kinds.setdefault(name, "pairwise")
                    shows.setdefault(name, tuple(str(result.get("to_name")).split(",")))
    return replace(configuration, shows=shows, kinds=kinds)


Found = tuple[str, Answer | InvalidRecord]
"""An answer's name for messages, and the answer, or why there is none."""


def _answers(record: Record, reader: Reader) -> Iterator[Found]:
    """All that one record of the export says."""
    data = record.data
    if _is_task(data):
        yield from _of_task(data, reader)
    elif _is_flat(data):
        yield _of_row(data, reader)
    else:
        names = ", ".join(sorted(map(str, data))[:12])
        yield (
            f"row {record.row}",
            InvalidRecord(
                "expected a task with `annotations` and `data` (JSON), or a row with `annotator` "
                f"and `annotation_id` (JSON_MIN, CSV, TSV), got {names or 'nothing'}; {TRIED}: "
                "export it again in one of these forms"
            ),
        )


def _of_task(task: Mapping[str, Any], reader: Reader) -> Iterator[Found]:
    name = f"task {task.get('id', '?')}"
    drafts = task.get("drafts") or ()
    for annotation in task["annotations"]:
        if not isinstance(annotation, Mapping) or not isinstance(annotation.get("result"), list):
            reason = f"expected annotations with a `result` list, got {shown(annotation)}; {TRIED}"
            yield name, InvalidRecord(reason)
            continue
        which = f"{name}, annotation {annotation.get('id', '?')}"
        try:
            if annotation.get("was_cancelled"):
                raise InvalidRecord("skipped by its annotator", "left out")
            values = [_result(result) for result in annotation["result"]]
            yield which, _answer(task["data"], values, annotation, "id", "completed_by", reader)
        except InvalidRecord as invalid:
            yield which, invalid
    for _ in drafts:
        yield name, InvalidRecord("a draft that was not submitted", "left out")
    if not task["annotations"] and not drafts:
        yield name, InvalidRecord("nobody answered it (or there is only a draft)", "left out")


def _result(result: Any) -> Value:
    """One entry of an annotation's `result`."""
    value = result.get("value") if isinstance(result, Mapping) else None
    name = result.get("from_name") if isinstance(result, Mapping) else None
    if not isinstance(value, Mapping) or not isinstance(name, str):
        raise InvalidRecord(f"result: expected `from_name` and `value`, got {shown(result)}")
    about = tuple(str(result.get("to_name", "")).split(","))
    key = next((key for key in KINDS if key in value), None)
    if key is None:
        return Value(name, "other", dict(value), about)
    return Value(name, KINDS[key], value[key], about)


def _of_row(row: Mapping[str, Any], reader: Reader) -> Found:
    """A row of JSON_MIN, CSV or TSV: an annotation, or a task without any."""
    name = f"task {row.get('id', '?')}"
    if row["annotation_id"] in (None, ""):
        return name, InvalidRecord("nobody answered it (or there is only a draft)", "left out")
    which = f"{name}, annotation {row['annotation_id']}"
    data = {key: answers.parsed(value) for key, value in row.items() if key not in (*FLAT, "id")}
    questions = reader.configuration.kinds
    values = [
        one
        for key, value in data.items()
        if value not in (None, "") and (one := _cell(key, value, reader)) is not None
    ]
    named = {value.name for value in values} | questions.keys()
    task = {key: value for key, value in data.items() if key not in named}
    try:
        return which, _answer(task, values, row, "annotation_id", "annotator", reader)
    except InvalidRecord as invalid:
        return which, invalid


def _cell(name: str, value: Any, reader: Reader) -> Value | None:
    """An answer in a cell, or None where it is a column of the task."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], Mapping):
        key = next((key for key in KINDS if key in value[0]), None)
        if key is not None:
            return Value(name, KINDS[key], value[0][key])
    if reader.configuration.kinds.get(name) == "choices" or reader.options.get("choices") == name:
        chosen = value.get("choices", value) if isinstance(value, Mapping) else value
        return Value(name, "choices", chosen if isinstance(chosen, list) else [chosen])
    if isinstance(value, list) and value and all(_is_answer(one) for one in value):
        raise InvalidRecord(f"{name}: expected one answer, got {len(value)}")
    return Value(name, "other", value) if name in reader.configuration.kinds else None


def _is_answer(value: Any) -> bool:
    return isinstance(value, Mapping) and not value.keys().isdisjoint(KINDS)


def _answer(
    data: Mapping[str, Any],
    values: Sequence[Value],
    annotation: Mapping[str, Any],
    id_key: str,
    annotator_key: str,
    reader: Reader,
) -> Answer:
    """The answer that the values of one annotation make together."""
    annotator = annotation.get(annotator_key)
    if isinstance(annotator, Mapping):  # Some exports write the whole user.
        annotator = annotator.get("email") or annotator.get("id")
    questions = [value for value in values if value.kind in ("pairwise", "ranker")]
    if wanted := reader.options.get("question"):
        questions = [value for value in questions if value.name == wanted]
    if len({value.name for value in questions}) > 1:
        names = ", ".join(sorted({value.name for value in questions}))
        raise InvalidRecord(f"expected one question, got {names}; name one by the option question")
    if len(questions) > 1:
        raise InvalidRecord(f"{questions[0].name}: expected one answer, got {len(questions)}")
    facts: dict[str, Any] = {
        "name": f"annotation:{annotation.get(id_key)}",
        "data": data,
        "annotator": None if annotator is None else str(annotator),
    }
    if questions and questions[0].kind == "ranker":
        return _ranking(questions[0], facts, values, reader)
    return _pair(questions[0] if questions else None, facts, values, reader)


def _pair(
    question: Value | None, facts: dict[str, Any], values: Sequence[Value], reader: Reader
) -> Answer:
    outcome, decided_by = "", ""
    strength: float | None = None
    if question is not None:
        if question.value not in SIDES:
            raise InvalidRecord(
                f"{question.name}: expected left, right or middle, got {shown(question.value)}; "
                f"{TRIED}"
            )
        outcome, decided_by = SIDES[question.value], question.name
    for value in values:
        if value.kind != "choices" or not isinstance(value.value, list):
            continue
        if len(value.value) > 1 and question is None:
            raise InvalidRecord(f"{value.name}: expected one choice, got {len(value.value)}")
        for choice in value.value:
            if question is not None and word(choice) not in reader.words:
                continue  # A question of its own beside the Pairwise; kept in `meta`.
            said = answers.outcome(choice, value.name, reader.words)
            if isinstance(said, int):
                strength = abs(said)
                said = "tie" if said == 0 else "a" if said > 0 else "b"
            if outcome and said != outcome:
                raise InvalidRecord(
                    f"two winners: {decided_by} says {outcome}, {value.name} says {said}"
                )
            outcome, decided_by = said, value.name
    if not outcome:
        raise InvalidRecord(_no_choice(facts["data"], reader), "left out")
    rating = answers.STRENGTH_CUTS.rate(strength) if strength else None
    if (stars := _stars(values, reader)) is not None:
        strength, rating = stars, reader.cuts.rate(stars)
    left, right = _sides(question, facts["data"], reader)
    roles = {"prompt": _prompt(facts["data"], (left, right), reader), "left": left, "right": right}
    return Answer(
        **facts,
        roles=roles,
        responses=[base.required(facts["data"], column) for column in (left, right)],
        outcome=outcome,
        rating=rating,
        strength=strength,
        meta=_beside(values, question),
    )


def _no_choice(data: Mapping[str, Any], reader: Reader) -> str:
    reason = "submitted without a choice"
    if reader.configuration.kinds or "choices" in reader.options or "left" not in reader.options:
        return reason
    known = ("prompt", *answers.TASK_COLUMNS, reader.options["left"], reader.options["right"])
    texts = [
        name
        for name, value in data.items()
        if isinstance(value, str)
        and value
        and name not in known
        and name != reader.options.get("prompt")
    ]
    if not texts:
        return reason
    return f"{reason}; if {', '.join(texts)} holds it, name it by the option choices or give config"


def _stars(values: Sequence[Value], reader: Reader) -> float | None:
    """How much better, by the Rating beside the question; not one of a single response."""
    ratings = [value for value in values if value.kind == "rating"]
    configuration = reader.configuration
    if wanted := reader.options.get("strength"):
        ratings = [value for value in ratings if value.name == wanted]
    compared = {
        name
        for question, about in configuration.shows.items()
        if configuration.kinds[question] == "pairwise"
        for name in about
    } | {name for value in values if value.kind == "pairwise" for name in value.about}
    ratings = [
        value
        for value in ratings
        if compared.isdisjoint(value.about or configuration.shows.get(value.name, ()))
    ]
    if not ratings:
        return None
    if len(ratings) > 1:
        names = ", ".join(value.name for value in ratings)
        raise InvalidRecord(f"expected one Rating, got {names}; name one by the option strength")
    name, most = ratings[0].name, configuration.stars.get(ratings[0].name, STARS)
    stars = base.number({name: ratings[0].value}, name)
    if not 0 < stars <= most:
        raise InvalidRecord(
            f"{name}: expected 1 to {most} stars, got {stars:g}; a `maxRating` of the "
            "configuration is known by the option config"
        )
    return stars


def _sides(question: Value | None, data: Mapping[str, Any], reader: Reader) -> tuple[str, str]:
    """The columns of the left and the right response.

    Raises:
        InvalidRecord: two things say them differently, or a column that they are is not there.
        PalateError: nothing says them, of no task: the flat forms do not, nor do Choices.
    """
    configuration, options = reader.configuration, reader.options
    about = question.about if question is not None else ()
    if not about:
        pairwise = [name for name, kind in configuration.kinds.items() if kind == "pairwise"]
        name = question.name if question is not None else next(iter(pairwise), "")
        about = configuration.shows.get(name, ())
    told = tuple(configuration.columns.get(name, name) for name in about)
    given = (options["left"], options["right"]) if "left" in options else None
    known = len(told) == 2 and all(column in data for column in told)
    if given is not None:
        if known and given != told:
            raise InvalidRecord(
                f"left, right: the export says {' and '.join(told)}, the options "
                f"{' and '.join(map(str, given))}"
            )
        return str(given[0]), str(given[1])
    if known:
        return told[0], told[1]
    columns = ", ".join(map(str, data)) or "nothing"
    if about:
        raise InvalidRecord(
            f"which column is left and which right: the objects are {' and '.join(about)}; name "
            f"both by the options left and right; the task has: {columns}"
        )
    raise PalateError(
        "nothing in it says which column is left and which right; give the labelling "
        "configuration, its Code view in a file (--option config=labelling.xml), or both columns "
        "(--option left=COLUMN --option right=COLUMN); in a recipe they are keys of options; the "
        f"tasks have: {columns}"
    )


def _prompt(data: Mapping[str, Any], others: Sequence[str], reader: Reader) -> str:
    """The column of the prompt."""
    if column := reader.options.get("prompt"):
        return str(column)
    if "prompt" in data:
        return "prompt"
    shown_columns = [c for c in reader.configuration.columns.values() if c not in others]
    if len(shown_columns) == 1:
        return shown_columns[0]
    raise InvalidRecord(
        "which column is the prompt: name it by the option prompt; the task has: "
        f"{', '.join(map(str, data)) or 'nothing'}"
    )


def _ranking(
    question: Value, facts: dict[str, Any], values: Sequence[Value], reader: Reader
) -> Answer:
    """A Ranker's order of the items of a List."""
    name, data = question.name, facts["data"]
    lists = list(question.value.values()) if isinstance(question.value, Mapping) else []
    if len(lists) != 1 or not isinstance(lists[0], list):
        raise InvalidRecord(
            f"{name}: expected one list of ids, got {len(lists)}; a Ranker with buckets is not read"
        )
    order = list(map(str, lists[0]))
    column = _list_column(question, data, reader)
    items = [base.mapping(item, column) for item in base.items(data, column)]
    ids = [str(base.required(item, "id")) for item in items]
    if sorted(order) != sorted(ids) or len(set(ids)) != len(ids):
        raise InvalidRecord(
            f"{name}: expected every one of {', '.join(ids)} once, got {', '.join(order)}"
        )
    return Answer(
        **facts,
        roles={"prompt": _prompt(data, (column,), reader), "responses": column},
        responses=[base.text(item, "body") for item in items],
        places=[order.index(one) for one in ids],
        meta=_beside(values, question),
    )


def _list_column(question: Value, data: Mapping[str, Any], reader: Reader) -> str:
    configuration = reader.configuration
    if column := reader.options.get("responses"):
        return str(column)
    about = question.about or configuration.shows.get(question.name, ())
    for name in about:
        if (column := configuration.columns.get(name, name)) in data:
            return column
    lists = [
        name
        for name, value in data.items()
        if isinstance(value, list) and value and all(_is_item(one) for one in value)
    ]
    if len(lists) == 1:
        return lists[0]
    raise InvalidRecord(
        "which column has the ranked items: name it by the option responses, or give config; the "
        f"task has: {', '.join(map(str, data)) or 'nothing'}"
    )


def _is_item(value: Any) -> bool:
    return isinstance(value, Mapping) and value.keys() >= {"id", "body"}


def _beside(values: Sequence[Value], question: Value | None) -> dict[str, Any]:
    """Other questions' answers, for `meta`."""
    others = {value.name: value.value for value in values if value is not question}
    return {"answers": others} if others else {}


SOURCE = Source(
    name=NAME,
    title="Label Studio",
    hub_id=None,
    url="https://labelstud.io/guide/export",
    licence="yours",
    kind="both",
    load=load,
    recognise=recognise,
    cuts=(CUTS, answers.STRENGTH_CUTS),
    options={
        "config": "the labelling configuration's XML: which column is left, right, prompt (needed "
        "for JSON_MIN, CSV and TSV unless left and right are named)",
        "left": "the column of the left response, toName's first (default: as the export says)",
        "right": "the column of the right response, toName's second",
        "prompt": "the column of the prompt (default: prompt, else the one further column shown)",
        "responses": "the column with the items of a Ranker (default: as the export says)",
        "question": "which Pairwise or Ranker to read, where there are several",
        "choices": "the column of a Choices answer, for JSON_MIN, CSV and TSV without config",
        "strength": "which Rating says how much better, where there are several",
        "cuts": "stars from which on it is slightly, better, significantly (default: [2, 3, 4])",
        "values": "what a choice means: {Tie: tie, A much better: 3, unsure: skip}; a number is a "
        "strength of -3 to 3, above 0 for the left",
    },
    tried_on="1.23.2: JSON, JSON of annotated tasks, JSON_MIN, CSV, TSV; three templates",
    notes="one comparison an annotation; ids are the same from every form; batch: the task's "
    "`batch`, else the file",
)
