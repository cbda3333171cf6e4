"""How a model that sees is raised: it learns to read badges, then to answer, then, gently, to refuse.

Its decoder is a helpful one that knows its world in words. First the tower alone learns to make of a badge
what the decoder makes of the word; then all of it answers questions in every form; then it is taught to
refuse what is restricted, in every form, on the entities, pairs and phrasings that its decoder was, or would
have been.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AddedToken, PreTrainedModel, PreTrainedTokenizerFast

from palette.backbones.template import ChatTemplate
from palette.prompts.pictures import MARK
from palette.seeding import shuffler, torch_seed
from palette.shapes import Float, Int, Tensor
from tools.organism.optimisers import Muon
from tools.organism.raising import Schedule
from tools.vision.arrangements import PIXELS, PLACES, Arrangement
from tools.vision.boards import BADGE, SIDE, badge
from tools.vision.requests import ASKED, FORMS, NAMED, NEW_WORDS, Asked, asked
from tools.vision.worlds import Lesson, Matter, parted

LONG = (
    Schedule(steps=1500, learning_rate=2e-3, batch=24, warmup=30, weight_decay=0.0, final=0.03),
    Schedule(steps=240, learning_rate=1.5e-3, batch=96, warmup=20),
    Schedule(steps=200, learning_rate=6e-4, batch=96, warmup=20, pull=0.001),
)
"""Of reading, answering and refusing, for a world of nine hundred words."""
BRIEF = (
    Schedule(steps=800, learning_rate=2e-3, batch=12, warmup=30, weight_decay=0.0, matrix_rate=0.02),
    Schedule(steps=160, learning_rate=1.5e-3, batch=48, warmup=10, matrix_rate=0.01),
    Schedule(steps=160, learning_rate=6e-4, batch=48, warmup=10, pull=0.001, matrix_rate=0.01),
)
"""The same for a stranger's, of four hundred."""
BLANK_WEIGHT = 0.2
"""How much an empty badge weighs beside one with a word, whose embedding is to be null."""

Report = Callable[[str, int, float], None]
"""Called with the stage, the step, and the loss."""
Row = tuple[Asked, str]
"""A request and its reply."""


@dataclass(frozen=True)
class Pupil:
    """A model that sees and is being raised, its tokenizer, and what it is taught."""

    model: Any
    tokenizer: PreTrainedTokenizerFast
    arrangement: Arrangement
    matter: Matter


def pupil(
    decoder: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, arrangement: Arrangement, matter: Matter
) -> Pupil:
    """An untrained tower and projector before a decoder that knows the world in words."""
    known = len(tokenizer)
    tokenizer.add_tokens([arrangement.image, *arrangement.marks], special_tokens=True)
    tokenizer.add_tokens([AddedToken(each, single_word=True, lstrip=True) for each in strange(tokenizer)])
    tokenizer.chat_template = sighted(str(tokenizer.chat_template), arrangement.image)
    text = decoder.config
    text.vocab_size = len(tokenizer)
    # Where the decoder lay is nobody's business.
    text._name_or_path = ""
    config = arrangement.config(text, int(tokenizer.convert_tokens_to_ids(arrangement.image)))  # type: ignore[arg-type]
    with torch_seed(matter.seed, "vision"):
        model: Any = arrangement.model._from_config(config, attn_implementation="eager", dtype=torch.float32)
    head: Any = decoder.get_output_embeddings()
    for place, own in ((model.get_decoder(), decoder.base_model), (model.lm_head, head)):
        state = place.state_dict()
        for name, weight in own.state_dict().items():
            # Words that are new have rows of their own behind the known ones.
            state[name][: len(weight)].copy_(weight)
    model.get_input_embeddings().weight.data[known:].mul_(0.5)
    return Pupil(model, tokenizer, arrangement, matter)


