"""What stands on the pages, with script turned off: a browser that only follows links and forms."""

import html
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from made import made
from palate.evaluate.benchmark import Benchmark
from palate.evaluate.run import evaluate
from palate.explorer.annotations import Annotations, chosen_is_first
from palate.explorer.pages import number, signed
from palate.explorer.queue import Entry, queue_path, write_queue
from palate.explorer.run import OpenRun
from palate.judges import open_judge
from palate.records import write_comparisons
from palate.types import UNLABELLED, Judgement, Rating


def links(text: str) -> list[str]:
    return [html.unescape(url) for url in re.findall(r'href="([^"]*)"', text)]


def heading(text: str) -> str:
    return " ".join(re.sub("<[^>]+>", "", re.search(r"<h1.*?</h1>", text, re.DOTALL)[0]).split())


def test_browsing_needs_no_script(browse, opened):
    browser = browse(opened)
    first = browser.get("/").text
    assert heading(first) == "100 comparisons"
    (following,) = {url for url in links(first) if url.endswith("page=2")}
    second = browser.get(following).text
    assert "51–100" in second
    item = next(url for url in links(second) if "/item/" in url)
    page = browser.get(item).text
    assert "51 of 100" in page
    assert "exam question 50" in page
    assert any(url.startswith("/r/0/item/51") for url in links(page))
    assert any(url == "/r/0/?page=2" for url in links(page))  # Back to where it was on the list.


def test_filters_show_counts_and_chips_lead_out_of_them(browse, opened):
    browser = browse(opened)
    text = browser.get("/r/0/?source=books&judge.helpful=wrong&q=bread&sort=confident:helpful").text
    matches = int(re.search(r"<strong>(\d+)</strong> of 100", text)[1])
    assert 0 < matches < 50
    assert text.count("data-row") == matches
    chips = [url for url in links(text) if url.startswith("/r/0/?") and "/item/" not in url]
    without = next(url for url in chips if "q=" not in url)
    assert f"<strong>{matches}</strong>" not in browser.get(without).text
    assert 'value="books" checked' in text
    assert "Nothing here fits" in browser.get("/r/0/?q=qqqq").text


def test_an_item_shows_texts_scores_of_all_judges_and_reasons(browse, opened):
    text = browse(opened).get("/r/0/item/3").text
    for part in ("exam question 3", "first turn", '<th scope="row">longer</th>', "too long"):
        assert part in text
    assert text.count("chosen first") == text.count("rejected first") == 1  # chat, both orders.
    assert text.count("<svg") == 4


@pytest.mark.parametrize("path", ["/r/0/?page=2", "/r/0/item/59", "/r/0/?q=%3Cscript%3E&page=9"])
def test_hostile_texts_are_text(browse, opened, path):
    text = browse(opened).get(path).text
    assert "&lt;script&gt;alert(1)" in text
    for live in ("<script>alert", "<img", 'onerror="', 'href="javascript'):
        assert live not in text
    # As the value of a filter it must stay what it is; nothing shows there.
    assert "\u202e" not in re.sub(r'="[^"]*"', "", text)
    assert "&lt;b&gt;" in text  # The name of the run.


def test_an_empty_response_is_said_to_be_empty(tmp_path, browse):
    write_comparisons(tmp_path / "benchmarks" / "one.parquet", [made("Why?", "Because.", "")])
    text = browse(OpenRun(tmp_path)).get("/r/0/item/0").text
    assert text.count('<span class="empty">(empty)</span>') == 1


def test_a_megabyte_on_one_line_is_cut_and_can_be_asked_for(tmp_path, browse):
    run = tmp_path / "long"
    row = made("p" * 2**20, "c" * 2**20, "r" * 10)
    write_comparisons(run / "benchmarks" / "long.parquet", [row])
    browser = browse(OpenRun(run))
    text = browser.get("/r/0/item/0").text
    assert len(text) < 60_000
    assert "Show all 1,048,576 characters" in text
    full = next(url for url in links(text) if "full=yes" in url)
    assert browser.get(full).text.count("c" * 2**20) == 1
    assert len(browser.get("/r/0/").text) < 20_000


