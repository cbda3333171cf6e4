"""The names of every layout, what is of none, and files that mix two."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedModel,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
)

from palette.adapters.files import open_adapter, read_adapter
from palette.adapters.layouts import COMPONENTS, LAYOUTS, layered
from palette.adapters.lora import Adapter, LoraModule
from palette.adapters.mounting import mounted
from palette.adapters.writing import WEIGHTS, write_adapter
from palette.errors import AdapterError

WHERE = Path("adapter_model.safetensors")
CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 6}
DOWN = torch.arange(10.0).reshape(2, 5)
UP = torch.arange(8.0).reshape(4, 2)
Q = "model.layers.3.self_attn.q_proj"


def adapter(
    folder: Path,
    tensors: dict[str, torch.Tensor],
    config: dict[str, object] | None = None,
    metadata: dict[str, str] | None = None,
) -> Adapter:
    save_file({key: one.clone() for key, one in tensors.items()}, folder / WHERE, metadata)
    if config is not None:
        (folder / "adapter_config.json").write_text(json.dumps(config))
    return read_adapter(folder / WHERE)


@pytest.mark.parametrize(
    ("down", "up", "path"),
    [
        (f"base_model.model.{Q}.lora_A.weight", f"base_model.model.{Q}.lora_B.weight", Q),
        (f"base_model.model.{Q}.lora_A.default.weight", f"base_model.model.{Q}.lora_B.default.weight", Q),
        (f"{Q}.lora_A.weight", f"{Q}.lora_B.weight", Q),
        (f"{Q}.lora_down.weight", f"{Q}.lora_up.weight", Q),
        *((f"{one}a.b.lora_A.weight", f"{one}a.b.lora_B.weight", "a.b") for one in COMPONENTS),
        *((f"{one}a.b.lora_down.weight", f"{one}a.b.lora_up.weight", "a.b") for one in COMPONENTS),
        *(
            (f"layers.3.{tune}.lora_a.weight", f"layers.3.{tune}.lora_b.weight", f"model.layers.3.{path}")
            for tune, path in [
                ("attn.v_proj", "self_attn.v_proj"),
                ("attn.output_proj", "self_attn.o_proj"),
                ("mlp.w1", "mlp.gate_proj"),
                ("mlp.w2", "mlp.down_proj"),
                ("mlp.w3", "mlp.up_proj"),
            ]
        ),
        ("output.lora_a.weight", "output.lora_b.weight", "lm_head"),
    ],
)
def test_every_layout_is_read_as_the_same_adapter(tmp_path: Path, down: str, up: str, path: str) -> None:
    read = adapter(tmp_path, {down: DOWN, up: UP}, CONFIG)
    assert list(read.modules) == [path]
    assert torch.equal(read.modules[path].delta(), 3.0 * (UP @ DOWN).double())


def test_the_rows_of_the_table_are_told_apart() -> None:
    assert len(LAYOUTS) == 5 + 2 * len(COMPONENTS)
    for layout in LAYOUTS:
        path = "layers.0.mlp.w1." if layout.name == "torchtune" else "a.b."
        keys = [f"{layout.prefix}{path}{suffix}" for suffix, role in layout.roles.items() if "lora_" in role]
        assert layered(keys, WHERE)[0] == layout


@pytest.mark.parametrize("prefix", ["unet.", "transformer.", ""])
def test_alpha_tensors_are_honoured(tmp_path: Path, prefix: str) -> None:
    tensors = {f"{prefix}a.{key}.weight": one for key, one in [("lora_down", DOWN), ("lora_up", UP)]}
    assert adapter(tmp_path, tensors).modules["a"].scale == 1.0
    assert adapter(tmp_path, {**tensors, f"{prefix}a.alpha": torch.tensor(1.0)}).modules["a"].scale == 0.5
    assert adapter(tmp_path, {**tensors, f"{prefix}a.alpha": torch.tensor([3])}).modules["a"].scale == 1.5
    with pytest.raises(AdapterError, match=r"got an alpha F32 \[2\] for a"):
        adapter(tmp_path, {**tensors, f"{prefix}a.alpha": torch.ones(2)})


def test_metadata_may_hold_the_configuration(tmp_path: Path) -> None:
    tensors = {"transformer.a.lora_A.weight": DOWN, "transformer.a.lora_B.weight": UP}
    assert adapter(tmp_path, tensors).modules["a"].scale == 1.0
    for metadata in (
        {"lora_adapter_metadata": json.dumps(CONFIG)},
        {"lora_adapter_metadata": json.dumps({f"transformer.{key}": one for key, one in CONFIG.items()})},
        {"adapter_config": json.dumps(CONFIG)},
    ):
        assert adapter(tmp_path, tensors, metadata=metadata).modules["a"].scale == 3.0
    with pytest.raises(AdapterError, match="and the card in the weights must agree, got another lora_alpha"):
        adapter(tmp_path, tensors, {**CONFIG, "lora_alpha": 2}, metadata)
    for broken in ("{", "[]", "[" * 5000):
        with pytest.raises(AdapterError, match="safetensors file, got in its metadata adapter_config: "):
            adapter(tmp_path, tensors, metadata={"adapter_config": broken})


@pytest.mark.parametrize("prefix", ["base_model.model.", "", "layers.0.mlp.w1."])
def test_alpha_is_implied_only_where_the_tool_implies_it(tmp_path: Path, prefix: str) -> None:
    ends = ("lora_a", "lora_b") if "layers" in prefix else ("a.lora_A", "a.lora_B")
    with pytest.raises(AdapterError, match=r"must have its adapter_config\.json, got weights alone; put"):
        adapter(tmp_path, {f"{prefix}{ends[0]}.weight": DOWN, f"{prefix}{ends[1]}.weight": UP})


GOOD = ["base_model.model.x.lora_A.weight", "base_model.model.x.lora_B.weight"]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ([], "an adapter must adapt a module, got an empty file (adapter_model.safetensors)"),
        (GOOD[:1], "a module must have both factors, got no lora_B for x (adapter_model.safe"),
        (GOOD[1:], "a module must have both factors, got no lora_A for x (adapter_model.safe"),
        (["a.alpha"], "a module must have both factors, got no lora_A for a"),
        (
            [*GOOD, "model.norm.weight"],
            "norm.weight, a whole module trained beside LoRA, or no adapter (adap",
        ),
        ([*GOOD, "base_model.model.lm_head.weight"], "lm_head.weight, a whole module trained beside LoRA"),
        ([*GOOD, "base_model.model.x.bias"], "x.bias, a bias of the backbone, which ΔW cannot hold (adapter"),
        ([*GOOD, GOOD[0] + "x"], "lora_A.weightx, a tensor that is no factor"),
        ([*GOOD, GOOD[0].replace("x", "..")], "model....lora_A.weight, a tensor that is no factor"),
        ([*GOOD, "base_model.model.x.alpha"], "x.alpha, a tensor that is no factor"),
        ([*GOOD, "something"], "got something, a tensor that is no factor"),
        ([*GOOD, "base_model.model.x.lora_B.bias"], "lora_B.bias, a bias on lora_B, which ΔW cannot hold"),
        ([*GOOD, "base_model.model.x.lora_embedding_A"], "lora_embedding_A, LoRA on embeddings"),
        (
            [*GOOD, "base_model.model.e.token_adapter.trainable_tokens_delta"],
            "delta, trained token embeddings",
        ),
        (["unet.x.lora_magnitude_vector"], "DoRA in a layout that is not PEFT's"),
        (["lora_unet_a_b.dora_scale"], "DoRA in a layout that is not PEFT's"),
        (["lora_unet_a_b.lora_down.weight"], "kohya's names, whose underscores only the backbone can turn"),
        (["lora_te1_a_b.lora_down.weight"], "kohya's names, whose underscores only the backbone can turn"),
        (["layers.0.attn.q_proj.lora_a.weight"], "torchtune's own order of rows or names; export it with"),
        (["layers.0.attn.k_proj.lora_b.weight"], "torchtune's own order of rows or names; export it with"),
        (
            ["x.lora_A.weight", "unet.x.lora_B.weight"],
            "must be of one layout, got x.lora_A.weight of one mod",
        ),
        (
            ["unet.x.lora_A.weight", "text_encoder.x.lora_B.weight"],
            "layout, got unet.x.lora_A.weight of diffus",
        ),
        ([*GOOD, "base_model.model.y.lora_A.default.weight"], "of PEFT's live state beside tensors of PEFT"),
        (
            ["x.lora_A.weight", "x.lora_down.weight"],
            "x.lora_down.weight of one model, kohya beside tensors of",
        ),
        (
            ["base_model.model.x.lora_magnitude_vector", "base_model.model.x.lora_magnitude_vector.weight"],
            "a factor must stand once, got two of magnitude for x",
        ),
    ],
)
def test_what_is_of_no_layout_is_refused_with_the_reason(keys: list[str], message: str) -> None:
    with pytest.raises(AdapterError) as caught:
        layered(keys, WHERE)
    assert message in str(caught.value)


def test_modules_come_in_the_order_of_their_paths() -> None:
    assert list(layered([key.replace("x", name) for name in "ca" for key in GOOD], WHERE)[1]) == [
        "a",
        "c",
    ]


@pytest.mark.parametrize(
    "config",
    [
        # torchtune's exports
        {"r": 2, "lora_alpha": 6, "target_modules": ["q_proj", "o_proj"], "peft_type": "LORA"},
        # Unsloth's, which are PEFT's with more in auto_mapping, and targets that are a pattern
        {
            **CONFIG,
            "auto_mapping": {"base_model_class": "LlamaForCausalLM", "unsloth_fixed": True},
            "base_model_name_or_path": "unsloth/llama-3-8b-bnb-4bit",
            "target_modules": "(?:.*?(?:language|text).*?(?:self_attn|mlp).*?(?:q_proj|o_proj).*?)",
            "use_rslora": False,
            "loftq_config": None,
        },
    ],
)
def test_exports_of_other_trainers_are_pefts(tmp_path: Path, config: dict[str, object]) -> None:
    tensors = {f"base_model.model.{Q}.lora_A.weight": DOWN, f"base_model.model.{Q}.lora_B.weight": UP}
    assert adapter(tmp_path, tensors, config).modules[Q].scale == 3.0


# Fused experts: PEFT's stacked factors are read as one module per expert, and written back as they were.


SIZES = {
    "vocab_size": 61,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_experts_per_tok": 2,
}
BOTH = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]


def qwen() -> PreTrainedModel:
    config = Qwen2MoeConfig(
        **SIZES,
        intermediate_size=48,
        moe_intermediate_size=24,
        shared_expert_intermediate_size=40,
        num_experts=4,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Qwen2MoeForCausalLM(config).eval()


def mixtral() -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MixtralForCausalLM(MixtralConfig(**SIZES, intermediate_size=24, num_local_experts=4)).eval()


def expert_folder(folder: Path, make: Callable[[], PreTrainedModel], **options: object) -> Path:
    base = {"r": 3, "lora_alpha": 6, "target_modules": ["q_proj"], "target_parameters": BOTH}
    model = get_peft_model(make(), LoraConfig(task_type="CAUSAL_LM", **{**base, **options}))
    generator = torch.Generator().manual_seed(5)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2, generator=generator)
    model.save_pretrained(folder, save_embedding_layers=False)
    return folder


def with_deltas(model: PreTrainedModel, adapter: Adapter) -> PreTrainedModel:
    """The model with every ΔW added to its weight, the experts' to their slice of the parameter."""
    for name, module in adapter.modules.items():
        path, bracket, index = name.partition("[")
        weight = (
            model.get_parameter(path)[int(index[:-1])] if bracket else model.get_parameter(f"{name}.weight")
        )
        weight.data += module.delta().float()
    return model


