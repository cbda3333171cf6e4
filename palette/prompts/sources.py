"""Prompts brought as files of public schemas or of one's own: read, labelled, and each only once."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, ValidationError, model_validator

from palette.errors import PromptError
from palette.fingerprints import fingerprint_file, fingerprint_folder
from palette.prompts import overlaps
from palette.prompts.folder import DOMAIN_NAME, load_prompts
from palette.prompts.labelling import Labels, labelled
from palette.prompts.redaction import ID, shown
from palette.prompts.rows import Prompt, PromptSet, Split
from palette.prompts.schemas import named, recognised
from palette.prompts.tables import Row, Table, read_table
from palette.prompts.taxonomy import Tier
from palette.settings import Settings, read_yaml, settled

NAME = r"^[A-Za-z0-9][A-Za-z0-9._/+-]{0,79}\z"


class SourceSettings(Settings):
    """One file of prompts, or one folder of ``<domain>.jsonl``; it may be written as its path alone."""

    # So that a recipe reads back from a report: ``schema`` alone would hide pydantic's method.
    model_config = ConfigDict(serialize_by_alias=True)

    path: str = Field(description="a csv, jsonl, json or parquet file, several as a glob, or a folder")
    schema_: str | None = Field(None, alias="schema", description="its schema; else known by its columns")
    columns: dict[str, str] = Field(
        default_factory=dict, description="the file's column for each of the schema's that has another name"
    )
    domain: str | None = Field(
        None, pattern=f"^{DOMAIN_NAME.pattern}\\z", description="the domain of all its rows"
    )
    kind: Literal["restricted", "benign"] | None = Field(
        None, description="the kind of rows that state none; a known set's is fixed"
    )
    tier: Tier | None = Field(
        None, description="the tier of rows that state none; it makes a known set's stricter, never looser"
    )
    hazard: str | None = Field(None, description="the hazard of rows that state none")
    split: Split | None = Field(
        None, description="the split of rows that state none; else by a hash of their words"
    )
    name: str | None = Field(None, pattern=NAME, description="its name in reports, and of its ids")
    licence: str | None = Field(None, description="its licence, for the report")
    origin: str | None = Field(None, description="where it comes from, for the report")

    @model_validator(mode="before")
    @classmethod
    def _from_a_path(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value


class PromptSources(Settings):
    """The prompts of a run as a list of sources."""

    sources: tuple[SourceSettings, ...] = Field(description="the files, in any order")
    drop_overlaps: bool = Field(
        False, description="leave out prompts that stand again, and say how many; else they are refused"
    )

    @model_validator(mode="after")
    def _has_a_source(self) -> PromptSources:
        if not self.sources:
            raise ValueError("sources must list a file at least")
        return self


class _Given(Settings):
    """Sources as they stand in a recipe, whose errors name them so."""

    prompts: PromptSources


def load_sources(path: Path) -> PromptSources:
    """The sources of a YAML file that holds the keys under ``prompts``; its files are beside it.

    Raises:
        RecipeError: if the file cannot be read, or breaks a law; all of them are named at once.
    """
    content = {"prompts": beside(read_yaml(path), path.parent)}
    return settled(_Given, content, str(path), [name for name, _ in source_keys()]).prompts


def source_keys() -> Iterator[tuple[str, Any]]:
    """Every dotted key of prompts that are given as sources; ``sources`` is a list of such groups."""
    for name, field in PromptSources.model_fields.items():
        if name != "sources":
            yield f"prompts.{name}", field
    for name, field in SourceSettings.model_fields.items():
        yield f"prompts.sources.{field.alias or name}", field


def beside(prompts: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A mapping of sources with each relative path taken from a folder."""
    listed = prompts.get("sources")
    if not isinstance(listed, list):
        return dict(prompts)
    sources = [{"path": one} if isinstance(one, str) else one for one in listed]
    moved = [
        {**one, "path": str(folder / one["path"])}
        if isinstance(one, Mapping) and isinstance(one.get("path"), str)
        else one
        for one in sources
    ]
    return {**prompts, "sources": moved}


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


def load_source(
    path: Path,
    schema: str | None = None,
    columns: Mapping[str, str] | None = None,
    domain: str | None = None,
    drop_overlaps: bool = False,
    **labels: str,
) -> Source:
    """The prompts of one file with their labels, the file's digest, and where it comes from.

    ``labels`` are the other keys of a source: ``kind``, ``tier``, ``hazard``, ``split``, ``name``,
    ``licence``, ``origin``. No error holds the text of a row.

    Raises:
        PromptError: if the file or a row breaks a law, a category is unknown, or a prompt stands twice.
    """
    given = {"path": str(path), "schema": schema, "columns": dict(columns or {}), "domain": domain}
    try:
        settings = SourceSettings.model_validate({**given, **labels})
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise PromptError("a source must follow its settings", got=wrong, where=path) from None
    source = read_source(settings)
    if drop_overlaps:
        (source,) = _kept([source])
    else:
        _refuse_twice(source)
    _refuse_ids(source.prompts, path)
    return source


