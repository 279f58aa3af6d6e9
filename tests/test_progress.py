"""Lines, bars and the time that is left, on a terminal and elsewhere."""

import io
import logging
import time

import pytest
from rich.console import Console

from palate import progress
from palate.progress import (
    LOG,
    Bar,
    Screen,
    TimeLeft,
    info,
    log_to_file,
    log_to_screen,
    rich_progress,
)


@pytest.fixture(autouse=True)
def restored():
    """Handlers are the process's; every test leaves them as they were."""
    before = list(LOG.handlers), LOG.level, LOG.propagate
    yield
    LOG.handlers, LOG.level, LOG.propagate = before


def terminal(width: int = 80) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)


@pytest.mark.parametrize("figures", ["loss 0.693 acc 0.50", ""])
def test_a_bar_fits_80_columns_and_nothing_of_it_is_cut(figures: str) -> None:
    console, bar = terminal(), Bar("helpfulness on anthropic-harmless-and-more")
    bar.figures = figures
    with rich_progress(console) as shown:
        fields = {"figures": figures, "left": "11:20:33 left"}
        shown.add_task(bar.title(), total=234_567, completed=123_456, **fields)
        lines = console.render_lines(shown.get_renderable(), console.options.update(width=80))
    (line,) = ["".join(segment.text for segment in line).rstrip() for line in lines]
    assert len(line) <= 80
    assert line.count("…") == 1, "the name alone"
    assert line.startswith(
        "helpfulness on anth" if figures else "helpfulness on anthropic-harmless"
    )
    for whole in ("123456/234567", figures, "11:20:33 left"):
        assert whole in line, line


def test_not_a_terminal_has_a_line_now_and_then(monkeypatch, capsys) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.05)
    log_to_screen()
    with Bar("mine", 38, unit="steps") as bar:
        bar.update(12, figures="loss 0.650")
        time.sleep(0.4)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= 2
    assert set(lines) == {"  mine: 12 of 38 steps, loss 0.650"}


def test_quiet_says_and_draws_nothing_but_the_log_has_it_all(tmp_path, capsys) -> None:
    log_to_screen(quiet=True)
    with log_to_file(tmp_path / "run" / "log.txt", "palate run mine.yaml"), Bar("mine", 38):
        info("one\nForged: line \x1b[2J")
    assert capsys.readouterr().err == ""
    lines = (tmp_path / "run" / "log.txt").read_text().splitlines()
    assert [line[20:] for line in lines] == [
        "palate run mine.yaml", "one Forged: line  [2J", "done",
    ]  # fmt: skip
    assert all(line[4] == line[7] == "-" and line[13] == ":" for line in lines), "each has its time"


def test_the_log_says_how_it_ended_and_goes_on_in_the_same_file(tmp_path) -> None:
    for _ in range(2):
        with pytest.raises(ValueError, match="no such"), log_to_file(tmp_path / "log.txt", "title"):
            raise ValueError("no such thing")
    text = (tmp_path / "log.txt").read_text()
    assert text.count("stopped: ValueError: no such thing") == 2
    assert not [h for h in LOG.handlers if isinstance(h, logging.FileHandler)]


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path) -> None:
    (tmp_path / "file").touch()
    with log_to_file(tmp_path / "file" / "log.txt", "title"):
        info("gone on")


def test_a_library_user_sees_a_bar_and_a_program_with_logging_hears_lines(capsys, caplog) -> None:
    LOG.handlers, LOG.propagate = [], True
    with caplog.at_level(logging.INFO, logger=LOG.name), Bar("mine", 3):
        info("heard")
    assert caplog.messages == ["heard"]
    assert not [h for h in LOG.handlers if isinstance(h, Screen)]


def test_the_time_left_is_steady_and_follows_a_lasting_change() -> None:
    left, now = TimeLeft(total=1_000, done=100, now=0.0), 0.0
    assert left.at(0.0) is None, "what was done before the start is no pace"
    seen = []
    for step in range(101, 400):
        now += 1.0 if step % 10 else 11.0  # Two seconds a step, every tenth much slower.
        left.update(step, now)
        seen.append((left.at(now), 2.0 * (1_000 - step)))
    assert all(0.7 < found / true < 1.35 for found, true in seen[50:])
    assert left.at(now + 5) == pytest.approx(left.at(now) - 5), "it runs on between updates"
    for step in range(400, 500):
        now += 6.0
        left.update(step, now)
    assert left.at(now) == pytest.approx(6.0 * 501, rel=0.05)
    left.update(1_000, now + 1)
    assert left.at(now + 1) is None
