"""A cache of rows that come and go, and whether a model bears one: its keys and values are all it keeps."""

from __future__ import annotations

import math
import mmap
from collections import deque
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from palette.backbones.backbone import Backbone
from palette.backbones.prefixes import Prefix, prefilled, read_prefix, shared_prefix
from palette.backbones.scoring import Batch, KeysValues, forward, held_by, padded, rounding
from palette.shapes import Float, Int, Tensor

WORTHWHILE = 8
"""Shared tokens from which on a pass of their own was measured to cost less than one for each row."""
PLAIN_LAYERS = frozenset({"full_attention", "sliding_attention", "global"})
"""Layers whose whole memory is keys and values; a sliding one is plain up to its window."""
ROOM = 8
"""Tokens of room: a copy every so many steps costs little, and wider rows lie further apart in memory."""
PERIODS = (2, 3, 5)
"""Every so many numbers of an embedding are off to the other side."""
PROBE = ((5, 7, 11, 13, 6, 9), (5, 7, 8, 10))
"""Two token sequences that begin alike and differ in length."""

BY_LIBRARY = (
    "the model keeps more than keys and values, or other ones than a plain pass: its replies are made by "
    "the library's own loop, and nothing that prompts share is read once"
)
"""What is said where a model bears no cache of rows that come and go."""


class SlotLayer(DynamicLayer):
    """Keys and values in a wider place: what is in use is a view, and a step copies no token but its own."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self.room = (keys, values)
        self.show(0, 0)

    def show(self, rows: int, width: int) -> tuple[Tensor, Tensor]:
        """Takes the first rows and tokens of the place into use."""
        keys, values = (room[:rows, :, :width] for room in self.room)
        self.keys, self.values, self.width = keys, values, width
        return keys, values

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """The keys and values of all tokens, the new ones among them."""
        rows, end = len(key_states), self.width + key_states.shape[2]
        for room, states in zip(self.room, (key_states, value_states), strict=True):
            room[:rows, :, self.width : end] = states
        return self.show(rows, end)


class GrowingCache:
    """Rows that grow together in one cache, which each may leave and others may join."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self.rows, self.width = 0, 0
        self.cache = DynamicCache()
        self._mask = torch.empty((0, 0), dtype=torch.long)

    @property
    def mask(self) -> Int[Tensor, "row past"]:
        """Which of the tokens that the cache holds are real."""
        return self._mask[: self.rows, : self.width]

    def join(self, read: Prefix) -> None:
        """Adds rows that were read, padded on the left to the others' width."""
        count, wide = read.mask.shape
        if wide > self.width or not self.rows:
            self._renew(read.known, read.mask, wide)
        place, start = slice(self.rows, self.rows + count), self.width - wide
        for layer, pair in zip(self.cache.layers, read.known, strict=True):
            for room, states in zip(getattr(layer, "room", ()), pair, strict=False):
                # What is masked is multiplied by zero, which only a number survives.
                room[place, :, :start] = 0
                room[place, :, start : self.width] = states
        self._mask[place, :start] = 0
        self._mask[place, start : self.width] = read.mask
        self.rows += count
        self._show()

    def leave(self, stay: Sequence[int]) -> list[int]:
        """Only these rows stay, in ascending order; which of the rows each row was before.

        The last rows move into the places that became free, and nothing else is copied.
        """
        staying, count = set(stay), len(stay)
        order = list(range(count))
        holes = [row for row in order if row not in staying]
        movers = [row for row in stay if row >= count]
        if holes:
            to, of = (torch.tensor(rows, device=self._mask.device) for rows in (holes, movers))
            for layer in self.cache.layers:
                for room in getattr(layer, "room", ()):
                    room[to, :, : self.width] = room[of, :, : self.width]
            self._mask[to, : self.width] = self._mask[of, : self.width]
        for hole, mover in zip(holes, movers, strict=True):
            order[hole] = mover
        self.rows = count
        self._show()
        return order

    def step(self, backbone: Backbone, tokens: Int[Tensor, "row"]) -> Float[Tensor, "row vocabulary"]:
        """The logits after one more token of each row."""
        if self.width == self._mask.shape[1]:
            self._renew([], self.mask, 0)
        ids = tokens.unsqueeze(1)
        batch = Batch(list(range(self.rows)), ids, torch.ones_like(ids))
        logits = forward(backbone, batch, 1, self.cache, self.mask)[:, -1]
        self._mask[: self.rows, self.width] = 1
        self.width += 1
        return logits

    def _renew(self, known: KeysValues, like: Tensor, wide: int) -> None:
        """Makes room for more tokens, and leaves behind what is padding in every row."""
        used = self.mask.any(0)
        start = int(used.int().argmax()) if self.rows else self.width
        width = max(self.width - start, wide)
        pairs = deque(held_by(self.cache) if self.rows else known)
        front = width - (self.width - start)
        layers: list[DynamicLayer] = []
        # Layer by layer, so that each old one is gone before the next is made.
        self.cache = DynamicCache()
        while pairs:
            pair = pairs.popleft()
            # A layer that borrows another's keys holds none.
            if pair[0].dim() < 4:
                layers.append(DynamicLayer())
                continue
            shape = (self._capacity, pair[0].shape[1], width + ROOM)
            rooms = [room_for((*shape, states.shape[3]), states) for states in pair]
            if self.rows:
                for room, states in zip(rooms, pair, strict=True):
                    room[: self.rows, :, :front] = 0
                    room[: self.rows, :, front:width] = states[:, :, start:]
            layers.append(SlotLayer(rooms[0], rooms[1]))
        mask = like.new_zeros((self._capacity, width + ROOM))
        if self.rows:
            mask[: self.rows, front:width] = self.mask[:, start:]
        self._mask, self.width = mask, width
        self.cache.layer_class_to_replicate, self.cache.layers = None, list(layers)
        self._show()

    def _show(self) -> None:
        for layer in self.cache.layers:
            if isinstance(layer, SlotLayer):
                layer.show(self.rows, self.width)


