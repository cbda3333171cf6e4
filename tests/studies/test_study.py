from __future__ import annotations

import math
from pathlib import Path

import optuna
import pytest

from palette.errors import SearchError
from palette.studies import SearchSpace, run_study
from palette.studies.study import OBJECTIVES, WORST, _open

SPACE = SearchSpace(
    methods=("directional_ablation", "centred_ablation"),
    sites=(1, 2, 3),
    positions=(-2, -1),
    widths=(0, 1),
    strength=(0.5, 2.5),
)


def objective(params):
    target = (params["strength"] - 1.5) ** 2 + params["site"]
    kept = params["site"] - params["strength"]
    moved = params["strength"] / 5 + (params["method"] == "centred_ablation") * 0.1
    return (target, kept, moved), moved - 0.4


def run(journal: Path, trials: int, evaluate=objective):
    return run_study(journal, SPACE, evaluate, trials=trials, seed=3)


def test_a_study_in_two_halves_is_the_study_in_one(tmp_path):
    whole = run(tmp_path / "whole" / "study.journal", 24)
    run(tmp_path / "halves.journal", 12)
    assert run(tmp_path / "halves.journal", 24) == whole
    assert [trial.number for trial in whole] == list(range(24))


def test_a_finished_study_asks_nothing(tmp_path):
    done = run(tmp_path / "study.journal", 5)
    assert run(tmp_path / "study.journal", 5, lambda params: pytest.fail("ran again")) == done
    assert run(tmp_path / "study.journal", 3) == done[:3]


@pytest.mark.parametrize("torn", [b"", b'{"op_code": 4, "work'])
def test_a_killed_trial_is_drawn_again_and_changes_nothing(tmp_path, torn):
    whole = run(tmp_path / "whole.journal", 22)

    def killed(params):
        killed.left -= 1
        if killed.left < 0:
            raise KeyboardInterrupt
        return objective(params)

    killed.left = 18
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed.journal", 22, killed)
    with (tmp_path / "killed.journal").open("ab") as stream:
        stream.write(torn)
    assert run(tmp_path / "killed.journal", 22) == whole


def test_no_trial_is_replayed(tmp_path):
    trials = run(tmp_path / "study.journal", 30)
    assert len({tuple(sorted(trial.params.items())) for trial in trials}) == 30


def test_what_is_not_a_number_is_infeasible_and_no_crash(tmp_path):
    trials = run(tmp_path / "study.journal", 2, lambda params: ((math.nan, 0.0, 0.1), -1.0))
    assert not any(trial.feasible for trial in trials)
    assert trials[0].losses == (WORST,) * 3


def test_feasibility_is_the_constraint(tmp_path):
    for trial in run(tmp_path / "study.journal", 12):
        assert trial.feasible == (trial.values[2] <= 0.4)


def test_values_have_names_and_losses_have_signs(tmp_path):
    trial = run(tmp_path / "study.journal", 1)[0]
    assert tuple(trial.named) == tuple(OBJECTIVES)
    assert trial.losses == (trial.values[0], -trial.values[1], trial.values[2])


def test_the_journal_opens_as_an_optuna_study(tmp_path):
    run(tmp_path / "study.journal", 4)
    study = _open(tmp_path / "study.journal", 3)
    assert [way.name for way in study.directions] == ["MINIMIZE", "MAXIMIZE", "MINIMIZE"]
    assert len(study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))) == 4


def test_a_foreign_journal_is_refused(tmp_path):
    (tmp_path / "study.journal").write_text("not a journal\nat all\n")
    with pytest.raises(SearchError, match="a study's journal must be readable"):
        run(tmp_path / "study.journal", 1)
