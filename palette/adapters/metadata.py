"""What stands beside the factors: the card, and the configuration in a file or in the header."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from palette.adapters.header import Header, damaged
from palette.adapters.layouts import Layout
from palette.adapters.strict_json import STRICT_LIMIT, strict_json
from palette.errors import AdapterError
from palette.files import CARD_KEY

CONFIG = "adapter_config.json"
COPIES = ("adapter_config", "lora_adapter_metadata")
"""Metadata keys under which others keep the configuration as JSON; the second is diffusers'."""

CONSISTENT = ("r", "lora_alpha", "use_rslora", "target_modules")
"""The fields in which ``adapter_config.json`` and its copy in the card must agree."""


def card_of(header: Header) -> dict[str, Any]:
    """The card in a file's metadata; empty if there is none.

    Raises:
        AdapterError: if it is not a JSON object.
    """
    return json_object(header, CARD_KEY) or {}


def json_object(header: Header, key: str) -> dict[str, Any] | None:
    """The JSON object that the metadata hold under ``key``, or None if they hold nothing there.

    Raises:
        AdapterError: if it is not a JSON object.
    """
    if key not in header.metadata:
        return None
    try:
        value = strict_json(header.metadata[key])
        if not isinstance(value, dict):
            raise ValueError("what is not an object")
    except ValueError as error:
        reason = ValueError(f"in its metadata {key}: {error}")
        raise damaged(header.path, reason) from error
    return value


def stated_fields(
    config: Path, header: Header, card: Mapping[str, Any], layout: Layout
) -> tuple[object, Path] | None:
    """The fields of the configuration and the file they stand in; None if the layout needs none.

    Raises:
        AdapterError: if there are none, they are not JSON, or the file and a copy disagree.
    """
    copy, keys = copied_fields(header, card, layout)
    if config.is_file():
        fields = read_config(config)
        if isinstance(copy, dict) and isinstance(fields, dict):
            check_agreement(fields, copy, keys, config)
        return fields, config
    if copy is not None:
        return copy, header.path
    if layout.implied:
        return None
    raise AdapterError(
        f"an adapter must have its {CONFIG}",
        got="weights alone",
        remedy="put the one it was saved with beside it",
        where=header.path,
    )


def copied_fields(header: Header, card: Mapping[str, Any], layout: Layout) -> tuple[object, tuple[str, ...]]:
    """The configuration in the header, if any, and the fields in which it must agree with the file's."""
    if card.get("config") is not None:
        return card["config"], CONSISTENT
    for key in COPIES:
        fields = json_object(header, key)
        if fields is not None:
            prefixed = layout.prefix and all(name.startswith(layout.prefix) for name in fields)
            # Others write target_modules, a set, in any order.
            return {
                name[len(layout.prefix) :] if prefixed else name: fields[name] for name in fields
            }, CONSISTENT[:3]
    return None, ()


def read_config(config: Path) -> object:
    """The value of an ``adapter_config.json``.

    Raises:
        AdapterError: if it cannot be read, or is not JSON.
    """
    try:
        with config.open("rb") as stream:
            return strict_json(stream.read(STRICT_LIMIT + 1))
    except (OSError, ValueError) as error:
        raise AdapterError(
            f"{CONFIG} must be valid JSON",
            got=ascii(str(error))[1:-1][:160],
            remedy="copy or train the adapter again",
            where=config,
        ) from error


def check_agreement(
    fields: Mapping[str, Any], copy: Mapping[str, Any], keys: tuple[str, ...], config: Path
) -> None:
    """Returns nothing; passes if a configuration and its copy agree in ``keys``.

    Raises:
        AdapterError: naming the first field in which they do not.
    """
    for key in keys:
        if copy.get(key) != fields.get(key):
            raise AdapterError(
                f"{CONFIG} and the card in the weights must agree",
                got=f"another {key}",
                remedy="write the adapter again, or merge it with --weights to scale it",
                where=config,
            )
