"""infinity: a classifier of one label is a reranker to it, so that `/rerank` alone is there.

It joins query and document as the tokenizer joins two texts, without the template, and puts them
through a sigmoid (0.0.78). An empty query before the rendered conversation, with `raw_scores`, is
the reward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from palate.engines.base import Ask, Engine, Reading, Setup, Way
from palate.engines.session import Session


def _command(program: Path, model: Path, port: int, setup: Setup) -> list[str]:
    words = ["v2", "--model-id", str(model), "--device", "cpu", "--host", "127.0.0.1"]
    script = program.with_name("infinity_emb")
    start = [str(script)] if script.is_file() else [str(program), "-m", "infinity_emb.cli"]
    flags = " ".join(setup.flags).split()
    return [*start, *words, "--port", str(port), "--served-model-name", str(model), *flags]


def _served(session: Session) -> str | None:
    try:
        return str(session.get("/models")["data"][0]["id"])
    except (TypeError, KeyError, IndexError):
        return None


def _rerank(body: Callable[[Reading], dict[str, Any]]) -> Ask:
    def ask(session: Session, readings: Sequence[Reading]) -> list[float | None]:
        model = {"model": str(session.model)}
        answers = (session.post("/rerank", {**model, **body(one)}) for one in readings)
        return [answer["results"][0]["relevance_score"] for answer in answers]

    return ask


def _classify(session: Session, readings: Sequence[Reading]) -> list[float | None]:
    body = {"model": str(session.model), "input": [one.text for one in readings]}
    return [row[0]["score"] for row in session.post("/classify", body)["data"]]


WAYS = (
    Way(
        "/rerank",
        'query: "", documents: [rendered text], raw_scores: true',
        _rerank(lambda one: {"query": "", "documents": [one.text], "raw_scores": True}),
    ),
    Way(
        "/rerank",
        "query: prompt, documents: [response]",
        _rerank(lambda one: {"query": one.prompt, "documents": [one.response]}),
        promised=False,
        pairs=True,
        note="a sigmoid of texts joined without the template",
    ),
    Way(
        "/rerank",
        "query: prompt, documents: [response], raw_scores: true",
        _rerank(lambda one: {"query": one.prompt, "documents": [one.response], "raw_scores": True}),
        promised=False,
        pairs=True,
        note="texts joined without the template",
    ),
    Way(
        "/classify",
        "input: [rendered text]",
        _classify,
        promised=False,
        note="only of models with two labels or more",
    ),
)

INFINITY = Engine(
    name="infinity",
    title="infinity",
    distribution="infinity-emb",
    requirements=("infinity-emb[torch,server]==0.0.78", "click<8.2"),
    oldest="0.0.70",
    written="infinity_emb v2 --model-id MODEL",
    command=_command,
    setups=lambda _limit: (Setup((), WAYS),),
    served=_served,
    environment={"DO_NOT_TRACK": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0"},
    missing=(
        "**Messages.** No route takes them: render the conversation by the model's template.",
        "**`/classify` of one label.** It is refused: one label makes a reranker.",
    ),
)
