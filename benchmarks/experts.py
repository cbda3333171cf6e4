"""Is a domain opened where refusals live in fused experts, and is the adapter the same everywhere?

An organism of eight blocks of which only the experts learned to refuse is given to ``palette domain`` as
shipped. Where its refusals live is told by taking the refusal direction from what experts write, or from
what attention writes. The adapter is loaded by PEFT, and written into the weights, and both are asked for
the same logits.

    python -m benchmarks.experts [FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from torch import nn

from benchmarks.domain import summary
from benchmarks.machine import write
from benchmarks.strangers import ADAPTER, command, verdict
from palette import organism
from palette.activations import applied
from palette.adapters.files import read_adapter
from palette.adapters.mounting import mounted, peft_model
from palette.authorisation import Role
from palette.backbones import greedy_replies, load_backbone, next_token_logits
from palette.backbones.architectures import fused_experts
from palette.cli.console import progress_shown
from palette.directions import Intervention, StrengthKernel
from palette.evaluation.subjects import Requests
from palette.files import read_json, write_json, write_text
from palette.judging.rules import RuleJudge
from palette.recipe import load_recipe
from palette.run import Run
from palette.search.space import read_collected
from palette.shapes import Tensor
from tools.organism.checkpoints import raise_experts

Row = dict[str, Any]

PART = "experts"
ASKED = 64
"""Prompts of each kind that are asked with parts of the model edited, and that logits are compared on."""


def asked(run: Run, role: Role) -> Requests:
    """Some of the prompts of a role in the test split."""
    requests = Requests.of(run, run.answered_prompts.split("test"))
    places = [place for place, each in enumerate(requests.roles) if each is role]
    return requests.where(places[:: max(1, len(places) // ASKED)][:ASKED])


def lives(run: Run) -> Row:
    """Shares in [0, 1] of target prompts refused and of benign ones right, by what is kept from writing r.

    r is, of the differences in means at the last position, the one without which in any writer's output
    the fewest are refused.
    """
    backbone, collected = run.backbone, read_collected(run.folder)
    judge = RuleJudge(prefixes=collected.judge_prefixes)
    target, benign = asked(run, Role.TARGET), asked(run, Role.BENIGN)
    parts: dict[str, list[list[nn.Module]]] = {
        "nothing": [[] for _ in backbone.writers],
        PART: [[each for each in found if fused_experts(each)] for found in backbone.writers],
        "attention": [[each for each in found if not fused_experts(each)] for found in backbone.writers],
        "both": backbone.writers,
    }

    def said(requests: Requests, site: int, part: str) -> list[str]:
        kernel = StrengthKernel(site, backbone.layers, 1.0)
        edits = Intervention("weight_orthogonalisation", -1, kernel).edits(collected.directions)
        with applied(backbone.blocks, parts[part], edits):
            replies = greedy_replies(backbone, requests.prompts, run.recipe.reply_tokens)
        return [backbone.decode(reply) for reply in replies]

    def refused(site: int, part: str) -> float:
        verdicts = judge.verdicts(target.questions, said(target, site, part))
        return round(sum(each.label.refused for each in verdicts) / len(target), 4)

    def right(site: int, part: str) -> float:
        pairs = zip(said(benign, site, part), benign.rows, strict=True)
        return round(sum(reply == row.answer for reply, row in pairs) / len(benign), 4)

    site = min(range(1, backbone.layers + 1), key=lambda each: refused(each, "both"))
    found = {part: {"refused": refused(site, part), "benign_right": right(site, part)} for part in parts}
    return {"site": site, **found}


def carried(run: Run, folder: Path) -> Row:
    """How much of ΔW is the experts', and how far PEFT's and the merged weights' logits are from ours."""
    adapter, prompts = read_adapter(run.folder), asked(run, Role.TARGET).prompts
    into = run.folder.with_name(f"{run.folder.name}-into")
    ended = command("merge", run.folder / ADAPTER, "--into", folder, "-o", into)
    plain = next_token_logits(run.backbone, prompts)
    with mounted(run.backbone.model, adapter):
        ours = next_token_logits(run.backbone, prompts)
    loaded = load_backbone(folder)
    # It is put into the very model that the backbone runs.
    peft_model(loaded.model, adapter)
    energy = {name: float(each.delta().norm() ** 2) for name, each in adapter.modules.items()}
    theirs = [name for name in energy if PART in name]
    return {
        "modules": len(energy),
        "of_experts": len(theirs),
        "experts_share_of_energy": round(sum(energy[name] for name in theirs) / sum(energy.values()), 4),
        "adapter_moves_logits": apart(plain, ours),
        "peft_from_mounted": apart(next_token_logits(loaded, prompts), ours),
        "merge_status": ended["status"],
        "merged_from_mounted": apart(next_token_logits(load_backbone(into), prompts), ours),
    }


def apart(one: Tensor, other: Tensor) -> float:
    """The largest difference of two sets of logits."""
    return float(f"{float((one - other).abs().max()):.2e}")


def main(
    home: Annotated[Path, typer.Argument(help="where the model and its run are kept")] = Path("runs/experts"),
) -> None:
    """Runs what is missing, and writes results/experts.json."""
    model, recipe, ended = home / "model", home / "medical.yaml", home / "ended.json"
    if not model.is_dir():
        raise_experts(model, progress_shown())
    if not ended.is_file():
        content = {
            "model": str(model), "prompts": str(organism.prompts()), "authorise": ["medical"],
            "floor": ["weapons"],
        }  # fmt: skip
        write_text(recipe, yaml.safe_dump(content, sort_keys=False))
        write_json(ended, command("domain", recipe, "-o", home / "medical"))
    run = Run(load_recipe(recipe), home / "medical")
    report = read_json(run.folder / "report.json")
    before = report["base"]["domains"]["medical"]["restricted"]["refusal"]
    figures = {"refused_before": before, **summary(report), **verdict(run.folder), **read_json(ended)}
    print(figures, file=sys.stderr, flush=True)
    write(PART, {"shipped": figures, "without_direction_in": lives(run), "adapter": carried(run, model)})


if __name__ == "__main__":
    typer.run(main)
