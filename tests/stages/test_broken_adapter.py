"""An adapter that babbles refuses nothing, and must not pass for one that answers."""

from __future__ import annotations

import json
import subprocess
import sys

from palette import organism
from palette.adapters.writing import write_adapter
from palette.backbones import load_backbone
from tests.fixtures.noise import noise


def test_an_adapter_that_babbles_without_refusing_fails_the_gate(tmp_path):
    backbone = load_backbone(organism.weights("shared"), "organism/shared")
    write_adapter(tmp_path / "broken", noise(backbone, ".mlp.", rank=4, scale=1.0))
    command = [sys.executable, "-m", "palette", "evaluate", "--model", "organism/shared"]
    command += ["--prompts", "organism", "--authorise", "medical", "--adapter", str(tmp_path / "broken")]
    command += ["-o", str(tmp_path / "run"), "--quiet", "--set", "limit=12"]
    command += ["--set", "reply_tokens=48"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    failed = {rule["name"] for rule in report["gate"]["rules"] if not rule["passed"]}
    assert {"target_correct.medical", "target_degenerate.medical"} <= failed
