"""What a mixture asks for, and how many rows that is of the rows there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from palate.types import PalateError

WHOLE, EQUAL = "all", "equal part"


@dataclass(frozen=True, slots=True)
class Part:
    """A group of pools with one share of the mixture; `whole` ones are taken to the last row."""

    group: str
    pools: tuple[str, ...]
    share: Fraction
    whole: bool


class Subset(BaseModel):
    """How much of a finished mixture is kept; with one seed, less is always a part of more."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fraction: float | None = Field(None, gt=0, le=1, description="Of the mixture's comparisons.")
    rows: int | None = Field(None, ge=1, description="Comparisons, at most what there are.")
    seed: int | None = Field(None, description="Which are kept; default: the mixture's seed.")

    @model_validator(mode="after")
    def _says_how_much(self) -> Subset:
        if (self.fraction is None) == (self.rows is None):
            raise ValueError("subset: give exactly one of fraction and rows")
        return self

    def size(self, total: int) -> int:
        """How many of `total` comparisons are kept, at least one.

        Raises:
            PalateError: more are asked for than there are.
        """
        if self.rows is None:
            return max(1, round((self.fraction or 1) * total))
        if self.rows > total:
            raise PalateError(
                f"mixture: a subset of {self.rows} comparisons was asked of {total}; "
                f"lower rows to {total} or add data"
            )
        return self.rows


class MixtureSpec(BaseModel):
    """A mixture in one of two forms.

    - `all` pools whole, and with `equal_part_from` as many rows again, uniform over the rows of
      those pools together.
    - `shares` of the mixture's rows by group (they sum to 1), uniform over the rows of a group's
      pools together; `groups` names a group's pools, and a group without an entry is the pool
      of that name. The size is that which takes the one group in `all` whole, or `rows`, or else
      as large as the smallest pool allows.

    `max_rows` caps pools by a uniform sample before anything else. `on_shortage` says what
    happens where a group has too few rows: `error`, or `shrink`. Shrinking keeps `all` whole and
    takes what the short group has, so the share achieved is smaller; without `all` it keeps the
    shares and makes the mixture smaller. `subset` keeps a uniform part of what all this gives.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    all: tuple[str, ...] = ()
    equal_part_from: tuple[str, ...] = ()
    shares: Mapping[str, float] = Field(default_factory=dict)
    groups: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    rows: int | None = Field(default=None, gt=0)
    max_rows: Mapping[str, int] = Field(default_factory=dict)
    on_shortage: Literal["error", "shrink"] = "error"
    subset: Subset | None = None

    @model_validator(mode="after")
    def _is_one_form(self) -> MixtureSpec:
        problem = self._problem_of_shares() if self.shares else self._problem_of_all()
        pools = self.pools
        if not problem and len(set(pools)) < len(pools):
            twice = next(p for p in pools if pools.count(p) > 1)
            problem = f"pool {twice} is in two parts; name it once"
        if not problem and (stray := sorted(set(self.max_rows) - set(pools))):
            problem = f"max_rows names {stray[0]}, which is no pool of this mixture"
        if not problem and (low := [p for p, n in self.max_rows.items() if n < 1]):
            problem = f"max_rows of {low[0]} must be at least 1; leave the pool out instead"
        if problem:
            raise ValueError(problem)
        return self

    def _problem_of_all(self) -> str:
        if not self.all:
            return "a mixture needs `all` (pools taken whole) or `shares` (fractions by group)"
        if self.groups or self.rows:
            return "`groups` and `rows` go with `shares`"
        return ""

    def _problem_of_shares(self) -> str:
        if self.equal_part_from:
            return "`equal_part_from` goes with `all` alone, not with `shares`"
        if any(not 0 < share <= 1 for share in self.shares.values()):
            return "every share must be above 0 and at most 1"
        if abs(sum(self.shares.values()) - 1) > 1e-6:
            return f"shares sum to {sum(self.shares.values()):g}, they must sum to 1"
        if stray := sorted({*self.groups, *self.all} - set(self.shares)):
            return f"{stray[0]} has no share; add it to `shares`"
        if len(self.all) > 1:
            return "with `shares` one group at most is taken whole: two fix two sizes"
        if self.all and self.rows:
            return "`rows` and `all` both fix the size; keep one"
        return ""

    @property
    def pools(self) -> tuple[str, ...]:
        """Every pool the mixture draws on."""
        return tuple(pool for part in self.parts for pool in part.pools)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The groups with their shares, exact: a decimal share is taken as written."""
        if self.shares:
            exact = {g: Fraction(str(share)) for g, share in self.shares.items()}
            total = sum(exact.values())
            return tuple(
                Part(g, self.groups.get(g, (g,)), share / total, g in self.all)
                for g, share in exact.items()
            )
        if not self.equal_part_from:
            return (Part(WHOLE, self.all, Fraction(1), True),)
        half = Fraction(1, 2)
        return (
            Part(WHOLE, self.all, half, True),
            Part(EQUAL, self.equal_part_from, half, False),
        )


