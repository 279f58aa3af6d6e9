import json
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from made import made, pool
from palate.data.prompts import cluster_key, prompt_key, text_key
from palate.data.sources import Request, open_source
from palate.data.sources.base import prompt_cluster
from palate.data.split import (
    SIDES,
    Holdout,
    HoldoutState,
    RowKeys,
    assign,
    group,
    ranks,
    read_keys,
    split,
    split_by_share,
)
from palate.records import read_comparisons, read_header, write_comparisons
from palate.types import Comparison, Message, PalateError


def row(number, prompt, cluster, batch, source="made"):
    return made(
        f"The question numbered {prompt}?",
        f"yes {number}",
        f"no {number}",
        id=f"{source}-{batch}-{number}",
        prompt_id=f"c{cluster}",
        batch=batch,
        source=source,
    )


def keys(comparison):
    return {prompt_key(comparison.prompt), (comparison.source, comparison.prompt_id)}


def run(folder: Path, rows, state: str = "holdout.parquet", **options):
    """Split rows given in one file; return side by id, the split."""
    write_comparisons(folder / "in.parquet", rows)
    done = split({"p": folder / "in.parquet"}, folder, Holdout(**options), folder / state)
    sides = {r.id: "neither" for r in rows}
    sides |= {c.id: "train" for c in read_comparisons(done.train["p"])}
    sides |= {c.id: "test" for c in read_comparisons(done.test["p"])}
    return sides, done


@st.composite
def campaigns(draw):
    """Batches week-1, week-2, ... of rows over few prompts and clusters, so that they collide."""
    number, batches = 0, []
    for week in range(1, draw(st.integers(1, 3)) + 1):
        places = st.tuples(st.integers(0, 25), st.integers(0, 30), st.sampled_from("ab"))
        batch = []
        for prompt, cluster, source in draw(st.lists(places, max_size=30)):
            number += 1
            batch.append(row(number, prompt, cluster, f"week-{week}", source))
        batches.append(batch)
    return batches


def by_side(rows, sides):
    found = defaultdict(set)
    for r in rows:
        found[sides[r.id]] |= keys(r)
    return found


def assigned(rows, state, **options):
    """Side by id, and the batches, without files."""
    numbers = {}
    batches = [numbers.setdefault((r.source, r.batch), len(numbers)) for r in rows]
    row_keys = RowKeys(
        np.array([prompt_key(r.prompt) for r in rows], np.uint64),
        np.array([cluster_key(r.source, r.prompt_id) for r in rows], np.uint64),
        np.array(batches, np.int32),
        list(numbers),
        np.array([prompt_key(r.prompt) for r in rows], np.uint64),
    )
    sides, done = assign(row_keys, Holdout(**options), state)
    return {r.id: SIDES[side] for r, side in zip(rows, sides, strict=True)}, done


@settings(max_examples=40, deadline=None)
@given(campaigns(), st.integers(0, 8), st.integers(0, 3), st.randoms())
def test_laws_of_the_split(batches, per_batch, seed, rng):
    """Together or one after the other, in any row order: one split, without leaks, for ever."""
    rows = [r for batch in batches for r in batch]
    options = {"per_batch": per_batch, "seed": seed, "max_share": 1.0}
    state = HoldoutState(seed)
    together, done = assigned(rng.sample(rows, len(rows)), state, **options)
    found = by_side(rows, together)
    assert not found["train"] & found["test"]

    growing, arrived, earlier = HoldoutState(seed), [], {}
    for batch in batches:
        arrived += batch
        sides, _ = assigned(arrived, growing, **options)
        assert earlier.items() <= sides.items(), "an earlier row changed its side"
        found = by_side(arrived, sides)
        assert not found["train"] & found["test"]
        earlier = sides
    again, _ = assigned(rng.sample(rows, len(rows)), state, **options)
    assert again == together
    for batch in done:
        assert batch.test + batch.train + batch.neither == batch.rows
    assert earlier == together


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 60), min_size=1, max_size=80), st.integers(0, 20))
def test_a_first_batch_gives_n_wherever_whole_prompts_can_make_it_up(prompts, per_batch):
    rows = [row(i, p, p, "week-1") for i, p in enumerate(prompts)]
    sides, done = assigned(rows, HoldoutState(0), per_batch=per_batch, max_share=1.0)
    sizes = Counter(prompts)
    taken = sum(side == "test" for side in sides.values())
    assert taken == done[0].test <= per_batch
    smallest_left = min(
        (sizes[p] for i, p in enumerate(prompts) if sides[rows[i].id] == "train"), default=None
    )
    assert smallest_left is None or taken + smallest_left > per_batch


def test_pitfall_20_a_test_prompt_never_enters_training_in_any_batch_or_source(tmp_path):
    first = [row(i, i, i, "week-1") for i in range(40)]
    sides, _ = run(tmp_path, first, per_batch=10)
    tests = [r for r in first if sides[r.id] == "test"]
    assert len(tests) == 10
    again = [
        made(f"the question  NUMBERED {r.prompt[0].content.split()[-1]}", "a", "b", id=f"x{i}",
             source="other", batch="late", prompt_id=f"else {i}")
        for i, r in enumerate(tests)
    ]  # fmt: skip
    later, _ = run(tmp_path, again, per_batch=0)
    assert set(later.values()) == {"test"}


