"""The calibrate verb of judges: a judge's error on labelled replies, kept for reports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from palette.files import write_json
from palette.judging.calibration import FILE as FILE
from palette.judging.calibration import calibrate as measure
from palette.judging.calibration import column_map, read_labelled
from palette.judging.judge import judge_named

DEFAULT = Path("runs") / "calibration"
"""The folder of a calibration that is given none."""


def calibrate(
    files: Sequence[Path | str] | Path | str,
    judge: str = "panel",
    columns: str = "",
    output: Path | str | None = None,
) -> dict[str, Any]:
    """A judge's error on labelled replies, csv or jsonl, written as ``calibration.json``.

    ``columns`` says which of a file's columns is which, ``name=column`` joined by commas.

    Raises:
        JudgeError: if there is no such judge, or a file has no labelled replies.
        OutputError: if the disk cannot take the file.
    """
    names = column_map(columns)
    paths = [files] if isinstance(files, Path | str) else files
    read = [read_labelled(Path(path), names) for path in paths]
    calibration = measure(judge_named(judge), judge, read)
    write_json(Path(output or DEFAULT) / FILE, calibration)
    return calibration
