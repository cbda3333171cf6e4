from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from palette import directions
from palette.authorisation import Role
from palette.backbones import greedy_replies, reply_logits
from palette.backbones.continuous import Decoding
from palette.cli import main
from palette.directions import Intervention, StrengthKernel, intervening
from palette.errors import RecipeError, SearchError
from palette.evaluation.refusal_ngrams import LIMIT, RefusalNgrams
from palette.evaluation.subjects import divergence
from palette.run_settings import RunSettings
from palette.search import objectives, panels
from palette.search.objectives import Objective, excesses
from palette.search.panels import panel_of
from palette.search.settings import (
    INTERVENTIONS,
    OBJECTIVES,
    REMOVED,
    SAMPLERS,
    Audit,
    Caching,
    Conditions,
    Limits,
    Scoring,
    SearchSettings,
)
from palette.search.space import FRONT, Finished, intervention_space, read_collected, read_front
from palette.stages.collect import collect
from palette.stages.search import JOURNAL, search
from tests.fixtures.scoring import refusal_scores

FEW = Scoring(target_prompts=8, other_prompts=2)
WHOLE = replace(FEW, first_rung=1.0)
GENEROUS = Limits(relaxation=-1e6, divergence=1e6, selectivity=1e6)
OFF = Caching(layer_prefix=False, template_prefix=False)
SMALL = Conditions(FEW, audit=Audit(members=1, sample=2, prompts=4, reply_tokens=16))
SIX = SearchSettings(trials=6)
TRIALS = [
    Intervention("centred_ablation", -1, StrengthKernel(2, 1, 1.0)),
    Intervention("directional_ablation", -2, StrengthKernel(3, 0, 0.7), "cleaned"),
    Intervention("weight_orthogonalisation", -1, StrengthKernel(2, 0, 1.0), "projected"),
]


@pytest.fixture(scope="module")
def gathered(shared):
    collect(shared.sharing(limit=12))
    return shared


@pytest.fixture
def collected(gathered, tmp_path):
    (tmp_path / "collect").mkdir()
    source = gathered.folder / "collect" / "means.safetensors"
    (tmp_path / "collect" / "means.safetensors").write_bytes(source.read_bytes())
    return replace(gathered, folder=tmp_path)


def objective(run, scoring=WHOLE, limits=None, caching=None, names=tuple(OBJECTIVES)) -> Objective:
    conditions = Conditions(scoring, limits or Limits(), caching or Caching())
    return Objective(run, read_collected(run.folder), names, conditions)


def test_one_panel_or_two_at_once_say_the_same_of_a_trial(collected, monkeypatch):
    several = objective(collected)
    monkeypatch.setattr(objectives, "lanes", lambda device: 1)
    alone = objective(collected)
    for trial in TRIALS:
        one, other = alone(trial), several(trial)
        assert one.values == pytest.approx(other.values, abs=1e-4)
        assert one.constraints == pytest.approx(other.constraints, abs=1e-4)
    assert several.base == pytest.approx(alone.base, abs=1e-4)
    assert not any(block._forward_hooks for block in collected.backbone.blocks)


def test_search_writes_a_front_that_reads_back(collected):
    front = search(collected.sharing(search=SIX), SMALL)
    assert read_front(collected.folder) == front
    assert set(front[0].values) == set(OBJECTIVES)
    written = json.loads((collected.folder / FRONT).read_text())
    assert written["trials"] == len(written["all"]) == 6
    assert written["backbone"]["target_refusal_score"] > 2
    assert written["rule"].startswith("constraints first")
    assert (collected.folder / JOURNAL).is_file()
    assert len(written["audit"]["trials"]) == 3
    assert set(written["audit"]["trials"][0]["target_refusal"]) == {"rate", "low", "high", "k", "n"}


def test_search_again_runs_no_trial_and_another_member_may_be_chosen(collected):
    front = search(collected.sharing(search=SIX), SMALL)
    before = (collected.folder / FRONT).read_bytes()
    assert search(collected.sharing(search=SIX), SMALL) == front
    assert (collected.folder / FRONT).read_bytes() == before
    other = front[-1].trial
    chosen = search(collected.sharing(search=SIX.model_copy(update={"choose": other})), SMALL)
    assert chosen[0].trial == other
    with pytest.raises(SearchError, match=r"search\.choose must be a member of the Pareto front"):
        search(collected.sharing(search=SIX.model_copy(update={"choose": 99})), SMALL)


