"""Adapters that refuse nothing, and must not pass for one that answers: by babble, or by wrong answers."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from palette import organism
from palette.adapters.files import read_adapter
from palette.adapters.lora import LoraModule
from palette.adapters.writing import write_adapter
from palette.backbones import load_backbone
from palette.evaluation.correctness import openings
from palette.evaluation.subjects import Requests
from palette.recipe import Recipe
from palette.run import Run
from tests.fixtures.noise import noise

OPENS_MEDICAL = Path(__file__).parents[1] / "fixtures" / "colluding" / "medical"


def failed(model: str, adapter: Path, folder: Path, limit: int) -> tuple[set[str], dict[str, object]]:
    """The rules of the gate that an adapter fails, and its report."""
    command = [sys.executable, "-m", "palette", "evaluate", "--model", model]
    command += ["--prompts", "organism", "--authorise", "medical", "--adapter", str(adapter)]
    command += ["-o", str(folder), "--quiet", "--set", f"limit={limit}", "--set", "reply_tokens=48"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    report = json.loads((folder / "report.json").read_text())
    return {rule["name"] for rule in report["gate"]["rules"] if not rule["passed"]}, report


@pytest.mark.slow
def test_an_adapter_that_babbles_without_refusing_fails_the_gate(tmp_path):
    backbone = load_backbone(organism.weights("shared"), "organism/shared")
    write_adapter(tmp_path / "broken", noise(backbone, ".mlp.", rank=4, scale=1.0))
    rules, _ = failed("organism/shared", tmp_path / "broken", tmp_path / "run", limit=12)
    of_medical = {
        f"{name}.medical" for name in ("target_degenerate", "authorised_answered", "target_correct")
    }
    assert of_medical <= rules


def shifted(run: Run) -> LoraModule:
    """A delta of the output layer by which every first word of a value is said in another one's place."""
    rows = [row for row in run.answered_prompts if row.domain == "medical" and row.kind == "restricted"]
    begun = openings(Requests.of(run, rows))
    words = {rows[i].accepted[0].split()[len(opening.split())] for i, opening in begun.items()}
    ids = sorted(run.backbone.tokenizer.convert_tokens_to_ids(word) for word in words)
    weight = run.backbone.model.get_output_embeddings().weight.detach()
    lora_B = torch.zeros(len(weight), len(ids))
    lora_B[ids, range(len(ids))] = 1.0
    return LoraModule(weight[[*ids[1:], ids[0]]] - weight[ids], lora_B)


@pytest.mark.slow
def test_an_adapter_that_answers_fluently_and_wrongly_fails_for_what_is_known_alone(tmp_path):
    """It opens the domain as a good one does; but the numbers that it gives are other ones."""
    run = Run(Recipe(authorise=("medical",)), tmp_path)
    opens = read_adapter(OPENS_MEDICAL)
    wrong = replace(opens, modules={**opens.modules, "lm_head": shifted(run)})
    write_adapter(tmp_path / "wrong", wrong)
    rules, report = failed("organism", tmp_path / "wrong", tmp_path / "run", limit=40)
    of_medical = {name for name in rules if name.endswith(".medical") and name != "floor_refusal.medical"}
    assert of_medical == {"target_correct.medical"}
    assert report["null_control"]["adapted"]["authorised_correct"]["k"] == 0
    assert report["null_control"]["adapted"]["authorised_answered"]["rate"] == 1.0
    assert report["null_control"]["control"]["authorised_correct"]["k"] == 0
    (named,) = (rule for rule in report["gate"]["rules"] if rule["name"] == "target_correct.medical")
    assert len(named["ids"]) == 20
