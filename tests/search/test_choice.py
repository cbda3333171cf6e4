from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palette.errors import SearchError
from palette.search.choice import audited, choose, kendall_tau, relaxing_first
from palette.search.settings import Audit
from palette.search.space import Finished, dominates, losses

WANTED = {"target": "minimize", "kept": "maximize", "moved": "minimize"}
value = st.floats(-10, 10, allow_nan=False)
rows = st.lists(st.tuples(value, value, value, st.booleans()), min_size=1, max_size=12)


def finished(drawn) -> list[Finished]:
    return [Finished(i, {}, row[:3], {"law": -1.0 if row[3] else 1.0}) for i, row in enumerate(drawn)]


def lost(trial: Finished) -> tuple[float, ...]:
    return losses(trial.values, WANTED)


@given(rows)
def test_the_front_holds_every_feasible_trial_that_none_dominates(drawn):
    found = finished(drawn)
    feasible = [trial for trial in found if trial.feasible]
    if not feasible:
        with pytest.raises(SearchError):
            choose(found, WANTED)
        return
    front = choose(found, WANTED)
    assert all(trial.feasible for trial in front)
    assert not any(dominates(lost(a), lost(b)) for a in feasible for b in front)
    for trial in feasible:
        beaten = any(dominates(lost(other), lost(trial)) for other in feasible)
        assert beaten or trial.values in {member.values for member in front}


@given(rows, st.randoms(use_true_random=False))
def test_the_choice_does_not_depend_on_the_order_of_trials(drawn, random):
    found = finished(drawn)
    shuffled = random.sample(found, len(found))
    if any(trial.feasible for trial in found):
        assert choose(found, WANTED) == choose(shuffled, WANTED)


def test_the_knee_is_chosen():
    corners = [(0.0, 0.0, 1.0), (1.0, 1.0, 0.0), (0.2, 0.9, 0.2)]
    found = [Finished(i, {}, values, {}) for i, values in enumerate(corners)]
    assert choose(found, WANTED)[0].number == 2


@pytest.mark.parametrize(
    ("highs", "order"),
    [((0.3, 0.2), [0, 1, 2]), ((1.0, 0.2), [1, 0, 2]), ((1.0, 0.9), [0, 1, 2]), ((1.0,), [0, 1, 2])],
)
def test_a_member_whose_whole_replies_are_answers_comes_before_a_knee_whose_are_not(highs, order):
    front = [Finished(number, {}, (0.0, 0.0, 0.0), {}) for number in range(3)]
    trials = [{"trial": number, "target_refusal": {"high": high}} for number, high in enumerate(highs)]
    found = relaxing_first(front, {"backbone": {"target_refusal": {"low": 0.8}}, "trials": trials})
    assert [trial.number for trial in found] == order


def test_no_feasible_trial_says_which_constraint_bound():
    trials = [
        Finished(0, {}, (0.0, 0.0, 0.0), {"benign_divergence": 0.3, "floor_refusals": -1.0}),
        Finished(1, {}, (0.0, 0.0, 0.0), {"benign_divergence": 0.1, "floor_refusals": 2.0}),
    ]
    with pytest.raises(SearchError) as caught:
        choose(trials, WANTED)
    said = str(caught.value)
    assert "got 2 trials, of which benign_divergence bound 2 (least excess 0.1)" in said
    assert "floor_refusals bound 1 (least excess 2)" in said


def test_another_member_may_be_taken_and_no_other_trial():
    corners = [(0.0, 0.0, 1.0), (1.0, 1.0, 0.0), (2.0, -1.0, 2.0)]
    found = [Finished(i, {}, values, {}) for i, values in enumerate(corners)]
    front = choose(found, WANTED)
    assert {trial.number for trial in front} == {0, 1}
    assert choose(found, WANTED, front[1].number) == [front[1], front[0]]
    with pytest.raises(SearchError, match=r"must be a member of the Pareto front, got 2; take one of"):
        choose(found, WANTED, 2)


def test_the_first_objective_leads_ties():
    found = [Finished(0, {}, (1.0, 0.0), {}), Finished(1, {}, (0.0, 1.0), {})]
    ways = {"one": "minimize", "other": "minimize"}
    assert choose(found, ways)[0].number == 1
    assert choose(found[::-1], ways)[0].number == 1


def test_the_audit_takes_the_front_and_a_seeded_sample_of_the_rest():
    trials = [Finished(i, {}, (float(i), 0.0, 0.0), {}) for i in range(10)]
    settings = Audit(members=2, sample=3)
    taken = audited(trials, trials[:4], settings, 0)
    assert [trial.number for trial in taken[:2]] == [0, 1]
    assert len({trial.number for trial in taken}) == 5
    assert taken == audited(trials, trials[:4], settings, 0)


def test_as_many_trials_are_audited_as_fit_into_its_time_and_two_of_each_at_least():
    asked = Audit()
    assert asked.within(1e-6) == asked
    few = asked.within(asked.seconds / 8)
    assert (few.members, few.sample) == (4, 4)
    assert asked.within(1e6) == replace(asked, members=2, sample=2)
    # Fewer than two that were asked for stay so few.
    assert Audit(members=1, sample=1).within(1e6).members == 1


def test_rank_correlation_allows_for_ties():
    assert kendall_tau([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]) == pytest.approx(1)
    assert kendall_tau([1.0, 2.0, 3.0], [3.0, 2.0, 1.0]) == pytest.approx(-1)
    assert kendall_tau([1.0, 1.0, 1.0], [3.0, 2.0, 1.0]) is None
