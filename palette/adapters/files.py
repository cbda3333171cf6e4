"""Adapter files in any layout, read strictly: a module is read when it is asked for, one at a time.

Reading refuses what it cannot honour and says why; nothing is dropped. Nothing is kept either, so that
memory holds one module however large the file is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from palette.adapters.configuration import JSON_LIMIT, Configuration, parse, quoted, strict_json
from palette.adapters.header import Header, damaged, read_header
from palette.adapters.layouts import Layout, Roles, expert_modules, layered
from palette.adapters.lora import Adapter, BackboneIdentity, WeightOf
from palette.adapters.stored_modules import StoredModules
from palette.adapters.writing import CONFIG, WEIGHTS
from palette.errors import AdapterError
from palette.files import CARD_KEY

CARD_FRAME = ("backbone", "config", "format")
"""The entries of a written card that belong to the file, not to the adapter."""

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")

COPIES = ("adapter_config", "lora_adapter_metadata")
"""Metadata keys under which others keep the configuration as JSON; the second is diffusers'."""

CONSISTENT = ("r", "lora_alpha", "use_rslora", "target_modules")
"""The fields in which ``adapter_config.json`` and its copy in the card must agree."""


def open_adapter(path: Path, weight_of: WeightOf | None = None) -> Adapter:
    """The adapter at ``path``, whose modules are read from the file each time they are asked for.

    Its names, shapes and configuration are checked now, and that the factors are finite when they are
    read. ``weight_of`` gives the backbone's weights, which only DoRA needs.

    Raises:
        AdapterError: if it is missing, damaged, foreign, or not LoRA; on reading a module, also if the
            file has changed since.
    """
    weights, config = adapter_paths(path)
    header = read_header(weights)
    card = card_of(header)
    layout, roles = layered(header.entries, weights)
    stated = _stated_fields(config, header, card, layout)
    configuration = Configuration() if stated is None else parse(*stated)
    _check_dora(roles, configuration, weight_of, weights)
    parts, experts = expert_modules(roles, header.entries, configuration, weights)
    modules = StoredModules(header, parts, experts, configuration, weight_of)
    backbone = _backbone_of(card, configuration, weights)
    kept = {key: card[key] for key in card if key not in CARD_FRAME}
    return Adapter(modules, backbone, kept, configuration.targets)


def read_adapter(path: Path) -> Adapter:
    """The adapter in a PEFT folder, or in a ``.safetensors`` file, whole in memory and checked.

    A file is read with the ``adapter_config.json`` beside it, or with the one in its metadata.

    Raises:
        AdapterError: as ``open_adapter`` does.
    """
    adapter = open_adapter(path)
    return replace(adapter, modules=dict(adapter.modules))


def adapter_paths(path: Path) -> tuple[Path, Path]:
    """The paths of an adapter's weights and of its configuration, which may be missing.

    Raises:
        AdapterError: if there is nothing, or only a pickle.
    """
    weights, config = path / WEIGHTS, path / CONFIG
    for stored in sorted(path.glob("adapter_model.*")) if path.is_dir() else [path]:
        if stored.suffix in PICKLES and not weights.is_file():
            raise AdapterError(
                "an adapter must be stored as safetensors",
                got="a pickle, which can run code when it is read",
                remedy="save it again with safe_serialization=True",
                where=stored,
            )
    if path.is_dir():
        if missing := [needed.name for needed in (weights, config) if not needed.is_file()]:
            law = f"an adapter folder must hold {WEIGHTS} and {CONFIG}"
            below = _adapters_below(path)
            remedy = f"give the folder of one of its adapters: {', '.join(below)}" if below else None
            raise AdapterError(law, got=f"no {missing[0]}", remedy=remedy, where=path)
        return weights, config
    if not path.is_file() or path.suffix != ".safetensors":
        got = "another file" if path.is_file() else "nothing there"
        raise AdapterError("an adapter must be a folder or a .safetensors file", got=got, where=path)
    return path, path.with_name(CONFIG)


def _adapters_below(folder: Path) -> list[str]:
    """The first sub-folders, at most two down, that hold an adapter; PEFT gives each named one its own."""
    configs = sorted([*folder.glob(f"*/{CONFIG}"), *folder.glob(f"*/*/{CONFIG}")])
    return [str(config.parent) for config in configs if config.with_name(WEIGHTS).is_file()][:8]


