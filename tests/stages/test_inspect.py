"""The inspect verb: what is in adapter files, as plain JSON."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from palette.adapters.files import read_adapter
from palette.adapters.lora import Adapter, BackboneIdentity, LoraModule
from palette.adapters.writing import CONFIG, WEIGHTS, write_adapter
from palette.errors import AdapterError, RecipeError
from palette.stages.inspect import inspect

IDENTITY = BackboneIdentity("tiny", "f" * 64)


def plant(folder: Path, values: list[float], identity: BackboneIdentity = IDENTITY, width: int = 2) -> Path:
    """An adapter of one module whose ΔW is diagonal."""
    down = torch.zeros(2, width)
    down[0, 0], down[1, 1] = values
    module = LoraModule(down, torch.eye(2))
    write_adapter(folder, Adapter({"layers.0.up_proj": module}, identity, {"domains": ["law"]}))
    return folder


def test_one_adapter_is_described(tmp_path: Path) -> None:
    folder = plant(tmp_path / "a", [3.0, 4.0])
    result = inspect([folder])
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result == {
        "adapters": [
            {
                "path": str(folder),
                "digest": read_adapter(folder).digest,
                "backbone": {"name": "tiny", "fingerprint": "f" * 64},
                "domains": ["law"],
                "method": None,
                "parents": [],
                "certificate": None,
                "targets": ["up_proj"],
                "rank": 8,
                "scales": [1.0],
                "norm": 5.0,
                "modules": {
                    "layers.0.up_proj": {
                        "shape": [2, 2],
                        "rank": 8,
                        "exact_rank": 2,
                        "effective_rank": pytest.approx(1.9221, abs=1e-4),
                        "scale": 1.0,
                        "norm": 5.0,
                    }
                },
                "card": {"domains": ["law"]},
            }
        ]
    }


def test_several_are_compared(tmp_path: Path) -> None:
    paths = [
        plant(tmp_path / name, values)
        for name, values in {"a": [1.0, 0.0], "b": [1.0, 1.0], "c": [-2.0, 0.0]}.items()
    ]
    root = math.sqrt(0.5)
    assert inspect(paths)["cosines"] == [
        pytest.approx([1.0, root, -1.0]),
        pytest.approx([root, 1.0, -root]),
        pytest.approx([-1.0, -root, 1.0]),
    ]


@pytest.mark.parametrize(("identity", "width"), [(BackboneIdentity("other", "e" * 64), 2), (IDENTITY, 3)])
def test_different_backbones_are_not_compared(tmp_path: Path, identity: BackboneIdentity, width: int) -> None:
    paths = [plant(tmp_path / "a", [1.0, 0.0]), plant(tmp_path / "b", [1.0, 0.0], identity, width)]
    result = inspect(paths)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["cosines"] == [[1.0, None], [None, 1.0]]


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        inspect([])
    assert str(caught.value) == "inspect must have at least one adapter, got none"
    with pytest.raises(AdapterError, match="got nothing there"):
        inspect([tmp_path / "nowhere"])


def sarif(paths: list[Path | str] | str, file: Path) -> dict[str, list[dict]]:
    """The results that inspect writes, by their rule; each is checked against what SARIF demands of it."""
    with contextlib.suppress(AdapterError):
        inspect(paths, sarif=file)
    log = json.loads(file.read_text())
    (run,) = log["runs"]
    assert (log["version"], run["tool"]["driver"]["name"]) == ("2.1.0", "palette")
    rules, artifacts = run["tool"]["driver"]["rules"], run["artifacts"]
    found: dict[str, list[dict]] = {}
    for result in run["results"]:
        rule = rules[result["ruleIndex"]]
        assert (rule["id"], rule["defaultConfiguration"]["level"]) == (result["ruleId"], result["level"])
        assert result["level"] in ("error", "warning", "note") and result["message"]["text"].endswith(".")
        where = result["locations"][0]["physicalLocation"]["artifactLocation"]
        assert artifacts[where["index"]]["location"]["uri"] == where["uri"]
        found.setdefault(rule["id"], []).append(result)
    return found


def reconfigured(folder: Path, **fields: object) -> Path:
    """The adapter with other fields in its configuration, as another tool would have written it."""
    tensors = load_file(folder / WEIGHTS)
    save_file(tensors, folder / WEIGHTS)
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**config, **fields}))
    return folder


def test_findings_name_rule_place_module_and_digest(tmp_path: Path) -> None:
    folder = plant(tmp_path / "a b", [1.0, 1.0])
    found = sarif([folder], tmp_path / "log.sarif")
    assert set(found) == {"backbone-elsewhere", "unmeasured"}
    (result,) = found["unmeasured"]
    assert result["partialFingerprints"] == {"paletteDigest/v1": read_adapter(folder).digest}
    (artifact,) = json.loads((tmp_path / "log.sarif").read_text())["runs"][0]["artifacts"]
    assert artifact["location"]["uri"] == folder.as_uri() and "%20" in folder.as_uri()
    assert artifact["hashes"] == {"sha-256": hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()}
    told = inspect([folder], sarif=tmp_path / "log.sarif")["findings"]
    assert [one["rule"] for one in told] == ["backbone-elsewhere", "unmeasured"]


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"target_modules": ["down_proj", "up_proj"]}, "targets-absent"),
        ({"target_modules": ["down_proj"]}, "untargeted"),
        ({"target_modules": ["layers.1.up_proj"]}, "untargeted"),
        ({"base_model_name_or_path": None}, "backbone-unnamed"),
        ({"base_model_name_or_path": "owner/other"}, "backbone-unproven"),
        ({"base_model_name_or_path": "organism/shared"}, "outside-backbone"),
        ({"base_model_name_or_path": "organism/nothing"}, "backbone-elsewhere"),
        ({"modules_to_save": ["head"]}, "unreadable"),
    ],
)
def test_each_fault_of_a_configuration_is_found(tmp_path: Path, fields: dict, rule: str) -> None:
    sound = sarif([reconfigured(plant(tmp_path / "a", [1.0, 1.0]))], tmp_path / "sound.sarif")
    faulty = sarif([reconfigured(plant(tmp_path / "b", [1.0, 1.0]), **fields)], tmp_path / "faulty.sarif")
    assert len(faulty[rule]) == 1
    assert rule not in sound or rule.startswith("backbone-")


def test_wrapped_names_and_null_deltas_and_several_scales_are_found(tmp_path: Path) -> None:
    folder = reconfigured(plant(tmp_path / "a", [0.0, 0.0]))
    tensors = {
        key.replace("layers", "_orig_mod.layers"): tensor
        for key, tensor in load_file(folder / WEIGHTS).items()
    }
    tensors |= {key.replace("up_proj", "q_proj"): torch.ones_like(one) for key, one in tensors.items()}
    save_file(tensors, folder / WEIGHTS)
    reconfigured(folder, alpha_pattern={"q_proj": 3}, target_modules=["up_proj", "q_proj"])
    found = sarif([folder], tmp_path / "log.sarif")
    assert {"wrapped-names", "null", "scales-differ"} <= set(found)
    (null,) = found["null"]
    assert null["locations"][0]["logicalLocations"] == [
        {"fullyQualifiedName": "layers.0.up_proj", "kind": "module"}
    ]


def test_an_adapter_that_cannot_be_read_is_a_result_and_an_error(tmp_path: Path) -> None:
    paths = [plant(tmp_path / "a", [1.0, 1.0]), tmp_path / "nowhere", tmp_path / "nothing"]
    with pytest.raises(AdapterError) as caught:
        inspect(paths, sarif=tmp_path / "log.sarif")
    assert len(caught.value.several) == 2
    found = sarif(paths, tmp_path / "log.sarif")
    assert [len(found[rule]) for rule in sorted(found)] == [2]


def test_adapters_of_two_backbones_and_failed_gates_are_found(tmp_path: Path) -> None:
    one = plant(tmp_path / "a", [1.0, 1.0])
    other = plant(tmp_path / "b", [1.0, 1.0], BackboneIdentity("other", "e" * 64))
    gate = {
        "gate": {"passed": False},
        "authorised": ["law"],
        "provenance": {"adapter": read_adapter(one).digest},
    }
    (one / "report.json").write_text(json.dumps(gate))
    found = sarif([one, other], tmp_path / "log.sarif")
    assert len(found["backbones-differ"]) == len(found["gate-failed"]) == len(found["unmeasured"]) == 1


def test_a_model_is_told_of_too(tmp_path: Path) -> None:
    found = sarif("organism/shared", tmp_path / "log.sarif")
    assert set(found) == {"no-writer", "out-of-reach"}
    assert {each["level"] for results in found.values() for each in results} == {"note"}
