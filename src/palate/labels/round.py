"""A round of labelling: the pairs of a pool that people are asked, and the batch of their answers.

A round is a folder. `comparisons/chosen.parquet` has its pairs in the order in which they are
asked, without a label, each with its reason and its probability in `meta`; `queues/next.parquet` is
the same list for `palate view`, and `tasks/` has it for annotation tools. `round.json` says what it
was made of and is written last, so that a round is whole or is made again from the scores that are
kept in `scores.jsonl`. Rounds in one folder belong together: what one has asked no other asks.

The answers come back as two files: `answers.parquet` to train on, `held-out.parquet` to test with.

A pool is held in memory: its texts, and 8 bytes a pair and member.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import numpy as np

from palate.data.contamination import BenchmarkIndex
from palate.data.prompts import hash64, opening, prompt_key
from palate.data.sources.files import stem
from palate.data.tasks import Tool, as_shown, write_tasks
from palate.evaluate.benchmark import candidates_of, rows_of, seeded_side
from palate.evaluate.journal import ALONE, Progress, Shard
from palate.evaluate.scoring import requests, row_of, score_file
from palate.explorer.queue import Entry, queue_path, write_queue
from palate.labels.selection import (
    Codes,
    Flags,
    Floats,
    Keys,
    Reason,
    Selection,
    SelectionOptions,
    expected_gain,
    information,
    select,
)
from palate.recipe.cache import locked
from palate.records import (
    file_digest,
    read_comparisons,
    read_header,
    write_comparisons,
    write_json,
    write_text,
)
from palate.types import (
    SELECTION,
    UNLABELLED,
    Comparison,
    Message,
    PalateError,
    Scorer,
    comparison_id,
    digest,
)

ROUND, FORMAT = "round.json", 1
CHOSEN = Path("comparisons", "chosen.parquet")
ANSWERS, HELD_OUT = "answers.parquet", "held-out.parquet"
TASKS: tuple[Tool, ...] = ("label-studio", "potato")
QUEUE = "next"
MEMBERS = "rewards_members"
"""The column in which `palate score` keeps what the members of an ensemble say."""
REASONS = "rewards_reason"
"""The column in which it says why a response has no score."""
SHOWN_CHARACTERS = 60
ITEM = "item"
"""The column of a target's rows that says which of them are of one item."""
EXAMPLES = 3  # Of rows that a message names.


# The pool: prompts, and the pairs of their responses.


@dataclass(frozen=True, slots=True)
class Row:
    """A prompt with its responses; `members` are what an ensemble says of each, None where nothing.

    `where` is its place in the file.
    """

    where: str
    prompt: tuple[Message, ...]
    responses: tuple[str, ...]
    members: tuple[Sequence[float] | None, ...]
    prompt_id: str
    safety: bool


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """The pairs of a file: P pairs of G prompts, of which M members say something.

    A pair is of responses of one row. Prompts with one opening are one, as in every split. `rows`
    and `sides` say of each pair where its responses are: [P] and [P, 2]. `differences` [P, M] are
    what members say of the first less of the second; M is 0 where nobody was asked. `left_out`
    counts by reason what gave no pair.
    """

    lines: tuple[Row, ...]
    prompts: Codes
    rows: Codes
    sides: Codes
    differences: Floats
    keys: tuple[int, ...]
    first: Codes
    left_out: Mapping[str, int]

    def prompt(self, number: int) -> Row:
        """The first row of a prompt."""
        return self.lines[int(self.first[number])]

    def flags(self, of: Callable[[Row], bool]) -> Flags:
        """Of which prompts something holds, by their first rows: [G]."""
        return np.array([of(self.prompt(n)) for n in range(len(self.keys))], dtype=np.bool_)


