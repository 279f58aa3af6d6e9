"""The field's benchmarks as items: from hand-made rows in their forms, and what is refused."""

from pathlib import Path

import pytest

import published
from palate.data.benchmarks import BENCHMARKS, benchmark_named, import_benchmark, read
from palate.data.sources.base import Request
from palate.records import read_benchmark_items, read_comparisons, read_header
from palate.types import BenchmarkItem, Comparison, Judgement, Message, PalateError


def items(name: str, location: Path, **request) -> list:
    return list(read(benchmark_named(name), Request(location, **request), partial=True))


def test_every_benchmark_says_what_it_is():
    for name, benchmark in BENCHMARKS.items():
        assert benchmark.name == name
        assert benchmark.rule
        assert benchmark.tried_on
        assert (benchmark.rows is None) != (benchmark.together is None)
        assert benchmark.hub_ids or benchmark.url or name == "best-of-k"


def test_rewardbench_is_pairs_by_subset(tmp_path):
    file = published.write_rows(tmp_path / "filtered.jsonl", [published.rewardbench("hep-go", 4)])
    (pair,) = items("rewardbench", file)
    assert isinstance(pair, Comparison)
    assert (pair.source, pair.chosen, pair.meta["models"]) == (
        "hep-go", "for 4", ["human", "buggy"],
    )  # fmt: skip


def test_rewardbench_2_hides_many_right_answers_and_joins_ties(tmp_path):
    rows = [
        published.rewardbench_2("Math", "7"),
        published.rewardbench_2("Ties", "ref:3", 1, 10),
        published.rewardbench_2("Ties", "tied:3", 4, 10),
    ]
    best, ref, tied = items("rewardbench-2", published.write_rows(tmp_path / "test.jsonl", rows))
    assert best.places == (0, 1, 1, 1)
    assert best.labels == ("model-0", "model-1", "model-2", "model-3")
    assert best.chance == 0.25
    assert tied.places.count(0) == 4
    assert ref.prompt_id == tied.prompt_id != best.prompt_id


def test_rm_bench_is_nine_pairs_and_takes_its_domain_from_the_file(tmp_path):
    file = published.write_rows(
        tmp_path / "data/code_filtered.json", [published.rm_bench(domain=None)]
    )
    (item,) = items("rm-bench", file.parent)
    assert item.source == "code"
    assert item.responses[0] == "yes a 3"
    assert item.pairs[:4] == ((0, 3), (0, 4), (0, 5), (1, 3))
    assert len(item.pairs) == 9
    assert item.chance == 0.5


def test_judgebench_turns_its_label_to_the_chosen_side(tmp_path):
    rows = [published.judgebench("B>A", "p1"), published.judgebench("A>B", "p2")]
    right, wrong = items("judgebench", published.write_rows(tmp_path / "pairs.jsonl", rows))
    assert (right.chosen, wrong.chosen) == ("Four.", "Five.")
    assert right.source == "livebench-math"


def test_judgebench_reads_the_pairs_of_gpt_in_a_clone(tmp_path):
    for model, pair in (("claude-3-5-sonnet", "c"), ("gpt-4o-2024-05-13", "g")):
        name = f"data/dataset=judgebench,response_model={model}.jsonl"
        published.write_rows(tmp_path / name, [published.judgebench(pair=pair)])
    assert [item.meta["id"] for item in items("judgebench", tmp_path)] == ["g"]


def test_llmbar_names_subsets_by_folder(tmp_path):
    published.write_rows(tmp_path / "Dataset/LLMBar/Natural/dataset.json", [published.llmbar(1)])
    published.write_rows(
        tmp_path / "Dataset/LLMBar/Adversarial/Manual/dataset.json", [published.llmbar(2)]
    )
    published.write_rows(tmp_path / "Dataset/CaseStudy/Normal/dataset.json", [published.llmbar(2)])
    published.write_rows(tmp_path / "Dataset/LLMBar/Natural/evaluators/result.json", [{"x": 1}])
    found = {item.source: item.chosen for item in items("llmbar", tmp_path)}
    assert found == {"Natural": "A", "Manual": "Bee"}
    one = tmp_path / "Dataset/LLMBar/Natural/dataset.json"
    assert [item.source for item in items("llmbar", one)] == ["Natural"]


