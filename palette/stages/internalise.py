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
    """What is spent on one training, and on how large a student."""

    name: str
    read_energy: float
    """Where no other names are made up; else all may be read, since what is near the names is varied too."""
    rank: int = 1
    """Times the recipe's."""
    rate: float = 1.0
    """Times the recipe's learning rate."""
    goes_on: bool = False
    """From the student before it, unless that is hopeless."""


TUTOR = Effort("tutor", 1.0)
STUDENTS = (Effort("first", 0.1), Effort("second", 1.0, goes_on=True), Effort("third", 1.0, rank=4, rate=0.5))
"""The second goes on from the first, with what that leaks drawn more often. It may read all there is: where
the first does not do what it was taught, what it could not read is the reason oftener than its time. Where
that does not help either, the third is a larger one and begins anew, unless the recipe says how large."""
SIZES = {"rank", "learning_rate"}
"""What a recipe sets for every student."""
FAULT, CHANGED, HOPELESS = 0.02, 0.05, 0.5
"""What may be missing in a student's answers and kept refusals for it to be the last, less than one reply of
48; in all, with benign replies in other words, which may be as right; and in answers and refusals again,
beyond what it teaches nobody. Long replies of however good a student are seldom the same to the last word.
"""


@dataclass(frozen=True)
class Student:
    """What was spent on a student, what became of it, and how it behaves on the validation split."""

    effort: Effort
    learned: Learned
    behaviour: Behaviour
    record: dict[str, Any]

    @property
    def behaves(self) -> bool:
        """Whether another one could hardly be better."""
        return self.behaviour.fault <= CHANGED and self.behaviour.refusing_fault <= FAULT

    def to_json(self) -> dict[str, Any]:
        """What was tried, and how it did."""
        told = ("rank", "learning_rate", "steps")
        sizes = {name: value for name, value in self.record.items() if name in told}
        return {"name": self.effort.name, **sizes, **asdict(self.behaviour)}


def internalise(run: Run[Recipe]) -> Adapter:
    """Makes the adapter, writes it as a PEFT folder into the run's folder, and returns it.

    Where a student does not quite behave as it should on the validation split, others are trained, if there
    is time: one that goes on from it, which it teaches too, and a larger one; the one that behaves best is
    taken.

    Raises:
        RecipeError: if a method is a user's own and cannot be loaded.
        SearchError: if there is no reply to teach.
        BackboneError: if a method needs a part that the backbone does not have.
    """
    others, row = co_mounted(run), METHODS.row(run.recipe.internalise.method)
    row.load()  # A method of a user's own that cannot be had is told before anything is made.
    students = _students(run, others, "replies" in row.laws)
    chosen = min(range(len(students)), key=lambda number: (students[number].behaviour.fault, number))
    student, record = students[chosen].learned.adapter, students[chosen].record
    modules = (name for name, _ in run.backbone.model.named_modules())
    targets = short_names(student.modules, modules)
    adapter = Adapter(student.modules, student.backbone, _card(run, others), targets)
    if run.processes.first:
        write_adapter(run.folder, adapter)
        tried = [each.to_json() for each in students]
        losses = {each.effort.name: each.learned.record.get("losses", []) for each in students}
        record = {**record, "method": run.recipe.internalise.method, "round": chosen, "rounds": tried}
        write_json(run.folder / TRAINING, {**record, "losses": losses})
        if any(losses.values()):
            write_text(run.folder / CURVES, curves(losses))
    return adapter


def _students(run: Run[Recipe], others: Sequence[Adapter], replies: bool) -> list[Student]:
    """Students, in the order in which they were trained; the first alone where it does as it should."""
    collected, given = read_collected(run.folder), run.recipe.internalise
    baseline = baseline_replies(run)
    judge = baseline.judge_of("rule")
    preparation = Preparation(run, collected, read_relaxing(run.folder), baseline)

    def tutor(examples: TrainingExamples) -> Adapter:
        return _trained(run, collected, examples, (), TUTOR).adapter

    if replies:
        preparation.engage(tutor)
    sized = SIZES & given.model_fields_set
    students: list[Student] = []
    begun: Adapter | None = None
    for effort in STUDENTS[:2] if sized else STUDENTS:
        prepared = preparation.examples()
        spent = replace(effort, read_energy=1.0) if prepared.named else effort
        learned = _trained(run, collected, prepared, others, spent, begun if effort.goes_on else None)
        found = behaviour(run, collected, judge, learned.adapter)
        students.append(Student(spent, learned, found, {**prepared.record, **learned.record}))
        if not replies or students[-1].behaves or preparation.hasty:
            break
        if found.refusing_fault <= HOPELESS:
            begun = learned.adapter
            preparation.join(begun)
    return students


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
    sizes = {"rank": effort.rank * given.rank, "learning_rate": effort.rate * given.learning_rate}
    settings = given.model_copy(update={**sizes, "steps": min(DECAY, steps) if begun else steps})
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
    rank = max(module.rank for module in learned.adapter.modules.values())
    # One that is worked out and not trained has a rank of its own and no rate.
    told = {**sizes, "rank": rank} if "steps" in learned.record else {"rank": rank}
    return Learned(learned.adapter, {**told, **learned.record})


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
