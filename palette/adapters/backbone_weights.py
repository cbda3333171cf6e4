"""The weights of a backbone as they lie in its folder, read one at a time without building a model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from palette.adapters.header import Entry, Header, read_header
from palette.adapters.tensors import DTYPES, read_tensors
from palette.backbones.loading import loaded_names
from palette.errors import AdapterError
from palette.shapes import Tensor


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
    def _renamed(self) -> dict[str, str]:
        return {loaded: key for key, loaded in loaded_names(self.folder, self._places).items()}

    def key(self, name: str) -> str:
        """The name under which a module's weight is stored; models that see have other names once loaded.

        Raises:
            AdapterError: if there is none.
        """
        loaded = f"{name}.weight"
        stored = loaded if loaded in self._places else self._renamed.get(loaded)
        if stored is None:
            raise self.lacks(name, "none")
        return stored

    def __call__(self, name: str) -> Tensor:
        """The weight [d_out, d_in] of a module, as it is stored.

        Raises:
            AdapterError: if there is none.
        """
        key = self.key(name)
        return read_tensors(self._places[key][0], [key])[0]

    def require(self, name: str, shape: tuple[int, int]) -> None:
        """Returns nothing; passes if the module has a weight of this shape, in floating point.

        Raises:
            AdapterError: if it has not.
        """
        _, entry = self._places[self.key(name)]
        if entry.shape != shape or entry.dtype not in DTYPES:
            raise self.lacks(name, f"{entry.dtype} {list(entry.shape)} for a delta {list(shape)}")

    def lacks(self, name: str, got: str) -> AdapterError:
        """The error that says what a module of the backbone is instead."""
        return AdapterError(
            f"the backbone must have a weight for {name[:120]}",
            got=got,
            remedy="use the backbone that the adapter was made for",
            where=self.folder,
        )
