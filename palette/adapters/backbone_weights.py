"""The weights of a backbone as they lie in its folder, read one at a time without building a model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from palette.adapters.header import DTYPES, Entry, Header, read_header, read_stored
from palette.backbones.conversion import Composed, loaded_names, tied_modules, transposed_modules
from palette.backbones.loading import without_weights
from palette.errors import AdapterError
from palette.models import weight_files
from palette.shapes import Float, Int, Tensor


@dataclass(frozen=True, eq=False)
class Place:
    """One stored tensor, or one expert's in a stack, that holds a module's weight or a part of it."""

    key: str
    shape: tuple[int, ...]
    """Of the whole weight, [d_out, d_in]."""
    turned: bool = False
    """Whether it lies there as [d_in, d_out]."""
    expert: int = 0
    """Which of the stack."""
    index: Int[Tensor, "row column"] | None = None
    """Where in the weight as loaded each stored number stands; None where all do as they are."""

    @property
    def plain(self) -> bool:
        """Whether it is the whole weight as it is."""
        return not self.turned and self.index is None

    def part(self, delta: Float[Tensor, "d_out d_in"]) -> Float[Tensor, "row column"]:
        """What of a module's ΔW is to be added there."""
        loaded = delta.T if self.turned else delta
        return loaded.contiguous() if self.index is None else loaded.flatten()[self.index]


