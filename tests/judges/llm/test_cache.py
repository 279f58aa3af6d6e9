"""Answers and money in one file, whoever shares it and whenever it is killed."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from palate.judges.llm.answer import Answer
from palate.judges.llm.cache import Account, Blocked, Cache, Claim
from palate.types import PalateError

SAID = Answer("A", "stop", (("A", -0.1), ("B", -2.5)), 0.4, 100, 1)


@pytest.fixture
def cache(tmp_path):
    with Cache(tmp_path / "chat.sqlite", "http://here/v1", "m") as opened:
        yield opened


def claimed(
    cache: Cache, key: str, worst: float | None = 1.0, budget: float | None = None
) -> Claim:
    made = cache.claim(key, worst, budget, 60)
    assert isinstance(made, Claim)
    return made


def test_an_answer_comes_back_as_it_was_and_is_not_asked_again(cache):
    cache.keep(claimed(cache, "k"), "k", SAID, 0.25)
    assert cache.get("k") == SAID
    assert cache.claim("k", 1.0, None, 60) == SAID
    assert cache.account() == Account("http://here/v1", "m", 1, 0, 100, 1, 0.25, 0)


def test_what_is_being_asked_is_not_asked_beside_it(cache):
    first = claimed(cache, "k")
    assert cache.claim("k", 1.0, None, 60) is Blocked.IN_FLIGHT
    cache.fail(first, billed=False)
    claimed(cache, "k")
    assert cache.account().money == 0.0
    assert cache.account().failed == 1


def test_reservations_count_against_the_budget_before_money_does(cache):
    first = claimed(cache, "a", 4.0, 10.0)
    claimed(cache, "b", 4.0, 10.0)
    assert cache.claim("c", 4.0, 10.0, 60) is Blocked.RESERVED
    cache.keep(first, "a", SAID, 1.0)
    third = claimed(cache, "c", 4.0, 10.0)
    cache.keep(third, "c", SAID, 3.5)
    assert cache.claim("d", 4.0, 8.0, 60) is Blocked.RESERVED
    assert cache.claim("d", 4.0, 20.0, 60) is not Blocked.RESERVED


def test_a_budget_that_is_spent_stays_spent_and_is_one_model_s(cache, tmp_path):
    cache.keep(claimed(cache, "a", 4.0, 10.0), "a", SAID, 9.0)
    assert cache.claim("b", 4.0, 10.0, 60) is Blocked.SPENT
    with Cache(tmp_path / "chat.sqlite", "http://here/v1", "other") as other:
        assert isinstance(other.claim("b", 4.0, 10.0, 60), Claim)


def test_calls_of_the_dead_and_of_the_silent_count_at_their_worst(cache, tmp_path):
    code = (
        "import sys, os; from pathlib import Path; from palate.judges.llm.cache import Cache\n"
        "Cache(Path(sys.argv[1]), 'http://here/v1', 'm').claim('k', 2.0, None, 600)\n"
        "os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "chat.sqlite")], check=False)
    second = claimed(cache, "k", 3.0)
    assert cache.account().money == 2.0
    cache.fail(second, billed=True)
    cache.claim("silent", 0.5, None, -1.0)
    claimed(cache, "silent")
    assert cache.account().money == 5.5


def test_an_answer_that_comes_after_its_call_was_given_up_is_kept_all_the_same(cache):
    late = cache.claim("k", 1.0, None, -1.0)
    claimed(cache, "other")
    cache.keep(late, "k", SAID, 0.25)
    assert cache.get("k") == SAID


def test_calls_without_a_price_are_counted_as_such(cache):
    cache.keep(claimed(cache, "k", None), "k", SAID, None)
    assert (cache.account().unpriced, cache.account().money) == (1, 0.0)


def test_processes_that_open_a_new_file_at_once_share_it(tmp_path):
    code = (
        "import sys; from pathlib import Path\n"
        "from palate.judges.llm.cache import *\n"
        "from palate.judges.llm.answer import Answer\n"
        "with Cache(Path(sys.argv[1]), 'u', 'm') as cache:\n"
        "    for n in range(50):\n"
        "        got = cache.claim(str(n), 0.1, None, 60)\n"
        "        if isinstance(got, Claim):\n"
        "            cache.keep(got, str(n), Answer('A', '', (), 1.0), 0.1)\n"
    )
    path = tmp_path / "new" / "chat.sqlite"
    started = [subprocess.Popen([sys.executable, "-c", code, str(path)]) for _ in range(2)]
    assert [process.wait() for process in started] == [0] * 2
    with Cache(path, "u", "m") as cache:
        assert cache.count() == cache.account().answered == 50
        assert cache.account().money == pytest.approx(5.0)


@pytest.mark.parametrize("damage", ["not a database", "version"])
def test_a_file_that_cannot_be_used_is_one_line_with_the_cure(tmp_path, damage):
    path = tmp_path / "chat.sqlite"
    if damage == "version":
        database = sqlite3.connect(path)
        database.execute("PRAGMA user_version = 99")
        database.close()
    else:
        path.write_bytes(b"x" * 4096)
    with pytest.raises(PalateError, match="cache: FILE") as caught:
        Cache(path, "u", "m")
    assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PalateError, match="cannot be read or kept"):
        Cache(Path(tmp_path / "file" / "chat.sqlite"), "u", "m")
