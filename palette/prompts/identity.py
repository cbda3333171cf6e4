"""By what two texts are the same prompt: their letters with their marks, digits, symbols and operators."""

from __future__ import annotations

import re
import unicodedata

INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\U000e0100-\U000e01ef]"
)
"""Marks and letters that show nothing, such as what chooses between two forms of a character."""

TYPED = str.maketrans(
    {**dict.fromkeys("\u2010\u2011\u2012\u2013\u2212", "-"), **dict.fromkeys("\u2044\u2215", "/")}
)
"""Signs that no keyboard has, and those that are typed for them."""

SIGN = re.compile(r"-+|\*+|#+|![=\w]?|[()\[\]{}]|[\W_]")
OPERATORS = frozenset("+-*/=<>^|&")
"""Beside them a bracket says what is done first."""
ALWAYS = frozenset("%&/@\\")
"""What is punctuation to Unicode and stands for something wherever it is."""


def identifying_text(text: str) -> str:
    """What tells a text from other prompts, in Unicode's NFKC and one case, its parts between single spaces.

    Letters keep their combining marks, without which Thai, Hindi or Hebrew say something else. Symbols are
    told apart (C++ and C, 5 $ and 5 %), and so is punctuation that is an operator or a sign (7 - 3, -5, C#).
    """
    seen = unicodedata.normalize("NFKC", _visible(text)).translate(TYPED).casefold()
    folded = _visible(unicodedata.normalize("NFKC", seen))
    return " ".join(SIGN.sub(_spoken, folded).split())


def _visible(text: str) -> str:
    if text.isascii():
        return text
    return "".join(mark for mark in INVISIBLE.sub("", text) if unicodedata.category(mark) != "Cf")


def _spoken(found: re.Match[str]) -> str:
    """What of a sign, or of several like ones, tells a text from another: itself, or a space."""
    sign, (start, end), text = found[0], found.span(), found.string
    if sign.isspace():
        return " "
    before, after = text[start - 1 : start] if start else "", text[end : end + 1]
    left, right = _is_told(before), _is_told(after)
    if sign[0] == "-":
        digits = _next(text, start, -1).isdecimal() and _next(text, end, 1).isdecimal()
        counts = left != right or digits or _is_symbol(before) or _is_symbol(after)
    elif sign[0] == "*":
        operands = _is_operand(_next(text, start, -1)) and _is_operand(_next(text, end, 1))
        counts = left == right and operands
    elif sign[0] == "#":
        counts = left or right
    elif sign[0] == "!":
        if len(sign) == 1 or (left and sign != "!="):
            return " " + sign[1:]
        counts = True
    elif sign in "([{":
        counts = _next(text, start, -1) in OPERATORS
    elif sign in ")]}":
        counts = _next(text, end, 1) in OPERATORS
    elif unicodedata.category(sign)[0] == "M":
        # Alone it is a quotation mark or an accent that is shown by itself.
        return sign if left else " "
    else:
        counts = sign in ALWAYS or _is_symbol(sign)
    return f" {' '.join(sign)} " if counts else " "


def _next(text: str, place: int, step: int) -> str:
    """The character before or behind a place, but for spaces; the line's end where there is none."""
    place = place - 1 if step < 0 else place
    while 0 <= place < len(text) and text[place] in " \t":
        place += step
    return text[place] if 0 <= place < len(text) else "\n"


def _is_told(mark: str) -> bool:
    return bool(mark) and (mark.isalnum() or unicodedata.category(mark)[0] == "M")


def _is_symbol(mark: str) -> bool:
    """Whether a character is a symbol; a backtick is a quotation mark."""
    return bool(mark) and mark != "`" and unicodedata.category(mark)[0] == "S"


def _is_operand(mark: str) -> bool:
    return _is_told(mark) or mark in "()[]"
