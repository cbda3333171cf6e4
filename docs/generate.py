"""Writes recipe-reference.md and merge-methods.md from what the code declares; ``--check`` compares them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from palette.files import write_text
from palette.merging.methods import METHODS, merge_method
from palette.merging.settings import MergeSettings
from palette.prompts.settings import source_keys
from palette.recipe import Recipe, TokenRecipe
from palette.settings import dotted

FOLDER = Path(__file__).parent

RECIPE_INTRODUCTION = """# Recipe reference

Generated from the code by `make docs`; every option is declared once, in its engine's settings.
A recipe states only what differs from the defaults. An unknown key is an error that names the
nearest known one, and one that there was once says what replaced it. Any key can be set for one run
with `--set key=value`.
"""
SOURCES = """
## prompts, given as sources

`sources` is a list; each of its entries is a path alone, or a mapping of these keys (see prompts.md).

| key | default | what it is |
| --- | --- | --- |"""
TOKENS_INTRODUCTION = """
# Recipes of control tokens

For `palette tokens`, beside the keys of the run above (`model`, `prompts`, `floor`, `seed` and so on);
`search` and `internalise` are read for `authorise` alone."""
METHODS_INTRODUCTION = """# Merge methods

Generated from the code by `make docs`. Each is a row of one table (`palette/merging/methods.py`) and a
pure function; `--method NAME`, and `--option key=value` for its options.
"""


def recipe_reference() -> str:
    """The page of all keys of a recipe, as Markdown."""
    parts = [RECIPE_INTRODUCTION, *_tables(dotted(Recipe), "The run")]
    parts += _tables(dotted(MergeSettings), "Merges: `--set merge.KEY=VALUE`, or a merge recipe")
    parts += [SOURCES, *(_line(key, field) for key, field in source_keys())]
    parts.append(TOKENS_INTRODUCTION)
    parts += _tables((row for row in dotted(TokenRecipe) if _of_tokens(row[0])), "The categories")
    return "\n".join(parts) + "\n"


def merge_methods() -> str:
    """The page of the merge methods, as Markdown."""
    parts, presets = [METHODS_INTRODUCTION], []
    for method in map(merge_method, METHODS):
        parts.append(f"\n## {method.name}\n\n{method.source}.")
        if method.takes_moments:
            parts.append("\nIt needs `moments` for each adapter, in a merge recipe.")
        schema = method.options.model_json_schema().get("properties", {})
        if schema:
            parts.append("\n| option | default | values | what it is |\n| --- | --- | --- | --- |")
        for name, field in schema.items():
            default, what = json.dumps(field["default"]).strip('"'), field["description"]
            parts.append(f"| `{name}` | `{default}` | {_values(field)} | {what} |")
        for tool, options in method.compat.items():
            laid = ", ".join(f"{key}={value}" for key, value in options.items()) or "nothing"
            presets.append((tool, f"| `--compat {tool}` | `{method.name}` | {laid} |"))
    parts.append("\n## Presets\n\n| | method | sets |\n| --- | --- | --- |")
    parts += [line for _, line in sorted(presets, key=lambda preset: preset[0])]
    return "\n".join(parts) + "\n"


def _values(field: Mapping[str, Any]) -> str:
    """The values that an option takes, in words, from its JSON schema."""
    if "enum" in field:
        return " or ".join(field["enum"])
    if field["type"] == "boolean":
        return "true or false"
    kind = {"integer": "an integer", "number": "a number"}[field["type"]]
    least, above = field.get("minimum"), field.get("exclusiveMinimum")
    if (most := field.get("maximum")) is not None:
        opening = f"({above:g}" if least is None else f"[{least:g}"
        return f"{kind} in {opening}, {most:g}]"
    return kind if least is None else f"{kind} of at least {least:g}"


PAGES = {"recipe-reference.md": recipe_reference, "merge-methods.md": merge_methods}


def _of_tokens(key: str) -> bool:
    """Whether a key of a recipe of control tokens is another one than that of an adapter's recipe."""
    root = key.partition(".")[0]
    field, other = TokenRecipe.model_fields[root], Recipe.model_fields.get(root)
    return other is None or (field.annotation, field.description) != (other.annotation, other.description)


def _tables(rows: Iterable[tuple[str, Any]], first: str) -> list[str]:
    """A table for each group of keys, in the order in which the groups begin."""
    groups: dict[str, list[str]] = {}
    for key, field in rows:
        groups.setdefault(key.rpartition(".")[0], []).append(_line(key, field))
    heading = "\n## {}\n\n| key | default | what it is |\n| --- | --- | --- |"
    return [part for group, lines in groups.items() for part in (heading.format(group or first), *lines)]


def _line(key: str, field: Any) -> str:
    default = "required" if field.is_required() else f"`{_plain(field)}`"
    description = " ".join((field.description or "").split())
    return f"| `{key}` | {default} | {description} |"


def _plain(field: Any) -> object:
    value = field.get_default(call_default_factory=True)
    return list(value) if isinstance(value, tuple) else value


def main(arguments: list[str]) -> None:
    """Writes the pages; with ``--check`` it ends with status 1 and a sentence if one is stale."""
    check = arguments == ["--check"]
    if arguments and not check:
        sys.exit(f"docs/generate.py takes --check or nothing, got {' '.join(arguments)}")
    for name, page in PAGES.items():
        path, text = FOLDER / name, page()
        if not check:
            write_text(path, text)
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            sys.exit(f"docs/{name} must say what the code declares, got another text; run make docs")


if __name__ == "__main__":
    main(sys.argv[1:])