def read_pool(path: Path, *, members: bool = False, named: Path | None = None) -> Pool:
    """The pairs of a file of prompts with responses, as `palate rank` reads it.

    With `members` its rows must hold what each member of an ensemble says of each response. Its
    rows are those of the file `named`, where it was made of one.

    Raises:
        PalateError: a bad row, no pair in all of it, or no members where they are needed.
    """
    left_out: Counter[str] = Counter()
    lines: list[Row] = []
    # A file of scores has a row for each row of what was scored, which may be of another format.
    scored = named is not None and named != path
    origins = requests(named, ("responses",)) if named is not None and scored else None
    for request in requests(path, ("responses",)):
        where = request.where if origins is None else next(origins).where
        texts = request.candidates.responses
        said: list[Sequence[float] | None] = [None] * len(texts)
        if members:
            said = _members(request.row.get(MEMBERS), len(texts), where)
            reasons = request.row.get(REASONS)
            if not isinstance(reasons, list) or len(reasons) != len(said):
                reasons = [""] * len(said)
            for one, reason in zip(said, reasons, strict=True):
                why = f" ({str(reason)[:SHOWN_CHARACTERS]})" if reason else ""
                left_out[f"responses without a score{why}"] += one is None
        different = dict(zip(reversed(texts), reversed(said), strict=True))
        left_out["responses that a row has twice"] += len(texts) - len(different)
        cluster = request.row.get("prompt_id")
        lines.append(
            Row(
                where,
                request.candidates.prompt,
                tuple(different)[::-1],
                tuple(different.values())[::-1],
                "" if cluster is None else str(cluster),
                request.row.get("safety") is True,
            )
        )
    return _pairs(path, tuple(lines), left_out, members=members)


def _members(held: Any, count: int, where: str) -> list[Sequence[float] | None]:
    """What a row holds of its responses' members.

    Raises:
        PalateError: nothing, of one member, of other responses, or what is no finite number.
    """
    if held is None:
        raise PalateError(
            f"{where}: expected {MEMBERS}, as `palate score` writes it of an ensemble, got none; "
            "name an ensemble before the pool, or draw all at random (--random 1)"
        )
    if not isinstance(held, list) or len(held) != count or not all(map(_is_members, held)):
        raise PalateError(
            f"{where}: expected {MEMBERS} as {count} lists of finite numbers, one of each response "
            "(null where it has no score); score the file again, or name an ensemble before it"
        )
    if any(isinstance(one, list) and len(one) < 2 for one in held):
        raise PalateError(
            f"{where}: {MEMBERS} of an ensemble of one; one model knows no disagreement: train "
            "with `ensemble: 5`, or draw all at random (--random 1)"
        )
    return [one if isinstance(one, list) else None for one in held]


def _is_members(value: Any) -> bool:
    """Whether a value is what members say of one response, or that they say nothing."""
    if value is None:
        return True
    if not isinstance(value, list):
        return False
    return all(
        isinstance(one, int | float)
        and not isinstance(one, bool)
        and abs(one) <= sys.float_info.max / 2  # No NaN; and a float holds what two differ by.
        for one in value
    )


def _pairs(path: Path, lines: tuple[Row, ...], left_out: Counter[str], *, members: bool) -> Pool:
    numbers: dict[int, int] = {}
    first: list[int] = []
    found: list[tuple[int, int, int, int]] = []  # Prompt, row, and its two responses.
    seen: set[tuple[tuple[Message, ...], frozenset[str]]] = set()
    for number, row in enumerate(lines):
        key = prompt_key(row.prompt)
        if key not in numbers:
            numbers[key] = len(numbers)
            first.append(number)
        usable = [n for n, one in enumerate(row.members) if one is not None or not members]
        if len(usable) < 2:
            left_out["rows with fewer than two responses to compare"] += 1
        for a, b in combinations(usable, 2):
            pair = (row.prompt, frozenset((row.responses[a], row.responses[b])))
            if pair in seen:
                left_out["pairs that another row has"] += 1
                continue
            seen.add(pair)
            found.append((numbers[key], number, a, b))
    if not found:
        raise PalateError(f"{path}: expected prompts with two or more different responses")
    table = np.array(found, dtype=np.int64)
    differences = np.empty((len(found), 0))
    if members:
        said = [[lines[row].members[side] for side in pair] for _, row, *pair in found]
        sizes = {len(one) for pair in said for one in pair if one is not None}
        if len(sizes) > 1:
            raise PalateError(
                f"{path}: {MEMBERS} of ensembles of {min(sizes)} and of {max(sizes)} members; "
                "score the pool with one"
            )
        both = np.array(said, dtype=np.float64)  # [P, 2, M]
        differences = both[:, 0] - both[:, 1]
    return Pool(
        lines, table[:, 0], table[:, 1], table[:, 2:], differences, tuple(numbers),
        np.array(first, dtype=np.int64), {why: n for why, n in left_out.items() if n},
    )  # fmt: skip


