"""What the library makes of a prompt with pictures: a processor's tokens and pixels, a tower's embeddings.

The embeddings are read where they are whole: at the door of the decoder, as the library's own pass of the
prompt hands them in, which ends there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from os import SEEK_END
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any
from weakref import finalize

import numpy as np
import torch
from torch import nn
from transformers import AutoConfig, AutoImageProcessor, AutoProcessor, AutoTokenizer
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

from palette.backbones.backbone import Backbone
from palette.errors import BackboneError, first_line
from palette.shapes import Float, Int, Tensor

TOKEN = ("image_token_id", "image_token_index")
"""What configurations call the token in whose places a picture's embeddings stand."""
KEPT = 1 << 29
"""Bytes of pictures' embeddings that are held in memory: a thousand tokens of one take some 14 million."""
DEEP = "deepstack_visual_embeds"
"""What decoders call what is added to pictures' tokens behind their first blocks."""


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


class Store:
    """What is kept of pictures: so many bytes in memory, all others in a file that has no name.

    The system reads that as it is asked for, and gives its memory back where another needs it.
    """

    def __init__(self, room: int = KEPT) -> None:
        self._left = room
        self._file: IO[bytes] | None = None

    def keep(self, shown: Shown) -> Shown:
        """The same picture, in memory or not."""
        deep = None if shown.deep is None else self._kept(shown.deep)
        return replace(shown, rows=self._kept(shown.rows), deep=deep)

    def _kept(self, tensor: Tensor) -> Tensor:
        size = tensor.numel() * tensor.element_size()
        if size <= self._left:
            self._left -= size
            return tensor
        if self._file is None:
            self._file = TemporaryFile()  # noqa: SIM115 - what was read of it stays when it is closed
            finalize(self, self._file.close)
        content = tensor.cpu().contiguous().view(torch.uint8).flatten().numpy()
        start = self._file.seek(0, SEEK_END)
        self._file.write(content.tobytes())
        self._file.flush()
        mapped = np.memmap(self._file, np.uint8, "r+", start, content.shape)
        return torch.from_numpy(mapped).view(tensor.dtype).view(tensor.shape)


@dataclass(frozen=True)
class Reading:
    """A rendered conversation as the library reads it."""

    given: Mapping[str, Tensor]
    """What the model is called with, ids and pixels among it."""
    ids: list[int]
    runs: list[list[int]]
    """The places of each row of the picture token."""