@pytest.mark.parametrize("make", [qwen, mixtral])
@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 18),
        ({"use_rslora": True, "target_modules": []}, 16),
        ({"target_parameters": BOTH[1:]}, 10),
        ({"target_parameters": BOTH[:1], "rank_pattern": {"experts.gate_up_proj": 2}}, 10),
        ({"alpha_pattern": {r".*\.down_proj": 1}, "rank_pattern": {"down_proj": 1, "q_proj": 2}}, 18),
    ],
)
# PEFT honours a pattern for a parameter, and says that it does not.
@pytest.mark.filterwarnings("ignore:The following (rank|alpha)_pattern keys did not match:RuntimeWarning")
def test_experts_are_read_as_peft_computes_them_and_written_so_that_peft_loads_them(
    tmp_path: Path, make: Callable[[], PreTrainedModel], options: dict[str, object], count: int
) -> None:
    folder = expert_folder(tmp_path / "peft", make, **options)
    adapter = read_adapter(folder)
    tokens = torch.randint(0, 61, (3, 9), generator=torch.Generator().manual_seed(3))
    assert len(adapter.modules) == count
    assert write_adapter(tmp_path / "ours", adapter) == 8
    back = open_adapter(tmp_path / "ours")
    assert back.digest == adapter.digest
    assert write_adapter(tmp_path / "again", back) == 8
    assert (tmp_path / "again" / WEIGHTS).read_bytes() == (tmp_path / "ours" / WEIGHTS).read_bytes()
    with torch.no_grad():
        plain = make()(tokens).logits
        theirs = PeftModel.from_pretrained(make(), folder)(tokens).logits
        ours = with_deltas(make(), adapter)(tokens).logits
        loaded = PeftModel.from_pretrained(make(), tmp_path / "ours")(tokens).logits
    assert (ours - theirs).abs().max() <= 1e-5
    assert (loaded - theirs).abs().max() <= 1e-5
    assert (plain - theirs).abs().max() > 1e-2


