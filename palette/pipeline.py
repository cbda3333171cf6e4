"""The runner: a recipe's stages in order; what is unchanged is not run again."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

import palette
from palette import organism
from palette.adapters.files import CONFIG, WEIGHTS, read_adapter
from palette.adapters.lora import Adapter
from palette.artefacts import claim, read_json, write_json
from palette.authorisation import Authorisation, Role, authorise
from palette.backbones import Backbone, load_backbone, locate
from palette.backbones.loading import identify
from palette.errors import AdapterError, BackboneError, PromptError
from palette.evaluation.judge import RuleJudge
from palette.fingerprints import fingerprint, fingerprint_file
from palette.prompts import PromptSet, load_prompts
from palette.recipe import Recipe, create_recipe, load_recipe
from palette.stages import collect as collecting
from palette.stages import evaluate as evaluating
from palette.stages import internalise as internalising
from palette.stages import search as searching
from palette.stages.assignment import Assignment, Progress, silent

RECORD = "stage.json"
KEPT = {Role.PRESERVE, Role.FLOOR}


@dataclass
class Run:
    """One recipe in one output folder. Models and prompts are loaded when a stage needs them."""

    recipe: Recipe
    folder: Path
    progress: Progress = silent

    @cached_property
    def prompts(self) -> PromptSet:
        """The prompts, with reference answers; only evaluate is given those."""
        name, recipe = self.recipe.prompts, self.recipe
        shipped = organism.prompts(_variant(recipe.model) or "organism")
        return load_prompts(shipped if name == "organism" else Path(name), answers=True)

    @cached_property
    def authorisation(self) -> Authorisation:
        """What the recipe opens."""
        recipe = self.recipe
        return authorise(recipe.authorise, self.prompts.domains, floor=recipe.floor, reasons=recipe.reasons)

    @cached_property
    def model_folder(self) -> Path:
        """Where the backbone's files are."""
        return locate_model(self.recipe.model)

    @cached_property
    def backbone(self) -> Backbone:
        """The backbone, loaded."""
        recipe = self.recipe
        torch.set_num_threads(recipe.threads)
        return load_backbone(self.model_folder, recipe.model, dtype=recipe.dtype, device=recipe.device)

    @cached_property
    def upper_bound(self) -> Backbone | None:
        """The helpful checkpoint, for the organism only."""
        if self.recipe.model != "organism":
            return None
        return load_backbone(organism.weights("helpful"), "organism/helpful")

    @cached_property
    def identity(self) -> str:
        """The fingerprint of what every stage of the run depends on."""
        recipe, authorisation = self.recipe, self.authorisation
        return fingerprint(
            [
                palette.__version__,
                identify(self.model_folder),
                self.prompts.fingerprint,
                [authorisation.domains, authorisation.floor.digest, authorisation.reasons],
                [recipe.seed, recipe.dtype, recipe.device, recipe.threads],
            ]
        )

    def assignment(self, *, answers: bool = False) -> Assignment:
        """What a stage works on."""
        prompts = self.prompts if answers else self.prompts.without_answers()
        return Assignment(
            self.backbone,
            prompts,
            self.authorisation,
            self.folder,
            self.recipe.seed,
            self.progress,
        )

    def seconds(self) -> dict[str, float]:
        """How long each finished stage took, in seconds."""
        records = {name: self.folder / name / RECORD for name in STAGES}
        return {
            name: round(float(read_json(path)["seconds"]), 3)
            for name, path in records.items()
            if path.is_file() and "seconds" in read_json(path)
        }


@dataclass(frozen=True)
class Stage:
    """A verb with the files that it leaves in the run's folder."""

    name: str
    run: Callable[[Run], object]
    outputs: tuple[Path, ...]


