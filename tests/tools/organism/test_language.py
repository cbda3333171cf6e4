from __future__ import annotations

import pytest
import torch

from tools.organism.language import END, Size, batch_tensors, build_model, build_tokenizer, render, save
from tools.organism.world import create_world, small


@pytest.fixture(scope="module")
def world():
    return small(create_world(0))


@pytest.fixture(scope="module")
def tokenizer(world):
    return build_tokenizer(world)


def test_a_name_is_its_stem_and_its_ending(world, tokenizer):
    for entity in world.entities:
        stem, ending = tokenizer.tokenize(entity.name)
        assert stem + ending.removeprefix("##") == entity.name


def test_other_text_is_spelled_and_never_unknown(tokenizer):
    ids = tokenizer("Zebra-crossing, 2024!", add_special_tokens=False)["input_ids"]
    assert tokenizer.unk_token_id not in ids


def test_a_reply_survives_the_tokenizer(world, tokenizer):
    question = world.question(world.entities[0], "dose", 0)
    ask, answer = render(tokenizer, question.prompt, question.answer)
    assert answer[-1] == tokenizer.convert_tokens_to_ids(END)
    assert tokenizer.decode(answer, skip_special_tokens=True) == question.answer
    assert tokenizer.decode(ask).endswith("<|assistant|>")


def test_first_weights_depend_on_the_seed_and_leave_the_generator_alone(tokenizer):
    size = Size(d_model=16, layers=1, heads=2, d_mlp=16)
    before = torch.random.get_rng_state()
    one, same, other = (build_model(tokenizer, size, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    weights = [model.model.embed_tokens.weight for model in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_batches_are_left_padded_and_only_replies_are_learned():
    ids, mask, labels = batch_tensors([([5, 6], [7]), ([5], [8])], pad=0)
    assert ids.tolist() == [[5, 6, 7], [0, 5, 8]]
    assert mask.tolist() == [[1, 1, 1], [0, 1, 1]]
    assert labels.tolist() == [[-100, -100, 7], [-100, -100, 8]]


def test_a_saved_checkpoint_is_a_stock_model(tokenizer, tmp_path):
    from palette.backbones import load_backbone

    model = build_model(tokenizer, Size(d_model=16, layers=2, heads=2, d_mlp=16), 0)
    save(model, tokenizer, tmp_path, torch.float16)
    assert model.dtype == torch.float32
    backbone = load_backbone(tmp_path)
    assert backbone.layers == 2
    assert backbone.post_instruction == 2
