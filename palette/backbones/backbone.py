"""A frozen chat model with its tokenizer, and where its parts are, in the library's own words."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from itertools import takewhile
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from palette.backbones.architectures import blind, count_blocks, find_blocks, shares_keys
from palette.backbones.template import PROBES, ChatTemplate, Messages, end_tokens
from palette.backbones.writers import Gains, find_writers, gains_behind, refuse_passing
from palette.errors import BackboneError
from palette.prompts.turns import without_thoughts
from palette.settings import Thinking
from palette.shapes import Bool, Int, Tensor

PICTURED = 1 << 40
"""The first id of a token that is part of a picture, far beyond any vocabulary."""


def shared(sequences: Sequence[Sequence[Hashable]]) -> int:
    """How many first tokens all sequences have in common."""
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, zip(*sequences, strict=False)))


@runtime_checkable
class Sight(Protocol):
    """What shows a model pictures, as runs of tokens from ``PICTURED`` on."""

    def ids(self, backbone: Backbone, messages: Messages) -> list[int]:
        """The token ids of a conversation with pictures, ready for the reply's first token."""

    def placeless(self, ids: Int[Tensor, "batch position"]) -> Bool[Tensor, "batch position"]:
        """Which tokens take no position."""

    def arguments(
        self,
        model: Any,
        ids: Int[Tensor, "batch position"],
        flat: Int[Tensor, "batch position"],
        before: Int[Tensor, "batch past"],
    ) -> dict[str, Tensor]:
        """What the model is told of a batch beside its ids, of which ``flat`` are the positions in words."""


