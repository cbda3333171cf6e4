"""The recipe: what a run is told, as YAML that states only what differs from the defaults."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from palette.authorisation import Authorisation
from palette.errors import PaletteError, RecipeError, noted, together
from palette.evaluation import settings as evaluating
from palette.evaluation.settings import EvaluateSettings
from palette.internalise import settings as internalising
from palette.internalise.settings import InternaliseSettings
from palette.merging import settings as merging
from palette.models import require_named
from palette.mosaic import settings as tokens
from palette.mosaic.settings import Sign, TokenEvaluateSettings, TrainSettings
from palette.prompts.settings import source_keys, sources_beside
from palette.run import HELPFUL, Run
from palette.run_settings import RunSettings
from palette.search import settings as searching
from palette.search.settings import SearchSettings
from palette.settings import Group, dotted, override, read_yaml, settled

REMOVED: Mapping[str, str] = {
    **evaluating.REMOVED,
    **internalising.REMOVED,
    **searching.REMOVED,
    "merge": merging.REMOVED["merge"],
}
"""What replaced each key that a recipe had once, as every engine says of its own."""


class Recipe(RunSettings):
    """A run: what is opened, and the settings of every stage."""

    authorise: tuple[str, ...] = Field(description="the domains to open")
    search: SearchSettings = Field(SearchSettings(), description="options of search")
    internalise: InternaliseSettings = Field(InternaliseSettings(), description="options of internalise")
    evaluate: EvaluateSettings = Field(EvaluateSettings(), description="options of evaluate")


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
        shared = self.model_dump(mode="json", include=set(Recipe.model_fields) - {"evaluate"})
        return Recipe.model_validate({**shared, "name": domain, "authorise": [domain]})


TOKENS = frozenset(TokenRecipe.model_fields) - frozenset(Recipe.model_fields)
"""The keys by which a recipe is known for one of control tokens."""


def load_recipe(path: Path | str, overrides: Iterable[str] = ()) -> Recipe:
    """The recipe of a YAML file with ``key=value`` overrides; a relative folder is beside the file.

    Raises:
        RecipeError: if the file cannot be read, is a recipe of control tokens, or breaks a law; all of
            them are named at once.
    """
    content = _content(Path(path))
    if theirs := sorted(TOKENS & set(content)):
        raise RecipeError(
            "a recipe of an adapter says nothing of control tokens",
            got=", ".join(theirs),
            remedy="use palette tokens, or leave them out",
            where=path,
        )
    return create_recipe(content, overrides, where=str(path))


def load_token_recipe(path: Path | str, overrides: Iterable[str] = ()) -> TokenRecipe:
    """The recipe of control tokens in a YAML file, with ``key=value`` overrides.

    Raises:
        RecipeError: if the file cannot be read, or breaks a law; all of them are named at once.
    """
    return _validated(TokenRecipe, _overridden(_content(Path(path)), overrides), str(path))


def create_recipe(content: Mapping[str, Any], overrides: Iterable[str] = (), where: str = "recipe") -> Recipe:
    """The recipe of plain values with overrides laid over them.

    Raises:
        RecipeError: if a key is unknown or a value breaks its law; all of them at once.
    """
    return _validated(Recipe, _overridden(content, overrides), where)


def faults(run: Run[Recipe]) -> list[PaletteError]:
    """What is wrong with a run's prompts, what it opens and its models, as known without reading one."""
    evaluate = run.recipe.evaluate
    found = run.faults(*dict.fromkeys(("train", "validation", evaluate.split)))
    if evaluate.helpful not in (None, HELPFUL):
        with noted(found):
            require_named(str(evaluate.helpful))
    return found


def _content(path: Path) -> dict[str, Any]:
    """A recipe's content, named as its file, in which what is relative is beside the file."""
    content = {"name": path.stem, **read_yaml(path)}
    evaluate = content.get("evaluate")
    groups = [content, content, evaluate if isinstance(evaluate, dict) else {}]
    for group, key in zip(groups, ("model", "prompts", "helpful"), strict=True):
        near = path.parent / str(group.get(key, ""))
        if str(group.get(key, "")).startswith(".") and near.exists():
            group[key] = str(near)
    if isinstance(content.get("prompts"), Mapping):
        content["prompts"] = sources_beside(content["prompts"], path.parent)
    return content


def _overridden(content: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Plain values with ``key=value`` assignments laid over a copy of them."""
    merged = dict(content)
    for assignment in overrides:
        override(merged, assignment)
    return merged


def _validated(group: type[Group], values: Mapping[str, Any], where: str) -> Group:
    names = [name for name, _ in [*dotted(Recipe), *dotted(TokenRecipe), *source_keys()]]
    known = [*names, *sorted({name.split(".")[0] for name in names})]
    own = tokens.REMOVED if group is TokenRecipe else {}
    try:
        return settled(group, values, where, known, removed={**REMOVED, **own})
    except RecipeError as error:
        raise together([error, *_faults_beside(values)]) from error


def _faults_beside(values: Mapping[str, Any]) -> list[PaletteError]:
    """What is wrong with the prompts and the model of a recipe that breaks a law elsewhere."""
    found: list[PaletteError] = []
    for key in ("prompts", "model"):
        # What is no setting at all has been told.
        with suppress(ValidationError), noted(found):
            if key in values:
                run = Run(RunSettings.model_validate({key: values[key]}), Path())
                if key == "prompts":
                    _ = run.prompts
                require_named(run.recipe.model)
    return found
