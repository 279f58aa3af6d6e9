"""A preference, its record and its verdict say the same."""

import json
import math

import numpy as np
import pytest

from palate.evaluate.run import record_from, record_of, verdict_of
from palate.types import Outcome, PalateError, Preference

DETAILS = {"judge": "j", "benchmark": "b", "protocol_fingerprint": "f"}


@pytest.mark.parametrize("choice", ["first", "second", "tie", None])
def test_a_record_survives_its_verdict_on_either_side(make_benchmark, choice):
    said = Preference(
        "p", choice, 0.75, 0.25, reason="" if choice else "unparsed",
        truncated=True, answer="A, I think\x00", seconds=1.5,
    )  # fmt: skip
    record = record_of("j", said)
    assert json.loads(json.dumps(record)) == record
    for item in make_benchmark(2).items(order="both"):
        verdict = verdict_of(item, record, DETAILS)
        assert record_from(verdict) == record
        assert (verdict.answer, verdict.seconds) == ("A, I think\x00", 1.5)
        assert verdict.chosen_score == (0.75 if item.chosen_first else 0.25)


def test_a_record_of_an_earlier_palate_has_no_words(make_benchmark):
    (item,) = make_benchmark(1).items()
    verdict = verdict_of(item, ["tie", 1.0, 1.0, "", False], DETAILS)
    assert (verdict.outcome, verdict.answer, verdict.seconds) == (Outcome.TIE, "", None)


@pytest.mark.parametrize("seconds", [math.nan, math.inf, np.float32("nan"), None])
def test_a_time_that_is_none_is_not_known(seconds):
    assert record_of("j", Preference("p", "first", seconds=seconds))[-1] is None


def test_numbers_of_numpy_become_plain():
    record = record_of("j", Preference("p", "first", np.float32(0.5), np.int64(0), seconds=np.pi))
    assert json.loads(json.dumps(record)) == ["first", 0.5, 0.0, "", False, "", np.pi]


def test_a_choice_that_is_none_is_one_line():
    with pytest.raises(PalateError, match="judge j: expected first, second, tie or None, got 'A'"):
        record_of("j", Preference("p", "A"))
