"""Where the stream, attention, its heads and the MLP are given on in a pass, by TransformerLens' names.

No module's name is guessed. The parts of a block are the outermost modules without which it hands its input
on as it is; what reads other positions is its attention, what works on each position apart its MLP. A norm
or a factor behind a part is none: it makes the same of the same output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from palette.backbones.architectures import linear_shape
from palette.backbones.backbone import Backbone
from palette.backbones.scoring import rounding
from palette.backbones.template import PROBES
from palette.backbones.writers import changing, needed
from palette.errors import BackboneError
from palette.shapes import Tensor

PRE, POST = "blocks.{}.hook_resid_pre", "blocks.{}.hook_resid_post"
ATTENTION, MLP, HEADS = "blocks.{}.hook_attn_out", "blocks.{}.hook_mlp_out", "blocks.{}.attn.hook_z"

LAW = "a part of a block can be patched where modules give all that the block adds, at each position"
REMEDY = "leave --patching out"
ATTENDING = ("full_attention", "sliding_attention", "chunked_attention", "attention")
"""What the library calls layers with attention whose heads each read all positions by themselves."""

Edit = Callable[[int, Tensor], Tensor]
"""What is given on in the place of a value, of which a hook point may have several, by number."""


@dataclass(frozen=True)
class HookPoint:
    """The modules whose outputs, or inputs, are what a name stands for."""

    modules: tuple[nn.Module, ...]
    layer: int
    """The first block that has to be run again where it is edited."""
    before: bool = False
    """Whether it is what they are given."""
    heads: int = 0
    """How many heads stand side by side in it; 0 where it is no heads'."""


@dataclass
class Trace:
    """How the modules of a block ran in a pass."""

    whole: dict[str, bool] = field(default_factory=dict)
    """Those that once gave a vector of the stream's width for every position: whether with more beside it."""
    linears: list[str] = field(default_factory=list)
    """Linears in the order in which they ended."""
    mixing: set[str] = field(default_factory=set)
    """Those whose output at the last position depends on what they were given at others."""


@torch.no_grad()
def hook_points(backbone: Backbone) -> dict[str, HookPoint]:
    """The hook points of a backbone by name: for each block its input, what it adds, and the last output.

    A block without attention, or without an MLP, has no such point; there are heads where they can be told
    apart in what the attention's last linear reads.

    Raises:
        BackboneError: if a block adds something beside what its modules give at each position.
    """
    ids = torch.tensor(
        [backbone.render([{"role": "user", "content": PROBES[-1]}])], device=backbone.model.device
    )
    traces = _traced(backbone, ids)
    # Modules that lie in no other of those.
    owners = [
        [name for name in trace.whole if not any(name.startswith(f"{other}.") for other in trace.whole)]
        for trace in traces
    ]
    parts = _parts(backbone, traces, owners, ids)
    _tell_mixing(backbone, traces, owners, ids)
    points: dict[str, HookPoint] = {}
    for layer, block in enumerate(backbone.blocks):
        points[PRE.format(layer)] = HookPoint((block,), layer, before=True)
        by_kind: dict[str, list[str]] = {ATTENTION: [], MLP: []}
        for name in parts[layer]:
            owner = _within(name, owners[layer])
            by_kind[ATTENTION if owner in traces[layer].mixing else MLP].append(name)
        if len(by_kind[ATTENTION]) == 1:
            owner = _within(by_kind[ATTENTION][0], owners[layer])
            points |= _heads(backbone, layer, owner, traces[layer])
        points |= {
            form.format(layer): HookPoint(tuple(map(block.get_submodule, names)), layer)
            for form, names in by_kind.items()
            if names
        }
    points[POST.format(backbone.layers - 1)] = HookPoint((backbone.blocks[-1],), backbone.layers)
    return points


@contextmanager
def hooked(points: Mapping[str, HookPoint], edits: Mapping[str, Edit]) -> Iterator[None]:
    """Every forward pass in the block gives on what the edits make of the values at the hook points named.

    Afterwards no hook is left.
    """
    with ExitStack() as stack:
        for name, edit in edits.items():
            for number, module in enumerate(points[name].modules):
                own = partial(edit, number)
                if points[name].before:
                    handle = module.register_forward_pre_hook(partial(on_input, own), with_kwargs=True)
                else:
                    handle = module.register_forward_hook(partial(on_output, own))
                stack.callback(handle.remove)
        yield


