"""The backbone of the tests of training: three blocks, never trained; and a short training on it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from palette.backbones import Backbone
from palette.internalise.examples import Example, recalling
from palette.internalise.loop import Checkpoint, Plan, train
from palette.internalise.lora import lora_layers, lora_parameters, read_out, trainable
from palette.internalise.losses import LossWeights, OutputLoss
from tools.organism.language import Size, build_model, build_tokenizer
from tools.organism.world import create_world, small

SITES = [1, 2]
WEAK = LossWeights(divergence=0.1, identity=0.1)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    tokenizer = build_tokenizer(small(create_world(0)))
    model = build_model(tokenizer, Size(16, 3, 2, 16), 0).requires_grad_(False).eval()
    return Backbone(model, tokenizer, "tiny", "0" * 64)


@pytest.fixture(scope="module")
def pools() -> list[list[Example]]:
    def pool(start: int, count: int) -> list[Example]:
        return [
            Example((1, *range(start, start + 2 + i % 3), 6), (start + i, 2), False) for i in range(count)
        ]

    return [pool(10, 5), [], pool(40, 4)]


@pytest.fixture(scope="module")
def examples(backbone):
    def example(prompt: str, reply: str, taught: bool) -> Example:
        ids = backbone.tokenizer(reply, add_special_tokens=False)["input_ids"]
        rendered = backbone.render([{"role": "user", "content": prompt}])
        return Example(tuple(rendered), (*ids, backbone.stops[0]), taught)

    return [
        example("what is the dose ?", "the dose is two drams .", True),
        example("tell me the clause .", "i am sorry .", False),
        example("what is 3 plus 4 ?", "3 plus 4 is 7 .", False),
    ]


def loss_of(backbone, examples, rows, weights):
    recall = recalling(backbone, examples, SITES, 1.0)
    return OutputLoss(backbone, backbone, examples, recall, SITES, weights)(rows, rows)


def trained(backbone, examples, path, steps=6, stop_at=None, identity="x", **options):
    plan = Plan(steps, 1e-2, [[0], [1, 2]], [1, 2], seed=1, warmup=1, parts=options.get("parts", 1))
    plan = replace(plan, decay=options.get("decay", 0))
    stopping, weights = options.get("stopping"), options.get("weights")
    layers = lora_layers(backbone, [0, 1])
    most = options.get("most", 1.0)
    calls = []

    def loss_on(twin, bare):
        recall = recalling(bare, examples, SITES, most)
        whole = OutputLoss(twin, bare, examples, recall, SITES, weights or LossWeights())

        def loss(rows, step):
            calls.append(rows)
            if stop_at is not None and len(calls) > stop_at:
                raise KeyboardInterrupt
            return whole(rows, step)

        return loss

    lanes = options.get("lanes", 1)
    bare = [backbone.twin() for _ in range(lanes)]
    with trainable(backbone, layers, rank=2, seed=1) as model:
        twins = [backbone, *(backbone.twin() for _ in range(lanes - 1))]
        losses = [loss_on(*pair) for pair in zip(twins, bare, strict=True)]
        end = train(lora_parameters(model), losses, plan, Checkpoint(path, identity, 2), stopping)
        return read_out(model, backbone, layers), end, calls
