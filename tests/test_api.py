"""Palette from Python: every command as a function of its name, with types that a caller feels."""

from __future__ import annotations

import builtins
import json
import subprocess
import sys
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
from typer import Typer

import palette
from palette.adapters.mounting import mounted
from palette.adapters.writing import write_adapter
from palette.backbones import greedy_replies
from palette.cli.app import app
from palette.errors import AdapterError, OutputError, RecipeError
from palette.judging.rules import RuleJudge
from palette.stages.evaluate import report_on
from tests.fixtures.noise import noise

QUESTION = "what is the dose of roglethine ?"


@pytest.fixture(scope="module")
def measured(shared, tmp_path_factory) -> Path:
    """The folder of an adapter that changes replies, with its report."""
    folder = tmp_path_factory.mktemp("measured")
    run = shared.sharing(folder=folder, limit=4, reply_tokens=16)
    adapter = noise(run.backbone, ".mlp.", rank=4, scale=1.0)
    write_adapter(folder, adapter)
    report_on(run, adapter, RuleJudge())
    return folder


def commands(group: Typer) -> set[str]:
    named = {command.name or command.callback.__name__ for command in group.registered_commands}
    return named | {str(each.typer_instance.info.name) for each in group.registered_groups}


OPERATORS = {"tenant", "operator", "grant", "ledger"}
"""Groups whose commands are deeds of an ``Operator`` on a store, which Python calls as such."""


def test_every_command_is_a_function_of_its_name():
    assert commands(app) - OPERATORS <= set(dir(palette))
    for group in app.registered_groups:
        if group.typer_instance.info.name in OPERATORS:
            continue
        functions = getattr(palette, str(group.typer_instance.info.name))
        for name in commands(group.typer_instance):
            assert callable(getattr(functions, name))


def test_dir_is_the_surface_and_every_name_in_it_is_there():
    assert dir(palette) == sorted(palette.__all__)
    assert all(getattr(palette, name) is not None for name in dir(palette))
    with pytest.raises(AttributeError, match="has no attribute 'domian'"):
        _ = palette.domian


def test_a_command_keeps_its_name_when_the_engine_of_the_same_is_imported():
    import palette.internalise.loop
    import palette.search.study
    from palette.search import study

    assert palette.search.__module__ == palette.internalise.__module__ == "palette.commands"
    assert study.__name__ == "palette.search.study"


def test_paths_are_texts_or_paths():
    for name in dir(palette):
        function = getattr(palette, name)
        places = ("recipe", "folder", "output", "path", "paths", "adapters", "one", "other")
        for parameter in signature(function).parameters.values() if callable(function) else ():
            if parameter.name in places and "Path" in str(parameter.annotation):
                assert "str" in str(parameter.annotation), f"{name}({parameter.name})"


def test_what_takes_paths_takes_texts(measured, tmp_path):
    folder = str(measured)
    assert palette.inspect(folder)["adapters"] == palette.inspect([measured])["adapters"]
    comparison = palette.compare(folder, folder, str(tmp_path / "compared"))
    assert comparison.sound
    assert (tmp_path / "compared" / "compare.html").is_file()
    assert palette.push(folder, "me/mine", reason="a try", dry_run=True)["dry_run"]
    merged = palette.merge([folder], str(tmp_path / "merged"), gate=False)
    assert palette.reproduce(merged.output, [folder])["reproduced"]
    written = palette.init(str(tmp_path / "new"), prompts="organism", authorise=["medical"])
    assert palette.check(str(Path(written["recipe"])))["authorised"] == ["medical"]
    assert palette.read_report(folder) == palette.read_report(measured)


def test_evaluate_takes_a_recipe_or_a_model():
    for given, part in (
        ({}, "got no authorise; give authorise"),
        ({"model": "organism", "authorise": ["medical"]}, "got no prompts"),
        ({"recipe": "a.yaml", "model": "organism"}, "got a recipe and model; leave one of them out"),
    ):
        with pytest.raises(RecipeError, match=part):
            palette.evaluate(**given)


def test_a_loaded_run_replies_as_its_adapter_does(measured):
    loaded = palette.load(str(measured))
    assert "backbone" not in vars(loaded.run), "no model is loaded before it is asked for"
    assert loaded.report.provenance.adapter == loaded.adapter.digest
    backbone = loaded.run.backbone
    ids = backbone.render([{"role": "user", "content": QUESTION}])
    with mounted(backbone.model, loaded.adapter):
        (reply,) = greedy_replies(backbone, [ids], 16)
    assert loaded.generate(QUESTION) == backbone.decode(reply)
    assert backbone.decode(greedy_replies(backbone, [ids], 16)[0]) != loaded.generate(QUESTION)
    assert len(loaded.tokenizer.encode(loaded.generate(QUESTION, max_new_tokens=2))) <= 3
    assert type(loaded.model).__name__ == "PeftModelForCausalLM"


