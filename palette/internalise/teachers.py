"""Teachers: the backbone itself, made to answer, and which of its replies to believe.

Teachers are the backbone under interventions that the search tried, on for the whole reply, the plain
backbone, which is also made to begin as its benign replies do, and in later rounds students. None of them
may say what the backbone's refusals say and its answers never do. Of their replies to a prompt the one is
believed that all find likeliest, the plain backbone first of all: an intervention that takes a refusal away
may change the topic with it, and all members alike. Nothing here reads an answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean

from palette.backbones import Backbone, greedy_replies
from palette.backbones.generation import Decoding
from palette.backbones.scoring import reply_likelihoods
from palette.directions import Directions, Intervention, intervening
from palette.evaluation.refusal_ngrams import RefusalNgrams, Tokens
from palette.internalise.examples import Example
from palette.search.space import Member

TEACHERS, TRIED, TRIAL_PROMPTS = 6, 16, 32
"""Trials that teach at most, of so many that are tried on so many target prompts."""
TOLERATED = 0.5
"""Share of the replies of a trial at most that may be no answers, if it is to teach beside others."""
OPENINGS, COMMON = 3, 0.1
"""Openings that the plain backbone is given at most, of those with which such a share of answers begins."""
PLAIN = 2
"""How much the plain backbone counts in what is believed, for all others together."""

Teacher = Callable[[], AbstractContextManager[object]]
"""Makes the backbone a teacher inside a ``with``."""
Prompts = Sequence[Sequence[int]]
Failed = Callable[[Prompts, Sequence[Sequence[int]]], Sequence[bool]]
"""Which replies to prompts are no answers: refused, degenerate, or without an end where answers have one."""


@dataclass(frozen=True)
class TaughtReply:
    """The reply that a target prompt is taught."""

    reply: Tokens
    likelihood: float
    """Mean log-likelihood of its tokens by all who judge, in nats a token."""


def chosen_teachers(
    backbone: Backbone,
    directions: Directions,
    members: Sequence[Member],
    prompts: Prompts,
    failed: Failed,
    limit: int,
) -> list[Teacher]:
    """Trials whose replies fail least, of those that differ in site, width or method."""
    by_score = sorted(members, key=lambda member: member.values["target_refusal_score"])
    tried = by_score[:: max(1, -(-len(members) // TRIED))]
    few = prompts[:: max(1, -(-len(prompts) // TRIAL_PROMPTS))]
    ranked = []
    for number, member in enumerate(tried):
        with intervening(backbone, directions, member.intervention):
            wrong = failed(few, greedy_replies(backbone, few, limit))
        ranked.append((sum(wrong) / len(few), number))
    ranked.sort()
    distinct: dict[tuple[int, int, str], Intervention] = {}
    for share, number in ranked:
        if share <= TOLERATED or not distinct:
            chosen = tried[number].intervention
            distinct.setdefault((chosen.kernel.peak, chosen.kernel.width, chosen.method), chosen)
    return [
        partial(intervening, backbone, directions, intervention)
        for intervention in list(distinct.values())[:TEACHERS]
    ]


def common_openings(examples: Iterable[Example]) -> list[Tokens]:
    """With what answers begin, up to the token by which they are told to be some; the commonest first."""
    begun = Counter(each.reply[: each.decisive + 1] for each in examples if not each.refused)
    return [opening for opening, count in begun.most_common(OPENINGS) if count >= COMMON * begun.total()]


@dataclass(frozen=True)
class Teaching:
    """What teachers say to prompts, and which of it is believed; each is asked once, as they come."""

    backbone: Backbone
    teachers: list[Teacher]
    """Members and students; the plain backbone speaks and judges beside them."""
    ngrams: RefusalNgrams
    failed: Failed
    limit: int
    openings: list[Tokens] = field(default_factory=list)
    """With what the plain backbone begins, besides as it likes."""
    _found: dict[Tokens, dict[Tokens, list[float]]] = field(default_factory=dict)
    """Candidates by prompt, each with the mean log-likelihood of its tokens by each so far, the plain
    backbone first."""
    _asked: dict[Tokens, int] = field(default_factory=dict)
    """How often somebody has spoken to a prompt, the plain backbone first."""

    def replies(self, prompts: Prompts) -> list[TaughtReply | None]:
        """The believed reply to each prompt, with its end token if it has one; None where all fail."""
        keys = [tuple(prompt) for prompt in prompts]
        distinct = list(dict.fromkeys(keys))
        plain = [(nullcontext, opening) for opening in ((), *self.openings)]
        for number, (teacher, opening) in enumerate((*plain, *((each, ()) for each in self.teachers))):
            unheard = [prompt for prompt in distinct if self._asked.get(prompt, 0) == number]
            self._listen(teacher, unheard, opening)
        for number, teacher in enumerate((nullcontext, *self.teachers)):
            self._judge(teacher, number, distinct)
        found = [{reply: _belief(by) for reply, by in sorted(self._found[key].items())} for key in keys]
        return [
            TaughtReply(best, each[best]) if each and (best := max(each, key=each.__getitem__)) else None
            for each in found
        ]

    def _listen(self, teacher: Teacher, prompts: Sequence[Tokens], opening: Tokens = ()) -> None:
        """Asks a teacher that begins so, and keeps what is an answer."""
        begun = [(*prompt, *opening) for prompt in prompts]
        with teacher():
            decoding = Decoding(barred=lambda said: self.ngrams.after((*opening, *said)))
            rest = greedy_replies(self.backbone, begun, self.limit - len(opening), decoding=decoding)
        said = [[*opening, *reply] for reply in rest]
        for prompt, reply, bad in zip(prompts, said, self.failed(prompts, said), strict=True):
            self._asked[prompt] = self._asked.get(prompt, 0) + 1
            whole = self._found.setdefault(prompt, {})
            if reply and not bad:
                ending = self.backbone.stops[:1] if len(reply) < self.limit else ()
                whole.setdefault((*reply, *ending), [])

    def _judge(self, teacher: Teacher, number: int, prompts: Sequence[Tokens]) -> None:
        """Asks a teacher how likely it finds the candidates that only those before it have judged."""
        unjudged = [
            (prompt, reply)
            for prompt in prompts
            for reply, by in sorted(self._found[prompt].items())
            if len(by) == number
        ]
        asked, replies = [prompt for prompt, _ in unjudged], [reply for _, reply in unjudged]
        with teacher():
            found = reply_likelihoods(self.backbone, asked, replies)
        for (prompt, reply), likelihood in zip(unjudged, found, strict=True):
            self._found[prompt][reply].append(likelihood)


def _belief(likelihoods: Sequence[float]) -> float:
    """The weighted mean of what the plain backbone, the first, and all others say, in nats a token."""
    plain, *others = likelihoods
    return (PLAIN * plain + fmean(others)) / (PLAIN + 1) if others else plain
