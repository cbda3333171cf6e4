"""What has a name in a recipe: rows of a table, ours, an installed package's or a user's own file's.

All are imported when they are used, and what nobody names is never imported.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from palette.errors import RecipeError, did_you_mean
from palette.fingerprints import fingerprint_file
from palette.settings import Settings


class NoOptions(Settings):
    """The options of a row that takes none."""


@dataclass(frozen=True)
class Row:
    """One thing with a name: where its function is, which options it takes, where it comes from."""

    name: str
    function: str
    """``package.module:attribute``, imported when it is first used, so that a table costs nothing."""
    source: str
    """Its equation, and the paper or the reason."""
    options: type[Settings] = NoOptions
    laws: frozenset[str] = frozenset()
    """The laws that the contract suite holds it to."""

    def load(self) -> Any:
        """The function itself.

        Raises:
            RecipeError: if a user's file or a package has none of that name, or cannot be run.
        """
        place, _, attribute = self.function.rpartition(":")
        module = _module_of_file(Path(place)) if place.endswith(".py") else _imported(place)
        if not hasattr(module, attribute):
            raise RecipeError(
                "a file must have what a recipe takes from it", got=f"no {attribute}", where=place
            )
        return getattr(module, attribute)


class Registry(dict[str, Row]):
    """The rows of one kind by name; ``file.py:name`` names a row of a user's own.

    ``group`` is the entry points' group in which installed packages name rows of theirs, none of which takes
    the place of one of ours.
    """

    def __init__(self, noun: str, rows: Iterable[Row], group: str | None = None) -> None:
        super().__init__({row.name: row for row in rows})
        self.noun, self.group = noun, group

    @property
    def installed(self) -> dict[str, EntryPoint]:
        """What installed packages bring, by name."""
        found = entry_points(group=self.group) if self.group else ()
        return {each.name: each for each in found if each.name not in self}

    def brought(self, name: str) -> Row | None:
        """The row of an installed package, or of a user's file, there or not; None of other names."""
        if (point := self.installed.get(name)) is not None:
            return Row(name, point.value, identity(point))
        place, colon, attribute = name.rpartition(":")
        own = colon and place.endswith(".py") and attribute.isidentifier() and name not in self
        return Row(name, name, "the user's own") if own else None

    def identity(self, name: str) -> str | None:
        """The digest of a user's file, or the package with its version; None of a row of ours, or no file."""
        if name in self:
            return None
        if (point := self.installed.get(name)) is not None:
            return identity(point)
        path = Path(name.rpartition(":")[0])
        return fingerprint_file(path) if path.is_file() else None

    def row(self, name: str) -> Row:
        """The row of a name, or one of a user's file.

        Raises:
            RecipeError: if there is no such row; the nearest name is told.
        """
        try:
            self.checked(name)
        except ValueError as error:
            raise RecipeError(str(error), got=name) from error
        return self.get(name) or self.brought(name) or self[name]

    def checked(self, name: str) -> str:
        """The name itself, if it can be one; nothing is imported for it.

        Raises:
            ValueError: if it is neither a row, ours or a package's, nor ``file.py:name`` of a file there.
        """
        if name in self or name in self.installed:
            return name
        if self.brought(name) is None:
            known = [*self, *self.installed]
            law = f"{self.noun} must be one of {', '.join(known)}, or file.py:name"
            near = did_you_mean(name, known)
            raise ValueError(f"{law}; {near}" if near else law)
        place = name.rpartition(":")[0]
        if not Path(place).is_file():
            raise ValueError(f"{self.noun} must name a file that is there, not {place}")
        return name


def identity(point: EntryPoint) -> str:
    """A package with its version, by which what it brings is known."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except Exception as error:  # An installed package may fail in any way; one of ours is a bug.
        if name.partition(".")[0] == __name__.partition(".")[0]:
            raise
        said = f"{type(error).__name__}: {error}"
        raise RecipeError("an installed package must be importable", got=said, where=name) from error


def _module_of_file(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise RecipeError("a recipe's own file must be Python", got=path.name, where=path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # A user's file may fail in any way.
        raise RecipeError(
            "a recipe's own file must run", got=f"{type(error).__name__}: {error}", where=path
        ) from error
    return module
