"""Merges that are exact on the factors: no ΔW is formed, and what comes out are factors again.

What several ΔW span together is found from their factors: shared bases, and coordinates in them. Bases
are those of the ΔW, not of the factors, so that rotated factors change nothing. Two adapters with the
same factors have the same coordinates to the last bit, so that what cancels is exactly 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from palette.adapters.factorisation import EPSILON, concatenate, spectrum_of_factors, truncate
from palette.adapters.lora import LoraModule
from palette.errors import RecipeError
from palette.merging.inputs import Group
from palette.merging.sparse import consensus, largest
from palette.merging.tiles import tiled
from palette.shapes import Float, Tensor

SWEEPS = 20
CONVERGED = 1e-12
"""The growth of the captured energy in one sweep, relative, below which subspaces are taken."""


def weighted_sum(group: Group) -> LoraModule:
    """ΔW = Σᵢ wᵢ ΔWᵢ as the factors B = [w₁s₁B₁ | …], A = [A₁; …] (arXiv 2212.04089, eq. 1).

    Nothing is rounded but the products wᵢsᵢBᵢ, in float64. The ranks add.
    """
    return concatenate(group.modules, group.weights)


def knots(group: Group, *, values: str, density: float, **vote: str) -> LoraModule:
    """The merge of aligned task vectors, as factors (arXiv 2410.19735, section 4).

        [ΔW₁ | … | ΔW_N] = U Σ [V₁ | … | V_N]ᵀ,   ΔW = U Σ merge(V₁ᵀ, …, V_Nᵀ)

    merge is TIES, or the sum with ``elect`` and ``divide`` none and density 1. ``values`` says whether
    Σ is multiplied in before the merge, as the authors' code does, or after it, as they write; it
    matters to trimming only. U and Σ V_iᵀ = UᵀΔW_i come from the factors.
    """
    basis = output_basis(group.modules)
    aligned = [outputs_in(basis.vectors, module) for module in group.modules]
    if values == "after":
        aligned = [matrix / basis.values[:, None] for matrix in aligned]
    merged = ties_of(aligned, group.weights, density, **vote)
    if values == "after":
        merged = merged * basis.values[:, None]
    return LoraModule(merged, basis.vectors)


def core_space(group: Group, *, density: float, **vote: str) -> LoraModule:
    """The merge of cores between the bases that all adapters share (arXiv 2509.17786, section 4).

        M_i = U_Bᵀ ΔW_i V_A,   ΔW = U_B merge(M₁, …, M_N) V_Aᵀ

    U_B spans all outputs and V_A all inputs, so that no ΔW_i loses anything. merge is TIES; a sum of
    cores would be the weighted sum itself. The paper takes the bases from the stacked factors as they
    were trained; here they are those of the stacked ΔW, so that rotated factors change nothing.
    """
    outputs, inputs, cores = shared_cores(group.modules)
    merged = ties_of(cores, group.weights, density, **vote)
    return LoraModule(merged @ inputs.T, outputs)


def compress_then_merge(
    group: Group, *, components: int, beta: float, density: float, **vote: str
) -> LoraModule:
    """The merge of r × r coordinates in shared subspaces, at rank r by construction (arXiv 2606.03723).

        max over U, V of Σᵢ ‖Uᵀ Xᵢ V‖²,   Xᵢ = (β ‖ΔWᵢ‖ + (1 − β) mean‖ΔW‖) ΔWᵢ / ‖ΔWᵢ‖
        Oᵢ = Uᵀ ΔWᵢ V,   ΔW = U merge(O₁, …, O_N) Vᵀ

    r is ``components``. The bases are a Tucker-2 decomposition (higher-order SVD, then orthogonal
    iteration), solved in the core space of the factors, which loses nothing. merge is TIES, or the
    sum with ``elect`` and ``divide`` none and density 1.
    """
    outputs, inputs, cores = shared_cores(group.modules)
    norms = [float(core.norm()) for core in cores]
    mean = math.fsum(norms) / len(norms)
    targets = [
        core * ((beta * size + (1 - beta) * mean) / size) if size else core
        for core, size in zip(cores, norms, strict=True)
    ]
    left, right = tucker(targets, components)
    coordinates = [left.T @ core @ right for core in cores]
    merged = ties_of(coordinates, group.weights, density, **vote)
    return LoraModule(merged @ (inputs @ right).T, outputs @ left)


def tsv(group: Group) -> LoraModule:
    """The sum of task singular components with interference taken out (arXiv 2412.00081, section 4).

        ΔWᵢ = Uᵢ Σᵢ Vᵢᵀ,  Û = [U₁ | …],  V̂ = [V₁ | …],   ΔW = polar(Û) diag(w₁Σ₁, …) polar(V̂)ᵀ

    Of each of N tasks the first min(d_out, d_in) / N components are taken. polar(X) = X (XᵀX)^(−1/2)
    is the orthonormal matrix nearest to X (Procrustes); directions that tasks share count once.
    """
    most = max(1, min(group.modules[0].shape) // len(group.modules))
    spectra = [spectrum_of_factors(module) for module in group.modules]
    kept = [min(spectrum.rank, most) for spectrum in spectra]
    parts = list(zip(group.weights, spectra, kept, strict=True))
    left = torch.cat([one.left[:, :rank] for _, one, rank in parts], dim=1)
    right = torch.cat([one.right[:rank] for _, one, rank in parts], dim=0)
    values = torch.cat([weight * one.values[:rank] for weight, one, rank in parts])
    return LoraModule(polar(right.T).T, polar(left) * values)


def pico(group: Group, *, restore: bool) -> LoraModule:
    """The weighted sum with over-shared output directions damped, as factors (arXiv 2604.16826, section 4).

        [B₁ | … | B_T] = U Σ Vᵀ,   s_j = σ_j² / Σ_k σ_k²,   α_j = 1 / (1 + (T − 1) s_j)
        S = I + U diag(α − 1) Uᵀ,   ΔW = γ S Σᵢ wᵢ ΔWᵢ,   γ = mean ‖wᵢ ΔWᵢ‖ / ‖S Σᵢ wᵢ ΔWᵢ‖

    γ is 1 unless ``restore``. The paper takes B as it was trained; here B_i is that of factors whose
    A_i has orthonormal rows, B_i = U_i Σ_i of ΔW_i, so that rotated factors change nothing. Σ is then
    that of [ΔW₁ | … | ΔW_T], and s_j the share of all output energy along u_j.
    """
    added = concatenate(group.modules, group.weights)
    basis = output_basis(group.modules)
    if not basis.values.numel():
        return added
    shares = basis.values.square() / basis.values.square().sum()
    damping = 1 / (1 + (len(group.modules) - 1) * shares)
    along = basis.vectors.T @ added.lora_B
    damped = added.lora_B + basis.vectors @ ((damping - 1)[:, None] * along)
    merged = truncate(LoraModule(added.lora_A, damped)).module
    size = merged.norm()
    if not restore or not size:
        return merged
    pairs = zip(group.weights, group.modules, strict=True)
    mean = math.fsum(abs(weight) * module.norm() for weight, module in pairs) / len(group.modules)
    return LoraModule(merged.lora_A, torch.mul(merged.lora_B, mean / size))


def svc(group: Group, *, alpha: float) -> LoraModule:
    """The weighted sum with calibrated singular values, as factors (arXiv 2602.05536, section 4).

        Σᵢ wᵢ ΔWᵢ = Σ_r σ_r u_r v_rᵀ,   aᵢʳ = u_rᵀ wᵢ ΔWᵢ,   aʳ = Σᵢ aᵢʳ,   sᵢʳ = ⟨aʳ, aᵢʳ⟩ / ‖aᵢʳ‖²
        γ_r = K / Σᵢ max(α, sᵢʳ),   ΔW = Σ_r γ_r σ_r u_r v_rᵀ

    sᵢʳ above 1 says that others add to what task i writes along u_r. With ``alpha`` 1 singular values
    only shrink; the paper's own default without data is 1 / K, which lets them grow too. A task that
    writes nothing along u_r, up to rounding, has sᵢʳ = 0 there.
    """
    spectrum = spectrum_of_factors(concatenate(group.modules, group.weights))
    rank = spectrum.rank
    left, values, right = spectrum.left[:, :rank], spectrum.values[:rank], spectrum.right[:rank]
    whole = values[:, None] * right
    inflation = torch.zeros_like(values)
    for weight, module in zip(group.weights, group.modules, strict=True):
        response = weight * outputs_in(left, module)
        size = response.square().sum(dim=1)
        rounding = (EPSILON * max(module.shape) * abs(weight) * module.norm()) ** 2
        overlap = torch.where(size > rounding, (whole * response).sum(dim=1) / size, 0.0)
        inflation += overlap.clamp(min=alpha)
    return LoraModule(right, left * (values * len(group.modules) / inflation))


def regmean(group: Group, *, alpha: float) -> LoraModule:
    """The least-squares merge on the adapters' inputs, as factors (arXiv 2212.09849, section 3).

        min over W of Σᵢ ‖(W − ΔWᵢ) Xᵢ‖²:   ΔW = Σᵢ wᵢ Bᵢ Âᵢ,   Âᵢ = Aᵢ G̃ᵢ (Σⱼ G̃ⱼ)⁻¹

    Gᵢ = Σ x xᵀ over what the module reads on task i, and G̃ = α G + (1 − α) diag(G), the paper's
    shrinkage of what lies off the diagonal. The weights scale the task vectors.

    Raises:
        RecipeError: if there are no moments, or an input is read by no task.
    """
    known, wanted = [tuple(moment.shape) for moment in group.moments or ()], group.modules[0].shape[1]
    if known != [(wanted, wanted)] * len(group.modules):
        raise RecipeError(
            "regmean must have the second moments of what each adapter's module reads",
            got=f"{', '.join(map(str, known)) or 'none'} for {len(group.modules)} that read {wanted} numbers",
            remedy="name a file of them for each adapter as moments in a merge recipe, or use another method",
            where=group.name or None,
        )
    whole = [moment.double() for moment in group.moments or ()]
    moments = [alpha * moment + (1 - alpha) * torch.diag(moment.diagonal()) for moment in whole]
    factor, failed = torch.linalg.cholesky_ex(sum(moments[1:], moments[0]))
    if int(failed):
        # Off the diagonal alpha helps; what no prompt has moved is null on it too.
        moved = all(float(number) > 0 for number in sum(whole[1:], whole[0]).diagonal())
        raise RecipeError(
            "regmean's second moments must be positive definite in sum",
            got="a singular matrix",
            remedy="collect them on more prompts" + (", or take a smaller alpha" if moved else ""),
            where=group.name or None,
        )
    modules = []
    for module, moment in zip(group.modules, moments, strict=True):
        folded = module.folded()
        read = torch.cholesky_solve(moment @ folded.lora_A.T, factor).T
        modules.append(LoraModule(read, folded.lora_B))
    return concatenate(modules, group.weights)


class Basis(NamedTuple):
    """An orthonormal basis by falling singular values."""

    vectors: Float[Tensor, "width component"]
    values: Float[Tensor, " component"]


def output_basis(modules: Sequence[LoraModule]) -> Basis:
    """The left singular vectors and the singular values of [ΔW₁ | ΔW₂ | …], those above rounding."""
    folded = [module.folded() for module in modules]
    stack, core_out = torch.linalg.qr(torch.cat([module.lora_B for module in folded], dim=1))
    columns = torch.split(core_out, [module.rank for module in folded], dim=1)
    cores_in = [torch.linalg.qr(module.lora_A.T).R for module in folded]
    pairs = list(zip(columns, cores_in, strict=True))
    core = torch.cat([one @ other.T for one, other in pairs], dim=1)
    left, values, _ = torch.linalg.svd(core, full_matrices=False)
    size = max((float(one.norm()) * float(other.norm()) for one, other in pairs), default=0.0)
    rank = int((values > EPSILON * max(*modules[0].shape, core.shape[1]) * size).sum())
    return Basis(stack @ left[:, :rank], values[:rank])


def outputs_in(
    basis: Float[Tensor, "d_out component"], module: LoraModule
) -> Float[Tensor, "component d_in"]:
    """The coordinates UᵀΔW of what a module writes, without forming ΔW."""
    folded = module.folded()
    return (basis.T @ folded.lora_B) @ folded.lora_A


def shared_cores(modules: Sequence[LoraModule]) -> tuple[Tensor, Tensor, list[Tensor]]:
    """A basis U of all outputs, one V of all inputs, and each module's core UᵀΔW V, no ΔW being formed."""
    turned = [LoraModule(module.lora_B.T, module.lora_A.T, module.scale) for module in modules]
    outputs, inputs = output_basis(modules).vectors, output_basis(turned).vectors
    folded = [module.folded() for module in modules]
    return outputs, inputs, [(outputs.T @ part.lora_B) @ (part.lora_A @ inputs) for part in folded]


