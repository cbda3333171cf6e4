"""Internalise: an adapter with which the plain backbone answers target prompts and changes nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from palette.adapters.files import read_adapter
from palette.adapters.lora import Adapter
from palette.adapters.names import short_names
from palette.adapters.writing import CONFIG, WEIGHTS, write_adapter
from palette.errors import AdapterError
from palette.evaluation.baseline import baseline_replies
from palette.files import write_json, write_text
from palette.fingerprints import fingerprint
from palette.internalise.behaviour import Behaviour, behaviour
from palette.internalise.effort import affordable
from palette.internalise.examples import Learned, TrainingTask
from palette.internalise.loop import DECAY, Checkpoint
from palette.internalise.preparation import Preparation, TrainingExamples
from palette.internalise.settings import METHODS
from palette.recipe import Recipe
from palette.reporting.curves import TRAINING, curves
from palette.run import Run
from palette.search.space import Collected, read_collected, read_front, read_relaxing

CHECKPOINTS = Path("internalise") / "checkpoints"
CURVES = Path("internalise") / "training.svg"
OUTPUTS = (Path(WEIGHTS), Path(CONFIG), TRAINING)


@dataclass(frozen=True)
class Effort:
    """What is spent on one training."""

    name: str
    read_energy: float
    """Where no other names are made up; else all may be read, since what is near the names is varied too."""


TUTOR = Effort("tutor", 1.0)
STUDENTS = (Effort("first", 0.1), Effort("second", 1.0))
"""The second goes on from the first, with what that leaks drawn more often. It may read all there is: where
the first does not do what it was taught, what it could not read is the reason oftener than its time."""
FAULT, CHANGED, HOPELESS = 0.02, 0.05, 0.5
"""What may be missing in a student's answers and kept refusals for it to be the last, less than one reply of
48; in all, with benign replies in other words, which may be as right; and beyond what it teaches nobody.
"""


def internalise(run: Run[Recipe]) -> Adapter:
    """Makes the adapter, writes it as a PEFT folder into the run's folder, and returns it.

    Where a student does not quite behave as it should on the validation split, a second one goes on from it,
    if there is time, which it teaches too; the one that behaves better is taken.

    Raises:
        RecipeError: if a method is a user's own and cannot be loaded.
        SearchError: if there is no reply to teach.
        BackboneError: if a method needs a part that the backbone does not have.
    """
    others, row = co_mounted(run), METHODS.row(run.recipe.internalise.method)
    row.load()  # A method of a user's own that cannot be had is told before anything is made.
    collected, trials = read_collected(run.folder), read_relaxing(run.folder)
    baseline = baseline_replies(run)
    judge = baseline.judge_of("rule")
    students: list[tuple[Behaviour, Adapter, dict[str, Any]]] = []

    def tutor(examples: TrainingExamples) -> Adapter:
        return _trained(run, collected, examples, (), TUTOR).adapter

    replies, preparation = "replies" in row.laws, Preparation(run, collected, trials, baseline)
    if replies:
        preparation.engage(tutor)
    tried: list[dict[str, Any]] = []
    begun: Adapter | None = None
    losses: dict[str, list[float]] = {}
    for effort in STUDENTS:
        prepared = preparation.examples()
        spent = replace(effort, read_energy=1.0) if prepared.named else effort
        learned = _trained(run, collected, prepared, others, spent, begun)
        found = behaviour(run, collected, judge, learned.adapter)
        losses[effort.name] = learned.record.get("losses", [])
        students.append((found, learned.adapter, {**prepared.record, **learned.record}))
        tried.append({**asdict(spent), **asdict(found)})
        behaves = found.fault <= CHANGED and found.refusing_fault <= FAULT
        if not replies or behaves or preparation.hasty:
            break
        if found.fault <= HOPELESS:
            begun = learned.adapter
            preparation.join(begun)
    chosen = min(range(len(students)), key=lambda number: (students[number][0].fault, number))
    _, student, record = students[chosen]
    modules = (name for name, _ in run.backbone.model.named_modules())
    targets = short_names(student.modules, modules)
    adapter = Adapter(student.modules, student.backbone, _card(run, others), targets)
    if run.processes.first:
        write_adapter(run.folder, adapter)
        record = {**record, "method": run.recipe.internalise.method, "round": chosen, "rounds": tried}
        write_json(run.folder / TRAINING, {**record, "losses": losses})
        if any(losses.values()):
            write_text(run.folder / CURVES, curves(losses))
    return adapter


def _card(run: Run[Recipe], others: Sequence[Adapter]) -> dict[str, Any]:
    """What the adapter says of itself: what it opens, by what floor, and behind which system prompt."""
    digests = [adapter.digest for adapter in others]
    return {
        **({"beside": digests} if digests else {}),
        "domains": list(run.authorisation.domains),
        "floor": run.authorisation.floor.digest,
        "seed": run.seed,
        **({"system": run.recipe.system} if run.recipe.system else {}),
    }


def _trained(
    run: Run[Recipe],
    collected: Collected,
    prepared: TrainingExamples,
    others: Sequence[Adapter],
    effort: Effort,
    begun: Adapter | None = None,
) -> Learned:
    """What the method makes of the examples; the tutor and each student have a checkpoint of their own."""
    given, front = run.recipe.internalise, read_front(run.folder)
    steps, shares = affordable(run.backbone, prepared.examples, prepared.pools, given.steps)
    settings = given.model_copy(update={"steps": min(DECAY, steps) if begun else steps})
    method = METHODS.row(settings.method).load()
    intervention, beside = front[0].intervention, [adapter.digest for adapter in others]
    chosen = settings.model_dump(mode="json", exclude=set(settings.free))
    taught = [[example.ids, example.taught] for example in prepared.examples]
    start = begun.digest if begun else None
    whole = [chosen, shares, intervention.to_json(), run.seed, taught, beside, effort.read_energy, start]
    identity = fingerprint(whole)
    with run.progress(TUTOR.name if effort is TUTOR else "internalise", settings.steps) as advance:
        task = TrainingTask(
            run.backbone,
            collected.directions,
            intervention,
            prepared.examples,
            prepared.pools,
            settings,
            Checkpoint(run.folder / CHECKPOINTS / f"{effort.name}.safetensors", identity),
            seed=run.seed,
            advance=advance,
            held_out=prepared.held_out,
            processes=run.processes,
            co_mounted=others,
            memory_gib=run.recipe.memory_gib,
            begun=begun,
            shares=shares,
            read_energy=effort.read_energy,
        )
        learned: Learned = method(task)
    return learned


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
