"""Strangers on disk: made once, found again, and gone on with where making them was killed."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from palette.backbones import Backbone, load_backbone
from palette.errors import BackboneError
from palette.files import read_json, write_json
from palette.processes import Progress, silent
from tools.organism.checkpoints import write_prompts
from tools.organism.language import save
from tools.strangers.architectures import build_model
from tools.strangers.facts import measured, shortcomings, told
from tools.strangers.language import build_tokenizer
from tools.strangers.plan import KIN, Plan, draw_plan
from tools.strangers.raising import COOLING, HELPFUL, REFUSING, SETTLING, raise_helpful, raise_refusing
from tools.strangers.world import World, create_world, prompt_rows

HOME = "PALETTE_BENCH_HOME"
"""The environment variable that names another home than the user's usual cache."""
SETS = {"development": range(1, 13), "test": range(101, 109), "kin": [*KIN]}
"""Development strangers and kin may be looked at; test strangers are only ever evaluated."""
ATTEMPTS = 5
"""Strangers of one seed that may fail as test beds before its making ends."""
FACTS, FAILED, STAGE = "facts.json", "failed.json", "stage.json"


def usual_home() -> Path:
    """Where strangers are kept: in ``PALETTE_BENCH_HOME``, or where the user's caches are."""
    usual = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "palette-strangers"
    return Path(os.environ.get(HOME) or usual)


def seeds(names: Iterable[str]) -> list[int]:
    """The seeds that names stand for: a set of strangers, or a seed itself.

    Raises:
        BackboneError: if a name is neither.
    """
    found: list[int] = []
    for name in names:
        if name not in SETS and not name.isdecimal():
            raise BackboneError(f"a stranger must be {', '.join(SETS)} or a seed", got=repr(name))
        found += SETS.get(name) or [int(name)]
    return found


@dataclass(frozen=True)
class Stranger:
    """A finished stranger: its world, and the folders and the fact sheet that it has."""

    folder: Path
    world: World
    facts: dict[str, Any]

    @property
    def seed(self) -> int:
        """The integer that it was drawn from."""
        return self.world.plan.seed

    @property
    def model(self) -> Path:
        """The refusing checkpoint."""
        return self.folder / "model"

    @property
    def prompts(self) -> Path:
        """The prompt files."""
        return self.folder / "prompts"


def made(seed: int, home: Path, progress: Progress = silent) -> Stranger:
    """The stranger of a seed; it is raised where it is not there yet.

    One that is no honest test bed is drawn again, by the next sub-seed, and its fact sheet says so.

    Raises:
        BackboneError: if too many in a row are none.
    """
    folder = home / str(seed)
    if not (folder / FACTS).is_file():
        failed: list[dict[str, Any]] = read_json(folder / FAILED) if (folder / FAILED).is_file() else []
        while len(failed) < ATTEMPTS:
            plan = draw_plan(seed, len(failed))
            facts = _raised(plan, folder, progress)
            if not facts["short"]:
                write_json(folder / FACTS, {**facts, "failed": failed})
                break
            failed.append({"plan": facts["plan"]["model"], "short": facts["short"]})
            write_json(folder / FAILED, failed)
            for part in ("helpful", "model", "prompts"):
                shutil.rmtree(folder / part, ignore_errors=True)
        else:
            raise BackboneError(
                f"one stranger in {ATTEMPTS} of a seed must be an honest test bed",
                got=failed[-1]["short"],
                remedy="use another seed",
                where=folder,
            )
    facts = read_json(folder / FACTS)
    return Stranger(folder, create_world(draw_plan(seed, len(facts["failed"]))), facts)


def _raised(plan: Plan, folder: Path, progress: Progress) -> dict[str, Any]:
    """Raises one stranger on one thread into its folder; its facts."""
    torch.set_num_threads(1)
    world = create_world(plan)
    write_prompts(folder / "prompts", prompt_rows(world))
    title = f"{plan.seed}.{plan.attempt}" if plan.attempt else str(plan.seed)

    def helpful(backbone: Backbone) -> int:
        with progress(f"{title} helpful", HELPFUL.steps + COOLING.steps) as advance:
            return raise_helpful(backbone, world, lambda *at: advance(1), (HELPFUL, COOLING))

    def refusing(backbone: Backbone) -> int:
        with progress(f"{title} refusing", REFUSING.steps + SETTLING.steps) as advance:
            return raise_refusing(backbone, world, lambda *at: advance(1), (REFUSING, SETTLING))

    tokenizer = build_tokenizer(world)
    _stage(folder / "helpful", helpful, lambda: Backbone(build_model(plan, tokenizer), tokenizer, title, ""))
    _stage(folder / "model", refusing, lambda: load_backbone(folder / "helpful"))
    stages = {name: read_json(folder / name / STAGE) for name in ("helpful", "model")}
    backbones = [load_backbone(folder / name) for name in stages]
    figures = measured(world, *backbones)
    return {
        "plan": told(plan),
        "parameters": backbones[0].model.num_parameters(),
        "stages": stages,
        **figures,
        "short": shortcomings(figures),
    }


def _stage(folder: Path, raising: Callable[[Backbone], int], start: Callable[[], Backbone]) -> None:
    """Writes what a stage of raising makes of a model; one that is there already is left alone."""
    if folder.is_dir():
        return
    backbone, started = start(), time.monotonic()
    backbone.model.requires_grad_(True)
    steps = raising(backbone)
    unfinished = folder.with_name(f"{folder.name}.part")
    save(backbone.model, backbone.tokenizer, unfinished, torch.float32)
    write_json(unfinished / STAGE, {"steps": steps, "seconds": round(time.monotonic() - started, 1)})
    unfinished.rename(folder)
