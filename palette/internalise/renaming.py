"""Names that nobody wrote, so that a student does not learn by heart those that somebody did.

What a name is, is told by the backbone's own answers: the word of their request that they say again, at
the place where the most different ones stand.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from palette.backbones import Backbone, greedy_replies
from palette.internalise.examples import Example, Tokens
from palette.internalise.openings import COMMON, MOSTLY, WORD
from palette.internalise.plausibility import PLACES
from palette.prompts import Prompt
from palette.prompts.rows import messages

SPARE, REPLY_TOKENS = 512, 16
"""Words at most that are tried for names, and tokens of the replies that tell."""


@dataclass(frozen=True)
class Names:
    """What requests name, and at which of an answer's words it says that."""

    place: int
    known: tuple[str, ...]
    common: frozenset[str]
    """Words that stand in too many requests to be names."""

    @classmethod
    def learned(cls, answered: Sequence[tuple[str, str]]) -> Names | None:
        """The names in requests and their answers; None where most answers say none at one same place."""
        words = [(WORD.findall(request), WORD.findall(reply)) for request, reply in answered]
        stands = Counter(word for asked, _ in words for word in set(asked))
        common = frozenset(word for word, count in stands.items() if count >= COMMON * len(words))
        places = [
            [said[place] for asked, said in words if said[place : place + 1] and said[place] in asked]
            for place in range(PLACES)
        ]
        named = [[word for word in said if word not in common] for said in places]
        most, place = max((len(set(said)), place) for place, said in enumerate(named))
        if most < 2 or len(named[place]) <= MOSTLY * len(words):
            return None
        return cls(place, tuple(sorted(set(named[place]))), common)

    def of(self, request: str, reply: str = "") -> str | None:
        """The name in a request: what its answer says, or without one its first word that is a known name."""
        asked, said = WORD.findall(request), WORD.findall(reply)[self.place : self.place + 1]
        return next((x for x in asked if x in (said or self.known) and x not in self.common), None)

    def like(self, name: str, draw: Random) -> str:
        """Another name that ends as this one does, since that may tell what kind of thing it is of."""
        other = draw.choice(self.known)
        begun = other[: draw.randint(1, max(1, len(other) - 1))]
        return begun + name[draw.randint(1, max(1, len(name) - 1)) :]


@dataclass(frozen=True)
class Renaming:
    """Makes examples of names that nobody wrote, of those that somebody did."""

    backbone: Backbone
    rows: Mapping[Tokens, Prompt]
    """What was rendered into each prompt."""
    names: Names | None
    """None where there are none to be told."""
    spare: tuple[str, ...] = ()
    """Names that are one token each, where those of two names' parts would be none."""

    @classmethod
    def learned(
        cls,
        backbone: Backbone,
        rows: Mapping[Tokens, Prompt],
        answers: Sequence[Example],
        others: Sequence[Example],
        draw: Random,
    ) -> Renaming:
        """What benign ``answers`` name; ``others`` tell what else is said, which is no spare name."""
        asked = [rows[each.prompt] for each in answers]
        replies = [backbone.decode(list(each.reply)) for each in answers]
        pairs = zip(asked, replies, strict=True)
        if not (names := Names.learned([(row.request, reply) for row, reply in pairs])):
            return cls(backbone, rows, None)
        said = [backbone.decode(list(each.reply)) for each in others]
        said += [row.request for row in rows.values()]
        return cls(backbone, rows, names, spare_names(backbone, names, asked, said, draw))

    def __call__(self, examples: Sequence[Example], count: int, draw: Random) -> list[Example]:
        """At most so many examples with another name in prompt and reply, of each alike many.

        A reply is what the backbone said of the first name.
        """
        written = [each for each in examples if each.prompt in self.rows]
        if not self.names or not written:
            return []
        made = (self._renamed(written[i % len(written)], self.names, draw) for i in range(count))
        return [each for each in made if each]

    def opening(self, reply: Tokens, copied: Sequence[int] = ()) -> Tokens:
        """A reply up to its last word from its request, with what one token of that says besides.

        That is its name, or one of the ``copied``, where nearly all answers have a word of their requests.
        """
        words = 1 + max([*copied, self.names.place if self.names else 0])
        for end in range(1, len(reply)):
            if len(WORD.findall(self.backbone.decode(list(reply[:end])))) > words:
                return reply[: end - 1]
        return reply

    def _renamed(self, example: Example, names: Names, draw: Random) -> Example | None:
        row, said = self.rows[example.prompt], self.backbone.decode(list(example.reply))
        old = names.of(row.request, "" if example.refused else said)
        new = names.like(old, draw) if old else None
        if new and _unknown(self.backbone, new):
            new = draw.choice([*self.spare, ""])
        if not old or not new or new == old:
            return None
        reply = self._retold(example.reply, said, old, new)
        prompt = self.backbone.render(messages(renamed(row, old, new)))
        return replace(example, prompt=tuple(prompt), reply=reply) if reply else None

    def _retold(self, reply: Tokens, text: str, old: str, new: str) -> Tokens | None:
        """A reply's tokens with another name; None where its text does not give its tokens back."""
        if old not in text:
            return reply
        ends = tuple(token for token in reply[-1:] if token in self.backbone.stops)
        for lead in ("", " "):
            if (*self.backbone.encode(lead + text), *ends) == reply:
                return (*self.backbone.encode(lead + _replaced(text, old, new)), *ends)
        return None


def spare_names(
    backbone: Backbone, names: Names, answered: Sequence[Prompt], said: Iterable[str], draw: Random
) -> tuple[str, ...]:
    """Words of the vocabulary that nothing has ``said`` and that the backbone takes for names.

    They are needed where a word is one token, so that no name can be made of two. A word is a name where
    the backbone, asked of it what it was asked of another, says it where it says names.
    """
    tried = [names.like(name, draw) for name in names.known[:SPARE]]
    if not any(_unknown(backbone, name) for name in tried):
        return ()
    words = {word.casefold() for text in said for word in WORD.findall(text)}
    vocabulary = sorted(backbone.tokenizer.get_vocab())
    spare = [word for word in vocabulary if WORD.fullmatch(word) and word.casefold() not in words]
    asked: dict[str, list[int]] = {}
    for word in draw.sample(spare, min(SPARE, len(spare))):
        row = draw.choice(answered)
        if old := names.of(row.request):
            asked[word] = backbone.render(messages(renamed(row, old, word)))
    replies = greedy_replies(backbone, list(asked.values()), REPLY_TOKENS)
    heard = [WORD.findall(backbone.decode(list(reply)))[names.place :] for reply in replies]
    return tuple(word for word, each in zip(asked, heard, strict=True) if each[:1] == [word])


def _unknown(backbone: Backbone, name: str) -> bool:
    return backbone.tokenizer.unk_token_id in backbone.encode(name)


def renamed(row: Prompt, old: str, new: str) -> Prompt:
    """The row with another name wherever one stood."""
    if isinstance(row.prompt, str):
        return replace(row, prompt=_replaced(row.prompt, old, new))
    said = tuple(
        tuple((key, _replaced(text, old, new) if key == "content" else text) for key, text in message)
        for message in row.prompt
    )
    return replace(row, prompt=said)


def _replaced(text: str, old: str, new: str) -> str:
    return re.sub(rf"\b{re.escape(old)}\b", lambda found: new, text)
