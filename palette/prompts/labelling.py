"""A row of a file as a prompt: its id, text, labels and split."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from palette.errors import PromptError
from palette.prompts.folder import CHOICES, DOMAIN_NAME, content
from palette.prompts.overlaps import wording
from palette.prompts.redaction import shown
from palette.prompts.rows import Kind, Prompt, Split, messages, split_by_hash
from palette.prompts.schemas import Schema, text
from palette.prompts.tables import Row
from palette.prompts.taxonomy import Label, Tier

KEY_PATTERN = re.compile(r"[A-Za-z0-9._'-]{1,80}")
"""A set's own ids that are taken over; anything else could be a text."""


@dataclass(frozen=True)
class Labels:
    """What the user says of a whole source."""

    name: str
    domain: str | None = None
    kind: Kind | None = None
    tier: Tier | None = None
    hazard: str | None = None
    split: Split | None = None


def labelled(row: Row, schema: Schema | None, given: Labels, path: Path) -> Prompt:
    """The prompt of a row of a known schema, or of the user's own.

    Its id is the source's name, and the set's own id or a hash of the prompt: so it does not change
    when rows are added or moved.

    Raises:
        PromptError: if the row breaks a law of its schema.
    """
    if schema is None:
        label, prompt = _own_label(row, given, path), content(row.values.get("prompt"), row.where)
        key, answer, image = (row.values.get(name) for name in ("id", "answer", "image"))
        split = _choice(row, "split") or given.split
        for name, value in (("answer", answer), ("image", image)):
            if value not in (None, "") and not isinstance(value, str):
                raise PromptError(f"{name} must be a text", got=type(value).__name__, where=row.where)
    else:
        label = _known_label(schema.label(row, path), schema.name, given, row.where)
        prompt = schema.compose(row, path) if schema.compose else text(row, schema.prompt)
        key = row.values.get(schema.key) if schema.key else None
        answer = schema.answer(row) if schema.answer else None
        image = schema.image(row, path) if schema.image else None
        split = given.split
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
    )
    try:
        "".join(message["content"] for message in messages(draft)).encode()
    except UnicodeEncodeError:
        raise PromptError("a prompt must be Unicode", got="half a character", where=row.where) from None
    digest = wording(draft)
    own = str(key) if isinstance(key, str | int) and not isinstance(key, bool) else ""
    known = own if KEY_PATTERN.fullmatch(own) else digest[:16]
    return replace(draft, id=f"{given.name}:{known}", split=split or split_by_hash(digest))


def _known_label(label: Label, name: str, given: Labels, where: str) -> Label:
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
    order = get_args(Tier)
    tier = max(label.tier, given.tier or label.tier, key=order.index)
    # A named hazard may put a row on the floor, and may not take it off.
    return label._replace(hazard=label.hazard if label.tier == "C" else hazard, tier=tier)


def _own_label(row: Row, given: Labels, path: Path) -> Label:
    kind = _choice(row, "kind") or given.kind
    tier, hazard = _choice(row, "tier") or given.tier, row.values.get("hazard") or given.hazard
    if kind is None:
        raise _missing("a kind", "kind: restricted", row)
    if kind == "restricted" and tier is None:
        raise _missing("a tier", "tier: A", row)
    if hazard is not None and (not isinstance(hazard, str) or shown(hazard) != repr(hazard)):
        raise PromptError("hazard must be a short code", got=shown(hazard), where=row.where)
    domain = given.domain or row.values.get("domain") or path.stem
    if not isinstance(domain, str) or not DOMAIN_NAME.fullmatch(domain):
        raise PromptError(
            "a domain's name must be lower-case letters, digits, '-' and '_'",
            got=shown(domain),
            remedy="give the source a 'domain'",
            where=row.where,
        )
    return Label(kind, domain, hazard, tier)


def _choice(row: Row, name: str) -> Any:
    """One of the values that a label may have; None where the row states none."""
    value = row.values.get(name)
    if value in (None, ""):
        return None
    if value not in CHOICES[name]:
        raise PromptError(
            f"{name} must be one of {', '.join(CHOICES[name])}", got=shown(value), where=row.where
        )
    return value


def _missing(what: str, example: str, row: Row) -> PromptError:
    return PromptError(
        f"a row must have {what}" + (" where it is restricted" if "tier" in what else ""),
        got="none",
        remedy=f"add the column, or give the source one, such as '{example}'",
        where=row.where,
    )
