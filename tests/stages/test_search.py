from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from pydantic import ValidationError

from palette.authorisation import Role
from palette.backbones import greedy_replies, reply_logits
from palette.directions import Intervention, StrengthKernel, intervening
from palette.errors import SearchError
from palette.evaluation.refusal_score import mean_score, refusal_scores
from palette.evaluation.subjects import divergence
from palette.search import objectives as scoring
from palette.search.audit import audited
from palette.search.choice import Choice
from palette.search.collected import read_collected
from palette.search.constraints import excesses
from palette.search.front import FRONT, read_front
from palette.search.objectives import Objective
from palette.search.settings import (
    AuditSettings,
    Caching,
    CollectSettings,
    LimitSettings,
    ScoringSettings,
    SearchSettings,
)
from palette.search.space import Finished
from palette.stages.collect import collect
from palette.stages.search import JOURNAL, search

PANEL = ScoringSettings(target_prompts=8, other_prompts=2)
AUDIT = AuditSettings(members=1, sample=2, prompts=4, reply_tokens=16)
FEW = SearchSettings(trials=6, startup=4, panel=PANEL, audit=AUDIT)
WHOLE = ScoringSettings(target_prompts=8, other_prompts=2, first_rung=1.0)
GENEROUS = LimitSettings(relaxation=-1e6, divergence=1e6, selectivity=1e6)
OFF = Caching(layer_prefix=False, template_prefix=False, base_logits=False)
TRIALS = [
    Intervention("centred_ablation", -1, StrengthKernel(2, 1, 1.0)),
    Intervention("directional_ablation", -2, StrengthKernel(3, 0, 0.7), "cleaned"),
    Intervention("weight_orthogonalisation", -1, StrengthKernel(2, 0, 1.0), "projected"),
]


@pytest.fixture(scope="module")
def gathered(shared):
    collect(shared.sharing(collect=CollectSettings(prompts=12, fewest=8)))
    return shared


@pytest.fixture
def collected(gathered, tmp_path):
    (tmp_path / "collect").mkdir()
    source = gathered.folder / "collect" / "means.safetensors"
    (tmp_path / "collect" / "means.safetensors").write_bytes(source.read_bytes())
    return replace(gathered, folder=tmp_path)


def objective(assignment, panel=WHOLE, limits=None, caching=None) -> Objective:
    collected = read_collected(assignment.folder)
    return Objective(assignment, collected, panel, limits or LimitSettings(), caching or Caching())


def test_search_writes_a_front_that_reads_back(collected):
    front = search(collected.sharing(search=FEW))
    assert read_front(collected.folder) == front
    written = json.loads((collected.folder / FRONT).read_text())
    assert written["trials"] == len(written["all"]) == 6
    assert written["backbone"]["target_refusal_score"] > 2
    assert written["rule"].startswith("constraints first")
    assert (collected.folder / JOURNAL).is_file()
    assert len(written["audit"]["trials"]) == 3
    assert set(written["audit"]["trials"][0]["target_refusal"]) == {"rate", "low", "high", "k", "n"}


def test_search_again_runs_no_trial_and_another_member_may_be_chosen(collected):
    front = search(collected.sharing(search=FEW))
    before = (collected.folder / FRONT).read_bytes()
    assert search(collected.sharing(search=FEW)) == front
    assert (collected.folder / FRONT).read_bytes() == before
    other = front[-1].trial
    assert search(collected.sharing(search=FEW.model_copy(update={"choose": other})))[0].trial == other
    with pytest.raises(SearchError, match=r"search\.choose must be a member of the Pareto front"):
        search(collected.sharing(search=FEW.model_copy(update={"choose": 99})))


def test_more_trials_extend_the_study(collected):
    search(collected.sharing(search=FEW))
    journal = (collected.folder / JOURNAL).read_bytes()
    search(collected.sharing(search=FEW.model_copy(update={"trials": 8})))
    assert (collected.folder / JOURNAL).read_bytes().startswith(journal)


