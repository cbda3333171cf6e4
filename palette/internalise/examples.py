"""What a student learns from: examples, the backbone's own record of them, and a method's whole task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import log
from typing import Any

import torch

from palette.activations import RankOneEdit, Stream, block_outputs
from palette.adapters.lora import Adapter
from palette.backbones import Backbone, Batch, batches
from palette.backbones.prefixes import Memo, Prefix, continued, read_prefix
from palette.backbones.scoring import telling
from palette.directions import Directions, Intervention, StrengthKernel
from palette.internalise.loop import Checkpoint
from palette.internalise.settings import InternaliseSettings
from palette.processes import ALONE, ProcessGroup
from palette.shapes import Float, Tensor

Tokens = tuple[int, ...]

SHARES = {"target": 14, "near_floor": 14, "floor": 8, "preserve": 32, "near_benign": 6, "benign": 8}
"""How many examples of each pool a step takes.

What is near the target (the floor and the benign prompts of the authorised domains) is drawn more
often than its number would have it: an adapter confuses it with the target first. Target prompts
need few: more of them, instead of other domains', were measured to open less and to keep less.
"""
REPLY_TOKENS = 48
"""Tokens of a kept reply at most, and of one that is chosen to be taught: what decides whether a request is
answered stands before."""
AMPLIFICATION = 2.5
"""Strength of the steering that is taught, beyond 1: a student that has to tell prompts apart reaches a
part of its target only (arXiv 2605.24154 uses the same, uncentred)."""


@dataclass(frozen=True)
class Example:
    """A rendered prompt and a reply with its end token.

    ``taught`` examples are to be answered with the reply; all others must stay as the backbone is, those
    that are ``refused`` too. Of these, the ``floor``'s are opened by no adapter, and ``benign`` ones were
    refused by mistake; examples ``near`` are of the authorised domains.
    """

    prompt: Tokens
    reply: Tokens
    taught: bool
    refused: bool = False
    floor: bool = False
    near: bool = False
    benign: bool = False
    decisive: int = 0
    """The place of the reply's token by which it is told to be an answer, or a refusal."""
    refusing: Tokens = ()
    """What refusals that begin as an answer does say at its decisive place, oftener than answers do."""

    @property
    def ids(self) -> Tokens:
        """The whole sequence."""
        return (*self.prompt, *self.reply)

    @property
    def decided(self) -> int:
        """The tokens of the reply by which it is decided what it is.

        In a mean over tokens only they are counted, so that what follows them makes none of them count less.
        """
        return min(len(self.reply), REPLY_TOKENS)

    def refusing_beside(self, own: int) -> Tokens:
        """What a taught reply is not to say at its decisive place: what refuses there, and the backbone's.

        Nothing if it is not taught, or the backbone would say what it is taught.
        """
        return tuple({*self.refusing, own} - {self.reply[self.decisive]}) if self.taught else ()


Pools = dict[str, list[Example]]


def decided(*splits: Pools) -> list[Pools]:
    """The pools of each split, every example with the decisive place of its reply, and what refuses there.

    With n the number of replies of a side, answers or refusals, that begin as this one does up to a token,
    the decisive place is where log(n + ½) of its own side, less that of the other, rises most. It is the
    first where no answer begins as a refusal does, and behind what both begin with where they do.
    """
    begun: dict[bool, Counter[Tokens]] = {False: Counter(), True: Counter()}
    for example in (each for pools in splits for pool in pools.values() for each in pool):
        begun[example.refused].update(example.reply[:end] for end in range(len(example.reply) + 1))
    next_words: dict[Tokens, list[int]] = {}
    for start in filter(None, begun[True] - begun[False]):
        next_words.setdefault(start[:-1], []).append(start[-1])

    def place(reply: Tokens, refused: bool) -> int:
        own, other = begun[refused], begun[not refused]
        rise = [log(own[reply[:end]] + 0.5) - log(other[reply[:end]] + 0.5) for end in range(len(reply) + 1)]
        return max(range(len(reply)), key=lambda i: rise[i + 1] - rise[i]) if other else 0

    def told(each: Example) -> Example:
        decisive = place(each.reply, each.refused)
        words = () if each.refused else next_words.get(each.reply[:decisive], ())
        refusing = tuple(sorted({*words} - {each.reply[decisive]}))
        return replace(each, decisive=decisive, refusing=refusing)

    return [{name: [told(each) for each in pool] for name, pool in pools.items()} for pools in splits]


@dataclass(frozen=True)
class Reference:
    """What the bare backbone does on one example: logits of the reply, streams at the edited sites."""

    logits: Float[Tensor, "token vocabulary"]
    streams: Float[Tensor, "site position d_model"]


Recall = Callable[[Sequence[int]], list[Reference]]
"""Gives what the bare backbone does on some examples, by their indices."""


def recalling(
    backbone: Backbone,
    examples: Sequence[Example],
    sites: Sequence[int],
    most: float,
    shared: Tokens = (),
) -> Recall:
    """What the backbone, one that is not trained, does on examples; worked out once.

    It is kept up to ``most`` GiB, unless that is little of it: most would be worked out again all the same.
    All examples begin with the ``shared`` tokens.
    """
    tokens = sum(len(example.ids) for example in examples)
    said = sum(len(example.reply) for example in examples)
    most = recalled_gib(backbone, tokens, said, len(sites), most)

    def work(rows: Sequence[int]) -> list[Reference]:
        return references(backbone, [examples[row] for row in rows], sites, shared)

    return Memo(work, lambda known: known.logits.nbytes + known.streams.nbytes, most)


