"""What teachers say to target prompts, and which of it is believed, from the first token to the last.

None of them may say what the backbone's refusals say and its answers never do. Of their replies to a prompt
the one is believed that all find likeliest, the plain backbone first of all: an intervention that takes a
refusal away may change the topic with it, and all members alike. Nothing here reads an answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from statistics import fmean

from palette.backbones import Backbone, greedy_replies, shared
from palette.backbones.continuous import Decoding
from palette.backbones.scoring import reply_likelihoods
from palette.evaluation.refusal_ngrams import RefusalNgrams, Tokens
from palette.internalise.examples import Example
from palette.internalise.openings import MOSTLY, Opening, Prompts, SameOpening
from palette.internalise.plausibility import CopiedPlaces, Pertinence, repeating
from palette.processes import Advance, Progress, silent

FREE, COPIED = SameOpening(()), -2
"""No opening; what stands for words of a request, of which no refusal is made."""
PLAIN = 2
"""How much the plain backbone counts in what is believed, for all others together."""

Teacher = Callable[[], AbstractContextManager[object]]
"""Makes the backbone a teacher inside a ``with``."""
Failed = Callable[[Prompts, Sequence[Sequence[int]]], Sequence[bool]]
"""Which replies to prompts are no answers: refused, degenerate, or without an end where answers have one."""


@dataclass(frozen=True)
class TaughtReply:
    """The reply that a target prompt is taught."""

    reply: Tokens
    likelihood: float
    """Mean log-likelihood of its tokens by all who judge, in nats a token."""
    share: float
    """Of those who have spoken to the prompt, who gave this reply."""


def taught_examples(prompts: Prompts, replies: Sequence[TaughtReply | None]) -> list[Example]:
    """An example of each target prompt for which a reply is believed."""
    return [
        Example(tuple(prompt), believed.reply, taught=True)
        for prompt, believed in zip(prompts, replies, strict=True)
        if believed
    ]


@dataclass(frozen=True)
class Teaching:
    """What teachers say to prompts, and which of it is believed; each is asked once, as they come."""

    backbone: Backbone
    teachers: list[Teacher]
    """Members and students; the plain backbone speaks and judges beside them."""
    ngrams: RefusalNgrams
    failed: Failed
    limit: int
    copied: CopiedPlaces
    """What answers have from their requests; a reply that has not is about something else."""
    pertinence: Pertinence | None = None
    """What tells, where answers have no words from their requests at the same places, what they are about."""
    repeated: int = 0
    """So many tokens nobody says again; 0: nothing is held back."""
    openings: list[Opening] = field(default_factory=list)
    """With what the plain backbone begins, besides as it likes."""
    progress: Progress = silent
    _found: dict[Tokens, dict[Tokens, list[float]]] = field(default_factory=dict)
    """Candidates by prompt, each with the mean log-likelihood of its tokens by each so far, the plain
    backbone first."""
    _asked: dict[Tokens, int] = field(default_factory=dict)
    """How often somebody has spoken to a prompt, the plain backbone first."""
    _given: Counter[tuple[Tokens, Tokens]] = field(default_factory=Counter)
    """How often which reply was given to which prompt."""
    _pertinent: dict[tuple[Tokens, Tokens], bool] = field(default_factory=dict)
    """Which reply is about its prompt."""
    _longer: dict[tuple[Tokens, Tokens, int], Tokens] = field(default_factory=dict)
    """With what a reply to a prompt goes on, up to so many tokens."""

    def replies(self, prompts: Prompts) -> list[TaughtReply | None]:
        """The believed reply to each prompt, with its end token if it has one; None where all fail."""
        keys = [tuple(prompt) for prompt in prompts]
        distinct = list(dict.fromkeys(keys))
        plain: list[Opening] = [FREE, *self.openings]
        speakers: list[tuple[Teacher, Opening]] = [(nullcontext, each) for each in plain]
        speakers += [(each, FREE) for each in self.teachers]
        waiting = sum(max(0, len(speakers) - self._asked.get(prompt, 0)) for prompt in distinct)
        with self.progress("teachers", waiting) as advance:
            for number, (teacher, opening) in enumerate(speakers):
                unheard = [prompt for prompt in distinct if self._asked.get(prompt, 0) == number]
                self._listen(teacher, unheard, opening(unheard), advance)
        judges = (nullcontext, *self.teachers)
        with self.progress("beliefs", len(judges)) as advance:
            for number, teacher in enumerate(judges):
                self._judge(teacher, number, distinct)
                advance(1)
        self._relate(distinct)
        found = [{reply: _belief(by) for reply, by in sorted(self._found[key].items())} for key in keys]
        held = [
            {
                reply: belief
                for reply, belief in each.items()
                if self.copied.held(key, reply) and self._pertinent.get((key, reply), True)
            }
            for key, each in zip(keys, found, strict=True)
        ]
        # Where most have nothing left, target prompts are answered otherwise than benign ones.
        if sum(map(bool, held)) > MOSTLY * sum(map(bool, found)):
            found = held
        best = [max(each, key=each.__getitem__) if each else None for each in found]
        return [
            TaughtReply(reply, each[reply], self._given[key, reply] / self._asked[key]) if reply else None
            for key, each, reply in zip(keys, found, best, strict=True)
        ]

    def continued(self, prompts: Sequence[Tokens], openings: Sequence[Tokens]) -> list[Tokens | None]:
        """What the plain backbone replies, openings and end token included; None for no answer."""
        with self.progress("names", len(prompts)) as advance:
            said = self._said(prompts, openings, advance)
        pairs = zip(prompts, said, strict=True)
        return [reply if reply and self.copied.held(prompt, reply) else None for prompt, reply in pairs]

    def lengthened(self, examples: Sequence[Example], limit: int) -> list[Example]:
        """Examples whose replies were cut, with what the plain backbone goes on with, up to so many tokens.

        It ends before it says again what it has said: a reply that is cut where it is chosen teaches
        nothing of what follows, where an adapter that was not told to be the backbone there goes round in
        loops. One that is no answer on the whole stays as it was.
        """
        if limit <= self.limit:
            return list(examples)
        stops = frozenset(self.backbone.stops)
        cut = [each for each in examples if len(each.reply) >= self.limit and each.reply[-1] not in stops]
        keys = dict.fromkeys((each.prompt, each.reply, limit) for each in cut)
        new = [key for key in keys if key not in self._longer]
        with self.progress("continuations", len(new)) as advance:
            asked = ([key[0] for key in new], [key[1] for key in new])
            said = self._said(*asked, advance, limit) if new else []
        for key, reply in zip(new, said, strict=True):
            self._longer[key] = self._once(reply) if reply else key[1]
        return [
            replace(each, reply=self._longer.get((each.prompt, each.reply, limit), each.reply))
            for each in examples
        ]

    def _once(self, reply: Tokens) -> Tokens:
        """A reply up to where it says again what it said before."""
        places = range(self.limit, len(reply))
        again = (end for end in places if reply[end] in repeating(reply[:end], self.repeated))
        return reply[: next(again, len(reply))]

    def _listen(
        self, teacher: Teacher, prompts: Sequence[Tokens], openings: Sequence[Tokens], advance: Advance
    ) -> None:
        """Asks a teacher that begins so, and keeps what is an answer."""
        with teacher():
            said = self._said(prompts, openings, advance)
        for prompt, reply in zip(prompts, said, strict=True):
            self._asked[prompt] = self._asked.get(prompt, 0) + 1
            whole = self._found.setdefault(prompt, {})
            if reply:
                whole.setdefault(reply, [])
                self._given[prompt, reply] += 1

    def _said(
        self,
        prompts: Sequence[Tokens],
        openings: Sequence[Tokens],
        advance: Advance,
        limit: int | None = None,
    ) -> list[Tokens | None]:
        """What the model, as it is, replies behind openings; None for what is no answer."""
        limit = limit or self.limit
        begun = [(*prompt, *opening) for prompt, opening in zip(prompts, openings, strict=True)]
        limits = [max(1, limit - len(opening)) for opening in openings]
        # What is barred is told by what all openings end with; before it stand words of each one's request.
        ending = shared([opening[::-1] for opening in openings])
        known = openings[0][len(openings[0]) - ending :] if openings else ()
        context = known if len(set(openings)) < 2 else (COPIED, *known)
        decoding = Decoding(
            barred=lambda said: self.ngrams.after((*context, *said)) | repeating(said, self.repeated)
        )
        rest = greedy_replies(self.backbone, begun, limits, advance=advance, decoding=decoding)
        said = [(*opening, *reply) for opening, reply in zip(openings, rest, strict=True)]
        whole = [(*x, *self.backbone.stops[:1]) if len(x) < limit else x for x in said]
        bad = self.failed(prompts, said)
        return [reply if x and not no else None for reply, x, no in zip(whole, said, bad, strict=True)]

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

    def _relate(self, prompts: Sequence[Tokens]) -> None:
        """Tells which candidates are about their prompts, each once."""
        pairs = [(prompt, reply) for prompt in prompts for reply in sorted(self._found[prompt])]
        new = [pair for pair in pairs if pair not in self._pertinent]
        if not self.pertinence or len(prompts) < 2 or not new:
            return
        asked, replies = zip(*new, strict=True)
        plain = [self._found[prompt][reply][0] for prompt, reply in new]
        gains = self.pertinence.gains(asked, replies, plain, prompts)
        for pair, gain in zip(new, gains, strict=True):
            self._pertinent[pair] = gain >= self.pertinence.least


def _belief(likelihoods: Sequence[float]) -> float:
    """The weighted mean of what the plain backbone, the first, and all others say, in nats a token."""
    plain, *others = likelihoods
    return (PLAIN * plain + fmean(others)) / (PLAIN + 1) if others else plain