# Rounds that there are.


@dataclass(frozen=True, slots=True)
class Round:
    """What `round.json` holds."""

    folder: Path
    fingerprint: str
    made_of: Mapping[str, Any]
    counts: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def name(self) -> str:
        """The name of the annotation batch: the folder's."""
        return self.folder.resolve().name

    def chosen(self) -> Iterator[Comparison]:
        """The pairs that it asks, in their order, without labels."""
        return read_comparisons(self.folder / CHOSEN)


def read_round(folder: Path) -> Round:
    """The round in a folder; raises `PalateError` where there is none that is whole."""
    path = folder / ROUND
    if not path.is_file():
        found = f"{ROUND} is not here"
        if folder.is_file():
            found = "it is a file; name the round's folder"
        elif (folder / CHOSEN).exists() or any(folder.glob("scores.jsonl*")):
            found = f"{ROUND} is not whole yet; run its `palate next` again"
        elif inside := sorted(folder.glob(f"*/{ROUND}")):
            found = f"it holds {len(inside):,}; name one of them, such as {inside[-1].parent}"
        raise PalateError(f"{folder}: expected a round of `palate next`; {found}")
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        version = held["format"]
        if version == FORMAT:
            SelectionOptions(**held["made_of"]["options"])
            if read_header(folder / CHOSEN, "comparisons").fingerprint != held["chosen"]:
                raise PalateError(
                    f"{folder / CHOSEN}: is not what {ROUND} was written for; restore both from "
                    "a copy: answers are known by them"
                )
            return Round(folder, held["fingerprint"], held["made_of"], held["counts"])
    except (OSError, ValueError, KeyError, TypeError):
        raise PalateError(f"{path}: cannot be read; it was changed by hand or is cut") from None
    raise PalateError(f"{path}: a round of format {version}, this Palate reads {FORMAT}")


def rounds_beside(folder: Path) -> list[Round]:
    """The other rounds in the folder that this one is in, by name."""
    here = folder.resolve()
    above = folder.parent if folder.parent.resolve() == here.parent else here.parent  # As typed.
    found = sorted(path.parent for path in above.glob(f"*/{ROUND}"))
    return [read_round(one) for one in found if one.resolve() != here]


# The next round.


@dataclass(frozen=True, slots=True)
class Asking:
    """What a round is chosen for and against, beside the options of the selection.

    `targets` are benchmarks whose labels the chosen ones are to tell of; `tests` what the pool must
    not overlap, unless what does is `left_out`. `earlier` rounds and `labelled` files of
    comparisons are not asked again. `about_safety` says which prompts are about safety, beside
    those whose row says `safety: true`; `safety_rule` names that rule. With `any_model` a round
    that stands there stays, whichever model drew it: in a loop a late answer changes the model of a
    week after the next week's round was drawn by it.
    """

    targets: Mapping[str, Path] = field(default_factory=dict[str, Path])
    tests: Mapping[str, Path] = field(default_factory=dict[str, Path])
    leave_out_overlap: bool = False
    earlier: Sequence[Round] = ()
    labelled: Sequence[Path] = ()
    about_safety: Callable[[Iterable[Message]], bool] | None = None
    safety_rule: str = ""
    any_model: bool = False


