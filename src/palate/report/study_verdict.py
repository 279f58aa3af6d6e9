"""What can be concluded of a study, in sentences: which variants differ from the baseline."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from palate.report import escape
from palate.report.accuracy import judge_name
from palate.report.contrasts import Contrast
from palate.report.findings import NAME, Finding, Words, clause, joined, merged
from palate.report.studied import Levels, Studied
from palate.report.study import accuracy_of, remarks_of
from palate.report.tables import percent
from palate.report.verdict import Verdict, beyond_luck, finds

Say = Callable[[Levels], str]
"""A variant in words."""


def study_verdict(studied: Studied, found: Sequence[Contrast]) -> Verdict:
    """A sentence for each model and variant that is shown to differ, and every contrast."""
    say = partial(_say, tuple(studied.index.axes))
    sentences = [
        sentence
        for model in dict.fromkeys(contrast.sheet.model for contrast in found)
        for sentence in _of_model([one for one in found if one.sheet.model == model], say)
    ]
    cautions = [Finding("caution", (remark,)) for remark in remarks_of(studied)]
    findings = [_finding(contrast, say) for contrast in found]
    return Verdict(tuple(sentences), (*findings, *cautions))


def _of_model(found: Sequence[Contrast], say: Say) -> Iterator[Words]:
    model, baseline = NAME + judge_name(found[0].sheet.model), say(found[0].baseline)
    by_variant = {one.variant: _clauses(found, one.variant) for one in found}
    told = {variant: clauses for variant, clauses in by_variant.items() if any(clauses)}
    for variant, clauses in told.items():
        words = [model, " with ", say(variant), " is ", *joined(clauses), " than with ", baseline]
        yield tuple(merged([*words, "."]))
    if not told:
        nothing = " is not shown to be better or worse with another variant than with "
        yield tuple(merged([model, nothing, baseline, "."]))


def _clauses(found: Sequence[Contrast], variant: Levels) -> list[list[str]]:
    """Where the variant is more accurate than the baseline, and where less."""
    mine = [(one.sheet.benchmark, _won(one)) for one in found if one.variant == variant]
    return [
        clause(f"{how} accurate on ", [benchmark for benchmark, won in mine if won == sign])
        for how, sign in (("more", 1), ("less", -1))
    ]


def _finding(contrast: Contrast, say: Say) -> Finding:
    sheet, won = contrast.sheet, _won(contrast)
    model, one, other = (
        NAME + judge_name(sheet.model),
        say(contrast.variant),
        say(contrast.baseline),
    )
    evidence: dict[str, Any] = {
        "benchmark": escape.name(sheet.benchmark),
        "difference": contrast.difference.estimate,
        "p_value": contrast.difference.p_value,
    }
    if won:
        shares = (
            percent(accuracy_of(sheet, variant).estimate.value)
            for variant in (contrast.variant, contrast.baseline)
        )
        how = f" is {'more' if won > 0 else 'less'} accurate with "
        words = [model, how, one, " than with ", other, f": {' % against '.join(shares)} %."]
        return Finding("shown", tuple(merged(words)), **evidence)
    least = finds(contrast.difference.estimate)
    words = [model, " with ", one, " and with ", other, f" cannot be told apart. {least}."]
    return Finding("open", tuple(merged(words)), **evidence)


def _won(contrast: Contrast) -> int:
    return beyond_luck(contrast.difference)


def _say(axes: Sequence[str], variant: Levels) -> str:
    levels = zip(axes, variant, strict=True)
    return NAME + escape.name(", ".join(f"{axis} {level}" for axis, level in levels))
