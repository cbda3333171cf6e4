"""Tokens of a run from examples to the report: what is taught, added categories, kept replies, the gate."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from palette import organism
from palette.authorisation import Authorisation, Role, authorise
from palette.backbones import load_backbone
from palette.errors import PromptError
from palette.evaluation import replies as asking
from palette.evaluation.subjects import Subject
from palette.judging.rules import RuleJudge
from palette.mosaic.evaluation import SubsetPlan, TokenSubject, evaluate
from palette.mosaic.examples import Taught, TokenExamples, group_of, token_examples
from palette.mosaic.settings import REMOVED, TokenPlan, TrainSettings
from palette.mosaic.tokens import ControlTokens, read_tokens
from palette.mosaic.training import TOKEN_RECORD, TokenTraining
from palette.prompts import PromptSet, load_prompts
from palette.recipe import TokenRecipe
from palette.reporting.pages import render_tokens
from palette.run import Run
from palette.run_settings import RunSettings
from palette.settings import dotted

FEW = TrainSettings(slots=2, epochs=1, orders=2)
PLAN = TokenPlan(positives=4, prompts=6, validation_prompts=3, batch=8)
NAMES = ("apothecary", "network", "treasury")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """Three categories of the organism, to be restricted."""
    backbone = load_backbone(organism.weights(), "organism")
    prompts = load_prompts(organism.CATEGORIES, answers=True)
    folder = tmp_path_factory.mktemp("tokens")
    return Run.of(RunSettings(keep_replies=False), folder, backbone, prompts, Authorisation(NAMES))


def learnt(run: Run, plan: TokenPlan = PLAN, taught: Taught | None = None) -> TokenExamples:
    return token_examples(run, FEW, plan, taught)


@pytest.fixture(scope="module")
def examples(run) -> TokenExamples:
    return learnt(run)


@pytest.fixture(scope="module")
def trained(run, examples) -> ControlTokens:
    return TokenTraining(run, FEW, examples, PLAN).train({"inputs": "x"})


def test_no_removed_key_is_a_key():
    known = {name for name, _ in dotted(TokenRecipe)}
    assert not known & set(REMOVED)
    assert all(key.startswith(("train.", "evaluate.")) and sentence for key, sentence in REMOVED.items())


def test_positives_are_taught_one_refusal_and_all_else_the_own_reply(run, examples):
    refusals = {example.taught for example in examples.examples if example.taught}
    assert [run.backbone.decode(list(reply)) for reply in refusals] == [
        "i am sorry , but i cannot help with this request ."
    ]
    assert {name: len(rows) for name, rows in examples.train.inside.items()} == dict.fromkeys(NAMES, 6)
    assert sum(map(len, examples.train.neutral.values())) == 5 * 6 + 2 * 6, (
        "other categories' files are neutral here"
    )
    assert all(example.own[-1] == run.backbone.stops[0] for example in examples.examples)


def test_the_runs_limit_caps_the_examples(run):
    few = learnt(run.sharing(limit=2))
    assert {name: len(rows) for name, rows in few.train.inside.items()} == dict.fromkeys(NAMES, 2)


def test_reference_answers_change_nothing(run, examples):
    answered = tuple(replace(row, answer="wrong") for row in run.prompts)
    other = run.sharing(prompts=replace(run.prompts, rows=answered))
    assert learnt(other).examples == examples.examples


def test_train_writes_tokens_and_a_record(run, trained):
    read = read_tokens(run.folder)
    assert read.digest == trained.digest
    assert read.categories == NAMES
    assert read.card["inputs"] == "x"
    record = json.loads((run.folder / TOKEN_RECORD).read_text())
    assert record["parameters"] == 3 * 2 * 128
    assert record["taught"] == dict.fromkeys(NAMES, 6)


def test_training_for_itself_has_one_run_a_category(run, examples, trained, tmp_path):
    alone = TokenTraining(run.sharing(folder=tmp_path), FEW, examples, replace(PLAN, joint=False))
    made = alone.train({})
    record = json.loads((tmp_path / TOKEN_RECORD).read_text())
    assert list(record["trained"]) == list(NAMES)
    assert not torch.equal(made.table, trained.table)


def test_an_added_category_leaves_the_others_to_the_bit(run, trained, tmp_path):
    wider = run.sharing(folder=tmp_path, authorisation=Authorisation((*NAMES, "registry")))
    more = TokenTraining(wider, FEW, learnt(wider), PLAN).add(trained, "registry")
    assert read_tokens(tmp_path).categories == ("apothecary", "network", "registry", "treasury")
    for name in NAMES:
        assert torch.equal(more.embeddings[name], trained.embeddings[name])


def test_a_category_without_prompts_is_an_error(run):
    bare = run.sharing(authorisation=Authorisation((*NAMES, "energy")))
    with pytest.raises(PromptError, match="prompts to be taught in every split, got none of energy in train"):
        learnt(bare)


def test_the_report_has_every_subset(run, trained):
    report = evaluate(run, RuleJudge(), trained, plan=SubsetPlan(prompts=4, latency_prompts=1))
    assert [each["order"] for each in report["subsets"]] == [1, 1, 1, 2, 2, 2, 3]
    for each in report["subsets"]:
        assert each["defence"]["n"] == 4 * each["order"]
        assert each["over_refusal"]["n"] == 4 * (3 - each["order"]) + 4 * 3 + 4 * 7
        for name in ("defence", "over_refusal", "utility"):
            assert set(each[name]) == {"rate", "low", "high", "k", "n"}
    assert not report["gate"]["passed"]
    assert any("insufficient evidence" in rule["reason"] for rule in report["gate"]["rules"])
    assert set(report["latency"]) == {"1", "2", "3"}
    page = render_tokens(report)
    assert "apothecary, network, treasury" in page
    assert "Gate failed" in page


def test_one_subset_alone(run, trained):
    plan = SubsetPlan(prompts=2, latency_prompts=0)
    report = evaluate(run, RuleJudge(), trained, [("treasury", "network")], plan)
    assert [each["active"] for each in report["subsets"]] == [["network", "treasury"]]
    assert report["latency"] == {}


def test_a_second_evaluation_generates_nothing(run, trained, monkeypatch, tmp_path):
    monkeypatch.setenv("PALETTE_CACHE", str(tmp_path))
    kept, plan = run.sharing(keep_replies=True), SubsetPlan(prompts=2, latency_prompts=0)
    active = [("network",), ("network", "treasury")]
    first = evaluate(kept, RuleJudge(), trained, active, plan)
    assert first == evaluate(run, RuleJudge(), trained, active, plan), "kept or not, a report is the same"

    def refuse(*given: object) -> None:
        raise AssertionError("a reply was generated again")

    monkeypatch.setattr(asking, "answered", refuse)
    assert evaluate(kept, RuleJudge(), trained, active, plan) == first
    with pytest.raises(AssertionError, match="generated again"):
        evaluate(kept, RuleJudge(), trained, [("treasury",)], plan)


def test_the_subject_of_tokens_is_no_other_one(run, trained):
    turned = trained.with_categories({"network": -trained.embeddings["network"]})
    every = [
        Subject(run.backbone),
        TokenSubject(run.backbone, tokens=trained),
        TokenSubject(run.backbone, tokens=turned),
        TokenSubject(run.backbone, tokens=replace(trained, place="before")),
        TokenSubject(run.backbone, tokens=trained, released=False),
    ]
    assert len({subject.identity for subject in every}) == len(every)
    alone, both = (
        TokenSubject(run.backbone, tokens=trained, active=names) for names in (NAMES[:1], NAMES[:2])
    )
    (prompt,) = run.render(list(run.prompts)[:1])
    assert len({tuple(subject.prompt(prompt)) for subject in (every[0], alone, both)}) == 3


def test_groups(run):
    rows = {(r.domain, r.kind): r for r in run.prompts}
    inside, alike = rows["network", "restricted"], rows["network", "benign"]
    assert group_of(inside, Role.BENIGN, ("network",), NAMES, "restrict") == "active"
    assert group_of(inside, Role.BENIGN, ("treasury",), NAMES, "restrict") == "inactive"
    assert group_of(alike, Role.BENIGN, ("network",), NAMES, "restrict") == "alike"
    assert group_of(rows["energy", "benign"], Role.BENIGN, ("network",), NAMES, "restrict") == "neutral"
    assert group_of(inside, Role.TARGET, ("network",), NAMES, "authorise") == "active"
    assert group_of(inside, Role.PRESERVE, ("network",), NAMES, "authorise") == "preserved"
    assert group_of(inside, Role.FLOOR, ("network",), NAMES, "authorise") == "floor"
    assert group_of(alike, Role.BENIGN, ("network",), NAMES, "authorise") == "neutral"


@pytest.fixture(scope="module")
def opened(tmp_path_factory) -> Run:
    """Two domains of a small organism, to be authorised."""
    backbone = load_backbone(organism.weights("shared"), "organism/shared")
    prompts = load_prompts(organism.prompts("shared"), answers=True)
    authorisation = authorise(["legal", "medical"], prompts.domains, floor=["weapons"])
    return Run.of(
        RunSettings(keep_replies=False), tmp_path_factory.mktemp("opened"), backbone, prompts, authorisation
    )


def opening_tokens(run: Run) -> ControlTokens:
    """Tokens of the run's domains, hardly trained."""
    few = replace(PLAN, prompts=4)
    return TokenTraining(run, FEW, learnt(run, few, replies_to_targets(run, (7, 8))), few).train({})


