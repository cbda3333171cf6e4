"""Prompts brought as files of public schemas or of one's own: read, labelled, and each only once."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from palette.errors import PromptError
from palette.fingerprints import fingerprint_file, fingerprint_folder
from palette.prompts.labelling import SourceSettings, labelled, load_prompts
from palette.prompts.rows import (
    Prompt,
    PromptSet,
    redacted,
    repeated_prompts,
    require_distinct,
    require_unique_ids,
)
from palette.prompts.schemas import OWN, PROVENANCE, SCHEMAS, Schema
from palette.prompts.tables import read_rows, renamed, shared_columns
from palette.settings import Settings, read_yaml, settled


class PromptSources(Settings):
    """The prompts of a run as a list of sources."""

    sources: tuple[SourceSettings, ...] = Field(description="the files, in any order")
    drop_overlaps: bool = Field(
        False, description="leave out prompts that stand again, and say how many; else they are refused"
    )

    # Not as min_length, which counts those alone that are valid and speaks up beside every other error.
    @model_validator(mode="after")
    def _has_a_source(self) -> PromptSources:
        if not self.sources:
            raise ValueError("sources must list a file at least")
        return self


def load_sources(path: Path) -> PromptSources:
    """The sources of a YAML file that holds the keys under ``prompts``; its files are beside it.

    Raises:
        RecipeError: if the file cannot be read, or breaks a law; all of them are named at once.
    """
    content = sources_beside(read_yaml(path, "list of sources"), path.parent)
    names = [name.removeprefix("prompts.") for name, _ in source_keys()]
    return settled(PromptSources, content, str(path), names, "list of sources")


def source_keys() -> Iterator[tuple[str, Any]]:
    """Every dotted key of prompts that are given as sources; ``sources`` is a list of such groups."""
    for name, field in PromptSources.model_fields.items():
        if name != "sources":
            yield f"prompts.{name}", field
    for name, field in SourceSettings.model_fields.items():
        yield f"prompts.sources.{field.alias or name}", field


def sources_beside(prompts: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A mapping of sources with each relative path taken from a folder."""
    listed = prompts.get("sources")
    if not isinstance(listed, list):
        return dict(prompts)

    def moved(source: Any) -> Any:
        given = {"path": source} if isinstance(source, str) else source
        if isinstance(given, Mapping) and isinstance(given.get("path"), str):
            return {**given, "path": str(folder / given["path"])}
        return given

    return {**prompts, "sources": [moved(source) for source in listed]}


@dataclass(frozen=True)
class Source:
    """The prompts of one file, and what a report says about it."""

    prompts: PromptSet
    name: str
    digest: str
    """SHA-256 (hex) of the file."""
    licence: str
    origin: str
    rows: int
    """Rows of the file, those left out among them."""
    dropped: int = 0
    """Rows left out because they stand again."""

    def to_json(self) -> dict[str, Any]:
        """The entry of report.json's ``sources``."""
        left = f"; left out because they stand again: {self.dropped}" if self.dropped else ""
        return {
            "name": self.name,
            "digest": self.digest,
            "licence": self.licence,
            "source": self.origin + left,
            "rows": self.rows,
        }


def load_source(path: Path, schema: str | None = None, *, drop_overlaps: bool = False, **keys: Any) -> Source:
    """The prompts of one file with their labels, the file's digest, and where it comes from.

    ``keys`` are the other keys of a source: ``columns``, ``domain``, ``kind``, ``tier``, ``hazard``,
    ``split``, ``name``, ``licence``, ``origin``. No error holds the text of a row.

    Raises:
        PromptError: if the file or a row breaks a law, a category is unknown, or a prompt stands twice.
    """
    try:
        settings = SourceSettings.model_validate({"path": str(path), "schema": schema, **keys})
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise PromptError("a source must follow its settings", got=wrong, where=path) from None
    (source,) = _each_once([_read_source(settings)], drop_overlaps, path)
    return source


def _read_source(settings: SourceSettings) -> Source:
    """The prompts of one source as they stand, with what stands again."""
    path = Path(settings.path)
    name, provenance = path.name, ("not stated", path.name)
    if path.is_dir():
        prompts, digest = _read_folder(path, settings), fingerprint_folder(path, "*.jsonl")
    else:
        rows, digest = renamed(read_rows(path), settings.columns, path), fingerprint_file(path)
        columns = shared_columns(rows)
        chosen = settings.schema_ or recognised_schema(columns, path)
        schema = named_schema(chosen, path)
        wanted = {"prompt"} if schema is None else set(schema.columns)
        if missing := sorted(wanted - columns):
            raise PromptError(
                f"a file of the schema {chosen} must have the columns {', '.join(sorted(wanted))}",
                got=f"no {', '.join(missing)}",
                remedy="name them with 'columns', or another schema",
                where=path,
            )
        plain = re.sub(r"[^A-Za-z0-9._+-]", "-", path.stem)
        name = settings.name or (f"{chosen}/{plain}" if schema else plain)
        prompts = _ordered(labelled(row, schema, settings, name) for row in rows)
        provenance = PROVENANCE.get(chosen, provenance)
    licence, origin = settings.licence or provenance[0], settings.origin or provenance[1]
    return Source(prompts, settings.name or name, digest, licence, origin, len(prompts))