def make_round(
    scorer: Scorer | None,
    pool_path: Path,
    folder: Path,
    options: SelectionOptions,
    asking: Asking,
    *,
    progress: Progress | None = None,
    share: Shard = ALONE,
) -> Round | None:
    """Choose the pairs of a pool to have labelled next, and write them as a round.

    A round that stands there already and was made of the same is left as it is, for people may be
    answering it. A killed one goes on with the scores that it has. Of several processes the first
    returns the round, the others None.

    Raises:
        PalateError: the pool is too small, overlaps a test set or names no members; the model is an
            ensemble of one; another round stands in the folder or is being drawn in it, or one
            beside it keeps other prompts for testing.
    """
    selective = options.random < 1
    if selective and scorer is not None and getattr(scorer, "members", 1) < 2:
        raise PalateError(
            f"{scorer.name}: an ensemble of one, and one model knows no disagreement; train one "
            "with `ensemble: 5`, or draw all at random (--random 1)"
        )
    if asking.targets and not selective:
        raise PalateError("--for has no say where all pairs are drawn at random; lower --random")
    if not pool_path.is_file():
        what = "is a folder; name a file of it" if pool_path.is_dir() else "no such file"
        if (pool_path / "config.json").is_file():
            what = "is a model; name the pool behind it"
        raise PalateError(f"{pool_path}: {what}")
    _same_test_prompts(options, asking.earlier)
    made_of = {
        "pool": {"file": pool_path.name, "digest": file_digest(pool_path)},
        "model": dict(scorer.protocol) | {"name": scorer.name} if selective and scorer else None,
        "options": options.model_dump(mode="json"),
        "for": {name: read_header(path).fingerprint for name, path in asking.targets.items()},
        "tests": {name: read_header(path).fingerprint for name, path in asking.tests.items()},
        "overlap": "left out" if asking.leave_out_overlap else "refused",
        "labelled": [read_header(path).fingerprint for path in asking.labelled],
        "safety_rule": asking.safety_rule,
    }
    if (folder / ROUND).exists():
        changeable = {"model"} if asking.any_model else set[str]()
        return _as_it_stands(folder, made_of, changeable) if share.leads else None
    if folder.exists() and not folder.is_dir():
        raise PalateError(f"{folder}: is a file; name a new folder")
    if (folder / "tasks").exists() and not (folder / CHOSEN).exists():
        raise PalateError(f"{folder / 'tasks'}: is no round's; name a new folder by --out")
    with ExitStack() as held:
        # Two that score one pool into one folder would write into one another's journal.
        share.together(lambda: held.enter_context(locked(folder)) if share.leads else None)
        return _draw(scorer, pool_path, folder, options, asking, made_of, progress, share)


def _draw(
    scorer: Scorer | None,
    pool_path: Path,
    folder: Path,
    options: SelectionOptions,
    asking: Asking,
    made_of: Mapping[str, Any],
    progress: Progress | None,
    share: Shard,
) -> Round | None:
    """Have the pool scored where that is needed, and draw the round."""
    selective = options.random < 1
    beside = {one.fingerprint for one in rounds_beside(folder)}
    scored = pool_path
    if selective and scorer is not None:
        # Before a large pool is scored for hours.
        share.together(lambda: check_rounds(pool_path, options, asking) if share.leads else None)
        scored = folder / "scores.jsonl"
        score_file(scorer, pool_path, scored, progress=progress, share=share)
    told: Path | None = None
    if asking.targets:
        if scorer is None:
            raise PalateError("--for: the ensemble is asked about it too; name it before the pool")
        targets = folder / "targets.jsonl"

        def write() -> None:
            if share.leads:
                _write_targets(asking.targets.values(), targets)

        share.together(write)
        told = targets.with_suffix(".scores.jsonl")
        score_file(scorer, targets, told, progress=progress, share=share)
    made: list[Round] = []

    def lead() -> None:
        if share.leads:
            made.append(_choose(folder, pool_path, scored, told, options, asking, made_of, beside))

    share.together(lead)
    return made[0] if made else None


def _same_test_prompts(options: SelectionOptions, earlier: Sequence[Round]) -> None:
    """Raise `PalateError` where an earlier round kept other prompts for testing than this will."""
    for one in earlier:
        for name in ("seed", "reserve"):
            theirs, ours = one.made_of["options"][name], getattr(options, name)
            if theirs != ours:
                raise PalateError(
                    f"--{name} {ours}: {one.folder} was drawn with {theirs}, and by it prompts "
                    f"are kept for testing; give --{name} {theirs}, or another folder by --out"
                )


def _as_it_stands(folder: Path, made_of: Mapping[str, Any], changeable: Container[str]) -> Round:
    """The round in a folder; raises `PalateError` where it was made of something else."""
    there = read_round(folder)
    other = [
        name
        for name, value in made_of.items()
        if name not in changeable and there.made_of.get(name) != value
    ]
    if other:
        raise PalateError(
            f"{folder}: holds a round that was made otherwise ({', '.join(other)}); what people "
            "are asked does not change: name a new folder by --out"
        )
    return there


