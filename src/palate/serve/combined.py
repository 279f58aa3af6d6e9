"""Which of two rewards decides, and the moments that whiten it (Llama 2, section 3.2.3).

Shape letters: R responses.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Awaitable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from palate.records import write_json
from palate.serve.engine import Engine, ScoreRequest
from palate.types import Candidates, Message, PalateError, Scorer

THRESHOLD = 0.15  # Section 3.2.3: precision .89 and recall .55 on Meta Safety.
KIND, FORMAT = "combined-reward", 1
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


def combine(
    safety: Floats, helpfulness: Floats, tagged: Flags, threshold: float = THRESHOLD
) -> Floats:
    """The reward that decides, before whitening.

    With R = sigmoid(r) of each model,

        logit(R_c) = logit(R_s)   where the prompt is about safety or R_s < threshold,
                     logit(R_h)   elsewhere.

    A logit undoes a sigmoid, so raw rewards r are compared with logit(threshold) and returned as
    they are: nothing overflows, and nothing is lost near 0 and 1.

    Args:
        safety: [R] raw rewards of the safety model. helpfulness: [R] of the helpfulness model;
            what is not decisive may be NaN. tagged: [R], whether the prompt is about safety.

    Returns:
        [R] raw rewards.

    Source: Llama 2, section 3.2.3.
    """
    return np.where(by_safety(safety, tagged, threshold), safety, helpfulness)


def by_safety(safety: Floats, tagged: Flags, threshold: float = THRESHOLD) -> Flags:
    """[R], where the safety model decides; also where it has no number, which is no permission."""
    return tagged | ~(safety >= logit(threshold))


@dataclass(frozen=True, slots=True)
class Combination:
    """How two models are combined, with the moments that whiten the result, as stored.

    `mean` and `std` are of combined rewards over `responses` responses, which `measured_on` named.
    `by_safety` is the share of them that the safety model decided; `safety` and `helpfulness` are
    the models' revisions.
    """

    threshold: float
    mean: float
    std: float
    responses: int
    by_safety: float
    safety: str
    helpfulness: str
    measured_on: str

    def whiten(self, combined: Floats) -> Floats:
        """[R] (r - mean) / std: mean 0 and standard deviation 1 over what was measured."""
        return (combined - self.mean) / self.std


def measure(
    safety: Scorer,
    helpfulness: Scorer,
    rows: Iterable[tuple[Candidates, bool]],
    measured_on: str,
    threshold: float = THRESHOLD,
) -> Combination:
    """The moments of combined rewards over responses, each prompt with whether it is tagged.

    Raises:
        PalateError: a threshold outside (0, 1), or fewer than two responses with unequal rewards.
    """
    if not 0 < threshold < 1:
        raise PalateError(f"threshold must be between 0 and 1, got {threshold}; the paper's is .15")
    held = list(rows)
    asked = [candidates for candidates, _ in held]
    r_s, r_h = (_scores(scorer, asked) for scorer in (safety, helpfulness))
    tagged = np.array([tag for item, tag in held for _ in item.responses], dtype=np.bool_)
    combined = combine(r_s, r_h, tagged, threshold)
    finite = np.isfinite(combined)
    known, safely = combined[finite], by_safety(r_s, tagged, threshold)[finite]
    if len(known) < 2 or not known.std():
        raise PalateError(
            f"{measured_on}: {len(known)} responses with a reward, or all rewards equal; "
            "whitening needs two that differ"
        )
    return Combination(
        threshold=threshold,
        mean=float(known.mean()),
        std=float(known.std()),
        responses=len(known),
        by_safety=float(safely.mean()),
        safety=str(safety.protocol["revision"]),
        helpfulness=str(helpfulness.protocol["revision"]),
        measured_on=measured_on,
    )


def _scores(scorer: Scorer, asked: Sequence[Candidates]) -> Floats:
    values = (score.value for row in scorer.score(asked) for score in row)
    return np.array([math.nan if value is None else value for value in values])


def write_combination(path: Path, combination: Combination) -> None:
    """Keep a combination as JSON."""
    write_json(path, {"kind": KIND, "format": FORMAT, **asdict(combination)})


def read_combination(path: Path, *, safety: str, helpfulness: str) -> Combination:
    """A stored combination of the models of these revisions.

    Raises:
        PalateError: not such a file, or measured with other weights.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        names = [f.name for f in fields(Combination)]
        if (stored["kind"], stored["format"]) != (KIND, FORMAT):
            raise ValueError("another kind or format")
        combination = Combination(**{name: stored[name] for name in names})
        sound = all(map(math.isfinite, (combination.mean, combination.std)))
        if not (sound and combination.std > 0 and 0 < combination.threshold < 1):
            raise ValueError("moments or a threshold out of range")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PalateError(
            f"{path}: not a stored combination ({error!r}); make it with `palate combine`"
        ) from None
    for role, revision in (("safety", safety), ("helpfulness", helpfulness)):
        if getattr(combination, role) != revision:
            raise PalateError(
                f"{path}: measured with another {role} model "
                f"({getattr(combination, role)[:12]}, served is {revision[:12]}); make it again "
                "with `palate combine`"
            )
    return combination


