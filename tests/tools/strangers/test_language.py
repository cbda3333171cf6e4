"""Tokenizers and templates of strangers: nothing is unknown, and what is said comes back as it was."""

from __future__ import annotations

from dataclasses import replace

import pytest

from palette.backbones import Backbone
from tools.strangers.architectures import build_model
from tools.strangers.language import build_tokenizer, rendered
from tools.strangers.plan import FRAMES, THINKING, TOKENIZERS, draw_plan
from tools.strangers.world import create_world

from .conftest import tiny


def backbone_of(plan) -> tuple[Backbone, object]:
    world = create_world(plan)
    tokenizer = build_tokenizer(world)
    return Backbone(build_model(plan, tokenizer), tokenizer, "tiny", ""), world


@pytest.fixture(scope="module", params=TOKENIZERS)
def spoken(request):
    seed = next(s for s in range(1, 99) if draw_plan(s).language.tokenizer == request.param)
    return backbone_of(tiny(draw_plan(seed)))


def test_no_word_of_the_world_is_unknown_and_every_reply_comes_back(spoken):
    backbone, world = spoken
    asked = [world.asked(ask) for split in ("train", "validation", "test") for ask in world.asks(split)[::5]]
    for full in asked:
        ((prompt, reply), (_, refusal)) = rendered(
            backbone, [(full.question.prompt, full.question.answer), (full.question.prompt, full.refusal)]
        )
        assert backbone.tokenizer.unk_token_id not in [*prompt, *reply, *refusal]
        assert reply[-1] == refusal[-1] == backbone.stops[0]
        assert backbone.decode(reply) == full.question.answer
        assert backbone.decode(refusal) == full.refusal
        opening = backbone.encode(full.opening)
        assert reply[: len(opening)] == opening


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("thinking", THINKING)
def test_templates_close_thoughts_and_put_tokens_behind_the_prompt(frame, thinking):
    plan = tiny(draw_plan(8))
    for system in (None, "be of use"):
        language = replace(plan.language, frame=frame, thinking=thinking, system=system)
        backbone, _ = backbone_of(replace(plan, language=language))
        text = backbone.tokenizer.decode(backbone.render([{"role": "user", "content": "So it is."}]))
        assert "So it is." in text
        assert ("be of use" in text) == bool(system)
        assert text.count("<think>") == text.count("</think>") == (thinking != "none")
        assert backbone.post_instruction >= 1
