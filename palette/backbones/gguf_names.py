"""What llama.cpp calls the matrices of a model, and how it lays them out, as an adapter in GGUF must too."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from palette.backbones.gguf import require_gguf
from palette.errors import BackboneError
from palette.shapes import Float, Tensor

FAMILIES = {
    "llama": ("llama", True),
    "mistral": ("llama", True),
    "granite": ("granite", True),
    "smollm3": ("smollm3", True),
    "qwen2": ("qwen2", False),
    "qwen3": ("qwen3", False),
    "gemma": ("gemma", False),
    "gemma2": ("gemma2", False),
    "gemma3_text": ("gemma3", False),
    "phi3": ("phi3", False),
    "olmo2": ("olmo2", False),
}
"""By ``model_type``: llama.cpp's name, and whether it turns the rows of queries and keys, whose two halves of
a head it rotates as neighbours. Families whose matrices it cuts or joins in another way are none of these."""


@dataclass(frozen=True)
class GgufNames:
    """The names of one model's matrices in a GGUF file."""

    model_type: str
    heads: dict[str, int]
    """How many heads the rows of a module are of that are turned, by the last part of its name."""
    names: Any

    @property
    def architecture(self) -> str:
        """llama.cpp's name of the family."""
        return FAMILIES[self.model_type][0]

    def name(self, module: str) -> str | None:
        """The tensor of a module's weight; None where there is none."""
        plain = module.replace("model.language_model.", "model.")
        found: str | None = self.names.get_name(f"{plain}.weight", try_suffixes=(".weight",))
        return found

    def turned(self, module: str, B: Float[Tensor, "d_out rank"]) -> Float[Tensor, "d_out rank"]:
        """lora_B with its rows in the order of that tensor's."""
        heads = self.heads.get(module.rpartition(".")[2])
        return B if heads is None else B.view(heads, 2, -1, B.shape[1]).transpose(1, 2).reshape(B.shape)


def gguf_names(folder: Path) -> GgufNames:
    """The names for the model of a folder.

    Raises:
        BackboneError: if its family is none that an adapter can be written for, or gguf is not installed.
    """
    require_gguf(folder)
    import gguf

    config = AutoConfig.from_pretrained(folder, local_files_only=True).get_text_config()
    if config.model_type not in FAMILIES:
        raise BackboneError(
            f"an adapter in GGUF must be for one of {', '.join(FAMILIES)}",
            got=config.model_type,
            remedy="serve the folder itself, with PEFT or vLLM",
            where=folder,
        )
    name, turned = FAMILIES[config.model_type]
    arch = next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == name)
    queries = config.num_attention_heads
    heads = {"q_proj": queries, "k_proj": getattr(config, "num_key_value_heads", None) or queries}
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    return GgufNames(config.model_type, heads if turned else {}, names)
