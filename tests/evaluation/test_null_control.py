"""An adapter that has learned nothing, and the figures beside which it stands."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from palette.adapters.lora import Adapter, LoraModule, cosine
from palette.authorisation import Role
from palette.backbones import Backbone
from palette.evaluation.counting import headline
from palette.evaluation.null_control import EVERY, NullControl, control_of, sampled
from palette.evaluation.outcomes import Outcome
from palette.evaluation.replies import Replies
from palette.evaluation.subjects import Requests, Subject
from palette.judging.judge import Label
from palette.judging.rules import RuleJudge
from palette.prompts import Prompt

YES, NO, BABBLE = Label.FULL_COMPLIANCE, Label.REFUSAL, Label.DEGENERATE


def adapter(rank: int = 4, scale: float = 0.3) -> Adapter:
    drawn = torch.Generator().manual_seed(3)
    factors = {
        f"m{i}": (torch.randn(rank, 24, generator=drawn), torch.randn(16, rank, generator=drawn))
        for i in (0, 1)
    }
    return Adapter(
        {name: LoraModule(*each, scale * (i + 1)) for i, (name, each) in enumerate(factors.items())}
    )


@given(st.integers(0, 9), st.integers(1, 6), st.floats(1e-4, 10))
def test_the_control_has_every_module_s_shape_rank_and_norm(seed: int, rank: int, scale: float) -> None:
    own = adapter(rank, scale)
    control = control_of(own, seed)
    assert list(control.modules) == list(own.modules)
    for name, module in own.modules.items():
        drawn = control.modules[name]
        assert (drawn.shape, drawn.rank) == (module.shape, module.rank)
        assert drawn.norm() == pytest.approx(module.norm(), rel=1e-9)
    assert control.digest == control_of(own, seed).digest != control_of(own, seed + 1).digest


def test_its_directions_are_others_in_every_module() -> None:
    control = control_of(adapter(), 0)
    assert abs(cosine(adapter(), control)) < 0.2
    first, second = control.modules.values()
    assert not torch.allclose(first.lora_A, second.lora_A)


def test_a_null_adapter_has_a_null_control() -> None:
    null = Adapter(
        {
            "m": LoraModule(torch.zeros(2, 3), torch.zeros(4, 2)),
            "none": LoraModule(torch.zeros(0, 3), torch.zeros(4, 0)),
        }
    )
    assert [module.norm() for module in control_of(null, 0).modules.values()] == [0, 0]


def rows(counts: dict[tuple[str, Role], int]) -> Requests:
    made = [
        (Prompt(f"{domain}-{role}-{i}", domain, "?", "benign", "test"), role)
        for (domain, role), n in counts.items()
        for i in range(n)
    ]
    return Requests([row for row, _ in made], [role for _, role in made], [[1]] * len(made))


def test_the_sample_is_of_every_domain_and_role_and_a_fifth_of_the_prompts_at_most() -> None:
    counts = {
        ("a", Role.TARGET): 200,
        ("b", Role.PRESERVE): 200,
        ("b", Role.FLOOR): 48,
        ("c", Role.BENIGN): 3,
    }
    requests = rows(counts)
    found = sampled(requests)
    chosen = [(requests.rows[i].domain, requests.roles[i]) for i in found]
    assert {place: chosen.count(place) for place in counts} == {
        (domain, role): -(-n // EVERY[role]) for (domain, role), n in counts.items()
    }
    assert found == sorted(found)
    # As in the organism's medical recipe: one domain of seven is opened, each with its benign prompts.
    organism = {(name, Role.BENIGN): 200 for name in "abcdefg"} | {
        (name, Role.PRESERVE): 200 for name in "bcdef"
    }
    organism |= {("a", Role.TARGET): 200} | {(name, Role.FLOOR): 144 for name in "abcdef"}
    assert len(sampled(rows(organism))) < len(rows(organism)) / 5


def outcomes() -> list[Outcome]:
    return [
        Outcome("t0", "a", Role.TARGET, NO, YES, False, True),
        Outcome("t1", "a", Role.TARGET, NO, BABBLE, False, False),
        Outcome("t2", "a", Role.TARGET, NO, NO),
        Outcome("p0", "b", Role.PRESERVE, NO, YES),
        Outcome("p1", "b", Role.PRESERVE, YES, YES),
        Outcome("f0", "b", Role.FLOOR, NO, NO),
        Outcome("b0", "b", Role.BENIGN, YES, YES),
        Outcome("b1", "b", Role.BENIGN, YES, YES),
    ]


def counts(figures: dict[str, dict[str, float | int]]) -> dict[str, tuple[float | int, float | int]]:
    return {name: (rate["k"], rate["n"]) for name, rate in figures.items()}


def test_the_headline_counts_each_figure_once() -> None:
    own = [[1]] * 8
    said = [[2]] * 6 + [[1], [3]]
    assert counts(headline(outcomes(), own, said)) == {
        "authorised_refused": (1, 3),
        "authorised_answered": (1, 3),
        "authorised_correct": (1, 2),
        "benign_exact": (1, 2),
        "others_kept": (0, 1),
        "floor_kept": (1, 1),
    }
    assert set(headline(outcomes()[:3], own[:3], said[:3])) == {
        "authorised_refused",
        "authorised_answered",
        "authorised_correct",
    }


class Letters(Backbone):
    """A backbone that decodes to sentences."""

    def __init__(self) -> None:
        """A backbone without a model."""

    def decode(self, ids: list[int]) -> str:
        return {1: "It is nine.", 2: "I cannot help with that."}[ids[0]]


def test_the_control_is_judged_on_its_own_replies_beside_the_others_figures() -> None:
    requests = rows({("a", Role.TARGET): 4, ("b", Role.PRESERVE): 8})
    plain = [
        Outcome(r.id, r.domain, role, NO, YES) for r, role in zip(requests.rows, requests.roles, strict=True)
    ]
    control = NullControl(Subject(Letters()), 5, sampled(requests))
    own, changed = [[2]] * 12, [[1]] * 12
    found = control.figures(RuleJudge(), requests, plain, (own, changed), [[2], [2], [1]])
    assert (found["seed"], found["prompts"]) == (5, 3)
    assert counts(found["base"]) == {
        "authorised_refused": (2, 2),
        "authorised_answered": (0, 2),
        "others_kept": (1, 1),
    }
    assert counts(found["control"]) == {
        "authorised_refused": (2, 2),
        "authorised_answered": (0, 2),
        "others_kept": (0, 1),
    }
    assert counts(found["adapted"]) == {
        "authorised_refused": (0, 2),
        "authorised_answered": (2, 2),
        "others_kept": (0, 1),
    }


def test_replies_of_the_control_are_no_longer_than_those_of_the_evaluation() -> None:
    requests = rows({("a", Role.TARGET): 4, ("b", Role.FLOOR): 8})
    seen = {}

    class Source(Replies):
        def of(self, subject, prompts, limits):
            seen["limits"] = limits
            return [[1]] * len(prompts)

    control = NullControl(Subject(Letters()), 0, sampled(requests))
    control.replies(Source(), requests, requests.limits(128, 12), 30)
    assert seen["limits"] == [30, 30, 12]
    control.replies(Source(), requests, requests.limits(128, 12), 0)
    assert seen["limits"] == [1, 1, 1]
    assert replace(control, places=[]).replies(Source(), requests, [], 3) == []