def test_a_study_of_other_limits_is_refused(collected):
    search(collected.sharing(search=FEW))
    with pytest.raises(SearchError, match="a study serves one recipe"):
        search(collected.sharing(search=FEW.model_copy(update={"limits": LimitSettings(divergence=0.4)})))


def test_no_feasible_trial_names_the_constraint_and_keeps_the_study(collected):
    strict = FEW.model_copy(update={"limits": LimitSettings(divergence=1e-12)})
    with pytest.raises(SearchError, match="6 trials, of which benign_divergence bound"):
        search(collected.sharing(search=strict))
    assert (collected.folder / JOURNAL).is_file()


def test_workers_share_the_study(collected):
    # Which trial a worker draws depends on what the other has told, so no limit may end this test.
    search(collected.sharing(search=FEW.model_copy(update={"workers": 2, "limits": GENEROUS})))
    assert json.loads((collected.folder / FRONT).read_text())["trials"] == 6


def test_trials_that_share_a_pass_are_scored_alike(collected):
    scored = objective(collected)(TRIALS)
    together = objective(collected, caching=Caching(trials_per_pass=3))(TRIALS)
    for one, other in zip(scored, together, strict=True):
        assert one.values == pytest.approx(other.values, abs=1e-4)


def test_no_saving_changes_a_score_and_rungs_add_up(collected):
    plain = objective(collected, limits=GENEROUS, caching=OFF)(TRIALS)
    to_the_end = PANEL.model_copy(update={"dominating": len(TRIALS)})
    for panel, caching in ((WHOLE, Caching()), (to_the_end, Caching()), (to_the_end, OFF)):
        for one, other in zip(plain, objective(collected, panel, GENEROUS, caching)(TRIALS), strict=True):
            assert one.values == pytest.approx(other.values, abs=1e-4)
            known = {name: other.constraints[name] for name in one.constraints}
            assert one.constraints == pytest.approx(known, abs=1e-4)


def test_a_hopeless_trial_and_a_dominated_one_end_at_their_first_rung(collected):
    made = objective(collected, PANEL, GENEROUS)
    idle = Intervention("directional_ablation", -1, StrengthKernel(2, 0, 0.0))
    first, second = (made([TRIALS[0]])[0] for _ in range(2))
    assert (first.notes["rung"], second.notes["rung"]) == (1, 1)
    worse = objective(collected, PANEL)([idle])[0]
    assert worse.notes["rung"] == 0
    assert worse.constraints["target_refusals"] > 0
    dominated = replace(first, notes={"first_rung": [first.notes["first_rung"][0] - 1, 99.0, 0.0]})
    made.remember([Finished(0, {}, dominated.values, {}, dominated.notes)])
    ended = made([TRIALS[0]])[0]
    assert ended.notes["rung"] == 0
    assert ended.constraints["first_rung"] > 0


def test_objectives_are_the_scores_of_the_report(collected):
    made = objective(collected)
    scored = made(TRIALS[:1])[0]
    backbone, directions = collected.backbone, read_collected(collected.folder).directions
    benign = collected.render(collected.select("validation", Role.BENIGN).capped(2))
    said = greedy_replies(backbone, benign, 8)
    replies = [[*reply, backbone.stops[0]] if len(reply) < 8 else reply for reply in said]
    base = reply_logits(backbone, benign, replies)
    target = collected.render(collected.select("validation", Role.TARGET).capped(8))
    with intervening(backbone, directions, TRIALS[0]):
        changed = reply_logits(backbone, benign, replies)
        score = mean_score(refusal_scores(backbone, target, made.prefixes))
    assert scored.values[0] == pytest.approx(score, abs=1e-4)
    assert scored.values[2] == pytest.approx(divergence(base, changed)["multi_token"], abs=1e-5)
    assert made.base["benign_divergence"] == 0
    assert {"benign_divergence", "floor_refusals", "benign_false_refusals"} <= set(scored.constraints)


