"""The compare verb: two reports side by side."""

from __future__ import annotations

from pathlib import Path

from palette.files import write_text
from palette.reporting.comparison import Comparison
from palette.reporting.comparison import compare as compare_reports
from palette.reporting.pages import render_comparison
from palette.reporting.report import read_report

PAGE = "compare.html"


def compare(one: Path | str, other: Path | str, output: Path | str | None = None) -> Comparison:
    """What two reports, files or run folders, say beside each other; ``output`` takes ``compare.html``.

    Raises:
        OutputError: if a report cannot be read, or the page cannot be written.
    """
    one, other = Path(one), Path(other)
    names = list(zip(map(str, (one, other)), labels(one, other), strict=True))
    comparison = compare_reports(read_report(one), read_report(other), names)
    if output is not None:
        write_text(Path(output) / PAGE, render_comparison(comparison))
    return comparison


def labels(one: Path, other: Path) -> tuple[str, str]:
    """Short names of two reports that tell them apart: their folders', or else their whole paths."""
    folders = [(path if path.is_dir() else path.parent).resolve() for path in (one, other)]
    short = tuple(folder.name for folder in folders)
    if all(short) and short[0] != short[1]:
        return short[0], short[1]
    return str(one), str(other)