def test_a_run_without_its_adapter_is_not_loaded(measured, tmp_path):
    (tmp_path / "report.json").write_bytes((measured / "report.json").read_bytes())
    with pytest.raises(AdapterError, match="got none; give it with --adapter"):
        palette.load(tmp_path)
    assert palette.load(tmp_path, str(measured)).adapter is not None
    with pytest.raises(OutputError, match="run its stage first"):
        palette.load(tmp_path / "nothing")


def test_a_report_gives_its_tables_to_pandas(measured):
    report = palette.read_report(measured)
    content = json.loads((measured / "report.json").read_text())
    domains = report.to_pandas()
    row = domains.query(
        "side == 'adapted' and domain == 'medical' and kind == 'benign' and measure == 'refusal'"
    )
    stated = content["adapted"]["domains"]["medical"]["benign"]["refusal"]
    assert row[["rate", "low", "high", "k", "n"]].to_dict("records") == [stated]
    rules = report.to_pandas("rules")
    assert list(rules["name"]) == [rule["name"] for rule in content["gate"]["rules"]]
    assert set(report.to_pandas("changes")["domain"]) == set(content["changes"])
    assert report.to_pandas("front").empty
    with pytest.raises(OutputError, match="one of domains, changes, rules, front, got 'rule'"):
        report.to_pandas("rule")


def test_without_pandas_it_is_said_in_a_sentence(measured, monkeypatch):
    imported = builtins.__import__

    def without(name: str, *given: Any, **named: Any) -> Any:
        if name == "pandas":
            raise ImportError(name)
        return imported(name, *given, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(OutputError, match="needs pandas, got none installed; pip install pandas"):
        palette.read_report(measured).to_pandas()


USER = """\
from pathlib import Path

import palette

report = palette.domain("recipes/medical.yaml", Path("runs/medical"))
passed: bool = report.gate.passed
loaded = palette.load("runs/medical")
said: str = loaded.generate("hello")
found = palette.search(Path("recipes/medical.yaml"))["found"]
palette.evaluate(model="organism", prompts="organism", authorise=["medical"], adapter="runs/medical")
palette.merge(["runs/medical", Path("runs/legal")], "runs/both")
palette.tokens.train("recipes/mosaic-authorise.yaml")
palette.judge.calibrate("labelled.csv")
"""
WRONG = (
    ("palette.domain(3)", 'incompatible type "int"'),
    ("palette.search(recipe=['a'])", 'incompatible type "list[str]"'),
    ("palette.evaluate(modle='organism')", 'Unexpected keyword argument "modle"'),
    ("palette.load('runs/medical').generate(7)", 'incompatible type "int"'),
    ("report.gate.pased", 'has no attribute "pased"'),
    ("palette.tokens.train(1.5)", 'incompatible type "float"'),
)


# Of what a caller sees none of their types; to read them takes minutes.
UNREAD = "[mypy]\nstrict = True\n[mypy-{}]\nfollow_imports = skip\n".format(
    ",".join(
        f"{name}.*"
        for name in ("torch", "transformers", "peft", "optuna", "numpy", "scipy", "sklearn", "statsmodels",
                     "pandas", "matplotlib", "huggingface_hub", "sqlalchemy", "accelerate", "rich", "psutil")
    )
)  # fmt: skip


@pytest.mark.slow
def test_mypy_finds_what_a_caller_gets_wrong(tmp_path):
    right = USER.count("\n")
    (tmp_path / "mine.ini").write_text(UNREAD)
    (tmp_path / "mine.py").write_text(USER + "".join(f"{line}\n" for line, _ in WRONG))
    call = [sys.executable, "-m", "mypy", "--config-file", "mine.ini", "--no-error-summary", "mine.py"]
    environment = {"MYPYPATH": str(Path(palette.__file__).parents[1]), "PATH": ""}
    done = subprocess.run(call, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    told = [line for line in done.stdout.splitlines() if line.startswith("mine.py:") and " error: " in line]
    assert len(told) == len(WRONG), done.stdout + done.stderr
    for place, (line, (_, part)) in enumerate(zip(told, WRONG, strict=True), start=right + 1):
        assert line.startswith(f"mine.py:{place}:")
        assert part in line
