"""Internalise: an adapter with which the plain backbone answers target prompts and changes nothing else."""

from __future__ import annotations

from pathlib import Path

from palette.adapters.files import read_adapter
from palette.adapters.lora import Adapter
from palette.adapters.writing import CONFIG, WEIGHTS, write_adapter
from palette.errors import AdapterError
from palette.files import write_json
from palette.fingerprints import fingerprint
from palette.internalise.examples import Learned, TrainingTask
from palette.internalise.loop import Checkpoint
from palette.internalise.preparation import prepare
from palette.internalise.settings import METHODS
from palette.recipe import Recipe
from palette.run import Run
from palette.search.space import read_collected, read_front

CHECKPOINT = Path("internalise") / "checkpoint.safetensors"
TRAINING = Path("internalise") / "training.json"
OUTPUTS = (Path(WEIGHTS), Path(CONFIG), TRAINING)


def internalise(run: Run[Recipe]) -> Adapter:
    """Makes the adapter, writes it as a PEFT folder into the run's folder, and returns it.

    Raises:
        RecipeError: if a method is a user's own and cannot be loaded.
        SearchError: if there is no reply to teach and no opening either.
        BackboneError: if a method needs a part that the backbone does not have.
    """
    settings, others = run.recipe.internalise, co_mounted(run)
    method = METHODS.row(settings.method).load()
    collected, front = read_collected(run.folder), read_front(run.folder)
    prepared = prepare(run, collected, front)
    intervention, digests = front[0].intervention, [adapter.digest for adapter in others]
    chosen = settings.model_dump(mode="json", exclude=set(settings.free))
    taught = [[example.ids, example.taught] for example in prepared.examples]
    identity = fingerprint([chosen, intervention.to_json(), run.seed, taught, digests])
    with run.progress("internalise", settings.steps) as advance:
        task = TrainingTask(
            run.backbone,
            collected.directions,
            intervention,
            prepared.examples,
            prepared.pools,
            settings,
            Checkpoint(run.folder / CHECKPOINT, identity),
            seed=run.seed,
            advance=advance,
            held_out=prepared.held_out,
            processes=run.processes,
            co_mounted=others,
            memory_gib=run.recipe.memory_gib,
        )
        learned: Learned = method(task)
    card = {
        **({"beside": digests} if digests else {}),
        "domains": list(run.authorisation.domains),
        "floor": run.authorisation.floor.digest,
        "seed": run.seed,
    }
    adapter = Adapter(learned.adapter.modules, learned.adapter.backbone, card)
    if run.processes.first:
        write_adapter(run.folder, adapter)
        record = {**prepared.record, "method": settings.method, **learned.record}
        write_json(run.folder / TRAINING, record)
    return adapter


def co_mounted(run: Run[Recipe]) -> list[Adapter]:
    """The adapters that are mounted while the run's own is trained, in the recipe's order.

    Raises:
        AdapterError: if one is of another backbone, or of a domain that the run opens itself.
    """
    adapters = []
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
        adapters.append(adapter)
    return adapters