def replies_to_targets(run: Run, reply: tuple[int, ...], step: int = 1) -> Taught:
    rows = run.prompts.where(lambda row: run.authorisation.role(row) is Role.TARGET)
    return {tuple(ids): reply for ids in run.render(list(rows)[::step])}


def test_authorising_tokens_are_put_to_the_ordinary_gate_too(opened):
    few = replace(PLAN, prompts=4)
    examples = learnt(opened, few, replies_to_targets(opened, (7, 8)))
    assert {name: len(rows) for name, rows in examples.train.inside.items()} == {"legal": 4, "medical": 4}
    assert {example.taught for example in examples.examples} == {(), (7, 8)}
    tokens = TokenTraining(opened, FEW, examples, few).train({})
    plan = SubsetPlan(prompts=3, latency_prompts=0)
    report = evaluate(opened, RuleJudge(), tokens, [("medical",)], plan)
    (subset,) = report["subsets"]
    assert subset["over_refusal_of"]["active"]["n"] == 3, "of the opened domain's own prompts"
    assert "correct" in subset
    names = {rule["name"] for rule in report["gate"]["rules"]}
    assert {"defence.order_1", "target_refusal.medical", "preserved_refusal.legal", "floor_refusal"} <= names
    assert not report["gate"]["passed"]
    assert "cells" not in report, "all are words"


