"""`palate probe` and `palate win-rate`: tables of what was found, refusals in one line."""

import json
from pathlib import Path

import pytest

from command import one_line, palate


def rows(count: int, length: int, start: int = 0) -> list[dict]:
    """Of `ours` and `theirs`: people prefer ours in six of ten, and what they prefer is longer in
    `length` of ten."""
    made = []
    for n in range(start, start + count):
        ours, longer = n * 7 % 10 < 6, n * 3 // 10 % 10 < length
        texts = [f"answer {n}" + " and more" * longer, f"answer {n}" + " and more" * (not longer)]
        models = ["ours", "theirs"] if ours else ["theirs", "ours"]
        made.append(
            {"prompt": f"Question {n}?", "chosen": texts[0], "rejected": texts[1],
             "chosen_model": models[0], "rejected_model": models[1]}
        )  # fmt: skip
    return made


def write(path: Path, made: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in made))
    return path


def test_a_win_rate_is_corrected_for_the_judge(tmp_path):
    new, seen = (
        write(tmp_path / f"{n}.jsonl", rows(300, 8, s)) for n, s in (("new", 0), ("seen", 300))
    )
    done = palate(
        "win-rate", "longer", new, seen, "--system", "ours", "--format", "json", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    found = {row["what"]: row for row in json.loads(done.stdout)}
    corrected = found["people would prefer it (corrected)"]
    assert corrected["value"] == pytest.approx(0.6, abs=0.01)
    assert corrected["low"] < 0.6 < corrected["high"]
    assert found["the judge prefers it"]["value"] == pytest.approx(0.56, abs=0.02)
    assert found["J, their sum less one"]["value"] == pytest.approx(0.6, abs=0.02)
    assert (tmp_path / "win-rates").is_dir()


def test_a_judge_near_chance_is_refused_after_its_table(tmp_path):
    new, seen = (
        write(tmp_path / f"{n}.jsonl", rows(60, 5, s)) for n, s in (("new", 0), ("seen", 60))
    )
    done = palate("win-rate", "longer", new, seen, "--system", "ours", cwd=tmp_path)
    assert done.returncode == 1
    assert "specificity" in done.stdout
    assert "no corrected share: ours and theirs: sensitivity and specificity add up" in done.stderr
    unknown = palate("win-rate", "longer", new, seen, "--system", "nobody", "-q", cwd=tmp_path)
    assert "no comparison has a response of 'nobody'" in one_line(unknown)
    missing = palate("win-rate", "longer", new, "no.jsonl", "--system", "ours", cwd=tmp_path)
    assert "no.jsonl: no such file" in one_line(missing)


def test_a_judge_is_probed_and_no_accuracy_is_touched(tmp_path):
    file = write(tmp_path / "mine.jsonl", rows(40, 5))
    done = palate("probe", "longer", file, "--own", "ours", "--format", "json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = {row["probe"]: row for row in json.loads(done.stdout)}
    assert set(found) == {"length", "verbosity", "self-preference"}
    assert (found["length"]["share"], found["length"]["without"]) == (1.0, 0.55)
    assert found["length"]["p"] < 0.01 < found["self-preference"]["p"]
    assert "left out: mine: position" in done.stderr
    assert not (tmp_path / "verdicts").exists()


def test_what_nobody_knows_is_null_and_an_empty_cell(tmp_path):
    new, seen = (write(tmp_path / f"{n}.jsonl", rows(12, 8)) for n in ("new", "seen"))
    write(seen, [row for row in rows(12, 8, start=20) if row["chosen_model"] == "ours"])
    arguments = ["win-rate", "longer", new, seen, "--system", "ours"]
    done = palate(*arguments, "--format", "json", cwd=tmp_path)
    assert done.returncode == 1
    assert "against it; expected 10 of each at least" in done.stderr
    assert "Traceback" not in done.stderr
    found = {row["what"]: row for row in json.loads(done.stdout, parse_constant=pytest.fail)}
    assert found["and where they did not (specificity)"]["value"] is None
    assert "nan" not in palate(*arguments, "--format", "csv", cwd=tmp_path).stdout
