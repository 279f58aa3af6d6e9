"""Buckets of what a client may ask."""

import pytest

from palate.serve.settings import MAX_CLIENTS, TokenBucket


class Clock:
    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds


@pytest.fixture
def clock():
    return Clock()


def test_without_a_limit_nobody_waits(clock):
    assert TokenBucket(None, clock).wait_seconds("a", 1e9) == 0


def test_a_minutes_worth_at_once_then_as_it_refills(clock):
    allowance = TokenBucket(60, clock)
    assert [allowance.wait_seconds("a", 1) for _ in range(60)] == [0] * 60
    assert allowance.wait_seconds("a", 1) == pytest.approx(1.0)
    clock.seconds = 1.0
    assert allowance.wait_seconds("a", 1) == 0
    assert allowance.wait_seconds("a", 1) == pytest.approx(1.0)


def test_clients_have_a_bucket_each(clock):
    allowance = TokenBucket(1, clock)
    assert allowance.wait_seconds("a", 1) == 0
    assert allowance.wait_seconds("a", 1) > 0
    assert allowance.wait_seconds("b", 1) == 0


def test_more_than_a_minutes_worth_is_paid_back_by_waiting(clock):
    allowance = TokenBucket(100, clock)
    assert allowance.wait_seconds("a", 350) == 0
    wait = allowance.wait_seconds("a", 1)
    assert wait == pytest.approx(60 * 251 / 100)
    clock.seconds = wait - 0.1
    assert 0 < allowance.wait_seconds("a", 1) < 1
    clock.seconds = wait + 1e-6
    assert allowance.wait_seconds("a", 1) == 0


def test_waiting_is_free_and_a_bucket_does_not_overflow(clock):
    allowance = TokenBucket(10, clock)
    clock.seconds = 1e6
    assert allowance.wait_seconds("a", 10) == 0
    assert [allowance.wait_seconds("a", 1) for _ in range(3)] == [pytest.approx(6.0)] * 3


def test_clients_without_end_are_forgotten(clock):
    allowance = TokenBucket(1, clock)
    for number in range(MAX_CLIENTS + 50):
        allowance.wait_seconds(str(number), 1)
    assert len(allowance._buckets) == MAX_CLIENTS
