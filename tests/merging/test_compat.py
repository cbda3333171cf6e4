"""The presets against the tools' and the papers' own dense results.

PEFT is run as it is, on dense task tensors. mergekit and the papers are written anew here, in the
plainest dense form, from what they document.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft.utils import merge_utils

from palette.adapters.lora import Adapter, LoraModule
from palette.merging.combining import combine
from palette.merging.inputs import Group, MergeInput
from palette.merging.methods import merge_method
from palette.merging.sparse import random_words

Maker = Callable[..., Adapter]
Tensors = list[torch.Tensor]

SHAPES = {"x": (6, 7)}
KEYS = ("a", "b", "c")
WEIGHTS = [1.0, 0.5, -0.75]


def adapters(maker: Maker, seed: int) -> list[LoraModule]:
    return [maker(seed + step, 3, SHAPES).modules["x"] for step in range(3)]


def ours(tool: str, method: str, modules: Sequence[LoraModule], **given: object) -> torch.Tensor:
    row = merge_method(method)
    options = row.settled(given, tool)
    merged = row.load()(Group(modules, WEIGHTS, "x", KEYS), **options)
    return merged.delta() if isinstance(merged, LoraModule) else merged.dense()


def near(one: torch.Tensor, other: torch.Tensor) -> None:
    assert torch.allclose(one, other, rtol=0, atol=1e-12 * float(other.abs().max()))


def uniform(seed: int, key: str, shape: tuple[int, int]) -> torch.Tensor:
    """The random numbers of a mask, in [0, 1)."""
    return torch.from_numpy(random_words(f"{seed}\0{key}\0x", 0, *shape) / 2.0**32)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), density=st.floats(0.05, 0.99))
def test_peft(random_adapter: Maker, seed: int, density: float) -> None:
    modules = adapters(random_adapter, seed)
    deltas, weights = [module.delta() for module in modules], torch.tensor(WEIGHTS).double()
    near(ours("peft", "weighted_sum", modules), merge_utils.task_arithmetic(deltas, weights))
    near(ours("peft", "ties", modules, density=density), merge_utils.ties(deltas, weights, density))
    expected = merge_utils.magnitude_prune(deltas, weights, density)
    near(ours("peft", "magnitude", modules, density=density), expected)


@pytest.mark.parametrize(("method", "theirs"), [("dare", "dare_linear"), ("dare_ties", "dare_ties")])
def test_peft_at_random(
    random_adapter: Maker, monkeypatch: pytest.MonkeyPatch, method: str, theirs: str
) -> None:
    """With the same masks: torch's generator is the only thing replaced."""
    modules, density = adapters(random_adapter, 5), 0.6
    masks = iter([(uniform(9, key, (6, 7)) < density).double() for key in KEYS])
    monkeypatch.setattr(torch, "bernoulli", lambda probability: next(masks))
    deltas = [module.delta() for module in modules]
    expected = getattr(merge_utils, theirs)(deltas, torch.tensor(WEIGHTS).double(), density)
    near(ours("peft", method, modules, density=density, seed=9), expected)


def largest(delta: torch.Tensor, count: int) -> torch.Tensor:
    """The entries of largest magnitude, the rest 0."""
    kept = torch.zeros_like(delta).flatten()
    places = delta.abs().flatten().argsort(descending=True)[:count]
    kept[places] = delta.flatten()[places]
    return kept.reshape(delta.shape)


def restored(delta: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
    """The masked delta with the L1 norm that the whole had."""
    return masked * (delta.abs().sum() / masked.abs().sum())


def mergekit(parts: Tensors, weights: Sequence[float], vote: bool, normalise: bool) -> torch.Tensor:
    """Generalised task arithmetic: sign of the weighted sum, the sum of what agrees, its weights."""
    stack = torch.stack([weight * part for weight, part in zip(weights, parts, strict=True)])
    agrees = torch.ones_like(stack)
    if vote:
        agrees = (stack.sign() == torch.where(stack.sum(dim=0) >= 0, 1.0, -1.0)).double()
    summed = (stack * agrees).sum(dim=0)
    if not normalise:
        return summed
    divisor = (agrees * torch.tensor(weights).double()[:, None, None]).sum(dim=0)
    return summed / torch.where(divisor.abs() < 1e-8, 1.0, divisor)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), density=st.floats(0.05, 0.95), gamma=st.floats(0, 0.6))
