"""The nominal time of a pass: of the model's size and the device's kind alone."""

from types import SimpleNamespace

import pytest
import torch

from palette.backbones.cost import pass_seconds


def backbone(weights, device="cpu", dtype=torch.float32):
    """A model of so many weights, of which only the number, the device and the precision are read."""
    parameters = [SimpleNamespace(numel=lambda: weights)]
    model = SimpleNamespace(parameters=lambda: parameters, device=torch.device(device), dtype=dtype)
    return SimpleNamespace(model=model)


def test_it_grows_with_the_weights_and_not_with_the_machine(monkeypatch):
    one = pass_seconds(backbone(1000))
    assert pass_seconds(backbone(5000)) == pytest.approx(5 * one)
    assert pass_seconds(backbone(1000, "cuda")) < one
    assert pass_seconds(backbone(1000, dtype=torch.bfloat16)) < one
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    assert pass_seconds(backbone(1000)) == one


@pytest.mark.parametrize("device", ["mps", "xpu"])
def test_an_unknown_kind_of_device_counts_as_a_cpu(device):
    assert pass_seconds(backbone(1000, device)) == pass_seconds(backbone(1000))
