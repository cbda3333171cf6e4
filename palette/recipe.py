"""The recipe: what a run is told, as YAML that states only what differs from the defaults."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, FiniteFloat, model_validator

from palette.authorisation import Authorisation
from palette.errors import RecipeError
from palette.evaluation.settings import EvaluateSettings
from palette.internalise.settings import InternaliseSettings
from palette.merging.inputs import Parent
from palette.merging.settings import MergeSettings
from palette.mosaic.settings import TokenEvaluateSettings, TrainSettings
from palette.mosaic.tokens import Sign
from palette.prompts.sources import beside, source_keys
from palette.run import RunSettings
from palette.search.settings import SearchSettings
from palette.settings import Group, Settings, dotted, override, read_yaml, settled


class Recipe(RunSettings):
    """A run: what is opened, and the settings of every stage."""

    authorise: tuple[str, ...] = Field(description="the domains to open")
    search: SearchSettings = Field(SearchSettings(), description="options of search")
    internalise: InternaliseSettings = Field(InternaliseSettings(), description="options of internalise")
    evaluate: EvaluateSettings = Field(EvaluateSettings(), description="options of evaluate")
    merge: MergeSettings = Field(MergeSettings(), description="options of merge")


class TokenRecipe(RunSettings):
    """Control tokens: the categories, of one sign, and the settings of their stages."""

    restrict: tuple[str, ...] = Field((), description="categories that are refused when active")
    authorise: tuple[str, ...] = Field((), description="or: domains that are answered when active")
    search: SearchSettings = Field(SearchSettings(), description="options of search")
    internalise: InternaliseSettings = Field(InternaliseSettings(), description="options of internalise")
    train: TrainSettings = Field(TrainSettings(), description="options of tokens train and tokens add")
    evaluate: TokenEvaluateSettings = Field(TokenEvaluateSettings(), description="options of tokens evaluate")

    @model_validator(mode="after")
    def _one_sign(self) -> TokenRecipe:
        if bool(self.restrict) == bool(self.authorise):
            given = "both" if self.restrict else "none"
            raise ValueError(f"control tokens either restrict categories or authorise domains, got {given}")
        return self

    @property
    def sign(self) -> Sign:
        """Whether an active token has its category refused, or answered."""
        return "restrict" if self.restrict else "authorise"

    @property
    def categories(self) -> tuple[str, ...]:
        """What there are to be tokens for, sorted."""
        return tuple(sorted({*self.restrict, *self.authorise}))

    def widened(self, categories: Iterable[str]) -> TokenRecipe:
        """The same recipe for these categories."""
        return self.model_copy(update={self.sign: tuple(sorted(categories))})

    def authorisation(self, domains: Iterable[str]) -> Authorisation:
        """What is opened; categories that are to be refused are named alike, and open nothing."""
        return Authorisation(self.categories) if self.restrict else super().authorisation(domains)

    def of_domain(self, domain: str) -> Recipe:
        """The recipe by which one domain's replies are searched."""
        shared = self.model_dump(mode="json", include=set(Recipe.model_fields) - {"evaluate", "merge"})
        return Recipe.model_validate({**shared, "name": domain, "authorise": [domain]})


TOKENS = frozenset(TokenRecipe.model_fields) - frozenset(Recipe.model_fields)
"""The keys by which a recipe is known for one of control tokens."""


def load_recipe(path: Path, overrides: Iterable[str] = ()) -> Recipe:
    """The recipe of a YAML file with ``key=value`` overrides; a relative folder is beside the file.

    Raises:
        RecipeError: if the file cannot be read, is a recipe of control tokens, or breaks a law; all of
            them are named at once.
    """
    content = _content(path)
    if theirs := sorted(TOKENS & set(content)):
        raise RecipeError(
            "a recipe of an adapter says nothing of control tokens",
            got=", ".join(theirs),
            remedy="use palette tokens, or leave them out",
            where=path,
        )
    return create_recipe(content, overrides, where=str(path))


def load_token_recipe(path: Path, overrides: Iterable[str] = ()) -> TokenRecipe:
    """The recipe of control tokens in a YAML file, with ``key=value`` overrides.

    Raises:
        RecipeError: if the file cannot be read, or breaks a law; all of them are named at once.
    """
    return _validated(TokenRecipe, _overridden(_content(path), overrides), str(path))


