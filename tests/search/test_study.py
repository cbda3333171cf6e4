from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from wsgiref.util import setup_testing_defaults

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from palette.errors import SearchError
from palette.search import study as studying
from palette.search.settings import SAMPLERS
from palette.search.space import (
    WORST,
    Categorical,
    Integer,
    Real,
    Scored,
    latin_hypercube,
    losses,
    usual_trials,
)
from palette.search.study import read_study, run_study, spawned
from tests.search.conftest import OBJECTIVES, SPACE, score


def at(plan, name: str, **changes):
    return replace(plan, storage=plan.storage.with_name(f"{name}.journal"), **changes)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_study_in_two_halves_is_the_study_in_one_and_replays_nothing(plan, sampler):
    plan = replace(plan, sampler=sampler, startup=8, trials=12)
    whole = run_study(at(plan, "whole"), score)
    run_study(at(plan, "halves", trials=6), score)
    assert run_study(at(plan, "halves"), score) == whole
    assert [trial.number for trial in whole] == list(range(12))
    if not sampler.startswith("nsga"):  # A child of two parents may be one of them.
        assert len({tuple(sorted(trial.params.items())) for trial in whole}) == 12


def test_a_journal_is_synced_once_a_trial(plan, monkeypatch):
    synced = []
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(file) or sync(file))
    run_study(replace(plan, trials=4), score)
    assert len(synced) == 4


def test_a_finished_study_asks_nothing(plan):
    done = run_study(replace(plan, trials=5), score)
    nothing = lambda params: pytest.fail("ran again")  # noqa: E731
    assert run_study(replace(plan, trials=5), nothing) == done
    assert run_study(replace(plan, trials=3), nothing) == done[:3]
    assert read_study(replace(plan, trials=3)) == done[:3]


@pytest.mark.parametrize("torn", [b"", b'{"op_code": 4, "work'])
def test_a_killed_trial_is_drawn_again_and_changes_nothing(plan, torn):
    whole = run_study(at(plan, "whole"), score)
    left = [18]

    def killed(params):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return score(params)

    with pytest.raises(KeyboardInterrupt):
        run_study(plan, killed)
    with plan.storage.open("ab") as stream:
        stream.write(torn)
    assert run_study(plan, score) == whole


def test_a_trial_that_is_killed_while_it_is_told_is_told_to_its_end(plan, monkeypatch):
    whole = run_study(at(plan, "whole"), score)
    tell = optuna.Study.tell
    told = []

    def dies(self, *args, **kwargs):
        told.append(1)
        if len(told) == 19:
            raise KeyboardInterrupt
        return tell(self, *args, **kwargs)

    monkeypatch.setattr(optuna.Study, "tell", dies)
    with pytest.raises(KeyboardInterrupt):
        run_study(plan, score)
    monkeypatch.setattr(optuna.Study, "tell", tell)
    assert run_study(plan, score) == whole


def test_a_study_of_another_recipe_is_refused(plan):
    run_study(replace(plan, trials=2), score)
    with pytest.raises(SearchError, match="a study serves one recipe, got a study of aaaa"):
        run_study(replace(plan, identity="b" * 64), score)


def test_what_is_not_a_number_is_infeasible_and_no_crash(plan):
    bad = Scored((math.nan, 0.0, 0.1), {"moved": -1.0})
    trials = run_study(replace(plan, trials=2), lambda params: bad)
    assert not any(trial.feasible for trial in trials)
    assert losses(trials[0].values, OBJECTIVES) == (WORST,) * 3
    odd = Scored((1.0, 0.0, 0.1), {"moved": math.nan})
    assert not run_study(at(plan, "odd", trials=1), lambda params: odd)[0].feasible


def test_feasibility_is_the_constraint_and_notes_are_kept(plan):
    for trial in run_study(plan, score):
        assert trial.feasible == (trial.values[2] <= 0.4)
        assert trial.notes == {"rung": 1}
        assert trial.named(OBJECTIVES)["kept"] == -losses(trial.values, OBJECTIVES)[1]


