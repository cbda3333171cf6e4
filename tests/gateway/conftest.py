"""A gateway in memory, and clients that call it."""

from __future__ import annotations

import pytest

from tests.gateway.calls import Caller
from tests.gateway.fakes import World


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def call(world: World) -> Caller:
    return Caller(world)
