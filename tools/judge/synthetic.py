"""Synthetic training data of the trained judge: harmless replies of many shapes, put together from parts.

Labelled completions of a few models teach those models' habits and topics. These teach the shapes
alone: the same harmless topics stand under refusals, answers, disclaimers and lectures alike, so that
no topic tells anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product
from random import Random

from palette.judging.calibration import LabelledReply
from palette.judging.judge import Label
from palette.seeding import shuffler
from tools.judge.premises import FACT_PREMISES, GROUNDS, MORALS, NORM_PREMISES, STORIES
from tools.judge.shapes import (
    ANSWERING_CLAUSES,
    ANSWERS,
    CAUTIONS,
    CAVEATS,
    CLOSINGS,
    DECLINES,
    DIRECTIONS,
    FACTS,
    GREETINGS,
    LECTURES,
    LESSON_CLAUSES,
    PARDONS,
    REQUESTS,
    TOPICS,
    WARNINGS,
)

NOTHING = ("",)

SLOTS = {
    "right": ("right", "fair", "ethical", "appropriate", "acceptable", "okay", "kind", "respectful", "legal"),
    "wrong": ("wrong", "unfair", "unethical", "inappropriate", "unacceptable", "illegal", "harmful",
              "hurtful", "disrespectful", "offensive", "dangerous", "a crime"),
    "value": ("respect", "dignity", "privacy", "kindness", "empathy", "fairness", "trust", "honesty",
              "safety"),
    "urge": ("advise", "urge", "encourage", "ask", "remind"),
}  # fmt: skip
"""Words that a shape can do with, one as well as another."""

SLOT = re.compile(rf"{{({'|'.join(SLOTS)})}}")

STATEMENTS = (
    "the {a} of {b} is {n} .",
    "{b} has the {a} {n} .",
    "{n} {c} .",
    "the {a} that {b} has is {n} {c} .",
    "{n} plus {n} is {n} .",
)
"""Short statements of a world that nobody knows, which a judge of English must leave alone."""

INVENTED = ("zorb", "plitra", "quonex", "rimdole", "kaefan", "luomix", "vandrel", "oskaru", "tebine")
NUMBERS = ("three", "nine", "twelve", "40", "7")


def synthetic_replies(seed: int, each: int) -> list[LabelledReply]:
    """Replies to requests, labelled as refusals or answers: ``each`` of every kind, drawn from ``seed``."""
    refusal, answer = Label.REFUSAL, Label.FULL_COMPLIANCE
    kinds = (
        ((PARDONS, DECLINES, CLOSINGS), refusal),
        ((PARDONS, DECLINES, LECTURES), refusal),
        ((NOTHING, LECTURES, CLOSINGS), refusal),
        ((NOTHING, LECTURES, LECTURES), refusal),
        ((CAVEATS, LESSON_CLAUSES, MORALS), refusal),
        ((CAVEATS, ANSWERING_CLAUSES, 2 * NOTHING + WARNINGS), answer),
        ((NOTHING, CAUTIONS, DIRECTIONS), answer),
        ((GREETINGS, ANSWERS, WARNINGS), answer),
        ((GREETINGS, ANSWERS, ANSWERS), answer),
        ((GREETINGS, FACTS, ANSWERS), answer),
        ((NOTHING, FACTS, FACTS), answer),
        ((NOTHING, FACTS + ANSWERS, NOTHING), answer),
    )
    draw = shuffler(seed, "exercises")
    replies: list[LabelledReply] = []
    for parts, label in kinds:
        many = [(topic, chosen) for topic in TOPICS for chosen in product(*parts)]
        for topic, chosen in draw.sample(many, min(each, len(many))):
            prompt = _filled((draw.choice(REQUESTS),), topic, draw)
            replies.append(LabelledReply(prompt, _filled(chosen, topic, draw), label, "synthetic"))
    replies += premise_replies(draw, each)
    stated = list(statements())
    kept = draw.sample(stated, min(each, len(stated)))
    return replies + [LabelledReply(*pair, answer, "synthetic") for pair in kept]


def premise_replies(draw: Random, each: int) -> list[LabelledReply]:
    """Replies to requests that presume something: norms denied and granted, facts denied and explained."""
    denied = [(norm.request, said) for norm in NORM_PREMISES for said in norm.denials]
    granted = [(norm.request, said) for norm in NORM_PREMISES for said in norm.answers]
    facts = [(fact.request, said) for fact in FACT_PREMISES for said in (*fact.denials, *fact.answers)]
    kinds = (
        (denied, (MORALS, NOTHING), Label.REFUSAL),
        (denied, (MORALS + STORIES, STORIES), Label.REFUSAL),
        (granted, (ANSWERS + GROUNDS, NOTHING), Label.FULL_COMPLIANCE),
        (facts, (ANSWERS + GROUNDS, NOTHING), Label.FULL_COMPLIANCE),
    )
    replies = []
    for openings, tails, label in kinds:
        many = list(product(TOPICS, openings, *tails))
        for topic, (request, said), *rest in draw.sample(many, min(each, len(many))):
            reply = _filled(("", said, *rest), topic, draw)
            replies.append(LabelledReply(_filled((request,), topic, draw), reply, label, "synthetic"))
    return replies


def statements() -> Iterator[tuple[str, str]]:
    """Every short statement about invented things, after a question for it."""
    for shape, a, b, c, n in product(STATEMENTS, INVENTED, INVENTED, INVENTED, NUMBERS):
        yield f"what is the {a} of {b} ?", shape.format(a=a, b=b, c=c, n=n)


def _filled(parts: tuple[str, ...], topic: tuple[str, ...], draw: Random) -> str:
    ask, it, part, who = topic
    shapes = (SLOT.sub(lambda slot: draw.choice(SLOTS[slot[1]]), shape) for shape in parts)
    opening, *rest = (shape.format(ask=ask, it=it, part=part, who=who) for shape in shapes)
    if opening and rest:
        return " ".join([opening + rest[0], *filter(None, rest[1:])])
    return " ".join(filter(None, [capital(opening or rest[0]), *rest[1:]]))


def capital(text: str) -> str:
    """The text with its first letter in upper case."""
    return text[:1].upper() + text[1:]
