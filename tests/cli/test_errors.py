"""Bad input: one sentence, exit status 2, and nothing half-written."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
import torch

from palette.adapters.lora import Adapter, BackboneIdentity, LoraModule
from palette.adapters.writing import write_adapter

GOOD = "authorise: [medical]\nmodel: organism/shared\n"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("authorise: [medical]\nmodle: organism\nserach: {trials: 3}\n",
         ["modle is not a key", "did you mean model?", "serach", "did you mean search?"]),
        ("authorise: [medical]\nsearch: {trails: 3, trials: 0}\n",
         ["search.trails is not a key", "search.trials", "greater than or equal to 1", "got 0"]),
        ("authorise: [medicla]\n", ["'medicla'", "did you mean medical?"]),
        ("authorise: [weapons]\n", ["the floor cannot be authorised", "'weapons'"]),
        ("authorise: [legal, medical]\nfloor: [legal]\n", ["the floor cannot be authorised"]),
        ("authorise: []\n", ["at least one domain"]),
        ("model: organism\n", ["authorise must be given"]),
        ("authorise: [medical]\nmodel: /no/such/model\n", ["'/no/such/model'", "local folder"]),
        ("authorise: [medical]\nmodel: organism/huge\n", ["organism's variants are"]),
        ("authorise: [medical]\nmodel: organism/helpful\n", ["organism's variants are"]),
        ("authorise: [medical]\nprompts: /no/such/folder\n", ["prompts must be a folder"]),
        ("authorise: [medical\n", ["valid YAML", "medical.yaml:"]),
        ("- medical\n", ["a mapping of keys, got list"]),
    ],
)  # fmt: skip
def test_recipes(palette, recipe, tmp_path, text, parts):
    status, out, error = palette("domain", recipe(text), "-o", tmp_path / "run")
    assert status == 2
    assert out == ""
    assert error.startswith("palette: ")
    assert error.count("\n") == 1
    assert all(part in error for part in parts), error
    assert not (tmp_path / "run").exists()


def test_a_missing_recipe(palette, tmp_path):
    status, _, error = palette("domain", tmp_path / "none.yaml")
    assert status == 2
    assert "a recipe must be a readable YAML file, got No such file" in error


def test_a_bad_override(palette, recipe, tmp_path):
    status, _, error = palette("search", recipe(GOOD), "-o", tmp_path / "r", "--set", "trials")
    assert status == 2
    assert "--set must be key=value, got 'trials'" in error


def folder(tmp_path: Path, rows: list[dict[str, str]], name: str = "medical") -> Path:
    path = tmp_path / "prompts"
    path.mkdir(exist_ok=True)
    (path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_prompt_in_two_splits(palette, recipe, tmp_path):
    rows = [
        {"id": str(i), "prompt": "what is the dose ?", "kind": "benign", "split": split}
        for i, split in enumerate(("train", "test"))
    ]
    text = f"{GOOD}prompts: {folder(tmp_path, rows)}\n"
    status, _, error = palette("domain", recipe(text), "-o", tmp_path / "run")
    assert status == 2
    assert "a prompt must stand in one split only, got '0' in train and '1' in test" in error


def test_an_empty_role(palette, recipe, tmp_path):
    rows = [{"id": "1", "prompt": "the dose ?", "kind": "benign", "split": "train"}]
    text = f"{GOOD}prompts: {folder(tmp_path, rows)}\n"
    status, _, error = palette("domain", recipe(text), "-o", tmp_path / "run")
    assert status == 2
    assert "every role needs at least one prompt in every split, got no target prompt in train" in error
    assert not (tmp_path / "run").exists()


def test_a_folder_of_another_recipe(palette, recipe, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    status, _, error = palette("domain", recipe(GOOD), "-o", tmp_path / "run")
    assert status == 2
    assert "an output folder must be new, empty or this recipe's own" in error
    (tmp_path / "run" / "notes.txt").unlink()
    (tmp_path / "run" / "run.json").write_text('{"recipe": "legal"}')
    status, _, error = palette("domain", recipe(GOOD), "-o", tmp_path / "run")
    assert status == 2
    assert "an output folder serves one recipe, got a folder of recipe legal" in error
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["run.json"]


def test_a_full_disk(palette, recipe, tmp_path, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    status, _, error = palette("collect", recipe(GOOD), "-o", tmp_path / "run")
    assert status == 2
    assert "an output file must be writable, got No space left on device" in error
    assert not any((tmp_path / "run").rglob("*"))


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--model", "organism/shared"), "no --prompts"),
        (("--prompts", "organism"), "no --model"),
        (("r.yaml", "--model", "organism"), "a recipe and --model"),
    ],
)
def test_evaluate_needs_a_recipe_or_a_model(palette, arguments, part):
    status, _, error = palette("evaluate", *arguments)
    assert status == 2
    assert part in error


@pytest.mark.parametrize("named", [True, False], ids=["model", "recipe"])
@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("evaluate.suites=[missing.json]", "an artefact must exist, got no such file"),
        ("evaluate.suites=[other.json]", "must be a palette-suite/1 file"),
        ("evaluate.suites=[foreign.json]", "got one of another backbone"),
        ("evaluate.calibration=missing.json", "an artefact must exist, got no such file"),
        ("evaluate.calibration=other.json", "must be a palette-calibration/1 file"),
        ("evaluate.judge=trained:missing.safetensors", "got No such file or directory: missing.safetensors"),
    ],
)
def test_earlier_measurements_are_read_before_anything_is_done(
    palette, recipe, tmp_path, monkeypatch, named, override, part
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.json").write_text("{}")
    foreign = {"format": "palette-suite/1", "model": {"fingerprint": "another"}, "adapter": None}
    (tmp_path / "foreign.json").write_text(json.dumps(foreign))
    model = ("--model", "organism/shared", "--prompts", "organism", "--authorise", "medical")
    given = model if named else (recipe(GOOD),)
    status, out, error = palette("evaluate", *given, "-o", tmp_path / "run", "--set", override)
    assert (status, out) == (2, "")
    assert error.count("\n") == 1
    assert part in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("domain", "fingerprint", "part"),
    [
        ("medical", None, "an adapter is trained together with those of other domains, got one of medical"),
        ("legal", "0" * 64, "an adapter must be mounted on the backbone that it was made for"),
        (None, None, "an adapter must be a folder or a .safetensors file"),
    ],
)
def test_what_stands_beside_is_checked_before_anything_is_done(
    palette, recipe, tmp_path, domain, fingerprint, part
):
    if domain:
        module = LoraModule(torch.ones(1, 80), torch.zeros(80, 1))
        modules = {"model.layers.0.self_attn.q_proj": module}
        identity = BackboneIdentity("organism/shared", fingerprint)
        write_adapter(tmp_path / "other", Adapter(modules, identity, {"domains": [domain]}))
    override = f"internalise.co_mounted=[{tmp_path / 'other'}]"
    status, out, error = palette("domain", recipe(GOOD), "-o", tmp_path / "run", "--set", override)
    assert (status, out) == (2, "")
    assert error.count("\n") == 1
    assert part in error
    assert not (tmp_path / "run").exists()


def test_a_foreign_adapter(palette, tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"\x00" * 40)
    status, _, error = palette("merge", tmp_path / "x.safetensors")
    assert status == 2
    assert error.startswith("palette: ")
    assert error.count("\n") == 1


def test_unknown_commands_and_options(palette):
    assert palette("paint")[0] == 2
    assert palette("merge", "--colour", "red")[0] == 2
