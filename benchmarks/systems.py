"""Ways of opening domains that the control table compares: each puts prompts into states.

A prompt's state says what is mounted when it is asked; ``None`` is the bare backbone. An adapter puts
every prompt into one state, a gate only those that it lets through.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from palette.adapters.lora import Adapter
from palette.adapters.mounting import mounted
from palette.authorisation import Authorisation, Role
from palette.backbones import Backbone, batches
from palette.backbones.scoring import forward
from palette.directions import Directions, Intervention, intervening
from palette.internalise.examples import Learned, TrainingTask
from palette.internalise.methods import fitted, trained_blocks
from palette.merging.combining import combine
from palette.merging.inputs import MergeInput
from palette.prompts import Prompt
from palette.shapes import Float, Tensor
from tools.organism.probes import pooled_streams

State = tuple[str, ...] | None
Edits = Mapping[str, tuple[Directions, Intervention]]
"""The intervention of each domain's search."""


@dataclass(frozen=True)
class System:
    """How prompts are put into states, and what is mounted in one."""

    states: Callable[[Sequence[Prompt], Sequence[list[int]]], list[State]]
    mount: Callable[[tuple[str, ...]], AbstractContextManager[None]]


def bare() -> System:
    """The backbone as it is."""
    return System(lambda rows, prompts: [None] * len(rows), lambda state: nullcontext())


def adapted(
    backbone: Backbone, adapters: Mapping[str, Adapter], weights: Mapping[str, float] | None = None
) -> System:
    """The exact sum of the adapters, mounted for every prompt; by default each weighs 1."""
    inputs = [
        MergeInput(adapter, 1.0 if weights is None else weights[name], name)
        for name, adapter in sorted(adapters.items())
    ]
    merged = combine(inputs, "weighted_sum")[0] if len(inputs) > 1 else inputs[0].adapter
    state = tuple(sorted(adapters))
    return System(lambda rows, prompts: [state] * len(rows), lambda _: mounted(backbone.model, merged))


def everywhere(backbone: Backbone, edits: Edits) -> System:
    """The searched interventions on every prompt, as abliteration does."""
    state = tuple(sorted(edits))
    return System(lambda rows, prompts: [state] * len(rows), lambda s: intervened(backbone, edits, s))


def oracle(backbone: Backbone, edits: Edits, authorisation: Authorisation) -> System:
    """The interventions on the prompts that the labels say are to be opened: no gate can do better."""

    def states(rows: Sequence[Prompt], prompts: Sequence[list[int]]) -> list[State]:
        return [(row.domain,) if authorisation.role(row) is Role.TARGET else None for row in rows]

    return System(states, lambda state: intervened(backbone, edits, state))


def conditional(backbone: Backbone, edits: Edits, conditions: Mapping[str, Condition]) -> System:
    """Conditional steering (CAST, arXiv 2409.05907): a domain's intervention where its condition holds."""

    def states(rows: Sequence[Prompt], prompts: Sequence[list[int]]) -> list[State]:
        streams = pooled_streams(backbone, prompts)
        holds = {name: conditions[name].holds(streams) for name in sorted(edits)}
        return [tuple(name for name in holds if holds[name][i]) or None for i in range(len(rows))]

    return System(states, lambda state: intervened(backbone, edits, state))


@contextmanager
def intervened(backbone: Backbone, edits: Edits, state: Sequence[str]) -> Any:
    """The backbone with the interventions of the named domains on."""
    with ExitStack() as stack:
        for name in state:
            stack.enter_context(intervening(backbone, *edits[name]))
        yield


@dataclass(frozen=True)
class Condition:
    """Whether a prompt's mean stream at a site is turned towards a domain's restricted prompts."""

    site: int
    centre: Float[Tensor, "d_model"]
    direction: Float[Tensor, "d_model"]
    threshold: float

    def holds(self, streams: Float[Tensor, "prompt site d_model"]) -> list[bool]:
        """For each prompt whether the cosine with the direction is above the threshold."""
        found: list[bool] = (self.cosines(streams) > self.threshold).tolist()
        return found

    def cosines(self, streams: Float[Tensor, "prompt site d_model"]) -> Float[Tensor, "prompt"]:
        """The cosine of each prompt's centred mean stream with the direction."""
        centred = streams[:, self.site] - self.centre
        cosine: Tensor = centred @ self.direction / centred.norm(dim=-1).clamp(min=1e-12)
        return cosine


def fitted_condition(
    backbone: Backbone, inside: Sequence[list[int]], outside: Sequence[list[int]]
) -> Condition:
    """The condition with the best F1 on train prompts, over sites and thresholds.

    The direction is the first principal component of both sides' streams centred on their mean, as in
    the paper, turned towards the inside.
    """
    streams = pooled_streams(backbone, [*inside, *outside])
    labels = torch.tensor([1] * len(inside) + [0] * len(outside), dtype=torch.bool)
    best: tuple[float, Condition] | None = None
    for site in range(1, backbone.layers + 1):
        means = torch.stack([streams[labels, site].mean(0), streams[~labels, site].mean(0)])
        centre = means.mean(0)
        _, _, components = torch.linalg.svd(streams[:, site] - centre, full_matrices=False)
        for axis in (*components[:4], torch.nn.functional.normalize(means[0] - means[1], dim=0)):
            direction = axis * torch.sign((means[0] - means[1]) @ axis)
            condition = Condition(site, centre, direction, 0.0)
            cosines = condition.cosines(streams)
            for threshold in cosines[labels].quantile(torch.linspace(0, 0.5, 21).double()).tolist():
                chosen = cosines > threshold
                hits = int((chosen & labels).sum())
                f1 = 2 * hits / max(1, int(chosen.sum()) + int(labels.sum()))
                if best is None or f1 > best[0]:
                    best = f1, Condition(site, centre, direction, threshold)
    assert best is not None
    return best[1]


def supervised(task: TrainingTask) -> Learned:
    """Supervised fine-tuning: the same LoRA and examples as the default, cross-entropy on every reply."""
    backbone, examples = task.backbone, task.examples

    def loss(backbone: Backbone, rows: list[int], step: list[int]) -> Tensor:
        chosen = [examples[row] for row in rows]
        whole = [example.ids for example in chosen]
        (batch,) = batches(whole, backbone.pad, backbone.model.device, tokens=1 << 40)
        logits = forward(backbone, batch, max(len(example.reply) for example in chosen) + 1).float()
        terms = [
            cross_entropy(
                row[-len(chosen[index].reply) - 1 : -1],
                torch.tensor(chosen[index].reply),
                reduction="sum",
            )
            for index, row in zip(batch.rows, logits, strict=True)
        ]
        return torch.stack(terms).sum() / sum(len(examples[row].reply) for row in step)

    blocks = trained_blocks(backbone.layers, task.settings.blocks)
    return fitted(task, blocks, lambda twin, bare: partial(loss, twin))
