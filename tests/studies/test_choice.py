from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palette.errors import SearchError
from palette.studies import Finished, choose
from palette.studies.choice import dominates

value = st.floats(-10, 10, allow_nan=False)
rows = st.lists(st.tuples(value, value, value, st.booleans()), min_size=1, max_size=12)


def finished(drawn) -> list[Finished]:
    return [Finished(i, {}, row[:3], row[3]) for i, row in enumerate(drawn)]


@given(rows)
def test_the_front_holds_every_feasible_trial_that_none_dominates(drawn):
    found = finished(drawn)
    feasible = [trial for trial in found if trial.feasible]
    if not feasible:
        with pytest.raises(SearchError):
            choose(found)
        return
    front = choose(found).front
    assert all(trial.feasible for trial in front)
    assert not any(dominates(a.losses, b.losses) for a in feasible for b in front)
    for trial in feasible:
        beaten = any(dominates(other.losses, trial.losses) for other in feasible)
        assert beaten or trial.values in {member.values for member in front}


@given(rows, st.randoms(use_true_random=False))
def test_the_choice_does_not_depend_on_the_order_of_trials(drawn, random):
    found = finished(drawn)
    shuffled = random.sample(found, len(found))
    if any(trial.feasible for trial in found):
        assert choose(found).front == choose(shuffled).front


def test_the_knee_is_chosen():
    corners = [(0.0, 0.0, 1.0), (1.0, 1.0, 0.0), (0.2, 0.9, 0.2)]
    found = [Finished(i, {}, values, True) for i, values in enumerate(corners)]
    assert choose(found).chosen.number == 2


def test_no_feasible_trial_says_which_constraint_bound():
    with pytest.raises(SearchError) as caught:
        choose([Finished(0, {}, (0.0, 0.0, 0.7), False)])
    assert str(caught.value) == (
        "at least one trial must keep benign replies as they are, got a least benign divergence of "
        "0.7 nats over 1 trials; raise search.divergence_limit or search.trials"
    )


def test_domination_needs_to_be_better_somewhere():
    assert dominates((0.0, 0.0), (0.0, 1.0))
    assert not dominates((0.0, 0.0), (0.0, 0.0))
    assert not dominates((0.0, 2.0), (1.0, 1.0))
