"""Potato: what each annotator answered, joined with the items that they saw.

Source: https://github.com/davidjurgens/potato. The answers are in `annotation_output/USER/
user_state.json`; `exports/` is not read, where 2.12.1 wrote one of seven annotations. Neither has
the texts: they come from the items file that `config.yaml` names. A `pairwise` answer is `A`, `B`
(the first or second text of `items_key`) or `tie`; on a scale, below 0 is A.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from palate.data.messages import shown
from palate.data.sources import answers, base, own
from palate.data.sources.answers import STRENGTH_CUTS, Answer
from palate.data.sources.base import BadRow, Cuts, InvalidRecord, Record, Request, Row, Source
from palate.data.sources.files import part_of, read_file
from palate.data.sources.mapping import number
from palate.progress import info
from palate.types import PalateError

NAME = "potato"
STATE = "user_state.json"
CONFIGS = ("config.yaml", "config.yml")
LABELS = "instance_id_to_label_to_value"
TRIED = "tried on 2.12.1"


@dataclass(frozen=True, slots=True)
class Project:
    """Items by id, the column of the two texts, and the scales' ends by scheme."""

    items: Mapping[str, Mapping[str, Any]]
    items_file: Path
    texts: str
    prompt: str
    scales: Mapping[str, tuple[float, float]]
    title: str
    words: Mapping[str, str]
    cuts: Cuts


def load(request: Request) -> Iterator[Row]:
    """One comparison an answer."""
    location = Path(request.location or "").expanduser()
    if request.location is None or not location.exists():
        raise PalateError(f"{request.location}: expected Potato's annotation_output, or its task")
    project = _project(location, request.options)
    columns = None
    for path in _states(location):
        state = _state(path)
        record_of = {"file": str(path), "part": project.title}
        given = state[LABELS]
        orders = state.get("instance_id_to_presentation_order") or {}
        ids = list(dict.fromkeys([*(state.get("instance_id_ordering") or ()), *given]))
        for row, item in enumerate(ids, start=1):
            record = Record(row=row, data={}, **record_of)
            try:
                if item not in given:
                    raise InvalidRecord("assigned, not answered", "left out")
                if orders.get(item):
                    raise InvalidRecord(f"shown in an order of its own, which is not read; {TRIED}")
                answer = _answer(str(item), str(state.get("user_id")), given[item], project)
                columns = columns or answers.columns_of(answer)
                answer = replace(answer, meta={"file": part_of(path, location), **answer.meta})
                yield from answers.comparisons(record, answer, NAME, columns)
            except InvalidRecord as invalid:
                yield record.bad(InvalidRecord(f"item {item}: {invalid.reason}", invalid.kind))
    if isinstance(columns, own.Columns) and columns.read:
        info(f"{location}: {columns.summary()}")


def recognise(path: Path) -> bool:
    """Whether a path is a user's state of Potato, or a folder that has one."""
    try:
        return bool(_states(path)) and all(LABELS in _state(one) for one in _states(path)[:1])
    except PalateError:
        return False


def _states(location: Path) -> list[Path]:
    """The files of the users' states at a location."""
    if location.is_file() and location.name.endswith(STATE):
        return [location]
    found = sorted(path for path in location.rglob(f"*{STATE}") if path.is_file())
    if not found:
        raise PalateError(
            f"{location}: expected a folder with USER/{STATE} (Potato's annotation_output); its "
            "exports are not read, 2.12.1 leaves annotations out of them"
        )
    return found


def _state(path: Path) -> Mapping[str, Any]:
    try:
        state = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise PalateError(f"{path}: cannot be read as JSON ({error})") from None
    if not isinstance(state, dict) or not isinstance(state.get(LABELS), dict):
        raise PalateError(f"{path}: expected Potato's state with {LABELS}; {TRIED}")
    return state


