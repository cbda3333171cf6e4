"""The runs verb: what lies in a folder of runs, told without a model and without a model's libraries."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from palette.errors import OutputError
from palette.files import MARKER, stated_in
from palette.working import holder

REPORT, RECORDS = "report.json", "*/stage.json"


def runs(folder: Path | str = "runs") -> dict[str, Any]:
    """The runs in a folder and in those one below, the latest first.

    Of each its ``name``, ``folder``, ``domains`` and ``model``; the ``gate``, passed or failed, with how many
    rules failed, null where it has not run; ``when`` it was written last; the stages that are ``done``; and
    the process that is ``working`` in it, if one is. What cannot be read is null.

    Raises:
        OutputError: if there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise OutputError("runs lie in a folder", got="none", remedy="name the one they are in", where=folder)
    places = [folder, *folder.glob("*/"), *folder.glob("*/*/")]
    known = (place for place in places if any((place / name).is_file() for name in (MARKER, REPORT)))
    found = sorted(map(_described, known), key=lambda run: (run["when"], run["folder"]), reverse=True)
    return {"folder": str(folder), "runs": found}


def _described(folder: Path) -> dict[str, Any]:
    records = {path.parent.name: stated_in(path) for path in sorted(folder.glob(RECORDS))}
    about: Mapping[str, Any] = max((_part(each, "about") for each in records.values()), key=len, default={})
    report = stated_in(folder / REPORT)
    gate = _part(report, "gate")
    rules, passed = gate.get("rules"), gate.get("passed")
    kept = [path for path in (folder / MARKER, folder / REPORT, *folder.glob(RECORDS)) if path.is_file()]
    latest = max(path.stat().st_mtime for path in kept)
    domains = report.get("authorised") or report.get("categories") or about.get("authorised")
    listed = rules if isinstance(rules, list) else ()
    held = [isinstance(rule, Mapping) and rule.get("passed") is True for rule in listed]
    return {
        "name": folder.resolve().name,
        "folder": str(folder),
        "domains": [str(each) for each in domains] if isinstance(domains, list) else None,
        "model": _part(report, "model").get("name") or about.get("model"),
        "gate": {True: "passed", False: "failed"}.get(passed) if isinstance(passed, bool) else None,
        "failed": held.count(False),
        "when": datetime.fromtimestamp(latest).astimezone().isoformat(timespec="seconds"),
        "done": [name for name, record in records.items() if record.get("outputs")],
        "working": holder(folder),
    }


def _part(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = content.get(key)
    return value if isinstance(value, Mapping) else {}
