"""Stack Exchange: dumps in any order, hostile XML, HTML made text, attribution."""

from pathlib import Path
from xml.sax.saxutils import quoteattr

import pytest

from palate.data.sources.stackexchange import host_of, html_to_text, licence_by_date
from palate.types import PalateError, Rating

from .rows import opened, stack, write_jsonl


def post(number: int, kind: int = 2, score: int = 0, parent: int = 1, **over: str) -> str:
    values = {
        "Id": str(number),
        "PostTypeId": str(kind),
        "Score": str(score),
        "Body": f"<p>Body {number}</p>",
        "CreationDate": "2015-01-01T00:00:00.000",
        "OwnerUserId": "5",
    }
    values |= {"Title": "What?"} if kind == 1 else {"ParentId": str(parent)}
    fields = " ".join(f"{key}={quoteattr(value)}" for key, value in (values | over).items())
    return f"<row {fields} />"


def dump(folder: Path, *posts: str, site: str = "beer", head: str = "") -> Path:
    path = folder / site / "Posts.xml"
    path.parent.mkdir(parents=True, exist_ok=True)
    body = "\n".join(posts)
    path.write_text(f'<?xml version="1.0"?>\n{head}<posts>\n{body}\n</posts>', encoding="utf-8")
    return path


def test_pairs_are_answers_with_different_scores(tmp_path: Path) -> None:
    dump(tmp_path, post(2, score=3), post(1, kind=1), post(3, score=-2), post(4, score=3))
    good, bad = opened("stackexchange", tmp_path)
    assert bad == []
    assert [(c.chosen, c.rejected) for c in good] == [("Body 2", "Body 3"), ("Body 4", "Body 3")]
    assert good[0].prompt[0].content == "What?\n\nBody 1"
    assert good[0].meta["strength"] == 5
    assert good[0].rating is Rating.SIGNIFICANTLY
    assert len({c.prompt_id for c in good}) == 1


def test_attribution(tmp_path: Path) -> None:
    dump(tmp_path, post(1, kind=1), post(2, score=1, OwnerDisplayName="Ann"), post(3))
    (found,), _ = opened("stackexchange", tmp_path)
    assert found.meta["chosen"] == {
        "author": "Ann",
        "author_link": "https://beer.stackexchange.com/users/5",
        "link": "https://beer.stackexchange.com/a/2",
        "licence": "CC BY-SA 3.0",
    }
    assert found.meta["question"]["link"] == "https://beer.stackexchange.com/q/1"


def test_bad_posts_are_told_by_line(tmp_path: Path) -> None:
    dump(
        tmp_path,
        post(1, kind=1),
        post(2, score=1),
        post(3, Score="many"),
        post(4, parent=99),
        post(5, kind=6),
        post(6, Score="9" * 30),
    )
    good, bad = opened("stackexchange", tmp_path)
    assert good == []
    assert [(b.row, b.kind) for b in bad] == [(5, "bad"), (8, "bad"), (6, "left out")]
    assert "Score: expected a whole number, got 'many'" in bad[0].reason


def test_a_document_type_is_refused(tmp_path: Path) -> None:
    head = '<!DOCTYPE posts [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>\n'
    dump(tmp_path, post(1, kind=1, Body="&b;"), head=head)
    with pytest.raises(PalateError, match="DOCTYPE"):
        opened("stackexchange", tmp_path)


def test_a_cut_dump_and_an_empty_one(tmp_path: Path) -> None:
    path = dump(tmp_path, post(1, kind=1), post(2))
    path.write_text(path.read_text(encoding="utf-8")[:-20], encoding="utf-8")
    with pytest.raises(PalateError, match=r"Posts.xml:\d+: cut or not XML"):
        opened("stackexchange", tmp_path)
    dump(tmp_path)
    with pytest.raises(PalateError, match="expected posts, found none"):
        opened("stackexchange", tmp_path)


def test_unknown_site_and_bad_limit(tmp_path: Path) -> None:
    dump(tmp_path, post(1, kind=1))
    with pytest.raises(PalateError, match="no site 'tea'; it has beer"):
        opened("stackexchange", tmp_path, subset="tea")
    with pytest.raises(PalateError, match="max_pairs_per_question: expected 1 or more, got 0"):
        opened("stackexchange", tmp_path, options={"max_pairs_per_question": 0})


def test_hub_form(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "train.jsonl", [stack(), stack(answers="none")])
    good, bad = opened("stackexchange", path)
    assert [b.row for b in bad] == [2]
    assert len(good) == 5  # Six pairs of four answers, one of them with equal scores.
    assert {c.batch for c in good} == {"stackexchange/ai.stackexchange.com"}
    assert {c.prompt[0].content for c in good} == {"What is it?"}
    by_gap = {c.meta["strength"]: c.rating for c in good}
    assert by_gap == {5: Rating.SIGNIFICANTLY, 4: Rating.SIGNIFICANTLY, 1: Rating.NEGLIGIBLY}
    assert good[0].meta["chosen"]["link"] == "https://ai.stackexchange.com/a/2"


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>a &lt; b &amp; c</p>", "a < b & c"),
        ("<p>Foo. </p>\n<p>Bar</p>", "Foo.\n\nBar"),
        ("a<br>b<br/>c", "a\nb\nc"),
        ("<pre><code>x  = 1\n  y\n</code></pre><p>z</p>", "```\nx  = 1\n  y\n```\n\nz"),
        ("<p>use <code>f(x)</code></p>", "use `f(x)`"),
        ("<ol><li>one</li><li>two</li></ol>", "1. one\n2. two"),
        ("<ul><li><p>one</p></li></ul>", "- one"),
        ("<blockquote><p>q</p><p>r</p></blockquote><p>s</p>", "> q\n>\n> r\n\ns"),
        ('<p><a href="http://x">link</a> <img alt="cat"></p>', "link [cat]"),
        ("<script>evil()</script><style>p{}</style>ok", "ok"),
        ("</ul></blockquote></pre><p>stray", "stray"),
        ("", ""),
    ],
)
def test_html_to_text(html: str, text: str) -> None:
    assert html_to_text(html) == text


def test_licences_and_hosts() -> None:
    dates = ("2010-01-01", "2015-01-01", "2020-01-01")
    assert [licence_by_date(d)[-3:] for d in dates] == ["2.5", "3.0", "4.0"]
    sites = ("beer", "stackoverflow.com", "stackoverflow", "ai.stackexchange.com", "mathoverflow")
    assert list(map(host_of, sites)) == [
        "beer.stackexchange.com",
        "stackoverflow.com",
        "stackoverflow.com",
        "ai.stackexchange.com",
        "mathoverflow.net",
    ]