def test_the_journal_opens_as_an_optuna_study_and_in_the_dashboard(plan):
    run_study(replace(plan, trials=4), score)
    storage = JournalStorage(JournalFileBackend(str(plan.storage)))
    (summary,) = optuna.get_all_study_summaries(storage)
    assert (summary.study_name, summary.n_trials) == ("search", 4)
    assert [way.name for way in summary.directions] == ["MINIMIZE", "MAXIMIZE", "MINIMIZE"]
    dashboard = pytest.importorskip("optuna_dashboard")
    answered = []
    environment = {"PATH_INFO": "/api/studies"}
    setup_testing_defaults(environment)
    body = b"".join(dashboard.wsgi(storage)(environment, lambda status, *_: answered.append(status)))
    assert answered[0].startswith("200")
    assert "search" in json.dumps(json.loads(body))


@pytest.mark.parametrize("damage", ["not a journal\nat all\n", '{"op_code": 99}\n'])
def test_a_damaged_journal_is_refused(plan, damage):
    run_study(replace(plan, trials=3), score)
    lines = plan.storage.read_text().splitlines(keepends=True)
    plan.storage.write_text("".join([*lines[:4], damage, *lines[4:]]))
    with pytest.raises(SearchError, match="journal"):
        run_study(plan, score)


@pytest.mark.parametrize("url", ["sqlite:////nowhere/at/all.db", "nonsense"])
def test_a_storage_that_cannot_be_opened_is_named(plan, url):
    with pytest.raises(SearchError, match=r"a study's (storage|journal) must be"):
        run_study(replace(plan, storage=url), score)


def work(plan) -> None:
    run_study(plan, score)


def process(target, *args):
    return multiprocessing.get_context("spawn").Process(target=target, args=args)


@pytest.mark.slow
def test_two_machines_share_a_study(plan):
    plan = replace(plan, storage=f"sqlite:///{plan.storage.with_suffix('.db')}", trials=16)
    machines = [process(work, replace(plan, machine=name)) for name in "ab"]
    for machine in machines:
        machine.start()
    for machine in machines:
        machine.join(120)
        assert machine.exitcode == 0
    trials = read_study(plan)
    assert len(trials) == 16
    assert len({trial.params["strength"] for trial in trials}) == 16


def test_another_machines_trials_are_left_alone_and_our_own_that_were_cut_off_fail(plan):
    plan = replace(plan, storage=f"sqlite:///{plan.storage.with_suffix('.db')}", trials=3)
    for name in "ab":
        with studying._opened(replace(plan, machine=name)) as study:
            studying._ask(study, replace(plan, machine=name))
    run_study(replace(plan, machine="a"), score)
    with studying._opened(plan) as study:
        states = [trial.state.name for trial in study.get_trials()]
    assert states == ["FAIL", "RUNNING", "COMPLETE", "COMPLETE", "COMPLETE"]


def slowly(params) -> Scored:
    time.sleep(0.2)
    return score(params)


def test_a_second_run_on_a_journal_is_refused_and_a_kill_leaves_no_lock(plan):
    with studying._opened(plan), pytest.raises(SearchError, match="one run at a time works on a study"):
        run_study(plan, score)
    other = process(run_study, plan, slowly)
    other.start()
    until = time.monotonic() + 60
    while not plan.storage.exists() or b"strength" not in plan.storage.read_bytes():
        assert time.monotonic() < until
        time.sleep(0.05)
    os.kill(other.pid, signal.SIGKILL)
    other.join(60)
    assert run_study(plan, score) == run_study(at(plan, "whole"), score)


STARTED: list[object] = []


def start(*given: object) -> None:
    STARTED[:] = given


def scored_by_a_worker(params) -> Scored:
    known = score(params)
    return replace(known, notes={"process": os.getpid(), "given": STARTED[0]})


