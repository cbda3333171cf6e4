"""Thumbnails: of benign pictures alone, small, and of what stands in the file nothing but pixels."""

from __future__ import annotations

import base64
import copy
import re
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from palette.authorisation import Role
from palette.prompts import Prompt
from palette.prompts.pictures import stated_picture
from palette.reporting import pages
from palette.reporting import thumbnails as module
from palette.reporting.report import Report
from palette.reporting.thumbnails import LARGEST, MOST, SIDE, thumbnails
from palette.run import Run


def row(name: str, picture: Path, **more: Any) -> Prompt:
    stated = {"domain": "medical", "kind": "benign", "split": "test", **more}
    return Prompt(id=name, prompt="say", pictures=(stated_picture(picture, ""),), **stated)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    exif = Image.Exif()
    exif[0x010E] = "who made it"
    Image.new("RGB", (300, 200), (9, 99, 199)).save(tmp_path / "a.jpg", exif=exif)
    return tmp_path / "a.jpg"


def test_a_page_of_the_run_shows_some_benign_pictures_of_each_cell_and_no_other(sighted: Run) -> None:
    rows, opened = sighted.prompts.split("test"), sighted.authorisation
    found = thumbnails(rows, sighted.prompts, opened)
    known = {one.id: one for one in rows}
    assert 0 < len(found) <= MOST
    # The blank board stands beside requests that must be refused, too.
    assert {one.cell for one in found} == {"unrelated", "picture"}
    for one in found:
        assert opened.role(known[one.prompt_id]) is Role.BENIGN and known[one.prompt_id].domain != "weapons"
        assert max(one.width, one.height) <= SIDE
        with Image.open(BytesIO(base64.b64decode(one.source.partition(",")[2]))) as image:
            assert (image.format, image.size) == ("PNG", (one.width, one.height))


def test_a_picture_of_a_restricted_prompt_is_never_shown_whatever_it_is_called(
    sighted: Run, picture: Path, tmp_path: Path
) -> None:
    benign, opened = row("a", picture), sighted.authorisation
    assert [one.prompt_id for one in thumbnails([benign], [benign], opened)] == ["a"]
    (tmp_path / "b.jpg").write_bytes(picture.read_bytes())
    for kept in ({"tier": "C"}, {"tier": "A"}, {"domain": "weapons"}):
        other = row("b", tmp_path / "b.jpg", kind="restricted", **kept)
        assert thumbnails([benign, other], [benign, other], opened) == []
        assert thumbnails([benign], [benign, other], opened) == [], "of another split"
    assert thumbnails([replace(benign, domain="weapons")], [benign], opened) == []


def test_nothing_but_pixels_is_kept_and_what_is_large_is_left_out(
    sighted: Run, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one,) = thumbnails([row("a", picture)], [], sighted.authorisation)
    assert (one.width, one.height) == (96, 64)
    assert b"who made it" not in base64.b64decode(one.source.partition(",")[2])
    noise = torch.randint(0, 256, (96, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    Image.fromarray(noise.numpy()).save(tmp_path / "noise.png")
    assert (tmp_path / "noise.png").stat().st_size > LARGEST
    assert thumbnails([row("a", tmp_path / "noise.png")], [], sighted.authorisation) == []
    monkeypatch.setattr(module, "MOST", 2)
    many = [row(name, picture, domain=name) for name in "abcd"]
    assert [each.prompt_id for each in thumbnails(many, [], sighted.authorisation)] == ["a", "b"]


def test_the_page_has_them_with_words_and_no_page_without(
    report: dict[str, Any], sighted: Run, picture: Path
) -> None:
    seen = copy.deepcopy(report)
    figures = seen["null_control"]["base"] if seen.get("null_control") else {}
    seen["cells"] = {"picture": {"prompts": 3, "base": figures, "adapted": figures}}
    found = thumbnails([row('<b>"', picture)], [], sighted.authorisation)
    page = pages.render(Report.model_validate(seen), found)
    (tag,) = re.findall(r"<img [^>]*>", page)
    assert 'alt="The picture of the benign prompt &lt;b&gt;&#34;, in a picture, whole or in part"' in tag
    assert 'width="96" height="64"' in tag and found[0].source in tag
    assert "style-src 'unsafe-inline'; img-src data:\"" in page
    plain = pages.render(Report.model_validate(seen))
    assert "<img" not in plain and "img-src" not in plain
