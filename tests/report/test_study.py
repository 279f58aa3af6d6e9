"""Tables of a study from files alone: means over seeds, paired differences, trends, the paper's."""

import json
import random
from pathlib import Path

import pytest

from made import pool
from palate.report import report, write_page
from palate.report.accuracy import UNDONE
from palate.report.page import charts
from palate.report.render import percent, texts
from palate.report.study import StudyIndex, StudyRun, Took, write_index, write_took
from palate.report.table import HOLM_INTERVAL
from palate.types import Outcome, PalateError

N = 400


def outcomes(share: float, seed: int):
    """Item i is right where its own difficulty and a training's chance allow; by seed."""

    def outcome(i: int) -> Outcome:
        hard, luck = random.Random(i).random(), random.Random(f"{i} {seed}").gauss(0, 0.05)
        return Outcome.CORRECT if hard + luck < share else Outcome.WRONG

    return outcome


def make_study(
    write, run: Path, axes, shares, *, data_axis=None, paper=None, seeds=(0, 1, 2), skip=()
):
    """A study on disk whose variants are right in these shares of the items."""
    runs = []
    for seed in seeds:
        for number, (levels, share) in enumerate(shares.items()):
            folder = f"variants/{'--'.join(levels)}/seed-{seed}"
            named = dict(zip(axes, levels, strict=True))
            said = {"experiment": "now", "mixtures": {"helpful": "mix"}}
            runs.append(StudyRun(levels=named, seed=seed, folder=folder, **said))
            if folder in skip:
                continue
            write(run / folder, "helpful", "Held-out Helpful", N, outcome=outcomes(share, seed))
            write(run / folder, "longer", "Held-out Helpful", N, kind="longer")
            rows = 50 * 2 ** (number % len(axes[data_axis])) if data_axis else 100
            (run / folder / "mixtures").mkdir()
            pool(run / folder / "mixtures" / "mix.parquet", rows, "made")
            write_took(run / folder, Took(experiment="now", stage="report", seconds=60))
    first = {axis: levels[0] for axis, levels in axes.items()}
    index = StudyIndex(
        name="made", axes=axes, baseline=first, data_axis=data_axis, paper=paper,
        models=("helpful",), runs=tuple(runs),
    )  # fmt: skip
    write_index(run, index)
    return run


MARGINS = {"margin": ("none", "small", "large")}
SHARES = {("none",): 0.6, ("small",): 0.7, ("large",): 0.605}


@pytest.fixture(scope="module")
def margin(write_any, tmp_path_factory):
    run = make_study(
        write_any, tmp_path_factory.mktemp("margin"), MARGINS, SHARES, paper="table-28"
    )
    return run, report(run)


def cells(table, *names: str):
    """The cells of the first row that has all these names."""
    rows = (r.cells for r in table.rows if set(names) <= {c.value for c in r.cells})
    return dict(zip([c.name for c in table.columns], next(rows), strict=True))


def printed(table, *names: str):
    """The texts of the first row that has all these names."""
    rows = (row for row in texts(table) if set(names) <= set(row))
    return dict(zip([c.name for c in table.columns], next(rows), strict=True))


def test_table_28_has_the_paper_s_columns_and_its_figures_beside_ours(margin):
    _, made = margin
    table = made.tables[0]
    assert table.title == "Table 28: accuracy (%) by margin"
    assert [c.name for c in table.columns][4:] == [
        "Significantly better", "Better", "Slightly better", "Negligibly better / unsure",
        "Average", "Spread of seeds",
    ]  # fmt: skip
    ours = cells(table, "none", "Held-out Helpful")
    assert ours["Seeds"].value == 3
    assert ours["Average"].estimate.value == pytest.approx(0.6, abs=0.06)
    assert ours["Average"].estimate.n == N
    assert ours["Better"].estimate.n == N / 4
    theirs = cells(table, "none", "Meta Helpful.")
    shown = printed(table, "none", "Meta Helpful.")
    assert [shown[c] for c in ("Significantly better", "Average")] == ["79.1", "62.5"]
    assert theirs["Average"].paper
    assert not any("longer" in text.lower() for row in texts(table) for text in row)


