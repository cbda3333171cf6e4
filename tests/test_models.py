"""Which files make a model what it is: each counts whatever its format, and none that is not loaded."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from palette import organism
from palette.backbones import load_backbone, next_token_logits
from palette.fingerprints import fingerprint, fingerprint_file
from palette.models import display_name, hub_name, identify, is_weights, weight_files, without_folders

SAFE, INDEX = "model.safetensors", "model.safetensors.index.json"


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(organism.weights("shared"), tmp_path / "model")


def in_shards(folder, weights, stem, suffix, save):
    """Lays a model's weights into two files and an index; gives their names."""
    names = sorted(weights)
    parts = {f"{stem}-0000{i + 1}-of-00002{suffix}": names[i::2] for i in range(2)}
    for name, keys in parts.items():
        save({key: weights[key] for key in keys}, folder / name)
    places = {key: name for name, keys in parts.items() for key in keys}
    (folder / f"{stem}{suffix}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return sorted(parts)


def laid(folder, form):
    """The folder's weights in another format; gives the files."""
    weights = load_file(folder / SAFE)
    if form == "safetensors":
        return [SAFE]
    (folder / SAFE).unlink()
    if form == "sharded safetensors":
        return in_shards(folder, weights, "model", ".safetensors", save_file)
    if form == "sharded bin":
        return in_shards(folder, weights, "pytorch_model", ".bin", torch.save)
    torch.save(weights, folder / "pytorch_model.bin")
    return ["pytorch_model.bin"]


FORMS = ["safetensors", "sharded safetensors", "bin", "sharded bin"]


@pytest.mark.parametrize("form", FORMS)
def test_every_file_of_the_weights_counts_and_is_what_is_loaded(folder, form):
    names = laid(folder, form)
    assert [path.name for path in weight_files(folder)] == names
    before, ids = load_backbone(folder), [[5, 6, 7]]
    logits = next_token_logits(before, ids)
    for name in names:
        path, was = folder / name, (folder / name).read_bytes()
        weights = load_file(path) if path.suffix == ".safetensors" else torch.load(path)
        turned = {key: -weight for key, weight in weights.items()}
        (save_file if path.suffix == ".safetensors" else torch.save)(turned, path)
        after = load_backbone(folder)
        assert after.fingerprint != before.fingerprint, name
        assert not torch.equal(next_token_logits(after, ids), logits), name
        path.write_bytes(was)
    assert identify(folder) == before.fingerprint


@pytest.mark.parametrize(
    "name", ["consolidated.00.pth", "model.gguf", "tf_model.h5", "flax_model.msgpack", "model.pt", "some.bin"]
)
def test_weights_in_a_format_that_is_not_loaded_count_where_nothing_is(folder, name):
    (folder / name).write_bytes(b"1")
    beside = identify(folder)
    (folder / name).write_bytes(b"2")
    assert identify(folder) == beside, "beside safetensors they are never read"
    (folder / SAFE).unlink()
    alone = identify(folder)
    (folder / name).write_bytes(b"3")
    assert identify(folder) != alone


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "generation_config.json",
        "chat_template.jinja",
        "tokenizer.json",
        "tokenizer_config.json",
    ],
)
def test_what_a_prompt_and_a_reply_depend_on_counts(folder, name):
    before = identify(folder)
    (folder / name).write_text((folder / name).read_text() + "\n")
    assert identify(folder) != before


def test_a_folder_of_safetensors_is_what_it_was_called_before(folder):
    """Adapters state this fingerprint: it may never change."""
    for name in ("consolidated.safetensors", "vocab.json", "training_args.bin", "notes.txt", "weights.py"):
        (folder / name).write_bytes(b"{}")
    counted = [path.name for path in sorted(folder.iterdir())]
    counted = [name for name in counted if name not in ("training_args.bin", "notes.txt", "weights.py")]
    counted = [name for name in counted if name != "acceptance.json"]
    assert identify(folder) == fingerprint([[name, fingerprint_file(folder / name)] for name in counted])


