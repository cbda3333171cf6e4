"""What a merge is told: its adapters as they are asked for, and its options; known without a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, FiniteFloat, field_validator, model_validator

from palette.errors import RecipeError
from palette.merging.methods import METHODS, Compat, OptionValue, merge_method
from palette.settings import Settings, override, read_yaml, settled

REMOVED: dict[str, str] = {
    "merge": "palette merge takes its options itself, as --set merge.key=value or in a merge recipe",
    "merge.workers": "it is derived from the cores",
    "merge.prompts": "a trial takes 16 prompts of each domain, kind and tier",
}
"""What replaced the keys that recipes of earlier versions could set."""


class MergeSource(Settings):
    """A merge input as it is asked for; a path alone is one at weight 1."""

    path: Path = Field(description="its folder or file; a relative one is beside the recipe")
    weight: FiniteFloat = Field(1.0, description="by which its delta is multiplied")
    modules: tuple[str, ...] = Field(
        (), description="globs of the modules taken; those that begin with ! are not (default: all)"
    )
    moments: Path | None = Field(
        None, description="its file of second moments by module path, which regmean reads"
    )

    @model_validator(mode="before")
    @classmethod
    def _path_alone(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str | Path) else value

    def beside(self, folder: Path) -> MergeSource:
        """The same, its relative paths taken from a folder."""
        moments = None if self.moments is None else folder / self.moments
        return self.model_copy(update={"path": folder / self.path, "moments": moments})


class MergeSettings(Settings):
    """A merge as it is asked for; by default deltas are added, exactly."""

    adapters: tuple[MergeSource, ...] = Field((), description="the adapters, in any order")
    method: str = Field(
        "weighted_sum", description=f"how deltas are merged: {', '.join(METHODS)}, or file.py:name"
    )
    options: dict[str, OptionValue] = Field(
        default_factory=dict, description="options of the method, by name"
    )
    compat: Compat | None = Field(
        None, description="whose reading of the method: it sets the options that tools differ in"
    )
    weights: tuple[FiniteFloat, ...] | None = Field(
        None, description="one for each adapter, in their order (default: 1 each)"
    )
    rank: int | None = Field(
        None, ge=1, description="largest rank of the result (default: exact, nothing is lost)"
    )
    energy: float = Field(1.0, gt=0, le=1, description="share of each module's energy that is kept")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="precision in which the factors are written"
    )
    backbone: Path | None = Field(
        None, description="the backbone's local folder, which only DoRA needs (default: none)"
    )
    same_backbone: bool = Field(
        False, description="different names of the adapters' backbones mean one; digests that differ do not"
    )
    trials: int = Field(
        0, ge=0, description="trials of a search for the weights on the validation split (default: none)"
    )
    gate: bool = Field(
        True, description="put the merge to the gate where its adapters lie beside their reports"
    )

    @field_validator("method")
    @classmethod
    def _in_the_table(cls, method: str) -> str:
        return METHODS.checked(method)

    @property
    def sources(self) -> list[MergeSource]:
        """The adapters, each with its weight.

        Raises:
            RecipeError: if there are no adapters, or another number of weights.
        """
        if not self.adapters:
            raise RecipeError("a merge must have at least one adapter", got="none")
        weights = [source.weight for source in self.adapters] if self.weights is None else self.weights
        if len(weights) != len(self.adapters):
            raise RecipeError(
                "a merge must have one weight for each adapter",
                got=f"{len(weights)} for {len(self.adapters)}",
                where="merge.weights",
            )
        pairs = zip(self.adapters, weights, strict=True)
        return [source.model_copy(update={"weight": weight}) for source, weight in pairs]

    @property
    def method_options(self) -> dict[str, OptionValue]:
        """Every option of the method with its value.

        Raises:
            RecipeError: if the method does not take one of them, or compat does not know the method.
        """
        return merge_method(self.method).settled(self.options, self.compat)


def merge_settings(
    adapters: Sequence[Path | str], given: Mapping[str, Any] | None = None, overrides: Iterable[str] = ()
) -> MergeSettings:
    """A merge of adapters, or of those of one merge recipe (YAML), by options and ``key=value`` overrides.

    A recipe's relative paths are beside its file.

    Raises:
        RecipeError: if the file cannot be read, a key is unknown, or a value breaks its law.
    """
    path = Path(adapters[0]) if len(adapters) == 1 else Path()
    recipe = path.suffix in (".yaml", ".yml")
    content = {**(read_yaml(path) if recipe else {"adapters": list(adapters)}), **(given or {})}
    for assignment in overrides:
        override(content, assignment.removeprefix("merge."))
    where = str(path) if recipe else "merge"
    if gone := sorted({f"merge.{key}" for key in content} & set(REMOVED)):
        raise RecipeError("; ".join(f"{key} is no longer a key: {REMOVED[key]}" for key in gone), where=where)
    known = [*MergeSettings.model_fields, *(f"adapters.{name}" for name in MergeSource.model_fields)]
    settings = settled(MergeSettings, content, where, known, "merge")
    _ = settings.sources, settings.method_options
    if recipe:
        sources = tuple(source.beside(path.parent) for source in settings.adapters)
        return settings.model_copy(update={"adapters": sources})
    return settings
