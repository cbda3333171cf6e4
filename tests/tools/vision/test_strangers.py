"""Strangers that see: any world is taught and shown alike, and Palette opens what was put together."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoProcessor

from palette.backbones import load_backbone
from palette.backbones.template import ChatTemplate
from palette.prompts import load_prompts, messages
from palette.prompts.pictures import MARK
from tests.tools.strangers.conftest import tiny
from tools.organism.raising import Schedule
from tools.strangers.architectures import build_model
from tools.strangers.language import build_tokenizer, chat_template
from tools.strangers.plan import FRAMES, draw_plan
from tools.strangers.world import World, create_world
from tools.vision import checkpoints
from tools.vision.arrangements import IDEFICS3, LLAVA, PLACES
from tools.vision.boards import badge
from tools.vision.raising import Pupil, batch, inside, pupil, raise_reading, raise_refusing, sighted, strange
from tools.vision.requests import FORMS, NAMED, NEW_WORDS, asked
from tools.vision.worlds import of_stranger, parted

SEEDS = (2, 4, 12, 87)
"""Of tokenizers by unigrams, pairs, bytes and words, and of four kinds of decoders."""


def small(seed: int) -> World:
    """The world of a seed, with two domains."""
    return create_world(tiny(draw_plan(seed)))


def put_together(world: World, arrangement: Any = IDEFICS3) -> Pupil:
    """An untrained one before an untrained decoder."""
    tokenizer = build_tokenizer(world)
    return pupil(build_model(world.plan, tokenizer), tokenizer, arrangement, of_stranger(world))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_strangers_world_is_taught_as_it_is_written(seed: int) -> None:
    world = small(seed)
    matter, draw = of_stranger(world), Random(3)
    for lesson in [*matter.helpful(draw, 8), *matter.refusing(draw, 8)]:
        assert lesson.name in parted(lesson.request) and lesson.name in matter.names
        for form in FORMS:
            one = asked(lesson.request, lesson.name, form, matter, draw)
            assert one.form == form and (lesson.name in one.words) == (form in ("text", "blank", "unrelated"))
            assert (NAMED in one.words) == (form == "split")
    refused = [matter.refuses(lesson.reply) for lesson in matter.refusing(draw, 20)]
    assert sum(refused) == 12
    assert not any(matter.refuses(each.reply) for each in matter.helpful(draw, 20))


@pytest.mark.parametrize("seed", SEEDS)
def test_every_word_of_a_stranger_has_a_badge_of_its_own(seed: int) -> None:
    matter = of_stranger(small(seed))
    spelled = matter.spelled()
    assert len({badge(word).tobytes() for word in spelled}) == len(spelled) > 100
    assert {word.lower() for each in matter.questions("test") for word in parted(each.prompt)} <= set(spelled)


@pytest.mark.parametrize("frame", FRAMES)
def test_a_template_that_sees_says_of_words_what_it_said(frame: str) -> None:
    tokenizer = build_tokenizer(small(87))
    language = draw_plan(12).language
    template = chat_template(language.__class__(**{**vars(language), "frame": frame}))
    chat = [{"role": "user", "content": "what is it ?"}, {"role": "assistant", "content": "that ."}]
    seeing = sighted(template, "<image>")
    parts = [{"role": one["role"], "content": [{"type": "text", "text": one["content"]}]} for one in chat]
    told = [
        tokenizer.apply_chat_template(said, chat_template=form, tokenize=False, add_generation_prompt=True)
        for said, form in ((chat, template), (chat, seeing), (parts, seeing))
    ]
    assert told[0] == told[1] == told[2] and seeing != template
    parts[0]["content"].insert(0, {"type": "image"})
    assert "<image>what is it ?" in tokenizer.apply_chat_template(parts, chat_template=seeing, tokenize=False)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_said_of_pictures_can_be_read_and_the_rest_is_read_as_before(seed: int) -> None:
    world = small(seed)
    before = build_tokenizer(world)
    after = put_together(world).tokenizer
    new = strange(before)
    assert set(NEW_WORDS) & set(new) and not strange(after)
    for word in new:
        assert len(inside(after, word)) == 1
    for question in of_stranger(world).questions("test")[:40]:
        assert after(question.prompt)["input_ids"] == before(question.prompt)["input_ids"]


@pytest.mark.parametrize(("seed", "arrangement"), [(12, LLAVA), *((seed, IDEFICS3) for seed in SEEDS)])
def test_palette_shows_it_what_it_was_raised_on(
    seed: int, arrangement: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "ROWS", {"train": 4, "validation": 4, "test": 4})
    world = small(seed)
    raised = put_together(world, arrangement)
    checkpoints.save(raised, tmp_path / "model")
    checkpoints.write_prompts(tmp_path / "prompts", raised.matter)
    backbone = load_backbone(tmp_path / "model")
    rows = [row for row in load_prompts(tmp_path / "prompts") if row.pictures]
    assert {row.cell for row in rows} == {"blank", "unrelated", "picture"}
    for row in rows[:3]:
        # Rendering the first proves that its logits are the library's own.
        ids = backbone.render(messages(row))
        assert sum(token >= 1 << 40 for token in ids) == PLACES
    draw, processor = Random(5), AutoProcessor.from_pretrained(tmp_path / "model")
    lesson = raised.matter.helpful(draw, 1)[0]
    one = asked(lesson.request, lesson.name, "typographic", raised.matter, draw)
    ids, labels, pixels = batch(raised, [(one, lesson.reply)])
    text = ChatTemplate(raised.tokenizer, "").text([{"role": "user", "content": MARK + one.words}])
    assert one.picture is not None
    made = processor(
        text=[text], images=[[one.picture.convert("RGB")]], add_special_tokens=False, return_tensors="pt"
    )
    assert torch.equal(made["pixel_values"].reshape(pixels.shape), pixels)
    asks = ids[0, : -int((labels >= 0).sum())]
    closing = ChatTemplate(raised.tokenizer, "").closing
    assert asks.tolist() == [*made["input_ids"][0].tolist(), *closing]
    assert backbone.decode(labels[labels >= 0].tolist()) == lesson.reply


def test_reading_and_refusing_lower_their_loss_and_leave_words_as_they_are() -> None:
    raised = put_together(small(87))
    table = raised.model.get_input_embeddings().weight
    before, losses = table.detach().clone(), []
    for stage in (raise_reading, raise_refusing):
        rate = Schedule(steps=12, learning_rate=2e-3, batch=4, warmup=4, matrix_rate=0.01)
        stage(raised, rate, lambda name, step, loss: losses.append(loss))
        assert torch.equal(table, before)
    assert np.mean(losses[9:12]) < losses[0] and np.mean(losses[21:]) < losses[12]