def test_a_tokenizer_without_its_json_is_what_it_is_made_of(folder):
    (folder / "tekken.json").write_text("1")
    before = identify(folder)
    (folder / "tekken.json").write_text("2")
    assert identify(folder) == before
    (folder / "tokenizer.json").unlink()
    before = identify(folder)
    (folder / "tekken.json").write_text("3")
    assert identify(folder) != before


def test_the_library_s_choice_among_several_sets_is_ours(folder):
    weights = load_file(folder / SAFE)
    torch.save(weights, folder / "pytorch_model.bin")
    in_shards(folder, weights, "model", ".safetensors", save_file)
    assert weight_files(folder) == [folder / SAFE]
    (folder / "mine.safetensors").write_bytes((folder / SAFE).read_bytes())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "transformers_weights": "mine.safetensors"}))
    assert weight_files(folder) == [folder / "mine.safetensors"]
    for path in (folder / SAFE, folder / "mine.safetensors", folder / INDEX):
        path.unlink()
    (folder / "config.json").write_text(json.dumps(config))
    assert weight_files(folder) == [folder / "pytorch_model.bin"]


@settings(deadline=None)
@given(st.sampled_from(["[]", "{", '"a"', '{"weight_map": {}}', '{"transformers_weights": 3}']))
def test_a_damaged_configuration_or_index_gives_no_weights(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "config.json").write_text(text)
    (folder / INDEX).write_text(text)
    assert weight_files(folder) == []


def test_what_holds_weights_is_told_by_its_name():
    yes = (
        SAFE, INDEX, "model.fp16.safetensors", "pytorch_model-00001-of-00002.bin",
        "pytorch_model.bin.index.json",
        "consolidated.00.pth", "consolidated.safetensors", "a.gguf", "tf_model.h5", "training_args.bin",
    )  # fmt: skip
    no = (
        "config.json",
        "tokenizer.json",
        "tokenizer.bin",
        "vocab.bin",
        "spiece.model",
        "index.json",
        "README.md",
    )
    assert all(map(is_weights, yes)) and not any(map(is_weights, no))


@pytest.mark.parametrize(
    ("name", "on_hub", "shown"),
    [
        ("organism", "organism", "organism"),
        ("organism/shared", "organism/shared", "organism/shared"),
        ("owner/model-7B", "owner/model-7B", "owner/model-7B"),
        ("/home/somebody/models/chat", None, "chat"),
        ("/home/somebody/models/chat/", None, "chat"),
        ("C:\\models\\chat", None, "chat"),
        ("../chat", None, "chat"),
        ("~/models/chat.gguf", None, "chat.gguf"),
        ("package:my_model", None, "package:my_model"),
        ("/root/hub/models--owner--model-7B/snapshots/0123abcd", "owner/model-7B", "owner/model-7B"),
        ("/", None, "/"),
    ],
)
def test_a_model_is_shown_by_its_name_on_the_hub_or_the_last_part_of_its_path(name, on_hub, shown):
    assert hub_name(name) == on_hub
    assert display_name(name) == shown


def test_what_lies_here_is_no_name_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "chat").mkdir(parents=True)
    (tmp_path / "chat.gguf").write_bytes(b"")
    assert (hub_name("models/chat"), display_name("models/chat")) == (None, "chat")
    assert (hub_name("chat.gguf"), display_name("chat.gguf")) == (None, "chat.gguf")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("/srv/models/llama", "llama"),
        ("~/llama", "llama"),
        (r"C:\models\llama", "llama"),
        (r"\\host\share\llama", "llama"),
        ({"a": ["/srv/x.csv", 1, None, "x/y"]}, {"a": ["x.csv", 1, None, "x/y"]}),
        ("/data/models--org--name/snapshots/0a1b", "org/name"),
        ("organism", "organism"),
        ("words, or / words", "words, or / words"),
    ],
)
def test_a_whole_path_is_told_by_its_last_part(value: object, shown: object) -> None:
    assert without_folders(value) == shown
