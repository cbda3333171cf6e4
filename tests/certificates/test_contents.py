"""An adapter's files: read once, plain LoRA alone, and nothing beside them."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from palette.adapters.files import open_adapter
from palette.certificates.contents import NAMES, read_contents
from palette.errors import AdapterError, SignatureError


def test_the_bytes_their_digests_and_what_the_header_says(run: Path) -> None:
    found = read_contents(run)
    assert found.digests == {name: hashlib.sha256((run / name).read_bytes()).hexdigest() for name in NAMES}
    assert found.domains == frozenset({"medical"})
    assert found.backbone == "ab" * 32
    assert found.floor
    assert found.adapter().digest == open_adapter(run).digest


@pytest.mark.parametrize(
    "name",
    [
        *("adapter_model.bin", "model.safetensors", "adapter_model.pt", "ADAPTER_MODEL.BIN", "x.pkl"),
        *("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "new_embeddings.safetensors"),
        *("config.json", "generation_config.json", "vocab.json", "added_tokens.json", "modeling_x.py"),
    ],
)
def test_a_file_that_could_be_loaded_is_refused_by_name(run: Path, name: str) -> None:
    (run / name).write_bytes(b"")
    with pytest.raises(
        SignatureError, match=r"nothing beside its adapter that could be loaded, got .*move it"
    ):
        read_contents(run)


@pytest.mark.parametrize("name", ["report.html", "README.md", "merge.json", "push.json", "search", "a\nb"])
def test_what_a_run_leaves_beside_it_is_not_read(run: Path, name: str) -> None:
    (run / name).write_bytes(b"")
    assert read_contents(run).domains == frozenset({"medical"})


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_is_missing_a_folder_or_a_pipe_is_refused(run: Path, name: str) -> None:
    (run / name).unlink()
    with pytest.raises(AdapterError, match="an adapter folder must hold"):
        read_contents(run)
    (run / name).mkdir()
    with pytest.raises(AdapterError, match="an adapter folder must hold"):
        read_contents(run)
    (run / name).rmdir()
    # A pipe that nobody writes into would be waited for.
    os.mkfifo(run / name)
    with pytest.raises(AdapterError, match="no regular file"):
        read_contents(run)


def test_a_file_that_is_too_large_for_memory_is_refused(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("palette.certificates.contents.LARGEST", dict.fromkeys(NAMES, 10))
    with pytest.raises(AdapterError, match="at most 10 bytes"):
        read_contents(run)


@pytest.mark.parametrize(
    "fields",
    [
        {"modules_to_save": ["lm_head"]},
        {"layer_replication": [[0, 2]]},
        {"trainable_token_indices": [1]},
        {"bias": "all"},
        {"use_dora": True, "weights_from": "hub"},
        {"peft_type": "IA3"},
        {"auto_map": "run.py"},
    ],
)
def test_fields_that_peft_honours_and_palette_does_not_are_refused(run: Path, fields: dict[str, Any]) -> None:
    path = run / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    with pytest.raises(AdapterError, match="plain LoRA"):
        read_contents(run)


@pytest.mark.parametrize(
    "data", [b"", b"x", b"\xff" * 64, (2).to_bytes(8, "little") + b"[]", (9).to_bytes(8, "little") + b"{" * 9]
)
def test_weights_without_a_header_are_refused(run: Path, data: bytes) -> None:
    (run / "adapter_model.safetensors").write_bytes(data)
    try:
        contents = read_contents(run)
    except AdapterError:
        return
    with pytest.raises(AdapterError):
        contents.adapter()


def test_a_name_twice_in_the_configuration_is_refused(run: Path) -> None:
    path = run / "adapter_config.json"
    path.write_text(path.read_text().replace('"r":', '"r": 1, "r":'))
    with pytest.raises(AdapterError, match="valid JSON"):
        read_contents(run)


def test_what_is_written_is_the_adapter_and_nothing_else(run: Path, tmp_path: Path) -> None:
    read_contents(run).write(tmp_path / "alone")
    assert sorted(path.name for path in (tmp_path / "alone").iterdir()) == sorted(NAMES)
    assert open_adapter(tmp_path / "alone").digest == open_adapter(run).digest


def test_an_error_names_the_folder_and_not_where_its_copy_lay(run: Path) -> None:
    path = run / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes() + b"\0\0\0\0")
    with pytest.raises(AdapterError) as caught:
        read_contents(run).adapter()
    assert str(run) in str(caught.value)
    assert "palette-" not in str(caught.value).replace(str(run), "")
