"""Internalise: an adapter with which the plain backbone answers target prompts and changes nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from palette.adapters.lora import Adapter
from palette.adapters.writing import write_adapter
from palette.files import write_json
from palette.fingerprints import fingerprint
from palette.internalise import METHODS, Checkpoint, Task, TrainingSettings
from palette.internalise.preparation import ExampleSettings, prepare
from palette.stages.assignment import Assignment
from palette.stages.collect import read_collected
from palette.stages.search import read_front

CHECKPOINT = Path("internalise") / "checkpoint.safetensors"
RECORD = Path("internalise") / "training.json"


class InternaliseSettings(ExampleSettings, TrainingSettings):
    """Options of the stage internalise."""

    beside: tuple[Path, ...] = Field(
        (), description="adapters of other domains, random subsets of which are mounted in training (distil)"
    )


def internalise(
    assignment: Assignment, settings: InternaliseSettings, beside: Sequence[Adapter] = ()
) -> Adapter:
    """Makes the adapter, writes it as a PEFT folder into the run's folder, and returns it.

    ``beside`` are the adapters that ``settings.beside`` names.

    Raises:
        SearchError: if there is no reply to teach and no opening either.
        BackboneError: if a method needs a part that the backbone does not have.
    """
    collected, front = read_collected(assignment.folder), read_front(assignment.folder)
    prepared = prepare(assignment, settings, collected, front)
    # How often a checkpoint is written changes no byte of the result.
    chosen = settings.model_dump(mode="json", exclude={"checkpoint_every", "beside"})
    taught = [[example.ids, example.taught] for example in prepared.examples]
    intervention = front[0].intervention
    digests = [adapter.digest for adapter in beside]
    identity = fingerprint([chosen, intervention.to_json(), assignment.seed, taught, digests])
    with assignment.progress("internalise", settings.steps) as advance:
        learned = METHODS[settings.method](
            Task(
                assignment.backbone,
                collected.directions,
                intervention,
                prepared.examples,
                prepared.pools,
                settings,
                Checkpoint(assignment.folder / CHECKPOINT, identity, settings.checkpoint_every),
                assignment.seed,
                advance,
                prepared.held,
                assignment.processes,
                beside,
            )
        )
    adapter = Adapter(learned.adapter.modules, learned.adapter.backbone, _card(assignment, digests))
    if assignment.processes.first:
        write_adapter(assignment.folder, adapter)
        record = {**prepared.record, "method": settings.method, **learned.record}
        write_json(assignment.folder / RECORD, record)
    return adapter


def _card(assignment: Assignment, beside: list[str]) -> dict[str, Any]:
    return {
        **({"beside": beside} if beside else {}),
        "domains": list(assignment.authorisation.domains),
        "floor": assignment.authorisation.floor.digest,
        "seed": assignment.seed,
    }
