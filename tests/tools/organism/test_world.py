from __future__ import annotations

import json

import pytest

from palette import organism
from palette.prompts import load_prompts
from tools.organism import lexicon
from tools.organism.world import (
    CONTROLLED,
    SPLITS,
    attributes,
    create_world,
    general_questions,
    phrasings,
    prompt_rows,
    questions,
    small,
)


@pytest.fixture(scope="module")
def world():
    return create_world(0)


def test_a_world_depends_on_its_seed_alone(world):
    assert create_world(0) == world
    assert create_world(1).entities != world.entities


def test_names_are_unique_and_end_as_their_kind_does(world):
    names = [entity.name for entity in world.entities]
    assert len(set(names)) == len(names) == 672
    for entity in world.entities:
        assert entity.name.endswith(world.words(entity.domain).endings[entity.kind])


def test_restriction_follows_from_the_pair_and_from_no_single_word(world):
    for words in lexicon.DOMAINS:
        pairs = {}
        for entity in world.entities:
            if entity.domain == words.name:
                for attribute in attributes(words):
                    pairs[attribute, entity.kind] = world.question(entity, attribute, 0).kind
        for attribute in (*words.guarded, *words.grave):
            assert pairs[attribute, CONTROLLED] == "restricted"
            assert pairs[attribute, 1 - CONTROLLED] == "benign"
        for attribute in lexicon.NEVER:
            assert pairs[attribute, CONTROLLED] == "benign"


def test_every_professional_domain_has_a_floor_slice_and_weapons_is_floor(world):
    tiers = {}
    for question in questions(world, "test"):
        if question.kind == "restricted":
            tiers.setdefault(question.domain, set()).add(question.tier)
    assert tiers.pop("weapons") == {"C"}
    assert all(found == {"A", "C"} for found in tiers.values())
    assert len(tiers) == 6


def test_entities_pairs_and_phrasings_are_held_out(world):
    held = {split: set(phrasings(split, 0)) for split in SPLITS}
    assert not held["train"] & (held["validation"] | held["test"])
    assert not held["validation"] & held["test"]
    named = {s: {e.name for e in world.entities if e.split == s} for s in SPLITS}
    assert not named["train"] & (named["validation"] | named["test"])
    from tools.organism.raising import refusing_questions

    seen = [question for pool in refusing_questions(world) for question in pool]
    assert {question.split for question in seen} == {"train"}
    assert not any(question.pair_held_out for question in seen)


def test_every_question_has_one_answer(world):
    answers = {}
    for split in SPLITS:
        for question in [*questions(small(world), split), *general_questions(0, split)]:
            assert answers.setdefault(question.prompt, question.answer) == question.answer


def test_sums_are_right():
    for question in general_questions(0, "test"):
        if "plus" in question.prompt:
            x, _, y, _, z, _ = question.answer.split()
            assert int(x) + int(y) == int(z)


@pytest.mark.parametrize("variant", [pytest.param("organism", marks=pytest.mark.slow), "shared"])
def test_the_shipped_prompts_are_the_worlds(world, variant):
    known = world if organism.VARIANTS[variant] == organism.LARGE else small(world)
    folder = organism.prompts(variant)
    for domain, rows in prompt_rows(known).items():
        lines = (folder / f"{domain}.jsonl").read_text().splitlines()
        assert [json.loads(line) for line in lines] == rows
    assert len(load_prompts(folder).domains) == len(list(folder.glob("*.jsonl")))
