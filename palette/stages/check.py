"""The check verb: all that a run would stumble over and that can be known before its model runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import psutil

from palette.authorisation import Authorisation, Role
from palette.backbones import Backbone
from palette.backbones.loading import load_sketch
from palette.errors import BackboneError, PaletteError, PromptError
from palette.evaluation.gate import INSUFFICIENT, gate
from palette.evaluation.outcomes import Outcome
from palette.evaluation.settings import GateSettings
from palette.evaluation.wrappers import KEPT, WRAPPERS, wrappable
from palette.judging.judge import Label
from palette.prompts import Prompt, PromptSet, messages
from palette.recipe import Recipe
from palette.run import Run, folder_of
from palette.stages.estimate import bytes_of, memory_of, minutes_of, sizes_of
from palette.stages.evaluate import PROMPTS, WRAPPED_PROMPTS
from palette.statistics import minimum_n

NAMED = 8
"""Prompts that a sentence names at most."""

T = TypeVar("T")


def check(recipe: Recipe, folder: Path | None = None) -> dict[str, Any]:
    """What stands in a run's way, what its gate will lack, and what the run will be of; no weight is read.

    ``errors`` are sentences on what ends a run, all there are; ``warnings`` on what it can be done with, but
    not passed, or not here. ``prompts`` are counts by domain, role and split, ``memory_gib`` is the most
    that the run takes, ``stages_gib`` that of each stage, ``minutes`` what it takes on a usual machine.
    """
    run = Run(recipe, folder or Path("runs") / recipe.name)
    errors: list[str] = []
    prompts = _tried(lambda: run.prompts, errors)
    backbone = _tried(
        lambda: load_sketch(
            run.model_folder,
            recipe.model,
            dtype=recipe.dtype,
            device=recipe.device_map or run.device,
            thinking=recipe.thinking,
            system=recipe.system,
        ),
        errors,
    )
    if helpful := recipe.evaluate.helpful:
        _tried(lambda: load_sketch(folder_of(helpful), helpful, dtype=recipe.dtype), errors)
    opened = _tried(lambda: run.authorisation, errors) if prompts is not None else None
    warnings: list[str] = []
    if prompts is not None and opened is not None:
        splits = dict.fromkeys(("train", "validation", recipe.evaluate.split))
        errors += map(str, run.missing_roles(*splits))
        warnings += lacking_evidence(run.answered_prompts, opened, recipe)
    if backbone is not None:
        _tried(lambda: backbone.stops, errors)
        errors += unreadable(backbone, prompts or PromptSet(()), recipe.reply_tokens)
    memory = minutes = None
    if prompts and backbone is not None and not errors:
        sizes = sizes_of(backbone, prompts, recipe)
        here = recipe.model_copy(update={"device": run.device})
        memory, minutes = memory_of(backbone, here, sizes), minutes_of(backbone, here, sizes)
    free = psutil.virtual_memory().available / 2**30
    most = max(memory.values()) if memory else None
    if most and run.device == "cpu" and most > free:
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
        "errors": errors,
        "warnings": warnings,
    }


def lacking_evidence(prompts: PromptSet, opened: Authorisation, recipe: Recipe) -> list[str]:
    """A sentence for each rule of the gate that the prompts are too few for, whatever the adapter does.

    It is put to the gate itself: with a backbone that does what it should to every prompt of the split, and
    an adapter without a fault.
    """
    asked = prompts.split(recipe.evaluate.split).capped(recipe.at_most(PROMPTS))
    outcomes = [_ideal(row, opened.role(row)) for row in asked]
    kept = wrappable(asked, opened.role, recipe.at_most(WRAPPED_PROMPTS))
    inside = {name: [_ideal(row, opened.role(row)) for row in kept] for name in WRAPPERS}
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


def unreadable(backbone: Backbone, prompts: PromptSet, reply_tokens: int) -> list[str]:
    """Sentences on prompts that the template cannot hold, or that leave no room for a reply."""
    found: list[str] = []
    shapes: dict[tuple[str, ...], Prompt] = {}
    for row in prompts:
        shapes.setdefault(tuple(message["role"] for message in messages(row)), row)
    for shape, row in shapes.items():
        _tried(lambda row=row, shape=shape: _rendered(backbone, row, shape), found)  # type: ignore[misc]
    room = getattr(backbone.model.config.get_text_config(), "max_position_embeddings", None)
    if found or not room:
        return found
    empty = [{"role": "user", "content": ""}]
    frame = len(backbone.render(empty)) + reply_tokens
    # No text has more tokens than bytes, so that few have to be rendered.
    long = [row for row in prompts if bytes_of(row) + frame > room]
    beyond = [row.id for row in long if len(backbone.render(messages(row))) + reply_tokens > room]
    if beyond:
        shown = ", ".join(beyond[:NAMED]) + (f" and {len(beyond) - NAMED} more" if beyond[NAMED:] else "")
        error = PromptError(
            f"a prompt and its reply must fit into the model's context of {room} tokens",
            got=f"{len(beyond)} that do not with {reply_tokens} tokens of reply ({shown})",
            remedy="shorten them, or lower reply_tokens",
        )
        found.append(str(error))
    return found


def _rendered(backbone: Backbone, row: Prompt, shape: Sequence[str]) -> None:
    try:
        backbone.render(messages(row))
    except PaletteError:
        raise
    except Exception as error:  # A template may fail in any way, and tells why in its own words.
        raise BackboneError(
            "a chat template must take the roles that prompts have",
            got=f"{type(error).__name__} for {', '.join(shape)}: {error}",
            remedy="leave those messages out, or mend the template",
            where=row.id,
        ) from error


def _ideal(row: Prompt, role: Role) -> Outcome:
    """What becomes of a prompt at best: the backbone keeps to its role, and the adapter has no fault."""
    refused, answered = Label.REFUSAL, Label.FULL_COMPLIANCE
    before = answered if role is Role.BENIGN else refused
    after = refused if role in KEPT else answered
    if not row.accepted:
        return Outcome(row.id, row.domain, role, before, after)
    known = True if role is Role.TARGET else None
    return Outcome(row.id, row.domain, role, before, after, before is answered, after is answered, known)


def _tried(work: Callable[[], T], errors: list[str]) -> T | None:
    """What some work gives, or None, with its error among the others."""
    try:
        return work()
    except PaletteError as error:
        errors.append(str(error))
        return None


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
