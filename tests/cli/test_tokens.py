"""The commands of control tokens as a user types them, small."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from palette.mosaic import evaluation
from palette.mosaic.tokens import read_tokens
from palette.mosaic.training import TokenTraining
from palette.pipeline import train_tokens
from palette.recipe import load_token_recipe

SMALL = (
    "--set", "train.epochs=1", "--set", "train.slots=2", "--set", "train.orders=2",
    "--set", "train.place=before", "--set", "limit=6",
)  # fmt: skip
FEW = ("--set", "limit=3")
RECIPES = Path(__file__).parents[2] / "recipes"
TEXT = "prompts: organism/categories\nrestrict: [network, treasury]\n"


@pytest.fixture(scope="module")
def once(tmp_path_factory) -> Path:
    """The folder of what was trained, once for all tests."""
    home = tmp_path_factory.mktemp("tokens")
    (home / "two.yaml").write_text(TEXT)
    train_tokens(load_token_recipe(home / "two.yaml", SMALL[1::2]), home / "run")
    return home / "run"


@pytest.fixture
def trained(once, recipe, tmp_path) -> tuple[Path, Path]:
    """A recipe, and a folder of one's own of what was trained by it."""
    shutil.copytree(once, tmp_path / "run")
    return recipe(TEXT, "two.yaml"), tmp_path / "run"


def test_training_says_what_it_wrote(palette, recipe, tmp_path):
    path = recipe(TEXT.replace("network, ", ""), "one.yaml")
    status, out, error = palette("tokens", "train", path, "-o", tmp_path / "run", *SMALL, "--json")
    assert (status, error) == (0, "")
    assert json.loads(out)["digest"] == read_tokens(tmp_path / "run").digest


def test_from_tokens_to_a_report(palette, trained, monkeypatch):
    monkeypatch.setattr(evaluation, "ROUNDS", 1)
    path, folder = trained
    status, out, error = palette("tokens", "evaluate", path, "-o", folder, *FEW, "--json")
    assert (status, error) == (3, "")
    report = json.loads(out)
    assert [each["active"] for each in report["subsets"]] == [
        ["network"],
        ["treasury"],
        ["network", "treasury"],
    ]
    assert report == json.loads((folder / "report.json").read_text())
    assert (folder / "report.html").is_file()
    status, out, _ = palette("tokens", "evaluate", path, "-o", folder, *FEW, "--active", "treasury,network")
    assert status == 3
    assert "gate failed" in out
    assert report == json.loads((folder / "report.json").read_text()), "the whole report stays as it is"
    beside = folder / "active" / "network+treasury"
    assert len(json.loads((beside / "report.json").read_text())["subsets"]) == 1
    assert (beside / "report.html").is_file()
    assert f"written to {beside}" in out
    status, out, _ = palette("tokens", "inspect", folder, "--json")
    assert status == 0
    assert json.loads(out)["digest"] == read_tokens(folder).digest
    status, out, _ = palette("tokens", "inspect", folder)
    assert "2 tokens of width 128 for each of network, treasury" in out


def test_what_is_trained_is_not_trained_again(palette, trained, monkeypatch):
    path, folder = trained
    before = (folder / "control_tokens.safetensors").read_bytes()
    monkeypatch.setattr(TokenTraining, "train", None)
    status, out, _ = palette("tokens", "train", path, "-o", folder, *SMALL, "--json")
    assert status == 0
    assert json.loads(out)["categories"] == ["network", "treasury"]
    assert (folder / "control_tokens.safetensors").read_bytes() == before
    status, out, error = palette("tokens", "train", path, "-o", folder, *SMALL, "--quiet")
    assert (status, out, error) == (0, "", "")


@pytest.mark.slow
def test_a_category_is_added(palette, trained):
    path, folder = trained
    before = read_tokens(folder)
    status, _, _ = palette("tokens", "add", path, "registry", "-o", folder, *SMALL)
    assert status == 0
    after = read_tokens(folder)
    assert after.categories == ("network", "registry", "treasury")
    assert all((after.embeddings[name] == before.embeddings[name]).all() for name in before.categories)
    assert after.card["added"] == ["registry"]
    status, _, error = palette("tokens", "add", path, "registry", "-o", folder, *SMALL)
    assert status == 2
    assert "an added category must be a new one, got registry" in error


