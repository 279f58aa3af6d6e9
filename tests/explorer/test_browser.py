"""The explorer in a real browser: by keyboard alone, on a narrow screen, under axe-core."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from palate.explorer.annotations import Annotations
from palate.types import Rating

CHROMIUM = Path("/usr/bin/chromium")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def chromium():
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"no {CHROMIUM}; apt-get install chromium")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


@contextmanager
def explorer(run: Path, marks: Path, *options: str) -> Iterator[tuple[str, subprocess.Popen]]:
    """A `palate view` of its own, and the address it prints."""
    command = [sys.executable, "-m", "palate", "view", str(run), "--marks", str(marks)]
    server = subprocess.Popen(
        [*command, "--annotator", "ann", *options], stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        yield server.stdout.readline().strip(), server
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


@pytest.fixture(scope="module")
def address(saved_run, tmp_path_factory):
    with explorer(saved_run, tmp_path_factory.mktemp("shared") / "marks.sqlite") as (url, _):
        yield url


@pytest.fixture
def page(chromium, address):
    """A tab that was let in; whatever its console complains of fails the test."""
    with tab(chromium, address) as opened:
        yield opened


@contextmanager
def tab(chromium, address, **options):
    context = chromium.new_context(viewport={"width": 1280, "height": 800}, **options)
    page, complaints = context.new_page(), []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(f"dialog: {dialog.message}"))
    page.goto(address)
    page.wait_for_selector("table.items")
    yield page
    context.close()
    assert complaints == []


def test_marking_by_keyboard_alone_outlives_kill_9(chromium, saved_run, tmp_path):
    marks = tmp_path / "marks.sqlite"
    with explorer(saved_run, marks) as (url, server), tab(chromium, url) as page:
        for key in ("j", "j", "Enter"):
            page.keyboard.press(key)
        page.wait_for_selector(".sides")
        page.keyboard.press("d")
        page.wait_for_selector("[value=disagree][aria-pressed=true]")
        page.keyboard.press("3")
        page.wait_for_selector("[value='3'][aria-pressed=true]")
        page.keyboard.press("n")
        page.keyboard.type("not a or 4 or x")
        page.keyboard.press("Escape")
        page.wait_for_selector("textarea:not(:focus)")
        page.wait_for_load_state("networkidle")
        page.keyboard.press("j")
        page.wait_for_selector("text=3 of 100")
        page.keyboard.press("a")
        page.wait_for_selector("[value=agree][aria-pressed=true]")
        page.keyboard.press("l")
        page.wait_for_selector("text=disagree 3")
        os.kill(server.pid, signal.SIGKILL)
        server.wait()
        first, second = sorted(Annotations(marks).all(), key=lambda mark: mark.choice)
        assert (first.choice, second.choice) == ("chosen", "rejected")
        assert (second.rating, second.note) == (Rating.BETTER, "not a or 4 or x")
    with explorer(saved_run, marks) as (url, _), tab(chromium, url) as page:
        page.goto(page.url + "?marked=yes")
        assert page.locator("tbody tr").count() == 2


def test_filters_and_search_change_the_list_without_a_reload(page):
    page.evaluate("window.stays = true")
    page.get_by_label("books").check()
    page.wait_for_selector("text=50 of 100")
    page.keyboard.press("/")
    page.keyboard.type("sea salt")
    page.wait_for_url("**q=sea+salt*")
    page.wait_for_selector(".chips >> text=sea salt")
    assert page.evaluate("document.activeElement.name") == "q"
    page.keyboard.press("Escape")
    page.locator(".chips a", has_text="books").click()
    page.wait_for_url(lambda url: "source" not in url)
    page.go_back()
    page.wait_for_selector(".chips >> text=books")
    assert page.evaluate("window.stays") is True


@pytest.mark.parametrize("script", [True, False], ids=["script", "no script"])
def test_filters_leave_the_first_screen_of_a_phone_to_the_list(chromium, address, script):
    context = chromium.new_context(
        viewport={"width": 390, "height": 844}, java_script_enabled=script
    )
    page = context.new_page()
    page.goto(address)
    row = page.locator("[data-row]").first
    assert row.bounding_box()["y"] < 300
    panel = page.locator("#filter-panel")
    assert not panel.is_visible()
    page.locator("label[for=filters-shown]").click()
    assert panel.is_visible()
    page.get_by_label("books").check()
    if script:  # One filter after the other: what was opened stays open.
        page.wait_for_selector("text=50 of 100")
        assert panel.is_visible()
        page.locator("label[for=filters-shown]").click()
    else:
        page.get_by_role("button", name="Apply").click()
        page.wait_for_selector("text=50 of 100")
    assert not panel.is_visible()
    assert page.locator("label[for=filters-shown]").inner_text().endswith("Filters (1 on)")
    page.set_viewport_size({"width": 1280, "height": 800})
    assert panel.is_visible(), "turned to a wide screen the filters stand beside the list"
    assert not page.locator("label[for=filters-shown]").is_visible()
    context.close()


def test_pages_turn_by_keyboard(page):
    page.keyboard.press("]")
    page.wait_for_selector("text=51–100")
    page.keyboard.press("[")
    page.wait_for_selector("text=1–50")
    page.keyboard.press("?")
    assert page.locator("dialog[open]").is_visible()
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0


def test_hostile_texts_do_nothing_in_a_browser(page):
    """Nothing ran, nothing was loaded: `tab` fails on any dialog, error or refused load."""
    home = page.url.partition("?")[0]
    for path in ("item/59", "?page=2", "?q=%3Cscript%3E"):
        page.goto(home + path)
        assert page.locator("text=<script>alert(1)</script>").count() >= 1
    assert page.locator("main img, main script, main iframe").count() == 0


def test_blind_mode_by_keyboard(page):
    page.locator("[data-row]").nth(4).click()
    page.wait_for_selector(".sides")
    page.keyboard.press("Shift+B")
    page.wait_for_selector("text=A is better")
    assert page.locator(".verdicts").count() == 0
    page.keyboard.press("b")
    page.wait_for_selector("[value=second][aria-pressed=true]")
    page.keyboard.press("x")
    page.wait_for_selector("text=not marked")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(chromium, address, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe-core").Axe()
    with tab(chromium, address, color_scheme=scheme) as page:
        home = page.url
        for path in ("?source=books&q=bread", "item/3", "item/59", "marks", "live", "?q=nothing+"):
            page.goto(home + path)
            violations = axe.run(page).response["violations"]
            assert [(path, v["id"], v["nodes"][0]["html"]) for v in violations] == []


def test_a_narrow_screen_scrolls_in_one_direction(page):
    page.set_viewport_size({"width": 360, "height": 700})
    home = page.url
    for path in ("", "item/3", "item/59", "marks", "live"):
        page.goto(home + path)
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 360, path


def test_it_says_when_the_server_is_gone(chromium, saved_run, tmp_path):
    with explorer(saved_run, tmp_path / "m.sqlite") as (url, server):
        context = chromium.new_context()
        page = context.new_page()
        page.goto(url)
        page.wait_for_selector("table.items")
        server.kill()
        server.wait()
        page.keyboard.press("]")
        page.wait_for_selector("text=is palate view still running")
        context.close()
