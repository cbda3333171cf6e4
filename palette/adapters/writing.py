"""Adapter files written module by module, so that PEFT and vLLM load them as they are.

A written file holds factors in canonical form, padded to one rank that vLLM serves, and carries in its
header the adapter's card with a copy of the configuration, so that the weights alone say what they are.
The rank of the whole is known only when its last module is; until then the factors lie in a spool
beside the file, and memory holds no more than one module.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import torch
from torch.nn.functional import pad

from palette.adapters.configuration import CONFIG as CONFIG
from palette.adapters.configuration import WEIGHTS as WEIGHTS
from palette.adapters.header import DTYPES, header_of
from palette.adapters.layouts import EXPERT_NAME, INNER, MODULE_NAME, PAIR, PREFIX, WEIGHT
from palette.adapters.lora import Adapter, BackboneIdentity, LoraModule, feed
from palette.adapters.names import last_name
from palette.errors import AdapterError
from palette.files import CARD_KEY, atomic, spooled
from palette.fingerprints import canonical
from palette.shapes import Float, Tensor

ADAPTER_FORMAT = "palette-adapter/1"
STORED = {dtype: name for name, dtype in DTYPES.items()}
"""The format's name of each type in floating point."""

SERVED_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values of vLLM's ``max_lora_rank``; written adapters are padded to one of them."""


Spooled = tuple[int, tuple[int, int]]
"""One factor in the spool: where it starts, and its shape."""


@dataclass
class AdapterWriter:
    """Takes the modules of one adapter, in the order of their names, and writes its folder at the end."""

    folder: Path
    backbone: BackboneIdentity
    dtype: torch.dtype
    sources: Sequence[Adapter]
    """The adapters that it is made of, whose short names are taken over where they hold."""
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
        if self.factors and name <= next(reversed(self.factors)):
            raise AdapterError("modules must be written in the order of their names", got=name)
        canonical = module.canonical()
        module = LoraModule(canonical.lora_A.to(self.dtype), canonical.lora_B.to(self.dtype))
        _require_writable(name, module)
        feed(self._digest.update, name, module)
        self.factors[name] = (self._put(module.lora_A), self._put(module.lora_B))
        self.rank = max(self.rank, module.rank)

    @property
    def digest(self) -> str:
        """The digest of the adapter that the modules taken make."""
        return str(self._digest.hexdigest())

    def finish(self, card: Mapping[str, Any]) -> int:
        """The uniform rank at which both files were written: the smallest served one that holds all modules.

        Factors are padded with zeros, never cut. Both files are written before either is renamed into
        place, the configuration last, so that a crash leaves nothing that reads as an adapter and is none.

        Raises:
            AdapterError: if there is no module, or no rank that is served is large enough.
            OutputError: if the disk cannot take the files.
        """
        if not self.factors:
            raise AdapterError("an adapter must adapt a module", got="none", where=self.folder)
        rank = served_rank(self.rank)
        fields = _fields_for(self.factors, self.backbone, rank, _short(self.sources, self.factors))
        card = {**card, "format": ADAPTER_FORMAT, "backbone": vars(self.backbone), "config": fields}
        with atomic(self.folder / CONFIG) as staged:
            staged.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")
            with atomic(self.folder / WEIGHTS) as weights, weights.open("wb") as stream:
                self._write(stream, rank, card)
        return rank

    def _write(self, stream: IO[bytes], rank: int, card: Mapping[str, Any]) -> None:
        groups = _stacking(self.factors)
        paths = sorted(groups, key=lambda path: f"{path}.lora")
        shapes = {}
        for path in paths:
            (_, (_, d_in)), (_, (d_out, _)) = self.factors[groups[path][0]]
            components = len(groups[path]) * rank
            shapes[f"{PREFIX}{path}.lora_A.weight"] = (components, d_in)
            shapes[f"{PREFIX}{path}.lora_B.weight"] = (d_out, components)
        metadata = {"format": "pt", CARD_KEY: canonical(card)}
        stream.write(header_of({key: (STORED[self.dtype], shapes[key]) for key in shapes}, metadata))
        for path in paths:
            whole = [self._padded(name, rank) for name in groups[path]]
            module = whole[0] if len(whole) == 1 else _stacked(whole)
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
        return offset, (factor.shape[0], factor.shape[1])

    def _get(self, factor: Spooled) -> Tensor:
        offset, shape = factor
        whole = torch.empty(shape, dtype=self.dtype)
        self.spool.seek(offset)
        self.spool.readinto(bits(whole).numpy().data)
        return whole


@contextmanager
def adapter_writer(
    folder: Path,
    backbone: BackboneIdentity,
    dtype: torch.dtype = torch.float32,
    sources: Sequence[Adapter] = (),
) -> Iterator[AdapterWriter]:
    """A writer whose spool lies beside the folder to be, and is gone afterwards.

    ``sources`` are the adapters that the new one is made of.

    Raises:
        OutputError: if the disk cannot take the spool.
    """
    with spooled(folder) as spool:
        yield AdapterWriter(folder, backbone, dtype, sources, spool)


