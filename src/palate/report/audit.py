"""An audit in words and tables: what a lead means on a benchmark, and what its labels give away.

`sentences` begins with the one that a reader needs; what follows is what was found beside it, each
with its figure. `tables` are the figures themselves. Both are of one benchmark or of several.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from palate import escape
from palate.evaluate.audit import DISCORDANT, JUDGES, LEARNED, Audit, LengthBin, read_audit
from palate.report import render
from palate.report.render import percent
from palate.report.table import Column, Table, Unit, Value, Values, columns, make_table
from palate.stats import LEVEL, Estimate
from palate.types import PalateError

AUDIT = (
    "audit", "audit-parts", "audit-leads", "audit-length", "audit-style", "audit-doubles",
    "audit-training", "audit-annotators", "audit-versions", "audit-model",
)  # fmt: skip
"""Every table of an audit, in order."""
MOST_NAMED = 3
"""Parts, or styles, that a sentence names."""

LEAD_REMARKS = (
    "A lead is what one judge is ahead of another on the same pairs, in points. Beyond luck: its "
    "95 % interval leaves out zero. Found: a true lead of this size is beyond luck four times in "
    "five. Both are for two judges that differ on one pair in five, and count pairs of one prompt "
    "as related (design effect).",
)
PART_REMARKS = (
    "Trivial judges: a coin, the longer response, the shorter one, the one shown first (sides are "
    "drawn); style is fitted on lengths and formatting, bag of words on single words, both on the "
    "labels of four fifths of the prompts and asked the other fifth.",
)
STYLE_REMARKS = (
    "Share of responses that have it. Wins: of the pairs in which one response alone has it, how "
    "often that one was preferred; 50 where it does not matter. p is of no difference, adjusted by "
    "Holm over all rows.",
)
DOUBLE_REMARKS = (
    "Prompts that open as one of another cluster does, or share most of its words, are counted as "
    "independent by every statistic. Rows are those that `palate data lint` finds.",
)
TRAINING_REMARKS = (
    "Rows of the set whose prompt is one of the benchmark's: with the same opening, with most of "
    "its word 5-grams, or with a Jaccard similarity of 0.6. No row is looked for by its responses.",
)
MODEL_REMARKS = (
    "The same judge on the same pairs with one thing changed; of all variants p and intervals are "
    "one family (Holm). Flips: pairs with another answer than as it is, ties among them.",
)
ANNOTATOR_REMARKS = (
    "Agreement: two annotators of one pair give it the same label, a tie being one. Ceiling: how "
    "often the best judge can agree with one annotator, ties left out.",
)


def points(share: float) -> str:
    """A share in points, with one decimal, or two where it is below one."""
    return f"{100 * share:.1f}" if abs(share) >= 0.01 or not share else f"{100 * share:.2f}"


def _interval(estimate: Estimate) -> str:
    return f"{percent(estimate.value)} ± {percent(estimate.half_width)}"


def headline(audit: Audit) -> str:
    """What a lead means on this benchmark: the sentence that every page begins with."""
    at, name = audit.resolution.usual, escape.name(audit.name)
    if at.significant is None:
        return (
            f"On {name} no lead can be told from luck: {_pairs(audit)} are too few for judges that "
            f"differ on one {audit.resolution.unit} in five."
        )
    found = "no true lead is found four times in five"
    if at.detectable is not None:
        found = f"a true lead is found four times in five from {points(at.detectable)} points on"
    return (
        f"On {name} a lead of less than {points(at.significant)} points cannot be told from luck, "
        f"and {found}."
    )


def _pairs(audit: Audit) -> str:
    r = audit.resolution
    what = "decided pairs" if r.unit == "pair" else f"items of up to {audit.size.most_responses}"
    return f"{r.n:,} {what} of {r.prompts:,} prompts"


def sentences(audit: Audit) -> list[str]:
    """The headline, and below it everything that a reader of a score should know, one line each."""
    return [headline(audit), *(line for tell in _TELLERS for line in tell(audit))]


def _resolution(audit: Audit) -> Iterator[str]:
    r = audit.resolution
    line = f"That is of {_pairs(audit)}, for two judges that differ on one {r.unit} in five"
    if r.design_effect >= 1.05:
        worth = f"{r.n / r.design_effect:,.0f}"
        line += f"; related ones make it as good as {worth} separate one{'s' * (worth != '1')}"
    low, high = (
        "none" if one.significant is None else f"{points(one.significant)} points"
        for one in (r.leads[0], r.leads[-1])
    )
    yield (
        f"{line}. Where they differ on {DISCORDANT[0]:.0%} it is {low}, "
        f"where on {DISCORDANT[-1]:.0%} {high}."
    )


def _trivial(audit: Audit) -> Iterator[str]:
    floor = f"{100 * audit.resolution.chance:.3g}"
    if not audit.whole.above:
        yield f"No trivial judge is above chance: figures are to be read from {floor} on."
    else:
        name = audit.whole.above[0]
        yield (
            f"Without understanding a word, {_named(name)} reaches "
            f"{_interval(audit.whole.judges[name])} %: figures are to be read from there, not "
            f"from {floor}."
        )
    far = [(part, part.judges[part.above[0]]) for part in audit.subsets if part.above]
    if far:
        far.sort(key=lambda one: -one[1].value)
        named = ", ".join(
            f"{escape.name(part.name)} {percent(value.value)} ({part.above[0]})"
            for part, value in far[:MOST_NAMED]
        )
        yield f"Parts where a trivial judge goes far: {named}."


def _named(judge: str) -> str:
    if judge == "style":
        return "a judge fitted on lengths and formatting"
    return "a bag of words" if judge in LEARNED else f"always taking the {judge} one"


def _form(audit: Audit) -> Iterator[str]:
    told = [s for s in audit.styles if s.p_value < LEVEL and s.wins is not None]
    told.sort(key=lambda s: -abs(s.difference.value))
    if told:
        said = [
            f"{s.name} ({percent(s.wins.value)} of {s.wins.n:,})"
            for s in told[:MOST_NAMED]
            if s.wins
        ]
        yield (
            "What is preferred goes with form; a response that alone has it wins so often: "
            f"{', '.join(said)}."
        )
    ends = [b for b in audit.lengths if b.low >= 2 and abs(b.longer.value - 0.5) > 0.05]
    if ends and (b := ends[-1]) and not b.longer.low <= 0.5 <= b.longer.high:
        yield (
            f"Where one response is {ratio(b)} as long as the other, the longer one is preferred "
            f"in {_interval(b.longer)} % of {b.longer.n:,} pairs."
        )


def _annotators(audit: Audit) -> Iterator[str]:
    for one in audit.agreement:
        where = f" ({escape.name(one.source)})" if len(audit.agreement) > 1 else ""
        agree = ""
        if one.agreement:
            agree = f"Two annotators agree on {_interval(one.agreement)} % of the pairs{where}"
        if one.ceiling:
            yield (
                (f"{agree}; where" if agree else "Where")
                + " neither says tie, the best judge can agree with one of them in about "
                f"{_interval(one.ceiling)} %."
            )
        elif agree:
            yield f"{agree}."
    if not audit.agreement:
        yield "Each pair has one label: how far annotators agree, and the ceiling, are not known."


def _ties(audit: Audit) -> Iterator[str]:
    if audit.size.ties:
        yield (
            f"{audit.size.ties:,} of {audit.size.rows:,} rows ({percent(audit.ties.value)} %) are "
            "ties, on which a judge is neither right nor wrong; how a score counts them must be "
            "said beside it."
        )


def _twice(audit: Audit) -> Iterator[str]:
    d = audit.doubles
    parts = [f"{d.repeated:,} open as another one does"] if d.repeated else []
    parts += [f"{d.near:,} share most words with another"] if d.near else []
    if parts:
        yield (
            f"Of {audit.size.prompts:,} prompts {' and '.join(parts)}; all are counted as "
            "independent."
        )
    if d.findings:
        kinds = ", ".join(f"{n:,} {kind}" for kind, n in d.findings.items())
        yield f"Rows to look at, as palate data lint names them: {kinds}."


def _elsewhere(audit: Audit) -> Iterator[str]:
    for one in audit.training_sets:
        where = escape.name(one.name)
        if one.prompts:
            yield (
                f"{one.prompts:,} of its prompts are in {where}, in {one.overlapping:,} of "
                f"{one.rows:,} rows: a model trained on these has seen them."
            )
        else:
            yield f"None of its prompts was found in {where} ({one.rows:,} rows)."


def _versions(audit: Audit) -> Iterator[str]:
    for one in audit.stability:
        yield (
            f"Of {one.same.n:,} pairs that {escape.name(one.other)} decides too, "
            f"{_interval(one.same)} % have the same label; {one.tie_in_one:,} more are a tie in "
            "one of the two."
        )


def _moves(audit: Audit) -> Iterator[str]:
    for one in audit.sensitivity:
        if not one.moved:
            continue
        far = max(one.moved, key=lambda moved: abs(moved.difference.value))
        judge = escape.name(one.judge)
        line = (
            f"{judge} has {_interval(one.accuracy)} % on {one.accuracy.n:,} of the pairs, and "
            f"between {percent(one.low)} and {percent(one.high)} where nothing about it should "
            "matter"
        )
        if far.difference.value:
            line += f"; furthest by {far.name} ({points(far.difference.value)} points)"
        yield f"{line}."


_TELLERS: tuple[Callable[[Audit], Iterator[str]], ...] = (
    _resolution, _trivial, _form, _annotators, _ties, _twice, _elsewhere, _versions, _moves,
)  # fmt: skip


def read_audits(runs: Sequence[Path]) -> tuple[list[Audit], list[str]]:
    """The audits that stand in `audits/` of runs, each once, and what of them cannot be read."""
    found: dict[str, Audit] = {}
    problems: list[str] = []
    for path in (path for run in runs for path in sorted((run / "audits").glob("*.json"))):
        try:
            audit = read_audit(path)
        except PalateError as error:
            problems.append(str(error))
            continue
        found.setdefault(audit.name + audit.items, audit)
    return list(found.values()), problems


# The figures.


def tables(audits: Sequence[Audit]) -> list[Table]:
    """The tables of one audit, or of several with the benchmark's name in front of each row."""
    made = (
        overview(audits) if len(audits) > 1 else None,
        _parts(audits),
        _leads(audits),
        _lengths(audits),
        _style(audits),
        _doubles(audits),
        _training(audits),
        _agreement(audits),
        _stability(audits),
        _models(audits),
    )
    return [table for table in made if table is not None]


