"""How people agree with labels, judges and each other, on marks whose truth is known."""

import numpy as np
import pytest

from palate.explorer.annotations import Annotation, measure_agreement
from palate.types import Rating


def marks_of(index, annotator, choices, start=0, **fields):
    ids = index.ids_of(range(start, start + len(choices)))
    names = {True: "chosen", False: "rejected", None: ""}
    return [
        Annotation(annotator, id, names[c], **fields) for id, c in zip(ids, choices, strict=True)
    ]


@pytest.fixture(scope="module")
def index(opened):
    return opened.index


def test_agreement_with_the_label_is_the_share_of_chosen(index):
    marks = marks_of(index, "ann", [True] * 30 + [False] * 10 + [None] * 5, blind=True)
    (ann,) = measure_agreement(index, marks).annotators
    assert (ann.marks, ann.decided, ann.blind) == (45, 40, 40)
    assert ann.with_label.value == 0.75
    assert ann.with_label.n_clusters == 20  # Two comparisons a prompt.


def test_kappa_is_of_sides_so_that_agreeing_with_labels_is_not_chance(index):
    """By label, two people who both nearly always say "chosen" would have a kappa near zero."""
    ann = marks_of(index, "ann", [True] * 48 + [False] * 2)
    bob = marks_of(index, "bob", [False] * 2 + [True] * 48)
    found = measure_agreement(index, ann + bob)
    (pair,) = found.couples
    assert pair.agreement.value == 46 / 50
    assert pair.kappa.value == pytest.approx(0.84, abs=0.03)
    assert found.alpha.value == pytest.approx(0.84, abs=0.03)


def test_who_shares_nothing_makes_no_couple(index):
    ann, bob = marks_of(index, "ann", [True] * 5), marks_of(index, "bob", [True] * 5, 20)
    found = measure_agreement(index, ann + bob)
    assert found.couples == ()
    assert found.alpha is None
    assert found.ceiling is None
    assert found.ceiling_with_label.agreement.value == 1.0


def test_the_noise_ceiling_of_two_people(index):
    """Agreement 0.82 is a ceiling of (1 + sqrt(0.64)) / 2 = 0.9."""
    ann = marks_of(index, "ann", [True] * 50)
    bob = marks_of(index, "bob", [False] * 9 + [True] * 41)
    found = measure_agreement(index, ann + bob).ceiling
    assert found.agreement.value == pytest.approx(0.82)
    assert found.ceiling.value == pytest.approx(0.9)


def test_strength_is_from_minus_four_to_four(index):
    ann = marks_of(index, "ann", [True] * 40, rating=Rating.SIGNIFICANTLY)
    near = marks_of(index, "bob", [True] * 40, rating=Rating.BETTER)
    far = marks_of(index, "bob", [True] * 40, rating=Rating.NEGLIGIBLY)
    close = measure_agreement(index, ann + near)
    wide = measure_agreement(index, ann + far)
    assert close.alpha.value == wide.alpha.value == 1.0
    assert close.alpha_strength.value > wide.alpha_strength.value + 0.2


def test_judges_are_right_by_the_marks_where_people_turn_the_label(index):
    outcomes = index.judges["helpful"].outcomes[:40]
    right = np.where(outcomes == 3, 0.5, outcomes == 1)[outcomes != 4]
    marks = marks_of(index, "ann", [False] * 40)
    judges = {j.judge: j for j in measure_agreement(index, marks).judges}
    assert judges["helpful"].by_label.value == pytest.approx(right.mean())
    assert judges["helpful"].by_marks.value == pytest.approx(1 - right.mean())
    assert judges["helpful"].by_marks.n == len(right)
    # Of the mixture nobody was asked.
    assert measure_agreement(index, marks_of(index, "a", [True] * 5, 60)).judges == ()


def test_marks_of_another_run_are_counted_apart(index):
    found = measure_agreement(index, [Annotation("ann", "elsewhere", "chosen")])
    assert found.absent == 1
    assert np.isnan(found.annotators[0].with_label.value)
    assert measure_agreement(index, []).annotators == ()


def test_the_page_tells_blind_marks_from_all(browse, marking):
    index = marking.index
    for mark in marks_of(index, "<b>", [True] * 8 + [False] * 2, blind=True):
        marking.annotations.put(mark)
    for mark in marks_of(index, "bob", [True] * 10):
        marking.annotations.put(mark)
    browser = browse(marking)
    every, blind = (browser.get(f"/r/0/marks{q}").text for q in ("", "?blind=yes"))
    assert "&lt;b&gt; and bob" in every
    assert "80.0 [" in every
    assert "Noise ceiling" in every
    assert "bob" not in blind
