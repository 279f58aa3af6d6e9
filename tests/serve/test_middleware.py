"""Whatever comes in is answered, named, bounded, and its text is in no log."""

import json
import logging
import socket
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

from palate.serve.app import Server
from palate.serve.auth import Tokens, add_token, revoke_token
from palate.serve.settings import Limits, Settings
from server import live, server_of, until

POSTS = (
    "/v1/reward",
    "/v1/compare",
    "/get_reward",
    "/v1/score/evaluation",
    "/slime",
    "/classify",
    "/pooling",
    "/score",
    "/v1/score",
    "/rerank",
    "/v1/rerank",
    "/v2/rerank",
    "/v1/embeddings",
    "/v1/classify",
    "/predict",
)
MALFORMED = {
    "nothing": b"",
    "no JSON": b"{",
    "null": b"null",
    "a number": b"3",
    "a list": b"[]",
    "an empty object": b"{}",
    "not UTF-8": b'{"text": "\xff\xfe"}',
    "half a surrogate pair": b'{"text": "\\ud800", "query": "\\ud800", "input": "\\ud800", '
    b'"inputs": "\\ud800", "prompt": "\\ud800", "response": "\\ud800", "responses": ["\\ud800"], '
    b'"messages": ["\\ud800"], "text_1": "\\ud800", "text_2": "\\ud800", "documents": ["\\ud800"]}',
    "deep": b'{"input": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a number without end": b'{"input": [' + b"9" * 10_000 + b"]}",
    "numbers that are none": b'{"deadline_seconds": NaN, "reference": Infinity, "input": [1e999]}',
    "wrong types": b'{"query": {"a": 1}, "input": [[1, "x"]], "text": [null], "inputs": [[]], '
    b'"messages": [{"role": "king", "content": 1}], "prompt": 1, "response": [], "text_1": 2, '
    b'"pairs": {}, "items": [[]]}',
    "empty lists": b'{"query": "x", "texts": [], "documents": [], "input": [], "messages": []}',
    "ids out of range": b'{"input": [2147483647], "input_ids": [99999], "text": "x"}',
    "ids below zero": b'{"input": [-1]}',
    "turns without an answer": b'{"messages": [{"role": "user", "content": "x"}]}',
}
# These say enough for some shape to be answered; all others must be refused by every path.
MAY_PASS = {"empty lists"}


@pytest.mark.parametrize("kind", MALFORMED)
def test_a_malformed_body_is_refused_in_every_shape(running, kind):
    for path in POSTS:
        headers = {"content-type": "application/json"}
        answer = running.http.post(path, content=MALFORMED[kind], headers=headers)
        assert answer.status_code in ({400, 413, 422} | ({200} if kind in MAY_PASS else set())), (
            path,
            answer.text,
        )
        assert "error" in answer.json() or answer.status_code == 200
        assert answer.headers["x-request-id"]


@pytest.mark.parametrize("key", ["input", "query", "text", "inputs", "messages", "documents"])
def test_a_list_of_mistakes_is_one_mistake(running, key):
    """Of a million nulls, a million errors would fill the memory."""
    for path in ("/classify", "/get_reward", "/predict", "/v1/rerank", "/v1/score/evaluation"):
        answer = running.post(path, {"query": "x", key: [None] * 10_000})
        assert answer.status_code in (200, 422)
        assert len(answer.text) < 1_000


def test_an_error_says_where_and_not_what(running):
    secret = "the text of a client"
    answer = running.post("/classify", {"input": [{"x": secret}]})
    assert answer.status_code == 422
    assert "input" in answer.json()["error"]["message"]
    assert secret not in answer.text


def test_other_paths_and_methods_are_errors_too(running):
    assert running.http.get("/nowhere").status_code == 404
    assert running.http.get("/classify").status_code == 405
    assert running.http.get("/classify").json()["error"]["code"] == 405
    form = running.http.post("/classify", content=b'{"input": "x"}')
    assert form.status_code == 422, "a web page's form is no JSON"


def test_requests_have_ids_their_own_or_ours(running):
    given = running.post("/get_reward", {"query": "x"}, **{"x-request-id": "step-7.a"})
    assert given.headers["x-request-id"] == "step-7.a"
    forged = running.post("/get_reward", {"query": "x"}, **{"x-request-id": "a b\tc"})
    assert len(forged.headers["x-request-id"]) == 32
    named = running.ok("/pooling", {"input": "x"}, **{"x-request-id": "mine"})
    assert named["id"] == "pool-mine"


def lines_of(caplog):
    """Of the requests whose id is `line-N`: that of an earlier test may be written late."""
    said = [r.getMessage() for r in caplog.records if r.name == "palate.serve"]
    return sorted(line for line in said if line.startswith("request=line-"))


def test_a_request_is_one_line_in_the_log_and_none_of_its_text(running, caplog):
    secret = "a very private question"
    with caplog.at_level(logging.DEBUG):
        ids = [{"x-request-id": f"line-{number}"} for number in range(4)]
        running.post("/v1/reward", {"prompt": secret, "responses": ["x"]}, **ids[0])
        wrong = {"prompt": {secret: secret}, "responses": [secret]}
        running.post("/v1/reward", wrong, **ids[1])
        running.http.get(f"/{secret}", params={"model": secret}, headers=ids[2])
        running.post(f"/pooling?model={secret}", {"input": secret}, **ids[3])
        until(lambda: len(lines_of(caplog)) == 4)  # A line is written after its answer.
    lines = lines_of(caplog)
    assert [line.split(" ")[3] for line in lines] == [
        "/v1/reward",
        "/v1/reward",
        "other",
        "/pooling",
    ]
    assert " 200 " in lines[0]
    assert "conversations=1" in lines[0]
    ours = [r for r in caplog.records if r.name.split(".")[0] in ("palate", "uvicorn", "asyncio")]
    assert not any("private" in r.getMessage() for r in ours)
    assert "private" not in running.http.get("/metrics").text


def test_a_deadline_that_is_none_is_refused(running):
    for wrong in ("0", "-1", "nan", "inf", "soon", ""):
        answer = running.post("/get_reward", {"query": "x"}, **{"x-deadline-seconds": wrong})
        assert answer.status_code == 422, wrong
    assert running.post("/v1/reward", {"prompt": "x", "responses": ["y"], "deadline_seconds": 0})
    running.ok("/get_reward", {"query": "x"}, **{"x-deadline-seconds": "30"})


def test_a_page_with_a_name_of_its_own_cannot_reach_a_loopback_server(running):
    answer = running.http.get("/v1/models", headers={"host": "evil.example"})
    assert answer.status_code == 421
    assert running.http.get("/v1/models", headers={"host": "localhost:1"}).status_code == 200


@contextmanager
def guarded(folder, tmp_path, **limits):
    """A server with tokens and tight limits, and one token's header."""
    file = tmp_path / "tokens"
    token = add_token(file, "trainer")
    settings = Settings(tokens=file, limits=Limits(**limits))
    most = settings.limits.characters_per_conversation
    server = server_of({"tiny": str(folder)}, settings, max_characters=most)
    server = Server(server.models, server.engines, settings, Tokens(file))
    with live(server) as found:
        yield found, {"authorization": f"Bearer {token}"}, file


def test_tokens_are_asked_for_and_can_be_taken_back(tiny_folder, tmp_path):
    with guarded(tiny_folder, tmp_path, requests_per_minute=3, tokens_per_minute=40) as (
        found,
        token,
        file,
    ):
        for path in ("/v1/models", "/metrics", "/info", "/openapi.json", "/nowhere"):
            assert found.http.get(path).status_code == 401
        assert [found.http.get(p).status_code for p in ("/health", "/ready")] == [200, 200]
        refused = found.post("/predict", {"inputs": "x"}, authorization="Bearer wrong")
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert set(refused.json()) == {"error", "error_type"}
        assert found.http.get("/v1/models", headers=token).status_code == 200

        text = "How do I bake bread? " * 10
        assert found.post("/get_reward", {"query": text}, **token).status_code == 200
        over = found.post("/get_reward", {"query": text}, **token)
        assert over.status_code == 429
        assert "tokens a minute" in over.json()["error"]["message"]
        assert int(over.headers["retry-after"]) >= 1
        found.post("/get_reward", {"query": "x"}, **token)
        over = found.post("/predict", {"inputs": "x"}, **token)
        assert (over.status_code, over.json()["error_type"]) == (429, "overloaded")
        assert "requests a minute" in over.json()["error"]

        other = {"authorization": f"Bearer {add_token(file, 'other')}"}
        assert found.post("/get_reward", {"query": "x"}, **other).status_code == 200
        revoke_token(file, "trainer")
        assert found.http.get("/v1/models", headers=token).status_code == 401


def test_bodies_are_bounded_in_size_number_and_time(tiny_folder, tmp_path):
    small = {"body_bytes": 2_000, "conversations_per_request": 2, "body_seconds": 0.2}
    with guarded(tiny_folder, tmp_path, characters_per_conversation=99, **small) as (
        found,
        token,
        _,
    ):

        def status(body, **headers):
            return found.http.post("/get_reward", headers=token | headers, **body).status_code

        assert status({"json": {"query": "x" * 3_000}}) == 413
        json_type = {"content-type": "application/json"}
        assert status({"content": iter([b" " * 1_500] * 2)}, **json_type) == 413
        assert status({"json": {"query": ["x"] * 3}}) == 413
        assert status({"json": {"query": "x" * 100}}) == 413
        assert status({"json": {"query": "x" * 99}}) == 200
        begun = (
            f"POST /get_reward HTTP/1.1\r\nhost: x\r\nauthorization: {token['authorization']}\r\n"
            'content-type: application/json\r\ncontent-length: 20\r\n\r\n{"query"'
        )
        assert said(found.url, begun).startswith("HTTP/1.1 408 ")


def said(url, text):
    """What a server answers to raw bytes until it hangs up."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=20) as connection:
        connection.sendall(text.encode())
        heard = b""
        while piece := connection.recv(65_536):
            heard += piece
    return heard.decode()


def test_the_openapi_document_names_every_path(running):
    document = running.http.get("/openapi.json").json()
    posts = {path for path, verbs in document["paths"].items() if "post" in verbs}
    assert posts == set(POSTS)
    assert json.dumps(document)