@pytest.mark.slow
def test_workers_score_several_trials_at_once_and_each_is_drawn_by_itself(plan):
    told = []
    advance = lambda count, tokens=0: told.append(count)  # noqa: E731
    with spawned(2, start, 7) as workers:
        trials = run_study(plan, scored_by_a_worker, advance, workers)
    assert not multiprocessing.active_children()
    assert len(trials) == sum(told) == 24
    assert {trial.notes["given"] for trial in trials} == {7}
    assert os.getpid() not in {trial.notes["process"] for trial in trials}
    assert len({trial.params["strength"] for trial in trials}) == 24


def refused(params) -> Scored:
    raise SearchError("an objective must give a number for every trial")


@pytest.mark.slow
def test_a_workers_error_is_told_as_its_own_and_the_study_goes_on(plan):
    with pytest.raises(SearchError, match="must give a number"), spawned(2, start) as workers:
        run_study(plan, refused, workers=workers)
    assert not multiprocessing.active_children()
    assert [trial.number for trial in run_study(plan, score)] == list(range(24))


def dies(params) -> Scored:
    os._exit(3)


def test_a_worker_that_ends_badly_is_named(plan):
    with (
        pytest.raises(SearchError, match="every worker of a search must end well"),
        spawned(1, start) as workers,
    ):
        run_study(plan, dies, workers=workers)


@pytest.mark.parametrize("cut", range(6, 14))
def test_nsga3_draws_the_same_parents_after_a_kill(plan, cut):
    plan = replace(plan, sampler="nsga3", startup=6, trials=16)
    left = [cut]

    def killed(params):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return score(params)

    with pytest.raises(KeyboardInterrupt):
        run_study(plan, killed)
    assert run_study(plan, score) == run_study(at(plan, "whole"), score)


def test_enqueued_trials_come_first_and_may_be_partial(plan):
    first = {"method": "centred_ablation", "site": 2, "position": -1, "strength": 1.25}
    plan = replace(plan, trials=4, enqueue=(first, {"site": 3}))
    trials = run_study(plan, score)
    assert trials[0].params == first
    assert trials[1].params["site"] == 3
    assert set(trials[1].params) == set(SPACE)
    run_study(at(plan, "halves", trials=1), score)
    assert run_study(at(plan, "halves"), score) == trials


def test_no_error_shows_a_password(plan):
    with pytest.raises(SearchError) as caught:
        run_study(replace(plan, storage="nowhere+nothing://bob:s3cret@host/study"), score)
    assert "s3cret" not in str(caught.value)
    assert "bob:***@host" in str(caught.value)


def test_first_trials_are_spread_evenly_over_every_parameter():
    space = {"kind": Categorical(("a", "b", "c")), "site": Integer(1, 6), "strength": Real(0.5, 2.5)}
    points = latin_hypercube(space, 12, 3)
    assert points == latin_hypercube(space, 12, 3)
    assert sorted(point["kind"] for point in points) == ["a"] * 4 + ["b"] * 4 + ["c"] * 4
    assert sorted(point["site"] for point in points) == sorted([*range(1, 7)] * 2)
    assert sorted(int((point["strength"] - 0.5) / 2 * 12) for point in points) == list(range(12))


@pytest.mark.parametrize(("layers", "sites"), [(30, [20, 22, 24, 27]), (2, [1, 2]), (1, [1])])
def test_usual_trials_are_points_of_the_space_deep_in_the_model_and_at_every_site(layers, sites):
    space = {
        "method": Categorical(("directional_ablation", "centred_ablation")),
        "direction": Categorical(("difference", "projected")),
        "site": Integer(1, layers),
        "position": Categorical((-2, -1)),
        "width": Categorical((0, layers)),
        "strength": Real(0.5, 2.5),
    }
    trials = usual_trials(space, layers)
    assert [each["site"] for each in trials] == sites
    for each in trials:
        assert all(space[axis]._contains(space[axis].to_internal_repr(value)) for axis, value in each.items())
        assert (each["method"], each["width"], each["position"]) == ("centred_ablation", layers, -1)
    # Where a recipe searches by one other method, by that.
    alone = {**space, "method": Categorical(("directional_ablation",))}
    assert {each["method"] for each in usual_trials(alone, layers)} == {"directional_ablation"}
