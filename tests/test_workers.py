"""Parts done by processes of their own: in order, and one line where one cannot."""

import os
import signal
import subprocess
import sys

import psutil
import pytest

from palate.types import PalateError
from palate.workers import in_order, workers_for

HOW = {"name": "counting process", "cure": "nothing was written"}


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_parts(workers: int):
    assert list(in_order(abs, range(-5, 0), workers, **HOW)) == [5, 4, 3, 2, 1]
    assert list(in_order(abs, [], workers, **HOW)) == []


def test_a_worker_that_dies_is_one_line_with_the_cure():
    line = r"a counting process ended with exit code 3; nothing was written\. -9 is too little mem"
    with pytest.raises(PalateError, match=line):
        list(in_order(os._exit, [3, 3], 2, **HOW))


def test_ctrl_c_ends_the_workers_without_a_word_of_theirs():
    code = """
import signal, time
from palate.workers import in_order
signal.signal(signal.SIGINT, signal.default_int_handler)  # A shell's background job ignores it.
for _ in in_order(time.sleep, [0, 0, 60, 60], 2, name="sleeping process", cure=""):
    print("one", flush=True)
"""
    run = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    )  # fmt: skip
    assert run.stdout is not None
    assert run.stdout.readline() == "one\n"
    workers = psutil.Process(run.pid).children(recursive=True)
    os.killpg(run.pid, signal.SIGINT)  # As the terminal does: to all of them.
    assert "Process sleeping" not in run.communicate()[1], "a worker wrote its traceback"
    assert len(workers) >= 2
    assert not psutil.wait_procs(workers, timeout=30)[1]


def test_few_rows_start_no_process(monkeypatch):
    monkeypatch.setenv("PALATE_CORES", "8")
    assert [workers_for(rows, 100) for rows in (0, 199, 200, 10_000)] == [1, 1, 2, 8]
