"""Marks close the loop: what people said comes back as a batch that `palate mix` takes."""

import json
import shutil

import pytest

from palate.data.lint import Kind, LintReport, lint
from palate.data.sources import Request, open_source, readable
from palate.explorer.annotations import Annotation, export_annotations
from palate.explorer.run import OpenRun
from palate.records import read_comparisons, read_header
from palate.types import PalateError, Rating
from test_cli import one_line, palate  # type: ignore[import-not-found]


@pytest.fixture
def marked(marking):
    """ann agrees on one item of each part, bob disagrees; one mark is a note, one is lost."""
    items = [1, 61]
    for id in marking.index.ids_of(items):
        marking.annotations.put(
            Annotation("ann", id, "chosen", Rating.SLIGHTLY, blind=True, part="exam")
        )
        marking.annotations.put(Annotation("bob", id, "rejected", note="no"))
    marking.annotations.put(Annotation("bob", marking.index.ids_of([4])[0], note="look again"))
    marking.annotations.put(Annotation("bob", "of another run", "chosen"))
    return marking


def test_a_mark_becomes_a_comparison_as_its_maker_sees_it(marked, whole, tmp_path):
    made = export_annotations(
        marked.index, marked.annotations.all(), tmp_path / "out.parquet", "week 9"
    )
    assert str(made) == (
        "4 comparisons; left out: 1 without a choice, 1 of comparisons not in this run"
    )
    original = list(read_comparisons(whole / "benchmarks/exam.parquet"))[1]
    first, _, turned, _ = read_comparisons(tmp_path / "out.parquet")
    assert (first.chosen, first.rejected) == (original.chosen, original.rejected)
    assert (turned.chosen, turned.rejected) == (original.rejected, original.chosen)
    assert (turned.chosen_safe, turned.rejected_safe) == (
        original.rejected_safe, original.chosen_safe,
    )  # fmt: skip
    for row in (first, turned):
        assert (row.prompt, row.prompt_id, row.source, row.batch) == (
            original.prompt, original.prompt_id, original.source, "week 9",
        )  # fmt: skip
        assert row.meta["of"] == original.id
    assert (first.rating, first.annotator, first.meta["blind"]) == (Rating.SLIGHTLY, "ann", True)
    assert (turned.rating, turned.annotator, turned.meta["note"]) == (None, "bob", "no")
    assert len({first.id, turned.id, original.id}) == 3


def test_two_people_on_one_pair_are_two_observations_to_lint(marked, tmp_path):
    path, report = tmp_path / "out.parquet", LintReport()
    export_annotations(marked.index, marked.annotations.all(), path)
    rows = readable(open_source("own", Request(path)))
    assert len(list(lint(rows, report))) == 4
    assert {finding.kind for finding in report.findings} == {Kind.DISAGREEMENT}


def test_nothing_to_export_is_said(marking, tmp_path):
    with pytest.raises(PalateError, match="none of 0 marks prefers a response"):
        export_annotations(marking.index, [], tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """(recipe, run) of own data that was mixed for real."""
    folder = tmp_path_factory.mktemp("loop")
    (folder / "mine.jsonl").write_text(
        "".join(
            json.dumps({"prompt": f"What is {n} plus one?", "chosen": f"{n + 1}",
                        "rejected": f"{n}, I believe"}) + "\n"
            for n in range(60)
        )
    )  # fmt: skip
    recipe = folder / "mine.yaml"
    recipe.write_text(
        f"""
data:
  sources: {{mine: {{source: own, path: {folder}/mine.jsonl}}}}
  holdout: {{per_batch: 10, sources: [mine]}}
benchmarks: {{held-out: {{held_out: [mine]}}}}
mixtures: {{all: {{all: [mine]}}}}
judges: [longer]
"""
    )
    done = palate("mix", recipe, "--out", folder / "run")
    assert done.returncode == 0, done.stderr
    return recipe, folder / "run"


def test_pitfall_22_marks_are_mixed_and_those_of_a_benchmark_stay_out(mixed, tmp_path):
    """The real `palate mix` on the real export, in a run's folder, which knows its test prompts."""
    recipe, folder = mixed
    run = OpenRun(folder, tmp_path / "marks.sqlite")
    exam, trained = run.index.parts
    for part, count in ((exam, 3), (trained, 5)):
        for id in run.index.ids_of(range(part.start, part.start + count)):
            run.annotations.put(Annotation("ann", id, "rejected", Rating.BETTER))
    out = tmp_path / "marks.parquet"
    done = palate("view", folder, "--marks", run.annotations.path, "--export", out)
    assert done.returncode == 0, done.stderr
    assert "8 comparisons" in done.stderr
    text = recipe.read_text()
    text = text.replace("{mine: {", f"{{people: {{source: own, path: {out}}}, mine: {{")
    again = tmp_path / "again.yaml"
    again.write_text(text.replace("all: [mine]", "all: [mine, people]"))
    shutil.copytree(folder, tmp_path / "run")
    done = palate("mix", again, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    rows = list(read_comparisons(tmp_path / "run/mixtures/all.parquet"))
    people = [row for row in rows if row.source == "people"]
    assert len(rows) == 50 + 5
    assert {(row.annotator, row.rating, row.batch) for row in people} == {
        ("ann", Rating.BETTER, "marks")
    }
    assert all("I believe" in row.chosen for row in people)
    held = {c.prompt for c in read_comparisons(folder / "benchmarks/held-out.parquet")}
    assert not held & {row.prompt for row in rows}


def test_marks_of_a_benchmark_are_a_benchmark_of_their_own(mixed, tmp_path):
    recipe, folder = mixed
    run = OpenRun(folder, tmp_path / "marks.sqlite")
    for id in run.index.ids_of(range(3)):
        run.annotations.put(Annotation("ann", id, "rejected"))
    out = tmp_path / "marks.parquet"
    export_annotations(run.index, run.annotations.all(), out)
    again = tmp_path / "again.yaml"
    again.write_text(
        recipe.read_text().replace("benchmarks: {", f"benchmarks: {{by people: {{file: {out}}}, ")
    )
    done = palate("evaluate", again, "--out", tmp_path / "run", "--format", "json")
    assert done.returncode == 0, done.stderr
    counts = {row["benchmark"]: row for row in json.loads(done.stdout)}
    assert counts["by people"]["correct"] == 3  # They prefer the longer one.
    assert counts["held-out"]["wrong"] == 10
    assert read_header(tmp_path / "run/benchmarks/by people.parquet").rows == 3


def test_the_page_gives_the_same_file(browse, marked, tmp_path):
    answer = browse(marked).get("/r/0/marks.parquet")
    assert "attachment" in answer.headers["content-disposition"]
    (tmp_path / "got.parquet").write_bytes(answer.content)
    assert len(list(read_comparisons(tmp_path / "got.parquet"))) == 4


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["nowhere"], "nowhere: no such run"),
        (["."], "no comparisons under benchmarks/ or mixtures/"),
        ([".", "--annotator", "\n"], "a name of 1 to 40 characters"),
        ([".", ".", "--export", "x.parquet"], "expected one run, got 2"),
    ],
)
def test_mistakes_of_the_command_are_one_line(tmp_path, words, expected):
    assert expected in one_line(palate("view", *words, cwd=tmp_path))
