"""What every group of settings shares: frozen, no unknown key, read from YAML, errors in Palette's words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from reprlib import Repr
from typing import Any, ClassVar, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from palette.encodings import REMEDY, NotUnicodeError, decoded
from palette.errors import RecipeError, did_you_mean


class Settings(BaseModel):
    """A frozen group of options; an unknown key or a value outside its range is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    free: ClassVar[frozenset[str]] = frozenset()
    """Options that extend what a stage has done, or read it again, and make nothing of it another."""


Thinking = Literal["closed", "open"]
"""Whether a reply begins behind a thinking block that is already closed, or as the template has it."""

Group = TypeVar("Group", bound=Settings)

FORM = "·"
"""How the tag of a form begins in which a value may be given, and which is no key."""
LARGEST = 100_000
"""Values of a YAML file at most, each counted as often as aliases repeat it."""
SHOWN = Repr()
SHOWN.maxstring = SHOWN.maxother = 200
"""How an error shows a value that may be of any size."""
NEAR = 0.5
"""Similarity of a key, which may be long, to the one that was meant."""
MERGE_KEY = "tag:yaml.org,2002:merge"


class _StrictLoader(yaml.SafeLoader):
    """PyYAML's safe loader, for which a key that stands twice and half a character are errors."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.twice: list[tuple[str, yaml.Mark]] = []
        """Each key that stands again, in words, and its last place."""

    def get_single_data(self) -> Any:
        """The value that the text stands for, in which every key stands once."""
        value = super().get_single_data()
        if self.twice:
            problem = "; ".join(told for told, _ in self.twice)
            raise yaml.composer.ComposerError(None, None, problem, self.twice[0][1])
        return value

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        """A value, in which JSON's pairs of escapes are the one character that they stand for."""
        node = super().compose_scalar_node(anchor)
        try:
            node.value = node.value.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            problem = "half a character (a lone surrogate)"
            raise yaml.composer.ComposerError(None, None, problem, node.start_mark) from None
        if "\0" in node.value:
            raise yaml.composer.ComposerError(None, None, "a NUL", node.start_mark)
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """A mapping as it is written, before merge keys are laid into it."""
        node = super().compose_mapping_node(anchor)
        marks: dict[tuple[str, str], list[yaml.Mark]] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != MERGE_KEY:
                marks.setdefault((key.tag, key.value), []).append(key.start_mark)
        for (_, key), found in marks.items():
            if len(found) > 1:
                times = "twice" if len(found) == 2 else f"{len(found)} times"
                lines = " and ".join(str(mark.line + 1) for mark in found)
                self.twice.append((f"the key {key} {times}, in lines {lines}", found[-1]))
        return node


def yaml_value(text: str) -> Any:
    """The value that a YAML text stands for.

    Raises:
        InvalidYamlError: if it is none, or a key stands twice in it.
    """
    loader = None
    try:
        loader = _StrictLoader(text)
        value = loader.get_single_data()
    except Exception as error:  # A value with a tag may fail in any way: as an index, a key, a depth.
        mark = getattr(error, "problem_mark", None)
        got = getattr(error, "problem", None) or getattr(error, "reason", None) or type(error).__name__
        raise InvalidYamlError(got, mark.line + 1 if mark else None) from None
    finally:
        if loader is not None:
            loader.dispose()
    if _size(value, {}) > LARGEST:
        raise InvalidYamlError("aliases that stand for more than can be read", None)
    return value


def _size(value: Any, known: dict[int, int]) -> int:
    """How many values a value holds, each as often as it stands; what holds itself has too many."""
    if not isinstance(value, dict | list | tuple):
        return 1
    if id(value) not in known:
        known[id(value)] = LARGEST
        parts = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_size(part, known) for part in parts)
    return known[id(value)]


class InvalidYamlError(ValueError):
    """A text that is no YAML: what was got instead, and the line, where it is known."""

    def __init__(self, got: str, line: int | None) -> None:
        super().__init__(got)
        self.got, self.line = got, line


