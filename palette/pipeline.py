"""The runner: a recipe's stages in order; what is unchanged is not run again."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from palette.errors import PaletteError, noted, together
from palette.files import claim, read_json, require_free, write_json
from palette.fingerprints import fingerprint, fingerprint_file
from palette.models import identify
from palette.processes import Progress, silent
from palette.recipe import Recipe, TokenRecipe, faults, load_recipe
from palette.run import Run, folder_of
from palette.tracking import tracked
from palette.working import LOGGER, working

RECORD = "stage.json"
"""In a stage's folder: what it was run on, what it gave, and how long it took."""
START = "start"
"""What a watcher is told before the first stage that is run."""
Watcher = Callable[[Run[Recipe], str], None]
"""Told ``START``, and each stage that has been run, so that it can say what is known by then."""
DOMAINS = "domains"
"""The folder of the searches of an authorisation by tokens, one a domain."""


@dataclass(frozen=True)
class Stage:
    """A verb, imported when it has to be run; its module says in ``OUTPUTS`` which files it leaves."""

    module: str
    verb: str
    resumed: str
    """From where it goes on once it was interrupted."""
    shared: bool = False
    """Whether several processes do it together; else the first one does, and the others wait."""


STAGES = {
    "collect": Stage("palette.stages.collect", "collect", "with the replies that it has"),
    "search": Stage("palette.stages.search", "search", "with the trials that it has"),
    "internalise": Stage(
        "palette.stages.internalise", "internalise", "from its last checkpoint", shared=True
    ),
    "evaluate": Stage("palette.stages.evaluate", "evaluate_searched", "with the replies that it has"),
}
"""The pipeline, in order."""


def findings(stage: str, folder: Path) -> dict[str, Any] | None:
    """What a stage found, as plain values; None of a stage whose result is the run's own."""
    from palette.search.findings import collect_findings, search_findings

    known = {"collect": collect_findings, "search": search_findings}
    return known[stage](folder) if stage in known else None


def run_stages(
    recipe: Recipe | Path | str,
    last: str,
    output: Path | str | None = None,
    progress: Progress = silent,
    watcher: Watcher = lambda run, stage: None,
) -> tuple[Run[Recipe], list[str]]:
    """Runs the stages up to ``last`` where their inputs changed; the run, and which of them ran.

    Raises:
        PaletteError: if the recipe, the prompts, the model or the folder break a law.
    """
    whole = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    run = Run(whole, Path(output or Path("runs") / whole.name), progress)
    # Before a model is read, which takes far longer than to be told.
    errors = faults(run)
    with noted(errors):
        require_free(run.folder, _owner(run))
    if errors:
        raise together(errors)
    with working(run.folder), ExitStack() as stack:
        try:
            return run, _run_up_to(last, run, watcher, stack)
        except KeyboardInterrupt as stop:
            stop.add_note(_kept(run.folder))
            raise


def _run_up_to(last: str, run: Run[Recipe], watcher: Watcher, stack: ExitStack) -> list[str]:
    """Runs the stages up to the last one where their inputs changed; which of them ran.

    Trackers are told of it until ``stack`` is unwound.
    """
    before, ran = run.identity, list[str]()
    for name in list(STAGES)[: list(STAGES).index(last) + 1]:
        read = _read_beside(run, name)
        inputs, basis = (
            fingerprint([before, name, settings, read]) for settings in _settings(run.recipe, name)
        )
        run.processes.wait()
        done = _is_done(run.folder, name, inputs)
        run.processes.wait()
        if not done:
            if not ran:
                _prepare(run, last)
                watcher(run, START)
                tell = stack.enter_context(tracked(run, findings))
            _run(run, name, inputs, basis)
            ran.append(name)
            tell(name)
            watcher(run, name)
        before = fingerprint([before, read_json(run.folder / name / RECORD)["outputs"]])
    return ran


def _kept(folder: Path) -> str:
    """What an interrupted run has, and from where the stage that it was at goes on."""
    records = {name: read_json(path) for name in STAGES if (path := folder / name / RECORD).is_file()}
    done = [name for name, record in records.items() if record["outputs"]]
    begun = [f"{name} goes on {STAGES[name].resumed}" for name in records if name not in done]
    return "; ".join([f"done and kept in {folder}: {', '.join(done) or 'no stage yet'}", *begun])


def train_tokens(
    recipe: TokenRecipe | Path | str, output: Path | str | None = None, progress: Progress = silent
) -> dict[str, Any]:
    """What control tokens were trained and where they lie; of an authorisation each domain is searched first.

    Raises:
        PaletteError: if the recipe, the prompts, the model or the folder break a law.
    """
    from palette.stages import tokens

    return tokens.train_tokens(recipe, _searched, output, progress)