def ties_of(
    coordinates: Sequence[Float[Tensor, "row column"]], weights: Sequence[float], density: float, **vote: str
) -> Float[Tensor, "row column"]:
    """TIES of coordinates: each trimmed to its ``density`` share, then the consensus of signs."""
    parts = [largest(tiled(matrix), density) for matrix in coordinates]
    return consensus(parts, weights, **vote).dense()


def tucker(
    targets: Sequence[Float[Tensor, "row column"]], components: int
) -> tuple[Float[Tensor, "row component"], Float[Tensor, "column direction"]]:
    """The two bases of at most ``components`` that capture most of the energy of all targets."""
    right = leading([target.T for target in targets], components)
    captured = 0.0
    for _ in range(SWEEPS):
        left = leading([target @ right for target in targets], components)
        right = leading([target.T @ left for target in targets], components)
        energy = math.fsum(float((left.T @ target @ right).square().sum()) for target in targets)
        if energy - captured <= CONVERGED * energy:
            break
        captured = energy
    return left, right


def leading(blocks: Sequence[Float[Tensor, "row _"]], components: int) -> Float[Tensor, "row component"]:
    """The leading left singular vectors of the blocks side by side."""
    left: Tensor = torch.linalg.svd(torch.cat(list(blocks), dim=1), full_matrices=False).U
    return left[:, :components]


def polar(matrix: Float[Tensor, "row column"]) -> Float[Tensor, "row column"]:
    """The partial isometry nearest to the matrix: its singular values, those above rounding, set to 1."""
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    first = float(values[0]) if values.numel() else 0.0
    rank = int((values > EPSILON * max(matrix.shape) * first).sum())
    nearest: Tensor = left[:, :rank] @ right[:rank]
    return nearest