def read_yaml(path: Path, noun: str = "recipe") -> dict[str, Any]:
    """The keys and values of a YAML file; ``noun`` is what the file is.

    Raises:
        RecipeError: if it cannot be read, is no mapping, or has a key twice.
    """
    try:
        content = yaml_value(decoded(path.read_bytes()))
    except OSError as error:
        raise RecipeError(
            f"a {noun} must be a readable YAML file", got=error.strerror, remedy="check the path", where=path
        ) from error
    except NotUnicodeError as error:
        raise RecipeError(f"a {noun} must be UTF-8", got=error, remedy=REMEDY, where=path) from error
    except InvalidYamlError as error:
        raise RecipeError(
            f"a {noun} must be valid YAML",
            got=error.got,
            remedy="mend the line",
            where=f"{path}:{error.line}" if error.line else path,
        ) from error
    if not isinstance(content, dict):
        raise RecipeError(f"a {noun} must be a mapping of keys", got=type(content).__name__, where=path)
    return content


def override(content: dict[str, Any], assignment: str) -> None:
    """Lays one ``key=value`` over plain values, in place; a key of digits counts a list's entries.

    Raises:
        RecipeError: if it is none, or its value is no YAML.
    """
    key, equals, text = assignment.partition("=")
    if not equals or not key:
        raise RecipeError("--set must be key=value", got=repr(assignment), remedy="write key=value")
    try:
        value = yaml_value(text)
    except InvalidYamlError as error:
        raise RecipeError("--set must give a YAML value", got=repr(assignment)) from error
    *parents, last = key.split(".")
    place: Any = content
    for parent in parents:
        slot: Any = _slot(place, parent, assignment)
        given = place[slot] if isinstance(place, list) else place.get(slot)
        place[slot] = given.copy() if isinstance(given, dict | list) else {}
        place = place[slot]
    place[_slot(place, last, assignment)] = value


def _slot(group: dict[str, Any] | list[Any], key: str, assignment: str) -> str | int:
    """The key itself, or the index that it is of a list."""
    if isinstance(group, dict):
        return key
    if not (key.isascii() and key.isdigit() and int(key) < len(group)):
        raise RecipeError(
            f"--set must count a list's entries from 0 to {len(group) - 1}", got=repr(assignment)
        )
    return int(key)


def settled(
    group: type[Group],
    values: Mapping[str, Any],
    where: str,
    known: Iterable[str],
    noun: str = "recipe",
    removed: Mapping[str, str] | None = None,
) -> Group:
    """The settings that plain values give; errors call them a ``noun`` and say ``where`` it is.

    Near an unknown key one of ``known`` is looked for. ``removed`` says of each key or group that there
    was once, dotted, what replaced it: the rest of a sentence, such as "it is twice the rank".

    Raises:
        RecipeError: if a key is unknown or a value breaks its law; all of them at once.
    """
    try:
        return group.model_validate(dict(values))
    except ValidationError as error:
        names = list(known)
        problems = [_problem(each, names, noun, removed or {}) for each in error.errors()]
        raise RecipeError("; ".join(problems), where=where) from error


def dotted(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every dotted key of a group with its field, in the order of declaration."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from dotted(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{field.alias or name}", field


def _problem(error: Any, known: list[str], noun: str, removed: Mapping[str, str]) -> str:
    key = ".".join(part for part in map(str, error["loc"]) if not part.startswith(FORM))
    if error["type"] == "extra_forbidden":
        leaves = [key] if key in removed else list(_leaves(key, error["input"]))
        told = leaves if any(leaf in removed for leaf in leaves) else [key]
        return "; ".join(_unknown(leaf, known, noun, removed) for leaf in told)
    if error["type"] == "missing":
        return f"{key} must be given"
    if error["type"] == "union_tag_not_found":
        return f"{key}.kind must be given"
    if error["type"] == "union_tag_invalid":
        return f"{key}.kind must be one of {error['ctx']['expected_tags']}, got {error['ctx']['tag']!r}"
    message = error["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    return f"{key}: {message}, got {SHOWN.repr(error['input'])}" if key else message


def _leaves(key: str, value: Any) -> Iterator[str]:
    """The dotted keys of a group as it is given, or the key itself where its value is no group."""
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _leaves(f"{key}.{name}", inner)
    else:
        yield key


def _unknown(key: str, known: list[str], noun: str, removed: Mapping[str, str]) -> str:
    if key in removed:
        return f"{key} is no key of a {noun} any more: {removed[key]}"
    ends = [name.rpartition(".")[2] for name in known]
    near = did_you_mean(key, known, NEAR) or did_you_mean(key.rpartition(".")[2], ends, NEAR)
    return f"{key} is not a key of a {noun}" + (f", {near}" if near else "")
