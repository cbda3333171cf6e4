"""The loss of a student that must answer target prompts and be the backbone everywhere else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from palette.adapters import mounting
from palette.adapters.lora import Adapter
from palette.backbones import Backbone, Batch, batches
from palette.internalise.examples import (
    Example,
    Recall,
    Reference,
    SharedPrefix,
    Tokens,
    outputs,
    read_shared,
    references,
)
from palette.internalise.token_losses import log_odds, token_losses
from palette.seeding import shuffler
from palette.shapes import Float, Tensor

WHOLE = 1 << 40
"""Tokens of a batch that holds all rows of a part, which is as large as fits into memory."""


@dataclass(frozen=True)
class LossWeights:
    """How much each term counts beside the cross-entropy of the taught replies, and the margins in nats.

    They were chosen on development models of many kinds, and are the same for all (benchmarks/LOG.md).
    """

    divergence: float = 10.0
    """Of the KL to the backbone: of a token of a reply, and once more of its first one, at which it is
    decided what kind of reply it is, and which is one of many."""
    opening: float = 1.0
    """Of the cross-entropy of a taught reply's decisive token, once more: among all tokens of a long reply it
    would count for little, and that it is no refusal does not say what it is."""
    odds: float = 0.07
    """Of the squared nats by which the log-odds of what the backbone would say move at a kept token, for a
    nat of KL. Where it is sure, the KL of one adapter feels nothing, and with three another token is said."""
    identity: float = 100.0
    """Of the relative squared distance of streams, which is small where probabilities barely move."""
    decision: float = 0.7
    """Of the squared nats by which decisive words' log-odds have moved."""
    log_odds_margin: float = 0.2
    """By which kept decisive words are to be surer: more of it adds up when adapters are summed."""
    opening_margin: float = 5.0
    """The log-odds at least that a taught reply does not refuse at its decisive place: other adapters are not
    to close it."""
    floor_margin: float = 3.5
    """By which decisive words on the domains' own floor are to be surer: there other adapters act too."""
    refusal_log_odds: float = 3.0
    """The log-odds that a kept refusal's decisive word is to have at least, however hardly it is given."""