def test_a_subset_is_exported(palette, trained):
    path, folder = trained
    call = ("tokens", "export", path, "-o", folder, "--active", "treasury,network")
    status, out, _ = palette(*call, "--json")
    assert status == 0
    assert json.loads(out)["active"] == ["network", "treasury"]
    fields = json.loads((folder / "peft" / "network+treasury" / "adapter_config.json").read_text())
    assert fields["num_virtual_tokens"] == 4


@pytest.mark.parametrize(
    ("text", "arguments", "parts"),
    [
        ("restrict: [medical]\nprompts: organism/nothing\n", ("train",), ["prompts must be a folder"]),
        ("restrict: [netwrk]\nprompts: organism/categories\n", ("train",),
         ["restricted category must be a file with restricted rows", "got netwrk", "it has apothecary"]),
        ("restrict: [energy]\nprompts: organism/categories\n", ("train",), ["got energy"]),
        ("authorise: [weapons]\ntrain: {}\n", ("train",), ["the floor cannot be authorised"]),
        ("model: organism\n", ("train",), ["either restrict categories or authorise domains, got none"]),
        (TEXT, ("evaluate",), ["must be a whole safetensors file", "No such file"]),
        (TEXT, ("add", "registry"), ["a category is added to control tokens that are there"]),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence(palette, recipe, tmp_path, text, arguments, parts):
    command, *rest = arguments
    status, out, error = palette("tokens", command, recipe(text), *rest, "-o", tmp_path / "run")
    assert (status, out) == (2, "")
    assert error.startswith("palette: ")
    assert error.count("\n") == 1
    assert all(part in error for part in parts), error
    assert not (tmp_path / "run").exists()


ADAPTERS = ("collect", "search", "internalise", "evaluate", "domain")


@pytest.mark.parametrize("name", ["mosaic", "mosaic-authorise"])
@pytest.mark.parametrize("command", ADAPTERS)
def test_a_recipe_of_control_tokens_makes_no_adapter(palette, tmp_path, monkeypatch, command, name):
    monkeypatch.chdir(tmp_path)
    status, out, error = palette(command, RECIPES / f"{name}.yaml", "--set", "train.epochs=1")
    assert (status, out) == (2, "")
    assert error.startswith("palette: a recipe of an adapter says nothing of control tokens, got ")
    assert "use palette tokens, or leave them out" in error
    assert error.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_a_folder_holds_an_adapter_or_control_tokens(palette, recipe, trained, tmp_path):
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "run.json").write_text('{"recipe": "medical"}')
    status, out, error = palette("tokens", "train", RECIPES / "medical.yaml", "-o", folder)
    assert (status, out) == (2, "")
    assert "an output folder serves one recipe, got a folder of recipe medical" in error
    assert error.count("\n") == 1
    assert [path.name for path in folder.iterdir()] == ["run.json"]
    status, _, error = palette("domain", RECIPES / "medical.yaml", "-o", trained[1])
    assert status == 2
    assert "an output folder serves one recipe, got a folder of tokens " in error


def test_an_unknown_active_category(palette, trained):
    path, folder = trained
    status, _, error = palette("tokens", "evaluate", path, "-o", folder, *FEW, "--active", "netwrk")
    assert status == 2
    assert "there are control tokens for, got netwrk; choose of network, treasury" in error


def test_tokens_of_another_backbone(palette, trained):
    path, folder = trained
    status, _, error = palette(
        "tokens", "evaluate", path, "-o", folder, *FEW, "--set", "model=organism/shared"
    )
    assert status == 2
    assert "control tokens must be mounted on the backbone that they were made for" in error


@pytest.mark.slow
def test_a_killed_training_goes_on_with_the_same_bytes(palette, recipe, tmp_path):
    path = recipe(TEXT, "two.yaml")
    more = (*SMALL, "--set", "train.epochs=12")
    status, _, _ = palette("tokens", "train", path, "-o", tmp_path / "whole", *more)
    assert status == 0
    call = [sys.executable, "-m", "palette", "tokens", "train", path, "-o", tmp_path / "cut", *more]
    process = subprocess.Popen(list(map(str, call)))
    checkpoint = tmp_path / "cut" / "train" / "checkpoint.safetensors"
    while not checkpoint.is_file() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "cut" / "control_tokens.safetensors").exists()
    status, _, _ = palette("tokens", "train", path, "-o", tmp_path / "cut", *more)
    assert status == 0
    names = ("whole", "cut")
    first, second = ((tmp_path / n / "control_tokens.safetensors").read_bytes() for n in names)
    assert first == second