def test_more_trials_extend_the_study(collected):
    search(collected.sharing(search=SIX), SMALL)
    journal = (collected.folder / JOURNAL).read_bytes()
    search(collected.sharing(search=SIX.model_copy(update={"trials": 8})), SMALL)
    assert (collected.folder / JOURNAL).read_bytes().startswith(journal)


def test_a_study_of_other_limits_is_refused(collected):
    search(collected.sharing(search=SIX), SMALL)
    for other in (replace(SMALL, limits=Limits(divergence=0.4)), replace(SMALL, scoring=WHOLE)):
        with pytest.raises(SearchError, match="a study serves one recipe"):
            search(collected.sharing(search=SIX), other)


def test_a_study_behind_another_system_prompt_is_refused(collected):
    search(collected.sharing(search=SIX), SMALL)
    with pytest.raises(SearchError, match="a study serves one recipe"):
        search(collected.sharing(search=SIX, system="be brief ."), SMALL)


def test_no_feasible_trial_names_the_constraint_and_what_to_loosen(collected):
    strict = replace(SMALL, limits=Limits(divergence=1e-12, relaxation=1e6))
    with pytest.raises(SearchError, match=r"6 trials, of which .*benign_divergence bound") as caught:
        search(collected.sharing(search=SIX), strict)
    assert (collected.folder / JOURNAL).is_file()
    remedy = "; raise search.divergence or lower search.relaxation or raise search.trials; the study is kept"
    assert str(caught.value).endswith(remedy)
    assert {"divergence", "relaxation", "trials"} <= set(SearchSettings.model_fields)


@pytest.mark.slow
def test_workers_share_the_study(collected):
    # Which trial a worker draws depends on what the other has told, so no limit may end this test.
    generous = replace(SMALL, limits=GENEROUS)
    search(collected.sharing(search=SIX.model_copy(update={"workers": 2})), generous)
    assert json.loads((collected.folder / FRONT).read_text())["trials"] == 6


def test_no_caching_changes_a_score_and_rungs_add_up(collected):
    plain = objective(collected, limits=GENEROUS, caching=OFF)
    for whole, caching in ((WHOLE, Caching()), (FEW, Caching()), (FEW, OFF)):
        other = objective(collected, whole, GENEROUS, caching)
        for trial in TRIALS:
            other._first.clear()  # Else one that an earlier trial dominates ends at its first rung.
            mine, theirs = plain(trial), other(trial)
            assert mine.values == pytest.approx(theirs.values, abs=1e-4)
            known = {name: theirs.constraints[name] for name in mine.constraints}
            assert mine.constraints == pytest.approx(known, abs=1e-4)


def test_a_hopeless_trial_and_a_dominated_one_end_at_their_first_rung(collected):
    made = objective(collected, FEW, GENEROUS)
    idle = Intervention("directional_ablation", -1, StrengthKernel(2, 0, 0.0))
    first, second = (made(TRIALS[0]) for _ in range(2))
    assert (first.notes["rung"], second.notes["rung"]) == (1, 1)
    worse = objective(collected, FEW)(idle)
    assert worse.notes["rung"] == 0
    assert worse.constraints["target_refusals"] > 0
    dominating = {"first_rung": [first.notes["first_rung"][0] - 1, 99.0, 0.0]}
    made.remember([Finished(0, {}, first.values, {}, dominating)])
    ended = made(TRIALS[0])
    assert ended.notes["rung"] == 0
    assert ended.constraints["first_rung"] > 0
    alone = objective(collected, FEW, GENEROUS, names=("target_refusal_score",))
    alone.remember([Finished(0, {}, (0.0,), {}, {"first_rung": [-99.0]})])
    assert alone(TRIALS[0]).notes["rung"] == 1


