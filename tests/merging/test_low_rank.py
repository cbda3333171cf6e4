"""Methods in factor space against their papers' equations, written densely."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from palette.adapters.lora import Adapter, LoraModule
from palette.errors import RecipeError
from palette.merging.inputs import Group
from palette.merging.low_rank import output_basis, outputs_in, shared_cores, tucker
from palette.merging.methods import TABLE, merge_method

Maker = Callable[..., Adapter]

SHAPE = {"x": (9, 8)}
SUM = {"elect": "none", "divide": "none"}
seeds = st.integers(0, 2**31)
laws = settings(max_examples=15, deadline=None)


def made(maker: Maker, seed: int, count: int = 3, rank: int = 2) -> list[LoraModule]:
    return [maker(seed + step, rank, SHAPE).modules["x"] for step in range(count)]


def merge(method: str, modules: list[LoraModule], weights: list[float], **given: object) -> torch.Tensor:
    row = merge_method(method)
    merged = row.load()(Group(modules, weights, "x", "abcd"), **row.settled(given))
    assert isinstance(merged, LoraModule)
    return merged.delta()


def near(one: torch.Tensor, other: torch.Tensor) -> None:
    assert torch.allclose(one, other, rtol=0, atol=1e-9 * float(other.abs().max()))


def ties(parts: list[torch.Tensor], weights: list[float], density: float) -> torch.Tensor:
    """TIES of dense matrices, tensor by tensor, after weighting, by count."""
    trimmed = []
    for weight, part in zip(weights, parts, strict=True):
        count = max(1, int(density * part.numel()))
        smallest = part.abs().flatten().kthvalue(part.numel() - count + 1).values
        trimmed.append(weight * torch.where(part.abs() >= smallest, part, 0.0))
    stack = torch.stack(trimmed)
    agrees = stack * stack.sum(dim=0).sign() > 0
    return (stack * agrees).sum(dim=0) / agrees.sum(dim=0).clamp(min=1)


@laws
@given(seed=seeds)
def test_bases_are_those_of_the_stacked_deltas(random_adapter: Maker, seed: int) -> None:
    modules = made(random_adapter, seed)
    deltas = [module.delta() for module in modules]
    outputs = output_basis(modules)
    left, values, _ = torch.linalg.svd(torch.cat(deltas, dim=1), full_matrices=False)
    near(outputs.values, values[:6])
    near(outputs.vectors @ outputs.vectors.T, left[:, :6] @ left[:, :6].T)
    basis, inputs, cores = shared_cores(modules)
    for module, core, delta in zip(modules, cores, deltas, strict=True):
        near(outputs.vectors @ outputs_in(outputs.vectors, module), delta)
        near(basis @ core @ inputs.T, delta)


def test_a_basis_of_the_same_adapter_twice_is_that_of_one(random_adapter: Maker) -> None:
    module = made(random_adapter, 1)[0]
    assert output_basis([module, module]).vectors.shape == (9, 2)
    null = LoraModule(torch.zeros(2, 8), torch.ones(9, 2))
    assert output_basis([null]).vectors.shape == (9, 0)


@laws
@given(seed=seeds, density=st.floats(0.1, 1.0), values=st.sampled_from(["before", "after"]))
def test_knots(random_adapter: Maker, seed: int, density: float, values: str) -> None:
    modules, weights = made(random_adapter, seed), [1.0, 0.5, -0.7]
    stacked = torch.cat([module.delta() for module in modules], dim=1)
    left, sizes, right = (one[..., :6] for one in torch.linalg.svd(stacked, full_matrices=False))
    right = torch.linalg.svd(stacked, full_matrices=False).Vh[:6]
    if values == "before":
        aligned = [sizes[:, None] * part for part in right.split(8, dim=1)]
        expected = left @ ties(aligned, weights, density)
    else:
        expected = left @ (sizes[:, None] * ties(list(right.split(8, dim=1)), weights, density))
    near(merge("knots", modules, weights, density=density, values=values), expected)


@pytest.mark.parametrize("method", ["knots", "core_space", "compress_then_merge"])
def test_the_sum_in_a_lossless_space_is_the_weighted_sum(random_adapter: Maker, method: str) -> None:
    modules, weights = made(random_adapter, 4), [1.0, 0.5, -0.7]
    expected = sum(weight * module.delta() for weight, module in zip(weights, modules, strict=True))
    near(merge(method, modules, weights, density=1.0, **SUM), expected)


@laws
@given(seed=seeds, density=st.floats(0.1, 1.0))
def test_core_space(random_adapter: Maker, seed: int, density: float) -> None:
    modules, weights = made(random_adapter, seed), [1.0, 0.5, -0.7]
    deltas = [module.delta() for module in modules]
    left = torch.linalg.svd(torch.cat(deltas, dim=1), full_matrices=False).U[:, :6]
    right = torch.linalg.svd(torch.cat(deltas), full_matrices=False).Vh[:6].T
    cores = [left.T @ delta @ right for delta in deltas]
    expected = left @ ties(cores, weights, density) @ right.T
    near(merge("core_space", modules, weights, density=density), expected)


@laws
@given(seed=seeds, beta=st.floats(0, 1))
def test_compress_then_merge_projects_what_it_merges(random_adapter: Maker, seed: int, beta: float) -> None:
    """Subspaces of the rescaled deltas, found here by orthogonal iteration on the dense tensor."""
    modules, weights = made(random_adapter, seed), [1.0, 0.5, 0.25]
    deltas = [module.delta() for module in modules]
    norms = [float(delta.norm()) for delta in deltas]
    mean = sum(norms) / 3
    targets = [
        delta / norm * (beta * norm + (1 - beta) * mean) for delta, norm in zip(deltas, norms, strict=True)
    ]
    merged = merge("compress_then_merge", modules, weights, components=3, beta=beta, density=1.0, **SUM)
    assert torch.linalg.matrix_rank(merged, rtol=1e-9) == 3
    left, _, right = (one for one in torch.linalg.svd(merged, full_matrices=False))
    left, right = left[:, :3], right[:3].T
    near(left @ left.T @ sum(w * d for w, d in zip(weights, deltas, strict=True)) @ right @ right.T, merged)
    kept = sum(float((left.T @ target @ right).square().sum()) for target in targets)
    started = torch.linalg.svd(torch.cat(targets, dim=1), full_matrices=False).U[:, :3]
    ended = torch.linalg.svd(torch.cat(targets), full_matrices=False).Vh[:3].T
    assert kept >= (1 - 1e-9) * sum(float((started.T @ one @ ended).square().sum()) for one in targets)


def test_tucker_finds_subspaces_that_are_there() -> None:
    generator = torch.Generator().manual_seed(1)
    left = torch.linalg.qr(torch.randn(9, 2, generator=generator, dtype=torch.float64)).Q
    right = torch.linalg.qr(torch.randn(8, 2, generator=generator, dtype=torch.float64)).Q
    cores = torch.randn(4, 2, 2, generator=generator, dtype=torch.float64)
    found = tucker([left @ core @ right.T for core in cores], 2)
    near(found[0] @ found[0].T, left @ left.T)
    near(found[1] @ found[1].T, right @ right.T)


def test_a_null_adapter_changes_no_subspace(random_adapter: Maker) -> None:
    module = made(random_adapter, 1)[0]
    null = LoraModule(torch.zeros(1, 8), torch.ones(9, 1))
    near(merge("compress_then_merge", [module, null], [1.0, 1.0], density=1.0), module.delta())


@laws
@given(seed=seeds)
def test_tsv(random_adapter: Maker, seed: int) -> None:
    modules, weights = made(random_adapter, seed), [1.0, 0.5, -0.7]
    parts = [torch.linalg.svd(module.delta(), full_matrices=False) for module in modules]
    left = torch.linalg.svd(torch.cat([part.U[:, :2] for part in parts], dim=1), full_matrices=False)
    right = torch.linalg.svd(torch.cat([part.Vh[:2] for part in parts]), full_matrices=False)
    sizes = torch.cat([weight * part.S[:2] for weight, part in zip(weights, parts, strict=True)])
    near(merge("tsv", modules, weights), (left.U @ left.Vh * sizes) @ (right.U @ right.Vh))


def test_tsv_takes_an_equal_share_of_each_task(random_adapter: Maker) -> None:
    modules = made(random_adapter, 2, count=4, rank=3)
    assert torch.linalg.matrix_rank(merge("tsv", modules, [1.0] * 4), rtol=1e-9) == 8
    shared = merge("tsv", [modules[0], modules[0]], [1.0, 1.0])
    near(shared, modules[0].delta())


@laws
@given(seed=seeds, restore=st.booleans())
def test_pico(random_adapter: Maker, seed: int, restore: bool) -> None:
    modules, weights = made(random_adapter, seed), [1.0, 0.5, -0.7]
    deltas = [module.delta() for module in modules]
    spectra = [torch.linalg.svd(delta, full_matrices=False) for delta in deltas]
    stacked = torch.cat([part.U * part.S for part in spectra], dim=1)
    left, sizes, _ = torch.linalg.svd(stacked, full_matrices=False)
    damping = 1 / (1 + 2 * sizes**2 / (sizes**2).sum())
    calibrate = torch.eye(9, dtype=torch.float64) + left @ torch.diag(damping - 1) @ left.T
    expected = calibrate @ sum(weight * delta for weight, delta in zip(weights, deltas, strict=True))
    if restore:
        norms = [abs(weight) * delta.norm() for weight, delta in zip(weights, deltas, strict=True)]
        expected = expected * sum(norms) / 3 / expected.norm()
    near(merge("pico", modules, weights, restore=restore), expected)


def test_pico_damps_what_is_shared_towards_one_nth() -> None:
    shared = torch.zeros(4, 1, dtype=torch.float64)
    shared[0] = 1.0
    modules = [LoraModule(torch.eye(4, dtype=torch.float64)[[row]], shared) for row in range(3)]
    merged = merge("pico", modules, [1.0] * 3, restore=False)
    assert torch.allclose(merged[0, :3], torch.full((3,), 1 / 3).double())


def test_what_is_null_stays_null() -> None:
    null = LoraModule(torch.zeros(1, 8), torch.ones(9, 1))
    for row in TABLE:
        if not row.takes_moments:
            merged = row.load()(Group([null, null], [1.0, 1.0], "x", "ab"), **row.settled({}))
            whole = merged.delta() if isinstance(merged, LoraModule) else merged.dense()
            assert not whole.any(), row.name


@laws
@given(seed=seeds, alpha=st.floats(0.1, 1.0))
def test_svc(random_adapter: Maker, seed: int, alpha: float) -> None:
    modules, weights = made(random_adapter, seed), [1.0, 0.5, -0.7]
    parts = [weight * module.delta() for weight, module in zip(weights, modules, strict=True)]
    left, sizes, right = torch.linalg.svd(sum(parts), full_matrices=False)
    expected = torch.zeros(9, 8, dtype=torch.float64)
    for column in range(6):
        whole = left[:, column] @ sum(parts)
        inflation = [(whole @ (left[:, column] @ one)) / (left[:, column] @ one).norm() ** 2 for one in parts]
        gamma = 3 / sum(max(alpha, float(one)) for one in inflation)
        expected += gamma * sizes[column] * torch.outer(left[:, column], right[column])
    near(merge("svc", modules, weights, alpha=alpha), expected)


def test_svc_counts_what_is_shared_once_and_leaves_what_is_not(random_adapter: Maker) -> None:
    module = made(random_adapter, 1)[0]
    near(merge("svc", [module, module], [1.0, 1.0]), module.delta())
    eye = torch.eye(4, dtype=torch.float64)
    apart = [LoraModule(eye[[place]], eye[:, [place]]) for place in (0, 1)]
    near(merge("svc", apart, [1.0, 1.0]), sum(one.delta() for one in apart))


@laws
@given(seed=seeds, alpha=st.floats(0.1, 1.0))
def test_regmean_is_the_least_squares_merge(random_adapter: Maker, seed: int, alpha: float) -> None:
    modules = made(random_adapter, seed)
    generator = torch.Generator().manual_seed(seed)
    inputs = [torch.randn(8, 30, generator=generator, dtype=torch.float64) for _ in modules]
    moments = [one @ one.T for one in inputs]
    row = merge_method("regmean")
    group = Group(modules, [1.0] * 3, "x", "abc", moments=moments)
    exact = row.load()(group, **row.settled({"alpha": 1.0})).delta()
    outputs = [module.delta() @ one for module, one in zip(modules, inputs, strict=True)]
    fitted = torch.linalg.lstsq(torch.cat(inputs, dim=1).T, torch.cat(outputs, dim=1).T).solution.T
    near(exact, fitted)
    shrunk = [alpha * one + (1 - alpha) * torch.diag(one.diag()) for one in moments]
    expected = sum(module.delta() @ one for module, one in zip(modules, shrunk, strict=True))
    expected = expected @ torch.linalg.inv(sum(shrunk))
    near(row.load()(group, **row.settled({"alpha": alpha})).delta(), expected)


def test_regmean_refuses_moments_that_are_missing_or_singular(random_adapter: Maker) -> None:
    modules = made(random_adapter, 1, count=1)
    row = merge_method("regmean")
    with pytest.raises(RecipeError) as caught:
        row.load()(Group(modules, [1.0], "layers.0.q_proj"), **row.settled({}))
    assert str(caught.value) == (
        "regmean must have the second moments of what each adapter's module reads, got none for 1 that read "
        "8 numbers; name a file of them for each adapter as moments in a merge recipe, or use another method "
        "(layers.0.q_proj)"
    )
    with pytest.raises(RecipeError) as caught:
        row.load()(Group(modules, [1.0], "x", moments=[torch.zeros(8, 8)]), **row.settled({}))
    assert str(caught.value) == (
        "regmean's second moments must be positive definite in sum, got a singular matrix; "
        "collect them on more prompts (x)"
    )
