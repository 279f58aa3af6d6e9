"""What is accepted is answered, also after SIGTERM; what nobody waits for is not computed."""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from urllib.parse import urlsplit

import httpx2
import numpy as np
import pytest
import torch

from palate.serve import app
from palate.serve.settings import Limits, Settings
from palate.types import PalateError
from server import live, server_of, until

TEXT = {"query": "How do I bake bread?"}


@pytest.fixture
def held(tiny_folder):
    """A server whose model computes nothing while the test holds its device_lock."""
    device_lock = threading.Lock()
    settings = Settings(limits=Limits(requests_at_once=3))
    options = {"max_waiting_tokens": 8, "device_lock": device_lock}
    with live(server_of({"tiny": str(tiny_folder)}, settings, **options)) as found:
        found.ok("/get_reward", TEXT)
        with device_lock:
            yield found


def engine(found):
    return found.server.engines[0]


def test_a_full_queue_is_429_with_a_time_to_come_back(held):
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(held.post, "/get_reward", TEXT, **{"x-deadline-seconds": "0.3"})
        until(lambda: engine(held).waiting_tokens)
        refused = held.post("/classify", {"text": "x"})
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert held.http.get("/health").status_code == 200, "the loop is free"
        late = waiting.result()
    assert (late.status_code, late.json()["error"]["type"]) == (504, "late")
    until(lambda: not engine(held).waiting_tokens)