def test_differences_are_paired_and_adjusted(margin):
    _, made = margin
    table = made.table("study-differences")
    better, same = cells(table, "small"), cells(table, "large")
    shown = printed(table, "small")
    assert shown["Difference (points)"].startswith("+")
    estimate = better["Difference (points)"].estimate
    assert estimate.low > 0
    assert estimate.error < cells(made.tables[0], "small")["Average"].estimate.error
    assert shown["p (Holm)"] == "p < 0.001"
    assert same["Difference (points)"].estimate.low < 0 < same["Difference (points)"].estimate.high
    parts = [better[f"Error of {part}"].value for part in ("items", "seeds")]
    assert estimate.error == pytest.approx((parts[0] ** 2 + parts[1] ** 2) ** 0.5)
    assert [shown[f"Error of {part}"] for part in ("items", "seeds")] == list(map(percent, parts))


def test_a_contrast_has_one_p_and_an_interval_that_agrees_with_it(write_any, tmp_path):
    levels = {("none",): 0.6, ("a",): 0.605, ("b",): 0.61, ("c",): 0.615, ("d",): 0.63}
    axes = {"margin": tuple(name for (name,) in levels)}
    made = report(make_study(write_any, tmp_path / "run", axes, levels))
    table = made.table("study-differences")
    heads = [(column.name, column.detail) for column in table.columns]
    assert ("Difference (points)", HOLM_INTERVAL) in heads
    assert ("Better", "not tested") in heads
    said = {f.difference.value: (f.p_value, f.difference) for f in made.verdict.findings}
    decided = set()
    for row in table.rows:
        found = dict(zip([name for name, _ in heads], row.cells, strict=True))
        estimate = found["Difference (points)"].estimate
        p, difference = said[estimate.value]
        assert difference == estimate
        assert found["p (Holm)"].value == p
        assert (p < 0.05) == (estimate.low > 0 or estimate.high < 0)
        decided.add(p < 0.05)
    assert decided == {True, False}


def test_the_verdict_names_the_variants_that_differ_and_says_what_is_open(margin):
    _, made = margin
    assert ["".join(words) for words in made.verdict.models] == [
        "helpful with margin small is more accurate on Held-out Helpful than with margin none."
    ]
    (shown,), (open_,) = made.verdict.of("shown"), made.verdict.of("open")
    assert "is more accurate with margin small than with margin none: 7" in shown.sentence
    assert shown.difference.low > 0
    assert "with margin large and with margin none cannot be told apart" in open_.sentence
    said = write_page(made).read_text()
    assert "What cannot be concluded yet" in said
    assert "every variant with the baseline" in said


def test_a_lead_by_items_without_a_score_is_not_claimed(write_any, tmp_path):
    run = make_study(write_any, tmp_path, MARGINS, SHARES)
    lead = 0
    for seed in (0, 1, 2):  # Of every sixth item margin small scores what margin none has wrong.
        none, small = outcomes(0.6, seed), outcomes(0.7, seed)

        def outcome(i: int, none=none, small=small) -> Outcome:
            left_out = i % 6 == 0 and none(i) is Outcome.CORRECT
            return Outcome.UNSCORED if left_out else small(i)

        folder = run / "variants" / "small" / f"seed-{seed}"
        write_any(folder, "helpful", "Held-out Helpful", N, outcome=outcome)
        for said, sign in ((outcome, 1), (none, -1)):
            lead += sign * sum(said(i) is Outcome.CORRECT for i in range(N))
    made = report(run)
    assert ["".join(words) for words in made.verdict.models] == [
        "helpful is not shown to be better or worse with another variant than with margin none.",
        "The difference of helpful with margin small on Held-out Helpful is gone where items "
        "without a score count as wrong.",
    ]
    (shown,) = made.verdict.of("shown")
    points = percent(lead / (3 * N))
    assert f"with the others as wrong the difference is {points} points (" in shown.sentence
    (caution,) = made.verdict.of("caution")
    assert "helpful with margin small gave no score to 1" in caution.sentence
    assert "of 1,200 items, over all seeds" in caution.sentence
    better = cells(made.table("study-differences"), "small")["Difference (points)"]
    assert better.estimate.low > 0
    assert better.notes == (UNDONE,)


