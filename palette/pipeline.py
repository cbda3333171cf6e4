"""The runner: a recipe's stages in order; what is unchanged is not run again."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palette.adapters.metadata import CONFIG
from palette.adapters.writing import WEIGHTS
from palette.files import claim, read_json, write_json
from palette.fingerprints import fingerprint, fingerprint_file
from palette.judging.calibration import FILE as CALIBRATION
from palette.judging.registry import judge_named
from palette.progress import Progress, silent
from palette.recipe import Recipe, TokenRecipe, load_recipe
from palette.reporting.report import REPORT, Report, read_report
from palette.run import Run
from palette.search.collected import MEANS
from palette.search.front import FRONT
from palette.stages import tokens
from palette.stages.collect import collect
from palette.stages.evaluate import OUTCOMES, PAGE, RECORD, evaluate_searched, read_earlier
from palette.stages.internalise import TRAINING, co_mounted, internalise
from palette.stages.search import search

DOMAINS = "domains"
"""The folder of the searches of an authorisation by tokens, one a domain."""


@dataclass(frozen=True)
class Stage:
    """A verb with the files that it leaves in the run's folder."""

    run: Callable[[Run[Recipe]], object]
    outputs: tuple[Path, ...]
    shared: bool = False
    """Whether several processes do it together; else the first one does, and the others wait."""


STAGES = {
    "collect": Stage(collect, (MEANS,)),
    "search": Stage(search, (FRONT,)),
    "internalise": Stage(internalise, (Path(WEIGHTS), Path(CONFIG), TRAINING), shared=True),
    "evaluate": Stage(evaluate_searched, (REPORT, PAGE, OUTCOMES)),
}
"""The pipeline, in order."""


def domain(recipe: Recipe | Path | str, output: Path | None = None, progress: Progress = silent) -> Report:
    """Runs collect, search, internalise and evaluate as far as they are not done; the report.

    Raises:
        PaletteError: if the recipe, the prompts, the model or the folder break a law.
    """
    run, _ = run_stages(recipe, "evaluate", output, progress)
    return read_report(run.folder)


def run_stages(
    recipe: Recipe | Path | str,
    last: str,
    output: Path | None = None,
    progress: Progress = silent,
) -> tuple[Run[Recipe], list[str]]:
    """Runs the stages up to ``last`` where their inputs changed; the run, and which of them ran.

    Raises:
        PaletteError: if the recipe, the prompts, the model or the folder break a law.
    """
    whole = recipe if isinstance(recipe, Recipe) else load_recipe(Path(recipe))
    run = Run(whole, output or Path("runs") / whole.name, progress)
    # Every law is checked before the folder is touched, so that a mistake leaves nothing behind.
    before = run.identity
    run.require_roles("train", "validation", whole.evaluate.split)
    reads: dict[str, Any] = {"internalise": [adapter.digest for adapter in co_mounted(run)]}
    if last == "evaluate":
        judge_named(whole.evaluate.judge)
        # Of which adapter a suite's result must be is known once there is one; evaluate asks again.
        read_earlier(whole.evaluate, run.folder, {"backbone": run.backbone_fingerprint})
    if run.processes.first:
        claim(run.folder, {"recipe": whole.name})
    ran = []
    for name in list(STAGES)[: list(STAGES).index(last) + 1]:
        if name == "evaluate":
            answers = [row.answer for row in run.answered_prompts]
            reads[name] = [answers, _measured_before(run)]
        if _run_if_changed(run, name, fingerprint([before, reads.get(name, [])])):
            ran.append(name)
        before = fingerprint([before, read_json(run.folder / name / RECORD)["outputs"]])
    return run, ran


def train_tokens(
    recipe: TokenRecipe | Path, output: Path | None = None, progress: Progress = silent
) -> dict[str, Any]:
    """What control tokens were trained and where they lie; of an authorisation each domain is searched first.

    Raises:
        PaletteError: if the recipe, the prompts, the model or the folder break a law.
    """
    return tokens.train_tokens(recipe, _searched, output, progress)


def add_category(
    recipe: TokenRecipe | Path, category: str, output: Path | None = None, progress: Progress = silent
) -> dict[str, Any]:
    """What category was added to control tokens, and where they lie; all others stay to the bit.

    Raises:
        PaletteError: as ``palette.stages.tokens.add_category`` does.
    """
    return tokens.add_category(recipe, category, _searched, output, progress)


def _searched(run: Run, recipe: TokenRecipe, domain: str) -> Run:
    """One domain of an authorisation, collected and searched in a folder of its own."""
    own, _ = run_stages(recipe.of_domain(domain), "search", run.folder / DOMAINS / domain, run.progress)
    vars(own)["backbone"] = run.backbone
    return own


def _measured_before(run: Run[Recipe]) -> dict[str, str]:
    """The digests of the files with earlier measurements that evaluate reads."""
    settings = run.recipe.evaluate
    paths = [settings.calibration or run.folder / CALIBRATION, *settings.suites]
    return {str(path): fingerprint_file(path) for path in paths if path.is_file()}


def _run_if_changed(run: Run[Recipe], name: str, before: str) -> bool:
    """Whether the stage had to be run.

    What a run on the same basis left is gone on with: inputs that differ only in what extends a stage's
    work, or reads it again. Anything else is removed.
    """
    settings, processes = getattr(run.recipe, name), run.processes
    inputs, basis = (
        fingerprint([before, name, settings.model_dump(mode="json", exclude=left_out)])
        for left_out in (set(), set(settings.free))
    )
    processes.wait()
    done = _is_done(run.folder, name, inputs)
    processes.wait()
    if done:
        return False
    record, stage, started = run.folder / name / RECORD, STAGES[name], time.monotonic()
    if processes.first:
        if not record.is_file() or read_json(record).get("basis") != basis:
            shutil.rmtree(record.parent, ignore_errors=True)
        write_json(record, {"inputs": inputs, "basis": basis, "outputs": None})
    processes.wait()
    if processes.first or stage.shared:
        stage.run(run)
    processes.wait()
    if processes.first:
        outputs, seconds = _digests(run.folder, name), round(time.monotonic() - started, 3)
        write_json(record, {"inputs": inputs, "basis": basis, "outputs": outputs, "seconds": seconds})
    processes.wait()
    return True


def _is_done(folder: Path, name: str, inputs: str) -> bool:
    record = folder / name / RECORD
    if not record.is_file():
        return False
    held, digests = read_json(record), _digests(folder, name)
    return digests is not None and held.get("inputs") == inputs and held.get("outputs") == digests


def _digests(folder: Path, name: str) -> dict[str, str] | None:
    paths = {str(path): folder / path for path in STAGES[name].outputs}
    if not all(path.is_file() for path in paths.values()):
        return None
    return {name: fingerprint_file(path) for name, path in paths.items()}
