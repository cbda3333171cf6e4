"""A tiny stranger of each kind that is cheap to build, and one world to read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tools.strangers.plan import Plan, draw_plan
from tools.strangers.world import World, create_world


def tiny(plan: Plan) -> Plan:
    """The same plan with the smallest model there is of its architecture, and few domains and prompts."""
    shape = replace(plan.shape, layers=2, width=32, heads=2, groups=2)
    near = (*plan.opened, *plan.scope.domains)[:2]
    scope = replace(plan.scope, near=near, far=(), rows=(16, 8, 8))
    return replace(plan, shape=shape, scope=scope, opened=near)


@pytest.fixture(scope="session")
def world() -> World:
    """A world whose answers and refusals have several sentences and are not clean."""
    seeds = (seed for seed in range(1, 200) if (plan := draw_plan(seed)).scope.leak and plan.scope.alarm)
    plans = map(draw_plan, seeds)
    return create_world(next(p for p in plans if p.language.closing and p.language.preface))
