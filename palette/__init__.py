"""Palette: per-domain relaxation of a chat model's refusals, measured, merged and kept above a floor.

Every command is a function of its name, which takes paths as texts or as ``Path``::

    import palette

    report = palette.domain("recipes/medical.yaml")
    palette.merge(["runs/medical", "runs/legal"])
    palette.load("runs/medical").generate("What is the dose of roglethine ?")
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Imported when first used: the command line answers `--help` without loading torch.
_HOMES = {
    **dict.fromkeys(("collect", "domain", "evaluate", "internalise", "search"), "palette.commands"),
    "run_stages": "palette.pipeline",
    "ask": "palette.stages.ask",
    "check": "palette.stages.check",
    "certify": "palette.stages.certify",
    "compare": "palette.stages.compare",
    "init": "palette.stages.init",
    "inspect": "palette.stages.inspect",
    "attribute": "palette.stages.attribute",
    "export": "palette.stages.export",
    "load": "palette.stages.load",
    "merge": "palette.stages.merge",
    "summary": "palette.stages.summary",
    "push": "palette.stages.push",
    "reproduce": "palette.stages.merged",
    "revoke": "palette.stages.revoke",
    "runs": "palette.stages.runs",
    "serve": "palette.stages.serve",
    "suite": "palette.stages.suite",
    "unmerge": "palette.stages.merged",
    "verify": "palette.stages.verify",
    "evaluate_model": "palette.stages.evaluate",
    "read_report": "palette.reporting.report",
    "Report": "palette.reporting.report",
    "load_recipe": "palette.recipe",
    "Recipe": "palette.recipe",
    "PaletteError": "palette.errors",
}
_GROUPS = ("judge", "keys", "tokens")
"""Commands that have commands of their own: modules of their functions."""

__all__ = [*sorted({*_HOMES, *_GROUPS}), "__version__"]  # noqa: PLE0604  # names of a table

if TYPE_CHECKING:
    from palette import judge as judge
    from palette import keys as keys
    from palette import tokens as tokens
    from palette.commands import collect as collect
    from palette.commands import domain as domain
    from palette.commands import evaluate as evaluate
    from palette.commands import internalise as internalise
    from palette.commands import search as search
    from palette.errors import PaletteError as PaletteError
    from palette.pipeline import run_stages as run_stages
    from palette.recipe import Recipe as Recipe
    from palette.recipe import load_recipe as load_recipe
    from palette.reporting.report import Report as Report
    from palette.reporting.report import read_report as read_report
    from palette.stages.ask import ask as ask
    from palette.stages.attribute import attribute as attribute
    from palette.stages.certify import certify as certify
    from palette.stages.check import check as check
    from palette.stages.compare import compare as compare
    from palette.stages.evaluate import evaluate_model as evaluate_model
    from palette.stages.export import export as export
    from palette.stages.init import init as init
    from palette.stages.inspect import inspect as inspect
    from palette.stages.load import load as load
    from palette.stages.merge import merge as merge
    from palette.stages.merged import reproduce as reproduce
    from palette.stages.merged import unmerge as unmerge
    from palette.stages.push import push as push
    from palette.stages.revoke import revoke as revoke
    from palette.stages.runs import runs as runs
    from palette.stages.serve import serve as serve
    from palette.stages.suite import suite as suite
    from palette.stages.summary import summary as summary
    from palette.stages.verify import verify as verify


def __getattr__(name: str) -> Any:
    """The public name, imported from its home."""
    if name in _GROUPS:
        return import_module(f"palette.{name}")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'palette' has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names."""
    return __all__


class _Package(ModuleType):
    """A package whose commands keep their names where engines have the same: ``search``, ``internalise``."""

    def __setattr__(self, name: str, value: Any) -> None:
        # What an import does once it has loaded the engine, which then is reached by imports alone.
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
