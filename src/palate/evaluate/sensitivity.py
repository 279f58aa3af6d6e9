"""How far one judge's figure moves when nothing about it should matter: order, wording, and so on.

Each variant is the same judge on the same pairs with one thing changed: the sides the other way
round, a system turn or white space added to the prompt, conversations cut at a length, another
number format, another batch. Its accuracy is held against the judge's own, pair by pair. Verdicts
are kept, so that a stopped measurement goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from palate import stats
from palate.data.prompts import hash64
from palate.evaluate.benchmark import Benchmark, majority_first
from palate.evaluate.journal import Progress
from palate.evaluate.metrics import values_of
from palate.evaluate.results import JudgeResults, read_judge_results
from palate.evaluate.run import evaluate, slug
from palate.records import write_comparisons
from palate.stats import Estimate
from palate.types import Comparison, Judge, Message, PalateError, is_text

SAMPLE = 200
"""How many pairs are asked by default, whole prompts."""
SYSTEM = "You are a helpful assistant."
LENGTHS = (512, 1_024)
"""Tokens at which conversations are cut, where a judge can be told to."""
SEED = 0

Spec = Mapping[str, Any]
Open = Callable[[Spec], Judge]  # `judges.open_judge`.
Rewrite = Callable[[Comparison], Comparison]


@dataclass(frozen=True, slots=True)
class Variant:
    """The judge with one thing changed: its spec, the order of the sides, or the prompts."""

    kind: str
    name: str
    spec: Spec
    swap: bool = False
    rewrite: Rewrite | None = None


@dataclass(frozen=True, slots=True)
class Moved:
    """What a variant does to the figure; p and interval are those of a family of all variants.

    `flips` is the share of pairs with another answer, of those that both scored.
    """

    kind: str
    name: str
    accuracy: Estimate
    difference: Estimate
    p_value: float
    flips: float


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """One judge's figure on `pairs` of a benchmark, and how far it moves."""

    judge: str
    pairs: int
    accuracy: Estimate
    moved: tuple[Moved, ...]
    skipped: tuple[str, ...] = ()

    @property
    def low(self) -> float:
        """The lowest accuracy of judge and variants."""
        return min(self.accuracy.value, *(one.accuracy.value for one in self.moved))

    @property
    def high(self) -> float:
        """The highest."""
        return max(self.accuracy.value, *(one.accuracy.value for one in self.moved))


def sample(comparisons: Sequence[Comparison], pairs: int) -> list[Comparison]:
    """At most so many decided comparisons, and one prompt more: whole prompts, drawn by a hash."""
    decided = [c for c in map(majority_first, comparisons) if c.judgement.decides != "tie"]
    by_prompt: dict[str, list[Comparison]] = {}
    for c in decided:
        by_prompt.setdefault(c.prompt_id, []).append(c)
    taken: list[Comparison] = []
    for prompt in sorted(by_prompt, key=lambda one: hash64("sample", one)):
        if len(taken) >= pairs:
            break
        taken += by_prompt[prompt]
    seen: set[str] = set()
    return [c for c in taken if not (c.id in seen or seen.add(c.id))]  # type: ignore[func-returns-value]


def variants(spec: Spec) -> Iterator[Variant]:
    """What can be changed of a judge of this kind; of all kinds the order and the prompts."""
    ((kind, given),) = spec.items()
    options: dict[str, Any] = dict(given) if isinstance(given, Mapping) else {}
    if not isinstance(given, Mapping) and given is not None:
        options = {("folder" if kind == "reward-model" else "model"): given}

    def changed(**more: Any) -> Spec:
        return {kind: {**options, **more}}

    yield Variant("order", "sides the other way round", spec, swap=True)
    yield Variant("wording", "a system turn in front", spec, rewrite=_with_system)
    yield Variant("wording", "a blank line after the prompt", spec, rewrite=_with_blank_line)
    if kind in ("chat", "generation"):
        from palate.judges.questions import load_prompt, presets

        own = options.get("preset", "llama2-zero-shot")
        for preset in presets(load_prompt(own).asks):
            if preset != own:
                yield Variant("wording", f"prompt {preset}", changed(preset=preset))
    if kind in ("sequence-classifier", "reward-model", "generation", "text-to-text"):
        for length in LENGTHS:
            cut = {"over_limit": "cut-oldest"} if kind == "sequence-classifier" else {}
            yield Variant("length", f"{length:,} tokens", changed(max_tokens=length, **cut))
    if kind in ("reward-model", "generation"):
        own = options.get("dtype", "float32")
        other = "bfloat16" if own == "float32" else "float32"
        yield Variant("number format", other, changed(dtype=other))
    batch = "tokens_per_microbatch" if kind == "reward-model" else "batch_tokens"
    if kind in ("sequence-classifier", "reward-model", "generation", "text-to-text"):
        yield Variant("batch", "one conversation at a time", changed(**{batch: 1}))


