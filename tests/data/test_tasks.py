"""Tasks for annotation tools: answered in the form of the tool, they bring the same labels."""

import json
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import pytest

from palate.data.sources import Request, open_source
from palate.data.sources.potato import LABELS
from palate.data.tasks import Tool, write_tasks
from palate.evaluate.benchmark import seeded_side
from palate.types import Comparison, Judgement, Message, PalateError, Rating, comparison_id

TIE = Judgement(chosen=0, tie=1)


def made(n: int) -> Comparison:
    prompt = (Message("system", "Be short."), Message("user", f"Q{n}\n<b>&"))
    chosen, rejected = f"good {n}", f'bad "{n}"\nAssistant: x'
    return Comparison(
        id=comparison_id("s", prompt, chosen, rejected),
        source="s",
        prompt=prompt,
        chosen=chosen,
        rejected=rejected,
        prompt_id=f"post-{n}",
        batch="w1",
        rating=Rating.SIGNIFICANTLY if n % 2 else Rating.SLIGHTLY,
        judgement=TIE if n == 4 else Judgement(),
    )


COMPARISONS = [made(n) for n in range(12)]


def side(seed: int) -> Any:
    return lambda one: seeded_side(seed, one)


def label_studio(folder: Path) -> Path:
    """What Label Studio 1.23.2 exports as JSON after everybody agreed with the labels."""
    tasks = json.loads((folder / "tasks.json").read_text())
    by_id = {c.id: c for c in COMPARISONS}
    for number, task in enumerate(tasks, start=1):
        data = task["data"]
        truth = by_id[data["comparison_id"]]
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


def potato(folder: Path) -> Path:
    """What Potato 2.12.1 keeps after one user agreed with the labels."""
    by_id = {c.id: c for c in COMPARISONS}
    labels: dict[str, Any] = {}
    for line in (folder / "items.json").read_text().splitlines():
        item = json.loads(line)
        truth = by_id[item["id"]]
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


def argilla(folder: Path) -> Path:
    """What Argilla's SDK 2.8.0 writes by `to_list(flatten=True)` after one user agreed."""
    by_id = {c.id: c for c in COMPARISONS}
    records = json.loads((folder / "records.json").read_text())
    for record in records:
        record |= {"status": "completed", "_server_id": f"server-{record['id']}"}
        for question, value in agreed(by_id[record["comparison_id"]], record).items():
            column = f"{question}.responses"
            record |= {column: [value], f"{column}.users": ["u1"]}
            record |= {f"{column}.status": ["submitted"]}
        record.setdefault("strength.responses", None)  # As it fills what others have.
    path = folder / "answered.json"
    path.write_text(json.dumps(records))
    return path


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("tool", ["label-studio", "potato", "argilla"])
def test_answers_come_back_to_the_right_side(tmp_path: Path, tool: Tool, seed: int) -> None:
    folder = tmp_path / "tasks"
    counts = write_tasks([*COMPARISONS, COMPARISONS[0]], tool, folder, side(seed))
    assert str(counts) == "12 tasks; 1 more judgements of the same pairs"
    answered = {"label-studio": label_studio, "potato": potato, "argilla": argilla}[tool](folder)
    rows = list(open_source(tool, Request(answered, ties="keep")))
    assert all(isinstance(row, Comparison) for row in rows)
    back = cast(list[Comparison], rows)
    for given, got in zip(COMPARISONS, back, strict=True):
        assert got.meta["of"] == given.id
        assert (got.prompt, got.prompt_id, got.batch) == (given.prompt, given.prompt_id, "w1")
        assert got.judgement == given.judgement
        if given.judgement == TIE:
            assert {got.chosen, got.rejected} == {given.chosen, given.rejected}
            continue
        assert (got.chosen, got.rejected, got.rating) == (
            given.chosen,
            given.rejected,
            given.rating,
        )


def test_argillas_own_classes_take_the_tasks(tmp_path: Path) -> None:
    """Every form of record that its SDK writes brings the labels; no server is asked."""
    rg = pytest.importorskip("argilla")
    from argilla._api._client import APIClient
    from argilla.records._io import GenericIO, JsonIO
    from argilla.records._mapping import IngestedRecordMapper

    write_tasks(COMPARISONS, "argilla", tmp_path / "tasks", side(0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(APIClient, "_validate_connection", lambda _: None)  # Asks for the key.
        client = rg.Argilla(api_url="http://127.0.0.1:9", api_key="none")
    settings = rg.Settings.from_json(tmp_path / "tasks" / "settings.json")
    settings.validate()
    dataset = rg.Dataset(name="comparisons", settings=settings, client=client)
    user = UUID(int=1)
    mapper = IngestedRecordMapper(dataset=dataset, user_id=user)  # What `records.log` does.
    by_id, records = {c.id: c for c in COMPARISONS}, []
    for task in json.loads((tmp_path / "tasks" / "records.json").read_text()):
        record = mapper(data=task)  # A key that it did not know would be a warning, so an error.
        for question, value in agreed(by_id[task["id"]], task).items():
            record.responses.add(rg.Response(question, value, user_id=user, status="submitted"))
        assert record.api_model().model_dump()["fields"] == {
            name: task[name] for name in ("prompt", "response_a", "response_b")
        }
        records.append(record)
    (tmp_path / "flat.json").write_text(json.dumps(GenericIO.to_list(records, flatten=True)))
    JsonIO.to_json(records, tmp_path / "nested.json")
    for name in ("flat.json", "nested.json"):
        rows = list(open_source("argilla", Request(tmp_path / name, ties="keep")))
        back = [(row.meta["of"], row.chosen, row.rating, row.judgement, row.batch) for row in rows]
        for one, (of, chosen, rating, judgement, batch) in zip(COMPARISONS, back, strict=True):
            assert (of, judgement, batch) == (one.id, one.judgement, "w1")
            assert judgement == TIE or (chosen, rating) == (one.chosen, one.rating)


def test_the_side_is_drawn_and_the_label_is_in_no_task(tmp_path: Path) -> None:
    write_tasks(COMPARISONS, "label-studio", tmp_path / "a", side(0))
    tasks = [task["data"] for task in json.loads((tmp_path / "a" / "tasks.json").read_text())]
    first = [task["response_a"].startswith("good") for task in tasks]
    assert 0 < sum(first) < len(first)
    assert {*tasks[0]} == {
        "prompt", "comparison_id", "prompt_id", "batch", "response_a", "response_b",
    }  # fmt: skip


def test_nothing_is_overwritten_or_half_written(tmp_path: Path) -> None:
    with pytest.raises(PalateError, match="exists; name a new folder"):
        write_tasks(COMPARISONS, "potato", tmp_path, side(0))
    with pytest.raises(PalateError, match="expected comparisons, found none"):
        write_tasks([], "potato", tmp_path / "x", side(0))
    assert list(tmp_path.iterdir()) == []
