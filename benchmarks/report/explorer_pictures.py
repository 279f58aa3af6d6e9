"""Pictures of the explorer for the docs, in the system's chromium.

    python -m benchmarks.report.explorer_pictures RUN [--out docs/img]

What is shown is chosen for `llama2`; of another run it is the beginning of its list.
Marks made on the way go to a temporary file; RUN is not touched.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.report.opened import CHROMIUM

LIST = "?part=anthropic-helpful&judge.helpfulness=wrong&sort=confident%3Ahelpfulness"
ITEMS = "?q=%22stars+in+the+city%22&part=oasst"


@contextmanager
def _explorer(run: Path) -> Generator[str]:
    """`palate view` on a run with marks of its own, and the address that it prints."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "palate", "view", str(run), "--annotator", "ann"]
        command += ["--marks", f"{folder}/marks.sqlite"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)
        try:
            assert server.stdout is not None
            yield server.stdout.readline().strip()
        finally:
            server.terminate()
            server.wait()


@contextmanager
def _tab(browser: Browser, address: str) -> Generator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector("table.items")
    yield page
    context.close()


def take(run: Path, out: Path) -> None:
    """The list, one comparison, and the same in blind mode, each as a file."""
    out.mkdir(parents=True, exist_ok=True)
    with _explorer(run) as address, sync_playwright() as player:
        browser = player.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        home = address.partition("?")[0] + "r/0/"
        with _tab(browser, address) as page:
            page.goto(home + LIST)
            page.keyboard.press("j")
            page.screenshot(path=out / "explorer-list.png")
            page.goto(home + ITEMS)
            if not page.locator("[data-row]").count():  # Another run than llama2.
                page.goto(home)
            page.keyboard.press("j")
            page.keyboard.press("Enter")
            page.wait_for_selector(".sides")
            page.keyboard.press("a")
            page.wait_for_selector("[value=agree][aria-pressed=true]")
            page.keyboard.press("3")
            page.wait_for_selector("[value='3'][aria-pressed=true]")
            page.screenshot(path=out / "explorer-item.png")
            page.keyboard.press("Shift+B")
            page.wait_for_selector("text=A is better")
            page.screenshot(path=out / "explorer-blind.png")
        browser.close()


def main() -> None:
    """Read the run and the folder, take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/img"))
    given = parser.parse_args()
    take(given.run, given.out)


if __name__ == "__main__":
    main()
