"""The stages of a recipe as commands: run, watched, and what they found printed."""

from __future__ import annotations

from collections.abc import Callable
from logging import WARNING
from pathlib import Path
from typing import TYPE_CHECKING

from palette.cli.call import Call

if TYPE_CHECKING:
    from palette.recipe import Recipe
    from palette.run import Run


def run(name: str, recipe: Path, call: Call, more: list[str] | None = None) -> None:
    """Runs a recipe up to a stage and prints what came of it; ``more`` is laid over it, too."""
    from palette.recipe import load_recipe

    whole = load_recipe(recipe, [*call.overrides, *(more or [])])
    from palette.commands import result
    from palette.pipeline import run_stages

    last = "evaluate" if name == "domain" else name
    done, ran = run_stages(whole, last, call.output, call.progress, watching(last, call))
    if last != "evaluate":
        call.result(result(last, done, ran), "stage")
        return
    from palette.reporting.report import read_report

    report = read_report(done.folder)
    call.result(report, "report", folder=done.folder)
    call.end(report.gate.passed)


def watching(last: str, call: Call) -> Callable[[Run[Recipe], str], None]:
    """Says on standard error, as early as it is known, what stages before the last one found.

    And what the gate will lack, whatever the run does. None of it changes the exit status.
    """

    def watch(run: Run[Recipe], stage: str) -> None:
        if call.quiet:
            return
        from palette.cli.console import plain, say, tell
        from palette.pipeline import findings

        if stage != last and (found := findings(stage, run.folder)) is not None:
            tell("stage", result={"stage": stage, "ran": [stage], "found": found})
        # Only of a model that the stage has loaded.
        noticed = vars(run)["backbone"].notices if "backbone" in vars(run) else []
        for sentence in [*noticed, *warnings(run, stage)]:
            say(str(plain(sentence)), WARNING)
        noticed.clear()

    return watch


def warnings(run: Run[Recipe], stage: str) -> list[str]:
    """What can be known after a stage, or before the first one, of why the gate will not pass."""
    from palette.pipeline import START
    from palette.stages.check import lacking_evidence, lacking_refusals

    given = (run.answered_prompts, run.authorisation, run.recipe)
    if stage == START:
        return lacking_evidence(*given)
    if stage == "collect":
        from palette.search.space import read_collected

        return lacking_refusals(*given, read_collected(run.folder).domains)
    if stage == "search":
        from palette.search.findings import search_findings

        found = search_findings(run.folder)
        if not found["relaxes"]:
            return [
                f"nothing relaxes: none of the {found['audited']['trials']} audited trials has whole replies "
                "refused less often than the backbone's, so that the adapter has only what the backbone says "
                "where it may not refuse to learn from; raise search.trials"
            ]
    return []
