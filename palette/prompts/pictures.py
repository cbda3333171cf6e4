"""Pictures in prompts: files known by their bytes, and marks in the words that say where each stands."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from palette.errors import PromptError

if TYPE_CHECKING:
    from PIL.Image import Image

MARK = "\ufffc"
"""Unicode's object replacement character: in a prompt's words, the place of one picture."""
LARGEST = 1 << 26
"""Bytes of a picture's file at most."""
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
"""What is read, by Pillow's names."""
SHORT = 40
"""Characters of a file's name at most that an error shows."""
MODALITIES = {"text": "words", "blank": "beside", "unrelated": "beside", "picture": "picture"}
"""By what a model reads a request, of each cell: words alone, words beside a picture, or a picture."""
LETTER, LINE = 24, 36
"""Pixels of a letter's height and letters of a line, of a text that is drawn."""
WHITE = (255, 255, 255, 255)


@dataclass(frozen=True)
class Picture:
    """A picture's file; two are the same one whose bytes are the same, wherever they lie."""

    digest: str
    """SHA-256 (hex) of the file's bytes."""
    path: Path = field(compare=False)
    content: bytes = field(default=b"", compare=False, repr=False)
    """The bytes of one that lies in no file of its own."""


def shown(path: Path) -> str:
    """A file's name as an error may show it: where columns are mistaken, any text can stand for one."""
    name = path.name
    return name if len(name) <= SHORT and not any(mark.isspace() for mark in name) else "a picture"


def stated_picture(path: Path, where: object) -> Picture:
    """The picture of a file, whose head is read: that it is one, its format, its size and its frames.

    Raises:
        PromptError: if there is no such file, or none that can be shown to a model.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise PromptError(
                f"a picture's file must have at most {LARGEST >> 20} MiB",
                got=f"{path.stat().st_size >> 20} MiB in {shown(path)}",
                remedy="make it smaller: models see about a thousand pixels a side",
                where=where,
            )
        content = path.read_bytes()
    except OSError as error:
        raise PromptError(
            "a prompt's picture must be a file that can be read",
            got=f"{error.strerror or error} for {shown(path)}",
            remedy="give its path, beside the file of prompts or from the root on",
            where=where,
        ) from error
    return _one_frame(Picture(hashlib.sha256(content).hexdigest(), path), where)


def held_picture(content: bytes, where: object) -> Picture:
    """The picture of some bytes that lie in no file of their own, as a row of a table may hold them.

    Raises:
        PromptError: if it is none that can be shown to a model.
    """
    return _one_frame(Picture(hashlib.sha256(content).hexdigest(), Path("picture"), content), where)


def _one_frame(picture: Picture, where: object) -> Picture:
    with _opened(picture, where) as image:
        if getattr(image, "n_frames", 1) != 1:
            raise PromptError(
                "a picture must be a single frame",
                got=f"{image.n_frames} in {shown(picture.path)}",  # type: ignore[attr-defined]
                remedy="save the frame that is meant",
                where=where,
            )
    return picture


def pixels(picture: Picture) -> Image:
    """The picture as a viewer shows it: upright as its EXIF says, in RGB, on white where it is transparent.

    Raises:
        PromptError: if it cannot be decoded, or is no longer the file that was read.
    """
    from PIL import ImageOps
    from PIL.Image import new

    if not picture.content and not _is_unchanged(picture):
        raise PromptError(
            "a picture must stay as it was when prompts were read",
            got="another file, or none",
            remedy="run the command again",
            where=picture.path,
        )
    with _opened(picture, picture.path) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
            seen = upright.convert("RGBA")
            ground = new("RGBA", seen.size, WHITE)
            ground.alpha_composite(seen)
            upright = ground
        return upright.convert("RGB")


def _is_unchanged(picture: Picture) -> bool:
    return picture.path.is_file() and hashlib.sha256(picture.path.read_bytes()).hexdigest() == picture.digest


def drawable(words: str) -> bool:
    """Whether Pillow's own font has all letters of a text, and there is one."""
    try:
        return bool(words.strip()) and bool(words.encode("latin-1"))
    except UnicodeEncodeError:
        return False


def drawn(words: str, turned: int = 0) -> Picture:
    """A picture of a text, black on white in Pillow's own font, turned to the left by so many degrees.

    It is in memory alone: a request that must be refused is not left in a file.
    """
    from PIL import Image, ImageDraw, ImageFont

    font, lines = ImageFont.load_default(LETTER), "\n".join(wrap(words, LINE))
    edges = ImageDraw.Draw(Image.new("L", (1, 1))).multiline_textbbox((LETTER, LETTER), lines, font)
    image = Image.new("L", (int(edges[2]) + LETTER, int(edges[3]) + LETTER), "white")
    ImageDraw.Draw(image).multiline_text((LETTER, LETTER), lines, "black", font)
    stream = BytesIO()
    image.rotate(turned, expand=True, fillcolor="white").save(stream, "PNG")
    return held_picture(stream.getvalue(), "a picture that was drawn")


@contextmanager
def _opened(picture: Picture, where: object) -> Iterator[Image]:
    """The image of a picture, which Pillow decodes as its pixels are asked for.

    Raises:
        PromptError: if it is none, of a format that is not read, or one that is only made to fill memory.
    """
    from PIL import Image

    path = picture.path
    try:
        with warnings.catch_warnings():
            # Of a picture of so many pixels Pillow warns, and of one of twice as many it raises.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.filterwarnings("ignore", category=UserWarning)
            with Image.open(BytesIO(picture.content) if picture.content else path, formats=FORMATS) as image:
                yield image
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        most = Image.MAX_IMAGE_PIXELS or 0
        raise PromptError(
            f"a picture must have at most {most // 1_000_000} million pixels",
            got=f"more in {shown(path)}",
            remedy="make it smaller: models see about a thousand pixels a side",
            where=where,
        ) from error
    except PromptError:
        raise
    except Exception as error:  # A damaged file may end in any error of a decoder's.
        raise PromptError(
            f"a picture must be one of {', '.join(FORMATS)}, and whole",
            got=f"{type(error).__name__} in {shown(path)}",
            remedy="open it in a viewer and save it again",
            where=where,
        ) from error


def marked(content: Any, count: int, where: object) -> Any:
    """A prompt's words with a mark for each of its pictures: before the last user's, where none is.

    Raises:
        PromptError: if there are marks, and not as many as pictures; or no user to show them to.
    """
    said = [content] if isinstance(content, str) else [dict(each)["content"] for each in content]
    marks = sum(text.count(MARK) for text in said)
    if marks == count:
        return content
    if marks:
        raise PromptError(
            "a prompt must have a mark (U+FFFC) for each of its pictures, or none",
            got=f"{marks} for {count}",
            where=where,
        )
    if isinstance(content, str):
        return MARK * count + content
    users = [place for place, each in enumerate(content) if dict(each)["role"] == "user"]
    if not users:
        raise PromptError("a picture must stand in a user's message", got="none", where=where)
    shown = {**dict(content[users[-1]])}
    shown["content"] = MARK * count + shown["content"]
    place = users[-1]
    return (*content[:place], tuple(sorted(shown.items())), *content[place + 1 :])


def without_marks(text: str) -> str:
    """A text as it is read where its pictures are not shown."""
    return text.replace(MARK, "").strip() if MARK in text else text


def shared_out(pictures: Sequence[Picture], contents: Sequence[str]) -> list[tuple[Picture, ...]]:
    """The pictures of each text, by its marks."""
    rest = iter(pictures)
    return [tuple(next(rest) for _ in range(text.count(MARK))) for text in contents]
