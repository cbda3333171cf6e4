"""Whether a reply says a reference answer: the same words, or a number or short answer inside a sentence."""

from __future__ import annotations

import re
from decimal import Decimal

from palette.judging.normalisation import bare, expanded, own_text, sentences, words

VALUE = r"[-+]?(?:\d{1,3}(?:,\d{3})++|\d++)(?:\.\d++)?"
SIGNS = r"[$\u20ac\u00a3\u00a5]?\s?"
NUMBER = re.compile(rf"({SIGNS})({VALUE})\s?(%|percent|per cent)?")
IN_TEXT = re.compile(rf"(?<![\w.,]){NUMBER.pattern}(?!(?:st|nd|rd|th)\b|\w{{4,}}|[.,]\d)")
"""A number of a text; one behind which an ordinal's ending stands is none."""

CONCLUDED = re.compile(
    rf"(?:\b(?:answer|result|total) (?:is|are|=|:|comes to)|=) ?(?=[^\w\s]*{SIGNS}{VALUE})"
)
DENIED = re.compile(r"\b(?:not|never|than)\b[^\w]*$")
SHORT = 4
"""Words of an answer that may stand at the end of a sentence."""
SAID = r"(?:is|are|was|were|be|called|named|:|=)"
CHOICES = frozenset({"yes", "no", "maybe", "true", "false"})
"""Answers that are common words, as single letters are: they need a sentence that says what they are."""


def says(reply: str, answer: str) -> bool:
    """Whether a reply gives the answer: word for word, typography aside, or as what it comes to.

    A number is what the reply calls its answer, or else its last number; 18, 18.00 and $18 are one. A short
    answer may be what the reply's only or last sentence says: "the capital of France is Paris".
    """
    given, wanted = bare(reply), bare(answer)
    if not given or not wanted:
        return False
    if given == wanted:
        return True
    text = expanded(own_text(reply))
    if (number := NUMBER.fullmatch(wanted)) is not None:
        return _concludes(text, number)
    return len(words(wanted)) <= SHORT and _ends_with(text, expanded(wanted))


def _concludes(text: str, wanted: re.Match[str]) -> bool:
    named = list(CONCLUDED.finditer(text))
    found = IN_TEXT.search(text, named[-1].end()) if named else None
    found = found or next(reversed(list(IN_TEXT.finditer(text))), None)
    if found is None or DENIED.search(text[: found.start()]):
        return False
    same_unit = not wanted[3] or bool(found[3])
    return same_unit and _value(found[2]) == _value(wanted[2])


def _value(text: str) -> Decimal:
    return Decimal(text.replace(",", ""))


def _ends_with(text: str, wanted: str) -> bool:
    said = sentences(text)
    if not said:
        return False
    last, own = said[-1].strip("\"'*() ").rstrip(".!\"') "), re.escape(wanted)
    named = r"\b(?:answer|option|choice|letter)\b.*" if len(wanted) == 1 or wanted in CHOICES else ""
    if re.search(rf"{named}\b{SAID} [\"'(*]*{own}\Z", last):
        return True
    # Turned round, it says the same: "Paris is the capital of France".
    return not named and len(said) == 1 and bool(re.match(rf"{own} (?:is|are|was|were) (?!not\b)", last))