def card_of(header: Header) -> dict[str, Any]:
    """The card in a file's metadata; empty if there is none.

    Raises:
        AdapterError: if it is not a JSON object.
    """
    return _json_object(header, CARD_KEY) or {}


def _json_object(header: Header, key: str) -> dict[str, Any] | None:
    """The JSON object that the metadata hold under ``key``, or None if they hold nothing there."""
    if key not in header.metadata:
        return None
    try:
        value = strict_json(header.metadata[key])
        if not isinstance(value, dict):
            raise ValueError("what is not an object")
    except ValueError as error:
        raise damaged(header.path, ValueError(f"in its metadata {key}: {error}")) from error
    return value


def _stated_fields(
    config: Path, header: Header, card: Mapping[str, Any], layout: Layout
) -> tuple[object, Path] | None:
    """The fields of the configuration and the file they stand in; None if the layout needs none."""
    copy, keys = _copied_fields(header, card, layout)
    if config.is_file():
        fields = _read_config(config)
        if isinstance(copy, dict) and isinstance(fields, dict):
            for key in keys:
                if copy.get(key) != fields.get(key):
                    raise AdapterError(
                        f"{CONFIG} and the card in the weights must agree",
                        got=f"another {key}",
                        remedy="copy it again, and to scale it merge it with --weights",
                        where=config,
                    )
        return fields, config
    if copy is None and not layout.implied:
        raise AdapterError(
            f"an adapter must have its {CONFIG}",
            got="weights alone",
            remedy="put the one it was saved with beside it",
            where=header.path,
        )
    return None if copy is None else (copy, header.path)


def _copied_fields(header: Header, card: Mapping[str, Any], layout: Layout) -> tuple[Any, tuple[str, ...]]:
    """The configuration in the header, if any, and the fields in which it must agree with the file's."""
    if card.get("config") is not None:
        return card["config"], CONSISTENT
    fields = next((copy for key in COPIES if (copy := _json_object(header, key)) is not None), None)
    if fields and layout.prefix and all(name.startswith(layout.prefix) for name in fields):
        fields = {name.removeprefix(layout.prefix): value for name, value in fields.items()}
    # Others write target_modules, a set, in any order.
    return fields, CONSISTENT[:3]


def _read_config(config: Path) -> object:
    try:
        with config.open("rb") as stream:
            return strict_json(stream.read(JSON_LIMIT + 1))
    except (OSError, ValueError) as error:
        raise AdapterError(
            f"{CONFIG} must be valid JSON",
            got=ascii(str(error))[1:-1][:160],
            remedy="copy or train the adapter again",
            where=config,
        ) from error


def _check_dora(roles: Roles, configuration: Configuration, weight_of: WeightOf | None, where: Path) -> None:
    """Passes if every module has magnitudes, and a weight to rescale, or none has."""
    for name in roles:
        if ("magnitude" in roles[name]) != configuration.dora:
            raise AdapterError(
                "use_dora and lora_magnitude_vector must stand together",
                got=f"use_dora = {configuration.dora}, DoRA or not, for {name[:120]}",
                remedy="copy or train the adapter again",
                where=where,
            )
    if configuration.dora and weight_of is None:
        raise AdapterError(
            "an adapter must be plain LoRA where the backbone is not at hand",
            got="use_dora = True, DoRA, which rescales the backbone's own weights",
            remedy="make it plain LoRA with palette merge --backbone FOLDER, which reproduce takes too, or "
            "train it again so",
            where=where,
        )


def _backbone_of(card: Mapping[str, Any], configuration: Configuration, where: Path) -> BackboneIdentity:
    """The backbone that the card names, or else the configuration."""
    stated = card.get("backbone", {"name": configuration.base})
    if isinstance(stated, dict):
        name, fingerprint = stated.get("name"), stated.get("fingerprint")
        if isinstance(name, str | None) and isinstance(fingerprint, str | None):
            return BackboneIdentity(name, fingerprint)
    raise AdapterError(
        "a card's backbone must have a name and a fingerprint",
        got=quoted(stated, 80),
        remedy="train the adapter again",
        where=where,
    )
