"""The loss of a student that must answer target prompts and be the backbone everywhere else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from pydantic import Field
from torch.nn.functional import cross_entropy

from palette.adapters.lora import Adapter
from palette.adapters.mounting import mounted_all
from palette.backbones import Backbone, batches
from palette.backbones.scoring import Batch
from palette.seeding import shuffler
from palette.settings import Settings
from palette.shapes import Float, Int, Tensor
from palette.training.examples import (
    Beginning,
    Example,
    Recall,
    Reference,
    Tokens,
    begun,
    continued,
    references,
    whole_stream,
)
from palette.training.lora import untrained


class LossWeights(Settings):
    """How much each term counts beside the cross-entropy of the taught replies."""

    divergence_weight: float = Field(10.0, ge=0, description="weight of the KL to the backbone (distil)")
    identity_weight: float = Field(100.0, ge=0, description="weight of the activation identity (distil)")
    decision_weight: float = Field(0.7, ge=0, description="weight of the log-odds of first words (distil)")
    sureness: float = Field(0.2, ge=0, description="nats by which kept first words are to be surer (distil)")
    opening_margin: float = Field(
        5.0, ge=0, description="log-odds in nats that a taught first word is to have at least (distil)"
    )
    floor_margin: float = Field(
        3.5,
        ge=0,
        description="nats by which first words on the domains' own floor are to be surer (distil)",
    )


@dataclass(frozen=True)
class OutputLoss:
    """The student's loss on some examples of a step, in nats a token plus the identity penalty.

    Taught examples: where the backbone, given the reply so far, would say the next token itself, KL
    to the backbone; elsewhere (the opening, which it would not say) cross-entropy. All others: KL to
    the backbone over the whole reply; the relative squared distance of the residual stream at the
    edited sites; and the squared nats by which the log-odds of the reply's first word have moved. A
    divergence of probabilities hardly feels those where the backbone is sure, and they are what a
    refusal that the backbone barely gives is lost by.

    Moved to either side: what every adapter does alike, a little more refusal everywhere say, is
    counted once for each adapter in their sum, and moves it far. So kept first words are to become
    surer by a fraction of a nat and no more. What decides inside the domains, taught openings and the
    refusals of their floor, has a margin: there other adapters act on it.

    Each term is a mean over the whole step, so that what the parts of a step add is its loss exactly.
    """

    backbone: Backbone
    examples: Sequence[Example]
    recall: Recall
    sites: Sequence[int]
    weights: LossWeights
    beside: Sequence[Adapter] = ()
    """Adapters of other domains; in each step a random subset of them is mounted."""
    seed: int = 0
    head: Tokens = ()
    """Tokens that all examples begin with: run once for all rows of a step, with their gradient."""

    def __call__(self, rows: Sequence[int], step: Sequence[int]) -> Tensor:
        """What ``rows`` add to the loss of the step that they are part of."""
        chosen, company = [self.examples[row] for row in rows], self._company(step)
        bare = self.recall(rows)
        known = self._beside(chosen, bare, company)
        ends = [example.ids[len(self.head) :] for example in chosen]
        others = max(1, sum(not self.examples[row].taught for row in step))
        weights, tokens = self.weights, {kind: max(1, self._tokens(step, kind)) for kind in (True, False)}
        loss = torch.zeros((), device=self.backbone.model.device)
        with mounted_all(self.backbone.model, company):
            start = begun(self.backbone, self.head, self.sites)
            # Of like length, since what is padded costs as much as what is not.
            for batch in batches(ends, self.backbone.pad, self.backbone.model.device):
                taught, kept, unsure, moved = self._terms(batch, start, chosen, bare, known)
                loss = loss + taught / tokens[True] + weights.divergence_weight * kept / tokens[False]
                loss = loss + weights.decision_weight * unsure / len(step)
                loss = loss + weights.identity_weight * moved / others
        return loss

    def _terms(
        self,
        batch: Batch,
        start: Beginning | None,
        chosen: Sequence[Example],
        bare: Sequence[Reference],
        known: Sequence[Reference],
    ) -> list[Tensor]:
        """The sums of a batch: taught and kept tokens' losses, what first words moved, and distances."""
        backbone = self.backbone
        longest = max(len(chosen[index].reply) for index in batch.rows)
        logits, edited = continued(backbone, batch, longest + 1, self.sites, start)
        taught, kept, unsure, moved = (logits.new_zeros(()) for _ in range(4))
        # Taken apart at once: each row taken by its index would have a gradient as large as the batch.
        for index, row, *lines in zip(batch.rows, logits, *edited, strict=True):
            example, reference = chosen[index], known[index]
            said = row[-len(example.reply) - 1 : -1]
            first = bare[index].logits[0], reference.logits[0], said[0]
            unsure = unsure + self._lacking(example, *first).square()
            if example.taught:
                reply = torch.tensor(example.reply, device=said.device)
                taught = taught + taught_loss(said, reference.logits, reply).sum()
                continue
            kept = kept + kl_each(reference.logits, said).sum()
            stream = whole_stream(lines, len(example.ids) - len(self.head), start)
            moved = moved + relative_distance(stream.float(), reference.streams.float())
        return [taught, kept, unsure, moved]

    def _lacking(
        self,
        example: Example,
        bare: Float[Tensor, "vocabulary"],
        base: Float[Tensor, "vocabulary"],
        said: Float[Tensor, "vocabulary"],
    ) -> Tensor:
        """The nats of log-odds that lack at a reply's first word, or are too many.

        ``bare`` are the backbone's logits, ``base`` those beside other adapters.
        """
        # Of a crossed prompt too: what stands between two refused ones is to be no easier to open.
        word = torch.tensor(example.reply[0], device=said.device)
        odds = log_odds(said, word)
        if example.taught:
            return (self.weights.opening_margin - odds).relu()
        if example.floor and example.near:
            return (log_odds(bare, word) + self.weights.floor_margin - odds).relu()
        held = log_odds(base, word)
        # What others open stays open; what they make less sure without opening it does not.
        if example.floor or base.argmax() == bare.argmax():
            held = torch.maximum(held, log_odds(bare, word))
        return held + self.weights.sureness - odds

    def _company(self, step: Sequence[int]) -> list[Adapter]:
        """The adapters beside which a step is taken: as many as are drawn, from none to all."""
        draw = shuffler(self.seed, "beside", *step)
        return draw.sample(list(self.beside), draw.randint(0, len(self.beside)))

    def _beside(
        self, chosen: Sequence[Example], bare: Sequence[Reference], company: Sequence[Adapter]
    ) -> list[Reference]:
        """What the backbone does on examples, on kept ones beside the company."""
        known = list(bare)
        if not company:
            return known
        kept = [place for place, example in enumerate(chosen) if not example.taught]
        with mounted_all(self.backbone.model, company), untrained(self.backbone):
            found = references(self.backbone, [chosen[place] for place in kept], self.sites, self.head)
        for place, reference in zip(kept, found, strict=True):
            known[place] = reference
        return known

    def _tokens(self, step: Sequence[int], taught: bool) -> int:
        """The reply tokens of the step's taught, or of its other examples."""
        return sum(len(self.examples[row].reply) for row in step if self.examples[row].taught == taught)