def test_pitfall_20_a_training_prompt_never_becomes_a_test_prompt(tmp_path):
    first = [row(i, i, i, "week-1") for i in range(40)]
    sides, _ = run(tmp_path, first, per_batch=10)
    trained = [row(i, i, i, "week-2") for i, r in enumerate(first) if sides[r.id] == "train"]
    later, done = run(tmp_path, trained, per_batch=10)
    assert set(later.values()) == {"train"}
    assert done.batches[0].test == 0


def test_rows_that_join_a_test_and_a_train_prompt_go_to_neither(tmp_path):
    first = [row(i, i, i, "week-1") for i in range(40)]
    sides, _ = run(tmp_path, first, per_batch=10)
    a = next(i for i, r in enumerate(first) if sides[r.id] == "test")
    b = next(i for i, r in enumerate(first) if sides[r.id] == "train")
    bridge = [row(1, a, 100, "week-2"), row(2, 100, 100, "week-2"), row(3, b, 100, "week-2")]
    later, done = run(tmp_path, [*first, *bridge], per_batch=10)
    assert {later[r.id] for r in bridge} == {"neither"}
    assert sides.items() <= later.items()
    assert done.batches[-1].neither == 3


def test_a_batch_that_grows_keeps_its_test_rows(tmp_path):
    first = [row(i, i, i, "") for i in range(40)]
    sides, _ = run(tmp_path, first, per_batch=10)
    grown = [*first, *(row(i, i, i, "") for i in range(40, 400))]
    later, done = run(tmp_path, grown, per_batch=10)
    assert sides.items() <= later.items()
    assert done.batches[0].known
    assert done.batches[0].test == 10


def test_a_small_batch_is_not_swallowed(tmp_path):
    _, done = run(tmp_path, [row(i, i, i, "w") for i in range(30)], max_share=0.2)
    line = done.table()[0]
    assert (line["asked"], line["test"], line["train"]) == (1_000, 6, 24)


def test_sources_can_hold_out_nothing(tmp_path):
    rows = [row(i, i, i, "w", source="web") for i in range(30)]
    sides, _ = run(tmp_path, rows, by_source={"web": 0})
    assert set(sides.values()) == {"train"}


def test_seeds_choose_different_tests(tmp_path):
    rows = [row(i, i, i, "w") for i in range(60)]
    one, _ = run(tmp_path, rows, "one.parquet", per_batch=20, seed=1)
    two, _ = run(tmp_path, rows, "two.parquet", per_batch=20, seed=2)
    assert one != two


def test_batches_are_taken_in_natural_order(tmp_path):
    rows = [row(i, i, i, f"week-{i}") for i in (10, 2, 1)]
    _, done = run(tmp_path, rows)
    assert [b.batch for b in done.batches] == ["week-1", "week-2", "week-10"]


def test_a_state_of_another_seed_is_refused(tmp_path):
    run(tmp_path, [row(1, 1, 1, "w")], seed=1)
    with pytest.raises(PalateError, match="made with seed 1, this run has 2"):
        run(tmp_path, [row(1, 1, 1, "w")], seed=2)


def test_the_state_survives_the_disk(tmp_path):
    run(tmp_path, [row(i, i, i, "w") for i in range(50)], per_batch=10)
    state = HoldoutState.load(tmp_path / "holdout.parquet", 0)
    state.save(tmp_path / "copy.parquet")
    copy = HoldoutState.load(tmp_path / "copy.parquet", 0)
    assert (copy.keys == state.keys).all()
    assert (copy.sides == state.sides).all()
    assert copy.batches == state.batches == [("made", "w")]


def test_files_say_what_they_were_made_of(tmp_path):
    _, done = run(tmp_path, [row(i, i, i, "w") for i in range(9)], per_batch=3)
    head = read_header(done.test["p"], "comparisons")
    assert head.inputs["p"] == read_header(tmp_path / "in.parquet").fingerprint
    assert head.inputs["holdout"] == read_header(done.state, "holdout").fingerprint
    assert head.details["side"] == "test"


def test_no_rows_split_into_none(tmp_path):
    assert run(tmp_path, [])[0] == {}


def test_half_by_prompt_parts_no_prompt_and_no_cluster(tmp_path):
    rows = [row(i, i % 500, i % 700, "w") for i in range(2_000)]
    rows += [row(i, i, i, "w") for i in range(2_000, 3_000)]
    write_comparisons(tmp_path / "in.parquet", rows)
    first, second = tmp_path / "first.parquet", tmp_path / "second.parquet"
    split_by_share(tmp_path / "in.parquet", first, second, 0.5, seed=0)
    parts = [list(read_comparisons(p)) for p in (first, second)]
    assert sorted(r.id for part in parts for r in part) == sorted(r.id for r in rows)
    seen = [set().union(*(keys(r) for r in part)) for part in parts]
    assert not seen[0] & seen[1]