def add_category(
    recipe: TokenRecipe | Path | str,
    category: str,
    output: Path | str | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """What category was added to control tokens, and where they lie; all others stay to the bit.

    Raises:
        PaletteError: as ``palette.stages.tokens.add_category`` does.
    """
    from palette.stages import tokens

    return tokens.add_category(recipe, category, _searched, output, progress)


def _searched(run: Run, recipe: TokenRecipe, domain: str) -> Run:
    """One domain of an authorisation, collected and searched in a folder of its own."""
    own, _ = run_stages(recipe.of_domain(domain), "search", run.folder / DOMAINS / domain, run.progress)
    vars(own)["backbone"] = run.backbone
    return own


def _prepare(run: Run[Recipe], last: str) -> None:
    """Checks every law before the folder is touched and weights are read, so that a mistake leaves nothing.

    Raises:
        PaletteError: if some are broken; all at once.
    """
    from palette.stages.sketch import sketched

    settings, errors = run.recipe.evaluate, list[PaletteError]()
    sketched(run, errors)
    with noted(errors):
        _read_beside(run, "internalise")
    if last == "evaluate":
        from palette.judging.judge import judge_named
        from palette.stages.evaluate import read_earlier

        with noted(errors):
            judge_named(settings.judge)
        # Of which adapter a suite's result must be is known once there is one; evaluate asks again.
        with noted(errors):
            read_earlier(settings, run.folder, {"backbone": run.backbone_fingerprint})
    if errors:
        raise together(errors)
    if run.processes.first:
        claim(run.folder, _owner(run))


def _owner(run: Run[Recipe]) -> dict[str, str]:
    return {"recipe": run.recipe.name}


def _settings(recipe: Recipe, name: str) -> list[Any]:
    """A stage's options, and those of them that extend no work and read none again."""
    settings = getattr(recipe, name, None)
    if settings is None:
        return [None, None]
    return [settings.model_dump(mode="json", exclude=left_out) for left_out in (set(), set(settings.free))]


def _read_beside(run: Run[Recipe], name: str) -> Any:
    """What a stage reads beside its options and what the stages before it left."""
    recipe = run.recipe
    if name == "search":
        return recipe.search.own_files()
    if name == "internalise":
        own = _digests([_own_file(recipe.internalise.method)])
        if not recipe.internalise.co_mounted:
            return own
        from palette.stages.internalise import co_mounted

        return [own, [adapter.digest for adapter in co_mounted(run)]]
    if name == "evaluate":
        settings = recipe.evaluate
        paths = [settings.calibration or run.folder / "calibration.json", *settings.suites]
        answers = [row.accepted for row in run.answered_prompts]
        helpful = identify(folder_of(settings.helpful)) if settings.helpful else None
        from palette.judging.judge import JUDGES

        package = (
            {settings.judge: JUDGES.identity(settings.judge)} if settings.judge in JUDGES.installed else {}
        )
        return [answers, {**_digests([*paths, _own_file(settings.judge)]), **package}, helpful]
    return None


def _own_file(name: str) -> Path:
    """The file of a row that is the user's own, file.py:name; of another name, a path that is no file."""
    return Path(name.rpartition(":")[0])


def _digests(paths: Sequence[Path]) -> dict[str, str]:
    """The digests of those paths that are files."""
    return {str(path): fingerprint_file(path) for path in paths if path.is_file()}


def _run(run: Run[Recipe], name: str, inputs: str, basis: str) -> None:
    """Runs a stage. What a run on the same basis left is gone on with, anything else is removed."""
    stage, processes, started = STAGES[name], run.processes, time.monotonic()
    record, module = run.folder / name / RECORD, import_module(stage.module)
    if processes.first:
        if not record.is_file() or read_json(record).get("basis") != basis:
            shutil.rmtree(record.parent, ignore_errors=True)
        write_json(record, {"inputs": inputs, "basis": basis, "outputs": None})
        LOGGER.info("%s begins", name)
    processes.wait()
    if processes.first or stage.shared:
        getattr(module, stage.verb)(run)
    processes.wait()
    if processes.first:
        outputs = {str(path): fingerprint_file(run.folder / path) for path in module.OUTPUTS}
        seconds = round(time.monotonic() - started, 3)
        about = {"model": run.recipe.model, "authorised": list(run.authorisation.domains)}
        done = {"inputs": inputs, "basis": basis, "outputs": outputs, "seconds": seconds}
        write_json(record, {**done, "about": about})
        LOGGER.info("%s is done, in %.0f s", name, seconds)
    processes.wait()


def _is_done(folder: Path, name: str, inputs: str) -> bool:
    """Whether a stage was run on these inputs, and what it left is still there."""
    record = folder / name / RECORD
    written = read_json(record) if record.is_file() else {}
    if written.get("inputs") != inputs or not written.get("outputs"):
        return False
    paths = {folder / path: digest for path, digest in written["outputs"].items()}
    return all(path.is_file() and fingerprint_file(path) == digest for path, digest in paths.items())
