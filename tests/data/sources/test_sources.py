"""The table of sources, the hub, what all sources have in common, and each on hand-made rows."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from palate.data.sources import (
    SOURCES,
    Request,
    describe,
    files,
    open_source,
    readable,
    safety_rows,
)
from palate.data.sources.base import BadRow, Cuts, Record
from palate.data.sources.files import resolve
from palate.data.sources.openai_summarize import decide_scale
from palate.types import Comparison, PalateError, Rating

from .rows import (
    helpsteer,
    mtbench,
    oasst_message,
    opened,
    pandalm,
    pku,
    qa_feedback,
    shp,
    skywork,
    stack,
    summarize,
    webgpt,
    write_jsonl,
)

HUB_ROWS: dict[str, list[dict[str, Any]]] = {
    "openai-summarize": [summarize(1, 7)],
    "openai-webgpt": [webgpt(0.5)],
    "stackexchange": [stack()],
    "shp": [shp()],
    "gptj-synthetic": [{"prompt": "a", "chosen": "b", "rejected": "c"}],
    "pku-saferlhf": [pku()],
    "beavertails": [
        {"prompt": "a", "response": "b", "category": {}, "is_safe": True},
        {"prompt": "a", "response": "c", "category": {}, "is_safe": False},
    ],
    "skywork": [skywork()],
    "helpsteer": [helpsteer(3), helpsteer(-1)],
    "mtbench-human": [mtbench("model_a"), mtbench("model_b", judge="expert_1")],
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


def test_shp_training_split_is_filtered_and_counted(tmp_path: Path) -> None:
    rows = [shp("p1", 2.0 + i) for i in range(7)] + [shp("p2", 1.5), shp("p3", 2.0)]
    write_jsonl(tmp_path / "askculinary" / "train.json", rows)
    good, bad = opened("shp", tmp_path)
    assert {row.file for row in bad} == {str(tmp_path / "askculinary" / "train.json")}
    assert len(good) == 6  # Five of p1, none of p2, one of p3.
    assert Counter(b.reason.split(" (")[0] for b in bad) == {
        "more than 5 pairs of one post": 2,
        "score_ratio below 2": 1,
    }
    assert {b.kind for b in bad} == {"left out"}
    assert len(list(readable(open_source("shp", Request(tmp_path))))) == 6
    assert {c.batch for c in good} == {"shp/askculinary"}


def test_pitfall_21_shp_does_not_take_the_first_rows(tmp_path: Path) -> None:
    rows = [shp("p1", 2.0 + i / 100) for i in range(60)]
    write_jsonl(tmp_path / "train.json", rows)
    good, _ = opened("shp", tmp_path)
    assert sorted(c.meta["row"] for c in good) != [1, 2, 3, 4, 5]
    assert opened("shp", tmp_path)[0] == good


def test_shp_test_split_is_whole(tmp_path: Path) -> None:
    rows = [shp("p1", 1.0 + i / 4) for i in range(8)]
    write_jsonl(tmp_path / "askculinary" / "test.json", rows)
    good, bad = opened("shp", tmp_path, split="test")
    assert (len(good), bad) == (8, [])


def test_shp_sides_and_ratings(tmp_path: Path) -> None:
    rows = [shp(ratio=1.5, labels=0), shp(ratio=2.5), shp(ratio=3), shp(ratio=9)]
    good, _ = opened("shp", write_jsonl(tmp_path / "test.json", rows))
    assert good[0].chosen == "Boil it."
    assert good[1].rejected == "Boil it."
    assert [c.rating for c in good] == list(Rating)
    assert good[0].meta["strength"] == 1.5


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (shp(labels=1, score_A=1, score_B=5), "labels: says A, but its score is lower"),
        (shp(labels=2), "labels: expected 0 or 1, got 2"),
        (shp(ratio=0.5, score_A=20), "score_ratio: expected at least 1, got 0.5"),
        (shp(score_ratio=float("nan")), "score_ratio: expected a finite number, got nan"),
        (shp(score_ratio="4"), "score_ratio: expected a number, got '4'"),
    ],
)
def test_bad_shp_rows(tmp_path: Path, row: dict[str, object], reason: str) -> None:
    _, bad = opened("shp", write_jsonl(tmp_path / "test.json", [row]))
    assert reason in bad[0].reason


def bipolar() -> list[dict[str, object]]:
    return [summarize(0, 1 + i % 5) for i in range(25)] + [
        summarize(1, 5 + i % 5) for i in range(25)
    ]


def test_summarize_confidence_found_bipolar(tmp_path: Path) -> None:
    good, bad = opened("openai-summarize", write_jsonl(tmp_path / "a.jsonl", bipolar()))
    assert bad == []
    assert [c.meta["strength"] for c in good[:5]] == [4, 3, 2, 1, 0]
    assert [c.rating for c in good[:5]] == [4, 3, 2, 1, 1]
    assert [c.rating for c in good[25:30]] == [1, 1, 2, 3, 4]
    assert (good[0].chosen, good[25].chosen) == ("Cat ate it.", "Dog did.")
    assert good[0].prompt[0].content == (
        "Summarize the following post.\n\nSUBREDDIT: r/cats\nTITLE: Cat trouble\n"
        "POST: My cat ate my homework."
    )
    assert (good[0].annotator, good[0].batch) == ("w1", "openai-summarize/batch3")


def test_summarize_confidence_found_unipolar(tmp_path: Path) -> None:
    rows = [*bipolar(), summarize(0, 9)]
    good, bad = opened("openai-summarize", write_jsonl(tmp_path / "a.jsonl", rows))
    assert bad == []
    assert {c.meta["confidence_scale"] for c in good} == {"unipolar"}
    assert good[-1].rating is Rating.SIGNIFICANTLY


def test_summarize_row_against_the_scale_is_bad(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("palate.data.sources.openai_summarize.ROWS_TO_DECIDE", 50)
    rows = [*bipolar(), summarize(0, 9), summarize(1, 12), summarize(1, None)]
    good, bad = opened("openai-summarize", write_jsonl(tmp_path / "a.jsonl", rows))
    assert "choice 0 with 9, against the bipolar scale" in bad[0].reason
    assert "expected 1 to 9, got 12" in bad[1].reason
    assert good[-1].rating is None


def test_summarize_few_rows_are_not_rated() -> None:
    assert decide_scale(bipolar()) == "bipolar"
    assert decide_scale(bipolar()[:40]) == "undecided"
    assert decide_scale([summarize(0, None)] * 100) == "undecided"


def test_summarize_splits_and_articles(tmp_path: Path) -> None:
    news = {"id": "x", "post": None, "title": "News", "subreddit": None, "article": "Rain fell."}
    rows = [summarize(0, 2, split=s) for s in ("train", "valid1", "valid2")]
    path = write_jsonl(tmp_path / "a.jsonl", [*rows, summarize(1, 8, split="valid2", info=news)])
    good, _ = opened("openai-summarize", path, split="valid2")
    assert [c.meta["split"] for c in good] == ["valid2", "valid2"]
    assert good[1].prompt[0].content == "Summarize the following article.\n\nNews\n\nRain fell."
    assert len(opened("openai-summarize", path, split="validation")[0]) == 3
    with pytest.raises(PalateError, match="no split 'test'"):
        opened("openai-summarize", path, split="test")


def test_webgpt_ties_are_counted_and_skipped(tmp_path: Path) -> None:
    rows = [webgpt(1.0), webgpt(-0.75), webgpt(0.0), webgpt(0.5), webgpt(0.25)]
    good, bad = opened("openai-webgpt", write_jsonl(tmp_path / "a.jsonl", rows))
    assert [c.rating for c in good] == [4, 3, 2, 1]
    assert good[1].chosen == "The sea reflects."
    assert [(b.row, b.kind) for b in bad] == [(3, "tie")]


@pytest.mark.parametrize("over", [{"score_1": 0.3}, {"score_0": float("nan")}, {"question": "x"}])
def test_bad_webgpt_rows(tmp_path: Path, over: dict[str, object]) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [webgpt(0.5, **over)])
    assert [b.kind for b in opened("openai-webgpt", path)[1]] == ["bad"]


def test_ties_are_kept_where_they_are_asked_for(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [webgpt(1.0), webgpt(0.0)])
    good, bad = opened("openai-webgpt", path, ties="keep")
    assert not bad
    assert [c.judgement.decides for c in good] == ["chosen", "tie"]
    assert good[1].rating is None


def test_helpsteer_strength_is_below_zero_for_the_first(tmp_path: Path) -> None:
    rows = [helpsteer(-3), helpsteer(1), helpsteer(0), helpsteer(4), {"prompt": "attributes"}]
    good, bad = opened("helpsteer", write_jsonl(tmp_path / "a.jsonl", rows), ties="keep")
    assert [c.chosen for c in good] == ["sorted(it)", "Use a loop.", "sorted(it)"]
    assert [c.rating for c in good] == [4, 2, None]
    assert good[2].judgement.decides == "tie"
    assert [(b.row, b.kind) for b in bad] == [(4, "bad"), (5, "left out")]
    assert "expected -3, -2, -1, 0, 1, 2 or 3, got 4" in bad[0].reason


def test_mtbench_turn_two_is_left_out(tmp_path: Path) -> None:
    rows = [mtbench("model_b"), mtbench("tie"), mtbench("model_a", turn=2), mtbench("left")]
    good, bad = opened("mtbench-human", write_jsonl(tmp_path / "a.jsonl", rows), ties="keep")
    assert [c.chosen for c in good] == ["Violets are blue.", "Roses."]
    assert good[0].annotator == "expert_0"
    assert good[0].meta["models"] == ["gpt-4", "alpaca-13b"]
    assert [(b.row, b.kind) for b in bad] == [(3, "left out"), (4, "bad")]


def test_pandalm_three_votes_are_three_comparisons(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [pandalm(2, 1, 0)])
    good, _ = opened("pandalm", path, ties="keep")
    assert [c.chosen for c in good] == ["Long.", "A sentence.", "A sentence."]
    assert [c.judgement.decides for c in good] == ["chosen", "chosen", "tie"]
    assert good[0].prompt[0].content == "Shorten it.\n\nA long sentence."


def test_qa_feedback_places_are_of_one_order(tmp_path: Path) -> None:
    # Answers 2 and 4 share the first place, then 1, then 3; and a circle, which has no order.
    rows = [qa_feedback(2, 1, 2, 1, 0, 2), qa_feedback(1, 2, 1, 1, 1, 1)]
    good, _ = opened("qa-feedback", write_jsonl(tmp_path / "a.jsonl", rows), ties="keep")
    assert [c.ranks and (c.ranks.chosen, c.ranks.rejected) for c in good] == [
        (0, 1), (1, 2), (0, 1), (0, 2), (0, 0), (0, 2), *[None] * 6,
    ]  # fmt: skip
    assert good[0].prompt[0].content == "Hamlet\nA play by Shakespeare. Of 1603.\n\nWho wrote it?"


def test_gptj(tmp_path: Path) -> None:
    row = {"prompt": "Say hi ", "chosen": " Hi!", "rejected": ""}
    (found,), bad = opened("gptj-synthetic", write_jsonl(tmp_path / "a.jsonl", [row]))
    assert bad == []
    assert (found.prompt[0].content, found.chosen, found.rejected) == ("Say hi", "Hi!", "")


def test_pku_hub_form_has_two_preferences(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "train.jsonl", [pku()])
    (safer,), _ = opened("pku-saferlhf", path)
    assert (safer.chosen, safer.chosen_safe, safer.rejected_safe) == (
        "Call a locksmith.",
        True,
        False,
    )
    (better,), _ = opened("pku-saferlhf", path, options={"preference": "better"})
    assert (better.chosen, better.chosen_safe, better.rejected_safe) == ("Like this.", False, True)
    with pytest.raises(PalateError, match="preference is better or safer, not 'best'"):
        opened("pku-saferlhf", path, options={"preference": "best"})


def test_pku_local_form_is_safer_only(tmp_path: Path) -> None:
    row = {"prompt": "p", "response": ["safe", "unsafe"]}
    path = write_jsonl(tmp_path / "a.jsonl", [row, {"prompt": "p", "response": ["one"]}])
    (found,), bad = opened("pku-saferlhf", path)
    assert (found.chosen, found.chosen_safe, found.rejected_safe) == ("safe", True, False)
    assert "response: expected a list of 2, got 1 items" in bad[0].reason
    assert opened("pku-saferlhf", path, options={"preference": "better"})[0] == []


def tree() -> list[dict[str, object]]:
    return [
        oasst_message("m0", None, "prompter"),
        oasst_message("a1", "m0", "assistant", 1),
        oasst_message("a0", "m0", "assistant", 0),
        oasst_message("a3", "m0", "assistant", 3),
        oasst_message("p1", "a0", "prompter"),
        oasst_message("b1", "p1", "assistant", 0),
        oasst_message("b2", "p1", "assistant"),
    ]


def test_oasst_ranks_and_paths(tmp_path: Path) -> None:
    rows = [*tree(), oasst_message("b3", "p1", "assistant", 1)]
    good, bad = opened("oasst", write_jsonl(tmp_path / "a.jsonl", rows))
    assert bad == []
    pairs = [(c.chosen[-2:], c.rejected[-2:], int(c.rating or 0)) for c in good]
    assert pairs == [("a0", "a1", 2), ("a0", "a3", 4), ("a1", "a3", 3), ("b1", "b3", 2)]
    assert [turn.role for turn in good[-1].prompt] == ["user", "assistant", "user"]
    assert len({c.prompt_id for c in good}) == 1


def test_oasst_trees_form_and_language(tmp_path: Path) -> None:
    def replies(parent: str) -> list[dict[str, object]]:
        found = [row for row in tree() if row["parent_id"] == parent]
        return [row | {"replies": replies(str(row["message_id"]))} for row in found]

    root = tree()[0] | {"replies": replies("m0")}
    path = write_jsonl(tmp_path / "a.jsonl", [{"message_tree_id": "m0", "prompt": root}])
    assert len(opened("oasst", path, options={"language": "en"})[0]) == 3
    assert opened("oasst", path, options={"language": "fi"})[0] == []


def test_oasst_broken_trees(tmp_path: Path) -> None:
    rows = [
        oasst_message("a0", "gone", "assistant", 0),
        oasst_message("a1", "gone", "assistant", 1),
        oasst_message("c0", "c0", "assistant", 0),
        oasst_message("c1", "c0", "assistant", 0),
        oasst_message("d0", "a0", "assistant", -1),
    ]
    good, bad = opened("oasst", write_jsonl(tmp_path / "a.jsonl", rows))
    assert good == []
    assert sorted(b.kind for b in bad) == ["bad", "bad", "tie"]


def test_pitfall_06_hh_is_split_at_the_last_assistant_turn(tmp_path: Path) -> None:
    start = "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Say \n\nAssistant: twice"
    rows = [
        {"chosen": f"{start}\n\nAssistant: good", "rejected": f"{start}\n\nAssistant: bad"},
        {"chosen": f"{start}\n\nAssistant: good", "rejected": "\n\nHuman: Hi\n\nAssistant: bad"},
        {"chosen": f"{start}\n\nAssistant: ", "rejected": start},
        {"chosen": "\n\nHuman: Hi", "rejected": "\n\nHuman: Hi"},
        {"chosen": "\n\nAssistant: Hi", "rejected": "\n\nAssistant: Ho"},
        {"chosen": "Hi", "rejected": None},
    ]
    path = write_jsonl(tmp_path / "helpful-base" / "test.jsonl", rows)
    good, bad = opened("anthropic-hh", path)
    assert [(c.chosen, c.rejected) for c in good[:2]] == [("good", "bad")] * 2
    assert len(good[0].prompt) == 4
    assert "rejected_prompt_differs" not in good[0].meta
    assert good[1].meta["rejected_prompt_differs"] is True
    assert good[1].prompt == good[0].prompt  # The chosen side's, whole; nothing is cut to fit.
    assert good[2].chosen == ""
    assert [b.row for b in bad] == [4, 5, 6]
    assert len({c.prompt_id for c in good}) == 1


def test_hh_wrong_subset(tmp_path: Path) -> None:
    with pytest.raises(PalateError, match="no subset 'harmful'; it has helpful-base"):
        opened("anthropic-hh", tmp_path, subset="harmful")
    with pytest.raises(PalateError, match="expected a folder of helpful-base"):
        opened("anthropic-hh", tmp_path)


def test_diasafety_pairs_within_a_context(tmp_path: Path) -> None:
    rows = [
        {"context": c, "response": r, "category": "x", "label": label}
        for c, r, label in [
            ("c1", "s1", "Safe"),
            ("c1", "u1", "Unsafe"),
            ("c1", "u2", "Unsafe"),
            ("c2", "s2", "Safe"),
            ("c3", "u3", "Maybe"),
        ]
    ]
    good, bad = opened("diasafety", write_jsonl(tmp_path / "train.jsonl", rows))
    assert [(c.chosen, c.rejected) for c in good] == [("s1", "u1"), ("s1", "u2")]
    assert [(b.row, b.reason) for b in bad] == [(5, "label: expected Safe or Unsafe, got 'Maybe'")]


def test_beavertails_pairs_a_safe_and_an_unsafe_response(tmp_path: Path) -> None:
    said = [("a", "x", True), ("a", "y", False), ("a", "y", False), ("a", "y", True)]
    said += [("b", "z", True)]
    rows = [
        {"prompt": prompt, "response": response, "category": {"drugs": False}, "is_safe": safe}
        for prompt, response, safe in said
    ]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    good, bad = opened("beavertails", path)
    assert [(c.chosen, c.rejected, c.chosen_safe, c.rejected_safe) for c in good] == [
        ("x", "y", True, False)
    ]
    assert [(b.row, b.kind) for b in bad] == [(5, "left out")]
    labels = [row.safe for row in safety_rows("beavertails", Request(path)) if hasattr(row, "safe")]
    assert labels == [safe for *_, safe in said]
    with pytest.raises(PalateError, match="none of its 1 prompts"):
        opened("beavertails", write_jsonl(tmp_path / "b.jsonl", rows[-1:]))


def test_skywork_has_conversations_and_their_origin(tmp_path: Path) -> None:
    good, _ = opened("skywork", write_jsonl(tmp_path / "a.jsonl", [skywork()]))
    assert [(c.chosen, c.rejected, c.batch) for c in good] == [("4", "5", "magpie_air")]
    assert good[0].prompt[0].content == "2+2?"
