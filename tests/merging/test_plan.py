"""What is merged: one backbone, methods of the table with options of their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple

import pytest

from palette.adapters.lora import Adapter, BackboneIdentity
from palette.errors import AdapterError, RecipeError
from palette.merging.combining import combine
from palette.merging.methods import METHODS
from palette.merging.plan import MergeInput

Maker = Callable[..., Adapter]


@pytest.mark.parametrize(
    ("identities", "expected"),
    [
        ([("a", "f"), ("a", "f")], ("a", "f")),
        ([("b", "f"), ("a", "f")], ("a", "f")),
        ([("a", "f"), ("a", None)], ("a", None)),
        ([(None, None), (None, None)], (None, None)),
        ([(None, "f"), (None, "f")], (None, "f")),
    ],
)
def test_the_fingerprint_is_kept_only_if_all_state_it(
    random_adapter: Maker,
    identities: list[tuple[str | None, str | None]],
    expected: tuple[str | None, str | None],
) -> None:
    inputs = [
        MergeInput(Adapter(random_adapter(seed).modules, BackboneIdentity(*identity)))
        for seed, identity in enumerate(identities)
    ]
    assert astuple(combine(inputs)[0].backbone) == expected


@pytest.mark.parametrize(
    "identities",
    [
        [("a", "f" * 64), ("a", "g" * 64)],
        [("a", None), ("b", None)],
        [("a", "f" * 64), (None, None)],
        [("a", "f" * 64), ("a", None), ("a", "g" * 64)],
    ],
)
def test_different_backbones_are_refused(
    random_adapter: Maker, identities: list[tuple[str | None, str | None]]
) -> None:
    inputs = [
        MergeInput(Adapter(random_adapter(seed).modules, BackboneIdentity(*identity)), label=f"{seed}.st")
        for seed, identity in enumerate(identities)
    ]
    last = len(inputs) - 1
    with pytest.raises(AdapterError) as caught:
        combine(inputs)
    one, other = inputs[0].adapter.backbone, inputs[last].adapter.backbone
    assert str(caught.value) == (
        f"adapters to merge must be made for one backbone, got {one} in 0.st and {other} in "
        f"{last}.st; train them on the same backbone"
    )


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("sum", {}, f"a merge method must be in the table, got sum; use {' or '.join(METHODS)}"),
        ("ties", {"k": 1}, "ties takes the options density, trim, elect, divide, got k"),
        ("weighted_sum", {"density": 1.0}, "weighted_sum takes no options, got density"),
        ("ties", {"density": 0.0}, "ties's density must be a number in (0, 1], got 0.0"),
        ("ties", {"trim": "row"}, "ties's trim must be tensor or global, got row"),
    ],
)
def test_unknown_methods_and_options_are_refused(
    random_adapter: Maker, method: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        combine([MergeInput(random_adapter(1))], method, options=options)
    assert str(caught.value) == message


def test_nothing_cannot_be_merged() -> None:
    with pytest.raises(AdapterError) as caught:
        combine([])
    assert str(caught.value) == "a merge must have at least one adapter, got 0"
