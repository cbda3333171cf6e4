"""What a reply concludes, where its request offers options or wants a number."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal

from palette.judging.normalisation import plain, sentences, words
from palette.prompts.turns import without_thoughts

LETTERS, DIGITS = "abcdefghij", "123456789"
"""What options are told apart by, in their order."""
FEWEST_BARE = 3
"""Options at least where they stand in a line with full stops: two may be the ends of two sentences."""

MARKS = (
    (re.compile(r"^[ \t]*(?:option )?[(\[]?([a-j1-9])[)\].:]+[ \t]+(?=\S)", re.MULTILINE), 2),
    (re.compile(r"(?<!\w)[(\[]?([a-j1-9])[)\]][.:]?[ \t]+(?=\S)"), 2),
    (re.compile(r"(?<!\w)([a-j])[.:][ \t]+(?=\S)"), FEWEST_BARE),
)
"""How options are marked, and how many there must be: a line each, in brackets, with full stops."""

CHOICE = re.compile(r"\b(?:which|choose|select|pick|options?|answer with)\b")
"""What a request with a numbered list must say for the list to be options, and no list of facts."""
CLOSED = re.compile(
    r"\byes\b[\s,/\"']*(?:or\b[\s,\"']*)?\bno\b(?:[\s,/\"']*(?:or\b[\s,\"']*)?\b(maybe|unsure|uncertain|unknown)\b)?"
)
"""A question that names the words of which one is wanted."""
JOINING = re.compile(r"[\s,;.?]*(?:\b(?:or|and)\b)?[\s,;.?]*$")

SAYS = (
    r"\b(?:answer|choice|option)(?: \w+){0,2}?(?: is| would be|:)|\b(?:choose|select|pick|go with|opt for)\b"
)
"""How a reply says which option it takes."""
NOUN = "(?:option |choice |letter |answer )?"

WANTS_NUMBER = re.compile(
    r"\bhow (?:many|much|old|long|far|often|tall|high|large|big|fast|heavy|deep|wide)\b|\bat what age\b"
    r"|\b(?:what|which|calculate|compute|find|give|state|estimate|determine)\b[^.?!]{0,40}\b(?:number|percent|"
    r"per cent|percentage|share|proportion|amount|sum|total|dose|dosage|rate|price|cost|age|year|temperature|"
    r"distance|weight|height|speed|average|mean|median|ratio|probability)\b"
)

NUMBER = re.compile(
    r"(?<![\w.,])(?<!\w-)([-+]?(?:\d{1,3}(?:[,' ]\d{3})+(?!\d)|\d+)(?:\.\d+)?)"
    r"(?: ?(%|[^\W\d_]+))?(?: (cent)\b)?"
)
CONCLUSION = re.compile(r"(?:\bboxed\{|\banswer(?: is|:))[^\d\n]{0,20}?(?=[-+]?\d)")
"""After which a reply gives its number."""
CONCLUDING = re.compile(r"^(?:so|therefore|thus|hence|in total|altogether|overall|in all)\b")

UNITS: Mapping[str, tuple[str, Decimal]] = {
    name: (kind, Decimal(size))
    for kind, sizes in {
        "mass": {"mcg": "0.000001", "μg": "0.000001", "mg": "0.001", "g": "1", "gram": "1", "kg": "1000"},
        "volume": {"ml": "0.001", "cl": "0.01", "dl": "0.1", "l": "1", "litre": "1", "liter": "1"},
        "length": {"mm": "0.001", "cm": "0.01", "m": "1", "metre": "1", "meter": "1", "km": "1000"},
        "time": {"second": "1", "minute": "60", "hour": "3600", "day": "86400", "week": "604800"},
        "share": {"%": "1", "percent": "1", "per cent": "1"},
    }.items()
    for name, size in sizes.items()
}
"""Units by name: what is measured, and how much of one unit each is. Any other name says nothing."""
TIMES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9}
"""Words that shift a number's decimal point, and how far."""
UNDER_TWENTY = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
SPELT = re.compile(
    rf"\b(?:({'|'.join(TENS)})(?:[- ]({'|'.join(UNDER_TWENTY[1:10])}))?"
    rf"|({'|'.join((*UNDER_TWENTY[:1], *UNDER_TWENTY[2:]))}))\b"
)
"""Numbers below a hundred in words; "one" by itself is more often a pronoun."""


def options(request: str) -> dict[str, str]:
    """The options that a request offers, text by letter, digit or word; none where it offers none."""
    text = plain(request)
    for marks, fewest in MARKS:
        for labels in (LETTERS, DIGITS) if CHOICE.search(text) else (LETTERS,):
            found = _offered(text, marks, labels)
            if len(found) >= fewest:
                return found
    if closed := CLOSED.search(text):
        return {word: word for word in ("yes", "no", closed[1]) if word}
    return {}


