"""Templates, styles, scripts and fonts put into one file, under a policy that lets nothing else in.

Every script and style of the page is named in its Content-Security-Policy by its digest; nothing is
fetched, nothing is posted, and whatever text brings along cannot run.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

FONTS = ("source-sans-3.woff2", "source-serif-4.woff2")
PACKAGE = "palate.report"


def render(values: Mapping[str, Any], charts: Mapping[str, Any]) -> str:
    """The page of `values`; `charts` are specifications by name."""
    style, scripts = _style(), (_text("vega.min.js"), _text("page.js"))
    return (
        _templates()
        .get_template("page.html")
        .render(
            values,
            policy=_policy(style, *scripts),
            style=Markup(style),
            scripts=[Markup(script) for script in scripts],
            charts=as_json(charts),
        )
    )


def as_json(value: object) -> Markup:
    """A value as JSON that may stand in a script element: nothing in it can end the element."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader(PACKAGE, "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _text(name: str) -> str:
    return (files(PACKAGE) / "templates" / name).read_text(encoding="utf-8")


@cache
def _style() -> str:
    text = _text("page.css")
    for name in FONTS:
        font = base64.b64encode((files(PACKAGE) / "templates" / name).read_bytes()).decode()
        text = text.replace(f'url("{name}")', f'url("data:font/woff2;base64,{font}")')
    return text


def _policy(style: str, *scripts: str) -> str:
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {' '.join(map(_digest, scripts))}",
            f"style-src {_digest(style)}",
            "font-src data:",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
