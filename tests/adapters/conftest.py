"""What the tests of adapters share: random factors, a tiny backbone, and adapters PEFT wrote."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from palette.adapters.lora import LoraModule

SIZES = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


@pytest.fixture(scope="session")
def random_module() -> Callable[..., LoraModule]:
    """A function of a seed and sizes that gives a random module."""

    def make(seed: int, rank: int = 4, d_in: int = 12, d_out: int = 10, scale: float = 0.7) -> LoraModule:
        generator = torch.Generator().manual_seed(seed)
        down = torch.randn(rank, d_in, generator=generator)
        up = torch.randn(d_out, rank, generator=generator)
        return LoraModule(down, up, scale)

    return make


@pytest.fixture(scope="session")
def backbone() -> Callable[[], LlamaForCausalLM]:
    """A function that makes the same tiny random Llama each time."""

    def make() -> LlamaForCausalLM:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            return LlamaForCausalLM(LlamaConfig(**SIZES)).eval()

    return make


@pytest.fixture(scope="session")
def tokens() -> torch.Tensor:
    """A batch of token ids."""
    return torch.randint(0, 61, (3, 9), generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="session")
def peft_folder(
    backbone: Callable[[], LlamaForCausalLM], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """A function of LoraConfig's options that gives the folder PEFT writes for them."""

    def make(**options: object) -> Path:
        base = {"r": 4, "lora_alpha": 10, "target_modules": ["down_proj", "q_proj"]}
        config = LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False, **{**base, **options})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(11)
            model = get_peft_model(backbone(), config)
            for name, parameter in model.named_parameters():
                if "lora_" in name:
                    torch.nn.init.normal_(parameter, std=0.2)
        folder = tmp_path_factory.mktemp("peft")
        model.peft_config["default"].base_model_name_or_path = "tiny"
        model.save_pretrained(folder, save_embedding_layers=False)
        return folder

    return make
