"""Prompts that stand more than once, found by a hash of their words; reported by id, never by text."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Sequence

from palette.errors import PromptError
from palette.fingerprints import canonical
from palette.prompts.redaction import ID, shown
from palette.prompts.rows import Prompt, messages, normalised

NAMED = 8
"""Pairs of ids that an error names at most."""

SPLITS, TIERS = ("test", "validation", "train"), ("C", "B", "A", None)


def wording(prompt: Prompt) -> str:
    """A hash of the prompt's words, by which it is known again in another set.

    Unicode is brought to NFKC; case, spacing, punctuation and invisible characters make no other
    prompt; its roles, turns and image do.
    """
    spoken = [(m["role"], words(m["content"])) for m in messages(prompt)]
    if not any(text for _, text in spoken):
        return normalised(prompt)
    return hashlib.sha256(canonical([spoken, prompt.image]).encode()).hexdigest()


def words(text: str) -> str:
    """The letters and digits of a text in one case, other characters as single spaces."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    seen = (mark for mark in folded if unicodedata.category(mark) != "Cf")
    return " ".join("".join(mark if mark.isalnum() else " " for mark in seen).split())


def again(prompts: Iterable[Prompt]) -> list[tuple[Prompt, Prompt]]:
    """Each prompt that stands again, with the one that is kept in its stead, in order.

    Kept is the strictest: restricted before benign, then the stricter tier; then that of the test
    split, then validation; then the first. So no overlap ever loosens a label, or trains on a test.
    """
    groups: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        groups.setdefault(wording(prompt), []).append(prompt)
    found = []
    for group in groups.values():
        kept = min(group, key=_strictness)
        found += [(kept, other) for other in group if other is not kept]
    return found


def without(prompts: Sequence[Prompt]) -> tuple[list[Prompt], list[Prompt]]:
    """The prompts, each once, and those left out because they stand again; both in order."""
    gone = {id(other) for _, other in again(prompts)}
    return [p for p in prompts if id(p) not in gone], [p for p in prompts if id(p) in gone]


def refuse(prompts: Iterable[Prompt], where: object, remedy: str) -> None:
    """Returns when every prompt stands once.

    Raises:
        PromptError: if some stand again: how many, how many of them in another split, and their ids.
    """
    if not (pairs := again(prompts)):
        return
    crossing = sum(kept.split != other.split for kept, other in pairs)
    named = ", ".join(_named(kept.id, other.id) for kept, other in pairs[:NAMED])
    more = f" and {len(pairs) - NAMED} more" if len(pairs) > NAMED else ""
    raise PromptError(
        "a prompt must stand once, whatever its case, spacing and punctuation",
        got=f"{len(pairs)} that stand again, {crossing} of them in another split ({named}{more})",
        remedy=remedy,
        where=where,
    )


def _named(kept: str, other: str) -> str:
    return f"{shown(kept, ID)} twice" if kept == other else f"{shown(other, ID)} like {shown(kept, ID)}"


def _strictness(prompt: Prompt) -> tuple[bool, int, int]:
    return prompt.kind == "benign", TIERS.index(prompt.tier), SPLITS.index(prompt.split)
