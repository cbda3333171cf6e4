"""How tools store the factors of modules: the names in one table, and the stacked factors of fused experts.

    PEFT, Unsloth, torchtune's exports     base_model.model.<path>.lora_A.weight
    PEFT's live state                      base_model.model.<path>.lora_A.default.weight
    diffusers                              <component>.<path>.lora_A.weight
    kohya's factors under whole paths      <component>.<path>.lora_down.weight, <path>.alpha
    one model without a prefix             <path>.lora_A.weight, or lora_down
    torchtune's own names                  layers.<n>.attn.v_proj.lora_a.weight

A file is of one layout, whatever wrapped the model or its modules when it was saved. Where diffusers and
kohya leave alpha out it is the rank, so that ΔW = B A.
torchtune orders the rows of q_proj and k_proj for its own rotary embedding, and not in every model,
so that they cannot be read without the model; its checkpointer exports PEFT's layout. kohya's usual
names put underscores for dots, which only the model can undo.

PEFT's ``target_parameters`` puts LoRA on a parameter of shape [expert, ·, ·] as two matrices, with
lora_A [expert × rank, d_in] ordered by expert first and lora_B [d_out, rank × expert] by rank first. The
module of expert e is called ``<path of the parameter>[e]``, and its ΔW is [d_out, d_in] also where the
parameter is stored the other way round. A parameter's factors stand under the path of the module that
owns it, and those of the parameter that the module defines first under ``base_layer`` below it: which
one that is stands nowhere in the file. In transformers gate_up_proj is always defined before down_proj,
and their shapes tell them apart, so that this pair is read; other pairs are not. A linear that PEFT would
not wrap as a module is targeted by its parameter ``<path>.weight``, which is then the module's name here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import NamedTuple

from palette.adapters.configuration import Configuration
from palette.adapters.header import TENSOR_LIMIT, Entry
from palette.adapters.names import unwrapped
from palette.errors import AdapterError
from palette.shapes import Tensor

PREFIX = "base_model.model."
COMPONENTS = tuple(
    f"{name}."
    for name in ("transformer", "transformer_2", "unet", "text_encoder", "text_encoder_2", "text_encoder_3")
)
_PATH = r"[A-Za-z0-9_]+(?:\.[A-Za-z0-9_]+)*"
MODULE_NAME = re.compile(_PATH, re.ASCII)
EXPERT_NAME = re.compile(rf"({_PATH})\[(0|[1-9][0-9]{{0,4}})\]", re.ASCII)
INNER, WEIGHT = ".base_layer", ".weight"
PAIR = ("gate_up_proj", "down_proj")
"""The two parameters of one module that can be told apart, in the order of their definition."""

_SUFFIX = re.compile(
    rf"({_PATH})\.(lora_[AB](?:\.default)?\.weight|lora_magnitude_vector(?:\.default)?(?:\.weight)?"
    r"|lora_(?:down|up|a|b)\.weight|alpha)",
    re.ASCII,
)

_PLAIN = {"lora_A.weight": "lora_A", "lora_B.weight": "lora_B"}
_DORA = {f"lora_magnitude_vector{end}": "magnitude" for end in ("", ".weight")}
_LIVE = {key.replace(".weight", ".default.weight"): role for key, role in _PLAIN.items()}
_LIVE_DORA = {f"lora_magnitude_vector.default{end}": "magnitude" for end in ("", ".weight")}
_KOHYA = {"lora_down.weight": "lora_A", "lora_up.weight": "lora_B", "alpha": "alpha"}
_TUNE = {"lora_a.weight": "lora_A", "lora_b.weight": "lora_B"}

_TUNE_PATH = re.compile(r"layers\.(\d+)\.(attn\.v_proj|attn\.output_proj|mlp\.w[123])|output", re.ASCII)
_TUNE_MODULES = {"attn.v_proj": "self_attn.v_proj", "attn.output_proj": "self_attn.o_proj"}
_TUNE_MODULES |= {"mlp.w1": "mlp.gate_proj", "mlp.w2": "mlp.down_proj", "mlp.w3": "mlp.up_proj"}


class Layout(NamedTuple):
    """One row: the prefix before a module's path, the role of each suffix, and what may be left out."""

    name: str
    prefix: str
    roles: Mapping[str, str]
    implied: bool = False
    """Whether alpha is the rank where neither a tensor nor a configuration states it."""

    def parse(self, key: str) -> tuple[str, str] | None:
        """The module path and the role of the tensor ``key``, or None if it is not of this layout."""
        match = _SUFFIX.fullmatch(key)
        role = match and self.roles.get(match[2])
        if match is None or role is None or not key.startswith(self.prefix):
            return None
        path = match[1][len(self.prefix) :]
        if self.roles is _TUNE:
            tuned = _TUNE_PATH.fullmatch(path)
            if tuned is None:
                return None
            path = f"model.layers.{tuned[1]}.{_TUNE_MODULES[tuned[2]]}" if tuned[1] else "lm_head"
        elif not self.prefix and key.startswith((PREFIX, "lora_", *COMPONENTS)):
            return None
        return (path, role) if path else None


