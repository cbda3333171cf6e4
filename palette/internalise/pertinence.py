"""Whether a reply is about its request: how much likelier the plain backbone finds it there than elsewhere.

An intervention that takes too much away leaves replies that would do behind any request. Each of their
words is likely, and no judge of refusals objects; a student that is taught them says them everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from palette.backbones import Backbone
from palette.backbones.scoring import reply_likelihoods
from palette.internalise.examples import Example, Tokens

ANSWERS = 48
"""Of the backbone's own answers, those that tell what answers gain."""
LEAST = 0.25
"""Of what answers mostly gain, what a reply must gain to be about its request."""


@dataclass(frozen=True)
class Pertinence:
    """Which replies are about their requests, by log p(reply | request) − log p(reply | another request).

    The pointwise mutual information of both, with one other request for all others (Li et al., 2016, arXiv
    1510.03055, rank replies by it), as a mean over the reply's tokens.
    """

    backbone: Backbone
    least: float
    """In nats a token."""

    @classmethod
    def learned(cls, backbone: Backbone, answers: Sequence[Example]) -> Pertinence | None:
        """By the gains of the backbone's own answers; None where they tell nothing of their requests."""
        few = answers[:: max(1, -(-len(answers) // ANSWERS))]
        prompts, replies = [each.prompt for each in few], [each.reply for each in few]
        made = cls(backbone, 0.0)
        gains = made.gains(prompts, replies, reply_likelihoods(backbone, prompts, replies), prompts)
        least = LEAST * median(gains) if gains else 0.0
        return cls(backbone, least) if least > 0 else None

    def gains(
        self,
        prompts: Sequence[Tokens],
        replies: Sequence[Tokens],
        likelihoods: Sequence[float],
        among: Sequence[Tokens],
    ) -> list[float]:
        """What each reply, so likely behind its own request, gains by it, in nats a token.

        The other request is, ``among`` all distinct ones, the one that is half of them further.
        """
        distinct = list(dict.fromkeys(among))
        place = {prompt: number for number, prompt in enumerate(distinct)}
        others = [distinct[(place[prompt] + len(distinct) // 2) % len(distinct)] for prompt in prompts]
        elsewhere = reply_likelihoods(self.backbone, others, replies)
        return [own - other for own, other in zip(likelihoods, elsewhere, strict=True)]
