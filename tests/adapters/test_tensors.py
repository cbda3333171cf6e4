"""The tensors of adapter files: damaged, foreign and unpaired ones are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from palette.adapters.configuration import parse
from palette.adapters.tensors import joined, paired, read_weights
from palette.errors import AdapterError

A = "base_model.model.x.lora_A.weight"
B = "base_model.model.x.lora_B.weight"
WHERE = Path("adapter_model.safetensors")
CONFIGURATION = parse({"peft_type": "LORA", "r": 2, "lora_alpha": 4}, WHERE)


def good(**changes: torch.Tensor) -> dict[str, torch.Tensor]:
    return {A: torch.ones(2, 5), B: torch.ones(4, 2), **changes}


def with_header(text: str, size: int) -> bytes:
    header = text.encode()
    return len(header).to_bytes(8, "little") + header + bytes(size)


ENTRY = '"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
WHOLE = save(good())


@pytest.mark.parametrize(
    ("data", "got"),
    [
        (b"", "header too small"),
        (WHOLE[:-5], "incomplete metadata"),
        (WHOLE[:40], "invalid header length"),
        (WHOLE + b"x", "incomplete metadata"),
        (b"PK\x03\x04 a zip file, longer than eight bytes", "header too large"),
        (with_header("{" + ENTRY + "," + ENTRY + "}", 4), "a name in its header stands twice"),
        (with_header('{"__metadata__":{"palette":"[1]"},' + ENTRY + "}", 4), "card is not an obj"),
        (with_header('{"__metadata__":{"palette":"{"},' + ENTRY + "}", 4), "Expecting property"),
        (
            with_header('{"__metadata__":{"palette":"{\\"a\\":NaN}"},' + ENTRY + "}", 4),
            "its card holds NaN",
        ),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, data: bytes, got: str) -> None:
    path = tmp_path / WHERE
    path.write_bytes(data)
    with pytest.raises(AdapterError) as caught:
        read_weights(path)
    sentence = str(caught.value)
    assert sentence.startswith("an adapter must be a whole safetensors file, got ")
    assert got in sentence
    assert sentence.endswith(f"; copy or train it again ({path})")


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / WHERE
    refused = 0
    for length in range(len(WHOLE)):
        path.write_bytes(WHOLE[:length])
        with pytest.raises(AdapterError):
            read_weights(path)
        refused += 1
    assert refused == len(WHOLE)
    path.write_bytes(WHOLE)
    assert set(read_weights(path)[0]) == {A, B}


def test_foreign_metadata_is_no_card(tmp_path: Path) -> None:
    path = tmp_path / WHERE
    path.write_bytes(save(good(), metadata={"format": "pt"}))
    assert read_weights(path)[1] == {}
    path.write_bytes(save(good(), metadata={"palette": json.dumps({"domains": ["a"]})}))
    assert read_weights(path)[1] == {"domains": ["a"]}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "an adapter must adapt a module, got an empty file (adapter_model.safetensors)"),
        (
            {A: torch.ones(2, 5)},
            "a module must have both factors, got no lora_B for x (adapter_mod",
        ),
        (
            {B: torch.ones(4, 2)},
            "a module must have both factors, got no lora_A for x (adapter_mod",
        ),
        ({"model.embed.weight": torch.ones(1)}, "got model.embed.weight, a tensor that is no fac"),
        (good(**{A + "\x1b[2J": torch.ones(1)}), "weight\\x1b[2J, a tensor that is no factor"),
        (good(**{A.replace("x", ".."): torch.ones(1)}), "model....lora_A.weight, a tensor that is"),
        (good(**{"base_model.model.x.lora_magnitude_vector": torch.ones(1)}), "DoRA, which resc"),
        (
            good(**{"base_model.model.x.lora_B.bias": torch.ones(1)}),
            "lora_B.bias, a bias on lora_B",
        ),
        (good(**{"base_model.model.x.lora_embedding_A": torch.ones(1)}), "LoRA on embeddings"),
    ],
)
def test_foreign_tensors_are_refused(tensors: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(AdapterError) as caught:
        paired(tensors, WHERE)
    assert message in str(caught.value)


def test_pairs_come_in_the_order_of_their_names() -> None:
    tensors = {key.replace("x", name): one for name in "ca" for key, one in good().items()}
    assert list(paired(tensors, WHERE)) == ["a", "c"]


@pytest.mark.parametrize(
    ("down", "up", "got"),
    [
        (torch.ones(2, 5), torch.ones(4, 3), "lora_A [2, 5] and lora_B [4, 3]"),
        (torch.ones(2), torch.ones(4, 2), "lora_A [2] and lora_B [4, 2]"),
        (torch.ones(2, 5, 1), torch.ones(4, 2), "lora_A [2, 5, 1] and lora_B [4, 2]"),
        (torch.ones(0, 5), torch.ones(4, 0), "lora_A [0, 5] and lora_B [4, 0]"),
        (torch.ones(3, 5), torch.ones(4, 3), "rank 3 where the configuration says 2"),
        (torch.ones(2, 5).int(), torch.ones(4, 2), "torch.int32 and torch.float32"),
        (torch.full((2, 5), torch.nan), torch.ones(4, 2), "NaN or infinity"),
        (torch.ones(2, 5), torch.full((4, 2), -torch.inf), "NaN or infinity"),
        (torch.full((2, 5), 1e300, dtype=torch.float64), torch.ones(4, 2), "NaN or infinity"),
    ],
)
def test_factors_that_do_not_fit_are_refused(down: torch.Tensor, up: torch.Tensor, got: str) -> None:
    with pytest.raises(AdapterError) as caught:
        joined("x", {"lora_A": down, "lora_B": up}, CONFIGURATION, WHERE)
    assert str(caught.value) == (
        "the factors of a module must be finite float matrices [rank d_in] and [d_out rank], "
        f"got {got} for x; train or export it again (adapter_model.safetensors)"
    )