def create_recipe(content: Mapping[str, Any], overrides: Iterable[str] = (), where: str = "recipe") -> Recipe:
    """The recipe of plain values with overrides laid over them.

    Raises:
        RecipeError: if a key is unknown or a value breaks its law; all of them at once.
    """
    return _validated(Recipe, _overridden(content, overrides), where)


def merge_settings(given: Mapping[str, Any], overrides: Iterable[str] = ()) -> MergeSettings:
    """The settings of a merge from options and ``merge.key=value`` overrides.

    Raises:
        RecipeError: if a key is unknown or a value breaks its law; all of them at once.
    """
    merged = _overridden({"merge": dict(given)}, overrides)
    if other := sorted(set(merged) - {"merge"}):
        raise RecipeError("merge reads the keys under merge only", got=", ".join(other))
    if not isinstance(merged["merge"], Mapping):
        raise RecipeError("merge must be a mapping of keys", got=repr(merged["merge"]))
    return _validated(MergeSettings, merged["merge"], "merge")


class MergedAdapter(Settings):
    """One adapter of a merge recipe."""

    path: Path = Field(description="its folder or file; a relative one is beside the recipe")
    weight: FiniteFloat = Field(1.0, description="by which its delta is multiplied")
    modules: tuple[str, ...] = Field(
        (), description="globs of the modules taken; those that begin with ! are not (default: all)"
    )
    moments: Path | None = Field(
        None, description="its file of second moments by module path, which regmean reads"
    )


class MergeRecipe(MergeSettings):
    """A merge of many adapters as YAML: the settings of the stage merge, and each adapter."""

    adapters: tuple[MergedAdapter, ...] = Field(min_length=1, description="the adapters, in any order")


def load_merge(path: Path, overrides: Iterable[str] = ()) -> tuple[list[Parent], MergeSettings]:
    """The adapters and the settings of a merge recipe, with ``key=value`` overrides.

    An adapter may be written as its path alone.

    Raises:
        RecipeError: if the file cannot be read, or breaks a law; all of them are named at once.
    """
    content = read_yaml(path)
    listed = content.get("adapters")
    if isinstance(listed, list):
        content["adapters"] = [{"path": one} if isinstance(one, str) else one for one in listed]
    content = _overridden(content, (each.removeprefix("merge.") for each in overrides))
    recipe = _validated(MergeRecipe, content, str(path))
    if recipe.weights is not None:
        raise RecipeError("a merge recipe gives each adapter its weight", got="weights", where=path)
    parents = [
        Parent(
            path.parent / one.path,
            one.weight,
            one.modules,
            None if one.moments is None else path.parent / one.moments,
        )
        for one in recipe.adapters
    ]
    settings = {name: getattr(recipe, name) for name in recipe.model_fields_set - {"adapters"}}
    return parents, MergeSettings(**settings)


def keys(model: type[BaseModel] = Recipe) -> Iterator[tuple[str, Any]]:
    """Every dotted key of a recipe with its field, in the order of declaration."""
    return dotted(model)


def _content(path: Path) -> dict[str, Any]:
    """A recipe's content, named as its file, in which what is relative is beside the file."""
    content = {"name": path.stem, **read_yaml(path)}
    for key in ("model", "prompts"):
        near = path.parent / str(content.get(key, ""))
        if str(content.get(key, "")).startswith(".") and near.exists():
            content[key] = str(near)
    if isinstance(content.get("prompts"), Mapping):
        content["prompts"] = beside(content["prompts"], path.parent)
    return content


def _overridden(content: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Plain values with ``key=value`` assignments laid over a copy of them."""
    merged = dict(content)
    for assignment in overrides:
        override(merged, assignment)
    return merged


def _validated(group: type[Group], values: Mapping[str, Any], where: str) -> Group:
    whole = group if issubclass(group, RunSettings) else Recipe
    names = [name for name, _ in [*keys(whole), *source_keys()]]
    return settled(group, values, where, [*names, *sorted({name.split(".")[0] for name in names})])
