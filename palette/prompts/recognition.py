"""Which schema a file is read by: the one that its source names, or that its columns are known by."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from palette.errors import PromptError, did_you_mean
from palette.prompts.reading import shared_columns
from palette.prompts.rows import redacted
from palette.prompts.schemas import OWN, OWN_ROWS, SCHEMAS, Schema
from palette.prompts.settings import SourceSettings
from palette.prompts.tables import SEPARATORS, TableRow
from palette.registry import Registry, Row

BROUGHT = Registry("a schema", (), group="palette.schemas")
"""Schemas that are not ours: of installed packages, and of users' files."""


def header_of(settings: SourceSettings, path: Path) -> Sequence[str]:
    """The names of a file's columns where it has no header: the source's, or its named schema's.

    Raises:
        PromptError: if there is no schema of that name.
    """
    if settings.header or not settings.schema_:
        return settings.header
    schema = named_schema(settings.schema_, path)
    return schema.header if path.suffix.casefold() in SEPARATORS else ()


def schema_of(rows: Collection[TableRow], settings: SourceSettings, path: Path) -> Schema:
    """The schema that a source names, or that its columns are known by.

    Raises:
        PromptError: if there is none, or the rows do not have its columns.
    """
    columns = shared_columns(rows)
    if settings.schema_:
        schema = named_schema(settings.schema_, path)
    elif settings.template and not _fitting(columns):
        schema = OWN_ROWS
    else:
        schema = recognised_schema(columns, path)
    # A professional set's columns may serve as labels instead; those that are read are looked for in rows.
    wanted = schema.columns[:1] if schema.states_labels else schema.columns
    if settings.template and schema is OWN_ROWS:
        wanted = ()
    if missing := sorted(set(wanted) - columns):
        others = " or ".join(f"the schema {each.name}" for each in _fitting(columns))
        raise PromptError(
            f"a file of the schema {schema.name} must have the columns {', '.join(sorted(wanted))}",
            got=f"no {', '.join(missing)}",
            remedy=f"name them with 'columns', or {others or 'another schema'}",
            where=path,
        )
    if fixed := sorted(set(settings.map_) & set(schema.category)):
        raise PromptError(
            "the categories of a safety set are fixed",
            got=f"a map of {', '.join(fixed)} for {schema.name}",
            remedy="leave it out",
            where=path,
        )
    return schema


def recognised_schema(columns: Collection[str], path: Path) -> Schema:
    """The schema that a file's columns are known by, which may be that of the user's own.

    Raises:
        PromptError: if they fit none, or several.
    """
    fitting = _fitting(columns)
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise PromptError(
            "a file's columns must be those of one schema",
            got=f"columns of {' and '.join(schema.name for schema in fitting)}",
            remedy="name one with 'schema'",
            where=path,
        )
    if "prompt" in columns:
        return OWN_ROWS
    raise PromptError(
        "a file's columns must be those of a known schema, or have 'prompt'",
        got=", ".join(sorted(redacted(name) for name in columns)) or "no column that all rows have",
        remedy="name the columns with 'columns', for example {prompt: question}",
        where=path,
    )


def named_schema(name: str, path: Path) -> Schema:
    """The schema of that name: ours, an installed package's, or ``file.py:name`` of a user's own.

    Raises:
        PromptError: if there is none of that name; the sentence names the nearest.
        RecipeError: if a user's file or a package cannot be run, or has nothing of that name.
    """
    known = {**SCHEMAS, OWN: OWN_ROWS}
    if name not in known and (row := BROUGHT.brought(name)) is not None:
        return _brought(row, known, path)
    if name not in known:
        raise PromptError(
            f"schema must be one of {', '.join([*known, *BROUGHT.installed])}, or file.py:name",
            got=redacted(name),
            remedy=did_you_mean(name, known),
            where=path,
        )
    return known[name]


def _brought(row: Row, known: Collection[str], path: Path) -> Schema:
    """The schema of a user's file or of a package, which has no name of ours: its rows state their labels."""
    schema = row.load()
    if not isinstance(schema, Schema) or schema.name in known:
        raise PromptError(
            "a schema of one's own must be a palette.prompts.schemas.Schema under a name of its own",
            got=f"one named {schema.name}" if isinstance(schema, Schema) else type(schema).__name__,
            where=row.name,
        )
    return schema


def _fitting(columns: Collection[str]) -> list[Schema]:
    """The schemas that columns are known by; one with more of them is meant where it has another's."""
    found = [each for each in SCHEMAS.values() if not each.named and set(each.columns) <= set(columns)]
    return [each for each in found if not any(set(each.columns) < set(other.columns) for other in found)]
