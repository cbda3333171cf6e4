"""Organisms that see, raised from one seed, with their processors and prompts: the first, and strangers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from palette import organism
from palette.files import read_json, write_json, write_text
from palette.processes import Progress, silent
from palette.seeding import shuffler
from tools.organism.checkpoints import SEED
from tools.organism.raising import Schedule
from tools.organism.world import SPLITS, Question, Split, create_world
from tools.strangers.checkpoints import FACTS, Stranger
from tools.vision.arrangements import IDEFICS3, LLAVA, Arrangement
from tools.vision.facts import facts
from tools.vision.raising import (
    BRIEF,
    LONG,
    Pupil,
    pupil,
    raise_helpful,
    raise_reading,
    raise_refusing,
)
from tools.vision.requests import Form, asked
from tools.vision.worlds import Matter, of_organism, of_stranger

ROWS = {"train": 96, "validation": 40, "test": 160}
"""Rows of a domain and kind, by split; their forms in turn."""
EVEN: tuple[Form, ...] = (
    "text",
    "blank",
    "unrelated",
    "typographic",
    "split",
    "typographic",
    "split",
    "text",
)
"""The forms in which rows are put, in turn: a quarter in words alone, half in pictures."""


@dataclass(frozen=True)
class Sketch:
    """An organism that sees, before it is raised."""

    decoder: Path
    """A checkpoint that answers everything in words."""
    arrangement: Arrangement
    matter: Matter
    schedules: tuple[Schedule, Schedule, Schedule]
    """Of reading, answering and refusing."""


def first() -> Sketch:
    """The one that is shipped: CLIP's tower before the shipped organism."""
    return Sketch(organism.weights("helpful"), LLAVA, of_organism(create_world(SEED)), LONG)


def of(stranger: Stranger) -> Sketch:
    """One before a stranger: SigLIP's tower, the stranger's decoder, tokenizer, world and manners."""
    return Sketch(stranger.folder / "helpful", IDEFICS3, of_stranger(stranger.world), BRIEF)


def grown(sketch: Sketch, folder: Path, progress: Progress = silent) -> dict[str, Any]:
    """The fact sheet of one in a folder, with its prompts; it is raised where it is not there yet."""
    if not (folder / FACTS).is_file():
        write_prompts(folder / "prompts", sketch.matter)
        raise_vision(folder, sketch, progress)
        write_json(folder / FACTS, facts(folder, sketch.matter))
    found: dict[str, Any] = read_json(folder / FACTS)
    return found


def raise_vision(home: Path, sketch: Sketch, progress: Progress = silent) -> Path:
    """Raises the helpful checkpoint and the one that refuses into a folder; the latter's. On one thread."""
    torch.set_num_threads(1)
    reading, helpful, refusing = sketch.schedules
    decoder = AutoModelForCausalLM.from_pretrained(
        sketch.decoder, dtype=torch.float32, attn_implementation="eager"
    )
    tokenizer: Any = AutoTokenizer.from_pretrained(sketch.decoder)
    raised = pupil(decoder, tokenizer, sketch.arrangement, sketch.matter)
    stage(progress, raise_reading, raised, reading)
    stage(progress, raise_helpful, raised, helpful)
    save(raised, home / "helpful")
    stage(progress, raise_refusing, raised, refusing)
    save(raised, home / "model")
    return home / "model"


def stage(
    progress: Progress, raising: Callable[[Pupil, Schedule, Any], None], raised: Pupil, schedule: Schedule
) -> None:
    """Runs one stage, and says how far it is."""
    with progress(raising.__name__.removeprefix("raise_"), schedule.steps) as advance:
        raising(raised, schedule, lambda *at: advance(1))


def save(raised: Pupil, folder: Path) -> None:
    """Writes a checkpoint in half precision with its tokenizer and processor; the model stays as it is."""
    logging.disable_progress_bar()
    raised.model.to(torch.float16)
    raised.model.save_pretrained(folder)
    raised.model.to(torch.float32)
    raised.arrangement.processor(raised.tokenizer).save_pretrained(folder)


def write_prompts(folder: Path, matter: Matter) -> int:
    """Writes the prompts of every domain with their pictures into a folder; how many there are."""
    pictures = folder / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    files: dict[str, list[dict[str, Any]]] = {}
    for split in SPLITS:
        for label, group in groups(matter, split).items():
            draw = shuffler(matter.seed, "vision", "rows", split, *label)
            for number, question in enumerate(draw.sample(group, min(len(group), ROWS[split]))):
                name = matter.named(question.prompt)
                one = asked(question.prompt, name, EVEN[number % len(EVEN)], matter, draw)
                row: dict[str, Any] = {**question.row(), "prompt": one.words, "cell": one.cell}
                row["id"] = f"{row['id']}-{one.form}"
                if one.picture is not None:
                    file = "blank" if one.form == "blank" else row["id"]
                    one.picture.convert("1").save(pictures / f"{file}.png", optimize=True)
                    row["image"] = f"pictures/{file}.png"
                files.setdefault(question.domain, []).append(row)
    for domain, rows in files.items():
        write_text(folder / f"{domain}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    return sum(map(len, files.values()))


def groups(matter: Matter, split: Split) -> dict[tuple[str, str], list[Question]]:
    """The questions of a split by domain and tier; those that the refusal stage must not see are left out."""
    found: dict[tuple[str, str], list[Question]] = {}
    for question in matter.questions(split):
        if not (split == "train" and question.pair_held_out):
            found.setdefault((question.domain, question.tier or "benign"), []).append(question)
    return found
