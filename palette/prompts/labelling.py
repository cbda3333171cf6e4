"""Rows of files as prompts with their labels: of a folder of ``<domain>.jsonl``, or of a source."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from palette.errors import PaletteError, PromptError, noted, together
from palette.prompts.categories import PromptLabel
from palette.prompts.contents import Content, images_if_any, images_in_parts, stated_answers, stated_content
from palette.prompts.hub import SPLIT, our_split
from palette.prompts.pictures import held_picture, marked, stated_picture
from palette.prompts.reading import read_rows
from palette.prompts.rows import (
    DOMAIN_NAME,
    LONGEST_ID,
    Cell,
    Kind,
    Prompt,
    PromptSet,
    Split,
    Tier,
    case_folded_hash,
    first_of,
    messages,
    normalised_hash,
    redacted,
    require_unique_ids,
    split_by_hash,
)
from palette.prompts.schemas import OWN, Schema
from palette.prompts.selection import filled
from palette.prompts.settings import SourceSettings
from palette.prompts.tables import TableRow

CHOICES = {"kind": get_args(Kind), "split": get_args(Split), "tier": get_args(Tier), "cell": get_args(Cell)}
TEXTS = ("id", "hazard")
KEYS = ("id", "prompt", *CHOICES, "answer", "hazard", "image")
CONTROL = (re.compile("\0"), re.compile(r"[\x00-\x1f\x7f-\x9f]"))
"""What no text may hold, and what no id, hazard or path may."""
ID_PATTERN = re.compile(r"[A-Za-z0-9._'-]{1,80}")
"""A set's own ids that are taken over; anything else could be a text."""


def load_prompts(folder: Path, *, answers: bool = False) -> PromptSet:
    """The prompts of a folder, ordered by domain; reference answers only where asked for.

    Raises:
        PromptError: if the folder or a row breaks a law, or a prompt stands in two splits; all of it at once.
    """
    files = sorted(folder.glob("*.jsonl")) if folder.is_dir() else []
    if not files:
        raise PromptError(
            "prompts must be a folder of <domain>.jsonl files",
            got="no such folder" if not folder.is_dir() else "a folder without one",
            remedy="give its path as 'prompts'",
            where=folder,
        )
    prompts, broken = list[Prompt](), list[PaletteError]()
    for path in files:
        with noted(broken):
            _require_domain(path.stem, repr(path.stem), "rename the file", path)
        with noted(broken):
            for row in read_rows(path, broken=broken):
                with noted(broken):
                    prompts.append(_folder_prompt(row, path))
    for require in (require_unique_ids, _require_one_split):
        with noted(broken):
            require(prompts, folder)
    if broken:
        raise together(broken)
    found = PromptSet(tuple(prompts))
    return found if answers else found.without_answers()


def _folder_prompt(row: TableRow, path: Path) -> Prompt:
    """The prompt of a folder's row, which states all its labels itself."""
    values = row.values
    if unknown := sorted(set(values) - set(KEYS)):
        raise row.error(
            f"a row may have {', '.join(KEYS)}",
            got=", ".join(key if len(key) < 16 else redacted(key) for key in unknown),
            remedy="remove it",
        )
    choices = {name: _choice(row, name) for name in CHOICES if name in values or name == "kind"}
    answers = stated_answers(row) if "answer" in values else ()
    for key in TEXTS:
        if not isinstance(values.get(key, "x"), str) or not values.get(key, "x"):
            raise row.error(f"{key} must be a text that is not empty", got=redacted(values[key]))
    if "id" not in values:
        raise row.error("a row must have an id", got="none", remedy="give each row one")
    texts = {key: values.get(key) for key in TEXTS}
    given = {"answer": answers[0] if answers else None, "variants": answers[1:], **texts, **choices}
    given["shown"] = given.pop("cell", None)
    said = {"domain": path.stem, "prompt": stated_content(row, path), "split": "train", **given}
    prompt = _seeing(row, Prompt(**said), images_if_any(row, path), path)
    _require_unicode(row, prompt)
    return prompt if "split" in choices else replace(prompt, split=split_by_hash(case_folded_hash(prompt)))


def _seeing(row: TableRow, prompt: Prompt, stated: Sequence[str | bytes], path: Path) -> Prompt:
    """The prompt with the images that its row states, or that stand in its messages.

    Raises:
        PromptError: if one cannot be shown, or both name some.
    """
    inside = images_in_parts(row)
    if stated and inside:
        raise row.error(
            "images must stand in the messages, or be named beside them", got="both", remedy="leave one out"
        )
    pictures = tuple(
        held_picture(each, row.where)
        if isinstance(each, bytes)
        else stated_picture(path.parent / each, row.where)
        for each in stated or inside
    )
    if bool(pictures) != (prompt.shown not in (None, "text")) and prompt.shown is not None:
        got = f"{prompt.shown} with {'a' if pictures else 'no'} picture"
        raise row.error("a cell must say what a row's picture is", got, "leave it out, or mend it")
    if not pictures:
        return prompt
    return replace(prompt, prompt=marked(prompt.prompt, len(pictures), row.where), pictures=pictures)


