"""What the chat judge, the endpoint judge and the client read alike."""

import math
from email.utils import formatdate

import httpx2
import pytest

from palate.http import address, error_line, one_line, retry_after


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
    assert "sk-12" not in one_line("a" * 157 + "sk-12", "sk-12")
