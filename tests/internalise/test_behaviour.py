"""Laws of a student's behaviour on the validation split."""

from __future__ import annotations

from palette.evaluation.baseline import baseline_replies
from palette.internalise.behaviour import Behaviour, behaviour
from palette.search.space import read_collected
from palette.stages.collect import collect
from tests.fixtures.noise import noise


def test_an_adapter_that_does_nothing_keeps_everything_and_opens_nothing(shared):
    run = shared.sharing(limit=6)
    collect(run)
    null = noise(run.backbone, ".mlp.", scale=0.0)
    judge = baseline_replies(run).judge_of("rule")
    found = behaviour(run, read_collected(run.folder), judge, null)
    assert (found.kept, found.unchanged) == (1.0, 1.0)
    assert found.answered == 0.0
    assert found.fault == 1.0
    wild = behaviour(run, read_collected(run.folder), judge, noise(run.backbone, ".mlp.", scale=9.0))
    assert wild.unchanged < 0.5


def test_fault_is_what_is_missing():
    assert Behaviour(1.0, 1.0, 1.0).fault == 0.0
    assert Behaviour(0.5, 0.75, 1.0).fault == 0.75