def write_adapter(folder: Path, adapter: Adapter) -> int:
    """The uniform rank at which ``adapter`` was written to ``folder``, the same bytes each time.

    Raises:
        AdapterError: if no rank that is served holds the adapter, or it is not finite.
        OutputError: if the disk cannot take the files.
    """
    with adapter_writer(folder, adapter.backbone, sources=[adapter]) as writer:
        for name in sorted(adapter.modules):
            writer.add(name, adapter.modules[name])
        return writer.finish(adapter.card)


def bits(factor: Tensor) -> Tensor:
    """The bits of a factor as integers, which numpy has for every width."""
    return factor.detach().cpu().contiguous().view(torch.int32 if factor.element_size() == 4 else torch.int16)


def _require_writable(name: str, module: LoraModule) -> None:
    """Passes if ``module`` can be read back once it is written."""
    if not (MODULE_NAME.fullmatch(name) or EXPERT_NAME.fullmatch(name)):
        raise AdapterError("a module must be named by its path in the backbone", got=ascii(name)[:80])
    if not (torch.isfinite(module.lora_A).all() and torch.isfinite(module.lora_B).all()):
        raise AdapterError(
            f"the factors of a module must be finite in {str(module.lora_A.dtype).removeprefix('torch.')}",
            got=f"NaN or infinity for {name}",
            remedy="check the weights of the merge, or train it again",
        )


def served_rank(needed: int) -> int:
    """The uniform rank to write: the smallest that vLLM serves and that is enough.

    Raises:
        AdapterError: if there is no such rank.
    """
    smallest = next((rank for rank in SERVED_RANKS if rank >= needed), None)
    if smallest is None:
        raise AdapterError(
            f"an adapter's rank must be at most {SERVED_RANKS[-1]}",
            got=needed,
            remedy="give the merge a smaller --rank, and read the energy it retains",
        )
    return smallest


def _short(sources: Sequence[Adapter], written: Collection[str]) -> frozenset[str]:
    """The last names that PEFT may be told for paths: no module that the sources have and lose has one."""
    lost = {last_name(name) for one in sources for name in one.modules if name not in written}
    # A whole path stays one, so that an adapter written again is the same bytes.
    return frozenset().union(*(one.targets - one.modules.keys() for one in sources)) - lost


def _fields_for(
    names: Iterable[str], backbone: BackboneIdentity, rank: int, short: frozenset[str]
) -> dict[str, Any]:
    """The ``adapter_config.json`` of an adapter written at a uniform ``rank`` with scale 1."""
    # A name with an index in brackets is an expert of the fused parameter before them.
    parameters = {name: name.partition("[")[0] for name in names if "[" in name or name.endswith(WEIGHT)}
    fused = sorted(set(parameters.values()))
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": backbone.name,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "use_rslora": False,
        "use_dora": False,
        "bias": "none",
        "fan_in_fan_out": False,
        "modules_to_save": None,
        "target_modules": sorted(
            {
                last_name(name) if last_name(name) in short else name
                for name in names
                if name not in parameters
            }
        ),
        **({"target_parameters": fused} if fused else {}),
    }


def _stacking(names: Iterable[str]) -> dict[str, list[str]]:
    """The modules that stand under each path of PEFT's file: one, or the experts of a parameter in order."""
    paths: dict[str, list[str]] = {}
    fused: dict[str, dict[int, str]] = {}
    for name in names:
        match = EXPERT_NAME.fullmatch(name)
        if match is None:
            paths[name.removesuffix(WEIGHT)] = [name]
        else:
            fused.setdefault(match[1], {})[int(match[2])] = name
    leaves: dict[str, list[str]] = {}
    for name, experts in fused.items():
        if sorted(experts) != list(range(len(experts))):
            raise AdapterError("a fused parameter must have all its experts", got=f"a hole in {name[:120]}")
        owner, _, leaf = name.rpartition(".")
        leaves.setdefault(owner, []).append(leaf)
    for owner, siblings in leaves.items():
        # Otherwise PEFT would not know which parameter is which.
        if len(siblings) > 1 and sorted(siblings) != sorted(PAIR):
            raise AdapterError(
                "a module's fused parameters must be one, or gate_up_proj and down_proj",
                got=f"{', '.join(sorted(siblings))} of {owner[:120]}",
            )
        for leaf in siblings:
            inner = len(siblings) > 1 and leaf == PAIR[0]
            experts = fused[f"{owner}.{leaf}"]
            paths[owner + INNER * inner] = [experts[index] for index in range(len(experts))]
    return paths


def _stacked(experts: list[LoraModule]) -> LoraModule:
    """One module that holds the factors of all experts as PEFT orders them; its ΔW means nothing."""
    up: Float[Tensor, "d_out rank expert"] = torch.stack([expert.lora_B for expert in experts], dim=2)
    return LoraModule(torch.cat([expert.lora_A for expert in experts]), up.flatten(1))
