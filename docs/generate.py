"""Writes recipe-reference.md and merge-methods.md from what the code declares."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from palette.files import write_text
from palette.merging.methods import TABLE, Compat
from palette.merging.settings import MergeSettings
from palette.prompts.sources import source_keys
from palette.recipe import TokenRecipe, keys
from palette.run import RunSettings
from palette.settings import dotted

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

BOUNDS = ("gt", "ge", "le")
MERGE_INTRODUCTION = """
# Merge recipes

For `palette merge`, in a file of their own or as `--set merge.key=value`; see [merging](merging.md).

| key | default | what it is |
| --- | --- | --- |"""


def reference() -> str:
    """The page, as Markdown."""
    parts = [INTRODUCTION]
    parts += _tables(keys(), "The run")
    parts += [SOURCES, *(_line(key, field) for key, field in source_keys())]
    parts.append(TOKENS_INTRODUCTION)
    own = [row for row in keys(TokenRecipe) if row[0].partition(".")[0] not in RunSettings.model_fields]
    parts += _tables(own, "The categories")
    parts.append(MERGE_INTRODUCTION)
    parts += [_line(key, field) for key, field in dotted(MergeSettings)]
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


PRESETS = """
## Presets

PEFT is meant as its functions on dense task tensors (version 0.21), not its merge of factors. Two
differences remain. Where the votes for an entry cancel exactly, both tools take it for positive, and here
nothing is elected. Random masks are drawn by another generator.

| | method | sets |
| --- | --- | --- |"""


def merge_methods() -> str:
    """The page of the merge methods, as Markdown."""
    parts = [METHODS_INTRODUCTION]
    for method in TABLE:
        parts.append(f"\n## {method.name}\n\n{method.source}.")
        if method.takes_moments:
            parts.append("\nIt needs `moments` for each adapter, in a merge recipe.")
        if method.options.model_fields:
            parts.append("\n| option | default | values | what it is |\n| --- | --- | --- | --- |")
        for name, field in method.options.model_fields.items():
            default = str(field.default).lower() if isinstance(field.default, bool) else field.default
            parts.append(f"| `{name}` | `{default}` | {_values(field)} | {field.description} |")
    parts.append(PRESETS)
    for tool in get_args(Compat):
        for method in (row for row in TABLE if tool in row.compat):
            laid = ", ".join(f"{key}={value}" for key, value in method.compat[tool].items()) or "nothing"
            parts.append(f"| `--compat {tool}` | `{method.name}` | {laid} |")
    return "\n".join(parts) + "\n"


def _values(field: Any) -> str:
    """The values that an option takes, in words."""
    kind = field.annotation
    if get_origin(kind) is Literal:
        return " or ".join(get_args(kind))
    if kind is bool:
        return "true or false"
    laws = {name: getattr(law, name) for law in field.metadata for name in BOUNDS if hasattr(law, name)}
    if "le" in laws:
        low = f"({laws['gt']}" if "gt" in laws else f"[{laws['ge']}"
        return f"a number in {low}, {laws['le']}]"
    return f"an integer of at least {laws['ge']}"


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
