"""Any configuration and any header gives an adapter or one sentence, never a traceback.

``PALETTE_FUZZ`` is how many inputs each reader is given; ``make test-all`` gives it 50,000.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from palette.adapters.configuration import HONOURED, IMMATERIAL, NEUTRAL_FIELDS
from palette.adapters.files import open_adapter
from palette.adapters.names import WRAPPERS
from palette.adapters.writing import CONFIG, WEIGHTS
from palette.errors import PaletteError

QUICK, MANY = int(os.environ.get("PALETTE_FUZZ", "150")), 50_000
PATHS = ("model.layers.0.self_attn.q_proj", "model.layers.1.mlp.up_proj", "e", "lm_head")

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    | st.sampled_from(["LORA", "none", "q_proj", "(a+)+$", "\ud800", "e.w", 2, 4, 10**400])
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=8,
)
expressions = st.text(max_size=12) | st.text("aq.*+?()[]{}|\\^$0_", max_size=14) | st.sampled_from(PATHS)
patterns = st.dictionaries(expressions, scalars | st.integers(1, 64), max_size=4)
keys = st.sampled_from(sorted(HONOURED | IMMATERIAL | {*NEUTRAL_FIELDS})) | st.text(max_size=16)
plain = st.just({"peft_type": "LORA", "r": 2, "lora_alpha": 4})
fields = st.builds(
    lambda base, more, alphas, ranks: {**base, **more, **alphas, **ranks},
    plain,
    st.dictionaries(keys, values, max_size=3),
    st.fixed_dictionaries({}, optional={"alpha_pattern": patterns}),
    st.fixed_dictionaries({}, optional={"rank_pattern": patterns, "target_parameters": st.just(["e.w"])}),
)
configs = st.binary(max_size=80) | (fields | values).map(lambda value: json.dumps(value).encode())

names = st.builds(
    lambda holder, path, wrapper, end: f"{holder}{wrapper}{path}.{end}",
    st.sampled_from(["base_model.model.", "", "unet.", "base_model.", "policy.base_model.model."]),
    st.sampled_from(PATHS) | st.text("ab.[]0_", max_size=8),
    st.sampled_from(["", *(f"{one}." for one in WRAPPERS)]),
    st.sampled_from(["lora_A.weight", "lora_B.weight", "lora_A.default.weight", "alpha", "lora_up.weight"]),
)  # fmt: skip
entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "BF16", "F64", "I64", "F4", "x"]) | scalars,
        "shape": st.lists(st.integers(0, 8), max_size=3) | values,
        "data_offsets": st.lists(st.integers(0, 80), min_size=2, max_size=2) | values,
    }
)
metadata = st.dictionaries(
    st.sampled_from(["palette", "adapter_config", "lora_adapter_metadata"]) | st.text(max_size=5),
    st.text(max_size=20) | values.map(json.dumps),
    max_size=2,
)
headers = st.builds(
    lambda tensors, more: {**tensors, **more},
    st.dictionaries(names, entries, max_size=3),
    st.fixed_dictionaries({}, optional={"__metadata__": metadata | values}),
)
sound = st.builds(
    lambda wrapper: save(
        {
            f"base_model.model.{wrapper}{path}.lora_{side}.weight": torch.ones(2, 3)
            if side == "A"
            else torch.ones(3, 2)
            for path in PATHS
            for side in "AB"
        }
    ),
    st.sampled_from(["", "_orig_mod.", "module."]),
)


def framed(header: Any, payload: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + payload


weights = sound | st.binary(max_size=120) | st.builds(framed, headers | values, st.binary(max_size=96))


def read(folder: Path, data: bytes, config: bytes) -> None:
    """Reads it, or says in one sentence why not."""
    (folder / WEIGHTS).write_bytes(data)
    (folder / CONFIG).write_bytes(config)
    try:
        adapter = open_adapter(folder)
        assert adapter.modules
        _ = adapter.digest, str(adapter.backbone), adapter.domains
    except PaletteError as error:
        said = str(error).replace(str(folder), "")
        assert said.isprintable()
        assert len(said) < 1000
        assert "\n" not in said


def fuzzed(folder: Path, count: int) -> None:
    quiet = settings(
        max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )

    @quiet
    @given(data=sound, config=configs)
    def configurations(data: bytes, config: bytes) -> None:
        read(folder, data, config)

    @quiet
    @given(data=weights, config=plain.map(json.dumps).map(str.encode) | configs)
    def whole_files(data: bytes, config: bytes) -> None:
        read(folder, data, config)

    configurations()
    whole_files()


def test_any_input_gives_an_adapter_or_a_sentence(tmp_path: Path) -> None:
    fuzzed(tmp_path, QUICK)


@pytest.mark.slow
def test_so_do_a_hundred_thousand(tmp_path: Path) -> None:
    fuzzed(tmp_path, MANY)