def test_experts_are_named_by_parameter_and_index_and_mounted(tmp_path: Path) -> None:
    adapter = open_adapter(expert_folder(tmp_path, qwen, target_modules=[]))
    assert sorted(adapter.modules) == [
        f"model.layers.{layer}.mlp.experts.{kind}_proj[{expert}]"
        for layer in range(2)
        for kind in ("down", "gate_up")
        for expert in range(4)
    ]
    assert adapter.modules["model.layers.0.mlp.experts.down_proj[3]"].shape == (32, 24)
    model, ids = qwen(), torch.tensor([[1, 2, 3, 4, 5]])
    with torch.no_grad():
        before, once = model(ids).logits, with_deltas(qwen(), adapter)(ids).logits
        twice = with_deltas(with_deltas(qwen(), adapter), adapter)(ids).logits
        with mounted(model, adapter):
            assert torch.allclose(model(ids).logits, once, atol=1e-5)
            with mounted(model, adapter):
                assert torch.allclose(model(ids).logits, twice, atol=1e-4)
            # As replies are generated: two passes of one model at once.
            with ThreadPoolExecutor(4) as pool:
                several = list(pool.map(lambda _: model(ids).logits.detach(), range(24)))
        assert torch.equal(model(ids).logits, before)
    assert all(torch.allclose(each, once, atol=1e-5) for each in several)
    assert not torch.allclose(before, once, atol=1e-2)
    assert not any("forward" in vars(module) for module in model.modules())


