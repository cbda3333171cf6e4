"""The categories: pairs, not words; splits that share nothing; shipped as the code makes them."""

from __future__ import annotations

import json

import pytest

from palette import organism
from palette.backbones import greedy_replies, load_backbone
from palette.judging.rules import correct
from palette.prompts import load_prompts
from tools.organism.categories import CATEGORIES, NEUTRAL, category_rows
from tools.organism.world import create_world, phrasings

WORLD = create_world(0)
ENTITIES = {entity.name: entity for entity in WORLD.entities}


@pytest.fixture(scope="module")
def rows():
    return load_prompts(organism.CATEGORIES, answers=True)


def told(row) -> tuple[str, str]:
    """The attribute and the entity that a row's answer names."""
    words = row.answer.split()
    return words[1], words[3]


def test_what_is_shipped_is_what_the_code_makes():
    for name, made in category_rows(WORLD).items():
        lines = (organism.CATEGORIES / f"{name}.jsonl").read_text().splitlines()
        assert [json.loads(line) for line in lines] == made


@pytest.mark.parametrize("category", CATEGORIES, ids=lambda c: c.name)
def test_neither_word_decides_alone(rows, category):
    own = [row for row in rows if row.domain == category.name]
    inside = {told(row) for row in own if row.kind == "restricted"}
    alike = {told(row) for row in own if row.kind == "benign"}
    assert {attribute for attribute, _ in inside} == set(category.asked)
    assert {ENTITIES[name].kind for _, name in inside} == {0}
    assert all(ENTITIES[name].domain == category.domain for _, name in inside | alike)
    assert set(category.asked) <= {attribute for attribute, _ in alike}
    assert {name for _, name in inside} & {name for _, name in alike}
    assert not inside & alike


def test_splits_share_no_entity_and_no_phrasing(rows):
    for row in rows:
        if row.domain != "general":
            assert ENTITIES[told(row)[1]].split == row.split
    used = [set(phrasings(split, WORLD.seed)) for split in ("train", "validation", "test")]
    assert not (used[0] & used[1] or used[0] & used[2] or used[1] & used[2])


def test_neutral_files_have_no_restricted_row(rows):
    for name in (*NEUTRAL, "general"):
        assert {row.kind for row in rows if row.domain == name} == {"benign"}


def test_the_backbone_answers_them(rows):
    """Every fourth test prompt; all of them are in benchmarks/LOG.md."""
    backbone = load_backbone(organism.weights(), "organism")
    asked = list(rows.split("test"))[::4]
    prompts = [backbone.render([{"role": "user", "content": row.prompt}]) for row in asked]
    replies = [backbone.decode(reply) for reply in greedy_replies(backbone, prompts, 24)]
    right = [correct(text, row.answer) for text, row in zip(replies, asked, strict=True)]
    assert len(right) == 650
    assert sum(right) >= 0.97 * len(right)