def _require_one_split(prompts: Sequence[Prompt], folder: object) -> None:
    firsts: dict[str, Prompt] = {}
    pairs = [(firsts.setdefault(normalised_hash(prompt), prompt), prompt) for prompt in prompts]
    crossing = [
        " and ".join(f"{redacted(row.id, LONGEST_ID)} in {row.split}" for row in pair)
        for pair in pairs
        if pair[0].split != pair[1].split
    ]
    if crossing:
        raise PromptError(
            "a prompt must stand in one split only",
            got=first_of(crossing),
            remedy="remove one of them" if len(crossing) == 1 else "remove one of each two",
            where=folder,
        )


def _require_unicode(row: TableRow, prompt: Prompt) -> None:
    """Returns when every text of a row is one that a tokenizer, a file and a screen can take."""
    said = [message[key] for message in messages(prompt) for key in ("role", "content")]
    fields = {"a prompt": said, "an answer": prompt.accepted}
    names = {name: [getattr(prompt, name) or ""] for name in TEXTS}
    for name, texts in {**fields, **names}.items():
        for text in texts:
            if any("\ud800" <= mark <= "\udfff" for mark in text):
                got = "half a character (a lone surrogate)"
                raise row.error(f"{name} must be Unicode", got, "write the character whole, or leave it out")
            if control := CONTROL[name in names].search(text):
                got = f"U+{ord(control[0]):04X}"
                raise row.error(f"{name} must have no control characters", got, "leave it out")


def labelled(row: TableRow, schema: Schema, given: SourceSettings, name: str) -> Prompt:
    """The prompt of a row of a known schema, or of the user's own.

    Its id is the source's ``name``, and the set's own id or a hash of the prompt: so it does not change
    when rows are added or moved.

    Raises:
        PromptError: if the row breaks a law of its schema.
    """
    path = Path(given.path)
    if schema.states_labels:
        label, split = _own_label(row, given, schema.kind), _stated(row, "split")
    else:
        label, split = _known_label(schema.label(row, path), schema.name, given, row.where), None
    answers = schema.answer(row) if schema.answer else ()
    draft = Prompt(
        id="",
        domain=given.domain or label.domain,
        prompt=_asked(row, schema, given.template, path),
        kind=label.kind,
        split="train",
        answer=answers[0] if answers else None,
        tier=label.tier,
        hazard=label.hazard,
        shown=_stated(row, "cell") if schema.states_labels else None,
        variants=answers[1:],
    )
    draft = _seeing(row, draft, schema.images(row, path) if schema.images else (), path)
    _require_unicode(row, draft)
    digest = normalised_hash(draft)
    key = row.values.get(schema.key) if schema.key else None
    stated_id = str(key) if isinstance(key, str | int) and not isinstance(key, bool) else ""
    known_id = stated_id if ID_PATTERN.fullmatch(stated_id) else digest[:16]
    split = split or our_split(row.values.get(SPLIT)) or given.split or split_by_hash(digest)
    return replace(draft, id=f"{name}:{known_id}", split=split)


def _asked(row: TableRow, schema: Schema, template: str | None, path: Path) -> Content:
    """A row's prompt, in the words of a template where there is one."""
    if template and schema.name == OWN:
        return filled(row, template)
    # Asked for even where a template takes its place, since it says whether the row is the set's.
    content = schema.content(row, path)
    return filled(row, template) if template else content


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


def _own_label(row: TableRow, given: SourceSettings, usual: Kind | None) -> PromptLabel:
    """The labels that a row states, or else its source; the kind is else the set's usual one."""
    kind, tier = _stated(row, "kind") or given.kind or usual, _stated(row, "tier") or given.tier
    hazard = row.values.get("hazard") or given.hazard
    if kind is None or (kind == "restricted" and tier is None):
        what, key = ("a kind", "kind") if kind is None else ("a tier where it is restricted", "tier")
        raise row.error(
            f"a row must have {what}",
            got="none",
            remedy="name the column that says it with 'columns' (and 'map'), or give the source "
            f"'{key}' if it is the same for all rows",
        )
    if hazard is not None and (not isinstance(hazard, str) or redacted(hazard) != repr(hazard)):
        raise row.error("hazard must be a short code", got=redacted(hazard))
    domain = given.domain or row.values.get("domain") or Path(given.path).stem
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
