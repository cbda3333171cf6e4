"""Adapter files written module by module, so that PEFT and vLLM load them as they are.

A written file holds factors in canonical form, padded to one rank that vLLM serves, and carries in its
header the adapter's card with a copy of the configuration, so that the weights alone say what they are.
The rank of the whole is known only when its last module is; until then the factors lie in a spool
beside the file, and memory holds no more than one module.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import torch
from torch.nn.functional import pad

from palette.adapters.configuration import SERVED_RANKS, fields_for, served_rank
from palette.adapters.experts import EXPERT_NAME, stack_of, stacking
from palette.adapters.layouts import MODULE_NAME, PREFIX
from palette.adapters.lora import Adapter, BackboneIdentity, LoraModule, feed
from palette.adapters.metadata import CONFIG
from palette.errors import AdapterError
from palette.files import atomic, header_of, spooled
from palette.shapes import Tensor

WEIGHTS = "adapter_model.safetensors"
FORMAT = "palette-adapter/1"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
STORED = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}


@dataclass(frozen=True)
class Spooled:
    """One factor in the spool: where it starts, and its shape."""

    offset: int
    shape: tuple[int, int]


@dataclass
class AdapterWriter:
    """Takes the modules of one adapter, in the order of their names, and writes its folder at the end."""

    folder: Path
    backbone: BackboneIdentity
    dtype: torch.dtype
    spool: Any
    factors: dict[str, tuple[Spooled, Spooled]] = field(default_factory=dict)
    rank: int = 0
    """The largest rank of the modules taken."""
    _digest: Any = field(default_factory=hashlib.sha256)

    def add(self, name: str, module: LoraModule) -> None:
        """Takes one module.

        Raises:
            AdapterError: if its name is no module path or out of order, or a factor is not finite.
        """
        if self.factors and name <= max(self.factors):
            raise AdapterError("modules must be written in the order of their names", got=name)
        module = writable(name, rounded(module.canonical(), self.dtype))
        feed(self._digest.update, name, module)
        self.factors[name] = (self._put(module.lora_A), self._put(module.lora_B))
        self.rank = max(self.rank, module.rank)

    @property
    def digest(self) -> str:
        """The digest of the adapter that the modules taken make."""
        return str(self._digest.hexdigest())

    def finish(self, card: Mapping[str, Any], rank: int | None = None) -> int:
        """The uniform rank at which both files were written.

        ``rank`` must be one that vLLM serves; by default the smallest that holds every module. Factors
        are padded with zeros, never cut. Both files are written before either is renamed into place,
        the configuration last, so that a crash leaves nothing that reads as an adapter and is not one.

        Raises:
            AdapterError: if there is no module, or the adapter cannot be written at that rank.
            OutputError: if the disk cannot take the files.
        """
        if not self.factors:
            raise AdapterError("an adapter must adapt a module", got="none", where=self.folder)
        rank = written_rank(self.rank, rank)
        fields = fields_for(sorted(self.factors), self.backbone, rank)
        backbone = {"name": self.backbone.name, "fingerprint": self.backbone.fingerprint}
        card = {**card, "format": FORMAT, "backbone": backbone, "config": fields}
        with atomic(self.folder / CONFIG) as staged:
            staged.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")
            with atomic(self.folder / WEIGHTS) as weights, weights.open("wb") as stream:
                self._write(stream, rank, card)
        return rank

    def _write(self, stream: IO[bytes], rank: int, card: Mapping[str, Any]) -> None:
        groups = stacking(self.factors)
        paths = sorted(groups, key=lambda path: f"{path}.lora")
        shapes = {}
        for path in paths:
            count, (down, up) = len(groups[path]), self.factors[groups[path][0]]
            shapes[f"{PREFIX}{path}.lora_A.weight"] = (count * rank, down.shape[1])
            shapes[f"{PREFIX}{path}.lora_B.weight"] = (up.shape[0], count * rank)
        width = torch.empty(0, dtype=self.dtype).element_size()
        stored = STORED[self.dtype]
        stream.write(header_of({key: (stored, shape, width) for key, shape in shapes.items()}, card))
        for path in paths:
            whole = [self._padded(name, rank) for name in groups[path]]
            module = whole[0] if len(whole) == 1 else stack_of(whole)
            for factor in (module.lora_A, module.lora_B):
                stream.write(bits(factor).numpy().data)

    def _padded(self, name: str, rank: int) -> LoraModule:
        """A module from the spool, with null components up to ``rank``."""
        lora_A, lora_B = (self._get(factor) for factor in self.factors[name])
        missing = rank - len(lora_A)
        return LoraModule(pad(lora_A, (0, 0, 0, missing)), pad(lora_B, (0, missing)))

    def _put(self, factor: Tensor) -> Spooled:
        offset = self.spool.tell()
        self.spool.write(bits(factor).numpy().data)
        return Spooled(offset, (factor.shape[0], factor.shape[1]))

    def _get(self, factor: Spooled) -> Tensor:
        whole = torch.empty(factor.shape, dtype=self.dtype)
        self.spool.seek(factor.offset)
        self.spool.readinto(bits(whole).numpy().data)
        return whole


@contextmanager
def adapter_writer(
    folder: Path, backbone: BackboneIdentity, dtype: torch.dtype = torch.float32
) -> Iterator[AdapterWriter]:
    """A writer whose spool lies beside the folder to be, and is gone afterwards.

    Raises:
        OutputError: if the disk cannot take the spool.
    """
    with spooled(folder) as spool:
        yield AdapterWriter(folder, backbone, dtype, spool)


def write_adapter(folder: Path, adapter: Adapter, *, rank: int | None = None) -> int:
    """The uniform rank at which ``adapter`` was written to ``folder``, the same bytes each time.

    Raises:
        AdapterError: if the adapter cannot be written at that rank, or is not finite.
        OutputError: if the disk cannot take the files.
    """
    with adapter_writer(folder, adapter.backbone) as writer:
        for name in sorted(adapter.modules):
            writer.add(name, adapter.modules[name])
        return writer.finish(adapter.card, rank)


def rounded(module: LoraModule, dtype: torch.dtype) -> LoraModule:
    """A canonical module with its factors in ``dtype``, each rounded once."""
    return LoraModule(module.lora_A.to(dtype), module.lora_B.to(dtype))


def bits(factor: Tensor) -> Tensor:
    """The bits of a factor as integers, which numpy has for every width."""
    return factor.detach().cpu().contiguous().view(torch.int32 if factor.element_size() == 4 else torch.int16)


def writable(name: str, module: LoraModule) -> LoraModule:
    """``module`` itself, if it can be read back once it is written.

    Raises:
        AdapterError: if its name is no module path, or a factor is not finite.
    """
    if not (MODULE_NAME.fullmatch(name) or EXPERT_NAME.fullmatch(name)):
        raise AdapterError("a module must be named by its path in the backbone", got=ascii(name)[:80])
    if not (torch.isfinite(module.lora_A).all() and torch.isfinite(module.lora_B).all()):
        raise AdapterError(
            f"the factors of a module must be finite in {str(module.lora_A.dtype).removeprefix('torch.')}",
            got=f"NaN or infinity for {name}",
            remedy="check the weights of the merge, or train it again",
        )
    return module


def written_rank(needed: int, asked: int | None) -> int:
    """The uniform rank to write: ``asked``, or the smallest that vLLM serves and that is enough.

    Raises:
        AdapterError: if there is no such rank.
    """
    smallest = served_rank(needed)
    if asked is None:
        return smallest
    if asked < needed or asked not in SERVED_RANKS:
        raise AdapterError(
            f"a written rank must be one of {', '.join(map(str, SERVED_RANKS))}, and large enough",
            got=f"{asked} for an adapter of rank {needed}",
            remedy=f"write it at {smallest} or more",
        )
    return asked
