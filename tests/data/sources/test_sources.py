"""The table of sources itself, the hub path, and what every source has in common."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from palate.data.sources import SOURCES, Request, describe, files, open_source, safety_rows
from palate.data.sources.base import BadRow, Cuts, Record
from palate.data.sources.files import resolve
from palate.types import Comparison, PalateError, Rating

from .rows import oasst_message, pku, shp, stack, summarize, webgpt, write_jsonl

HUB_ROWS: dict[str, list[dict[str, Any]]] = {
    "openai-summarize": [summarize(1, 7)],
    "openai-webgpt": [webgpt(0.5)],
    "stackexchange": [stack()],
    "shp": [shp()],
    "gptj-synthetic": [{"prompt": "a", "chosen": "b", "rejected": "c"}],
    "pku-saferlhf": [pku()],
    "oasst": [
        oasst_message("m0", None, "prompter"),
        oasst_message("a0", "m0", "assistant", 0),
        oasst_message("a1", "m0", "assistant", 1),
    ],
}


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_describes_itself(name: str) -> None:
    source, table = SOURCES[name], dict(describe(name))
    assert source.name == name
    assert table["licence"]
    assert table["tried on"]
    assert table["ratings"]


@pytest.mark.parametrize("name", HUB_ROWS)
def test_every_hub_source_reads_the_hub(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def stream(hub_id: str, *, split: str, **_: Any) -> Iterator[Record]:
        asked.append((hub_id, split))
        for row, data in enumerate(HUB_ROWS[name], start=1):
            yield Record(f"hub:{hub_id}:{split}", row, split, data)

    monkeypatch.setattr(files, "stream", stream)
    rows = list(open_source(name, Request(split="train")))
    assert asked == [(SOURCES[name].hub_id, "train")]
    assert rows
    assert all(isinstance(row, Comparison) and row.source == name for row in rows)


def test_hh_downloads_the_files_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turn = "\n\nHuman: Hi\n\nAssistant: "
    path = write_jsonl(tmp_path / "train.jsonl", [{"chosen": turn + "a", "rejected": turn + "b"}])
    asked: list[str] = []
    monkeypatch.setattr(files, "download", lambda hub_id, name: asked.append(name) or path)
    rows = list(open_source("anthropic-hh", Request(subset="helpful-base", split="train")))
    assert asked == ["helpful-base/train.jsonl.gz"]
    assert [row.batch for row in rows if isinstance(row, Comparison)] == ["helpful-base"]


def test_streaming_through_datasets(tmp_path: Path) -> None:
    """A local folder stands for the hub: the same call, the same code of `datasets`."""
    rows = [{"prompt": f"p{i}", "chosen": "b", "rejected": "c"} for i in range(3)]
    write_jsonl(tmp_path / "train.jsonl", rows)
    records = list(files.stream(str(tmp_path), split="train"))
    assert [r.data["prompt"] for r in records if isinstance(r, Record)] == ["p0", "p1", "p2"]
    with pytest.raises(PalateError, match="not read from the hub"):
        list(files.stream(str(tmp_path), split="none"))


def test_a_data_set_that_is_a_program_is_read_from_its_converted_copy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import datasets

    calls: list[dict[str, Any]] = []

    def load_dataset(hub_id: str, **arguments: Any) -> list[dict[str, Any]]:
        calls.append(arguments)
        if "revision" not in arguments:
            raise RuntimeError("Dataset scripts are no longer supported, but found x.py")
        return [{"a": 1}]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert len(list(files.stream("openai/x", split="train", name="comparisons"))) == 1
    assert calls[1]["revision"] == "refs/convert/parquet"
    assert calls[1]["data_dir"] == "comparisons"
    assert not any("trust_remote_code" in call for call in calls)


def test_resolve(tmp_path: Path) -> None:
    assert resolve(Request(), "a/b") == "a/b"
    assert resolve(Request(tmp_path), "a/b") == tmp_path
    assert resolve(Request("org/name"), None) == "org/name"
    for missing in ("./nowhere/x", "/nowhere/x", "data/x.jsonl", "nowhere", Path("org/name")):
        with pytest.raises(PalateError, match="no such file or folder"):
            resolve(Request(missing), "a/b")


def test_unknown_names_and_options_name_the_near_ones() -> None:
    with pytest.raises(PalateError, match="no source 'antropic-hh'; did you mean 'anthropic-hh'"):
        open_source("antropic-hh")
    with pytest.raises(PalateError, match="shp: no option 'ratio'; it has min_ratio"):
        open_source("shp", Request(options={"ratio": 2}))
    with pytest.raises(PalateError, match="oasst: has no single labelled responses"):
        safety_rows("oasst", Request())


def test_cuts() -> None:
    cuts = Cuts("gap", 2, 3, 5, (0.1, 0.2, 0.3, 0.4), "ten rows")
    assert [cuts.rate(s) for s in (1, 2, 2.9, 3, 4, 5, 99)] == [1, 2, 2, 3, 3, 4, 4]
    assert cuts.rate(2) is Rating.SLIGHTLY
    assert "40.0% / 30.0% / 20.0% / 10.0% of ten rows" in str(cuts)


def test_simulated_campaign_by_name() -> None:
    rows = []
    for row in open_source("simulated", Request(options={"seed": 3})):
        rows.append(row)
        if len(rows) == 20:
            break
    assert all(isinstance(row, Comparison) and "latent" in row.meta for row in rows)
    with pytest.raises(PalateError, match="simulated"):
        list(open_source("simulated", Request(options={"no_such_option": 1})))
    with pytest.raises(PalateError, match="seed: expected a whole number"):
        list(open_source("simulated", Request(options={"seed": "x"})))


def test_bad_row_prints_as_a_place() -> None:
    assert str(BadRow("a.jsonl", 3, "expected text")) == "a.jsonl:3: expected text"
