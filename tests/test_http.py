"""The rules by which the chat judge, the endpoint judge and the client ask a server."""

import asyncio
import math
import threading
from concurrent.futures import CancelledError
from email.utils import formatdate

import httpx2
import pytest

from palate.http import (
    Retry,
    Server,
    TransientError,
    address,
    error_line,
    one_line,
    retry_after,
)


def failing(times, error=None):
    """A call that fails so often, then gives "done"; and the list of its attempts."""
    attempts = []

    def send():
        attempts.append(len(attempts) + 1)
        if len(attempts) <= times:
            raise error or TransientError(f"fault {len(attempts)}")
        return "done"

    return send, attempts


def by_threads(retry, send):
    """What `call` returns, and its pauses in seconds."""
    pauses = []

    class Stop(threading.Event):
        def wait(self, seconds):
            pauses.append(seconds)

    return retry.call(send, Stop()), pauses


def by_tasks(retry, send):
    pauses = []

    async def attempt():
        return send()

    async def sleep(seconds):
        pauses.append(seconds)

    return asyncio.run(retry.call_async(attempt, sleep)), pauses


KINDS = pytest.mark.parametrize("call", [by_threads, by_tasks])


@KINDS
def test_a_fault_is_outlasted_with_doubling_pauses_that_differ(call):
    send, attempts = failing(4)
    result, pauses = call(Retry(5, 1.0, 6.0), send)
    assert (result, attempts) == ("done", [1, 2, 3, 4, 5])
    for doubled, pause in zip((1, 2, 4, 8), pauses, strict=True):
        assert doubled / 2 <= pause <= min(doubled, 6.0)
    assert call(Retry(5, 1.0, 6.0), failing(4)[0])[1] != pauses, "clients spread"


@KINDS
def test_the_last_attempt_s_fault_is_raised_and_others_at_once(call):
    send, attempts = failing(9)
    with pytest.raises(TransientError, match="fault 3"):
        call(Retry(3, 0.0, 0.0), send)
    assert attempts == [1, 2, 3]
    send, attempts = failing(9, ValueError("not a passing fault"))
    with pytest.raises(ValueError, match="not a passing"):
        call(Retry(3, 0.0, 0.0), send)
    assert attempts == [1]


@KINDS
def test_retry_after_is_a_lower_bound_and_has_an_upper_one(call):
    for asked, least, most in ((30.0, 30, 30), (86400.0, 60, 60), (0.0, 0.5, 1), (None, 0.5, 1)):
        send, _ = failing(1, TransientError("busy", retry_after_seconds=asked))
        _, (pause,) = call(Retry(2, 1.0, 60.0), send)
        assert least <= pause <= most


def test_who_is_stopped_sends_nothing_more():
    stop = threading.Event()
    stop.set()
    send, attempts = failing(0)
    with pytest.raises(CancelledError):
        Retry(3, 0.0, 0.0).call(send, stop)
    assert attempts == []
    stop.clear()

    def fails_and_stops():
        attempts.append(1)
        stop.set()
        raise TransientError("busy")

    with pytest.raises(CancelledError):  # In a pause of an hour.
        Retry(3, 3600.0, 3600.0).call(fails_and_stops, stop)
    assert attempts == [1]


@pytest.mark.parametrize(
    ("error", "line", "answer_lost"),
    [
        (httpx2.ConnectError("refused"), "cannot be reached (ConnectError: refused)", False),
        (httpx2.ConnectTimeout(""), "gives no answer in time (ConnectTimeout: )", False),
        (httpx2.ReadTimeout(""), "gives no answer in time (ReadTimeout: )", True),
        (
            httpx2.ReadError("at sk-1"),
            "breaks the connection (ReadError: at ***)",
            True,
        ),
    ],
)
def test_what_breaks_on_the_way_may_pass(error, line, answer_lost):
    """Whether an answer may have been made decides whether a paid call counts."""

    def breaks(_):
        raise error

    server = Server("http://h/x", "sk-1", 5.0, 1)
    with (
        httpx2.Client(transport=httpx2.MockTransport(breaks)) as client,
        pytest.raises(TransientError) as caught,
    ):
        server.post(client, b"{}")
    assert (str(caught.value), caught.value.answer_lost) == (line, answer_lost)
    assert "sk-1" not in repr(server)


@pytest.mark.parametrize("status", [408, 409, 424, 425, 429, 500, 503, 599, 200, 302, 400, 404])
def test_one_set_of_statuses_may_pass(status):
    server = Server("http://h/x", "", 5.0, 1)
    response = httpx2.Response(status, json={"error": "no"}, headers={"retry-after": "3"})
    if status in (200, 302, 400, 404):
        server.check_status(response)
        return
    with pytest.raises(TransientError, match=rf"answers {status} \(no\)") as caught:
        server.check_status(response)
    assert caught.value.retry_after_seconds == 3.0


@pytest.mark.parametrize(
    ("said", "least", "most"),
    [
        ("3", 3, 3),
        ("2.5", 2.5, 2.5),
        ("-3", 0, 0),
        (formatdate(0, usegmt=True), 0, 0),
        (formatdate(4e9, usegmt=True), 1e6, math.inf),
    ],
)
def test_retry_after_is_seconds_or_a_date(said, least, most):
    assert least <= retry_after({"retry-after": said}) <= most


@pytest.mark.parametrize("said", ["", "soon", "nan", "inf", "1e9", "9" * 400])
def test_retry_after_that_says_nothing_is_nothing(said):
    assert retry_after(httpx2.Headers({"retry-after": said})) is None
    assert retry_after({}) is None


@pytest.mark.parametrize(
    ("url", "wrong"),
    [
        ("localhost:8000", "expected http"),
        ("http://", "expected http"),
        ("http://h:0", "expected http"),
        ("http://u:sk-1@h", "no user, password"),
        ("https://h/?key=sk-1", "no user, password"),
    ],
)
def test_an_address_is_plain(url, wrong):
    with pytest.raises(ValueError, match=wrong) as caught:
        address(url)
    assert "sk-1" not in str(caught.value)
    assert address("http://h:1/") == "http://h:1"


def test_an_error_is_one_short_line_without_the_key():
    said = httpx2.Response(401, json={"error": {"message": "sk-1\nis\x20not  known", "code": 3}})
    assert error_line(said, "sk-1") == "*** is not known"
    assert error_line(httpx2.Response(502, text="<p>" + "x" * 999)) == "<p>" + "x" * 157
    assert error_line(httpx2.Response(503)) == "Service Unavailable"
    coded = httpx2.Response(429, json={"error": {"message": "pay", "code": "insufficient_quota"}})
    assert error_line(coded) == "insufficient_quota: pay"
    assert "sk-12" not in one_line("a" * 157 + "sk-12", "sk-12")
