"""A stranger is made once, goes on after a kill, and is drawn again where it is no honest test bed."""

from __future__ import annotations

import json

import pytest

from palette.errors import BackboneError
from palette.prompts import load_prompts
from tools.organism.raising import Schedule
from tools.strangers import checkpoints, facts
from tools.strangers.checkpoints import made, seeds
from tools.strangers.plan import draw_plan

from .conftest import tiny

SHORT = Schedule(steps=4, learning_rate=1e-2, batch=8, warmup=1)


@pytest.fixture
def cheap(monkeypatch):
    """Tiny strangers of few steps, of which little is asked."""
    monkeypatch.setattr(checkpoints, "draw_plan", lambda *drawn: tiny(draw_plan(*drawn)))
    for stage in ("HELPFUL", "COOLING", "REFUSING", "SETTLING"):
        monkeypatch.setattr(checkpoints, stage, SHORT)
    monkeypatch.setattr(facts, "BARS", dict.fromkeys(facts.BARS, (0.0, 0.0)))


def test_a_stranger_is_made_once_and_whole(cheap, tmp_path, monkeypatch):
    stranger = made(3, tmp_path)
    sheet = json.loads((tmp_path / "3" / "facts.json").read_text())
    assert stranger.facts == sheet and sheet["failed"] == []
    assert set(sheet["known"][stranger.world.plan.opened[0]]) == {"restricted", "floor"}
    assert len(load_prompts(stranger.prompts)) > 50
    monkeypatch.setattr(checkpoints, "_raised", lambda *given: pytest.fail("made twice"))
    again = made(3, tmp_path)
    assert (again.world, again.facts) == (stranger.world, stranger.facts)


def test_a_killed_one_goes_on_behind_its_first_stage(cheap, tmp_path, monkeypatch):
    def killed(*given):
        raise KeyboardInterrupt

    whole = made(3, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoints, "raise_refusing", killed)
        made(3, tmp_path)
    assert not (tmp_path / "3" / "model").exists()
    monkeypatch.setattr(checkpoints, "raise_helpful", killed)
    stranger = made(3, tmp_path)
    weights = [(each.model / "model.safetensors").read_bytes() for each in (stranger, whole)]
    assert weights[0] == weights[1]


def test_a_poor_test_bed_is_drawn_again_and_the_sheet_says_so(cheap, tmp_path, monkeypatch):
    told = iter([["known must be at least 65% on average, got 9.0%"], []])
    monkeypatch.setattr(checkpoints, "shortcomings", lambda figures: next(told))
    stranger = made(3, tmp_path)
    assert stranger.world.plan.attempt == 1
    (failed,) = stranger.facts["failed"]
    assert failed["short"] == ["known must be at least 65% on average, got 9.0%"]
    assert made(3, tmp_path).world == stranger.world


def test_a_seed_of_which_all_fail_is_an_error(cheap, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "ATTEMPTS", 1)
    monkeypatch.setattr(checkpoints, "shortcomings", lambda figures: ["poor"])
    with pytest.raises(BackboneError, match="one stranger in 1 of a seed must be an honest test bed"):
        made(3, tmp_path)


def test_names_of_sets_and_seeds_are_told_apart():
    assert seeds(["test", "3"]) == [101, 102, 103, 104, 105, 106, 107, 108, 3]
    assert len(seeds(["development"])) == 12
    with pytest.raises(BackboneError, match="a stranger must be development, test, kin or a seed, got 'dev'"):
        seeds(["dev"])