def _write_targets(paths: Iterable[Path], out: Path) -> None:
    """The prompts and responses of benchmarks as rows that a scorer is asked, each with `ITEM`.

    An item whose responses have earlier turns of their own is several rows.
    """
    lines = [
        json.dumps({**row_of(shown), ITEM: number}, ensure_ascii=False)
        for number, row in enumerate(chain.from_iterable(map(rows_of, paths)))
        for shown in candidates_of(row)
    ]
    write_text(out, "\n".join(lines) + "\n")


def _target_differences(path: Path) -> Floats:
    """What members say of one response less another, of all pairs of each target's item, [T, M].

    Raises:
        PalateError: as `_members`, or no item has two responses with scores.
    """
    said: dict[int, dict[tuple[object, str], Sequence[float]]] = {}
    for request in requests(path, ("responses",)):
        prompt, texts = request.candidates.prompt, request.candidates.responses
        of = said.setdefault(request.row[ITEM], {})
        for text, one in zip(
            texts, _members(request.row.get(MEMBERS), len(texts), request.where), strict=True
        ):
            if one is not None:
                of[prompt, text] = one
    pairs = [pair for of in said.values() for pair in combinations(of.values(), 2)]
    if not pairs:
        raise PalateError(f"{path}: --for: the ensemble scores no two responses of one item")
    both = np.array(pairs, dtype=np.float64)  # [T, 2, M]
    return both[:, 0] - both[:, 1]


def _choose(
    folder: Path,
    path: Path,
    scored: Path,
    told: Path | None,
    options: SelectionOptions,
    asking: Asking,
    made_of: Mapping[str, Any],
    beside: Container[str],
) -> Round:
    """Draw the pairs, and write all files of the round.

    Raises:
        PalateError: as `make_round`; or another round than those `beside` was drawn meanwhile.
    """
    selective = options.random < 1
    pool = read_pool(scored, members=selective, named=path)
    known = _known_of(pool, options, asking)
    worth = np.ones(len(pool.prompts))
    if selective:
        worth = information(pool.differences)
        if told is not None:
            worth = expected_gain(pool.differences, _target_differences(told))
    rounds = {one.name: one.fingerprint for one in asking.earlier}
    fingerprint = digest(made_of, rounds)
    rng = np.random.default_rng([options.seed, int(fingerprint[:16], 16)])
    chosen = known.draw(worth, pool.prompts, options, rng)
    for one in rounds_beside(folder):
        if one.fingerprint not in beside:
            raise PalateError(
                f"{one.folder}: was drawn while this round was; run the same command again, so "
                "that no prompt is asked twice (what was scored is kept)"
            )
    name = folder.resolve().name
    rows = list(_asked(pool, chosen, worth, name, fingerprint, stem(path), scored=selective))
    header = write_comparisons(folder / CHOSEN, rows, details={"round": name})
    counts = {
        "prompts": len(pool.keys),
        "pairs": len(pool.prompts),
        "left_out": dict(pool.left_out),
        "asked_before": int(known.asked.sum()),
        "overlapping": int(known.overlap.sum()),
        "near_duplicates": len({n for pair in known.near.tolist() for n in pair}),
        "chosen": dict(Counter(chosen.reason.tolist())),
    }
    scored_by = "expected gain" if told is not None else "information"
    entries = (
        Entry(row.id, row.meta[SELECTION]["reason"], row.meta[SELECTION].get("worth"))
        for row in rows
    )
    write_queue(queue_path(folder, QUEUE), entries, scored_by=scored_by)
    for tool in TASKS:
        out = folder / "tasks" / tool
        shutil.rmtree(out, ignore_errors=True)  # Of a round that was killed here.
        write_tasks(rows, tool, out, lambda one: seeded_side(options.seed, one))
    held = {
        "format": FORMAT,
        "fingerprint": fingerprint,
        "made_of": {**made_of, "earlier": rounds},
        "counts": counts,
        "chosen": header.fingerprint,
    }
    write_json(folder / ROUND, held)
    return read_round(folder)


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """What is known of the prompts of a pool before any is drawn: all [G], but `near` [E, 2].

    Those `asked` before and those that `overlap` a test set are not asked; what is `apart` is near
    to a question that an earlier round held out. The rest is as in `select`.
    """

    ranks: Keys
    asked: Flags
    overlap: Flags
    apart: Flags
    near: Codes
    safety: Flags
    along: Codes

    def draw(
        self, worth: Floats, prompts: Codes, options: SelectionOptions, rng: np.random.Generator
    ) -> Selection:
        """The pairs to ask for; raises as `select` does."""
        return select(
            worth, prompts, options, rng,
            ranks=self.ranks,
            asked=self.asked | self.overlap,
            apart=self.apart | self.overlap,
            near=self.near,
            safety=self.safety,
            along=self.along,
        )  # fmt: skip


