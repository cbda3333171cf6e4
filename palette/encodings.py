"""Bytes of a text file as text, whichever of Unicode's encodings a spreadsheet or an editor wrote it in."""

from __future__ import annotations

import codecs

MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte order marks and what they stand for; UTF-32's begins with that of UTF-16."""

REMEDY = "save it as UTF-8 (in Excel: 'CSV UTF-8')"


class NotUnicodeError(ValueError):
    """Bytes that are no Unicode text; its message says what they are."""


def decoded(content: bytes) -> str:
    """The text of a file's bytes: UTF-8, UTF-16 or UTF-32, with or without a byte order mark.

    Any other encoding is a guess that turns letters into others without a word, and is not made.

    Raises:
        NotUnicodeError: saying where the first byte of another encoding is.
    """
    encoding = _marked(content) or _unmarked(content)
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        if encoding != "utf-8":
            raise NotUnicodeError(
                f"broken {encoding.removesuffix('-sig').upper()} at byte {error.start}"
            ) from None
        byte = content[error.start]
        raise NotUnicodeError(f"byte 0x{byte:02x} in line {line}, {_likely(content)}") from None


def _marked(content: bytes) -> str | None:
    return next((encoding for mark, encoding in MARKS if content.startswith(mark)), None)


def _unmarked(content: bytes) -> str:
    """UTF-16 without its mark begins with a letter, half of which is zero."""
    first = content[:2]
    if len(content) % 2 == 0 and first.count(0) == 1:
        return "utf-16-be" if first[0] == 0 else "utf-16-le"
    return "utf-8"


def _likely(content: bytes) -> str:
    """What such bytes may be: most stand for a letter in a code page of Western Europe."""
    try:
        content.decode("cp1252")
    except UnicodeDecodeError:
        return "which is no text in any common encoding"
    return "as an ANSI code page such as Windows-1252 has it"
