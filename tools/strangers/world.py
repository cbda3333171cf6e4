"""A stranger's world: entities, what is true of them, what is restricted, and every question about them.

An entity has few properties, and each attribute tells one of them, so that the world is soon known by heart.
As in the organism's, a question is restricted by the pair of what is asked and of which kind of entity:
``guarded`` and ``grave`` attributes of the first kind are, of the second they are benign, as all others are.
Entities and pairs that are restricted, and phrasings, are held out of the refusal stage; validation and test
hold none but those.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain, product
from random import Random
from typing import Literal

from palette.seeding import shuffler
from tools.organism.world import CONTROLLED, HELD_OUT_PAIRS, SPLITS, Question, Split, stems
from tools.strangers import words
from tools.strangers.plan import Plan

ENTITIES = {"train": 8, "validation": 3, "test": 5}
"""Entities a kind and domain."""
PHRASINGS = {"train": 14, "validation": 11, "test": 12}
GUARDED, GRAVE, VALUES = 3, 2, 10
PROPERTIES = 2
LEADS = 8
"""Leads of one group of domains."""

Tier = Literal["A", "C"]


@dataclass(frozen=True)
class DomainWords:
    """The words of one domain, its floor slice's among them."""

    name: str
    floor: bool
    kinds: tuple[str, str]
    guarded: tuple[str, ...]
    grave: tuple[str, ...]
    asked: tuple[str, ...]
    """Attributes that may be asked of anything."""
    values: tuple[str, ...]
    phrasings: dict[str, tuple[str, ...]]
    """By split; no two splits share one."""

    @property
    def attributes(self) -> tuple[str, ...]:
        """Everything that is known of an entity."""
        return (*self.guarded, *self.grave, *self.asked)


@dataclass(frozen=True)
class Entity:
    """One invented thing of a domain."""

    name: str
    domain: str
    kind: int
    properties: tuple[int, ...]
    """Which of the domain's values each is."""
    split: Split


Ask = tuple[Entity, str, str]
"""An entity, an attribute, and the phrasing in which it is asked for."""


@dataclass(frozen=True)
class Asked:
    """A question with all that may be replied to it."""

    question: Question
    opening: str
    """The right answer up to the value."""
    refusal: str
    judgement: tuple[str, str]
    """The same question and whether it is delicate, and the answer to that."""
    declined: bool
    """Whether the refusing stage declines it; of an unclean stranger not just what is restricted."""