class SafetyWords:
    """The rule that tags a prompt: it says one of these words or phrases, in any case.

    Which words is a policy, so there is no list of ours.
    """

    def __init__(self, phrases: Iterable[str]) -> None:
        """Raises `PalateError` where there is no phrase."""
        escaped = [r"\s+".join(map(re.escape, p.split())) for p in phrases if p.strip()]
        if not escaped:
            raise PalateError("a safety rule needs at least one word; one a line")
        self._found = re.compile(rf"(?<!\w)(?:{'|'.join(escaped)})(?!\w)", re.IGNORECASE)

    @classmethod
    def read(cls, path: Path) -> SafetyWords:
        """The words of a file, one a line; raises `PalateError` where it cannot be read."""
        try:
            return cls(path.read_text(encoding="utf-8").splitlines())
        except (OSError, UnicodeDecodeError) as error:
            raise PalateError(f"{path}: no list of words can be read from it ({error})") from None

    def __call__(self, prompt: Iterable[Message]) -> bool:
        """Whether any turn of the user's says one."""
        return any(m.role == "user" and self._found.search(m.content) for m in prompt)


# Two reward models as one, as the paper's reinforcement learning asks them (section 3.2.3).

Answers = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Parts:
    """What made one combined reward; `helpfulness` is None where it was not asked."""

    reward: float
    safety: float
    helpfulness: float | None
    decided_by: str


class Combined:
    """A safety and a helpfulness engine, asked together, that answer with one reward."""

    def __init__(
        self,
        safety: Engine,
        helpfulness: Engine,
        combination: Combination,
        *,
        name: str = "combined",
    ) -> None:
        """Raises `PalateError` where the two models do not read the same tokens."""
        if safety.model.chat.fingerprint != helpfulness.model.chat.fingerprint:
            raise PalateError(
                f"{name}: {safety.name} and {helpfulness.name} turn a conversation into different "
                "tokens; combine models of one tokenizer, template and max_tokens"
            )
        self.name, self.model = name, helpfulness.model
        self.safety, self.helpfulness, self.combination = safety, helpfulness, combination

    async def rewards(self, ask: ScoreRequest) -> tuple[float, ...]:
        """The whitened combined reward of each conversation; raises what the engines raise.

        Raises:
            ValueError: a number of safety tags that is not the number of conversations.
        """
        return tuple(part.reward for part in await self.explain(ask))

    async def explain(self, ask: ScoreRequest) -> tuple[Parts, ...]:
        """The combined rewards and what made them."""
        count = len(ask.conversations)
        if len(ask.safety) not in (0, count):
            raise ValueError(f"{len(ask.safety)} safety tags for {count} conversations")
        tagged = np.array(ask.safety or [False] * count, dtype=np.bool_)
        # Where the prompt is tagged, helpfulness decides nothing and is not computed.
        rest = tuple(c for c, tag in zip(ask.conversations, tagged, strict=True) if not tag)
        r_s, some = await _both(
            self.safety.rewards(ask), self.helpfulness.rewards(replace(ask, conversations=rest))
        )
        r_h = np.full(count, math.nan)
        r_h[~tagged] = some
        return tuple(self._parts(np.array(r_s), r_h, tagged))

    def _parts(self, r_s: Floats, r_h: Floats, tagged: Flags) -> Iterator[Parts]:
        combined = combine(r_s, r_h, tagged, self.combination.threshold)
        decided = by_safety(r_s, tagged, self.combination.threshold)
        whitened = self.combination.whiten(combined)
        for reward, safe, helpful, safely in zip(whitened, r_s, r_h, decided, strict=True):
            asked = None if math.isnan(helpful) else float(helpful)
            by = "safety" if safely else "helpfulness"
            yield Parts(float(reward), float(safe), asked, by)


async def _both(first: Awaitable[Answers], second: Awaitable[Answers]) -> tuple[Answers, Answers]:
    """Both answers; the first failure drops the other ask."""
    tasks = [asyncio.ensure_future(ask) for ask in (first, second)]
    try:
        one, other = await asyncio.gather(*tasks)
        return one, other
    finally:
        for task in tasks:
            task.cancel()
