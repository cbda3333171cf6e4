"""What the library makes of a prompt with pictures: tokens, pixels, and the tower's embeddings."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from transformers import AutoImageProcessor, AutoProcessor

from palette.backbones.backbone import Backbone
from palette.backbones.template import Messages
from palette.errors import BackboneError
from palette.prompts.pictures import pixels
from palette.shapes import Bool, Float, Int, Tensor

TOKEN = ("image_token_id", "image_token_index")
"""What configurations call the token in whose places a picture's embeddings stand."""


@dataclass(frozen=True, eq=False)
class Shown:
    """What the model makes of one picture, or of one tile where it cuts them."""

    rows: Float[Tensor, "token d_model"]
    takes: int
    """How many positions it takes: as many as tokens, or fewer where they have rows and columns."""
    offsets: Int[Tensor, "axis token"] | None = None
    """The positions of its tokens behind its first, where they have several axes."""
    deep: Float[Tensor, "block token d_model"] | None = None
    """What is added behind each of the first blocks, where the tower speaks to several."""


@dataclass(frozen=True)
class Reading:
    """A rendered conversation as the library reads it."""

    given: Mapping[str, Tensor]
    """What the model is called with, ids and pixels among it."""
    ids: list[int]
    runs: list[list[int]]
    """The places of each row of the picture token."""
    shown: list[Shown]
    """What stands in each of them."""