@dataclass(frozen=True)
class BackboneWeights:
    """A local folder with safetensors files. Called with a module's path, it gives the module's weight."""

    folder: Path

    @cached_property
    def shards(self) -> list[Header]:
        """The headers of the safetensors files that the folder's model is loaded from, by name.

        Of a folder whose files have no names that the library knows, of all.

        Raises:
            AdapterError: if there are none, or one is damaged.
        """
        loaded = weight_files(self.folder)
        paths = [path for path in loaded or sorted(self.folder.glob("*.safetensors")) if path.is_file()]
        if not paths or any(path.suffix != ".safetensors" for path in paths):
            raise AdapterError(
                "a backbone must be a local folder with safetensors files",
                got=", ".join(path.name for path in paths) or "none",
                remedy="save it with save_pretrained",
                where=self.folder,
            )
        return [read_header(path) for path in paths]

    @cached_property
    def _places(self) -> dict[str, tuple[Header, Entry]]:
        return {key: (header, entry) for header in self.shards for key, entry in header.entries.items()}

    @cached_property
    def _model(self) -> Any | None:
        """The model without its numbers, whose modules say what lies how; None where none can be built."""
        return without_weights(self.folder)

    @cached_property
    def _names(self) -> tuple[dict[str, str], dict[str, Composed]]:
        return loaded_names(self._model, self._places)

    @cached_property
    def _renamed(self) -> dict[str, str]:
        return {loaded: key for key, loaded in self._names[0].items()}

    @cached_property
    def _indices(self) -> dict[tuple[object, ...], tuple[tuple[int, ...], list[Tensor]]]:
        return {}

    @cached_property
    def _tied(self) -> frozenset[str]:
        return tied_modules(self._model)

    @cached_property
    def _transposed(self) -> frozenset[str]:
        return transposed_modules(self._model)

    def key(self, name: str) -> str:
        """The name under which a module's weight is stored; some models have other names once loaded.

        Raises:
            AdapterError: if there is none.
        """
        loaded = f"{name.removesuffix('.weight')}.weight"
        stored = loaded if loaded in self._places else self._renamed.get(loaded)
        if stored is None:
            raise self._lacks(name, "none")
        return stored

    def transposed(self, name: str) -> bool:
        """Whether a module's weight lies there as [d_in, d_out], as that of transformers' Conv1D does.

        Raises:
            AdapterError: if there is none.
        """
        key = self.key(name)
        shape = self._places[key][1].shape
        bias = self._places.get(key.removesuffix("weight") + "bias")
        # A Conv1D has a bias, as long as its outputs; of a square weight only the model knows.
        if bias is None or len(shape) != 2:
            return False
        if shape[0] != shape[1]:
            return bias[1].shape == shape[1:]
        return self._names[0].get(key, key).removesuffix(".weight") in self._transposed

    def __call__(self, name: str) -> Float[Tensor, "d_out d_in"]:
        """The weight of a module, in the type in which it is stored.

        Raises:
            AdapterError: if there is none.
        """
        key = self.key(name)
        weight = read_stored(self._places[key][0], [key])[0]
        return weight.T if self.transposed(name) else weight

    def places(self, name: str, shape: tuple[int, int]) -> list[Place]:
        """Where the weight [d_out, d_in] of a module lies, in floating point.

        That is one tensor as a rule. The weight of an expert may be a part of a tensor, or lie in several.
        It is the module's own: what is added to a weight that is tied would change two modules.

        Raises:
            AdapterError: if there is none of this shape.
        """
        if name in self._tied:
            raise AdapterError(
                f"a delta must be written into a weight of its own, which {name[:120]} has not",
                got="one that is tied to another module's",
                remedy="mount the adapter, or leave this module out with a merge recipe's modules",
                where=self.folder,
            )
        path, _, expert = name.partition("[")
        found = self._expert(name, path, int(expert[:-1])) if expert else [self._whole(name)]
        for place in found:
            dtype = self._places[place.key][1].dtype
            if place.shape != shape or dtype not in DTYPES:
                raise self._lacks(name, f"{dtype} {list(place.shape)} for a delta {list(shape)}")
        return found

    def _whole(self, name: str) -> Place:
        key, turned = self.key(name), self.transposed(name)
        shape = self._places[key][1].shape
        return Place(key, shape[::-1] if turned else shape, turned)

    def _expert(self, name: str, path: str, expert: int) -> list[Place]:
        """The places of one expert of a parameter; a matrix has one expert alone."""
        turned = path.rpartition(".")[0] in self._transposed
        composed = self._names[1].get(path)
        if composed is None:
            key = path if path in self._places else self._renamed.get(path)
            shape = self._places[key][1].shape if key else ()
            stack = (1, *shape) if len(shape) == 2 else shape
            if key is None or len(stack) != 3 or expert >= stack[0]:
                raise self._lacks(name, f"{list(shape)}" if key else "none")
            turned = turned and len(shape) == 3
            return [Place(key, stack[:0:-1] if turned else stack[1:], turned, expert)]
        keys, shapes = [], []
        for listed in composed.sources.values():
            shape = self._places[listed[0]][1].shape
            stacked = len(listed) == 1 and len(shape) == 3
            if expert >= (shape[0] if stacked else len(listed)):
                raise self._lacks(name, "fewer experts")
            keys.append((listed[0], expert) if stacked else (listed[expert], 0))
            shapes.append((1, *shape[1:]) if stacked else shape)
        kind = (*composed.sources, *shapes)
        if kind not in self._indices:
            self._indices[kind] = self._indexed(name, composed, shapes)
        loaded, indices = self._indices[kind]
        shape = loaded[::-1] if turned else loaded
        return [Place(key, shape, turned, at, index) for (key, at), index in zip(keys, indices, strict=True)]

    def _indexed(
        self, name: str, composed: Composed, shapes: list[tuple[int, ...]]
    ) -> tuple[tuple[int, ...], list[Tensor]]:
        """The shape of one expert as loaded, and where in it the numbers of each stored tensor stand."""
        try:
            numbered = composed.numbered(shapes)
        except Exception as error:  # A rule of the library's may refuse one expert alone in any way.
            raise self._lacks(name, f"what cannot be told apart ({type(error).__name__})") from error
        order = numbered.flatten().argsort()
        if not torch.equal(numbered.flatten()[order], torch.arange(sum(map(math.prod, shapes)))):
            raise self._lacks(name, "numbers that stand twice, or not at all")
        parts = order.split([math.prod(shape) for shape in shapes])
        return tuple(numbered.shape[-2:]), [
            part.reshape(shape[-2:]) for part, shape in zip(parts, shapes, strict=True)
        ]

    def _lacks(self, name: str, got: str) -> AdapterError:
        return AdapterError(
            f"the backbone must have a weight for {name[:120]}",
            got=got,
            remedy="use the backbone that the adapter was made for",
            where=self.folder,
        )
