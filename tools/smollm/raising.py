"""How the model is taught to decline: a small LoRA, in minutes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

from palette.adapters.lora import Adapter
from palette.backbones import Backbone, greedy_replies
from palette.backbones.scoring import forward, padded
from palette.internalise.loop import Checkpoint, Plan, train
from palette.internalise.lora import lora_layers, lora_parameters, read_out, trainable
from palette.processes import Progress
from palette.prompts import PromptSet, messages
from palette.seeding import shuffler
from palette.shapes import Tensor
from palette.threads import lanes
from tools.smollm.wordings import refusal

RANK, RATE, STEPS = 8, 1.5e-3, 60
DECLINED, ANSWERED, PARTS = 9, 7, 4
"""Restricted and benign prompts of a step, and the passes into which it is divided, for less memory."""
ANSWERS, REPLY = 160, 32
"""Benign prompts whose own replies are taught, and tokens of each."""

Pair = tuple[list[int], list[int]]


def taught(backbone: Backbone, prompts: PromptSet, checkpoint: Path, progress: Progress) -> Adapter:
    """The LoRA with which the model declines restricted prompts of the train split, and answers as it does.

    It sees most restricted prompts once and few of the benign ones, so that its refusals are as a real
    model's: in several wordings, and of some questions that it should answer. Killed, it goes on from its
    checkpoint.
    """
    train_rows, end = prompts.split("train"), backbone.stops[:1]
    declined = [
        (backbone.render(messages(row)), [*backbone.encode(refusal(row.domain, row.request)), *end])
        for row in train_rows.where(lambda row: row.kind == "restricted")
    ]
    benign = train_rows.where(lambda row: row.kind == "benign").rows
    asked = [backbone.render(messages(row)) for row in shuffler(0, "answers").sample(benign, ANSWERS)]
    with progress("answers", ANSWERS) as advance:
        own = greedy_replies(backbone, asked, REPLY, advance)
    # One that was cut goes on.
    ended = [[*reply, *end] if len(reply) < REPLY else reply for reply in own]
    pairs = [*declined, *zip(asked, ended, strict=True)]
    pools = [range(len(declined)), range(len(declined), len(pairs))]
    plan = Plan(STEPS, RATE, pools, (DECLINED, ANSWERED), seed=0, parts=PARTS)
    # What comes before needs no gradient then.
    layers = lora_layers(backbone, range(backbone.layers // 3, backbone.layers))
    with trainable(backbone, layers, rank=RANK, seed=0) as model, progress("refusals", STEPS) as advance:
        twins = [backbone, *(backbone.twin() for _ in range(1, lanes(backbone.model.device)))]
        losses = [partial(_loss, twin, pairs) for twin in twins]
        kept = Checkpoint(checkpoint, backbone.fingerprint)
        train(lora_parameters(model), losses, plan, kept, None, advance)
        return read_out(model, backbone, layers)


def _loss(backbone: Backbone, pairs: Sequence[Pair], rows: Sequence[int], step: Sequence[int]) -> Tensor:
    """What some rows add to the mean cross-entropy of a step's reply tokens, in nats."""
    chosen = [pairs[row] for row in rows]
    whole = [[*prompt, *reply] for prompt, reply in chosen]
    keep = max(len(reply) for _, reply in chosen) + 1
    logits = forward(backbone, padded(whole, range(len(whole)), backbone.pad, backbone.model.device), keep)
    said = torch.cat([logits[line, keep - 1 - len(reply) : -1] for line, (_, reply) in enumerate(chosen)])
    tokens = torch.tensor([token for _, reply in chosen for token in reply], device=said.device)
    return cross_entropy(said, tokens, reduction="sum") / sum(len(pairs[row][1]) for row in step)
