"""A plan is its seed's, every choice is drawn by some seed, and the strangers that are measured stay."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from palette.fingerprints import fingerprint
from tools.strangers import words
from tools.strangers.checkpoints import SETS
from tools.strangers.plan import (
    ALARMS,
    ARCHITECTURES,
    BLOCKS,
    DEPTHS,
    FRAMES,
    KIN,
    LEAKS,
    OPENINGS,
    ROWS,
    THINKING,
    TOKENIZERS,
    WIDTHS,
    draw_plan,
)

PLANS = [draw_plan(seed) for seed in range(1, 61)]


def test_a_plan_is_a_function_of_its_seed_and_of_the_attempt():
    assert draw_plan(7) == draw_plan(7)
    assert len(set(PLANS)) == len({plan.root for plan in PLANS}) == 60
    assert draw_plan(7, 1).scope != draw_plan(7).scope
    assert draw_plan(7, 1).root != draw_plan(7).root


@pytest.mark.parametrize(
    ("choices", "drawn"),
    [
        (ARCHITECTURES, {plan.shape.architecture for plan in PLANS}),
        (DEPTHS, {plan.shape.layers for plan in PLANS}),
        (WIDTHS, {plan.shape.width for plan in PLANS}),
        ((True, False), {plan.shape.tied for plan in PLANS}),
        ((True, False), {plan.shape.groups < plan.shape.heads for plan in PLANS}),
        (TOKENIZERS, {plan.language.tokenizer for plan in PLANS}),
        ((True, False), {plan.language.spaced for plan in PLANS if plan.language.tokenizer != "word"}),
        (FRAMES, {plan.language.frame for plan in PLANS}),
        ((None, *words.SYSTEM), {plan.language.system for plan in PLANS}),
        (THINKING, {plan.language.thinking for plan in PLANS}),
        (OPENINGS, {plan.language.opening for plan in PLANS}),
        ((0, 1, 2), {len(plan.language.closing) for plan in PLANS}),
        ((True, False), {bool(plan.language.preface) for plan in PLANS}),
        ((2, 3, 4, 5), {len(plan.language.refusals) for plan in PLANS}),
        ((True, False), {"{d}" in plan.language.refusals[0] for plan in PLANS}),
        (range(3, 9), {len(plan.scope.domains) for plan in PLANS}),
        (range(4), {len(plan.scope.far) for plan in PLANS}),
        (("noun", "ending"), {plan.scope.mark for plan in PLANS}),
        (LEAKS, {plan.scope.leak for plan in PLANS}),
        (ALARMS, {plan.scope.alarm for plan in PLANS}),
        *((ROWS[split], {plan.scope.rows[i] for plan in PLANS}) for i, split in enumerate(ROWS)),
    ],
)
def test_sixty_seeds_draw_every_choice(choices, drawn):
    assert drawn == set(choices)


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: str(plan.seed))
def test_what_is_drawn_fits_together(plan):
    shape, language, scope = plan.shape, plan.language, plan.scope
    assert BLOCKS[0] <= 12 * shape.width**2 * shape.layers <= BLOCKS[1]
    assert shape.heads % shape.groups == 0 and shape.width % (16 * 1) == 0
    assert len(set(scope.domains)) == len(scope.domains) and len(scope.near) >= 2
    assert set(plan.opened) <= set(scope.domains) and len(set(plan.opened)) == 2
    assert language.spaced or language.tokenizer != "word"
    if language.opening == "word":
        assert {text.split()[0] for text in (language.answer, *language.refusals)} == {"i"}
    if language.opening == "own":
        openings = {text.split()[0] for text in language.refusals}
        assert language.answer.split()[0] not in openings
    assert bool(language.first) == (language.opening == "sentence")


def test_the_strangers_that_figures_are_of_are_drawn_as_they_were():
    plans = [asdict(draw_plan(seed)) for name in ("development", "test") for seed in SETS[name]]
    assert len(plans) == 20
    assert fingerprint(plans)[:12] == "4ad7858ea05c"


@pytest.mark.parametrize(("seed", "of"), KIN.items())
def test_kin_is_another_s_in_kind_alone(seed, of):
    own, other = draw_plan(seed), draw_plan(of)
    assert (own.shape, own.scope.rows) == (other.shape, other.scope.rows)
    assert own.language.tokenizer == other.language.tokenizer
    assert len(own.language.closing) == len(other.language.closing)
    assert own.language.answer != other.language.answer or own.language.refusals != other.language.refusals
    assert (own.root, own.scope.domains) != (other.root, other.scope.domains)
    assert seed not in {*SETS["development"], *SETS["test"]}
