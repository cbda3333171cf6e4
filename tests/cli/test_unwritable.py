"""A file that cannot be written: what is advised names the option that named it, and helps when followed."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from palette.adapters.lora import Adapter, BackboneIdentity, LoraModule
from palette.adapters.writing import write_adapter
from palette.backbones import gguf
from palette.errors import OutputError
from palette.evaluation.replies import ReplyFile
from palette.files import cache_folder
from palette.stages import suite
from tests.fixtures.crowds import crowd, good
from tests.reporting.conftest import parts, report
from tests.stages.test_push import Hub, hub, laid

__all__ = ["crowd", "good", "hub", "parts", "report"]

Palette = Callable[..., tuple[int, str, str]]


@pytest.fixture
def adapters(tmp_path: Path) -> list[Path]:
    """Two adapters of one backbone."""
    for domain in ("energy", "law"):
        module = LoraModule(torch.randn(2, 6), torch.randn(5, 2))
        adapter = Adapter({"layers.0.up_proj": module}, BackboneIdentity("tiny"), {"domains": [domain]})
        write_adapter(tmp_path / domain, adapter)
    return [tmp_path / domain for domain in ("energy", "law")]


@pytest.fixture
def blocked(tmp_path: Path) -> Path:
    """A place beneath a file, where nobody can write, whoever they are."""
    (tmp_path / "file").write_text("mine")
    return tmp_path / "file" / "there"


@pytest.mark.parametrize(
    ("command", "option", "name", "advice"),
    [
        ("inspect", "--sarif", "found.sarif", "name another file with --sarif"),
        ("inspect", "--picture", "drawn.svg", "name another file with --picture"),
        ("merge", "--output", "merged", "choose another folder with --output"),
    ],
)
def test_another_file_is_named_by_the_option_that_named_it(
    palette: Palette,
    adapters: list[Path],
    blocked: Path,
    tmp_path: Path,
    command: str,
    option: str,
    name: str,
    advice: str,
) -> None:
    status, said, error = palette(command, *adapters, option, blocked / name)
    assert (status, said, error.count("\n")) == (2, "", 1)
    assert f"; {advice}; nothing was half-written" in error
    others = {"--sarif", "--picture", "--output"} - {option}
    assert not any(other in error for other in others)
    assert palette(command, *adapters, option, tmp_path / "elsewhere" / name)[0] == 0
    assert (tmp_path / "elsewhere" / name).exists()


def test_a_recipe_goes_into_another_folder(palette: Palette, blocked: Path, tmp_path: Path) -> None:
    status, _, error = palette("init", blocked)
    assert status == 2
    assert "; name another folder; " in error
    assert "--output" not in error
    assert palette("init", tmp_path / "other")[0] == 0


def test_logs_of_a_suite_go_into_another_folder_and_this_is_told_before_it_is_measured(
    palette: Palette, monkeypatch: pytest.MonkeyPatch, blocked: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(suite, "require_extra", lambda name: None)
    measured = list[object]()
    result: dict[str, Any] = {"suites": []}
    monkeypatch.setattr(suite, "_measured", lambda run, places: measured.append(places) or result)
    path = tmp_path / "board.yaml"
    path.write_text("measures: [{kind: over_refusal, prompts: organism, limit: 1}]\n")
    call = ("suite", path, "--model", "organism/shared", "-o", tmp_path / "out", "--inspect-log")
    status, _, error = palette(*call, blocked)
    assert (status, measured) == (2, [])
    assert "; name another folder with --inspect-log; " in error
    assert palette(*call, tmp_path / "logs")[0] == 0
    assert len(measured) == 1
    assert list((tmp_path / "logs").iterdir()) == []


def test_what_is_kept_between_runs_goes_into_another_cache(
    monkeypatch: pytest.MonkeyPatch, blocked: Path, tmp_path: Path
) -> None:
    class Made:
        def save_pretrained(self, folder: Path) -> None:
            (folder / "config.json").write_text("{}")

    model = tmp_path / "model.gguf"
    model.write_bytes(b"GGUF")
    monkeypatch.setattr(gguf, "_read", lambda file: (Made(), Made()))

    def keep() -> None:
        ReplyFile(cache_folder() / "replies" / "one.jsonl").add({"key": [1]})

    for act in (keep, lambda: gguf.dequantised(model)):
        monkeypatch.setenv("PALETTE_CACHE", str(blocked))
        with pytest.raises(OutputError, match=r"; name another folder with PALETTE_CACHE; "):
            act()
        monkeypatch.setenv("PALETTE_CACHE", str(tmp_path / "cache"))
        act()


def test_where_the_record_of_a_push_cannot_be_kept_a_copy_is_pushed(
    palette: Palette, hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, report: dict[str, Any]
) -> None:
    folder, copy, replace = laid(tmp_path / "medical", report), tmp_path / "copy", os.replace

    def kept(source: Path, target: Path) -> None:
        if Path(target).parent == folder:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        replace(source, target)

    monkeypatch.setattr(os, "replace", kept)
    status, _, error = palette("push", folder, "clinic/medical")
    assert status == 2
    assert "; make its folder writable, or push a copy of it; " in error
    shutil.copytree(folder, copy)
    assert palette("push", copy, "clinic/medical")[0] == 0
    assert (copy / "push.json").is_file()
