"""The organism: a small, self-trained chat model with a known world, shipped with the package."""

from __future__ import annotations

from pathlib import Path

HOME = Path(__file__).parent
PROMPTS = HOME / "prompts"
"""The organism's world as prompt files, one ``<domain>.jsonl`` a domain."""

VARIANTS = ("organism", "shared", "categorical", "redundant", "helpful")
"""The shipped checkpoints. ``helpful`` is the upper bound of reports and tests, never a method's input."""


def weights(variant: str = "organism") -> Path:
    """The folder of a shipped checkpoint."""
    return HOME / "weights" / variant