def _table(
    audits: Sequence[Audit],
    name: str,
    title: str,
    heads: Sequence[Column],
    rows: Callable[[Audit], Iterable[Values]],
    remarks: Sequence[str] = (),
) -> Table | None:
    """A table of the rows of every audit; of several with the benchmark in front."""
    several = len(audits) > 1
    first: list[Column] = [Column("Benchmark")] if several else []
    every: list[Values] = [
        [escape.name(audit.name), *row] if several else row
        for audit in audits
        for row in rows(audit)
    ]
    return make_table(name, title, [*first, *heads], every, remarks, group_by=int(several))


def overview(audits: Sequence[Audit]) -> Table | None:
    """One row a benchmark."""
    heads = [
        Column("Benchmark"),
        *columns(Unit.COUNT, _units(audits), "Prompts"),
        Column("Lead", Unit.PERCENT, "beyond luck"),
        Column("Lead", Unit.PERCENT, "found"),
        Column("Longer", Unit.SHARE),
        Column("Best trivial", Unit.SHARE),
        Column("Which"),
        Column("Ties", Unit.SHARE),
        Column("Ceiling", Unit.SHARE),
    ]
    rows: list[Values] = []
    for audit in audits:
        at, (which, best) = audit.resolution.usual, audit.best
        rows.append(
            (
                escape.name(audit.name), audit.resolution.n, audit.resolution.prompts,
                at.significant, at.detectable, audit.whole.judges["longer"], best, which,
                audit.ties if audit.size.ties else None, audit.ceiling,
            )
        )  # fmt: skip
    title = "What each benchmark can show (points and %)"
    return make_table("audit", title, heads, rows, (*LEAD_REMARKS, *PART_REMARKS))