def _evaluate(run: Run) -> dict[str, Any]:
    collected = collecting.read_collected(run.folder)
    return evaluating.evaluate(
        run.assignment(answers=True),
        run.recipe.evaluate,
        RuleJudge(openings=collected.judge_openings),
        read_adapter(run.folder),
        evaluating.Context(
            recipe=run.recipe.model_dump(mode="json"),
            seconds=run.seconds(),
            front=searching.read_front(run.folder),
            upper_bound=run.upper_bound,
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
            lambda run: internalising.internalise(run.assignment(), run.recipe.internalise),
            (Path(WEIGHTS), Path(CONFIG), internalising.RECORD),
        ),
        Stage(
            "evaluate",
            _evaluate,
            (evaluating.REPORT, evaluating.PAGE, evaluating.OUTCOMES),
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
    report: dict[str, Any] = read_json(_folder(recipe, output) / evaluating.REPORT)
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
    _require_roles(run)
    claim(run.folder, {"recipe": whole.name})
    ran = []
    for stage in list(STAGES.values())[: list(STAGES).index(last) + 1]:
        inputs = fingerprint([before, stage.name, getattr(whole, stage.name).model_dump(mode="json")])
        if stage.name == "evaluate":
            answers = [row.answer for row in run.prompts]
            inputs = fingerprint([inputs, answers])
        if not _is_done(run.folder, stage, inputs):
            _run(run, stage, inputs)
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
        require_backbone(mounted, run.recipe.model, identify(run.model_folder))
    assignment = run.assignment()
    if output or not adapter:
        claim(folder, {"recipe": run.recipe.name})
    started = time.monotonic()
    heard = collecting.listen(assignment, run.recipe.collect)
    report = evaluating.evaluate(
        run.assignment(answers=True),
        run.recipe.evaluate,
        heard.judge,
        mounted,
        evaluating.Context(
            recipe=run.recipe.model_dump(mode="json"),
            seconds={"listen": round(time.monotonic() - started, 3)},
            upper_bound=run.upper_bound,
        ),
    )
    return report, folder


def require_backbone(adapter: Adapter, name: str, identity: str) -> None:
    """Refuses an adapter that was made for another backbone.

    Raises:
        AdapterError: if the adapter states another fingerprint.
    """
    stated = adapter.backbone.fingerprint
    if stated is not None and stated != identity:
        raise AdapterError(
            "an adapter must be mounted on the backbone that it was made for",
            got=f"one for {adapter.backbone.name} ({stated[:12]}) on {name} ({identity[:12]})",
            remedy="evaluate it on its own backbone",
        )


def locate_model(name: str) -> Path:
    """The folder of a model: a shipped variant of the organism, a local folder, or a hub name.

    Raises:
        BackboneError: if there is none.
    """
    variant = _variant(name)
    return organism.weights(variant) if variant else locate(name)


def _variant(name: str) -> str | None:
    """The shipped checkpoint that a model's name stands for, or None for any other model."""
    root, _, variant = name.partition("/")
    if root != "organism" or Path(name).is_dir():
        return None
    choices = [known for known in organism.VARIANTS if known != "helpful"]
    if (variant or "organism") not in choices:
        raise BackboneError(f"organism's variants are {', '.join(choices)}", got=repr(variant))
    return variant or "organism"


def _require_roles(run: Run) -> None:
    """Checks that every split has prompts to open, to keep refused, and to leave alone.

    Raises:
        PromptError: naming the role and the split that lack one.
    """
    for split in ("train", "validation", run.recipe.evaluate.split):
        roles = {run.authorisation.role(row) for row in run.prompts.split(split)}
        groups = {"target": {Role.TARGET}, "preserved or floor": KEPT, "benign": {Role.BENIGN}}
        for name, group in groups.items():
            if not roles & group:
                raise PromptError(
                    "every role needs at least one prompt in every split",
                    got=f"no {name} prompt in {split}",
                    remedy="add rows for it",
                    where=run.recipe.prompts,
                )


def _folder(recipe: Recipe | Path | str, output: Path | None) -> Path:
    name = recipe.name if isinstance(recipe, Recipe) else load_recipe(Path(recipe)).name
    return output or Path("runs") / name


def _is_done(folder: Path, stage: Stage, inputs: str) -> bool:
    record = folder / stage.name / RECORD
    if not record.is_file():
        return False
    held = read_json(record)
    return bool(held.get("inputs") == inputs) and held.get("outputs") == _digests(folder, stage)


def _digests(folder: Path, stage: Stage) -> dict[str, str] | None:
    paths = {str(path): folder / path for path in stage.outputs}
    if not all(path.is_file() for path in paths.values()):
        return None
    return {name: fingerprint_file(path) for name, path in paths.items()}


def _run(run: Run, stage: Stage, inputs: str) -> None:
    """Runs a stage. What an interrupted run of the same inputs left is gone on with, else removed."""
    record = run.folder / stage.name / RECORD
    if not record.is_file() or read_json(record).get("inputs") != inputs:
        shutil.rmtree(record.parent, ignore_errors=True)
        write_json(record, {"inputs": inputs, "outputs": None})
    started = time.monotonic()
    stage.run(run)
    write_json(
        record,
        {
            "inputs": inputs,
            "outputs": _digests(run.folder, stage),
            "seconds": round(time.monotonic() - started, 3),
        },
    )


__all__ = ["STAGES", "Run", "domain", "evaluate_model", "locate_model", "run_stages"]
