"""Where the parts of a model are: the library's own words, and one table of what they do not say.

A model's decoder, head and configuration are what ``get_decoder()``, ``get_output_embeddings()`` and
``config.get_text_config()`` say. A row of the table is an exception, by the decoder's ``model_type``, or
by that of the whole model where it is about pictures.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from palette.errors import BackboneError

LINEAR = (nn.Linear, Conv1D)
"""What takes a LoRA. The second, GPT-2's, keeps its weight as [d_in, d_out]."""


@dataclass(frozen=True)
class Architecture:
    """What is to be known of a type of model beside the library's words."""

    count: str = "num_hidden_layers"
    """What the configuration calls the number of blocks."""
    refused: str = ""
    """Why its blocks can be neither read nor edited."""
    passing: str = ""
    """What hands some tokens on beside what the writers write, so that no direction can be taken from it."""
    untrained: str = ""
    """Why no gradient can be taken through it twice."""
    unadapted: tuple[str, ...] = ()
    """Names of linears that PEFT refuses, since a kernel may read their weight past any wrapper."""
    unseen: str = ""
    """Why a picture is more to it than embeddings in the places of tokens."""


SCANNED = Architecture(unadapted=("out_proj",))
SEVERAL = Architecture(refused="which hands four streams from block to block")
OTHER_WEIGHTS = Architecture(unseen="which reads pictures with other weights than words")
ARCHITECTURES = {
    "falcon_h1": SCANNED,
    "falcon_mamba": SCANNED,
    "mamba": SCANNED,
    "mamba2": SCANNED,
    "nemotron_h": SCANNED,
    "longcat_flash": Architecture(count="num_layers", passing="experts that hand tokens on as they are"),
    "gemma3n_text": SEVERAL,
    "deepseek_v4": SEVERAL,
    "glm5_next_text": SEVERAL,
    "hy_v4": SEVERAL,
    "recurrent_gemma": Architecture(
        untrained="whose layers keep a state with its gradient from pass to pass"
    ),
    "openai-gpt": Architecture(refused="whose blocks hand lists on, and no stream"),
    "hrm_text": Architecture(refused="whose blocks run several times for each token"),
    "mllama_text_model": Architecture(refused="of whose blocks some run beside an image only"),
    "paligemma": Architecture(unseen="which reads the words beside a picture in both directions"),
    "phi4_multimodal": OTHER_WEIGHTS,
    "ernie4_5_vl_moe": OTHER_WEIGHTS,
    "ovis2": Architecture(unseen="which reads the signs around a picture as something else than words"),
    "hunyuan_vl": Architecture(unseen="which numbers the pictures of a prompt among its positions"),
}
"""The exceptions, by ``model_type``."""


def architecture(config: PretrainedConfig) -> Architecture:
    """The row of a model's configuration; one without exceptions where there is none."""
    return ARCHITECTURES.get(config.get_text_config().model_type, Architecture())


def blind(config: PretrainedConfig) -> str:
    """Why a model cannot be shown pictures as tokens; nothing where only its proof can tell."""
    for row in (ARCHITECTURES.get(config.model_type), architecture(config)):
        if row and (row.unseen or row.refused):
            return row.unseen or row.refused
    looks_again = getattr(config.get_text_config(), "hidden_size_per_layer_input", 0)
    return "which looks tokens up once more in each block" if looks_again else ""


def count_blocks(config: PretrainedConfig) -> int:
    """How many blocks a model's decoder has."""
    return int(getattr(config.get_text_config(), architecture(config).count))


def shares_keys(config: PretrainedConfig) -> bool:
    """Whether blocks read the keys of others, as Gemma 4's small models do.

    The library then runs them at those positions only whose logits are asked for.
    """
    return bool(getattr(config.get_text_config(), "num_kv_shared_layers", 0))


def find_blocks(model: PreTrainedModel, where: str) -> list[nn.Module]:
    """The decoder's blocks in order: the one list in the decoder as long as its configuration says.

    Raises:
        BackboneError: if there is no such list or more than one, or its blocks do not run once at every
            position on one stream.
    """
    kind = model.config.get_text_config().model_type
    if reason := architecture(model.config).refused:
        raise BackboneError(
            "each block must run once at every position, on one residual stream",
            got=f"{kind}, {reason}",
            remedy="use another model",
            where=where,
        )
    decoder, count = model.get_decoder(), count_blocks(model.config)
    lists = {
        name: module
        for name, module in decoder.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count
    }
    # Of a head that is its own decoder, as Llama 4's, the blocks lie deeper.
    depth = min((name.count(".") for name in lists), default=0)
    nearest = [module for name, module in lists.items() if name.count(".") == depth]
    if len(nearest) != 1:
        raise BackboneError(
            f"a decoder must hold one list of its {count} blocks",
            got=f"{len(nearest)} in {type(decoder).__name__}",
            remedy="use a decoder-only transformers model",
            where=where,
        )
    return list(nearest[0])


def linear_shape(module: nn.Module | None) -> tuple[int, int] | None:
    """The outputs and the inputs of a linear module; None of any other."""
    if isinstance(module, Conv1D):
        return module.nf, module.nx
    d_out, d_in = (getattr(module, f"{side}_features", None) for side in ("out", "in"))
    return None if d_out is None or d_in is None else (d_out, d_in)


@torch.no_grad()
def is_product(module: nn.Module) -> bool:
    """Whether a module is a linear that gives its product alone: no choice of experts, no groups."""
    if type(module) in LINEAR or not isinstance(module, LINEAR):
        return isinstance(module, LINEAR)
    weight, (d_out, d_in) = module.weight, linear_shape(module) or (0, 0)
    try:
        product = module(weight.new_zeros(1, d_in))
    except RuntimeError:  # What is in groups takes them side by side.
        return False
    return isinstance(product, Tensor) and product.shape == (1, d_out)


def fused_experts(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters [expert, ·, ·] of a module's own, by name: the matrices of fused experts."""
    # A convolution's are of three axes too.
    if isinstance(module, nn.modules.conv._ConvNd):
        return {}
    own = module.named_parameters(recurse=False)
    return {name: each for name, each in own if each.dim() == 3 and min(each.shape[1:]) > 1}