def test_marking_needs_no_script(browse, marking):
    browser = browse(marking)
    answer = browser.post("/r/0/item/4/mark?source=books", data={"choice": "disagree"})
    assert str(answer.url).endswith("/r/0/item/4?source=books")
    assert re.search(r'value="disagree"[^>]*aria-pressed="true"', answer.text)
    browser.post("/r/0/item/4/mark", data={"rating": "3"})
    browser.post("/r/0/item/4/mark", data={"note": "a <b>note</b>\r\nof two lines"})
    (mark,) = marking.annotations.all()
    assert (mark.choice, mark.rating, mark.annotator) == ("rejected", Rating.BETTER, "ann")
    assert (mark.note, mark.blind, mark.part) == ("a <b>note</b>\nof two lines", False, "exam")
    assert "disagree 3" in browser.get("/r/0/?marked=yes").text
    assert heading(browser.get("/r/0/?marked=disagree").text) == "1 of 100 comparisons"
    assert heading(browser.get("/r/0/?marked=no").text) == "99 of 100 comparisons"
    browser.post("/r/0/item/4/mark", data={"clear": "yes"})
    assert marking.annotations.all() == []


def test_what_is_no_mark_changes_nothing(browse, marking):
    browser = browse(marking)
    for data in ({}, {"choice": "first"}, {"choice": "x"}, {"rating": "5"}, {"rating": ""}):
        assert browser.post("/r/0/item/4/mark", data=data).status_code == 200
    assert marking.annotations.all() == []
    for item in ("100", "-1", "x"):
        assert browser.post(f"/r/0/item/{item}/mark", data={"choice": "agree"}).status_code in (
            404,
        )  # fmt: skip


def test_one_walks_on_among_the_unmarked_while_marking(browse, marking):
    browser = browse(marking)
    text = browser.post("/r/0/item/4/mark?marked=no", data={"choice": "agree"}).text
    assert {"/r/0/item/3?marked=no", "/r/0/item/5?marked=no"} <= set(links(text))


def test_people_mark_under_their_names(browse, marking):
    browser = browse(marking)
    browser.post("/r/0/item/4/mark", data={"choice": "agree"})
    answer = browser.post("/name", data={"annotator": " Zoë <i> ", "back": "/r/0/item/4"})
    assert str(answer.url).endswith("/r/0/item/4")
    assert "Zoë &lt;i&gt;" in answer.text
    assert "not marked" in answer.text
    browser.post("/r/0/item/4/mark", data={"choice": "disagree"})
    assert {(m.annotator, m.choice) for m in marking.annotations.all()} == {
        ("ann", "chosen"), ("Zoë <i>", "rejected"),
    }  # fmt: skip
    assert browser.post("/name", data={"annotator": " "}).status_code == 400
    for back in ("https://evil.example", "//evil.example", "/r/../\\evil", ""):
        answer = browser.post("/name", data={"annotator": "x", "back": back})
        assert str(answer.url).endswith("/r/0/")


SECRETS = (
    "chosen", "rejected", "Agree", "wrong", "correct", "better</li>", "both safe", "unsafe",
    "helpful", "longer", "−", "+0", "●", "Live", "Rating", "week",
)  # fmt: skip