def _parts(audits: Sequence[Audit]) -> Table | None:
    def rows(audit: Audit) -> Iterator[Values]:
        for part in (audit.whole, *audit.subsets):
            cells: list[Value] = [escape.name(part.name) if part.name else "all"]
            cells += [part.n, part.prompts, part.lead.significant, part.lead.detectable]
            yield [*cells, *(part.judges[judge] for judge in JUDGES)]

    heads = [
        Column("Part"),
        *columns(Unit.COUNT, _units(audits), "Prompts"),
        Column("Lead", Unit.PERCENT, "beyond luck"),
        Column("Lead", Unit.PERCENT, "found"),
        *columns(Unit.SHARE, *(judge.capitalize() for judge in JUDGES)),
    ]
    title = "What trivial judges reach (%), and the lead that can be shown (points)"
    return _table(audits, "audit-parts", title, heads, rows, (*LEAD_REMARKS, *PART_REMARKS))


def _units(audits: Sequence[Audit]) -> str:
    found = {f"{audit.resolution.unit.capitalize()}s" for audit in audits}
    return " or ".join(sorted(found, reverse=True)).replace(" or I", " or i")


def _leads(audits: Sequence[Audit]) -> Table | None:
    def rows(audit: Audit) -> Iterator[Values]:
        for at in audit.resolution.leads:
            yield (at.discordant, at.significant, at.detectable)

    heads = [
        Column("Share on which two judges differ", Unit.PERCENT),
        Column("Lead", Unit.PERCENT, "beyond luck"),
        Column("Lead", Unit.PERCENT, "found"),
    ]
    title = "The smallest lead that can be shown (points)"
    return _table(audits, "audit-leads", title, heads, rows, LEAD_REMARKS)