def _project(location: Path, options: Mapping[str, Any]) -> Project:
    folder = location if location.is_dir() else location.parent
    places = [near / name for near in (folder, *list(folder.parents)[:2]) for name in CONFIGS]
    given = options.get("config")
    path = Path(given) if given else next((p for p in places if p.is_file()), None)
    config: Mapping[str, Any] = {}
    if path is not None:
        try:
            config = yaml.safe_load(path.read_text("utf-8")) or {}
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise PalateError(
                f"{path}: cannot be read as YAML ({error.__class__.__name__})"
            ) from None
        if not isinstance(config, Mapping):
            raise PalateError(f"{path}: expected Potato's config, got {shown(config)}")
    schemes = [
        scheme
        for scheme in config.get("annotation_schemes") or ()
        if isinstance(scheme, Mapping) and scheme.get("annotation_type") == "pairwise"
    ]
    properties = config.get("item_properties") or {}
    keys = {str(scheme.get("items_key", "text")) for scheme in schemes} or {"text"}
    texts = str(options.get("responses") or (keys.pop() if len(keys) == 1 else "text"))
    items_file = _items_file(path, config, options)
    key = str(properties.get("id_key", "id"))
    items: dict[str, Mapping[str, Any]] = {}
    for record in read_file(items_file):
        if isinstance(record, BadRow):
            raise PalateError(str(record))
        if key not in record.data:
            raise PalateError(f"{items_file}:{record.row}: an item without {key!r}")
        items[str(record.data[key])] = {k: v for k, v in record.data.items() if k != key}
    scales = {
        str(scheme.get("name")): (float(scale.get("min", -3)), float(scale.get("max", 3)))
        for scheme in schemes
        if scheme.get("mode") == "scale" and isinstance(scale := scheme.get("scale") or {}, Mapping)
    }
    return Project(
        items,
        items_file,
        texts,
        str(options.get("prompt", "prompt")),
        scales,
        str(config.get("annotation_task_name", NAME)),
        answers.meanings(options),
        answers.cuts_of(options, STRENGTH_CUTS),
    )


def _items_file(path: Path | None, config: Mapping[str, Any], options: Mapping[str, Any]) -> Path:
    if given := options.get("items"):
        return Path(given)
    named: Any = config.get("data_files") or []
    if path is None or len(named) != 1 or not isinstance(named[0], str):
        raise PalateError("the texts are not in the answers: name the items file by option items")
    near = path.parent
    places = (near / str(config.get("task_dir", ".")) / named[0], near / Path(named[0]).name)
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise PalateError(f"{path}: no items file {named[0]}; name it by the option items")
    return found


def _answer(item: str, user: str, labels: Any, project: Project) -> Answer:
    if item not in project.items:
        raise InvalidRecord(f"not in {project.items_file}; give the items that were annotated")
    data = project.items[item]
    outcome, strength = "", 0.0
    said: dict[str, Any] = {}
    if not isinstance(labels, list):
        raise InvalidRecord(f"expected a list of labels, got {shown(labels)}; {TRIED}")
    for label in labels:
        schema, name, value = _label(label)
        if name == "selection":
            found = answers.outcome(value, schema, project.words)
            if not isinstance(found, str):
                raise InvalidRecord(f"{schema}: a choice is no strength; map it to a, b or tie")
        elif name == "scale_value":
            low, high = project.scales.get(schema, (-3.0, 3.0))
            scale = number(value, schema, low, high, f"a number of {low:g} to {high:g}")
            if not scale:  # Where the slider stands unmoved: a tie only if nothing else is said.
                said[schema] = value
                continue
            strength, found = abs(scale), "a" if scale < 0 else "b"
        else:
            said[schema] = value
            continue
        if outcome and found != outcome:
            raise InvalidRecord(f"two winners: {outcome} and, by {schema}, {found}")
        outcome = found
    if not outcome and any(schema in project.scales for schema in said):
        outcome = "tie"
    if not outcome:
        raise InvalidRecord("submitted without a choice", "left out")
    return Answer(
        name=f"{item}:{user}",
        data=data,
        roles={"prompt": project.prompt, "responses": project.texts},
        responses=base.items(data, project.texts, 2),
        annotator=user,
        outcome=outcome,
        rating=project.cuts.rate(strength) if strength else None,
        strength=strength or None,
        meta={"answers": said} if said else {},
    )


def _label(label: Any) -> tuple[str, str, Any]:
    """Scheme, name and value of one label."""
    if isinstance(label, list) and len(label) == 2 and isinstance(label[0], Mapping):
        schema, name = label[0].get("schema"), label[0].get("name")
        if isinstance(schema, str) and isinstance(name, str):
            return schema, name, label[1]
    raise InvalidRecord(f"expected labels with a schema and a name, got {shown(label)}; {TRIED}")


SOURCE = Source(
    name=NAME,
    title="Potato",
    hub_id=None,
    url="https://github.com/davidjurgens/potato",
    licence="yours",
    kind="both",
    load=load,
    recognise=recognise,
    cuts=(STRENGTH_CUTS,),
    options={
        "config": "Potato's config.yaml (default: beside the answers, or up to two folders above)",
        "items": "the items file (default: the one of data_files)",
        "prompt": "the items' column of the prompt (default: prompt)",
        "responses": "the items' column of the two texts (default: the scheme's items_key)",
        "cuts": "sizes on the scale from which on it is slightly, better, significantly "
        "(default: [1, 2, 3])",
        "values": "what a choice means: {X: a, Y: tie, Z: skip}",
    },
    tried_on="2.12.1: the states of two users, seven answers",
    notes="below 0 on a scale the first text is better; cluster: first user turn",
)
