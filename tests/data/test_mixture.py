import json
from collections import Counter
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import chisquare

from made import made, pool
from palate.data.mixture import (
    MixtureSpec,
    llama2_helpfulness,
    llama2_safety,
    mix,
    rows_asked,
    rows_taken,
    shuffled,
)
from palate.records import read_comparisons, read_header, read_rows, write_comparisons
from palate.types import PalateError, Ranks


@pytest.fixture
def pools(tmp_path):
    sizes = {"helpful": 300, "safety": 200, "web": 400, "trees": 100}
    return {name: pool(tmp_path / f"{name}.parquet", n, name) for name, n in sizes.items()}


def ids(path):
    return [c.id for c in read_comparisons(path)]


def groups(mixture):
    return {line.group: line for line in mixture.shares if not line.pool}


def test_the_paper_s_helpfulness_mixture(pools, tmp_path):
    spec = llama2_helpfulness(["helpful"], ["safety", "web", "trees"])
    mixture = mix(spec, pools, tmp_path / "mix.parquet", seed=0)
    mixed = list(read_comparisons(mixture.path))
    assert len(mixed) == mixture.rows == 600
    assert {c.id for c in mixed if c.source == "helpful"} == set(ids(pools["helpful"]))
    assert groups(mixture)["equal part"].rows == 300


def test_the_paper_s_safety_mixture(pools, tmp_path):
    spec = llama2_safety(["safety", "trees"], ["helpful", "web"])
    mixture = mix(spec, pools, tmp_path / "mix.parquet", seed=0)
    line = groups(mixture)
    assert line["safety"].rows == 300
    assert line["helpfulness"].rows == 33  # 300 / 0.9 * 0.1
    assert line["helpfulness"].share_asked == pytest.approx(0.1)
    assert line["helpfulness"].share_rows == pytest.approx(0.1, abs=1 / 333)


def test_the_table_adds_up_in_rows_and_tokens(pools, tmp_path):
    spec = llama2_helpfulness(["helpful"], ["web", "trees"])
    mixture = mix(spec, pools, tmp_path / "m.parquet", 0, count_tokens=lambda c: len(c.chosen))
    mixed = list(read_comparisons(mixture.path))
    for lines in ([s for s in mixture.shares if s.pool], list(groups(mixture).values())):
        assert sum(s.rows for s in lines) == 600
        assert sum(s.tokens for s in lines) == sum(len(c.chosen) for c in mixed)
        assert sum(s.share_rows for s in lines) == pytest.approx(1)
        assert sum(s.share_tokens for s in lines) == pytest.approx(1)
    assert not mixture.tokens_estimated
    saved = json.loads((tmp_path / "m.shares.json").read_text())
    head = read_header(mixture.path, "comparisons")
    assert saved["shares"] == mixture.table() == head.details["shares"]
    assert head.inputs.keys() == {"helpful", "web", "trees"}


def test_ids_are_stored_in_order_with_pool_and_group(pools, tmp_path):
    mixture = mix(llama2_safety(["safety"], ["web"]), pools, tmp_path / "mix.parquet", seed=0)
    rows = list(read_rows(mixture.ids))
    mixed = list(read_comparisons(mixture.path))
    assert [r["id"] for r in rows] == [c.id for c in mixed]
    assert [r["pool"] for r in rows] == [c.source for c in mixed]
    assert {(r["pool"], r["group"]) for r in rows} == {("safety", "safety"), ("web", "helpfulness")}


def test_pitfall_21_a_share_is_a_seeded_sample_not_the_first_rows(pools, tmp_path):
    spec = MixtureSpec(shares={"web": 1.0}, rows=100)
    chosen = [ids(mix(spec, pools, tmp_path / f"{s}.parquet", s).path) for s in (0, 0, 1)]
    assert chosen[0] == chosen[1]
    assert set(chosen[0]) != set(chosen[2])
    everything = ids(pools["web"])
    places = sorted(everything.index(i) for i in chosen[0])
    assert places != list(range(100))
    assert 120 < sum(places) / 100 < 280  # 199.5 expected, standard error 10
    assert len(set(chosen[0])) == 100


