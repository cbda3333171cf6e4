"""The organism that sees, raised from one seed, with its processor, its prompts and its fact sheet."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlavaProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.utils import logging

from palette import organism
from palette.files import write_text
from palette.processes import Progress, silent
from palette.seeding import shuffler
from tools.organism.checkpoints import SEED
from tools.organism.raising import Schedule
from tools.organism.world import SPLITS, Question, World, create_world, general_questions, questions
from tools.vision.boards import BADGE, SIDE
from tools.vision.raising import (
    HELPFUL,
    IMAGE,
    READING,
    REFUSING,
    Pupil,
    pupil,
    raise_helpful,
    raise_reading,
    raise_refusing,
)
from tools.vision.requests import FORMS, Form, asked, names_of

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


def raise_vision(home: Path, progress: Progress = silent, schedules: tuple[Schedule, ...] = ()) -> Path:
    """Raises the helpful checkpoint and the one that refuses into a folder; the latter's. On one thread."""
    torch.set_num_threads(1)
    reading, helpful, refusing = schedules or (READING, HELPFUL, REFUSING)
    folder = organism.weights("helpful")
    decoder = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    raised = pupil(decoder, tokenizer, create_world(SEED), SEED)
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
    side = SIDE * BADGE
    images = CLIPImageProcessorPil(
        size={"height": side, "width": side}, do_center_crop=False, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    LlavaProcessor(
        images,
        raised.tokenizer,
        patch_size=BADGE,
        vision_feature_select_strategy="default",
        image_token=IMAGE,
        num_additional_image_tokens=1,
        chat_template=raised.tokenizer.chat_template,
    ).save_pretrained(folder)


def write_prompts(folder: Path) -> int:
    """Writes the prompts of every domain with their pictures into a folder; how many there are."""
    world = create_world(SEED)
    names, pictures = names_of(world), folder / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    files: dict[str, list[dict[str, Any]]] = {}
    for split in SPLITS:
        for label, group in groups(world, split).items():
            draw = shuffler(world.seed, "vision", "rows", split, *label)
            for number, question in enumerate(draw.sample(group, min(len(group), ROWS[split]))):
                one = asked(question, EVEN[number % len(EVEN)], names, draw)
                row: dict[str, Any] = {**question.row(), "prompt": one.words, "cell": one.cell}
                row["id"] = f"{row['id']}-{one.form}"
                if one.picture is not None:
                    name = "blank" if one.form == "blank" else row["id"]
                    one.picture.convert("1").save(pictures / f"{name}.png", optimize=True)
                    row["image"] = f"pictures/{name}.png"
                files.setdefault(question.domain, []).append(row)
    for domain, rows in files.items():
        write_text(folder / f"{domain}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    return sum(map(len, files.values()))


def groups(world: World, split: Any) -> dict[tuple[str, str], list[Question]]:
    """The questions of a split by domain and tier; those that the refusal stage must not see are left out."""
    found: dict[tuple[str, str], list[Question]] = {}
    for question in [*questions(world, split), *general_questions(world.seed, split)]:
        if not (split == "train" and question.pair_held_out):
            found.setdefault((question.domain, question.tier or "benign"), []).append(question)
    return found


__all__ = ["FORMS", "raise_vision", "save", "write_prompts"]