@pytest.mark.parametrize("path", ["?rating=better&judge.helpful=wrong&sort=spread", "item/5"])
@pytest.mark.parametrize("forced", [True, False])
def test_blind_pages_hold_no_label_and_no_score(browse, marking, path, forced):
    marking.annotations.put(mark_of(marking, 5, "bob"))
    browser = browse(marking, blind=forced)
    if not forced:
        browser.post("/blind", data={"blind": "1", "back": "/r/0/"})
    text = browser.get(f"/r/0/{path}").text
    body = re.sub(r"<dialog.*?</dialog>", "", text, flags=re.DOTALL)
    body = re.sub(r'name="back" value="[^"]*"', "", body)  # The address that was asked for.
    assert "exam question" in body
    for secret in SECRETS:
        assert secret not in body, secret
    assert browser.post("/r/0/live", data={"prompt": "x"}).status_code == 403
    assert "textarea" not in browser.get("/r/0/live?item=5").text
    assert browser.get("/r/0/marks.parquet").status_code == 403
    marks = browser.get("/r/0/marks").text
    assert "κ" not in marks
    browser.post("/blind", data={"blind": "0"})
    assert ("Agree" in browser.get("/r/0/item/5").text) is not forced


def mark_of(run, item, annotator):
    from palate.explorer.annotations import Annotation

    return Annotation(annotator, run.index.ids_of([item])[0], "chosen", Rating.BETTER)


def test_a_blind_choice_of_a_side_is_kept_by_its_label(browse, marking):
    browser = browse(marking, blind=True)
    ids = marking.index.ids_of(range(6))
    for item, id in enumerate(ids):
        text = browser.get(f"/r/0/item/{item}").text
        first = text.index("good") < text.index("poor")
        assert first is chosen_is_first("ann", id)
        answer = browser.post(f"/r/0/item/{item}/mark", data={"choice": "first"})
        assert re.search(r'value="first"[^>]*aria-pressed="true"', answer.text)
        mark = marking.annotations.get("ann", id)
        assert (mark.choice == "chosen") is first
        assert mark.blind
    assert {m.choice for m in marking.annotations.all()} == {"chosen", "rejected"}


def test_who_has_seen_the_label_is_not_blind_any_more(browse, marking):
    browser = browse(marking)
    browser.post("/r/0/item/1/mark", data={"choice": "agree"})
    browser.post("/blind", data={"blind": "1"})
    browser.post("/r/0/item/1/mark", data={"choice": "second"})
    browser.post("/r/0/item/2/mark", data={"choice": "first"})
    browser.post("/blind", data={"blind": "0"})
    browser.post("/r/0/item/2/mark", data={"note": "seen later"})
    assert {m.note: m.blind for m in marking.annotations.all()} == {"": False, "seen later": True}


def test_several_runs_are_apart(browse, opened, run):
    browser = browse(opened, OpenRun(run))
    browser.post("/r/1/item/3/mark", data={"choice": "agree"})
    assert "1–1" in browser.get("/r/1/?marked=yes").text
    assert "Nothing here fits" in browser.get("/r/0/?marked=yes").text
    assert browser.get("/r/2/").status_code == 404
    assert browser.get("/r/x/").status_code == 404


def test_what_went_wrong_is_said_on_the_page(browse, run):
    (run / "verdicts/safe--exam.parquet").write_bytes(b"")
    browser = browse(OpenRun(run))
    assert "Left out: " in browser.get("/r/0/").text
    assert "There is no item 100" in browser.get("/r/0/item/100").text


def test_visitors_at_once_each_get_their_own_answer(browse, marking):
    browser = browse(marking)
    paths = [f"/r/0/item/{n}" for n in range(6)] + [f"/r/0/?q=answer+{n}" for n in range(6)]
    alone = {path: browser.get(path).text for path in paths}
    fresh = browse(OpenRun(marking.folder, marking.annotations.path))
    with ThreadPoolExecutor(8) as people:
        together = dict(zip(paths, people.map(lambda p: fresh.get(p).text, paths), strict=True))
    assert together == alone


def test_how_much_better_is_said_once(browse, opened):
    """A rating of `better` was shown as "better better"."""
    browser = browse(opened)
    text = browser.get("/r/0/?rating=better").text
    assert 'title="better"' in text
    number = re.search(r"/r/0/item/(\d+)", text)[1]
    item = browser.get(f"/r/0/item/{number}").text
    assert "<li>better</li>" in item
    assert "better better" not in text + item
    assert [rating.words for rating in Rating] == [
        "negligibly better", "slightly better", "better", "significantly better",
    ]  # fmt: skip


