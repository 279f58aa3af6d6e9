"""A round: what people are asked, what comes back, and what is refused on the way."""

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from answered import answered
from command import one_line, palate
from made import made
from palate.data.prompts import prompt_key
from palate.data.tasks import as_shown
from palate.evaluate.benchmark import Benchmark, selection_probabilities
from palate.evaluate.metrics import judge_benchmark
from palate.evaluate.scoring import requests
from palate.explorer.annotations import MARKS, Annotation, Annotations
from palate.judges import open_judge
from palate.judges.reward_model import RewardScorer
from palate.labels.round import (
    ANSWERS,
    CHOSEN,
    HELD_OUT,
    MEMBERS,
    QUEUE,
    Asking,
    Round,
    _target_differences,
    _write_targets,
    import_answers,
    make_round,
    read_pool,
    read_round,
    rounds_beside,
)
from palate.labels.selection import SelectionOptions
from palate.model.export import Card, export
from palate.model.options import BaseOptions
from palate.model.reward_model import RewardModel
from palate.model.tokenizer import ChatTokens
from palate.recipe.cache import locked
from palate.records import read_comparisons, write_comparisons, write_items
from palate.report import report
from palate.stats import accuracy
from palate.types import (
    FORM,
    PREFERRED,
    SELECTION,
    UNLABELLED,
    BenchmarkItem,
    Comparison,
    Message,
    PalateError,
    Rating,
    is_text,
)
from tiny import tiny_model, tiny_tokenizer

LONG = "please tell me in your own words why the sea is salt and the rivers are not"


def rows(count: int = 60, members: int = 4) -> list[dict[str, Any]]:
    """Prompts with two to four responses, and what an ensemble says of each."""
    rng = np.random.default_rng(0)
    return [
        {
            "prompt": f"Question {n} about {'fire' if n % 5 == 0 else 'bread'}?",
            "responses": [f"answer {k} to {n}" for k in range(2 + n % 3)],
            "rewards_members": rng.normal(size=(2 + n % 3, members)).tolist(),
            "safety": n % 5 == 0,
        }
        for n in range(count)
    ]


