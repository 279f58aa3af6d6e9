"""A comparison as pages show it: what is marked and cut, and that no text is lost."""

from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from made import made
from palate import escape
from palate.item_view import ItemVerdict, decimal, differences, item_view, marked_html
from palate.types import UNLABELLED, Comparison, Judgement, Message


def test_differences_are_what_the_other_side_has_not():
    one, two = differences(
        "Paris is the capital of France, and it lies on the Seine.",
        "Paris is the capital of Italy, and it lies on the Tiber today.",
    )
    assert [p.text for p in one if p.only] == ["France", "Seine."]
    assert [p.text for p in two if p.only] == ["Italy", "Tiber today."]


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from(["a", "b", "c,", ".", "é\u202e", "\n", "word"]), max_size=30))
def test_pieces_put_together_are_the_text(words):
    first, second = " ".join(words), " ".join(words[::2] + words[:5])
    pieces = differences(first, second)
    if pieces is not None:
        assert ["".join(p.text for p in side) for side in pieces] == [first, second]


def test_little_in_common_too_long_or_empty_is_not_compared():
    assert differences("one two three four five", "six seven eight nine ten") is None
    assert differences("", "one two three") is None
    assert differences("w " * 2_000, "w " * 2_000) is None
    assert not any(p.only for side in differences("same as it was", "same as it was") for p in side)


ONE = "The <b>bread</b> is baked in the oven for one hour, and then it is left to cool. "
TWO = "The <b>bread</b> is baked in the oven for two hours, and then it is left to cool. "


def test_a_view_cuts_texts_and_counts_what_is_left_out():
    row = made("p" * 50, ONE, TWO + "x" * 40)
    view = item_view(row, last_turns=1, turn_characters=20, response_characters=len(TWO))
    assert [(turn.text, turn.left_out) for turn in view.turns] == [("p" * 20, 30)]
    chosen, rejected = view.sides
    assert (chosen.label, chosen.left_out, rejected.left_out) == ("chosen", 0, 40)
    # The whole responses were compared, so that what is left of a cut one is not marked.
    assert view.compared
    assert [piece.text for piece in chosen.pieces if piece.only] == ["one hour"]
    assert [piece.text for piece in rejected.pieces] == [TWO]


def test_a_view_may_compare_what_it_shows():
    row = made("?", ONE, TWO + "x " * 2_000)
    shown = item_view(row, last_turns=1, response_characters=len(TWO), compare_whole=False)
    assert [piece.text for piece in shown.sides[1].pieces if piece.only] == ["two hours"]
    whole = item_view(row, last_turns=1, response_characters=len(TWO))
    assert not whole.compared
    assert [len(side.pieces) for side in whole.sides] == [1, 1]


def test_marked_html_escapes_every_piece():
    html = marked_html(differences(ONE, TWO + "<script>\u202e")[1], escape.html)
    assert "&lt;b&gt;bread&lt;/b&gt;" in html
    assert "<mark>two hours</mark>" in html
    assert '<mark>&lt;script&gt;<span class="hidden-char">U+202E</span></mark>' in html
    assert "<mark>&lt;script&gt;</mark>" in marked_html(differences(ONE, TWO + "<script>")[1])


def test_a_score_that_is_not_there_is_blank():
    assert [decimal(x) for x in (None, float("nan"), -0.5, 266.0)] == ["", "", "−0.50", "266.00"]
    assert ItemVerdict("j", "tie", 1.5, 1.0).margin == 0.5
    assert ItemVerdict("j", "unscored", 1.5, None).margin is None


def test_the_sides_of_a_tie_are_neither_chosen_nor_rejected():
    prompt = (Message("user", "Q?"),)
    tied = Comparison("i", "s", prompt, "a", "b", "p", judgement=Judgement(chosen=0, tie=1))
    sides = item_view(tied, last_turns=1).sides
    assert [(side.title, side.label) for side in sides] == [
        ("First, a tie", ""), ("Second, a tie", ""),
    ]  # fmt: skip
    asked = replace(tied, judgement=UNLABELLED)
    assert [side.title for side in item_view(asked, last_turns=1).sides] == ["First", "Second"]
