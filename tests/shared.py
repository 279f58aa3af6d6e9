"""What the processes of tests/recipe/test_distributed.py do; they import it from here."""

import sys
from contextlib import redirect_stdout
from pathlib import Path

from palate.cli import main
from palate.recipe.distributed import Judging, distributed, judge_together
from palate.types import Judge, PalateError


def command(words: list[str], out: Path) -> None:
    """A command line; what it prints is added to `out`."""
    sys.argv = ["palate", *words]
    try:
        with out.open("a") as file, redirect_stdout(file):
            main()
    except SystemExit as done:
        if done.code:
            raise


def judge_benchmarks(judgings: list[Judging]) -> None:
    """Put the benchmarks to the judges as a recipe does: at the word of rank 0."""
    opened: dict[str, Judge] = {}
    with distributed() as leads:
        for judging in judgings if leads else []:
            judge_together(judging, opened, lambda *_: None)
            assert len(opened) == 1


def judge_what_opens(judgings: list[Judging], out: Path) -> None:
    """The same where a judge may not open; what rank 0 was told of it is added to `out`."""
    opened: dict[str, Judge] = {}
    with distributed() as leads:
        for judging in judgings if leads else []:
            try:
                judge_together(judging, opened, lambda *_: None)
            except PalateError as error:
                with out.open("a") as file:
                    file.write(f"{error}\n")