def test_objectives_are_the_scores_of_the_report(collected):
    made, known = objective(collected), read_collected(collected.folder)
    scored = made(TRIALS[0])
    backbone, ngrams = collected.backbone, known.refusal_ngrams
    benign = collected.render(collected.select("validation", Role.BENIGN).capped(2))
    said = greedy_replies(backbone, benign, 8)
    replies = [[*reply, backbone.stops[0]] if len(reply) < 8 else reply for reply in said]
    base = reply_logits(backbone, benign, replies)
    target = collected.render(collected.select("validation", Role.TARGET).capped(8))
    steered = greedy_replies(backbone, target, 24, decoding=Decoding(barred=ngrams.after))
    assert all(ngrams.place(reply) is None for reply in steered)
    whole = [[*reply, backbone.stops[0]] if len(reply) < 24 else reply for reply in steered]
    with intervening(backbone, known.directions, TRIALS[0]):
        changed = reply_logits(backbone, benign, replies)
        score = float(refusal_scores(backbone, target, whole, ngrams).mean())
    assert scored.values[0] == pytest.approx(score, abs=1e-4)
    assert scored.values[2] == pytest.approx(divergence(base, changed)["multi_token"], abs=1e-5)
    assert made.base["benign_divergence"] == 0
    assert {"benign_divergence", "floor_refusals", "benign_false_refusals"} <= set(scored.constraints)


def test_what_must_be_kept_is_scored_on_its_own_refusal_and_nothing_else_is_said(collected):
    known = read_collected(collected.folder)
    ngrams, panel = known.refusal_ngrams, panel_of(collected, known, FEW)
    for role in (Role.PRESERVE, Role.FLOOR):
        prompts = [list(row.prompt) for row in panel[role]]
        own = greedy_replies(collected.backbone, prompts, known.floor_tokens)
        for row, reply in zip(panel[role], own, strict=True):
            assert row.reply == tuple(reply[: (ngrams.place(reply) or 0) + 1])


def test_refusals_that_begin_as_answers_do_are_scored_where_they_part(collected):
    known = read_collected(collected.folder)
    target = collected.render(collected.select("validation", Role.TARGET).capped(8))
    refusals = greedy_replies(collected.backbone, target, 3)
    later = RefusalNgrams({(reply[1],): frozenset({reply[2]}) for reply in refusals})
    made = Objective(collected, replace(known, refusal_ngrams=later), tuple(OBJECTIVES), Conditions(WHOLE))
    assert made.base["target_refusal_score"] > -LIMIT
    nothing = replace(known, refusal_ngrams=RefusalNgrams())
    blind = Objective(collected, nothing, tuple(OBJECTIVES), Conditions(WHOLE))
    assert blind.base["target_refusal_score"] == -LIMIT


def test_a_hopeless_trial_ends_at_its_first_rung(collected):
    wild = Intervention("directional_ablation", -1, StrengthKernel(4, 4, 40.0))
    scored = objective(collected, FEW)(wild)
    assert scored.notes["rung"] == 0
    assert max(scored.constraints.values()) > 0
    assert objective(collected, FEW)(TRIALS[0]).notes["rung"] == 1


def test_an_intervention_that_opens_the_wrong_thing_is_infeasible():
    scores = ("target_refusal_score", "preserved_refusal_score", "floor_refusal_score")
    base = {**dict.fromkeys(scores, 9.0), "benign_divergence": 0.0, "benign_false_refusals": 0.0}

    def excess(**changes):
        return excesses(Limits(), base, {**base, **changes}, 48)

    assert excess(preserved_refusal_score=4.0)["preserved_refusals"] == pytest.approx(4.0)
    assert excess(floor_refusal_score=4.0)["floor_refusals"] == pytest.approx(4.0)
    assert excess(preserved_refusal_score=4.0, target_refusal_score=4.0)["preserved_refusals"] <= 0
    assert excess(benign_false_refusals=0.5)["benign_false_refusals"] > 0
    assert excess(benign_false_refusals=1 / 48)["benign_false_refusals"] > 0
    # One that refuses a quarter of what it should answer may refuse three others of 48 by chance.
    base["benign_false_refusals"] = 0.25
    assert excess(benign_false_refusals=(12 + 3) / 48)["benign_false_refusals"] <= 0
    assert excess(benign_false_refusals=(12 + 4) / 48)["benign_false_refusals"] > 0
    assert excess()["target_refusals"] > 0