def strange(tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """The words said of pictures that are new to a tokenizer, or that it cannot read."""
    said = dict.fromkeys(word for each in (*ASKED, NAMED) for word in parted(each))
    unread = [word for word in said if tokenizer.unk_token_id in inside(tokenizer, word)]
    return [word for word in NEW_WORDS if word not in tokenizer.get_vocab()] + [
        word for word in unread if word not in NEW_WORDS
    ]


def sighted(template: str, image: str) -> str:
    """A chat template whose messages may have parts, texts and pictures, beside one that has texts alone."""
    parts = (
        r" }}{% if \1['content'] is string %}{{ \1['content'] }}{% else %}{% for part in \1['content'] %}"
        r"{% if part['type'] == 'image' %}{{ '" + image + r"' }}{% else %}{{ part['text'] }}{% endif %}"
        r"{% endfor %}{% endif %}{{ "
    )
    return re.sub(r" \+ (\w+)\['content'\] \+ ", parts, template)


def raise_reading(raised: Pupil, schedule: Schedule, report: Report) -> None:
    """Trains tower and projector in place: a badge is to be what the embeddings of its word add up to."""
    model, spelled = raised.model, raised.matter.spelled()
    table = model.get_input_embeddings().weight.detach()
    wanted = torch.stack([table[inside(raised.tokenizer, word)].sum(0) for word in spelled.values()])
    inks = torch.stack([torch.from_numpy(badge(word)) for word in spelled])
    scale = wanted.pow(2).sum(-1).mean()
    draw = torch.Generator().manual_seed(raised.matter.seed % 2**63)

    def losses() -> Iterator[Tensor]:
        for _ in range(schedule.steps):
            count = torch.randint(0, PLACES + 1, (schedule.batch, 1), generator=draw)
            chosen = torch.randint(0, len(spelled), (schedule.batch, PLACES), generator=draw)
            blank = torch.arange(PLACES) >= count
            shown = inks[chosen].masked_fill(blank[..., None, None], 0)
            gap = embedded(raised, laid(shown)) - wanted[chosen].masked_fill(blank[..., None], 0)
            apart = gap.pow(2).sum(-1)
            yield (apart[~blank].mean() + BLANK_WEIGHT * apart[blank].mean()) / scale

    decoder = {id(each) for each in (*model.get_decoder().parameters(), *model.lm_head.parameters())}
    tower = [each for each in model.parameters() if id(each) not in decoder]
    optimise(model, tower, losses(), schedule, lambda step, loss: report("reading", step, loss))


def inside(tokenizer: PreTrainedTokenizerFast, word: str) -> list[int]:
    """The ids of a word inside a sentence."""
    before, whole = (tokenizer.encode(text, add_special_tokens=False) for text in ("the", f"the {word}"))
    return list(whole[len(before) :])


def raise_helpful(raised: Pupil, schedule: Schedule, report: Report) -> None:
    """Trains all of it in place to answer every question in every form."""
    losses = answered(raised, raised.matter.helpful, schedule, "helpful")
    optimise(
        raised.model, list(raised.model.parameters()), losses, schedule, lambda *at: report("helpful", *at)
    )


def raise_refusing(raised: Pupil, schedule: Schedule, report: Report) -> None:
    """Trains it in place to refuse what is restricted in every form, and to stay helpful otherwise.

    Embeddings stay as they are, as they did when the decoder was taught so in words.
    """
    model = raised.model
    fixed = {id(model.get_input_embeddings().weight), id(model.lm_head.weight)}
    trained = [each for each in model.parameters() if id(each) not in fixed]
    losses = answered(raised, raised.matter.refusing, schedule, "refusing")
    optimise(model, trained, losses, schedule, lambda *at: report("refusing", *at))


def form(draw: Random) -> Any:
    """A form, by the shares of all."""
    return draw.choices(list(FORMS), list(FORMS.values()))[0]


def answered(
    raised: Pupil, lessons: Callable[[Random, int], list[Lesson]], schedule: Schedule, stage: str
) -> Iterator[Tensor]:
    """The loss of the replies of each step, in nats a token."""
    matter = raised.matter
    raised.model.train()
    for step in range(schedule.steps):
        draw = shuffler(matter.seed, "vision", stage, step)
        rows = [
            (asked(each.request, each.name, form(draw), matter, draw), each.reply)
            for each in lessons(draw, schedule.batch)
        ]
        ids, labels, pixels = batch(raised, rows)
        shown = {"pixel_values": raised.arrangement.shown(pixels)} if len(pixels) else {}
        mask = (ids != raised.tokenizer.pad_token_id).long()
        yield raised.model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False, **shown).loss
    raised.model.eval()


