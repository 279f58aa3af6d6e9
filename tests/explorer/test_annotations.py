"""Annotations outlive their process, agree as far as they do, and come back as a batch."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from threading import Thread

import numpy as np
import pytest

from answered import answered
from command import one_line, palate
from made import made
from palate.data.lint import Kind, LintReport, lint
from palate.data.sources import Request, open_source, readable
from palate.data.tasks import TOOLS, write_tasks
from palate.explorer.annotations import (
    Annotation,
    Annotations,
    annotator_name,
    chosen_is_first,
    export_annotations,
    measure_agreement,
    relabelled,
)
from palate.explorer.run import OpenRun
from palate.records import read_comparisons, read_header, write_comparisons
from palate.types import PREFERRED, Judgement, PalateError, Ranks, Rating

WRITER = """
import sys
from pathlib import Path
from palate.explorer.annotations import Annotation, Annotations
marks = Annotations(Path(sys.argv[1]))
for n in range(100_000):
    marks.put(Annotation("ann", f"c{n}", "chosen", note=f"note {n}"))
    print(n, flush=True)
"""


def test_a_mark_is_kept_and_replaced_and_removed(tmp_path):
    marks = Annotations(tmp_path / "marks.sqlite")
    assert marks.all() == []
    assert not marks.path.exists()
    marks.put(Annotation("ann", "c1", "chosen", Rating.BETTER, "why", True, "exam"))
    marks.put(Annotation("bob", "c1", "rejected"))
    marks.put(Annotation("ann", "c1", "rejected", Rating.SLIGHTLY, "why", True, "exam"))
    saved = marks.get("ann", "c1")
    assert (saved.choice, saved.rating, saved.note) == ("rejected", Rating.SLIGHTLY, "why")
    assert (saved.blind, saved.part, bool(saved.changed_at)) == (True, "exam", True)
    assert [m.annotator for m in Annotations(marks.path).all()] == ["ann", "bob"]
    marks.remove("ann", "c1")
    assert marks.get("ann", "c1") is None
    assert len(marks.by("bob")) == 1


def test_what_was_answered_survives_kill_9(tmp_path):
    path = tmp_path / "marks.sqlite"
    command = [sys.executable, "-c", WRITER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        written = [int(writer.stdout.readline()) for _ in range(50)]
        os.kill(writer.pid, signal.SIGKILL)
        written += [int(line) for line in writer.stdout if line.endswith("\n")]
    saved = {mark.comparison_id: mark.note for mark in Annotations(path).all()}
    assert len(written) >= 50
    assert all(saved[f"c{n}"] == f"note {n}" for n in written)
    assert len(saved) <= len(written) + 1  # One may have been written and not yet told of.
    with sqlite3.connect(path) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    database.close()


def test_several_people_write_at_once(tmp_path):
    path = tmp_path / "marks.sqlite"

    def write(name):
        for n in range(10):
            Annotations(path).put(Annotation(name, f"c{n}", "chosen"))

    people = [Thread(target=write, args=(f"p{i}",)) for i in range(4)]
    for person in people:
        person.start()
    for person in people:
        person.join()
    assert len(Annotations(path).all()) == 40


def test_a_file_that_is_none_of_ours_is_refused_in_one_line(tmp_path):
    path = tmp_path / "marks.sqlite"
    path.write_text("these are not marks, but a text that is long enough to be looked into" * 20)
    with pytest.raises(PalateError, match=r"cannot be used for marks .*; use --marks FILE"):
        Annotations(path)
    path.unlink()
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 9")
    database.close()
    with pytest.raises(PalateError, match="marks of format 9"):
        Annotations(path)
    with pytest.raises(PalateError, match="use --marks FILE"):
        Annotations(tmp_path / "nowhere" / "marks.sqlite").put(Annotation("ann", "c1", "chosen"))


def test_sides_stay_for_a_person_and_differ_between_people():
    sides = {name: [chosen_is_first(name, f"c{n}") for n in range(200)] for name in "ab"}
    assert sides["a"] == [chosen_is_first("a", f"c{n}") for n in range(200)]
    assert sides["a"] != sides["b"]
    assert all(60 < sum(first) < 140 for first in sides.values())


def test_names_are_one_printable_line():
    assert annotator_name("  Ann\nLee\u202e ") == "Ann Lee"
    for wrong in ("", " \n", "x" * 41):
        with pytest.raises(PalateError):
            annotator_name(wrong)


def test_two_keys_pressed_at_once_are_both_kept(browse, marking):
    browser = browse(marking)
    forms = [{"choice": "disagree"}, {"rating": "4"}, {"note": "both"}]
    for item in range(3):
        keys = [
            Thread(target=browser.post, args=(f"/r/0/item/{item}/mark",), kwargs={"data": form})
            for form in forms
        ]
        for key in keys:
            key.start()
        for key in keys:
            key.join()
    saved = {(m.choice, m.rating, m.note) for m in marking.annotations.all()}
    assert saved == {("rejected", Rating.SIGNIFICANTLY, "both")}


# Agreement with labels, judges and each other, on annotations whose truth is known.


def marks_of(index, annotator, choices, start=0, **fields):
    ids = index.ids_of(range(start, start + len(choices)))
    names = {True: "chosen", False: "rejected", None: ""}
    return [
        Annotation(annotator, id, names[c], **fields) for id, c in zip(ids, choices, strict=True)
    ]


@pytest.fixture(scope="module")
def index(opened):
    return opened.index


def test_agreement_with_the_label_is_the_share_of_chosen(index):
    marks = marks_of(index, "ann", [True] * 30 + [False] * 10 + [None] * 5, blind=True)
    (ann,) = measure_agreement(index, marks).annotators
    assert (ann.marks, ann.decided, ann.blind) == (45, 40, 40)
    assert ann.with_label.value == 0.75
    assert ann.with_label.n_clusters == 20  # Two comparisons a prompt.


def test_a_label_that_is_a_tie_is_nothing_to_agree_with(tmp_path):
    rows = [
        made(f"Question {n}?", judgement=Judgement(0, tie=1) if n < 4 else PREFERRED)
        for n in range(10)
    ]
    write_comparisons(tmp_path / "run" / "benchmarks" / "exam.parquet", rows)
    run = OpenRun(tmp_path / "run")
    run.open()
    marks = marks_of(run.index, "ann", [False] * 4 + [True] * 6)
    marks += marks_of(run.index, "bob", [False] * 10)
    found = measure_agreement(run.index, marks)
    ann, bob = found.annotators
    assert (ann.decided, ann.with_label.value, ann.with_label.n) == (10, 1.0, 6)
    assert bob.with_label.value == 0.0
    assert found.couples[0].agreement.value == 0.4


def test_kappa_is_of_sides_so_that_agreeing_with_labels_is_not_chance(index):
    """By label, two people who both nearly always say "chosen" would have a kappa near zero."""
    ann = marks_of(index, "ann", [True] * 48 + [False] * 2)
    bob = marks_of(index, "bob", [False] * 2 + [True] * 48)
    agreement = measure_agreement(index, ann + bob)
    (pair,) = agreement.couples
    assert pair.agreement.value == 46 / 50
    assert pair.kappa.value == pytest.approx(0.84, abs=0.03)
    assert agreement.alpha.value == pytest.approx(0.84, abs=0.03)


def test_who_shares_nothing_makes_no_couple(index):
    ann, bob = marks_of(index, "ann", [True] * 5), marks_of(index, "bob", [True] * 5, 20)
    agreement = measure_agreement(index, ann + bob)
    assert agreement.couples == ()
    assert agreement.alpha is None
    assert agreement.ceiling is None
    assert agreement.ceiling_with_label.agreement.value == 1.0


def test_the_noise_ceiling_of_two_people(index):
    """Agreement 0.82 is a ceiling of (1 + sqrt(0.64)) / 2 = 0.9."""
    ann = marks_of(index, "ann", [True] * 50)
    bob = marks_of(index, "bob", [False] * 9 + [True] * 41)
    ceiling = measure_agreement(index, ann + bob).ceiling
    assert ceiling.agreement.value == pytest.approx(0.82)
    assert ceiling.ceiling.value == pytest.approx(0.9)


def test_strength_is_from_minus_four_to_four(index):
    ann = marks_of(index, "ann", [True] * 40, rating=Rating.SIGNIFICANTLY)
    near = marks_of(index, "bob", [True] * 40, rating=Rating.BETTER)
    far = marks_of(index, "bob", [True] * 40, rating=Rating.NEGLIGIBLY)
    close = measure_agreement(index, ann + near)
    wide = measure_agreement(index, ann + far)
    assert close.alpha.value == wide.alpha.value == 1.0
    assert close.alpha_strength.value > wide.alpha_strength.value + 0.2


def test_judges_are_right_by_the_marks_where_people_turn_the_label(index):
    outcomes = index.judges["helpful"].outcomes[:40]
    right = np.where(outcomes == 3, 0.5, outcomes == 1)[outcomes != 4]
    marks = marks_of(index, "ann", [False] * 40)
    judges = {j.judge: j for j in measure_agreement(index, marks).judges}
    assert judges["helpful"].by_label.value == pytest.approx(right.mean())
    assert judges["helpful"].by_marks.value == pytest.approx(1 - right.mean())
    assert judges["helpful"].by_marks.n == len(right)
    # Of the mixture nobody was asked.
    assert measure_agreement(index, marks_of(index, "a", [True] * 5, 60)).judges == ()


def test_marks_of_another_run_are_counted_apart(index):
    agreement = measure_agreement(index, [Annotation("ann", "elsewhere", "chosen")])
    assert agreement.absent == 1
    assert np.isnan(agreement.annotators[0].with_label.value)
    assert measure_agreement(index, []).annotators == ()


def test_the_page_tells_blind_marks_from_all(browse, marking):
    index = marking.index
    for mark in marks_of(index, "<b>", [True] * 8 + [False] * 2, blind=True):
        marking.annotations.put(mark)
    for mark in marks_of(index, "bob", [True] * 10):
        marking.annotations.put(mark)
    browser = browse(marking)
    every, blind = (browser.get(f"/r/0/marks{q}").text for q in ("", "?blind=yes"))
    assert "&lt;b&gt; and bob" in every
    assert "80.0 [" in every
    assert "Noise ceiling" in every
    assert "bob" not in blind


def test_the_page_shows_what_lint_found_of_the_annotators_of_the_data(browse, marking):
    report = LintReport()
    names = ["ann", "bob", "<b>"]
    rows = [
        made(f"Question {n}?", *("AB" if n % 5 or name == "ann" else "BA"), annotator=name)
        for n in range(20)
        for name in names
    ]
    list(lint(rows, report))
    found = marking.folder / "data" / "clean" / "made.findings.parquet"
    browser = browse(marking)
    assert "Annotators of the data" not in browser.get("/r/0/marks").text
    report.write(found)
    page = browser.get("/r/0/marks").text
    (group,) = report.disagreement().groups
    assert "Annotators of the data" in page
    assert f">{100 * group.agreement.value:.1f} [" in page
    assert "&lt;b&gt;" in page
    found.write_bytes(b"broken")
    assert "Annotators of the data" not in browser.get("/r/0/marks").text


# Annotations as another batch, which `palate mix` takes.


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


def test_a_mark_becomes_a_comparison_as_its_maker_sees_it(marked, saved_run, tmp_path):
    made = export_annotations(
        marked.index, marked.annotations.all(), tmp_path / "out.parquet", "week 9"
    )
    assert str(made) == (
        "4 comparisons; left out: 1 without a choice, 1 of comparisons not in this run"
    )
    original = list(read_comparisons(saved_run / "benchmarks/exam.parquet"))[1]
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


def test_a_mark_is_one_vote_whatever_was_said_before():
    said = Judgement(2, 1, weight=3)
    row = made(judgement=said, ranks=Ranks("r", 0, 2), meta={"votes": [], "strength": 2})
    mark = Annotation("ann", row.id, "rejected")
    vote = relabelled(row, mark)
    assert (vote.judgement, vote.ranks, vote.annotator) == (PREFERRED, None, "ann")
    assert vote.meta["label"] == "disagree"
    assert not {"votes", "strength"} & vote.meta.keys()
    tie = made(judgement=Judgement(0, tie=1))
    assert relabelled(tie, Annotation("ann", tie.id, "chosen")).meta["label"] == "tie"


def test_two_people_on_one_pair_are_two_observations_to_lint(marked, tmp_path):
    path, report = tmp_path / "out.parquet", LintReport()
    export_annotations(marked.index, marked.annotations.all(), path)
    rows = readable(open_source("own", Request(path)))
    assert len(list(lint(rows, report))) == 4
    assert {finding.kind for finding in report.findings} == {Kind.DISAGREEMENT}


@pytest.mark.parametrize("tool", TOOLS)
def test_an_export_of_a_tool_goes_round_by_marks_and_back_to_it(tool, tmp_path):
    """Tool, Palate, marks of the explorer, a batch in the tool's form, and its answers again."""

    def through(rows, name):
        write_tasks(rows, tool, tmp_path / name, lambda id: int(id, 16) % 2 == 0)
        return list(open_source(tool, Request(answered(tool, tmp_path / name, rows))))

    rows = [made(f"Q{n}?", f"good {n}", f"poor {n}", rating=Rating(1 + n % 4)) for n in range(8)]
    back = through(rows, "first")
    write_comparisons(tmp_path / "run" / "mixtures" / "all.parquet", back)
    run = OpenRun(tmp_path / "run", tmp_path / "marks.sqlite")
    for n, id in enumerate(run.index.ids_of(range(8))):
        choice = "rejected" if n % 2 else "chosen"
        run.annotations.put(Annotation("ann", id, choice, Rating.BETTER))
    export_annotations(run.index, run.annotations.all(), tmp_path / "marks.parquet")
    marks = list(read_comparisons(tmp_path / "marks.parquet"))
    again = through(marks, "again")
    assert [one.meta["of"] for one in again] == [mark.id for mark in marks]
    assert [(one.prompt_id, one.chosen, one.rating) for one in again] == [
        (row.prompt_id, row.rejected if n % 2 else row.chosen, Rating.BETTER)
        for n, row in enumerate(rows)
    ]


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
