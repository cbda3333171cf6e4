"""Where a taught reply ends that would come to no good.

A student is taught so many tokens of a reply. One that is cut there, before its end, leaves the student to
the backbone, and what a small model goes on to say is a loop, or a refusal after all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from palette.backbones import Backbone, greedy_replies
from palette.backbones.scoring import likeliest_ends
from palette.internalise.examples import Tokens
from palette.processes import Progress, silent

EARLIEST = 3
"""A reply is ended behind a third of its tokens at the earliest."""

Failed = Callable[[Sequence[Sequence[int]], Sequence[Sequence[int]]], Sequence[bool]]
"""Which replies to prompts are no answers: refused, degenerate, or without an end where answers have one."""


@dataclass(frozen=True)
class Endings:
    """Ends a reply where the backbone finds it likeliest, if what that would go on to say is no answer."""

    backbone: Backbone
    failed: Failed
    limit: int
    """The tokens of a reply that people read."""
    progress: Progress = silent
    _ended: dict[tuple[Tokens, Tokens], Tokens] = field(default_factory=dict)

    def __call__(self, pairs: Sequence[tuple[Tokens, Tokens]]) -> list[Tokens]:
        """The reply of each pair of a prompt and a reply, with an end token where it has one now."""
        stops = self.backbone.stops
        new = [pair for pair in dict.fromkeys(pairs) if pair not in self._ended]
        self._ended.update((pair, pair[1]) for pair in new)
        endless = [(prompt, reply) for prompt, reply in new if stops and reply[-1] not in stops]
        limits = [max(1, self.limit - len(reply)) for _, reply in endless]
        with self.progress("endings", len(endless)) as advance:
            begun = [[*prompt, *reply] for prompt, reply in endless]
            rest = greedy_replies(self.backbone, begun, limits, advance)
        whole = [[*reply, *more] for (_, reply), more in zip(endless, rest, strict=True)]
        bad = self.failed([prompt for prompt, _ in endless], whole)
        lost = [pair for pair, no in zip(endless, bad, strict=True) if no]
        prompts, replies = [prompt for prompt, _ in lost], [reply for _, reply in lost]
        least = [-(-len(reply) // EARLIEST) for reply in replies]
        ends = likeliest_ends(self.backbone, prompts, replies, least)
        for pair, end in zip(lost, ends, strict=True):
            self._ended[pair] = (*pair[1][:end], *stops[:1])
        return [self._ended[pair] for pair in pairs]
