"""The runner: a recipe's stages in order; what is unchanged is not run again."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palette.adapters.files import read_adapter
from palette.adapters.metadata import CONFIG
from palette.adapters.writing import WEIGHTS
from palette.evaluation.provenance import Context
from palette.files import claim, read_json, write_json
from palette.fingerprints import fingerprint, fingerprint_file
from palette.judging.calibration import FILE as CALIBRATION
from palette.judging.registry import judge_named
from palette.recipe import Recipe, create_recipe, load_recipe
from palette.reporting.report import REPORT
from palette.run import Run
from palette.stages import collect as collecting
from palette.stages import evaluate as evaluating
from palette.stages import internalise as internalising
from palette.stages import search as searching
from palette.stages.assignment import Progress, silent

RECORD = "stage.json"


@dataclass(frozen=True)
class Stage:
    """A verb with the files that it leaves in the run's folder."""

    name: str
    run: Callable[[Run], object]
    outputs: tuple[Path, ...]
    shared: bool = False
    """Whether several processes do it together; else the first one does, and the others wait."""


def _evaluate(run: Run) -> dict[str, Any]:
    collected = collecting.read_collected(run.folder)
    return evaluating.evaluate(
        run.assignment(answers=True),
        run.recipe.evaluate.showing(collected.floor_tokens),
        judge_named(run.recipe.evaluate.judge, collected.judge_prefixes),
        read_adapter(run.folder),
        Context(
            recipe=run.recipe.model_dump(mode="json"),
            seconds=_seconds(run),
            front=searching.read_front(run.folder),
            audit=read_json(run.folder / searching.ARTEFACT)["audit"],
            separation=collected.separations.get("difference"),
            collected=collected.counts,
            upper_bound=run.upper_bound,
            sources=run.sources,
        ),
    )


STAGES = {
    stage.name: stage
    for stage in (
        Stage(
            "collect",
            lambda run: collecting.collect(run.assignment(), run.recipe.collect),
            (collecting.ARTEFACT,),
        ),
        Stage(
            "search",
            lambda run: searching.search(run.assignment(), run.recipe.search),
            (searching.ARTEFACT,),
        ),
        Stage(
            "internalise",
            lambda run: internalising.internalise(run.assignment(), run.recipe.internalise, run.beside),
            (Path(WEIGHTS), Path(CONFIG), internalising.RECORD),
            shared=True,
        ),
        Stage(
            "evaluate",
            _evaluate,
            (REPORT, evaluating.PAGE, evaluating.OUTCOMES),
        ),
    )
}
"""The pipeline, in order."""


def domain(
    recipe: Recipe | Path | str, output: Path | None = None, progress: Progress = silent
) -> dict[str, Any]:
    """Runs collect, search, internalise and evaluate as far as they are not done; the report.

    Raises:
        PaletteError: if the recipe, the prompts, the model or the folder break a law.
    """
    run_stages(recipe, "evaluate", output, progress)
    report: dict[str, Any] = read_json(_folder(recipe, output) / REPORT)
    return report


def run_stages(
    recipe: Recipe | Path | str,
    last: str,
    output: Path | None = None,
    progress: Progress = silent,
) -> list[str]:
    """Runs the stages up to ``last`` where their inputs changed, and says which ones ran.

    Raises:
        PaletteError: if the recipe, the prompts, the model or the folder break a law.
    """
    whole = recipe if isinstance(recipe, Recipe) else load_recipe(Path(recipe))
    run = Run(whole, output or Path("runs") / whole.name, progress)
    # Every law is checked before the folder is touched, so that a mistake leaves nothing behind.
    before = run.identity
    run.require_roles()
    beside = [adapter.digest for adapter in run.beside]
    if last == "evaluate":
        judge_named(whole.evaluate.judge)
        # Of which adapter a suite's result must be is known once there is one; evaluate asks again.
        evaluating.read_earlier(whole.evaluate, run.folder, {"backbone": run.backbone_fingerprint})
    if run.processes.first:
        claim(run.folder, {"recipe": whole.name})
    ran = []
    for stage in list(STAGES.values())[: list(STAGES).index(last) + 1]:
        settings = getattr(whole, stage.name)
        inputs = fingerprint([before, stage.name, settings.model_dump(mode="json")])
        # What these inputs share with inputs that extend or re-read them: work is kept across those.
        basis = fingerprint(
            [before, stage.name, settings.model_dump(mode="json", exclude=set(settings.free))]
        )
        if stage.name == "internalise" and beside:
            inputs, basis = (fingerprint([part, beside]) for part in (inputs, basis))
        if stage.name == "evaluate":
            answers = [row.answer for row in run.prompts]
            inputs = fingerprint([inputs, answers, _measured_before(whole, run.folder)])
        run.processes.wait()
        done = _is_done(run.folder, stage, inputs)
        run.processes.wait()
        if not done:
            _run(run, stage, inputs, basis)
            ran.append(stage.name)
        before = fingerprint([before, read_json(run.folder / stage.name / RECORD)["outputs"]])
    return ran


