"""Rows of files as prompts with their labels: of a folder of ``<domain>.jsonl``, or of a source."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from pydantic import ConfigDict, Field, model_validator

from palette.errors import PromptError
from palette.prompts.rows import (
    LONGEST_ID,
    Kind,
    Prompt,
    PromptSet,
    Split,
    Tier,
    case_folded_hash,
    messages,
    normalised_hash,
    redacted,
    require_unique_ids,
    split_by_hash,
)
from palette.prompts.schemas import PromptLabel, Schema, text
from palette.prompts.tables import TableRow, read_rows
from palette.settings import Settings

DOMAIN_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
CHOICES = {"kind": get_args(Kind), "split": get_args(Split), "tier": get_args(Tier)}
TEXTS = ("id", "hazard", "image")
KEYS = ("id", "prompt", *CHOICES, "answer", "hazard", "image")
ID_PATTERN = re.compile(r"[A-Za-z0-9._'-]{1,80}")
"""A set's own ids that are taken over; anything else could be a text."""
SOURCE_NAME = r"^[A-Za-z0-9][A-Za-z0-9._/+-]{0,79}\z"


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
    kind: Kind | None = Field(None, description="the kind of rows that state none; a known set's is fixed")
    tier: Tier | None = Field(
        None, description="the tier of rows that state none; it makes a known set's stricter, never looser"
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
    prompts = []
    for path in files:
        _require_domain(path.stem, repr(path.stem), "rename the file", path)
        prompts += [_folder_prompt(row, path.stem) for row in read_rows(path)]
    require_unique_ids(prompts, folder)
    _require_one_split(prompts, folder)
    found = PromptSet(tuple(prompts))
    return found if answers else found.without_answers()


def _folder_prompt(row: TableRow, domain: str) -> Prompt:
    """The prompt of a folder's row, which states all its labels itself."""
    values = row.values
    if unknown := sorted(set(values) - set(KEYS)):
        raise row.error(
            f"a row may have {', '.join(KEYS)}",
            got=", ".join(key if len(key) < 16 else redacted(key) for key in unknown),
            remedy="remove it",
        )
    choices = {name: _choice(row, name) for name in CHOICES if name in values or name == "kind"}
    answer, variants = _answers(row)
    for key in TEXTS:
        if not isinstance(values.get(key, "x"), str) or not values.get(key, "x"):
            raise row.error(f"{key} must be a text that is not empty", got=redacted(values[key]))
    if "id" not in values:
        raise row.error("a row must have an id", got="none", remedy="give each row one")
    texts = {key: values.get(key) for key in TEXTS} | {"answer": answer, "variants": variants}
    prompt = Prompt(**{"domain": domain, "prompt": _content(row), "split": "train", **texts, **choices})
    return prompt if "split" in choices else replace(prompt, split=split_by_hash(case_folded_hash(prompt)))


def _require_one_split(prompts: list[Prompt], folder: Path) -> None:
    firsts: dict[str, Prompt] = {}
    for prompt in prompts:
        first = firsts.setdefault(normalised_hash(prompt), prompt)
        if first.split != prompt.split:
            one, other = (redacted(row.id, LONGEST_ID) for row in (first, prompt))
            raise PromptError(
                "a prompt must stand in one split only",
                got=f"{one} in {first.split} and {other} in {prompt.split}",
                remedy="remove one of them",
                where=folder,
            )


def labelled(row: TableRow, schema: Schema | None, given: SourceSettings, name: str) -> Prompt:
    """The prompt of a row of a known schema, or of the user's own.

    Its id is the source's ``name``, and the set's own id or a hash of the prompt: so it does not change
    when rows are added or moved.

    Raises:
        PromptError: if the row breaks a law of its schema.
    """
    path = Path(given.path)
    if schema is None:
        label, prompt, split = _own_label(row, given, path), _content(row), _stated(row, "split")
        key, image = row.values.get("id"), row.values.get("image")
        if image not in (None, "") and not isinstance(image, str):
            raise row.error("image must be a text", got=type(image).__name__)
        answer, variants = (None, ()) if row.values.get("answer") in (None, "") else _answers(row)
    else:
        label, split = _known_label(schema.label(row, path), schema.name, given, row.where), None
        prompt = schema.compose(row, path) if schema.compose else text(row, schema.columns[0])
        key = row.values.get(schema.key) if schema.key else None
        answer, variants = schema.answer(row) if schema.answer else None, ()
        image = schema.image(row, path) if schema.image else None
    draft = Prompt(
        id="",
        domain=given.domain or label.domain,
        prompt=prompt,
        kind=label.kind,
        split="train",
        answer=answer or None,
        tier=label.tier,
        hazard=label.hazard,
        image=image or None,
        variants=variants,
    )
    try:
        "".join(message["content"] for message in messages(draft)).encode()
    except UnicodeEncodeError:
        raise row.error("a prompt must be Unicode", got="half a character") from None
    digest = normalised_hash(draft)
    stated_id = str(key) if isinstance(key, str | int) and not isinstance(key, bool) else ""
    known_id = stated_id if ID_PATTERN.fullmatch(stated_id) else digest[:16]
    return replace(draft, id=f"{name}:{known_id}", split=split or given.split or split_by_hash(digest))


def _known_label(label: PromptLabel, name: str, given: SourceSettings, where: str) -> PromptLabel:
    """A known set's labels, made stricter where the user says so."""
    if given.kind not in (None, label.kind):
        raise PromptError(
            "the kind of a known set's rows is fixed",
            got=f"{given.kind} for a {label.kind} row of {name}",
            remedy="leave 'kind' out",
            where=where,
        )
    hazard = given.hazard or label.hazard
    if label.kind == "benign" or label.tier is None:
        return label._replace(hazard=hazard)
    tier = max(label.tier, given.tier or label.tier, key=CHOICES["tier"].index)
    # A named hazard may put a row on the floor, and may not take it off.
    return label._replace(hazard=label.hazard if label.tier == "C" else hazard, tier=tier)


def _own_label(row: TableRow, given: SourceSettings, path: Path) -> PromptLabel:
    """The labels that a row of the user's own states, or else its source."""
    kind, tier = _stated(row, "kind") or given.kind, _stated(row, "tier") or given.tier
    hazard = row.values.get("hazard") or given.hazard
    if kind is None or (kind == "restricted" and tier is None):
        what, example = ("a kind", "kind: restricted") if kind is None else ("a tier", "tier: A")
        raise row.error(
            f"a row must have {what}" + (" where it is restricted" if kind else ""),
            got="none",
            remedy=f"add the column, or give the source one, such as '{example}'",
        )
    if hazard is not None and (not isinstance(hazard, str) or redacted(hazard) != repr(hazard)):
        raise row.error("hazard must be a short code", got=redacted(hazard))
    domain = given.domain or row.values.get("domain") or path.stem
    _require_domain(domain, redacted(domain), "give the source a 'domain'", row.where)
    return PromptLabel(kind, domain, hazard, tier)


def _require_domain(name: object, shown: str, remedy: str, where: object) -> None:
    if not isinstance(name, str) or not DOMAIN_NAME.fullmatch(name):
        raise PromptError(
            "a domain's name must be lower-case letters, digits, '-' and '_'",
            got=shown,
            remedy=remedy,
            where=where,
        )


def _stated(row: TableRow, name: str) -> Any:
    """A label that a table's row states; None where its column is empty or missing."""
    return None if row.values.get(name) in (None, "") else _choice(row, name)


def _choice(row: TableRow, name: str) -> Any:
    """One of the values that a label may have."""
    value = row.values.get(name)
    if value not in CHOICES[name]:
        raise row.error(f"{name} must be one of {', '.join(CHOICES[name])}", got=redacted(value))
    return value


def _answers(row: TableRow) -> tuple[str | None, tuple[str, ...]]:
    """The reference reply that a row states, and the others that it accepts; none where it states none."""
    if "answer" not in row.values:
        return None, ()
    value = row.values["answer"]
    answers = value if isinstance(value, list) else [value]
    if not answers or not all(isinstance(answer, str) and answer for answer in answers):
        raise row.error("answer must be a text that is not empty, or a list of such", got=redacted(value))
    return answers[0], tuple(answers[1:])


def _content(row: TableRow) -> str | tuple[tuple[tuple[str, str], ...], ...]:
    """A row's prompt as it is kept: its text, or its messages."""
    prompt = row.values.get("prompt")
    if isinstance(prompt, str) and prompt.strip():
        return prompt
    if isinstance(prompt, list) and prompt and all(_is_message(message) for message in prompt):
        return tuple(tuple(sorted(message.items())) for message in prompt)
    raise row.error(
        "prompt must be a text, or a list of {role, content} messages",
        got=type(prompt).__name__ if prompt else "an empty one",
    )


def _is_message(message: Any) -> bool:
    return (
        isinstance(message, dict)
        and set(message) == {"role", "content"}
        and all(isinstance(value, str) and value for value in message.values())
    )
