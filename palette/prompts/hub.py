"""Folders in the Hugging Face hub's layout: which files a named part (a config) has, and of which split."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from palette.encodings import NotUnicodeError, decoded
from palette.errors import PaletteError, PromptError, did_you_mean
from palette.fingerprints import fingerprint, fingerprint_file
from palette.prompts.reading import read_rows
from palette.prompts.rows import Split, redacted, repeated
from palette.prompts.tables import READERS, TableRow
from palette.settings import InvalidYamlError, yaml_value

SPLIT = "(split)"
"""The column that holds the split which a row's file is of; empty where files name none."""
SPLITS: Mapping[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""Words by which files of a split are known, and our split."""
SPLIT_NAME = re.compile(r"[0-9A-Za-z_.-]{1,40}")
"""What may be a split's name, which is part of ids."""
SHARD = re.compile(r"([0-9A-Za-z_.]+)-[0-9]{5}-of-[0-9]{5}")
METADATA = ("config.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
"""Files that the hub's library writes beside the data."""
READ_FROM_THE_CARD = re.compile(r"^(?:configs|license):", re.MULTILINE)


@dataclass(frozen=True)
class HubTable:
    """The rows of one config, the identity of its files, and the licence that the card states."""

    rows: tuple[TableRow, ...]
    digest: str
    """SHA-256 (hex) of the files' names and bytes."""
    licence: str | None


def our_split(name: Any) -> Split | None:
    """Our split of the hub's name; None where it has none."""
    return SPLITS.get(name.casefold()) if isinstance(name, str) else None


def is_in_hub_layout(folder: Path, config: str | None) -> bool:
    """Whether a folder is read in the hub's layout, and not as a folder of ``<domain>.jsonl``.

    It is if a config is asked for, if its README.md lists ``configs``, or if no jsonl lies directly in it.
    """
    return config is not None or "configs" in _card(folder) or not any(folder.glob("*.jsonl"))


def read_hub_folder(folder: Path, config: str | None, broken: list[PaletteError] | None = None) -> HubTable:
    """The rows of one config, each with its split in the column ``(split)``; ``broken`` as in ``read_rows``.

    Raises:
        PromptError: if the card, a file or a row breaks a law, or there is no such config.
    """
    card = _card(folder)
    files = list(dict.fromkeys(_files(folder, card, config)))
    if twice := repeated(file for file, _ in files):
        raise PromptError(
            "a file must be of one split", got="two", remedy="mend configs in README.md", where=twice[0]
        )
    # What has no split at all is one called train to the hub's library, and divides nothing.
    undivided = {split for _, split in files} <= {"", "train"}
    rows = tuple(
        TableRow({**row.values, SPLIT: "" if undivided else split}, row.where, part=split)
        for file, split in files
        for row in read_rows(file, broken=broken)
    )
    listed = [[file.relative_to(folder).as_posix(), fingerprint_file(file)] for file, _ in files]
    licence = card.get("license")
    return HubTable(rows, fingerprint(listed), licence if isinstance(licence, str) else None)


def _card(folder: Path) -> Mapping[str, Any]:
    """What stands in front of a README.md, where it lists configs or a licence."""
    path = folder / "README.md"
    try:
        text = decoded(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, NotUnicodeError):
        raise PromptError("a README.md must be readable as UTF-8", got="another", where=path) from None
    front = re.match(r"---\r?\n(.*?)^---\s*$", text, re.DOTALL | re.MULTILINE)
    if not front or not READ_FROM_THE_CARD.search(front[1]):
        return {}
    try:
        found, got = yaml_value(front[1]), "another"
    except InvalidYamlError as error:
        found, got = None, error.got if "the key" in error.got else "another"
    if not isinstance(found, dict):
        raise PromptError(
            "what stands between the --- of a README.md must be a YAML mapping",
            got=got,
            remedy="mend it",
            where=path,
        )
    return found


def _files(folder: Path, card: Mapping[str, Any], config: str | None) -> Iterator[tuple[Path, str]]:
    """The files of a config with their splits, in order."""
    chosen = _chosen(card, config, folder)
    given = chosen.get("data_files")
    if given is None:
        inner = chosen.get("data_dir", ".")
        yield from _files_by_name(_inside(folder, inner))
        return
    for entry in given if isinstance(given, list) else [given]:
        split, patterns = ("", entry) if isinstance(entry, str) else _of_split(entry, folder)
        for pattern in patterns if isinstance(patterns, list) else [patterns]:
            yield from ((file, split) for file in _found(folder, pattern))


def _chosen(card: Mapping[str, Any], config: str | None, folder: Path) -> Mapping[str, Any]:
    """The config that is asked for, or else the only one, or the default one."""
    listed = card.get("configs", [{"config_name": "default"}])
    entries = listed if isinstance(listed, list) else []
    if not entries or not all(
        isinstance(one, dict) and isinstance(one.get("config_name"), str) for one in entries
    ):
        raise _broken(folder)
    named: dict[str, Mapping[str, Any]] = {each["config_name"]: each for each in listed}
    marked = [name for name, each in named.items() if each.get("default") is True]
    usual = next(iter(marked or (named if len(named) == 1 else ["default"])))
    chosen = named.get(usual if config is None else config)
    if chosen is None:
        raise PromptError(
            f"config must be one of {', '.join(redacted(name) for name in named)}",
            got="none" if config is None else redacted(config),
            remedy=did_you_mean(config or "", named) or "name one with 'config'",
            where=folder,
        )
    return chosen


def _of_split(entry: Any, folder: Path) -> tuple[str, Any]:
    split = entry.get("split") if isinstance(entry, dict) else None
    if not isinstance(split, str) or not SPLIT_NAME.fullmatch(split):
        raise _broken(folder)
    return split, entry.get("path")


def _broken(folder: Path) -> PromptError:
    return PromptError(
        "configs of a README.md must be a list of {config_name, data_files}, and data_files a path, a list "
        "of paths, or a list of {split, path}",
        got="another",
        remedy="mend it, or give each file as a source",
        where=folder / "README.md",
    )


def _inside(folder: Path, path: Any) -> Path:
    """A path below the folder."""
    if not isinstance(path, str) or not path:
        raise _broken(folder)
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise PromptError(
            "a path in a README.md must lead into its folder",
            got="one that leads out of it",
            remedy="mend it",
            where=folder / "README.md",
        )
    return folder / path


def _found(folder: Path, pattern: Any) -> list[Path]:
    """The files that a pattern finds below the folder, in order."""
    inner = _inside(folder, pattern).relative_to(folder).as_posix()
    # The folder itself is no pattern to glob.
    found = [] if inner == "." else sorted(file for file in folder.glob(inner) if file.is_file())
    if not found:
        raise PromptError(
            "data_files of a README.md must find files",
            got=f"none for {redacted(inner)}",
            remedy="complete the folder, or mend the path",
            where=folder / "README.md",
        )
    return found


def _files_by_name(folder: Path) -> list[tuple[Path, str]]:
    """The data files below a folder, and the splits that their names say.

    Where some say one, the others are no data, as in the hub's library.
    """
    every = sorted(file for file in folder.rglob("*") if file.is_file())
    inner = [(file, file.relative_to(folder).parts) for file in every]
    data = [
        (file, _split_of(parts))
        for file, parts in inner
        if file.suffix.casefold() in READERS
        and file.name not in METADATA
        and not any(part.startswith(".") for part in parts)
    ]
    if not data:
        raise PromptError(
            "a folder of prompts must hold <domain>.jsonl, or data files in the hub's layout",
            got="neither",
            remedy="check the path",
            where=folder,
        )
    return [(file, split) for file, split in data if split] or data


def _split_of(parts: tuple[str, ...]) -> str:
    """The split that a path says: a shard's name, or a word of a folder's or of the file's name."""
    *folders, name = parts
    if shard := SHARD.match(name):
        return shard[1]
    words = [word for part in (*folders, name) for word in re.split(r"[^0-9a-z]+", part.casefold())]
    return next((SPLITS[word] for word in words if word in SPLITS), "")
