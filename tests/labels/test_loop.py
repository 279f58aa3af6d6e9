"""The loop: labels replayed, at random beside by disagreement; and people, for whom it waits."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from answered import answered
from command import one_line, palate
from palate.data.prompts import prompt_key
from palate.data.simulation import CampaignOptions, simulate
from palate.labels.loop import AT_RANDOM, SELECTED, TEST
from palate.labels.round import read_round
from palate.records import read_comparisons, read_header, write_comparisons
from palate.report.study import read_study
from palate.types import PREFERRED, SELECTION, UNLABELLED, Comparison
from tiny import save_tiny

RECIPE = """
name: mine
data:
  sources:
    start: {source: own, path: START}
mixtures: {all: {all: [start]}}
backbone: {model: TINY, max_tokens: 128, dtype: float32}
train: {pairs_per_step: 8, learning_rate: 1e-3, eval_rows: 0, trackers: []}
models: {rm: {mixture: all, ensemble: 2}}
judges: [rm]
"""


def campaign(seed: int, rows: int) -> list[Comparison]:
    return list(simulate(CampaignOptions(weeks=1, comparisons_per_week=rows), seed))


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    write_comparisons(tmp_path / "start.parquet", campaign(1, 16))
    base = save_tiny(tmp_path / "tiny", "llama", num_hidden_layers=1)
    text = RECIPE.replace("START", str(tmp_path / "start.parquet")).replace("TINY", str(base))
    (tmp_path / "mine.yaml").write_text(text)
    return tmp_path / "mine.yaml"


@pytest.mark.slow
def test_labels_are_replayed_at_random_beside_by_disagreement(recipe: Path, tmp_path: Path) -> None:
    pool = tmp_path / "pool.parquet"
    write_comparisons(pool, campaign(2, 80))
    folder = tmp_path / "loop"
    words = ["loop", recipe, pool, "--budget", 8, "--weeks", 2, "--random", 0.25, "--reserve", 0.3,
             "--out", folder]  # fmt: skip
    done = palate(*words)
    assert done.returncode == 0, done.stderr
    study = read_study(folder)
    assert (study.finished, study.problems) == (6, ())
    assert {levels: pairs for (levels, _), pairs in study.pairs.items()} == {
        (arm, str(week)): 16 + 8 * week for arm in (AT_RANDOM, SELECTED) for week in range(3)
    }
    tests = {prompt_key(row.prompt) for row in read_comparisons(folder / "test.parquet")}
    known = {(row.prompt, row.chosen, row.rejected) for row in campaign(2, 80)}
    for arm, reasons in (("at-random", {"random"}), ("by-disagreement", {"random", "information"})):
        rows = [
            row
            for week in (1, 2)
            for row in read_comparisons(
                folder / arm / "rounds" / f"week-{week}" / "answers.parquet"
            )
        ]
        assert len({prompt_key(row.prompt) for row in rows}) == 16, "nothing is asked twice"
        assert {row.meta[SELECTION]["reason"] for row in rows} <= reasons
        assert {(row.prompt, row.chosen, row.rejected) for row in rows} <= known
        assert not tests & {prompt_key(row.prompt) for row in rows}
    assert (folder / "report.html").is_file()
    table = json.loads((folder / "tables" / "tables.json").read_text())
    names = [one["name"] for one in table["tables"]]
    assert {"scaling", "scaling-differences"} <= set(names)
    # Again, nothing is made again; a killed one goes on.
    weights = folder / "by-disagreement" / "weeks" / "2" / "models" / "rm" / "model.safetensors"
    stamp = weights.stat().st_mtime_ns
    (folder / "by-disagreement" / "rounds" / "week-2" / "round.json").unlink()
    assert palate(*words).returncode == 0
    assert weights.stat().st_mtime_ns == stamp


@pytest.mark.slow
def test_with_people_it_waits_for_their_answers_and_goes_on(recipe: Path, tmp_path: Path) -> None:
    rows = campaign(2, 60)
    samples = tmp_path / "samples.parquet"
    lines = [
        {"prompt": row.prompt[0].content, "responses": sorted((row.chosen, row.rejected))}
        for row in rows
    ]
    pq.write_table(pa.Table.from_pylist(lines), samples)
    known = tmp_path / "known.parquet"
    write_comparisons(known, rows[:20])
    folder = tmp_path / "loop"
    words = ["loop", recipe, samples, "--budget", 8, "--weeks", 1, "--test-set", 2,
             "--reserve", 0.3, "--out", folder, "--set", f"benchmarks.known={{file: {known}}}",
             ]  # fmt: skip
    at = folder / "at-random" / "rounds" / "week-1"
    for _ in range(2):
        done = palate(*words)
        assert done.returncode == 0, done.stderr
        assert f"{at}: 0 of 8 tasks are answered." in done.stdout
        assert "--partial" not in done.stdout, "there is no answer that could be trained on"
    chosen = list(read_round(at).chosen())
    judged = {prompt_key(row.prompt) for row in rows[:20]}
    assert not judged & {prompt_key(row.prompt) for row in chosen}, "they are not trained on"
    truths = [replace(row, judgement=PREFERRED) for row in chosen]
    export = answered("label-studio", at / "tasks" / "label-studio", truths)
    assert palate("data", "import", export, "--round", at).returncode == 0
    done = palate(*words)
    assert done.returncode == 0, done.stderr
    week = folder / "at-random" / "weeks" / "1"
    assert read_header(week / "mixtures" / "all.parquet").rows == 16 + 6
    assert read_header(week / "benchmarks" / f"{TEST}.parquet").rows == 2
    study = read_study(folder)
    assert study.finished == 2


def test_what_cannot_be_looped_is_a_line(recipe: Path, tmp_path: Path) -> None:
    samples = tmp_path / "samples.jsonl"
    samples.write_text('{"prompt": "Why?", "responses": ["a", "b"]}\n')

    def line(*words: object) -> str:
        done = palate("loop", recipe, samples, "--budget", 8, "-q", "--out", tmp_path / "l", *words)
        return one_line(done)

    assert "expected one model, got rm" in line("--model", "other")
    shares = ["--set", "mixtures.all={shares: {start: 1.0}}"]
    assert "give the loop a mixture of pools that are taken whole" in line(*shares)
    alone = ["--set", "models.rm.ensemble=null", "--random", 0.5]
    assert "models.rm: an ensemble of one" in line(*alone)
    assert "palate: --test-set: expected a share" in line("--test-set", 1.5)
    assert "4 rounds ask for 4 held-out pairs, and 0 prompts" in line("--reserve", 0.0)
    assert "4 rounds of 8 pairs: besides" in line("--test-set", 0)
    samples = tmp_path / "labelled.parquet"
    write_comparisons(samples, campaign(2, 40))
    said = line("--weeks", 3, "--budget", 20, "--random", 0.5)
    assert "3 rounds of 20 pairs" in said
    assert not (tmp_path / "l" / "weeks").exists(), "nothing is trained, or even mixed"
    samples = tmp_path / "asked.parquet"
    write_comparisons(samples, [replace(row, judgement=UNLABELLED) for row in campaign(2, 4)])
    assert "4 of 4 pairs have no label that could be replayed" in line()
