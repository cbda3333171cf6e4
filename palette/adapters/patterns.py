r"""``alpha_pattern`` and ``rank_pattern``: expressions for module paths, matched exactly as PEFT does.

PEFT matches each key in turn, as ``(.*\.)?(key)$`` from the start of a path, and the first that fits
decides. Most keys are paths or suffixes of them, in which a dot is any character. Those are looked up by
their letters, so that many cost no more than one; the others are run as regular expressions. A file from
a stranger may hold one that takes exponential time: each match, and all of them, have their seconds.
"""

from __future__ import annotations

import math
import re
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import regex

from palette.adapters.names import unwrapped
from palette.errors import AdapterError

LITERAL = re.compile(r"(\^?)((?:[A-Za-z0-9_.-]|\\[.-])+)\$?", re.ASCII)
COUNTED = r"\{([0-9]*),?([0-9]*)\}"
NOT_COUNTED = r"\{(?!(?:[0-9]+,?[0-9]*|,[0-9]+)\})"
"""A brace that begins no count, which the two libraries read in different ways."""

FORMS = 512
"""Forms of keys at most: an expression is one, and all paths of one length with dots at the same places."""

LONGEST, REPEATED = 2000, 1000
"""Characters of an expression at most, and the product of its counts, which the library writes out."""

SECONDS, SECONDS_IN_ALL = 0.25, 30.0
"""That one match may take, and all of a table's."""


class Form(NamedTuple):
    """What keys that are looked up together share: length, where any letter may stand, and anchoring."""

    length: int
    free: tuple[int, ...]
    whole: bool

    def of(self, name: str) -> str | None:
        """The letters by which a path is looked up; None if no key of this form can fit it."""
        start = len(name) - self.length
        if start and (self.whole or start < 0 or name[start - 1] != "."):
            return None
        return self.masked(name[start:])

    def masked(self, letters: str) -> str:
        """The letters without those that may be any one."""
        parts = zip((0, *(i + 1 for i in self.free)), (*self.free, len(letters)), strict=True)
        return "\0".join(letters[start:stop] for start, stop in parts)


class Pattern:
    """Numbers by expressions for module paths; the first that fits decides."""

    def __init__(
        self, field: str = "", numbers: Mapping[str, float] = MappingProxyType({}), where: object = None
    ) -> None:
        """Takes the keys of a ``field`` in their order.

        Raises:
            AdapterError: if a key is no regular expression, or they are more than any honest file has.
        """
        self.field, self.where = field, where
        self.forms: dict[Form, dict[str, tuple[int, float]]] = {}
        self.expressions: list[tuple[int, float, Callable[..., object]]] = []
        for place, (key, number) in enumerate(numbers.items()):
            bare = unwrapped(key)
            if match := LITERAL.fullmatch(bare):
                letters = ["\0" if one == "." else one[-1] for one in re.findall(r"\\?.", match[2])]
                free = tuple(i for i, letter in enumerate(letters) if letter == "\0")
                form = Form(len(letters), free, bool(match[1]))
                self.forms.setdefault(form, {}).setdefault(form.masked("".join(letters)), (place, number))
            else:
                self.expressions.append((place, number, self._compiled(bare)))
            if len(self.forms) + len(self.expressions) > FORMS:
                raise self._refused(f"more than {FORMS} kinds of them")
        self._left = SECONDS_IN_ALL
        self._known: dict[str, float | None] = {}

    def first(self, name: str) -> float | None:
        """The number of the first key that fits a module's path; None if none does.

        Raises:
            AdapterError: if matching takes too long.
        """
        if name not in self._known:
            keys = ((form.of(name), table) for form, table in self.forms.items())
            looked_up = (table[key] for key, table in keys if key is not None and key in table)
            before, found = min(looked_up, default=(sys.maxsize, None))
            earlier = (one for one in self.expressions if one[0] < before)
            self._known[name] = next(
                (number for _, number, match in earlier if self._fits(match, name)), found
            )
        return self._known[name]

    def _fits(self, match: Callable[..., object], name: str) -> bool:
        started = time.thread_time()
        try:
            return match(name, timeout=max(0.001, min(SECONDS, self._left))) is not None
        except TimeoutError:
            raise self._refused(f"one that takes too long on {name[:120]}") from None
        finally:
            self._left -= time.thread_time() - started

    def _compiled(self, key: str) -> Callable[..., object]:
        """What matches a path as PEFT does."""
        whole = rf"(.*\.)?({key})$"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                re.compile(whole)
            counts = [max(int(end or 1), 1) for pair in re.findall(COUNTED, key) for end in pair]
            if len(key) > LONGEST or re.search(NOT_COUNTED, key) or math.prod(counts) > REPEATED:
                raise ValueError
            compiled: Callable[..., object] = regex.compile(whole, regex.VERSION0).match
        except (ValueError, re.error, regex.error, Warning, OverflowError, RecursionError):
            raise self._refused(ascii(key)[:120]) from None
        return compiled

    def _refused(self, got: str) -> AdapterError:
        return AdapterError(
            f"the keys of {self.field} must be module names or regular expressions, as PEFT reads them",
            got=got,
            remedy="write the names out",
            where=self.where,
        )