def test_pitfall_21_small_pools_are_not_repeated(pools, tmp_path):
    spec = MixtureSpec(shares={"web": 0.5, "trees": 0.5})
    mixture = mix(spec, pools, tmp_path / "mix.parquet", seed=0)
    assert mixture.rows == 200
    assert len(set(ids(mixture.path))) == 200


def test_the_order_is_mixed_not_by_pool(pools, tmp_path):
    spec = MixtureSpec(all=("helpful", "web"))
    sources = [c.source for c in read_comparisons(mix(spec, pools, tmp_path / "m.parquet", 0).path)]
    changes = sum(a != b for a, b in pairwise(sources))
    assert 290 < changes < 395  # 2 * 300 * 400 / 700 = 343 expected of a random order


def test_equal_part_is_uniform_over_rows_of_the_union_though_one_pool_is_capped(tmp_path):
    sizes = {"a": 500, "b": 2_000, "c": 1_000}
    made_pools = {n: pool(tmp_path / f"{n}.parquet", k, n) for n, k in sizes.items()}
    spec = MixtureSpec(all=("a",), equal_part_from=("b", "c"), max_rows={"b": 1_000})
    mixture = mix(spec, made_pools, tmp_path / "mix.parquet", seed=3)
    rows = {s.pool: s.rows for s in mixture.shares if s.pool}
    assert {s.pool: s.available for s in mixture.shares if s.pool}["b"] == 1_000
    assert chisquare([rows["b"], rows["c"]]).pvalue > 1e-3


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (
            llama2_safety(["safety"], ["trees"], helpfulness_share=0.5),
            r"helpfulness at a share of 0.5 beside 200 other rows needs 200 rows.*have 100: "
            r"100 are missing.*lower the share to 0.3333.*on_shortage: shrink",
        ),
        (llama2_helpfulness(["web"], ["trees"]), r"equal part.*300 are missing.*more pools"),
        (MixtureSpec(shares={"web": 0.5, "trees": 0.5}, rows=500), r"lower rows to 200"),
        (MixtureSpec(all=("nowhere",)), r"no pool named nowhere; the pools are: helpful, safety"),
    ],
)
def test_an_impossible_share_says_what_is_missing(pools, tmp_path, spec, said):
    with pytest.raises(PalateError, match=said):
        mix(spec, pools, tmp_path / "mix.parquet", seed=0)
    assert not (tmp_path / "mix.parquet").exists()
    assert not list(tmp_path.glob(".*"))


def test_the_named_smaller_share_is_possible(pools, tmp_path):
    spec = llama2_safety(["safety"], ["trees"], helpfulness_share=0.3333)
    assert mix(spec, pools, tmp_path / "mix.parquet", seed=0).rows == 300


def test_shrinking_takes_what_there_is_and_shows_it(pools, tmp_path):
    spec = llama2_safety(["safety"], ["trees"], helpfulness_share=0.5, on_shortage="shrink")
    line = groups(mix(spec, pools, tmp_path / "mix.parquet", seed=0))["helpfulness"]
    assert (line.rows_asked, line.rows) == (200, 100)
    assert line.share_asked == 0.5
    assert line.share_rows == pytest.approx(1 / 3)
    shares = MixtureSpec(shares={"web": 0.5, "trees": 0.5}, rows=500, on_shortage="shrink")
    assert rows_taken(shares, [400, 100]) == [100, 100]


def test_a_comparison_in_two_pools_is_an_error_that_names_both(tmp_path):
    rows = [made(f"Question number {i}?") for i in range(5)]
    write_comparisons(tmp_path / "a.parquet", rows)
    write_comparisons(tmp_path / "b.parquet", rows[3:4])
    both = {"a": tmp_path / "a.parquet", "b": tmp_path / "b.parquet"}
    with pytest.raises(PalateError, match=r"a \(.*a.parquet:4\) and b \(.*b.parquet:1\)"):
        mix(MixtureSpec(all=("a", "b")), both, tmp_path / "mix.parquet", seed=0)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "needs `all`"),
        ({"shares": {"a": 0.5}}, "shares sum to 0.5"),
        ({"shares": {"a": 1.5, "b": -0.5}}, "above 0"),
        ({"all": ["a"], "equal_part_from": ["a"]}, "pool a is in two parts"),
        ({"all": ["a"], "rows": 5}, "go with `shares`"),
        ({"all": ["a"], "shares": {"a": 1.0}, "rows": 5}, "both fix the size"),
        ({"all": ["c"], "shares": {"a": 0.5, "b": 0.5}}, "c has no share"),
        ({"all": ["a"], "max_rows": {"z": 5}}, "names z"),
        ({"all": ["a"], "max_rows": {"a": 0}}, "at least 1"),
        ({"all": ["a"], "sharse": {}}, "Extra inputs"),
    ],
)
def test_a_spec_that_cannot_mean_anything_is_refused(fields, said):
    with pytest.raises(ValidationError, match=said):
        MixtureSpec.model_validate(fields)


