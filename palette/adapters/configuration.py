"""What an ``adapter_config.json`` may say: the law of the fields, and the scale of each module.

The fields are an allowlist, since a field that Palette does not honour changes what PEFT computes.
"""

from __future__ import annotations

import json
import math
import reprlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from palette.adapters.names import unwrapped
from palette.adapters.patterns import Pattern
from palette.errors import AdapterError

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
"""The files of an adapter's folder, as PEFT names them."""

JSON_LIMIT = 4 << 20
"""Bytes of a text: a list of 45,000 full module paths takes some 3 MB."""

CONTAINER_LIMIT = 20_000
DEPTH_LIMIT = 32

_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxdict, _SHORT.maxstring, _SHORT.maxother = 3, 8, 8, 60, 60

HONOURED = frozenset({
    "r", "lora_alpha", "use_rslora", "use_dora", "alpha_pattern", "rank_pattern", "target_parameters",
    "base_model_name_or_path",
})  # fmt: skip
"""Fields from which the function of an adapter is read."""

IMMATERIAL = frozenset({
    "auto_mapping", "corda_config", "eva_config", "exclude_modules", "fan_in_fan_out", "inference_mode",
    "layers_pattern", "layers_to_transform", "loftq_config", "lora_dropout", "lora_ga_config",
    "megatron_core", "peft_version", "qalora_group_size", "revision", "runtime_config", "target_modules",
    "task_type",
})  # fmt: skip
"""Fields that concern training or how a weight is stored, or that the tensors themselves settle."""

LARGEST_FLOAT = sys.float_info.max

NEUTRAL_FIELDS: dict[str, tuple[tuple[object, ...], str]] = {
    "peft_type": (("LORA",), "another kind of adapter"),
    "bias": (("none", None), "biases of the backbone, which ΔW cannot hold"),
    "lora_bias": ((False, None), "a bias on lora_B, which ΔW cannot hold"),
    "modules_to_save": ((None, []), "whole modules trained beside LoRA"),
    "trainable_token_indices": ((None, [], {}), "trained token embeddings"),
    "layer_replication": ((None, []), "a backbone with replicated layers"),
    "init_lora_weights": (
        (True, False, None, "gaussian", "orthogonal", "eva"),
        "an initialisation that changes the backbone's own weights",
    ),
}
"""Fields that must have one of the neutral values, and what any other value means."""


@dataclass(frozen=True)
class Configuration:
    """The part of an ``adapter_config.json`` that decides what an adapter computes.

    Without a configuration alpha and the rank are None, and alpha is each module's rank.
    """

    rank: int | None = None
    alpha: float | None = None
    rslora: bool = False
    dora: bool = False
    alphas: Pattern = field(default_factory=Pattern)
    ranks: Pattern = field(default_factory=Pattern)
    ranks_vary: bool = False
    parameters: tuple[str, ...] = ()
    base: str | None = None
    targets: frozenset[str] = frozenset()
    """The ends of paths that alone decide which modules are adapted; none where more does."""

    def alpha_of(self, name: str) -> float | None:
        """Alpha of module ``name``; as in PEFT, the first key of ``alpha_pattern`` that fits decides."""
        found = self.alphas.first(name.partition("[")[0])
        return self.alpha if found is None else found

    def rank_of(self, name: str) -> int:
        """The rank that the configuration gives the parameter ``name``; 0 where it gives none."""
        return int(self.ranks.first(name) or self.rank or 0)

    def scale(self, name: str, rank: int) -> float:
        """The scale of ΔW in module ``name``: alpha / rank, or alpha / √rank for rsLoRA."""
        alpha = self.alpha_of(name)
        return 1.0 if alpha is None else alpha / (math.sqrt(rank) if self.rslora else rank)


def parse(fields: object, where: Path) -> Configuration:
    """The configuration that the fields of an ``adapter_config.json`` state.

    Raises:
        AdapterError: if they are not those of LoRA, or a value is not what it must be.
    """
    if not isinstance(fields, dict) or "peft_type" not in fields:
        law = "adapter_config.json must be PEFT's configuration of a LoRA"
        raise AdapterError(law, got="no peft_type", where=where)
    _refuse_foreign_fields(fields, where)
    parameters = _parameters(fields, where)
    base = fields.get("base_model_name_or_path")
    rank = _number(fields, "r", where)
    if rank < 1 or rank != int(rank):
        raise AdapterError("r must be a whole number of at least 1", got=rank, where=where)
    return Configuration(
        rank=int(rank),
        alpha=_number(fields, "lora_alpha", where),
        rslora=_flag(fields, "use_rslora", where),
        dora=_flag(fields, "use_dora", where),
        alphas=pattern(fields, "alpha_pattern", where),
        # Otherwise the ranks stand in the shapes, and the keys need not be understood.
        ranks=pattern(fields, "rank_pattern", where) if parameters else Pattern(),
        ranks_vary=bool(fields.get("rank_pattern")),
        parameters=parameters,
        base=base if isinstance(base, str) and base else None,
        targets=_targets(fields),
    )