def test_half_by_prompt_is_about_half_and_does_not_change_with_more_rows(tmp_path):
    path = pool(tmp_path / "in.parquet", 2_000, "web")
    first, second = tmp_path / "first.parquet", tmp_path / "second.parquet"
    split_by_share(path, first, second, 0.5, seed=0)
    small = {r.id for r in read_comparisons(first)}
    assert abs(len(small) - 1_000) < 5 * (2_000 * 0.25) ** 0.5
    pool(path, 3_000, "web")
    split_by_share(path, first, second, 0.5, seed=0)
    assert small <= {r.id for r in read_comparisons(first)}


def test_groups_are_connected_through_prompts_and_clusters(tmp_path):
    rows = [row(1, 1, 1, "w"), row(2, 1, 2, "w"), row(3, 3, 2, "w"), row(4, 4, 4, "w")]
    write_comparisons(tmp_path / "in.parquet", rows)
    read = read_keys([tmp_path / "in.parquet"])
    numbers = group(read.prompts, read.clusters).tolist()
    assert numbers[0] == numbers[1] == numbers[2] != numbers[3]


def transcripts(folder: Path, name: str, count: int) -> Path:
    """Rows of `name` with the prompt as a transcript, two depths of every conversation."""
    rows = []
    for i in range(count):
        first = f"\n\nHuman: The question numbered {i // 2}?"
        said = first if i % 2 else f"{first}\n\nAssistant: Well.\n\nHuman: Number {i}?"
        prompt = f"{said}\n\nAssistant:"
        rows.append({"prompt": prompt, "chosen": f" yes {i}", "rejected": f" no {i}"})
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def as_it_was(comparison, text):
    """The comparison as it was read when a transcript was one user's turn."""
    meta = {key: comparison.meta[key] for key in ("file", "row")}
    turn = (Message("user", text),)
    return replace(comparison, prompt=turn, prompt_id=prompt_cluster(text), meta=meta)


def test_a_batch_of_transcripts_stays_where_it_was_when_it_is_imported_again(tmp_path):
    """Its prompts were known by their whole texts; now they are known by their first turns."""
    path = transcripts(tmp_path, "week-1", 40)
    texts = [json.loads(line)["prompt"] for line in path.read_text().splitlines()]
    now = [r for r in open_source("own", Request(path)) if isinstance(r, Comparison)]
    before = [as_it_was(r, text) for r, text in zip(now, texts, strict=True)]
    state = HoldoutState(0)
    old = RowKeys(  # What `read_keys` gave of these rows then.
        np.array([text_key(text) for text in texts], np.uint64),
        np.array([cluster_key(r.source, r.prompt_id) for r in before], np.uint64),
        np.zeros(40, np.int32),
        [("own", "week-1")],
        np.array([text_key(text) for text in texts], np.uint64),
    )
    sides, _ = assign(old, Holdout(per_batch=10), state)
    sides = [SIDES[side] for side in sides]
    assert Counter(sides) == {"train": 30, "test": 10}
    state.save(tmp_path / "holdout.parquet")
    for rows in (before, now, now):  # The old file, the file imported again, and once more.
        found, done = run(tmp_path, rows, per_batch=10)
        assert [found[r.id] for r in rows] == sides
        assert (done.batches[0].test, done.batches[0].neither) == (10, 0)


def test_a_new_batch_of_transcripts_is_split_by_conversation(tmp_path):
    rows = list(open_source("own", Request(transcripts(tmp_path, "week-1", 40))))
    messages = [made(f"The question numbered {i}?", "a", "b", id=f"m{i}") for i in range(20)]
    found, _ = run(tmp_path, [*rows, *messages], per_batch=10)
    for i, message in enumerate(messages):
        assert {found[rows[2 * i].id], found[rows[2 * i + 1].id]} == {found[message.id]}


def test_halves_of_transcripts_stay_as_they_were(tmp_path):
    path = transcripts(tmp_path, "week-1", 40)
    texts = [json.loads(line)["prompt"] for line in path.read_text().splitlines()]
    now = [r for r in open_source("own", Request(path)) if isinstance(r, Comparison)][::2]
    before = [as_it_was(r, text) for r, text in zip(now, texts[::2], strict=True)]
    halves = []
    for rows in (before, now):
        write_comparisons(tmp_path / "in.parquet", rows)
        first, second = tmp_path / "first.parquet", tmp_path / "second.parquet"
        split_by_share(tmp_path / "in.parquet", first, second, 0.5, seed=0)
        halves.append({r.id for r in read_comparisons(first)})
    keys = np.array([text_key(text) for text in texts[::2]], np.uint64)
    expected = ranks(keys, np.arange(20, dtype=np.int32), 0) < 2.0**63
    assert halves[0] == halves[1] == {r.id for r, at in zip(now, expected, strict=True) if at}