def read_source(settings: SourceSettings) -> Source:
    """The prompts of one source as they stand, with what stands again.

    Raises:
        PromptError: if the file or a row breaks a law.
    """
    path = Path(settings.path)
    if path.is_dir():
        return _read_folder(path, settings)
    table = _renamed(read_table(path), settings.columns, path)
    chosen = settings.schema_ or recognised(table.columns, path)
    schema = named(chosen, path)
    wanted = frozenset({"prompt"}) if schema is None else schema.columns
    if missing := sorted(wanted - table.columns):
        raise PromptError(
            f"a file of the schema {chosen} must have the columns {', '.join(sorted(wanted))}",
            got=f"no {', '.join(missing)}",
            remedy="name them with 'columns', or another schema",
            where=path,
        )
    plain = re.sub(r"[^A-Za-z0-9._+-]", "-", path.stem)
    name = settings.name or (plain if schema is None else f"{schema.name}/{plain}")
    given = Labels(name, settings.domain, settings.kind, settings.tier, settings.hazard, settings.split)
    prompts = [labelled(row, schema, given, path) for row in table.rows]
    return Source(
        _ordered(prompts),
        name,
        fingerprint_file(path),
        settings.licence or (schema.licence if schema else "not stated"),
        settings.origin or (schema.origin if schema else path.name),
        len(prompts),
    )


def read_sources(settings: PromptSources) -> tuple[PromptSet, list[Source]]:
    """The prompts of several sources, each once, and the sources.

    Raises:
        PromptError: if a file or a row breaks a law, or a prompt stands again and is not to be dropped.
    """
    sources = [read_source(one) for each in settings.sources for one in expanded(each)]
    if repeated := [name for name, n in Counter(s.name for s in sources).items() if n > 1]:
        raise PromptError(
            "a source must have a name of its own", got=f"{repeated[0]} twice", remedy="give each a 'name'"
        )
    if settings.drop_overlaps:
        sources = _kept(sources)
    else:
        for source in sources:
            _refuse_twice(source)
        overlaps.refuse(
            [row for source in sources for row in source.prompts],
            "prompts.sources",
            "set prompts.drop_overlaps to true to leave them out, or remove them",
        )
    rows = [row for source in sources for row in source.prompts]
    _refuse_ids(rows, "prompts.sources")
    return _ordered(rows), sources


def expanded(settings: SourceSettings) -> list[SourceSettings]:
    """The source itself, or one for each file that its glob finds, in order.

    Raises:
        PromptError: if the glob finds none.
    """
    path = Path(settings.path)
    if path.exists() or not any(mark in settings.path for mark in "*?["):
        return [settings]
    found = sorted(Path(path.anchor or ".").glob(str(path.relative_to(path.anchor))))
    if not found:
        raise PromptError("a glob must find a file", got="none", remedy="check the path", where=path)
    if settings.name and len(found) > 1:
        raise PromptError("a name is of one file", got=f"{settings.name} for {len(found)}", where=path)
    return [settings.model_copy(update={"path": str(each)}) for each in found]


def _read_folder(path: Path, settings: SourceSettings) -> Source:
    stated = settings.model_dump(exclude_defaults=True, exclude={"path", "name", "licence", "origin"})
    if stated:
        raise PromptError(
            "a folder of <domain>.jsonl states its own labels",
            got=", ".join(key.rstrip("_") for key in stated),
            remedy="leave them out, or give each file as a source",
            where=path,
        )
    prompts = load_prompts(path, answers=True)
    return Source(
        prompts,
        settings.name or path.name,
        fingerprint_folder(path, "*.jsonl"),
        settings.licence or "not stated",
        settings.origin or path.name,
        len(prompts),
    )


def _renamed(table: Table, columns: Mapping[str, str], path: Path) -> Table:
    """The table under the schema's names; ``columns`` says which column has each."""
    if not columns:
        return table
    names = {theirs: ours for ours, theirs in columns.items()}
    if len(names) < len(columns):
        raise PromptError(
            "a column map must name each column once", got="one for two", remedy="mend 'columns'", where=path
        )
    # A column that only some rows have is known by the rows that have it.
    every = frozenset().union(*(row.values for row in table.rows))
    if absent := sorted(set(names) - every):
        raise PromptError(
            "a column map must name columns of the file",
            got=", ".join(shown(name) for name in absent),
            remedy=f"it has {', '.join(sorted(shown(name) for name in every))}",
            where=path,
        )

    def moved(values: Mapping[str, Any]) -> dict[str, Any]:
        kept = {name: value for name, value in values.items() if name not in columns or name in names}
        return {names.get(name, name): value for name, value in kept.items()}

    rows = tuple(Row(moved(row.values), row.where) for row in table.rows)
    return Table(frozenset.intersection(*(frozenset(row.values) for row in rows)), rows)


def _kept(sources: Sequence[Source]) -> list[Source]:
    """The sources without the prompts that stand again in them or in another."""
    _, gone = overlaps.without([row for source in sources for row in source.prompts])
    left = {id(row) for row in gone}
    return [
        replace(
            source,
            prompts=source.prompts.where(lambda row: id(row) not in left),
            dropped=sum(id(row) in left for row in source.prompts),
        )
        for source in sources
    ]


def _refuse_twice(source: Source) -> None:
    overlaps.refuse(
        source.prompts, source.name, "set drop_overlaps to true to leave them out, or remove them"
    )


def _refuse_ids(prompts: Iterable[Prompt], where: object) -> None:
    if repeated := [name for name, n in Counter(row.id for row in prompts).items() if n > 1]:
        raise PromptError("an id must be unique", got=f"{shown(repeated[0], ID)} twice", where=where)


def _ordered(prompts: Sequence[Prompt]) -> PromptSet:
    return PromptSet(tuple(sorted(prompts, key=lambda row: row.domain)))