def test_variants_are_drawn_by_rating_with_the_paper_s_figures(margin):
    _, made = margin
    chart = charts.variants(made.tables[0], axes=1, chances={})
    rows = chart.spec["data"]["values"]
    assert {row["panel"] for row in rows} == {
        "Significantly better", "Better", "Slightly better", "Negligibly better / unsure",
        "Average",
    }  # fmt: skip
    average = {(r["judge"], r["kind"]): r["v"] for r in rows if r["panel"] == "Average"}
    assert average["none", "printed in the paper"] == 62.5
    ours = cells(made.tables[0], "small", "Held-out Helpful")["Average"].estimate
    assert average["small", "measured"] == pytest.approx(100 * ours.value, abs=0.001)
    assert "Accuracy of variants" in write_page(made).read_text()


def test_a_verdict_without_a_difference_says_so(write_any, tmp_path):
    alike = dict.fromkeys(SHARES, 0.6)
    made = report(make_study(write_any, tmp_path, MARGINS, alike))
    assert ["".join(words) for words in made.verdict.models] == [
        "helpful is not shown to be better or worse with another variant than with margin none."
    ]


def test_the_same_files_give_the_same_bytes_and_nothing_is_left_of_another_report(margin):
    run, made = margin
    (run / "tables" / "table-7.md").write_text("stale")
    before = (run / "tables" / "tables.json").read_bytes()
    report(run)
    assert (run / "tables" / "tables.json").read_bytes() == before
    assert not (run / "tables" / "table-7.md").exists()
    assert len(json.loads(before)["tables"]) == len(made.tables) == 3
    assert (run / "tables" / "study-runs.csv").read_text().count("\n") == 10


def test_runs_that_are_missing_or_of_another_recipe_are_left_out_and_counted(write_any, tmp_path):
    run = make_study(write_any, tmp_path, MARGINS, SHARES, skip=["variants/large/seed-2"])
    write_took(run / "variants/small/seed-1", Took(experiment="earlier", stage="report"))
    write_took(run / "variants/small/seed-2", Took(experiment="now", stage="train"))
    made = report(run)
    assert "6 of 9 runs are finished; the others are left out." in made.tables[0].remarks
    assert cells(made.tables[0], "small")["Seeds"].value == 1
    assert printed(made.tables[0], "small")["Spread of seeds"] == "–"
    assert cells(made.table("study-differences"), "large")["Seeds"].value == 2


def test_a_study_of_one_seed_says_what_it_cannot_say(write_any, tmp_path):
    made = report(make_study(write_any, tmp_path, MARGINS, SHARES, seeds=(4,)))
    assert any(line.startswith("One seed:") for line in made.tables[0].remarks)
    assert printed(made.table("study-differences"), "small")["Error of seeds"] == "–"


def test_pitfall_28_other_items_are_not_compared(write_any, tmp_path):
    run = make_study(write_any, tmp_path, MARGINS, SHARES)
    folder = run / "variants/large/seed-1"
    write_any(folder, "helpful", "Held-out Helpful", N, prefix="other")
    made = report(run)
    assert "judged on other items" in made.problems[0]
    assert cells(made.tables[0], "large")["Seeds"].value == 2


def test_nothing_finished_and_a_broken_index_are_one_line(write_any, tmp_path):
    folders = [f"variants/{v}/seed-0" for v in ("none", "small", "large")]
    run = make_study(write_any, tmp_path, MARGINS, SHARES, seeds=(0,), skip=folders)
    with pytest.raises(PalateError, match="none of 3 runs is finished"):
        report(run)
    (run / "study.json").write_text('{"version": 1, "name"')
    with pytest.raises(PalateError, match=r"^[^\n]*study.json: [^\n]*palate run[^\n]*$"):
        report(run)


