"""`palate doubt`: labels that were turned are found by heads that never saw them."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from command import one_line, palate
from made import made
from packed import tiny_reward_model
from palate.explorer.queue import read_queue
from palate.labels.doubt import check_size, read_clusters, spread_over_folds
from palate.model.export import Card, export
from palate.recipe.cache import locked
from palate.records import read_comparisons, read_header, write_comparisons
from palate.types import Comparison, Judgement, PalateError, Rating
from tiny import save_tiny

WORDS = ("bread", "sea", "Paris", "poem", "dough", "honest", "short", "safer", "blue")
FEW = ("--folds", "3", "--members", "2")
TURNED = 13  # One in so many labels.


def rows(count: int = 240) -> list[Comparison]:
    """Responses of which the one that ends in yeast is better; one label in thirteen is turned."""
    rng = np.random.default_rng(0)
    found = []
    for n in range(count):
        better, worse = (f"{' '.join(rng.choice(WORDS, 3))} {end}" for end in ("yeast", "sea"))
        if n % TURNED == 0:
            better, worse = worse, better
        found.append(
            made(
                f"Question {n // 2}?", better, worse, id=f"r{n}", prompt_id=f"p{n // 2}",
                rating=Rating(1 + n % 4), annotator=f"a{n % 2}",
            )
        )  # fmt: skip
    return found


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("backbone") / "tiny", "llama")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "week.parquet"
    tie = made("Question tie?", "a", "b", id="tie", judgement=Judgement(chosen=0.0, tie=1.0))
    write_comparisons(path, [*rows(), tie])
    return path


def test_turned_labels_stand_at_the_head_of_the_list(
    data: Path, backbone: Path, tmp_path: Path
) -> None:
    out, seen, work = tmp_path / "doubts.jsonl", tmp_path / "seen", tmp_path / "work"
    asked = ("doubt", data, "--model", backbone, *FEW, "-o", out, "--queue", seen, "--work", work)
    done = palate(*asked)
    assert done.returncode == 0, done.stderr
    listed = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["rank"] for row in listed] == list(range(1, 241))
    assert all(first["wrong"] >= then["wrong"] for first, then in pairwise(listed))
    turned = {f"r{n}" for n in range(0, 240, TURNED)}
    assert len({row["id"] for row in listed[: len(turned)]} & turned) >= 0.8 * len(turned)
    assert all(row["label"] == "chosen" for row in listed)
    assert all(row["margin"] < 0 for row in listed[:10])
    assert "left out: 1 ties." in done.stdout
    assert "Wrong labels:" in done.stdout
    # Whole clusters of prompts are in one fold.
    folds: dict[str, set[int]] = {}
    for row in listed:
        folds.setdefault(row["prompt_id"], set()).add(row["fold"])
    assert all(len(of) == 1 for of in folds.values())
    # The queue is of comparisons that `palate view` finds beside it.
    (queue,) = (seen / "queues").iterdir()
    entries, scored_by = read_queue(queue)
    assert [entry.comparison_id for entry in entries] == [row["id"] for row in listed]
    assert scored_by == "probability of a wrong label"
    (copied,) = (seen / "comparisons").iterdir()
    assert read_header(copied).fingerprint == read_header(data).fingerprint
    # What is there is not run again, and gives the same list.
    before = out.read_bytes()
    assert palate(*asked).returncode == 0
    assert out.read_bytes() == before


def test_numbers_come_as_json_with_their_intervals(data: Path, backbone: Path) -> None:
    out = data.with_name("doubts.parquet")
    done = palate("doubt", data, "--model", backbone, "-o", out, *FEW, "--format", "json", "-q")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert (facts["rows"], facts["clusters"], facts["ties"], facts["unscored"]) == (240, 120, 1, 0)
    assert facts["flip_rate"]["low"] < 1 / TURNED < facts["flip_rate"]["high"]
    assert facts["agreement"]["value"] > 0.8
    header = read_header(out, "doubts")
    assert header.details["flip_rate"] == facts["flip_rate"]
    assert header.inputs["comparisons"] == read_header(data).fingerprint
    for cut in facts["cuts"]:
        assert cut["low"] <= cut["wrong"] <= cut["high"]
    assert {part["by"] for part in facts["parts"]} == {"rating", "annotator"}
    assert not list(data.parent.glob("*.work"))


def test_votes_for_the_other_response_are_a_label_too(tmp_path: Path, backbone: Path) -> None:
    """Sides exchanged, and votes with them, say the same."""
    votes = Judgement(chosen=1.0, rejected=2.0)
    some = [
        replace(row, chosen=row.rejected, rejected=row.chosen, judgement=votes) if n % 2 else row
        for n, row in enumerate(rows())
    ]
    write_comparisons(tmp_path / "votes.parquet", some)
    out = tmp_path / "votes.jsonl"
    done = palate("doubt", tmp_path / "votes.parquet", "--model", backbone, *FEW, "-o", out)
    assert done.returncode == 0, done.stderr
    listed = [json.loads(line) for line in out.read_text().splitlines()]
    assert {(int(row["id"][1:]) % 2, row["label"]) for row in listed} == {
        (0, "chosen"), (1, "rejected"),
    }  # fmt: skip
    assert np.mean([row["margin"] > 0 for row in listed]) > 0.8


def test_a_model_that_was_trained_on_the_rows_is_refused(data: Path, tmp_path: Path) -> None:
    fingerprint = read_header(data).fingerprint
    card = Card("week", "tiny/base", "0", training_data=fingerprint)
    model = export(tiny_reward_model("llama").eval(), tmp_path / "run" / "models" / "rm", card=card)
    said = one_line(palate("doubt", data, "--model", model))
    assert "was trained on" in said
    assert "--model tiny/base has not seen them" in said
    # Some of the rows, by the file that the model's run has.
    part = tmp_path / "run" / "mixtures" / "part.parquet"
    mixture = write_comparisons(part, list(read_comparisons(data))[:50])
    card = replace(card, training_data=mixture.fingerprint)
    export(tiny_reward_model("llama").eval(), model, card=card)
    assert "was trained on 50 of these comparisons" in one_line(
        palate("doubt", data, "--model", model)
    )


def test_a_reward_model_of_other_rows_judges_with_its_own_head(data: Path, tmp_path: Path) -> None:
    card = Card("earlier", "tiny/base", "0")
    model = export(tiny_reward_model("llama").eval(), tmp_path / "rm", card=card)
    out = tmp_path / "d.jsonl"
    done = palate("doubt", data, "--model", model, *FEW, "-o", out)
    assert done.returncode == 0, done.stderr
    assert "does not say what it was trained on" in done.stderr
    done = palate("doubt", data, "--model", model, "--layers", 1)
    assert "palate: --layers 1: " in done.stderr


def test_a_sample_takes_whole_prompts(data: Path, backbone: Path, tmp_path: Path) -> None:
    out = tmp_path / "d.jsonl"
    asked = ("--sample", 151, "--seed", 3)
    done = palate("doubt", data, "--model", backbone, *FEW, "-o", out, *asked)
    assert done.returncode == 0, done.stderr
    prompts = [json.loads(line)["prompt_id"] for line in out.read_text().splitlines()]
    assert 151 <= len(prompts) + 1 <= 153
    assert all(prompts.count(prompt) == 2 for prompt in prompts)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["nothing.jsonl"], "nothing.jsonl: no such file"),
        (["{data}", "-o", "list.csv"], "--out list.csv: expected a name that ends in .jsonl"),
        (["{data}", "-o", "{data}"], "the result would replace its input"),
        (["{data}", "--folds", "14"], "14 folds need 280 or more"),
        (["{data}", "--sample", "5", "-q"], "--sample of {data}: 4 comparisons with a preference"),
        (["{ties}"], "all 120 comparisons are ties"),
        (["{data}", "--model", "./nothing"], "./nothing"),
        (["{data}", "--subset", "x"], "--subset: {data} is Palate's own"),
        (["{data}", "--queue", "{data}"], "--queue {data}: is a file; name a run's folder"),
        (["{data}", "--queue", "run"], "--queue run: 241 of the comparisons are not among those"),
    ],
)
def test_mistakes_are_one_line(
    data: Path, backbone: Path, arguments: list[str], expected: str
) -> None:
    ties = data.with_name("ties.parquet")
    tie = Judgement(chosen=0.0, tie=1.0)
    write_comparisons(ties, [replace(row, judgement=tie) for row in rows(120)])
    write_comparisons(data.parent / "run" / "mixtures" / "all.parquet", [made("Of another run?")])
    typed = [one.format(data=data, ties=ties) for one in arguments]
    if "--model" not in typed:
        typed += ["--model", str(backbone)]
    said = one_line(palate("doubt", *typed, cwd=data.parent))
    assert expected.format(data=data) in said
    assert not list(data.parent.glob("*.work"))  # There is nothing to go on with.


def test_one_process_does_all_of_it(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert "palate doubt: 2 processes were started" in one_line(palate("doubt", data))
    monkeypatch.setenv("RANK", "1")
    done = palate("doubt", data)
    assert (done.returncode, done.stderr) == (1, ""), "rank 0 says it"


def test_two_at_once_do_not_share_a_work_folder(data: Path, backbone: Path) -> None:
    work = data.with_name("week.doubts.jsonl.work")
    with locked(work):
        said = one_line(palate("doubt", data, "--model", backbone, cwd=data.parent))
        assert "another run is writing here" in said
        assert work.is_dir(), "it is the other one's"


def test_what_is_near_is_one_cluster(tmp_path: Path) -> None:
    long = "Tell me how bread is baked at home in a small oven without any steam at all"
    path = tmp_path / "near.parquet"
    write_comparisons(
        path,
        [
            made(long, id="0", prompt_id="a"),
            made(f"{long}, please!", id="1", prompt_id="b"),  # A near-duplicate.
            made("What is the capital of France?", id="2", prompt_id="c"),
            made("What is the capital of France", id="3", prompt_id="d"),  # The same opening.
            made("Why is the sea blue?", id="4", prompt_id="e"),
            made("Name a poem.", id="5", prompt_id="e"),  # Of one cluster of the source's.
        ],
    )
    _, clusters = read_clusters(path)
    assert clusters[0] == clusters[1] != clusters[2] == clusters[3]
    assert clusters[4] == clusters[5] != clusters[0]
    assert len(set(clusters.tolist())) == 3


def test_folds_are_alike_in_size_and_part_no_cluster() -> None:
    clusters = np.repeat(np.arange(40), np.arange(40) // 4 + 1)
    folds = spread_over_folds(clusters, 5, seed=1)
    sizes = np.bincount(folds)
    assert sizes.max() - sizes.min() <= 10
    assert all(len(set(folds[clusters == one])) == 1 for one in range(40))
    assert not np.array_equal(folds, spread_over_folds(clusters, 5, seed=2))
    with pytest.raises(PalateError, match="41 of 80 comparisons are of one prompt"):
        check_size(Path("x"), np.concatenate((np.zeros(41, int), np.arange(1, 40))), 3)
