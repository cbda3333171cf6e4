"""Which replies are plausible, and may be taught: those about their requests that go round in no loop.

An intervention that takes too much away leaves replies that would do behind any request. Each of their
words is likely, and no judge of refusals objects; a student that is taught them says them everywhere. And a
small model's greedy reply goes on as it once did, for ever: one that is taught so many tokens of it learns
the loop. How much is said twice without being one, the backbone's own answers tell: lists and templates
repeat themselves too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from palette.backbones import Backbone
from palette.backbones.scoring import reply_likelihoods
from palette.internalise.examples import Example, Tokens
from palette.internalise.openings import MOSTLY, NEARLY, WORD
from palette.seeding import evenly

PLACES = 12
"""Words of a reply, from its first on, that are compared with its request."""
ANSWERS = 48
"""Of the backbone's own answers, those that tell what answers gain."""
LEAST = 0.25
"""Of what answers mostly gain, what a reply must gain to be about its request."""
REPEATING = 0.1
"""Share of the backbone's own answers at most that say so many tokens twice."""


@dataclass(frozen=True)
class CopiedPlaces:
    """The words of an answer, by their number, that nearly every answer has from its request."""

    backbone: Backbone
    places: tuple[int, ...]

    @classmethod
    def learned(cls, backbone: Backbone, answers: Sequence[Example]) -> CopiedPlaces:
        """The places at which answers of at least half their number say what their requests do."""
        made = cls(backbone, tuple(range(PLACES)))
        told = [made._told(each.prompt, each.reply) for each in answers]
        heard = [[each[place] for each in told if len(each) > place] for place in range(PLACES)]
        return cls(
            backbone,
            tuple(
                place
                for place, each in enumerate(heard)
                if len(each) > MOSTLY * len(answers) and sum(each) >= NEARLY * len(each)
            ),
        )

    def held(self, prompt: Sequence[int], reply: Sequence[int]) -> bool:
        """Whether a reply has from its request what answers have; else it is about something else."""
        told = self._told(prompt, reply)
        return all(told[place] for place in self.places if place < len(told))

    def _told(self, prompt: Sequence[int], reply: Sequence[int]) -> list[bool]:
        """Of each word of a reply, whether its request says it."""
        asked, said = (WORD.findall(self.backbone.decode(list(x)).casefold()) for x in (prompt, reply))
        known = set(asked)
        return [word in known for word in said]


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
        asked = evenly(answers, ANSWERS)
        prompts, replies = [each.prompt for each in asked], [each.reply for each in asked]
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


def longest_repeat(tokens: Sequence[int]) -> int:
    """The most tokens that stand twice in a reply, one after another."""
    size = 0
    for end in range(1, len(tokens) + 1):
        # Whatever is longer than what is known to stand twice ends here, if anywhere.
        while size < end and _said(tokens[: end - 1], tokens[end - size - 1 : end]):
            size += 1
    return size


def least_barred(answers: Sequence[Tokens]) -> int:
    """How many tokens are not to be said again: more than few answers repeat; 0 where there are none."""
    repeats = sorted(longest_repeat(answer) for answer in answers)
    return repeats[int((1 - REPEATING) * (len(repeats) - 1))] + 1 if repeats else 0


def repeating(said: Sequence[int], size: int) -> frozenset[int]:
    """The tokens with which a reply would say so many tokens again that it said before."""
    if not 0 < size <= len(said):
        return frozenset()
    start = [*said[len(said) - size + 1 :]]
    places = range(len(said) - size + 1)
    return frozenset(said[at + size - 1] for at in places if [*said[at : at + size - 1]] == start)


def _said(tokens: Sequence[int], part: Sequence[int]) -> bool:
    places = range(len(tokens) - len(part) + 1)
    return any([*tokens[at : at + len(part)]] == [*part] for at in places)
