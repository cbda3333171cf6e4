"""An adapter that does not fit the backbone is refused before a model speaks, and before it is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import palette.backbones.loading
import palette.evaluation.replies
from palette.adapters.lora import Adapter, BackboneIdentity, LoraModule
from palette.adapters.writing import write_adapter
from palette.errors import AdapterError
from palette.recipe import create_recipe
from palette.run import Run
from palette.stages.ask import ask
from palette.stages.evaluate import evaluate_model, evaluate_searched
from palette.stages.suite import suite
from tests.fixtures.crowds import crowd, good
from tests.reporting.conftest import parts, report

__all__ = ["crowd", "good", "parts", "report"]

CONTENT = {"model": "organism", "prompts": "organism", "authorise": ["medical"]}
Q = "layers.0.self_attn.q_proj"


@pytest.fixture(autouse=True)
def silent_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be loaded, and nothing generated."""

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("the model was asked")

    monkeypatch.setattr(palette.evaluation.replies, "answered", never)
    monkeypatch.setattr("palette.backbones.load_backbone", never)


def planted(folder: Path, name: str, d_in: int = 128, fingerprint: str | None = None) -> Path:
    module = LoraModule(torch.ones(2, d_in), torch.ones(128, 2))
    write_adapter(folder, Adapter({name: module}, BackboneIdentity("organism", fingerprint)))
    return folder


FOREIGN = [
    (f"model.language_model.{Q}", 128, None, f"got none at model.language_model.{Q}"),
    ("model.layers.99.self_attn.q_proj", 128, None, "linear modules of the backbone, got none"),
    ("model.norm", 128, None, r"got \w*RMSNorm at model\.norm"),
    (f"model.{Q}", 64, None, "got 128×64"),
    (f"model.{Q}", 128, "e" * 64, "must be mounted on the backbone that it was made for"),
]


@pytest.mark.parametrize(("name", "d_in", "fingerprint", "message"), FOREIGN)
def test_evaluate_refuses_it_first(
    tmp_path: Path, name: str, d_in: int, fingerprint: str | None, message: str
) -> None:
    adapter = planted(tmp_path / "a", name, d_in, fingerprint)
    with pytest.raises(AdapterError, match=message):
        evaluate_model(CONTENT, adapter, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_parent_of_adapters_is_refused_first(tmp_path: Path) -> None:
    planted(tmp_path / "all" / "medical", f"model.{Q}")
    with pytest.raises(AdapterError, match=r"give the folder of one of its adapters: .*medical"):
        evaluate_model(CONTENT, tmp_path / "all", tmp_path / "out")


def test_so_do_a_suite_and_the_stage_of_a_run(tmp_path: Path) -> None:
    adapter = planted(tmp_path / "a", f"model.language_model.{Q}")
    plan = tmp_path / "s.yaml"
    plan.write_text(
        "name: s\nmodel: organism\nmeasures:\n  - {kind: refusal_kept, name: kept, prompts: organism}\n"
    )
    with pytest.raises(AdapterError, match="linear modules of the backbone"):
        suite(plan, "organism", adapter)
    with pytest.raises(AdapterError, match="linear modules of the backbone"):
        evaluate_searched(Run(create_recipe(CONTENT), adapter))


def test_a_fitting_one_is_passed_on_to_the_model(tmp_path: Path) -> None:
    adapter = planted(tmp_path / "a", f"model.{Q}")
    with pytest.raises(AssertionError, match="the model was asked"):
        evaluate_model(CONTENT, adapter, tmp_path / "out")


def test_ask_names_the_sub_folder(shared: Any, tmp_path: Path, report: dict[str, Any]) -> None:
    stated = {**report, "provenance": {**report["provenance"], "adapter": "a" * 64}}
    (tmp_path / "report.json").write_text(json.dumps(stated))
    planted(tmp_path / "all" / "medical", f"model.{Q}")
    with pytest.raises(AdapterError, match="give the folder of one of its adapters"):
        ask(tmp_path, adapter=tmp_path / "all")
    with pytest.raises(AdapterError, match="must be the one that the report is of, aaaaaaaaaaaa, got none"):
        ask(tmp_path)