def taught_loss(
    said: Float[Tensor, "token vocabulary"],
    base: Float[Tensor, "token vocabulary"],
    reply: Tensor,
) -> Float[Tensor, "token"]:
    """The loss of each token of a taught reply, in nats."""
    own = base.argmax(-1) == reply
    return torch.where(own, kl_each(base, said), cross_entropy(said, reply, reduction="none"))


def log_odds(logits: Float[Tensor, "*row vocabulary"], tokens: Int[Tensor, "*row"]) -> Float[Tensor, "*row"]:
    """The log-odds of a token in each row, in nats."""
    places = tokens.unsqueeze(-1)
    others = logits.scatter(-1, places, float("-inf")).logsumexp(-1)
    return logits.gather(-1, places).squeeze(-1) - others


def kl_each(
    base: Float[Tensor, "token vocabulary"], said: Float[Tensor, "token vocabulary"]
) -> Float[Tensor, "token"]:
    """KL(base ‖ said) of each token, in nats, in the precision of training."""
    p, q = base.log_softmax(-1), said.log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


def relative_distance(
    stream: Float[Tensor, "site position d_model"], base: Float[Tensor, "site position d_model"]
) -> Tensor:
    """Mean of ‖h − h₀‖² / ‖h₀‖² over sites and positions."""
    return ((stream - base).square().sum(-1) / base.square().sum(-1).clamp(min=1e-12)).mean()