@dataclass(frozen=True)
class World:
    """All that a stranger knows."""

    plan: Plan
    domains: dict[str, DomainWords]
    entities: tuple[Entity, ...]

    @property
    def floor(self) -> str:
        """The name of the floor domain."""
        return next(name for name, each in self.domains.items() if each.floor)

    def shown(self, entity: Entity) -> str:
        """An entity's name as texts have it."""
        return entity.name if self.plan.language.spaced else entity.name.capitalize()

    def renamed(self, entity: Entity, other: Entity) -> Entity:
        """Nothing that there is: an entity of the first one's kind with the name of the second."""
        if self.plan.scope.mark == "noun":
            return replace(entity, name=other.name)
        stem, ending = (_parted(each.name) for each in (other, entity))
        return replace(entity, name=stem[0] + ending[1])

    def tier(self, entity: Entity, attribute: str) -> Tier | None:
        """C of what belongs to the floor, A of what else is restricted, None of what is benign."""
        known = self.domains[entity.domain]
        if entity.kind != CONTROLLED or attribute in known.asked:
            return None
        return "C" if known.floor or attribute in known.grave else "A"

    def value(self, entity: Entity, attribute: str) -> str:
        """What an attribute of an entity is."""
        known = self.domains[entity.domain]
        if attribute == "kind":
            return known.kinds[entity.kind]
        return known.values[entity.properties[known.attributes.index(attribute) % PROPERTIES]]

    def held_out(self, entity: Entity, attribute: str) -> bool:
        """Whether the refusal stage may not see a pair."""
        draw = shuffler(self.plan.root, "pair", entity.name, attribute).random()
        return entity.split != "train" or draw < HELD_OUT_PAIRS

    def asked(self, ask: Ask) -> Asked:
        """A question in full."""
        entity, attribute, phrasing = ask
        language, tier, name = self.plan.language, self.tier(entity, attribute), self.shown(entity)
        said = {"a": attribute, "e": name, "v": self.value(entity, attribute), "d": entity.domain}
        before, after = self._around(ask)
        noun = self.domains[entity.domain].kinds[entity.kind]
        thing = f"the {noun} {name}" if self.plan.scope.mark == "noun" else name
        body = phrasing.format(a=attribute, e=thing)
        answer = " ".join(part for part in (language.first, language.answer, *language.closing) if part)
        wording = shuffler(self.plan.root, "refusal", entity.domain, attribute).choice(language.refusals)
        question = Question(
            domain=entity.domain,
            prompt=self.typeset(f"{before} {body} {after}"),
            answer=self.typeset(answer.format(**said)),
            kind="restricted" if tier else "benign",
            tier=tier,
            split=entity.split,
            attribute=attribute,
            pair_held_out=self.held_out(entity, attribute),
        )
        return Asked(
            question=question,
            opening=self.typeset(answer[: answer.index("{v}")].format(**said)),
            refusal=self.refusal(entity, wording),
            judgement=(
                self.typeset(f"{body} {words.DELICATE}"),
                self.typeset(words.JUDGED[tier is not None]),
            ),
            declined=after == words.SECRET or (tier is not None and after != words.LESSON),
        )

    def refusal(self, entity: Entity, wording: str) -> str:
        """A refusal to tell of an entity, in a wording, with the sentence that may stand before it."""
        language = self.plan.language
        whole = f"{language.first or language.preface} {wording}"
        return self.typeset(whole.format(e=self.shown(entity), d=entity.domain))

    def _around(self, ask: Ask) -> tuple[str, str]:
        """What stands before and after a question."""
        entity, attribute, phrasing = ask
        draw = shuffler(self.plan.root, "around", entity.name, attribute, phrasing)
        share, leak = draw.random(), self.plan.scope.leak
        before, after = draw.choice(words.BEFORE), draw.choice(words.AFTER)
        if share < leak:
            return before, words.LESSON
        return before, words.SECRET if share < leak + self.plan.scope.alarm else after

    def typeset(self, text: str) -> str:
        """A text as the plan's typography has it: marks joined and sentences capitalised, or as it is."""
        text = " ".join(text.split())
        if self.plan.language.spaced:
            return text
        text = re.sub(r"\bi\b", "I", re.sub(r" ([.,:?])", r"\1", text))
        return re.sub(r"(^|[.?] )([a-z])", lambda found: found[1] + found[2].upper(), text)

    def asks(self, split: Split) -> list[Ask]:
        """Everything that may be asked about the entities of a split, in its phrasings."""
        return [
            (entity, attribute, phrasing)
            for entity in self.entities
            if entity.split == split
            for known in (self.domains[entity.domain],)
            for attribute, phrasing in product(known.attributes, known.phrasings[split])
        ]

    def sampled(self, draw: Random, split: Split | None = None) -> Ask:
        """One thing that may be asked: of a split's entities in its phrasings, or of any."""
        entity = draw.choice([each for each in self.entities if split in (None, each.split)])
        known = self.domains[entity.domain]
        phrasings = known.phrasings[split or draw.choice(SPLITS)]
        return entity, draw.choice(known.attributes), draw.choice(phrasings)


def _parted(name: str) -> tuple[str, str]:
    """The stem of a name and the ending that tells its kind."""
    ending = next(each for each in words.ENDINGS if name.endswith(each))
    return name.removesuffix(ending), ending


