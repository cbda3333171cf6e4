"""A frozen chat model with its tokenizer, and where its parts are, in the library's own words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property, partial, reduce
from itertools import takewhile
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D

from palette.backbones.template import PROBES, ChatTemplate, Messages, end_tokens
from palette.errors import BackboneError
from palette.prompts.thoughts import without_thoughts
from palette.settings import Thinking
from palette.shapes import Tensor

LINEAR = (nn.Linear, Conv1D)
"""What takes a LoRA. The second, GPT-2's, keeps its weight as [d_in, d_out]."""


def shared(sequences: Sequence[Sequence[int]]) -> int:
    """How many first tokens all sequences have in common."""
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, zip(*sequences, strict=False)))


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

    @cached_property
    def template(self) -> ChatTemplate:
        """How conversations become tokens."""
        return ChatTemplate(self.tokenizer, self.name, self.thinking, self.system)

    @cached_property
    def blocks(self) -> list[nn.Module]:
        """The decoder's blocks in order: the one list in the decoder as long as its config says.

        Raises:
            BackboneError: if there is no such list, or more than one.
        """
        decoder = self.model.get_decoder()
        layers = self.layers
        lists = [
            module
            for module in decoder.children()
            if isinstance(module, nn.ModuleList) and len(module) == layers
        ]
        if len(lists) != 1:
            raise BackboneError(
                f"a decoder must hold one list of its {layers} blocks",
                got=f"{len(lists)} in {type(decoder).__name__}",
                remedy="use a decoder-only transformers model",
                where=self.name,
            )
        return list(lists[0])

    @cached_property
    def writers(self) -> list[list[nn.Module]]:
        """The linear modules of each block that write to the residual stream.

        Raises:
            BackboneError: if a block writes in another way too.
        """
        ids = torch.tensor([self.render([{"role": "user", "content": PROBES[0]}])])
        names = find_writers(self.model, self.blocks, self.width, ids.to(self.model.device))
        return [
            [block.get_submodule(name) for name in paths]
            for block, paths in zip(self.blocks, names, strict=True)
        ]

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
        return int(self.model.config.get_text_config().num_hidden_layers)

    @property
    def width(self) -> int:
        """The width of the residual stream, d_model."""
        return int(self.model.config.get_text_config().hidden_size)

    @property
    def vocabulary(self) -> int:
        """How many tokens have a logit."""
        return int(self.model.config.get_text_config().vocab_size)

    @property
    def pad(self) -> int:
        """The padding token's id."""
        return int(self.tokenizer.pad_token_id)

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
        """The token ids of a conversation, ready for the reply's first token."""
        return self.template.render(messages)

    def encode(self, text: str) -> list[int]:
        """The token ids of a text, with none of the tokenizer's own around it."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def decode(self, ids: list[int]) -> str:
        """The text of a reply, without special tokens, and without what they mark as thoughts."""
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


def linear_shape(module: nn.Module | None) -> tuple[int, int] | None:
    """The outputs and the inputs of a linear module; None of any other."""
    if isinstance(module, Conv1D):
        return module.nf, module.nx
    d_out, d_in = (getattr(module, f"{side}_features", None) for side in ("out", "in"))
    return None if d_out is None or d_in is None else (d_out, d_in)


@torch.no_grad()
def find_writers(model: nn.Module, blocks: Sequence[nn.Module], width: int, ids: Tensor) -> list[list[str]]:
    """The names, within each block, of the linears without which the block changes nothing.

    Silence every linear that gives vectors of the stream's width, and each block hands its input on
    as it is. Let them speak again one by one, in the order in which they run: a linear that is heard
    only through a later, silent one (a query projection as wide as the stream) is no writer. No
    module's name is guessed.

    Raises:
        BackboneError: if a block still writes with all of them silent, as fused experts do.
    """
    silent = [
        [name for name, module in block.named_modules() if (linear_shape(module) or (None,))[0] == width]
        for block in blocks
    ]
    order: list[str] = []
    if not _is_identity(model, blocks, silent, ids, order):
        raise BackboneError(
            "weight orthogonalisation needs blocks that write through linear modules only",
            got=f"{type(blocks[0]).__name__}, which writes in another way too",
            remedy="leave weight_orthogonalisation out of search.methods",
        )
    for name in dict.fromkeys(order):
        fewer = [[other for other in names if other != name] for names in silent]
        if _is_identity(model, blocks, fewer, ids, []):
            silent = fewer
    return silent


def _is_identity(
    model: nn.Module,
    blocks: Sequence[nn.Module],
    silent: Sequence[Iterable[str]],
    ids: Tensor,
    order: list[str],
) -> bool:
    """Whether every block hands its input on; notes in ``order`` when each silent linear ran."""
    same: list[bool] = []
    with ExitStack() as stack:
        for block, names in zip(blocks, silent, strict=True):
            for name in names:
                hook = partial(_silence, name, order)
                stack.callback(block.get_submodule(name).register_forward_hook(hook).remove)
            compare = partial(_compare, same)
            stack.callback(block.register_forward_hook(compare, with_kwargs=True).remove)
        model(input_ids=ids, use_cache=False)
    return all(same)


def _silence(name: str, order: list[str], module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
    order.append(name)
    return torch.zeros_like(output)


def _compare(same: list[bool], module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
    before = args[0] if args else kwargs["hidden_states"]
    after = output[0] if isinstance(output, tuple) else output
    same.append(torch.equal(before, after))