SIZES = {"size": ("1B", "7B <b>"), "data": ("50", "100", "200")}
GROWTH = {
    ("1B", "50"): 0.55, ("1B", "100"): 0.56, ("1B", "200"): 0.57,
    ("7B <b>", "50"): 0.60, ("7B <b>", "100"): 0.68, ("7B <b>", "200"): 0.76,
}  # fmt: skip


@pytest.fixture(scope="module")
def scaling(write_any, tmp_path_factory):
    run = make_study(write_any, tmp_path_factory.mktemp("scaling"), SIZES, GROWTH, data_axis="data")
    return run, report(run)


def test_scaling_has_a_row_a_size_and_a_column_an_amount(scaling):
    _, made = scaling
    table = made.table("scaling")
    assert [c.name for c in table.columns] == ["Test set", "Model", "size", "50", "100", "200"]
    assert texts(table)[0][3:] == ["50", "100", "200"]
    values = [cells(table, "1B")[n].estimate.value for n in ("50", "100", "200")]
    assert values == pytest.approx([0.55, 0.56, 0.57], abs=0.06)


def test_the_trend_is_the_least_squares_line_with_an_error(scaling):
    import numpy as np

    _, made = scaling
    trend, table = made.table("scaling-trend"), made.table("scaling")
    for size in ("1B", "7B <b>"):
        values = [cells(table, size)[n].estimate.value for n in ("50", "100", "200")]
        slope = cells(trend, size)["Points a doubling"].estimate
        assert slope.value == pytest.approx(np.polyfit(np.log2([50, 100, 200]), values, 1)[0])
        assert 0 < slope.low < slope.value < slope.high or size == "1B"
        last = cells(trend, size)["Last step (points)"].estimate
        assert last.value == pytest.approx(values[2] - values[1])
    steeper = cells(trend, "7B <b>")["Steeper than the first (points a doubling)"].estimate
    slopes = [cells(trend, s)["Points a doubling"].estimate.value for s in ("7B <b>", "1B")]
    assert steeper.value == pytest.approx(slopes[0] - slopes[1])
    assert steeper.low > 0


def test_curves_are_compared_at_equal_amounts(scaling):
    _, made = scaling
    table, accuracies = made.table("scaling-differences"), made.table("scaling")
    rows = list(table.records())
    assert [(row["size"].value, row["data"].value) for row in rows] == [
        ("7B <b>", "50"), ("7B <b>", "100"), ("7B <b>", "200"),
    ]  # fmt: skip
    for row in rows:
        of = [cells(accuracies, size)[row["data"].value].estimate for size in ("7B <b>", "1B")]
        difference = row["Difference (points)"].estimate
        assert difference.value == pytest.approx(of[0].value - of[1].value)
        assert (row["Comparisons"].value, row["Of 1B"].value) == (int(row["data"].value),) * 2
    assert rows[-1]["p (Holm)"].value < 0.01


def test_the_page_draws_the_curves_and_shows_names_as_they_are(scaling):
    run, _ = scaling
    page = write_page(report(run)).read_text()
    assert page == write_page(report(run)).read_text()
    assert "7B <b>" not in page
    start = page.index('id="charts">') + len('id="charts">')
    chart = json.loads(page[start : page.index("</script>", start)])["scaling"]["spec"]
    rows = chart["data"]["values"]
    points = [row for row in rows if row["kind"] == "point"]
    by_series = [[row["x"] for row in points if row["series"] == s] for s in ("1B", "7B <b>")]
    for left, right, amount in zip(*map(sorted, by_series), (50, 100, 200), strict=True):
        assert left != right, "points of one amount do not hide each other"
        assert left * right == pytest.approx(amount**2, rel=1e-3)
    assert {row["series"] for row in points} == {"1B", "7B <b>"}
    assert [row["kind"] for row in rows].count("trend") == 4
    titles = {
        axis.get("title") for layer in chart["spec"]["layer"] for axis in layer["encoding"].values()
    }
    assert "comparisons trained on" in titles
