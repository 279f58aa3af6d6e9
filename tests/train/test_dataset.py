"""Token files: the same whoever makes them and however often they are stopped."""

import json
import os
import signal
import struct
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pytest

from palate import records
from palate.model.options import BaseOptions
from palate.model.tokenizer import ChatTokens
from palate.records import write_comparisons
from palate.train import dataset
from palate.train.dataset import Examples, tokenise
from palate.types import (
    PREFERRED,
    Comparison,
    Judgement,
    Message,
    PalateError,
    Ranks,
    Rating,
    content_of,
    digest,
)
from tiny import CHATML, tiny_tokenizer

ROWS = 42
TESTS = Path(__file__).parents[1]


def new_chat(max_tokens: int = 64) -> ChatTokens:
    return ChatTokens(tiny_tokenizer(), BaseOptions(max_tokens=max_tokens))


CHAT = new_chat()


def comparison(index: int) -> Comparison:
    """Two rows a prompt; every label occurs, every ninth row is of no use."""
    return Comparison(
        id=f"zeile-{index}-ü",
        source="made",
        prompt=(Message("user", f"What of {index // 2}?"),),
        chosen="sea " * 200 if index % 9 == 3 else f"The sea is blue, {index}.",
        rejected=f"I cannot help {'you ' * (index % 4)}.",
        prompt_id=f"p{index // 2}",
        rating=None if index % 5 == 4 else Rating(index % 5 + 1),
        chosen_safe=(None, True, False)[index % 3],
        rejected_safe=(False, None, True)[index % 3],
    )


