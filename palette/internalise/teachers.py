"""Teachers: the backbone itself, made to answer, and which of its replies to believe.

Teachers are the backbone under interventions that the search tried, on for the whole reply, the plain
backbone, and in later rounds students. None of them may say what the backbone's refusals say and its
answers never do. Of their replies to a prompt the one is believed that members and students together
find likeliest; the plain backbone is not asked, since it would find refusals likely that begin late.
Nothing here reads an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial

from palette.backbones import Backbone, greedy_replies
from palette.backbones.generation import Decoding
from palette.backbones.scoring import reply_likelihoods
from palette.directions import Directions, Intervention, intervening
from palette.evaluation.refusal_ngrams import RefusalNgrams, Tokens
from palette.search.space import Member

TEACHERS, TRIED, TRIAL_PROMPTS = 6, 16, 32
"""Trials that teach at most, of so many that are tried on so many target prompts."""
TOLERATED = 0.5
"""Share of the replies of a trial at most that may be no answers, if it is to teach beside others."""

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
    """Mean log-likelihood of its tokens by members and students, in nats a token."""


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


@dataclass(frozen=True)
class Teaching:
    """What teachers say to prompts, and which of it is believed; each is asked once, as they come."""

    backbone: Backbone
    teachers: list[Teacher]
    """Members and students, who judge as well; the plain backbone speaks beside them."""
    ngrams: RefusalNgrams
    failed: Failed
    limit: int
    _found: dict[Tokens, dict[Tokens, list[float]]] = field(default_factory=dict)
    """Candidates by prompt, each with the mean log-likelihood of its tokens by each teacher so far."""
    _asked: dict[Tokens, int] = field(default_factory=dict)
    """How many have spoken to a prompt, the plain backbone first."""

    def replies(self, prompts: Prompts) -> list[TaughtReply | None]:
        """The believed reply to each prompt, with its end token if it has one; None where all fail."""
        keys = [tuple(prompt) for prompt in prompts]
        distinct = list(dict.fromkeys(keys))
        for number, teacher in enumerate((nullcontext, *self.teachers)):
            self._listen(teacher, [prompt for prompt in distinct if self._asked.get(prompt, 0) == number])
        for number, teacher in enumerate(self.teachers):
            self._judge(teacher, number, distinct)
        found = [self._found[key] for key in keys]
        means = [{reply: sum(by) / len(by) for reply, by in sorted(whole.items())} for whole in found]
        return [
            TaughtReply(best, each[best]) if each and (best := max(each, key=each.__getitem__)) else None
            for each in means
        ]

    def _listen(self, teacher: Teacher, prompts: Sequence[Tokens]) -> None:
        """Asks a teacher, and keeps what is an answer."""
        with teacher():
            decoding = Decoding(barred=self.ngrams.after)
            said = greedy_replies(self.backbone, prompts, self.limit, decoding=decoding)
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
