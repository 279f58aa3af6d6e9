"""The command itself, in a process of its own: ready soon, and gone without losing an answer."""

import re
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

pytestmark = pytest.mark.slow
TEXTS = {"query": [f"How do I bake {n} loaves of bread?" for n in range(64)]}


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
