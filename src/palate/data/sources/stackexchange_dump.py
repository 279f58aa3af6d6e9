"""Reading a Stack Exchange dump, `Posts.xml`, of any size in bounded memory.

Answers lie anywhere behind their question, so posts go through a temporary SQLite file (about
the size of the dump) and come back question by question.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any
from xml.parsers import expat

from palate.data.sources.source import BadRow
from palate.types import PalateError

_CHUNK_BYTES = 2**20
_QUESTION, _ANSWER = "1", "2"
_COLUMNS = (
    "id",
    "question",
    "score",
    "title",
    "body",
    "owner",
    "name",
    "created",
    "licence",
    "line",
)
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
    database.execute("PRAGMA journal_mode = OFF")
    database.execute("PRAGMA synchronous = OFF")
    database.execute(f"CREATE TABLE posts ({', '.join(_COLUMNS)})")
    marks = ", ".join("?" * len(_COLUMNS))
    for line, attributes in _rows(path):
        try:
            post = _post(attributes, line)
        except ValueError as error:
            yield BadRow(str(path), line, str(error))
            continue
        if post is not None:
            values = [getattr(post, column) for column in _COLUMNS]
            database.execute(f"INSERT INTO posts VALUES ({marks})", values)
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
        else:
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
    found: list[tuple[int, dict[str, str]]] = []
    parser = expat.ParserCreate()

    def start(name: str, attributes: dict[str, str]) -> None:
        if name == "row":
            found.append((parser.CurrentLineNumber, attributes))

    def refuse(*_: object) -> None:
        raise PalateError(f"{path}: holds a DOCTYPE, which a Stack Exchange dump never does")

    parser.StartElementHandler = start
    parser.StartDoctypeDeclHandler = refuse
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                parser.Parse(chunk)
                yield from found
                found.clear()
            parser.Parse(b"", True)
    except expat.ExpatError as error:
        raise PalateError(f"{path}:{error.lineno}: cut or not XML ({error})") from None
    except OSError as error:
        raise PalateError(f"{path}: cannot be read ({error.strerror or error})") from None