fractions = st.lists(st.integers(1, 50), min_size=1, max_size=5).map(
    lambda ws: {f"g{i}": w / sum(ws) for i, w in enumerate(ws)}
)


@given(fractions, st.data())
def test_shares_are_met_within_one_row_and_counts_are_exact(shares, data):
    have = data.draw(st.lists(st.integers(0, 500), min_size=len(shares), max_size=len(shares)))
    rows = data.draw(st.none() | st.integers(1, 1_000))
    spec = MixtureSpec(shares=shares, rows=rows, on_shortage="shrink")
    asked = rows_asked(spec, have)
    assert rows is None or sum(asked) == rows
    for part, count in zip(spec.parts, asked, strict=True):
        assert abs(count - part.share * sum(asked)) < 1
    if all(have):
        taken = rows_taken(spec, have)
        assert all(t <= h for t, h in zip(taken, have, strict=True))
        assert rows is None or sum(taken) <= rows
        for part, count in zip(spec.parts, taken, strict=True):
            assert abs(count - part.share * sum(taken)) < 1


@given(st.integers(1, 99), st.integers(1, 5_000))
def test_the_share_beside_a_whole_group_is_met_within_one_row(percent, whole):
    spec = llama2_safety(["s"], ["h"], helpfulness_share=percent / 100)
    safety, other = rows_asked(spec, [whole, 10**9])
    assert safety == whole
    assert abs(other - percent / 100 * (safety + other)) <= 1


