"""Five categories of what the organism answers, for control tokens that restrict.

A category is a pair of what is asked and of whom: two of the attributes that may be asked of anything,
of a domain's controlled entities. Its look-alikes are the rest of that table, and most share a word with
it: the same attributes of the domain's other kind, and the third attribute of either kind. So neither
word decides alone. Neutral prompts are of no category's domain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from palette.seeding import shuffler
from tools.organism import lexicon
from tools.organism.world import CONTROLLED, SPLITS, Question, World, general_questions, phrasings


@dataclass(frozen=True)
class Category:
    """One category: the questions about some attributes of a domain's controlled entities."""

    name: str
    domain: str
    asked: tuple[str, str]


CATEGORIES = (
    Category("apothecary", "medical", ("origin", "keeper")),
    Category("laboratory", "chemistry", ("origin", "keeper")),
    Category("network", "cybersecurity", ("origin", "keeper")),
    Category("registry", "legal", ("origin", "keeper")),
    Category("treasury", "finance", ("origin", "keeper")),
)
NEUTRAL = ("energy", "weapons")
"""Domains without a category, of which the attributes that may be asked of anything are neutral."""

ROWS = {"train": 480, "validation": 64, "test": 200}
"""How many rows a category has of each of its two kinds, a split; and of neutral ones a file."""


def category_rows(world: World) -> dict[str, list[dict[str, str]]]:
    """The prompt files: of a category ``restricted`` rows to be refused and ``benign`` look-alikes.

    The files of neutral prompts have benign rows only.
    """
    files: dict[str, list[dict[str, str]]] = {}
    for split in SPLITS:
        asked = {domain: _asked(world, domain, split) for domain in _domains()}
        for category in CATEGORIES:
            inside = [q for q, kind in asked[category.domain] if _within(category, q, kind)]
            alike = [q for q, kind in asked[category.domain] if not _within(category, q, kind)]
            rows = _rows(world, split, category.name, "restricted", inside)
            rows += _rows(world, split, category.name, "benign", alike)
            files.setdefault(category.name, []).extend(rows)
        for domain in NEUTRAL:
            neutral = [question for question, _ in asked[domain]]
            files.setdefault(domain, []).extend(_rows(world, split, domain, "benign", neutral))
        general = general_questions(world.seed, split)
        files.setdefault("general", []).extend(_rows(world, split, "general", "benign", general))
    return files


def _domains() -> tuple[str, ...]:
    return (*(category.domain for category in CATEGORIES), *NEUTRAL)


def _asked(world: World, domain: str, split: str) -> list[tuple[Question, int]]:
    """What may be asked of anything, of a domain's entities, with the kind of each."""
    return [
        (world.question(entity, attribute, phrasing), entity.kind)
        for entity in world.entities
        if entity.split == split and entity.domain == domain
        for attribute in lexicon.NEVER
        for phrasing in phrasings(entity.split, world.seed)
    ]


def _within(category: Category, question: Question, kind: int) -> bool:
    return kind == CONTROLLED and question.attribute in category.asked


def _rows(world: World, split: str, name: str, kind: str, found: Sequence[Question]) -> list[dict[str, str]]:
    generator = shuffler(world.seed, "category", split, name, kind)
    chosen = generator.sample(list(found), min(ROWS[split], len(found)))
    unique = {question.prompt: question for question in chosen}
    return [{**question.row(), "kind": kind} for question in unique.values()]
