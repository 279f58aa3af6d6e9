"""The shapes in which clients ask for rewards: a file for each protocol.

A rerank like Cohere's or Jina's is one more path of `vllm.py`; what two protocols ask under one
path is told apart in `shared_paths.py`.

To add a protocol, write a file here that has

1. a table of its fields, `FIELDS = {"name": honoured(...), "other": refused(cure, ...)}`, from the
   peer's own request model (`schema.py` says what the three words do);
2. the request, `class MyRequest(RequestBody, fields=FIELDS)`, which declares the fields that are
   read, and a pydantic model of the answer;
3. `router(service)`: a FastAPI route for each path, which turns the body into conversations, texts
   or token ids (`schema.conversation`, `answered`, `forms`), asks `service.rewards`, and answers.

Then add its `router` to `PROTOCOLS` below, a mark `<!-- fields: FILE -->` to docs/serve.md (its
table is written by `python tests/serve/test_schema.py`), and the peer's fields to
tests/serve/peers.json. A path that two protocols share goes to `shared_paths.py`; errors in a
shape of the protocol's own are in `serve/errors.py`.
"""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter

from palate.serve.protocols import palate, sglang, shared_paths, tei, trainers, vllm
from palate.serve.service import RewardService

PROTOCOLS: tuple[Callable[[RewardService], APIRouter], ...] = (
    palate.router,
    trainers.router,
    vllm.router,
    sglang.router,
    tei.router,
    shared_paths.router,
)
