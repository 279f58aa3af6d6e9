"""Stack Exchange: answers to one question, preferred by their votes.

Two forms: the dump's `Posts.xml` of a site (https://archive.org/details/stackexchange), and
https://huggingface.co/datasets/HuggingFaceH4/stack-exchange-preferences. Every two answers of
one question with different scores are a comparison. Text is CC BY-SA: author, link and licence
of question and answers are in `meta`.
"""

from __future__ import annotations

import re
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from functools import partial
from html.parser import HTMLParser
from itertools import combinations, groupby
from operator import attrgetter
from pathlib import Path
from typing import Any
from xml.parsers import expat

from palate.data.sources import base
from palate.data.sources.base import BadRow, Cuts, Record, Request, Row, Source, each
from palate.data.sources.files import records, resolve
from palate.types import Comparison, PalateError, digest

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
    """A question with its answers, as either form gives it; `record` says where it comes from."""

    record: Record
    id: str
    site: str
    text: str
    attribution: Mapping[str, Any]
    answers: Sequence[Answer]
    cuts: Cuts


def load(request: Request) -> Iterator[Row]:
    """Comparisons of all sites at the location, or of one (a subset is a site)."""
    limit = request.options.get("max_pairs_per_question")
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise PalateError(f"{NAME}: max_pairs_per_question: expected 1 or more, got {limit!r}")
    location = resolve(request, HUB_ID)
    if isinstance(location, Path) and (dumps := _dumps(location, request.subset)):
        for path in dumps:
            yield from _from_dump(path, limit)
        return
    folder = f"data/{request.subset}" if isinstance(location, str) and request.subset else None
    request = Request(request.location, request.split, folder or request.subset)
    yield from each(records(request, HUB_ID, folder=True), partial(_from_hub, limit=limit))


def _dumps(location: Path, site: str | None) -> list[Path]:
    if location.is_file():
        return [location] if location.suffix.lower() == ".xml" else []
    paths = sorted(location.rglob("Posts.xml"))
    of_site = [path for path in paths if site is None or path.parent.name == site]
    if paths and not of_site:
        sites = ", ".join(path.parent.name for path in paths)
        raise PalateError(f"{location}: no site {site!r}; it has {sites}")
    return of_site


def _from_dump(path: Path, limit: int | None) -> Iterator[Row]:
    site = path.resolve().parent.name
    host, empty = host_of(site), True
    for item in read_dump(path):
        empty = False
        if isinstance(item, BadRow):
            yield item
            continue
        post, answers = item
        question = Question(
            Record(str(path), post.line, f"{site}/{path.name}", {}),
            str(post.id),
            site,
            "\n\n".join(filter(None, (post.title.strip(), html_to_text(post.body)))),
            post.attribution(host),
            [Answer(str(a.id), a.score, a.body, a.attribution(host)) for a in answers],
            DUMP_CUTS,
        )
        yield from _pairs(question, limit)
    if empty:
        raise PalateError(f"{path}: expected posts, found none")


def _from_hub(record: Record, limit: int | None) -> Iterator[Row]:
    data = record.data
    links = [link for link in data.get("metadata") or [] if isinstance(link, str)]
    site = links[0].split("/")[2] if links and links[0].count("/") >= 2 else "unknown"
    question_id = base.optional_text(data, "qid") or str(record.row)
    answers = []
    for at, item in enumerate(base.items(data, "answers")):
        answer = base.mapping(item, f"answers[{at}]")
        answer_id = base.optional_text(answer, "answer_id") or ""
        attribution = {
            "author": base.optional_text(answer, "author"),
            "author_link": base.optional_text(answer, "author_profile"),
            "link": f"https://{site}/a/{answer_id}",
            "licence": HUB_LICENCE,
        }
        score = int(base.number(answer, "pm_score"))
        answers.append(Answer(answer_id, score, base.text(answer, "text"), attribution))
    text = html_to_text(base.text(data, "question"))
    attribution = {"link": links[0] if links else None, "licence": HUB_LICENCE}
    yield from _pairs(
        Question(record, question_id, site, text, attribution, answers, HUB_CUTS), limit
    )


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
        better, worse = pair if pair[0].score > pair[1].score else pair[::-1]
        gap = better.score - worse.score
        yield question.record.comparison(
            NAME,
            question.text,
            texts[better.id],
            texts[worse.id],
            key=f"{question.site}:{better.id}>{worse.id}",
            prompt_id=digest(NAME, question.site, question.id),
            batch=f"{NAME}/{question.site}",
            rating=question.cuts.rate(gap),
            meta={
                "question": question.attribution,
                "strength": gap,
                "scores": [better.score, worse.score],
                "chosen": better.attribution,
                "rejected": worse.attribution,
            },
        )


# Reading a Stack Exchange dump, `Posts.xml`, of any size in bounded memory.
#
# Answers lie anywhere behind their question, so posts go through a temporary SQLite file (about
# the size of the dump) and come back question by question.

