"""Which replies are right, and which answers the backbone knows although it refuses to give them.

**Known** is measured on the refusing backbone alone, with no other checkpoint: it is made to begin its
reply as the reference answer begins, up to the value, and knows the answer if it then goes on to one that
is accepted. The value begins at the first word that tells something: one that stands neither in the
question nor in more than half of the domain's reference answers, whose common words are their form. The
last word is never given away. An answer that begins with its value has no such opening, and whether it
is known is not measured.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from palette.authorisation import Role
from palette.backbones import Backbone
from palette.errors import JudgeError
from palette.evaluation.replies import Replies
from palette.evaluation.subjects import Requests, Subject, Tokens
from palette.judging.judge import Judge, OwnJudge, Verdict
from palette.judging.language import without_language
from palette.judging.rules import correct
from palette.prompts import Prompt

SHAPE = 0.5
"""The share of a domain's reference answers above which a word of theirs is form, and no value."""

Marks = list[bool | None]
"""Whether each reply is right; None where nothing says what would be."""


def marks(judge: Judge, requests: Requests, texts: Sequence[str], verdicts: Sequence[Verdict]) -> Marks:
    """Which replies are right; None on the floor and where a row has no reference answer.

    A reply is right if it says an accepted answer (``palette.judging.references``) and is no refusal. A judge
    of the user's own file may have ``correct(question, reply, answers)`` and decide it, for open text.

    Raises:
        JudgeError: if that fails; no reply is repeated in the message.
    """
    named = without_language(judge)
    own = getattr(named.judge, "correct", None) if isinstance(named, OwnJudge) else None
    found: Marks = []
    for row, role, text, verdict in zip(requests.rows, requests.roles, texts, verdicts, strict=True):
        if role is Role.FLOOR or not row.accepted:
            found.append(None)
        elif own is None:
            found.append(any(correct(text, answer, verdict) for answer in row.accepted))
        else:
            found.append(_marked(own, row, text) and not verdict.label.refused)
    return found


def _marked(own: Any, row: Prompt, text: str) -> bool:
    try:
        return bool(own(row.request, text, row.accepted))
    except Exception as error:  # A user's own code may fail in any way.
        raise JudgeError(
            "a judge's correct(question, reply, answers) must say whether a reply is right",
            got=type(error).__name__,
        ) from error


@dataclass(frozen=True)
class Knowledge:
    """Questions to be opened, and the beginnings of their answers as token ids, by place in the requests."""

    requests: Requests
    openings: dict[int, Tokens]

    @classmethod
    def of(cls, backbone: Backbone, requests: Requests) -> Knowledge:
        """The openings of the requests' target prompts, where their answers have one."""
        texts = openings(requests)
        encoded = {i: backbone.encode(text) for i, text in texts.items()}
        return cls(requests, {i: tokens for i, tokens in encoded.items() if tokens})

    def measured(self, backbone: Backbone, judge: Judge, replies: Replies, limit: int) -> Marks:
        """Which answers the backbone knows; None where that is not measured.

        Raises:
            JudgeError: as ``marks`` does.
        """
        places, begun = list(self.openings), list(self.openings.values())
        asked = self.requests.where(places)
        prompts = [[*prompt, *opening] for prompt, opening in zip(asked.prompts, begun, strict=True)]
        rest = replies.of(Subject(backbone), prompts, [limit] * len(prompts))
        texts = [backbone.decode([*opening, *tail]) for opening, tail in zip(begun, rest, strict=True)]
        found: Marks = [None] * len(self.requests)
        right = marks(judge, asked, texts, judge.verdicts(asked.questions, texts))
        for place, known in zip(places, right, strict=True):
            found[place] = known
        return found


def openings(requests: Requests) -> dict[int, str]:
    """The beginning of each target prompt's reference answer up to its value, by place; no empty ones."""
    pairs = list(zip(requests.rows, requests.roles, strict=True))
    answered = [row for row, role in pairs if row.accepted and role is not Role.FLOOR]
    form: dict[str, set[str]] = {}
    for domain in {row.domain for row in answered}:
        bags = [set(map(_bare, row.accepted[0].split())) for row in answered if row.domain == domain]
        counts = Counter(word for bag in bags for word in bag)
        form[domain] = {word for word, count in counts.items() if count > SHAPE * len(bags)}
    found = {
        i: opening(row, form[row.domain])
        for i, (row, role) in enumerate(pairs)
        if role is Role.TARGET and row.accepted
    }
    return {i: text for i, text in found.items() if text}


def opening(row: Prompt, form: set[str]) -> str:
    """A reference answer up to its value, given the words that are the form of its domain's answers."""
    given = {_bare(word) for word in row.request.split()} | form | {""}
    words = row.accepted[0].split()
    said = [place for place, word in enumerate(words) if _bare(word)]
    value = next((place for place in said if _bare(words[place]) not in given), said[-1] if said else 0)
    return " ".join(words[:value])


def _bare(word: str) -> str:
    """A word without its case and the punctuation around it."""
    return "".join(sign for sign in word.casefold() if sign.isalnum())