def test_mergekit_by_magnitude(random_adapter: Maker, seed: int, density: float, gamma: float) -> None:
    modules = adapters(random_adapter, seed)
    deltas = [module.delta() for module in modules]
    count = max(1, int(density * 42))
    trimmed = [largest(delta, count) for delta in deltas]
    near(ours("mergekit", "ties", modules, density=density), mergekit(trimmed, WEIGHTS, True, True))
    top = min(int(gamma * 42), 42 - count)
    crumbs = [largest(delta, count + top) - largest(delta, top) for delta in deltas]
    merged = ours("mergekit", "breadcrumbs", modules, density=density, gamma=gamma)
    near(merged, mergekit(crumbs, WEIGHTS, False, False))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), density=st.floats(0.3, 0.8), epsilon=st.floats(0, 0.19))
def test_mergekit_at_random(random_adapter: Maker, seed: int, density: float, epsilon: float) -> None:
    modules = adapters(random_adapter, seed)
    deltas = [module.delta() for module in modules]
    numbers = [uniform(seed, key, (6, 7)) for key in KEYS]
    pairs = list(zip(deltas, numbers, strict=True))
    thin = [restored(delta, delta * (number < density)) for delta, number in pairs]
    given_options = {"density": density, "seed": seed}
    near(ours("mergekit", "dare", modules, **given_options), mergekit(thin, WEIGHTS, False, False))
    near(ours("mergekit", "dare_ties", modules, **given_options), mergekit(thin, WEIGHTS, True, False))
    parts = []
    for delta, number in pairs:
        rank = delta.abs().argsort(dim=1).argsort(dim=1).double()
        parts.append(restored(delta, delta * (number < density - epsilon + rank / 6 * 2 * epsilon)))
    merged = ours("mergekit", "della", modules, **given_options, epsilon=epsilon)
    near(merged, mergekit(parts, WEIGHTS, True, True))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), density=st.floats(0.05, 0.95))
def test_the_paper_of_ties_trims_the_whole_vector(random_adapter: Maker, seed: int, density: float) -> None:
    made = [random_adapter(seed + step) for step in range(3)]
    merged, _ = combine(
        [MergeInput(adapter) for adapter in made],
        "ties",
        options=merge_method("ties").settled({"density": density}, "paper"),
    )
    names = sorted(made[0].modules)
    flat = torch.stack([torch.cat([one.modules[n].delta().flatten() for n in names]) for one in made])
    flat = torch.stack([largest(vector, max(1, int(density * len(vector)))) for vector in flat])
    agrees = (flat.sign() == flat.sum(dim=0).sign()) & (flat != 0)
    expected = (flat * agrees).sum(dim=0) / agrees.sum(dim=0).clamp(min=1)
    found = torch.cat([merged.modules[name].delta().flatten() for name in names])
    assert torch.allclose(found, expected, rtol=0, atol=1e-9 * float(expected.abs().max()))


def test_the_papers_rescale_by_the_chance(random_adapter: Maker) -> None:
    modules = adapters(random_adapter, 3)
    numbers = [uniform(4, key, (6, 7)) for key in KEYS]
    thin, ranked = [], []
    for module, number in zip(modules, numbers, strict=True):
        delta = module.delta()
        thin.append(delta * (number < 0.5) / 0.5)
        chance = 0.4 + delta.abs().argsort(dim=1).argsort(dim=1).double() / 6 * 0.2
        ranked.append(delta * (number < chance) / chance)
    near(ours("paper", "dare", modules, density=0.5, seed=4), mergekit(thin, WEIGHTS, False, False))
    stack = torch.stack([weight * part for weight, part in zip(WEIGHTS, ranked, strict=True)])
    agrees = stack * stack.sum(dim=0).sign() > 0
    expected = (stack * agrees).sum(dim=0) / agrees.sum(dim=0).clamp(min=1)
    near(ours("paper", "della", modules, density=0.5, epsilon=0.1, seed=4), expected)


def test_the_choices_differ(random_adapter: Maker) -> None:
    modules = adapters(random_adapter, 1)
    results = [ours(tool, "ties", modules, density=0.5) for tool in ("peft", "mergekit")]
    assert not torch.allclose(*results)