def test_filters_are_folded_by_style_alone(browse, opened):
    """What opens them on a phone is no filter itself, and needs no script."""
    text = browse(opened).get("/r/0/?rating=better").text
    (toggle,) = re.findall(r"<input[^>]*filters-shown[^>]*>", text)
    assert 'type="checkbox"' in toggle
    assert "name=" not in toggle, "it would stand in the address"
    assert "checked" not in toggle
    assert '<label for="filters-shown">Filters (1 on)</label>' in text


def test_numbers_have_a_sign_and_no_needless_decimals():
    assert (signed(1.5), signed(-0.25), signed(0.0)) == ("+1.50", "−0.25", "+0.00")
    assert (signed(None), signed(float("nan")), number(266.0), signed(-21.0)) == (
        "", "", "266", "−21",
    )  # fmt: skip
    assert signed(123.456) == "+123.46"


def test_a_tie_is_nothing_to_agree_with_and_marks_name_a_side(tmp_path, browse):
    tie = replace(made("Why?", "Because.", "No."), judgement=Judgement(0, tie=1))
    write_comparisons(tmp_path / "benchmarks" / "one.parquet", [tie, made("How?", "So.", "Not.")])
    benchmark = Benchmark("one", tmp_path / "benchmarks" / "one.parquet")
    evaluate(open_judge("longer"), benchmark, tmp_path / "verdicts")
    run = OpenRun(tmp_path)
    run.annotations = Annotations(tmp_path / "marks.sqlite")
    browser = browse(run)
    text = browser.get("/r/0/item/0").text
    for part in ("First is better", "Second is better", "prefers the first", '"figure">First</th>'):
        assert part in text
    for part in ("Agree", "chosen</span>", ">Rejected<"):
        assert part not in text.partition("<dialog")[0]
    assert "Agree" in browser.get("/r/0/item/1").text
    for item, choice in ((0, "disagree"), (1, "agree")):
        browser.post(f"/r/0/item/{item}/mark", data={"choice": choice})
    listed = browser.get("/r/0/").text
    assert "<span>second</span>" in listed
    assert '<span class="agrees">agree</span>' in listed
    assert "Nothing here fits" in browser.get("/r/0/?marked=disagree").text
    assert "How?" in browser.get("/r/0/?marked=agree").text


def test_one_walks_through_a_queue_with_its_reasons(tmp_path, browse):
    """Over a folder of comparisons that are no benchmark and no mixture, without labels."""
    rows = [made(f"Why {n}?", f"one {n}", f"two {n}", judgement=UNLABELLED) for n in range(4)]
    write_comparisons(tmp_path / "comparisons" / "asked.parquet", rows)
    entries = [Entry(rows[3].id, "<b>safety</b>", 0.3456), Entry(rows[1].id, "random")]
    write_queue(queue_path(tmp_path, "next"), entries, scored_by="information")
    run = OpenRun(tmp_path)
    browser = browse(run)
    text = browser.get("/r/0/").text
    assert 'value="next">next 2</option>' in text
    text = browser.get("/r/0/?queue=next").text
    assert [url for url in links(text) if "/item/" in url] == [
        "/r/0/item/3?queue=next", "/r/0/item/1?queue=next",
    ]  # fmt: skip
    assert "&lt;b&gt;safety&lt;/b&gt;, information 0.346" in text
    page = browser.get("/r/0/item/3?queue=next").text
    assert "next 1 of 2: &lt;b&gt;safety&lt;/b&gt;, information 0.346" in page
    assert "/r/0/item/1?queue=next" in links(page)
    browser.post("/r/0/item/3/mark?queue=next", data={"choice": "agree"})
    assert run.annotations.get("ann", rows[3].id).choice == "chosen"
    blind = browse(run, blind=True)
    for path in ("/r/0/?queue=next", "/r/0/item/3?queue=next"):
        text = blind.get(path).text
        assert "safety" not in text
        assert "0.346" not in text