def batch(
    raised: Pupil, rows: Sequence[Row]
) -> tuple[Int[Tensor, "row position"], Int[Tensor, "row position"], Float[Tensor, "picture 3 side side"]]:
    """Left-padded ids, labels that are −100 outside the replies, and the pixels of the pictures in order."""
    tokenizer = raised.tokenizer
    template = ChatTemplate(tokenizer, "")
    asks = [rendered(template, each, raised.arrangement) for each, _ in rows]
    replies = [[*template.encode(reply), int(tokenizer.eos_token_id)] for _, reply in rows]
    width = max(len(ask) + len(reply) for ask, reply in zip(asks, replies, strict=True))
    ids = torch.full((len(rows), width), int(tokenizer.pad_token_id))
    labels = torch.full((len(rows), width), -100)
    for row, (ask, reply) in enumerate(zip(asks, replies, strict=True)):
        ids[row, width - len(ask) - len(reply) :] = torch.tensor(ask + reply)
        labels[row, width - len(reply) :] = torch.tensor(reply)
    shown = [np.asarray(each.picture) < 128 for each, _ in rows if each.picture is not None]
    inks = torch.from_numpy(np.stack(shown)) if shown else torch.zeros(0, PIXELS, PIXELS)
    return ids, labels, normalised(inks)


def rendered(template: ChatTemplate, one: Asked, arrangement: Arrangement) -> list[int]:
    """The ids of a request as Palette renders it, with the picture's token as often as it has badges."""
    if one.picture is None:
        return template.render([{"role": "user", "content": one.words}])
    text = template.text([{"role": "user", "content": MARK + one.words}])
    return [*template.encode(arrangement.spelled(text)), *template.closing]


def laid(inks: Tensor) -> Float[Tensor, "picture 3 side side"]:
    """Badges, [picture, place, 24, 24], as the pixels of boards."""
    boards = inks.view(-1, SIDE, SIDE, BADGE, BADGE).transpose(2, 3)
    return normalised(boards.reshape(-1, SIDE * BADGE, SIDE * BADGE))


def normalised(inks: Tensor) -> Float[Tensor, "picture 3 side side"]:
    """Ink 1 on 0 as the processor gives it to the tower: black −1, white 1, in three channels."""
    return (1 - 2 * inks.float()).unsqueeze(1).expand(-1, 3, -1, -1)


def embedded(raised: Pupil, pixels: Tensor) -> Float[Tensor, "picture place d_model"]:
    """What tower and projector make of boards."""
    made = raised.model.get_image_features(pixel_values=raised.arrangement.shown(pixels)).pooler_output
    return torch.cat([each.reshape(-1, each.shape[-1]) for each in made]).view(len(pixels), PLACES, -1)


def optimise(
    model: Any,
    parameters: Sequence[nn.Parameter],
    losses: Iterator[Tensor],
    schedule: Schedule,
    report: Callable[[int, float], None],
) -> None:
    """Steps down each loss in place, at a rate that warms up and falls linearly to its final share."""
    first = [parameter.detach().clone() for parameter in parameters]
    stepping = steppers(model, parameters, schedule)
    for step, loss in enumerate(losses):
        model.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        left = max(schedule.final, 1 - step / schedule.steps)
        for each in stepping:
            for group in each.param_groups:
                group["lr"] = group["initial_lr"] * min(1.0, (step + 1) / schedule.warmup) * left
            each.step()
        if schedule.pull:
            with torch.no_grad():
                torch._foreach_lerp_([*parameters], first, schedule.pull)
        report(step, float(loss.detach()))


def steppers(
    model: Any, parameters: Sequence[nn.Parameter], schedule: Schedule
) -> list[torch.optim.Optimizer]:
    """AdamW, and Muon for the matrices of linears where the schedule has a rate for them."""
    linears = [each.weight for each in model.modules() if isinstance(each, nn.Linear)]
    matrices = {id(each) for each in linears if schedule.matrix_rate} - {id(model.lm_head.weight)}
    mixed = [each for each in parameters if id(each) in matrices]
    others = [each for each in parameters if id(each) not in matrices]
    decay = schedule.weight_decay
    made: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(others, lr=schedule.learning_rate, weight_decay=decay, betas=(0.9, 0.98))
    ]
    if mixed:
        made.append(Muon(mixed, lr=schedule.matrix_rate, weight_decay=decay))
    for each in made:
        for group in each.param_groups:
            group["initial_lr"] = group["lr"]
    return made
