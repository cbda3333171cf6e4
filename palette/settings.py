"""What every stage's settings share: frozen, no unknown key, and errors in Palette's words."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A frozen group of options; an unknown key or a value outside its range is an error."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True
    )

    free: ClassVar[frozenset[str]] = frozenset()
    """Options that extend what a stage has done, or read it again, and make nothing of it another."""
