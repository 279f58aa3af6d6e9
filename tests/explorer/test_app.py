"""Who is let in, from where changes are taken, and what a browser is told it may do."""

import pytest
from starlette.testclient import TestClient

from palate.explorer.app import build_app, serve
from palate.explorer.run import Explorer
from palate.types import PalateError

TOKEN, PORT = "a-token-for-tests-only", 4321
COOKIE = f"palate-view-{PORT}"


@pytest.fixture
def stranger(opened):
    app = build_app(Explorer((opened,), "ann"), token=TOKEN, port=PORT)
    return TestClient(app, base_url=f"http://127.0.0.1:{PORT}", follow_redirects=False)


def test_nothing_is_shown_without_the_token(stranger):
    pages = ["", "r/0/", "r/0/item/1", "r/0/marks", "r/0/marks.parquet", "r/0/live", "no"]
    for token in ("", "?token=", "?token=wrong", "?token=%80", "?q=token"):
        for path in pages:
            answer = stranger.get(f"/{path}{token}")
            assert answer.status_code == 403, path
            assert "exam" not in answer.text
            assert "set-cookie" not in answer.headers
    for path in ("name", "blind", "r/0/live", "r/0/item/1/mark"):
        assert stranger.post(f"/{path}", data={"annotator": "x"}).status_code == 403


def test_a_cookie_of_another_explorer_or_a_broken_one_is_no_pass(stranger):
    for cookie in (f"palate-view-1={TOKEN}", f"{COOKIE}=wrong", f"{COOKIE}=", "=;;;\x80", COOKIE):
        headers = {"cookie": cookie.encode("latin-1")}
        assert stranger.get("/r/0/", headers=headers).status_code == 403


def test_the_token_is_exchanged_for_a_cookie_that_script_and_other_sites_cannot_use(stranger):
    answer = stranger.get(f"/r/0/?q=bread&token={TOKEN}&rating=better")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert 'content="0;url=/r/0/?q=bread&amp;rating=better"' in answer.text
    assert TOKEN not in answer.text
    assert stranger.get("/r/0/").status_code == 200


@pytest.mark.parametrize("path", ["//evil.example/", "/%2F%2Fevil.example", "/\\evil", '/"><b>'])
def test_the_way_in_leads_nowhere_else(stranger, path):
    text = stranger.get(f"http://127.0.0.1:{PORT}{path}?token={TOKEN}").text
    (where,) = (part.split('"')[0] for part in text.split('content="0;url=')[1:])
    assert where.startswith("/")
    assert not where.startswith(("//", "/\\"))
    assert "<b>" not in text


def test_every_answer_carries_the_policy(browse, opened, stranger):
    browser = browse(opened)
    answers = [
        browser.get(path)
        for path in ("/r/0/", "/r/0/item/1", "/r/0/nothing", "/static/view.js", "/static/no.css")
    ]
    for answer in [*answers, stranger.get("/")]:
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'self'; script-src 'self'")
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert answers[0].headers["cache-control"] == "no-store"


def test_pages_hold_no_script_or_style_of_their_own(browse, opened):
    browser = browse(opened)
    for path in ("", "item/3", "item/59", "marks", "live", "nothing"):
        text = browser.get(f"/r/0/{path}").text
        assert text.count("<script") == 1
        assert '<script src="/static/view.js" defer></script>' in text
        for inline in (" style=", "<style", " onclick", " onload", ' onerror="', 'javascript:"'):
            assert inline not in text, (path, inline)


def test_a_change_from_another_origin_is_refused(browse, marking):
    browser = browse(marking)
    mark = {"choice": "agree"}
    for origin in ("http://evil.example", f"http://127.0.0.1:{PORT + 1}", "null", "http://"):
        answer = browser.post("/r/0/item/1/mark", data=mark, headers={"origin": origin})
        assert answer.status_code == 403, origin
    assert marking.annotations.all() == []
    own = {"origin": f"http://127.0.0.1:{PORT}"}
    assert browser.post("/r/0/item/1/mark", data=mark, headers=own).status_code == 200
    assert len(marking.annotations.all()) == 1


def test_a_body_has_a_known_and_bounded_length(browse, marking):
    browser = browse(marking)
    big = browser.post("/r/0/item/1/mark", content=b"note=" + b"x" * (1 << 20))
    assert big.status_code == 413
    endless = browser.post("/r/0/item/1/mark", content=iter([b"choice=agree"]))
    assert endless.status_code == 411
    many = browser.post("/r/0/item/1/mark", content=b"a=1&" * 100)
    assert many.status_code == 400
    assert marking.annotations.all() == []


def test_a_token_that_can_be_guessed_is_refused(saved_run):
    with pytest.raises(PalateError, match="PALATE_VIEW_TOKEN: expected 16 characters"):
        serve([saved_run], annotator="ann", token="secret", opened=print)
