"""The command line, run in this process, and the one line of a user's mistake."""

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from palate.cli import main

PALATE = Path(sys.executable).with_name("palate")


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


def palate(*arguments: object, cwd: Path | None = None, **environment: str) -> Done:
    """Run the command line in this process: torch and pyarrow are imported once for all tests."""
    out, errors = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(errors):
        patch.setattr(sys, "argv", ["palate", *map(str, arguments)])
        patch.delenv("PALATE_DATA", raising=False)
        patch.setenv("COLUMNS", "200")
        for name, value in environment.items():
            patch.setenv(name, value)
        if cwd is not None:
            patch.chdir(cwd)
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
    return Done(code, out.getvalue(), errors.getvalue())


def one_line(done) -> str:
    """The single line on stderr of a command that failed as a user's mistake should."""
    assert done.returncode == 1, (done.returncode, done.stderr)
    assert done.stderr.startswith("palate: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stdout == ""
    return done.stderr
