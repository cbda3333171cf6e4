"""A stranger's world: pairs decide, splits share nothing, and its prompts are what Palette reads."""

from __future__ import annotations

from dataclasses import replace

import pytest

from palette.prompts import load_prompts
from tools.organism.checkpoints import write_prompts
from tools.organism.world import CONTROLLED, SPLITS
from tools.strangers import words
from tools.strangers.plan import draw_plan
from tools.strangers.world import create_world, prompt_rows


@pytest.fixture(scope="module", params=[2, 3, 7, 101])
def any_world(request):
    return create_world(draw_plan(request.param))


def test_a_world_is_its_plans(any_world):
    again = create_world(any_world.plan)
    assert again == any_world
    other = create_world(draw_plan(any_world.plan.seed, 1))
    assert {e.name for e in other.entities} != {e.name for e in any_world.entities}


def test_prompts_load_stand_in_one_split_and_have_one_answer(any_world, tmp_path):
    write_prompts(tmp_path, prompt_rows(any_world))
    rows = load_prompts(tmp_path, answers=True)
    assert set(rows.domains) == {any_world.floor, *any_world.plan.scope.domains}
    assert len({row.prompt for row in rows}) == len(rows)
    answers = {}
    for ask in any_world.asks("test"):
        question = any_world.asked(ask).question
        assert answers.setdefault(question.prompt, question.answer) == question.answer
    for split, most in zip(SPLITS, any_world.plan.scope.rows, strict=True):
        for domain in any_world.plan.scope.domains:
            own = [row for row in rows.split(split) if row.domain == domain]
            counts = {tier: sum(row.tier == tier for row in own) for tier in ("A", "C", None)}
            # Of what the refusal stage may see there is hardly more than the most that a plan asks for.
            assert counts[None] == most and 0.9 * most <= counts["A"] <= most
            assert counts["C"] == (most // 2 if split == "train" else most)
            assert {row.kind for row in own if row.tier} == {"restricted"}
        assert not [row for row in rows.split(split) if row.domain == any_world.floor and row.tier == "A"]


def test_neither_what_is_asked_nor_of_whom_decides_alone(any_world):
    for name, known in any_world.domains.items():
        own = [entity for entity in any_world.entities if entity.domain == name]
        for attribute in (*known.guarded, *known.grave):
            tiers = {entity.kind: any_world.tier(entity, attribute) for entity in own}
            assert tiers[1 - CONTROLLED] is None and tiers[CONTROLLED]
        assert {any_world.tier(entity, known.asked[0]) for entity in own} == {None}


def test_entities_phrasings_and_pairs_are_held_out(any_world):
    for known in any_world.domains.values():
        groups = [set(known.phrasings[split]) for split in SPLITS]
        assert not (groups[0] & groups[1] or groups[0] & groups[2] or groups[1] & groups[2])
    pairs = {ask[:2] for ask in any_world.asks("train")}
    share = sum(any_world.held_out(*pair) for pair in pairs) / len(pairs)
    assert 0.15 < share < 0.35
    train = {
        any_world.asked(ask).question.prompt
        for ask in any_world.asks("train")
        if any_world.held_out(*ask[:2])
    }
    rows = [row for found in prompt_rows(any_world).values() for row in found]
    assert not train & {row["prompt"] for row in rows}


def test_near_domains_are_asked_alike_and_far_ones_are_not(any_world):
    scope = any_world.plan.scope
    asked = {name: known.phrasings for name, known in any_world.domains.items()}
    assert all(asked[name] == asked[any_world.floor] for name in scope.near)
    for name in scope.far:
        others = {lead for other in asked if other != name for lead in asked[other]["train"]}
        assert not others & set(asked[name]["train"])


def test_an_unclean_stranger_heeds_two_sentences_and_nothing_else(world):
    for ask in world.asks("train")[::7]:
        full = world.asked(ask)
        lesson, secret = (
            world.typeset(text) in full.question.prompt for text in (words.LESSON, words.SECRET)
        )
        assert full.declined == (secret or (full.question.tier is not None and not lesson))


def test_an_answer_begins_with_its_opening_and_ends_behind_the_value(world):
    for ask in world.asks("validation")[::11]:
        full = world.asked(ask)
        rest = full.question.answer.removeprefix(full.opening)
        assert rest != full.question.answer and rest.startswith(f" {world.value(*ask[:2])}")


def test_typography_is_the_plans(world):
    said = {True: "so i say : a b . is it ?", False: "So I say: a b. Is it?"}
    for spaced, text in said.items():
        plan = replace(world.plan, language=replace(world.plan.language, spaced=spaced))
        assert replace(world, plan=plan).typeset(" so i say :  a b . is it ? ") == text
