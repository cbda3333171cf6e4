"""A run told to MLflow or Weights & Biases while it goes on, where their own environment asks for it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from palette.files import read_json
from palette.reporting.curves import losses_of
from palette.run import Run
from palette.working import LOGGER

ARTEFACTS = {"internalise": ("internalise/training.svg",), "evaluate": ("report.json", "report.html")}
"""What a tracker is given of a stage, where it is there."""


class Tracker(Protocol):
    """Who keeps what a run was told, what each stage measured, and its report."""

    def parameters(self, values: Mapping[str, str]) -> None:
        """The options of the run, by dotted key."""

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Figures by ``stage/name``; at a step, those of training."""

    def artefact(self, path: Path) -> None:
        """A file to keep."""

    def end(self) -> None:
        """Nothing more comes."""


class MlflowTracker:
    """A run of MLflow, at its tracking URI and of its experiment."""

    def __init__(self, name: str) -> None:
        self._mlflow = import_module("mlflow")
        self._mlflow.start_run(run_name=name, nested=self._mlflow.active_run() is not None)

    def parameters(self, values: Mapping[str, str]) -> None:
        """The options of the run."""
        self._mlflow.log_params(dict(values))

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Figures by name."""
        self._mlflow.log_metrics(dict(values), step=step)

    def artefact(self, path: Path) -> None:
        """A file to keep."""
        self._mlflow.log_artifact(str(path))

    def end(self) -> None:
        """Ends the run."""
        self._mlflow.end_run()


class WandbTracker:
    """A run of Weights & Biases, of its project and in its mode."""

    def __init__(self, name: str) -> None:
        self._wandb = import_module("wandb")
        self._run = self._wandb.init(name=name)

    def parameters(self, values: Mapping[str, str]) -> None:
        """The options of the run."""
        self._run.config.update(dict(values))

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Figures by name; their own step counts every call."""
        self._run.log({**values, **({} if step is None else {"internalise/step": step})})

    def artefact(self, path: Path) -> None:
        """A file to keep."""
        kept = self._wandb.Artifact(path.name, type="palette")
        kept.add_file(str(path))
        self._run.log_artifact(kept)

    def end(self) -> None:
        """Ends the run."""
        self._run.finish()


TRACKERS: dict[str, tuple[str, Callable[[str], Tracker]]] = {
    "MLFLOW_TRACKING_URI": ("mlflow", MlflowTracker),
    "WANDB_PROJECT": ("wandb", WandbTracker),
}
"""For each environment variable that asks for a tracker its package, and what it is."""


@contextmanager
def tracked(run: Run[Any], findings: Callable[[str, Path], object]) -> Iterator[Callable[[str], None]]:
    """What is told each stage that has run, and tells it to the trackers that are asked for.

    A tracker that fails is told nothing more; the run goes on. ``findings`` gives what a stage found.
    """
    live = list(_started(run)) if run.processes.first else []

    def told(act: Callable[[Tracker], None]) -> None:
        for tracker in [*live]:
            try:
                act(tracker)
            except Exception as error:  # A tracker may fail in any way, and its server too.
                LOGGER.warning("%s is told nothing more: %s", type(tracker).__name__, type(error).__name__)
                live.remove(tracker)

    def stage(name: str) -> None:
        def act(tracker: Tracker) -> None:
            tracker.metrics(figures(name, run.folder, findings(name, run.folder)))
            for step, losses in enumerate(training(run.folder) if name == "internalise" else (), start=1):
                tracker.metrics(losses, step)
            for path in filter(Path.is_file, (run.folder / each for each in ARTEFACTS.get(name, ()))):
                tracker.artefact(path)

        told(act)

    options = leaves(run.recipe.model_dump(mode="json"), ".")
    parameters = {key: str(value) for key, value in options}
    told(lambda tracker: tracker.parameters(parameters))
    try:
        yield stage
    finally:
        told(lambda tracker: tracker.end())


def _started(run: Run[Any]) -> Iterator[Tracker]:
    """The trackers that the environment asks for, and that are there."""
    for variable, (package, create) in TRACKERS.items():
        if not os.environ.get(variable):
            continue
        if find_spec(package) is None:
            LOGGER.warning("%s is set, and %s is not installed: pip install %s", variable, package, package)
            continue
        try:
            yield create(run.recipe.name)
        except Exception as error:  # As above.
            LOGGER.warning("%s does not begin: %s", package, type(error).__name__)


def figures(stage: str, folder: Path, found: object) -> dict[str, float]:
    """The numbers that a stage found, by ``stage/name``; of evaluate the adapter's and the gate's."""
    seconds = read_json(folder / stage / "stage.json")["seconds"]
    if stage == "evaluate":
        report = read_json(folder / "report.json")
        rules = {rule["name"]: rule["value"] for rule in report["gate"]["rules"]}
        found = {**report["adapted"], "rules": rules, "passed": report["gate"]["passed"]}
    named = dict(leaves({"seconds": seconds, **(found if isinstance(found, Mapping) else {})}, "/"))
    return {
        f"{stage}/{name}": float(value) for name, value in named.items() if isinstance(value, int | float)
    }


def training(folder: Path) -> list[dict[str, float]]:
    """The loss of every step, in nats, of each training that took it."""
    losses = losses_of(folder)
    most = max(map(len, losses.values()), default=0)
    return [
        {f"internalise/loss/{name}": each[step] for name, each in losses.items() if step < len(each)}
        for step in range(most)
    ]


def leaves(value: Mapping[str, Any], mark: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested mappings by their joined keys."""
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            yield from leaves(inner, mark, f"{prefix}{key}{mark}")
        else:
            yield f"{prefix}{key}", inner
