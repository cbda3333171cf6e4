"""Train and add: control tokens for some categories, over subsets of them, on a frozen backbone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from palette.files import write_json
from palette.fingerprints import fingerprint
from palette.internalise.loop import Checkpoint, State
from palette.mosaic.examples import TokenExamples
from palette.mosaic.files import FILE, write_tokens
from palette.mosaic.mounting import identity
from palette.mosaic.sampling import Sampling
from palette.mosaic.settings import Sign, TrainSettings
from palette.mosaic.tokens import ControlTokens, initial
from palette.mosaic.training import TokenTrainee, plan_of, train_tokens
from palette.run import Run

CHECKPOINT = Path("train") / "checkpoint.safetensors"
RECORD = Path("train") / "training.json"


def train(
    run: Run, sign: Sign, settings: TrainSettings, course: TokenExamples, card: dict[str, Any]
) -> ControlTokens:
    """Control tokens of every category, also written as ``control_tokens.safetensors`` in the run's folder.

    With ``settings.joint`` off each category is trained for itself, which does not compose.
    """
    categories, backbone = run.authorisation.domains, run.backbone
    fresh = initial(backbone, categories, settings.slots, run.seed)
    tokens = ControlTokens(fresh, identity(backbone), sign, settings.place, card)
    groups = [categories] if settings.joint else [(category,) for category in categories]
    ends = {}
    for group in groups:
        sampling = Sampling(group, settings.orders, settings.positives, settings.negatives)
        tokens, ends[",".join(group)] = _trained(run, settings, course, tokens, sampling)
    _write(run, tokens, course, ends)
    return tokens


def add(
    run: Run,
    settings: TrainSettings,
    course: TokenExamples,
    tokens: ControlTokens,
    category: str,
) -> ControlTokens:
    """The tokens with those of one category added; all others stay to the bit.

    Trained are the subsets that hold the new category (arXiv 2603.16210, incremental addition).
    """
    fresh = initial(run.backbone, [category], tokens.slots, run.seed)
    tokens = tokens.with_category(category, fresh[category])
    sampling = Sampling(
        tokens.categories, settings.orders, settings.positives, settings.negatives, added=category
    )
    tokens, end = _trained(run, settings, course, tokens, sampling)
    _write(run, tokens, course, {category: end})
    return tokens


def _trained(
    run: Run,
    settings: TrainSettings,
    course: TokenExamples,
    tokens: ControlTokens,
    sampling: Sampling,
) -> tuple[ControlTokens, State]:
    trained = sampling.categories if sampling.added is None else (sampling.added,)
    tasks = course.tasks(settings, sampling, run.seed)
    held = course.held(sampling, settings.validation_prompts, run.seed)
    trainee = TokenTrainee(run.backbone, tokens, trained, course.examples, tasks, held)
    chosen = settings.model_dump(mode="json", exclude=set(settings.free))
    met = [[task.active, task.row, task.taught] for task in [*(t for pool in tasks for t in pool), *held]]
    examples = [[example.prompt, example.own, example.taught] for example in course.examples]
    kept = [tokens.digest, tokens.backbone.fingerprint]
    identified = fingerprint([chosen, kept, list(trained), met, examples, run.seed])
    checkpoint = Checkpoint(run.folder / CHECKPOINT, identified, settings.checkpoint_every)
    # Tasks that are drawn anew for every epoch are met once each.
    once = settings.model_copy(update={"epochs": 1}) if settings.redraw else settings
    steps = plan_of(tasks, once, run.seed).steps
    with run.progress("tokens", steps) as advance:
        found, end = train_tokens(trainee, once, checkpoint, run.seed, advance, run.processes)
    return replace(tokens, embeddings={**tokens.embeddings, **found}), end


def _write(run: Run, tokens: ControlTokens, course: TokenExamples, ends: dict[str, State]) -> None:
    if not run.processes.first:
        return
    trained = {
        group: {"steps": end.step, "last_loss": end.loss, "validation_loss": end.best}
        for group, end in ends.items()
    }
    record = {
        **course.record,
        "trained": trained,
        "parameters": sum(one.numel() for one in tokens.embeddings.values()),
        "distance": _distances(tokens),
    }
    write_json(run.folder / RECORD, record)
    write_tokens(run.folder / FILE, tokens)


def _distances(tokens: ControlTokens) -> dict[str, float]:
    """The norm of each category's tokens together."""
    return {name: round(float(torch.linalg.norm(one)), 4) for name, one in tokens.embeddings.items()}


__all__ = ["CHECKPOINT", "RECORD", "add", "train"]