def recognised_schema(columns: Collection[str], path: Path) -> str:
    """The name of the schema that a file's columns are known by; ``rows`` for one of the user's own.

    Raises:
        PromptError: if they fit none, or several.
    """
    fitting = [schema for schema in SCHEMAS.values() if set(schema.columns) <= set(columns)]
    if len(fitting) == 1:
        return fitting[0].name
    if fitting:
        raise PromptError(
            "a file's columns must be those of one schema",
            got=f"columns of {' and '.join(schema.name for schema in fitting)}",
            remedy="name one with 'schema'",
            where=path,
        )
    if "prompt" in columns:
        return OWN
    raise PromptError(
        "a file's columns must be those of a known schema, or have 'prompt'",
        got=", ".join(sorted(redacted(name) for name in columns)) or "no column that all rows have",
        remedy="name the columns with 'columns', for example {prompt: question}",
        where=path,
    )


def named_schema(name: str, path: Path) -> Schema | None:
    """The schema of that name; None for the user's own rows.

    Raises:
        PromptError: if there is none of that name; the sentence names the nearest.
    """
    known = [*SCHEMAS, OWN]
    if name not in known:
        near = get_close_matches(name, known, n=1)
        raise PromptError(
            f"schema must be one of {', '.join(known)}",
            got=redacted(name),
            remedy=f"did you mean {near[0]}?" if near else None,
            where=path,
        )
    return SCHEMAS.get(name)


def _read_folder(path: Path, settings: SourceSettings) -> PromptSet:
    stated = settings.model_dump(exclude_defaults=True, exclude={"path", "name", "licence", "origin"})
    if stated:
        raise PromptError(
            "a folder of <domain>.jsonl states its own labels",
            got=", ".join(key.rstrip("_") for key in stated),
            remedy="leave them out, or give each file as a source",
            where=path,
        )
    return load_prompts(path, answers=True)


def read_sources(settings: PromptSources) -> tuple[PromptSet, list[Source]]:
    """The prompts of several sources, each once, and the sources.

    Raises:
        PromptError: if a file or a row breaks a law, or a prompt stands again and is not to be dropped.
    """
    sources = [_read_source(one) for each in settings.sources for one in _expanded(each)]
    if repeated := [name for name, n in Counter(s.name for s in sources).items() if n > 1]:
        raise PromptError(
            "a source must have a name of its own", got=f"{repeated[0]} twice", remedy="give each a 'name'"
        )
    sources = _each_once(sources, settings.drop_overlaps, "prompts.sources")
    return _ordered(_all(sources)), sources


def _expanded(settings: SourceSettings) -> list[SourceSettings]:
    """The source itself, or one for each file that its glob finds, in order."""
    path = Path(settings.path)
    if path.exists() or not any(mark in settings.path for mark in "*?["):
        return [settings]
    found = sorted(Path(path.anchor or ".").glob(str(path.relative_to(path.anchor))))
    if not found:
        raise PromptError("a glob must find a file", got="none", remedy="check the path", where=path)
    if settings.name and len(found) > 1:
        raise PromptError("a name is of one file", got=f"{settings.name} for {len(found)}", where=path)
    return [settings.model_copy(update={"path": str(each)}) for each in found]


def _each_once(sources: list[Source], drop: bool, where: object) -> list[Source]:
    """The sources with each prompt once: others are left out and counted, or refused."""
    remedy = "set {}drop_overlaps to true to leave them out, or remove them"
    if drop:
        left_out = {id(other) for _, other in repeated_prompts(_all(sources))}
        kept = [source.prompts.where(lambda row: id(row) not in left_out) for source in sources]
        sources = [
            replace(source, prompts=rows, dropped=len(source.prompts) - len(rows))
            for source, rows in zip(sources, kept, strict=True)
        ]
    else:
        for source in sources:
            require_distinct(source.prompts, source.name, remedy.format(""))
        require_distinct(_all(sources), where, remedy.format("prompts."))
    require_unique_ids(_all(sources), where)
    return sources


def _all(sources: Iterable[Source]) -> list[Prompt]:
    return [row for source in sources for row in source.prompts]


def _ordered(prompts: Iterable[Prompt]) -> PromptSet:
    return PromptSet(tuple(sorted(prompts, key=lambda row: row.domain)))
