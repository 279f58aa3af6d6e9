import json

import pytest

from made import made, same_table, user
from palate import records
from palate.data.annotators import Disagreement
from palate.data.lint import Kind, LintReport, lint, lint_of
from palate.records import read_comparisons, read_header, read_rows, write_comparisons
from palate.types import Judgement, Message


def linted(*rows, **options):
    report = LintReport()
    kept = list(lint(rows, report, **options))
    return kept, report


def kinds(*rows, **options):
    return [f.kind for f in linted(*rows, **options)[1].findings]


def test_a_sound_comparison_passes():
    row = made()
    assert linted(row)[0] == [row]


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"chosen": " \n"}, Kind.EMPTY_CHOSEN),
        ({"rejected": ""}, Kind.EMPTY_REJECTED),
        ({"prompt": "  "}, Kind.EMPTY_PROMPT),
        ({"prompt": ()}, Kind.EMPTY_PROMPT),
        ({"prompt": (*user("What?"), Message("user", ""))}, Kind.EMPTY_PROMPT),
        ({"chosen": "Taste. ", "rejected": "\nTaste."}, Kind.IDENTICAL),
        ({"prompt": (*user("What?"), Message("assistant", "This."))}, Kind.LAST_TURN),
        ({"meta": {"rejected_prompt_differs": True}}, Kind.MISMATCHED),
        ({"chosen_safe": False, "rejected_safe": True}, Kind.UNSAFE_CHOSEN),
        ({"chosen": "a\x00b"}, Kind.NOT_TEXT),
        ({"rejected": "a\ud800b"}, Kind.NOT_TEXT),
        ({"rejected": "caf\ufffd"}, Kind.NOT_TEXT),
    ],
)
def test_each_kind_is_found_and_excluded(fields, kind):
    kept, report = linted(made(**fields))
    assert kept == []
    assert [f.kind for f in report.findings] == [kind]


def test_both_replies_empty_is_three_findings_and_one_exclusion():
    _, report = linted(made(chosen="", rejected=""))
    assert {f.kind for f in report.findings} == {
        Kind.EMPTY_CHOSEN,
        Kind.EMPTY_REJECTED,
        Kind.IDENTICAL,
    }
    assert report.excluded == {"made": 1}


@pytest.mark.parametrize("text", ["tab\tand\r\nline", "naïve 日本 🙂", "a\u202eb", "next\x85line"])
def test_unusual_text_is_still_text(text):
    assert kinds(made(chosen=text)) == []


def test_rows_above_the_limit_are_excluded_when_there_is_one():
    long = made(chosen="x" * 1_000)
    assert kinds(long) == []
    assert kinds(long, max_characters=500) == [Kind.TOO_LONG]


def test_duplicates_by_content_not_by_id():
    rows = [made(id="a"), made(id="b"), made(id="c", chosen="TASTE.  "), made(prompt="Other?")]
    kept, report = linted(*rows)
    assert [r.id for r in kept] == ["a", rows[3].id]
    assert [(f.id, f.kind) for f in report.findings] == [
        ("b", Kind.DUPLICATE),
        ("c", Kind.NEAR_DUPLICATE),
    ]


def test_swapped_labels_contradict_every_time():
    rows = [
        made(),
        made(chosen="Colour.", rejected="Taste."),
        made(chosen="Colour.", rejected="taste."),
    ]
    assert kinds(*rows) == [Kind.CONTRADICTORY, Kind.CONTRADICTORY]


def test_two_annotators_of_one_pair_are_two_observations():
    rows = [made(annotator="ann"), made(annotator="bob"), made(annotator="bob")]
    assert kinds(*rows) == [Kind.DUPLICATE]


