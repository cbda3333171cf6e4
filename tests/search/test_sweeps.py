"""Every saving of the panel is exact: on, off, or together, the logits are those of plain hooks."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch

from palette.backbones import Backbone, reply_logits
from palette.directions import (
    INTERVENTIONS,
    Directions,
    Intervention,
    StrengthKernel,
    intervening,
)
from palette.search import sweeps
from palette.search.settings import Caching
from palette.search.sweeps import Sweeper
from tools.organism.language import Size, build_model, build_tokenizer
from tools.organism.world import create_world, small

GENERATOR = torch.Generator().manual_seed(0)
DIRECTIONS = Directions(*(torch.randn(4, 2, 16, generator=GENERATOR, dtype=torch.float64) for _ in range(2)))
HEAD = [1, 5, 7, 8, 9]
PROMPTS = [[*HEAD, 90, 91, 2, 6], [*HEAD, 93, 2, 6], [*HEAD, 94, 95, 96, 2, 6], [*HEAD, 97, 2, 6]]
PROMPTS += [PROMPTS[1], PROMPTS[1], PROMPTS[0]]
REPLIES = [[], [40, 41, 42], [43], [44, 45, 46], [47, 48], [], [49, 50, 51, 52]]
TRIALS = [
    Intervention(method, position, StrengthKernel(peak, width, 0.4 + 0.3 * peak))
    for (method, position), (peak, width) in zip(
        itertools.product(INTERVENTIONS, (-2, -1)), itertools.cycle([(1, 0), (2, 1), (3, 0)]), strict=False
    )
]
NOTHING = {
    "layer_prefix": False,
    "template_prefix": False,
    "beginnings": False,
    "last_block": False,
}
SAVINGS = [
    Caching(**NOTHING),
    Caching(**{**NOTHING, "layer_prefix": True}),
    Caching(**{**NOTHING, "template_prefix": True}),
    Caching(**{**NOTHING, "beginnings": True}),
    Caching(**{**NOTHING, "last_block": True}),
    Caching(**{**NOTHING, "template_prefix": True, "layer_prefix": True}),
    Caching(),
    Caching(cache_gib=5e-6),
]


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    tokenizer = build_tokenizer(small(create_world(0)))
    model = build_model(tokenizer, Size(16, 3, 2, 16), 0).requires_grad_(False).eval()
    return Backbone(model, tokenizer, "tiny", "")


def plain(backbone: Backbone, trial: Intervention) -> list[torch.Tensor]:
    with intervening(backbone, DIRECTIONS, trial):
        return reply_logits(backbone, PROMPTS, [reply or [0] for reply in REPLIES])


def swept(backbone: Backbone, caching: Caching, trials: list[Intervention]) -> list[list[torch.Tensor]]:
    sweeper = Sweeper(backbone, PROMPTS, REPLIES, caching)
    found: list[list[torch.Tensor]] = [[torch.empty(0)] * len(PROMPTS) for _ in trials]
    for rows, trial in zip(found, trials, strict=True):
        for part in sweeper.sweep(trial.edits(DIRECTIONS)):
            for row, logits in part.items():
                rows[row] = logits
    return found


def largest_difference(backbone: Backbone, caching: Caching) -> float:
    return max(
        float((one - other).abs().max())
        for trial, rows in zip(TRIALS, swept(backbone, caching, TRIALS), strict=True)
        for one, other in zip(rows, plain(backbone, trial), strict=True)
    )


@pytest.mark.parametrize("caching", SAVINGS, ids=str)
def test_a_saving_changes_no_logit(backbone, caching):
    assert largest_difference(backbone, caching) < 1e-5


def test_the_law_catches_a_stream_of_another_site(backbone, monkeypatch):
    monkeypatch.setattr(sweeps, "first_block", lambda edits: 3)
    assert largest_difference(backbone, Caching()) > 1e-3


def test_the_savings_are_used(backbone, monkeypatch):
    runs = []
    block = backbone.blocks[0]
    original = type(block).forward
    monkeypatch.setattr(
        type(block), "forward", lambda self, *a, **k: runs.append(self) or original(self, *a, **k)
    )
    late = [Intervention("centred_ablation", -1, StrengthKernel(3, 0, s)) for s in (0.5, 0.7, 0.9)]
    sweeper = Sweeper(backbone, PROMPTS, REPLIES, Caching())
    list(sweeper.sweep(late[0].edits(DIRECTIONS)))
    runs.clear()
    for trial in late:
        list(sweeper.sweep(trial.edits(DIRECTIONS)))
    assert runs == []


def test_rows_that_begin_alike_are_run_once_and_padding_never(backbone, monkeypatch):
    widths = []
    feed_forward = type(backbone.blocks[0].mlp)
    original = feed_forward.forward
    monkeypatch.setattr(
        feed_forward, "forward", lambda self, x: widths.append(x.shape[0] * x.shape[1]) or original(self, x)
    )
    sweeper = Sweeper(backbone, PROMPTS, REPLIES, Caching(template_prefix=False))
    widths.clear()
    list(sweeper.sweep({}))
    rows = [(*prompt, *reply[:-1]) for prompt, reply in zip(PROMPTS, REPLIES, strict=True)]
    begun = {row[: i + 1] for row in rows for i in range(len(row))}
    read = {
        row[: len(row) - i] for row, reply in zip(rows, REPLIES, strict=True) for i in range(len(reply) or 1)
    }
    assert widths == [len(begun), len(begun), len(read)]


def test_the_law_catches_rows_taken_to_begin_alike(backbone, monkeypatch):
    monkeypatch.setattr(sweeps, "beginnings", lambda batch: batch.ids)
    assert largest_difference(backbone, Caching()) > 1e-3


def test_no_edit_is_the_backbone_and_leaves_nothing_behind(backbone):
    before = reply_logits(backbone, PROMPTS, [reply or [0] for reply in REPLIES])
    null = Intervention("centred_ablation", -1, StrengthKernel(2, 0, 0.0))
    for one, other in zip(swept(backbone, Caching(**NOTHING), [null])[0], before, strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    assert not any("forward" in block.__dict__ for block in backbone.blocks)


@pytest.mark.parametrize("wrong", [False, True])
def test_in_half_precision_what_rounding_alone_changes_is_no_reason_to_leave_a_saving_out(
    backbone, monkeypatch, wrong
):
    model = copy.deepcopy(backbone.model).to(torch.bfloat16)
    halved = Backbone(model, backbone.tokenizer, "tiny in half precision", "")
    if wrong:
        monkeypatch.setattr(sweeps, "beginnings", lambda batch: batch.ids)
    kept = sweeps.proven(halved, PROMPTS, REPLIES, Caching())
    assert {name for name in sweeps.SAVINGS if getattr(kept, name)} == (
        set(sweeps.SAVINGS) - ({"beginnings"} if wrong else set())
    )