def _known_of(pool: Pool, options: SelectionOptions, asking: Asking) -> Known:
    prompts = [
        Comparison(str(n), "pool", pool.prompt(n).prompt, "", "", "") for n in range(len(pool.keys))
    ]
    overlap = _overlap(prompts, asking, pool)
    asked, tested = _asked_before(asking)
    against = BenchmarkIndex.build({"held out": tested})
    openings = np.array([opening(one.prompt) for one in prompts], dtype=object)
    rule = asking.about_safety
    return Known(
        ranks=permanent_ranks(pool.keys, options.seed),
        asked=np.array([key in asked for key in pool.keys], dtype=np.bool_),
        overlap=overlap,
        apart=np.array([bool(against.find(one)) for one in prompts], dtype=np.bool_),
        near=_near(prompts),
        safety=pool.flags(lambda row: row.safety or bool(rule and rule(row.prompt))),
        # Prompts that begin alike are neighbours.
        along=np.argsort(np.argsort(openings, kind="stable")),
    )


def check_rounds(
    pool_path: Path, options: SelectionOptions, asking: Asking, *, rounds: int = 1
) -> None:
    """Refuse what a round would refuse of its pool, and more rounds than a pool has prompts for.

    It takes no model, so it comes before one is trained or asked. Of later rounds only prompts are
    counted, of which none is asked twice.

    Raises:
        PalateError: as `make_round`, or there are too few prompts.
    """
    pool = read_pool(pool_path)
    known = _known_of(pool, options, asking)
    open_ = ~(known.asked | known.overlap)
    kept = options.keeps(known.ranks)
    sizes = np.minimum(np.bincount(pool.prompts, minlength=len(open_)), options.pairs_per_prompt)
    testing = int((sizes[open_ & kept] > 0).sum())
    training = int(sizes[open_ & ~kept & ~known.apart].sum())
    tests = options.held_out
    if rounds > 1 and rounds * tests > testing:
        raise PalateError(
            f"{rounds:,} rounds ask for {rounds * tests:,} held-out pairs, and {testing:,} prompts "
            f"of this pool are kept for testing (reserve {options.reserve:g}); ask for a smaller "
            "test set or fewer rounds, keep more prompts, or give more"
        )
    if rounds > 1 and rounds * (options.budget - tests) > training:
        raise PalateError(
            f"{rounds:,} rounds of {options.budget:,} pairs: besides held-out ones they ask for "
            f"{rounds * (options.budget - tests):,}, and this pool has prompts for {training:,}; "
            f"lower the budget to {training // rounds + tests:,}, or ask for fewer rounds"
        )
    known.draw(np.ones(len(pool.prompts)), pool.prompts, options, np.random.default_rng(0))


def permanent_ranks(keys: Iterable[int], seed: int) -> Keys:
    """The random number that each prompt has for ever, by which `selection` draws tests."""
    ranks = [hash64("test", str(seed), f"{key:x}") for key in keys]
    return np.array(ranks, dtype=np.uint64)


def _overlap(prompts: Sequence[Comparison], asking: Asking, pool: Pool) -> Flags:
    """Which prompts are in a test set or a target, [G].

    Raises:
        PalateError: some are, and are not to be left out.
    """
    files = {**asking.targets, **asking.tests}
    index = BenchmarkIndex.build({name: rows_of(path) for name, path in files.items()})
    found = [index.find(one) for one in prompts]
    overlapping = np.array([bool(one) for one in found], dtype=np.bool_)
    if overlapping.any() and not asking.leave_out_overlap:
        first = int(np.flatnonzero(overlapping)[0])
        places = [pool.prompt(int(n)).where for n in np.flatnonzero(overlapping)[:EXAMPLES]]
        more = ", ..." if overlapping.sum() > EXAMPLES else ""
        raise PalateError(
            f"the pool overlaps {found[first][0].benchmark}: {overlapping.sum():,} of "
            f"{len(prompts):,} prompts ({', '.join(places)}{more}); whoever trains on them knows "
            "the test: take them out, or give --leave-out-overlap"
        )
    return overlapping


