"""What commands print: bars and lines of progress by a clock that tests turn, and results without tricks."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from rich.console import Console

from palette.cli import console
from palette.cli.call import Call
from palette.cli.console import Lines, Speed, duration, plain, progress_shown, share
from palette.statistics.rates import wilson


def test_a_speed_is_of_the_tokens_since_the_start():
    moments = iter([10.0, 12.0, 14.0, 14.5])
    speed = Speed(lambda: next(moments))
    assert [speed.after(0), speed.after(4_000), speed.after(500)] == ["", "1,000 tokens/s", "1,000 tokens/s"]


def test_on_a_terminal_a_bar_says_how_fast_and_how_long(monkeypatch):
    written = io.StringIO()
    terminal = Console(file=written, force_terminal=True, width=120)
    monkeypatch.setattr(console, "Console", lambda **_: terminal)
    with Call().progress("evaluate", 10) as advance:
        advance(4)
        advance(4, 1_000)
        terminal.print("read")
    assert "8/10" in written.getvalue()
    assert "tokens/s" in written.getvalue()


def test_quiet_says_nothing_of_progress(capsys):
    with Call(quiet=True).progress("evaluate", 10) as advance:
        advance(1, 2)
    assert capsys.readouterr() == ("", "")


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Told:
    """Lines of progress, their clock, and what they wrote."""

    def __init__(self) -> None:
        self.clock, self.written = Clock(), list[str]()
        self.lines = Lines(self.written.append, self.clock, lambda: 1_240_000_000)

    def after(self, seconds: float) -> list[str]:
        """What is written once so many seconds have passed, and somebody has looked."""
        before = len(self.written)
        self.clock.now += seconds
        self.lines.tick()
        return self.written[before:]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[Told]:
    # The watcher looks at the clock each second; here the test does, in its place.
    monkeypatch.setattr(console, "Thread", lambda **_: SilentThread())
    yield Told()


class SilentThread:
    def start(self) -> None: ...

    def join(self) -> None: ...


def test_elsewhere_a_line_a_minute_says_how_far_how_long_and_how_much_memory(told):
    with told.lines.progress("search", 64) as advance:
        assert told.after(59) == []
        advance(16)
        assert told.after(1) == ["search: 25% done, 3 min left, 1.2 GB of memory"]
        assert told.after(59) == []
        advance(32)
        assert told.after(1) == ["search: 75% done, 40 s left, 1.2 GB of memory"]
        advance(16)
        told.clock.now += 30
    assert told.written[2:] == ["search: done in 2 min, 1.2 GB of memory"]


def test_what_takes_less_than_a_minute_says_nothing(told):
    with told.lines.progress("collect", 3) as advance:
        advance(3)
        told.clock.now += 60
    assert told.written == []


def test_many_short_pieces_are_told_of_each_minute_too(told):
    for piece in range(4):
        with told.lines.progress(f"piece {piece}", 2) as advance:
            advance(1)
            told.after(25)
    assert told.written == ["piece 2: 50% done, 25 s left, 1.2 GB of memory"]


def test_nothing_done_yet_has_no_time_left_and_nothing_counted_no_share(told):
    with told.lines.progress("load", 10):
        assert told.after(61) == ["load: 0% done, 1.2 GB of memory"]
    with told.lines.progress("load", 0):
        assert told.after(60) == ["load: under way, 1.2 GB of memory"]


def test_a_piece_that_fails_is_not_called_done(told):
    with pytest.raises(RuntimeError), told.lines.progress("search", 64):
        told.clock.now += 100
        raise RuntimeError
    assert told.written == []


def test_the_watcher_writes_to_standard_error_while_the_work_is_silent(monkeypatch, capsys):
    monkeypatch.setattr(console, "MINUTE", 0.0)
    monkeypatch.setattr(console, "LOOK", 0.001)
    with progress_shown()("search", 64) as advance:
        advance(16)
        error = ""
        while "search: 25% done" not in error:
            out, more = capsys.readouterr()
            error += more
            assert out == ""


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 s"), (99.0, "99 s"), (100.0, "2 min"), (5_999.0, "100 min"), (9e3, "2.5 h")],
)
def test_a_duration_has_the_unit_that_it_is_told_in(seconds, said):
    assert duration(seconds) == said


def test_a_name_from_outside_moves_no_cursor_and_parts_no_cell():
    assert plain("a\x1b[31m\r\nb ¦ c") == "a [31m  b | c"
    assert plain(3) == 3


def test_a_rate_reads_the_same_as_a_model_and_as_json():
    rate = wilson(97, 100)
    assert share(rate) == share(rate.to_json()) == "97.0% 92%–99%"
    assert share(wilson(0, 0)) == share(None) == ""


NARROW = [
    ["a domain", "refused before", "of"],
    ["medicine", "100.0% 97%–100%", "x" * 40],
    ["", "incomprehensible", ""],
]


@pytest.mark.parametrize("width", [20, 40, 80])
def test_a_table_is_never_cut_and_no_usual_word_is_broken(width):
    written = io.StringIO()
    console.write(Console(file=written, width=width), [console.CELL.join(row) for row in NARROW])
    lines = written.getvalue().splitlines()
    assert "…" not in written.getvalue()
    assert sum(line.count("x") for line in lines) == 40
    for word in ("97%–100%", "medicine", "before", "incomprehensible"):
        assert any(word in line for line in lines)
    assert len({len(line) for line in lines}) == 1
    assert width < 60 or max(map(len, lines)) <= width


def test_a_wide_table_has_a_line_for_each_row():
    written = io.StringIO()
    console.write(Console(file=written, width=20), [console.CELL.join(row) for row in NARROW], wide=True)
    assert len(written.getvalue().splitlines()) == 4 + len(NARROW) - 1
    assert "x" * 40 in written.getvalue()


def test_what_is_said_and_done_stands_in_the_log(caplog, capsys):
    console.say("nothing relaxes", console.WARNING)
    with Call(quiet=True).progress("search", 5):
        pass
    assert capsys.readouterr().err == "warning: nothing relaxes\n"
    assert [record.getMessage() for record in caplog.records] == ["nothing relaxes", "search: 5 done in 0 s"]
