"""Internalise: an adapter with which the plain backbone answers target prompts and changes nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from palette.adapters.files import read_adapter
from palette.adapters.lora import Adapter
from palette.adapters.writing import write_adapter
from palette.errors import AdapterError
from palette.files import write_json
from palette.fingerprints import fingerprint
from palette.internalise.loop import Checkpoint
from palette.internalise.methods import METHODS
from palette.internalise.preparation import prepare
from palette.internalise.task import Task
from palette.recipe import Recipe
from palette.run import Run
from palette.search.choice import read_front
from palette.search.collected import read_collected

CHECKPOINT = Path("internalise") / "checkpoint.safetensors"
TRAINING = Path("internalise") / "training.json"


def co_mounted(run: Run[Recipe]) -> list[Adapter]:
    """The adapters that are mounted while the run's own is trained, in the recipe's order.

    Raises:
        AdapterError: if one is of another backbone, or of a domain that the run opens itself.
    """
    found = []
    for path in run.recipe.internalise.co_mounted:
        adapter = read_adapter(path)
        run.require_backbone(adapter)
        if shared := sorted({*adapter.domains} & {*run.authorisation.domains}):
            raise AdapterError(
                "an adapter is trained together with those of other domains",
                got=f"one of {', '.join(shared)} at {path}",
                remedy="leave it out",
                where="internalise.co_mounted",
            )
        found.append(adapter)
    return found


def internalise(run: Run[Recipe]) -> Adapter:
    """Makes the adapter, writes it as a PEFT folder into the run's folder, and returns it.

    Raises:
        SearchError: if there is no reply to teach and no opening either.
        BackboneError: if a method needs a part that the backbone does not have.
    """
    settings, others = run.recipe.internalise, co_mounted(run)
    collected, front = read_collected(run.folder), read_front(run.folder)
    prepared = prepare(run, settings, collected, front)
    # How often a checkpoint is written changes no byte of the result.
    chosen = settings.model_dump(mode="json", exclude={"checkpoint_every", "co_mounted"})
    taught = [[example.ids, example.taught] for example in prepared.examples]
    intervention = front[0].intervention
    digests = [adapter.digest for adapter in others]
    identity = fingerprint([chosen, intervention.to_json(), run.seed, taught, digests])
    with run.progress("internalise", settings.steps) as advance:
        learned = METHODS[settings.method](
            Task(
                run.backbone,
                collected.directions,
                intervention,
                prepared.examples,
                prepared.pools,
                settings,
                Checkpoint(run.folder / CHECKPOINT, identity, settings.checkpoint_every),
                run.seed,
                advance,
                prepared.held,
                run.processes,
                others,
            )
        )
    adapter = Adapter(learned.adapter.modules, learned.adapter.backbone, _card(run, digests))
    if run.processes.first:
        write_adapter(run.folder, adapter)
        record = {**prepared.record, "method": settings.method, **learned.record}
        write_json(run.folder / TRAINING, record)
    return adapter


def _card(run: Run, others: list[str]) -> dict[str, Any]:
    return {
        **({"co_mounted": others} if others else {}),
        "domains": list(run.authorisation.domains),
        "floor": run.authorisation.floor.digest,
        "seed": run.seed,
    }