_CHUNK_BYTES = 2**20
_QUESTION, _ANSWER = "1", "2"
# Sites whose address is not <name>.stackexchange.com.
_OWN_DOMAINS = {
    "stackoverflow": "stackoverflow.com",
    "serverfault": "serverfault.com",
    "superuser": "superuser.com",
    "askubuntu": "askubuntu.com",
    "mathoverflow": "mathoverflow.net",
    "stackapps": "stackapps.com",
}


@dataclass(frozen=True, slots=True)
class Post:
    """One question or answer; `question` is the id of the question it belongs to."""

    id: int
    question: int
    score: int
    title: str
    body: str
    owner: int | None
    name: str | None
    created: str
    licence: str | None
    line: int

    def attribution(self, host: str) -> dict[str, Any]:
        """What CC BY-SA asks to be named: author, link, licence."""
        kind = "q" if self.id == self.question else "a"
        return {
            "author": self.name or (f"user {self.owner}" if self.owner is not None else "unknown"),
            "author_link": None if self.owner is None else f"https://{host}/users/{self.owner}",
            "link": f"https://{host}/{kind}/{self.id}",
            "licence": self.licence or licence_by_date(self.created),
        }


def host_of(site: str) -> str:
    """The address of a site by the name of its folder ("beer", "ai.stackexchange.com")."""
    name = site.casefold().removesuffix(".com")
    if name in _OWN_DOMAINS:
        return _OWN_DOMAINS[name]
    return site if "." in site else f"{site}.stackexchange.com"


def licence_by_date(created: str) -> str:
    """The licence of a post that does not name one (https://stackoverflow.com/help/licensing)."""
    if created < "2011-04-08":
        return "CC BY-SA 2.5"
    return "CC BY-SA 3.0" if created < "2018-05-02" else "CC BY-SA 4.0"


def read_dump(path: Path) -> Iterator[tuple[Post, list[Post]] | BadRow]:
    """Yield every question with its answers, in the order of ids; bad posts as they are met."""
    try:
        with (
            tempfile.TemporaryDirectory(prefix="palate-dump-") as folder,
            closing(sqlite3.connect(Path(folder) / "posts.sqlite")) as database,
        ):
            yield from _store(database, path)
            yield from _questions(database, path)
    except sqlite3.Error as error:
        where = tempfile.gettempdir()
        raise PalateError(f"{path}: no room to sort its posts in {where} ({error})") from None


def _store(database: sqlite3.Connection, path: Path) -> Iterator[BadRow]:
    """Put every question and answer of the file into the database."""
    columns = [column.name for column in fields(Post)]
    database.execute("PRAGMA journal_mode = OFF")
    database.execute("PRAGMA synchronous = OFF")
    database.execute(f"CREATE TABLE posts ({', '.join(columns)})")
    values, insert = (
        attrgetter(*columns),
        f"INSERT INTO posts VALUES ({', '.join('?' * len(columns))})",
    )
    for line, attributes in _rows(path):
        try:
            post = _post(attributes, line)
        except ValueError as error:
            yield BadRow(str(path), line, str(error))
            continue
        if post is not None:
            database.execute(insert, values(post))
    database.execute("CREATE INDEX by_question ON posts (question, id)")


def _questions(
    database: sqlite3.Connection, path: Path
) -> Iterator[tuple[Post, list[Post]] | BadRow]:
    ordered = database.execute("SELECT * FROM posts ORDER BY question, id != question, id")
    posts = (Post(*row) for row in ordered)
    for number, group in groupby(posts, key=lambda post: post.question):
        question, *answers = group
        if question.id == number:
            yield question, answers
            continue
        reason = f"answer to question {number}, which the dump does not hold"
        for orphan in (question, *answers):
            yield BadRow(str(path), orphan.line, reason, "left out")


def _post(row: Mapping[str, str], line: int) -> Post | None:
    """A question or answer; None for other posts (tag descriptions and the like)."""
    kind = row.get("PostTypeId")
    if kind not in (_QUESTION, _ANSWER):
        return None
    number = _int(row, "Id")
    return Post(
        id=number,
        question=number if kind == _QUESTION else _int(row, "ParentId"),
        score=_int(row, "Score"),
        title=row.get("Title", ""),
        body=_attribute(row, "Body"),
        owner=_int(row, "OwnerUserId") if "OwnerUserId" in row else None,
        name=row.get("OwnerDisplayName"),
        created=_attribute(row, "CreationDate"),
        licence=row.get("ContentLicense"),
        line=line,
    )


def _attribute(row: Mapping[str, str], name: str) -> str:
    if name not in row:
        raise ValueError(f"missing attribute {name}")
    return row[name]


