"""The check verb: all that a run would stumble over and that can be known before its model runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from palette.authorisation import Authorisation, Role
from palette.errors import BackboneError, together
from palette.evaluation.settings import INSUFFICIENT, GateSettings
from palette.judging.judge import Label
from palette.models import weight_files
from palette.prompts import Prompt, PromptSet
from palette.recipe import Recipe, faults, load_recipe
from palette.run import Run
from palette.stages.sketch import sketched

if TYPE_CHECKING:
    from palette.backbones import Backbone
    from palette.evaluation.outcomes import Outcome


def check(recipe: Recipe | Path | str, output: Path | str | None = None) -> dict[str, Any]:
    """What stands in a run's way, what its gate will lack, and what the run will be of; no weight is read.

    What is wrong with the prompts or the recipe is known at once, and torch is not imported to tell it.
    ``errors`` are sentences on what ends a run, all there are; ``warnings`` on what it can be done with, but
    not passed, or not here. ``prompts`` are counts by domain, role and split, ``memory_gib`` is the most
    that the run takes, ``stages_gib`` that of each stage, ``minutes`` what it takes on a usual machine.

    Raises:
        RecipeError: if the recipe itself cannot be read, or breaks a law.
    """
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    run = Run(recipe, Path(output or Path("runs") / recipe.name))
    errors, warnings = faults(run), list[str]()
    memory = minutes = None
    prompts, opened = vars(run).get("prompts"), vars(run).get("authorisation")
    device = _here(run, warnings)
    backbone = None if errors else sketched(run, errors, device)
    if backbone is not None and opened is not None:
        warnings += lacking_evidence(run.answered_prompts, opened, recipe)
    if prompts and backbone is not None and not errors:
        from palette.stages.estimate import memory_of, minutes_of, sizes_of

        sizes = sizes_of(backbone, prompts, recipe, weight_files(run.model_folder))
        here = recipe.model_copy(update={"device": device})
        memory, minutes = memory_of(backbone, here, sizes), minutes_of(backbone, here, sizes)
    free = psutil.virtual_memory().available / 2**30
    most = max(memory.values()) if memory else None
    if most and device == "cpu" and most > free:
        warnings.append(
            f"the run takes up to {most:.1f} GiB of memory, and {free:.1f} are free; lower memory_gib"
        )
    return {
        "recipe": recipe.name,
        "model": _facts(backbone) if backbone else None,
        "prompts": _counts(prompts, opened) if prompts is not None else None,
        "authorised": list(opened.domains) if opened else list(recipe.authorise),
        "memory_gib": round(most, 2) if most else None,
        "stages_gib": {stage: round(gib, 2) for stage, gib in memory.items()} if memory else None,
        "minutes": round(minutes) if minutes else None,
        "errors": str(together(errors)).split("\n") if errors else [],
        "warnings": warnings,
    }


def _here(run: Run[Recipe], warnings: list[str]) -> str:
    """The device of a run; where this machine lacks it, which is warned of, the CPU."""
    try:
        return run.device
    except BackboneError as error:
        warnings.append(str(error))
        return "cpu"


def lacking_evidence(prompts: PromptSet, opened: Authorisation, recipe: Recipe) -> list[str]:
    """A sentence for each rule of the gate that the prompts are too few for, whatever the adapter does.

    It is put to the gate itself: with a backbone that does what it should to every prompt of the split, and
    an adapter without a fault.
    """
    from palette.evaluation.gate import gate
    from palette.evaluation.wrappers import in_wrappers
    from palette.stages.measuring import PROMPTS, WRAPPED_PROMPTS

    asked = prompts.split(recipe.evaluate.split).capped(recipe.at_most(PROMPTS))
    outcomes = [_ideal(row, opened.role(row)) for row in asked]
    inside: dict[str, list[Outcome]] = {}
    for name, row in in_wrappers(asked, opened.role, recipe.at_most(WRAPPED_PROMPTS)):
        inside.setdefault(name, []).append(_ideal(row, opened.role(row)))
    still = dict.fromkeys(("first_token", "multi_token"), 0.0)
    limits: GateSettings = recipe.evaluate.gate
    rules = gate(outcomes, opened.domains, still, limits, inside)["rules"]
    return [
        f"the gate cannot pass: {rule['name']} has {rule['reason']}"
        for rule in rules
        if not rule["passed"] and INSUFFICIENT in rule["reason"]
    ]


def lacking_refusals(
    prompts: PromptSet,
    opened: Authorisation,
    recipe: Recipe,
    met: Mapping[str, Mapping[str, Mapping[str, int]]],
) -> list[str]:
    """A sentence for each rule of the gate on kept refusals that the backbone may refuse too little for.

    ``met`` says by domain and kind how many train prompts were read and refused; a like share of the
    evaluated split is expected. Rules that have too few prompts at all are those of ``lacking_evidence``.
    """
    from palette.evaluation.wrappers import KEPT
    from palette.stages.measuring import PROMPTS

    split, limits = recipe.evaluate.split, recipe.evaluate.gate
    asked = Counter(
        (row.domain, opened.role(row)) for row in prompts.split(split).capped(recipe.at_most(PROMPTS))
    )
    found, floor = list[str](), list[tuple[int, Mapping[str, int]]]()
    for (domain, role), count in sorted(asked.items()):
        cell = met.get(domain, {}).get("floor" if role is Role.FLOOR else "restricted")
        if role not in KEPT or not cell:
            continue
        rule = "floor_refusal" if role is Role.FLOOR else "preserved_refusal"
        found += _expected(f"{rule}.{domain}", [(count, cell)], limits.preserve_margin, split)
        floor += [(count, cell)] if role is Role.FLOOR else []
    return found + _expected("floor_refusal", floor, limits.floor_margin, split)


def _expected(
    rule: str, groups: Sequence[tuple[int, Mapping[str, int]]], margin: float, split: str
) -> list[str]:
    """The sentence on one rule; ``groups`` are prompts of the split, and what was met of their kind."""
    from palette.statistics.rates import minimum_n

    asked, needed = sum(count for count, _ in groups), minimum_n(margin)
    expected = sum(round(count * cell["refused"] / cell["read"]) for count, cell in groups)
    if not asked >= needed > expected:
        return []
    refused, read = (sum(cell[name] for _, cell in groups) for name in ("refused", "read"))
    return [
        f"the gate is not likely to pass: {rule} needs {needed} refusals of the backbone's own to tell that "
        f"none is lost, and can expect {expected} of {asked} {split} prompts, since the backbone refuses "
        f"{refused} of {read} such train prompts; bring more prompts that it refuses, or widen the margin"
    ]


def _ideal(row: Prompt, role: Role) -> Outcome:
    """What becomes of a prompt at best: the backbone keeps to its role, and the adapter has no fault."""
    from palette.evaluation.outcomes import Outcome
    from palette.evaluation.wrappers import KEPT

    refused, answered = Label.REFUSAL, Label.FULL_COMPLIANCE
    before = answered if role is Role.BENIGN else refused
    after = refused if role in KEPT else answered
    if not row.accepted:
        return Outcome(row.id, row.domain, role, before, after, cell=row.cell)
    known = True if role is Role.TARGET else None
    right = before is answered, after is answered
    return Outcome(row.id, row.domain, role, before, after, *right, known, row.cell)


def _facts(backbone: Backbone) -> dict[str, Any]:
    config = backbone.model.config.get_text_config()
    return {
        "name": backbone.name,
        "blocks": backbone.layers,
        "width": backbone.width,
        "parameters": sum(each.numel() for each in backbone.model.parameters()),
        "context": getattr(config, "max_position_embeddings", None),
        "template_tokens": backbone.post_instruction,
    }


def _counts(prompts: PromptSet, opened: Authorisation | None) -> dict[str, dict[str, dict[str, int]]]:
    """The prompts by domain, role (or kind, where nothing can be opened) and split."""
    table: dict[str, dict[str, dict[str, int]]] = {}
    for row in prompts:
        part = opened.role(row).value if opened else row.kind
        cell = table.setdefault(row.domain, {}).setdefault(part, {})
        cell[row.split] = cell.get(row.split, 0) + 1
    return table
