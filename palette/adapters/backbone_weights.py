"""The weights of a backbone as they lie in its folder, read one at a time without building a model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from palette.adapters.header import DTYPES, Entry, Header, read_header, read_stored
from palette.backbones.loading import loaded_names, transposed_modules
from palette.errors import AdapterError
from palette.shapes import Float, Tensor


@dataclass(frozen=True)
class BackboneWeights:
    """A local folder with safetensors files. Called with a module's path, it gives the module's weight."""

    folder: Path

    @cached_property
    def shards(self) -> list[Header]:
        """The headers of the folder's safetensors files, by name.

        Raises:
            AdapterError: if there are none, or one is damaged.
        """
        paths = sorted(self.folder.glob("*.safetensors"))
        if not paths:
            raise AdapterError(
                "a backbone must be a local folder with safetensors files",
                got="none",
                remedy="save it with save_pretrained",
                where=self.folder,
            )
        return [read_header(path) for path in paths]

    @cached_property
    def _places(self) -> dict[str, tuple[Header, Entry]]:
        return {key: (header, entry) for header in self.shards for key, entry in header.entries.items()}

    @cached_property
    def _loaded(self) -> dict[str, str]:
        return loaded_names(self.folder, self._places)

    @cached_property
    def _renamed(self) -> dict[str, str]:
        return {loaded: key for key, loaded in self._loaded.items()}

    @cached_property
    def _transposed(self) -> frozenset[str]:
        return transposed_modules(self.folder)

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
        return self._loaded.get(key, key).removesuffix(".weight") in self._transposed

    def __call__(self, name: str) -> Float[Tensor, "d_out d_in"]:
        """The weight of a module, in the type in which it is stored.

        Raises:
            AdapterError: if there is none.
        """
        key = self.key(name)
        weight = read_stored(self._places[key][0], [key])[0]
        return weight.T if self.transposed(name) else weight

    def require(self, name: str, shape: tuple[int, int]) -> None:
        """Returns nothing; passes if the module has a weight [d_out, d_in] of this shape, in floating point.

        Raises:
            AdapterError: if it has not.
        """
        entry = self._places[self.key(name)][1]
        stored = entry.shape[::-1] if self.transposed(name) else entry.shape
        if stored != shape or entry.dtype not in DTYPES:
            raise self._lacks(name, f"{entry.dtype} {list(stored)} for a delta {list(shape)}")

    def _lacks(self, name: str, got: str) -> AdapterError:
        return AdapterError(
            f"the backbone must have a weight for {name[:120]}",
            got=got,
            remedy="use the backbone that the adapter was made for",
            where=self.folder,
        )