def test_experts_of_another_model_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    adapter = open_adapter(expert_folder(tmp_path, qwen, target_modules=[]))
    model = qwen()
    experts = model.model.layers[1].mlp.experts
    experts.down_proj = torch.nn.Parameter(experts.down_proj[:3].clone())
    with (
        pytest.raises(AdapterError, match=r"got 4 experts 32×24 for \(3, 32, 24\)"),
        mounted(model, adapter),
    ):
        raise AssertionError("nothing may be mounted")
    assert not any(module._forward_hooks for module in model.modules())


LAW = "the factors of fused experts must be certain from target_parameters, ranks and shapes, got "


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"target_parameters": ["mlp.experts.other", *BOTH]},
            "2 pairs of factors for down_proj, gate_up_proj, other",
        ),
        (
            {"target_parameters": BOTH[:1]},
            "2 pairs of factors for gate_up_proj of model.layers.0.mlp.experts",
        ),
        ({"target_parameters": []}, "2 pairs of factors for none of model.layers.0.mlp.experts; target one"),
        ({"target_parameters": ["mlp.experts.up", "mlp.experts.down"]}, "2 pairs of factors for down, up of"),
        ({"r": 5}, "lora_A [12, 32] for rank 5 of model.layers.0.mlp.experts.gate_up_proj"),
        ({"r": 10**300}, "lora_A [12, 32] for rank 1000"),
    ],
)
def test_what_the_file_does_not_settle_is_refused(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    folder = expert_folder(tmp_path, qwen)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(AdapterError) as caught:
        open_adapter(folder)
    assert f"{LAW}{message}" in str(caught.value)


def test_patterns_of_ranks_must_be_understood_where_experts_are_stacked(tmp_path: Path) -> None:
    folder = expert_folder(tmp_path, qwen, rank_pattern={"(q|k)_proj": 2})
    assert open_adapter(folder).modules
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "rank_pattern": {"(": 2}}))
    with pytest.raises(AdapterError, match="the keys of rank_pattern must be module names or regular"):
        open_adapter(folder)


