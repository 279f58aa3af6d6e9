"""The loaders against the real data, where it is: counts as its index states them."""

from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from palate.data.sources import SOURCES, Request, at_root, safety_rows, source_named
from palate.data.sources.stackexchange import DUMP_CUTS
from palate.types import Bin, Comparison, Rating

from .rows import opened


def usable(comparisons: list[Comparison]) -> list[Comparison]:
    return [c for c in comparisons if c.chosen and c.rejected and c.chosen != c.rejected]


@cache
def of(name: str, data_root: Path, **request: str) -> list[Comparison]:
    folder = at_root(name, data_root)
    assert folder is not None
    comparisons, bad = opened(name, folder, **request)
    assert bad == []
    assert len({c.id for c in comparisons}) == len(comparisons)
    return comparisons


@pytest.mark.parametrize(
    ("subset", "rows", "pairs", "mismatched"),
    [
        ("helpful-base", 2354, 2348, 9),
        ("helpful-online", 1137, 1132, 0),
        ("helpful-rejection-sampled", 2749, 2717, 3),
        ("harmless-base", 2312, 2308, 5),
    ],
)
def test_pitfall_06_hh_counts(
    data_root: Path, subset: str, rows: int, pairs: int, mismatched: int
) -> None:
    comparisons = of("anthropic-hh", data_root, subset=subset)
    assert len(comparisons) == rows
    assert len(usable(comparisons)) == pairs
    assert sum("rejected_prompt_differs" in c.meta for c in comparisons) == mismatched
    assert {c.batch for c in comparisons} == {subset}
    assert all(c.prompt[0].role == "user" for c in comparisons)


def test_hh_all_subsets(data_root: Path) -> None:
    comparisons = of("anthropic-hh", data_root)
    assert len(comparisons) == 8552
    assert {c.batch for c in comparisons} == set(SOURCES["anthropic-hh"].subsets)


def test_hh_points_at_a_subset_or_a_file(data_root: Path) -> None:
    folder = data_root / "anthropic_hh" / "helpful-online"
    from_root = of("anthropic-hh", data_root, subset="helpful-online", split="test")
    assert opened("anthropic-hh", folder)[0] == from_root
    assert opened("anthropic-hh", folder / "test.jsonl.gz")[0] == from_root


def test_pku_counts(data_root: Path) -> None:
    comparisons = of("pku-saferlhf", data_root)
    assert len(usable(comparisons)) == 5135
    assert len({c.prompt_id for c in comparisons}) == 930
    assert {c.bin for c in comparisons} == {Bin.SAFE_UNSAFE}


def test_stackexchange_counts_and_shares(data_root: Path) -> None:
    comparisons = of("stackexchange", data_root)
    assert len(usable(comparisons)) == 3086
    sites = Counter(c.batch.removeprefix("stackexchange/") for c in comparisons)
    assert sites == {"beer": 2196, "coffee": 150, "quantumcomputing": 740}
    levels = Counter(c.rating for c in comparisons)
    shares = [levels[rating] / len(comparisons) for rating in Rating]
    assert shares == pytest.approx(DUMP_CUTS.shares, abs=6e-4)
    assert not any("<p>" in c.chosen or "&amp;" in c.chosen for c in comparisons)


def test_stackexchange_one_site_and_a_limit(data_root: Path) -> None:
    folder = data_root / "stackexchange"
    limited, _ = opened(
        "stackexchange", folder, subset="coffee", options={"max_pairs_per_question": 2}
    )
    most = Counter(c.prompt_id for c in limited)
    assert max(most.values()) == 2
    whole = {c.id for c in of("stackexchange", data_root, subset="coffee")}
    assert {c.id for c in limited} < whole


def test_oasst_counts(data_root: Path) -> None:
    comparisons = of("oasst", data_root)
    assert len(comparisons) == 1026
    assert len(usable(comparisons)) == 1025
    gaps = Counter(c.meta["strength"] for c in comparisons)
    assert gaps == {1: 712, 2: 298, 3: 15, 4: 1}
    assert all(c.prompt[-1].role == "user" for c in comparisons)


@pytest.mark.parametrize(("split", "pairs"), [("train", 1601), ("val", 29), ("test", 20)])
def test_diasafety_counts(data_root: Path, split: str, pairs: int) -> None:
    comparisons = of("diasafety", data_root, split=split)
    assert len(comparisons) == pairs
    assert {c.bin for c in comparisons} == {Bin.SAFE_UNSAFE}
    assert {c.batch for c in comparisons} == {f"diasafety/{split}"}


def test_diasafety_labels(data_root: Path) -> None:
    rows = list(safety_rows("diasafety", Request(data_root / "diasafety")))
    assert len(rows) == 11_209
    assert len({row.id for row in rows}) == 11_209


@pytest.mark.parametrize("name", ["anthropic-hh", "pku-saferlhf", "stackexchange", "oasst"])
def test_ids_and_order_do_not_change(data_root: Path, name: str) -> None:
    folder = data_root / str(source_named(name).folder)
    subset = {"anthropic-hh": "helpful-online", "stackexchange": "coffee"}.get(name)
    first, again = (opened(name, folder, subset=subset)[0] for _ in range(2))
    assert [c.id for c in first] == [c.id for c in again]


@pytest.mark.parametrize(
    ("name", "pairs", "ties", "prompts"),
    [
        ("openai-webgpt", 656 + 134, 245, 901 + 134 - 8),
        ("mtbench-human", 662, 220, 80),
        ("qa-feedback", 2616, 384, 500),
        ("helpsteer", 71, 29, 100),
    ],
)
def test_judgements_with_ties(
    data_root: Path, name: str, pairs: int, ties: int, prompts: int
) -> None:
    folder = at_root(name, data_root)
    assert folder is not None
    kept, _ = opened(name, folder, ties="keep")
    assert Counter(c.judgement.decides for c in kept) == {"chosen": pairs, "tie": ties}
    assert len({c.prompt_id for c in kept}) == prompts
    assert len({c.id for c in kept}) == len(kept)
    decided, rest = opened(name, folder)
    assert decided == [c for c in kept if c.judgement.decides == "chosen"]
    assert sum(row.kind == "tie" for row in rest) == ties


def test_pandalm_has_the_votes_of_three(data_root: Path) -> None:
    folder = at_root("pandalm", data_root)
    assert folder is not None
    votes, rest = opened("pandalm", folder, ties="keep")
    # Six answers of the file are the truth value true, no text.
    assert [row.kind for row in rest] == ["bad"] * 6
    assert len(votes) == 3 * (999 - 6)
    assert {c.annotator for c in votes} == {"annotator1", "annotator2", "annotator3"}
    by_pair: dict[int, Counter[str]] = {}
    for vote in votes:
        side = "tie" if vote.judgement.decides == "tie" else vote.chosen
        by_pair.setdefault(vote.meta["row"], Counter())[side] += 1
    assert sum(3 in count.values() for count in by_pair.values()) == 877


def test_four_ranked_answers_carry_their_places(data_root: Path) -> None:
    rows = of("qa-feedback", data_root, ties="keep")
    ranked = [c for c in rows if c.ranks]
    assert len(ranked) == 2868
    for c in ranked:
        assert c.ranks is not None
        assert (c.ranks.chosen == c.ranks.rejected) == (c.judgement.decides == "tie")