@pytest.fixture
def mixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`ROWS` comparisons in row groups of four."""
    monkeypatch.setattr(records, "ROWS_PER_GROUP", 4)
    path = tmp_path / "mixture.parquet"
    write_comparisons(path, map(comparison, range(ROWS)))
    return path


def usable() -> list[Comparison]:
    return [comparison(i) for i in range(ROWS) if i % 9 != 3]


def note(path: Path) -> dict[str, object]:
    return json.loads(path.with_suffix(".json").read_text())


def test_an_example_is_its_comparison_as_tokens(mixture: Path, tmp_path: Path) -> None:
    examples = tokenise(mixture, CHAT, tmp_path / "tokens.arrow")
    assert len(examples) == len(usable())
    for example, row in zip(examples, usable(), strict=True):
        chosen, rejected = (CHAT.encode(row.prompt, r) for r in (row.chosen, row.rejected))
        assert chosen is not None
        assert rejected is not None
        np.testing.assert_array_equal(example.chosen, chosen.ids)
        np.testing.assert_array_equal(example.rejected, rejected.ids)
        assert example.prompt == digest([[m.role, m.content] for m in row.prompt])
        assert (example.id, example.rating) == (row.id, row.rating)
        assert (example.chosen_safe, example.rejected_safe) == (row.chosen_safe, row.rejected_safe)
    with pytest.raises(IndexError):
        examples[len(examples)]


def test_keys_and_lengths_are_those_of_the_rows(mixture: Path, tmp_path: Path) -> None:
    examples = tokenise(mixture, CHAT, tmp_path / "tokens.arrow")
    keys, lengths = examples.prompt_keys(), examples.lengths()
    assert keys.dtype == np.uint64
    prompts = [row.prompt for row in usable()]
    same_key = keys[:, None] == keys[None]
    assert (same_key == [[a == b for b in prompts] for a in prompts]).all()
    for example, (prefix, chosen, rejected) in zip(examples, lengths.tolist(), strict=True):
        assert (prefix + chosen, prefix + rejected) == (len(example.chosen), len(example.rejected))
        np.testing.assert_array_equal(example.chosen[:prefix], example.rejected[:prefix])
        assert min(chosen, rejected) >= 1


def test_pitfall_02_identical_and_overlong_pairs_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [comparison(0), comparison(1)]
    rows.append(Comparison("same", "made", rows[0].prompt, "Blue.", "Blue.", "p"))
    rows.append(Comparison("long", "made", rows[0].prompt, "sea " * 200, "Blue.", "p"))
    rows.append(Comparison("cut", "made", (Message("user", "sea " * 99),), "Blue.", "Red.", "p"))
    write_comparisons(tmp_path / "m.parquet", rows)
    examples = tokenise(tmp_path / "m.parquet", CHAT, tmp_path / "t.arrow")
    cuts = examples.cuts
    assert (cuts.rows, cuts.kept, cuts.too_long, cuts.identical, cuts.truncated) == (5, 3, 1, 1, 1)
    assert [example.id for example in examples] == [rows[0].id, rows[1].id, "cut"]


JUDGED = (
    (PREFERRED, Ranks("r", 0, 2)),
    (Judgement(chosen=2, rejected=1, tie=1, both_bad=0.5, weight=3), None),
    (Judgement(chosen=0, tie=1), Ranks("größer", 1, 1)),
    (PREFERRED, None),
)


def test_what_was_judged_and_ranked_comes_back_and_plain_rows_keep_their_bytes(
    mixture: Path, tmp_path: Path
) -> None:
    plain = tokenise(mixture, CHAT, tmp_path / "plain.arrow")
    lengths, data = plain[0].pack()
    head = struct.pack(
        "<16s3ibbbx", bytes.fromhex(plain[0].prompt), *lengths, plain[0].rating or 0, -1, 0
    )  # As before anything but a plain preference could be said.
    assert data.startswith(head)
    assert len(data) == len(head) + 4 * sum(lengths) + len(plain[0].id.encode())
    with pa.ipc.open_stream(tmp_path / "plain.arrow") as stream:
        assert stream.schema.names == ["prompt", "lengths", "example"]

    rows = [replace(comparison(i), judgement=j, ranks=r) for i, (j, r) in enumerate(JUDGED[:3])]
    write_comparisons(mixture, [*rows, comparison(4)])
    examples = tokenise(mixture, CHAT, tmp_path / "judged.arrow")
    assert [(e.judgement, e.ranks) for e in examples] == list(JUDGED)
    assert [e.id for e in examples] == [row.id for row in (*rows, comparison(4))]
    assert examples[3].pack() == plain[3].pack()
    np.testing.assert_allclose(examples.shares(), [j.shares for j, _ in JUDGED])
    keys = examples.ranking_keys().tolist()
    assert keys[1] == keys[3] == 0
    assert len({0, keys[0], keys[2]}) == 3
    decided = examples.decided()
    assert [e.id for e in decided] == [examples[i].id for i in (0, 1, 3)]
    assert decided.prompt_keys().tolist() == examples.prompt_keys()[[0, 1, 3]].tolist()
    assert decided.fingerprint == examples.fingerprint
    assert plain.decided() is plain
    assert plain.shares().tolist() == [[1.0, 0.0, 0.0]] * len(plain)


def test_the_side_with_most_votes_is_the_chosen_one(mixture: Path, tmp_path: Path) -> None:
    votes = Judgement(chosen=0.25, rejected=0.75, weight=2)
    row = replace(comparison(1), judgement=votes)
    write_comparisons(mixture, [comparison(1), row])
    same, turned = tokenise(mixture, CHAT, tmp_path / "t.arrow")
    assert turned.judgement == Judgement(chosen=0.75, rejected=0.25, weight=2)
    assert turned.chosen.tolist() == same.rejected.tolist()
    assert turned.rejected.tolist() == same.chosen.tolist()
    assert (turned.chosen_safe, turned.rejected_safe) == (same.rejected_safe, same.chosen_safe)


STRICT = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}" + CHATML
)
R1 = CHATML.replace("message['content']", "message['content'].split('</think>')[-1]")


def reading(template: str) -> ChatTokens:
    return ChatTokens(tiny_tokenizer(template=template), BaseOptions(max_tokens=64))


def refused(out: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in out.with_suffix(".refused.jsonl").read_text().splitlines()]


def test_rows_that_the_template_refuses_are_left_out_counted_and_listed(
    mixture: Path, tmp_path: Path, warned: list[str]
) -> None:
    """One in the first group and one in the last; listed once, also where a run was killed."""
    system = (Message("system", "Be kind."), Message("user", "x"))
    odd = [Comparison(f"odd-{i}", "made", system, "Yes.", "No.", "p") for i in range(2)]
    write_comparisons(mixture, [odd[0], *map(comparison, range(ROWS)), odd[1]])
    out = tmp_path / "tokens.arrow"
    examples = tokenise(mixture, reading(STRICT), out)
    assert (examples.cuts.refused, len(examples)) == (2, len(usable()))
    listed = refused(out)
    assert [row["id"] for row in listed] == ["odd-0", "odd-1"]
    assert "System role not supported" in listed[0]["reason"]
    assert "2 left out, first row odd-0: the chat template refuses turns system/user/" in warned[0]
    rewound = note(out) | {"done": 1, "size": 0, "cuts": {"rows": 4, "kept": 2, "refused": 1}}
    out.with_suffix(".json").write_text(json.dumps(rewound))
    tokenise(mixture, reading(STRICT), out)
    assert [row["id"] for row in refused(out)] == [
        "odd-0", "odd-1"
    ]  # fmt: skip
    tokenise(mixture, CHAT, out)
    assert not out.with_suffix(".refused.jsonl").exists()


def test_pairs_that_the_template_writes_alike_are_said_with_their_own_cure(
    tmp_path: Path, warned: list[str]
) -> None:
    prompt = (Message("user", "What is 1 + 1?"),)
    lost = Comparison(
        "a", "made", prompt, "<think>\nAdd.</think>2", "<think>\nGuess.</think>2", "p"
    )
    write_comparisons(tmp_path / "m.parquet", [lost])
    with pytest.raises(PalateError) as raised:
        tokenise(tmp_path / "m.parquet", reading(R1), tmp_path / "t.arrow")
    assert "1 written alike by the chat template" in str(raised.value)
    assert str(raised.value).endswith("or to a Jinja file that writes it")
    assert "raise backbone.max_tokens" not in str(raised.value)
    write_comparisons(tmp_path / "m.parquet", [lost, comparison(0)])
    cuts = tokenise(tmp_path / "m.parquet", reading(R1), tmp_path / "t.arrow").cuts
    assert (cuts.kept, cuts.identical, cuts.alike) == (1, 1, 1)
    assert "1 of the identical differ in what the chat template does not" in warned[0]


def test_rows_all_refused_are_one_line_with_the_reason(tmp_path: Path) -> None:
    system = (Message("system", "Be kind."), Message("user", "x"))
    write_comparisons(tmp_path / "m.parquet", [Comparison("s", "made", system, "Yes", "No", "p")])
    with pytest.raises(PalateError, match=r"1 refused by it\); row s: .*System role not supported"):
        tokenise(tmp_path / "m.parquet", reading(STRICT), tmp_path / "t.arrow")


def test_nothing_left_to_train_on_is_one_clear_line_each_time(tmp_path: Path) -> None:
    same = Comparison("same", "made", (Message("user", "x"),), "Blue.", "Blue.", "p")
    write_comparisons(tmp_path / "m.parquet", [same])
    for _ in range(2):
        with pytest.raises(PalateError, match="none of 1 pairs can be used"):
            tokenise(tmp_path / "m.parquet", CHAT, tmp_path / "t.arrow")


def test_a_row_group_of_which_nothing_is_kept_is_no_gap(tmp_path: Path, mixture: Path) -> None:
    same = [Comparison(f"s{i}", "made", (), "Blue.", "Blue.", "p") for i in range(4)]
    write_comparisons(mixture, [comparison(0), comparison(1), comparison(2), comparison(4), *same])
    examples = tokenise(mixture, CHAT, tmp_path / "tokens.arrow")
    assert len(examples.prompt_keys()) == len(examples.lengths()) == len(examples) == 4


@pytest.mark.parametrize("stop_at", [1, 20, 41])
def test_a_stopped_tokenisation_goes_on_where_it_was(
    mixture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    whole, out = tmp_path / "whole.arrow", tmp_path / "tokens.arrow"
    tokenise(mixture, CHAT, whole)
    seen: list[str] = []
    encode = ChatTokens.encode

    def counted(self, prompt, response):
        seen.append(response)
        if len(seen) == stops:
            raise KeyboardInterrupt
        return encode(self, prompt, response)

    monkeypatch.setattr(ChatTokens, "encode", counted)
    stops = 2 * stop_at
    with pytest.raises(KeyboardInterrupt):
        tokenise(mixture, CHAT, out)
    stops = 0
    with pytest.raises(PalateError, match="not a finished token file"):
        Examples(out)
    with out.open("ab") as file:
        file.write(b"half of a chunk")
    seen.clear()
    tokenise(mixture, CHAT, out)
    assert len(seen) == 2 * (ROWS - (stop_at - 1) // 4 * 4)
    assert out.read_bytes() == whole.read_bytes()
    assert note(out) == note(whole)
    seen.clear()
    tokenise(mixture, CHAT, out)
    assert not seen


def test_a_cut_file_and_one_of_another_template_are_made_again(
    mixture: Path, tmp_path: Path
) -> None:
    out = tmp_path / "tokens.arrow"
    mapped = tokenise(mixture, CHAT, out)
    whole = out.read_bytes()
    out.write_bytes(whole[:-1])
    assert out.read_bytes() == whole[:-1]
    tokenise(mixture, CHAT, out)
    assert out.read_bytes() == whole
    mapped, before = Examples(out), Examples(out)[0].chosen.tolist()
    longer = tokenise(mixture, new_chat(max_tokens=512), out)
    assert longer.cuts.kept > mapped.cuts.kept
    assert longer.fingerprint != mapped.fingerprint
    assert mapped[0].chosen.tolist() == before, "an open token file is not written over"


def test_a_full_disk_keeps_what_is_finished(
    mixture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, synced = tmp_path / "tokens.arrow", os.fsync
    calls: list[int] = []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 9:
            raise OSError(28, "No space left on device")
        synced(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PalateError, match=r"tokens\.arrow: cannot be written \(No space left"):
        tokenise(mixture, CHAT, out)
    assert note(out)["done"] == 3
    assert len(tokenise(mixture, CHAT, out)) == len(usable())


STOPPED = """
import signal, sys
from pathlib import Path
from palate.train.dataset import tokenise
from test_dataset import new_chat
signal.signal(signal.SIGINT, signal.default_int_handler)  # A shell's background job ignores it.
tokenise(Path(sys.argv[1]), new_chat(), Path(sys.argv[2]), workers=2)
"""


def test_two_processes_make_the_same_file_as_one(mixture: Path, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole.arrow", tmp_path / "tokens.arrow"
    tokenise(mixture, CHAT, whole)
    tokenise(mixture, CHAT, out, workers=2)
    assert out.read_bytes() == whole.read_bytes()
    assert note(out) == note(whole)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_two_processes_killed_and_one_that_goes_on_make_the_same_file(
    mixture: Path, tmp_path: Path, how: signal.Signals
) -> None:
    write_comparisons(mixture, (comparison(i) for i in range(1_000)))
    whole, out = tmp_path / "whole.arrow", tmp_path / "tokens.arrow"
    tokenise(mixture, CHAT, whole)
    paths = os.pathsep.join([*sys.path, str(TESTS), str(TESTS / "train")])
    process = subprocess.Popen(
        [sys.executable, "-c", STOPPED, str(mixture), str(out)],
        env=os.environ | {"PYTHONPATH": paths},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not (out.with_suffix(".json").exists() and note(out)["done"]):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    workers = psutil.Process(process.pid).children(recursive=True)
    if how is signal.SIGINT:
        os.killpg(process.pid, how)  # As the terminal's Ctrl-C does.
    else:
        process.kill()
    errors = process.communicate()[1]
    assert "Process tokenising" not in errors, "a worker wrote its traceback"
    assert 0 < note(out)["done"] < note(out)["groups"]
    assert len(workers) >= 2
    assert not psutil.wait_procs(workers, timeout=30)[1], "workers outlive their run"
    tokenise(mixture, CHAT, out)
    assert out.read_bytes() == whole.read_bytes()


@pytest.mark.slow
def test_what_a_worker_cannot_do_is_one_line_here(mixture: Path, tmp_path: Path) -> None:
    chat = new_chat()
    chat.template = "{{ raise_exception('no such turns') }}"
    with pytest.raises(PalateError, match="refuses turns user/assistant: no such turns"):
        tokenise(mixture, chat, tmp_path / "tokens.arrow", workers=2)


class Fatal:
    """Ends the process in which it is unpickled."""

    def __reduce__(self):
        return os._exit, (3,)


@pytest.mark.slow
def test_a_worker_that_dies_is_one_line_with_the_cure(mixture: Path) -> None:
    with pytest.raises(PalateError, match=r"ended with exit code 3.*__main__"):
        list(dataset.chunks(mixture, Fatal(), range(2), workers=2))


def test_rows_that_differ_in_a_call_alone_are_kept_where_the_template_writes_it(
    tmp_path: Path,
) -> None:
    def calling(city: str) -> str:
        call = {"type": "function", "function": {"name": "weather", "arguments": {"city": city}}}
        return content_of("", {"tool_calls": [call]})

    row = replace(comparison(0), chosen=calling("Oslo"), rejected=calling("Rome"))
    path = tmp_path / "calls.parquet"
    write_comparisons(path, [row, comparison(1)])
    counts = {}
    for template in ("chatml-tools", "chatml"):
        chat = ChatTokens(tiny_tokenizer(), BaseOptions(template=template, max_tokens=256))
        counts[template] = dataset._chunk(path, chat, 0).counts
    assert counts["chatml-tools"]["kept"] == 2
    assert (counts["chatml"]["kept"], counts["chatml"]["refused"]) == (1, 1)
