"""Pictures in prompts: where they may be named, what is read of them, and what is refused in one sentence."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from palette.errors import PromptError
from palette.prompts import Prompt, PromptSet, load_prompts, messages
from palette.prompts.pictures import MARK, Picture, marked, pixels, shared_out, stated_picture, without_marks

SHOWN = {"prompt": [{"role": "user", "content": [{"type": "image", "image": "a.png"}]}]}
ROW = {"id": "1", "prompt": "What does it say?", "kind": "benign"}


def saved(path: Path, size: tuple[int, int] = (6, 4), mode: str = "RGB", **how: Any) -> Path:
    Image.new(mode, size, how.pop("colour", 0)).save(path, **how)
    return path


def loaded(folder: Path, **row: Any) -> Prompt:
    (folder / "medical.jsonl").write_text(json.dumps({**ROW, **row}))
    (found,) = load_prompts(folder, answers=True)
    return found


def test_pictures_are_named_beside_the_prompt_or_inside_its_messages(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        saved(tmp_path / name, colour=(0, 0, ord(name[0])))
    one, two = loaded(tmp_path, image="a.png"), loaded(tmp_path, image=["a.png", "b.png"])
    assert messages(one) == [
        {"role": "user", "content": f"{MARK}What does it say?", "pictures": one.pictures},
    ]
    assert [picture.path.name for picture in two.pictures] == ["a.png", "b.png"]
    parts = [
        {"type": "text", "text": "Is "},
        {"type": "image", "image": "a.png"},
        {"type": "text", "text": " like "},
        {"type": "image_url", "image_url": {"url": "b.png"}},
    ]
    chat = [{"role": "system", "content": "Look."}, {"role": "user", "content": parts}]
    shown = messages(loaded(tmp_path, prompt=chat))
    assert shown[1]["content"] == f"Is {MARK} like {MARK}" and shown[1]["pictures"] == two.pictures
    assert "pictures" not in shown[0]


def test_a_picture_named_beside_messages_stands_before_the_last_users_words(tmp_path: Path) -> None:
    saved(tmp_path / "a.png")
    said = [("user", "Hello."), ("assistant", "Hello."), ("user", "And this?"), ("assistant", "That")]
    chat = [{"role": role, "content": content} for role, content in said]
    shown = messages(loaded(tmp_path, prompt=chat, image="a.png"))
    assert [one["content"] for one in shown] == ["Hello.", "Hello.", f"{MARK}And this?", "That"]


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"image": "none.png"}, "a prompt's picture must be a file that can be read"),
        ({"image": 3}, "image must be a path, or a list of such, got int"),
        ({"image": [3]}, "image must be a path, or a list of such"),
        ({"image": "a.png", "prompt": f"{MARK} and {MARK}"}, "a mark .U.FFFC. for each of its pictures"),
        (
            {"prompt": [{"role": "user", "content": [{"type": "image", "image": "https://x.org/a.png"}]}]},
            "an image in a message must be named by the path of its file",
        ),
        (
            {
                "prompt": [{"role": "user", "content": [{"type": "image", "image": "a.png"}]}],
                "image": "a.png",
            },
            "images must stand in the messages, or be named beside them, got both",
        ),
        ({"prompt": [{"role": "user", "content": [{"type": "video"}]}]}, "prompt must be a text, or a list"),
        (
            {"prompt": [{"role": "system", "content": "Hi."}], "image": "a.png"},
            "must stand in a user's message",
        ),
    ],
)
def test_what_names_no_picture_is_told_with_its_line(
    tmp_path: Path, row: dict[str, Any], sentence: str
) -> None:
    saved(tmp_path / "a.png")
    with pytest.raises(PromptError, match=sentence) as told:
        loaded(tmp_path, **row)
    assert "medical.jsonl:1" in str(told.value) and "\n" not in str(told.value)


def bomb(path: Path) -> Path:
    """A picture of a few bytes that says it has four thousand million pixels."""
    head = struct.pack(">IIBBBBB", 65_000, 65_000, 8, 2, 0, 0, 0)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    return path


def animated(path: Path) -> Path:
    frames = [Image.new("L", (4, 4), shade) for shade in (0, 200)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    return path


def broken(path: Path) -> Path:
    path.write_bytes(saved(path).read_bytes()[:30])
    return path


def words(path: Path) -> Path:
    path.write_text("no picture")
    return path


@pytest.mark.parametrize(
    ("make", "name", "sentence"),
    [
        (bomb, "a.png", "a picture must have at most 89 million pixels"),
        (animated, "a.gif", "a picture must be a single frame, got 2"),
        (animated, "a.png", "a picture must be a single frame, got 2"),
        (broken, "a.png", "a picture must be one of PNG"),
        (words, "a.jpg", "a picture must be one of PNG"),
    ],
)
def test_what_cannot_be_shown_is_told_when_prompts_are_read(
    tmp_path: Path, make: Any, name: str, sentence: str
) -> None:
    make(tmp_path / name)
    with pytest.raises(PromptError, match=sentence):
        loaded(tmp_path, image=name)


def test_a_picture_whose_end_is_missing_is_told_when_it_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    noise = Image.effect_noise((64, 64), 90)
    noise.save(path)
    path.write_bytes(path.read_bytes()[:-900])
    picture = stated_picture(path, "row 1")
    with pytest.raises(PromptError, match="and whole, got OSError in"):
        pixels(picture)


def test_another_file_in_its_place_is_not_shown(tmp_path: Path) -> None:
    picture = stated_picture(saved(tmp_path / "a.png"), "row 1")
    saved(tmp_path / "a.png", colour=(9, 9, 9))
    with pytest.raises(PromptError, match="must stay as it was"):
        pixels(picture)


def test_pictures_are_read_as_viewers_show_them(tmp_path: Path) -> None:
    turned = Image.new("RGB", (6, 4), "red")
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif)
    assert pixels(stated_picture(tmp_path / "turned.jpg", "")).size == (4, 6)
    ink = pixels(stated_picture(saved(tmp_path / "ink.jpg", mode="CMYK", colour=(0, 0, 0, 0)), ""))
    assert (ink.mode, ink.getpixel((0, 0))) == ("RGB", (255, 255, 255))
    clear = saved(tmp_path / "clear.png", mode="RGBA", colour=(0, 0, 0, 0))
    assert pixels(stated_picture(clear, "")).getpixel((0, 0)) == (255, 255, 255)
    for mode in ("1", "L", "P", "I;16", "LA"):
        path = saved(tmp_path / f"{mode.replace(';', '')}.png", mode=mode)
        assert pixels(stated_picture(path, "")).mode == "RGB"


def test_a_picture_is_known_by_its_bytes_wherever_it_lies(tmp_path: Path) -> None:
    here, there = saved(tmp_path / "a.png"), saved(tmp_path / "b.png")
    assert stated_picture(here, "") == stated_picture(there, "")
    assert stated_picture(here, "") != stated_picture(saved(tmp_path / "c.png", colour=(1, 1, 1)), "")
    rows = [loaded(tmp_path, image=name) for name in ("a.png", "b.png", "c.png")]
    first, second, third = (PromptSet((row,)).fingerprint for row in rows)
    assert first == second != third


def test_a_prompt_with_a_picture_is_not_asked_in_words(tmp_path: Path) -> None:
    saved(tmp_path / "a.png")
    with pytest.raises(PromptError, match="must be asked of a model that sees, got 1 with a picture"):
        PromptSet((loaded(tmp_path, image="a.png"),)).in_words()


@given(st.lists(st.text(alphabet=f"ab {MARK}", max_size=8), min_size=1, max_size=4))
def test_every_mark_gets_its_picture_in_order(contents: list[str]) -> None:
    count = sum(text.count(MARK) for text in contents)
    pictures = [Picture(str(number), Path()) for number in range(count)]
    shown = shared_out(pictures, contents)
    assert [picture for each in shown for picture in each] == pictures
    assert [len(each) for each in shown] == [text.count(MARK) for text in contents]
    assert all(MARK not in without_marks(text) for text in contents)


@given(st.text(max_size=8), st.integers(0, 3))
def test_a_prompt_has_as_many_marks_as_pictures(text: str, count: int) -> None:
    plain = text.replace(MARK, "")
    found = marked(plain, count, "row 1")
    assert found.count(MARK) == count and marked(found, count, "row 1") == found