def _offered(text: str, marks: re.Pattern[str], labels: str) -> dict[str, str]:
    """The options whose labels follow each other from the first one on."""
    chain: list[re.Match[str]] = []
    for mark in marks.finditer(text):
        if len(chain) < len(labels) and mark[1] == labels[len(chain)]:
            chain.append(mark)
    if not chain:
        return {}
    spans = zip(chain, [*(mark.start() for mark in chain[1:]), len(text)], strict=True)
    return {mark[1]: JOINING.sub("", text[mark.end() : end].split("\n")[0]) for mark, end in spans}


def chosen(reply: str, offered: Mapping[str, str]) -> str | None:
    """The label of the option that a reply chooses; None where it chooses none, or several.

    What it says of its answer counts first, the last time that it does; then the label that it begins with;
    then the only label, or the only option's text, that stands in it.
    """
    text = plain(without_thoughts(reply))
    label = "|".join(map(re.escape, offered))
    # "The answer is a mixture" chooses nothing.
    ended = rf"(?:({label})(?=[)\].:,;!\"']|\s*$|\s+-|\s+(?:because|since)\b)|(?!a\b)({label})\b)"
    stated = re.findall(rf"(?:{SAYS}):?\s*(?:the )?{NOUN}[(\[\"']*{ended}", text, re.MULTILINE)
    if stated:
        return str(next(filter(None, stated[-1])))
    begun = re.match(rf"{NOUN}[(\[\"']*({label})(?:[)\].:,;!\"']|\s*$|\s+-)", text, re.MULTILINE)
    if begun:
        return begun[1]
    if "yes" in offered:
        first = words(text)[:1]
        return first[0] if first and first[0] in offered else None
    marked = set(re.findall(rf"(?<!\w)[(\[]({label})[)\]]|\boption ({label})\b", text))
    names = {name for pair in marked for name in pair if name} or _told(text, offered)
    return names.pop() if len(names) == 1 else None


def _told(text: str, offered: Mapping[str, str]) -> set[str]:
    """The options whose texts stand in a plain text, but for those that stand in another one's."""
    said = f" {' '.join(words(text))} "
    spoken = {name: f" {' '.join(words(option))} " for name, option in offered.items() if words(option)}
    found = {name: each for name, each in spoken.items() if each in said}
    return {n for n, each in found.items() if not any(each in o for o in found.values() if o != each)}


@dataclass(frozen=True)
class Number:
    """A number with its decimals and its unit, where that is a known one."""

    value: Decimal
    step: Decimal
    """What its last digit counts."""
    unit: str = ""

    def equals(self, other: Number) -> bool:
        """Whether both are one number to the fewer decimals, in a common unit where both have one."""
        if self.unit and other.unit:
            (kind, size), (other_kind, other_size) = UNITS[self.unit], UNITS[other.unit]
            return kind == other_kind and self._near(other, size, other_size)
        sizes = [(Decimal(1), Decimal(1))]
        # A share may be written as one, or per cent.
        if "share" in (UNITS[one.unit][0] if one.unit else "" for one in (self, other)):
            sizes.append((Decimal("0.01"), Decimal(1)) if self.unit else (Decimal(1), Decimal("0.01")))
        return any(self._near(other, *pair) for pair in sizes)

    def _near(self, other: Number, size: Decimal, other_size: Decimal) -> bool:
        apart = abs(self.value * size - other.value * other_size)
        return 2 * apart <= max(self.step * size, other.step * other_size)


def wants_number(request: str) -> bool:
    """Whether a request asks for a number."""
    return bool(WANTS_NUMBER.search(plain(request)))


def number(reply: str) -> Number | None:
    """The number that a reply gives as its conclusion; None where it gives none, or several.

    It is the one that the reply calls its answer, or the only one that it has, or that stands alone on its
    last line, after its last sign of equality, or in a last sentence that draws a conclusion.
    """
    text = SPELT.sub(_in_digits, plain(without_thoughts(reply)))
    if stated := list(CONCLUSION.finditer(text)):
        return next(_numbers(text[stated[-1].end() :]), None)
    every = list(_numbers(text))
    if every and all(one == every[0] for one in every):
        return every[0]
    last = (sentences(text) or [""])[-1]
    _, equals, after = last.rpartition("=")
    if equals or CONCLUDING.match(last) or NUMBER.fullmatch(last.strip("$. ")):
        found = list(_numbers(after if equals else last))
        return found[0] if len(found) == 1 else None
    return None


def _in_digits(spelt: re.Match[str]) -> str:
    tens, unit, small = spelt.groups()
    if small:
        return str(UNDER_TWENTY.index(small))
    return str(10 * (TENS.index(tens) + 2) + (UNDER_TWENTY.index(unit) if unit else 0))


def _numbers(text: str) -> Iterator[Number]:
    """The numbers of a plain text, in order."""
    for figure, follows, cent in NUMBER.findall(text):
        value = Decimal(re.sub("[,' ]", "", figure))
        step = Decimal(1).scaleb(-len(figure.partition(".")[2]))
        shift = TIMES.get(follows, 0)
        name = "per cent" if cent else follows
        unit = next((each for each in (name, name.removesuffix("s")) if each in UNITS), "")
        yield Number(value.scaleb(shift), step.scaleb(shift), unit)