@pytest.mark.parametrize("named", [True, False])
def test_disagreement_is_counted_whether_or_not_annotators_are_named(named):
    swapped = {"chosen": "Colour.", "rejected": "Taste."}
    rows = [
        made(prompt=f"Question {i}?", annotator=f"ann-{n}" if named else None, **sides)
        for i, judgements in enumerate([[{}, swapped, {}], [{}, {}], [{}], [swapped, {}]])
        for n, sides in enumerate(judgements)
    ]
    kept, report = linted(*rows)
    line = {"source": "made", "pairs": 4, "judged_again": 3, "disagreed": 2}
    assert report.agreement() == [line]
    assert report.to_json()["agreement"] == [line]
    kind = Kind.DISAGREEMENT if named else Kind.CONTRADICTORY
    assert report.counts["made", kind] >= 2
    assert len(kept) == (8 if named else 4)


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        ({"score_chosen": 7.0, "score_rejected": 7.0}, [Kind.SCORES_EQUAL]),
        ({"score_chosen": "7", "score_rejected": "8"}, [Kind.SCORES_CONTRADICT]),
        ({"chosen_rating": 1, "rejected_rating": 4}, [Kind.SCORES_CONTRADICT]),
        ({"score_chosen": 8, "score_rejected": 7}, []),
        ({"score_chosen": 8}, []),
        ({"score_chosen": "good", "score_rejected": "bad"}, []),
        ({"margin": -1}, [Kind.SCORES_CONTRADICT]),
        ({"margin": 0.0}, []),
    ],
)
def test_scores_beside_a_pair_that_deny_its_label(columns, found):
    kept, report = linted(made(meta={"columns": columns}))
    assert [f.kind for f in report.findings] == found
    assert len(kept) == (0 if found else 1)


@pytest.mark.parametrize(
    "fields",
    [
        {"chosen": "Taste.<|im_end|>"},
        {"rejected": "Colour.</s>"},
        {"chosen": "Taste.\n\nHuman: And?"},
        {"prompt": "<|im_start|>user\nWhat?"},
        {"prompt": "Human: What?\n\nAssistant: This."},
        {"chosen": "[INST] Taste. [/INST]"},
    ],
)
def test_marks_left_in_text_are_noted_and_the_row_stays(fields):
    kept, report = linted(made(**fields))
    assert len(kept) == 1
    assert [f.kind for f in report.findings] == [Kind.MARKS]
    assert report.table()[0]["rows"] == "kept"
    assert not report.excluded


def test_a_prompt_imported_as_one_text_is_noted_with_the_cure():
    _, report = linted(made(prompt="\n\nHuman: What?\n\nAssistant:"))
    assert [f.kind for f in report.findings] == [Kind.MARKS]
    assert "import its file again" in report.findings[0].detail


def test_ordinary_angle_brackets_and_brackets_are_no_marks():
    assert kinds(made(chosen="if a < b: x[0] = <s>old</s> text; Human: yes")) == []


def test_a_bad_row_is_not_what_later_rows_duplicate():
    rows = [made(chosen_safe=False, rejected_safe=True), made()]
    assert kinds(*rows) == [Kind.UNSAFE_CHOSEN]


def test_pitfall_02_identical_replies_are_excluded_and_counted():
    kept, report = linted(made(chosen="Same.", rejected="Same."), made())
    assert len(kept) == 1
    assert report.counts == {("made", Kind.IDENTICAL): 1}


def test_pitfall_06_mismatched_and_empty_transcripts_are_excluded_and_counted():
    rows = [
        made(prompt=f"Question {i}?", meta={"rejected_prompt_differs": True}, id=f"m{i}")
        for i in range(5)
    ] + [made(prompt=f"Question {i}?", chosen="", id=f"e{i}") for i in range(4)]
    kept, report = linted(*rows, made())
    assert len(kept) == 1
    assert report.counts == {("made", Kind.MISMATCHED): 5, ("made", Kind.EMPTY_CHOSEN): 4}
    assert {f.id for f in report.findings} == {r.id for r in rows}


def test_the_report_is_a_table_json_and_a_file(tmp_path):
    _, report = linted(made(chosen=""), made(source="other"), made(source="other", id="x"))
    assert report.table() == [
        {"source": "made", "kind": "empty-chosen", "findings": 1, "share": 1.0, "rows": "left out"},
        {"source": "other", "kind": "duplicate", "findings": 1, "share": 0.5, "rows": "left out"},
    ]
    report.write(tmp_path / "lint.parquet")
    rows = list(read_rows(tmp_path / "lint.parquet"))
    assert [r["kind"] for r in rows] == [f.kind.value for f in report.findings]
    assert all(r["id"] and r["detail"] for r in rows)
    head = read_header(tmp_path / "lint.parquet", "lint")
    assert head.details == json.loads(json.dumps(report.to_json()))


