"""Reading a folder of ``<domain>.jsonl`` strictly: a row that breaks a law is an error with its line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from palette.errors import PromptError
from palette.prompts.overlaps import wording
from palette.prompts.redaction import ID, shown
from palette.prompts.rows import Prompt, PromptSet, normalised, split_by_hash

DOMAIN_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
CHOICES = {
    "kind": ("restricted", "benign"),
    "split": ("train", "validation", "test"),
    "tier": ("A", "B", "C"),
}
TEXTS = ("id", "answer", "hazard", "image")
KEYS = ("id", "prompt", *CHOICES, "answer", "hazard", "image")


def load_prompts(folder: Path, *, answers: bool = False) -> PromptSet:
    """The prompts of a folder, ordered by domain; reference answers only where asked for.

    Raises:
        PromptError: if the folder or a row breaks a law, or a prompt stands in two splits.
    """
    files = sorted(folder.glob("*.jsonl")) if folder.is_dir() else []
    if not files:
        raise PromptError(
            "prompts must be a folder of <domain>.jsonl files",
            got="no such folder" if not folder.is_dir() else "a folder without one",
            remedy="give its path as 'prompts'",
            where=folder,
        )
    rows = [row for path in files for row in _read_file(path)]
    _refuse_duplicates(rows, folder)
    found = PromptSet(tuple(rows))
    return found if answers else found.without_answers()


def _read_file(path: Path) -> Iterator[Prompt]:
    if not DOMAIN_NAME.fullmatch(path.stem):
        raise PromptError(
            "a domain's name must be lower-case letters, digits, '-' and '_'",
            got=f"{path.stem!r}",
            remedy="rename the file",
            where=path,
        )
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise PromptError(
            "a prompt file must be readable UTF-8", got=error, remedy="save it as UTF-8", where=path
        ) from None
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield _row(line, path.stem, f"{path}:{number}")


def _row(line: str, domain: str, where: str) -> Prompt:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise PromptError(
            "a row must be one JSON object", got=error, remedy="mend the line", where=where
        ) from None
    if not isinstance(row, dict):
        raise PromptError("a row must be one JSON object", got=type(row).__name__, where=where)
    if unknown := sorted(set(row) - set(KEYS)):
        raise PromptError(
            f"a row may have {', '.join(KEYS)}",
            got=", ".join(key if len(key) < 16 else shown(key) for key in unknown),
            remedy="remove it",
            where=where,
        )
    for key, choices in CHOICES.items():
        if (key in row or key == "kind") and row.get(key) not in choices:
            raise PromptError(
                f"{key} must be one of {', '.join(choices)}", got=shown(row.get(key)), where=where
            )
    for key in TEXTS:
        if not isinstance(row.get(key, "x"), str) or not row.get(key, "x"):
            raise PromptError(f"{key} must be a text that is not empty", got=shown(row[key]), where=where)
    if "id" not in row:
        raise PromptError("a row must have an id", got="none", remedy="give each row one", where=where)
    prompt = content(row.get("prompt"), where)
    draft = Prompt(
        id=row["id"],
        domain=domain,
        prompt=prompt,
        kind=row["kind"],
        split="train",
        **{key: row.get(key) for key in ("answer", "tier", "hazard", "image")},
    )
    split = row.get("split") or split_by_hash(normalised(draft))
    return Prompt(**{**vars(draft), "split": split})


def content(prompt: Any, where: str) -> str | tuple[tuple[tuple[str, str], ...], ...]:
    """A prompt as it is kept: its text, or its messages.

    Raises:
        PromptError: if it is neither.
    """
    if isinstance(prompt, str) and prompt.strip():
        return prompt
    if isinstance(prompt, list) and prompt and all(_is_message(message) for message in prompt):
        return tuple(tuple(sorted(message.items())) for message in prompt)
    raise PromptError(
        "prompt must be a text, or a list of {role, content} messages",
        got=type(prompt).__name__ if prompt else "an empty one",
        where=where,
    )


def _is_message(message: Any) -> bool:
    return (
        isinstance(message, dict)
        and set(message) == {"role", "content"}
        and all(isinstance(value, str) and value for value in message.values())
    )


def _refuse_duplicates(rows: list[Prompt], folder: Path) -> None:
    ids: set[str] = set()
    splits: dict[str, Prompt] = {}
    for row in rows:
        if row.id in ids:
            raise PromptError("an id must be unique", got=f"{shown(row.id, ID)} twice", where=folder)
        ids.add(row.id)
        first = splits.setdefault(wording(row), row)
        if first.split != row.split:
            raise PromptError(
                "a prompt must stand in one split only",
                got=f"{shown(first.id, ID)} in {first.split} and {shown(row.id, ID)} in {row.split}",
                remedy="remove one of them",
                where=folder,
            )
