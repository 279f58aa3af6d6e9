"""Stack Exchange: answers to one question, preferred by their votes.

Two forms: the dump's `Posts.xml` of a site (https://archive.org/details/stackexchange), and
https://huggingface.co/datasets/HuggingFaceH4/stack-exchange-preferences. Every two answers of
one question with different scores are a comparison. Text is CC BY-SA: author, link and licence
of question and answers are in `meta`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

from palate.data.sources import fields
from palate.data.sources.html_text import html_to_text
from palate.data.sources.location import locate, records
from palate.data.sources.source import BadRow, Cuts, Record, Request, Row, Source, ask, each
from palate.data.sources.stackexchange_dump import Post, host_of, read_dump
from palate.types import Comparison, PalateError, comparison_id, digest

NAME = "stackexchange"
HUB_ID = "HuggingFaceH4/stack-exchange-preferences"
HUB_LICENCE = "CC BY-SA 4.0"

DUMP_CUTS = Cuts(
    "score gap (dump)", 2, 3, 5, (0.260, 0.200, 0.240, 0.299), "beer, coffee, quantumcomputing"
)
# The hub form has no votes but pm_score = round(log2(1 + votes)), + 1 if accepted (Askell et al.
# 2021), so a gap of 1 is a factor of two in votes.
HUB_CUTS = Cuts("pm_score gap (hub)", 2, 3, 4)


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer as either form gives it; `html` is made text once, when first compared."""

    id: str
    score: int
    html: str
    attribution: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Question:
    """A question with its answers and what is common to its comparisons."""

    id: str
    site: str
    text: str
    answers: Sequence[Answer]
    cuts: Cuts
    meta: Mapping[str, Any]


def load(request: Request) -> Iterator[Row]:
    """Comparisons of all sites at the location, or of one (a subset is a site)."""
    limit = _limit(request.options)
    where = locate(request, HUB_ID)
    if isinstance(where, Path) and (dumps := _dumps(where, request.subset)):
        for path in dumps:
            yield from _from_dump(path, limit)
        return
    folder = f"data/{request.subset}" if isinstance(where, str) and request.subset else None
    asked = Request(request.location, request.split, folder or request.subset)
    found = records(asked, HUB_ID, folder=True)
    yield from each(found, partial(_from_hub, limit=limit))


def _limit(options: Mapping[str, Any]) -> int | None:
    limit = options.get("max_pairs_per_question")
    if limit is None:
        return None
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise PalateError(f"{NAME}: max_pairs_per_question: expected 1 or more, got {limit!r}")
    return limit


def _dumps(where: Path, site: str | None) -> list[Path]:
    if where.is_file():
        return [where] if where.suffix.lower() == ".xml" else []
    found = sorted(where.rglob("Posts.xml"))
    kept = [path for path in found if site is None or path.parent.name == site]
    if found and not kept:
        there = ", ".join(path.parent.name for path in found)
        raise PalateError(f"{where}: no site {site!r}; it has {there}")
    return kept


def _from_dump(path: Path, limit: int | None) -> Iterator[Row]:
    site = path.resolve().parent.name
    host, empty = host_of(site), True
    for item in read_dump(path):
        empty = False
        if isinstance(item, BadRow):
            yield item
            continue
        question, posts = item
        answers = [_answer(post, host) for post in posts]
        meta = {
            "file": f"{site}/{path.name}",
            "row": question.line,
            "question": question.attribution(host),
        }
        asked = "\n\n".join(filter(None, (question.title.strip(), html_to_text(question.body))))
        number = str(question.id)
        yield from _pairs(Question(number, site, asked, answers, DUMP_CUTS, meta), limit)
    if empty:
        raise PalateError(f"{path}: expected posts, found none")


def _answer(post: Post, host: str) -> Answer:
    return Answer(str(post.id), post.score, post.body, post.attribution(host))


def _from_hub(record: Record, limit: int | None) -> Iterator[Row]:
    data = record.data
    links = [link for link in data.get("metadata") or [] if isinstance(link, str)]
    site = links[0].split("/")[2] if links and links[0].count("/") >= 2 else "unknown"
    number = fields.optional_text(data, "qid") or str(record.row)
    answers = [
        _hub_answer(fields.mapping(item, f"answers[{at}]"), site)
        for at, item in enumerate(fields.items(data, "answers"))
    ]
    meta = {
        **record.origin,
        "question": {"link": links[0] if links else None, "licence": HUB_LICENCE},
    }
    asked = html_to_text(fields.text(data, "question"))
    yield from _pairs(Question(number, site, asked, answers, HUB_CUTS, meta), limit)


def _hub_answer(data: Mapping[str, Any], site: str) -> Answer:
    number = fields.optional_text(data, "answer_id") or ""
    attribution = {
        "author": fields.optional_text(data, "author"),
        "author_link": fields.optional_text(data, "author_profile"),
        "link": f"https://{site}/a/{number}",
        "licence": HUB_LICENCE,
    }
    score = int(fields.number(data, "pm_score"))
    return Answer(number, score, fields.text(data, "text"), attribution)


def _pairs(question: Question, limit: int | None) -> Iterator[Comparison]:
    """Pairs of answers with different scores, at most `limit`; which ones, a digest draws."""
    unequal = [pair for pair in combinations(question.answers, 2) if pair[0].score != pair[1].score]
    if limit is not None and len(unequal) > limit:
        unequal.sort(key=lambda pair: digest(question.id, pair[0].id, pair[1].id))
        unequal = unequal[:limit]
    texts: dict[str, str] = {}
    for pair in unequal:
        for answer in pair:
            if answer.id not in texts:
                texts[answer.id] = html_to_text(answer.html)
        yield _comparison(question, pair, texts)


def _comparison(
    question: Question, pair: tuple[Answer, Answer], texts: Mapping[str, str]
) -> Comparison:
    better, worse = pair if pair[0].score > pair[1].score else pair[::-1]
    prompt, gap = ask(question.text), better.score - worse.score
    chosen, rejected = texts[better.id], texts[worse.id]
    key = f"{question.site}:{better.id}>{worse.id}"
    return Comparison(
        id=comparison_id(NAME, prompt, chosen, rejected, key),
        source=NAME,
        prompt=prompt,
        chosen=chosen,
        rejected=rejected,
        prompt_id=digest(NAME, question.site, question.id),
        batch=f"{NAME}/{question.site}",
        rating=question.cuts.rate(gap),
        meta={
            **question.meta,
            "strength": gap,
            "scores": [better.score, worse.score],
            "chosen": better.attribution,
            "rejected": worse.attribution,
        },
    )


SOURCE = Source(
    name=NAME,
    title="Stack Exchange",
    hub_id=HUB_ID,
    licence="CC BY-SA 2.5, 3.0 or 4.0 by date of the post (attribution, share-alike)",
    url="https://archive.org/details/stackexchange",
    kind="helpful",
    load=load,
    cuts=(DUMP_CUTS, HUB_CUTS),
    options={
        "max_pairs_per_question": (
            "default: all; at hand one question of 33 answers gives 446 of the 3,086 pairs"
        )
    },
    folder="stackexchange",
    tried_on="dumps of three sites (3,086 pairs); hub form: hand-made rows only",
    notes="answers with equal scores are no pair; HTML made text; cluster: question; batch: site",
)