LAYOUTS = (
    Layout("PEFT", PREFIX, _PLAIN | _DORA),
    Layout("PEFT's live state", PREFIX, _LIVE | _LIVE_DORA),
    *(Layout("diffusers", prefix, _PLAIN | {"alpha": "alpha"}, implied=True) for prefix in COMPONENTS),
    *(Layout("kohya", prefix, _KOHYA, implied=True) for prefix in COMPONENTS),
    Layout("one model", "", _PLAIN | _DORA | {"alpha": "alpha"}),
    Layout("one model, kohya", "", _KOHYA, implied=True),
    Layout("torchtune", "", _TUNE),
)

_FOREIGN_NAMES = {
    ("lora_embedding_",): "LoRA on embeddings",
    ("trainable_tokens",): "trained token embeddings",
    ("lora_B.bias", "lora_B.default.bias"): "a bias on lora_B, which ΔW cannot hold",
    ("lora_magnitude_vector", "dora_scale"): "DoRA in a layout that is not PEFT's",
    ("lora_unet_", "lora_te"): "kohya's names, whose underscores only the backbone can turn into a path",
    (".lora_a.", ".lora_b."): "torchtune's own order of rows or names; export it with its checkpointer",
    ("lora_",): "a tensor that is no factor",
    (".bias",): "a bias of the backbone, which ΔW cannot hold",
    (".weight",): "a whole module trained beside LoRA, or no adapter",
}
"""What a name that no layout has means, by the first of its parts that is found."""

Roles = Mapping[str, Mapping[str, str]]
"""For every module path the tensor of each role: its factors, its alpha, its magnitudes."""


def layered(keys: Iterable[str], where: Path) -> tuple[Layout, Roles]:
    """The layout of a file with these tensors, and its modules in the order of their paths.

    Raises:
        AdapterError: if a tensor is of no layout, the file mixes two, or a factor is missing.
    """
    candidates: tuple[Layout, ...] = LAYOUTS
    bare = _bare(sorted(keys))
    for key, name in bare.items():
        fitting = tuple(layout for layout in candidates if layout.parse(name) is not None)
        if not fitting:
            raise _foreign(key, candidates, where)
        candidates = fitting
    layout = candidates[0]
    modules: dict[str, dict[str, str]] = {}
    for key, name in bare.items():
        path, role = layout.parse(name) or ("", "")
        if role in modules.setdefault(path, {}):
            raise AdapterError("a factor must stand once", got=f"two of {role} for {path[:80]}", where=where)
        modules[path][role] = key
    if not modules:
        raise AdapterError("an adapter must adapt a module", got="an empty file", where=where)
    for path, role in product(sorted(modules), ("lora_A", "lora_B")):
        if role not in modules[path]:
            got = f"no {role} for {path[:120]}"
            raise AdapterError("a module must have both factors", got=got, where=where)
    return layout, {path: modules[path] for path in sorted(modules)}


def _bare(keys: Iterable[str]) -> dict[str, str]:
    """The name of each tensor without what wraps modules, and without whatever holds PEFT's whole model."""
    names = {key: unwrapped(key) for key in keys}
    holders = {name.rpartition(PREFIX)[0] for name in names.values()}
    holder = holders.pop() if len(holders) == 1 else ""
    return {key: name.removeprefix(holder) for key, name in names.items()} if holder[-1:] == "." else names


def _foreign(key: str, candidates: tuple[Layout, ...], where: Path) -> AdapterError:
    """The error for a tensor that none of ``candidates`` names."""
    others = [layout.name for layout in LAYOUTS if layout.parse(key) is not None]
    if others:
        return AdapterError(
            "an adapter must be of one layout",
            got=f"{key[:120]} of {others[0]} beside tensors of {candidates[0].name}",
            where=where,
        )
    meanings = (meaning for parts, meaning in _FOREIGN_NAMES.items() if any(part in key for part in parts))
    reason = next(meanings, "a tensor that is no factor")
    return AdapterError(
        f"an adapter must hold {PREFIX}<module>.lora_A.weight and lora_B.weight only",
        got=f"{key[:120]}, {reason}",
        where=where,
    )


