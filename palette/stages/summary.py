"""The summary verb: a report on one page that a committee can sign, or as a safety case."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from palette.adapters.configuration import WEIGHTS
from palette.errors import AdapterError
from palette.files import write_text
from palette.reporting.pages import render_case, render_summary
from palette.reporting.report import Report, clean, read_report

PAGE, CASE = "summary.html", "safety-case.html"


def summary(
    run: Path | str, output: Path | str | None = None, *, safety_case: bool = False
) -> dict[str, Any]:
    """What was written of a run, or of its report.json: where the page lies, and what its gate said.

    Raises:
        OutputError: if the report cannot be read, or the page cannot be written.
        AdapterError: if the adapter beside the report is another one than it is of.
    """
    path = Path(run)
    report, folder = read_report(path), path if path.is_dir() else path.parent
    if (folder / WEIGHTS).is_file():
        require_own_adapter(report, folder)
    page = Path(output or folder) / (CASE if safety_case else PAGE)
    write_text(page, render_case(report) if safety_case else render_summary(report))
    rules = {rule.name: rule.passed for rule in report.gate.rules}
    passed = report.gate.passed
    return {"page": str(page), "authorised": list(report.authorised), "passed": passed, "rules": rules}


def require_own_adapter(report: Report, folder: Path) -> None:
    """Returns nothing: the adapter in a folder is that which the report is of.

    Raises:
        AdapterError: if it is another one, or cannot be read.
    """
    from palette.adapters.files import open_adapter

    digest, stated = open_adapter(folder).digest, report.provenance.adapter
    if digest != stated:
        raise AdapterError(
            "the report must be of the adapter beside it",
            got=f"one of {clean(stated)[:12] if stated else 'no adapter'}, and the adapter {digest[:12]}",
            remedy="run palette evaluate on it again",
            where=folder,
        )
