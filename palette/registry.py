"""What has a name in a recipe: rows of a table, ours or a user's own file, imported when they are used."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from palette.errors import RecipeError
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
            RecipeError: if a user's file has none of that name, or cannot be run.
        """
        place, _, attribute = self.function.rpartition(":")
        module = _module_of_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
        if not hasattr(module, attribute):
            raise RecipeError(
                "a file must have what a recipe takes from it", got=f"no {attribute}", where=place
            )
        return getattr(module, attribute)


class Registry(dict[str, Row]):
    """The rows of one kind by name; ``file.py:name`` names a row of a user's own."""

    def __init__(self, noun: str, rows: Iterable[Row]) -> None:
        super().__init__({row.name: row for row in rows})
        self.noun = noun

    def row(self, name: str) -> Row:
        """The row of a name, or one of a user's file.

        Raises:
            RecipeError: if there is no such row; the nearest name is told.
        """
        try:
            self.checked(name)
        except ValueError as error:
            raise RecipeError(str(error), got=name) from error
        return self.get(name) or Row(name, name, "the user's own")

    def checked(self, name: str) -> str:
        """The name itself, if it can be one; nothing is imported for it.

        Raises:
            ValueError: if it is neither a row nor ``file.py:name`` of a file that is there.
        """
        place, colon, attribute = name.rpartition(":")
        if name in self:
            return name
        if not (colon and place.endswith(".py") and attribute.isidentifier()):
            near = get_close_matches(name, self, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(f"{self.noun} must be one of {', '.join(self)}, or file.py:name{hint}")
        if not Path(place).is_file():
            raise ValueError(f"{self.noun} must name a file that is there, not {place}")
        return name


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
