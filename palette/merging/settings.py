"""The options of a merge, known without a model."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, FiniteFloat, field_validator

from palette.merging.methods import METHODS
from palette.settings import Settings


class MergeSettings(Settings):
    """Options of the stage merge; by default deltas are added, exactly."""

    method: str = Field("weighted_sum", description=f"how deltas are merged: {', '.join(METHODS)}")
    options: dict[str, float | int | bool | str] = Field(
        default_factory=dict, description="options of the method, by name"
    )
    compat: Literal["peft", "mergekit", "paper"] | None = Field(
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
    workers: int | None = Field(
        None, ge=1, description="modules merged at a time (default: one a core, at most 4)"
    )
    trials: int = Field(
        0, ge=0, description="trials of a search for the weights on the validation split (default: none)"
    )
    prompts: int = Field(16, ge=1, description="prompts at most, a domain, kind and tier, of such a trial")
    gate: bool = Field(
        True, description="put the merge to the gate where its adapters lie beside their reports"
    )

    @field_validator("method")
    @classmethod
    def _in_the_table(cls, method: str) -> str:
        if method not in METHODS:
            raise ValueError(f"must be one of {', '.join(METHODS)}")
        return method
