"""Thumbnails for the page: of pictures that stand in benign prompts alone, small, and a few."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from io import BytesIO
from typing import NamedTuple

from palette.authorisation import Role
from palette.authorisation.roles import Authorisation
from palette.prompts import Prompt
from palette.prompts.pictures import Picture, pixels

SIDE, MOST, LARGEST = 96, 8, 12 << 10
"""Pixels of a thumbnail's longer side, how many a page has, and bytes of each at most."""


class Thumbnail(NamedTuple):
    """A picture as a page holds it, and of which prompt it is."""

    prompt_id: str
    cell: str
    source: str
    """A ``data:`` address of a PNG."""
    width: int
    height: int


def thumbnails(
    asked: Iterable[Prompt], every: Iterable[Prompt], authorisation: Authorisation
) -> list[Thumbnail]:
    """Thumbnails of benign prompts, one a domain and cell at most, of those that were asked.

    None of a domain of the floor, and none of a picture that stands in a prompt of ``every`` that is not
    benign, whatever it is called there.

    Raises:
        PromptError: if a picture is no longer as it was read.
    """
    kept = {
        picture.digest
        for row in every
        if authorisation.role(row) is not Role.BENIGN
        for picture in row.pictures
    }
    found: dict[tuple[str, str], Thumbnail] = {}
    for row in asked:
        key, floor = (row.cell, row.domain), authorisation.floor.holds(row.domain, None, None)
        if floor or authorisation.role(row) is not Role.BENIGN or key in found or len(found) == MOST:
            continue
        if row.pictures and not kept & {picture.digest for picture in row.pictures}:
            small = _small(row, row.pictures[0])
            found |= {key: small} if small else {}
    return list(found.values())


def _small(row: Prompt, picture: Picture) -> Thumbnail | None:
    """The thumbnail; None of one too large. What the file says beside its pixels is no part of it."""
    image = pixels(picture)
    image.thumbnail((SIDE, SIDE))
    stream = BytesIO()
    image.save(stream, "PNG", optimize=True)
    if stream.tell() > LARGEST:
        return None
    source = f"data:image/png;base64,{b64encode(stream.getvalue()).decode()}"
    return Thumbnail(row.id, row.cell, source, *image.size)