@pytest.mark.parametrize("prefixes", [((15,),), ((15, 40), (15, 41), (90,)), ((15, 40, 41), (90, 91))])
def test_openings_of_many_tokens_are_scored_from_few_rows(collected, prefixes):
    known = replace(read_collected(collected.folder), refusal_prefixes=prefixes)
    made = Objective(collected, known, WHOLE, LimitSettings(), Caching())
    target = collected.render(collected.select("validation", Role.TARGET).capped(8))
    by_hand = mean_score(refusal_scores(collected.backbone, target, prefixes))
    assert made.base["target_refusal_score"] == pytest.approx(by_hand, abs=1e-3)


def test_a_hopeless_trial_ends_at_its_first_rung(collected):
    wild = [Intervention("directional_ablation", -1, StrengthKernel(4, 4, 40.0))]
    (scored,) = objective(collected, PANEL)(wild)
    assert scored.notes["rung"] == 0
    assert max(scored.constraints.values()) > 0
    assert objective(collected, PANEL)(TRIALS[:1])[0].notes["rung"] == 1


def test_an_intervention_that_opens_the_wrong_thing_is_infeasible():
    scores = ("target_refusal_score", "preserved_refusal_score", "floor_refusal_score")
    base = {**dict.fromkeys(scores, 9.0), "benign_divergence": 0.0, "benign_false_refusals": 0.0}

    def excess(**changes):
        return excesses(LimitSettings(), base, {**base, **changes})

    assert excess(preserved_refusal_score=4.0)["preserved_refusals"] == pytest.approx(4.0)
    assert excess(floor_refusal_score=4.0)["floor_refusals"] == pytest.approx(4.0)
    assert excess(preserved_refusal_score=4.0, target_refusal_score=4.0)["preserved_refusals"] <= 0
    assert excess(benign_false_refusals=0.5)["benign_false_refusals"] > 0
    assert excess()["target_refusals"] > 0


def test_logits_that_are_no_numbers_make_a_trial_infeasible(collected, monkeypatch):
    made = objective(collected)
    monkeypatch.setattr(scoring, "kl", lambda base, changed: changed[..., 0] * math.nan)
    (scored,) = made(TRIALS[:1])
    assert not math.isfinite(scored.values[2])
    assert scored.finite(scoring.OBJECTIVES).constraints["finite"] > 0


def test_the_audit_takes_the_front_and_a_seeded_sample_of_the_rest():
    trials = [Finished(i, {}, (float(i), 0.0, 0.0), {}) for i in range(10)]
    settings = AuditSettings(members=2, sample=3)
    taken = audited(trials, Choice(tuple(trials[:4])), settings, 0)
    assert [trial.number for trial in taken[:2]] == [0, 1]
    assert len({trial.number for trial in taken}) == 5
    assert taken == audited(trials, Choice(tuple(trials[:4])), settings, 0)


def test_settings_state_their_laws():
    with pytest.raises(ValidationError, match="least, then the greatest"):
        SearchSettings(strength=(2.0, 1.0))
    with pytest.raises(ValidationError, match="directions must be of difference"):
        SearchSettings(directions=("north",))


def test_directions_that_were_not_collected_are_no_choice(collected):
    only = FEW.model_copy(update={"directions": ("whitened",)})
    made = read_collected(collected.folder)
    assert "whitened" in made.directions.names
    elsewhere = replace(collected, folder=collected.folder / "less")
    collect(elsewhere.sharing(collect=CollectSettings(prompts=12, fewest=8, covariance_gib=0.0)))
    assert read_collected(elsewhere.folder).separations == {}
    with pytest.raises(SearchError, match=r"raise collect\.covariance_gib"):
        search(elsewhere.sharing(search=only))


def test_a_storage_keeps_its_password_to_itself():
    settings = SearchSettings(storage="postgresql://user:secret@host/db")
    assert "secret" not in settings.model_dump_json()
    assert settings.storage == "postgresql://user:secret@host/db"