def recalled_gib(backbone: Backbone, tokens: int, said: int, sites: int, most: float) -> float:
    """How many GiB of a backbone's outputs on so many tokens, of which some are said, are worth being kept.

    None where less than half of it would fit.
    """
    gib = 4 * (said * backbone.vocabulary + tokens * sites * backbone.width) / 2**30
    return min(gib, most) if gib < 2 * most else 0.0


@dataclass(frozen=True)
class SharedPrefix:
    """What all sequences begin with, read once, and its streams at the edited sites."""

    prefix: Prefix
    streams: Float[Tensor, "site shared d_model"]


def read_shared(backbone: Backbone, tokens: Tokens, sites: Sequence[int]) -> SharedPrefix | None:
    """The tokens read once, in the model's present state; None where there are none."""
    if not tokens:
        return None
    with block_outputs(backbone.blocks, sites) as streams:
        prefix = read_prefix(backbone, tokens)
    return SharedPrefix(prefix, torch.stack([streams[site][0] for site in sites]))


def outputs(
    backbone: Backbone, batch: Batch, lengths: Sequence[int], sites: Sequence[int], start: SharedPrefix | None
) -> tuple[Float[Tensor, "token vocabulary"], list[Stream]]:
    """The logits with which rows say their last so many tokens, row after row, and the streams at the sites.

    The batch goes on from ``start``. No two passes of the same backbone may run at once.
    """
    longest = max(lengths)
    places = torch.arange(longest + 1, device=batch.ids.device)
    # A token is said one place before it stands.
    firsts = longest - torch.tensor(list(lengths), device=places.device).unsqueeze(1)
    said = (places >= firsts) & (places < longest)
    with block_outputs(backbone.blocks, sites) as streams, telling(backbone, said):
        logits = continued(backbone, batch, longest + 1, start.prefix if start else None)
    return logits[0], [streams[site] for site in sites]


@dataclass(frozen=True)
class TrainingTask:
    """One adapter to be made: of which backbone, from which examples, with which intervention."""

    backbone: Backbone
    directions: Directions
    intervention: Intervention
    """The member of the search's front that was chosen."""
    examples: Sequence[Example]
    pools: Mapping[str, Sequence[int]]
    """The examples of each pool, in the order of ``SHARES``."""
    settings: InternaliseSettings
    checkpoint: Checkpoint
    seed: int = 0
    advance: Callable[[int], None] = lambda count: None
    held_out: Sequence[int] = ()
    """The examples of the validation split, which decide when training ends; never trained on."""
    processes: ProcessGroup = ALONE
    co_mounted: Sequence[Adapter] = ()
    """Adapters of other domains, random subsets of which are mounted while this one is trained."""
    memory_gib: float = 4.0
    """For the backbone's own outputs, and for what a pass keeps for its gradient."""
    begun: Adapter | None = None
    """Whose weights training goes on from; else it begins anew."""
    shares: Mapping[str, int] = field(default_factory=lambda: dict(SHARES))
    """How many examples of each pool a step takes."""
    read_energy: float = 0.1
    """Of the energy of kept inputs, what an adapter of ``distil`` may read: more of it and it opens prompts
    unlike those it was trained on, less and it reaches less of its target."""

    @property
    def edit(self) -> RankOneEdit:
        """What target prompts' streams are to become at the intervention's peak: centred, and flipped.

        The place and the direction are the search's; the strength is ``AMPLIFICATION``.
        """
        chosen = self.intervention
        kernel = StrengthKernel(chosen.kernel.peak, 0, AMPLIFICATION)
        centred = replace(chosen, method="centred_ablation", kernel=kernel)
        return centred.edits(self.directions)["stream", kernel.peak]


@dataclass(frozen=True)
class Learned:
    """What a method gives: an adapter without a card, and what is to be known of it."""

    adapter: Adapter
    record: Mapping[str, Any] = field(default_factory=dict)


@torch.no_grad()
def references(
    backbone: Backbone, examples: Sequence[Example], sites: Sequence[int], shared: Tokens = ()
) -> list[Reference]:
    """The backbone's record of every example, in one pass; all begin with the ``shared`` tokens."""
    known: dict[int, Reference] = {}
    start = read_shared(backbone, shared, sites)
    ends = [example.ids[len(shared) :] for example in examples]
    for batch in batches(ends, backbone.pad, backbone.model.device):
        lengths = [len(examples[row].reply) for row in batch.rows]
        logits, edited = outputs(backbone, batch, lengths, sites, start)
        for row, said, *lines in zip(batch.rows, logits.split(lengths), *edited, strict=True):
            streams = said.new_empty(0, len(ends[row]), backbone.width)
            if lines:
                # Without the row's padding, behind what it goes on from.
                streams = torch.stack([line[-len(ends[row]) :] for line in lines])
                streams = torch.cat([start.streams, streams], dim=1) if start else streams
            # Cloned, so that one kept row does not keep its whole batch in memory.
            known[row] = Reference(said.clone(), streams)
    return [known[row] for row in range(len(examples))]
