"""The null control: the headline figures of an adapter that is as large and has learned nothing.

What they are for it is what the measure gives for nothing; beside them stand those of the adapter, and of
the backbone alone, on the same prompts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from palette.adapters.lora import Adapter, LoraModule
from palette.authorisation import Role
from palette.backbones import Backbone
from palette.evaluation.correctness import marks
from palette.evaluation.counting import headline
from palette.evaluation.outcomes import Outcome
from palette.evaluation.replies import Replies
from palette.evaluation.subjects import Requests, Subject, Tokens
from palette.judging.judge import Judge
from palette.seeding import derive_seed

EVERY: Mapping[Role, int] = {Role.TARGET: 3, Role.PRESERVE: 8, Role.FLOOR: 8, Role.BENIGN: 8}
"""Of so many prompts of a role and domain one is asked: more of the authorised ones, which are few and say
most. All together stay below a fifth of the replies of an evaluation."""


@dataclass(frozen=True)
class NullControl:
    """A control adapter on its backbone, and the places of the requests that it is asked."""

    subject: Subject
    seed: int
    places: list[int]

    @classmethod
    def of(cls, backbone: Backbone, adapter: Adapter, requests: Requests, seed: int) -> NullControl:
        """The control of an adapter, drawn from ``seed``, with its sample of the requests."""
        return cls(Subject(backbone, control_of(adapter, seed)), seed, sampled(requests))

    def replies(
        self, source: Replies, requests: Requests, limits: Sequence[int], longest: int
    ) -> list[Tokens]:
        """What the control replies to its sample.

        Babble need not end, so that no reply is longer than the ``longest`` of the evaluation.
        """
        asked = requests.where(self.places).prompts
        return source.of(self.subject, asked, [max(1, min(limits[i], longest)) for i in self.places])

    def figures(
        self,
        judge: Judge,
        requests: Requests,
        outcomes: Sequence[Outcome],
        sides: tuple[Sequence[Tokens], Sequence[Tokens]],
        said: Sequence[Tokens],
    ) -> dict[str, Any]:
        """The headline of backbone, control and adapter on the sample: the section of a report.

        ``outcomes`` and ``sides``, the replies of backbone and adapter, are those of all requests.
        """
        part = requests.where(self.places)
        own, changed = ([side[i] for i in self.places] for side in sides)
        adapted = [outcomes[i] for i in self.places]
        texts = [self.subject.backbone.decode(reply) for reply in said]
        verdicts = judge.verdicts(part.questions, texts)
        right = marks(judge, part, texts, verdicts)
        control = [
            replace(outcome, label_adapted=verdict.label, correct_adapted=mark)
            for outcome, verdict, mark in zip(adapted, verdicts, right, strict=True)
        ]
        alone = [replace(o, label_adapted=o.label_base, correct_adapted=o.correct_base) for o in adapted]
        return {
            "seed": self.seed,
            "prompts": len(part),
            "base": headline(alone, own, own),
            "control": headline(control, own, said),
            "adapted": headline(adapted, own, changed),
        }


def control_of(adapter: Adapter, seed: int) -> Adapter:
    """An adapter of the same modules, ranks and Frobenius norms of ΔW, in random directions.

    The factors of each module are Gaussian, drawn from ``seed`` and the module's name.
    """
    modules = {}
    for name, module in adapter.modules.items():
        generator = torch.Generator().manual_seed(derive_seed(seed, "null control", name))
        down, up = (torch.randn(each.shape, generator=generator) for each in (module.lora_A, module.lora_B))
        size = LoraModule(down, up).norm()
        modules[name] = LoraModule(down, up, module.norm() / size if size else 0.0)
    return replace(adapter, modules=modules)


def sampled(requests: Requests) -> list[int]:
    """The places of the prompts that a control is asked: of each role and domain one of ``EVERY``."""
    met: Counter[tuple[str, Role]] = Counter()
    places = []
    for place, (row, role) in enumerate(zip(requests.rows, requests.roles, strict=True)):
        if met[row.domain, role] % EVERY[role] == 0:
            places.append(place)
        met[row.domain, role] += 1
    return places
