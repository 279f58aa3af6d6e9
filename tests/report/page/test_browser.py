"""The page in a real browser: what a reader clicks, types, sees; nothing runs that is not ours."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright, a dev dependency")

CHROMIUM = Path("/usr/bin/chromium")
AXE = "axe-core@4.14.1"
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    if not CHROMIUM.is_file():
        pytest.skip(f"no browser at {CHROMIUM}; apt install chromium")
    with sync_api.sync_playwright() as player:
        opened = player.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def tab(browser, hostile_page: Path) -> Iterator[object]:
    """The hostile page opened from disk; any error, refusal or request outside fails the test."""
    opened = browser.new_page(viewport=DESKTOP, reduced_motion="reduce")
    yield from _watched(opened, hostile_page)


def _watched(opened, path: Path) -> Iterator[object]:
    wrong: list[str] = []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("console", lambda said: said.type == "error" and wrong.append(said.text))
    opened.on("request", lambda asked: wrong.append(asked.url) if _outside(asked.url) else None)
    opened.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
    opened.goto(path.as_uri())
    opened.wait_for_selector(".plot[data-drawn]")
    yield opened
    opened.close()
    assert not wrong


def _outside(url: str) -> bool:
    return not url.startswith(("file:", "data:"))


def draw_all(tab) -> None:
    for plot in tab.locator(".plot").all():
        plot.scroll_into_view_if_needed()
    tab.wait_for_function(
        "[...document.querySelectorAll('.plot')].every(plot => plot.dataset.drawn)"
    )


def test_hostile_texts_are_seen_and_do_not_run(tab) -> None:
    draw_all(tab)
    for item in tab.locator(".item").all()[:10]:
        item.locator("summary").click()
    assert tab.title().endswith("Palate report")
    assert "<script>document.title = 'taken'</script>" in tab.inner_text("h1")
    assert tab.locator("img, iframe, a[href^='javascript']").count() == 0
    assert tab.evaluate("document.querySelectorAll('body script').length") == 3
    assert "‮" not in tab.content()


def test_injected_markup_is_refused_by_the_policy(browser, hostile_page: Path) -> None:
    """Were an escape ever missed, no script, handler, style or picture would come through."""
    opened = browser.new_page()
    opened.goto(hostile_page.as_uri())
    opened.wait_for_selector(".plot[data-drawn]")
    opened.evaluate(
        """() => {
            globalThis.refused = new Set();
            addEventListener("securitypolicyviolation", (e) => refused.add(e.effectiveDirective));
            const box = document.createElement("div");
            box.innerHTML = "<img src='https://evil.example/x' onerror='document.title=1'>"
                + "<p style='color:red'></p>";
            const script = document.createElement("script");
            script.textContent = "document.title = 'taken'";
            document.body.append(box, script);
            fetch("https://evil.example/").catch(() => {});
        }"""
    )
    for rule in ("img-src", "script-src-elem", "style-src-attr", "connect-src"):
        opened.wait_for_function("rule => refused.has(rule)", arg=rule)
    assert opened.title().endswith("Palate report")
    opened.close()


def test_tables_sort_by_mouse_and_keyboard(tab) -> None:
    table = tab.locator("#t-table-8")
    values = "rows => rows.map(row => parseFloat(row.cells[2].dataset.v))"
    body = table.locator("tbody tr:not(.heading)")
    head = table.locator("thead th").nth(2)
    head.locator("button").click()
    found = [v for v in body.evaluate_all(values) if v == v]
    assert head.get_attribute("aria-sort") == "descending"
    assert found == sorted(found, reverse=True)
    head.locator("button").press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    found = [v for v in body.evaluate_all(values) if v == v]
    assert found == sorted(found)
    assert table.locator("tbody tr").first.get_attribute("class") == "heading"


def test_figures_tell_their_interval_and_lead_to_their_items(tab) -> None:
    figure = tab.locator("#t-table-8 a[data-filter]").first
    figure.focus()
    assert "95 % interval" in tab.inner_text("#tip")
    assert figure.get_attribute("aria-describedby") == "tip"
    tab.keyboard.press("Escape")
    assert tab.locator("#tip").is_hidden()
    figure.hover()
    assert "n = " in tab.inner_text("#tip")
    wanted = dict(part.split("=") for part in figure.get_attribute("data-filter").split("&"))
    figure.press("Enter")
    for name, tag in wanted.items():
        chosen = tab.locator(f"#filters select[name={name}]")
        assert chosen.count() == 0 or chosen.input_value() == tag
        for item in tab.locator(".item:visible").all():
            assert tag in item.get_attribute(f"data-{name}").split()
    assert tab.locator(".item:visible").count() > 0


def test_failures_are_filtered_searched_and_shown_on(tab) -> None:
    items = tab.locator(".item")
    total, shown = items.count(), tab.locator(".item:visible")
    assert shown.count() == min(total, 25)
    tab.locator("#more").click()
    assert shown.count() == min(total, 50)
    tab.keyboard.press("/")
    assert tab.evaluate("document.activeElement.id") == "find"
    tab.keyboard.type("evil.example/pixel")
    count = int(tab.inner_text("#count").split()[0])
    assert 0 < count < total
    assert tab.inner_text("#count") == f"{count} of {total}"
    tab.locator("#find").fill("no text says this")
    assert tab.locator("#none").is_visible()
    tab.locator("#none button").click()
    assert tab.inner_text("#count") == f"{total} of {total}"
    first = shown.first
    first.locator("summary").press("Enter")
    assert first.locator(".side").count() == 2
    assert first.locator(".opinions").is_visible()


def test_charts_answer_the_pointer_and_the_theme(tab) -> None:
    draw_all(tab)
    point = tab.locator("[data-chart=overview] .mark-symbol path").first
    point.hover(force=True)
    assert " %" in tab.inner_text("#tip")
    before = point.evaluate("mark => getComputedStyle(mark).fill")
    paper = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    tab.locator("#theme").click()
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") != paper
    assert point.evaluate("mark => getComputedStyle(mark).fill") != before


def test_a_link_to_folded_numbers_opens_them(tab) -> None:
    link = tab.locator("[data-chart=reliability]").locator("xpath=..").locator("a.numbers")
    link.click()
    tab.wait_for_function("document.getElementById('t-reliability').closest('details').open")


def test_a_narrow_screen_scrolls_tables_not_the_page(browser, hostile_page: Path) -> None:
    opened = browser.new_page(viewport=PHONE, reduced_motion="reduce")
    for tab in _watched(opened, hostile_page):
        draw_all(tab)
        tab.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert tab.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
        wide = tab.evaluate(
            "[...document.querySelectorAll('.plot svg')]"
            ".filter(svg => svg.getBoundingClientRect().right > innerWidth + 1).length"
        )
        assert wide == 0


def test_a_narrow_screen_reads_words_not_letters(browser, hostile_page: Path) -> None:
    opened = browser.new_page(viewport=PHONE, reduced_motion="reduce")
    for tab in _watched(opened, hostile_page):
        draw_all(tab)
        tab.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        squeezed = tab.evaluate(
            "[...document.querySelectorAll('th, td')].filter(cell => cell.offsetWidth"
            " && cell.offsetWidth < 40 && cell.innerText.trim().length > 5)"
            ".map(cell => cell.innerText)"
        )
        assert not squeezed
        finding = tab.locator(".findings tbody td").first.bounding_box()
        assert finding["width"] > 0.8 * PHONE["width"]
        small = tab.evaluate(
            "[...document.querySelectorAll('.plot svg')].filter(svg =>"
            " Number(svg.getAttribute('width')) > svg.parentNode.clientWidth + 1)"
            ".map(svg => `${svg.closest('.plot').dataset.chart} ${svg.getAttribute('width')}`)"
        )
        assert not small, "charts wider than the screen are drawn smaller, their words too"


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("name", ["provenance", "data", "failures", "rewards"])
def test_a_link_to_a_section_lands_on_it(browser, hostile_page: Path, size, name) -> None:
    """Charts above it are drawn on the way, and grow: it was 600 to 1,300 pixels off."""
    away = f"document.getElementById('{name}').getBoundingClientRect().top"
    below = "document.documentElement.scrollHeight - innerHeight - scrollY"
    for from_link in (True, False):
        opened = browser.new_page(viewport=size, reduced_motion="reduce")
        opened.goto(hostile_page.as_uri() + ("" if from_link else f"#{name}"))
        opened.wait_for_selector(".plot[data-drawn]")
        if from_link:
            opened.locator(f"nav a[href='#{name}']").click()
        opened.wait_for_function(f"Math.abs({away}) < 60 || {below} < 2")
        opened.wait_for_timeout(300)
        assert opened.evaluate(f"Math.abs({away}) < 60 || {below} < 2"), "it moved away again"
        opened.close()


def test_it_prints(browser, hostile_page: Path, tmp_path: Path) -> None:
    opened = browser.new_page()
    opened.goto(hostile_page.as_uri())
    opened.wait_for_selector(".plot[data-drawn]")
    opened.emulate_media(media="print", color_scheme="dark")
    paper = opened.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == "rgb(255, 254, 251)", "white even for those who read in the dark"
    made = opened.pdf(path=tmp_path / "report.pdf")
    assert made.startswith(b"%PDF")
    assert opened.locator(".plot:not([data-drawn])").count() == 0
    opened.close()


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """axe-core from npm, for this test alone."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("needs npm to fetch axe-core")
    folder = tmp_path_factory.mktemp("axe")
    command = [npm, "pack", AXE, "--silent"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm did not fetch {AXE} within a minute")
    if done.returncode:
        pytest.skip(f"npm could not fetch {AXE}: {done.stderr.strip()[:200]}")
    shutil.unpack_archive(folder / done.stdout.strip(), folder)
    return folder / "package" / "axe.min.js"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_axe_finds_no_serious_issue(browser, hostile_page: Path, axe, scheme, size) -> None:
    opened = browser.new_page(viewport=size, color_scheme=scheme, bypass_csp=True)
    opened.goto(hostile_page.as_uri())
    opened.wait_for_selector(".plot[data-drawn]")
    draw_all(opened)
    opened.evaluate("document.querySelectorAll('details').forEach((d, i) => d.open = i < 12)")
    opened.add_script_tag(path=axe)
    found = opened.evaluate("axe.run().then(found => found.violations)")
    serious = [
        (v["id"], v["nodes"][0]["html"][:200], v["nodes"][0]["failureSummary"][:300])
        for v in found
        if v["impact"] in ("serious", "critical")
    ]
    assert not serious
    opened.close()
