"""Public sets whose questions come with pictures: MM-SafetyBench's beside its file, others' in their rows."""

from __future__ import annotations

import os
import re
from ast import literal_eval
from base64 import b64decode
from pathlib import Path
from typing import Any

from palette.prompts.contents import AS_ROWS
from palette.prompts.pictures import MARK
from palette.prompts.rows import redacted
from palette.prompts.tables import KEY, TableRow

IMAGES = ("SD_TYPO", "")
"""Folders of MM-SafetyBench's images below the one named after the scenario; the typographic first."""
LETTERS = "ABCDEFGHIJ"
SHOWN = re.compile(r"<image (\d)>")
"""Where MMMU's words show one of its images."""


def to_an_image(row: TableRow, path: Path) -> str:
    """MM-SafetyBench's question, worded for its image where that is there."""
    return row.text("Rephrased Question" if image_beside(row, path) else "Question")


def image_beside(row: TableRow, path: Path) -> tuple[str, ...]:
    """MM-SafetyBench's image, relative to its file; none where the set lies there without its images.

    Raises:
        PromptError: if some are there and the row's is not.
    """
    roots = (path.parent / "imgs", path.parent.parent / "imgs", path.parent)
    wanted = (root / path.stem / kind for root in roots for kind in IMAGES)
    folder = next((each for each in wanted if each.is_dir()), None)
    if folder is None:
        return ()
    name = str(row.values[KEY])
    for ending in ("jpg", "jpeg", "png"):
        if re.fullmatch(r"[0-9A-Za-z_-]{1,32}", name) and (folder / f"{name}.{ending}").is_file():
            return (Path(os.path.relpath(folder / f"{name}.{ending}", path.parent)).as_posix(),)
    raise row.error(
        "every row must have its image beside it",
        got=f"no {redacted(name)} in {folder.name}",
        remedy="complete the folder, or move it away to read the text alone",
    )


def options_of(row: TableRow) -> list[str]:
    """The options of a row: of MMMU a list in one text, of MMBench a column each; none of an open question.

    Raises:
        PromptError: if they are no list of texts.
    """
    if "options" not in row.values:
        found = [row.values.get(letter) for letter in LETTERS]
        return [str(each) for each in found if each not in (None, "", "nan")]
    stated: Any = row.values["options"]
    try:
        read = literal_eval(stated) if isinstance(stated, str) else stated
    except (ValueError, SyntaxError):
        read = None
    if not isinstance(read, list) or not all(isinstance(each, str) for each in read):
        raise row.error("options of mmmu must be a list of texts", got=redacted(stated), remedy=AS_ROWS)
    return read


def with_its_options(row: TableRow, path: Path) -> str:
    """The question behind its hint where it has one, and under it its options by letter."""
    hint = row.values.get("hint")
    hints = [hint] if isinstance(hint, str) and hint.strip() and hint != "nan" else []
    listed = [f"{letter}. {words}" for letter, words in zip(LETTERS, options_of(row), strict=False)]
    return SHOWN.sub(MARK, "\n".join([*hints, row.text("question"), *listed]))


def letter_or_words(row: TableRow) -> tuple[str, ...]:
    """The right letter, the option behind it, and the option alone; of an open question its answers.

    Raises:
        PromptError: if the letter is none of an option.
    """
    options, answer = options_of(row), row.text("answer")
    if options and answer not in LETTERS[: len(options)]:
        law = f"an answer must be one of {', '.join(LETTERS[: len(options)])}"
        raise row.error(law, got=redacted(answer), remedy=AS_ROWS)
    if options:
        right = options[LETTERS.index(answer)]
        return answer, f"{answer}. {right}", right
    try:
        several = literal_eval(answer)
    except (ValueError, SyntaxError):
        several = answer
    return tuple(map(str, several)) if isinstance(several, list) and several else (answer,)


def images_in_the_row(row: TableRow, path: Path) -> tuple[bytes, ...]:
    """The images whose bytes a row holds: as its words show them, of MMMU, and MMBench's only one.

    Raises:
        PromptError: if one that is shown is not there, or is no image's bytes.
    """
    if "options" not in row.values:
        return (_content(row, "image"),)
    shown = SHOWN.findall("\n".join([row.text("question"), *options_of(row)])) or ["1"]
    return tuple(_content(row, f"image_{number}") for number in shown)


def _content(row: TableRow, column: str) -> bytes:
    """The bytes of a column: as parquet files hold an image, or in base64."""
    value = row.values.get(column)
    found = value.get("bytes") if isinstance(value, dict) else value
    if isinstance(found, str) and found:
        try:
            found = b64decode(found, validate=True)
        except ValueError:
            found = None
    if not isinstance(found, bytes) or not found:
        raise row.error(
            f"{column} must be an image's bytes", got=type(value).__name__, remedy="download the set whole"
        )
    return found