@dataclass(frozen=True)
class Expert:
    """Which expert of how many a module is."""

    index: int
    count: int

    def of_entries(self, entries: Mapping[str, Entry]) -> dict[str, Entry]:
        """The stacked entries with the shapes of one expert's factors."""
        down, up = entries["lora_A"], entries["lora_B"]
        if len(down.shape) != 2 or len(up.shape) != 2 or up.shape[1] % self.count:
            return dict(entries)
        return {
            **entries,
            "lora_A": down._replace(shape=(down.shape[0] // self.count, down.shape[1])),
            "lora_B": up._replace(shape=(up.shape[0], up.shape[1] // self.count)),
        }

    def of_factors(self, factors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One expert's factors out of the stacked ones, of which nothing is held afterwards."""
        down, up = factors["lora_A"], factors["lora_B"]
        return {
            **factors,
            "lora_A": down.reshape(self.count, -1, down.shape[1])[self.index].clone(),
            "lora_B": up.reshape(up.shape[0], -1, self.count)[..., self.index].contiguous(),
        }


def expert_modules(
    roles: Roles, entries: Mapping[str, Entry], configuration: Configuration, where: Path
) -> tuple[Roles, Mapping[str, Expert]]:
    """The modules of a file, one for each expert of every parameter targeted, and which of them are experts.

    Raises:
        AdapterError: if it is not certain which factors belong to which parameter.
    """
    if not configuration.parameters and not any(path.endswith(INNER) for path in roles):
        return roles, {}
    parts: dict[str, Mapping[str, str]] = {}
    experts: dict[str, Expert] = {}
    for owner, stack in _owners(roles).items():
        leaves = _targeted(owner, configuration.parameters)
        if not leaves and owner in roles and len(stack) == 1:
            parts[owner] = roles[owner]
            continue
        shapes = [[entries[roles[path][role]].shape for role in ("lora_A", "lora_B")] for path in stack]
        for name, path in _assigned(owner, leaves, stack, shapes, where).items():
            rank = configuration.rank_of(name)
            shape = entries[roles[path]["lora_A"]].shape
            count, rest = divmod(shape[0] if shape else 0, rank or 1)
            if rest or not count or not rank or len(experts) + count > TENSOR_LIMIT:
                raise _uncertain(f"lora_A {list(shape)} for rank {rank} of {name[:120]}", where)
            if count == 1 and name.endswith(WEIGHT):
                # A linear's weight, which PEFT can be told of as a parameter too.
                parts[name] = roles[path]
                continue
            for index in range(count):
                parts[f"{name}[{index}]"] = roles[path]
                experts[f"{name}[{index}]"] = Expert(index, count)
    return parts, experts


def _owners(roles: Roles) -> dict[str, list[str]]:
    """The paths of the factors by the module that owns the parameter, the innermost first."""
    stacks: dict[str, list[str]] = {}
    for path in sorted(roles, key=len, reverse=True):
        owner = path
        while owner.endswith(INNER):
            owner = owner[: -len(INNER)]
        stacks.setdefault(owner, []).append(path)
    return {owner: stacks[owner] for owner in sorted(stacks)}


def _targeted(owner: str, parameters: tuple[str, ...]) -> list[str]:
    """The names that module ``owner`` has for those of its parameters that are targeted, as PEFT matches."""
    parts = [parameter.rpartition(".") for parameter in parameters]
    return sorted({leaf for head, _, leaf in parts if not head or f".{owner}".endswith(f".{head}")})


def _assigned(
    owner: str, leaves: list[str], stack: list[str], shapes: list[list[tuple[int, ...]]], where: Path
) -> dict[str, str]:
    """For each targeted parameter of ``owner``, by its path, the path under which its factors stand."""
    if len(leaves) == 1 and stack == [owner]:
        return {f"{owner}.{leaves[0]}": owner}
    told_apart = leaves == sorted(PAIR) and stack == [owner + INNER, owner]
    if told_apart and all(len(shape) == 2 for shape in (*shapes[0], *shapes[1])):
        ((_, d_in), (d_out, _)), ((_, hidden), (back, _)) = shapes
        if (d_in, d_out) == (back, 2 * hidden):
            return {f"{owner}.{PAIR[0]}": stack[0], f"{owner}.{PAIR[1]}": stack[1]}
    raise _uncertain(
        f"{len(stack)} pairs of factors for {', '.join(leaves) or 'none'} of {owner[:120]}", where
    )


def _uncertain(got: str, where: Path) -> AdapterError:
    return AdapterError(
        "the factors of fused experts must be certain from target_parameters, ranks and shapes",
        got=got[:240],
        remedy="target one parameter of a module, or gate_up_proj and down_proj",
        where=where,
    )