def _with_system(c: Comparison) -> Comparison:
    if c.prompt[0].role == "system" or not is_text(c.prompt):
        return c
    return replace(c, prompt=(Message("system", SYSTEM), *c.prompt))


def _with_blank_line(c: Comparison) -> Comparison:
    last = c.prompt[-1]
    if last.role != "user" or last.fields:
        return c
    return replace(c, prompt=(*c.prompt[:-1], replace(last, content=f"{last.content}\n\n")))


def sensitivity(
    name: str,
    comparisons: Sequence[Comparison],
    judge: str | Spec,
    folder: Path,
    open_judge: Open,
    *,
    pairs: int = SAMPLE,
    progress: Progress | None = None,
) -> Sensitivity:
    """Ask a judge, and each of its variants, about the same pairs.

    Args:
        name: of the benchmark.
        comparisons: its rows; `pairs` of them are asked, whole prompts.
        judge: by name, or with its options, as `judges.open_judge` takes it.
        folder: where verdicts are kept.
        open_judge: opens a judge of a spec.
        pairs: about how many to ask.
        progress: called after each answer.

    Raises:
        PalateError: nothing to ask, or the judge itself cannot be opened. A variant that cannot
            is named in `skipped`.
    """
    asked = sample(comparisons, pairs)
    if not asked:
        raise PalateError(f"{name}: no decided pair to ask a judge about")
    spec: Spec = {judge: None} if isinstance(judge, str) else judge
    own = _results(open_judge(spec), name, asked, folder / "as-it-is", None, progress)
    tried: list[tuple[Variant, JudgeResults]] = []
    skipped = []
    for variant in variants(spec):
        where = folder / slug(f"{variant.kind} {variant.name}")
        try:
            opened = open_judge(variant.spec)
            results = _results(opened, name, asked, where, variant, progress)
        except PalateError as error:
            skipped.append(f"{variant.name}: {error}")
            continue
        tried.append((variant, results))
    rng = np.random.default_rng(SEED)
    theirs = [values_of(results, own.ids) for _, results in tried]
    differences = stats.holm_family(
        [
            stats.paired_difference(
                values, own.values, own.clusters, rng, fingerprint=results.fingerprint
            )
            for values, (_, results) in zip(theirs, tried, strict=True)
        ]
    )
    moved = []
    for (variant, results), values, difference in zip(tried, theirs, differences, strict=True):
        both = ~(np.isnan(values) | np.isnan(own.values))
        flips = float((values != own.values)[both].mean()) if both.any() else 0.0
        moved.append(
            Moved(
                variant.kind, variant.name, results.accuracy(), difference.estimate,
                difference.p_value, flips,
            )
        )  # fmt: skip
    return Sensitivity(own.judge, len(asked), own.accuracy(), tuple(moved), tuple(skipped))


def _results(
    judge: Judge,
    name: str,
    asked: Sequence[Comparison],
    folder: Path,
    variant: Variant | None,
    progress: Progress | None,
) -> JudgeResults:
    """The judge's answers under a variant; the other way round, those of the reversed order."""
    path = folder / "pairs.parquet"
    rewrite = variant and variant.rewrite
    write_comparisons(path, map(rewrite, asked) if rewrite else asked)
    benchmark = Benchmark(name, path)
    if variant is None or not variant.swap:
        return read_judge_results(evaluate(judge, benchmark, folder, progress=progress))
    file = evaluate(judge, benchmark, folder, order="both", progress=progress)
    both = read_judge_results(file)
    reversed_order = both.orders.values[:, 1]
    return replace(both.one_order(), protocol=f"{both.protocol} reversed", values=reversed_order)
