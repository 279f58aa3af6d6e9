"""Against real models behind real endpoints on loopback."""

import importlib.util
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from answering import endpoint
from palate.judges import open_judge
from palate.judges.llm.client import parse
from palate.model.backbone import load_backbone
from palate.types import Message, Pair
from speaking import save_speaker, speaks

PAIRS = [
    Pair(f"p{n}", (Message("user", f"What is {n} plus one?"),), f"It is {n + 1}.", "I hate you.")
    for n in range(6)
]


def test_served_with_all_logprobs_and_read_here_a_model_answers_alike(tmp_path, options):
    folder = save_speaker(tmp_path / "m", "llama")
    here = list(open_judge({"generation": str(folder)}).judge(PAIRS))
    with endpoint(speaks(folder)) as server:
        served = options(server.url, extra={"top_logprobs": 400})  # Its whole vocabulary.
        there = list(open_judge({"chat": served}).judge(PAIRS))
    for a, b in zip(here, there, strict=True):
        assert a.choice == b.choice
        assert a.first_score == pytest.approx(b.first_score, abs=1e-5)
        assert a.answer == b.answer


@pytest.mark.slow
def test_smollm2_behind_transformers_serve(tmp_path, options):
    missing = [name for name in ("fastapi", "uvicorn") if not importlib.util.find_spec(name)]
    if missing:
        pytest.skip(f"transformers serve needs {' and '.join(missing)}; pip install '.[dev]'")
    opened = load_backbone("smollm2", keep_head=True)
    folder = tmp_path / "smollm2"
    opened.model.save_pretrained(folder)  # The cached copy names no class that speaks.
    opened.tokenizer.save_pretrained(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(folder)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    log = tmp_path / "serve.log"
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process, log)
        given = options(f"http://127.0.0.1:{port}/v1", model=str(folder), concurrency=2)
        given |= {"timeout_seconds": 120}
        found = list(open_judge({"chat": given}).judge(PAIRS))
        process.terminate()
        process.wait()
        assert [preference.pair_id for preference in found] == [pair.id for pair in PAIRS]
        for preference in found:
            letter = {"first": "A", "second": "B", None: None}[preference.choice]
            assert parse(preference.answer) == letter, preference
            assert preference.first_score is None, "it gives no logprobs, so words are read"
            assert preference.seconds > 0
        assert any(preference.answer for preference in found)
        again = list(open_judge({"chat": given}).judge(PAIRS))
        assert again == found, "the server is gone, its answers are kept"
    finally:
        process.kill()
        process.wait()


def wait_for(url: str, process: subprocess.Popen, log: Path) -> None:
    until = time.monotonic() + 240
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            assert process.poll() is None, log.read_text()[-800:]
            assert time.monotonic() < until, "transformers serve did not start in four minutes"
            time.sleep(0.5)
