"""An adapter and a refusal direction in the files of other tools: llama.cpp and repeng."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import pad

from palette.adapters.lora import Adapter
from palette.backbones.gguf import GgufNames, require_gguf
from palette.errors import AdapterError
from palette.files import atomic
from palette.shapes import Float, Tensor

CONTROL = "controlvector"
"""The architecture of a GGUF file that holds directions and no model."""

LayerVectors = Mapping[int, Float[Tensor, "d_model"]]
"""What is added to the output of each block, by its number."""


def write_gguf_adapter(path: Path, adapter: Adapter, names: GgufNames) -> int:
    """Writes llama.cpp's LoRA file, and gives the rank that every module has there, in float32.

    Ranks are filled up with zeros to the largest, and a module's scale is in its lora_B, so that one alpha,
    the rank, holds for all.

    Raises:
        AdapterError: if a module has no matrix of its own there.
        OutputError: if the file cannot be written.
    """
    import gguf

    rank = max(module.lora_A.shape[0] for module in adapter.modules.values())
    tensors: dict[str, Tensor] = {}
    for name, module in sorted(adapter.modules.items()):
        stored = names.name(name)
        if stored is None:
            raise AdapterError(
                f"every module must have a matrix of its own in llama.cpp's {names.architecture}",
                got=f"{name[:120]}, which has none",
                remedy="serve the folder itself, with PEFT or vLLM",
            )
        room = rank - module.lora_A.shape[0]
        tensors[f"{stored}.lora_a"] = pad(module.lora_A.float(), (0, 0, 0, room))
        tensors[f"{stored}.lora_b"] = names.turned(name, pad(module.scale * module.lora_B.float(), (0, room)))
    with atomic(path) as staged:
        writer = gguf.GGUFWriter(staged, names.architecture)
        writer.add_type(gguf.GGUFType.ADAPTER)
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(rank))
        _finish(writer, tensors)
    return rank


def write_control_vector(path: Path, vectors: LayerVectors, model_type: str) -> None:
    """Writes the vectors as llama.cpp and repeng read them; the first block's cannot stand there.

    Raises:
        BackboneError: if gguf is not installed.
        OutputError: if the file cannot be written.
    """
    require_gguf(path)
    import gguf

    with atomic(path) as staged:
        writer = gguf.GGUFWriter(staged, CONTROL)
        writer.add_string(f"{CONTROL}.model_hint", model_type)
        writer.add_uint32(f"{CONTROL}.layer_count", len(vectors) - (0 in vectors))
        _finish(
            writer, {f"direction.{layer}": row.float() for layer, row in sorted(vectors.items()) if layer}
        )


def _finish(writer: Any, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor.to(torch.float32).contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