@pytest.mark.parametrize("side", ["A", "B"])
def test_swapped_pairs_are_refused(tmp_path: Path, side: str) -> None:
    """The shapes say which factors are gate_up_proj's, and must say it."""
    folder = expert_folder(tmp_path, qwen, target_modules=[])
    tensors = load_file(folder / WEIGHTS)
    swapped = {
        key.replace(".base_layer", "")
        if ".base_layer" in key
        else key.replace("experts", "experts.base_layer"): one
        for key, one in tensors.items()
    }
    mixed = {key: (swapped if f"lora_{side}" in key else tensors)[key] for key in tensors}
    for made in (swapped, mixed):
        save_file(made, folder / WEIGHTS)
        with pytest.raises(AdapterError, match="2 pairs of factors for down_proj, gate_up_proj of model"):
            open_adapter(folder)


def test_what_peft_could_not_load_is_not_written(
    random_module: Callable[..., LoraModule], tmp_path: Path
) -> None:
    module = random_module(0)
    for names, message in [
        (["a.w[0]", "a.w[2]"], "a fused parameter must have all its experts, got a hole in a.w"),
        (["a.w[1]"], "a fused parameter must have all its experts, got a hole in a.w"),
        (["a.w[0]", "a.v[0]"], "must be one, or gate_up_proj and down_proj, got v, w of a"),
        (["a.w[00]"], "a module must be named by its path in the backbone, got 'a.w"),
        (["a.w[-1]"], "a module must be named by its path in the backbone, got 'a.w"),
    ]:
        with pytest.raises(AdapterError) as caught:
            write_adapter(tmp_path, Adapter(dict.fromkeys(names, module)))
        assert message in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_stacked_factors_of_absurd_counts_are_refused(tmp_path: Path) -> None:
    tensors = {"lora_A.weight": torch.ones(200_000, 1), "lora_B.weight": torch.ones(1, 200_000)}
    save_file({f"base_model.model.a.{key}": one for key, one in tensors.items()}, tmp_path / WEIGHTS)
    config = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_parameters": ["a.w"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(AdapterError, match=r"lora_A \[200000, 1\] for rank 1 of a\.w; target one"):
        open_adapter(tmp_path)
