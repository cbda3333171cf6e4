"""Writes recipe-reference.md and merge-methods.md from what the code declares."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

from palette.files import write_text
from palette.merging.compat import COMPAT
from palette.merging.methods import METHODS
from palette.prompts.sources import source_keys
from palette.recipe import TokenRecipe, keys
from palette.run import Basis

PAGE = Path(__file__).with_name("recipe-reference.md")
METHODS_PAGE = Path(__file__).with_name("merge-methods.md")
INTRODUCTION = """# Recipe reference

Generated from the code by `make docs`; every option is declared once, in its stage's settings.
A recipe states only what differs from the defaults. An unknown key is an error that names the
nearest known one. Any key can be set for one run with `--set key=value`.
"""
SOURCES = """
## prompts, given as sources

`sources` is a list; each of its entries is a path alone, or a mapping of these keys (see prompts.md).

| key | default | what it is |
| --- | --- | --- |"""

TOKENS_INTRODUCTION = """
# Recipes of control tokens

For `palette tokens`, beside the keys of the run above (`model`, `prompts`, `floor`, `seed` and so on);
`collect`, `search` and `internalise` are read for `authorise` alone."""


def reference() -> str:
    """The page, as Markdown."""
    parts = [INTRODUCTION]
    parts += _tables(keys(), "The run")
    parts += [SOURCES, *(_line(key, field) for key, field in source_keys())]
    parts.append(TOKENS_INTRODUCTION)
    own = [row for row in keys(TokenRecipe) if row[0].partition(".")[0] not in Basis.model_fields]
    parts += _tables(own, "The categories")
    return "\n".join(parts) + "\n"


def _tables(rows: Iterable[tuple[str, Any]], first: str) -> list[str]:
    parts = []
    for group, each in groupby(rows, lambda row: row[0].rpartition(".")[0]):
        parts.append(f"\n## {group or first}\n\n| key | default | what it is |\n| --- | --- | --- |")
        parts += [_line(key, field) for key, field in each]
    return parts


METHODS_INTRODUCTION = """# Merge methods

Generated from the code by `make docs`. Each is a row of one table (`palette/merging/methods.py`) and a
pure function; `--method NAME`, and `--option key=value` for its options.
"""


def merge_methods() -> str:
    """The page of the merge methods, as Markdown."""
    parts = [METHODS_INTRODUCTION]
    for method in METHODS.values():
        parts.append(f"\n## {method.name}\n\n{method.paper}: {method.equation}.")
        if method.takes_moments:
            parts.append("\nIt needs `moments` for each adapter, in a merge recipe.")
        if method.options:
            parts.append("\n| option | default | values | what it is |\n| --- | --- | --- | --- |")
        for one in method.options:
            default = str(one.default).lower() if isinstance(one.default, bool) else one.default
            parts.append(f"| `{one.name}` | `{default}` | {one.law} | {one.sentence} |")
    parts.append("\n## Presets\n\n| | method | sets |\n| --- | --- | --- |")
    for tool, presets in COMPAT.items():
        for name, options in presets.items():
            laid = ", ".join(f"{key}={value}" for key, value in options.items()) or "nothing"
            parts.append(f"| `--compat {tool}` | `{name}` | {laid} |")
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
    write_text(METHODS_PAGE, merge_methods())
