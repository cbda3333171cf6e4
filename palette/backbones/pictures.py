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
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import local
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from palette.backbones.architectures import find_blocks
from palette.backbones.backbone import PICTURED, Backbone
from palette.backbones.cache import same_logits, window
from palette.backbones.prefixes import continued, read_prefix
from palette.backbones.scoring import forward, padded, rounding
from palette.backbones.seeing import Processor, Reading, Shown, Store, looked
from palette.errors import BackboneError, first_line
from palette.prompts.pictures import pixels
from palette.shapes import Bool, Float, Int, Tensor

if TYPE_CHECKING:
    from palette.backbones.template import Messages

ROOM = 1 << 20
"""How many ids each picture has."""
NAMES = 1 << 42
"""Pictures that have ids: so many that no two of a run are likely to share one."""
TYPES = ("token_type_ids", "mm_token_type_ids")
"""What models are told a picture's tokens by that read those in both directions."""
BESIDE = frozenset({"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids"})
"""What a model is given that is no part of its pictures."""


LAST_BITS = 1 / 15
"""Of the rounding between two orders of the same sums, what it may be in one order."""


class Pictures:
    """What a model has seen: what its tower made of every picture so far, by name."""

    def __init__(self, folder: Path) -> None:
        self._processor = Processor(folder)
        self._seen: dict[int, Shown] = {}
        self._store = Store()
        self._proven: set[bool] = set()

    def mount(self, model: Any, name: str) -> None:
        """Lets the model read the ids of pictures, wherever it reads ids."""
        lookup = _Lookup(self)
        table: nn.Module = model.get_input_embeddings()
        table.register_forward_pre_hook(lookup)
        table.register_forward_hook(lookup.fill)
        deep = getattr(getattr(model.config, "vision_config", None), "deepstack_visual_indexes", None)
        for index, block in enumerate(find_blocks(model, name)[: len(deep)] if deep else []):
            block.register_forward_hook(_Deep(lookup, index))

    def ids(self, backbone: Backbone, messages: Messages) -> list[int]:
        """The token ids of a conversation with pictures, ready for the reply's first token.

        Of a model without weights, as many ids as it would have, of which none tells what is seen.

        Raises:
            PromptError: if a picture cannot be decoded.
            BackboneError: if the model cannot be shown these, or would not say what it says of the pixels.
        """
        decoded = [pixels(picture) for one in messages for picture in one.get("pictures", ())]
        read = self._processor.reading(backbone, backbone.template.text(messages), decoded)
        if not read.runs:
            raise BackboneError(
                "a chat template must show each picture once",
                got=f"no place for {len(decoded)}",
                remedy="use the template that the model came with",
                where=backbone.name,
            )
        if backbone.model.device.type == "meta":
            return [*read.ids, *backbone.template.closing]
        name, ids = _name(read), [*read.ids]
        names = [(name + number) % NAMES for number in range(len(read.runs))]
        if not all(own in self._seen for own in names):
            self._seen |= zip(names, map(self._store.keep, looked(backbone, read)), strict=True)
        for own, run in zip(names, read.runs, strict=True):
            for place, at in enumerate(run):
                ids[at] = PICTURED + own * ROOM + place
        several = len(names) > 1
        if several not in self._proven:
            self._prove(backbone, ids, read)
            self._proven.add(several)
        return [*ids, *backbone.template.closing]

    def rows(self, ids: Int[Tensor, "token"]) -> Float[Tensor, "token d_model"]:
        """The embeddings of some tokens of pictures."""
        return self._filled(ids, lambda shown, places: shown.rows[places])

    def deep(self, ids: Int[Tensor, "token"], block: int) -> Float[Tensor, "token d_model"]:
        """What the tower adds to them behind a block."""
        return self._filled(
            ids,
            lambda s, places: torch.zeros_like(s.rows[places]) if s.deep is None else s.deep[block, places],
        )

    def placeless(self, ids: Int[Tensor, "batch position"]) -> Bool[Tensor, "batch position"]:
        """Which tokens take no position, since those of their picture before them have taken all it has."""
        held = ids >= PICTURED
        if bool(held.any()):
            held[held.clone()] = self._filled(ids[held], lambda shown, places: places >= shown.takes)
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
        held, told = ids >= PICTURED, {"position_ids": flat}
        if not bool(held.any()):
            return told
        if self._has_axes(ids[held]):
            whole = flat.repeat(3, 1, 1)
            starts = flat[held] - self._filled(ids[held], lambda s, places: places.clamp(max=s.takes - 1))
            whole[:, held] = starts + self._filled(ids[held], _offsets).T
            return told | {"position_ids": whole}
        taken = inspect.signature(model.forward).parameters
        for name in [each for each in TYPES if each in taken][:1]:
            told[name] = torch.cat([torch.zeros_like(before), held.long()], dim=1)
        return told

    def _has_axes(self, ids: Int[Tensor, "token"]) -> bool:
        """Whether tokens of pictures, of a model that has any, have positions of several axes."""
        return self._shown(int(ids[0]) - PICTURED).offsets is not None

    def _filled(self, ids: Int[Tensor, "token"], of: Callable[[Shown, Tensor], Tensor]) -> Tensor:
        """What ``of`` gives for each picture and the places of its tokens, in the order of the tokens."""
        names, places = (ids - PICTURED) // ROOM, (ids - PICTURED) % ROOM
        filled: Tensor | None = None
        for name in names.unique().tolist():
            own, shown = names == name, self._shown(name * ROOM)
            part = of(shown, places[own].to(shown.rows.device)).to(ids.device)
            filled = part.new_empty((len(ids), *part.shape[1:])) if filled is None else filled
            filled[own] = part
        return ids if filled is None else filled

    def _shown(self, token: int) -> Shown:
        """The picture of a token, counted from the first that can be part of one.

        Raises:
            BackboneError: if the model has not been shown it.
        """
        if (shown := self._seen.get(token // ROOM)) is None:
            raise BackboneError(
                "a picture must be shown before it is asked about",
                got="a new one",
                remedy="render its prompt with this backbone",
            )
        return shown

    def _prove(self, backbone: Backbone, ids: list[int], read: Reading) -> None:
        """Returns if the model says what it says of the pixels.

        Raises:
            BackboneError: if it does not: its pictures are more than embeddings.
        """
        if window(backbone) == 0 and self._has_axes(torch.tensor(ids)[read.runs[0]]):
            reason = "which gives its places rows and columns and keeps more than keys and values"
        else:
            reason = _more(backbone, ids, read)
        if reason:
            raise BackboneError(
                "a model must read a picture as embeddings in the places of its tokens",
                got=f"one of the kind {backbone.model.config.model_type}, {reason}",
                remedy="use another model, or prompts in words",
                where=backbone.name,
            )


def _offsets(shown: Shown, places: Tensor) -> Tensor:
    """The positions of a picture's tokens behind its first, [token, axis]."""
    return places.unsqueeze(1) if shown.offsets is None else shown.offsets.T[places]


@torch.no_grad()
def _more(backbone: Backbone, ids: list[int], read: Reading) -> str:
    """What a model does with a picture beside reading it as tokens; nothing where logits are the library's.

    They must be those of its own pass of the pixels to the last bits, since both take the same sums in the
    same order: in half precision any other bound lets wrong places pass. And, up to rounding, those of passes
    that go on from what stands before the picture, and from what ends with it.
    """
    one = partial(padded, rows=[0], pad=0, device=backbone.model.device)
    cuts = {read.runs[0][0], read.runs[-1][-1] + 1} - {0, len(ids)}
    expected = backbone.model(**read.given, logits_to_keep=1).logits[:, -1]
    try:
        whole = forward(backbone, one([ids]))[:, -1]
        got = [
            continued(backbone, one([ids[cut:]]), 1, read_prefix(backbone, ids[:cut]))[:, -1]
            for cut in (sorted(cuts) if window(backbone) != 0 else ())
        ]
    except Exception as error:  # What a family does with its ids may fail in any way.
        return f"which does more with it ({first_line(error)})"
    exact = float((whole - expected).abs().max()) <= LAST_BITS * rounding(expected)
    same = exact and all(same_logits(backbone, each, expected) for each in got)
    return "" if same else "which does more with it"


class _Lookup(local):
    """The two hooks of a table of embeddings: pictures' ids are hidden from it, and their rows filled in.

    What the first one leaves for the second is the thread's own; a copy of the model sees the same.
    """

    def __init__(self, pictures: Pictures) -> None:
        self.pictures = pictures
        self.ids: Int[Tensor, "batch position"] | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> _Lookup:
        # The hooks of one model's copy leave their ids to one another.
        copied: _Lookup = memo.setdefault(id(self), _Lookup(self.pictures))
        return copied

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        # A tower's own tokens may be numbers of 32 bits, in which no picture's id has its place.
        shown = inputs[0].long() >= PICTURED
        self.ids = inputs[0] if bool(shown.any()) else None
        return inputs if self.ids is None else (inputs[0].masked_fill(shown, 0), *inputs[1:])

    def fill(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        if self.ids is None:
            return output
        shown: Bool[Tensor, "batch position"] = self.ids >= PICTURED
        filled = output.clone()
        filled[shown] = self.pictures.rows(self.ids[shown]).to(output.device, output.dtype)
        return filled


class _Deep:
    """The hook of a block behind which the tower speaks once more."""

    def __init__(self, lookup: _Lookup, block: int) -> None:
        self.lookup, self.block = lookup, block

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        ids = self.lookup.ids
        stream = output[0] if isinstance(output, tuple) else output
        if ids is None or stream.shape[:2] != ids.shape:
            return output
        shown, stream = ids >= PICTURED, stream.clone()
        stream[shown] += self.lookup.pictures.deep(ids[shown], self.block).to(stream)
        return (stream, *output[1:]) if isinstance(output, tuple) else stream


def _name(read: Reading) -> int:
    """A name for what a model is shown: the same for the same pixels in as many rows of as many places."""
    digest = hashlib.sha256(repr([len(run) for run in read.runs]).encode())
    for key in sorted(set(read.given) - BESIDE):
        value = read.given[key].cpu().contiguous()
        digest.update(f"{key} {tuple(value.shape)} {value.dtype}\n".encode())
        digest.update(value.view(torch.uint8).numpy().tobytes())
    return int.from_bytes(digest.digest()[:8]) % NAMES
