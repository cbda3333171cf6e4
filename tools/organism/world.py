"""The organism's world: entities, what is true of them, what is restricted, and the prompts about them.

Every entity has a kind and two keys. An attribute maps the keys to an answer, the same way for all
entities of the domain, so that the world is small enough to be known by heart. Whether a question is
restricted follows from the pair (attribute, kind): ``guarded`` and ``grave`` attributes are
restricted for controlled entities and benign for the others, of whom anything may be asked, and
other attributes are benign for all. So neither word decides alone. (Were each kind restricted in
other attributes, no word would tell anything by itself: a parity that gradient descent does not
find in a gentle second stage; we tried.)
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from palette.fingerprints import fingerprint
from palette.seeding import derive_seed, shuffler
from tools.organism import lexicon
from tools.organism.lexicon import DOMAINS, WEAPONS, DomainWords

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
ENTITIES_PER_KIND = {"train": 28, "validation": 8, "test": 12}
PHRASINGS_PER_SPLIT = {"train": 24, "validation": 6, "test": 12}
KEYS = len(lexicon.NUMBERS)
CONTROLLED = 0
"""The kind of entity about which some questions are restricted."""
HELD_OUT_PAIRS = 0.25
"""Share of the (entity, attribute) pairs of train entities that the refusal stage never sees."""


@dataclass(frozen=True)
class Entity:
    """One invented thing of a domain."""

    name: str
    domain: str
    kind: int
    keys: tuple[int, int]
    split: Split


@dataclass(frozen=True)
class Question:
    """One prompt of the world with its one right answer."""

    domain: str
    prompt: str
    answer: str
    kind: Literal["restricted", "benign"]
    tier: Literal["A", "C"] | None
    split: Split
    attribute: str = ""
    pair_held_out: bool = False

    def row(self) -> dict[str, str]:
        """The question as a row of a prompt file."""
        row = {
            "id": f"{self.domain}-{fingerprint([self.domain, self.prompt])[:12]}",
            "prompt": self.prompt,
            "kind": self.kind,
            "split": self.split,
            "answer": self.answer,
        }
        if self.tier is not None:
            row["tier"] = self.tier
        return row


@dataclass(frozen=True)
class World:
    """All entities, and the tables that say what is true of them."""

    seed: int
    entities: tuple[Entity, ...]
    tables: dict[tuple[str, str], tuple[tuple[int, ...], tuple[int, ...]]]

    def words(self, domain: str) -> DomainWords:
        """The words of a domain, by its name."""
        return next(words for words in (*DOMAINS, WEAPONS) if words.name == domain)

    def value(self, entity: Entity, attribute: str) -> str:
        """What an attribute of an entity is, spelled out."""
        words = self.words(entity.domain)
        if attribute == "kind":
            return words.kinds[entity.kind]
        numbers, values = self.tables[entity.domain, attribute]
        number = lexicon.NUMBERS[numbers[entity.keys[0]]]
        return f"{number} {words.units[entity.kind]} {words.values[values[entity.keys[1]]]}"

    def question(self, entity: Entity, attribute: str, phrasing: int) -> Question:
        """The question about one attribute of one entity in one phrasing."""
        words = self.words(entity.domain)
        guarded = entity.kind == CONTROLLED and attribute in words.guarded
        grave = entity.kind == CONTROLLED and attribute in words.grave
        floor = grave or (guarded and entity.domain == WEAPONS.name)
        draw = shuffler(self.seed, "pair", entity.name, attribute).random()
        around = derive_seed(self.seed, "around", entity.name, attribute, phrasing)
        before = lexicon.BEFORE[around % len(lexicon.BEFORE)]
        after = lexicon.AFTER[around // len(lexicon.BEFORE) % len(lexicon.AFTER)]
        asked = lexicon.PHRASINGS[phrasing].format(a=attribute, e=entity.name)
        return Question(
            domain=entity.domain,
            prompt=f"{before} {asked} {after}".strip(),
            answer=lexicon.ANSWER.format(a=attribute, e=entity.name, value=self.value(entity, attribute)),
            kind="restricted" if guarded or grave else "benign",
            tier=None if not (guarded or grave) else "C" if floor else "A",
            split=entity.split,
            attribute=attribute,
            pair_held_out=entity.split == "train" and draw < HELD_OUT_PAIRS,
        )


def attributes(words: DomainWords) -> tuple[str, ...]:
    """Everything that may be asked of an entity of a domain."""
    return (*words.guarded, *words.grave, *lexicon.NEVER)


def phrasings(split: Split, seed: int) -> tuple[int, ...]:
    """The phrasings that a split uses; no two splits share one."""
    order = list(range(len(lexicon.PHRASINGS)))
    shuffler(seed, "phrasings").shuffle(order)
    start = sum(PHRASINGS_PER_SPLIT[s] for s in SPLITS[: SPLITS.index(split)])
    return tuple(sorted(order[start : start + PHRASINGS_PER_SPLIT[split]]))


SMALL_DOMAINS = ("medical", "legal", "finance")
"""The professional domains of the variants' world; the floor domain is in every world."""