def write(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def asked(pool: Path, folder: Path, budget: int = 20, **changes: Any) -> Round:
    """A round of a pool beside those that stand there."""
    asking = changes.pop("asking", Asking(earlier=rounds_beside(folder)))
    options = SelectionOptions(budget=budget, **{"random": 0.5, "reserve": 0.3} | changes)
    round_ = make_round(None, pool, folder, options, asking)
    assert round_ is not None
    return round_


def truth(row: Comparison, rating: Rating = Rating.BETTER) -> Comparison:
    """The pair as somebody labels it who prefers the response of the higher number."""
    better, worse = sorted((row.chosen, row.rejected), reverse=True)
    return replace(row, chosen=better, rejected=worse, judgement=PREFERRED, rating=rating)


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    return write(tmp_path / "pool.jsonl", rows())


def test_a_pool_is_all_pairs_of_each_prompts_responses(tmp_path: Path) -> None:
    first, second, third = rows(3)
    again = first | {"responses": ["answer 1 to 0", "answer 0 to 0", "another"],
                     "rewards_members": [[9.0] * 4] * 3}  # fmt: skip
    lonely = {"prompt": "Alone?", "responses": ["yes", "yes"], "rewards_members": [None, None],
              "rewards_reason": ["too long", None]}  # fmt: skip
    path = write(tmp_path / "pool.jsonl", [first, second, third, again, lonely])
    pool = read_pool(path, members=True)
    assert Counter(pool.prompts.tolist()) == {0: 3, 1: 3, 2: 6}
    assert pool.prompt(1).where.endswith("pool.jsonl:2")
    assert pool.left_out == {
        "responses without a score": 1,
        "responses without a score (too long)": 1,
        "responses that a row has twice": 1,
        "pairs that another row has": 1,
        "rows with fewer than two responses to compare": 1,
    }
    for pair, (row, sides) in enumerate(zip(pool.rows, pool.sides, strict=True)):
        one, other = (pool.lines[row].members[side] for side in sides)
        assert pool.differences[pair] == pytest.approx(np.subtract(one, other))
    assert read_pool(path).differences.shape == (12, 0)


def test_a_round_says_of_each_pair_why_and_with_what_probability(
    pool: Path, tmp_path: Path
) -> None:
    made_ = asked(pool, tmp_path / "rounds" / "one", safety=0.4)
    chosen = list(made_.chosen())
    assert len(chosen) == 20 == len({row.id for row in chosen})
    assert made_.counts["chosen"]["held-out"] == 2
    assert Counter(row.meta[SELECTION]["reason"] for row in chosen) == made_.counts["chosen"]
    for row in chosen:
        facts = row.meta[SELECTION]
        assert (row.judgement, row.batch, row.source) == (UNLABELLED, "one", "pool")
        assert facts["round"] == "one"
        assert 0 < facts["probability"] <= 1
        number = row.prompt[0].content.split()[1]
        assert {row.chosen.split()[-1], row.rejected.split()[-1]} == {number}
    safe = sum("fire" in row.prompt[0].content for row in chosen
               if row.meta[SELECTION]["reason"] != "held-out")  # fmt: skip
    assert safe >= 7, "four of ten, to the one"
    assert {path.name for path in (made_.folder / "tasks").iterdir()} == {"label-studio", "potato"}
    # The same call again leaves what people may be answering; another one is refused.
    before = {path: path.read_bytes() for path in made_.folder.rglob("*") if path.is_file()}
    assert asked(pool, made_.folder, safety=0.4) == made_
    assert before == {p: p.read_bytes() for p in made_.folder.rglob("*") if p.is_file()}
    with pytest.raises(PalateError, match=r"made otherwise \(options\).*name a new folder"):
        asked(pool, made_.folder)
    (made_.folder / "round.json").unlink()  # As if it had been killed before it was whole.
    again = asked(pool, made_.folder, safety=0.4)
    assert [row.id for row in again.chosen()] == [row.id for row in chosen]


def test_nothing_is_asked_twice_and_test_prompts_stay_test_prompts(tmp_path: Path) -> None:
    pool = write(tmp_path / "pool.jsonl", rows(100))
    keys, tests, training = set[int](), set[int](), set[int]()
    for week in ("w1", "w2", "w3"):
        made_ = asked(pool, tmp_path / "rounds" / week, budget=20, test_set=5)
        for row in made_.chosen():
            key = prompt_key(row.prompt)
            assert key not in keys
            keys.add(key)
            held_out = row.meta[SELECTION]["reason"] == "held-out"
            (tests if held_out else training).add(key)
    assert made_.counts["asked_before"] == 40
    assert (len(tests), len(training)) == (15, 45)
    with pytest.raises(PalateError, match=r"--seed 1: .*w1 was drawn with 0, .*give --seed 0"):
        asked(pool, tmp_path / "rounds" / "w4", seed=1)
    labelled = tmp_path / "known.parquet"
    write_comparisons(labelled, [made(row["prompt"]) for row in rows(100)[:90]])
    with pytest.raises(PalateError, match=r"budget 20: .* there are"):
        asked(pool, tmp_path / "new" / "w1", test_set=0, asking=Asking(labelled=[labelled]))


def test_near_duplicates_are_not_asked_beside_each_other_or_a_test(tmp_path: Path) -> None:
    twins = [
        {"prompt": f"{LONG}, {name}?", "responses": ["a", "b"], "rewards_members": [[1, 2], [3, 9]]}
        for name in ("Ann", "Bob", "Cyd", "Dee")
    ]
    pool = write(tmp_path / "pool.jsonl", [*rows(members=2), *twins])
    for seed in range(5):
        made_ = asked(pool, tmp_path / str(seed) / "one", budget=25, seed=seed)
        assert made_.counts["near_duplicates"] == 4
        assert sum(LONG in row.prompt[0].content for row in made_.chosen()) <= 1


def test_what_people_answer_in_any_tool_is_the_next_batch(pool: Path, tmp_path: Path) -> None:
    made_ = asked(pool, tmp_path / "rounds" / "one")
    chosen = list(made_.chosen())
    truths = [truth(row) for row in chosen]
    for tool, total in (("label-studio", 20), ("potato", 40)):
        tasks = made_.folder / "tasks" / tool
        line = one_line(palate("data", "import", tasks, "--round", made_.folder))
        assert line.startswith(f"palate: {tasks}: no task has been answered; "), line
        export_ = answered(tool, tasks, truths)
        for known in ("", ", 20 of them known before"):
            done = palate("data", "import", export_, "--round", made_.folder)
            assert done.returncode == 0, done.stderr
            assert f"{total} answers to 20 of 20 tasks{known}: " in done.stderr
    parts = [list(read_comparisons(made_.folder / name)) for name in (ANSWERS, HELD_OUT)]
    assert [len(part) for part in parts] == [36, 4]
    folder = made_.folder / "tasks" / "label-studio"
    line = one_line(palate("data", "import", folder, "--round", made_.folder))
    assert f"{folder}: is a folder; name its export: {folder / 'export.json'}" in line
    # A wrong answer is named as its file is typed.
    never, states = tmp_path / "never.json", made_.folder / "tasks" / "potato"
    ann = states / "annotation_output" / "ann" / "user_state.json"
    never.write_text((made_.folder / "tasks" / "label-studio" / "export.json").read_text()
                     .replace(chosen[4].id, "nothing"))  # fmt: skip
    number = 1 + [one["data"]["comparison_id"] for one in json.loads(never.read_text())].index(
        "nothing"
    )
    other = asked(pool, tmp_path / "rounds" / "two")
    for given, place in ((never, f"{never}:{number}"), (states, f"{ann}:1")):
        round_ = made_ if given == never else other
        line = one_line(palate("data", "import", given, "--round", round_.folder))
        assert line.startswith(f"palate: {place}: "), line
    by_id = {row.id: row for row in chosen}
    for row in (row for part in parts for row in part):
        of = by_id[row.meta["of"]]
        assert row.meta[SELECTION] == of.meta[SELECTION]
        assert (row.prompt, row.prompt_id, row.batch) == (of.prompt, of.prompt_id, "one")
        assert (row.chosen, row.rejected) == (truth(of).chosen, truth(of).rejected)
        assert row.judgement == PREFERRED
        assert row.annotator in ("1", "ann")
    assert {row.meta[SELECTION]["reason"] for row in parts[1]} == {"held-out"}
    assert len({row.id for part in parts for row in part}) == 40


def test_what_nobody_answered_is_said(pool: Path, tmp_path: Path) -> None:
    made_ = asked(pool, tmp_path / "one")
    tasks = json.loads((made_.folder / "tasks" / "label-studio" / "tasks.json").read_text())
    export_ = tmp_path / "export.json"
    export_.write_text(json.dumps([{**task, "id": 7, "annotations": []} for task in tasks]))
    line = one_line(palate("data", "import", export_, "--round", made_.folder))
    assert "20 rows have none, the first: " in line
    assert f"{export_}:1: task 7: nobody answered it" in line


def test_the_explorer_asks_too(pool: Path, tmp_path: Path) -> None:
    made_ = asked(pool, tmp_path / "one")
    marks = Annotations(made_.folder / MARKS)
    chosen = list(made_.chosen())
    for row in chosen[:5]:
        first = truth(row).chosen == row.chosen
        marks.put(Annotation("ann", row.id, "chosen" if first else "rejected", Rating.SLIGHTLY))
    done = palate("view", made_.folder, "--export", tmp_path / "marks.parquet")
    assert done.returncode == 0, done.stderr
    done = palate("data", "import", tmp_path / "marks.parquet", "--round", made_.folder,
                  "--out", tmp_path / "batch.parquet")  # fmt: skip
    assert "5 answers to 5 of 20 tasks" in done.stderr
    other = asked(pool, tmp_path / "two")
    line = one_line(palate("data", "import", tmp_path / "marks.parquet", "--round", other.folder))
    assert f"{tmp_path / 'marks.parquet'}:1: answers a task of round one, not of two" in line
    files = [tmp_path / "batch.parquet", tmp_path / "batch.held-out.parquet"]
    back = [row for path in files if path.exists() for row in read_comparisons(path)]
    assert {(row.meta["of"], row.chosen, row.rating) for row in back} == {
        (row.id, truth(row).chosen, Rating.SLIGHTLY) for row in chosen[:5]
    }
    from palate.explorer.index import open_index

    (queue,) = (open_index(made_.folder).queues,)
    assert list(queue) == [QUEUE]
    assert queue[QUEUE].items.tolist() == list(range(20))
    assert queue[QUEUE].scores == pytest.approx([row.meta[SELECTION]["worth"] for row in chosen])


def answer(row: Comparison, annotator: str = "ann", **changes: Any) -> Comparison:
    return replace(truth(row), annotator=annotator, meta={"of": row.id}, **changes)


def placed(answers: list[Comparison]) -> list[tuple[str, Comparison]]:
    return [(f"e.json:{number}", row) for number, row in enumerate(answers, start=1)]


def test_answers_that_were_not_asked_for_are_refused(pool: Path, tmp_path: Path) -> None:
    one = asked(pool, tmp_path / "rounds" / "one")
    two = asked(pool, tmp_path / "rounds" / "two")
    out, held_out = tmp_path / "a.parquet", tmp_path / "h.parquet"
    row, other = next(one.chosen()), next(two.chosen())
    good = answer(row)
    cases = {
        r"e.json:1: names no task": [replace(good, meta={})],
        r"e.json:1: task nothing was never asked in round one": [
            replace(good, meta=good.meta | {"of": "nothing"})
        ],
        r"e.json:1: task \['nothing'\] was never asked": [
            replace(good, meta=good.meta | {"of": ["nothing"]})
        ],
        r"answers a task of round two, not of one; import it with --round": [answer(other)],
        r"e.json:2: task \w+ was answered twice by ann, first in e.json:1": [good, good],
        r"its responses are not what task": [replace(good, chosen="changed")],
        r"its prompt is not what task": [replace(good, prompt=made("Another?").prompt)],
    }
    for said, answers in cases.items():
        with pytest.raises(PalateError, match=said):
            import_answers(one, placed(answers), out, held_out)
        assert not out.exists()
        assert not held_out.exists()
    counts = import_answers(one, placed([good, answer(row, "bob")]), out, held_out)
    assert (counts.training + counts.held_out, counts.tasks, counts.open) == (2, 1, 19)
    with pytest.raises(PalateError, match=r"answered otherwise by ann in a\.parquet"):
        import_answers(one, placed([replace(good, rating=Rating.SLIGHTLY)]), out, held_out)
    with pytest.raises(PalateError, match="holds no answers of round two"):
        import_answers(two, placed([answer(other)]), out, held_out)


@pytest.mark.parametrize(
    "said",
    [
        "high", [[1, 2]], [[1, "2"], [3, 4]], [[1, True], [3, 4]], [1.0, 2.0],
        [[1, float("nan")], [3, 4]], [[1, float("inf")], [3, 4]], [[1, 10**400], [3, 4]],
        [[1, 1e308], [3, -1e308]],
    ],
    ids=str,
)  # fmt: skip
def test_what_members_say_has_to_be_numbers(said: object, tmp_path: Path) -> None:
    wrong = {"prompt": "Why?", "responses": ["so", "because"], "rewards_members": said}
    path = write(tmp_path / "pool.jsonl", [*rows(5), wrong])
    with pytest.raises(PalateError, match=r"pool\.jsonl:6: expected .* as 2 lists of finite"):
        read_pool(path, members=True)


def test_a_row_of_scores_is_named_by_its_place_in_the_pool(tmp_path: Path) -> None:
    lines = rows(2)
    scored = write(tmp_path / "scores.jsonl", lines)
    pool = tmp_path / "pool.jsonl"
    pool.write_text("\n\n".join(json.dumps(line) for line in lines))
    named = read_pool(scored, members=True, named=pool)
    assert [row.where.rpartition(":")[2] for row in named.lines] == ["1", "3"]


def test_two_at_once_ask_nothing_twice(pool: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "rounds" / "one", tmp_path / "rounds" / "two"
    with locked(one), pytest.raises(PalateError, match="another run is writing here"):
        asked(pool, one)

    def meanwhile(_: object) -> bool:
        if not (two / "round.json").exists():
            asked(pool, two)
        return False

    with pytest.raises(PalateError, match="two: was drawn while this round was; run the same"):
        asked(pool, one, asking=Asking(about_safety=meanwhile))
    assert not (one / CHOSEN).exists()
    prompts = [prompt_key(row.prompt) for made_ in (asked(pool, one), read_round(two))
               for row in made_.chosen()]  # fmt: skip
    assert len(set(prompts)) == len(prompts) == 40


def test_a_round_is_known_by_its_files_and_touches_no_others(pool: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs" / "tasks" / "potato" / "annotation_output" / "ann.json"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("answers")
    with pytest.raises(PalateError, match=r"tasks: is no round's; name a new folder by --out"):
        asked(pool, tmp_path / "theirs")
    assert theirs.read_text() == "answers"
    one, two = (asked(pool, tmp_path / name / "round") for name in ("one", "two"))
    assert one.fingerprint == two.fingerprint, "made of the same"
    other = asked(pool, tmp_path / "other" / "round", safety=0.4)
    shutil.copy(other.folder / CHOSEN, one.folder / CHOSEN)
    with pytest.raises(PalateError, match=r"chosen\.parquet: is not what round\.json was written"):
        read_round(one.folder)
    for text in ("", "[]", '{"format": 1}', '{"format": 1, "fingerprint": "", "made_of": {}}'):
        (two.folder / "round.json").write_text(text)
        with pytest.raises(
            PalateError, match=r"round\.json: cannot be read; it was changed by hand"
        ):
            read_round(two.folder)


def test_what_cannot_be_asked_is_a_line(pool: Path, tmp_path: Path) -> None:
    out = tmp_path / "rounds" / "one"
    test = tmp_path / "test.parquet"
    write_comparisons(test, [made("Question 7 about bread?"), made("Nothing like it?")])

    def line(*words: object) -> str:
        return one_line(palate("next", *words, "--out", out, "-q"))

    assert "lower the budget to" in line(pool, "--budget", 500, "--test-set", 0)
    assert "1 of 60 prompts" in line(pool, "--budget", 10, "--test", test)
    alone = write(tmp_path / "alone.jsonl", rows(members=1))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").touch()
    assert "is a model; name the pool behind it" in line(tmp_path / "model", "--budget", 10)
    assert "palate: --reserve: " in line(pool, "--budget", 10, "--reserve", 1)
    assert "an ensemble of one" in line(alone, "--budget", 10, "--random", 0.5)
    plain = write(tmp_path / "plain.jsonl", [{k: r[k] for k in ("prompt", "responses")}
                                             for r in rows()])  # fmt: skip
    assert "name an ensemble before the pool" in line(plain, "--budget", 10, "--random", 0.5)
    assert "expected a round of `palate next`" in line(plain, "--budget", 10, "--exclude", tmp_path)
    single = write(tmp_path / "single.jsonl", [{"prompt": "Why?", "responses": ["so"]}])
    assert "two or more different responses" in line(single, "--budget", 10)
    assert "expected a round of `palate next`" in one_line(
        palate("data", "import", plain, "--round", tmp_path / "nowhere")
    )
    (tmp_path / "killed" / "comparisons").mkdir(parents=True)
    (tmp_path / "killed" / CHOSEN).touch()
    for folder, said in ((plain, "it is a file"), (tmp_path, "round.json is not here"),
                         (tmp_path / "killed", "is not whole yet")):  # fmt: skip
        assert said in one_line(palate("data", "import", plain, "--round", folder))
    assert not out.exists() or not (out / "round.json").exists()
    done = palate("next", plain, "--budget", 20, "--reserve", 0.3, "--out", out, "--test", test,
                  "--leave-out-overlap")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "random" in done.stdout
    assert "held-out" in done.stdout
    assert read_round(out).counts["overlapping"] == 1
    assert "left out: 1 prompts that are in a test set" in done.stderr
    again = palate("next", plain, "--budget", 20, "--reserve", 0.3, "--out", out, "--test", test,
                   "--leave-out-overlap", "-q")  # fmt: skip
    assert (again.returncode, again.stdout, again.stderr) == (0, done.stdout, "")
    again = palate("next", plain, "--budget", 20, "--reserve", 0.3, "--out", out, "--test", test,
                   "--leave-out-overlap", "-q", "--format", "json")  # fmt: skip
    assert {row["round"] for row in json.loads(again.stdout)} == {str(out)}
    assert f"it holds 1; name one of them, such as {out}" in one_line(
        palate("data", "import", plain, "--round", out.parent)
    )
    assert "is a question without an answer" in one_line(
        palate("data", "import", out / CHOSEN, "--round", out)
    )
    assert "expected answers: an export of Label Studio, Potato, Argilla, or a file" in one_line(
        palate("data", "import", plain, "--round", out)
    )
    for word, said in (("--annotators", "votes"), ("--out", out / HELD_OUT), ("--out", "a.csv")):
        line_ = one_line(palate("data", "import", plain, "--round", out, word, said))
        assert line_.startswith(f"palate: {word}")
    assert all("Question 7 " not in row.prompt[0].content for row in read_round(out).chosen())


def test_an_ensemble_scores_a_pool_once_also_for_a_benchmark(tmp_path: Path) -> None:
    chat = ChatTokens(tiny_tokenizer(), BaseOptions(max_tokens=128))
    card = Card(name="several", base="tiny", base_revision="0")
    folders = {}
    for members in (1, 3):
        model = RewardModel(tiny_model("llama"), chat, members=members, seed=5).eval()
        folders[members] = export(model, tmp_path / f"m{members}", card=card)
    plain = [{k: row[k] for k in ("prompt", "responses")} for row in rows(30)]
    pool = write(tmp_path / "pool.jsonl", plain)
    target = tmp_path / "target.parquet"
    write_comparisons(target, [made(f"Another {n}?") for n in range(4)])
    line = one_line(palate("next", folders[3], pool, "--budget", 40, "--random", 0,
                           "--out", tmp_path / "r" / "1", "-q"))  # fmt: skip
    assert "budget 40: " in line
    assert not list(tmp_path.glob("r/1/*scores*")), "it is refused before the pool is scored"
    words = ["next", folders[3], pool, "--budget", 10, "--random", 0, "--for", target,
             "--reserve", 0.3, "--out", tmp_path / "r" / "1", "-q"]  # fmt: skip
    done = palate(*words)
    assert done.returncode == 0, done.stderr
    first = (tmp_path / "r" / "1" / CHOSEN).read_bytes()
    scores = tmp_path / "r" / "1" / "scores.jsonl"
    stamp = scores.stat().st_mtime_ns
    shutil.rmtree(tmp_path / "r" / "1" / "tasks")
    (tmp_path / "r" / "1" / "round.json").unlink()  # Killed after the scores were there.
    assert palate(*words).returncode == 0
    assert scores.stat().st_mtime_ns == stamp
    assert len(first) > 0
    made_ = read_round(tmp_path / "r" / "1")
    assert made_.made_of["model"]["name"] == "m3"
    assert list(made_.made_of["for"]) == ["target"]
    worths = [row.meta[SELECTION]["worth"] for row in made_.chosen()]
    assert len(worths) == 10
    assert min(worths) > 0
    options = SelectionOptions(budget=10, random=0, reserve=0.3)
    model = RewardModel(tiny_model("llama"), chat, members=3, seed=6).eval()
    later = RewardScorer(export(model, tmp_path / "later", card=card), name="m3")
    first_, drawn = RewardScorer(folders[3], name="m3"), tmp_path / "s" / "1"
    one = make_round(first_, pool, drawn, options, Asking())
    with pytest.raises(PalateError, match=r"made otherwise \(model\)"):
        make_round(later, pool, drawn, options, Asking())
    assert make_round(later, pool, drawn, options, Asking(any_model=True)) == one
    words[1], words[-2] = folders[1], tmp_path / "r" / "2"
    assert "m1: an ensemble of one" in one_line(palate(*words))


def test_a_target_of_items_is_asked_of_each_response_after_its_own_turns(tmp_path: Path) -> None:
    question, earlier = made("What of it?").prompt, Message("assistant", "Which of the two?")
    turns = tuple((earlier, Message("user", text)) for text in ("The first.", "The second.", "No."))
    one = BenchmarkItem("a", "x", question, ("Yes", "No", "Maybe"), (0, 1, 1), "p", turns=turns)
    plain = BenchmarkItem("b", "x", question, ("Yes", "No"), (0, 1), "p")
    write_items(tmp_path / "items.parquet", [one, plain])
    out = tmp_path / "targets.jsonl"
    _write_targets([tmp_path / "items.parquet"], out)
    asked_ = [row.candidates for row in requests(out, ("responses",))]
    assert [shown.prompt for shown in asked_] == [*one.conversations(), question]
    assert [shown.responses for shown in asked_] == [("Yes",), ("No",), ("Maybe",), ("Yes", "No")]
    said = [[[1.0, 4.0]], [[2.0, 6.0]], [None], [[0.5, 1.0], [0.0, 0.0]]]
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    write(out, [line | {MEMBERS: of} for line, of in zip(lines, said, strict=True)])
    assert _target_differences(out).tolist() == [[-1.0, -2.0], [0.5, 1.0]]


def test_calls_of_tools_are_asked_of_in_words_and_kept_as_they_are(tmp_path: Path) -> None:
    call = {"type": "function", "function": {"name": "find", "arguments": {"what": "flour"}}}
    rows_ = [
        {
            "prompt": [{"role": "user", "content": f"Find {n}."}],
            "tools": [{"type": "function", "function": {"name": "find"}}],
            "responses": [f"I cannot, {n}.", {"role": "assistant", "tool_calls": [call]}],
        }
        for n in range(20)
    ]
    made_ = asked(write(tmp_path / "pool.jsonl", rows_), tmp_path / "one", 8, random=1.0)
    truths = [truth(row) for row in made_.chosen()]
    assert not any(is_text(row.prompt, row.chosen, row.rejected) for row in truths)
    shown = [as_shown(row) for row in truths]
    tasks = (made_.folder / "tasks" / "potato" / "items.json").read_text()
    assert "Call of find" in tasks
    assert json.dumps(FORM)[1:-1] not in tasks
    for tool in ("label-studio", "potato"):
        export_ = answered(tool, made_.folder / "tasks" / tool, shown)
        done = palate("data", "import", export_, "--round", made_.folder)
        assert "answers to 8 of 8 tasks" in done.stderr, done.stderr
    kept = [row for name in (ANSWERS, HELD_OUT) if (made_.folder / name).exists()
            for row in read_comparisons(made_.folder / name)]  # fmt: skip
    assert {(r.meta["of"], r.prompt, r.chosen) for r in kept} == {
        (r.id, r.prompt, r.chosen) for r in truths
    }


def test_what_was_held_out_is_weighted_by_what_it_stands_for(tmp_path: Path) -> None:
    """Items with probabilities 1/2 and 1/8 count 2 and 8 in every figure of a judge."""
    chances = [0.5, 0.5, 0.125, 0.125]
    items = [
        made(f"Question {n}?", "the longer one" if n < 3 else "no", "short",
             meta={SELECTION: {"round": "one", "reason": "held-out", "probability": p}})
        for n, p in enumerate(chances)
    ]  # fmt: skip
    path = tmp_path / "run" / "benchmarks" / "held-out.parquet"
    write_comparisons(path, items)
    assert list(selection_probabilities(path).values()) == chances
    result = judge_benchmark(
        open_judge("longer"), Benchmark("held-out", path), tmp_path / "run" / "verdicts"
    )
    assert result.overall.value == pytest.approx((2 + 2 + 8) / 20)
    expected = accuracy([1, 1, 1, 0], [0, 1, 2, 3], probabilities=chances)
    assert (result.overall.low, result.overall.high) == pytest.approx((expected.low, expected.high))
    table = report(tmp_path / "run").table("table-7")
    assert table is not None
    assert table.rows[0].cells[1].estimate == result.overall
    assert any("weighted by 1 / probability" in remark for remark in table.remarks)
    done = palate("judge", "longer", path, "--out", tmp_path / "j", "--format", "json")
    assert json.loads(done.stdout)[0]["accuracy"] == 0.6
    write_comparisons(path, [*items[:3], replace(items[3], meta={})])
    assert selection_probabilities(path) == {}
