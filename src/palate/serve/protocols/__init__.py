"""The shapes in which clients ask for rewards: one file a family."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter

from palate.serve.protocols import palate, sglang, shared_paths, tei, trainers, vllm
from palate.serve.service import RewardService

FAMILIES: tuple[Callable[[RewardService], APIRouter], ...] = (
    palate.router,
    trainers.router,
    vllm.router,
    sglang.router,
    tei.router,
    shared_paths.router,
)
