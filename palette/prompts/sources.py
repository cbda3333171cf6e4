"""Prompts brought as files of public schemas or of one's own: read, labelled, and each only once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from palette.errors import PaletteError, PromptError, noted, together
from palette.fingerprints import fingerprint_file, fingerprint_folder
from palette.prompts.contents import answers_if_any
from palette.prompts.hub import HubTable, is_in_hub_layout, read_hub_folder
from palette.prompts.labelling import labelled, load_prompts
from palette.prompts.reading import read_rows, renamed
from palette.prompts.recognition import header_of, schema_of
from palette.prompts.rows import (
    Prompt,
    PromptSet,
    first_of,
    messages,
    repeated,
    repeated_prompts,
    require_distinct,
    require_unique_ids,
    spread,
)
from palette.prompts.schemas import OWN_ROWS, PROVENANCE
from palette.prompts.selection import matching, translated
from palette.prompts.settings import PromptSources, SourceSettings

NOT_STATED = "not stated"


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
    left_out: tuple[tuple[str, int], ...] = ()
    """Why other rows were left out, and how many."""

    def to_json(self) -> dict[str, Any]:
        """The entry of report.json's ``sources``."""
        again = (("because they stand again", self.dropped),) if self.dropped else ()
        left = "".join(f"; left out {reason}: {count}" for reason, count in (*self.left_out, *again))
        return {
            "name": self.name,
            "digest": self.digest,
            "licence": self.licence,
            "source": self.origin + left,
            "rows": self.rows,
        }


def load_source(path: Path, schema: str | None = None, *, drop_overlaps: bool = False, **keys: Any) -> Source:
    """The prompts of one file with their labels, the file's digest, and where it comes from.

    ``keys`` are the other keys of a source, such as ``columns``, ``where``, ``map``, ``limit``, ``domain``
    and ``kind``. No error holds the text of a row.

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
    broken: list[PaletteError] = []
    with noted(broken):
        source = _source_of(settings, broken)
    if broken:
        raise together(broken)
    return source


def _source_of(settings: SourceSettings, broken: list[PaletteError]) -> Source:
    """The same of the rows that are sound; what is wrong with others is added to ``broken``."""
    path = Path(settings.path)
    if path.is_dir() and not is_in_hub_layout(path, settings.config):
        prompts, digest = _read_folder(path, settings), fingerprint_folder(path, "*.jsonl")
        licence, origin = settings.licence or NOT_STATED, settings.origin or path.name
        return Source(prompts, settings.name or path.name, digest, licence, origin, len(prompts))
    table = _read_table(path, settings, broken)
    if not table.rows:
        raise together(broken)
    rows = renamed(table.rows, settings.columns, path)
    matched = matching(rows, settings.where, path)
    schema = schema_of(matched, settings, path)
    plain = re.sub(r"[^A-Za-z0-9._+-]", "-", path.stem)
    name = settings.name or (plain if schema is OWN_ROWS else f"{schema.name}/{plain}")
    if schema.states_labels and not schema.answer and "answer" in settings.columns:
        schema = replace(schema, answer=answers_if_any)
    labelled_rows: list[Prompt] = []
    for row in translated(matched, settings.map_, path):
        with noted(broken):
            labelled_rows.append(labelled(row, schema, settings, f"{name}/{row.part}" if row.part else name))
    if broken:
        raise together(broken)
    fitting = _of_length(labelled_rows, settings.longest, path)
    kept = [fitting[place] for place in spread(len(fitting), settings.limit or len(fitting))]
    left_out = {
        "by 'where'": len(rows) - len(matched),
        f"as longer than {settings.longest} characters": len(labelled_rows) - len(fitting),
        "by 'limit'": len(fitting) - len(kept),
    }
    stated_licence, stated_origin = PROVENANCE.get(schema.name, (NOT_STATED, path.name))
    licence = settings.licence or table.licence or stated_licence
    source = Source(_ordered(kept), name, table.digest, licence, settings.origin or stated_origin, len(rows))
    return replace(source, left_out=tuple((reason, n) for reason, n in left_out.items() if n))


def _read_table(path: Path, settings: SourceSettings, broken: list[PaletteError]) -> HubTable:
    """The rows of a file, or of a folder in the hub's layout."""
    if path.is_dir():
        return read_hub_folder(path, settings.config, broken)
    if settings.config is not None:
        raise PromptError(
            "config must be of a folder in the hub's layout",
            got="another path",
            remedy="leave it out",
            where=path,
        )
    return HubTable(read_rows(path, header_of(settings, path), broken), fingerprint_file(path), None)


def _of_length(prompts: Sequence[Prompt], longest: int | None, path: Path) -> Sequence[Prompt]:
    """The prompts that are not too long."""
    if longest is None:
        return prompts
    fitting = [row for row in prompts if sum(len(each["content"]) for each in messages(row)) <= longest]
    if not fitting:
        raise PromptError(
            f"longest must leave a prompt of at most {longest} characters",
            got=f"none of {len(prompts)}",
            remedy="raise it",
            where=path,
        )
    return fitting


def _read_folder(path: Path, settings: SourceSettings) -> PromptSet:
    stated = settings.model_dump(exclude_defaults=True, exclude={"path", "name", "licence", "origin"})
    if stated:
        raise PromptError(
            "a folder of <domain>.jsonl states its own labels",
            got=", ".join(key.rstrip("_") for key in stated),
            remedy="leave them out, give each file as a source, or name the 'config' of a hub's folder",
            where=path,
        )
    return load_prompts(path, answers=True)


def read_sources(settings: PromptSources) -> tuple[PromptSet, list[Source]]:
    """The prompts of several sources, each once, and the sources.

    Raises:
        PromptError: if a file or a row breaks a law, or a prompt stands again and is not to be dropped; all
            of it at once.
    """
    sources, broken = list[Source](), list[PaletteError]()
    for each in settings.sources:
        with noted(broken):
            for one in _expanded(each):
                with noted(broken):
                    sources.append(_read_source(one))
    if twice := repeated(source.name for source in sources):
        got, remedy = f"{first_of(twice)} twice", "give each a 'name'"
        broken.append(PromptError("a source must have a name of its own", got=got, remedy=remedy))
    else:
        with noted(broken):
            sources = _each_once(sources, settings.drop_overlaps, "prompts.sources")
    if broken:
        raise together(broken)
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
        broken, firsts = list[PaletteError](), list[Prompt]()
        for source in sources:
            with noted(broken):
                require_distinct(source.prompts, source.name, remedy.format(""))
            again = {id(other) for _, other in repeated_prompts(source.prompts)}
            firsts += [row for row in source.prompts if id(row) not in again]
        with noted(broken):
            require_distinct(firsts, where, remedy.format("prompts."))
        if broken:
            raise together(broken)
    require_unique_ids(_all(sources), where)
    return sources


def _all(sources: Iterable[Source]) -> list[Prompt]:
    return [row for source in sources for row in source.prompts]


def _ordered(prompts: Iterable[Prompt]) -> PromptSet:
    return PromptSet(tuple(sorted(prompts, key=lambda row: row.domain)))
