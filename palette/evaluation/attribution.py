"""Which layers, heads and MLPs write a direction: direct attribution, in TransformerLens' names.

What block l adds to the residual stream at a position is ``hook_attn_out`` + ``hook_mlp_out``, and of the
first a head h writes W_O[h] z[h] (Elhage et al., A Mathematical Framework for Transformer Circuits, 2021).
The dot products with r of the embedding and of all of these add up to the stream's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from typing import Any

import torch
from pydantic import BaseModel

from palette.activations import captured
from palette.adapters.lora import Adapter
from palette.adapters.mounting import mounted
from palette.backbones import Backbone
from palette.backbones.hook_points import ATTENTION, HEADS, MLP, POST, PRE
from palette.backbones.scoring import rounding
from palette.errors import BackboneError
from palette.processes import Advance, unheard
from palette.shapes import Float, Tensor


class Written(BaseModel, frozen=True):
    """What each part writes along a direction, a mean over prompts, in the stream's own unit."""

    embedded: float
    attention: list[float]
    mlp: list[float]
    rest: list[float]
    """What a block adds in another way: nothing in most models."""
    heads: list[list[float]] | None
    """By block and head, ``attention`` but for its bias; None where a norm or a gate parts the two."""

    @property
    def total(self) -> float:
        """What stands in the last block's output."""
        return self.embedded + sum(self.attention) + sum(self.mlp) + sum(self.rest)

    def scaled(self, unit: float) -> Written:
        """The same in another unit."""
        return Written(
            embedded=self.embedded / unit,
            heads=None if self.heads is None else [[x / unit for x in row] for row in self.heads],
            **{name: [x / unit for x in getattr(self, name)] for name in ("attention", "mlp", "rest")},
        )


@contextmanager
def bridged(backbone: Backbone, adapter: Adapter | None = None) -> Iterator[Any]:
    """TransformerLens' bridge around the backbone's own weights, the adapter mounted; no hook is left on it.

    Raises:
        BackboneError: if the package is missing, or knows no such architecture.
        AdapterError: if the adapter does not fit.
    """
    if find_spec("transformer_lens") is None:
        raise BackboneError(
            "attribution is by the package transformer-lens",
            got="none installed",
            remedy="pip install 'palette-llm[lens]'",
        )
    from transformer_lens.model_bridge import TransformerBridge

    # It puts modules of its own into the model that it is given.
    twin = backbone.twin()
    with mounted(twin.model, adapter) if adapter else nullcontext():
        try:
            bridge = TransformerBridge.boot_transformers(
                backbone.name, hf_model=twin.model, tokenizer=backbone.tokenizer, dtype=backbone.model.dtype
            )
        except Exception as error:  # What it does not know it may fail on in any way.
            raise BackboneError(
                "attribution needs an architecture that TransformerLens knows",
                got=f"{type(backbone.model).__name__} ({type(error).__name__})",
                where=backbone.name,
            ) from error
        yield bridge


@torch.no_grad()
def written(
    backbone: Backbone,
    prompts: Sequence[Sequence[int]],
    direction: Float[Tensor, "d_model"],
    position: int,
    adapter: Adapter | None = None,
    advance: Advance = unheard,
) -> Written:
    """What each part writes along ``direction`` at a (negative) position of the prompts, on average.

    Raises:
        BackboneError: as ``bridged``, or if the bridge's stream is not the one that hooks of Palette's read.
        AdapterError: if the adapter does not fit.
    """
    r, layers = direction.double(), range(backbone.layers)
    sums: list[Tensor] = []
    headed = True
    with bridged(backbone, adapter) as bridge:
        names = [form.format(layer) for layer in layers for form in (PRE, POST, ATTENTION, MLP, HEADS)]
        for ids in prompts:
            _, cache = bridge.run_with_cache(
                torch.tensor([list(ids)], device=backbone.model.device), names_filter=names.__contains__
            )
            if not sums:
                _require_same(backbone, ids, adapter, cache)

            def along(form: str, layer: int, cache: Any = cache) -> Tensor:
                there: Tensor = cache[form.format(layer)][0, position].double().cpu()
                return there @ r

            rows = []
            for layer in layers:
                attention, mlp = along(ATTENTION, layer), along(MLP, layer)
                rest = along(POST, layer) - along(PRE, layer) - attention - mlp
                heads = _heads(bridge, layer, cache[HEADS.format(layer)][0, position], r)
                bias = attention - heads.sum()
                headed = headed and bool(abs(bias - _bias(bridge, layer, r)) <= 1e-3 * heads.abs().sum())
                rows.append(torch.cat([torch.stack([attention, mlp, rest]), heads]))
            sums.append(torch.cat([along(PRE, 0).reshape(1), torch.stack(rows).flatten()]))
            advance(1)
    mean = torch.stack(sums).mean(0)
    parts = mean[1:].reshape(len(layers), -1)
    return Written(
        embedded=float(mean[0]),
        attention=parts[:, 0].tolist(),
        mlp=parts[:, 1].tolist(),
        rest=parts[:, 2].tolist(),
        heads=parts[:, 3:].tolist() if headed else None,
    )


def _output(bridge: Any, layer: int) -> Any:
    """The linear that heads write by: the library's own module, with an adapter's hook on it."""
    return bridge.blocks[layer].attn.o.original_component


def _heads(
    bridge: Any, layer: int, z: Float[Tensor, "head d_head"], r: Float[Tensor, "d_model"]
) -> Float[Tensor, "head"]:
    """What each head alone writes along r: the linear of its part of z."""
    alone = torch.diag_embed(z.T).permute(1, 2, 0).flatten(1)
    silence = torch.zeros_like(alone[:1])
    said: Tensor = _output(bridge, layer)(torch.cat([silence, alone])).double().cpu() @ r
    return said[1:] - said[0]


def _bias(bridge: Any, layer: int, r: Float[Tensor, "d_model"]) -> Tensor:
    bias = getattr(_output(bridge, layer), "bias", None)
    return r.new_zeros(()) if bias is None else bias.double().cpu() @ r


def _require_same(backbone: Backbone, ids: Sequence[int], adapter: Adapter | None, cache: Any) -> None:
    """Returns where the bridge's stream is the one that Palette's own hooks read, up to rounding."""
    seen: dict[int, Tensor] = {}
    with (
        mounted(backbone.model, adapter) if adapter else nullcontext(),
        captured(backbone.blocks, seen.__setitem__),
    ):
        backbone.model(input_ids=torch.tensor([list(ids)], device=backbone.model.device), use_cache=False)
    for layer in range(backbone.layers):
        for form, site in ((PRE, layer), (POST, layer + 1)):
            theirs = cache[form.format(layer)]
            if not torch.allclose(theirs, seen[site], rtol=0.0, atol=rounding(seen[site])):
                raise BackboneError(
                    "TransformerLens must give the stream that the model has",
                    got=f"another one at {form.format(layer)}",
                    where=backbone.name,
                )