def test_a_client_that_hangs_up_is_forgotten(held):
    parts = urlsplit(held.url)
    body = b'{"query": "x"}'
    head = (
        "POST /get_reward HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((parts.hostname, parts.port)) as connection:
        connection.sendall(head.encode() + body)
        until(lambda: engine(held).waiting_asks)
    until(lambda: not engine(held).waiting_asks)
    assert engine(held).stats.cancelled == 1
    assert engine(held).waiting_tokens == 0


def test_more_requests_at_once_than_allowed_are_429(held):
    with ThreadPoolExecutor() as pool:
        deadline = {"x-deadline-seconds": "0.3"}
        for _ in range(3):
            pool.submit(held.post, "/get_reward", {"query": ""}, **deadline)
        until(lambda: held.server.state.under_way == 3)
        refused = held.post("/get_reward", TEXT)
    assert refused.status_code == 429


def test_leaving_answers_what_was_accepted_and_takes_no_more(tiny_folder):
    device_lock = threading.Lock()
    options = {"device_lock": device_lock}
    with (
        live(server_of({"tiny": str(tiny_folder)}, **options)) as found,
        ThreadPoolExecutor() as pool,
    ):
        expected = found.ok("/get_reward", TEXT)
        with device_lock:
            accepted = [pool.submit(found.post, "/get_reward", TEXT) for _ in range(4)]
            until(lambda: engine(found).waiting_asks == 4)
            found.leave()
            until(lambda: found.http.get("/ready").status_code == 503)
            assert found.http.get("/health").status_code == 200
            until(lambda: found.server.state.closed)
            refused = found.post("/predict", {"inputs": "x"})
            assert (refused.status_code, refused.json()["error_type"]) == (503, "unhealthy")
            assert refused.headers["connection"] == "close"
        assert [a.result().json() for a in accepted] == [expected] * 4
        assert found.stopped.wait(20)
        with pytest.raises(httpx2.ConnectError):
            found.http.get("/health")


def test_in_the_grace_time_requests_are_still_taken(tiny_folder):
    settings = Settings(grace_seconds=0.5)
    with live(server_of({"tiny": str(tiny_folder)}, settings)) as found:
        found.ok("/get_reward", TEXT)
        found.leave()
        until(lambda: found.http.get("/ready").status_code == 503)
        answer = found.post("/get_reward", TEXT)
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")
        assert found.stopped.wait(20)


def test_a_reward_that_is_no_number_is_an_error(tiny_folder):
    server = server_of({"tiny": str(tiny_folder)})
    with live(server) as found:
        found.ok("/get_reward", TEXT)
        with torch.no_grad():
            server.engines[0].model.head.weight.fill_(np.inf)
        answer = found.post("/get_reward", TEXT)
        assert (answer.status_code, answer.json()["error"]["type"]) == (500, "model_failed")
        tei = found.post("/predict", {"inputs": "x", "raw_scores": True})
        assert (tei.status_code, tei.json()["error_type"]) == (424, "backend")


def test_a_model_that_gives_no_numbers_is_not_served(tiny_folder):
    server = server_of({"tiny": str(tiny_folder)})
    with torch.no_grad():
        server.engines[0].model.head.weight.fill_(np.nan)
    with pytest.raises(PalateError, match="tiny: cannot be served"), live(server) as found:
        assert found.stopped.wait(20)


TEXTS = {"query": [f"How do I bake {n} loaves of bread?" for n in range(64)]}


@pytest.mark.slow
def test_sigterm_under_load_answers_what_was_accepted(tiny_folder):
    command = [sys.executable, "-m", "palate", "serve", str(tiny_folder), "--port", "0"]
    with (
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process,
        ThreadPoolExecutor(17) as pool,
    ):
        assert process.stderr is not None
        url = next(
            found[1] for line in process.stderr if (found := re.search(r"at (http\S+):", line))
        )
        lines = pool.submit(process.stderr.readlines)
        under_way = threading.Event()

        def ask(client):
            """Requests until the server says that it leaves; what it said to each."""
            heard = []
            with httpx2.Client(base_url=url, timeout=60) as http:
                while True:
                    try:
                        answer = http.post("/get_reward", json=TEXTS)
                    except httpx2.ConnectError:  # It was gone before the request was sent.
                        return heard
                    except httpx2.RemoteProtocolError:
                        # The idle connection was closed as the request was on its way: not taken.
                        return heard
                    heard.append(answer)
                    if len(heard) == 3:
                        under_way.set()
                    if answer.status_code != 200:
                        return heard

        asking = [pool.submit(ask, client) for client in range(16)]
        assert under_way.wait(60)
        process.send_signal(signal.SIGTERM)
        heard = [answer for future in asking for answer in future.result()]
        assert process.wait(60) == 0
        logged = re.findall(r"request=(\w+) .* POST /get_reward (\d+) ", "".join(lines.result()))
    # Every request that reached the server is in its log, and was heard.
    assert dict(logged) == {a.headers["x-request-id"]: str(a.status_code) for a in heard}
    assert {answer.status_code for answer in heard} <= {200, 503}
    rewards = {tuple(a.json()["rewards"]) for a in heard if a.status_code == 200}
    first = next(iter(rewards))
    assert all(found == pytest.approx(first, rel=1e-5, abs=1e-5) for found in rewards)


def passed(listening, *words):
    """A command's process that is given a socket as systemd gives it: as descriptor 3."""
    start = 'LISTEN_FDS=1 LISTEN_PID=$$ exec "$@"'
    return subprocess.Popen(
        ["sh", "-c", start, "sh", sys.executable, "-m", "palate", *words],
        stderr=subprocess.PIPE,
        text=True,
        pass_fds=(3,),
        preexec_fn=lambda: os.dup2(listening.fileno(), 3),
    )


@pytest.mark.slow  # Starts two servers as processes.
def test_a_new_server_takes_over_the_socket_of_the_old_one_and_no_request_is_lost(tiny_folder):
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listening, ExitStack() as stack:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"

        def started():
            process = stack.enter_context(passed(listening, "serve", str(tiny_folder)))
            stack.callback(process.kill)
            ready = next((line for line in process.stderr if f"ready at {url}" in line), None)
            assert ready, "it says where the socket is, not --port"
            return process, pool.submit(process.stderr.readlines)

        def ask(client):
            """Requests one after another; odd clients open a connection for each."""
            heard = []
            with httpx2.Client(timeout=60) as kept:
                while not over.wait(0.02):  # So that the new server gets to start.
                    post = httpx2.post if client % 2 else kept.post
                    heard.append(post(f"{url}/get_reward", json=TEXT, timeout=60))
            return heard

        pool = stack.enter_context(ThreadPoolExecutor(6))
        stack.callback(over.set)
        old, old_lines = started()
        asking = [pool.submit(ask, client) for client in range(4)]
        new, new_lines = started()
        old.send_signal(signal.SIGTERM)
        assert old.wait(60) == 0
        alone = httpx2.post(f"{url}/get_reward", json=TEXT, timeout=60)
        over.set()
        heard = [*(answer for future in asking for answer in future.result()), alone]
        new.send_signal(signal.SIGTERM)
        assert new.wait(60) == 0
        said = re.compile(r"request=(\w+) .* POST /get_reward 200 ")
        by_old, by_new = (
            set(said.findall("".join(lines.result()))) for lines in (old_lines, new_lines)
        )
    assert {answer.status_code for answer in heard} == {200}
    assert {answer.headers["x-request-id"] for answer in heard} == by_old | by_new
    assert len(by_old) > 8
    assert len(by_new) > 8
    assert alone.headers["x-request-id"] in by_new


@pytest.mark.parametrize(
    ("count", "kind", "said"),
    [
        ("2", None, "LISTEN_FDS=2: expected one socket"),
        ("1", "file", r"file descriptor \d+ is no socket"),
        ("1", "udp", "expected a TCP socket that listens"),
    ],
)
def test_what_is_passed_and_is_no_listening_socket_is_one_line(count, kind, said, monkeypatch):
    monkeypatch.setenv("LISTEN_FDS", count)
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    with ExitStack() as stack:
        if kind is not None:
            opened = {"file": tempfile.TemporaryFile, "udp": lambda: socket.socket(type=2)}[kind]()
            number = os.dup(stack.enter_context(opened).fileno())
            monkeypatch.setattr(app, "PASSED_FD", number)
        with pytest.raises(PalateError, match=said):
            app.passed_socket()
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv("LISTEN_PID", "1")
    assert app.passed_socket() is None, "meant for another process"


def test_a_supervisor_is_told_when_the_server_is_ready_and_when_it_stops(
    tiny_folder, tmp_path, monkeypatch
):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(tmp_path / "notify"))
        supervisor.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        with live(server_of({"tiny": str(tiny_folder)})) as found:
            assert supervisor.recv(99) == b"READY=1"
            found.leave()
            assert supervisor.recv(99) == b"STOPPING=1"
