"""What a benchmark can show: leads by hand, trivial judges on made labels, doubles, versions."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from palate import stats
from palate.evaluate.audit import JUDGES, USUAL, audit, lead, read_audit, subset_names, to_json
from palate.evaluate.surface import STYLES, bag_of_words, cross_fitted, folds, has_styles
from palate.types import BenchmarkItem, Comparison, Judgement, Message, PalateError, comparison_id


def made(
    number: int, chosen: str, rejected: str, *, prompt: str = "", cluster: str = ""
) -> Comparison:
    question = (Message("user", prompt or f"What of matter number {number}, and of {number + 1}?"),)
    return Comparison(
        id=comparison_id("made", question, chosen, rejected, str(number)),
        source="made",
        prompt=question,
        chosen=chosen,
        rejected=rejected,
        prompt_id=cluster or f"q{number}",
        batch="made",
    )


def worded(pairs: int, better: str = "indeed", worse: str = "perhaps") -> list[Comparison]:
    """Pairs of equal length, of which one word says which is preferred."""
    return [made(n, f"{better} it is {n:04}", f"{worse} it is {n:03}") for n in range(pairs)]


def test_a_lead_is_the_solution_of_its_equation() -> None:
    at = lead(1_000, 0.2, 1.5)
    for x, power in ((at.significant, 0.0), (at.detectable, 0.8416212335729143)):
        z = 1.959963984540054 + power
        assert x == pytest.approx(z * math.sqrt(1.5 * (0.2 - x * x) / 1_000))
    assert (
        at.significant
        < at.detectable
        < stats.minimum_detectable_difference(1_000, 0.2, design_effect=1.5)
    )


def test_a_detectable_lead_is_found_four_times_in_five() -> None:
    rng = np.random.default_rng(0)
    n, x = 400, lead(400, USUAL, 1.0).detectable
    shares = [(USUAL + x) / 2, (USUAL - x) / 2]
    counts = rng.multinomial(n, [*shares, 1 - USUAL], size=2_000)
    found = [stats.mcnemar_mid_p(int(won), int(lost)) < 0.05 for won, lost, _ in counts]
    assert np.mean(found) == pytest.approx(0.8, abs=0.03)


def test_trivial_judges_find_what_was_put_there() -> None:
    rows = worded(100)
    rows = [replace(c, chosen=f"{c.chosen} and so on") for c in rows[:50]] + rows[50:]
    found = audit("made", rows)
    judges = found.whole.judges
    assert judges["longer"].value == 0.75, "half of the pairs are equally long"
    assert judges["shorter"].value == 0.25
    assert judges["bag of words"].value == 1, "one word says it, in every fold"
    assert found.whole.above == ("bag of words", "longer", "style")
    assert set(judges) == set(JUDGES)
    assert "first" not in found.whole.above
    assert "random" not in found.whole.above


def test_words_are_not_learnt_where_they_say_nothing() -> None:
    rng = np.random.default_rng(1)
    words = ["salt", "rain", "iron", "corn", "sand", "moss"]
    rows = [made(n, *(" ".join(rng.choice(words, 4)) for _ in "ab")) for n in range(300)]
    assert audit("made", rows).whole.above == ()


def test_no_prompt_teaches_its_own_fold() -> None:
    # One word a prompt, in eight pairs of it: within a prompt it tells all, across none.
    rows = [
        made(n, f"yes{chr(97 + q)} it is", f"no{chr(97 + q)} it is", cluster=f"q{q}")
        for q in range(20)
        for n in range(8 * q, 8 * q + 8)
    ]
    differences, either = bag_of_words(rows)
    assert (cross_fitted(differences, folds(rows), either) == 0).all()


def test_pairs_that_say_the_same_count_less() -> None:
    alone = worded(60)
    again = [replace(c, id=f"{c.id}{k}") for c in alone for k in range(4)]
    one, four = audit("one", alone).resolution, audit("four", again).resolution
    assert four.worst == pytest.approx(4)
    assert one.worst == 1
    rng = np.random.default_rng(0)
    longer = rng.random(60) < 0.5
    mixed = [
        replace(c, chosen=c.chosen + " then") if yes else c
        for c, yes in zip(alone, longer, strict=True)
    ]
    together = [replace(c, id=f"{c.id}{k}") for c in mixed for k in range(4)]
    assert audit("mixed", together).resolution.design_effect == pytest.approx(4 * 60 / 59, rel=1e-6)


@pytest.mark.parametrize(
    ("text", "style"),
    [
        ("First:\n- salt\n- rain", "a list"),
        ("1. salt\n2. rain", "a list"),
        ("It is **salt**.", "bold text"),
        ("# Salt\nIt is.", "a heading"),
        ("Use `salt`.", "code"),
        ("| a | b |\n|---|---|\n| 1 | 2 |", "a table"),
        ("Salt.\n\nRain.", "several paragraphs"),
        ("See https://example.org", "a link"),
        ("Salt or rain?", "a question at its end"),
        ("I'm sorry, but no.", "a refusal or apology in front"),
        ("I cannot do that.", "a refusal or apology in front"),
    ],
)
def test_styles_are_seen(text: str, style: str) -> None:
    assert dict(zip(STYLES, has_styles(text), strict=True))[style]
    plain = "Salt - and rain, 2 of 3; a|b, 3 * 4 * 5? Sorry to say so."
    assert not any(has_styles(plain))


def test_a_style_is_tested_on_the_pairs_in_which_one_alone_has_it() -> None:
    bold = [made(n, f"It is **salt {n}**", f"It is rain {n}") for n in range(30)]
    plain = [made(n, f"It is salt {n}", f"It is rain {n}") for n in range(30, 90)]
    (style,) = audit("made", bold + plain).styles
    assert style.name == "bold text"
    assert style.wins is not None
    assert (style.wins.value, style.wins.n) == (1, 30)
    assert style.difference.value == pytest.approx(1 / 3)
    assert style.p_value < 0.001


def test_prompts_that_stand_twice_are_found_and_counted() -> None:
    long = "Please tell me in a few words how salt is won from the sea in the north of the land"
    rows = [
        made(0, "So.", "Not so.", prompt=f"{long}?"),
        made(1, "So it is.", "Not so it is.", prompt=f"{long.upper()}!"),
        made(2, "Well.", "Not well.", prompt=f"{long} today, if you know it?"),
        made(3, "Thus.", "Not thus."),
        made(4, "", "Not empty."),
    ]
    doubles = audit("made", rows).doubles
    assert (doubles.repeated, doubles.near) == (2, 1)
    assert doubles.findings == {"empty-chosen": 1}


def test_prompts_are_looked_for_in_training_sets() -> None:
    rows, other = worded(10), worded(3)
    (found,) = audit("made", rows, training=[("mine", other + worded(30)[20:])]).training_sets
    assert (found.rows, found.overlapping, found.prompts, found.exact) == (13, 3, 3, 3)


def test_labels_are_held_against_another_version() -> None:
    rows = worded(20)
    turned = [replace(c, chosen=c.rejected, rejected=c.chosen) for c in rows[:3]]
    tied = [replace(rows[3], judgement=Judgement(chosen=0, tie=1))]
    spaced = [replace(c, chosen=f" {c.chosen}  ", source="other") for c in rows[4:15]]
    (found,) = audit("made", rows, versions=[("v2", [*turned, *tied, *spaced])]).stability
    assert (found.shared, found.only_here, found.only_there) == (15, 5, 0)
    assert found.tie_in_one == 1
    assert found.same.n == 14
    assert found.same.value == pytest.approx(11 / 14)
    assert set(found.flipped) == {c.id for c in rows[:3]}
    with pytest.raises(PalateError, match="no pair of responses in common"):
        audit("made", rows, versions=[("v2", worded(3, "so", "not"))])


def test_annotators_give_agreement_and_a_ceiling() -> None:
    def vote(n: int, who: str, turned: bool) -> Comparison:
        c = replace(worded(30)[n], annotator=who, id=f"{n}{who}")
        return replace(c, chosen=c.rejected, rejected=c.chosen) if turned else c

    rows = [vote(n, who, n < 3 and who == "b") for n in range(30) for who in "ab"]
    (found,) = audit("made", rows).agreement
    assert found.annotators == 2
    assert found.votes == 60
    assert found.agreement is not None
    assert found.agreement.value == pytest.approx(0.9)
    assert found.ceiling is not None
    assert found.ceiling.value == pytest.approx((1 + math.sqrt(0.8)) / 2)


def test_ties_are_counted_and_left_out() -> None:
    rows = worded(20)
    rows[0] = replace(rows[0], judgement=Judgement(chosen=0, tie=1))
    found = audit("made", rows)
    assert (found.size.ties, found.size.decided, found.whole.n) == (1, 19, 19)
    assert found.ties.value == pytest.approx(0.05)
    with pytest.raises(PalateError, match="all 1 comparisons are ties"):
        audit("made", rows[:1])
    with pytest.raises(PalateError, match="no comparisons"):
        audit("made", [])


@pytest.mark.parametrize("key", ["batch", "source", "subset", "category"])
def test_parts_are_batches_sources_or_what_meta_says(key: str) -> None:
    def part(n: int) -> str:
        return "ab"[n % 2]

    rows: Sequence[Comparison] = worded(10)
    if key in ("batch", "source"):
        rows = [replace(c, **{key: part(n)}) for n, c in enumerate(rows)]
    else:
        rows = [replace(c, meta={key: part(n)}) for n, c in enumerate(rows)]
    assert subset_names(rows) == ["a", "b"] * 5
    parts = audit("made", rows).subsets
    assert [(p.name, p.n) for p in parts] == [("a", 5), ("b", 5)]
    assert subset_names(worded(10)) is None


def test_an_audit_is_read_as_it_was_written(tmp_path: Path) -> None:
    rows = [*worded(12), made(12, "Indeed, and more of it than that.", "So.")]
    one, again = (audit("made", rows) for _ in range(2))
    assert one == again
    path = tmp_path / "audit.json"
    path.write_text(json.dumps({"sentences": [], **to_json(one)}, allow_nan=False))
    assert read_audit(path) == one
    path.write_text('{"name": "x"}')
    with pytest.raises(PalateError, match="remake it with `palate audit`"):
        read_audit(path)


def item(number: int, responses: tuple[str, ...], places: tuple[int, ...]) -> BenchmarkItem:
    prompt = (Message("user", f"What of matter number {number}?"),)
    return BenchmarkItem(f"k{number}", "made", prompt, responses, places, f"q{number}")


def test_of_items_of_k_a_judge_is_right_where_it_chooses_the_best() -> None:
    rng = np.random.default_rng(0)
    rows = []
    for n in range(400):
        texts = [f"{'so ' * int(k)}{n}" for k in rng.permutation(4) + 1]
        longest = int(np.argmax([len(text) for text in texts]))
        best = longest if n < 200 else int(rng.integers(4))
        rows.append(item(n, tuple(texts), tuple(int(k != best) for k in range(4))))
    found = audit("four", rows)
    r, judges = found.resolution, found.whole.judges
    assert (r.unit, r.n, r.prompts, r.chance) == ("item", 400, 400, 0.25)
    assert (found.size.items, found.size.rows, found.size.most_responses) == (400, 1_200, 4)
    longest = [max(range(4), key=lambda k, one=one: len(one.responses[k])) for one in rows]
    right = [one.places[k] == 0 for one, k in zip(rows, longest, strict=True)]
    assert judges["longer"].value == pytest.approx(np.mean(right))
    for blind in ("random", "first"):
        assert judges[blind].value == pytest.approx(0.25, abs=0.07)
    assert found.whole.above[0] in ("longer", "style", "bag of words")


def test_sets_of_right_responses_and_rankings_are_looked_at_by_pairs() -> None:
    rows = [item(n, (f"a {n}", f"b {n} b", f"c {n}"), (0, 0, 1)) for n in range(20)]
    found = audit("sets", rows)
    assert (found.resolution.unit, found.resolution.n, found.size.items) == ("pair", 40, 20)
    turns = tuple((Message("assistant", text),) for text in "xyz")
    apart = [replace(one, turns=turns) for one in rows[:4]]
    found = audit("turns", [*rows[4:], *apart])
    assert (found.size.items, found.size.left_out, found.size.rows) == (20, 4, 32)
