"""Sets whose rows hold pictures: where they are shown, what is right, and what is no row of theirs."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from palette.errors import PromptError
from palette.prompts import load_source, messages
from palette.prompts.pictures import MARK, pixels
from tests.fixtures.standins import OTHER_PICTURE, PICTURE, STAND_INS, TEXT

BLUE, RED = (0, 0, 255), (255, 0, 0)


def colours(row: Any) -> list[Any]:
    return [pixels(picture).getpixel((3, 3)) for picture in row.pictures]


def test_mmmu_shows_each_image_where_its_words_say(stand_in: Callable[[str], Path]) -> None:
    chosen, written = load_source(stand_in("mmmu")).prompts
    assert chosen.prompt == f"{TEXT.format(0)} {MARK}\nA. red {MARK}\nB. blue\nC. green"
    assert (colours(chosen), colours(written)) == ([RED, BLUE], [RED])
    assert chosen.accepted == ("B", "B. blue", "blue")
    assert (written.prompt, written.accepted) == (f"{TEXT.format(1)} {MARK}", ("blue",))
    assert [row.id for row in (chosen, written)] == ["mmmu/hats:hats_0", "mmmu/hats:hats_1"]
    assert chosen.cell == "picture" and "pictures" in messages(chosen)[0]


def test_mmbench_shows_its_image_first_and_the_options_that_it_has(
    stand_in: Callable[[str], Path], write: Any
) -> None:
    first, second = load_source(stand_in("mmbench")).prompts
    assert first.prompt == f"{MARK}{TEXT.format(0)}\nA. red\nB. blue\nC. green"
    assert second.prompt == f"{MARK}{TEXT.format(1)}\nA. red\nB. blue"
    assert colours(first) == [RED] and first.accepted == ("B", "B. blue", "blue")
    (hinted,) = load_source(
        write("a.tsv", [{**STAND_INS["mmbench"][1][0], "hint": "Giraffes are tall."}])
    ).prompts
    assert hinted.prompt == f"{MARK}Giraffes are tall.\n{TEXT.format(0)}\nA. red\nB. blue\nC. green"


def test_a_picture_that_a_parquet_file_holds_and_a_large_field_of_a_table_are_read(write: Any) -> None:
    row = {**STAND_INS["mmmu"][1][0], "image_2": {"bytes": b64decode(PICTURE), "path": "a.png"}}
    (prompt,) = load_source(write("a.parquet", [row])).prompts
    assert colours(prompt) == [RED, RED]
    wide = {**STAND_INS["mmbench"][1][0], "hint": "x" * 200_000}
    (prompt,) = load_source(write("a.tsv", [wide])).prompts
    assert len(str(prompt.prompt)) > 200_000


@pytest.mark.parametrize(
    ("schema", "change", "message"),
    [
        ("mmmu", {"options": "red, blue"}, "options of mmmu must be a list of texts, got a text of 9 char"),
        ("mmmu", {"answer": "D"}, "an answer must be one of A, B, C, got 'D'; read the file as 'rows'"),
        ("mmmu", {"image_2": ""}, "image_2 must be an image's bytes, got str; download the set whole"),
        ("mmmu", {"image_1": {"bytes": None}}, "image_1 must be an image's bytes, got dict"),
        ("mmbench", {"image": "no base64!"}, "image must be an image's bytes, got str"),
        ("mmbench", {"image": OTHER_PICTURE[:40]}, "a picture must be one of PNG, .*, and whole, got "),
        ("mmbench", {"answer": "E"}, "an answer must be one of A, B, C, got 'E'"),
    ],
)  # fmt: skip
def test_what_is_no_row_of_a_set_is_told_with_its_place(
    schema: str, change: dict[str, Any], message: str, write: Any
) -> None:
    path = write("a.json", [{**STAND_INS[schema][1][0], **change}])
    with pytest.raises(PromptError, match=message) as caught:
        load_source(path, schema)
    assert str(caught.value).endswith(f"({path}: row 1)")