def room_for(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """A place for numbers like these, of any value; a CPU's system has its memory back once it is left.

    Each is wider than the one before it and fits into none that was left, so that what the C library had
    once given stayed this process's and was nobody's.
    """
    size = math.prod(shape) * like.element_size()
    if like.device.type != "cpu" or not size or not hasattr(mmap, "MAP_PRIVATE"):
        return like.new_empty(shape)
    return torch.frombuffer(mmap.mmap(-1, size, access=mmap.ACCESS_COPY), dtype=like.dtype).view(shape)


def window(backbone: Backbone) -> int | None:
    """How many tokens every layer remembers, prompt and reply together; None for any number, 0 for none.

    0 says that the model keeps something else than keys and values, as recurrent layers do.
    """
    config = backbone.model.config.get_text_config()
    # The second is GPT-Neo's name, whose local layers count what is padded too.
    kinds = getattr(config, "layer_types", None) or getattr(config, "attention_layers", None)
    known = set(kinds or ["full_attention"])
    stateful = bool(getattr(backbone.model, "_is_stateful", False))
    if stateful or backbone.model.config.is_encoder_decoder or not known <= PLAIN_LAYERS:
        return 0
    if getattr(config, "use_cache", True) is False:
        return 0
    sliding = getattr(config, "sliding_window", None)
    # Older configurations name a window and no layers: then any layer may have it.
    slides = "sliding_attention" in known or getattr(config, "layer_types", None) is None
    return int(sliding) if sliding and slides else None


def same_logits(
    backbone: Backbone, found: Float[Tensor, "row vocabulary"], expected: Float[Tensor, "row vocabulary"]
) -> bool:
    """Whether two passes gave the same logits, up to rounding."""
    apart = float((found.to(expected) - expected).abs().max())
    # Most models need no more than is known without a pass.
    return apart <= rounding(expected) or apart <= _deep_rounding(backbone, expected)


def _deep_rounding(backbone: Backbone, expected: Float[Tensor, "row vocabulary"]) -> float:
    """By how much a model's logits may differ between two orders of the same sums.

    That is their own ``rounding``, or a few times what becomes of them where every number of the embeddings
    is off by its last bit: in deep models whose streams have a few huge numbers, far more.
    """
    step, moved = torch.finfo(expected.dtype).eps, 0.0
    rows = [padded([ids], [0], 0, backbone.model.device) for ids in PROBE]
    plain = torch.stack([forward(backbone, row, 1)[0, -1] for row in rows])
    for period in PERIODS:

        def off(module: nn.Module, args: object, embedded: Tensor, period: int = period) -> Tensor:
            signs = torch.ones_like(embedded)
            signs[..., ::period] = -1
            return embedded * (1 + step * signs)

        handle = backbone.model.get_input_embeddings().register_forward_hook(off)
        try:
            changed = torch.stack([forward(backbone, row, 1)[0, -1] for row in rows])
        finally:
            handle.remove()
        moved = max(moved, float((changed - plain).abs().max()))
    return max(rounding(expected), 4 * moved)


@torch.no_grad()
def bytes_a_token(backbone: Backbone) -> int:
    """The bytes of keys and values that one token takes, measured; 0 if the model bears no such cache.

    Measured with what is mounted: rows that begin alike share a prefix, one of them is padded behind
    it, and the next token's logits must be those of each row alone, up to rounding.
    """
    if window(backbone) == 0:
        backbone.note(BY_LIBRARY)
        return 0
    device = backbone.model.device
    first, second = PROBE
    try:
        alone = [forward(backbone, padded([ids], [0], 0, device), 1)[0, -1] for ids in PROBE]
        prefix = read_prefix(backbone, first[:2])
        ids = torch.tensor([list(first[2:-1]), [0, 0, second[2]]], device=device)
        mask = torch.tensor([[1, 1, 1], [0, 0, 1]], device=device)
        _, read = prefilled(backbone, Batch([0, 1], ids, mask), prefix)
        slots = GrowingCache(3)
        slots.join(read)
        slots.join(Prefix([(k[:1], v[:1]) for k, v in read.known], read.mask[:1]))
        slots.leave([1, 2])
        stepped = slots.step(backbone, torch.tensor([first[-1], second[-1]], device=device))
        expected = torch.stack(alone)
        agrees = same_logits(backbone, stepped, expected)
    except Exception:  # A model with a cache of its own kind may fail in any way.
        agrees = False
    if not agrees:
        backbone.note(BY_LIBRARY)
        return 0
    return sum(k.nbytes + v.nbytes for k, v in prefix.known) // 2


def stated_bytes_a_token(backbone: Backbone) -> int:
    """The bytes of keys and values that one token takes by the configuration; the model need not be there.

    Where that names no heads, as if each block kept two streams.
    """
    config = backbone.model.config.get_text_config()
    all_heads, heads = (
        getattr(config, name, None) for name in ("num_attention_heads", "num_key_value_heads")
    )
    kept = backbone.width
    if isinstance(all_heads, int) and all_heads:
        size = getattr(config, "head_dim", None) or backbone.width // all_heads
        kept = size * (heads if isinstance(heads, int) and heads else all_heads)
    return 2 * backbone.layers * kept * backbone.model.dtype.itemsize


def common_start(backbone: Backbone, sequences: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The first tokens of every sequence, all but its last, as a template with a system prompt has them.

    None where they are few, or where the model bears no cache that can be gone on from.
    """
    tokens = shared_prefix(sequences, WORTHWHILE)
    return tokens if tokens and window(backbone) is None and bytes_a_token(backbone) else ()
