"""What commands print: results by their templates on standard output, progress on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from logging import INFO, WARNING
from threading import Event, Thread
from typing import Any

import psutil
from jinja2 import Environment, PackageLoader, StrictUndefined
from rich import progress as bars
from rich.console import Console
from rich.table import Table
from rich.text import Text

from palette.models import display_name
from palette.processes import Advance, Progress
from palette.reporting.figures import duration
from palette.reporting.wording import brief
from palette.working import LOGGER

CELL = "¦"
"""Parts the cells of a table in a template; neighbouring lines that hold it are one table."""

COLOURS = {r"\bgate passed\b|^the same bytes\b": "green", r"\bgate failed\b|^not comparable\b": "red"}
LONGEST = 16
"""Letters of a word that stays whole, however narrow the terminal is."""
MINUTE = 60.0
LOOK = 1.0
"""Seconds from one look at the clock to the next."""


def show(template: str, wide: bool = False, **values: object) -> None:
    """Prints what a template says of some values, in a terminal with colours."""
    write(Console(highlight=False), lines_of(template, values), wide)


def tell(template: str, **values: object) -> None:
    """Prints the same on standard error, where what is no result belongs, and in the log."""
    lines = lines_of(template, values)
    write(Console(highlight=False, stderr=True), lines)
    for line in filter(str.strip, lines):
        LOGGER.info("%s", line)


def say(line: str, level: int = INFO) -> None:
    """Prints a line on standard error, and in the log; a warning is called one."""
    LOGGER.log(level, "%s", line)
    print(f"warning: {line}" if level == WARNING else line, file=sys.stderr, flush=True)


def lines_of(template: str, values: Mapping[str, object]) -> list[str]:
    """The lines that a template says of some values."""
    return TEMPLATES.get_template(f"{template}.txt").render(values).splitlines()


def write(console: Console, lines: Sequence[str], wide: bool = False) -> None:
    """Prints lines on a console, those of tables as such: wrapped to its width, or as wide as they are."""
    # An empty line parts two tables, and is not printed.
    for is_table, group in groupby(lines, lambda line: CELL in line if line.strip() else None):
        if is_table:
            console.print(table([line.split(CELL) for line in group], wide), crop=False)
        elif is_table is False:
            for line in group:
                text = Text(line)
                for pattern, colour in COLOURS.items():
                    text.highlight_regex(pattern, colour)
                console.print(text, soft_wrap=True)


def table(rows: Sequence[Sequence[str]], wide: bool = False) -> Table:
    """A table whose first row is its head. No cell is cut, and no word of usual length is broken."""
    head, *others = [[cell.strip() for cell in row] for row in rows]
    shown = Table()
    for name, *cells in zip(head, *others, strict=True):
        pieces = [piece for cell in (name, *cells) for piece in ([cell] if wide else cell.split())]
        least = max(map(len, pieces), default=0)
        shown.add_column(Text(name), overflow="fold", min_width=least if wide else min(LONGEST, least))
    for row in others:
        shown.add_row(*map(Text, row))
    return shown


def plain(value: object) -> object:
    """A value as a terminal may be given it: no control characters, and nothing that parts cells."""
    if not isinstance(value, str):
        return value
    return "".join(c if c.isprintable() else " " for c in value).replace(CELL, "|")


def share(rate: Any) -> str:
    """A rate with its interval, of a model or of plain values; nothing where nothing was counted."""
    if not rate:
        return ""
    figures = rate if isinstance(rate, dict) else vars(rate)
    if figures.get("n") == 0:
        return ""
    return f"{figures['rate']:.1%} {figures['low']:.0%}–{figures['high']:.0%}"


def figure(value: Any) -> str:
    """One figure of a suite: a rate with its interval, or a number; nothing where it was not measured."""
    return f"{value:.4g}" if isinstance(value, int | float) else share(value)


def picture(values: Sequence[float], encoding: str | None = None) -> str:
    """Numbers from 0 up as one line of bars, the greatest's the tallest; digits where there are no bars."""
    signs = "▁▂▃▄▅▆▇█"
    try:
        signs.encode(encoding or sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        signs = "0123456789"
    most = max(values, default=0.0)
    return "".join(
        signs[round(max(0.0, value) / most * (len(signs) - 1)) if most > 0 else 0] for value in values
    )


def spans(numbers: Sequence[int]) -> str:
    """Ascending whole numbers, neighbours drawn together: ``0–2, 4``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}–{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


TEMPLATES = Environment(
    loader=PackageLoader("palette.cli"),
    undefined=StrictUndefined,
    finalize=plain,
    trim_blocks=True,
    lstrip_blocks=True,
)
WRITTEN = (brief, display_name, figure, picture, share, spans)
TEMPLATES.filters.update({write.__name__: write for write in WRITTEN})


def progress_shown() -> Progress:
    """A bar on a terminal, gone when its work is done; elsewhere a line a minute."""
    console = Console(stderr=True)
    if console.is_terminal:
        return partial(bar, console)
    return Lines(say).progress


def logged(progress: Progress) -> Progress:
    """The same, with a line in the log once a piece of work is done."""

    @contextmanager
    def piece(title: str, total: int) -> Iterator[Advance]:
        started = time.monotonic()
        with progress(title, total) as advance:
            yield advance
        LOGGER.info("%s: %d done in %s", title, total, duration(time.monotonic() - started))

    return piece


class Speed:
    """Tokens a second since the first of them were asked for, as a bar shows it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._started, self._tokens = clock, clock(), 0

    def after(self, tokens: int) -> str:
        """What the bar shows once so many more have come; nothing where none ever came."""
        self._tokens += tokens
        passed = self._clock() - self._started
        return f"{self._tokens / passed:,.0f} tokens/s" if self._tokens and passed > 0 else ""


@contextmanager
def bar(console: Console, title: str, total: int) -> Iterator[Advance]:
    """A bar that says how many are done, how many tokens come a second, and how long the rest takes."""
    columns = (
        bars.TextColumn("{task.description:<12}"),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TextColumn("{task.fields[speed]}"),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns, console=console, transient=True) as shown:
        task = shown.add_task(title, total=total, speed="")
        speed = Speed(time.monotonic)

        def advance(count: int, tokens: int = 0) -> None:
            shown.update(task, advance=count, speed=speed.after(tokens))

        yield advance


def resident() -> int:
    """The memory of this process, in bytes."""
    return int(psutil.Process().memory_info().rss)


class Lines:
    """The progress of one command where there is no terminal: a line a minute, the first after one.

    A piece of work that took longer than that has a line when it ends, too.
    """

    def __init__(
        self,
        write: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        memory: Callable[[], int] = resident,
    ) -> None:
        self._write, self._clock, self._memory = write, clock, memory
        self._last = clock()
        self._title, self._total, self._done, self._started = "", 0, 0, self._last

    @contextmanager
    def progress(self, title: str, total: int) -> Iterator[Advance]:
        """Opens a piece of work; lines come however seldom it advances."""
        self._title, self._total, self._done, self._started = title, total, 0, self._clock()
        over = Event()

        def watch() -> None:
            while not over.wait(LOOK):
                self.tick()

        watcher = Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield self.advance
        finally:
            over.set()
            watcher.join()
        if (passed := self._clock() - self._started) > MINUTE:
            self._say(f"done in {duration(passed)}")

    def advance(self, count: int, tokens: int = 0) -> None:
        """``count`` more pieces are done."""
        self._done += count

    def tick(self) -> None:
        """Writes a line if a minute has passed since the last one."""
        now = self._clock()
        if now - self._last < MINUTE:
            return
        parts = [f"{self._done / self._total:.0%} done"] if self._total else []
        if 0 < self._done <= self._total:
            rest = (now - self._started) * (self._total / self._done - 1)
            parts.append(f"{duration(rest)} left")
        self._say(", ".join(parts) or "under way")

    def _say(self, how_far: str) -> None:
        self._last = self._clock()
        self._write(f"{self._title}: {how_far}, {self._memory() / 1e9:.1f} GB of memory")
