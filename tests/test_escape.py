"""Untrusted text in each kind of file: nothing of it is markup, or moves what is around it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate import escape


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("<script>&\"'", "&lt;script&gt;&amp;&#34;&#39;"),
        ("a\u202eb", 'a<span class="hidden-char">U+202E</span>b'),
        ("\x1b[31m", '<span class="hidden-char">U+001B</span>[31m'),
        ("\ud800<", '<span class="hidden-char">U+D800</span>&lt;'),
        ("\u200b\u2066x", '<span class="hidden-char">U+200B</span>' +
         '<span class="hidden-char">U+2066</span>x'),
        ("one\r\ntwo\tthree", "one\ntwo\tthree"),
        ("שלום, مرحبا 👩‍🔬 é", "שלום, مرحبا 👩‍🔬 é"),
    ],
)  # fmt: skip
def test_text_is_escaped_and_hidden_characters_are_named(text, html):
    assert str(escape.html(text)) == html


@settings(max_examples=40)
@given(st.text(st.characters()))
def test_no_text_opens_a_tag_or_can_not_be_sent(text):
    html = str(escape.html(text))
    bare = html.replace('<span class="hidden-char">', "").replace("</span>", "")
    assert "<" not in bare
    assert '"' not in bare
    html.encode()
    assert "\n" not in escape.line(text)
    escape.line(text).encode()


def test_a_line_of_a_megabyte_costs_nothing():
    assert len(escape.line("x" * 10**6)) == 240


def test_prose_names_hidden_characters_and_counts_what_is_cut() -> None:
    assert escape.prose("right \u202eleft\n\tbell \x07\r\n\x7f\ud800\u2028") == (
        "right [U+202E]left\n\tbell ␇\n␡\ufffd\n"
    )
    assert escape.prose("x" * 10, 4) == "xxxx … [6 more characters]"


def test_plain_is_one_printable_line() -> None:
    assert escape.plain("a\x1b[31m\nb\u202ec\ud800") == "a [31m b c"
    assert len(escape.name("x" * 1_000_000)) == escape.MAX_NAME
    assert escape.name("\x00") == "(no name)"


def test_markdown_shows_markup_as_text() -> None:
    assert escape.markdown("<b>*x*|`y`") == r"&lt;b&gt;\*x\*\|\`y\`"
    assert "s://" not in escape.markdown("https://a.example")
    assert "www." not in escape.markdown("www.a.example")
    assert "javascript:" not in escape.markdown("[x](javascript:alert(1))")


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@a", "\t=1", " =1", "\r\n=1", "＝1"])
def test_formulas_become_text(text: str) -> None:
    assert escape.spreadsheet(text).startswith("'")


def test_latex_commands_become_text() -> None:
    assert escape.latex(r"\a_{b} 5%") == r"\textbackslash{}a\_\{b\} 5\%"
