"""Limits a minute, as arithmetic of times."""

import pytest

from palate.judges.llm.pool import Pace


def test_without_limits_everything_starts_now():
    assert [Pace(None, None).start(5.0, 1000) for _ in range(3)] == [5.0, 5.0, 5.0]


def test_requests_are_spaced_and_tokens_count_too():
    pace = Pace(60, 6000)
    assert [pace.start(0.0, tokens) for tokens in (10, 500, 10, 10)] == [0.0, 1.0, 6.0, 7.0]
    assert pace.start(100.0, 10) == 100.0, "what was not used is not saved up"


@pytest.mark.parametrize("limit", [7, 60, 600])
def test_no_minute_holds_more_than_the_limit(limit):
    pace, times = Pace(limit, None), []
    for _ in range(5 * limit):
        times.append(pace.start(0.0, 1))
    for begin in times:
        assert sum(begin <= t < begin + 60 - 1e-6 for t in times) <= limit


def test_when_told_to_wait_nothing_starts():
    pace = Pace(None, None)
    pace.hold(9.0)
    pace.hold(4.0)
    assert pace.start(1.0, 1) == 9.0
