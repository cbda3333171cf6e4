"""The backbone of the tests of training: three blocks, never trained."""

from __future__ import annotations

import pytest

from palette.backbones import Backbone
from tools.organism.language import Size, build_model, build_tokenizer
from tools.organism.world import create_world, small


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    tokenizer = build_tokenizer(small(create_world(0)))
    model = build_model(tokenizer, Size(16, 3, 2, 16), 0).requires_grad_(False).eval()
    return Backbone(model, tokenizer, "tiny", "0" * 64)