def llama2_helpfulness(
    helpfulness: Sequence[str], rest: Sequence[str], **options: object
) -> MixtureSpec:
    """All helpfulness data and an equal part of the rest, uniformly sampled.

    Source: Llama 2, section 3.2.2: "all Meta Helpfulness data, combined with an equal part of the
    remaining data uniformly sampled from Meta Safety and from the open-source datasets".
    """
    return MixtureSpec.model_validate(
        {"all": tuple(helpfulness), "equal_part_from": tuple(rest), **options}
    )


def llama2_safety(
    safety: Sequence[str],
    helpfulness: Sequence[str],
    *,
    helpfulness_share: float = 0.1,
    **options: object,
) -> MixtureSpec:
    """All safety data, mixed with helpfulness data in a 90/10 proportion.

    Source: Llama 2, section 3.2.2: "all Meta Safety and Anthropic Harmless data, mixed with Meta
    Helpfulness and open-source helpfulness data in a 90/10 proportion".
    """
    return MixtureSpec.model_validate(
        {
            "all": ("safety",),
            "groups": {"safety": tuple(safety), "helpfulness": tuple(helpfulness)},
            "shares": {"safety": 1 - helpfulness_share, "helpfulness": helpfulness_share},
            **options,
        }
    )


def rows_asked(spec: MixtureSpec, available: Sequence[int]) -> list[int]:
    """The number of rows each part asks for; `available` rows are there of each.

    With a whole part every other is within half a row of its share beside it. Otherwise the
    counts sum to the size and each is within one row of its share (largest remainders).
    """
    parts = spec.parts
    for number, part in enumerate(parts):
        if part.whole:
            unit = available[number] / part.share
            return [
                available[i] if p.whole else int(unit * p.share + Fraction(1, 2))
                for i, p in enumerate(parts)
            ]
    return _shared_out(spec.rows or _largest(parts, available), parts)


def rows_taken(spec: MixtureSpec, available: Sequence[int]) -> list[int]:
    """The number of rows each part gives: what is asked, or less by `on_shortage: shrink`.

    Raises:
        PalateError: a part has too few rows; the message says how many are missing.
    """
    asked = rows_asked(spec, available)
    for part, want, have in zip(spec.parts, asked, available, strict=True):
        if have == 0:
            raise PalateError(
                f"mixture: {part.group} has no rows (pools: {', '.join(part.pools)}); "
                "add data or take it out of the mixture"
            )
        if want > have and spec.on_shortage == "error":
            raise PalateError(_missing(spec, part, want, have, sum(asked) - want, available))
    if all(want <= have for want, have in zip(asked, available, strict=True)):
        return asked
    if any(part.whole for part in spec.parts):
        return [min(pair) for pair in zip(asked, available, strict=True)]
    return _shared_out(_largest(spec.parts, available), spec.parts)


def _missing(
    spec: MixtureSpec, part: Part, want: int, have: int, others: int, available: Sequence[int]
) -> str:
    if spec.rows:
        cure = f"lower rows to {_largest(spec.parts, available)}"
    elif spec.shares:
        cure = f"lower the share to {int(have / (have + others) * 1e4) / 1e4:g}"
    else:
        cure = "name more pools in equal_part_from"
    return (
        f"mixture: {part.group} at a share of {float(part.share):.4g} beside {others} other rows "
        f"needs {want} rows, its pools ({', '.join(part.pools)}) have {have}: {want - have} are "
        f"missing; add them, {cure}, or set on_shortage: shrink"
    )


def _largest(parts: Sequence[Part], available: Sequence[int]) -> int:
    """The largest size at which no part asks for more than there is."""
    return min(int(have / part.share) for part, have in zip(parts, available, strict=True))


def _shared_out(rows: int, parts: Sequence[Part]) -> list[int]:
    counts = [int(rows * part.share) for part in parts]
    left = [rows * part.share - count for part, count in zip(parts, counts, strict=True)]
    by_remainder = sorted(range(len(parts)), key=lambda i: (-left[i], i))
    for i in by_remainder[: rows - sum(counts)]:
        counts[i] += 1
    return counts
