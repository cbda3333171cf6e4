"""What is asked of a backbone, with and without an adapter, and all that it answers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from palette.adapters.lora import Adapter
from palette.adapters.mounting import mounted
from palette.authorisation import Role
from palette.backbones import Backbone, reply_logits
from palette.evaluation.divergence import divergence
from palette.evaluation.reply_cache import Responses, Tally
from palette.evaluation.wrapping import Wrapped
from palette.prompts import PromptSet
from palette.run import Run

Replies = list[list[int]]


@dataclass(frozen=True)
class Asked:
    """The rows that are asked, their roles, what they are rendered to, and some of them in wrappers."""

    rows: PromptSet
    roles: list[Role]
    rendered: list[list[int]]
    wrapped: Wrapped

    def benign(self, most: int) -> list[int]:
        """The indices of at most so many benign prompts a domain, on which divergence is measured."""
        pairs = zip(self.rows, self.roles, strict=True)
        benign = PromptSet(tuple(row for row, role in pairs if role is Role.BENIGN))
        chosen = {row.id for row in benign.required("benign").capped(most)}
        return [i for i, row in enumerate(self.rows) if row.id in chosen]


@dataclass(frozen=True)
class Lengths:
    """How much is generated. Floor prompts get a few tokens only, so that no content is elicited."""

    reply: int
    floor: int

    def of(self, roles: Sequence[Role]) -> list[int]:
        """The limit of each prompt's reply, in tokens."""
        return [self.floor if role is Role.FLOOR else self.reply for role in roles]


@dataclass(frozen=True)
class Answers:
    """What the backbone said, and the backbone with the adapter, and how far the two diverge."""

    plain: tuple[Replies, Replies]
    framed: tuple[Replies, Replies]
    moved: dict[str, float]
    """Divergence on benign prompts, in nats a token."""
    ideal: Replies | None
    """What the upper bound said."""
    tally: Tally


def answers(
    run: Run,
    asked: Asked,
    lengths: Lengths,
    benign: Sequence[int],
    adapter: Adapter | None,
    bound: Backbone | None,
) -> Answers:
    """All that has to be generated, and the divergence on the ``benign`` rows.

    Raises:
        AdapterError: if the adapter does not fit the backbone.
    """
    backbone, wrapped = run.backbone, asked.wrapped
    passes = 2 if bound is None else 3
    total = passes * len(asked.rows) + 2 * len(wrapped.rows)
    with run.progress("evaluate", total) as advance:
        responses = Responses(run.replies_folder, advance)

        def read(model: Backbone, mounting: Adapter | None) -> Replies:
            return responses.read(model, mounting, asked.rendered, lengths.of(asked.roles))

        def read_framed(mounting: Adapter | None) -> Replies:
            return responses.read(backbone, mounting, wrapped.prompts, lengths.of(wrapped.roles))

        base, base_framed = read(backbone, None), read_framed(None)
        prompts = [asked.rendered[i] for i in benign]
        replies = [[*base[i], backbone.stops[0]] for i in benign]
        first = reply_logits(backbone, prompts, replies)
        adapted, adapted_framed = read(backbone, adapter), read_framed(adapter)
        with mounted(backbone.model, adapter) if adapter else nullcontext():
            moved = divergence(first, reply_logits(backbone, prompts, replies))
        ideal = None if bound is None else read(bound, None)
    return Answers((base, adapted), (base_framed, adapted_framed), moved, ideal, responses.tally)