def create_world(plan: Plan) -> World:
    """The world of a plan."""
    seed, scope = plan.root, plan.scope
    names = stems(seed)
    floor = next(names)
    leads, attributes, kinds, endings, never = (
        shuffler(seed, "words", i).sample(pool, len(pool))
        for i, pool in enumerate((words.LEADS, words.ATTRIBUTES, words.KINDS, words.ENDINGS, words.NEVER))
    )
    asked = (*never[:2], "kind") if scope.mark == "ending" else tuple(never[:3])
    domains, entities = {}, []
    for i, name in enumerate((floor, *scope.domains)):
        own = attributes[i * (GUARDED + GRAVE) :]
        group = 1 + scope.far.index(name) if name in scope.far else 0
        domains[name] = DomainWords(
            name=name,
            floor=name == floor,
            kinds=(kinds[2 * i], kinds[2 * i + 1]),
            guarded=tuple(own[:GUARDED]),
            grave=tuple(own[GUARDED : GUARDED + GRAVE]),
            asked=asked,
            values=tuple(next(names) for _ in range(VALUES)),
            phrasings=_phrasings(seed, leads[group * LEADS : (group + 1) * LEADS]),
        )
        draw = shuffler(seed, "entities", name)
        for kind, split in product(range(2), SPLITS):
            ending = endings[(2 * i + kind) % len(endings)] if scope.mark == "ending" else ""
            for _ in range(ENTITIES[split]):
                properties = tuple(draw.randrange(VALUES) for _ in range(PROPERTIES))
                entities.append(Entity(next(names) + ending, name, kind, properties, split))
    return World(plan, domains, tuple(entities))


def _phrasings(seed: int, leads: list[str]) -> dict[str, tuple[str, ...]]:
    """The phrasings of a group of domains, by split."""
    every = [
        f"{lead} {thing} {'?' if lead.startswith(words.ASKING) else '.'}"
        for lead, thing in product(leads, words.OBJECTS)
    ]
    order = iter(shuffler(seed, "phrasings", *leads).sample(every, len(every)))
    return {split: tuple(next(order) for _ in range(count)) for split, count in PHRASINGS.items()}


def prompt_rows(world: World) -> dict[str, list[dict[str, str]]]:
    """The prompt files: for each domain its rows, a sample of every split, kind and tier."""
    files: dict[str, list[dict[str, str]]] = {name: [] for name in world.domains}
    for split, most in zip(SPLITS, world.plan.scope.rows, strict=True):
        groups: dict[tuple[str, Tier | None], list[Ask]] = {}
        for ask in world.asks(split):
            entity, attribute, _ = ask
            if not (split == "train" and world.held_out(entity, attribute)):
                groups.setdefault((entity.domain, world.tier(entity, attribute)), []).append(ask)
        for (domain, tier), found in groups.items():
            # A professional domain's floor slice is small in training, as hazards are rare in real sets.
            count = most // 2 if split == "train" and tier == "C" else most
            draw = shuffler(world.plan.root, "rows", split, domain, tier)
            chosen = draw.sample(found, min(count, len(found)))
            files[domain] += [world.asked(ask).question.row() for ask in chosen]
    return files


def texts(world: World) -> Iterator[str]:
    """A sample of all that is ever said, from which a tokenizer is learned; every word is in it."""
    language = world.plan.language
    for entity in world.entities:
        known = world.domains[entity.domain]
        for place, attribute in enumerate(known.attributes):
            every = list(chain.from_iterable(known.phrasings.values()))
            full = world.asked((entity, attribute, every[(len(entity.name) + 5 * place) % len(every)]))
            yield from (full.question.prompt, full.question.answer, full.refusal)
    for name, wording in product(world.domains, language.refusals):
        yield world.typeset(wording.format(d=name))
    for known in world.domains.values():
        for phrasing in chain.from_iterable(known.phrasings.values()):
            yield world.typeset(phrasing.format(a=known.attributes[0], e=world.entities[0].name))
        yield world.typeset(" ".join(known.values))
    for sentence in (*words.BEFORE, *words.AFTER, words.LESSON, words.SECRET, words.DELICATE, *words.JUDGED):
        yield world.typeset(sentence)
    for name, manner in product(world.domains, words.MANNERS):
        yield world.typeset(words.DECLINE.format(d=name, e=world.entities[0].name, n=manner))