def evaluate_model(
    content: dict[str, Any],
    adapter: Path | None,
    output: Path | None = None,
    overrides: Iterable[str] = (),
    progress: Progress = silent,
) -> tuple[dict[str, Any], Path]:
    """The report of a model with any adapter, such as a merged one, and where it was written.

    ``content`` is a recipe as plain values; the folder is the adapter's, or ``output``. The
    backbone's refusals are learned from its own replies to the train prompts first.

    Raises:
        PaletteError: if the recipe, the prompts, the model, the adapter or the folder break a law.
    """
    mounted = read_adapter(adapter) if adapter else None
    beside = adapter if adapter is None or adapter.is_dir() else adapter.parent
    folder = output or beside or Path("runs") / f"evaluate-{'+'.join(content['authorise'])}"
    run = Run(create_recipe({"name": folder.name, **content}, overrides), folder, progress)
    if mounted is not None:
        run.require_backbone(mounted)
    measured = {"backbone": run.backbone_fingerprint, "adapter": mounted.digest if mounted else None}
    judge_named(run.recipe.evaluate.judge)
    evaluating.read_earlier(run.recipe.evaluate, folder, measured)
    assignment = run.assignment()
    if output or not adapter:
        claim(folder, {"recipe": run.recipe.name})
    baseline = collecting.baseline_replies(assignment, run.recipe.collect)
    report = evaluating.evaluate(
        run.assignment(answers=True),
        run.recipe.evaluate.showing(baseline.floor_tokens),
        judge_named(run.recipe.evaluate.judge, baseline.judge.prefixes),
        mounted,
        Context(
            recipe=run.recipe.model_dump(mode="json"),
            upper_bound=run.upper_bound,
            sources=run.sources,
        ),
    )
    return report, folder


def _measured_before(recipe: Recipe, folder: Path) -> dict[str, str]:
    """The digests of the files with earlier measurements that evaluate reads."""
    settings = recipe.evaluate
    paths = [settings.calibration or folder / CALIBRATION, *settings.suites]
    return {str(path): fingerprint_file(path) for path in paths if path.is_file()}


def _seconds(run: Run) -> dict[str, float]:
    """How long each finished stage took, in seconds."""
    records = {name: run.folder / name / RECORD for name in STAGES}
    held = {name: read_json(path) for name, path in records.items() if path.is_file()}
    return {name: record["seconds"] for name, record in held.items() if "seconds" in record}


def _folder(recipe: Recipe | Path | str, output: Path | None) -> Path:
    name = recipe.name if isinstance(recipe, Recipe) else load_recipe(Path(recipe)).name
    return output or Path("runs") / name


def _is_done(folder: Path, stage: Stage, inputs: str) -> bool:
    record = folder / stage.name / RECORD
    if not record.is_file():
        return False
    held, digests = read_json(record), _digests(folder, stage)
    return digests is not None and held.get("inputs") == inputs and held.get("outputs") == digests


def _digests(folder: Path, stage: Stage) -> dict[str, str] | None:
    paths = {str(path): folder / path for path in stage.outputs}
    if not all(path.is_file() for path in paths.values()):
        return None
    return {name: fingerprint_file(path) for name, path in paths.items()}


def _run(run: Run, stage: Stage, inputs: str, basis: str) -> None:
    """Runs a stage. What a run on the same basis left is gone on with, anything else is removed."""
    record, processes = run.folder / stage.name / RECORD, run.processes
    started = time.monotonic()
    if processes.first:
        if not record.is_file() or read_json(record).get("basis") != basis:
            shutil.rmtree(record.parent, ignore_errors=True)
        write_json(record, {"inputs": inputs, "basis": basis, "outputs": None})
    processes.wait()
    if processes.first or stage.shared:
        stage.run(run)
    processes.wait()
    if processes.first:
        outputs, seconds = _digests(run.folder, stage), round(time.monotonic() - started, 3)
        write_json(record, {"inputs": inputs, "basis": basis, "outputs": outputs, "seconds": seconds})
    processes.wait()