def _near(prompts: Sequence[Comparison]) -> Codes:
    """Which prompts are near-duplicates of which, [E, 2], by the rules of contamination."""
    index = BenchmarkIndex.build({"pool": prompts})
    edges = {
        (min(n, other), max(n, other))
        for n, one in enumerate(prompts)
        for overlap in index.find(one)
        if (other := int(overlap.benchmark_id)) != n
    }
    return np.array(sorted(edges), dtype=np.int64).reshape(-1, 2)


def _asked_before(asking: Asking) -> tuple[set[int], list[Comparison]]:
    """The keys of all prompts that were asked before, and the held-out ones among them."""
    keys, held_out = set[int](), list[Comparison]()
    for one in asking.earlier:
        for row in one.chosen():
            keys.add(prompt_key(row.prompt))
            if row.meta[SELECTION]["reason"] == Reason.HELD_OUT:
                held_out.append(row)
    for path in asking.labelled:
        keys |= {prompt_key(row.prompt) for row in read_comparisons(path)}
    return keys, held_out


def _asked(
    pool: Pool, chosen: Selection, worth: Floats, name: str, fingerprint: str, source: str, *,
    scored: bool,
) -> Iterator[Comparison]:  # fmt: skip
    """The pairs that are asked, without labels; which response is first is drawn."""
    for pair, probability, reason in zip(
        chosen.pairs.tolist(), chosen.probability.tolist(), chosen.reason.tolist(), strict=True
    ):
        row = pool.lines[int(pool.rows[pair])]
        first, second = (row.responses[side] for side in pool.sides[pair].tolist())
        if not seeded_side(0, digest(fingerprint, pair)):
            first, second = second, first
        key = prompt_key(row.prompt)
        facts = {"round": name, "reason": reason, "probability": probability}
        yield Comparison(
            id=comparison_id(source, row.prompt, first, second, fingerprint),
            source=source,
            prompt=row.prompt,
            chosen=first,
            rejected=second,
            prompt_id=digest(source, row.prompt_id) if row.prompt_id else f"{key:016x}",
            batch=name,
            meta={
                "asked": row.where,
                SELECTION: facts | ({"worth": float(worth[pair])} if scored else {}),
            },
            judgement=UNLABELLED,
        )


# What comes back.


@dataclass(frozen=True, slots=True)
class Answered:
    """What an import has made of a round: rows to train on and to test with, by whom, and the rest.

    `known` rows were there before; `open` tasks have no answer yet.
    """

    training: int
    held_out: int
    known: int
    tasks: int
    asked: int

    @property
    def open(self) -> int:
        """Tasks without an answer."""
        return self.asked - self.tasks

    def __str__(self) -> str:
        again = f", {self.known:,} of them known before" if self.known else ""
        return (
            f"{self.training + self.held_out:,} answers to {self.tasks:,} of {self.asked:,} "
            f"tasks{again}: {self.training:,} to train on, {self.held_out:,} held out"
        )


def import_answers(
    round_: Round, answers: Iterable[tuple[str, Comparison]], out: Path, held_out: Path
) -> Answered:
    """Add what people answered to the files of a round, each answer once.

    `answers` come with their places, for messages, as of `data.sources.placed`.
    Every row keeps how its pair was chosen, in `meta.selection`: round, reason, probability. Rows
    are in the order in which the pairs were asked, and then by annotator, whatever came first, so
    that the same answers make the same files.

    Raises:
        PalateError: an answer to a task that was never asked, or of another round; a task that one
            annotator answered twice; texts that are not those that were asked. Nothing is written.
    """
    with locked(round_.folder):
        return _import(round_, answers, out, held_out)


