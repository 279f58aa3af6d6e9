"""Significance groups: judges that share a letter could not be told apart."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from itertools import combinations

LETTERS = string.ascii_lowercase + string.ascii_uppercase


def pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """All pairs of `names`, the earlier one first."""
    return list(combinations(names, 2))


def letters(
    ranked: Sequence[str], p_values: Mapping[tuple[str, str], float], *, level: float = 0.05
) -> dict[str, str]:
    """The compact letter display: two names share a letter exactly if they do not differ.

    Insert and absorb: start with one group of all; for every pair that differs, split each group
    that holds both into one without the first and one without the second; drop groups that lie
    in others.

    Args:
        ranked: names, best first; `a` goes to the group of the best.
        p_values: adjusted p of every pair of them, (earlier, later); a pair that is not there
            was not tested and shares a letter.
        level: a pair differs where p is below it.

    Source: Piepho, Journal of Computational and Graphical Statistics 13 (2004) 456-466.
    """
    groups = [frozenset(ranked)]
    for one, two in pairs(ranked):
        if p_values.get((one, two), p_values.get((two, one), 1.0)) >= level:
            continue
        split = [
            part
            for group in groups
            for part in ((group - {one}, group - {two}) if {one, two} <= group else (group,))
        ]
        groups = _maximal(split)
    place = {name: i for i, name in enumerate(ranked)}
    groups.sort(key=lambda group: sorted(place[name] for name in group))
    named = [(_letter(i), group) for i, group in enumerate(groups)]
    return {name: "".join(mark for mark, group in named if name in group) for name in ranked}


def _maximal(groups: Sequence[frozenset[str]]) -> list[frozenset[str]]:
    unique = list(dict.fromkeys(groups))
    return [group for group in unique if not any(group < other for other in unique)]


def _letter(number: int) -> str:
    return LETTERS[number] if number < len(LETTERS) else f"({number + 1})"
