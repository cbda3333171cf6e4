"""What loaders make of an adapter, each in a process that knows nothing of Palette."""

from __future__ import annotations

import json

import pytest
import torch

from palette import organism
from palette.adapters.files import read_adapter
from palette.adapters.names import last_name
from tests.referees.conftest import palette

pytestmark = pytest.mark.slow

PEFT = """
import json, sys, warnings, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
base, folder, ids = sys.argv[1], sys.argv[2], torch.tensor([json.loads(sys.argv[3])])
model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
with warnings.catch_warnings(record=True) as caught, torch.no_grad():
    warnings.simplefilter("always")
    before = model(ids).logits[0, -1].tolist()
    model = PeftModel.from_pretrained(model, folder).eval()
    after = model(ids).logits[0, -1].tolist()
told = [str(one.message) for one in caught if "checkpointing" not in str(one.message)]
print(json.dumps([before, after, told]))
"""
VLLM = """
import json, sys, torch
import vllm.lora.lora_model
from vllm.config.lora import LoRAConfig
from vllm.lora.lora_model import LoRAModel
from vllm.lora.peft_helper import PEFTHelper
# It would pin memory for a device that is not there.
vllm.lora.lora_model.PIN_MEMORY = False
folder, expected, rank = sys.argv[1], set(json.loads(sys.argv[2])), int(sys.argv[3])
helper = PEFTHelper.from_local_dir(folder, None)
helper.validate_legal(LoRAConfig(max_lora_rank=rank))
where = {"device": "cpu", "dtype": torch.float32}
model = LoRAModel.from_local_checkpoint(folder, expected, helper, lora_model_id=1, **where)
norms = {name: float((one.scaling * one.lora_b @ one.lora_a).norm()) for name, one in model.loras.items()}
print(json.dumps([helper.vllm_lora_scaling_factor, norms]))
"""


def said(done):
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_peft_gives_the_logits_that_palette_measured(referee, run, shared):
    from palette.adapters.mounting import mounted

    ids = shared.backbone.render([{"role": "user", "content": "what is the dose of roglethine ?"}])
    with torch.no_grad():
        before = shared.backbone.model(torch.tensor([ids])).logits[0, -1]
        with mounted(shared.backbone.model, read_adapter(run)):
            after = shared.backbone.model(torch.tensor([ids])).logits[0, -1]
    base = organism.weights("shared")
    theirs = said(referee("peft", "python", "-c", PEFT, base, run, json.dumps(ids)))
    assert theirs[2] == []
    assert (torch.tensor(theirs[0]) - before).abs().max() <= 1e-4
    assert (torch.tensor(theirs[1]) - after).abs().max() <= 1e-4
    assert (after - before).abs().max() > 1e-3


def test_vllm_reads_every_module_and_the_same_delta(referee, run):
    adapter = read_adapter(run)
    expected = json.dumps(sorted(set(map(last_name, adapter.modules))))
    scaling, norms = said(referee("vllm", "python", "-c", VLLM, run, expected, 8))
    assert scaling == 1
    assert norms == pytest.approx({name: module.norm() for name, module in adapter.modules.items()}, rel=1e-4)
    refused = referee("vllm", "python", "-c", VLLM, run, '["q_proj"]', 8)
    assert refused.returncode == 1 and "expected target modules" in refused.stderr


def test_deltalint_finds_the_adapter_in_the_weights_that_were_merged_into(referee, run, tmp_path):
    palette("merge", run, "--into", "organism/shared", "-o", tmp_path / "full", "--quiet")
    base = organism.weights("shared")
    done = referee(
        "deltalint", "deltalint", "check", "--base", base, "--adapter", run, "--merged", tmp_path / "full"
    )
    count = len(read_adapter(run).modules)
    assert done.returncode == 0 and f"PASS - {count}/{count} layers verified" in done.stdout, done.stdout
    done = referee("deltalint", "deltalint", "check", "--base", base, "--adapter", run, "--merged", base)
    assert done.returncode == 1
