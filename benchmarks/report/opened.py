"""How long a page takes to open in a real browser, from disk."""

import time
from pathlib import Path

CHROMIUM = Path("/usr/bin/chromium")


def seconds_to_open(page: Path) -> dict[str, float]:
    """Until everything is parsed, and until the first chart is drawn; nothing without a browser."""
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        return {}
    if not CHROMIUM.is_file():
        return {}
    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1280, "height": 900})
        start = time.perf_counter()
        tab.goto(page.resolve().as_uri())
        loaded = time.perf_counter() - start
        tab.wait_for_selector(".plot[data-drawn]")
        drawn = time.perf_counter() - start
        browser.close()
    return {"page_loaded_seconds": round(loaded, 2), "first_chart_seconds": round(drawn, 2)}