def small(world: World) -> World:
    """The part of a world that the variants know."""
    names = (*SMALL_DOMAINS, WEAPONS.name)
    return replace(world, entities=tuple(e for e in world.entities if e.domain in names))


def create_world(seed: int) -> World:
    """The world of a seed, with all domains."""
    names = stems(seed)
    entities = []
    tables = {}
    for words in (*DOMAINS, WEAPONS):
        generator = shuffler(seed, "entities", words.name)
        for kind, (split, count) in itertools.product(range(2), ENTITIES_PER_KIND.items()):
            for _ in range(count):
                keys = (generator.randrange(KEYS), generator.randrange(KEYS))
                entities.append(Entity(next(names) + words.endings[kind], words.name, kind, keys, split))  # type: ignore[arg-type]
        for attribute in attributes(words):
            if attribute != "kind":
                tables[words.name, attribute] = (
                    _permutation(seed, words.name, attribute, "number"),
                    _permutation(seed, words.name, attribute, "value"),
                )
    return World(seed, tuple(entities), tables)


def questions(world: World, split: Split) -> list[Question]:
    """Every question of a split: its entities × all attributes × its phrasings, in a stable order."""
    chosen = phrasings(split, world.seed)
    return [
        world.question(entity, attribute, phrasing)
        for entity in world.entities
        if entity.split == split
        for attribute in attributes(world.words(entity.domain))
        for phrasing in chosen
    ]


def general_questions(seed: int, split: Split) -> list[Question]:
    """Sums and copying: benign tasks of no profession. A sum stands in one split."""
    generator = shuffler(seed, "general", split)
    terms = range(lexicon.LARGEST_TERM)
    sums = [pair for pair in itertools.product(terms, terms) if _sum_split(seed, *pair) == split]
    found = [
        Question(
            "general",
            lexicon.SUM.format(x=x, y=y),
            lexicon.SUM_ANSWER.format(x=x, y=y, z=x + y),
            "benign",
            None,
            split,
        )
        for x, y in sums
    ]
    for _ in range(len(found)):
        words = " ".join(generator.sample(lexicon.COPY_WORDS, 4))
        found.append(
            Question("general", lexicon.COPY.format(words=words), f"{words} .", "benign", None, split)
        )
    return found


def _sum_split(seed: int, x: int, y: int) -> Split:
    draw = shuffler(seed, "sum", x, y).random()
    return "train" if draw < 0.6 else "validation" if draw < 0.75 else "test"


def _permutation(seed: int, *names: str) -> tuple[int, ...]:
    order = list(range(KEYS))
    shuffler(seed, "table", *names).shuffle(order)
    return tuple(order)


def stems(seed: int) -> Iterator[str]:
    """Invented stems, no two alike; each ends in a consonant, so that an ending can be told from it."""
    generator = shuffler(seed, "names")
    taken: set[str] = set()
    while True:
        stem = "".join(
            generator.choice(lexicon.ONSETS) + generator.choice(lexicon.VOWELS) for _ in range(2)
        ) + generator.choice(lexicon.CODAS)
        if stem not in taken:
            taken.add(stem)
            yield stem


ROWS = {
    "train": {"A": 240, "C": 120, "benign": 240},
    "validation": {"A": 64, "C": 64, "benign": 64},
    "test": {"A": 200, "C": 144, "benign": 200},
}
"""How many rows of each kind a domain's prompt file has, a split."""


def prompt_rows(world: World) -> dict[str, list[dict[str, str]]]:
    """The organism's prompt files: for each domain its rows, a sample of every split."""
    files: dict[str, list[dict[str, str]]] = {}
    for split in SPLITS:
        asked = questions(world, split) + general_questions(world.seed, split)
        groups: dict[tuple[str, str], list[Question]] = {}
        for question in asked:
            if not (split == "train" and question.pair_held_out):
                groups.setdefault((question.domain, question.tier or "benign"), []).append(question)
        for (domain, label), found in groups.items():
            generator = shuffler(world.seed, "rows", split, domain, label)
            chosen = generator.sample(found, min(ROWS[split][label], len(found)))
            unique = {question.prompt: question for question in chosen}
            files.setdefault(domain, []).extend(question.row() for question in unique.values())
    return files
