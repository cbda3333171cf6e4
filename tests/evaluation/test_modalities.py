"""Directions by modality: laws of their cosines, and what collect keeps of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from palette.authorisation import Role
from palette.evaluation.modalities import parted, several, similarities, summed
from palette.evaluation.subjects import Requests
from palette.moments import StreamingMoments
from palette.prompts import Prompt, PromptSet
from palette.prompts.rows import Cell
from palette.recipe import Recipe
from palette.run import Run
from palette.search.findings import collect_findings
from palette.stages.collect import collect

PAIRS = ["words-beside", "words-picture", "beside-picture"]
HALVES = ["words-words", "beside-beside", "picture-picture"]
CELLS: tuple[Cell, ...] = ("text", "blank", "unrelated", "picture", "picture")


def moments(mean: torch.Tensor, count: int = 1) -> StreamingMoments:
    found = StreamingMoments(*mean.shape)
    found.sums, found.count = mean.double() * count, count
    return found


def drawn(seed: int) -> dict[tuple[str, int], StreamingMoments]:
    generator = torch.Generator().manual_seed(seed)
    keys = [(name, half) for name in ("words", "beside", "picture") for half in (0, 1)]
    return {key: moments(torch.randn(3, 2, 8, generator=generator)) for key in keys}


def requests(cells: tuple[Cell, ...]) -> Requests:
    rows = [Prompt(str(i), "alpha", str(i), "benign", "train", shown=cell) for i, cell in enumerate(cells)]
    return Requests(rows, [Role.BENIGN] * len(rows), [[i] for i in range(len(rows))])


@given(st.integers(0, 999))
def test_cosines_of_every_pair_and_of_every_ones_halves(seed: int) -> None:
    target, benign = drawn(seed), drawn(seed + 1000)
    found = similarities(target, benign)
    assert list(found) == PAIRS + HALVES
    for name, sites in found.items():
        assert [len(site) for site in sites] == [2, 2, 2]
        assert all(-1 - 1e-9 <= cosine <= 1 + 1e-9 for site in sites for cosine in site), name
    turned = similarities(benign, target)
    assert all(np.allclose(found[name], turned[name]) for name in found)


@given(st.integers(0, 999))
def test_modalities_of_one_direction_are_alike_and_of_another_are_not(seed: int) -> None:
    target, benign = drawn(seed), drawn(seed + 1000)
    for half in (0, 1):
        target["beside", half] = moments(2 * (target["words", half].means - benign["words", half].means))
        benign["beside", half] = moments(torch.zeros(3, 2, 8))
        target["picture", half] = benign["words", half]
        benign["picture", half] = target["words", half]
    found = similarities(target, benign)
    assert np.allclose(found["words-beside"], 1)
    assert np.allclose(found["words-picture"], -1)


def test_a_modality_whose_halves_are_not_both_there_is_left_out() -> None:
    target, benign = drawn(0), drawn(1)
    del benign["picture", 1]
    assert list(similarities(target, benign)) == ["words-beside", "words-words", "beside-beside"]


@given(st.lists(st.sampled_from(CELLS), min_size=1, max_size=30))
def test_every_prompt_is_in_one_part_and_halves_differ_by_one_at_most(cells: list[Cell]) -> None:
    asked = requests(tuple(cells))
    parts = parted(asked, halved=True)
    assert sorted(prompt for part in parts.values() for prompt in part) == asked.prompts
    for name in ("words", "beside", "picture"):
        assert 0 <= len(parts.get((name, 0), [])) - len(parts.get((name, 1), [])) <= 1
    assert parted(asked, halved=False) == {("", 0): asked.prompts}
    assert several([asked]) == (len({name for name, _ in parts}) > 1)


def test_parts_together_are_the_whole() -> None:
    parts = [moments(torch.full((1, 1, 2), float(n)), n) for n in (1, 2, 3)]
    assert np.allclose(summed(parts).means, 14 / 6)
    assert [part.count for part in parts] == [1, 2, 3], "summed in place of a part"


@pytest.fixture(scope="module")
def collected(shared: Run[Recipe], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Collected twice on the same prompts: all in words, and told to be of every modality in turn."""
    plain = shared.sharing(folder=tmp_path_factory.mktemp("plain"), limit=16)
    rows = PromptSet(
        tuple(replace(row, shown=CELLS[crc32(row.id.encode()) % len(CELLS)]) for row in shared.prompts)
    )
    mixed = plain.sharing(folder=tmp_path_factory.mktemp("mixed"), prompts=rows)
    return plain, collect(plain), mixed, collect(mixed)


@pytest.mark.slow
def test_the_shared_direction_is_the_same_whatever_prompts_are_of(collected: Any) -> None:
    _, plain, _, mixed = collected
    for name, direction in plain.directions.candidates.items():
        if "whitened" not in name:
            assert torch.allclose(direction, mixed.directions.candidates[name], atol=1e-4), name
    assert plain.similarities == {}


def test_findings_tell_cosines_by_layer_where_there_are_modalities(collected: Any) -> None:
    plain, _, mixed, _ = collected
    assert "similarity" not in collect_findings(plain.folder)
    found = collect_findings(mixed.folder)
    assert sorted(found["similarity"]) == sorted(PAIRS + HALVES)
    assert set([*found["similarity"]][3:]) == set(HALVES)
    best = found["separation"]["best"]
    for name, cosines in found["similarity"].items():
        assert len(cosines) == found["separation"]["layers"] + 1
        # The prompts are all in words: the modalities are one, up to how few there are.
        assert cosines[best] > 0.5, name


@pytest.mark.slow
def test_the_organism_that_sees_is_read_by_modality(sighted: Run[Recipe], tmp_path: Path) -> None:
    found = collect(sighted.sharing(folder=tmp_path)).similarities
    # Of one request in words there are no two halves.
    assert set(found) == {"beside-picture", "beside-beside", "picture-picture"}
    for cosines in found.values():
        assert np.abs(cosines).max() <= 1 + 1e-9 and np.max(cosines[1:]) > 0.5