@dataclass(frozen=True)
class OutputLoss:
    """The student's loss on some examples of a step, in nats a token plus the identity penalty.

    Taught examples: where the backbone, given the reply so far, would say the next token itself, KL
    to the backbone; elsewhere (the opening, which it would not say) cross-entropy. All others: KL to
    the backbone over the whole reply, and over its first token, and with it the squared nats by which the
    log-odds of what the backbone says have moved; the relative squared distance of the residual stream at
    the edited sites; and once more the log-odds of the reply's decisive word, to either side. A divergence
    of probabilities hardly feels those where the
    backbone is sure, and what every adapter does alike is counted once for each in their sum. What
    decides inside the domains, taught openings and the refusals of their floor, has a margin: there
    other adapters act on it. That of an opening is over what refuses in its place: people begin an answer
    with many a word.

    Each term is a mean over the whole step, so that what the parts of a step add is its loss exactly.
    """

    backbone: Backbone
    bare: Backbone
    """Its twin without what is trained."""
    examples: Sequence[Example]
    recall: Recall
    sites: Sequence[int]
    weights: LossWeights = LossWeights()
    co_mounted: Sequence[Adapter] = ()
    """Adapters of other domains; in each step a random subset of them is mounted."""
    seed: int = 0
    shared: Tokens = ()
    """Tokens that all examples begin with: run once for all rows of a step, with their gradient."""

    def __call__(self, rows: Sequence[int], step: Sequence[int]) -> Tensor:
        """What ``rows`` add to the loss of the step that they are part of."""
        chosen, mounted = [self.examples[row] for row in rows], self.mounted_in(step)
        bare = self.recall(rows)
        known = self._with_others(chosen, bare, mounted)
        ends = [example.ids[len(self.shared) :] for example in chosen]
        weights, count, tokens = self.weights, Counter[bool](), Counter[bool]()
        for example in (self.examples[row] for row in step):
            count[example.taught] += 1
            tokens[example.taught] += example.decided
        opened, others = max(1, count[True]), max(1, count[False])
        loss = torch.zeros((), device=self.backbone.model.device)
        with mounting.mounted(self.backbone.model, *mounted):
            start = read_shared(self.backbone, self.shared, self.sites)
            # Of like length, since what is padded costs as much as what is not.
            for batch in batches(ends, self.backbone.pad, self.backbone.model.device, self._most):
                taught, opening, kept, first, unsure, moved = self._terms(batch, start, chosen, bare, known)
                loss = loss + taught / max(1, tokens[True]) + weights.opening * opening / opened
                loss = loss + weights.divergence * (kept / max(1, tokens[False]) + first / others)
                loss = loss + weights.decision * unsure / len(step)
                loss = loss + weights.identity * moved / others
        return loss

    @property
    def _most(self) -> int | None:
        """Tokens of a batch at most: in half precision a product brings its weights into order each time."""
        return WHOLE if self.backbone.model.dtype.itemsize == 2 else None

    def _terms(
        self,
        batch: Batch,
        start: SharedPrefix | None,
        chosen: Sequence[Example],
        bare: Sequence[Reference],
        known: Sequence[Reference],
    ) -> list[Tensor]:
        """The sums of a batch: taught, decisive, kept and first tokens' losses, what decided, distances."""
        examples = [chosen[row] for row in batch.rows]
        alone, together = ([one[row] for row in batch.rows] for one in (bare, known))
        lengths = [len(example.reply) for example in examples]
        logits, edited = outputs(self.backbone, batch, lengths, self.sites, start)
        device = logits.device
        counts = torch.tensor(lengths, device=device)
        firsts = counts.cumsum(0) - counts
        taught = torch.tensor([example.taught for example in examples], device=device)
        # The tokens of all rows in one piece: for each row alone it would be a hundred kernels.
        base = torch.cat([one.logits for one in together])
        reply = torch.tensor([token for example in examples for token in example.reply], device=device)
        taught_token = taught.repeat_interleave(counts)
        each = token_losses(logits, base, reply, taught_token, self.weights.odds)
        decisive = firsts + torch.tensor([example.decisive for example in examples], device=device)
        unsure = self.lacking(examples, alone, together, logits[decisive]).square().sum()
        inside = batch.mask.bool() & ~taught.unsqueeze(1)
        streams = [one.streams for one, e in zip(together, examples, strict=True) if not e.taught]
        moved = movement([stream[inside] for stream in edited], streams, start) if streams else 0 * unsure
        losses = [each[taught_token], each[decisive[taught]], each[~taught_token], each[firsts[~taught]]]
        return [*(one.sum() for one in losses), unsure, moved]

    def lacking(
        self,
        examples: Sequence[Example],
        alone: Sequence[Reference],
        together: Sequence[Reference],
        said: Float[Tensor, "row vocabulary"],
    ) -> Float[Tensor, "row"]:
        """The nats of log-odds that lack at each reply's decisive word, or are too many.

        ``alone`` is what the backbone does by itself, ``together`` what it does with other adapters.
        """
        taught, refused, floor, inner, benign = (
            torch.tensor(values, device=said.device)
            for values in zip(
                *((e.taught, e.refused, e.floor, e.floor and e.near, e.benign) for e in examples), strict=True
            )
        )
        places = [example.decisive for example in examples]
        bare, base = (
            torch.stack([one.logits[place] for one, place in zip(rows, places, strict=True)])
            for rows in (alone, together)
        )
        refusing = [e.refusing_beside(own) for e, own in zip(examples, bare.argmax(-1).tolist(), strict=True)]
        words = torch.zeros(said.shape, dtype=torch.bool, device=said.device)
        for row, e, others in zip(words, examples, refusing, strict=True):
            row[list(others) or [e.reply[e.decisive]]] = True
        opens = torch.tensor([bool(others) for others in refusing], device=said.device)
        odds, sure, mounted = (log_odds(logits.float(), words) for logits in (said, bare, base))
        # Of a crossed prompt too: what stands between two refused ones is to be no easier to open. What
        # others open stays open; what they make less sure without opening it does not.
        same = floor | (base.argmax(-1) == bare.argmax(-1))
        least = torch.where(same, torch.maximum(mounted, sure), mounted)
        # A benign prompt that is refused by mistake is to be refused no surer.
        least = least + self.weights.log_odds_margin * ~(benign & refused)
        # Whether the backbone refuses a crossed prompt, only its own odds tell.
        frail = refused & ~benign & same & (sure > 0)
        least = torch.where(frail, least.clamp(min=self.weights.refusal_log_odds), least)
        least = torch.where(inner, sure + self.weights.floor_margin, least)
        lacking = least.masked_fill(taught, self.weights.opening_margin) - torch.where(opens, -odds, odds)
        return torch.where(taught | inner, lacking.relu(), lacking)

    def mounted_in(self, step: Sequence[int]) -> list[Adapter]:
        """The other adapters that are mounted in a step: as many as are drawn, from none to all."""
        draw = shuffler(self.seed, "beside", *step)
        return draw.sample(list(self.co_mounted), draw.randint(0, len(self.co_mounted)))

    def _with_others(
        self, chosen: Sequence[Example], bare: Sequence[Reference], mounted: Sequence[Adapter]
    ) -> list[Reference]:
        """What the backbone does on examples, on kept ones with what is mounted."""
        if not mounted:
            return list(bare)
        kept = [example for example in chosen if not example.taught]
        with mounting.mounted(self.bare.model, *mounted):
            changed = iter(references(self.bare, kept, self.sites, self.shared))
        return [own if example.taught else next(changed) for own, example in zip(bare, chosen, strict=True)]


def movement(
    streams: Sequence[Float[Tensor, "token d_model"]],
    base: Sequence[Float[Tensor, "site _position d_model"]],
    start: SharedPrefix | None,
) -> Tensor:
    """The sum over rows of the mean of ‖h − h₀‖² / ‖h₀‖² over sites and positions.

    ``streams`` are, site by site, those of all rows in one piece, behind what they all begin with.
    """
    shared = start.streams.shape[1] if start else 0
    counts = [each.shape[0] * each.shape[1] for each in base]
    sizes = torch.tensor(counts, device=base[0].device).repeat_interleave(
        torch.tensor([each.shape[1] - shared for each in base], device=base[0].device)
    )
    total = torch.zeros((), device=base[0].device)
    # Site by site: all at once is several times what the blocks themselves keep of a wide model.
    for site, stream in enumerate(streams):
        behind = torch.cat([each[site, shared:] for each in base]).float()
        total = total + (relative_distances(stream.float(), behind) / sizes).sum()
    if start:
        ahead = relative_distances(start.streams.float(), base[0][:, :shared].float()).sum()
        total = total + ahead * sum(1 / count for count in counts)
    return total


def relative_distances(
    stream: Float[Tensor, "*place d_model"], base: Float[Tensor, "*place d_model"]
) -> Float[Tensor, "*place"]:
    """‖h − h₀‖² / ‖h₀‖² at each place."""
    return (stream - base).square().sum(-1) / base.square().sum(-1).clamp(min=1e-12)
