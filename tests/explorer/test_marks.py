"""Marks outlive their process, and are never mixed up."""

import os
import signal
import sqlite3
import subprocess
import sys
from threading import Thread

import pytest

from palate.explorer.annotations import Annotation, Annotations, annotator_name, chosen_is_first
from palate.types import PalateError, Rating

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
    kept = marks.get("ann", "c1")
    assert (kept.choice, kept.rating, kept.note) == ("rejected", Rating.SLIGHTLY, "why")
    assert (kept.blind, kept.part, bool(kept.changed_at)) == (True, "exam", True)
    assert [m.annotator for m in Annotations(marks.path).all()] == ["ann", "bob"]
    marks.remove("ann", "c1")
    assert marks.get("ann", "c1") is None
    assert len(marks.by("bob")) == 1


def test_what_was_answered_survives_kill_9(tmp_path):
    path = tmp_path / "marks.sqlite"
    command = [sys.executable, "-c", WRITER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        said = [int(writer.stdout.readline()) for _ in range(50)]
        os.kill(writer.pid, signal.SIGKILL)
        said += [int(line) for line in writer.stdout if line.endswith("\n")]
    kept = {mark.comparison_id: mark.note for mark in Annotations(path).all()}
    assert len(said) >= 50
    assert all(kept[f"c{n}"] == f"note {n}" for n in said)
    assert len(kept) <= len(said) + 1  # One may have been written and not yet told of.
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
    assert all(60 < sum(found) < 140 for found in sides.values())


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
    found = {(m.choice, m.rating, m.note) for m in marking.annotations.all()}
    assert found == {("rejected", Rating.SIGNIFICANTLY, "both")}
