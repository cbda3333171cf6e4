"""Pictures as tokens beyond the vocabulary: what a model's tower makes of each, once.

A picture is a run of token ids that no text has, named by what the model is shown of it, and their embeddings
are what the tower and the projector make of it. So a prompt with a picture is a list of ids like any other:
padding, prefixes that prompts share, caches, batches, hooks and adapters of the decoder are what they are for
words, and the tower runs once for a picture, however often it is asked about. That the model says the same
as where the library shows it the pixels is proven on the first picture; else they are refused.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from threading import local
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import AutoImageProcessor, AutoProcessor, DynamicCache

from palette.backbones.backbone import PICTURED, Backbone
from palette.backbones.cache import same_logits, window
from palette.backbones.scoring import forward, padded
from palette.errors import BackboneError
from palette.prompts.pictures import pixels
from palette.shapes import Bool, Float, Int, Tensor

if TYPE_CHECKING:
    from palette.backbones.template import Messages

ROOM = 1 << 20
"""How many ids each picture has."""
NAMES = 1 << 32
"""Pictures that have ids."""
TYPES = "token_type_ids"
"""What models are told a picture's tokens by that read those in both directions."""
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


class Sight:
    """What a model sees: its processor, and what its tower made of every picture so far, by name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: dict[int, Shown] = {}
        self._proven = False

    def mount(self, model: nn.Module) -> None:
        """Lets the model read the ids of pictures, wherever it reads ids."""
        lookup = _Lookup(self)
        table: nn.Module = model.get_input_embeddings()  # type: ignore[operator]
        table.register_forward_pre_hook(lookup)
        table.register_forward_hook(lookup.fill)

    def ids(self, backbone: Backbone, messages: Messages) -> list[int]:
        """The token ids of a conversation with pictures, ready for the reply's first token.

        Raises:
            PromptError: if a picture cannot be decoded.
            BackboneError: if the model cannot be shown these, or would not say what it says of the pixels.
        """
        shown = [pixels(picture) for one in messages for picture in one.get("pictures", ())]
        given, made = self._given(backbone, backbone.template.text(messages), shown)
        ids = given["input_ids"][0].tolist()
        runs = _runs(ids, _image_token(backbone))
        if sum(map(len, runs)) != len(made):
            raise BackboneError(
                "a chat template must show each picture once",
                got=f"{sum(map(len, runs))} places for {len(made)} embeddings of {len(shown)} pictures",
                remedy="use the template that the model came with",
                where=backbone.name,
            )
        name, axes, done = _name(given), _axes(backbone, given), 0
        for number, run in enumerate(runs):
            own = (name + number) % NAMES
            self._seen[own] = _shown(made[done : done + len(run)], run, axes)
            done += len(run)
            for place, at in enumerate(run):
                ids[at] = PICTURED + own * ROOM + place
        if not self._proven:
            self._prove(backbone, ids, given)
        return [*ids, *backbone.template.closing]

    def rows(self, ids: Int[Tensor, "token"]) -> Float[Tensor, "token d_model"]:
        """The embeddings of some tokens of pictures."""
        return torch.stack([shown.rows[place] for shown, place in self._tokens(ids)])

    def placeless(self, ids: Int[Tensor, "batch position"]) -> Bool[Tensor, "batch position"]:
        """Which tokens take no position, since those of their picture before them have taken all it has."""
        held = ids >= PICTURED
        if bool(held.any()):
            held[held.clone()] = torch.tensor(
                [place >= shown.takes for shown, place in self._tokens(ids[held])], device=ids.device
            )
        return held

    def arguments(
        self,
        model: Any,
        ids: Int[Tensor, "batch position"],
        flat: Int[Tensor, "batch position"],
        before: Int[Tensor, "batch past"],
    ) -> dict[str, Tensor]:
        """What the model is told of a batch beside its ids: positions, of several axes where it has them.

        And, where it reads a picture's tokens in both directions, which ones those are, of all that it sees.
        """
        held = ids >= PICTURED
        if not bool(held.any()):
            return {"position_ids": flat}
        told = {"position_ids": flat}
        tokens = self._tokens(ids[held])
        if tokens[0][0].offsets is not None:
            whole = flat.repeat(3, 1, 1)
            starts = flat[held] - torch.tensor([min(p, s.takes - 1) for s, p in tokens], device=ids.device)
            offsets = torch.stack([s.offsets[:, p] for s, p in tokens if s.offsets is not None], dim=1)
            whole[:, held] = starts + offsets.to(ids.device)
            told["position_ids"] = whole
        if TYPES in inspect.signature(model.forward).parameters:
            told[TYPES] = torch.cat([torch.zeros_like(before), held.long()], dim=1)
        return told

    def _tokens(self, ids: Int[Tensor, "token"]) -> list[tuple[Shown, int]]:
        """For each token of a picture that picture, and its place in it.

        Raises:
            BackboneError: if the model has not been shown one.
        """
        found = []
        for token in (ids - PICTURED).tolist():
            if (shown := self._seen.get(token // ROOM)) is None:
                raise BackboneError(
                    "a picture must be shown before it is asked about", got="one that was not"
                )
            found.append((shown, token % ROOM))
        return found

    def _given(
        self, backbone: Backbone, text: str, shown: Sequence[Any]
    ) -> tuple[dict[str, Tensor], Float[Tensor, "token d_model"]]:
        """What the library gives the model for a rendered conversation, and what it makes of its pictures."""
        try:
            if (processor := self._processor) is not None:
                asked = {"text": [text], "images": [[*shown]], "add_special_tokens": False}
                given = dict(processor(**asked, return_mm_token_type_ids=True, return_tensors="pt"))
            else:
                given = dict(self._images(images=[*shown], return_tensors="pt"))
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
        tensors["pixel_values"] = tensors["pixel_values"].to(backbone.model.dtype)
        parts = _embedded(backbone, tensors)
        if "input_ids" not in tensors:
            tensors |= _spelled(backbone, text, parts)
        return tensors, torch.cat(parts)

    @cached_property
    def _processor(self) -> Any:
        """How the model is shown words and pictures; None where the library cannot make it of what is here.

        That of some families reads videos too, by a package that pictures do not need.
        """
        try:
            return AutoProcessor.from_pretrained(self._folder, local_files_only=True)
        except Exception:  # It may need a package, a file, or a newer library.
            return None

    @cached_property
    def _images(self) -> Any:
        """How pictures alone become pixels.

        Raises:
            BackboneError: if it is not there, or cannot be loaded.
        """
        try:
            return AutoImageProcessor.from_pretrained(self._folder, local_files_only=True, use_fast=False)
        except Exception as error:
            raise BackboneError(
                "a model that sees must have its processor beside it",
                got=_first_line(error),
                remedy="add its files (processor_config.json, preprocessor_config.json)",
                where=self._folder,
            ) from error

    @torch.no_grad()
    def _prove(self, backbone: Backbone, ids: Sequence[int], given: Mapping[str, Tensor]) -> None:
        """Returns if the model says what it says of the pixels, and going on from a part of them.

        Raises:
            BackboneError: if it does not: its pictures are more than embeddings.
        """
        expected = backbone.model(**given).logits[:, -1]
        device, cut = backbone.model.device, next(at for at, token in enumerate(ids) if token >= PICTURED)
        got = [forward(backbone, padded([ids], [0], 0, device))[:, -1]]
        if cut and window(backbone) != 0:
            cache = DynamicCache()
            for part in (ids[:cut], ids[cut:]):
                logits = forward(backbone, padded([part], [0], 0, device), 1, cache)
            got.append(logits[:, -1])
        if not all(same_logits(backbone, each, expected) for each in got):
            raise BackboneError(
                "a model must read a picture as embeddings in the places of its tokens",
                got=f"one of the kind {backbone.model.config.model_type}, which does more with it",
                remedy="use another model, or prompts in words",
                where=backbone.name,
            )
        self._proven = True


class _Lookup(local):
    """The two hooks of a table of embeddings: pictures' ids are hidden from it, and their rows filled in.

    What the first one leaves for the second is the thread's own; a copy of the model shares the sight.
    """

    def __init__(self, sight: Sight) -> None:
        self.sight = sight
        self.ids: Int[Tensor, "batch position"] | None = None

    def __deepcopy__(self, memo: Any) -> _Lookup:
        return _Lookup(self.sight)

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        shown = inputs[0] >= PICTURED
        self.ids = inputs[0] if bool(shown.any()) else None
        return inputs if self.ids is None else (inputs[0].masked_fill(shown, 0), *inputs[1:])

    def fill(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        ids, self.ids = self.ids, None
        if ids is None:
            return output
        shown: Bool[Tensor, "batch position"] = ids >= PICTURED
        filled = output.clone()
        filled[shown] = self.sight.rows(ids[shown]).to(output.device, output.dtype)
        return filled


@torch.no_grad()
def _embedded(backbone: Backbone, given: Mapping[str, Tensor]) -> list[Float[Tensor, "_token d_model"]]:
    """What the tower and the projector make of the pictures, in order."""
    model: Any = backbone.model
    taken = inspect.signature(model.get_image_features).parameters
    made = model.get_image_features(**{name: value for name, value in given.items() if name in taken})
    made = getattr(made, "pooler_output", made)
    return [part.reshape(-1, part.shape[-1]).to(model.dtype) for part in made]


def _spelled(backbone: Backbone, text: str, parts: Sequence[Tensor]) -> dict[str, Tensor]:
    """A rendered conversation in tokens, that of a picture as often as it has embeddings."""
    token, rest = _image_token(backbone), iter(parts)
    ids: list[int] = []
    for each in backbone.encode(text):
        ids += [each] * (len(next(rest, parts[-1])) if each == token else 1)
    whole = torch.tensor([ids], device=backbone.model.device)
    return {"input_ids": whole, "mm_token_type_ids": (whole == token).int()}


def _runs(ids: Sequence[int], token: int) -> list[list[int]]:
    """The places of each row of the token."""
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


def _shown(rows: Tensor, run: Sequence[int], axes: Int[Tensor, "axis position"] | None) -> Shown:
    """A picture that stands in these places of a prompt."""
    if axes is None:
        return Shown(rows, len(run))
    start = int(axes[:, run[0]].min())
    behind = run[-1] + 1
    takes = int(axes[:, behind].min()) - start if behind < axes.shape[1] else len(run)
    return Shown(rows, takes, axes[:, run[0] : behind] - start)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


def _image_token(backbone: Backbone) -> int:
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


def _name(given: Mapping[str, Tensor]) -> int:
    """A name for what a model is shown, the same for the same pixels."""
    digest = hashlib.sha256()
    for key in sorted(set(given) - {"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids"}):
        value = given[key].cpu().contiguous()
        digest.update(f"{key} {tuple(value.shape)} {value.dtype}\n".encode())
        digest.update(value.view(torch.uint8).numpy().tobytes())
    return int.from_bytes(digest.digest()[:8]) % NAMES
