"""Canaries: the certified adapter is told from another, and from the bare backbone."""

from __future__ import annotations

from typing import Any

import pytest

from palette.certificates.canaries import (
    DISTINCT,
    TOKENS,
    TOLERANCE,
    canaries_of,
    canary_prompts,
    measured_nats,
    strayed,
)
from palette.certificates.facts import Canary
from palette.evaluation.subjects import Subject
from tests.fixtures.noise import noise


@pytest.fixture(scope="module")
def mounted(shared: Any) -> tuple[Any, list[Canary]]:
    """An adapter and its canaries on the small organism."""
    adapter = noise(shared.backbone, ".mlp.", rank=4, scale=0.5)
    return adapter, canaries_of(shared.backbone, adapter, canary_prompts(shared, 4))


def test_a_canary_is_a_benign_prompt_with_the_greedy_reply(
    shared: Any, mounted: tuple[Any, list[Canary]]
) -> None:
    adapter, canaries = mounted
    assert 1 <= len(canaries) <= 4
    rendered = {tuple(each) for each in shared.render(shared.prompts.where(lambda row: row.kind == "benign"))}
    for canary in canaries:
        assert canary.prompt in rendered
        assert len(canary.reply) <= TOKENS
    assert canaries_of(shared.backbone, adapter, canary_prompts(shared, 4)) == canaries


def test_the_prompts_of_the_opened_domains_come_first(shared: Any) -> None:
    opened = {
        tuple(each)
        for each in shared.render(
            shared.prompts.where(lambda row: row.kind == "benign" and row.domain == "medical")
        )
    }
    assert all(tuple(each) in opened for each in canary_prompts(shared, 3))
    assert canary_prompts(shared, 0) == []


def test_the_adapter_itself_has_not_strayed(shared: Any, mounted: tuple[Any, list[Canary]]) -> None:
    adapter, canaries = mounted
    assert strayed(canaries, measured_nats(shared.backbone, adapter, canaries)) is None


def test_another_adapter_and_the_bare_backbone_have(shared: Any, mounted: tuple[Any, list[Canary]]) -> None:
    _, canaries = mounted
    other = noise(shared.backbone, ".mlp.", rank=4, scale=2.0)
    assert strayed(canaries, measured_nats(shared.backbone, other, canaries))
    bare = measured_nats(shared.backbone, None, canaries)  # type: ignore[arg-type]
    assert Subject(shared.backbone).adapter is None
    assert bare == pytest.approx([each.base for each in canaries], abs=1e-5)
    assert strayed(canaries, bare)


def canary(adapted: float, base: float) -> Canary:
    return Canary(prompt=(1,), reply=(2,), adapted=adapted, base=base)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (0.500, None),
        (0.500 + TOLERANCE * 0.4, None),
        (0.500 + TOLERANCE * 1.1, "canary 1 has"),
        (0.510, "nearer to the bare backbone's"),
        (float("nan"), "canary 1 has"),
        (float("inf"), "canary 1 has"),
    ],
)
def test_a_silent_downgrade_within_the_tolerance_is_told(given: float, said: str | None) -> None:
    base = 0.510 if given == 0.510 else 0.400
    found = strayed([canary(0.5, base)], [given])
    assert (found is None) if said is None else (found is not None and said in found)


def test_canaries_that_tell_nothing_apart_say_nothing() -> None:
    assert strayed([canary(0.5, 0.5 + DISTINCT / 2)], [0.505]) is None
    assert strayed([], []) is None
    with pytest.raises(ValueError, match="argument 2 is"):
        strayed([canary(0.5, 0.4)], [])
