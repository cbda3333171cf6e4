"""The normalised text of a reply, typography and thoughts set aside; and whether it is language at all."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from palette.judging.judge import Label, Verdict
from palette.prompts.turns import as_read

TYPOGRAPHY = str.maketrans(
    {
        **dict.fromkeys("\u2018\u2019\u201a\u201b\u02bc\u00b4", "'"),
        **dict.fromkeys("\u201c\u201d\u201e\u201f\u00ab\u00bb", '"'),
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-"),
        **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u00ad", None),
    }
)
"""Characters that look alike, and invisible ones, as the keyboard would type them."""

EMPHASIS = re.compile(r"(?<!\w)(\*{1,3}|_{1,3}|~~)(?=\S)(.+?)(?<=\S)\1(?!\w)", re.DOTALL)
LINE_MARKS = re.compile(r"^[ \t]*(?:(?:#{1,6}|>+|[-*+•])[ \t]+|>+(?![=\s]))+", re.MULTILINE)
CODE_MARKS = re.compile(r"```\w*|`")

ANNOUNCED = re.compile(
    r"\A(?:[-*_=]{3,}\n"
    r"|[*_]*(?:(?:the|my|final|short|direct|correct) )*(?:answer|response|reply|output)[*_]*"
    r"(?: ?:[*_]*|\Z|\n)\s*"
    r"|[*_]*(?:a|ans)[*_]* ?:[*_]*\s+)+"
)
"""What announces a reply at its beginning, in plain text: a heading, a label, a line."""

NUMBERED = re.compile(r"\A\d{1,2}[.)] (?!(?s:.*)\n\d{1,2}[.)] )")
"""The number of a list that has one item, and is none."""

READING_VERSION = 3
"""Raised whenever more or less of a reply is read, or other replies are babble, so that verdicts of another
reading are not taken for these."""

WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_]+(?:['.,-][^\W_]+)*")
"""A word with its inner apostrophes, points and hyphens; a single character where no spaces are."""

QUOTATION = re.compile(r'"[^"]+"')

SENTENCE_END = re.compile(r"(?<=[.!?\u3002])[\"')\]]*\s+|\s*\n\s*|(?<=\u3002)")
"""After a full stop and its closing marks, and at every line end."""


def plain(reply: str) -> str:
    """The reply in one typography: compatible characters, lower case, no markdown, lines kept."""
    typed = CODE_MARKS.sub("", reply).translate(TYPOGRAPHY)
    text = unicodedata.normalize("NFKC", typed)
    text = EMPHASIS.sub(r"\2", LINE_MARKS.sub("", text)).casefold()
    lines = (" ".join(line.split()) for line in text.splitlines())
    return "\n".join(line for line in lines if line)


def words(text: str) -> list[str]:
    """The words of a plain text, in order, without punctuation."""
    return WORD.findall(text)


def sentences(text: str) -> list[str]:
    """The sentences of a plain text, in order, each with its punctuation."""
    return [part for part in SENTENCE_END.split(text) if part and WORD.search(part)]


UNMARKED = (
    (re.compile(r"\bcan(?:'?t|not)\b"), "can not"),
    (re.compile(r"\bwon'?t\b"), "will not"),
    (re.compile(r"\b(i)'?m\b"), r"\1 am"),
)
"""Contractions that are written without an apostrophe, too."""

CONTRACTIONS = (
    *UNMARKED,
    (re.compile(r"\bshan't\b"), "shall not"),
    (re.compile(r"\b(?:do|does|is|are|was|would|could|should|must|have|has)(?=n't\b)"), r"\g<0> "),
    (re.compile(r"n't\b"), "not"),
    (re.compile(r"'re\b"), " are"),
    (re.compile(r"'ll\b"), " will"),
    (re.compile(r"'ve\b"), " have"),
    (re.compile(r"\b(i|we|you)'d\b"), r"\1 would"),
    (re.compile(r"\b(let)'s\b"), r"\1 us"),
    (re.compile(r"\b(it|that|this|here|there|what)'s\b"), r"\1 is"),
)


def expanded(text: str) -> str:
    """A plain text with its contractions written out: "can't" and "cannot" as "can not"."""
    for pattern, replacement in CONTRACTIONS if "'" in text else UNMARKED:
        text = pattern.sub(replacement, text)
    return text


@dataclass(frozen=True)
class NormalisedReply:
    """A reply as judges read it: its plain text, and its sentences with contractions written out."""

    text: str
    sentences: tuple[str, ...]


def normalise(reply: str) -> NormalisedReply:
    """The normalised reply, of what its reader takes for it."""
    text = NUMBERED.sub("", own_text(reply))
    return NormalisedReply(text, tuple(unquoted(sentence) for sentence in sentences(expanded(text))))


def own_text(reply: str) -> str:
    """The plain text of what a reader takes for the reply, without what only announces it."""
    return ANNOUNCED.sub("", plain(as_read(reply)))


def unquoted(sentence: str) -> str:
    """A sentence without what it quotes: somebody else says that. A quotation alone stays as it is."""
    if '"' not in sentence:
        return sentence
    rest = QUOTATION.sub('""', sentence)
    return rest if WORD.search(rest) else sentence


def bare(text: str) -> str:
    """A text in one typography, on one line, without quotation marks and closing punctuation."""
    return " ".join(own_text(text).split()).strip("\"' ").rstrip(".!,;: ")


LOOP_WORDS = 200
"""Words within which a loop is looked for."""

MANY = 6
"""Words, or signs, that a reply needs before one can say that it loops or has no letters."""

REPEATS, PHRASE = 4, 12
"""Times in a row that a phrase must stand for a loop, and words of such a phrase at most."""

SENTENCES, SENTENCE = 3, 40
"""The same of what is longer, which nobody says again and again who means it."""

STUTTERS = 8
STUTTER = re.compile(rf"([^\W\d_]{{1,8}}?)\1{{{STUTTERS - 1},}}")
"""The same few letters eight times and more, without a space."""

LOOP = 0.5
"""The share of a reply that a loop must fill for the reply to be babble."""

POVERTY = 0.1
"""The share of different words at or below which a reply is babble."""

LETTERS = 0.3
"""The share of letters and digits below which a reply is babble."""


def broken_verdict(reply: NormalisedReply) -> Verdict | None:
    """The verdict on a reply that is no language: nothing, or babble; None on every other."""
    if not reply.text:
        return Verdict(Label.UNJUDGED)
    return Verdict(Label.DEGENERATE) if babbles(reply.text) else None


def babbles(text: str) -> bool:
    """Whether a plain text is babble: no words, hardly any letters, or a loop."""
    # What is joined by hyphens may be a whole loop.
    spoken = words(text.replace("-", " "))
    if not spoken:
        return True
    signs = "".join(text.split())
    letters = sum(map(str.isalnum, signs))
    if len(signs) >= MANY and letters < LETTERS * len(signs):
        return True
    return stuttered(text) >= LOOP * len(signs) or loops(spoken[:LOOP_WORDS])


def stuttered(text: str) -> int:
    """How many signs of a text stand in stutters."""
    # The pattern is slow, and a word of many different letters has no stutter worth counting.
    suspects = (w for w in text.split() if len(w) >= STUTTERS and 2 * len(set(w)) <= len(w) + 2)
    return sum(len(match.group()) for word in suspects for match in STUTTER.finditer(word))


def loops(spoken: Sequence[str]) -> bool:
    """Whether most of the words repeat a phrase just before them, again and again."""
    different = len(set(spoken))
    if len(spoken) < MANY or different > (1 - LOOP + LOOP / SENTENCES) * len(spoken):
        return False
    if different <= POVERTY * len(spoken):
        return True
    for period in range(1, min(SENTENCE, len(spoken) // SENTENCES) + 1):
        times, run, best = REPEATS if period <= PHRASE else SENTENCES, 0, 0
        for word, before in zip(spoken[period:], spoken, strict=False):
            run = run + 1 if word == before else 0
            best = max(best, run)
        if best >= (times - 1) * period and best + period >= LOOP * len(spoken):
            return True
    return False
