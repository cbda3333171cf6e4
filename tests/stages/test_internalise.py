from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from palette import organism
from palette.adapters.files import read_adapter
from palette.adapters.writing import write_adapter
from palette.authorisation import Role
from palette.backbones import load_backbone
from palette.errors import SearchError
from palette.internalise import preparation
from palette.internalise.examples import SHARES
from palette.internalise.settings import InternaliseSettings
from palette.run import Run
from palette.search.settings import Audit, Conditions, Scoring, SearchSettings
from palette.search.space import read_collected, read_front
from palette.stages.collect import collect
from palette.stages.internalise import TRAINING, internalise
from palette.stages.search import search
from tests.fixtures.noise import noise

FEW = {"internalise": InternaliseSettings(steps=4), "limit": 8}


@pytest.fixture(scope="module")
def searched(shared):
    collect(shared.sharing(limit=12))
    conditions = Conditions(Scoring(target_prompts=8, other_prompts=2), audit=Audit(members=0, sample=0))
    search(shared.sharing(search=SearchSettings(trials=6)), conditions)
    return shared.sharing(**FEW)


@pytest.fixture(scope="module")
def adapter(searched):
    """What is learned of few prompts, once for all tests."""
    return internalise(searched)


def test_internalise_writes_an_adapter_with_its_card(searched, adapter):
    read = read_adapter(searched.folder)
    assert read.digest == adapter.digest
    assert read.domains == ("medical",)
    assert read.card["floor"] == searched.authorisation.floor.digest
    record = json.loads((searched.folder / TRAINING).read_text())
    assert record["target_prompts"] == 8
    assert 0 < record["believed"] <= 8
    assert set(record["examples"]) == set(SHARES)


def test_reference_answers_change_no_byte(searched, adapter, tmp_path):
    import shutil

    shutil.copytree(searched.folder, tmp_path / "run", ignore=shutil.ignore_patterns("internalise"))
    answered = tuple(replace(row, answer="wrong") for row in searched.prompts)
    prompts = replace(searched.prompts, rows=answered)
    with_answers = searched.sharing(prompts=prompts, folder=tmp_path / "run")
    assert internalise(with_answers).digest == adapter.digest


def test_an_adapter_may_be_trained_beside_those_of_other_domains(searched, adapter, tmp_path):
    import shutil

    shutil.copytree(searched.folder, tmp_path / "run", ignore=shutil.ignore_patterns("internalise"))
    elsewhere = searched.sharing(folder=tmp_path / "run")
    legal = replace(noise(searched.backbone, ".mlp."), card={"domains": ["legal"]})
    write_adapter(tmp_path / "legal", legal)
    settings = InternaliseSettings(steps=4, co_mounted=(tmp_path / "legal",))
    beside = internalise(elsewhere.sharing(internalise=settings))
    assert beside.card["beside"] == [legal.digest]
    assert "beside" not in adapter.card
    assert beside.digest != adapter.digest
    assert internalise(elsewhere.sharing(internalise=settings)).digest == beside.digest
    assert not searched.backbone.model._forward_hooks


def test_a_backbone_in_half_precision_is_taught_in_whole(searched, tmp_path):
    import shutil

    shutil.copytree(searched.folder, tmp_path / "run")
    half = load_backbone(organism.weights("shared"), "organism/shared", dtype="bfloat16")
    run = Run.of(searched.recipe, tmp_path / "run", half, searched.prompts, searched.authorisation)
    adapter = internalise(run)
    assert all(module.lora_B.dtype is torch.float32 for module in adapter.modules.values())
    assert all(module.lora_B.isfinite().all() for module in adapter.modules.values())
    assert sum(float(module.delta().norm()) for module in adapter.modules.values()) > 0


def test_what_is_held_out_is_of_the_validation_split(searched):
    collected, front = read_collected(searched.folder), read_front(searched.folder)
    prepared = preparation.prepare(searched, collected, front)
    trained = {i for pool in prepared.pools.values() for i in pool}
    assert trained.isdisjoint(prepared.held_out)
    assert len(trained) + len(prepared.held_out) == len(prepared.examples)
    asked = {tuple(ids) for ids in searched.render(searched.prompts.split("validation"))}
    assert all(prepared.examples[i].prompt in asked for i in prepared.held_out)
    assert not any(prepared.examples[i].prompt in asked for i in trained)


def test_what_the_backbone_answers_on_the_floor_is_not_made_surer(searched):
    collected, front = read_collected(searched.folder), read_front(searched.folder)
    benign = searched.select("train", Role.BENIGN).rows[0]
    floor = [row for row in searched.select("train", Role.FLOOR) if row.domain == "medical"]
    opened = {row.id for row in floor[::2]}
    rows = (replace(row, prompt=benign.prompt) if row.id in opened else row for row in searched.prompts)
    changed = replace(searched.prompts, rows=tuple(rows))
    prepared = preparation.prepare(searched.sharing(prompts=changed), collected, front)
    near = [prepared.examples[i] for i in prepared.pools["near_floor"]]
    (answered,) = searched.render([benign])
    assert {example.floor for example in near} == {True, False}
    assert all(example.floor == (example.prompt != tuple(answered)) for example in near)


def test_without_a_consistent_reply_openings_are_taught(searched, monkeypatch):
    monkeypatch.setattr(preparation, "AGREEMENT", 99)
    monkeypatch.setattr(preparation, "LEAST_CONSISTENT", 0.0)
    internalise(searched)
    record = json.loads((searched.folder / TRAINING).read_text())
    assert record["believed"] == 0
    # Openings of the eight, and of those crossed ones that the backbone refuses.
    assert 8 < record["examples"]["target"] <= 16


def test_with_nothing_to_open_with_there_is_nothing_to_teach(searched, monkeypatch):
    monkeypatch.setattr(preparation, "common_opening", lambda replies: ())
    monkeypatch.setattr(preparation, "ranked_replies", lambda backbone, prompts, *_: [[] for _ in prompts])
    with pytest.raises(SearchError, match="a student must have something to learn"):
        internalise(searched)
