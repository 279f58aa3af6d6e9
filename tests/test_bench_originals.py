"""Published figures made again: by hand-made answers, and by the clones where they are at hand."""

import json
import os
from pathlib import Path

import pytest
from benchmarks import originals

DATA = Path(os.environ.get("PALATE_DATA", "/nowhere"))


def published(folder: Path, answers: list[tuple[str | None, str | None]], **stated: object) -> Path:
    """A result file of LLMBar with these answers in both orders, all labels 1, and its figures."""
    rows = [
        {"label": 1, "results": [{"swap = False": {"winner": a}, "swap = True": {"winner": b}}]}
        for a, b in answers
    ]
    path = folder / "Natural" / "evaluators" / "Made" / "Swap" / "result.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(rows))
    path.with_name("statistics.json").write_text(json.dumps(stated))
    return path


def test_an_answer_that_cannot_be_read_is_wrong_and_orders_count_alike(tmp_path: Path) -> None:
    stated = {
        "correct_False": "2 / 4 = 50.0%",
        "correct_True": "1 / 4 = 25.0%",
        "correct_average": "37.5%",
        "correct_both": "1 / 4 = 25.0%",
        "equal": "3 / 4 = 75.0%",
    }
    path = published(tmp_path, [("1", "1"), ("1", "2"), ("2", "2"), (None, None)], **stated)
    made = originals.evaluator(path, tmp_path)
    assert made.is_equal
    assert made.name == "Natural Made/Swap"
    path = published(tmp_path / "b", [("1", "1")] * 4, **stated)
    assert not originals.evaluator(path, tmp_path).is_equal


def test_by_judgebench_a_coin_that_is_thrown_twice_reaches_a_quarter() -> None:
    answers = ["A>B", "B>A"]
    rows = [
        {
            "label": "A>B", "source": "mmlu-pro", "question": n, "pair_id": n,
            "judgments": [{"decision": one}, {"decision": other}],
        }
        for n, (one, other) in enumerate((a, b) for a in answers for b in answers)
    ]  # fmt: skip
    asked = originals.both_orders(rows)
    (score, *_) = originals.judgebench.parts(asked)
    assert score.terms[0].mean == 0.25
    assert asked.values.mean() == 0.5
    assert originals.undecided(rows) == 0


@pytest.mark.skipif(not (DATA / "llmbar").is_dir(), reason="no clone of LLMBar in PALATE_DATA")
def test_every_figure_of_llmbar_is_made_again() -> None:
    said = "\n".join(originals.of_llmbar(DATA / "llmbar"))
    assert "**499 of 499 are equal to the digit**" in said
    assert "485 of the 499 files state a Cohen's kappa" in said


@pytest.mark.skipif(not (DATA / "judgebench").is_dir(), reason="no clone of JudgeBench there")
def test_every_figure_of_judgebench_is_made_again() -> None:
    assert "by the same rule: equal to the digit" in "\n".join(
        originals.of_judgebench(DATA / "judgebench")
    )