def _targets(fields: Mapping[str, Any]) -> frozenset[str]:
    """The names in ``target_modules``, if it is a list that nothing else narrows."""
    names = fields.get("target_modules")
    narrowed = any(fields.get(key) not in (None, []) for key in ("layers_to_transform", "exclude_modules"))
    if narrowed or not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return frozenset()
    return frozenset(map(unwrapped, names))


def _flag(fields: Mapping[str, Any], key: str, where: Path) -> bool:
    """Whether the switch ``key`` is on; unset is off."""
    value = fields.get(key)
    if not isinstance(value, bool | None):
        raise AdapterError(f"{key} must be true or false", got=quoted(value), where=where)
    return value is True


def _parameters(fields: Mapping[str, Any], where: Path) -> tuple[str, ...]:
    """The names in ``target_parameters``, sorted."""
    names = fields.get("target_parameters") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise AdapterError("target_parameters must be a list of names", got=quoted(names), where=where)
    return tuple(sorted({unwrapped(name) for name in names}))


def _refuse_foreign_fields(fields: Mapping[str, Any], where: Path) -> None:
    """Passes if every field is honoured, immaterial, neutral or unset."""
    for key in sorted(fields):
        value = fields[key]
        if key in NEUTRAL_FIELDS:
            accepted, reason = NEUTRAL_FIELDS[key]
            if any(value is other or (value == other and type(value) is type(other)) for other in accepted):
                continue
        elif key in HONOURED or key in IMMATERIAL or not value:
            continue
        else:
            reason = "a field that Palette does not know how to honour"
        raise AdapterError(
            "an adapter must be plain LoRA",
            got=f"{quoted(key, 42)[1:-1]} = {quoted(value)}, {reason}",
            remedy="train it again as plain LoRA",
            where=where,
        )


def pattern(fields: Mapping[str, Any], key: str, where: Path) -> Pattern:
    """The values of ``alpha_pattern`` or ``rank_pattern`` by their keys.

    Raises:
        AdapterError: if it is no table of numbers, or a key is no expression for module paths.
    """
    values = fields.get(key) or {}
    if not isinstance(values, dict):
        law = f"{key} must be a table of numbers by module names"
        raise AdapterError(law, got=quoted(values), remedy="copy or train the adapter again", where=where)
    return Pattern(key, {name: _number(values, name, where) for name in values}, where)


def _number(fields: Mapping[str, Any], key: str, where: Path) -> float:
    """The finite number that stands under ``key``."""
    value = fields.get(key)
    # A whole number in a file may be larger than any float.
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST_FLOAT:
        raise AdapterError(
            f"{quoted(key, 62)[1:-1]} must be a finite number",
            got="none" if value is None else quoted(value, 40),
            where=where,
        )
    return float(value)


def quoted(value: object, length: int = 60) -> str:
    """A value from a stranger as ASCII of at most ``length`` characters, however large it is."""
    return _SHORT.repr(value).encode("ascii", "backslashreplace").decode()[:length]


def strict_json(text: str | bytes) -> Any:
    """The value of a JSON text in which no key stands twice and every number is finite.

    Raises:
        ValueError: if the text is not such JSON, or is larger or deeper than any honest one.
    """
    if len(text) > JSON_LIMIT:
        raise ValueError(f"{len(text)} bytes of JSON, more than {JSON_LIMIT}")
    text = text.decode() if isinstance(text, bytes) else text
    if text.count("[") + text.count("{") > CONTAINER_LIMIT:
        raise ValueError(f"more than {CONTAINER_LIMIT} lists and tables")
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_number, parse_float=_finite)
    except RecursionError:
        raise ValueError(f"JSON deeper than {DEPTH_LIMIT} levels") from None
    _check_depth(value)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key that stands twice")
    return table


def _no_number(constant: str) -> Any:
    raise ValueError(f"the number {constant}")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _no_number(text[:20])


def _check_depth(value: Any) -> None:
    """Passes if ``value`` is shallow and its strings are Unicode."""
    level = [value]
    for _ in range(DEPTH_LIMIT):
        below = []
        for item in level:
            if isinstance(item, dict):
                below += [*item, *item.values()]
            elif isinstance(item, list):
                below += item
            elif isinstance(item, str):
                item.encode()
        if not below:
            return
        level = below
    raise ValueError(f"JSON deeper than {DEPTH_LIMIT} levels")
