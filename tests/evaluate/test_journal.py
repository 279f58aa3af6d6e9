import errno
from contextlib import closing

import pytest

from palate.evaluate import journal as module
from palate.evaluate.journal import Answers, Journal
from palate.types import PalateError


def fill(path, count, fingerprint="f"):
    with closing(Journal(path, fingerprint)) as kept:
        for number in range(count):
            kept.add(f"k{number}", [number, None, "é"])


def read(path, fingerprint="f"):
    with closing(Journal(path, fingerprint)), closing(Answers([path], fingerprint)) as answers:
        return dict(answers)


def test_answers_come_back(tmp_path):
    fill(tmp_path / "j", 3)
    assert read(tmp_path / "j") == {f"k{n}": [n, None, "é"] for n in range(3)}


@pytest.mark.parametrize("lost", [1, 5, 12])
def test_a_torn_last_line_is_dropped_and_written_over(tmp_path, lost):
    path = tmp_path / "j"
    fill(path, 3)
    path.write_bytes(path.read_bytes()[:-lost])
    assert set(read(path)) == {"k0", "k1"}
    with closing(Journal(path, "f")) as kept:
        kept.add("k2", "again")
    assert read(path) == {"k0": [0, None, "é"], "k1": [1, None, "é"], "k2": "again"}


def test_every_cut_leaves_a_readable_journal(tmp_path):
    fill(tmp_path / "whole", 4)
    whole = (tmp_path / "whole").read_bytes()
    for length in range(len(whole)):
        path = tmp_path / "cut"
        path.write_bytes(whole[:length])
        kept = read(path)
        assert kept == {f"k{n}": [n, None, "é"] for n in range(len(kept))}


def test_a_damaged_line_costs_only_itself(tmp_path):
    path = tmp_path / "j"
    fill(path, 3)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b"\xff\x00{]\n", lines[3]]))
    assert set(read(path)) == {"k0", "k2"}


@pytest.mark.parametrize("first", [b"", b"{}\n", b"[]\n", b"nonsense\n"])
def test_a_damaged_first_line_starts_over(tmp_path, first):
    path = tmp_path / "j"
    path.write_bytes(first + b'["k0",1]\n')
    assert read(path) == {}


def test_another_protocol_starts_over(tmp_path):
    fill(tmp_path / "j", 3)
    assert read(tmp_path / "j", "g") == {}
    assert read(tmp_path / "j", "f") == {}


def test_answers_reach_the_disk_every_few_seconds(tmp_path, monkeypatch):
    now, synced = [0.0], []
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(module.os, "fsync", lambda _number: synced.append(now[0]))
    with closing(Journal(tmp_path / "j", "f")) as kept:
        for second in range(10):
            now[0] = float(second)
            kept.add(str(second), second)
    assert synced == [3.0, 6.0, 9.0, 9.0]


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PalateError, match="cannot be written"):
        fill(tmp_path / "file" / "j", 1)


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    def full(_number):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", full)
    with pytest.raises(PalateError, match=r"j: cannot be written \(No space left on device\)"):
        fill(tmp_path / "j", 1)


def test_answers_by_row_number_are_read_from_their_journals(tmp_path):
    for name, numbers in (("one", (0, 3)), ("two", (4, 1))):
        with closing(Journal(tmp_path / name, "f")) as kept:
            for number in numbers:
                kept.add(str(number), [number, "é"])
    with (tmp_path / "two").open("ab") as file:
        file.write(b'["2",[2,')  # Killed while it wrote.
    found = Answers([tmp_path / "one", tmp_path / "two"], "f", 5)
    assert [str(number) in found for number in range(5)] == [True, True, False, True, True]
    assert len(found) == 4
    assert [found[str(number)] for number in (4, 0, 1, 3)] == [[n, "é"] for n in (4, 0, 1, 3)]
    assert list(found) == ["0", "1", "3", "4"]
    with pytest.raises(KeyError):
        found["2"]
    found.close()


def test_answers_by_row_number_of_another_protocol_are_none(tmp_path):
    with closing(Journal(tmp_path / "j", "f")) as kept:
        kept.add("0", 1)
    found = Answers([tmp_path / "j"], "g", 1)
    assert len(found) == 0
    found.close()