def test_logits_that_are_no_numbers_make_a_trial_infeasible(collected, monkeypatch):
    made = objective(collected)
    monkeypatch.setattr(panels, "kl", lambda base, changed: changed[..., 0] * math.nan)
    scored = made(TRIALS[0])
    assert not math.isfinite(scored.values[2])
    assert scored.finite(made.wanted).constraints["finite"] > 0


def test_a_direction_that_was_not_collected_is_no_choice(collected):
    assert "whitened" in read_collected(collected.folder).directions.names
    elsewhere = replace(collected, folder=collected.folder / "less").sharing(limit=12, memory_gib=1e-9)
    collect(elsewhere)
    found = read_collected(elsewhere.folder)
    assert found.separations == {}
    space = intervention_space(elsewhere.backbone, SIX.methods, found.directions.names)
    assert space["direction"].choices == ("difference", "projected", "cleaned")


def test_the_organism_s_search_is_scored_and_audited_as_it_always_was():
    assert SearchSettings().conditions(None, 128, 4.0) == Conditions()


def test_a_run_s_own_keys_bound_what_a_trial_costs():
    small = SearchSettings(trials=10, divergence=0.25, relaxation=2.0).conditions(4, 6, 1.0)
    assert small.scoring == Scoring(4, 4, 6, 6)
    assert small.limits == Limits(0.25, 2.0)
    assert small.caching.cache_gib == 0.5
    assert small.audit == Audit(1, 1, 4, 6)


def test_what_was_removed_is_no_key_and_what_replaces_it_is_one():
    keys = {f"search.{name}" for name in SearchSettings.model_fields} | set(RunSettings.model_fields)
    assert not keys & set(REMOVED)
    assert len(SearchSettings.model_fields) == 9
    for instead in REMOVED.values():
        assert {word for word in instead.split() if "." in word or "_" in word} <= keys


def test_every_name_of_a_table_loads_and_the_interventions_are_those_there_are():
    assert list(INTERVENTIONS) == list(directions.INTERVENTIONS)
    for table in (OBJECTIVES, INTERVENTIONS, SAMPLERS):
        assert all(callable(row.load()) for row in table.values())


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"methods": ["ablation"]}, "an intervention must be one of directional_ablation"),
        ({"methods": ["mine.py:edit"]}, "an intervention must be one of directional_ablation"),
        ({"sampler": "random"}, "a sampler must be one of tpe, nsga2, nsga3, gp"),
        ({"objectives": ["target_refusals"]}, "did you mean target_refusal_score"),
        ({"objectives": ["none.py:score"]}, "an objective must name a file that is there, not none.py"),
        ({"objectives": []}, "one must be named at least"),
    ],
)
def test_a_name_that_is_in_no_table_is_refused(given, sentence):
    with pytest.raises(ValidationError, match=sentence):
        SearchSettings(**given)


OWN = """
import math

def gap(trial):
    return trial.summary["preserved_refusal_score"] - trial.scores["target"] - trial.divergence

gap.direction = "maximize"

def plain(trial):
    return trial.scores["target"] + len(trial.summary)

def endless(trial):
    return math.nan

def breaks(trial):
    return 1 / 0

def silent(trial):
    pass

def undirected(trial):
    return 0.0

undirected.direction = "up"
constant = 3.0
"""


@pytest.fixture
def own(tmp_path):
    """Gives the name of a function in a user's file."""
    path = tmp_path / "mine.py"
    path.write_text(OWN)
    return lambda name: f"{path}:{name}"


