"""A run's backbone without its weights, and whether it can read the prompts: told before any are loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from palette.errors import BackboneError, PaletteError, PromptError, noted
from palette.prompts import Prompt, PromptSet, messages
from palette.prompts.rows import first_of
from palette.recipe import Recipe
from palette.run import Run, folder_of

if TYPE_CHECKING:
    from palette.backbones import Backbone


def sketched(run: Run[Recipe], errors: list[PaletteError], device: str | None = None) -> Backbone | None:
    """The backbone of a run without its weights, if there can be one; what is wrong is added to the errors.

    That is also what it has to read: prompts that its template does not take, or its context.
    """
    from palette.backbones.loading import load_sketch

    recipe, sketch = run.recipe, None
    with noted(errors):
        sketch = load_sketch(
            run.model_folder,
            recipe.model,
            dtype=recipe.dtype,
            device=recipe.device_map or device or recipe.device,
            thinking=recipe.thinking,
            system=recipe.system,
        )
        errors += map(PromptError, unreadable(sketch, run.prompts, recipe.reply_tokens))
        _ = sketch.stops
    if helpful := recipe.evaluate.helpful:
        with noted(errors):
            load_sketch(folder_of(helpful), helpful, dtype=recipe.dtype)
    return sketch


def unreadable(backbone: Backbone, prompts: PromptSet, reply_tokens: int) -> list[str]:
    """Sentences on prompts that the template cannot hold, or that leave no room for a reply."""
    found = list[str]()
    shapes: dict[tuple[tuple[str, bool], ...], Prompt] = {}
    for row in prompts:
        shapes.setdefault(tuple((each["role"], "pictures" in each) for each in messages(row)), row)
    for row in shapes.values():
        try:
            backbone.render(messages(row))
        except BackboneError as error:
            found.append(str(BackboneError(error.told, where=row.id)))
    room = getattr(backbone.model.config.get_text_config(), "max_position_embeddings", None)
    if found or not room:
        return found
    empty = [{"role": "user", "content": ""}]
    frame = len(backbone.render(empty)) + reply_tokens
    # No text has more tokens than bytes, so that few have to be rendered; of a picture only its model tells.
    long = [row for row in prompts if row.pictures or bytes_of(row) + frame > room]
    beyond = [row.id for row in long if len(backbone.render(messages(row))) + reply_tokens > room]
    if beyond:
        told = PromptError(
            f"a prompt and its reply must fit into the model's context of {room} tokens",
            got=f"{len(beyond)} that do not with {reply_tokens} tokens of reply ({first_of(beyond)})",
            remedy="shorten them, or lower reply_tokens",
        )
        found.append(str(told))
    return found


def bytes_of(row: Prompt) -> int:
    """How long a prompt is."""
    return sum(len(str(message["content"]).encode()) for message in messages(row))
