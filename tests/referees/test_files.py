"""What tools that read files alone say of ours: scanners, validators and readers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from palette.adapters.files import read_adapter
from palette.adapters.lora import Adapter, BackboneIdentity, LoraModule
from palette.adapters.writing import write_adapter
from tests.referees.conftest import palette

pytestmark = pytest.mark.slow


def scanned(referee, folder: Path) -> dict:
    done = referee(
        "adaptersentry", "adaptersentry", "scan", folder / "adapter_model.safetensors", "--format", "json"
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_adaptersentry_finds_nothing_in_an_adapter(referee, run):
    said = scanned(referee, run)
    assert (said["verdict"]["action"], said["findings"]) == ("allow", [])
    assert said["coverage"]["n_modules"] == len(read_adapter(run).modules)


def test_adaptersentry_finds_nothing_in_a_merge(referee, run, tmp_path):
    other = read_adapter(run)
    modules = {name: LoraModule(m.lora_A.flip(1), m.lora_B, m.scale) for name, m in other.modules.items()}
    write_adapter(tmp_path / "other", Adapter(modules, other.backbone, {"domains": ["legal"]}, other.targets))
    palette("merge", run, tmp_path / "other", "-o", tmp_path / "both", "--quiet", status=(0, 3))
    assert scanned(referee, tmp_path / "both")["findings"] == []


def test_adaptersentry_would_find_a_mismatch(referee, run, tmp_path):
    adapter = read_adapter(run)
    write_adapter(tmp_path, Adapter(adapter.modules, adapter.backbone, adapter.card))
    assert [one["rule_id"] for one in scanned(referee, tmp_path)["findings"]] == ["TARGET_MODULES_MISMATCH"]


def test_senbonzakura_check_finds_nothing_in_a_card_and_a_gguf_file(referee, run, tmp_path):
    palette("export", run, "--to", "gguf", "-o", tmp_path, "--quiet")
    for path in (run / "README.md", tmp_path / "adapter.gguf"):
        done = referee("senbonzakura-check", "senbonzakura-check", "--min-applied", 1, path)
        assert done.returncode == 0, done.stdout
        assert "1 file(s), 0 finding(s), 0 unchecked" in done.stdout


def test_the_gguf_package_reads_every_factor(referee, run, tmp_path):
    palette("export", run, "--to", "gguf", "-o", tmp_path, "--quiet")
    script = (
        "import gguf, sys; r = gguf.GGUFReader(sys.argv[1]); "
        "print(len(r.tensors), bytes(r.fields['adapter.type'].parts[-1]).decode())"
    )
    done = referee("gguf", "python", "-c", script, tmp_path / "adapter.gguf")
    assert done.stdout.split() == [str(2 * len(read_adapter(run).modules)), "lora"], done.stderr


def test_aisbom_finds_no_risk_and_its_bill_is_valid_cyclonedx(referee, run, tmp_path):
    bill = tmp_path / "bill.json"
    assert referee("aisbom", "aisbom", "scan", run, "--output", bill).returncode == 0
    parts = {part["name"]: part["description"] for part in json.loads(bill.read_text())["components"]}
    assert "adapter_model.safetensors" in parts
    assert all("Risk: LOW" in told for told in parts.values())
    script = (
        "import sys; from cyclonedx.schema import SchemaVersion; "
        "from cyclonedx.validation.json import JsonStrictValidator; "
        "print(JsonStrictValidator(SchemaVersion.V1_7).validate_str(open(sys.argv[1]).read()))"
    )
    assert referee("aisbom", "python", "-c", script, bill).stdout.strip() == "None"


def test_what_inspect_writes_is_valid_sarif(referee, run, tmp_path):
    write_adapter(tmp_path / "bare", Adapter(read_adapter(run).modules, BackboneIdentity()))
    (tmp_path / "broken").mkdir()
    calls = {
        "adapters": (run, tmp_path / "bare"),
        "model": ("organism/shared",),
        "broken": (tmp_path / "broken",),
    }
    for name, paths in calls.items():
        palette(
            "inspect",
            *paths,
            "--sarif",
            tmp_path / f"{name}.sarif",
            "--quiet",
            status=(2 * (name == "broken"),),
        )
        done = referee("sarif-kit", "sarif-kit", "validate", tmp_path / f"{name}.sarif")
        assert done.returncode == 0, done.stdout + done.stderr
    text = (tmp_path / "model.sarif").read_text().replace('"level": "note"', '"level": "grave"')
    (tmp_path / "wrong.sarif").write_text(text)
    assert referee("sarif-kit", "sarif-kit", "validate", tmp_path / "wrong.sarif").returncode == 1