class Processor:
    """How a model of a folder is shown words and pictures."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @torch.no_grad()
    def reading(self, backbone: Backbone, text: str, pictures: Sequence[Any]) -> Reading:
        """A rendered conversation and its pictures, decoded, as the library reads them.

        Raises:
            BackboneError: if the processor is not there, or does not take them, or the template does not show
                each picture once.
        """
        given = self._given(backbone, text, pictures)
        parts, deep = _embedded(backbone, given)
        if "input_ids" not in given:
            given |= _spelled(backbone, text, parts)
        ids, rows = given["input_ids"][0].tolist(), torch.cat(parts)
        runs = _runs(ids, image_token(backbone))
        if sum(map(len, runs)) != len(rows):
            raise BackboneError(
                "a chat template must show each picture once",
                got=f"{sum(map(len, runs))} places for {len(rows)} embeddings of {len(pictures)} pictures",
                remedy="use the template that the model came with",
                where=backbone.name,
            )
        axes, shown, done = _axes(backbone, given), [], 0
        for run in runs:
            own = slice(done, done + len(run))
            shown.append(_shown(rows[own], run, axes, None if deep is None else deep[:, own]))
            done = own.stop
        return Reading(given, ids, runs, shown)

    def tokens(self, backbone: Backbone, text: str, pictures: Sequence[Any]) -> list[int]:
        """The tokens of both, for a model without weights; of some families each picture is one.

        Raises:
            BackboneError: if the processor is not there, or does not take them.
        """
        given = self._given(backbone, text, pictures)
        return given["input_ids"][0].tolist() if "input_ids" in given else backbone.encode(text)

    def _given(self, backbone: Backbone, text: str, pictures: Sequence[Any]) -> dict[str, Tensor]:
        """What the library gives the model; of some families the pictures alone."""
        try:
            if (processor := self._whole) is not None:
                asked = {"text": [text], "images": [[*pictures]], "add_special_tokens": False}
                given = dict(processor(**asked, return_mm_token_type_ids=True, return_tensors="pt"))
            else:
                given = dict(self._images(images=[*pictures], return_tensors="pt"))
        except BackboneError:
            raise
        except Exception as error:  # Each family's processor has laws of its own.
            raise BackboneError(
                "a model's processor must take the pictures of a prompt",
                got=_first_line(error),
                remedy="show as many, and as large ones, as the model was made for",
                where=backbone.name,
            ) from error
        device = backbone.model.device
        tensors = {name: value.to(device) for name, value in given.items() if isinstance(value, Tensor)}
        return tensors | {"pixel_values": tensors["pixel_values"].to(backbone.model.dtype)}

    @cached_property
    def _whole(self) -> Any:
        """The processor of words and pictures; None where the library cannot make it of what is here.

        That of some families reads videos too, by a package that pictures do not need.
        """
        try:
            found = AutoProcessor.from_pretrained(self._folder, local_files_only=True)
        except Exception:  # It may need a package, a file, or a newer library.
            return None
        return found if hasattr(found, "image_processor") else None

    @cached_property
    def _images(self) -> Any:
        """How pictures alone become pixels.

        Raises:
            BackboneError: if it is not there, or cannot be loaded.
        """
        try:
            return AutoImageProcessor.from_pretrained(self._folder, local_files_only=True)
        except Exception as error:
            raise BackboneError(
                "a model that sees must have its processor beside it",
                got=_first_line(error),
                remedy="add its files (processor_config.json, preprocessor_config.json)",
                where=self._folder,
            ) from error


class Outline:
    """How a model without weights is shown pictures: it is known how long prompts are, and nothing else."""

    def __init__(self, folder: Path) -> None:
        self._processor = Processor(folder)

    def ids(self, backbone: Backbone, messages: Messages) -> list[int]:
        """The token ids of a conversation with pictures, in whose places the picture token stands.

        Raises:
            PromptError: if a picture cannot be decoded.
            BackboneError: if the processor does not take them.
        """
        decoded = decoded_pictures(messages)
        ids = self._processor.tokens(backbone, backbone.template.text(messages), decoded)
        return [*ids, *backbone.template.closing]

    def placeless(self, ids: Int[Tensor, "batch position"]) -> Bool[Tensor, "batch position"]:
        """No token: such a model runs nothing."""
        return torch.zeros_like(ids, dtype=torch.bool)

    def arguments(
        self,
        model: Any,
        ids: Int[Tensor, "batch position"],
        flat: Int[Tensor, "batch position"],
        before: Int[Tensor, "batch past"],
    ) -> dict[str, Tensor]:
        """The positions alone."""
        return {"position_ids": flat}


def decoded_pictures(messages: Messages) -> list[Any]:
    """The pictures of a conversation, decoded, in order.

    Raises:
        PromptError: if one cannot be.
    """
    return [pixels(picture) for one in messages for picture in one.get("pictures", ())]


def image_token(backbone: Backbone) -> int:
    """The token in whose places pictures stand.

    Raises:
        BackboneError: if the model's configuration names none.
    """
    config = backbone.model.config
    found = next((getattr(config, name) for name in TOKEN if getattr(config, name, None) is not None), None)
    if found is None:
        raise BackboneError(
            "a model that sees must name the token of its pictures",
            got=f"none in a configuration of the kind {config.model_type}",
            remedy="use another model, or prompts in words",
            where=backbone.name,
        )
    return int(found)


def _embedded(
    backbone: Backbone, given: Mapping[str, Tensor]
) -> tuple[list[Float[Tensor, "_token d_model"]], Float[Tensor, "block token d_model"] | None]:
    """What the tower and the projector make of the pictures, in order, and what goes to later blocks."""
    model: Any = backbone.model
    taken = inspect.signature(model.get_image_features).parameters
    made = model.get_image_features(**{name: value for name, value in given.items() if name in taken})
    deep = getattr(made, "deepstack_features", None)
    parts = getattr(made, "pooler_output", made)
    return (
        [part.reshape(-1, part.shape[-1]).to(model.dtype) for part in parts],
        torch.stack([*deep]).to(model.dtype) if deep else None,
    )


def _spelled(backbone: Backbone, text: str, parts: Sequence[Tensor]) -> dict[str, Tensor]:
    """A rendered conversation in tokens, that of a picture as often as it has embeddings."""
    token, rest = image_token(backbone), iter(parts)
    ids: list[int] = []
    for each in backbone.encode(text):
        ids += [each] * (len(next(rest, parts[-1])) if each == token else 1)
    whole = torch.tensor([ids], device=backbone.model.device)
    return {"input_ids": whole, "mm_token_type_ids": (whole == token).int()}


def _runs(ids: Sequence[int], token: int) -> list[list[int]]:
    groups = groupby(range(len(ids)), key=lambda at: ids[at] == token)
    return [[*places] for held, places in groups if held]


def _axes(backbone: Backbone, given: Mapping[str, Tensor]) -> Int[Tensor, "axis position"] | None:
    """The positions that the library gives a prompt with pictures, where they have several axes."""
    model: Any = getattr(backbone.model, "model", backbone.model)
    if not hasattr(model, "get_rope_index"):
        return None
    taken = inspect.signature(model.get_rope_index).parameters
    found: Tensor = model.get_rope_index(**{k: v for k, v in given.items() if k in taken})[0]
    return found[:, 0]


def _shown(
    rows: Tensor, run: Sequence[int], axes: Int[Tensor, "axis position"] | None, deep: Tensor | None
) -> Shown:
    """What stands in a row of places of a prompt."""
    if axes is None:
        return Shown(rows, len(run), None, deep)
    start, behind = int(axes[:, run[0]].min()), run[-1] + 1
    takes = int(axes[:, behind].min()) - start if behind < axes.shape[1] else len(run)
    return Shown(rows, takes, axes[:, run[0] : behind] - start, deep)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
