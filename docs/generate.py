"""Writes docs/recipe-reference.md from the settings that the code declares."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

from palette.artefacts import write_text
from palette.recipe import keys

PAGE = Path(__file__).with_name("recipe-reference.md")
INTRODUCTION = """# Recipe reference

Generated from the code by `make docs`; every option is declared once, in its stage's settings.
A recipe states only what differs from the defaults. An unknown key is an error that names the
nearest known one. Any key can be set for one run with `--set key=value`.
"""


def reference() -> str:
    """The page, as Markdown."""
    parts = [INTRODUCTION]
    for group, rows in groupby(keys(), lambda row: row[0].rpartition(".")[0]):
        parts.append(f"\n## {group or 'The run'}\n\n| key | default | what it is |\n| --- | --- | --- |")
        parts += [_line(key, field) for key, field in rows]
    return "\n".join(parts) + "\n"


def _line(key: str, field: Any) -> str:
    default = "required" if field.is_required() else f"`{_plain(field)}`"
    description = " ".join((field.description or "").split())
    return f"| `{key}` | {default} | {description} |"


def _plain(field: Any) -> object:
    value = field.get_default(call_default_factory=True)
    return list(value) if isinstance(value, tuple) else value


if __name__ == "__main__":
    write_text(PAGE, reference())