class Processor:
    """How a model of a folder is shown words and pictures."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def reading(self, backbone: Backbone, text: str, pictures: Sequence[Any]) -> Reading:
        """A rendered conversation and its pictures, decoded, as the library reads them.

        Raises:
            BackboneError: if the processor is not there, or does not take them.
        """
        asked = {"text": [text], "images": [[*pictures]], "add_special_tokens": False}
        token, processor = image_token(backbone), self._whole
        try:
            made = dict(processor(**asked, return_mm_token_type_ids=True, return_tensors="pt"))
        except Exception as error:  # Each family's processor has laws of its own.
            raise BackboneError(
                "a model's processor must take the pictures of a prompt",
                got=first_line(error),
                remedy="show as many, and as large ones, as the model was made for, in its own chat template",
                where=backbone.name,
            ) from error
        ids = made["input_ids"][0].tolist()
        device, dtype = backbone.model.device, backbone.model.dtype
        given = {name: value.to(device) for name, value in made.items() if isinstance(value, Tensor)}
        given |= {name: value.to(dtype) for name, value in given.items() if value.is_floating_point()}
        return Reading(given, ids, _runs(ids, token))

    @cached_property
    def _whole(self) -> Any:
        """The processor of words and pictures.

        Raises:
            BackboneError: if it is not there, or cannot be loaded.
        """
        told: dict[str, Any] = {"local_files_only": True}
        try:
            found = AutoProcessor.from_pretrained(self._folder, **told)
        except Exception:  # That of some families reads videos too, by a package that pictures do not need.
            found = None
        if hasattr(found, "image_processor"):
            return found
        try:
            return _still(self._folder, told)
        except Exception as error:  # It may lack a file, or be of a newer library.
            raise BackboneError(
                "a model that sees must have its processor beside it",
                got=first_line(error),
                remedy="add processor_config.json and preprocessor_config.json, or install what it asks for",
                where=self._folder,
            ) from error


def _still(folder: Path, told: dict[str, Any]) -> Any:
    """The processor of a folder without what reads videos or sounds."""
    whole: Any = PROCESSOR_MAPPING[type(AutoConfig.from_pretrained(folder, **told))]

    def check(self: Any, name: str, part: Any) -> Any:
        return None if part is None else whole.check_argument_for_proper_class(self, name, part)

    # Of a class's own ``__init__`` the library reads which parts and which settings it takes.
    own = {"__init__": whole.__init__, "check_argument_for_proper_class": check}
    still: Any = type(whole.__name__, (whole,), own)
    loaders: dict[str, Any] = {"image_processor": AutoImageProcessor, "tokenizer": AutoTokenizer}
    parts = [
        loaders[name].from_pretrained(folder, **told) if name in loaders else None
        for name in whole.get_attributes()
    ]
    settings, _ = whole.get_processor_dict(folder, **told)
    return still.from_args_and_dict(parts, settings)


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


class _AtTheDoor(Exception):  # noqa: N818 - not an error: how a pass ends early
    """Ends a pass at the door of the decoder."""


@torch.no_grad()
def looked(backbone: Backbone, read: Reading) -> list[Shown]:
    """What stands in each row of places of a prompt, which the tower looks at.

    Raises:
        BackboneError: if the library cannot show the model these pictures in these places.
    """
    handed: dict[str, Any] = {}

    def stop(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if kwargs.get("inputs_embeds") is not None:
            handed.update(kwargs)
            raise _AtTheDoor

    def enter(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        stream = args[0] if args else kwargs["hidden_states"]
        stop(block, (), {"inputs_embeds": stream, "position_ids": None})

    model: Any = backbone.model
    handles = [
        model.get_decoder().register_forward_pre_hook(stop, with_kwargs=True, prepend=True),
        # Of a decoder that is handed the pixels, as Chameleon's, the door is that of its first block.
        backbone.blocks[0].register_forward_pre_hook(enter, with_kwargs=True, prepend=True),
    ]
    try:
        model(**read.given, use_cache=False)
    except _AtTheDoor:
        pass
    except Exception as error:
        raise BackboneError(
            "a chat template must show each picture once, and the library must take it",
            got=first_line(error),
            remedy="use the template and the processor that the model came with",
            where=backbone.name,
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    deep, axes = handed.get(DEEP), handed["position_ids"]
    return _shown(
        handed["inputs_embeds"][0],
        read.runs,
        # Some families have a row for words before those of the axes, and some count in whole floats.
        axes[-3:, 0].long() if axes is not None and axes.dim() == 3 else None,
        None if deep is None else torch.stack([*deep]),
    )


def _runs(ids: Sequence[int], token: int) -> list[list[int]]:
    groups = groupby(range(len(ids)), key=lambda at: ids[at] == token)
    return [[*places] for held, places in groups if held]


def _shown(
    embedded: Float[Tensor, "position d_model"],
    runs: Sequence[Sequence[int]],
    axes: Int[Tensor, "axis position"] | None,
    deep: Float[Tensor, "block token d_model"] | None,
) -> list[Shown]:
    """What stands in each row of places of a prompt."""
    shown, done = [], 0
    for run in runs:
        own, (first, behind) = slice(done, done + len(run)), (run[0], run[-1] + 1)
        takes, offsets = len(run), None
        if axes is not None:
            start, offsets = int(axes[:, first].min()), axes[:, first:behind] - int(axes[:, first].min())
            takes = int(axes[:, behind].min()) - start if behind < axes.shape[1] else takes
        rows = embedded[first:behind].clone()
        shown.append(Shown(rows, takes, offsets, None if deep is None else deep[:, own].clone()))
        done = own.stop
    return shown
