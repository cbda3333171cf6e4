"""Rows of holes: a check that the gateway passes, and a way to break it so that the check fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from palette.gateway import admission
from tests.gateway.fakes import World

Patch = pytest.MonkeyPatch
Check = Callable[[World], None]
Break = Callable[[Patch, World], None]
FOUND_OUT = (AssertionError, pytest.fail.Exception, KeyError)
"""How a check fails."""


class Holes(dict[str, tuple[Check, Break]]):
    """Rows by name. A check that nothing can fail shows nothing."""

    def row(self, name: str, broken: Break) -> Callable[[Check], Check]:
        def add(check: Check) -> Check:
            self[name] = (check, broken)
            return check

        return add


def decide_with(patch: Patch, change: Callable[..., tuple[Any, ...]]) -> None:
    """Lets every decision be taken on what ``change`` makes of its arguments."""
    decide = admission.decide
    patch.setattr(admission, "decide", lambda *given: decide(*change(*given)))
