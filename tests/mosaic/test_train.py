"""The stages of control tokens: what is taught, resume, added categories, and the report."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from palette.mosaic.requests import ask, group_of, judged

from palette import organism
from palette.authorisation import Authorisation, Role, authorise
from palette.backbones import load_backbone
from palette.errors import PromptError
from palette.judging.rules import RuleJudge
from palette.mosaic import requests
from palette.mosaic.evaluation import PAGE, REPORT, evaluate
from palette.mosaic.examples import course
from palette.mosaic.files import FILE, read_tokens
from palette.mosaic.runs import RECORD, add, train
from palette.mosaic.settings import TokenEvaluateSettings, TrainSettings
from palette.mosaic.tokens import ControlTokens
from palette.prompts import load_prompts
from palette.run import Run
from palette.run_settings import RunSettings

FEW = TrainSettings(slots=2, epochs=1, positives=4, prompts=6, validation_prompts=3, batch=8, orders=2)
NAMES = ("apothecary", "network", "treasury")


@pytest.fixture(scope="module")
def assignment(tmp_path_factory) -> Run:
    backbone = load_backbone(organism.weights(), "organism")
    prompts = load_prompts(organism.CATEGORIES)
    return Run.of(
        RunSettings(keep_replies=False),
        tmp_path_factory.mktemp("tokens"),
        backbone,
        prompts,
        Authorisation(NAMES),
    )


@pytest.fixture(scope="module")
def examples(assignment):
    return course(assignment, "restrict", FEW)


@pytest.fixture(scope="module")
def trained(assignment, examples) -> ControlTokens:
    return train(assignment, "restrict", FEW, examples, {"inputs": "x"})


def test_positives_are_taught_one_refusal_and_all_else_the_own_reply(assignment, examples):
    refusals = {example.taught for example in examples.examples if example.taught}
    assert [assignment.backbone.decode(list(reply)) for reply in refusals] == [
        "i am sorry , but i cannot help with this request ."
    ]
    assert {name: len(rows) for name, rows in examples.train.inside.items()} == dict.fromkeys(NAMES, 6)
    assert sum(map(len, examples.train.neutral.values())) == 5 * 6 + 2 * 6, (
        "other categories' files are neutral here"
    )
    assert all(example.own[-1] == assignment.backbone.stops[0] for example in examples.examples)


def test_reference_answers_change_nothing(assignment, examples):
    answered = tuple(replace(row, answer="wrong") for row in assignment.prompts)
    other = assignment.sharing(prompts=replace(assignment.prompts, rows=answered))
    assert course(other, "restrict", FEW).examples == examples.examples


def test_train_writes_tokens_and_a_record(assignment, trained):
    read = read_tokens(assignment.folder)
    assert read.digest == trained.digest
    assert read.categories == NAMES
    assert read.card["inputs"] == "x"
    record = json.loads((assignment.folder / RECORD).read_text())
    assert record["parameters"] == 3 * 2 * 128
    assert record["taught"] == dict.fromkeys(NAMES, 6)


def test_training_for_itself_has_one_run_a_category(assignment, examples, trained, tmp_path):
    alone = assignment.sharing(folder=tmp_path)
    found = train(alone, "restrict", FEW.model_copy(update={"joint": False}), examples, {})
    record = json.loads((tmp_path / RECORD).read_text())
    assert list(record["trained"]) == list(NAMES)
    assert not torch.equal(found.table, trained.table)


def test_an_added_category_leaves_the_others_to_the_bit(assignment, trained, tmp_path):
    wider = assignment.sharing(folder=tmp_path, authorisation=Authorisation((*NAMES, "registry")))
    more = add(wider, FEW, course(wider, "restrict", FEW), trained, "registry")
    assert read_tokens(tmp_path).categories == ("apothecary", "network", "registry", "treasury")
    for name in NAMES:
        assert torch.equal(more.embeddings[name], trained.embeddings[name])


def test_a_category_without_prompts_is_an_error(assignment):
    bare = assignment.sharing(authorisation=Authorisation((*NAMES, "energy")))
    with pytest.raises(PromptError, match="prompts to be taught in every split, got none of energy in train"):
        course(bare, "restrict", FEW)


def test_the_report_has_every_subset(assignment, trained):
    settings = TokenEvaluateSettings(prompts=4, orders=3, latency_prompts=1)
    report = evaluate(assignment, settings, RuleJudge(), trained, {})
    assert json.loads((assignment.folder / REPORT).read_text()) == report
    assert [one["order"] for one in report["subsets"]] == [1, 1, 1, 2, 2, 2, 3]
    for one in report["subsets"]:
        assert one["defence"]["n"] == 4 * one["order"]
        assert one["over_refusal"]["n"] == 4 * (3 - one["order"]) + 4 * 3 + 4 * 7
        for name in ("defence", "over_refusal", "utility"):
            assert set(one[name]) == {"rate", "low", "high", "k", "n"}
    assert not report["gate"]["passed"]
    assert any("insufficient evidence" in rule["reason"] for rule in report["gate"]["rules"])
    assert set(report["latency"]) == {"1", "2", "3"}
    page = (assignment.folder / PAGE).read_text()
    assert "apothecary, network, treasury" in page
    assert "Gate failed" in page
    assert (assignment.folder / FILE).is_file()


def test_one_subset_alone(assignment, trained, tmp_path):
    settings = TokenEvaluateSettings(prompts=2, latency_prompts=0)
    elsewhere = assignment.sharing(folder=tmp_path)
    report = evaluate(elsewhere, settings, RuleJudge(), trained, {}, [("treasury", "network")])
    assert [one["active"] for one in report["subsets"]] == [["network", "treasury"]]
    assert report["latency"] == {}


def test_groups(assignment):
    rows = {(r.domain, r.kind): r for r in assignment.prompts}
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


def test_authorising_tokens_are_put_to_the_ordinary_gate_too(opened):
    rows = opened.prompts.where(lambda row: opened.authorisation.role(row) is Role.TARGET)
    taught = {tuple(ids): (7, 8) for ids in opened.render(rows)}
    few = FEW.model_copy(update={"prompts": 4})
    examples = course(opened, "authorise", few, taught)
    assert {name: len(each) for name, each in examples.train.inside.items()} == {"legal": 4, "medical": 4}
    assert {example.taught for example in examples.examples} == {(), (7, 8)}
    tokens = train(opened, "authorise", few, examples, {})
    settings = TokenEvaluateSettings(prompts=3, latency_prompts=0)
    report = evaluate(opened, settings, RuleJudge(), tokens, {}, [("medical",)])
    (one,) = report["subsets"]
    assert one["over_refusal_of"]["active"]["n"] == 3, "of the opened domain's own prompts"
    assert "correct" in one
    names = {rule["name"] for rule in report["gate"]["rules"]}
    assert {"defence.order_1", "target_refusal.medical", "preserved_refusal.legal", "floor_refusal"} <= names
    assert not report["gate"]["passed"]


def test_the_backbones_own_replies_are_marked_once(opened, monkeypatch):
    asked = ask(opened, TokenEvaluateSettings(prompts=2), "authorise")
    marked = [mark is not None for mark in asked.correct]
    rows = zip(asked.rows, asked.roles, strict=True)
    assert marked == [row.answer is not None and role is not Role.FLOOR for row, role in rows]
    assert 0 < sum(marked) < len(marked)
    judge, calls = RuleJudge(), []
    monkeypatch.setattr(requests, "correct", lambda *given: calls.append(given) or True)
    for count, subset in enumerate([("legal",), ("legal", "medical")], start=1):
        about = (("legal", "medical"), "authorise")
        found = judged(opened.backbone, about, judge, asked, subset, asked.own)
        assert [one.correct_base for one in found] == asked.correct
        assert [one.correct is not None for one in found] == marked
        assert len(calls) == count * sum(marked), "the subset's replies alone"


def test_a_target_that_nobody_has_a_reply_for_is_left_out(opened):
    rows = list(opened.prompts.where(lambda row: opened.authorisation.role(row) is Role.TARGET))
    few = FEW.model_copy(update={"prompts": 4})
    whole = course(opened, "authorise", few, {tuple(ids): (7,) for ids in opened.render(rows)})
    some = course(opened, "authorise", few, {tuple(ids): (7,) for ids in opened.render(rows[::2])})
    missing = len(whole.examples) - len(some.examples)
    assert missing > 0
    assert (
        sum(map(bool, (one.taught for one in some.examples)))
        == sum(map(bool, (one.taught for one in whole.examples))) - missing
    )
