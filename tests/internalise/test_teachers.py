"""Laws of teachers: which trials of the search may teach."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import torch

from palette.authorisation import Authorisation
from palette.directions import Directions, Intervention, StrengthKernel
from palette.internalise import teachers
from palette.internalise.teachers import chosen_teachers
from palette.prompts import PromptSet
from palette.run import Run
from palette.run_settings import RunSettings
from palette.search.space import Member

NOWHERE = Directions(*(torch.zeros(4, 1, 16, dtype=torch.float64) for _ in range(2)))


def member(trial, score, peak, width=0, method="centred_ablation"):
    kernel = StrengthKernel(peak, width, 1.0)
    return Member(trial, Intervention(method, -1, kernel), {"target_refusal_score": score})


def test_those_whose_replies_fail_least_teach_and_each_place_once(backbone, monkeypatch, tmp_path):
    prompts = [[1], [2], [3]]
    bad = {1: 3, 2: 0, 3: 1, 4: 2}
    at = []

    @contextmanager
    def intervening(backbone, directions, intervention):
        at[:] = [intervention.kernel.peak]
        yield

    monkeypatch.setattr(teachers, "intervening", intervening)
    monkeypatch.setattr(teachers, "greedy_replies", lambda *given, **named: [[7]] * 3)
    known = [member(n, float(n), peak) for n, peak in enumerate((1, 2, 2, 3, 4))]

    def failed(prompts, replies):
        return [i < bad[at[0]] for i in range(len(replies))]

    run = Run.of(RunSettings(), tmp_path, backbone, PromptSet(()), Authorisation(()))
    made = chosen_teachers(run, NOWHERE, known, prompts, failed)
    # Site 1 fails always and site 4 in two of three; site 2 has two trials and teaches once.
    assert [teacher.args[2].kernel.peak for teacher in made] == [2, 3]
    # Where all fail, the one that fails least teaches alone.
    worst = chosen_teachers(run, NOWHERE, known[:1], prompts, failed)
    assert [teacher.args[2].kernel.peak for teacher in worst] == [1]
    # What breaks a limit is tried only where the best of the others leaves refusals.
    beyond = [replace(each, feasible=False) for each in known[1:]]
    helped = chosen_teachers(run, NOWHERE, [known[0], *beyond], prompts, failed)
    assert [teacher.args[2].kernel.peak for teacher in helped] == [2, 3]
    alone = chosen_teachers(run, NOWHERE, [known[1], *beyond[2:]], prompts, failed)
    assert [teacher.args[2].kernel.peak for teacher in alone] == [2]
