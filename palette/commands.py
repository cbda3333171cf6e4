"""The commands of a recipe as functions; those without stages are the verbs themselves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from palette.errors import RecipeError
from palette.files import read_json
from palette.pipeline import RECORD, findings, run_stages
from palette.processes import Progress, silent
from palette.recipe import Recipe
from palette.run import Run

if TYPE_CHECKING:
    from palette.reporting.report import Report


class Asked(TypedDict, total=False):
    """What ``evaluate`` is told in place of a recipe."""

    model: str
    prompts: str
    authorise: Sequence[str]
    floor: Sequence[str]
    adapter: Path | str


def collect(
    recipe: Recipe | Path | str, output: Path | str | None = None, progress: Progress = silent
) -> dict[str, Any]:
    """Reads the backbone's refusals and its residual stream: what was run, where it lies and what it found.

    Raises:
        PaletteError: if the recipe, the prompts, the model or the folder break a law.
    """
    return result("collect", *run_stages(recipe, "collect", output, progress))


def search(
    recipe: Recipe | Path | str, output: Path | str | None = None, progress: Progress = silent
) -> dict[str, Any]:
    """Runs the stages up to the search for an intervention: what was run, where it lies and what it found.

    Raises:
        PaletteError: if the recipe, the prompts, the model or the folder break a law.
    """
    return result("search", *run_stages(recipe, "search", output, progress))


def internalise(
    recipe: Recipe | Path | str, output: Path | str | None = None, progress: Progress = silent
) -> dict[str, Any]:
    """Runs the stages up to the adapter: what was run, and where it lies.

    Raises:
        PaletteError: if the recipe, the prompts, the model or the folder break a law.
    """
    return result("internalise", *run_stages(recipe, "internalise", output, progress))


def domain(
    recipe: Recipe | Path | str, output: Path | str | None = None, progress: Progress = silent
) -> Report:
    """Runs collect, search, internalise and evaluate as far as they are not done; the report.

    Raises:
        PaletteError: if the recipe, the prompts, the model or the folder break a law.
    """
    run, _ = run_stages(recipe, "evaluate", output, progress)
    # Here, since it imports torch: what a recipe states wrongly is told at once.
    from palette.reporting.report import read_report

    return read_report(run.folder)


def evaluate(
    recipe: Recipe | Path | str | None = None,
    output: Path | str | None = None,
    progress: Progress = silent,
    **asked: Unpack[Asked],
) -> Report:
    """The report of a recipe's adapter; or of any on a ``model``, by ``prompts``, for ``authorise``.

    Raises:
        PaletteError: if neither or both are given, or the recipe, the prompts, the model, the adapter or
            the folder break a law.
    """
    missing = sorted({"model", "prompts", "authorise"} - set(asked))
    if (recipe is not None and asked) or (recipe is None and missing):
        raise RecipeError(
            "evaluate takes a recipe, or model, prompts and authorise",
            got=f"a recipe and {min(asked)}" if recipe else f"no {missing[0]}",
            remedy="leave one of them out" if recipe else f"give {missing[0]}",
        )
    if recipe is not None:
        return domain(recipe, output, progress)
    from palette.stages.evaluate import evaluate_model

    adapter = asked.pop("adapter", None)
    return evaluate_model(dict(asked), adapter, output, progress=progress)[0]


def result(stage: str, run: Run[Recipe], ran: Sequence[str]) -> dict[str, Any]:
    """What came of a stage, as plain values: which stages ran, where its artefacts lie, and what it found."""
    artefacts = [str(run.folder / path) for path in read_json(run.folder / stage / RECORD)["outputs"]]
    told = {"stage": stage, "ran": [*ran], "folder": str(run.folder), "artefacts": artefacts}
    found = findings(stage, run.folder)
    return told if found is None else {**told, "found": found}
