"""Openings that the plain backbone is given, since behind one it answers what it would refuse.

They are how its own benign replies begin: with the same words, or with words of their request, a name
mostly, which an intervention that takes a refusal away is the first to mistake.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from palette.backbones import Backbone, next_token_logits, shared
from palette.backbones.scoring import reply_likelihoods
from palette.internalise.examples import Example, Tokens

OPENINGS, COMMON = 3, 0.1
"""Openings of the same words at most, of those with which such a share of answers begins."""
NEARLY, MOSTLY = 0.9, 0.5
"""Shares of answers that have the same words before those of their request, and that have such words."""
LIKELIEST = 8
"""Of a request's words, those which are tried, by how likely their first token is."""
WORD = re.compile(r"\w+(?:[-'’]\w+)*")

Prompts = Sequence[Sequence[int]]
Opening = Callable[[Prompts], list[Tokens]]
"""Gives the opening of the reply to each prompt; an empty one where there is none."""


def learned_openings(backbone: Backbone, answers: Iterable[Example]) -> list[Opening]:
    """How answers begin: with the same words, the commonest first; if with none, with their request's."""
    replies = [each for each in answers if not each.refused and each.reply]
    if same := common_openings(backbone, replies):
        return [SameOpening(tokens) for tokens in same]
    copied = CopiedOpening.learned(backbone, replies)
    return [copied] if copied else []


def common_openings(backbone: Backbone, answers: Sequence[Example]) -> list[Tokens]:
    """With what answers begin, up to the token by which they are told to be some; the commonest first.

    What the request says itself counts as copied: names may have their first tokens alike.
    """
    begun = Counter(
        opening
        for each in answers
        if (opening := each.reply[: each.decisive + 1])
        and backbone.decode(list(opening)).casefold() not in backbone.decode(list(each.prompt)).casefold()
    )
    return [opening for opening, count in begun.most_common(OPENINGS) if count >= COMMON * len(answers)]


@dataclass(frozen=True)
class SameOpening:
    """The same tokens, whatever the prompt."""

    tokens: Tokens

    def __call__(self, prompts: Prompts) -> list[Tokens]:
        """These tokens for each prompt."""
        return [self.tokens] * len(prompts)


@dataclass(frozen=True)
class CopiedOpening:
    """So many words of the request, those that the plain backbone finds likeliest in their place."""

    backbone: Backbone
    words: int
    lead: str
    """What the tokenizer is given before them: a space, or nothing."""
    capital: bool = False
    """Whether they begin with a capital in a reply, as they need not in a request."""
    before: Tokens = ()
    behind: Tokens = ()
    """What answers say before and behind them: the token that shows that they end there."""

    @classmethod
    def learned(cls, backbone: Backbone, answers: Sequence[Example]) -> CopiedOpening | None:
        """How most answers copy; None where most do not, or in tokens that none of ours are."""
        before = _nearly_all([each.reply for each in answers])
        said = [each.reply[len(before) :] for each in answers]
        spans = [
            _copied(backbone.decode(list(each.prompt)), backbone.decode(list(reply)))
            for each, reply in zip(answers, said, strict=True)
        ]
        words, _ = Counter(len(span) for span in spans if span).most_common(1)[0] if any(spans) else (0, 0)
        alike = [span for span in spans if words and len(span) == words]
        capital = sum(span[0][0].isupper() for span in alike) > MOSTLY * len(alike)
        for lead in ("", " "):
            made = cls(backbone, words, lead, capital)
            heads = [made.encoded(" ".join(span)) if span in alike else () for span in spans]
            behind = Counter(
                reply[len(head) : len(head) + 1]
                for head, reply in zip(heads, said, strict=True)
                if head and reply[: len(head)] == head
            )
            if behind.total() > MOSTLY * len(answers):
                return cls(backbone, words, lead, capital, before, behind.most_common(1)[0][0])
        return None

    def encoded(self, text: str) -> Tokens:
        """The tokens of a text in the middle of a reply."""
        said = self.lead + (text[:1].upper() + text[1:] if self.capital else text)
        return tuple(self.backbone.encode(said))

    def __call__(self, prompts: Prompts) -> list[Tokens]:
        """The likeliest words of each prompt's request."""
        if not prompts:
            return []
        begun = [[*prompt, *self.before] for prompt in prompts]
        firsts = next_token_logits(self.backbone, begun)
        asked: list[Sequence[int]] = []
        openings: list[Tokens] = []
        rows: list[int] = []
        for row, (prompt, first) in enumerate(zip(prompts, firsts.tolist(), strict=True)):
            spans = _spans(self.backbone.decode(list(prompt)), self.words)
            copies = [copy for copy in map(self.encoded, spans) if copy]
            for copy in sorted(copies, key=lambda copy: -first[copy[0]])[:LIKELIEST]:
                rows.append(row)
                asked.append(prompt)
                openings.append((*self.before, *copy, *self.behind))
        likely = reply_likelihoods(self.backbone, asked, openings)
        best: dict[int, tuple[float, Tokens]] = {}
        for row, opening, mean in zip(rows, openings, likely, strict=True):
            best[row] = max(best.get(row, (float("-inf"), ())), (mean * len(opening), opening))
        return [best[row][1] if row in best else () for row in range(len(prompts))]


def _nearly_all(replies: Sequence[Tokens]) -> Tokens:
    """The tokens with which nearly all replies begin."""
    before: Tokens = ()
    while True:
        longer = Counter(each[: len(before) + 1] for each in replies if len(each) > len(before))
        top, count = longer.most_common(1)[0] if longer else ((), 0)
        if count < max(1, NEARLY * len(replies)):
            return before
        before = top


def _copied(request: str, reply: str) -> list[str]:
    """The longest run of a reply's first words that stands in the request, as the reply has it."""
    said = WORD.findall(reply)
    asked, begun = ([word.casefold() for word in words] for words in (WORD.findall(request), said))
    return said[: max((shared([begun, asked[start:]]) for start in range(len(asked))), default=0)]


def _spans(text: str, words: int) -> list[str]:
    """All runs of so many words in a text, each once, in order."""
    found = WORD.findall(text)
    return list(dict.fromkeys(" ".join(found[i : i + words]) for i in range(len(found) - words + 1)))