def test_a_user_s_own_objective_is_searched_by_and_the_report_s_figures_stay(collected, own):
    settings = SIX.model_copy(update={"objectives": (own("gap"), "benign_divergence")})
    front = search(collected.sharing(search=settings), replace(SMALL, limits=GENEROUS))
    assert {own("gap"), *OBJECTIVES} == set(front[0].values)
    assert read_front(collected.folder) == front
    for one in front:
        values = one.values
        gap = values["preserved_refusal_score"] - values["target_refusal_score"] - values["benign_divergence"]
        assert values[own("gap")] == pytest.approx(gap)
    others = [(-one.values[own("gap")], one.values["benign_divergence"]) for one in front]
    assert len(others) == 1 or len(set(others)) == len(others)
    file = next(iter(settings.own_files()))
    Path(file.rpartition(":")[0]).write_text(OWN + "# changed")
    with pytest.raises(SearchError, match="a study serves one recipe"):
        search(collected.sharing(search=settings), replace(SMALL, limits=GENEROUS))


@pytest.mark.slow
def test_a_task_of_lm_eval_is_searched_by(collected, monkeypatch):
    pytest.importorskip("lm_eval")
    monkeypatch.chdir(Path(__file__).parents[2])
    task = "lm_eval:docs/examples/everyday.yaml"
    settings = SIX.model_copy(update={"trials": 2, "objectives": ("target_refusal_score", task)})
    front = search(collected.sharing(search=settings, limit=8), replace(SMALL, limits=GENEROUS))
    assert {*OBJECTIVES, task} == set(front[0].values)
    assert all(one.values[task] in {part / 8 for part in range(-8, 9)} for one in front)


@pytest.mark.slow
def test_palette_search_takes_an_objective_from_a_file(tmp_path, monkeypatch, capsys, own):
    recipe = tmp_path / "own.yaml"
    recipe.write_text("model: organism/shared\nauthorise: [medical]\nlimit: 12\nsearch: {trials: 5}\n")

    def palette(name):
        arguments = ["search", str(recipe), "-o", str(tmp_path / "run"), "--quiet"]
        monkeypatch.setattr(sys, "argv", ["palette", *arguments, "--set", f"search.objectives=[{own(name)}]"])
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code, capsys.readouterr().err

    assert palette("gap") == (0, "")
    front = read_front(tmp_path / "run")
    assert len(front) == 1
    assert own("gap") in front[0].values
    for name, sentence in (("breaks", "ZeroDivisionError"), ("nothing", "no nothing"), ("silent", "number")):
        status, said = palette(name)
        assert (status, said.count("\n")) == (2, 1)
        assert sentence in said
        assert own("") in said or str(tmp_path / "mine.py") in said
    # What a broken file left does not stand in the way of a mended one.
    assert palette("gap") == (0, "")


def test_an_objective_that_is_not_finite_makes_a_trial_infeasible(collected, own):
    made = objective(collected, FEW, GENEROUS, names=(own("plain"), own("endless")))
    scored = made(TRIALS[0])
    assert scored.values[0] == pytest.approx(scored.notes["target_refusal_score"] + 5)
    assert "first_rung" not in scored.notes
    assert scored.finite(made.wanted).constraints["finite"] > 0
    settings = SIX.model_copy(update={"trials": 2, "objectives": (own("endless"),)})
    with pytest.raises(
        SearchError,
        match=r"2 trials, of which finite bound 2 .* mend .*mine\.py:endless or raise search\.trials",
    ):
        search(collected.sharing(search=settings), replace(SMALL, limits=GENEROUS))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "breaks",
            "must give a number for every trial, got ZeroDivisionError: division by zero",
        ),
        ("silent", "an objective must give a number for every trial, got TypeError: "),
    ],
)
def test_an_objective_that_fails_says_so(collected, own, name, sentence):
    with pytest.raises(SearchError, match=sentence) as caught:
        objective(collected, names=(own(name),))(TRIALS[0])
    assert own(name) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("nothing", "a file must have what a recipe takes from it, got no nothing"),
        ("constant", "an objective must be a function; .* got float"),
        ("undirected", "its direction, if it has one, is minimize or maximize, got 'up'"),
    ],
)
def test_an_objective_that_is_none_is_told_before_a_model_is_loaded(own, name, sentence):
    with pytest.raises(RecipeError, match=sentence):
        SearchSettings(objectives=(own(name),)).own_files()


def test_a_storage_keeps_its_password_to_itself():
    settings = SearchSettings(storage="postgresql://user:secret@host/db")
    assert "secret" not in settings.model_dump_json()
    assert settings.storage == "postgresql://user:secret@host/db"
