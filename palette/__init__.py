"""Palette: per-domain relaxation of a chat model's refusals, measured, merged and kept above a floor.

Every command is also a function of this package::

    import palette

    report = palette.domain("recipes/medical.yaml")
    palette.merge([Path("runs/medical"), Path("runs/legal")])
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Imported when first used: the command line answers `--help` without loading torch.
_HOMES = {
    "domain": "palette.pipeline",
    "run_stages": "palette.pipeline",
    "check": "palette.stages.check",
    "evaluate_model": "palette.stages.evaluate",
    "ask": "palette.stages.ask",
    "merge": "palette.stages.merge",
    "init": "palette.stages.init",
    "inspect": "palette.stages.inspect",
    "export": "palette.stages.export",
    "attribute": "palette.stages.attribute",
    "compare": "palette.stages.compare",
    "push": "palette.stages.push",
    "read_report": "palette.reporting.report",
    "suite": "palette.stages.suite",
    "load_recipe": "palette.recipe",
    "Recipe": "palette.recipe",
    "PaletteError": "palette.errors",
}

if TYPE_CHECKING:
    from palette.errors import PaletteError as PaletteError
    from palette.pipeline import domain as domain
    from palette.pipeline import run_stages as run_stages
    from palette.recipe import Recipe as Recipe
    from palette.recipe import load_recipe as load_recipe
    from palette.reporting.report import read_report as read_report
    from palette.stages.ask import ask as ask
    from palette.stages.attribute import attribute as attribute
    from palette.stages.check import check as check
    from palette.stages.compare import compare as compare
    from palette.stages.evaluate import evaluate_model as evaluate_model
    from palette.stages.export import export as export
    from palette.stages.init import init as init
    from palette.stages.inspect import inspect as inspect
    from palette.stages.merge import merge as merge
    from palette.stages.push import push as push
    from palette.stages.suite import suite as suite


def __getattr__(name: str) -> Any:
    """The public name, imported from its home."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'palette' has no attribute {name!r}")
