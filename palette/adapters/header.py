"""A safetensors file, its header read strictly before torch or safetensors see a byte of it.

The file may be hostile. Its header has one grammar, a flat table of tensors and a flat table of
strings, and is read by that grammar from left to right: the first byte that does not fit is the
last one looked at. Nothing nests, so nothing recurses, and no value is larger than its text.
Tensors are read when they are asked for, one at a time, by plain reads: nothing is mapped or kept.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path
from typing import Any, NamedTuple

import torch

from palette.errors import AdapterError
from palette.files import framed
from palette.fingerprints import canonical
from palette.shapes import Tensor

TENSOR_LIMIT = 100_000
"""LoRA on each expert of the largest public models (58 layers, 256 experts, 3 projections) is 89,088."""

HEADER_LIMIT = 24 << 20
"""Bytes: that many tensors with names of some 100 characters, and the metadata."""

FILE_LIMIT = 256 << 30
"""Bytes: rank 64 in float32 on every expert of such a model takes some 100 GB."""

METADATA_LIMIT = 4 << 20
"""Bytes: a list of 45,000 full module paths takes some 3 MB."""

METADATA_ENTRIES = 1024
DIMENSION_LIMIT = 1 << 24
TENSOR_BYTES_LIMIT = 4 << 30

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}
READ_DTYPES = DTYPES | {"I32": torch.int32, "I64": torch.int64}
"""kohya's alpha is a whole number where its user wrote one."""

WIDTHS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 8),
}
"""Bytes of one number, by the format's names; those of less than a byte are refused."""

_CHANGED = "another file than when it was opened"
_METADATA = b'"__metadata__"'
_SPACE = rb"[ \t\r\n]*+"
_COMMA, _COLON = _SPACE + b"," + _SPACE, _SPACE + b":" + _SPACE
_NUMBER = rb"(?:0|[1-9][0-9]{0,17}+)"
_NUMBERS = rb"\[(?:" + _SPACE + _NUMBER + rb"(?:" + _COMMA + _NUMBER + rb"){0,7}+)?+" + _SPACE + rb"\]"
_FIELD = _SPACE + rb'"(dtype|shape|data_offsets)"' + _COLON
_FIELD += rb'("[A-Z0-9_]{1,16}+"|' + _NUMBERS + rb")" + _SPACE
_STRING = rb'"(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+"'
_PAIR = _STRING + _COLON + _STRING
_PAIRS = b"(?:" + _PAIR + b"(?:" + _COMMA + _PAIR + b"){0,%d}+)?+" % (METADATA_ENTRIES - 1)
_TENSOR = re.compile(rb'"([A-Za-z0-9_.\-]{1,512}+)"' + _COLON + rb"\{" + b",".join([_FIELD] * 3) + rb"\}")
_STRINGS = re.compile(_COLON + rb"(\{" + _SPACE + _PAIRS + _SPACE + rb"\})")
_OPENING = re.compile(_SPACE + rb"\{" + _SPACE + rb"(\}?+)" + _SPACE)
_NEXT = re.compile(_SPACE + rb"([,}])" + _SPACE)


class Entry(NamedTuple):
    """One tensor: its type, its shape, and the range of its bytes in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


class Header(NamedTuple):
    """The tensors and the metadata of a file, and what it was recognised by when they were read."""

    path: Path
    identity: tuple[int, int, int]
    """Its bytes, when it was changed in nanoseconds, and its inode: those of the same file still?"""
    entries: Mapping[str, Entry]
    metadata: Mapping[str, str]


def read_header(path: Path) -> Header:
    """The header of the safetensors file at ``path``; no tensor is read.

    Raises:
        AdapterError: if the file is not whole, or its header is not the format's.
    """
    try:
        with path.open("rb", buffering=0) as stream:
            identity = _identity_of(stream.fileno())
            if (size := identity[0]) > FILE_LIMIT:
                raise ValueError(f"{size} bytes, more than {FILE_LIMIT}")
            length = int.from_bytes(stream.read(8), "little")
            if size < 10 or not 2 <= length <= size - 8:
                raise ValueError("no header that fits into the file")
            if length > HEADER_LIMIT:
                raise ValueError(f"a header of {length} bytes, more than {HEADER_LIMIT}")
            data = stream.read(length)
        if len(data) != length:
            raise ValueError("a file that is being changed")
        entries, metadata = _parsed(data)
        _check_ranges(entries.values(), 8 + length, size)
    except (OSError, ValueError) as error:
        raise damaged(path, error) from error
    return Header(path, identity, entries, metadata)


def damaged(path: Path, error: Exception) -> AdapterError:
    """The error that says why the file at ``path`` cannot be read."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return AdapterError(
        "an adapter must be a whole safetensors file",
        got=reason.encode("ascii", "backslashreplace").decode()[:160],
        remedy="copy or train it again",
        where=path,
    )


def _identity_of(descriptor: int) -> tuple[int, int, int]:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("no regular file")
    return status.st_size, status.st_mtime_ns, status.st_ino


def _parsed(data: bytes) -> tuple[dict[str, Entry], dict[str, str]]:
    """The tensors and the metadata of a header; a ValueError at the first byte that does not fit."""
    # Within metadata these quotes would be escaped, so that each is one tensor's.
    if data.count(b'"data_offsets"') > TENSOR_LIMIT:
        raise ValueError(f"more than {TENSOR_LIMIT} tensors")
    entries: dict[str, Entry] = {}
    metadata: dict[str, str] | None = None
    step = _expect(_OPENING, data, 0)
    while step[1] != b"}":
        position = step.end()
        if data.startswith(_METADATA, position):
            if metadata is not None:
                raise ValueError("a name in its header stands twice")
            metadata, position = _parsed_metadata(data, position + len(_METADATA))
        else:
            name, entry, position = _parsed_entry(data, position)
            if name in entries:
                raise ValueError("a name in its header stands twice")
            entries[name] = entry
        step = _expect(_NEXT, data, position)
    if step.end() != len(data):
        raise ValueError(_unreadable(data, step.end()))
    return entries, metadata or {}