@settings(max_examples=15, deadline=None)
@given(
    st.tuples(*[st.integers(1, 60)] * 3),
    st.integers(0, 5),
    st.none() | st.integers(1, 40),
    st.randoms(),
)
def test_laws_of_mixing(sizes, seed, cap, rng):
    """No duplicates, exact counts, determinism, and independence of the order of rows and pools."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        spec = MixtureSpec(
            all=("a",),
            equal_part_from=("b", "c"),
            max_rows={} if cap is None else {"b": cap},
            on_shortage="shrink",
        )
        rows = {
            p: [made(f"Question {p} number {i}?", id=f"{p}{i}", source=p) for i in range(n)]
            for p, n in zip("abc", sizes, strict=True)
        }
        results = []
        for attempt in range(2):
            pools = {}
            for p in rng.sample("abc", 3):
                pools[p] = folder / f"{p}{attempt}.parquet"
                write_comparisons(pools[p], rng.sample(rows[p], len(rows[p])))
            results.append(mix(spec, pools, folder / f"mix{attempt}.parquet", seed))
        first, second = (ids(r.path) for r in results)
    assert first == second
    assert results[0].shares == results[1].shares
    assert len(set(first)) == len(first)
    union = min(sizes[1], cap or sizes[1]) + sizes[2]
    assert len(first) == sizes[0] + min(sizes[0], union)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 200), st.integers(1, 40), st.randoms())
def test_shuffling_through_buckets_gives_every_row_its_place(rows, bucket, rng):
    with TemporaryDirectory() as name:
        folder = Path(name)
        path = pool(folder / "p.parquet", rows, "p")
        kept = rng.sample(range(rows), rng.randint(0, rows))
        places = np.full(rows, -1, np.int64)
        places[kept] = np.arange(len(kept))
        everything = ids(path)
        result = [r["id"] for r in shuffled([(path, places)], folder, bucket)]
        assert result == [everything[i] for i in kept]
        assert [p.name for p in folder.iterdir()] == ["p.parquet"]


def subset(pools, out, **said):
    spec = llama2_helpfulness(["helpful"], ["web"], subset=said)
    return mix(spec, pools, out, seed=0)


def test_a_smaller_subset_is_part_of_a_larger_one_and_has_the_mixture_s_shares(pools, tmp_path):
    whole = mix(llama2_helpfulness(["helpful"], ["web"]), pools, tmp_path / "whole.parquet", seed=0)
    parts = [
        subset(pools, tmp_path / f"{f}.parquet", fraction=f, seed=5) for f in (0.1, 0.25, 0.5, 1)
    ]
    assert [part.rows for part in parts] == [60, 150, 300, 600]
    found = [set(ids(part.path)) for part in parts]
    assert found[0] < found[1] < found[2] < found[3] == set(ids(whole.path))
    assert whole.fingerprint == parts[3].fingerprint
    for part in parts:
        lines = groups(part)
        assert lines["all"].rows_asked == part.rows / 2
        assert lines["all"].share_rows == pytest.approx(0.5, abs=0.15)


def test_another_seed_keeps_another_subset_of_the_same_mixture(pools, tmp_path):
    one = subset(pools, tmp_path / "one.parquet", rows=100, seed=1)
    two = subset(pools, tmp_path / "two.parquet", rows=100, seed=2)
    again = subset(pools, tmp_path / "again.parquet", rows=100, seed=1)
    assert one.fingerprint == again.fingerprint != two.fingerprint
    assert 5 < len(set(ids(one.path)) & set(ids(two.path))) < 40  # 100 / 6 by chance


def test_a_subset_of_more_than_there_is_says_so(pools, tmp_path):
    with pytest.raises(PalateError, match="601 comparisons was asked of 600; lower rows to 600"):
        subset(pools, tmp_path / "m.parquet", rows=601)
    with pytest.raises(ValidationError, match="exactly one of fraction and rows"):
        MixtureSpec.model_validate({"all": ["helpful"], "subset": {"fraction": 0.5, "rows": 3}})


def ranked_pool(path: Path, rankings: int, responses: int = 4) -> Path:
    rows = [
        replace(
            made(prompt=f"{path.stem} {n}", chosen=f"{a}", rejected=f"{b}", source=path.stem),
            ranks=Ranks(f"r:{n}", a, b),
        )
        for n in range(rankings)
        for a, b in combinations(range(responses), 2)
    ]
    write_comparisons(path, rows)
    return path


@pytest.mark.parametrize(
    "options",
    [
        {"max_rows": {"ranked": 100}},
        {"subset": {"rows": 200}},
        {"subset": {"fraction": 0.3}},
        {"equal_part_from": ("ranked",), "all": ("single",)},
    ],
)
def test_a_ranking_is_taken_whole_or_not_at_all(tmp_path, options):
    pools = {"ranked": ranked_pool(tmp_path / "ranked.parquet", 50)}
    pools["single"] = pool(tmp_path / "single.parquet", 100, "single")
    spec = MixtureSpec.model_validate({"all": ("ranked", "single"), **options})
    mixture = mix(spec, pools, tmp_path / "m.parquet", 0)
    rows = list(read_comparisons(mixture.path))
    sizes = Counter(c.ranks.ranking for c in rows if c.ranks)
    assert set(sizes.values()) == {6}
    (line,) = [s for s in mixture.shares if s.pool == "ranked"]
    assert line.rows == sum(sizes.values()) > 60
    for part in groups(mixture).values():
        assert part.rows_asked - 6 < part.rows <= part.rows_asked


def test_a_smaller_subset_of_rankings_is_part_of_a_larger_one(tmp_path):
    pools = {"ranked": ranked_pool(tmp_path / "ranked.parquet", 30)}
    chosen = []
    for rows in (7, 20, 100):
        spec = MixtureSpec.model_validate({"all": ("ranked",), "subset": {"rows": rows}})
        chosen.append(set(ids(mix(spec, pools, tmp_path / f"{rows}.parquet", 0).path)))
    assert [len(part) for part in chosen] == [6, 18, 96]
    assert chosen[0] < chosen[1] < chosen[2]
    spec = MixtureSpec.model_validate({"all": ("ranked",), "subset": {"rows": 5}})
    with pytest.raises(PalateError, match="rankings of 6 comparisons, which stay whole; ask for 6"):
        mix(spec, pools, tmp_path / "none.parquet", 0)