def test_mt_bench_counts_experts_votes_and_gives_each_side_its_own_turns(tmp_path):
    rows = [
        published.vote("model_b", "expert_1"),
        published.vote("model_b", "expert_2"),
        published.vote("tie", "expert_3"),
        published.vote("model_a", "author_0"),
        published.vote("model_a", turn=2),
    ]
    first, second = items("mt-bench-human", published.write_rows(tmp_path / "v.jsonl", rows))
    assert first.labels == ("vicuna", "alpaca")
    assert first.judgement == Judgement(chosen=2, rejected=0, tie=1)
    assert first.responses == ("vicuna goes.", "alpaca goes.")
    assert not first.turns
    assert second.source == "turn 2"
    assert second.responses[0] == "alpaca stops."
    assert second.conversations()[1] == (
        Message("user", "Go?"), Message("assistant", "vicuna goes."), Message("user", "And then?"),
    )  # fmt: skip
    assert first.prompt_id == second.prompt_id


def test_mt_bench_keeps_a_tie_of_votes_as_one(tmp_path):
    rows = [published.vote("model_b", "expert_1"), published.vote("model_a", "expert_2")]
    (item,) = items("mt-bench-human", published.write_rows(tmp_path / "v.jsonl", rows))
    assert item.undecided
    assert item.places == (0, 0)


@pytest.mark.parametrize(
    ("votes", "places", "first"),
    [
        ((1, 1, 2), (0, 1), "one"),
        ((2, 0, 2), (0, 1), "two and more"),
        ((0, 0, 2), (0, 0), "two and more"),
        ((2, 1, 0), (0, 1), "two and more"),  # All three differ: annotator1's.
    ],
)
def test_pandalm_takes_the_vote_of_most(tmp_path, votes, places, first):
    file = published.write_rows(tmp_path / "testset-v1.json", [published.pandalm(votes)])
    (item,) = items("pandalm", file)
    assert (item.places, item.responses[0]) == (places, first)
    assert item.judgement.total == 3


def test_ppe_takes_the_sampled_pairs(tmp_path):
    rows = [
        published.ppe([True, False, False], [[0, 1], [2, 0]]),
        published.ppe([True, True, True], [], 1),
    ]
    (item,) = items("ppe-correctness", published.write_rows(tmp_path / "ppe-gpqa.jsonl", rows))
    assert item.source == "GPQA"
    assert item.places == (0, 1, 1)
    assert item.pairs == ((0, 1), (0, 2))


def test_rmb_has_pairs_and_lists(tmp_path):
    published.write_rows(
        tmp_path / "Pairwise_set/Helpfulness/Chat/Casual.json",
        [published.rmb("Pairwise_set/Helpfulness/Chat/Casual")],
    )
    published.write_rows(
        tmp_path / "BoN_set/Harmlessness/S1.json", [published.rmb_list("BoN_set/Harmlessness/S1")]
    )
    (pair,) = items("rmb", tmp_path)
    (best,) = items("rmb-bon", tmp_path)
    assert (pair.source, pair.chosen) == ("Helpfulness/Chat/Casual", "Hello.")
    assert (best.source, best.places) == ("Harmlessness/S1", (0, 1, 1))


def test_own_items_in_each_of_their_shapes(tmp_path):
    rows = [
        {"prompt": "Go?", "chosen": "yes", "rejected": ["no", "never"]},
        {"prompt": "Go?", "responses": ["a", "b"], "best": 1},
        {"prompt": "Go?", "responses": ["a", "b", "c"], "places": [2, 0, 1], "subset": "ranked"},
    ]
    found = items("best-of-k", published.write_rows(tmp_path / "mine.jsonl", rows))
    assert [item.places for item in found] == [(0, 1, 1), (1, 0), (2, 0, 1)]
    assert [item.source for item in found] == ["mine", "mine", "ranked"]


def test_items_come_back_from_parquet_as_they_were(tmp_path):
    rows = [published.vote("model_b"), published.vote("model_a", turn=2)]
    file = published.write_rows(tmp_path / "v.jsonl", rows)
    out = tmp_path / "made.parquet"
    import_benchmark("mt-bench-human", out, Request(file))
    assert list(read_benchmark_items(out)) == items("mt-bench-human", file)
    assert read_header(out, "items").details["named"] == "mt-bench-human"
    rm = published.write_rows(tmp_path / "rm.jsonl", [published.rm_bench()])
    import_benchmark("rm-bench", out, Request(rm), partial=True)
    assert list(read_benchmark_items(out)) == items("rm-bench", rm)


