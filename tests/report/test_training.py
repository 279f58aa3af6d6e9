"""Held-out accuracy and loss by step, from logs."""

import json
from pathlib import Path

from palate.report import Report, report
from palate.report.render import texts


def test_training_shows_final_against_best(made: Report) -> None:
    table = made.table("training")
    assert table is not None
    (shown,) = texts(table)
    row = dict(zip([c.name.strip() for c in table.columns], shown, strict=False))
    assert shown[:6] == ["helpful", "Held-out Helpful", "20", "1,280", "200,000", "400"]
    assert row["Best accuracy (%)"].startswith("66.0 ± ")
    assert row["Final accuracy (%)"].startswith("63.0 ± ")
    assert row["Lowest loss"] == "0.6200"
    assert row["Rise"] == "+0.0400"
    curve = made.table("training-curve")
    assert curve is not None
    assert [row.group.rsplit(" ", 1)[1] for row in curve.rows] == ["1", "1", "2", "2"]


def test_torn_metrics_are_counted_not_fatal(run_dir: Path) -> None:
    path = run_dir / "train" / "helpful" / "metrics.jsonl"
    whole = report(run_dir).table("training")
    path.write_text(path.read_text() + '[1]\n{"step": 21, "lo')
    torn = report(run_dir)
    assert torn.table("training") == whole
    assert "2 lines are not metrics" in torn.problems[0]


def test_an_evaluation_without_n_is_no_figure(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "train" / "m"
    folder.mkdir(parents=True)
    line = {"step": 5, "eval": {"name": "h", "accuracy": 0.7, "loss": 0.6}}
    (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    table = report(tmp_path / "run").table("training")
    assert table is not None
    assert "0.7" not in texts(table)[0]
    assert any("no figure" in note for note in table.notes())
