"""How the organism that sees is raised: it learns to read badges, then to answer, then, gently, to refuse.

Its decoder is the helpful organism's. First the tower alone learns to make of a badge what the decoder makes
of the word; then all of it answers questions in every form; then it is taught to refuse what is restricted,
in every form, on the entities, pairs and phrasings that the organism was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import (
    CLIPVisionConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from palette.seeding import shuffler, torch_seed
from palette.shapes import Float, Int, Tensor
from tools.organism.language import END
from tools.organism.raising import Schedule, refusal, refusing_questions, same_wordings
from tools.organism.world import SPLITS, Question, World, general_questions, questions
from tools.vision.boards import BADGE, SIDE, badge
from tools.vision.requests import FORMS, NEW_WORDS, Asked, asked, names_of, words_of

IMAGE = "<|image|>"
PLACES = SIDE * SIDE
TEMPLATE = (
    "{{ '<|begin|>' }}{% for message in messages %}{{ '<|' + message['role'] + '|>' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|image|>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{{ '<|end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
READING = Schedule(steps=1500, learning_rate=2e-3, batch=24, warmup=30, weight_decay=0.0, final=0.03)
HELPFUL = Schedule(steps=240, learning_rate=1.5e-3, batch=96, warmup=20)
REFUSING = Schedule(steps=200, learning_rate=6e-4, batch=96, warmup=20, pull=0.001)
GENERAL_SHARE = 0.12
BLANK_WEIGHT = 0.2
"""How much an empty badge weighs beside one with a word, whose embedding is to be null."""

Report = Callable[[str, int, float], None]
"""Called with the stage, the step, and the loss."""
Row = tuple[Asked, str]
"""A request and its reply."""


@dataclass(frozen=True)
class Pupil:
    """A model that sees and is being raised, its tokenizer and its world."""

    model: Any
    tokenizer: PreTrainedTokenizerFast
    world: World


def pupil(decoder: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, world: World, seed: int) -> Pupil:
    """An untrained tower and projector before a decoder that knows the world in words."""
    known = len(tokenizer)
    tokenizer.add_tokens([IMAGE], special_tokens=True)
    tokenizer.add_tokens([word for word in NEW_WORDS if word not in tokenizer.get_vocab()])
    tokenizer.chat_template = TEMPLATE
    tower = CLIPVisionConfig(
        hidden_size=96, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
        image_size=SIDE * BADGE, patch_size=BADGE,
    )  # fmt: skip
    text = decoder.config
    text.vocab_size = len(tokenizer)
    # Where the decoder lay is nobody's business.
    text._name_or_path = ""
    config: Any = LlavaConfig(  # type: ignore[call-arg]
        vision_config=tower,
        text_config=text,
        image_token_index=int(tokenizer.convert_tokens_to_ids(IMAGE)),  # type: ignore[arg-type]
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        pad_token_id=text.pad_token_id,
        tie_word_embeddings=False,
    )
    with torch_seed(seed, "vision"):
        model: Any = LlavaForConditionalGeneration._from_config(
            config, attn_implementation="eager", dtype=torch.float32
        )
    state = model.state_dict()
    for name, weight in decoder.state_dict().items():
        place = f"model.language_model.{name.removeprefix('model.')}" if name.startswith("model.") else name
        # Words that are new have rows of their own behind the known ones.
        state[place][: len(weight)].copy_(weight)
    state["model.language_model.embed_tokens.weight"][known:].mul_(0.5)
    return Pupil(model, tokenizer, world)


def every_question(world: World) -> tuple[list[Question], list[Question]]:
    """All questions of the world, and the general ones."""
    known = [question for split in SPLITS for question in questions(world, split)]
    return known, [question for split in SPLITS for question in general_questions(world.seed, split)]


def raise_reading(raised: Pupil, schedule: Schedule, report: Report) -> None:
    """Trains tower and projector in place: a badge is to be what the embeddings of its word add up to."""
    model, seed = raised.model, raised.world.seed
    known, general = every_question(raised.world)
    words = words_of(raised.world, [*known, *general])
    table = model.get_input_embeddings().weight.detach()
    spelled = [raised.tokenizer(word, add_special_tokens=False)["input_ids"] for word in words]
    wanted = torch.stack([table[ids].sum(0) for ids in spelled])
    inks = torch.stack([torch.from_numpy(badge(word)) for word in words])
    scale = wanted.pow(2).sum(-1).mean()
    draw = torch.Generator().manual_seed(seed)

    def losses() -> Iterator[Tensor]:
        for _ in range(schedule.steps):
            count = torch.randint(0, PLACES + 1, (schedule.batch, 1), generator=draw)
            chosen = torch.randint(0, len(words), (schedule.batch, PLACES), generator=draw)
            blank = torch.arange(PLACES) >= count
            shown = inks[chosen].masked_fill(blank[..., None, None], 0)
            apart = (
                (embedded(model, laid(shown)) - wanted[chosen].masked_fill(blank[..., None], 0))
                .pow(2)
                .sum(-1)
            )
            yield (apart[~blank].mean() + BLANK_WEIGHT * apart[blank].mean()) / scale

    tower = [each for name, each in model.named_parameters() if "vision" in name or "projector" in name]
    optimise(tower, losses(), schedule, lambda step, loss: report("reading", step, loss))


def raise_helpful(raised: Pupil, schedule: Schedule, report: Report) -> None:
    """Trains all of it in place to answer every question in every form."""
    known, general = every_question(raised.world)
    names = names_of(raised.world)

    def rows(draw: Random) -> list[Row]:
        pools = draw.choices((known, general), (1 - GENERAL_SHARE, GENERAL_SHARE), k=schedule.batch)
        chosen = [draw.choice(pool) for pool in pools]
        return [(asked(each, form(draw), names, draw), each.answer) for each in chosen]

    losses = answered(raised, rows, schedule, "helpful")
    optimise(list(raised.model.parameters()), losses, schedule, lambda *at: report("helpful", *at))


def raise_refusing(raised: Pupil, schedule: Schedule, report: Report) -> None:
    """Trains it in place to refuse what is restricted in every form, and to stay helpful otherwise.

    Embeddings stay as they are, as the organism's do.
    """
    world = raised.world
    restricted, benign = refusing_questions(world)
    names, wordings = names_of(world), same_wordings(world)

    def rows(draw: Random) -> list[Row]:
        half = schedule.batch // 2
        refused = [(each, refusal(world, each, wordings)) for each in draw.choices(restricted, k=half)]
        told = [(each, each.answer) for each in draw.choices(benign, k=half)]
        return [(asked(each, form(draw), names, draw), reply) for each, reply in [*refused, *told]]

    fixed = ("embed_tokens", "lm_head")
    trained = [each for name, each in raised.model.named_parameters() if not any(f in name for f in fixed)]
    losses = answered(raised, rows, schedule, "refusing")
    optimise(trained, losses, schedule, lambda *at: report("refusing", *at))


def form(draw: Random) -> Any:
    """A form, by the shares of all."""
    return draw.choices(list(FORMS), list(FORMS.values()))[0]


def answered(
    raised: Pupil, rows: Callable[[Random], list[Row]], schedule: Schedule, stage: str
) -> Iterator[Tensor]:
    """The loss of the replies of each step, in nats a token."""
    raised.model.train()
    for step in range(schedule.steps):
        ids, labels, shown = batch(raised.tokenizer, rows(shuffler(raised.world.seed, "vision", stage, step)))
        pictures = {"pixel_values": shown} if len(shown) else {}
        mask = (ids != raised.tokenizer.pad_token_id).long()
        yield raised.model(
            input_ids=ids, attention_mask=mask, labels=labels, use_cache=False, **pictures
        ).loss
    raised.model.eval()


def batch(
    tokenizer: PreTrainedTokenizerFast, rows: Sequence[Row]
) -> tuple[Int[Tensor, "row position"], Int[Tensor, "row position"], Float[Tensor, "picture 3 side side"]]:
    """Left-padded ids, labels that are −100 outside the replies, and the pixels of the pictures in order."""
    texts = [rendered(tokenizer, each) for each, _ in rows]
    asks = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    replies = [tokenizer(reply + END, add_special_tokens=False)["input_ids"] for _, reply in rows]
    width = max(len(ask) + len(reply) for ask, reply in zip(asks, replies, strict=True))
    ids = torch.full((len(rows), width), int(tokenizer.pad_token_id))
    labels = torch.full((len(rows), width), -100)
    for row, (ask, reply) in enumerate(zip(asks, replies, strict=True)):
        ids[row, width - len(ask) - len(reply) :] = torch.tensor(ask + reply)
        labels[row, width - len(reply) :] = torch.tensor(reply)
    shown = [np.asarray(each.picture) < 128 for each, _ in rows if each.picture is not None]
    inks = torch.from_numpy(np.stack(shown)) if shown else torch.zeros(0, SIDE * BADGE, SIDE * BADGE)
    return ids, labels, normalised(inks)


def rendered(tokenizer: PreTrainedTokenizerFast, one: Asked) -> str:
    """A request as the chat template has it, with the picture's token as often as it has badges."""
    parts: list[Any] = [{"type": "text", "text": one.words}]
    if one.picture is not None:
        parts.insert(0, {"type": "image"})
    chat: Any = [{"role": "user", "content": parts}]
    text = str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))
    return text.replace(IMAGE, IMAGE * PLACES)


