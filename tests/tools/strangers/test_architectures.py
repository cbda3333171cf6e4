"""Every architecture builds as its plan says, replies, and comes back from disk as it was."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from palette.backbones import Backbone, greedy_replies, load_backbone
from tools.organism.language import save
from tools.strangers.architectures import CONFIGURATIONS, build_model
from tools.strangers.language import build_tokenizer
from tools.strangers.plan import ARCHITECTURES, WINDOWED, draw_plan
from tools.strangers.world import create_world

from .conftest import tiny


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_architecture_is_built_and_read_back(architecture, tmp_path):
    plan = tiny(draw_plan(3))
    window = 12 if architecture in WINDOWED else None
    plan = replace(plan, shape=replace(plan.shape, architecture=architecture, window=window))
    tokenizer = build_tokenizer(create_world(plan))
    model = build_model(plan, tokenizer)
    assert model.config.model_type.removesuffix("_text") == architecture
    assert torch.equal(
        model.get_input_embeddings().weight, build_model(plan, tokenizer).get_input_embeddings().weight
    )
    assert getattr(model.config, "sliding_window", None) == window
    save(model, tokenizer, tmp_path, torch.float32)
    read = load_backbone(tmp_path)
    assert (read.layers, read.width) == (plan.shape.layers, plan.shape.width)
    own = Backbone(model.eval(), tokenizer, "tiny", "")
    prompts = [
        own.render([{"role": "user", "content": text}]) for text in ("So it is.", "Hello. And so it is.")
    ]
    assert greedy_replies(read, prompts, 6) == greedy_replies(own, prompts, 6)


@pytest.mark.parametrize("seed", range(1, 13))
def test_parameters_are_within_what_is_promised(seed):
    plan = draw_plan(seed)
    model = build_model(plan, build_tokenizer(create_world(plan)))
    assert 0.3e6 <= model.num_parameters() <= 1.2e6
    tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert tied == plan.shape.tied


def test_every_architecture_has_its_configuration():
    assert set(CONFIGURATIONS) == set(ARCHITECTURES)
