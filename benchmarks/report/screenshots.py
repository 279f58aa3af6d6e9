"""Pictures of a run's page for the README and the docs, in the system's chromium.

    python -m benchmarks.report.screenshots RUN [--out docs/img]

RUN is a folder with verdicts; the page is made anew in a temporary folder, so RUN is not touched.
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.report.opened import CHROMIUM
from palate.report import report, write_page

WIDTH = 1280


@dataclass(frozen=True)
class Shot:
    """A picture: its name, what of the page stands at the top, and how it is looked at."""

    name: str
    section: str = ""
    height: int = 860
    dark: bool = False
    failure: bool = False


SHOTS: Sequence[Shot] = (
    Shot("report-verdict"),
    Shot("report-tables", "tables"),
    Shot("report-training", "training", height=760),
    Shot("report-rewards", "rewards"),
    Shot("report-failures", "failures", failure=True),
    Shot("report-data", "data"),
    Shot("report-dark", "tables", dark=True),
)


def main() -> None:
    """Make the page and take its pictures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/img"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as player:
        path = write_page(report(given.run, out=Path(folder)))
        browser = player.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        for shot in SHOTS:
            print(_take(browser, path, shot, given.out / f"{shot.name}.png"))
        browser.close()


def _take(browser: Browser, path: Path, shot: Shot, to: Path) -> Path:
    scheme = "dark" if shot.dark else "light"
    size = {"width": WIDTH, "height": shot.height}
    tab = browser.new_page(viewport=size, color_scheme=scheme, reduced_motion="reduce")
    tab.goto(path.as_uri())
    tab.wait_for_selector(".plot[data-drawn]")
    _draw_all(tab)
    if shot.failure:
        benchmarks = tab.locator("#filters select[name=benchmark]")
        if benchmarks.count():
            benchmarks.select_option(index=1)
        shown = tab.locator(".item:visible")
        marked = shown.filter(has=tab.locator("mark"))
        (marked if marked.count() else shown).first.locator("summary").click()
    if shot.section:
        tab.evaluate("id => document.getElementById(id).scrollIntoView()", shot.section)
    tab.screenshot(path=to)
    tab.close()
    return to


def _draw_all(tab: Page) -> None:
    """Charts are drawn when they come near the window; their heights move what is below."""
    for plot in tab.locator(".plot").all():
        plot.scroll_into_view_if_needed()
    tab.wait_for_function(
        "[...document.querySelectorAll('.plot')].every(plot => plot.dataset.drawn)"
    )
    tab.evaluate("scrollTo(0, 0)")


if __name__ == "__main__":
    main()
