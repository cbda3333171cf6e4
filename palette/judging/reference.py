"""The reference: whether a reply is the right answer, where that is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from palette.fingerprints import fingerprint
from palette.judging.judge import Judge, Verdict
from palette.judging.normalisation import plain, without_thoughts
from palette.judging.rules import RuleJudge

CORRECT, WRONG = "correct", "wrong"
"""Flags: the reply is the reference answer, or it is not; none where no answer is known."""


@dataclass(frozen=True)
class ReferenceJudge:
    """Another judge's verdicts, which say of each prompt with an answer whether the reply is right."""

    answers: Mapping[str, str]
    """The reference answers, by what the prompt asks."""
    judge: Judge = field(default_factory=RuleJudge)

    @property
    def fingerprint(self) -> str:
        """The SHA-256 (hex) of the answers and of the other judge."""
        held = {"judge": "reference", "answers": dict(self.answers), "of": self.judge.fingerprint}
        return fingerprint(held)

    def verdicts(self, prompts: Sequence[str], replies: Sequence[str]) -> list[Verdict]:
        """One verdict for each reply, in order."""
        found = self.judge.verdicts(prompts, replies)
        return [
            self._marked(prompt, reply, verdict)
            for prompt, reply, verdict in zip(prompts, replies, found, strict=True)
        ]

    def _marked(self, prompt: str, reply: str, verdict: Verdict) -> Verdict:
        answer = self.answers.get(prompt)
        if answer is None:
            return verdict
        mark = CORRECT if correct(reply, answer, verdict) else WRONG
        return Verdict(verdict.label, (*verdict.flags, mark))


def correct(reply: str, answer: str, verdict: Verdict | None = None) -> bool:
    """Whether a reply is the reference answer, typography aside, and no refusal.

    ``verdict`` is a judge's on this reply; without one the rule judge decides.
    """
    label = (verdict or RuleJudge().verdict(reply)).label
    given = bare(reply)
    return bool(given) and given == bare(answer) and not label.refused


def bare(text: str) -> str:
    """A text in one typography, on one line, without quotation marks and closing punctuation."""
    return " ".join(plain(without_thoughts(text)).split()).strip("\"' ").rstrip(".!,;: ")
