"""Untrusted text on a page: nothing of it is markup, and nothing moves what is around it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.explorer.pages import line, number, shown, signed


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
    assert str(shown(text)) == html


@settings(max_examples=40)
@given(st.text(st.characters()))
def test_no_text_opens_a_tag_or_can_not_be_sent(text):
    html = str(shown(text))
    bare = html.replace('<span class="hidden-char">', "").replace("</span>", "")
    assert "<" not in bare
    assert '"' not in bare
    html.encode()
    assert "\n" not in line(text)
    line(text).encode()


def test_a_line_of_a_megabyte_costs_nothing():
    assert len(line("x" * 10**6)) == 240


def test_numbers():
    assert (signed(1.5), signed(-0.25), signed(0.0)) == ("+1.50", "−0.25", "+0.00")
    assert (signed(None), signed(float("nan")), number(266.0), signed(-21.0)) == (
        "", "", "266", "−21",
    )  # fmt: skip
    assert signed(123.456) == "+123.46"
