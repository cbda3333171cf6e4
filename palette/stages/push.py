"""The push verb: an adapter goes to the hub with the report that certifies it, and nothing else."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from palette.adapters.files import adapter_paths, read_adapter
from palette.adapters.writing import CONFIG, WEIGHTS, write_adapter
from palette.errors import AdapterError, OutputError
from palette.evaluation.outcomes import read_outcomes
from palette.files import read_json, write_json, write_text
from palette.models import without_folders
from palette.reporting.card import CARD, render_card
from palette.reporting.pages import render
from palette.reporting.report import REPORT, Report, clean, read_report
from palette.reporting.verification import contradicted
from palette.stages.summary import require_own_adapter

PAGE, RECORD = "report.html", "push.json"
PUSH_FORMAT = "palette-push/1"

FILES = (WEIGHTS, CONFIG, CARD, REPORT.name, PAGE, RECORD)
"""All that is ever uploaded."""

SECRET = re.compile(r"\b(hf_|api_org_)\w+|(?<=Bearer )\S+")
"""What looks like a token; errors of the network can quote the request."""

CONFLICT = 409


def push(
    folder: Path | str,
    repo_id: str,
    *,
    public: bool = False,
    reason: str | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """What was uploaded to ``repo_id``, or with ``dry_run`` what would be: file names and bytes.

    The card and the page that are uploaded are written anew from the report, so that they say what was
    measured; the folder itself gets ``push.json``. ``reason`` is why an adapter whose gate failed is
    pushed all the same; it stands in the card and in ``push.json``. The token is the hub's own, of its
    login or of the environment.

    Raises:
        AdapterError: if there is no report, it is of another adapter, or the gate failed and no reason
            is given.
        OutputError: if the folder cannot be written, or the hub does not take the files.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    folder = Path(folder)
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        law = "a repository must be named owner/name"
        raise OutputError(law, got=ascii(repo_id)[:80], remedy="name it so") from error
    report, digest = certified(folder, reason)
    despite = None if report.gate.passed else clean(reason)
    record = {
        "format": PUSH_FORMAT,
        "repo": repo_id,
        "private": not public,
        "adapter": digest,
        "gate_passed": report.gate.passed,
        "despite_failed_gate": despite,
    }
    with TemporaryDirectory() as temporary:
        files = Path(temporary)
        lay_without_folders(folder, files)
        write_text(files / CARD, render_card(report, despite, repo_id))
        write_text(files / PAGE, render(report))
        write_json(files / RECORD, record)
        url = None if dry_run else upload(files, repo_id, public)
        names = sorted(files.iterdir())
        listed = [{"name": path.name, "bytes": path.stat().st_size} for path in names]
    if not dry_run:
        write_json(folder / RECORD, record, "push a copy of it")
    return {**record, "dry_run": dry_run, "url": url, "files": listed}


def lay_without_folders(folder: Path, files: Path) -> None:
    """Lays an adapter and its report out as they are, but for paths that say where somebody keeps things.

    The digest of the adapter, which is of its factors, stays what it was.
    """
    for name in (WEIGHTS, CONFIG, REPORT.name):
        (files / name).symlink_to((folder / name).resolve())
    said = read_json(folder / REPORT)
    if (shown := without_folders(said)) != said:
        (files / REPORT).unlink()
        write_json(files / REPORT, shown)
    adapter = read_adapter(folder)
    told = {"name": adapter.backbone.name, "card": dict(adapter.card)}
    if (shown := without_folders(told)) != told:
        backbone = replace(adapter.backbone, name=shown["name"])
        for name in (WEIGHTS, CONFIG):
            (files / name).unlink()
        write_adapter(files, replace(adapter, backbone=backbone, card=shown["card"]))


def certified(folder: Path, reason: str | None) -> tuple[Report, str]:
    """The report beside an adapter, and the adapter's digest.

    Raises:
        AdapterError: if there is no report, it is of another adapter, its gate is not what its figures
            give, or the gate failed and no reason is given.
    """
    if not folder.is_dir():
        raise AdapterError("push takes the folder of an adapter", got="no folder", where=folder)
    adapter_paths(folder)
    if not (folder / REPORT).is_file():
        raise AdapterError(
            "an adapter must be measured before it is pushed",
            got=f"no {REPORT}",
            remedy="run palette evaluate on it",
            where=folder,
        )
    report = read_report(folder)
    require_own_adapter(report, folder)
    if broken := contradicted(report, read_outcomes(folder)):
        raise AdapterError(
            "the gate of a report must follow from its figures",
            got=f"a pass of {clean(', '.join(broken))}",
            remedy="run palette evaluate on it again",
            where=folder,
        )
    if not report.gate.passed and not (reason or "").strip():
        broken = [rule.name for rule in report.gate.rules if not rule.passed]
        raise AdapterError(
            "an adapter must pass the gate before it is pushed",
            got=f"{clean(', '.join(broken))} failed",
            remedy="give the reason with --despite-failed-gate, which is recorded",
            where=folder,
        )
    return report, str(report.provenance.adapter)


def upload(folder: Path, repo_id: str, public: bool) -> str:
    """The address of the files on the hub; a repository is made where there is none.

    Raises:
        OutputError: if the hub does not take them, or the repository is public and was not meant to be.
            What the hub says becomes one sentence, without a token in it.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    api = HfApi()
    try:
        if not created(api, repo_id, public) and not public and not api.repo_info(repo_id).private:
            raise OutputError(
                "an adapter is pushed to a private repository unless --public is given",
                got="a public one",
                remedy="make it private on the hub, or give --public",
                where=repo_id,
            )
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            allow_patterns=list(FILES),
            commit_message="Adapter, card and report",
        )
    except (HTTPError, OSError, ValueError) as error:
        message = getattr(error, "server_message", None) or str(error).partition("\n")[0]
        message = SECRET.sub("…", str(message).replace(get_token() or "\0", "…"))
        shown_status = f"status {status_of(error)}: " if status_of(error) else ""
        raise OutputError(
            "the hub must take the files",
            got=f"{shown_status}{clean(message).rstrip('.') or type(error).__name__}",
            remedy="check the network, the login (hf auth login) and the name",
            where=repo_id,
        ) from None
    return str(getattr(commit, "commit_url", commit))


def created(api: Any, repo_id: str, public: bool) -> bool:
    """Whether the repository was made; it was not where it is there already."""
    try:
        api.create_repo(repo_id, private=not public)
    except OSError as error:
        if status_of(error) != CONFLICT:
            raise
        return False
    return True


def status_of(error: Exception) -> int | None:
    """The HTTP status of an error of the hub's library, where it has one."""
    status: int | None = getattr(getattr(error, "response", None), "status_code", None)
    return status