# Ties, where they are kept.

TIE = Judgement(chosen=0, tie=1)


def test_a_tie_is_a_third_answer_whichever_response_stands_first():
    tie = made(annotator="ann", judgement=TIE)
    turned = made(chosen=tie.rejected, rejected=tie.chosen, annotator="ann", judgement=TIE, id="t")
    assert kinds(tie, turned) == [Kind.DUPLICATE]
    assert kinds(tie, made(annotator="ann")) == [Kind.CONTRADICTORY]
    assert kinds(made(annotator="ann"), tie) == [Kind.CONTRADICTORY]
    kept, report = linted(tie, made(annotator="bob"), made(annotator="cy", judgement=TIE))
    assert len(kept) == 3
    assert [f.kind for f in report.findings] == [Kind.DISAGREEMENT] * 2
    assert report.disagreed == {"made": 1}


def test_the_disagreement_of_annotators_stands_in_the_file_of_findings(tmp_path):
    _, report = linted(made(annotator="ann"), made(annotator="bob"), made("Other?"))
    report.write(tmp_path / "found.parquet")
    stored = read_header(tmp_path / "found.parquet").details["disagreement"]
    assert Disagreement.from_json(stored).groups[0].annotators == 2
    _, alone = linted(made(annotator="ann"))
    alone.write(tmp_path / "alone.parquet")
    assert "disagreement" not in read_header(tmp_path / "alone.parquet").details


@pytest.mark.parametrize(
    "fields",
    [
        {"chosen_safe": False, "rejected_safe": True},
        {"meta": {"columns": {"score_chosen": 3, "score_rejected": 3}}},
    ],
)
def test_what_denies_a_preference_denies_no_tie(fields):
    tie = Judgement(0, tie=1)
    rows = [made(**fields), made(chosen="A", judgement=tie, **fields)]
    report = LintReport()
    assert list(lint(rows, report)) == rows[1:]
    assert len(report.findings) == 1


@pytest.mark.parametrize(
    ("rows_per_group", "bytes_per_group"),
    [(8, 1 << 26), pytest.param(4_096, 3_000, marks=pytest.mark.slow)],
)
def test_a_file_is_the_same_however_many_processes_lint_it(
    tmp_path, monkeypatch, rows_per_group, bytes_per_group
):
    monkeypatch.setattr(records, "ROWS_PER_GROUP", rows_per_group)
    monkeypatch.setattr(records, "BYTES_PER_GROUP", bytes_per_group)

    def row(n: int):
        sides = [f"A pinch, {n % 3}.", f"None, {n % 2}."]
        long, mark = "very " * 60, "<|im_start|> "
        sides[0] = {0: "", 1: sides[0].upper(), 2: mark + sides[0], 3: long}.get(n % 19, sides[0])
        chosen, rejected = sides[:: -1 if n % 10 == 0 else 1]
        return made(
            f"How much salt, {n % 4}?",
            chosen,
            rejected,
            id=f"row-{n}",
            source=f"source-{n % 2}",
            annotator=(None, "ann", "bob")[n % 3],
            meta={"row": n} if n % 4 else {},
            judgement=Judgement(chosen=0.0, tie=1.0) if n % 17 == 0 else Judgement(),
        )

    raw, plain = tmp_path / "raw.parquet", tmp_path / "plain.parquet"
    write_comparisons(raw, map(row, range(100)))
    report = LintReport()
    inputs = {"imported": read_header(raw).fingerprint}
    kept = lint(read_comparisons(raw), report, max_characters=200)
    write_comparisons(plain, kept, inputs=inputs, details=report.to_json)
    assert len({finding.kind for finding in report.findings}) > 4
    for workers in (1, 2):
        out, again = tmp_path / f"{workers}.parquet", LintReport()
        lint_of(raw, out, again, max_characters=200, workers=workers)
        assert same_table(out, plain)
        assert again.findings == report.findings
        assert again.to_json() == report.to_json()
        assert again.disagreement() == report.disagreement()