def _import(
    round_: Round, answers: Iterable[tuple[str, Comparison]], out: Path, held_out: Path
) -> Answered:
    asked = {row.id: (place, row) for place, row in enumerate(round_.chosen())}
    kept = {_key(row): row for path in (out, held_out) for row in _rows_of(round_, path)}
    found: dict[tuple[str, str], Comparison] = {}
    places: dict[tuple[str, str], str] = {}
    for place, row in answers:
        of = row.meta.get("of")
        if row.judgement == UNLABELLED:
            raise PalateError(f"{place}: is a question without an answer; have it labelled first")
        if not isinstance(of, str) or of not in asked:
            raise _never_asked(round_, place, row)
        answer = _answer(round_, asked[of][1], place, row)
        key = _key(answer)
        if key in found:
            first = "" if places[key] == place else f", first in {places[key]}"
            raise PalateError(
                f"{place}: task {of} was answered twice by {row.annotator or 'nobody named'}"
                f"{first}; leave one of them out"
            )
        if key in kept and _said(kept[key]) != _said(answer):
            raise PalateError(
                f"{place}: task {of} was answered otherwise by {row.annotator or 'the same'} "
                f"in {out.name} or {held_out.name}; remove both to import anew"
            )
        found[key], places[key] = answer, place
    known = len(found.keys() & kept.keys())
    every = sorted(
        ({**found, **kept}).values(), key=lambda r: (asked[r.meta["of"]][0], r.annotator or "")
    )
    parts: dict[Path, list[Comparison]] = {out: [], held_out: []}
    for row in every:
        is_test = row.meta[SELECTION]["reason"] == Reason.HELD_OUT
        parts[held_out if is_test else out].append(row)
    for path, rows in parts.items():
        if rows:
            details = {"round": round_.name, "round_fingerprint": round_.fingerprint}
            write_comparisons(path, rows, details=details)
    tasks = len({row.meta["of"] for row in every})
    return Answered(len(parts[out]), len(parts[held_out]), known, tasks, len(asked))


def _answer(round_: Round, asked: Comparison, place: str, row: Comparison) -> Comparison:
    """The pair that was asked, with what was said of it."""
    shown = as_shown(asked)
    texts = {
        shown.chosen: asked.chosen,
        shown.rejected: asked.rejected,
        asked.chosen: asked.chosen,
        asked.rejected: asked.rejected,
    }
    sides = texts.get(row.chosen), texts.get(row.rejected)
    prompts = {prompt_key(one.prompt) for one in (asked, shown)}
    for what, same in (
        ("responses are", set(sides) == {asked.chosen, asked.rejected}),
        ("prompt is", prompt_key(row.prompt) in prompts),
    ):
        if not same:
            raise PalateError(
                f"{place}: its {what} not what task {asked.id} asked of; import what the "
                "tool exports as it is"
            )
    chosen, rejected = str(sides[0]), str(sides[1])
    key = f"{round_.fingerprint}:{row.annotator or ''}"
    return replace(
        row,
        id=comparison_id(asked.source, asked.prompt, chosen, rejected, key),
        source=asked.source,
        prompt=asked.prompt,
        chosen=chosen,
        rejected=rejected,
        prompt_id=asked.prompt_id,
        batch=asked.batch,
        meta={**row.meta, **asked.meta, "of": asked.id},
    )


def _key(row: Comparison) -> tuple[str, str]:
    return str(row.meta["of"]), row.annotator or ""


def _said(row: Comparison) -> tuple[object, ...]:
    """What counts of an answer; in a tie it is all the same which response stands first."""
    texts = (row.chosen, row.rejected)
    tied = row.judgement.decides == "tie"
    return (tuple(sorted(texts)) if tied else texts), row.judgement, row.rating


def _rows_of(round_: Round, path: Path) -> Iterator[Comparison]:
    """The answers that an earlier import left; raises `PalateError` where they are another's."""
    if not path.exists():
        return
    header = read_header(path, "comparisons")
    if header.details.get("round_fingerprint") != round_.fingerprint:
        raise PalateError(
            f"{path}: holds no answers of round {round_.name}; name another file by --out"
        )
    yield from read_comparisons(path)


def _never_asked(round_: Round, place: str, row: Comparison) -> PalateError:
    of = row.meta.get("of")
    if not of:
        return PalateError(
            f"{place}: names no task; expected answers to the tasks in "
            f"{round_.folder / 'tasks'}, which say `comparison_id`"
        )
    for other in rounds_beside(round_.folder):
        if any(one.id == of for one in other.chosen()):
            return PalateError(
                f"{place}: answers a task of round {other.name}, not of {round_.name}; "
                f"import it with --round {other.folder}"
            )
    return PalateError(f"{place}: task {of} was never asked in round {round_.name}")
