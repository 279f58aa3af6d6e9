"""Tasks of annotation tools, answered in each tool's own form by people who agree with labels."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from palate.data.sources.potato import LABELS
from palate.data.tasks import Tool
from palate.types import Comparison, Judgement

TIE = Judgement(chosen=0, tie=1)
Truths = Mapping[str, Comparison]


def answered(tool: Tool, folder: Path, truths: Iterable[Comparison]) -> Path:
    """What the tool keeps after its tasks in `folder` were answered as `truths` are labelled."""
    return FORMS[tool](folder, {one.id: one for one in truths})


def label_studio(folder: Path, truths: Truths) -> Path:
    """What Label Studio 1.23.2 exports as JSON after everybody agreed with the labels."""
    tasks = json.loads((folder / "tasks.json").read_text())
    for number, task in enumerate(tasks, start=1):
        data = task["data"]
        truth = truths[data["comparison_id"]]
        where = "left" if data["response_a"] == truth.chosen else "right"
        value: dict[str, Any] = {"selected": "middle" if truth.judgement == TIE else where}
        result = [
            {
                "from_name": "better",
                "to_name": "response_a,response_b",
                "type": "pairwise",
                "value": value,
            }
        ]
        if truth.judgement != TIE and truth.rating:
            stars = {"rating": int(truth.rating)}
            rating = {"from_name": "strength", "to_name": "conversation", "type": "rating"}
            result.append({**rating, "value": stars})
        annotation = {"id": number, "completed_by": 1, "result": result, "was_cancelled": False}
        task |= {"id": number, "annotations": [annotation], "drafts": []}
    path = folder / "export.json"
    path.write_text(json.dumps(tasks))
    return path


def potato(folder: Path, truths: Truths) -> Path:
    """What Potato 2.12.1 keeps after one user agreed with the labels."""
    labels: dict[str, Any] = {}
    for line in (folder / "items.json").read_text().splitlines():
        item = json.loads(line)
        truth = truths[item["id"]]
        first = item["text"][0] == truth.chosen
        size = 0 if truth.judgement == TIE else int(truth.rating or 1) - 1
        word = "tie" if truth.judgement == TIE else "A" if first else "B"
        labels[item["id"]] = [
            [{"schema": "better", "name": "selection"}, word],
            [{"schema": "strength", "name": "scale_value"}, str(-size if first else size)],
        ]
    path = folder / "annotation_output" / "ann" / "user_state.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"user_id": "ann", LABELS: labels}))
    return folder


def agreed(truth: Comparison, record: dict[str, Any]) -> dict[str, Any]:
    """What somebody answers to a record of Argilla who agrees with the label."""
    if truth.judgement == TIE:
        return {"better": "tie"}
    side = "a" if record["response_a"] == truth.chosen else "b"
    return {"better": f"response_{side}", "strength": int(truth.rating or 1)}


def argilla(folder: Path, truths: Truths) -> Path:
    """What Argilla's SDK 2.8.0 writes by `to_list(flatten=True)` after one user agreed."""
    records = json.loads((folder / "records.json").read_text())
    for record in records:
        record |= {"status": "completed", "_server_id": f"server-{record['id']}"}
        for question, value in agreed(truths[record["comparison_id"]], record).items():
            column = f"{question}.responses"
            record |= {column: [value], f"{column}.users": ["u1"]}
            record |= {f"{column}.status": ["submitted"]}
        record.setdefault("strength.responses", None)  # As it fills what others have.
    path = folder / "answered.json"
    path.write_text(json.dumps(records))
    return path


FORMS: Mapping[Tool, Callable[[Path, Truths], Path]] = {
    "label-studio": label_studio,
    "potato": potato,
    "argilla": argilla,
}