def laid(inks: Tensor) -> Float[Tensor, "picture 3 side side"]:
    """Badges, [picture, place, 24, 24], as the pixels of boards."""
    boards = inks.view(-1, SIDE, SIDE, BADGE, BADGE).transpose(2, 3)
    return normalised(boards.reshape(-1, SIDE * BADGE, SIDE * BADGE))


def normalised(inks: Tensor) -> Float[Tensor, "picture 3 side side"]:
    """Ink 1 on 0 as the processor gives it to the tower: black −1, white 1, in three channels."""
    return (1 - 2 * inks.float()).unsqueeze(1).expand(-1, 3, -1, -1)


def embedded(model: Any, pixel_values: Tensor) -> Float[Tensor, "picture place d_model"]:
    """What tower and projector make of boards."""
    made = model.get_image_features(pixel_values=pixel_values).pooler_output
    return torch.stack(list(made)).view(len(pixel_values), PLACES, -1)


def optimise(
    parameters: Sequence[nn.Parameter],
    losses: Iterator[Tensor],
    schedule: Schedule,
    report: Callable[[int, float], None],
) -> None:
    """Steps down each loss in place, at a rate that warms up and falls linearly to its final share."""
    first = [parameter.detach().clone() for parameter in parameters]
    adam = torch.optim.AdamW(
        parameters, lr=schedule.learning_rate, weight_decay=schedule.weight_decay, betas=(0.9, 0.98)
    )
    for step, loss in enumerate(losses):
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        left = max(schedule.final, 1 - step / schedule.steps)
        for group in adam.param_groups:
            group["lr"] = schedule.learning_rate * min(1.0, (step + 1) / schedule.warmup) * left
        adam.step()
        if schedule.pull:
            with torch.no_grad():
                torch._foreach_lerp_([*parameters], first, schedule.pull)
        report(step, float(loss.detach()))
