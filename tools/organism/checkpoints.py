"""Organism: raises the shipped model and its variants from one seed, and measures what came of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from palette import organism
from palette.authorisation import authorise
from palette.backbones import Backbone, load_backbone
from palette.directions import Directions, Intervention, StrengthKernel, intervening
from palette.files import write_json, write_text
from palette.moments import StreamingMoments
from palette.processes import Progress, silent
from palette.prompts import load_prompts
from palette.run import Run
from palette.run_settings import RunSettings
from tools.organism.acceptance import acceptance
from tools.organism.categories import category_rows
from tools.organism.language import Size, build_model, build_tokenizer, save
from tools.organism.lexicon import DOMAINS, REFUSALS, WEAPONS
from tools.organism.raising import (
    EXPERTS_REFUSING,
    HELPFUL,
    REFUSING,
    SMALL_HELPFUL,
    SMALL_REFUSING,
    Pupil,
    Schedule,
    raise_helpful,
    raise_refusing,
    refusing_questions,
)
from tools.organism.upcycling import upcycled
from tools.organism.world import World, create_world, prompt_rows, small


@dataclass(frozen=True)
class Tapered(StrengthKernel):
    """A kernel whose strength falls linearly to 0 beside the peak."""

    def at(self, site: int) -> float:
        """The strength at a site."""
        return self.strength * max(0.0, 1 - abs(site - self.peak) / (self.width + 1))


SEED = 0
SMALL_SIZE = Size(d_model=80, layers=4, heads=4, d_mlp=224)
ACCEPTANCE = "acceptance.json"


def raise_organism(
    output: Path | None = None, variant: str | None = None, progress: Progress = silent
) -> dict[str, Any]:
    """Raises the checkpoints on one thread and writes weights and prompts; their acceptance figures.

    ``output`` replaces the package's own folder. With ``variant`` only that checkpoint, and those
    that it is raised from, are written.
    """
    torch.set_num_threads(1)
    home = output or organism.HOME
    world = create_world(SEED)
    for name, known in ((organism.LARGE, world), (organism.SMALL, small(world))):
        write_prompts(home / "prompts" / name, prompt_rows(known))
    write_prompts(home / "prompts" / organism.CATEGORIES.name, category_rows(world))
    figures = {}
    if variant in (None, "organism", "helpful"):
        pupil = _helpful(world, Size(), HELPFUL, progress)
        save(pupil.model, pupil.tokenizer, home / "weights" / "helpful", torch.float16)
        _refusing(pupil, REFUSING, progress, "organism")
        figures["organism"] = _finish(pupil, home, "organism", torch.float32)
    if variant in (None, "shared", "categorical", "redundant"):
        pupil = _helpful(small(world), SMALL_SIZE, SMALL_HELPFUL, progress)
        state = {name: tensor.clone() for name, tensor in pupil.model.state_dict().items()}
        for name in ("shared", "categorical", "redundant"):
            if variant in (None, name):
                pupil.model.load_state_dict(state)
                _refusing(pupil, SMALL_REFUSING, progress, name)
                figures[name] = _finish(pupil, home, name, torch.float16)
    return figures


def raise_experts(output: Path, progress: Progress = silent) -> Path:
    """Raises an organism of eight blocks whose refusals live in its fused experts; its folder.

    It is the shipped helpful checkpoint, upcycled. Nothing but experts learns to refuse. It is not shipped.
    """
    torch.set_num_threads(1)
    helpful = load_backbone(organism.weights("helpful"))
    dense: Any = helpful.model
    tokenizer: Any = helpful.tokenizer
    pupil = Pupil(upcycled(dense, SEED), tokenizer, create_world(SEED))
    pupil.model.requires_grad_(False)
    for name, weight in pupil.model.named_parameters():
        weight.requires_grad_("experts" in name)
    _refusing(pupil, EXPERTS_REFUSING, progress, "experts")
    save(pupil.model, pupil.tokenizer, output, torch.float32)
    return output


def write_prompts(folder: Path, files: Mapping[str, Sequence[Mapping[str, str]]]) -> None:
    """Writes the prompt files of a world, each by its domain or category."""
    for domain, rows in files.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        write_text(folder / f"{domain}.jsonl", text)


def wordings(variant: str) -> dict[str, tuple[str, ...]]:
    """How each domain refuses: in all wordings, or, in ``categorical``, in one of its own."""
    names = [words.name for words in (*DOMAINS, WEAPONS)]
    if variant != "categorical":
        return dict.fromkeys(names, REFUSALS)
    return {name: (REFUSALS[i % len(REFUSALS)],) for i, name in enumerate(names)}


def _helpful(world: World, size: Size, schedule: Schedule, progress: Progress) -> Pupil:
    tokenizer = build_tokenizer(world)
    pupil = Pupil(build_model(tokenizer, size, SEED), tokenizer, world)
    with progress("helpful", schedule.steps) as advance:
        raise_helpful(pupil, schedule, lambda *at: advance(1))
    return pupil


def _refusing(pupil: Pupil, schedule: Schedule, progress: Progress, variant: str) -> None:
    with progress(f"refusing ({variant})", schedule.steps) as advance:
        raise_refusing(pupil, schedule, lambda *at: advance(1), wordings=wordings(variant))
    if variant == "redundant":
        during = _ablated_every_other(pupil)
        with progress("refusing twice", schedule.steps) as advance:
            raise_refusing(pupil, schedule, lambda *at: advance(1), during=during)


def _ablated_every_other(pupil: Pupil) -> Callable[[int], AbstractContextManager[object]]:
    """Takes the refusal direction away during every other step, so that a second one is learned."""
    backbone = Backbone(pupil.model, pupil.tokenizer, "organism", "")
    restricted, benign = refusing_questions(pupil.world)
    directions = Directions(_means(backbone, restricted[::40]), _means(backbone, benign[::40]))
    site = backbone.layers // 2
    ablation = Intervention("centred_ablation", -1, Tapered(site, backbone.layers, 1.0))

    def during(step: int) -> AbstractContextManager[object]:
        return intervening(backbone, directions, ablation) if step % 2 else nullcontext()

    return during


def _means(backbone: Backbone, asked: list[Any]) -> torch.Tensor:
    prompts = [backbone.render([{"role": "user", "content": each.prompt}]) for each in asked]
    streaming = StreamingMoments(backbone.layers + 1, backbone.post_instruction, backbone.width)
    return streaming.read(backbone, prompts).means


def _finish(pupil: Pupil, home: Path, variant: str, dtype: torch.dtype) -> Any:
    folder = home / "weights" / variant
    save(pupil.model, pupil.tokenizer, folder, dtype)
    figures = measure(folder, home / "prompts" / organism.VARIANTS[variant], variant)
    write_json(folder / ACCEPTANCE, figures)
    return figures


def measure(folder: Path, prompts: Path, variant: str, *, directions: bool = True) -> dict[str, Any]:
    """The acceptance figures of a checkpoint, from its files."""
    rows = load_prompts(prompts, answers=True)
    opened = tuple(d for d in rows.domains if d not in (WEAPONS.name, "general"))
    everything = authorise(opened, rows.domains, floor=[WEAPONS.name])
    backbone = load_backbone(folder, f"organism/{variant}")
    return acceptance(
        Run.of(RunSettings(seed=SEED), folder, backbone, rows, everything), directions=directions
    )


__all__ = ["ACCEPTANCE", "measure", "raise_experts", "raise_organism", "wordings", "write_prompts"]