def _expect(pattern: re.Pattern[bytes], data: bytes, position: int) -> re.Match[bytes]:
    """What fits ``pattern`` at ``position``."""
    match = pattern.match(data, position)
    if match is None:
        raise ValueError(_unreadable(data, position))
    return match


def _unreadable(data: bytes, position: int) -> str:
    what = ascii(data[position : position + 60].decode("latin-1"))
    return f"a header that is no table of tensors at byte {position}, {what}"


def _parsed_entry(data: bytes, position: int) -> tuple[str, Entry, int]:
    """One tensor's name and entry, and where it ends."""
    match = _expect(_TENSOR, data, position)
    name, *pairs = match.groups()
    fields = dict(zip(pairs[::2], pairs[1::2], strict=True))
    dtype = fields.get(b"dtype", b"")[1:-1].decode()
    shape, offsets = (_whole_numbers(fields.get(key, b"")) for key in (b"shape", b"data_offsets"))
    if shape is None or offsets is None or len(offsets) != 2 or dtype not in WIDTHS:
        raise ValueError(_unreadable(data, position))
    size = math.prod(shape) * WIDTHS[dtype]
    if size > TENSOR_BYTES_LIMIT or max(shape, default=0) > DIMENSION_LIMIT:
        raise ValueError(f"{name.decode()[:80]} of the shape {str(list(shape))[:60]}")
    if offsets[1] - offsets[0] != size:
        raise ValueError(f"{offsets[1] - offsets[0]} bytes of {size} for {name.decode()[:80]}")
    origin = 8 + len(data)
    return name.decode(), Entry(dtype, shape, origin + offsets[0], origin + offsets[1]), match.end()


def _whole_numbers(text: bytes) -> tuple[int, ...] | None:
    """The numbers of an array that fits the grammar; None if the field is no array."""
    if not text.startswith(b"["):
        return None
    inside = text[1:-1].strip()
    return tuple(map(int, inside.split(b","))) if inside else ()


def _parsed_metadata(data: bytes, position: int) -> tuple[dict[str, str], int]:
    """The table of strings that follows its name, and where it ends."""
    table = _STRINGS.match(data, position, position + METADATA_LIMIT)
    if table is None:
        law = f"metadata that is no table of at most {METADATA_ENTRIES} strings in {METADATA_LIMIT} bytes"
        raise ValueError(law)
    pairs = json.loads(table[1], object_pairs_hook=list)
    metadata = dict(pairs)
    if len(metadata) != len(pairs):
        raise ValueError("metadata in which a key stands twice")
    # A lone surrogate, which no file can hold, is refused here.
    "".join([*metadata, *metadata.values()]).encode()
    return metadata, table.end()


def _check_ranges(entries: Iterable[Entry], start: int, end: int) -> None:
    """Passes if the ranges cover the bytes from ``start`` to ``end`` once, without a hole."""
    for entry in sorted(entries, key=lambda entry: (entry.start, entry.end)):
        if entry.start != start:
            raise ValueError("bytes that two tensors share" if entry.start < start else "bytes of no tensor")
        start = entry.end
    if start != end:
        raise ValueError(f"{abs(end - start)} bytes too {'many' if end > start else 'few'}")


def header_of(tensors: Mapping[str, tuple[str, tuple[int, ...]]], metadata: Mapping[str, str]) -> bytes:
    """The header of a file whose tensors, of each its type and its shape, follow in this order.

    Without metadata they are left out.
    """
    start = 0
    entries: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    for name, (dtype, shape) in tensors.items():
        end = start + math.prod(shape) * WIDTHS[dtype]
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
        start = end
    return framed(canonical(entries).encode())


def read_stored(header: Header, names: Sequence[str]) -> list[Tensor]:
    """The tensors of these names, as they are stored.

    Raises:
        AdapterError: if the file is no longer the one whose header was read.
    """
    try:
        with header.path.open("rb", buffering=0) as stream:
            tensors = [_read_range(stream, header.entries[name]) for name in names]
            # Last, so that a change during the reads is seen as well.
            if _identity_of(stream.fileno()) != header.identity:
                raise ValueError(_CHANGED)
    except (OSError, ValueError) as error:
        raise damaged(header.path, error) from error
    return tensors


def _read_range(stream: RawIOBase, entry: Entry) -> Tensor:
    """The tensor that ``entry`` describes, from an open file."""
    data = memoryview(bytearray(entry.end - entry.start))
    done = 0
    stream.seek(entry.start)
    while done < len(data):
        count = stream.readinto(data[done:])
        if not count:
            raise ValueError(_CHANGED)
        done += count
    return torch.frombuffer(data, dtype=READ_DTYPES[entry.dtype]).reshape(entry.shape)


@dataclass(frozen=True, eq=False)
class StoredTensors(Mapping[str, Tensor]):
    """The tensors of a file by their names; each is read anew when it is asked for."""

    header: Header

    def __iter__(self) -> Iterator[str]:
        return iter(self.header.entries)

    def __len__(self) -> int:
        return len(self.header.entries)

    def __getitem__(self, name: str) -> Tensor:
        return read_stored(self.header, [name])[0]
