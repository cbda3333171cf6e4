"""The keys of a source of prompts, and of a list of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field, field_validator, model_validator

from palette.prompts.rows import DOMAIN_NAME, Kind, Split, Tier
from palette.prompts.selection import spelled, template_columns
from palette.settings import Settings, read_yaml, settled

SOURCE_NAME = r"^[A-Za-z0-9][A-Za-z0-9._/+-]{0,79}\z"


def _spelled(value: Any) -> Any:
    """A plain value as it is compared; another as it is, for the check of its type."""
    text = spelled(value)
    return value if text is None else text


def _one_or_several(value: Any) -> Any:
    return tuple(map(_spelled, value)) if isinstance(value, list | tuple) else (_spelled(value),)


def _by_spelling(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    entries = {_spelled(key): word for key, word in value.items()}
    if len(entries) < len(value):
        raise ValueError("a value must have one entry")
    return entries


Values = Annotated[tuple[str, ...], BeforeValidator(_one_or_several), Field(min_length=1)]
Words = Annotated[dict[str, str], BeforeValidator(_by_spelling), Field(min_length=1)]


class SourceSettings(Settings):
    """One file of prompts, or one folder of them; it may be written as its path alone."""

    # So that a recipe reads back from a report: ``schema`` alone would hide pydantic's method.
    model_config = ConfigDict(serialize_by_alias=True)

    path: str = Field(
        description="a csv, tsv, jsonl, json or parquet file, several as a glob, a folder of <domain>.jsonl, "
        "or one in the hub's layout"
    )
    schema_: str | None = Field(None, alias="schema", description="its schema; else known by its columns")
    config: str | None = Field(
        None, description="the named part of a folder in the hub's layout; else its only or default one"
    )
    header: tuple[str, ...] = Field((), description="names of the columns, where a csv or tsv has no header")
    columns: dict[str, str] = Field(
        default_factory=dict, description="the file's column for each of the schema's that has another name"
    )
    where: dict[str, Values] = Field(
        default_factory=dict, description="only rows in which each column has this value, or one of a list"
    )
    map_: dict[str, Words] = Field(
        default_factory=dict,
        alias="map",
        description="for a column what each of its values stands for, such as {kind: {unsafe: restricted}}",
    )
    template: str | None = Field(
        None, description="the prompt as a text with columns in braces; else the schema's"
    )
    longest: int | None = Field(None, ge=1, description="characters of a prompt at most; others are left out")
    limit: int | None = Field(None, ge=1, description="prompts at most, spread evenly over those left")
    domain: str | None = Field(
        None, pattern=f"^{DOMAIN_NAME.pattern}\\z", description="the domain of all its rows"
    )
    kind: Kind | None = Field(
        None,
        description="the kind of rows that state none: a professional set's are benign, a safety set's fixed",
    )
    tier: Tier | None = Field(
        None, description="the tier of rows that state none; it makes a safety set's stricter, never looser"
    )
    hazard: str | None = Field(None, description="the hazard of rows that state none")
    split: Split | None = Field(
        None, description="the split of rows that state none; else by a hash of their words"
    )
    name: str | None = Field(None, pattern=SOURCE_NAME, description="its name in reports, and of its ids")
    licence: str | None = Field(None, description="its licence, for the report")
    origin: str | None = Field(None, description="where it comes from, for the report")

    @model_validator(mode="before")
    @classmethod
    def _from_a_path(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value

    @field_validator("template")
    @classmethod
    def _names_columns(cls, value: str | None) -> str | None:
        if value is not None:
            template_columns(value)
        return value


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