def test_pairs_are_comparisons_on_disk(tmp_path):
    file = published.write_rows(tmp_path / "pairs.jsonl", [published.judgebench()])
    header = import_benchmark("judgebench", tmp_path / "made.parquet", Request(file))
    assert header.kind == "comparisons"
    assert list(read_comparisons(tmp_path / "made.parquet")) == items("judgebench", file)


# What is refused, in one line.


def refused(name: str, location: Path, tmp_path: Path, partial: bool = False) -> str:
    out = tmp_path / "out" / "made.parquet"
    with pytest.raises(PalateError) as error:
        import_benchmark(name, out, Request(location), partial=partial)
    assert not out.exists()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_part_that_is_not_whole_is_named(tmp_path):
    file = published.write_rows(
        tmp_path / "f.jsonl", [published.rewardbench("hep-go", n) for n in (1, 2)]
    )
    message = refused("rewardbench", file, tmp_path)
    assert "hep-go has 2 of 164 items" in message
    assert import_benchmark("rewardbench", tmp_path / "p.parquet", Request(file), partial=True)


def test_a_cut_file_is_named(tmp_path):
    whole = published.write_rows(
        tmp_path / "cut.jsonl", [published.judgebench(pair=p) for p in "abc"]
    )
    whole.write_text(whole.read_text()[:-40])
    assert "cut.jsonl:3: expected one JSON object a line" in refused("judgebench", whole, tmp_path)
    array = published.write_rows(tmp_path / "chat_filtered.json", [published.rm_bench(domain=None)])
    array.write_text(array.read_text()[:-9])
    assert "expected a JSON array, got broken JSON" in refused("rm-bench", array, tmp_path)


def test_a_pointer_of_git_lfs_is_named(tmp_path):
    pointer = tmp_path / "test.parquet"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    assert "git lfs pull" in refused("rewardbench-2", pointer, tmp_path)


def test_what_contradicts_itself_is_named(tmp_path):
    row = published.rewardbench_2() | {"num_correct": 2}
    file = published.write_rows(tmp_path / "test.jsonl", [row])
    assert "num_correct: expected 1" in refused("rewardbench-2", file, tmp_path)
    file = published.write_rows(tmp_path / "test.jsonl", [published.rewardbench_2("Ties", "5")])
    assert "expected ref:NUMBER or tied:NUMBER" in refused("rewardbench-2", file, tmp_path)
    file = published.write_rows(tmp_path / "test.jsonl", [published.rewardbench_2(wrong=0)])
    assert "expected two responses or more" in refused("rewardbench-2", file, tmp_path)
    file = published.write_rows(tmp_path / "test.jsonl", [published.rewardbench_2()] * 2)
    line = refused("rewardbench-2", file, tmp_path)
    assert f"{file}:2: item rewardbench-2/Math/7 stands in {file}:1 too; remove one" in line


def test_another_benchmarks_files_are_named(tmp_path):
    file = published.write_rows(tmp_path / "x.jsonl", [published.judgebench()])
    assert "x.jsonl:1: missing column 'subset'" in refused("rewardbench-2", file, tmp_path)
    assert "is on no hub; give its folder" in refused("rmb", None, tmp_path)
    with pytest.raises(PalateError, match=r"no benchmark 'rewardbench2'.*rewardbench-2"):
        benchmark_named("rewardbench2")


@pytest.mark.parametrize(
    "over",
    [
        {"places": (1, 1)},
        {"places": (0, 0)},
        {"places": (0,)},
        {"pairs": ((1, 0),)},
        {"pairs": ((0, 2),)},
        {"labels": ("a",)},
        {"responses": ("a",), "places": (0,)},
    ],
)
def test_an_item_that_contradicts_itself_is_no_item(over):
    given = {"responses": ("a", "b"), "places": (0, 1)} | over
    with pytest.raises(PalateError, match="item i: expected"):
        BenchmarkItem(id="i", source="s", prompt=(Message("user", "x"),), prompt_id="p", **given)
