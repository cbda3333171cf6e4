"""The laws of LoRA values: one ΔW, whatever its factors."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel
from transformers import LlamaForCausalLM

from palette.adapters.factorisation import spectrum_of_factors
from palette.adapters.files import open_adapter
from palette.adapters.lora import (
    Adapter,
    BackboneIdentity,
    LoraModule,
    cosine,
    dora_as_lora,
    inner_product,
    module_inner_product,
    norm,
    power_of_two,
)
from palette.adapters.mounting import mounted
from palette.errors import AdapterError

Maker = Callable[..., LoraModule]
seeds = st.integers(0, 2**32)
ranks = st.integers(1, 9)
scales = st.floats(1e-6, 1e6)
laws = settings(max_examples=25, deadline=None)


def test_delta_is_scale_times_b_times_a() -> None:
    module = LoraModule(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0], [4.0]]), 0.5)
    assert module.delta().tolist() == [[1.5, 3.0], [2.0, 4.0]]
    assert (module.rank, module.shape) == (1, (2, 2))


@laws
@given(seed=seeds, rank=ranks, scale=scales)
def test_forms_keep_delta(random_module: Maker, seed: int, rank: int, scale: float) -> None:
    module = random_module(seed, rank, scale=scale)
    delta = module.delta()
    for form in (module.folded(), module.trimmed(), module.balanced()):
        assert torch.allclose(form.delta(), delta, rtol=1e-12, atol=1e-12 * scale)
    error = (module.canonical().delta() - delta).norm() / delta.norm()
    assert error <= 1e-7
    assert module.canonical().scale == 1.0


@laws
@given(seed=seeds, rank=ranks, shift=st.integers(-40, 40))
def test_canonical_form_is_a_fixed_point_and_balanced(
    random_module: Maker, seed: int, rank: int, shift: int
) -> None:
    module = random_module(seed, rank, scale=1.3)
    skewed = LoraModule(module.lora_A * 2.0**shift, module.lora_B * 2.0**-shift, module.scale)
    once = skewed.canonical()
    twice = once.canonical()
    assert torch.equal(once.lora_A, twice.lora_A)
    assert torch.equal(once.lora_B, twice.lora_B)
    assert torch.equal(once.lora_A, module.canonical().lora_A)
    ratio = once.lora_B.abs().amax(0) / once.lora_A.abs().amax(1)
    assert bool(((ratio > 0.25) & (ratio < 4.0)).all())


def test_balancing_rounds_nothing(random_module: Maker) -> None:
    module = random_module(0)
    skewed = LoraModule(module.lora_A * 2.0**20, module.lora_B)
    balanced = skewed.balanced()
    assert not torch.equal(balanced.lora_A, skewed.lora_A)
    assert torch.equal(balanced.delta(), skewed.delta())


def test_null_components_are_trimmed_and_null_modules_have_rank_0(random_module: Maker) -> None:
    module = random_module(0, rank=3)
    module.lora_A[1] = 0
    module.lora_B[:, 2] = 0
    assert module.trimmed().rank == 1
    null = LoraModule(torch.zeros(2, 5), torch.zeros(4, 2)).canonical()
    assert (null.rank, null.shape) == (0, (4, 5))
    assert null.balanced().rank == 0
    assert not null.delta().any()


def test_powers_of_two_are_exact() -> None:
    exponents = torch.arange(-300, 301, dtype=torch.int32)
    assert power_of_two(exponents).tolist() == [math.ldexp(1.0, int(one)) for one in exponents]


@laws
@given(seed=seeds, rank=ranks, other=ranks)
def test_inner_product_is_frobenius(random_module: Maker, seed: int, rank: int, other: int) -> None:
    first, second = random_module(seed, rank), random_module(seed + 1, other, scale=-2.0)
    dense = float((first.delta() * second.delta()).sum())
    assert math.isclose(module_inner_product(first, second), dense, rel_tol=1e-9, abs_tol=1e-9)
    assert math.isclose(first.norm(), float(first.delta().norm()), rel_tol=1e-9)


def test_adapters_have_norm_and_cosine_over_shared_modules(random_module: Maker) -> None:
    one, two = random_module(1), random_module(2)
    a = Adapter({"x": one, "y": two})
    b = Adapter({"x": one})
    null = Adapter({"x": LoraModule(torch.zeros(1, 12), torch.zeros(10, 1))})
    assert math.isclose(inner_product(a, b), one.norm() ** 2, rel_tol=1e-12)
    assert math.isclose(norm(a), math.hypot(one.norm(), two.norm()), rel_tol=1e-12)
    assert math.isclose(cosine(a, b), one.norm() / norm(a), rel_tol=1e-12)
    assert cosine(a, a) == pytest.approx(1.0)
    assert cosine(a, null) == 0.0
    assert norm(Adapter({})) == 0.0


def test_digest_ignores_form_and_order_but_nothing_else(random_module: Maker) -> None:
    one, two = random_module(1), random_module(2)
    digest = Adapter({"x": one, "y": two}).digest
    padded = LoraModule(
        torch.nn.functional.pad(one.lora_A, (0, 0, 0, 3)),
        torch.nn.functional.pad(one.lora_B, (0, 3)),
        one.scale,
    )
    assert Adapter({"y": two, "x": padded}).digest == digest
    assert Adapter({"x": one.canonical(), "y": two}, card={"any": 1}).digest == digest
    assert Adapter({"x": one}).digest != digest
    assert Adapter({"x": two, "y": one}).digest != digest
    louder = LoraModule(one.lora_A, one.lora_B, 2 * one.scale)
    assert Adapter({"x": louder, "y": two}).digest != digest


def test_rank_and_domains_of_an_adapter(random_module: Maker) -> None:
    adapter = Adapter({"x": random_module(1, 3), "y": random_module(1, 5)}, card={"domains": "ab"})
    assert adapter.rank == 5
    assert adapter.domains == ()
    assert Adapter({}, card={"domains": ["b", "a"]}).domains == ("a", "b")
    assert Adapter({}).rank == 0


@pytest.mark.parametrize(
    ("one", "other", "agree"),
    [
        (BackboneIdentity("a", "f"), BackboneIdentity("b", "f"), True),
        (BackboneIdentity("a", "f"), BackboneIdentity("a", "g"), False),
        (BackboneIdentity("a", "f"), BackboneIdentity("a"), True),
        (BackboneIdentity("a", "f"), BackboneIdentity("b"), False),
        (BackboneIdentity("a"), BackboneIdentity(), True),
        (BackboneIdentity("a", "f"), BackboneIdentity(), True),
        (BackboneIdentity("/data/x"), BackboneIdentity("/data/x/"), True),
        (BackboneIdentity("./models/x//"), BackboneIdentity("models/x"), True),
        (BackboneIdentity("Owner/Name"), BackboneIdentity("owner/name"), True),
        (BackboneIdentity("/data/X"), BackboneIdentity("/data/x"), False),
        (BackboneIdentity("C:\\models\\x\\"), BackboneIdentity("C:/models/x"), True),
        (BackboneIdentity("/c/hub/models--owner--name/snapshots/ab12"), BackboneIdentity("owner/Name"), True),
        (BackboneIdentity("owner/name"), BackboneIdentity("other/name-bnb-4bit"), False),
        (BackboneIdentity(), BackboneIdentity(), True),
    ],
)
def test_backbones_agree_by_fingerprint_then_by_name(
    one: BackboneIdentity, other: BackboneIdentity, agree: bool
) -> None:
    assert one.agrees(other) is agree
    assert other.agrees(one) is agree


def test_names_are_believed_to_mean_one_backbone_and_digests_are_not() -> None:
    assert BackboneIdentity("a").agrees(BackboneIdentity("b", "f"), same=True)
    assert not BackboneIdentity("a", "f").agrees(BackboneIdentity("a", "g"), same=True)


def test_a_backbone_says_who_it_is() -> None:
    assert str(BackboneIdentity("tiny", "0123456789abcdef")) == "tiny 0123456789ab"
    assert str(BackboneIdentity()) == "an unnamed backbone"


# DoRA as a plain ΔW: what PEFT merges, and never without the backbone.


@pytest.fixture(scope="module")
def dora_folder(peft_folder: Callable[..., Path]) -> Path:
    return peft_folder(use_dora=True, use_rslora=True, target_modules=["q_proj", "down_proj", "up_proj"])


def test_a_converted_adapter_is_what_peft_merges(
    dora_folder: Path, backbone: Callable[[], LlamaForCausalLM], tokens: torch.Tensor
) -> None:
    model = backbone()
    adapter = open_adapter(dora_folder, lambda name: model.get_submodule(name).weight.detach())
    wrapped = PeftModel.from_pretrained(backbone(), dora_folder)
    with torch.no_grad():
        theirs = wrapped(tokens).logits
        with mounted(model, adapter):
            ours = model(tokens).logits
    assert (ours - theirs).abs().max() <= 1e-5
    merged = wrapped.merge_and_unload()
    assert len(adapter.modules) == 12
    for name in adapter.modules:
        weight = model.get_submodule(name).weight.detach()
        delta = merged.get_submodule(name).weight.detach() - weight
        module = adapter.modules[name]
        assert (module.delta().float() - delta).abs().max() <= 1e-6, name
        assert module.rank == min(module.shape) == spectrum_of_factors(module).rank


def test_without_the_backbone_it_is_refused(dora_folder: Path) -> None:
    with pytest.raises(AdapterError) as caught:
        open_adapter(dora_folder)
    assert str(caught.value) == (
        "an adapter must be plain LoRA where the backbone is not at hand, got use_dora = True, DoRA, which "
        "rescales the backbone's own weights; make it plain LoRA with palette merge --backbone FOLDER, "
        "which reproduce takes too, or train it again so "
        f"({dora_folder / 'adapter_model.safetensors'})"
    )


@pytest.mark.parametrize("says", [True, False])
def test_magnitudes_and_the_configuration_must_agree(peft_folder: Callable[..., Path], says: bool) -> None:
    folder = peft_folder(use_dora=not says)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "use_dora": says}))
    with pytest.raises(AdapterError) as caught:
        open_adapter(folder, lambda name: torch.ones(1))
    assert "use_dora and lora_magnitude_vector must stand together, got use_dora =" in str(caught.value)


def test_another_backbone_is_refused(random_module: Maker) -> None:
    module = random_module(0, 2, 5, 4)
    for magnitude, weight, message in [
        (torch.ones(4), torch.ones(5, 4), r"fit its factors, 4×5, got \[5, 4\] and \[4\] for a; give"),
        (torch.ones(3), torch.ones(4, 5), r"fit its factors, 4×5, got \[4, 5\] and \[3\] for a; give"),
        (torch.ones(4), -module.delta(), "DoRA must give a finite ΔW, got a null row, NaN or inf"),
        (torch.ones(4), torch.full((4, 5), torch.nan), "DoRA must give a finite ΔW, got a null row, NaN"),
    ]:
        with pytest.raises(AdapterError, match=message):
            dora_as_lora("a", module, magnitude, weight)


@pytest.mark.parametrize(("d_in", "d_out"), [(5, 4), (4, 5)])
def test_the_identity_is_the_smaller_factor(random_module: Maker, d_in: int, d_out: int) -> None:
    weight = torch.randn(d_out, d_in, generator=torch.Generator().manual_seed(1))
    module = dora_as_lora("a", random_module(0, 2, d_in, d_out), torch.ones(d_out), weight)
    assert (module.rank, module.shape) == (4, (d_out, d_in))
    rows = (weight.double() + module.delta()).norm(dim=1)
    assert torch.allclose(rows, torch.ones(d_out).double(), atol=1e-6), "m is the length of the rows"
