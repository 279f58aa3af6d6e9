"""What the judges that cost money would cost, and the most they may."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from palate.evaluate.benchmark import Benchmark, Order, OrderPlan
from palate.judges import chat_spec
from palate.judges.llm.cost import estimate
from palate.recipe.judges import JudgeSpec
from palate.types import PalateError

CHAT = "chat"
TOTALS = ("questions", "kept", "calls", "prompt_tokens", "completion_tokens")
MONEY = ("money", "most_money")


def costs(
    judges: Sequence[JudgeSpec], benchmarks: Mapping[str, Path], *, seed: int, order: str
) -> list[dict[str, Any]]:
    """A row for each chat judge on each benchmark, and their total; nothing is asked.

    Questions that are answered already cost nothing. Raises `PalateError` where a judge's options
    are wrong or its budget cannot be kept.
    """
    if order not in get_args(OrderPlan):
        raise PalateError(f"order: expected auto, seeded or both, got {order!r}")
    sides: Order = "seeded" if order == "seeded" else "both"
    rows = []
    for options in (judge[CHAT] for judge in judges if isinstance(judge, dict) and CHAT in judge):
        spec = chat_spec(options)
        for name, path in benchmarks.items():
            cost = estimate(spec, Benchmark(name, path).pairs(seed, sides))
            rows.append({"judge": spec.name or spec.model, "benchmark": name} | asdict(cost))
    return [*rows, _total(rows)] if len(rows) > 1 else rows


def with_budget(judges: Sequence[JudgeSpec], budget: float) -> tuple[JudgeSpec, ...]:
    """The judges, with the most money that each chat judge may cost.

    Raises:
        PalateError: there is no chat judge, so the budget would bound nothing.
    """
    if not any(map(_costs, judges)):
        raise PalateError("--budget: no chat judge is asked, so nothing costs money; leave it out")
    return tuple(_bounded(judge, budget) if _costs(judge) else judge for judge in judges)


def _costs(judge: JudgeSpec) -> bool:
    return isinstance(judge, dict) and CHAT in judge


def _bounded(judge: JudgeSpec, budget: float) -> JudgeSpec:
    options = judge[CHAT] if isinstance(judge, dict) else judge
    given = options if isinstance(options, dict) else {"model": options}
    return {CHAT: given | {"budget": budget}}


def _total(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The sums; of money only where every row has a price in the same currency."""
    total: dict[str, Any] = dict.fromkeys(rows[0], "") | {"judge": "total"}
    total |= {key: sum(row[key] for row in rows) for key in TOTALS}
    currencies = {row["currency"] for row in rows}
    for key in MONEY:
        known = len(currencies) == 1 and all(row[key] is not None for row in rows)
        total[key] = sum(row[key] for row in rows) if known else None
    return total | {"currency": currencies.pop() if len(currencies) == 1 else ""}