def ratio(one: LengthBin) -> str:
    """How many times as long the longer response is."""
    if one.high == math.inf:
        return f"over {one.low:g} times"
    return f"{one.low:g} to {one.high:g} times"


def _lengths(audits: Sequence[Audit]) -> Table | None:
    def rows(audit: Audit) -> Iterator[Values]:
        total = audit.resolution.n
        for one in audit.lengths:
            yield (ratio(one), one.longer.n, one.longer.n / total, one.longer)

    heads = [
        Column("Longer response is"),
        Column("Pairs", Unit.COUNT),
        Column("Of all", Unit.PERCENT),
        Column("Longer preferred", Unit.SHARE),
    ]
    title = "How often the longer response was preferred (%)"
    remarks = []
    for audit in audits:
        if audit.length_controlled:
            of = f"{escape.name(audit.name)}: " if len(audits) > 1 else ""
            figures = ", ".join(f"{n} {_interval(e)}" for n, e in audit.length_controlled.items())
            remarks.append(f"{of}With length held equal (logistic regression): {figures}.")
    return _table(audits, "audit-length", title, heads, rows, remarks)


def _style(audits: Sequence[Audit]) -> Table | None:
    def rows(audit: Audit) -> Iterator[Values]:
        for s in audit.styles:
            alone = s.wins.n if s.wins else 0
            yield (s.name, s.chosen, s.rejected, s.difference, s.p_value, alone, s.wins)

    heads = [
        Column("Form"),
        Column("Preferred", Unit.PERCENT),
        Column("Other", Unit.PERCENT),
        Column("Difference", Unit.DIFFERENCE),
        Column("p", Unit.P_VALUE, "Holm"),
        Column("Pairs", Unit.COUNT, "one alone"),
        Column("Wins", Unit.SHARE),
    ]
    title = "Formatting and labels (%)"
    return _table(audits, "audit-style", title, heads, rows, STYLE_REMARKS)


def _doubles(audits: Sequence[Audit]) -> Table | None:
    def rows(audit: Audit) -> Iterator[Values]:
        d, prompts, total = audit.doubles, audit.size.prompts, audit.size.rows
        yield ("prompts that open as another one does", d.repeated, d.repeated / prompts)
        yield ("prompts that share most words with another", d.near, d.near / prompts)
        for kind, n in d.findings.items():
            yield (f"rows: {kind}", n, n / total)

    heads = [Column("What"), Column("Count", Unit.COUNT), Column("Share", Unit.PERCENT)]
    title = "What stands in it twice, or should not stand in it (%)"
    return _table(audits, "audit-doubles", title, heads, rows, DOUBLE_REMARKS)


