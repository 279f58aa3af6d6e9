import gzip
import json
import random

import pytest

from made import made, same_table, user
from palate import records
from palate.data.contamination import (
    BenchmarkIndex,
    OverlapOptions,
    OverlapReport,
    exclude_overlap,
    exclude_overlap_of,
)
from palate.data.prompts import normalise
from palate.records import read_comparisons, read_header, read_rows, write_comparisons
from palate.types import Message

LONG = (
    "Please explain to my grandmother in plain words how a steam engine turns heat into motion, "
    "and why the early ones wasted nearly all of the coal that was burnt in them"
)


def index(*prompts, **options):
    rows = [made(p, id=f"b{i}") for i, p in enumerate(prompts)]
    return BenchmarkIndex.build({"bench": rows}, OverlapOptions(**options))


def signs(prompt, *benchmark, **options):
    return [(o.benchmark_id, o.kind) for o in index(*benchmark, **options).find(made(prompt))]


def test_exact_but_for_case_and_marks():
    assert signs("how do i bake BREAD", "How do I bake bread?", "Other?") == [("b0", "exact")]


def test_an_unrelated_prompt_is_clean():
    assert signs("How do I plant a tree in the autumn rain of November?", LONG) == []


def test_a_benchmark_prompt_inside_a_longer_one_is_contained():
    found = index(LONG).find(made(f"You are kind. {LONG}. Answer as a pirate would, in rhyme."))
    assert [(o.kind, o.similarity) for o in found] == [("contains", 1.0)]


def test_an_edited_prompt_is_near():
    """Words changed at both ends and a tail added: Jaccard 0.6 or more, contained less than 0.8."""
    edited = LONG.replace("Please explain to my", "Do explain for a").replace("in them", "by us")
    found = index(LONG, containment=0.95).find(made(edited))
    assert [o.kind for o in found] == ["near"]
    assert 0.6 <= found[0].similarity < 1


def test_short_prompts_are_compared_exactly_only():
    assert signs("what is the best way to do that now", "what is the best way to do that") == []
    assert signs("What is the best way to do that", "what is the best way to do that?") != []


def test_conversations_overlap_by_their_opening_at_any_depth():
    deeper = (*user("How do I bake bread?"), Message("assistant", "Slowly."), *user("Why?"))
    assert [o.kind for o in index("How do I bake bread?").find(made(deeper))] == ["exact"]


def test_an_index_of_nothing_finds_nothing():
    assert BenchmarkIndex.build({}).find(made(LONG)) == []
    assert BenchmarkIndex.build({"empty": []}).find(made(LONG)) == []
    assert index("Hi").find(made(LONG)) == []


def test_the_prefilter_loses_no_near_prompt():
    """Every pair at a Jaccard similarity well above the threshold is found, by brute force."""
    rng = random.Random(7)
    vocabulary = [f"word{i}" for i in range(300)]
    originals = [[rng.choice(vocabulary) for _ in range(60)] for _ in range(40)]
    built = index(*(" ".join(o) for o in originals), containment=1.0, jaccard=0.5)
    for number, original in enumerate(originals):
        edited = list(original)
        edited[rng.randrange(60)] = "unheard"
        assert number in {int(o.benchmark_id[1:]) for o in built.find(made(" ".join(edited)))}


def test_pitfall_22_overlap_is_excluded_and_reported_per_benchmark(tmp_path):
    benchmarks = {"helpful": [made(LONG, id="h1")], "harmless": [made("Is it safe?", id="s1")]}
    rows = [
        made(LONG, id="t1", source="web"),
        made("is it safe", id="t2", source="forum"),
        made("Clean question?", id="t3", source="web"),
    ]
    report = OverlapReport()
    kept = list(exclude_overlap(rows, BenchmarkIndex.build(benchmarks), report))
    assert [r.id for r in kept] == ["t3"]
    table = {(t["benchmark"], t["source"]): t for t in report.table()}
    assert table["helpful", "web"]["overlapping"] == 1
    assert table["helpful", "web"]["rows"] == 2
    assert table["helpful", "web"]["examples"] == [["t1", "h1"]]
    assert table["harmless", "forum"]["exact"] == 1
    assert table["helpful", "forum"]["overlapping"] == 0
    report.write(tmp_path / "overlap.parquet")
    assert {r["id"] for r in read_rows(tmp_path / "overlap.parquet")} == {"t1", "t2"}
    assert read_header(tmp_path / "overlap.parquet").details["excluded"] == {"forum": 1, "web": 1}


def test_overlap_can_be_kept_and_the_report_says_so():
    report = OverlapReport()
    kept = list(exclude_overlap([made(LONG)], index(LONG), report, keep=True))
    assert len(kept) == 1
    assert report.to_json()["overlap_kept"] is True
    assert report.table()[0]["overlapping"] == 1


@pytest.fixture(scope="module")
def harmless(data_root):
    path = data_root / "anthropic_hh" / "harmless-base" / "test.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        texts = [json.loads(line)["chosen"] for line in file]
    return [made(_turns(text)[:-1], id=str(i)) for i, text in enumerate(texts)]


def _turns(text):
    pieces = text.replace("\n\nAssistant:", "\n\nHuman:\0").split("\n\nHuman:")[1:]
    return tuple(
        Message("assistant" if p.startswith("\0") else "user", p.lstrip("\0").strip())
        for p in pieces
    )


def test_pku_prompts_in_harmless_base_are_found(data_root, harmless):
    """46 of PKU's 930 prompts are whole harmless-base prompts; more open a longer conversation."""
    pku = json.loads((data_root / "pku_saferlhf" / "safe_vs_unsafe.json").read_text("utf-8"))
    prompts = sorted({row["prompt"] for row in pku})
    built = BenchmarkIndex.build({"harmless-base": harmless})
    found = {p: {o.kind for o in built.find(made(p))} for p in prompts}
    whole = {normalise(" ".join(t.content for t in row.prompt)) for row in harmless}
    equal = {p for p in prompts if normalise(p) in whole}
    assert len(equal) == 46
    assert all("exact" in found[p] for p in equal)
    assert sum("exact" in kinds for kinds in found.values()) == 122


@pytest.mark.parametrize("keep", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_file_is_the_same_however_many_processes_look_for_overlaps(tmp_path, monkeypatch, keep):
    monkeypatch.setattr(records, "ROWS_PER_GROUP", 8)
    bench = index(LONG, "How do I bake bread?")
    texts = (LONG, f"Be kind. {LONG}", "How do I bake bread?", " ".join(LONG.split()[:-8]))
    rows = [
        made(texts[n % 7] if n % 7 < 4 else f"Why {n}?", id=f"row-{n}", source=f"s{n % 2}")
        for n in range(40)
    ]
    raw, plain = tmp_path / "raw.parquet", tmp_path / "plain.parquet"
    write_comparisons(raw, rows)
    report, inputs = OverlapReport(), {"train": read_header(raw).fingerprint}
    kept = exclude_overlap(read_comparisons(raw), bench, report, keep=keep)
    write_comparisons(plain, kept, inputs=inputs)
    assert {overlap.kind for _, _, overlap in report.overlaps} == {"exact", "contains", "near"}
    for workers in (1, 2):
        out, again = tmp_path / f"{workers}.parquet", OverlapReport()
        exclude_overlap_of(raw, out, bench, again, keep=keep, workers=workers)
        assert same_table(out, plain)
        assert again.overlaps == report.overlaps
        assert again.to_json() == report.to_json()
