"""What a backbone is made of, as one pass shows it: what runs in its blocks, what writes to its stream."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from palette.backbones.architectures import linear_shape
from palette.backbones.backbone import Backbone
from palette.backbones.cache import bytes_a_token, window
from palette.backbones.template import PROBES
from palette.errors import BackboneError
from palette.shapes import Tensor

HEARD = "heard only through a later linear"
SILENT = "did not run on a prompt in words"


@dataclass(frozen=True)
class Part:
    """A module with parameters of its own that ran in a block."""

    name: str
    kind: str
    shape: tuple[int, int] | None
    """[d_out, d_in] of a linear."""
    writes: bool = False
    behind: str = ""
    """The writer whose output it reads, on the way to the stream."""
    beside: bool = False
    """Whether it reads what the block was given, or what another part made of it."""


@dataclass(frozen=True)
class Block:
    """Blocks that are built alike."""

    indices: tuple[int, ...]
    parts: tuple[Part, ...]
    skipped: Mapping[str, str]
    """Linears as wide as the stream that do not write to it, with the reason."""

    def to_json(self) -> dict[str, Any]:
        """What was found, as plain values, with a drawing of one of them."""
        return {
            "blocks": list(self.indices),
            "writers": [part.name for part in self.parts if part.writes],
            "norms_after_writers": {part.behind: part.name for part in self.parts if part.behind},
            "skipped": dict(self.skipped),
            "drawing": drawing(self.parts),
        }


def kinds(backbone: Backbone) -> tuple[list[Block], str]:
    """The kinds of blocks in order of appearance, and why no writers are told, if none are.

    Raises:
        BackboneError: if the blocks are not found.
    """
    reason = ""
    try:
        writers = [{id(writer) for writer in several} for several in backbone.writers]
    except BackboneError as error:
        writers, reason = [set() for _ in backbone.blocks], str(error)
    seen = traced(backbone, writers)
    found: dict[tuple[Any, ...], list[int]] = {}
    for index, (block, parts) in enumerate(zip(backbone.blocks, seen, strict=True)):
        ran = {part.name for part in parts}
        skipped = {
            name: HEARD if name in ran else SILENT
            for name, module in block.named_modules()
            if (linear_shape(module) or (0,))[0] == backbone.width and id(module) not in writers[index]
        }
        found.setdefault((tuple(parts), tuple(skipped.items())), []).append(index)
    alike = [Block(tuple(at), parts, dict(skipped)) for (parts, skipped), at in found.items()]
    return ([replace(one, skipped={}) for one in alike] if reason else alike), reason


@torch.no_grad()
def traced(backbone: Backbone, writers: list[set[int]]) -> list[list[Part]]:
    """What ran in each block, in the order in which it ended; ``writers`` are the ids of those modules."""
    parts: list[dict[str, Part]] = [{} for _ in backbone.blocks]
    given: list[Tensor | None] = [None for _ in backbone.blocks]
    made: list[dict[int, str]] = [{} for _ in backbone.blocks]
    written: list[set[str]] = [set() for _ in backbone.blocks]
    told: dict[tuple[int, str], tuple[bool, str]] = {}

    def enter(index: int, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        given[index] = args[0] if args else kwargs.get("hidden_states")

    def read(index: int, name: str, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        values = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        stream = given[index]
        source = made[index].get(values[0].data_ptr()) if values else None
        behind = source if source in written[index] else ""
        given_it = bool(values) and stream is not None and torch.equal(values[0], stream)
        beside = given_it or bool(source and not behind)
        told.setdefault((index, name), (beside, behind or ""))

    def note(index: int, name: str, module: nn.Module, args: Any, output: Any) -> None:
        beside, behind = told[index, name]
        writes = id(module) in writers[index]
        known = Part(name, type(module).__name__, linear_shape(module), writes, behind, beside)
        parts[index].setdefault(name, known)
        if writes:
            written[index].add(name)
        if isinstance(output, Tensor):
            held.append(output)
            made[index][output.data_ptr()] = name

    # Kept, so that no other tensor is given their place while the pass goes on.
    held: list[Tensor] = []
    with ExitStack() as stack:
        for index, block in enumerate(backbone.blocks):
            stack.callback(block.register_forward_pre_hook(partial(enter, index), with_kwargs=True).remove)
            for name, module in block.named_modules():
                if name and _is_part(module):
                    reading = partial(read, index, name)
                    stack.callback(module.register_forward_pre_hook(reading, with_kwargs=True).remove)
                    stack.callback(module.register_forward_hook(partial(note, index, name)).remove)
        ids = backbone.render([{"role": "user", "content": PROBES[-1]}])
        backbone.model(input_ids=torch.tensor([ids], device=backbone.model.device), use_cache=False)
    return [list(each.values()) for each in parts]


def _is_part(module: nn.Module) -> bool:
    """Whether a module has parameters of its own and no module inside that has any, or is a norm."""
    inner = any(True for child in module.children() for _ in child.parameters())
    own = any(True for _ in module.parameters(recurse=False))
    return not inner and (own or "norm" in type(module).__name__.lower())


def drawing(parts: tuple[Part, ...]) -> list[str]:
    """The lines of a picture of a block: the stream runs down, and branches leave it and are added to it."""
    if not parts:
        return []
    wide = max(len(part.name) for part in parts)
    norms = {part.behind for part in parts if part.behind}
    lines, open_branch = ["│"], False
    for part in parts:
        size = f"{part.shape[1]} → {part.shape[0]}" if part.shape else part.kind
        if not open_branch:
            first = part is parts[0]
            lines.append("├─┐" + ("" if first or not part.beside else "  beside what is above"))
            open_branch = True
        lines.append(f"│ {part.name:<{wide}}  {size}".rstrip())
        # A writer's norm comes between it and the stream.
        if (part.writes and part.name not in norms) or part.behind:
            lines.append("⊕◂┘")
            open_branch = False
    return [*lines, "▾"]


def cache_facts(backbone: Backbone) -> dict[str, Any]:
    """What the library's cache of a pass is, and what Palette may make of it."""
    ids = torch.tensor([backbone.render([{"role": "user", "content": PROBES[0]}])])
    with torch.no_grad():
        said = backbone.model(input_ids=ids.to(backbone.model.device), use_cache=True)
    cache = getattr(said, "past_key_values", None)
    return {
        "kind": type(cache).__name__ if cache is not None else None,
        "layers": dict(Counter(type(layer).__name__ for layer in getattr(cache, "layers", ()))),
        "window": window(backbone),
        "bytes_a_token": bytes_a_token(backbone),
    }


def template_facts(backbone: Backbone) -> dict[str, Any]:
    """What the chat template does: whether it takes a system message, what ends a reply, what opens one."""
    asked, tokenizer = [{"role": "user", "content": PROBES[-1]}], backbone.tokenizer
    try:
        replace(backbone.template, system=PROBES[1]).require_system()
        system = ""
    except BackboneError as error:
        system = str(error)
    rendered = backbone.render(asked)
    return {
        "system_role": not system,
        "ends": [str(tokenizer.convert_ids_to_tokens(token)) for token in backbone.stops],
        "opens": str(tokenizer.decode(rendered[-backbone.post_instruction :])),
        "rendered": str(tokenizer.decode(rendered)),
    }
