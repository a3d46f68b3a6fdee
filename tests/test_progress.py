"""What a bar and a log line say, at every width."""

import io
import logging
import sys

import pytest
from rich.cells import cell_len

from blankfill import progress
from blankfill.progress import bar, duration, fitted_line

NOTES = ("loss 3.214", "12.3k positions/s", "step 1,200", "1,234 targets/s", "MFU 41 %")


@pytest.mark.parametrize("width", range(20, 201))
@pytest.mark.parametrize("description", ["pretrain", "\u8bcd\u5143\u5e93", "a long description"])
def test_bar_share_and_time_left_stand_at_every_width(width, description):
    line = fitted_line(width, description, 0.345, "4:50 h left", NOTES).plain
    assert cell_len(line) <= width
    assert " 34 %  4:50 h left" in line
    if width >= 60:
        assert line.startswith(description)
        assert line.count("\u2501") + line.count("\u2500") >= 10


def test_the_rest_comes_as_there_is_room():
    shown = {
        width: [note for note in NOTES if note in fitted_line(width, "pretrain", 0.5, "0:07 h left",
                                                              NOTES).plain]
        for width in (40, 60, 80, 120, 200)
    }  # fmt: skip
    assert shown == {
        40: [], 60: [*NOTES[:1]], 80: [*NOTES[:2]], 120: [*NOTES], 200: [*NOTES],
    }  # fmt: skip


def test_a_bar_is_as_long_as_what_is_done():
    for percent in range(101):
        line = fitted_line(100, "x", percent / 100, "0:01 h left", (), plain=True).plain
        done, left = line.count("#"), line.count("-")
        assert done + left == 30
        assert done == percent * 30 // 100
        assert f"{percent:3d} %" in line


def test_without_a_total_there_is_no_bar():
    line = fitted_line(60, "reading text", None, "12 min", ["1,000 documents"]).plain
    assert line == "reading text  12 min  1,000 documents"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0.0 s"), (0.26, "0.3 s"), (9.94, "9.9 s"), (9.97, "10 s"), (59.4, "59 s"),
        (59.6, "1 min"), (89, "1 min"), (91, "2 min"), (3569, "59 min"), (3599, "1 h 0 min"),
        (17441, "4 h 51 min"), (360_000, "100 h 0 min"),
    ],
)  # fmt: skip
def test_a_time_in_words(seconds, said):
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0:00"), (1, "0:01"), (60, "0:01"), (61, "0:02"), (17441, "4:51")]
)
def test_a_time_as_hours_and_minutes(seconds, said):
    assert progress._clock(seconds) == said


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_what_came_before_a_restart_says_nothing_of_the_time_left(clock, caplog, monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    caplog.set_level(logging.INFO)
    with bar("pretrain", 1000, "positions") as meter:
        clock[0] += 7200.0  # a validation
        meter.restart()
        clock[0] += 600.0
        meter.advance(500)
    first, last = (record.getMessage() for record in caplog.records)
    assert first.endswith("10 min left")
    assert last == "pretrain: 500 of 1,000 positions (50 %) in 10 min"


def test_lines_of_a_log_say_how_long_it_will_take(clock, caplog, monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    caplog.set_level(logging.INFO)
    with bar("pretrain", 1000, "positions") as meter:
        for _ in range(2):
            clock[0] += 600.0
            meter.advance(50, "loss 3.214", "step 7")
    first, second, last = (record.getMessage() for record in caplog.records)
    assert first == (
        "pretrain: 50 of 1,000 positions (5 %), loss 3.214, 0.1 positions/s, step 7, "
        "3 h 10 min left"
    )
    assert second.endswith("3 h 0 min left")
    assert last == "pretrain: 100 of 1,000 positions (10 %) in 20 min"


def test_a_line_of_the_log_stands_above_the_bar(monkeypatch):
    from blankfill.cli.main import _set_up_logging

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("BLANKFILL_PROGRESS", raising=False)
    _set_up_logging()
    with bar("pretrain", 10, "steps") as meter:
        meter.advance(3)
        logging.getLogger("blankfill").info("step 3: validated [MASK]")
    lines = terminal.getvalue().replace("\x1b[2K", "\r").split("\n")
    (line,) = (line for line in lines if "validated" in line)
    assert line.split("\r")[-1].strip() == "step 3: validated [MASK]"


@pytest.mark.parametrize("name", ["dumb", "unknown"])
def test_a_terminal_that_cannot_draw_gets_lines(name, monkeypatch, caplog, clock):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", name)
    caplog.set_level(logging.INFO)
    with bar("fill", 2, "texts") as meter:
        clock[0] += 2.0
        meter.advance(2)
    assert "fill: 2 of 2 texts (100 %) in" in caplog.text


def test_one_of_several_is_written_as_one(monkeypatch, caplog, clock):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    caplog.set_level(logging.INFO)
    for done, unit, said in (
        (1, "passes", "1 pass"), (2, "passes", "2 passes"), (1, "documents", "1 document"),
    ):  # fmt: skip
        caplog.clear()
        with bar("work", unit=unit) as meter:
            clock[0] += 3.0
            meter.advance(done)
        assert f"work: {said} in" in caplog.text


def test_what_is_done_at_once_leaves_no_line(clock, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with bar("neighbours", 2, "tokens") as meter:
        clock[0] += 1.9
        meter.advance(2)
    assert caplog.text == ""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("BLANKFILL_PROGRESS", raising=False)
    for seconds, lines in ((1.0, 0), (3.0, 1)):
        with bar("neighbours", 2, "tokens") as meter:
            clock[0] += seconds
            meter.advance(2)
        shown = terminal.getvalue()
        # A line that is taken away again is followed by one up and one cleared.
        assert shown.count("\n") - shown.count("\x1b[1A") == lines
