"""The contract of every internalisation method, and what each of them alone promises."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

from palette.activations import captured, run_block
from palette.adapters.lora import Adapter
from palette.adapters.mounting import mounted
from palette.backbones import batches, greedy_replies
from palette.backbones.scoring import forward
from palette.directions import Directions, Intervention, StrengthKernel
from palette.internalise import methods
from palette.internalise.examples import SHARES, Example, Learned, TrainingTask
from palette.internalise.loop import Checkpoint
from palette.internalise.methods import passes, trained_blocks
from palette.internalise.settings import METHODS, InternaliseSettings

SETTINGS = InternaliseSettings(steps=30, rank=4, blocks=1, learning_rate=1e-2)
INTERVENTION = Intervention("centred_ablation", -1, StrengthKernel(2, 0, 1.5))


@pytest.fixture
def task(backbone, tmp_path, monkeypatch) -> TrainingTask:
    monkeypatch.setattr(methods, "BLOCK_IDENTITY_WEIGHT", 1.0)
    monkeypatch.setattr(methods, "NULL_ENERGY", 0.05)
    generator = torch.Generator().manual_seed(1)
    # As large as the streams of a model that was never trained.
    means = [0.02 * torch.randn(4, 2, 16, generator=generator, dtype=torch.float64) for _ in range(2)]
    prompts = [[1, 5, 20 + i, 40 + i, 2, 6] for i in range(12)]
    replies = greedy_replies(backbone, prompts, 4)
    examples = [
        Example(tuple(prompt), (*(reply if i >= 4 else [60, 61]), 2), taught=i < 4)
        for i, (prompt, reply) in enumerate(zip(prompts, replies, strict=True))
    ]
    names = list(SHARES)
    pools = {
        name: [i for i in range(12) if i == place or i // 4 == place] for place, name in enumerate(names)
    }
    pools["target"] = [0, 1, 2, 3]
    kept = Checkpoint(tmp_path / "checkpoint.safetensors", "identity", 10)
    return TrainingTask(backbone, Directions(*means), INTERVENTION, examples, pools, SETTINGS, kept)


def at_peak(task: TrainingTask, adapter: Adapter | None, example: Example) -> torch.Tensor:
    """The stream over an example's prompt, with the adapter on or without one."""
    streams: dict[int, torch.Tensor] = {}
    mounting = mounted(task.backbone.model, adapter) if adapter else nullcontext()
    with mounting, captured(task.backbone.blocks, streams.__setitem__), torch.no_grad():
        task.backbone.model(torch.tensor([example.prompt]))
    return streams[INTERVENTION.kernel.peak]


def edited_distance(task: TrainingTask, adapter: Adapter | None, taught: bool) -> float:
    """How far the stream at the peak is, over prompts, from where the method's edit puts it."""
    distances = []
    for example in task.examples:
        if example.taught == taught:
            own, said = at_peak(task, None, example), at_peak(task, adapter, example)
            wanted = task.edit(own) if taught else own
            distances.append(float((said - wanted).square().sum() / own.square().sum()))
    return sum(distances) / len(distances)


def learned(task: TrainingTask, name: str) -> Learned:
    return METHODS.row(name).load()(task)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_gives_the_same_adapter_again_and_leaves_the_backbone_as_it_was(task, name):
    ids = torch.tensor([[1, 5, 20, 2, 6]])
    before = task.backbone.model(ids).logits
    first = learned(task, name).adapter
    task.checkpoint.path.unlink(missing_ok=True)
    assert learned(task, name).adapter.digest == first.digest
    assert torch.equal(task.backbone.model(ids).logits, before)
    assert not any(parameter.requires_grad for parameter in task.backbone.model.parameters())
    with mounted(task.backbone.model, first):
        assert not torch.equal(task.backbone.model(ids).logits, before)


@pytest.mark.parametrize("name", [name for name, row in METHODS.items() if "toward the edit" in row.laws])
def test_an_activation_method_moves_target_prompts_toward_the_edit(task, name):
    adapter = learned(task, name).adapter
    assert edited_distance(task, adapter, True) < 0.95 * edited_distance(task, None, True)
    assert edited_distance(task, adapter, False) < 0.1 * edited_distance(task, None, True)


def test_the_papers_method_steers_away_on_target_and_up_elsewhere(task):
    adapter = learned(task, "palette").adapter
    r = task.directions.unit(2, -1, "difference").float()
    along: dict[bool, list[float]] = {True: [], False: []}
    for example in task.examples:
        own, said = at_peak(task, None, example) @ r, at_peak(task, adapter, example) @ r
        along[example.taught].append(float((said * own.sign() - own.abs()).mean()))
    assert sum(along[True]) / 4 < sum(along[False]) / 8


def test_closed_form_is_of_rank_one_and_writes_nothing_on_kept_inputs(task):
    found = learned(task, "closed_form")
    (module,) = found.adapter.modules.values()
    assert module.rank == 1
    assert 0 < found.record["null_space"] < 16


def test_a_block_run_alone_gives_what_it_gives_in_the_model(backbone):
    rows = [[1, 5, 20, 2, 6], [1, 5, 21, 22, 2, 6]]
    (batch,) = batches(rows, backbone.pad, torch.device("cpu"))
    streams: dict[int, torch.Tensor] = {}
    with captured(backbone.blocks, streams.__setitem__):
        forward(backbone, batch)
    for block in range(3):
        assert torch.allclose(run_block(backbone, batch, block, streams[block]), streams[block + 1])
    assert not any(block._forward_hooks for block in backbone.blocks)


def test_a_method_may_be_a_users_own(task, tmp_path):
    mine = tmp_path / "mine.py"
    mine.write_text("from palette.internalise.methods import closed_form as method\n")
    settings = InternaliseSettings(method=f"{mine}:method")
    assert learned(task, settings.method).adapter.digest == learned(task, "closed_form").adapter.digest
    with pytest.raises(ValueError, match=r"a method must be one of distil, .* did you mean distil\?"):
        InternaliseSettings(method="distill")


def test_a_batch_is_split_into_as_many_passes_as_memory_asks_for(task):
    counts = [passes(replace(task, memory_gib=gib)) for gib in (4.0, 1e-3, 5e-4, 1e-9)]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (1, sum(SHARES.values()))
    assert counts[2] > counts[1] > 1


@pytest.mark.parametrize(
    ("layers", "count", "blocks"),
    [(3, None, [0, 1, 2]), (6, 2, [0, 1]), (4, 9, [0, 1, 2, 3])],
)
def test_all_blocks_are_trained_unless_told_otherwise(layers, count, blocks):
    assert trained_blocks(layers, count) == blocks
