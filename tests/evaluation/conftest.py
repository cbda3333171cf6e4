"""What the tests of subjects and of counted outcomes share: prompts, and crowds of outcomes."""

from __future__ import annotations

import pytest

from tests.fixtures.crowds import crowd, good

__all__ = ["crowd", "good"]


@pytest.fixture(scope="module")
def prompts(shared) -> list[list[int]]:
    return shared.render(shared.prompts.split("test").capped(1))[:12]
