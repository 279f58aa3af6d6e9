"""HTML of a post as plain text: code fenced, lists marked, quotes prefixed, tags gone."""

from __future__ import annotations

import re
from html.parser import HTMLParser

_BLOCKS = {"p", "div", "ul", "ol", "pre", "blockquote", "table", "h1", "h2", "h3", "h4", "h5", "h6"}
_SILENT = {"script", "style", "template", "head"}
_SPACES = re.compile(r"[ \t\r\n]+")
_BLANK_LINES = re.compile(r"\n{3,}")


class _Writer(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.out: list[str] = []
        self._lists: list[int | None] = []  # Next number of each open list; None: bullets.
        self._item_opened = -1  # Length of `out` just behind the last item's mark.
        self._fenced = 0
        self._silent = 0
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
            self._item()
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
            self._quote(self._quotes.pop())
        elif tag == "code" and not self._fenced:
            self.out.append("`")
        if tag in _BLOCKS:
            self._break()

    def handle_data(self, data: str) -> None:
        if self._silent:
            return
        if self._fenced:
            self.out.append(data)
            return
        text = _SPACES.sub(" ", data)
        if self._ends_line():
            text = text.lstrip()
        if text:
            self.out.append(text)

    def _item(self) -> None:
        depth = max(0, len(self._lists) - 1)
        mark = "-"
        if self._lists and (number := self._lists[-1]) is not None:
            mark, self._lists[-1] = f"{number}.", number + 1
        self.out.append(("" if self._ends_line() else "\n") + "  " * depth + f"{mark} ")
        self._item_opened = len(self.out)

    def _quote(self, begin: int) -> None:
        quoted = _tidy("".join(self.out[begin:]))
        self.out[begin:] = [("\n\n" if begin else "") + re.sub("^", "> ", quoted, flags=re.M)]

    def _break(self) -> None:
        # A paragraph that opens a list item stays on the item's line.
        if self.out and len(self.out) != self._item_opened:
            self.out.append("\n\n")

    def _ends_line(self) -> bool:
        return not self.out or self.out[-1].endswith("\n")


def _tidy(text: str) -> str:
    lines = "\n".join(line.rstrip() for line in text.split("\n"))
    return _BLANK_LINES.sub("\n\n", lines).strip()


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