def _training(audits: Sequence[Audit]) -> Table | None:
    def rows(audit: Audit) -> Iterator[Values]:
        for one in audit.training_sets:
            share = one.prompts / audit.size.prompts
            yield (
                escape.name(one.name), one.rows, one.overlapping, one.exact, one.contains,
                one.near, one.prompts, share,
            )  # fmt: skip

    heads = [
        Column("Training set"),
        *columns(Unit.COUNT, "Rows", "Overlapping", "Same opening", "Contained", "Near"),
        Column("Benchmark's prompts", Unit.COUNT),
        Column("Of all", Unit.PERCENT),
    ]
    title = "Prompts of the benchmark in training sets"
    return _table(audits, "audit-training", title, heads, rows, TRAINING_REMARKS)


def _agreement(audits: Sequence[Audit]) -> Table | None:
    def rows(audit: Audit) -> Iterator[Values]:
        for one in audit.agreement:
            people = one.annotators or None
            pairs = one.agreement.n if one.agreement else None
            yield (
                escape.name(one.source), people, one.votes, pairs, one.agreement, one.alpha,
                one.ceiling,
            )  # fmt: skip

    heads = [
        Column("Source"),
        *columns(Unit.COUNT, "Annotators", "Votes", "Pairs judged again"),
        Column("Agreement", Unit.SHARE),
        Column("Alpha", Unit.SCORE),
        Column("Ceiling", Unit.SHARE),
    ]
    title = "How far annotators agree (%)"
    return _table(audits, "audit-annotators", title, heads, rows, ANNOTATOR_REMARKS)


def _stability(audits: Sequence[Audit]) -> Table | None:
    def rows(audit: Audit) -> Iterator[Values]:
        for one in audit.stability:
            yield (
                escape.name(one.other), one.shared, one.only_here, one.only_there,
                one.tie_in_one, len(one.flipped), one.same,
            )  # fmt: skip

    heads = [
        Column("Other version"),
        *columns(Unit.COUNT, "In both", "Here only", "There only", "Tie in one", "Flipped"),
        Column("Same label", Unit.SHARE),
    ]
    return _table(audits, "audit-versions", "Labels in another version (%)", heads, rows)


def _models(audits: Sequence[Audit]) -> Table | None:
    def rows(audit: Audit) -> Iterator[Values]:
        for one in audit.sensitivity:
            judge = escape.name(one.judge)
            yield (judge, "as it is", one.accuracy.n, one.accuracy, None, None, None)
            for moved in one.moved:
                yield (
                    judge, f"{moved.kind}: {moved.name}", moved.accuracy.n, moved.accuracy,
                    moved.difference, moved.p_value, moved.flips,
                )  # fmt: skip

    heads = [
        *columns(Unit.TEXT, "Judge", "Variant"),
        Column("Pairs", Unit.COUNT),
        Column("Accuracy", Unit.SHARE),
        Column("Moves by", Unit.DIFFERENCE),
        Column("p", Unit.P_VALUE, "Holm"),
        Column("Flips", Unit.PERCENT),
    ]
    remarks = [
        *MODEL_REMARKS,
        *(s for audit in audits for o in audit.sensitivity for s in o.skipped),
    ]
    title = "How far a judge's figure moves (%)"
    return _table(audits, "audit-model", title, heads, rows, remarks)


# The audit in a file.


def markdown(audit: Audit, command: str = "") -> str:
    """The audit as Markdown: headline, sentences, tables, and what it was made of."""
    first, *rest = sentences(audit)
    lines = [f"# Audit of {escape.markdown(escape.name(audit.name))}", ""]
    lines += [f"**{escape.markdown(first)}**", "", *(f"- {escape.markdown(r)}" for r in rest), ""]
    lines += [render.markdown(table) for table in tables([audit])]
    lines += ["## Provenance", "", *(f"- {line}" for line in provenance(audit)), ""]
    if command:
        lines += ["```sh", command, "```", ""]
    return "\n".join(lines)


def provenance(audit: Audit) -> Iterator[str]:
    """What the audit was made of, a line each."""
    if audit.file:
        digest = f", sha256 {audit.sha256}" if audit.sha256 else ""
        yield f"file: {escape.plain(audit.file)}{digest}"
    yield f"comparisons: {audit.size.rows:,}, digest of their ids {audit.items}"
    if audit.not_read:
        yield audit.not_read
