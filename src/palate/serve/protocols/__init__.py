"""The shapes in which clients ask for rewards: one file a family."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter

from palate.serve.desk import Desk
from palate.serve.protocols import own, sglang, shared_paths, tei, texts, vllm

FAMILIES: tuple[Callable[[Desk], APIRouter], ...] = (
    own.router,
    texts.router,
    vllm.router,
    sglang.router,
    tei.router,
    shared_paths.router,
)
