"""Two reward models as one: which decides, and the moments that whiten it (Llama 2, section 3.2.3).

Shape letters: R responses.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from palate.records import write_json
from palate.serve.engine import Engine, Reward, ScoreRequest
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
    rows = list(rows)
    r_s, r_h = (
        np.array(
            [
                math.nan if score.value is None else score.value
                for scores in scorer.score([candidates for candidates, _ in rows])
                for score in scores
            ]
        )
        for scorer in (safety, helpfulness)
    )
    tagged = np.array([tag for item, tag in rows for _ in item.responses], dtype=np.bool_)
    combined = combine(r_s, r_h, tagged, threshold)
    scored = np.isfinite(combined)
    rewards = combined[scored]
    if len(rewards) < 2 or not rewards.std():
        raise PalateError(
            f"{measured_on}: {len(rewards)} responses with a reward, or all rewards equal; "
            "whitening needs two that differ"
        )
    return Combination(
        threshold=threshold,
        mean=float(rewards.mean()),
        std=float(rewards.std()),
        responses=len(rewards),
        by_safety=float(by_safety(r_s, tagged, threshold)[scored].mean()),
        safety=str(safety.protocol["revision"]),
        helpfulness=str(helpfulness.protocol["revision"]),
        measured_on=measured_on,
    )


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
        self._pattern = re.compile(rf"(?<!\w)(?:{'|'.join(escaped)})(?!\w)", re.IGNORECASE)

    @classmethod
    def read(cls, path: Path) -> SafetyWords:
        """The words of a file, one a line; raises `PalateError` where it cannot be read."""
        try:
            return cls(path.read_text(encoding="utf-8").splitlines())
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise PalateError(f"{path}: no list of words can be read from it ({reason})") from None

    def __call__(self, prompt: Iterable[Message]) -> bool:
        """Whether any turn of the user's says one."""
        return any(m.role == "user" and self._pattern.search(m.content) for m in prompt)


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

    async def rewards(self, request: ScoreRequest) -> tuple[float, ...]:
        """The whitened combined reward of each conversation; raises what the engines raise.

        Raises:
            ValueError: a number of safety tags that is not the number of conversations.
        """
        return tuple(parts.reward for parts in await self.explain(request))

    async def rewards_with_std(self, request: ScoreRequest) -> tuple[Reward, ...]:
        """As `rewards`; two models that are no ensemble have no standard deviation."""
        return tuple((reward, None) for reward in await self.rewards(request))

    async def explain(self, request: ScoreRequest) -> tuple[Parts, ...]:
        """The combined rewards and what made them."""
        conversations = request.conversations
        count = len(conversations)
        if len(request.safety) not in (0, count):
            raise ValueError(f"{len(request.safety)} safety tags for {count} conversations")
        tagged = np.array(request.safety or [False] * count, dtype=np.bool_)
        # Where the prompt is tagged, helpfulness decides nothing and is not computed.
        untagged = tuple(c for c, tag in zip(conversations, tagged, strict=True) if not tag)
        tasks = [
            asyncio.ensure_future(self.safety.rewards(request)),
            asyncio.ensure_future(
                self.helpfulness.rewards(replace(request, conversations=untagged))
            ),
        ]
        try:
            safety, helpfulness = await asyncio.gather(*tasks)
        finally:
            for task in tasks:  # The first failure drops the other request.
                task.cancel()
        r_s, r_h = np.array(safety), np.full(count, math.nan)
        r_h[~tagged] = helpfulness
        threshold = self.combination.threshold
        whitened = self.combination.whiten(combine(r_s, r_h, tagged, threshold))
        decided = by_safety(r_s, tagged, threshold)
        return tuple(
            Parts(
                reward=float(whitened[i]),
                safety=float(r_s[i]),
                helpfulness=None if math.isnan(r_h[i]) else float(r_h[i]),
                decided_by="safety" if decided[i] else "helpfulness",
            )
            for i in range(count)
        )
