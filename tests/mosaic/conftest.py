"""What the tests of control tokens share: a small organism, and tokens that nobody trained."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from palette import organism
from palette.backbones import Backbone, load_backbone
from palette.mosaic.settings import Place
from palette.mosaic.tokens import ControlTokens, identity, initial

NAMES = ("alpha", "beta", "delta", "gamma", "omega")


@pytest.fixture(scope="session")
def backbone() -> Backbone:
    """The shared variant of the organism."""
    return load_backbone(organism.weights("shared"), "organism/shared")


@pytest.fixture(scope="session")
def tokens(backbone: Backbone) -> Callable[..., ControlTokens]:
    """A function of a place and a seed that gives five categories' tokens, strong enough to be seen."""

    def make(place: Place = "before", seed: int = 0, slots: int = 3) -> ControlTokens:
        strong = {name: 8 * drawn for name, drawn in initial(backbone, NAMES, slots, seed).items()}
        return ControlTokens(strong, identity(backbone), "restrict", place, {"seeds": {"run": seed}})

    return make


@pytest.fixture(scope="session")
def prompts(backbone: Backbone) -> list[list[int]]:
    """Rendered prompts of many lengths."""
    texts = [f"what is {x} plus {y} ?" + " tell me ." * (x % 4) for x in range(8) for y in range(4)]
    return [backbone.render([{"role": "user", "content": text}]) for text in texts]
