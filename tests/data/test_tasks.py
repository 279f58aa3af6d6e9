"""Tasks for annotation tools: answered in the form of the tool, they bring the same labels."""

import json
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import pytest

from answered import TIE, agreed, answered
from palate.data.sources import Request, open_source
from palate.data.tasks import TOOLS, Tool, write_tasks
from palate.evaluate.benchmark import seeded_side
from palate.types import Comparison, Judgement, Message, PalateError, Rating, comparison_id


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


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("tool", TOOLS)
def test_answers_come_back_to_the_right_side(tmp_path: Path, tool: Tool, seed: int) -> None:
    folder = tmp_path / "tasks"
    counts = write_tasks([*COMPARISONS, COMPARISONS[0]], tool, folder, side(seed))
    assert str(counts) == "12 tasks; 1 more judgements of the same pairs"
    export = answered(tool, folder, COMPARISONS)
    rows = list(open_source(tool, Request(export, ties="keep")))
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


@pytest.mark.parametrize("tool", TOOLS)
def test_tasks_that_come_back_as_they_went_are_told_from_answers(
    tool: Tool, tmp_path: Path
) -> None:
    write_tasks(COMPARISONS, tool, tmp_path / tool, side(0))
    file = {"label-studio": "tasks.json", "potato": "items.json", "argilla": "records.json"}[tool]
    for source in ("own", tool):
        with pytest.raises(PalateError, match=r"no task has been answered; .*: label them there"):
            list(open_source(source, Request(tmp_path / tool / file)))


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
