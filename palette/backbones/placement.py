"""Where the weights of a backbone lie, in how many bits, and what a pass over them takes."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.base import get_keys_to_not_convert

from palette.backbones.backbone import Backbone
from palette.errors import BackboneError
from palette.fingerprints import fingerprint
from palette.processes import device_named

BITS = {"int8": 1.0, "nf4": 0.5 + 4 / 64}
"""Precisions of eight and four bits, which bitsandbytes multiplies, and the bytes of a number: of four bits,
64 have a scale."""
DISK = "disk"
"""What a map of devices has that is none."""
DeviceMap = Mapping[str, str | int]
"""The device of each module, by its path, as accelerate has it; a number is that of an accelerator."""
PACKAGE = "bitsandbytes"
"""What runs them, and the method's name where weights are stored so."""
RUNNERS = {
    PACKAGE: {PACKAGE: "pip install 'palette-llm[bits]'"},
    "awq": {"gptqmodel": "pip install gptqmodel"},
    "gptq": dict.fromkeys(("optimum", "gptqmodel"), "pip install optimum gptqmodel"),
    "compressed-tensors": {"compressed_tensors": "pip install compressed-tensors"},
}
"""For each method in which weights are stored in few bits the packages that run it, as they are imported, and
what installs them; of others the library tells."""
USUAL = {"cpu": 2e11, "cuda": 5e13}
"""Operations a second of a usual machine by the kind of its device; of another kind, as the first."""
HALVES = {"cpu": 1.6}
"""How many times as many in half precision, which a device is given where it has units for it: over passes
(three times), replies (twice to three times) and training (1.6), what a real chat model gained at least."""

# It says at each product in half precision that it is one, and at its start what else might be installed.
logging.getLogger(PACKAGE).setLevel(logging.ERROR)


def main_device(device: str | DeviceMap) -> str:
    """The first device that a model lies on.

    Raises:
        BackboneError: if this machine lacks a device that is named.
    """
    if isinstance(device, str):
        return device_named(device)
    named = [each if isinstance(each, str) else f"cuda:{each}" for each in device.values() if each != DISK]
    return next(iter([device_named(each) for each in named]), "cpu")


def placed(device: str | DeviceMap, dtype: str, compute: torch.dtype, stored: Any) -> dict[str, Any]:
    """What the library is told of a model that it is to place itself; nothing where it may be moved later.

    ``compute`` is the precision of what is not in few bits, and ``stored`` how a folder says that its
    weights are in few bits already, or None.

    Raises:
        BackboneError: if a model is to be put into few bits twice, a package is missing that runs it, or its
            activations are in few bits too.
    """
    told: dict[str, Any] = {}
    if dtype in BITS:
        if stored is not None:
            raise BackboneError(
                "the weights of a model in few bits cannot be put into fewer",
                got=dtype,
                remedy="say dtype: auto",
            )
        four = {"load_in_4bit": True, "bnb_4bit_quant_type": dtype, "bnb_4bit_compute_dtype": compute}
        told["quantization_config"] = BitsAndBytesConfig(
            **({"load_in_8bit": True} if dtype == "int8" else four)
        )
    method = PACKAGE if dtype in BITS else (stored or {}).get("quant_method")
    for package, remedy in RUNNERS.get(str(method), {}).items():
        if find_spec(package) is None:
            raise BackboneError(
                f"a model in few bits is run by the package {package.replace('_', '-')}",
                got="none installed",
                remedy=remedy,
            )
    groups = (stored or {}).get("config_groups") or {}
    if any(group.get("input_activations") for group in groups.values()):
        # Its package rounds what each linear is given, outside of any gradient.
        raise BackboneError(
            "a model in few bits must read its activations whole, since no gradient passes rounded ones",
            got=f"activations in few bits too ({method})",
            remedy="use its whole weights, or one whose weights alone are in few bits",
        )
    if not isinstance(device, str):
        told["device_map"] = dict(device)
    elif device == "auto" or told or stored is not None:
        told["device_map"] = device if device == "auto" else {"": device}
    return told


def settle(model: nn.Module) -> None:
    """Returns nothing; what bitsandbytes would lay out anew in the first pass is laid out, or stays.

    A twin shares parameters, so that whichever ran first would take them from the other.
    """
    module: Any
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            # Its packed form takes whole blocks of 32 outputs alone, and no gradient.
            module.support_avx512bf16_for_cpu = False
        if hasattr(module, "init_8bit_state") and getattr(module.weight, "CB", None) is not None:
            module.init_8bit_state()


def numbers_in(weight: nn.Parameter) -> int:
    """How many numbers a parameter holds; of four bits, two stand in each of its own."""
    state: Any = getattr(weight, "quant_state", None)
    return weight.numel() if state is None else math.prod(state.shape)


def weight_bytes(model: PreTrainedModel, dtype: str) -> int:
    """The bytes that a model's weights will take in a recipe's precision; they need not be there yet."""
    stored = getattr(model.config, "quantization_config", None) or {}
    few = {"load_in_8bit": "int8", "load_in_4bit": "nf4"}
    named = next((few[each] for each in few if stored.get(each)), dtype)
    whole = set(get_keys_to_not_convert(model))
    matrices = {
        id(module.weight)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and name not in whole
    }

    def taken(weight: nn.Parameter) -> float:
        return weight.numel() * BITS[named] if named in BITS and id(weight) in matrices else weight.nbytes

    return round(sum(map(taken, model.parameters())))


def number_format(model: PreTrainedModel) -> str:
    """In what numbers a model computes: its precision, and how its matrices were put into fewer bits."""
    few: Any = getattr(model.config, "quantization_config", None)
    few = few.to_dict() if hasattr(few, "to_dict") else few
    return str(model.dtype) if few is None else f"{model.dtype} of {fingerprint(few)[:16]}"


def pass_seconds(backbone: Backbone, kind: str | None = None) -> float:
    """The seconds that a token of one forward pass takes on a usual machine: two operations a weight.

    Operations are counted and the time is nominal, so that a recipe does the same wherever it is run.
    ``kind`` is that of the device it is to run on, if it is not there yet.
    """
    weights = sum(numbers_in(each) for each in backbone.model.parameters())
    kind = kind or backbone.model.device.type
    faster = HALVES.get(kind, 1.0) if backbone.model.dtype.itemsize == 2 else 1.0
    return 2 * weights / (USUAL.get(kind, USUAL["cpu"]) * faster)
