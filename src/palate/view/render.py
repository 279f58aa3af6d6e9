"""Templates of the pages: escaped by default, and a name that is missing is an error."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from palate.types import Rating
from palate.view.list_page import MARKED_LABELS
from palate.view.opinions import OUTCOMES
from palate.view.text import line, number, shown, signed

if TYPE_CHECKING:
    from palate.stats import Estimate

GLYPHS = dict(zip(OUTCOMES, ("", "✓", "✗", "=", "?"), strict=True))


def _percent(share: float) -> str:
    return "–" if share != share else f"{100 * share:.1f}"


def interval(estimate: Estimate | None, scale: float = 100.0) -> str:
    """`64.0 [62.1, 65.9]`, in percent or, with `scale` 1, as it is."""
    if estimate is None or estimate.value != estimate.value:
        return "–"
    digits = 1 if scale == 100 else 2
    ends = (scale * end for end in (estimate.value, estimate.low, estimate.high))
    value, low, high = (f"{end:.{digits}f}".replace("-", "\u2212") for end in ends)
    return f"{value} [{low}, {high}]"


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "shown": shown,
        "line": line,
        "number": number,
        "signed": signed,
        "percent": _percent,
        "interval": interval,
    }
    environment.globals |= {
        "glyphs": GLYPHS,
        "ratings": [(int(r), r.label, r.words) for r in Rating],
        "marked_labels": MARKED_LABELS,
    }
    return environment


_TEMPLATES = _environment()


def render(name: str, **values: Any) -> str:
    """The page of a template under `templates/`."""
    return _TEMPLATES.get_template(f"{name}.html").render(**values)