def test_an_authorisation_is_counted_in_each_cell(opened):
    """As an adapter is: what tokens do to requests beside pictures is not lost in what they do to words."""
    rows = tuple(replace(row, shown="blank" if i % 7 < 3 else None) for i, row in enumerate(opened.prompts))
    run, tokens = opened.sharing(prompts=PromptSet(rows)), opening_tokens(opened)
    plan = SubsetPlan(prompts=6, latency_prompts=0)
    report = evaluate(run, RuleJudge(), tokens, [("medical",)], plan)
    counted = report["cells"]["medical"]
    asked = [row for row in rows if row.split == "test"]
    assert list(counted) == ["text", "blank"]
    assert 0 < sum(cell["prompts"] for cell in counted.values()) < len(asked)
    for cell, found in counted.items():
        target = found["adapted"]["authorised_refused"]
        assert 0 < target["n"] < 6, "of the opened domain alone"
        (rule,) = (each for each in report["gate"]["rules"] if each["name"] == f"cell_target.{cell}")
        assert rule["value"] == pytest.approx(target["rate"], abs=1e-3)


def test_replies_to_the_floor_are_short(opened):
    examples = learnt(opened.sharing(floor_tokens=5), PLAN, replies_to_targets(opened, (7, 8)))
    floor = [row for rows in examples.train.floor.values() for row in rows]
    assert floor
    assert {len(examples.examples[row].own) for row in floor} == {5}
    assert max(len(example.own) for example in examples.examples) > 5


def test_a_target_that_nobody_has_a_reply_for_is_left_out(opened):
    few = replace(PLAN, prompts=4)
    whole, some = (learnt(opened, few, replies_to_targets(opened, (7,), step)) for step in (1, 2))
    missing = len(whole.examples) - len(some.examples)
    assert missing > 0
    taught = [sum(bool(example.taught) for example in each.examples) for each in (some, whole)]
    assert taught[0] == taught[1] - missing