def _int(row: Mapping[str, str], name: str) -> int:
    text = _attribute(row, name)
    try:
        value = int(text)
    except ValueError:
        value = 2**63
    if abs(value) >= 2**63:  # SQLite's limit.
        raise ValueError(f"{name}: expected a whole number, got {text[:40]!a}")
    return value


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Line and attributes of each <row>; a DOCTYPE, which may expand without end, is refused."""
    rows: list[tuple[int, dict[str, str]]] = []
    parser = expat.ParserCreate()

    def start(name: str, attributes: dict[str, str]) -> None:
        if name == "row":
            rows.append((parser.CurrentLineNumber, attributes))

    def refuse(*_: object) -> None:
        raise PalateError(f"{path}: holds a DOCTYPE, which a Stack Exchange dump never does")

    parser.StartElementHandler = start
    parser.StartDoctypeDeclHandler = refuse
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                parser.Parse(chunk)
                yield from rows
                rows.clear()
            parser.Parse(b"", True)
    except expat.ExpatError as error:
        raise PalateError(f"{path}:{error.lineno}: cut or not XML ({error})") from None
    except OSError as error:
        raise PalateError(f"{path}: cannot be read ({error.strerror or error})") from None


# HTML of a post as plain text: code fenced, lists marked, quotes prefixed, tags gone.

_BLOCKS = {"p", "div", "ul", "ol", "pre", "blockquote", "table", "h1", "h2", "h3", "h4", "h5", "h6"}
_SILENT = {"script", "style", "template", "head"}


class _Writer(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.out: list[str] = []
        self._lists: list[int | None] = []  # Next number of each open list; None: bullets.
        self._item_start = -1  # Length of `out` just behind the last item's mark.
        self._fenced = self._silent = 0  # Open <pre>s; open tags whose text is dropped.
        self._quotes: list[int] = []  # Where in `out` each open quote begins.

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _BLOCKS:
            self._break()
        if tag in _SILENT:
            self._silent += 1
        elif tag == "br":
            self.out.append("\n")
        elif tag == "hr":
            self.out.append("\n\n---\n\n")
        elif tag == "pre":
            self._fenced += 1
            self.out.append("```\n")
        elif tag in ("ul", "ol"):
            self._lists.append(1 if tag == "ol" else None)
        elif tag == "li":
            bullet, indent = "-", "  " * (len(self._lists) - 1)
            if self._lists and (number := self._lists[-1]) is not None:
                bullet, self._lists[-1] = f"{number}.", number + 1
            self.out.append(f"{'' if self._ends_line() else chr(10)}{indent}{bullet} ")
            self._item_start = len(self.out)
        elif tag == "blockquote":
            self._quotes.append(len(self.out))
        elif tag == "code" and not self._fenced:
            self.out.append("`")
        elif tag in ("td", "th"):
            self.out.append(" ")
        elif tag == "tr":
            self.out.append("\n")
        elif tag == "img" and (label := dict(attrs).get("alt")):
            self.out.append(f"[{label}]")

    def handle_endtag(self, tag: str) -> None:
        if tag in _SILENT:
            self._silent = max(0, self._silent - 1)
        elif tag == "pre" and self._fenced:
            self._fenced -= 1
            self.out.append("```" if self._ends_line() else "\n```")
        elif tag in ("ul", "ol") and self._lists:
            self._lists.pop()
        elif tag == "blockquote" and self._quotes:
            start = self._quotes.pop()
            quoted = re.sub("^", "> ", _tidy("".join(self.out[start:])), flags=re.MULTILINE)
            self.out[start:] = [("\n\n" if start else "") + quoted]
        elif tag == "code" and not self._fenced:
            self.out.append("`")
        if tag in _BLOCKS:
            self._break()

    def handle_data(self, data: str) -> None:
        if self._silent:
            return
        if not self._fenced:
            data = re.sub(r"[ \t\r\n]+", " ", data)
            data = data.lstrip() if self._ends_line() else data
        if data:
            self.out.append(data)

    def _break(self) -> None:
        # A paragraph that opens a list item stays on the item's line.
        if self.out and len(self.out) != self._item_start:
            self.out.append("\n\n")

    def _ends_line(self) -> bool:
        return not self.out or self.out[-1].endswith("\n")


def _tidy(text: str) -> str:
    lines = "\n".join(line.rstrip() for line in text.split("\n"))
    return re.sub(r"\n{3,}", "\n\n", lines).strip()


def html_to_text(html: str) -> str:
    """Readable plain text of an HTML fragment; broken markup is read as far as it goes.

    Links keep their text and lose their address; scripts and styles vanish.

    >>> html_to_text("<p>Use <code>x &lt; 3</code>:</p><ul><li>a</li><li>b</li></ul>")
    'Use `x < 3`:\\n\\n- a\\n- b'
    """
    writer = _Writer()
    writer.feed(html)
    writer.close()
    return _tidy("".join(writer.out))


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