def on_input(
    edit: Callable[[Tensor], Tensor], module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """A hook before a module: edits the stream that it is given."""
    if args:
        return (edit(args[0]), *args[1:]), kwargs
    return args, {**kwargs, "hidden_states": edit(kwargs["hidden_states"])}


def on_output(edit: Callable[[Tensor], Tensor], module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
    """A hook behind a module: edits the stream that it gives."""
    # Some decoder layers return the stream alone, some return a tuple that begins with it.
    return (edit(output[0]), *output[1:]) if isinstance(output, tuple) else edit(output)


def _traced(backbone: Backbone, ids: Tensor) -> list[Trace]:
    """How modules with parameters ran in each block; norms are no parts, and left out."""
    traces = [Trace() for _ in backbone.blocks]
    runs: dict[tuple[int, str], int] = {}

    def note(index: int, name: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        runs[index, name] = runs.get((index, name), 0) + 1
        if linear_shape(module):
            traces[index].linears.append(name)
        if _is_whole(output[0] if isinstance(output, tuple) else output, ids, backbone.width):
            traces[index].whole[name] = isinstance(output, tuple)

    with ExitStack() as stack:
        for index, block in enumerate(backbone.blocks):
            for name, module in block.named_modules():
                norm = "norm" in type(module).__name__.lower()
                if name and not norm and any(True for _ in module.parameters()):
                    stack.callback(module.register_forward_hook(partial(note, index, name)).remove)
        backbone.model(input_ids=ids, use_cache=False)
    for index, trace in enumerate(traces):
        trace.whole = {name: more for name, more in trace.whole.items() if runs[index, name] == 1}
    return traces


def _is_whole(value: object, ids: Tensor, width: int) -> bool:
    """Whether a value is a vector of the stream's width for every position, whatever its axes."""
    return isinstance(value, Tensor) and value.shape[-1:] == (width,) and value.numel() == ids.numel() * width


def _within(name: str, owners: Sequence[str]) -> str:
    """The owner that a module is, or lies in."""
    return next(owner for owner in owners if f"{name}.".startswith(f"{owner}."))


def _parts(
    backbone: Backbone, traces: Sequence[Trace], owners: Sequence[Sequence[str]], ids: Tensor
) -> list[list[str]]:
    """The names in each block of what gives all that it adds: its outermost modules, or else its writers."""
    order: list[str] = []
    if not (other := changing(backbone.model, backbone.blocks, owners, ids, order)):
        return needed(backbone.model, backbone.blocks, owners, ids, order)
    # Where a module hands the stream on itself, as Bloom's do, its silence is more than its own.
    try:
        writers = backbone.writers
    except BackboneError as error:
        raise _refused(backbone, other[0], "which adds more than its modules give") from error
    found = []
    for index, (block, several) in enumerate(zip(backbone.blocks, writers, strict=True)):
        names = [name for name, module in block.named_modules() if any(module is each for each in several)]
        if apart := [name for name in names if name not in traces[index].whole]:
            raise _refused(backbone, index, f"whose {apart[0]} does not run once for every position")
        found.append(names)
    return found


def _refused(backbone: Backbone, index: int, reason: str) -> BackboneError:
    kind = type(backbone.blocks[index]).__name__
    return BackboneError(LAW, got=f"block {index} ({kind}), {reason}", remedy=REMEDY, where=backbone.name)


def _tell_mixing(
    backbone: Backbone, traces: Sequence[Trace], owners: Sequence[Sequence[str]], ids: Tensor
) -> None:
    """Notes which modules read other positions: with those turned round, the last one's output changes."""

    def turned(value: Any) -> Any:
        return torch.cat([-value[:, :-1], value[:, -1:]], dim=1)

    def again(
        index: int, name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        given, named = list(args), dict(kwargs)
        places: list[tuple[Any, Any]] = [(given, key) for key in range(len(given))]
        places += [(named, key) for key in named]
        streams = [(holder, key) for holder, key in places if _is_whole(holder[key], ids, backbone.width)]
        holder, key = next((place for place in streams if place[0][place[1]].dim() == 3), (None, None))
        if holder is None:
            return
        holder[key] = turned(holder[key])
        before, after = (
            (each[0] if isinstance(each, tuple) else each).reshape(-1, backbone.width)[-1]
            for each in (output, module.forward(*given, **named))
        )
        # Experts that have fewer positions to work on may sum in another order.
        if not torch.allclose(before, after, rtol=0.0, atol=rounding(before)):
            traces[index].mixing.add(name)

    with ExitStack() as stack:
        for index, names in enumerate(owners):
            for name in names:
                module = backbone.blocks[index].get_submodule(name)
                hook = partial(again, index, name)
                stack.callback(module.register_forward_hook(hook, with_kwargs=True).remove)
        backbone.model(input_ids=ids, use_cache=False)


def _heads(backbone: Backbone, layer: int, owner: str, trace: Trace) -> dict[str, HookPoint]:
    """The point at which an attention's heads stand side by side, if any: what its last linear reads."""
    config = backbone.model.config.get_text_config()
    kinds, by_layer = getattr(config, "layer_types", None), getattr(config, "per_layer_config", None)
    # Where sizes differ from layer to layer, the library lets nobody read the one of all.
    config = config if by_layer is None else by_layer[layer]
    count = getattr(config, "num_attention_heads", 0)
    inner = [name for name in trace.linears if f"{name}.".startswith(f"{owner}.")]
    # The library's attention gives its weights beside its output; a recurrence or a convolution does not.
    attends = trace.whole[owner] and (kinds is None or kinds[layer] in ATTENDING)
    if not (attends and inner and isinstance(count, int) and count):
        return {}
    module = backbone.blocks[layer].get_submodule(inner[-1])
    sizes = {getattr(config, name, None) for name in ("head_dim", "v_head_dim")} | {backbone.width // count}
    d_out, d_in = linear_shape(module) or (0, 0)
    if d_out != backbone.width or d_in not in {count * size for size in sizes if size}:
        return {}
    return {HEADS.format(layer): HookPoint((module,), layer, before=True, heads=count)}