@dataclass(frozen=True)
class Backbone:
    """A model that is never edited in place, its tokenizer, and its identity."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    fingerprint: str
    thinking: Thinking = "closed"
    system: str = ""
    """What stands before every conversation that has no system message of its own."""
    sight: Sight | None = None
    """How it is shown pictures; None of a model that reads words alone."""
    padding: bool = True
    """Whether rows may be padded on the left; where not, those of one length are run together."""

    @cached_property
    def template(self) -> ChatTemplate:
        """How conversations become tokens."""
        return ChatTemplate(self.tokenizer, self.name, self.thinking, self.system)

    @cached_property
    def blocks(self) -> list[nn.Module]:
        """The decoder's blocks in order.

        Raises:
            BackboneError: if there is no one list of them, or they do not run once at every position.
        """
        return find_blocks(self.model, self.name)

    @cached_property
    def writers(self) -> list[list[nn.Module]]:
        """The linear modules and fused experts of each block that write to the residual stream.

        Raises:
            BackboneError: if a block writes in another way too.
        """
        refuse_passing(self.model.config)
        names = find_writers(self.model, self.blocks, self.width, self._probe)
        return [
            [block.get_submodule(name) for name in paths]
            for block, paths in zip(self.blocks, names, strict=True)
        ]

    @cached_property
    def gains(self) -> Gains:
        """The gains of the norms between writers and the residual stream, by writer that has one.

        Raises:
            BackboneError: if it is not certain what a direction of the stream is of a writer's output.
        """
        return gains_behind(self.model, self.blocks, self.writers, self._probe)

    @cached_property
    def values(self) -> list[int]:
        """How many values each block gives, the stream first; 0 where it gives the stream and no tuple.

        Raises:
            BackboneError: if a block does not run.
        """
        given: dict[nn.Module, int] = {}

        def note(block: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            given[block] = len(output) if isinstance(output, tuple) else 0

        with ExitStack() as stack, torch.no_grad():
            for block in self.blocks:
                stack.callback(block.register_forward_hook(note).remove)
            self.model(input_ids=self._probe, use_cache=False)
        if missing := [index for index, block in enumerate(self.blocks) if block not in given]:
            raise BackboneError(
                "each block must run once at every position, on one residual stream",
                got=f"block {missing[0]} of {self.layers}, which did not run",
                remedy="use another model",
                where=self.name,
            )
        return [given[block] for block in self.blocks]

    @property
    def _probe(self) -> Tensor:
        ids = self.render([{"role": "user", "content": PROBES[0]}])
        return torch.tensor([ids], device=self.model.device)

    @property
    def weightless(self) -> int | None:
        """The first token id that is read but takes no position; None where every token takes one."""
        return None

    @property
    def releases(self) -> bool:
        """Whether a reply sees none of the tokens that take no position, which its prompt has read."""
        return False

    @property
    def layers(self) -> int:
        """How many blocks the decoder has."""
        return count_blocks(self.model.config)

    @property
    def width(self) -> int:
        """The width of the residual stream, d_model."""
        return int(self.model.config.get_text_config().hidden_size)

    @property
    def vocabulary(self) -> int:
        """How many tokens have a logit."""
        return int(self.model.config.get_text_config().vocab_size)

    @property
    def pad(self) -> int | None:
        """The padding token's id; None where rows are not padded."""
        return int(self.tokenizer.pad_token_id) if self.padding else None

    @property
    def shares_keys(self) -> bool:
        """Whether blocks read keys of others, so that none can be run without those below it."""
        return shares_keys(self.model.config)

    @cached_property
    def notices(self) -> list[str]:
        """What is done otherwise with this model than with most, in sentences that nobody has read yet."""
        return []

    def note(self, sentence: str) -> None:
        """Keeps a sentence on what is done otherwise with this model, once, until somebody reads it."""
        if sentence not in self.notices:
            self.notices.append(sentence)

    @cached_property
    def stops(self) -> tuple[int, ...]:
        """The ids of the tokens that end a reply; with the first of them a finished one ends.

        Raises:
            BackboneError: if neither the template, the model nor its tokenizer names one.
        """
        return end_tokens(self.model, self.template)

    def twin(self) -> Backbone:
        """The same weights, parameters that are trained among them, in modules with hooks of their own.

        A thread that hooks into the twin is not seen by one that runs the original.
        """
        tensors = (*self.model.parameters(), *self.model.buffers())
        return replace(self, model=deepcopy(self.model, {id(tensor): tensor for tensor in tensors}))

    def twins(self, count: int) -> list[Backbone]:
        """So many of the same, itself the first of them: one for each piece of work that runs at once."""
        return [self, *(self.twin() for _ in range(1, count))]

    def render(self, messages: Messages) -> list[int]:
        """The token ids of a conversation, ready for the reply's first token.

        Raises:
            BackboneError: if the template or the model does not take it.
        """
        if not any("pictures" in one for one in messages):
            return self.template.render(messages)
        reason = blind(self.model.config)
        if reason or self.sight is None:
            raise BackboneError(
                "a prompt with a picture must be asked of a model that sees it as tokens",
                got=f"{self.model.config.model_type}, {reason or 'which reads words alone'}",
                remedy="choose such a model, or leave those prompts out",
                where=self.name,
            )
        return self.sight.ids(self, messages)

    def encode(self, text: str) -> list[int]:
        """The token ids of a text, with none of the tokenizer's own around it."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def decode(self, ids: list[int]) -> str:
        """The text of tokens, without special ones, what those mark as thoughts, and pictures."""
        ids = [token for token in ids if token < PICTURED]
        special = any(token in self._special for token in ids)
        text = str(self.tokenizer.decode(ids, skip_special_tokens=not special))
        if special:
            text = reduce(
                lambda seen, mark: seen.replace(mark, ""), self._special.values(), without_thoughts(text)
            )
        return text.strip()

    @cached_property
    def _special(self) -> dict[int, str]:
        """The special tokens by id."""
        tokenizer = self.tokenizer
        return dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))

    @cached_property
    def post_instruction(self) -> int:
        """How many tokens the chat template puts after the instruction.

        Raises:
            BackboneError: if it puts none there, so that no position is shared by all prompts.
        """
        count = shared([self.render([{"role": "user", "content": probe}])[::-1] for probe in PROBES])
        if count == 0:
            raise BackboneError(
                "a chat template must put at least one token after the instruction",
                got="none",
                remedy="use a model with a chat template that opens the reply",
                where=self.name,
            )
        return count
