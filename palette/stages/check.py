"""The check verb: all that a run would stumble over and that can be known before its model runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import psutil

from palette.authorisation import Authorisation, Role
from palette.backbones import Backbone
from palette.backbones.batching import CPU_BYTES
from palette.backbones.cost import pass_seconds
from palette.backbones.loading import load_sketch
from palette.errors import BackboneError, PaletteError, PromptError
from palette.evaluation.baseline import REPLY_TOKENS as BASELINE_TOKENS
from palette.evaluation.gate import INSUFFICIENT, gate
from palette.evaluation.outcomes import Outcome
from palette.evaluation.settings import GateSettings
from palette.evaluation.wrappers import KEPT, WRAPPERS, wrappable
from palette.internalise.effort import PASSES, SAID, TEACHING, TRAINING
from palette.internalise.examples import SHARES, recalled_gib
from palette.internalise.methods import GRADIENT, gradient_gib
from palette.internalise.teachers import REPLY_TOKENS
from palette.judging.judge import Label
from palette.prompts import Prompt, PromptSet, messages
from palette.recipe import Recipe
from palette.run import Run, folder_of
from palette.search.settings import Audit, Scoring
from palette.stages.evaluate import PROMPTS, WRAPPED_PROMPTS
from palette.statistics import minimum_n

LIBRARIES = 1.0
"""GiB that torch and what else is imported take by themselves."""
SAMPLED = 64
"""Prompts that are rendered to learn how long they are."""
NAMED = 8
"""Prompts that a sentence names at most."""

LEAST_SECONDS = 150.0
"""What the smallest model takes: it waits for the interpreter."""
SCORED, DRAWN = 0.6, 400
"""The share of its prompts that a trial is scored on at last, and how many refusals are drawn."""

T = TypeVar("T")


class Sizes(NamedTuple):
    """What a run's time and memory depend on."""

    mean: float
    """Tokens of a prompt."""
    longest: int
    train: int
    asked: int
    """Prompts of the split that is evaluated."""
    groups: int
    """Domains, each kind for itself."""


def _sizes(backbone: Backbone, prompts: PromptSet, recipe: Recipe) -> Sizes:
    """The sizes of a run, from a few of its prompts."""
    few = sorted(prompts, key=_bytes)
    spread = [len(backbone.render(messages(row))) for row in [*few[:: max(1, len(few) // SAMPLED)], few[-1]]]
    train, asked = (len(prompts.split(name)) for name in ("train", recipe.evaluate.split))
    groups = len({(row.domain, row.kind, row.tier) for row in prompts})
    return Sizes(sum(spread) / len(spread), spread[-1], train, asked, groups)


def check(recipe: Recipe, folder: Path | None = None) -> dict[str, Any]:
    """What stands in a run's way, what its gate will lack, and what the run will be of; no weight is read.

    ``errors`` are sentences on what ends a run, all there are; ``warnings`` on what it can be done with, but
    not passed, or not here. ``prompts`` are counts by domain, role and split, ``memory_gib`` is the most
    that the run takes, ``minutes`` what it takes about on a usual machine.
    """
    run = Run(recipe, folder or Path("runs") / recipe.name)
    errors: list[str] = []
    prompts = _tried(lambda: run.prompts, errors)
    backbone = _tried(
        lambda: load_sketch(
            run.model_folder,
            recipe.model,
            dtype=recipe.dtype,
            device=recipe.device,
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
        sizes = _sizes(backbone, prompts, recipe)
        memory, minutes = _memory(backbone, recipe, sizes), _minutes(backbone, recipe, sizes)
    free = psutil.virtual_memory().available / 2**30
    if memory and recipe.device == "cpu" and memory > free:
        warnings.append(
            f"the run takes up to {memory:.1f} GiB of memory, and {free:.1f} are free; lower memory_gib"
        )
    return {
        "recipe": recipe.name,
        "model": _facts(backbone) if backbone else None,
        "prompts": _counts(prompts, opened) if prompts is not None else None,
        "authorised": list(opened.domains) if opened else list(recipe.authorise),
        "memory_gib": round(memory, 2) if memory else None,
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
    long = [row for row in prompts if _bytes(row) + frame > room]
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


def _bytes(row: Prompt) -> int:
    return sum(len(str(message["content"]).encode()) for message in messages(row))


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


def _memory(backbone: Backbone, recipe: Recipe, sizes: Sizes) -> float:
    """The most memory that a run takes, in GiB: weights, and what is kept or grows beside them."""
    weights = sum(each.nbytes for each in backbone.model.parameters()) / 2**30
    said = min(recipe.reply_tokens, REPLY_TOKENS)
    rows = sum(SHARES.values())
    gradient = min(GRADIENT * recipe.memory_gib, gradient_gib(backbone, sizes.longest + said, said, rows))
    tokens, spoken = round(sizes.train * (sizes.mean + said)), sizes.train * said
    recalled = recalled_gib(backbone, tokens, spoken, backbone.layers, recipe.memory_gib)
    replies = CPU_BYTES / 2**30 if recipe.device == "cpu" else 0.0
    return float(LIBRARIES + weights + max(replies, recipe.memory_gib / 2, gradient + recalled))


def _minutes(backbone: Backbone, recipe: Recipe, sizes: Sizes) -> float:
    """The minutes that a usual machine takes for all stages, roughly."""

    def asked(rows: float, said: float) -> float:
        return rows * (sizes.mean + SAID * said)

    collected = asked(sizes.train, BASELINE_TOKENS) + sizes.train * sizes.mean + asked(DRAWN, BASELINE_TOKENS)
    panel = Scoring.target_prompts + Scoring.other_prompts * sizes.groups
    searched = SCORED * recipe.search.trials * panel * (sizes.mean + Scoring.answer_tokens)
    prepared, evaluated = asked(sizes.train, REPLY_TOKENS), 2 * asked(sizes.asked, recipe.reply_tokens / 2)
    # A sketch is on no device.
    one = pass_seconds(backbone, recipe.device.partition(":")[0])
    passes = one * (collected + searched + prepared + evaluated)
    examples = recipe.internalise.steps * sum(SHARES.values()) * (sizes.mean + REPLY_TOKENS)
    taught = min(TRAINING, PASSES * one * examples) + min(TEACHING, passes)
    return (LEAST_SECONDS + passes + taught + min(Audit.seconds, passes)) / 60


def _counts(prompts: PromptSet, opened: Authorisation | None) -> dict[str, dict[str, dict[str, int]]]:
    """The prompts by domain, role (or kind, where nothing can be opened) and split."""
    table: dict[str, dict[str, dict[str, int]]] = {}
    for row in prompts:
        part = opened.role(row).value if opened else row.kind
        cell = table.setdefault(row.domain, {}).setdefault(part, {})
        cell[row.split] = cell.get(row.split, 0) + 1
    return table
